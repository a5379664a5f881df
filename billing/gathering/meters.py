"""What meters registered in each segment, by what the charges ask for: totals, TOU periods, exports, reactive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection

from billing.charges import (
    CapacityCharge,
    DemandCharge,
    ExportCredit,
    FixedCharge,
    MarketCharge,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    Schedule,
    StepTouCharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.gathering.intervals import Curves, PieceSums, sum_check
from billing.gathering.places import Piece, Spot, span_text
from billing.gathering.registers import Amount, Registers
from billing.gathering.shares import Energies, Network
from billing.kernel import Ints
from billing.model import Derived, Hold, Period, RegisterPart
from billing.names import EXPORT, REACTIVE, TOTAL, tou_name
from billing.rating.tariff import one_of, periods_of
from headend.model import Window

__all__ = ["Meters", "by_intervals", "needs_energy", "split_charges"]

_RESOLUTION: Final = Decimal("0.01")
_CHECK_SHARE: Final = Decimal("0.01")
"""How far a period by the meter's own registers and by its intervals may lie apart, as a share of all energy: its clock
and the tariff's windows change over within the minute."""

_WITHOUT_ENERGY = (FixedCharge, CapacityCharge, MinimumCharge, Tax)


def needs_energy(period: Period) -> bool:
    """Whether any charge asks for what a meter measures."""
    charges = [charge for segment in period.segments for charge in segment.tariff.charges]
    return not all(isinstance(charge, _WITHOUT_ENERGY) for charge in charges)


def split_charges(tariff: Tariff) -> tuple[TouCharge | StepTouCharge, ...]:
    """The charges that ask for energy by TOU period."""
    return tuple(
        charge
        for charge in tariff.charges
        if isinstance(charge, TouCharge) or (isinstance(charge, StepTouCharge) and charge.split == "pro_rata")
    )


def by_intervals(charge: TouCharge | StepTouCharge) -> bool:
    """Whether the energies of its periods are sums of intervals."""
    return not (isinstance(charge, TouCharge) and charge.measured_by == "registers")


def demands(period: Period) -> tuple[DemandCharge, ...]:
    """The demand charges of all segments, the last segment's first."""
    found = (charge for segment in reversed(period.segments) for charge in segment.tariff.charges)
    return tuple(charge for charge in found if isinstance(charge, DemandCharge))


