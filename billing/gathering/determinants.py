"""What bills are computed from, gathered from the store; what can't be had is a `Hold`, never a guess.

The energy of a segment is the difference of the register at its ends, for each meter that stood there, times its
multiplier; what is lost before the meter is added, what belongs to points behind it taken off. The energy of a TOU
period is the sum of the intervals that start in it; the sums must meet the register difference: exactly where both come
from one curve, within one 0.01 kWh at each end where the meter gave them apart.

Batched: everything a list of cases needs is read in few statements and summed in arrays; a bill alone is a list of one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection

from billing.charges import (
    CapacityCharge,
    DemandCharge,
    MarketCharge,
    NetMetering,
    PowerFactorCharge,
    StepAdder,
    StepCharge,
    StepTouCharge,
)
from billing.gathering import demand
from billing.gathering import earlier as gather_earlier
from billing.gathering.intervals import INTERVALS, Hours
from billing.gathering.meters import Meters, demands, needs_energy
from billing.gathering.places import Installed, Spot
from billing.gathering.registers import Amount
from billing.gathering.shares import Energies, Network, shared
from billing.gathering.times import by_market, by_steps
from billing.model import Derived, Determinant, Hold, UsedBefore
from billing.names import (
    CAPACITY,
    CARRIED_ON,
    CONTRACT,
    EXPORT,
    LOSS_REACTIVE,
    MAXIMUM,
    NET,
    PEOPLE,
    POWER_FACTOR,
    SURPLUS,
    TOTAL,
    at,
    demand_name,
    market_name,
)
from billing.rating.power_factor import power_factor
from billing.rating.tariff import one_of
from billing.segments import Case
from billing.store import Issued
from headend.civil import zone
from headend.model import Quality, Window
from headend.quantities import QUANTITIES
from headend.store.columns import settlements_at
from headend.store.readings import RegisterValue

__all__ = ["INTERVALS", "Gathered", "gather"]

_KWH: Final = "kWh"
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The determinants of one bill; why there are none, or (holds for review) what a person should look at first."""

    determinants: tuple[Determinant, ...] = ()
    holds: tuple[Hold, ...] = ()


def gather(conn: Connection, cases: Sequence[Case], *, as_of: int, past: bool = False) -> list[Gathered]:
    """Determinants of each case in its order, or every reason found against them.

    as_of: the highest outcome id in the store, kept with the interval sums. past: values as the store held them when
    `as_of` was its highest outcome id. Cases that share a tariff, a month and a meter's step are summed together.
    """
    busy_periods = {id(period) for period in {id(c.period): c.period for c in cases}.values() if needs_energy(period)}
    busy = [case for case in cases if id(case.period) in busy_periods]
    network = Network.read(conn, [(case.account.usage_point, case.period) for case in busy])
    meters = Meters.of(conn, network, as_of, past=past)
    own = {(case.account.usage_point, id(case.period)) for case in busy}
    for key, spot in network.spots.items():
        meters.want(spot, own=key in own)
    meters.read()
    batch = _Batch(
        network, meters, gather_earlier.earlier(conn, busy), _settled(conn, network, as_of if past else None)
    )
    return [_Work(batch, case).gathered() for case in cases]


_Settled = Mapping[Window, Mapping[int, Sequence[RegisterValue]]]


def _settled(conn: Connection, network: Network, as_of: int | None) -> _Settled:
    """By span and meter what was kept at settlements, where a charge asks for it."""
    wanted: dict[Window, set[int]] = defaultdict(set)
    for spot in network.spots.values():
        if any(charge.source == "register" for charge in demands(spot.period)):
            for part in spot.parts:
                wanted[part.window].add(part.meter.key)
    return {span: settlements_at(conn, keys, MAXIMUM, span, as_of=as_of) for span, keys in wanted.items()}


@dataclass(frozen=True, slots=True)
class _Batch:
    network: Network
    meters: Meters
    issued: Mapping[str, Sequence[Issued]]
    settled: _Settled


