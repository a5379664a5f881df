"""headend tariff: list tariffs, show one as a sheet, bill any load curve by it, exchange them with URDB."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from billing.calendar import billing_month
from billing.charges import Tariff
from billing.try_curve import Curve, Given, Trial, months_of, part_months_of, try_month
from config.load_curves import read_curve
from config.problems import nearest
from config.site import SHIPPED_TARIFFS, load_site
from config.tariff_files import load_tariff, load_tariffs
from headend.civil import zone
from headend.cli.common import month_of, out, tariffs_of
from headend.cli.tariff_sheet import charge_rows, sheet
from headend.cli.tariff_store import diff, load, versions_
from headend.cli.tariff_urdb import export, import_urdb
from headend.errors import UsageError

__all__ = ["tariff"]

_site = click.option(
    "--site",
    "-s",
    "site_path",
    envvar="HEADEND_SITE",
    type=click.Path(path_type=Path),
    help="Site whose own tariffs are known too. [default: site.toml, if there is one]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group()
def tariff() -> None:
    """List, show and try tariffs; exchange them with URDB; keep their versions in the store.

    Only load, versions and diff need a site and its store.
    """


for _command in (load, versions_, diff, import_urdb):
    tariff.add_command(_command)


def _known(site_path: Path | None) -> list[Tariff]:
    """The shipped tariffs, and those of the site if one is named or stands here."""
    if site_path is None and Path("site.toml").exists():
        site_path = Path("site.toml")
    return load_tariffs(SHIPPED_TARIFFS) if site_path is None else tariffs_of(load_site(site_path))


def _versions(name: str, site_path: Path | None) -> list[Tariff]:
    """The versions of the tariff called `name`, oldest first; of a .toml file that one."""
    if name.endswith(".toml"):
        return [load_tariff(Path(name))]
    known = _known(site_path)
    wanted, _, version = name.partition("@")
    found = [t for t in known if t.id == wanted and version in ("", t.version)]
    if not found:
        names = (
            {t.id for t in known}
            if not any(t.id == wanted for t in known)
            else {f"{t.id}@{t.version}" for t in known if t.id == wanted}
        )
        raise UsageError(f"there is no tariff {name!r}", remedy=nearest(name, names))
    return sorted(found, key=lambda t: t.valid_from)


@tariff.command("list")
@_site
@_json
def list_(site_path: Path | None, as_json: bool) -> None:
    """List the tariffs that are known: the shipped ones, and the site's own."""
    known = sorted(_known(site_path), key=lambda t: (t.id, t.valid_from))
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in known], ensure_ascii=False, indent=1))
        return
    table = Table("tariff", "version", "title", "verified", "valid", "currency")
    for one in known:
        valid = f"{one.valid_from} - {one.valid_to or ''}"
        verified = "yes" if one.verified else "[yellow]no[/yellow]"
        table.add_row(escape(one.id), escape(one.version), escape(one.title), verified, valid, one.currency)
    out.print(table)


def _as_json(one: Tariff) -> dict[str, Any]:
    return {
        "id": one.id,
        "version": one.version,
        "title": one.title,
        "source": one.source,
        "source_date": one.source_date.isoformat(),
        "verified": one.verified,
        "note": one.note,
        "valid_from": one.valid_from.isoformat(),
        "valid_to": one.valid_to.isoformat() if one.valid_to else None,
        "zone": one.zone,
        "currency": one.currency,
        "sha": one.sha,
        "rounding": one.policy.rounding,
        "part_month": one.policy.part_month,
        "charges": [
            {"charge": type(charge).__name__, "rows": [list(row) for row in charge_rows(charge)]}
            for charge in one.charges
        ],
    }


@tariff.command()
@click.argument("name")
@_site
@_json
def show(name: str, site_path: Path | None, as_json: bool) -> None:
    """Show a tariff as a sheet: source, validity, charges, steps, and its hours as a picture of the week.

    NAME is a tariff's id (every version is shown), ID@VERSION, or a .toml file.
    """
    found = _versions(name, site_path)
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found], ensure_ascii=False, indent=1))
        return
    for one in found:
        out.print(sheet(one))


@tariff.command("try")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--month", metavar="YYYY-MM", help="Bill this month only; else every whole month of the curve.")
@click.option("--stamps", type=click.Choice(["start", "end"]), default="start", show_default=True,
              help="Whether timestamps are the starts of the intervals or their ends.")  # fmt: skip
