"""headend tariff import-urdb, export-urdb: rates of the OpenEI Utility Rate Database in and out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.markup import escape

from billing.charges import Tariff
from config.urdb import read_urdb, write_tariff
from config.urdb_export import to_urdb
from headend.app import now_utc
from headend.cli.common import out
from headend.cli.tariff_sheet import sheet
from headend.errors import ConfigError, Problem, UsageError

__all__ = ["export", "import_urdb"]


@click.command("import-urdb")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="The tariff file to write.")
@click.option("--zone", "zone_name", required=True, help="Time zone of the utility; URDB does not tell it.")
@click.option("--label", help="Which rate, where the file holds several.")
@click.option("--partial", is_flag=True, help="Leave out what can't be expressed; the tariff's note lists it.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
def import_urdb(file: Path, target: Path, zone_name: str, label: str | None, partial: bool, force: bool) -> None:
    """Turn a rate of the OpenEI Utility Rate Database (JSON) into a tariff file.

    What a tariff here can't express is told, each thing by itself, and nothing is written; with --partial the rest is
    written and the note of the tariff lists what is left out. Nothing of the rate is dropped silently.

    \b
    Example:
      headend tariff import-urdb rate.json --out my-utility.toml --zone America/New_York
    """
    _free(target, force)
    tariff_id = target.stem.partition("@")[0]
    imported = read_urdb(file, tariff_id, zone_name, today=now_utc().date(), label=label, partial=partial)
    written = write_tariff(target, imported)
    out.print(sheet(written))
    for note in imported.notes:
        out.print(f"[yellow]note[/yellow]: {escape(note)}")
    out.print(f"written to {target}; check it against the utility's own sheet", markup=False)


def export(versions: Sequence[Tariff], target: Path, *, partial: bool, force: bool) -> None:
    """Write one tariff as a rate of URDB; `ConfigError` with what has no place in it unless `partial`."""
    if len(versions) > 1:
        names = ", ".join(f"{one.id}@{one.version}" for one in versions)
        raise UsageError(f"{versions[0].id} has {len(versions)} versions", remedy=f"name one: {names}")
    _free(target, force)
    exported = to_urdb(versions[0])
    if exported.left_out and not partial:
        raise ConfigError(exported.left_out)
    try:
        target.write_text(exported.text, encoding="utf-8")
    except OSError as error:
        problem = Problem(str(target), f"can't be written: {error.strerror}", "name another file")
        raise ConfigError([problem]) from error
    for one in exported.left_out:
        out.print(f"[yellow]left out[/yellow]: {escape(f'{one.where}: {one.what}')}")
    out.print(f"written to {target}", markup=False)


def _free(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise UsageError(f"{target} exists", remedy="name another file, or add --force")
