"""headend check: the configuration whole, nothing opened."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from billing.charges import Tariff
from config.imports import check_files
from config.site import Site, survey_site
from headend.app import open_vault
from headend.cli.common import check_address, opened, out, site_path_option, survey_tariffs
from headend.errors import ConfigError, Problem
from headend.masterkey import load_master_key

__all__ = ["check"]


@click.command()
@site_path_option
@click.option("--meters", type=click.Path(path_type=Path), help="Also check this meters.csv.")
@click.option("--usage-points", type=click.Path(path_type=Path), help="Also check this usage_points.csv.")
@click.option("--accounts", type=click.Path(path_type=Path), help="Also check this accounts.csv.")
@click.option("--terms", type=click.Path(path_type=Path), help="Also check this terms.csv.")
@click.option("--supplies", type=click.Path(path_type=Path), help="Also check this supplies.csv.")
@click.option("--submeters", type=click.Path(path_type=Path), help="Also check this submeters.csv.")
@click.option("--loss-tables", type=click.Path(path_type=Path), help="Also check this loss_tables.csv.")
@click.option("--secrets", is_flag=True, help="Also open the store, to see that the master key opens its secrets.")
def check(site_path: Path, secrets: bool, **files: Path | None) -> None:
    """Check site.toml, meter models, tariffs, the master key and, if named, CSV files.

    Opens no port, no connection and, without --secrets, no database. Everything wrong in all of them is told at once,
    each with its place and what to do; the exit status is 1 then.
    """
    site, problems = survey_site(site_path)
    tariffs, wrong = survey_tariffs(site)
    problems += wrong
    try:
        check_files(
            site,
            **files,
            tariffs={tariff.id for tariff in tariffs},
            zones={tariff.id: tariff.zone for tariff in tariffs},
            check_address=check_address,
        )
    except ConfigError as error:
        problems += error.problems
    problems += _master_key_problems(site)
    if problems:
        raise ConfigError(problems)
    if secrets:
        with opened(site) as store:
            problems = open_vault(site, store).problems()
        if problems:
            raise ConfigError(problems)
    _show(site, tariffs)
    out.print("[green]all good[/green]; " + ("every secret opens" if secrets else "nothing was opened"))


def _master_key_problems(site: Site) -> list[Problem]:
    """What is wrong with the master key that is given; that none is given is no problem by itself."""
    try:
        load_master_key(site.vault.master_key_env, site.master_key_file)
    except ConfigError as error:
        return list(error.problems)
    return []


def _show(site: Site, tariffs: list[Tariff]) -> None:
    table = Table(
        "line", "endpoint", "character", title=f"{site.name}: {len(site.lines)} line(s)", title_justify="left"
    )
    for line in site.lines:
        end = line.endpoint
        character = f"{end.baud} {end.bytesize}{end.parity}{end.stopbits}" if end.kind == "serial" else ""
        table.add_row(line.name, str(end), character)
    out.print(table)
    for schedule in site.schedules:
        every = f"every {schedule.every_s} s" if schedule.every_s else f"horizon {schedule.horizon_days} days"
        out.print(f"schedule {schedule.name}: {schedule.kind.value} of {', '.join(schedule.quantities)}, {every}")
    out.print(f"{len(site.models)} meter models, {len(tariffs)} tariffs")
    for tariff in tariffs:
        out.print(f"  {tariff.id} {tariff.version}: {tariff.title}{'' if tariff.verified else ' (not verified)'}")
