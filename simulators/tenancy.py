"""Who pays for what a meter counts, and since when: tenants that move, meters that are exchanged, what was agreed.

Days are those of the town's last closed month, whichever that is, so that its bills always show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulators.before_meter import Transformer, read_transformer
from simulators.household import DAY_S
from simulators.toml_table import Table

if TYPE_CHECKING:
    from simulators.meter_file import MeterPlan

__all__ = ["NO_TENANCY", "Account", "Stand", "Tenancy", "books", "check_behind", "check_exchanges", "read_tenancy"]

_FIRST_DAY, _LAST_DAY = 2, 28  # within every month


@dataclass(frozen=True, slots=True)
class Tenancy:
    """What befalls the account behind a meter. replaces: the meter that was removed on `replaces_on` when this came.
    next_account: who pays from `moves_on` on. people: of the household. capacity_kva: installed. contract_percent: of
    the closed month's true maximum demand that was agreed as its contract. transformer: before the meter, its loss is
    billed too. behind: the meter that counts this one's energy as well."""

    replaces: str = ""
    replaces_on: int = 0
    next_account: str = ""
    next_customer: str = ""
    moves_on: int = 0
    people: int = 0
    capacity_kva: int = 0
    contract_percent: int = 0
    transformer: Transformer | None = None
    behind: str = ""


NO_TENANCY = Tenancy()


@dataclass(frozen=True, slots=True)
class Stand:
    """A meter at a usage point over the seconds `[since_s, until_s)`; until_s None: it still stands there."""

    meter: MeterPlan
    since_s: int
    until_s: int | None = None

    def within(self, start_s: int, end_s: int) -> tuple[int, int] | None:
        """The part of `[start_s, end_s)` in which it stands there, None if there is none."""
        first, last = max(start_s, self.since_s), end_s if self.until_s is None else min(end_s, self.until_s)
        return (first, last) if first < last else None


@dataclass(frozen=True, slots=True)
class Account:
    """One who pays, in `[since_s, until_s)`, for what the meters of `stands` count, one after the other."""

    name: str
    customer: str
    since_s: int
    until_s: int | None
    stands: tuple[Stand, ...]

    @property
    def meter(self) -> MeterPlan:
        """The meter that stands there now."""
        return self.stands[-1].meter

    @property
    def first_meter(self) -> MeterPlan:
        """The meter the account was opened with: its plan holds the account's tariff and terms."""
        return self.stands[0].meter


def read_tenancy(table: Table, *, single: bool) -> Tenancy:
    """The keys of a [[meter]], and of a [[group]] those that many may share."""
    shared = Tenancy(
        people=table.integer("people", 0, 0, 99),
        capacity_kva=table.integer("capacity_kva", 0, 0, 1_000_000),
        contract_percent=table.integer("contract_percent", 0, 0, 1000),
    )
    if not single:
        return shared
    replaces, following = table.text("replaces", "-"), table.text("next_account", "-")
    behind = table.text("behind", "-")
    found = replace(
        shared,
        replaces="" if replaces == "-" else replaces,
        replaces_on=table.integer("replaces_on", 0, 0, _LAST_DAY),
        next_account="" if following == "-" else following,
        next_customer=table.text("next_customer", f"Customer {following}"),
        moves_on=table.integer("moves_on", 0, 0, _LAST_DAY),
        transformer=read_transformer(table),
        behind="" if behind == "-" else behind,
    )
    for key, day, given in (
        ("replaces_on", found.replaces_on, found.replaces),
        ("moves_on", found.moves_on, found.next_account),
    ):
        if bool(given) != (day >= _FIRST_DAY):
            what = "missing or too early" if given else "without what happens on it"
            with_it = "replaces" if key == "replaces_on" else "next_account"
            table.wrong(key, what, f"write it with {with_it}, a day from {_FIRST_DAY} to {_LAST_DAY}")
    return found