@dataclass(slots=True)
class Meters:
    """The meters of a batch: `want` what each spot's charges ask for, `read` once, then call for each segment.

    prices: of market series by interval, worked out once for a grid. periods: that are billed for a window by a charge.
    """

    registers: Registers
    curves: Curves
    network: Network
    as_of: int
    prices: dict[tuple[int, int, int, int], Ints] = field(default_factory=dict)
    periods: dict[tuple[int, Window], tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, conn: Connection, network: Network, as_of: int, *, past: bool) -> Meters:
        """Nothing wanted yet. past: values as they stood at `as_of`."""
        at = as_of if past else None
        return cls(Registers(conn, at), Curves(conn, at), network, as_of)

    def want(self, spot: Spot, *, own: bool) -> None:
        """Note what will be asked of a spot; own: it is the bill's own usage point."""
        last = spot.period.tariff
        for number, segment in enumerate(spot.period.segments):
            quantities = set(_quantities(segment.tariff, own=own))
            quantities |= {REACTIVE} if own and self.network.transformed(spot) else set()
            for piece in spot.pieces(number):
                for quantity in quantities:
                    self.registers.want(quantity, piece.installed, piece.window)
        adjusts = one_of(last, PowerFactorCharge)
        for part in spot.parts:
            for quantity in adjusts.reactive if own and adjusts else ():
                self.registers.want(quantity, part, part.window)
            if self._curve_wanted(spot.period, own=own):
                self.curves.want(part)

    def _curve_wanted(self, period: Period, *, own: bool) -> bool:
        charges = [charge for segment in period.segments for charge in segment.tariff.charges]
        if any(isinstance(charge, (TouCharge, StepTouCharge)) for charge in charges):
            return True
        asked = any(isinstance(charge, MarketCharge) for charge in charges)
        return own and (asked or any(charge.source == "intervals" for charge in demands(period)))

    def read(self) -> None:
        """Read all that is wanted."""
        self.registers.read()
        self.curves.read()

    def __call__(self, spot: Spot, segment: int, *, own: bool) -> Energies:
        """What the meters at a spot registered in a segment."""
        pieces = list(spot.pieces(segment))
        tariff = spot.period.segments[segment].tariff
        found = Energies()
        total, parts, found.holds = self._registered(TOTAL, pieces, spot)
        found.amounts[TOTAL] = total
        export = own and (one_of(tariff, ExportCredit) or one_of(tariff, NetMetering)) is not None
        reactive = own and self.network.transformed(spot)
        for quantity in (*((EXPORT,) if export else ()), *((REACTIVE,) if reactive else ())):
            found.amounts[quantity], _, holds = self._registered(quantity, pieces, spot)
            found.holds += holds
        for charge in split_charges(tariff):
            if by_intervals(charge):
                self._by_intervals(charge, pieces, parts, found, spot, segment, own=own)
            else:
                assert isinstance(charge, TouCharge)
                self._by_registers(charge, pieces, found, spot, segment, own=own)
        return found

    def _registered(
        self, quantity: str, pieces: Iterable[Piece], spot: Spot
    ) -> tuple[Amount, list[RegisterPart], list[Hold]]:
        windows = [(piece.installed, piece.window) for piece in pieces]
        return self.registers.amount(quantity, windows, spot.zone)

    def _by_intervals(
        self,
        charge: TouCharge | StepTouCharge,
        pieces: Sequence[Piece],
        registers: Sequence[RegisterPart],
        found: Energies,
        spot: Spot,
        segment: int,
        *,
        own: bool,
    ) -> None:
        """Period energies as sums of the intervals that start in them."""
        window = spot.period.segments[segment].window
        place = (id(charge), window)  # as for sums: charges are those of the batch's tariffs
        if place not in self.periods:
            self.periods[place] = periods_of(charge, window, spot.zone)
        amounts = {period: Amount() for period in self.periods[place]}
        for piece in pieces:
            sums, torn = self.checked(piece, charge.schedule, registers, spot.zone)
            found.torn += [hold for hold in torn if hold not in found.torn]
            for period in sums.units if sums is not None and not torn else ():
                assert sums is not None
                part = sums.part(piece, period, self.as_of)
                amounts[period].value += part.value
                amounts[period].parents.append(part)
                amounts[period].count(sums.counts[period])
        found.amounts |= {tou_name(period): amount for period, amount in amounts.items()}
        if own and isinstance(charge, TouCharge) and charge.registers and not found.torn:
            others = {}
            for period, quantity in charge.registers:
                other, _, missing = self._registered(quantity, pieces, spot)
                others[period] = None if missing else other.value
            found.torn += _tou_check(amounts, others, spot, segment)

    def checked(
        self,
        piece: Piece,
        schedule: Schedule | None,
        registers: Sequence[RegisterPart],
        zone_name: str,
    ) -> tuple[PieceSums | None, list[Hold]]:
        """The interval sums of a piece, held against the register of the same meter and span."""
        sums, torn = self.curves.sums(piece, schedule, zone_name)
        meter, start = piece.meter.key, piece.window.start
        register = next((r for r in registers if r.meter_key == meter and r.start.at == start), None)
        if sums is not None and not torn and register is not None:
            torn = sum_check(self.curves, piece, register, sums, zone_name)
        return sums, torn

    def _by_registers(
        self, charge: TouCharge, pieces: Sequence[Piece], found: Energies, spot: Spot, segment: int, *, own: bool
    ) -> None:
        """Period energies by the meter's own registers; `rest` takes what the total holds beyond them."""
        amounts = {period: Amount() for period in periods_of(charge, spot.period.segments[segment].window, spot.zone)}
        holds = list[Hold]()
        for period, quantity in charge.registers:
            amounts[period], _, missing = self._registered(quantity, pieces, spot)
            holds += missing
        found.amounts |= {tou_name(period): amount for period, amount in amounts.items()}
        if holds or found.holds:
            found.holds += holds
            return
        beyond = found.amounts[TOTAL].value - sum((amount.value for amount in amounts.values()), Decimal(0))
        allowed = (
            _RESOLUTION
            * (len(charge.registers) + 1)
            * max((piece.installed.installation.multiplier for piece in pieces), default=Decimal(1))
        )
        if charge.rest and beyond:
            rest, total = amounts[charge.rest], found.amounts[TOTAL].value
            others = [(tou_name(p), -amount.value) for p, amount in amounts.items() if p != charge.rest]
            taken = [(TOTAL, total), *others]
            rest.value, rest.parents = rest.value + beyond, [Derived(name, value) for name, value in taken]
        if (not charge.rest and abs(beyond) > allowed) or any(amount.value < 0 for amount in amounts.values()):
            found.holds.append(_apart(beyond, spot, segment))
        if own and not found.holds:
            found.torn += self._against_intervals(charge, pieces, amounts, spot, segment)

    def _against_intervals(
        self, charge: TouCharge, pieces: Sequence[Piece], amounts: dict[str, Amount], spot: Spot, segment: int
    ) -> list[Hold]:
        """The cross-check, where every interval is there."""
        others = dict.fromkeys(amounts, Decimal(0))
        for piece in pieces:
            sums, torn = self.curves.sums(piece, charge.schedule, spot.zone)
            if sums is None or torn or not set(sums.units) <= set(others):
                return []
            for period, units in sums.units.items():
                others[period] += sums.part(piece, period, self.as_of).value if units else Decimal(0)
        return _tou_check(amounts, dict(others), spot, segment)


