"""headend catalogue: what the meters' own identifiers mean."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table

from headend.cli.common import out
from headend.errors import UsageError
from headend.protocols.dlt645.catalogue import Item, find, items, items_1997
from headend.quantities import BY_DI

__all__ = ["catalogue"]

_SHOWN = 60


@click.command()
@click.argument("words", metavar="WORD...", nargs=-1, required=True)
@click.option("--all", "-a", "everything", is_flag=True, help=f"Show every match, not the first {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs: every match.")
def catalogue(words: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Search the catalogues of DL/T 645 data identifiers, 2007 (eight digits) and 1997 (four).

    WORD is part of an identifier, of a name in English or Chinese, of a unit, an OBIS code or a version; of several
    words all must be found. Any identifier listed here can be read: `headend read METER DI`.

    \b
    Examples:
      headend catalogue 00010000
      headend catalogue cover open
      headend catalogue 失压 A相
      headend catalogue 1-0:1.8.0
      headend catalogue dlt645-1997 voltage
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
        known = BY_DI[item.di].name if item.di in BY_DI else item.maps_to
        row = (item.di, item.name, item.name_zh, item.format, item.unit, item.obis, known, item.note)
        table.add_row(*map(escape, row))
    out.print(table)
    if len(found) > _SHOWN and not everything:
        out.print(f"{len(found)} match, {_SHOWN} are shown: --all shows them all")


def _search(words: list[str]) -> list[Item]:
    """The items in which every word is found; identifiers derived by rule are found by their whole number."""
    every = [*items().values(), *items_1997().values()]
    found = [item for item in every if all(word in _text(item) for word in words)]
    derived = find(words[0].upper()) if len(words) == 1 else None
    if derived is not None and derived not in found:
        found.insert(0, derived)
    return found


def _text(item: Item) -> str:
    return "\n".join((_version(item), item.di, item.name, item.name_zh, item.unit, item.obis, item.maps_to)).lower()


def _plain(item: Item) -> dict[str, object]:
    return {"protocol": _version(item), **asdict(item)}


def _version(item: Item) -> str:
    return "dlt645-2007" if len(item.di) == 8 else "dlt645-1997"
