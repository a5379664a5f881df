"""What an account's bill of a month rests on, from what the displays of its meters truly show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from simulators.household import DAY_S, WRAP_CENTS, Register
from simulators.tenancy import Account, Stand
from simulators.truth_bills import (
    Facts,
    MonthStep,
    Season,
    Tariff,
    Tou,
    TrueLine,
    TwoPart,
    YearStep,
    YearStepTou,
    bill_lines,
    season_of,
)

__all__ = ["TrueAccounts"]

_DEMAND_S = 900


@dataclass(frozen=True, slots=True)
class TrueAccounts:
    """The accounts of a town. span: start and end of a month (epoch seconds). month_s: start of the last closed one,
    in `closed`. offset_s: local time less UTC. installed_s: when the meters began to count."""

    accounts: Mapping[str, Account]
    registers: Mapping[str, Register]
    tariffs: Mapping[str, Tariff]
    span: Callable[[int, int], tuple[int, int]]
    closed: tuple[int, int]
    offset_s: int
    installed_s: int

    @property
    def month_s(self) -> int:
        return self.span(*self.closed)[0]

    def bill(self, name: str, year: int, month: int) -> list[TrueLine]:
        """The lines of an account's bill; none where it was not in force in that month."""
        account = self.accounts[name]
        tariff = self.tariffs[account.first_meter.tariff]
        month_s, month_end_s = self.span(year, month)
        start_s = max(month_s, account.since_s)
        end_s = month_end_s if account.until_s is None else min(month_end_s, account.until_s)
        if start_s >= end_s:
            return []
        used = self._used(account, start_s, end_s)
        energy: dict[str, int] = {}
        if isinstance(tariff, Tou | YearStepTou | TwoPart):
            energy = self._by_period(account, season_of(tariff.seasons, month), start_s, end_s)
        if isinstance(tariff, Tou):
            for other in self._behind(account):
                used -= self._used(other, start_s, end_s)
                for period, own in self._by_period(other, season_of(tariff.seasons, month), start_s, end_s).items():
                    energy[period] -= own
        before = self.step_used(account, year, start_s) if isinstance(tariff, YearStep | YearStepTou) else 0
        days = ((end_s - start_s) // DAY_S, (month_end_s - month_s) // DAY_S)
        facts = self._facts(account, tariff, start_s, end_s, days)
        if (transformer := account.first_meter.tenancy.transformer) is not None:
            lost, drawn = transformer.losses(used, facts.reactive, (end_s - start_s) // 3600)
            used, energy["flat"] = used + lost * 100, energy["flat"] + lost * 100
            facts = replace(facts, reactive=facts.reactive + drawn * 100)
        return bill_lines(tariff, month, used, energy, before, facts)

    def _behind(self, account: Account) -> list[Account]:
        """Those whose energy the account's meter counts as well."""
        meter = account.meter.meter_id
        return [other for other in self.accounts.values() if other.meter.tenancy.behind == meter]

    def step_used(self, account: Account, year: int, at_s: int) -> int:
        """0.01 kWh used in calendar `year` before `at_s`, on these meters and on the one that stood there earlier."""
        start_s = max(self.span(year, 1)[0], account.since_s)
        return self._used(account, start_s, at_s) + self._used_elsewhere(account, year)

    def contract_kw(self, account: Account) -> int:
        """What was agreed: a share of the last closed month's true maximum, in whole kW."""
        maximum = self._maximum(account, *self.span(*self.closed))
        return max(1, maximum * account.first_meter.tenancy.contract_percent // 10_000)

    def _facts(self, account: Account, tariff: Tariff, start_s: int, end_s: int, days: tuple[int, int]) -> Facts:
        term = account.first_meter.tenancy
        if isinstance(tariff, MonthStep):
            changed_s = self.month_s + (tariff.changes_on - 1) * DAY_S
            later = self._used(account, max(start_s, changed_s), end_s) if tariff.changes_on else 0
            return Facts(later=later, people=term.people)
        if isinstance(tariff, TwoPart):
            register = tariff.demand == "register"
            return Facts(
                reactive=self._reactive(account, start_s, end_s),
                maximum=self._kept(account, start_s, end_s) if register else self._maximum(account, start_s, end_s),
                contract=self.contract_kw(account) * 100,
                capacity=term.capacity_kva * 100,
            )
        return Facts(days=days)

    def _used_elsewhere(self, account: Account, year: int) -> int:
        """What `cross_kwh` needs on an earlier meter so that the limit falls amid the last closed month. Nothing in
        January, when the year's steps have just begun."""
        closed_year, month = self.closed
        cross_kwh = account.first_meter.cross_kwh
        if cross_kwh is None or year != closed_year or month == 1:
            return 0
        start_s, end_s = self.span(year, month)
        since_s = max(self.span(year, 1)[0], self.installed_s)
        half = self._used(account, start_s, end_s) // 2
        return max(0, cross_kwh * 100 - half - self._used(account, since_s, start_s))

    def _used(self, account: Account, start_s: int, end_s: int) -> int:
        """Displayed energy in [start, end), rollover and multiplier counted in; 0.01 kWh."""
        return sum(self._counted(stand, *part) for stand, part in _parts(account, start_s, end_s))

    def _counted(self, stand: Stand, start_s: int, end_s: int) -> int:
        shown = self.registers[stand.meter.meter_id].shown
        return (shown(end_s) - shown(start_s)) % WRAP_CENTS * stand.meter.multiplier

    def _reactive(self, account: Account, start_s: int, end_s: int) -> int:
        """Displayed reactive energy in [start, end); 0.01 kvarh. These meters' displays stay below their rollover."""
        total = 0
        for stand, (first_s, last_s) in _parts(account, start_s, end_s):
            shown, percent = self.registers[stand.meter.meter_id].shown, stand.meter.spec.reactive_percent
            total += (shown(last_s) * percent // 100 - shown(first_s) * percent // 100) * stand.meter.multiplier
        return total

    def _maximum(self, account: Account, start_s: int, end_s: int) -> int:
        """The highest mean power over a quarter of an hour, by the displays; 0.01 kW."""
        return max(
            self._counted(stand, at_s, at_s + _DEMAND_S) * (3600 // _DEMAND_S)
            for stand, (first_s, last_s) in _parts(account, start_s, end_s)
            for at_s in range(first_s, last_s, _DEMAND_S)
        )

    def _kept(self, account: Account, start_s: int, end_s: int) -> int:
        """The highest mean power over a quarter of an hour that a meter keeps itself, finer than it shows its energy;
        0.0001 kW."""
        highest = 0
        for stand, (first_s, last_s) in _parts(account, start_s, end_s):
            used = self.registers[stand.meter.meter_id].household.used_units
            marks = [used(at_s) for at_s in range(first_s, last_s + 1, _DEMAND_S)]
            best = max((after - before for before, after in pairwise(marks)), default=0)
            highest = max(highest, best * (3600 // _DEMAND_S) * stand.meter.multiplier)
        return highest

    def _by_period(self, account: Account, season: Season, start_s: int, end_s: int) -> dict[str, int]:
        """Energy by tariff period: an interval of the meter's step belongs to the period it starts in."""
        energy = {period: 0 for _, _, period in season.windows}
        for minute, used in self._intervals(account, start_s, end_s):
            period = next(name for first, last, name in season.windows if first <= minute < last)
            energy[period] += used
        return energy

    def _intervals(self, account: Account, start_s: int, end_s: int) -> Iterator[tuple[int, int]]:
        """Local minute of the day at which each interval starts, and its displayed energy in 0.01 kWh."""
        for stand, (first_s, last_s) in _parts(account, start_s, end_s):
            shown = self.registers[stand.meter.meter_id].shown
            step_s = stand.meter.spec.step_min * 60
            before = shown(first_s)
            for at_s in range(first_s, last_s, step_s):
                after = shown(at_s + step_s)
                minute = (at_s + self.offset_s) % DAY_S // 60
                yield minute, (after - before) % WRAP_CENTS * stand.meter.multiplier
                before = after


def _parts(account: Account, start_s: int, end_s: int) -> Iterator[tuple[Stand, tuple[int, int]]]:
    """The meters that stood there within [start, end), each with its part of it."""
    for stand in account.stands:
        part = stand.within(start_s, end_s)
        if part is not None:
            yield stand, part