def check_exchanges(file: str, meters: Sequence[MeterPlan], problems: list[str]) -> None:
    """A meter takes the place of one that is in the file, of its own kind, and of no other's place."""
    known = {meter.meter_id: meter for meter in meters}
    taken: set[str] = set()
    for meter in meters:
        old = known.get(meter.tenancy.replaces)
        if not meter.tenancy.replaces:
            continue
        what = f"{file}: meter {meter.meter_id}: replaces {meter.tenancy.replaces}"
        if old is None or old is meter or old.tenancy.replaces or old.meter_id in taken:
            problems.append(f"{what}, which can't be -> name a meter_id of the file that is replaced only once")
        elif {"mqtt", "1997"} & {old.spec.form, meter.spec.form} or old.dlms or meter.dlms:
            problems.append(f"{what}: only meters of DL/T 645-2007 are exchanged here -> let both be such meters")
        elif old.tenancy.next_account or meter.tenancy.next_account:
            problems.append(f"{what}, and its tenant moves -> let one of both happen")
        taken.add(meter.tenancy.replaces)


def check_behind(file: str, meters: Sequence[MeterPlan], problems: list[str]) -> None:
    """A meter behind another stands there all the time, and both are billed by the same hours."""
    known = {meter.meter_id: meter for meter in meters}
    moved = {meter.tenancy.replaces for meter in meters}
    for meter in meters:
        if not meter.tenancy.behind:
            continue
        what = f"{file}: meter {meter.meter_id}: behind {meter.tenancy.behind}"
        before = known.get(meter.tenancy.behind)
        if before is None or before is meter or before.tenancy.behind:
            problems.append(f"{what}, which can't be -> name a meter_id of the file that is behind none itself")
        elif before.tariff != meter.tariff:
            problems.append(f"{what}, of another tariff -> let both have the same one")
        elif any(one.tenancy.replaces or one.tenancy.next_account for one in (before, meter)) or moved & {
            before.meter_id,
            meter.meter_id,
        }:
            problems.append(f"{what}: meter or tenant change there -> let nothing happen to both")


def books(
    meters: Sequence[MeterPlan], installed_s: int, month_s: int, offset_s: int
) -> tuple[tuple[MeterPlan, ...], dict[str, Account], tuple[Stand, ...]]:
    """The meters as they are now, the accounts by name, and which meter stands where, in the order of `meters`.

    month_s: start of the last closed month. A meter that replaces another has its account, usage point, tariff and
    load; the other one counts no longer from then on.
    """
    day = {meter.meter_id: (month_s + offset_s) // DAY_S + meter.tenancy.replaces_on - 1 for meter in meters}
    follower = {meter.tenancy.replaces: meter for meter in meters if meter.tenancy.replaces}
    known = {meter.meter_id: meter for meter in meters}
    plans = tuple(_as_it_is(meter, known, follower, day) for meter in meters)
    stands = tuple(
        Stand(
            plan,
            day[plan.meter_id] * DAY_S - offset_s if plan.tenancy.replaces else installed_s,
            day[follower[plan.meter_id].meter_id] * DAY_S - offset_s if plan.meter_id in follower else None,
        )
        for plan in plans
    )
    return plans, _accounts(stands, installed_s, month_s), stands


def _as_it_is(
    meter: MeterPlan, known: Mapping[str, MeterPlan], follower: Mapping[str, MeterPlan], day: Mapping[str, int]
) -> MeterPlan:
    if (new := follower.get(meter.meter_id)) is not None:
        return replace(meter, load=replace(meter.load, removed_day=day[new.meter_id]))
    if meter.tenancy.replaces:
        old = known[meter.tenancy.replaces]
        return replace(
            meter,
            account=old.account,
            usage_point=old.usage_point,
            customer=old.customer,
            district=old.district,
            tariff=old.tariff,
            load=replace(old.load, installed_day=day[meter.meter_id]),
        )
    return meter


def _accounts(stands: Sequence[Stand], installed_s: int, month_s: int) -> dict[str, Account]:
    by_account: dict[str, tuple[Stand, ...]] = {}
    for stand in stands:
        by_account[stand.meter.account] = (*by_account.get(stand.meter.account, ()), stand)
    found: dict[str, Account] = {}
    for name, own in by_account.items():
        ordered = tuple(sorted(own, key=lambda stand: stand.since_s))
        first, term = ordered[0].meter, ordered[0].meter.tenancy
        moved_s = month_s + (term.moves_on - 1) * DAY_S if term.next_account else None
        found[name] = Account(name, first.customer, installed_s, moved_s, ordered)
        if moved_s is not None:
            found[term.next_account] = Account(term.next_account, term.next_customer, moved_s, None, ordered)
    return found
