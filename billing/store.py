"""Bills in the database: put once, list, show. An issued bill never changes; triggers of the database see to that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, insert, select, update

from billing import schema
from billing.calendar import PeriodSpan
from billing.model import (
    MINOR_DIGITS,
    Bill,
    BillLine,
    Determinant,
    Hold,
    IntervalPart,
    Parent,
    RegisterEnd,
    RegisterPart,
    Tariff,
    UsedBefore,
)
from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Quality, Source, Window
from headend.store.portable import add_absent
from headend.store.schema import outcome

__all__ = [
    "bill",
    "bills",
    "highest_outcome",
    "hold_history",
    "issued_energy",
    "issued_numbers",
    "put",
    "put_tariff",
    "tariff_spans",
    "tariff_text",
]


def highest_outcome(conn: Connection) -> int:
    """The highest outcome id in the store, 0 if there is none."""
    return conn.scalar(select(func.max(outcome.c.id))) or 0


def issued_numbers(conn: Connection, numbers: Sequence[str]) -> set[str]:
    """Those of `numbers` that are issued already."""
    table, found = schema.bill, set[str]()
    for start in range(0, len(numbers), 400):
        chunk = numbers[start : start + 400]
        query = select(table.c.number).where(table.c.number.in_(chunk), table.c.state == "issued")
        found.update(conn.scalars(query))
    return found


def issued_energy(
    conn: Connection, account: str, determinant: str, window: Window
) -> list[tuple[str, Window, Decimal]]:
    """Number, period and energy of an account's issued bills within `window`, in order of time."""
    table, parts = schema.bill, schema.bill_determinant
    query = (
        select(table.c.number, table.c.period_start, table.c.period_end, parts.c.value)
        .join(parts, (parts.c.bill_key == table.c.key) & (parts.c.name == determinant))
        .where(
            table.c.account == account,
            table.c.state == "issued",
            table.c.period_start >= to_epoch_s(window.start),
            table.c.period_end <= to_epoch_s(window.end),
        )
        .order_by(table.c.period_start, table.c.sequence)
    )
    return [
        (row.number, Window(from_epoch_s(row.period_start), from_epoch_s(row.period_end)), Decimal(row.value))
        for row in conn.execute(query)
    ]


# -- putting -----------------------------------------------------------------------------------------------------------


def put_tariff(conn: Connection, tariff: Tariff, split: Mapping[Window, Sequence[PeriodSpan]], now: datetime) -> None:
    """Keep a tariff's text, and how its TOU periods split the given billing periods; what is there stays."""
    row = {name: getattr(tariff, name) for name in ("sha", "id", "version", "title", "source", "verified", "zone")}
    row |= {"currency": tariff.currency, "text": tariff.text, "stored_at": to_epoch_s(now)}
    add_absent(conn, schema.tariff_version, [row])
    rows = [
        {
            "tariff_sha": tariff.sha,
            "period_start": to_epoch_s(window.start),
            "period_end": to_epoch_s(window.end),
            "spans": "\n".join(f"{to_epoch_s(s.start)} {to_epoch_s(s.end)} {s.period}" for s in found),
        }
        for window, found in split.items()
    ]
    add_absent(conn, schema.tariff_spans, rows)


