"""headend catalogue: what the meters' own identifiers mean."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table

from headend.cli.common import out
from headend.errors import UsageError
from headend.protocols.dlms import catalogue as cosem
from headend.protocols.dlms.cosem import obis_bytes, obis_short, obis_text
from headend.protocols.dlt645.catalogue import Item, find, items, items_1997
from headend.quantities import BY_DI, QUANTITIES

__all__ = ["catalogue"]

_SHOWN = 60


@click.command()
@click.argument("words", metavar="WORD...", nargs=-1, required=True)
@click.option("--all", "-a", "everything", is_flag=True, help=f"Show every match, not the first {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs: every match.")
def catalogue(words: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Search the catalogues: DL/T 645 data identifiers of 2007 (eight digits) and 1997 (four), OBIS codes of DLMS.

    WORD is part of an identifier, of a name in English or Chinese, of a unit, an OBIS code or a protocol; of several
    words all must be found. Any identifier listed here can be read: `headend read METER DI` or `headend read METER
    OBIS`.

    \b
    Examples:
      headend catalogue 00010000
      headend catalogue cover open
      headend catalogue 失压 A相
      headend catalogue 1-0:1.8.0
      headend catalogue dlt645-1997 voltage
      headend catalogue dlms event log
    """
    found = _search([word.lower() for word in words])
    if not found:
        raise UsageError(
            f"no identifier matches {' '.join(words)!r}", remedy="try fewer or shorter words, such as energy or 电能"
        )
    if as_json:
        click.echo(json.dumps([_plain(item) for item in found], ensure_ascii=False, indent=2))
        return
    table = Table("DI", "name", "中文", "format", "unit", "OBIS", "quantity or 2007 DI", "note")
    for item in found if everything else found[:_SHOWN]:
        known = BY_DI[item.di].name if item.di in BY_DI else item.maps_to or _by_obis(item)
        row = (item.di, item.name, item.name_zh, item.format, item.unit, item.obis, known, item.note)
        table.add_row(*map(escape, row))
    out.print(table)
    if len(found) > _SHOWN and not everything:
        out.print(f"{len(found)} match, {_SHOWN} are shown: --all shows them all")


def _search(words: list[str]) -> list[Item]:
    """The items in which every word is found; identifiers derived by rule are found by their whole number."""
    every = [*items().values(), *items_1997().values(), *map(_row, cosem.items().values())]
    found = [item for item in every if all(word in _text(item) for word in words)]
    derived = _derived(words[0]) if len(words) == 1 else None
    if derived is not None and derived not in found:
        found.insert(0, derived)
    return found


def _derived(word: str) -> Item | None:
    """What an identifier means that is not written out."""
    found = find(word.upper())
    if found is not None:
        return found
    try:
        known = cosem.find(obis_bytes(word))
    except UsageError:
        return None
    return None if known is None else _row(known)


def _row(item: cosem.ObisItem) -> Item:
    """An object of DLMS as a row of the same table."""
    kind = cosem.CLASSES.get(item.class_id, "")
    note = f"class {item.class_id} {kind}, attribute {item.attribute}"
    obis = obis_short(obis_bytes(item.obis))
    return Item("", item.name, item.name_zh, item.type, None, 0, item.unit, False, item.group, obis, note)


def _by_obis(item: Item) -> str:
    """The quantity a DLMS object is; "" for none, and for what is of another protocol."""
    if item.di:
        return ""
    return next((one.name for one in QUANTITIES.values() if one.obis == item.obis), "")


def _text(item: Item) -> str:
    dotted = "" if item.di else obis_text(obis_bytes(item.obis))
    words = (_version(item), item.di, item.name, item.name_zh, item.kind, item.unit, item.obis, dotted, item.maps_to)
    return "\n".join(words).lower()


def _plain(item: Item) -> dict[str, object]:
    return {"protocol": _version(item), **asdict(item)}


def _version(item: Item) -> str:
    if not item.di:
        return "dlms"
    return "dlt645-2007" if len(item.di) == 8 else "dlt645-1997"
