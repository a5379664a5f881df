"""Can the values of a message be true? The rules of `headend.validation.plausible`, quick where all is well.

Whole columns are looked at as integers. Only what does not pass at once is judged value by value, by those rules
themselves. There is no second read to settle a doubt: what is doubtful is kept as suspect, and never billed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from operator import sub
from typing import Final

from headend.civil import from_epoch_s
from headend.model import Quality, Reading, Source
from headend.mqtt.place import Place
from headend.quantities import QUANTITIES, Kind, from_units, quantity
from headend.store.sheets import Sheet
from headend.validation.plausible import Anchor, doubtful

__all__ = ["FREE", "REGISTERS", "Anchors", "judged"]

_ANCHORS: Final = 4
_SLACK_UNITS: Final = 200  # as `plausible`: a meter's own resolution twice, 0.02
REGISTERS: Final = frozenset(name for name, one in QUANTITIES.items() if one.kind is Kind.REGISTER)
FREE: Final = frozenset(  # signed combinations may fall
    name for name in REGISTERS if name.startswith(("combined", "import_kvarh", "export_kvarh"))
)
_SUSPECT: Final = int(Quality.SUSPECT)


class Anchors:
    """Values already believed, the last few of each register: (epoch seconds, units)."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], deque[tuple[int, int]]] = {}

    def add(self, meter_key: int, name: str, at: int, units: int) -> None:
        """A value that may be believed. The last one again pushes out no other."""
        held = self._held.get((meter_key, name))
        if held is None:
            self._held[meter_key, name] = deque([(at, units)], _ANCHORS)
        elif held[-1] != (at, units):
            held.append((at, units))

    def forget(self, meter_key: int, name: str) -> None:
        """After a suspect value nothing earlier is believed: the register may have been reset, the meter exchanged."""
        self._held.pop((meter_key, name), None)

    def of(self, meter_key: int, name: str) -> Sequence[tuple[int, int]]:
        """The values held of a register."""
        return self._held.get((meter_key, name), ())

    def allow(self, meter_key: int, name: str, first: tuple[int, int], last: tuple[int, int], power: int) -> bool:
        """Whether values from `first` to `last` (epoch seconds, units) can stand beside every value held.

        power: ten-thousandths of a kWh that can flow in an hour. Beside every one, not the nearest alone: that asks
        more than the rules do. One at the very instant of a lone value is on both its sides, as in the rules.
        """
        for at, held in self.of(meter_key, name):
            if at <= first[0] and not 0 <= first[1] - held <= power * (first[0] - at) // 3600 + _SLACK_UNITS:
                return False
            if at >= last[0] and not 0 <= held - last[1] <= power * (at - last[0]) // 3600 + _SLACK_UNITS:
                return False
        return True


def judged(sheets: list[Sheet], place: Place, anchors: Anchors) -> list[Sheet]:
    """The sheets of one meter from one message, what can't be true marked suspect; anchors are brought up to date."""
    for sheet in sheets:
        if sheet.quantity in REGISTERS and not _clear(sheet, place, anchors):
            sheets = _slow(sheets, place, anchors)
            break
    else:
        if sheets and sheets[0].source is not Source.CURVE and not _sums(sheets, place):
            sheets = _slow(sheets, place, anchors)
    for sheet in sheets:
        if sheet.quantity in REGISTERS:
            _learn(sheet, anchors)
    return sheets


def _clear(sheet: Sheet, place: Place, anchors: Anchors) -> bool:
    """Whether the column of a register certainly passes: it rises, by no more than can flow in its shortest step."""
    name, units, times = sheet.quantity, sheet.units, sheet.times
    if name in FREE:
        free = name.startswith("combined")
        return free or (min(units) >= 0 and max(units) < place.wrap_units)
    power = place.power_units
    if len(units) > 1:
        rises = list(map(sub, units[1:], units))
        step_s = sheet.step_s or min(map(sub, times[1:], times))
        if min(rises) < 0 or max(rises) > power * step_s // 3600 + _SLACK_UNITS:
            return False
    first, last, low, high = times[0], times[-1], units[0], units[-1]
    if low < 0 or high >= place.wrap_units:
        return False
    return anchors.allow(sheet.meter_key, name, (first, low), (last, high), power)


def _sums(sheets: Sequence[Sheet], place: Place) -> bool:
    """Whether no total and its rates stand beside each other where they must add up, or they certainly do."""
    alone = [sheet for sheet in sheets if sheet.source is not Source.CURVE and "_t" in sheet.quantity]
    if not alone:
        return True
    by_name = {(sheet.quantity, sheet.source): sheet for sheet in sheets}
    for energy, source in {(sheet.quantity.partition("_t")[0], sheet.source) for sheet in alone}:
        if quantity(f"{energy}_t1").kind is not Kind.REGISTER:
            continue
        total = by_name.get((energy, source))
        rates = [sheet for sheet in alone if sheet.source is source and sheet.quantity.startswith(f"{energy}_t")]
        if total is None or len(rates) < place.meter.model.rates:
            continue
        if any(sheet.times != total.times for sheet in rates):
            return False
        allowed = 100 * (len(rates) + 1)
        for position, units in enumerate(total.units):
            if abs(units - sum(sheet.units[position] for sheet in rates)) > allowed:
                return False
    return True


def _slow(sheets: list[Sheet], place: Place, anchors: Anchors) -> list[Sheet]:
    readings: list[Reading] = []
    for sheet in sheets:
        for at, units in zip(sheet.times, sheet.units, strict=True):
            moment = from_epoch_s(at)
            readings.append(
                Reading(sheet.quantity, from_units(units), moment, moment, sheet.source, step_s=sheet.step_s)
            )
    known = {
        sheet.quantity: [
            Anchor(from_epoch_s(at), from_units(units)) for at, units in anchors.of(sheet.meter_key, sheet.quantity)
        ]
        for sheet in sheets
    }
    bad = doubtful(readings, known, place.meter.model)
    marked: list[Sheet] = []
    start = 0
    for sheet in sheets:
        number = len(sheet.times)
        doubted = [index - start for index in bad if start <= index < start + number]
        start += number
        marked.append(_suspect(sheet, doubted) if doubted else sheet)
    return marked


def _suspect(sheet: Sheet, positions: Sequence[int]) -> Sheet:
    qualities = bytearray(sheet.qualities)
    for position in positions:
        qualities[position] = _SUSPECT
    return replace(sheet, qualities=bytes(qualities))


def _learn(sheet: Sheet, anchors: Anchors) -> None:
    key, name, qualities = sheet.meter_key, sheet.quantity, sheet.qualities
    position = len(qualities) - 1
    if _SUSPECT in qualities:
        anchors.forget(key, name)
        while position >= 0 and qualities[position] == _SUSPECT:
            position -= 1
        if position < 0:
            return
    anchors.add(key, name, sheet.times[position], sheet.units[position])
