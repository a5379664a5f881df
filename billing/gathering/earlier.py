"""What a bill takes from the bills before it: energy used in the step year, energy carried, demands of past months."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from billing import store
from billing.calendar import billing_month, step_year_start
from billing.charges import DemandCharge, NetMetering, Ratchet, StepAdder, StepCharge, StepTouCharge
from billing.gathering.meters import demands
from billing.gathering.places import when_text
from billing.model import Derived, Determinant, Hold, Period, UsedBefore
from billing.names import CARRIED, CARRIED_ON, RATCHET, TOTAL, demand_name
from billing.rating.tariff import one_of, yearly_steps
from billing.segments import Case
from billing.store import Issued
from headend.civil import zone
from headend.model import Window
from headend.store.registry import AccountRow

__all__ = ["carried", "earlier", "ratchet", "used_before", "yearly"]

Yearly = StepCharge | StepAdder | StepTouCharge


def yearly(period: Period) -> tuple[Yearly, str] | None:
    """A charge of the period whose steps fill over a year, and the zone of its tariff."""
    for segment in reversed(period.segments):
        if (found := yearly_steps(segment.tariff)) is not None:
            return found, segment.tariff.zone
    return None


def ratchet_charge(period: Period) -> tuple[DemandCharge, Ratchet] | None:
    """The first demand charge of the period that looks back at earlier months."""
    return next(((charge, charge.ratchet) for charge in demands(period) if charge.ratchet is not None), None)


def earlier(conn: Connection, cases: Sequence[Case]) -> dict[str, list[Issued]]:
    """By account what the bills of a batch need of those before them that stand."""
    names, accounts, start, end = set[str](), set[str](), None, None
    periods = {id(case.period): _asked(case.period) for case in {id(one.period): one for one in cases}.values()}
    for case in cases:
        asked, since = periods[id(case.period)]
        if asked:
            names |= asked
            accounts.add(case.account.id)
            start = since if start is None else min(start, since)
            end = case.period.window.start if end is None else max(end, case.period.window.start)
    if start is None or end is None:
        return {}
    return store.issued_values(conn, sorted(accounts), sorted(names), Window(min(start, end), end))


def _asked(period: Period) -> tuple[set[str], datetime]:
    """Names of determinants of earlier bills that are needed, and the instant from which."""
    names, since = set[str](), period.window.start
    if (steps := yearly(period)) is not None:
        names.add(TOTAL)
        since = min(since, step_year_start(period.window.start, steps[0].year_start, steps[1]))
    net = one_of(period.tariff, NetMetering)
    if net is not None and net.carry:
        names.add(CARRIED_ON)
        since = min(since, period.month.start - timedelta(days=32))
    if (asked := ratchet_charge(period)) is not None:
        names.add(demand_name(asked[0].period))
        since = min(since, _months_before(period, asked[1].months)[-1].start)
    return names, since


def _months_before(period: Period, count: int) -> list[Window]:
    """The civil months before the period's, the latest first."""
    local = period.month.start.astimezone(zone(period.tariff.zone))
    number = local.year * 12 + local.month - 1
    return [billing_month(n // 12, n % 12 + 1, period.tariff.zone) for n in range(number - 1, number - 1 - count, -1)]


def used_before(
    account: AccountRow, charge: Yearly, window: Window, zone_name: str, issued: Sequence[Issued]
) -> tuple[Decimal | None, tuple[UsedBefore, ...], list[Hold]]:
    """Energy used in the step year before `window`: by issued bills since the year's start, without a gap.

    Where the bills do not reach back that far, what the account declares (`step_used`) and the bills since then.
    """
    year = step_year_start(window.start, charge.year_start, zone_name)
    anchors: list[tuple[datetime, tuple[UsedBefore, ...]]] = [(year, ())]
    if account.step_used is not None and account.step_used_at is not None and account.step_used_at >= year:
        anchors.append((account.step_used_at, (UsedBefore("", account.step_used, account.step_used_at),)))
    reached = year
    for anchor, declared in anchors:
        chain, reached = declared, anchor
        for bill in issued:
            if bill.name == TOTAL and bill.window.start == reached and bill.window.end <= window.start:
                chain, reached = (*chain, UsedBefore(bill.number, bill.value, bill.window.end)), bill.window.end
        if reached == window.start:
            return sum((part.energy for part in chain), Decimal(0)), chain, []
    what = (
        f"the energy used in the step year since {when_text(year, zone_name)} is not known: issued bills and the "
        f"account's step_used reach {when_text(reached, zone_name)}, not {when_text(window.start, zone_name)}"
    )
    remedy = "issue the earlier months first, or set step_used and step_used_at on the account"
    return None, (), [Hold("step_year_unknown", what, remedy, start=year, end=window.start)]


def carried(case: Case, charge: NetMetering, issued: Sequence[Issued]) -> tuple[Determinant, list[Hold]]:
    """Energy that the bill before kept for this one; nothing at the start of the year or of the account."""
    period, zone_name = case.period, case.period.tariff.zone
    start = period.window.start
    new_year = step_year_start(start, charge.year_start, zone_name) == start
    if new_year or case.account.since >= start:
        return Determinant(CARRIED, Decimal(0), "kWh"), []
    before = [bill for bill in issued if bill.name == CARRIED_ON and bill.window.end == start]
    if before:
        found = before[-1]
        parents = (Derived(f"bill {found.number}", found.value),)
        return Determinant(CARRIED, found.value, "kWh", parents=parents), []
    what = f"no bill that ends at {when_text(start, zone_name)} tells what energy was carried on"
    remedy = "issue the month before first; a release bills it with nothing carried"
    return Determinant(CARRIED, Decimal(0), "kWh"), [Hold("carried_unknown", what, remedy, start=start, review=True)]


def kept_on(case: Case, charge: NetMetering) -> bool:
    """Whether what is left over is kept for later months: not in the last month of the year or of the account."""
    end, until = case.period.month.end, case.account.until
    last = step_year_start(end, charge.year_start, case.period.tariff.zone) == end
    return not last and (until is None or until > end)


def ratchet(case: Case, issued: Sequence[Issued]) -> tuple[Determinant | None, list[Hold]]:
    """The highest demand of the months a ratchet looks back at; months before the account began are none of them."""
    asked = ratchet_charge(case.period)
    if asked is None:
        return None, []
    charge, rule = asked
    name, zone_name = demand_name(charge.period), case.period.tariff.zone
    by_end: Mapping[datetime, Issued] = {bill.window.end: bill for bill in issued if bill.name == name}
    found, unknown = list[Issued](), list[str]()
    for month in _months_before(case.period, rule.months):
        first = month.start.astimezone(zone(zone_name))
        if first.month not in rule.of_months or case.account.since >= month.end:
            continue
        bill = by_end.get(month.end)
        if bill is None:
            unknown.append(f"{first:%Y-%m}")
        else:
            found.append(bill)
    top = max(found, key=lambda bill: bill.value, default=None)
    parents = () if top is None else (Derived(f"bill {top.number}", top.value),)
    value = Decimal(0) if top is None else top.value
    determinant = Determinant(RATCHET, value, "kW", parents=parents)
    if not unknown:
        return determinant, []
    what = f"the demand of {', '.join(sorted(unknown))} is not known, which the minimum of this month's rests on"
    remedy = "issue these months first; a release bills it by the months that are known"
    return determinant, [Hold("ratchet_unknown", what, remedy, count=len(unknown), review=True)]