def put(conn: Connection, bill: Bill, now: datetime) -> str:
    """Store a bill that is to be issued or held; what became of it: `issued`, `held`, or `already` (issued before).

    A held bill that is held again keeps its row; its reasons are added to its history if they changed. Raises
    SQLAlchemy's `IntegrityError` if another close stored the same bill at the same moment.
    """
    table = schema.bill
    found = conn.execute(select(table.c.key, table.c.state).where(table.c.number == bill.number).with_for_update())
    row = found.one_or_none()
    if row is not None and row.state == "issued":
        return "already"
    values = _bill_values(bill)
    if row is None:
        state = "held" if bill.state == "held" else "draft"
        key = conn.execute(insert(table).values(values | {"state": state}).returning(table.c.key)).scalar_one()
    else:
        key = row.key
    if bill.state == "held":
        _put_holds(conn, key, bill.holds, now)
        if row is not None:
            conn.execute(update(table).where(table.c.key == key).values(values))
        return "held"
    _put_content(conn, key, bill)
    digits = MINOR_DIGITS[bill.currency]
    total = sum((line.amount for line in bill.lines), Decimal(0))
    issued = {"state": "issued", "total_minor": _minor(total, digits), "issued_at": to_epoch_s(now)}
    conn.execute(update(table).where(table.c.key == key).values(values | issued))
    return "issued"


def _bill_values(bill: Bill) -> dict[str, Any]:
    return {
        "number": bill.number,
        "account": bill.account,
        "usage_point": bill.usage_point,
        "period_start": to_epoch_s(bill.window.start),
        "period_end": to_epoch_s(bill.window.end),
        "sequence": 0,
        "tariff": bill.tariff,
        "tariff_version": bill.tariff_version,
        "tariff_sha": bill.tariff_sha or None,
        "zone": bill.zone,
        "currency": bill.currency,
        "as_of": bill.as_of,
    }


def _put_holds(conn: Connection, key: int, holds: Sequence[Hold], now: datetime) -> None:
    history = _hold_rows(conn, schema.bill_hold.c.bill_key == key)[key]
    last = max(history, default=0)
    if last and history[last][1] == tuple(holds):
        return
    rows = [
        {
            "bill_key": key,
            "evaluation": last + 1,
            "position": position,
            "evaluated_at": to_epoch_s(now),
            "code": hold.code,
            "what": hold.what,
            "remedy": hold.remedy,
            "meter": hold.meter,
            "span_start": None if hold.start is None else to_epoch_s(hold.start),
            "span_end": None if hold.end is None else to_epoch_s(hold.end),
            "count": hold.count,
        }
        for position, hold in enumerate(holds, start=1)
    ]
    conn.execute(insert(schema.bill_hold), rows)


def _put_content(conn: Connection, key: int, bill: Bill) -> None:
    digits = MINOR_DIGITS[bill.currency]
    rows: dict[Table, list[dict[str, Any]]] = defaultdict(list)
    for number, line in enumerate(bill.lines, start=1):
        rows[schema.bill_line].append(
            {
                "bill_key": key,
                "line": number,
                "code": line.code,
                "text": line.text,
                "quantity": _text(line.quantity),
                "unit": line.unit,
                "price": _text(line.price),
                "amount_minor": _minor(line.amount, digits),
                "determinant": line.determinant,
            }
        )
    for position, determinant in enumerate(bill.determinants, start=1):
        rows[schema.bill_determinant].append(
            {
                "bill_key": key,
                "name": determinant.name,
                "position": position,
                "value": _text(determinant.value),
                "unit": determinant.unit,
                "used_before": None if determinant.used_before is None else _text(determinant.used_before),
                "counts": "\n".join(f"{int(quality)} {count}" for quality, count in determinant.counts),
            }
        )
        for part, parent in enumerate(determinant.parents, start=1):
            table, values = _parent_values(parent)
            rows[table].append({"bill_key": key, "determinant": determinant.name, "part": part} | values)
    for table, of_table in rows.items():
        conn.execute(insert(table), of_table)


