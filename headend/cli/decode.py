"""headend decode: what a frame says. headend quantities: what can be measured."""

from __future__ import annotations

import json
import re

import click
from rich.table import Table

from headend.cli.common import out
from headend.errors import UsageError
from headend.protocols import PROTOCOLS, Explanation, dlt645
from headend.quantities import QUANTITIES

__all__ = ["decode", "explanation_text", "quantities"]

# A protocol's name without a version: the frame says which it is.
_EXPLAIN = {"dlt645": dlt645.explain, **{name: driver.explain for name, driver in PROTOCOLS.items()}}


@click.command()
@click.argument("protocol", type=click.Choice(sorted(_EXPLAIN)))
@click.argument("hex_text", metavar="HEX", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def decode(protocol: str, hex_text: tuple[str, ...], as_json: bool) -> None:
    """Explain a frame given in hex: its fields, names, values, checks, and what is odd about it.

    Spaces and 0x are allowed. `dlt645` tells the version, 1997 or 2007, by the frame's control code; the full names
    force one. Passwords in a frame are not spelled out. The exit status is 1 if the bytes hold no sound frame.

    \b
    Example:
      headend decode dlt645 68 61 01 00 00 00 00 68 91 08 33 33 34 33 59 33 33 33 8A 16
    """
    text = re.sub(r"0x|[\s,:-]", "", " ".join(hex_text), flags=re.IGNORECASE)
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise UsageError("that is not hex", remedy="give pairs of hex digits, like 68 61 01 ... 16") from error
    explanation = _EXPLAIN[protocol](data)
    if as_json:
        click.echo(json.dumps(explanation.to_json(), ensure_ascii=False, indent=2))
    else:
        click.echo(explanation_text(explanation))
    if not explanation.ok:
        raise SystemExit(1)


def explanation_text(explanation: Explanation) -> str:
    """An explanation as lines of text."""
    lines = [explanation.summary]
    width = max((len(field.name) for field in explanation.fields), default=0)
    lines += [f"  {field.name:<{width}}  {field.hex:<14}  {field.text}" for field in explanation.fields]
    for value in explanation.values:
        shown = "null (not there)" if value.value is None else f"{value.value} {value.unit}".rstrip()
        obis = f"  {value.obis}" if value.obis else ""
        note = f"  {value.note}" if value.note and value.value is not None else ""
        lines.append(f"  = {value.name} ({value.name_zh}): {shown}  [{value.di}]{obis}{note}")
    lines += [f"  ! {problem}" for problem in explanation.problems]
    return "\n".join(lines)


@click.command()
@click.argument("word", required=False, default="")
def quantities(word: str) -> None:
    """List what can be measured: our names with the field's (OBIS, DL/T 645 DI, CIM ReadingType)."""
    table = Table("name", "unit", "kind", "OBIS", "DI", "CIM", "what")
    for item in QUANTITIES.values():
        row = (item.name, item.unit, item.kind.value, item.obis, item.di, item.cim, item.title)
        if word.lower() in " ".join(row).lower():
            table.add_row(*row)
    out.print(table)
