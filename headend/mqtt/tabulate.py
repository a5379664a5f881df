"""From the rows of a message to sheets for the store: columns of one meter's one quantity, exact, in order of time.

Pure. What can't be taken is told with its reason; it takes nothing else with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from headend.civil import from_epoch_s
from headend.model import Cause, Fault, Quality, Source, Window
from headend.mqtt.batch import Batch, Column, MeterRows, ReadKindWord
from headend.mqtt.place import Place
from headend.protocols.hes_mqtt.messages import MeterPart
from headend.quantities import QUANTITIES, Kind
from headend.store.sheets import Sheet

__all__ = ["Table", "Taken", "tabulate", "taken_of"]

_DAY_S: Final = 86_400
_AFTER_MIDNIGHT_S: Final = 60  # a freeze stamped so long after midnight, when it was read, is that midnight's

_ESTIMATED, _SUSPECT, _MISSING, _CLOCK = 1, 2, 4, 8  # bits of a row
_VALID_BYTE: Final = bytes([Quality.VALID])


class Table(NamedTuple):
    """One meter's part of a message. reasons: why something was not taken."""

    sheets: list[Sheet]
    faults: list[Fault]
    reasons: list[str]


class Taken(NamedTuple):
    """A column that is taken. position: in the rows. step_s: of its curve, 0 for others. shift_s: from the row's time
    to the instant we keep. plain: neither shifted nor divided."""

    position: int
    quantity: str
    factor: int
    divisor: int
    source: Source
    step_s: int
    shift_s: int
    plain: bool


def taken_of(batch: Batch) -> tuple[Sequence[Taken], Sequence[str]]:
    """What is taken of the columns of a message, and why the rest is not."""
    return _taken(batch.columns, batch.kind or ReadKindWord.REGISTER, batch.step_s)


@lru_cache(maxsize=1024)
def _taken(columns: tuple[Column, ...], kind: ReadKindWord, step_s: int) -> tuple[list[Taken], list[str]]:
    taken, reasons = [], []
    for position, column in enumerate(columns):
        if not column.quantity:
            continue
        of = QUANTITIES[column.quantity].kind
        source = _source(kind, of)
        if source is None:
            reasons.append(f"{column.quantity} is no quantity of a {kind.value} message")
            continue
        # The time of a row is when the interval ended; the store keeps an interval at its start.
        shift_s = -step_s if of is Kind.INTERVAL else 0
        grid_s = step_s if source is Source.CURVE else 0
        factor, divisor = column.units_factor, column.units_divisor
        plain = divisor == 1 and not shift_s
        taken.append(Taken(position, column.quantity, factor, divisor, source, grid_s, shift_s, plain))
    return taken, reasons


def _source(kind: ReadKindWord, of: Kind) -> Source | None:
    """Where a value belongs; None where it means nothing."""
    if kind is ReadKindWord.INTERVAL:
        return None if of is Kind.DEMAND else Source.CURVE
    if of is Kind.INTERVAL:
        return None
    if kind in (ReadKindWord.REGISTER, ReadKindWord.ONDEMAND):
        return Source.CURRENT if of in (Kind.REGISTER, Kind.DEMAND) else Source.INSTANT
    if kind is ReadKindWord.DAILY_FREEZE:
        return Source.DAILY_FREEZE
    return Source.TIMED_FREEZE if kind is ReadKindWord.MONTHLY_FREEZE else Source.SETTLEMENT


def tabulate(batch: Batch, rows: MeterRows, place: Place, taken: Sequence[Taken]) -> Table:
    """The rows of one meter as sheets. batch: the message they stand in. taken: by `taken_of`, once a message."""
    table = Table([], [], [])
    times, values, bits = rows.turned if isinstance(rows, MeterPart) else (rows.times, rows.values, rows.bits)
    if not times:
        return table
    if not _on_steps(times, batch.step_s, place.offset_s):  # nearly all are: the rest is looked at more closely
        if not _in_order(times):
            times, values, bits = _ordered(times, values, bits, table.reasons)
        if batch.kind is ReadKindWord.INTERVAL:
            times, values, bits = _on_grid(times, values, bits, batch.step_s, place.offset_s, table.reasons)
        elif batch.kind is ReadKindWord.DAILY_FREEZE:
            times, values, bits = _at_midnight(times, values, bits, place.offset_s, table.reasons)
        if not times:
            return table
    columns = list(zip(*values, strict=True)) if len(values) > 1 else [(value,) for value in values[0]]
    stamps = array("q", times)
    clean = not any(bits)
    qualities = _VALID_BYTE * len(times) if clean else bytes(map(_quality, bits))
    for column in taken:
        own = columns[column.position]
        if clean and column.plain and None not in own:
            try:
                units = array("q", _units(own, column))
            except OverflowError:
                table.reasons.append(f"{column.quantity} is too large for the store")
                continue
            key, name, source = place.key, column.quantity, column.source
            table.sheets.append(Sheet(key, name, source, column.step_s, stamps, units, qualities))
        else:
            _add(table, column, place, stamps, own, qualities, bits)
    return table


def _on_steps(times: Sequence[int], step_s: int, offset_s: int) -> bool:
    """Whether the times follow each other by the step of the grid they are on, forwards."""
    if not step_s or (times[0] + offset_s) % step_s:
        return False
    number = len(times)
    return number == 1 or tuple(times) == tuple(range(times[0], times[0] + number * step_s, step_s))