def _parent_values(parent: Parent) -> tuple[Table, dict[str, Any]]:
    if isinstance(parent, UsedBefore):
        return schema.bill_used, {
            "number": parent.number,
            "energy": _text(parent.energy),
            "at": to_epoch_s(parent.at),
        }
    common = {
        "meter_key": parent.meter_key,
        "meter": parent.meter,
        "quantity": parent.quantity,
        "multiplier": _text(parent.multiplier),
        "wrap_units": parent.wrap_units,
    }
    if isinstance(parent, RegisterPart):
        ends = {
            f"{name}_{key}": value
            for name, end in (("start", parent.start), ("end", parent.end))
            for key, value in (
                ("at", to_epoch_s(end.at)),
                ("units", end.units),
                ("quality", int(end.quality)),
                ("source", int(end.source)),
                ("outcome_id", end.outcome_id),
            )
        }
        return schema.bill_register, common | ends
    return schema.bill_interval, common | {
        "window_start": to_epoch_s(parent.window.start),
        "window_end": to_epoch_s(parent.window.end),
        "step_s": parent.step_s,
        "count": parent.count,
        "sum_units": parent.sum_units,
        "as_of": parent.as_of,
    }


def _text(value: Decimal) -> str:
    """A decimal as the shortest plain text that means it exactly."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _minor(amount: Decimal, digits: int) -> int:
    scaled = amount.scaleb(digits)
    minor = int(scaled)
    assert minor == scaled, "amounts are rounded before they are stored"
    return minor


# -- reading -----------------------------------------------------------------------------------------------------------


def bill(conn: Connection, number: str) -> Bill | None:
    """The bill with this number, with its lines, determinants and what they come from, or the reasons it is held."""
    return next(iter(_load(conn, schema.bill.c.number == number)), None)


def bills(conn: Connection, window: Window) -> list[Bill]:
    """Every bill whose period starts within `window`, by number."""
    start = schema.bill.c.period_start
    return _load(conn, (start >= to_epoch_s(window.start)) & (start < to_epoch_s(window.end)))


def hold_history(conn: Connection, number: str) -> list[tuple[datetime, tuple[Hold, ...]]]:
    """When a bill was held and why, oldest first, kept after it is issued; only evaluations with new reasons."""
    return [held for found in _hold_rows(conn, schema.bill.c.number == number).values() for held in found.values()]


def tariff_spans(conn: Connection, sha: str, window: Window) -> tuple[PeriodSpan, ...]:
    """How a billing period was split into TOU periods under a stored tariff; () for a tariff without them."""
    table = schema.tariff_spans
    text = conn.scalar(
        select(table.c.spans).where(
            table.c.tariff_sha == sha,
            table.c.period_start == to_epoch_s(window.start),
            table.c.period_end == to_epoch_s(window.end),
        )
    )
    found = (line.split(" ", 2) for line in (text or "").splitlines())
    return tuple(PeriodSpan(from_epoch_s(int(start)), from_epoch_s(int(end)), name) for start, end, name in found)


def tariff_text(conn: Connection, sha: str) -> str | None:
    """The file from which bills with this `tariff_sha` were made, as it was then."""
    return conn.scalar(select(schema.tariff_version.c.text).where(schema.tariff_version.c.sha == sha))


def _load(conn: Connection, where: ColumnElement[bool]) -> list[Bill]:
    lines, determinants = _lines(conn, where), _determinants(conn, where)
    holds = _hold_rows(conn, where)
    found = []
    for row in conn.execute(select(schema.bill).where(where).order_by(schema.bill.c.number)):
        digits = MINOR_DIGITS.get(row.currency, 2)
        reasons = holds[row.key]
        found.append(
            Bill(
                number=row.number,
                account=row.account,
                usage_point=row.usage_point,
                window=Window(from_epoch_s(row.period_start), from_epoch_s(row.period_end)),
                state=row.state,
                tariff=row.tariff,
                tariff_version=row.tariff_version,
                tariff_sha=row.tariff_sha or "",
                zone=row.zone,
                currency=row.currency,
                total=None if row.total_minor is None else Decimal(row.total_minor).scaleb(-digits),
                issued_at=None if row.issued_at is None else from_epoch_s(row.issued_at),
                as_of=row.as_of,
                lines=tuple(_line(line, digits) for line in lines[row.key]),
                determinants=tuple(determinants[row.key]),
                holds=reasons[max(reasons)][1] if row.state == "held" and reasons else (),
            )
        )
    return found


def _rows(conn: Connection, table: Table, where: ColumnElement[bool], *order: str) -> Iterable[Any]:
    query = select(table).join(schema.bill, schema.bill.c.key == table.c.bill_key).where(where)
    return conn.execute(query.order_by(table.c.bill_key, *(table.c[name] for name in order)))


def _lines(conn: Connection, where: ColumnElement[bool]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for row in _rows(conn, schema.bill_line, where, "line"):
        found[row.bill_key].append(row)
    return found


def _line(row: Any, digits: int) -> BillLine:
    amount = Decimal(row.amount_minor).scaleb(-digits)
    quantity, price = Decimal(row.quantity), Decimal(row.price)
    return BillLine(row.code, row.text, quantity, row.unit, price, amount, row.determinant)


def _determinants(conn: Connection, where: ColumnElement[bool]) -> dict[int, list[Determinant]]:
    parents: dict[tuple[int, str], list[tuple[int, Parent]]] = defaultdict(list)
    for table, make in (
        (schema.bill_register, _register_part),
        (schema.bill_interval, _interval_part),
        (schema.bill_used, _used),
    ):
        for row in _rows(conn, table, where, "determinant", "part"):
            parents[row.bill_key, row.determinant].append((row.part, make(row)))
    found: dict[int, list[Determinant]] = defaultdict(list)
    for row in _rows(conn, schema.bill_determinant, where, "position"):
        counts = (line.split() for line in row.counts.splitlines())
        found[row.bill_key].append(
            Determinant(
                row.name,
                Decimal(row.value),
                row.unit,
                None if row.used_before is None else Decimal(row.used_before),
                tuple((Quality(int(quality)), int(count)) for quality, count in counts),
                tuple(parent for _, parent in sorted(parents[row.bill_key, row.name], key=lambda part: part[0])),
            )
        )
    return found


def _register_part(row: Any) -> Parent:
    ends = [
        RegisterEnd(
            from_epoch_s(row._mapping[f"{end}_at"]),
            row._mapping[f"{end}_units"],
            Quality(row._mapping[f"{end}_quality"]),
            Source(row._mapping[f"{end}_source"]),
            row._mapping[f"{end}_outcome_id"],
        )
        for end in ("start", "end")
    ]
    place = (row.meter_key, row.meter, row.quantity)
    return RegisterPart(*place, ends[0], ends[1], row.wrap_units, Decimal(row.multiplier))


def _interval_part(row: Any) -> Parent:
    window = Window(from_epoch_s(row.window_start), from_epoch_s(row.window_end))
    sums = (row.step_s, row._mapping["count"], row.sum_units, row.wrap_units)
    return IntervalPart(row.meter_key, row.meter, row.quantity, window, *sums, Decimal(row.multiplier), row.as_of)


def _used(row: Any) -> Parent:
    return UsedBefore(row.number, Decimal(row.energy), from_epoch_s(row.at))


def _hold_rows(conn: Connection, where: ColumnElement[bool]) -> dict[int, dict[int, tuple[datetime, tuple[Hold, ...]]]]:
    """By bill key and evaluation: when, and the reasons."""
    found: dict[int, dict[int, tuple[datetime, tuple[Hold, ...]]]] = defaultdict(dict)
    for row in _rows(conn, schema.bill_hold, where, "evaluation", "position"):
        start = None if row.span_start is None else from_epoch_s(row.span_start)
        end = None if row.span_end is None else from_epoch_s(row.span_end)
        hold = Hold(row.code, row.what, row.remedy, row.meter, start, end, row._mapping["count"])
        at, before = found[row.bill_key].get(row.evaluation, (from_epoch_s(row.evaluated_at), ()))
        found[row.bill_key][row.evaluation] = (at, (*before, hold))
    return found
