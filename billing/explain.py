"""From a bill back to the bytes: line, determinant, registers and intervals, outcomes, frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Connection, select

from billing import adjustments, schema, store
from billing.calendar import PeriodSpan
from billing.explain_values import Node, Walk, interval_node, is_demand, plain, quality_text, register_node
from billing.model import Bill, BillLine, Derived, Determinant, Hold, IntervalPart, RegisterPart, UsedBefore
from billing.names import CARRIED_ON, EXPORT, MARKET, NET, PERCENT, POWER_FACTOR, SURPLUS, TOTAL
from billing.release import code_of, told
from headend.errors import UsageError
from headend.model import Window
from headend.store import registry

__all__ = ["Node", "explain"]

_DERIVED = {
    POWER_FACTOR: (TOTAL, "import_kvarh", "export_kvarh"),
    NET: (TOTAL, EXPORT),
    SURPLUS: (TOTAL, EXPORT),
}
"""What these are made from on bills that do not tell it themselves."""
_DERIVED_TEXT = {
    POWER_FACTOR: "active / sqrt(active^2 + reactive^2), half-up to two places",
    NET: "import less export, 0 where more was exported",
    SURPLUS: "export less import, 0 where more was imported",
    CARRIED_ON: "what was exported beyond the import, kept for the months that follow",
}
_ADJUSTMENT = "adjustment:"


def explain(conn: Connection, number: str, day: date | None = None) -> Node:
    """The bill `number` as a tree down to its frames; `day` opens the intervals of one civil day of the tariff's zone.

    A held bill shows why it was held, and when. `UsageError` for an unknown bill and a day outside its period.
    """
    bill = store.bill(conn, number)
    if bill is None:
        near = get_close_matches(number, list(conn.scalars(select(schema.bill.c.number))), n=1)
        remedy = f"did you mean {near[0]}?" if near else "`headend bill list YYYY-MM` lists them"
        raise UsageError(f"unknown bill {number!r}", remedy=remedy)
    protocols = {meter.key: meter.protocol for meter in registry.meters(conn)}
    walk = Walk(conn, bill, day, protocols, tuple(_spans(conn, bill)))
    _check_day(walk, day)
    detail = tuple(_head(walk))
    if bill.state != "issued":
        held = [_held_node(walk, at, holds) for at, holds in store.hold_history(conn, number)]
        return Node(f"bill {number}: {bill.state}", detail, (*held, *_releases(walk)))
    made = _Made(walk, {determinant.name: determinant for determinant in bill.determinants})
    lines = [_line_node(walk, line, made) for line in bill.lines]
    for name in made.all:
        if name not in made.nodes:
            node = made.node(name)
            lines.append(Node(f"checked against {node.title}", node.detail, node.children))
    lines += [Node(f"found: {hold.code}", (str(hold),)) for hold in bill.holds]
    return Node(f"bill {number}: {bill.total} {bill.currency}", detail, (*lines, *_releases(walk)))


def _parts(bill: Bill) -> list[tuple[Window, str]]:
    """The parts of the bill's period, each with the SHA of its tariff's version."""
    parts = bill.segments or ((bill.window.start, bill.tariff_sha),)
    ends = [start for start, _ in parts[1:]] + [bill.window.end]
    return [(Window(start, end), sha) for (start, sha), end in zip(parts, ends, strict=True)]


def _spans(conn: Connection, bill: Bill) -> Iterator[PeriodSpan]:
    for window, sha in _parts(bill):
        yield from store.tariff_spans(conn, sha, window)


def _check_day(walk: Walk, day: date | None) -> None:
    first = walk.bill.window.start.astimezone(walk.tz).date()
    last = (walk.bill.window.end - timedelta(seconds=1)).astimezone(walk.tz).date()
    if day is not None and not first <= day <= last:
        remedy = f"choose a day from {first} to {last}"
        raise UsageError(f"{day} is not in the period of bill {walk.bill.number}", remedy=remedy)


def _head(walk: Walk) -> Iterator[str]:
    bill = walk.bill
    yield f"account {bill.account}, usage point {bill.usage_point}"
    yield f"{walk.when(bill.window.start)} to {walk.when(bill.window.end)}"
    yield f"tariff {bill.tariff}, version {bill.tariff_version}, file {bill.tariff_sha}"
    if bill.segments:
        for window, sha in _parts(bill):
            yield f"part from {window.start.astimezone(walk.tz).date()}: tariff file {sha}"
    if bill.replaces:
        yield f"corrects bill {bill.replaces}"
    if bill.reversed_by:
        yield f"taken back by ledger entry {bill.reversed_by}"
    if bill.issued_at is not None:
        yield f"issued {walk.when(bill.issued_at)} from what was there up to outcome {bill.as_of}"


def _held_node(walk: Walk, at: datetime, holds: Sequence[Hold]) -> Node:
    return Node(f"held {walk.when(at)}", tuple(str(hold) for hold in holds))


def _releases(walk: Walk) -> list[Node]:
    """Who let the bill pass although something was odd."""
    return [
        Node(
            f"released {walk.when(one.at)} by {one.by}",
            (f"for {', '.join(dict.fromkeys(map(code_of, one.codes)))}: {one.reason}", *map(told, one.codes)),
        )
        for one in store.releases(walk.conn, walk.bill.number)
    ]


def _line_node(walk: Walk, line: BillLine, made: _Made) -> Node:
    sign = "of" if line.unit == PERCENT else "x"
    arithmetic = f"{plain(line.quantity)} {line.unit} {sign} {line.price} = {line.amount} {walk.bill.currency}"
    children = tuple(made.asked(line.determinant))
    if line.determinant.startswith(_ADJUSTMENT):
        children = tuple(_adjustment_nodes(walk, line.determinant.removeprefix(_ADJUSTMENT)))
    return Node(f"{line.code}: {line.amount} {walk.bill.currency}", (line.text, arithmetic), children)


def _adjustment_nodes(walk: Walk, number: str) -> Iterator[Node]:
    for one in adjustments.adjustments(walk.conn, where=[schema.bill_adjustment.c.number == number]):
        detail = (f"made {walk.when(one.made_at)} by {one.made_by}: {one.reason}", *_basis(one.basis))
        yield Node(f"adjustment {number} for bill {one.corrects}", detail)


def _basis(basis: Mapping[str, Any]) -> Iterator[str]:
    """The calculation behind an adjustment, its steps one by one."""
    for name, value in basis.items():
        if name == "steps":
            yield from (f"{step['what']}: {step['value']} {step['unit']}".rstrip() for step in value)
        else:
            yield f"{name}: {value}"


# -- determinants ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Made:
    """The determinants of a bill as nodes, each made once, when something rests on it."""

    walk: Walk
    all: dict[str, Determinant]
    nodes: dict[str, Node] = field(default_factory=dict)

    def asked(self, name: str) -> Iterator[Node]:
        """The node of a determinant that a line or another determinant rests on, if the bill has it."""
        if name in self.all:
            yield self.node(name)

    def node(self, name: str) -> Node:
        """The node of a determinant."""
        if name not in self.nodes:
            self.nodes[name] = _determinant_node(self.walk, self.all[name], self)
        return self.nodes[name]


def _determinant_node(walk: Walk, determinant: Determinant, made: _Made) -> Node:
    detail, children = _sum_of(determinant), list[Node]()
    if "@" in determinant.name:
        detail.append(f"part from {determinant.name.partition('@')[2]}")
    if determinant.counts:
        kind = "intervals" if any(isinstance(part, IntervalPart) for part in determinant.parents) else "registers"
        detail.append(f"{kind}: {quality_text(dict(determinant.counts))}")
    for part in determinant.parents:
        match part:
            case RegisterPart():
                children.append(register_node(walk, part))
            case IntervalPart():
                children.append(interval_node(walk, part, determinant.name))
            case Derived(name=name, value=value):
                children += list(made.asked(name)) or [Node(f"{name}: {plain(value)} {determinant.unit}".rstrip())]
            case UsedBefore():
                pass
    if not determinant.parents:
        children += [node for name in _DERIVED.get(determinant.name, ()) for node in made.asked(name)]
    if determinant.used_before is not None:
        children.append(_used_node(walk, determinant))
    title = f"{determinant.name} = {plain(determinant.value)} {determinant.unit}".rstrip()
    return Node(title, tuple(detail), tuple(children))


def _sum_of(determinant: Determinant) -> list[str]:
    """How a determinant comes from its parents, in words or as a sum."""
    name = determinant.name
    if name in _DERIVED_TEXT:
        return [_DERIVED_TEXT[name]]
    terms = [part.value for part in determinant.parents if not isinstance(part, UsedBefore)]
    if len(terms) < 2 or name.startswith(MARKET) or is_demand(name):
        return []
    signed = "".join(f" {'-' if term < 0 else '+'} {plain(abs(term))}" for term in terms[1:])
    return [f"{plain(terms[0])}{signed} = {plain(determinant.value)}"]


def _used_node(walk: Walk, determinant: Determinant) -> Node:
    assert determinant.used_before is not None
    detail = tuple(
        f"bill {part.number}: {plain(part.energy)} kWh"
        if part.number
        else f"declared on the account at {walk.when(part.at)}: {plain(part.energy)} kWh"
        for part in determinant.parents
        if isinstance(part, UsedBefore)
    )
    return Node(f"used before in the step year: {plain(determinant.used_before)} kWh", detail)