def _add(
    table: Table,
    column: Taken,
    place: Place,
    times: array[int],
    values: Sequence[int | None],
    qualities: bytes,
    bits: Sequence[int],
) -> None:
    """One column as a sheet, or why not: with values that are not there, or too fine."""
    step_s = column.step_s
    if column.shift_s:
        times = array("q", [time + column.shift_s for time in times])
    if None in values or any(bit & _MISSING for bit in bits):
        there = [not bit & _MISSING and value is not None for value, bit in zip(values, bits, strict=True)]
        missing = [time for time, is_there in zip(times, there, strict=True) if not is_there]
        table.faults.extend(_nulls(column.quantity, missing, step_s))
        times = array("q", [time for time, is_there in zip(times, there, strict=True) if is_there])
        qualities = bytes(q for q, is_there in zip(qualities, there, strict=True) if is_there)
        values = [value for value, is_there in zip(values, there, strict=True) if is_there]
    if column.divisor != 1:
        exact = [value is not None and value % column.divisor == 0 for value in values]
        if not all(exact):
            table.reasons.append(f"{column.quantity} is finer than the store's 0.0001")
            times = array("q", [time for time, fits in zip(times, exact, strict=True) if fits])
            qualities = bytes(q for q, fits in zip(qualities, exact, strict=True) if fits)
            values = [value for value, fits in zip(values, exact, strict=True) if fits]
    if not values:
        return
    try:
        units = array("q", _units(values, column))
    except OverflowError:
        table.reasons.append(f"{column.quantity} is too large for the store")
        return
    table.sheets.append(Sheet(place.key, column.quantity, column.source, step_s, times, units, qualities))


def _units(values: Iterable[int | None], column: Taken) -> Iterable[int]:
    whole: Iterable[int] = values  # type: ignore[assignment]  # None was sorted out
    if column.divisor != 1:
        return [value // column.divisor for value in whole]
    factor = column.factor
    return whole if factor == 1 else [value * factor for value in whole]


def _nulls(name: str, times: Sequence[int], step_s: int) -> list[Fault]:
    """Values that are marked as not there; those that follow each other are one fault."""
    width = step_s or 1
    faults: list[Fault] = []
    start = end = 0
    for time in times:
        if time != end or not step_s:
            if end:
                faults.append(_null(name, start, end))
            start = time
        end = time + width
    if end:
        faults.append(_null(name, start, end))
    return faults


def _null(name: str, start: int, end: int) -> Fault:
    detail = "the concentrator has no value"
    return Fault(
        name,
        Cause.NULL_VALUE,
        detail,
        Window(from_epoch_s(start), from_epoch_s(start) + timedelta(seconds=end - start)),
    )


def _quality(bits: int) -> int:
    # A value taken under a doubtful clock may belong to another time: it must not be billed as it is.
    if bits & (_SUSPECT | _CLOCK):
        return Quality.SUSPECT
    return Quality.ESTIMATED if bits & _ESTIMATED else Quality.VALID


# -- times -------------------------------------------------------------------------------------------------------------

_Part = tuple[Sequence[int], Sequence[Sequence[int | None]], Sequence[int]]


def _in_order(times: Sequence[int]) -> bool:
    return len(times) < 2 or all(map(int.__lt__, times, times[1:]))


def _ordered(
    times: Sequence[int], values: Sequence[Sequence[int | None]], bits: Sequence[int], reasons: list[str]
) -> _Part:
    """Rows by time, each time once: of two that differ neither can be preferred, so neither is taken."""
    by_time: dict[int, tuple[tuple[int | None, ...], int]] = {}
    torn: set[int] = set()
    for time, row, bit in sorted(zip(times, values, bits, strict=True), key=itemgetter(0)):
        held = by_time.setdefault(time, (tuple(row), bit))
        if held != (tuple(row), bit):
            torn.add(time)
    for time in torn:
        reasons.append(f"two rows of {from_epoch_s(time):%Y-%m-%d %H:%M:%S} UTC differ")
        del by_time[time]
    return list(by_time), [row for row, _ in by_time.values()], [bit for _, bit in by_time.values()]


def _on_grid(
    times: Sequence[int],
    values: Sequence[Sequence[int | None]],
    bits: Sequence[int],
    step_s: int,
    offset_s: int,
    reasons: list[str],
) -> _Part:
    if not any((time + offset_s) % step_s for time in times):
        return times, values, bits
    reasons.append(f"times off the grid of {step_s} s")
    return _kept(times, values, bits, [not (time + offset_s) % step_s for time in times])


def _at_midnight(
    times: Sequence[int],
    values: Sequence[Sequence[int | None]],
    bits: Sequence[int],
    offset_s: int,
    reasons: list[str],
) -> _Part:
    """Rows at the midnights of the meter's clock they were frozen at."""
    after = [(time + offset_s) % _DAY_S for time in times]
    moved: Sequence[int] = [time - late for time, late in zip(times, after, strict=True)]
    fits = [late <= _AFTER_MIDNIGHT_S for late in after]
    if not all(fits):
        reasons.append("a daily freeze at another time than midnight")
    moved, values, bits = _kept(moved, values, bits, fits)
    return (moved, values, bits) if _in_order(moved) else _ordered(moved, values, bits, reasons)


def _kept(
    times: Sequence[int], values: Sequence[Sequence[int | None]], bits: Sequence[int], fits: Sequence[bool]
) -> _Part:
    kept = [row for row, fit in zip(zip(times, values, bits, strict=True), fits, strict=True) if fit]
    return [row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept]
