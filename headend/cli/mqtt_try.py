"""headend mqtt try: what a message means by a mapping, without broker, site or store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.markup import escape
from rich.table import Table

from config.mqtt_mapping import SHIPPED_MAPPINGS, load_mapping
from config.problems import nearest
from headend.app import now_utc
from headend.civil import from_epoch_s
from headend.cli.common import out
from headend.errors import UsageError
from headend.mqtt.batch import Batch
from headend.mqtt.canonical import CANONICAL
from headend.mqtt.dialect import Dialect, concentrator_of
from headend.quantities import QUANTITIES, from_units

__all__ = ["try_"]

_MAX_BYTES = 64 * 1024 * 1024
_WORDS = {0: "", 1: "estimated", 2: "suspect", 4: "missing", 8: "clock doubtful"}


@click.command("try")
@click.argument("mapping")
@click.argument("topic")
@click.argument("file", type=click.File("rb"))
@click.option("--received", metavar="TIME", help="When it arrived, ISO 8601 with offset; now, if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def try_(mapping: str, topic: str, file: BinaryIO, received: str | None, as_json: bool) -> None:
    """Show what the payload in FILE (- is standard input), published on TOPIC, means by MAPPING.

    MAPPING is the name of a shipped mapping, `canonical`, or a .toml file. Nothing is stored or sent; the answer a
    concentrator would get is shown. The exit status is 1 if nothing in it, or not all of it, can be taken.

    \b
    Examples:
      headend mqtt try neuron /neuron/plant1/meter7/energy payload.json
      headend mqtt try ./my_mapping.toml tele/plug3/SENSOR payload.json --received 2026-11-24T12:00:00+01:00
    """
    dialect = _dialect(mapping)
    payload = file.read(_MAX_BYTES + 1)
    if len(payload) > _MAX_BYTES:
        raise UsageError(f"the file holds more than {_MAX_BYTES // 1024 // 1024} MiB", remedy="give one message")
    named = next((found for one in dialect.filters if (found := concentrator_of(one, topic)) is not None), None)
    if named is None:
        raise UsageError(f"{mapping} does not listen to {topic}", remedy=f"it listens to {', '.join(dialect.filters)}")
    batch = dialect.decode(topic, payload, _moment(received))
    shown = _as_json(batch, named)
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        _print(shown)
    if batch.rejected:
        raise SystemExit(1)


def _dialect(name: str) -> Dialect:
    if name == CANONICAL.name:
        return CANONICAL
    if name.endswith(".toml"):
        return load_mapping(Path(name))
    shipped = {file.stem: file for file in SHIPPED_MAPPINGS.glob("*.toml")}
    if name not in shipped:
        raise UsageError(f"no mapping {name!r} is shipped", remedy=nearest(name, [*shipped, CANONICAL.name]))
    return load_mapping(shipped[name])


def _moment(text: str | None) -> datetime:
    if text is None:
        return now_utc()
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        remedy = "write 2026-11-24T12:00:00+01:00"
        raise UsageError(f"{text!r} is no time with its offset from UTC", remedy=remedy) from None


def _as_json(batch: Batch, named: str) -> dict[str, Any]:
    values = []
    for rows in batch.meters:
        for at_s, row, bits in zip(rows.times, rows.values, rows.bits, strict=True):
            for column, number in zip(batch.columns, row, strict=True):
                if number is None or not column.quantity:
                    continue
                units, rest = divmod(number * column.units_factor, column.units_divisor)
                values.append(
                    {
                        "meter": rows.address,
                        "at": from_epoch_s(at_s).isoformat(),
                        "quantity": column.quantity,
                        "value": "finer than the store" if rest else str(from_units(units)),
                        "unit": QUANTITIES[column.quantity].unit,
                        "quality": ", ".join(word for bit, word in _WORDS.items() if bit & bits),
                    }
                )
    return {
        "concentrator": named or batch.concentrator,
        "kind": None if batch.kind is None else batch.kind.value,
        "step_s": batch.step_s,
        "values": values,
        "events": [
            {"meter": one.address, "at": from_epoch_s(one.at).isoformat(), "code": one.code, "phase": one.phase}
            for one in batch.events
        ],
        "rejected": [{"meter": one.address, "reason": one.reason} for one in batch.rejected],
        "reply": {"topic": batch.reply[0], "payload": batch.reply[1].decode("utf-8", "replace")},
    }


def _print(shown: dict[str, Any]) -> None:
    grid = f", grid of {shown['step_s']} s" if shown["step_s"] else ""
    out.print(f"concentrator {shown['concentrator'] or '?'}: {shown['kind'] or 'no values'}{grid}", markup=False)
    if shown["values"]:
        table = Table("meter", "at (UTC)", "quantity", "value", "unit", "quality")
        for one in shown["values"]:
            table.add_row(*(escape(one[key]) for key in ("meter", "at", "quantity", "value", "unit", "quality")))
        out.print(table)
    for one in shown["events"]:
        out.print(f"event {one['code']} ({one['phase']}) of {one['meter']} at {one['at']}", markup=False)
    for one in shown["rejected"]:
        out.print(f"not taken: {one['meter'] + ': ' if one['meter'] else ''}{one['reason']}", markup=False)
    if shown["reply"]["topic"]:
        out.print(f"answer on {shown['reply']['topic']}: {shown['reply']['payload']}", markup=False, soft_wrap=True)