@click.option("--used-before", metavar="KWH", help="Energy used in the step year before the curve starts.")
@click.option("--contract-kw", metavar="KW", help="Contracted demand, where the tariff asks for the account's own.")
@click.option("--capacity-kva", metavar="KVA", help="Installed capacity, where the tariff asks for the account's own.")
@click.option("--people", type=click.IntRange(1, 99), help="Size of the household, where limits depend on it.")
@_site
@_json
def try_(
    name: str,
    file: Path,
    month: str | None,
    stamps: str,
    used_before: str | None,
    contract_kw: str | None,
    capacity_kva: str | None,
    people: int | None,
    site_path: Path | None,
    as_json: bool,
) -> None:
    """Bill the load curve in FILE (CSV: timestamp,kWh) by a tariff, and print the lines of the bills.

    NAME is a tariff's id, ID@VERSION, or a .toml file. The curve may have any fixed step; it is checked whole, and all
    problems are told at once. Timestamps without an offset are wall-clock time of the tariff's zone. Nothing is stored.

    \b
    Examples:
      headend tariff try cn-zhejiang-residential-tou-step home.csv --month 2026-07
      headend tariff try ./my_tariff.toml factory.csv --stamps end --json
    """
    versions = _versions(name, site_path)
    used = _number("--used-before", used_before)
    contract, capacity = _number("--contract-kw", contract_kw), _number("--capacity-kva", capacity_kva)
    given = Given(contract, capacity, people)
    wanted = month_of(month) if month else None
    curve = read_curve(file, versions[-1].zone, stamps_at_end=stamps == "end")
    tried = [_tried(versions, curve, one, used, given) for one in _months(curve, versions[-1].zone, wanted)]
    if as_json:
        click.echo(json.dumps([_trial_as_json(*one) for one in tried], ensure_ascii=False, indent=1))
        return
    for one in tried:
        _print(*one)
    left_out = [] if wanted else part_months_of(curve, versions[-1].zone)
    if left_out:
        out.print(f"not billed, for the curve holds a part of them only: {', '.join(map(_month_text, left_out))}")
    if len(tried) > 1:
        total = sum((trial.total for _, trial in tried), Decimal(0))
        out.print(f"{len(tried)} months: {total} {versions[-1].currency}")


def _month_text(month: tuple[int, int]) -> str:
    return f"{month[0]:04d}-{month[1]:02d}"


def _number(option: str, text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0:
        raise UsageError(f"{text!r} is no number of 0 or more", remedy=f"write {option} 1234.5")
    return value


def _months(curve: Curve, zone: str, wanted: tuple[int, int] | None) -> list[tuple[int, int]]:
    whole = months_of(curve, zone)
    if wanted is None and whole:
        return whole
    if wanted is not None and wanted in whole:
        return [wanted]
    has = f"whole months in it: {', '.join(map(_month_text, whole))}" if whole else "it holds no whole month"
    span = f"{curve.start:%Y-%m-%d %H:%M} to {curve.end:%Y-%m-%d %H:%M} UTC"
    what = f"the curve ({span}) does not cover {_month_text(wanted) if wanted else 'any month'} from start to end"
    raise UsageError(what, remedy=f"{has}; a month runs from midnight to midnight in {zone} (see also --stamps)")


def _tried(
    versions: Sequence[Tariff], curve: Curve, month: tuple[int, int], used: Decimal | None, given: Given
) -> tuple[Tariff, Trial]:
    year, number = month
    first, following = date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)
    for one in versions:
        if one.valid_from <= first and following <= (one.valid_to or date.max):
            return one, try_month(one, curve, billing_month(year, number, one.zone), used, given)
    spans = ", ".join(f"{one.version}: {one.valid_from} to {one.valid_to or 'further notice'}" for one in versions)
    raise UsageError(
        f"no version of {versions[0].id} holds for the whole of {_month_text(month)} ({spans})",
        remedy="try another month, or a copy of the tariff with other dates",
    )


def _print(one: Tariff, trial: Trial) -> None:
    head = f"{_month_text(_local_month(one, trial))}, tariff {one.id} version {one.version}"
    table = Table("line", "text", "quantity", "unit", "price", "amount", show_footer=True, title=head)
    table.title_justify = "left"
    table.columns[5].footer = f"{trial.total} {one.currency}"
    for column in (2, 4, 5):
        table.columns[column].justify = "right"
    for line in trial.lines:
        cells = (line.code, line.text, f"{line.quantity:f}", line.unit, f"{line.price:f}", str(line.amount))
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)
    used = "" if trial.used_before is None else f", after {trial.used_before:f} kWh in the step year"
    out.print(f"{trial.energy:f} kWh{used}")
    for note in trial.notes:
        out.print(f"[yellow]note[/yellow]: {escape(note)}")
    if not one.verified:
        out.print(f"[yellow]the tariff is not verified[/yellow]: {escape(one.note)}")


def _local_month(one: Tariff, trial: Trial) -> tuple[int, int]:
    local = trial.window.start.astimezone(zone(one.zone))
    return local.year, local.month


def _trial_as_json(one: Tariff, trial: Trial) -> dict[str, Any]:
    return {
        "month": _month_text(_local_month(one, trial)),
        "tariff": one.id,
        "version": one.version,
        "verified": one.verified,
        "currency": one.currency,
        "energy_kwh": f"{trial.energy:f}",
        "used_before_kwh": None if trial.used_before is None else f"{trial.used_before:f}",
        "total": str(trial.total),
        "lines": [
            {
                "code": line.code,
                "text": line.text,
                "quantity": f"{line.quantity:f}",
                "unit": line.unit,
                "price": f"{line.price:f}",
                "amount": str(line.amount),
            }
            for line in trial.lines
        ],
        "notes": list(trial.notes),
    }


@tariff.command("export-urdb")
@click.argument("name")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="The JSON file to write.")
@click.option("--partial", is_flag=True, help="Leave out what URDB has no place for; it is listed.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@_site
def export_urdb(name: str, target: Path, partial: bool, force: bool, site_path: Path | None) -> None:
    """Write a tariff as a rate of the OpenEI Utility Rate Database (JSON).

    NAME is a tariff's id, ID@VERSION, or a .toml file. What URDB has no place for (yearly steps, contracts, holidays,
    taxes, ...) is told, each thing by itself, and nothing is written; with --partial the rest is.
    """
    export(_versions(name, site_path), target, partial=partial, force=force)
