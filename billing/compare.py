"""Two computations of one bill, item by item: what differs, and which value or entry of the registry is behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest

from billing.model import Bill, BillLine, Derived, Determinant, IntervalPart, Parent, RegisterEnd, RegisterPart
from headend.civil import zone

__all__ = ["Difference", "differences", "same_lines"]

_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was on the bill.

    item: `period`, `usage point`, `tariff`, `meter`, `multiplier`, `register`, `intervals`, `used before`, `derived`,
    `determinant`, `held`, `line` or `total`. where: which one. then, now: as people read it.
    """

    item: str
    where: str
    then: str
    now: str

    def __str__(self) -> str:
        return (
            f"{self.item} {self.where}: {self.then} -> {self.now}"
            if self.where
            else (f"{self.item}: {self.then} -> {self.now}")
        )


def same_lines(then: Bill, now: Bill) -> bool:
    """Whether two bills say the same, line by line."""
    return then.lines == now.lines


def differences(then: Bill, now: Bill) -> list[Difference]:
    """Everything that differs between a bill and the same bill computed again; none: they are identical."""
    return [
        *_registry(then, now),
        *_tariff(then, now),
        *_determinants(then, now),
        *_lines(then, now),
        *_total(then, now),
    ]


def _registry(then: Bill, now: Bill) -> Iterator[Difference]:
    if then.usage_point != now.usage_point:
        yield Difference("usage point", "", then.usage_point, now.usage_point)
    if then.window != now.window:
        spans = [f"{_at(bill.window.start, then.zone)} to {_at(bill.window.end, then.zone)}" for bill in (then, now)]
        yield Difference("period", "", *spans)


def _tariff(then: Bill, now: Bill) -> Iterator[Difference]:
    if (then.tariff, then.tariff_version) != (now.tariff, now.tariff_version):
        names = [f"{bill.tariff or _NOTHING} version {bill.tariff_version or _NOTHING}" for bill in (then, now)]
        yield Difference("tariff", "", *names)
    elif then.tariff_sha != now.tariff_sha:
        where = f"text of {then.tariff} version {then.tariff_version}"
        yield Difference("tariff", where, then.tariff_sha[:12] or _NOTHING, now.tariff_sha[:12] or _NOTHING)
    if then.segments != now.segments:
        cuts = [_cuts(bill, then.zone) for bill in (then, now)]
        yield Difference("tariff", "parts of the period", *cuts)


def _cuts(bill: Bill, zone_name: str) -> str:
    return ", ".join(f"from {_at(start, zone_name)} {sha[:12]}" for start, sha in bill.segments) or "one"


def _determinants(then: Bill, now: Bill) -> Iterator[Difference]:
    if now.state == "held":
        for hold in now.holds:
            yield Difference("held", "", "issued", str(hold))
        return
    before, after = {d.name: d for d in then.determinants}, {d.name: d for d in now.determinants}
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if (
            old is None
            or new is None
            or (old.value, old.unit, old.used_before) != (new.value, new.unit, new.used_before)
        ):
            yield Difference("determinant", name, _amount(old), _amount(new))
        yield from _parents(name, old.parents if old else (), new.parents if new else (), then.zone)


def _amount(item: Determinant | None) -> str:
    if item is None:
        return _NOTHING
    used = "" if item.used_before is None else f" (used before {_plain(item.used_before)})"
    return f"{_plain(item.value)} {item.unit}{used}"


def _parents(name: str, then: Sequence[Parent], now: Sequence[Parent], zone_name: str) -> Iterator[Difference]:
    """What the parents of a determinant differ in; parents are matched by what they are of."""
    before, after = _keyed(then), _keyed(now)
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, RegisterPart) and isinstance(new, RegisterPart):
            yield from _register(name, old, new, zone_name)
        elif isinstance(old, IntervalPart) and isinstance(new, IntervalPart):
            yield from _intervals(name, old, new)
        else:
            yield Difference(_item(old or new), name, _parent(old, zone_name), _parent(new, zone_name))