@dataclass(slots=True)
class _Work:
    """One case on its way to determinants."""

    batch: _Batch
    case: Case
    found: list[Determinant] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    torn: list[Hold] = field(default_factory=list)

    @property
    def issued(self) -> Sequence[Issued]:
        return self.batch.issued.get(self.case.account.id, ())

    def gathered(self) -> Gathered:
        """The determinants, or what is against them."""
        terms = self._terms()
        if needs_energy(self.case.period):
            spot = self.batch.network.spot(self.case.account.usage_point, self.case.period)
            self._energy(spot)
        holds = tuple(dict.fromkeys((*self.holds, *self.torn)))
        if any(not hold.review for hold in holds):
            return Gathered(holds=holds)
        return Gathered((*self.found, *terms), holds)

    def _energy(self, spot: Spot) -> None:
        segments = self.case.period.segments
        metered = any(self.batch.network.before(spot, segment.window) is None for segment in segments)
        self.holds += spot.holds if metered else []
        both = [shared(self.batch.network, self.batch.meters, spot, number) for number in range(len(segments))]
        for rest, _ in both:
            self.holds += rest.holds
            self.torn += rest.torn
        used, chain = self._used()
        if all(TOTAL in rest.amounts for rest, _ in both):
            total = self._totals([rest for rest, _ in both], used, chain)
            self._adjustment(spot, [whole for _, whole in both], total)
            self._net(total)
            for number, (rest, _) in enumerate(both):
                self._times(spot, number, rest, total.used_before)
        self._demands(spot)

    # -- energy --------------------------------------------------------------------------------------------------------

    def _used(self) -> tuple[Decimal | None, tuple[UsedBefore, ...]]:
        asked = gather_earlier.yearly(self.case.period)
        if asked is None:
            return None, ()
        charge, zone_name = asked
        account, window = self.case.account, self.case.period.window
        used, chain, holds = gather_earlier.used_before(account, charge, window, zone_name, self.issued)
        self.holds += holds
        return used, chain

    def _totals(self, parts: Sequence[Energies], used: Decimal | None, chain: tuple[UsedBefore, ...]) -> Determinant:
        """All energy of the period, and of each segment; the first of the determinants."""
        labels = [segment.label for segment in self.case.period.segments]
        if len(parts) == 1:
            total = parts[0].amounts[TOTAL].determinant(TOTAL, _KWH, used)
        else:
            total = replace(_sum(TOTAL, labels, parts), used_before=used)
        total = replace(total, parents=(*total.parents, *chain))
        self.found.append(total)
        for label, part in zip(labels, parts, strict=True):
            for name, amount in part.amounts.items():
                if label or name != TOTAL:
                    unit = QUANTITIES[name].unit if name in QUANTITIES else _KWH
                    unit = "kvarh" if name == LOSS_REACTIVE else unit
                    self.found.append(amount.determinant(at(name, label), unit))
        if len(parts) > 1 and all(EXPORT in part.amounts for part in parts):
            self.found.append(_sum(EXPORT, labels, parts))
        return total

    def _adjustment(self, spot: Spot, wholes: Sequence[Energies], total: Determinant) -> None:
        """Reactive energy and power factor of all that the meter registered, losses included."""
        charge = one_of(self.case.period.tariff, PowerFactorCharge)
        if charge is None:
            return
        if not spot.parts:
            self.holds += spot.holds
            return
        active = sum((whole.amounts[TOTAL].value for whole in wholes), _NOTHING)
        name = TOTAL if active == total.value else f"{spot.point}: {TOTAL}"
        parents, reactive = [Derived(name, active)], _NOTHING
        for number, quantity in enumerate(charge.reactive):
            whole = [(part, part.window) for part in spot.parts]
            amount, _, holds = self.batch.meters.registers.amount(quantity, whole, spot.zone)
            self.holds += holds
            for segment, energies in zip(self.case.period.segments, wholes, strict=True) if number == 0 else ():
                lost = energies.amounts.get(LOSS_REACTIVE, Amount()).value
                amount.add(at(LOSS_REACTIVE, segment.label), lost)
            self._put(amount.determinant(quantity, QUANTITIES[quantity].unit))
            parents.append(Derived(quantity, amount.value))
            reactive += amount.value
        factor = power_factor(active, reactive)
        if factor is not None:
            self.found.append(Determinant(POWER_FACTOR, factor, "", parents=tuple(parents)))

    def _put(self, determinant: Determinant) -> None:
        """Add a determinant in place of one of the same name."""
        self.found = [one for one in self.found if one.name != determinant.name]
        self.found.append(determinant)

    def _net(self, total: Determinant) -> None:
        charge = one_of(self.case.period.tariff, NetMetering)
        if charge is None:
            return
        export = next((one for one in self.found if one.name == EXPORT), None)
        if export is None:
            what = f"no {EXPORT} for all of the period, which net metering needs"
            self.holds.append(Hold("export_absent", what, "let net metering begin with a month"))
            return
        net, parents = total.value - export.value, [Derived(TOTAL, total.value), Derived(EXPORT, -export.value)]
        kept = False
        if charge.carry:
            carried, holds = gather_earlier.carried(self.case, charge, self.issued)
            self.holds += holds
            self.found.append(carried)
            net -= carried.value
            parents += [Derived(carried.name, -carried.value)] if carried.value else []
            kept = gather_earlier.kept_on(self.case, charge)
        surplus, turned = max(-net, _NOTHING), [Derived(one.name, -one.value) for one in parents]
        self.found.append(Determinant(NET, max(net, _NOTHING), _KWH, parents=tuple(parents)))
        self.found.append(Determinant(SURPLUS, surplus, _KWH, parents=tuple(turned)))
        if charge.carry:
            on = (Derived(SURPLUS, surplus),) if kept and surplus else ()
            self.found.append(Determinant(CARRIED_ON, surplus if kept else _NOTHING, _KWH, parents=on))

    def _times(self, spot: Spot, number: int, energies: Energies, used: Decimal | None) -> None:
        """Energy by market prices, and by steps that fill interval by interval."""
        segment, meters = self.case.period.segments[number], self.batch.meters
        for charge in segment.tariff.charges:
            if isinstance(charge, MarketCharge):
                value = by_market(meters, charge, spot, number, energies)
                name = at(market_name(charge.code), segment.label)
                self.found.append(value.determinant(name, segment.tariff.currency))
            if isinstance(charge, StepTouCharge) and charge.split == "chronological":
                reached = (used or _NOTHING) if charge.period == "year" else _NOTHING
                reached += self._billed_before(number)
                people = self.case.terms[number].people
                laid = by_steps(meters, charge, spot, number, energies, reached, people)
                self.found += [one.determinant(at(name, segment.label), _KWH) for name, one in laid.items()]
        self.torn += energies.torn
        self.holds += energies.holds

    def _billed_before(self, number: int) -> Decimal:
        """Energy of the segments before."""
        names = [at(TOTAL, segment.label) for segment in self.case.period.segments[:number]]
        return sum((one.value for one in self.found if one.name in names), _NOTHING)

    # -- demand --------------------------------------------------------------------------------------------------------

    def _demands(self, spot: Spot) -> None:
        period = self.case.period
        month = period.window.start.astimezone(zone(period.tariff.zone)).month
        asked = [charge for charge in demands(period) if month in charge.months]
        if asked and not spot.parts:
            self.holds += spot.holds
            return
        for charge in asked:
            name = demand_name(charge.period)
            if any(one.name == name for one in self.found):
                continue
            candidates = self._demand(spot, charge)
            if candidates:
                self.found.append(demand.highest(name, candidates))
        if any(charge.ratchet for charge in asked):
            highest, holds = gather_earlier.ratchet(self.case, self.issued)
            self.holds += holds
            self.found += [highest] if highest is not None else []

    def _demand(self, spot: Spot, charge: DemandCharge) -> list[Determinant]:
        """The maximum demand of each meter, each by its own multiplier."""
        found = []
        for part in spot.parts:
            if charge.source == "register":
                one, missing = demand.by_register(part, self.batch.settled[part.window], spot.zone)
            else:
                hours = self._hours(spot, part, charge)
                counts = self._complete(spot, part, hours)
                if counts is None:
                    continue
                meters = self.batch.meters
                one, missing = demand.by_intervals(part, meters.curves, charge, hours, counts, spot.zone, meters.as_of)
            found += [one] if one else []
            self.holds += missing
        return found

    def _hours(self, spot: Spot, part: Installed, charge: DemandCharge) -> list[Hours]:
        """The hours of a demand's period in each piece of a meter's stay, () where all of the time counts.

        Each part of the period has those of its own tariff; one whose tariff has no such demand those of `charge`.
        """
        found: list[Hours] = []
        for number, segment in enumerate(self.case.period.segments if charge.period else ()):
            alike = (c for c in segment.tariff.charges if isinstance(c, DemandCharge) and c.period == charge.period)
            schedule = next((c.schedule for c in alike if c.schedule is not None), charge.schedule)
            assert schedule is not None, "the hours go with the period"
            found += [(one.window, schedule) for one in spot.pieces(number) if one.installed is part]
        return found

    def _complete(self, spot: Spot, part: Installed, hours: Sequence[Hours]) -> Counter[Quality] | None:
        """How the intervals of a meter's stay are, if all are there and meet its registers."""
        meters, found, good, held = self.batch.meters, Counter[Quality](), True, dict(hours)
        for number in range(len(self.case.period.segments)):
            for piece in (one for one in spot.pieces(number) if one.installed is part):
                _, registers, _ = meters.registers.amount(TOTAL, [(part, piece.window)], spot.zone)
                sums, torn = meters.checked(piece, held.get(piece.window), registers, spot.zone)
                self.torn += torn
                good = good and sums is not None and not torn
                for counts in () if sums is None else sums.counts.values():
                    found += counts
        return found if good else None

    # -- terms ---------------------------------------------------------------------------------------------------------

    def _terms(self) -> list[Determinant]:
        """What the account's terms say, where a charge asks for it."""
        found = []
        for segment, terms in zip(self.case.period.segments, self.case.terms, strict=True):
            charges, start = segment.tariff.charges, segment.window.start
            if any(isinstance(charge, DemandCharge) and charge.contracted for charge in charges):
                found += self._term(at(CONTRACT, segment.label), terms.contract_kw, "kW", start)
            if any(isinstance(charge, CapacityCharge) and charge.capacity_kva is None for charge in charges):
                found += self._term(at(CAPACITY, segment.label), terms.capacity_kva, "kVA", start)
            steps = (StepCharge, StepAdder, StepTouCharge)
            large = any(isinstance(charge, steps) and charge.household is not None for charge in charges)
            if large and terms.people is not None:  # a household that tells nothing has no addition
                found += self._term(at(PEOPLE, segment.label), Decimal(terms.people), "", start)
        return found

    def _term(self, name: str, value: Decimal | None, unit: str, start: datetime) -> list[Determinant]:
        plain = name.partition("@")[0]
        if value is not None:
            return [Determinant(name, value, unit, parents=(Derived("account", value),))]
        what = f"the tariff asks for the account's {plain}, and account {self.case.account.id} has none"
        remedy = f"give {plain} in the account's terms"
        self.holds.append(Hold(f"no_{plain.partition('_')[0]}", what, remedy, start=start))
        return []


def _sum(name: str, labels: Sequence[str], parts: Sequence[Energies]) -> Determinant:
    """The whole period's, from those of its segments."""
    whole = Amount()
    for label, part in zip(labels, parts, strict=True):
        one = part.amounts[name]
        whole.value += one.value
        whole.parents.append(Derived(at(name, label), one.value))
        whole.counts += one.counts
    return whole.determinant(name, _KWH)