def _quantities(tariff: Tariff, *, own: bool) -> Iterable[str]:
    """Registers that are looked at, at the ends of a segment."""
    yield TOTAL
    if own and (one_of(tariff, ExportCredit) or one_of(tariff, NetMetering)):
        yield EXPORT
    for charge in split_charges(tariff):
        if isinstance(charge, TouCharge):
            yield from (quantity for _, quantity in charge.registers)


def _apart(beyond: Decimal, spot: Spot, segment: int) -> Hold:
    window = spot.period.segments[segment].window
    what = f"the meter's period registers and its total differ by {beyond.normalize():f} kWh"
    what += f" ({span_text(window, spot.zone)})"
    remedy = "check the registers, or name the period that takes the rest in the tariff (`rest`)"
    return Hold("tou_registers", what, remedy, start=window.start, end=window.end)


def _tou_check(amounts: dict[str, Amount], others: dict[str, Decimal | None], spot: Spot, segment: int) -> list[Hold]:
    """Period energies billed against what the other way of measuring says."""
    window = spot.period.segments[segment].window
    total = sum((amount.value for amount in amounts.values()), Decimal(0))
    most = max((part.installation.multiplier for part in spot.parts), default=Decimal(1))
    allowed = total * _CHECK_SHARE + 2 * _RESOLUTION * most
    told = [
        f"{period} {amounts[period].value.normalize():f} kWh billed, {other.normalize():f} kWh"
        for period, other in others.items()
        if other is not None and period in amounts and abs(amounts[period].value - other) > allowed
    ]
    if not told:
        return []
    what = "the meter's period registers and its intervals tell different energies: " + "; ".join(told)
    what += f" by the other ({span_text(window, spot.zone)})"
    remedy = "compare the hours set in the meter, and its clock, with the tariff"
    return [Hold("tou_check", what, remedy, "", window.start, window.end, len(told), review=True)]