def _keyed(parents: Sequence[Parent]) -> Mapping[tuple[str, ...], Parent]:
    """Parents by what they are of, and their number among those of the same."""
    found: dict[tuple[str, ...], Parent] = {}
    count: Counter[tuple[str, ...]] = Counter()
    for parent in parents:
        match parent:
            case RegisterPart():
                key: tuple[str, ...] = ("register", parent.meter, parent.quantity)
            case IntervalPart():
                key = ("intervals", parent.meter, parent.quantity)
            case Derived():
                key = ("derived", parent.name)
            case _:
                key = ("used", parent.at.isoformat())
        count[key] += 1
        found[(*key, str(count[key]))] = parent
    return found


def _item(parent: Parent | None) -> str:
    match parent:
        case RegisterPart() | IntervalPart():
            return "meter"
        case Derived():
            return "derived"
        case _:
            return "used before"


def _parent(parent: Parent | None, zone_name: str) -> str:
    match parent:
        case None:
            return _NOTHING
        case RegisterPart():
            return f"{parent.meter} {parent.quantity} {_plain(parent.value)}"
        case IntervalPart():
            return f"{parent.meter} {parent.quantity} {_plain(parent.value)} from {parent.count} intervals"
        case Derived():
            return f"{parent.name} {_plain(parent.value)}"
        case _:
            return f"{parent.number or 'declared'} {_plain(parent.energy)} up to {_at(parent.at, zone_name)}"


def _register(name: str, old: RegisterPart, new: RegisterPart, zone_name: str) -> Iterator[Difference]:
    where = f"{name}, {old.meter} {old.quantity}"
    if old.multiplier != new.multiplier:
        yield Difference("multiplier", where, _plain(old.multiplier), _plain(new.multiplier))
    for a, b in ((old.start, new.start), (old.end, new.end)):
        if (a.at, a.units, a.quality) != (b.at, b.units, b.quality):  # the same value may have been read again
            yield Difference("register", where, _end(a, zone_name), _end(b, zone_name))
    if old.wrap_units != new.wrap_units:
        yield Difference("meter", f"{where}, rolls over at", _units(old.wrap_units), _units(new.wrap_units))


def _end(end: RegisterEnd, zone_name: str) -> str:
    return f"{_units(end.units)} at {_at(end.at, zone_name)} ({end.quality.name.lower()}, outcome {end.outcome_id})"


def _intervals(name: str, old: IntervalPart, new: IntervalPart) -> Iterator[Difference]:
    """The parts differ in what was summed, not only in when."""
    where = f"{name}, {old.meter} {old.quantity}"
    if old.multiplier != new.multiplier:
        yield Difference("multiplier", where, _plain(old.multiplier), _plain(new.multiplier))
    if (old.window, old.step_s, old.count, old.sum_units) != (new.window, new.step_s, new.count, new.sum_units):
        shown = [f"{_units(part.sum_units)} in {part.count} of {part.step_s} s" for part in (old, new)]
        yield Difference("intervals", where, *shown)


def _lines(then: Bill, now: Bill) -> Iterator[Difference]:
    if now.state == "held":
        return
    before, after = _lines_by_code(then), _lines_by_code(now)
    for key in dict.fromkeys([*before, *after]):
        for old, new in zip_longest(before.get(key, ()), after.get(key, ())):
            if old != new:
                words = old.text != new.text if old and new else False
                yield Difference("line", key[0], _line(old, words=words), _line(new, words=words))


def _lines_by_code(bill: Bill) -> dict[tuple[str, str], list[BillLine]]:
    found: dict[tuple[str, str], list[BillLine]] = {}
    for line in bill.lines:
        found.setdefault((line.code, line.determinant), []).append(line)
    return found


def _line(line: BillLine | None, *, words: bool) -> str:
    if line is None:
        return _NOTHING
    text = f"{line.text}: " if words else ""
    return f"{text}{_plain(line.quantity)} {line.unit} x {_plain(line.price)} = {line.amount}"


def _total(then: Bill, now: Bill) -> Iterator[Difference]:
    if now.state != "held" and then.total != now.total:
        yield Difference("total", "", f"{then.total} {then.currency}", f"{now.total} {now.currency}")


def _units(units: int) -> str:
    return _plain(Decimal(units).scaleb(-4))


def _plain(value: Decimal) -> str:
    shown = f"{value:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _at(moment: datetime, zone_name: str) -> str:
    return f"{moment.astimezone(zone(zone_name)):%Y-%m-%d %H:%M}"
