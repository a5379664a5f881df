"""headend import: meters, usage points, accounts and what belongs to them from CSV, all or nothing."""

from __future__ import annotations

from pathlib import Path

import click

from config.imports import import_files
from config.site import Site
from headend.cli.common import check_address, opened, out, site_option, tariffs_of
from headend.errors import UsageError

__all__ = ["import_"]


@click.command(name="import")
@site_option
@click.option("--meters", type=click.Path(path_type=Path), help="meters.csv: what hangs on which line.")
@click.option("--usage-points", type=click.Path(path_type=Path), help="usage_points.csv: which meter stands where.")
@click.option("--accounts", type=click.Path(path_type=Path), help="accounts.csv: who pays, by which tariff.")
@click.option("--terms", type=click.Path(path_type=Path), help="terms.csv: tariff, contract, capacity from a day on.")
@click.option("--supplies", type=click.Path(path_type=Path), help="supplies.csv: transformers and lines with losses.")
@click.option("--loss-tables", type=click.Path(path_type=Path), help="loss_tables.csv: published transformer losses.")
@click.option(
    "--submeters", type=click.Path(path_type=Path), help="submeters.csv: usage points behind another's meter."
)
def import_(site: Site, **files: Path | None) -> None:
    """Take meters, usage points, accounts and what belongs to them from CSV files into the store.

    All named files are checked whole first; with one mistake in them nothing is changed. Importing the same files
    again changes nothing. The columns are described in docs/import.md.

    \b
    Example:
      headend import --meters meters.csv --usage-points usage_points.csv --accounts accounts.csv
    """
    if not any(files.values()):
        names = [f"--{name.replace('_', '-')}" for name in files]
        raise UsageError("nothing to import", remedy=f"name {', '.join(names[:-1])} or {names[-1]}")
    tariffs = tariffs_of(site)
    with opened(site) as store:
        counts = import_files(
            store,
            site,
            **files,
            tariffs={tariff.id for tariff in tariffs},
            zones={tariff.id: tariff.zone for tariff in tariffs},
            check_address=check_address,
        )
    for name, count in counts.items():
        out.print(f"{name}: {count.added} added, {count.changed} changed, {count.same} as before")
