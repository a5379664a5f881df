"""What several verbs share: the site option, the store, times and tables on the screen."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from billing.charges import Tariff
from config.site import Site, load_site
from config.tariff_files import load_tariffs
from headend.app import meters_of, now_utc
from headend.civil import day_start, zone
from headend.errors import ConfigError, Problem, UsageError
from headend.line import Line
from headend.model import Meter, Window
from headend.protocols import PROTOCOLS
from headend.store import Store, open_store, registry

__all__ = [
    "CONTEXT",
    "check_address",
    "decimal_of",
    "find_meter",
    "instant",
    "line_of",
    "local",
    "month_of",
    "opened",
    "out",
    "site_option",
    "site_path_option",
    "span",
    "survey_tariffs",
    "tariffs_of",
    "user",
]

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

F = TypeVar("F", bound=Callable[..., Any])

# Two-digit years of meters, and room for what is computed from a day on either side.
_YEARS = range(1970, 2100)

out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def site_path_option(function: F) -> F:
    """The option --site; the command gets the path as `site_path`."""
    return _site_option("site_path", None)(function)


def site_option(function: F) -> F:
    """The option --site; the command gets the checked `Site` as `site`."""
    return _site_option("site", lambda _context, _parameter, value: load_site(value))(function)


def _site_option(name: str, callback: Callable[[click.Context, click.Parameter, Path], Any] | None) -> Callable[[F], F]:
    return click.option(
        "--site",
        "-s",
        name,
        envvar="HEADEND_SITE",
        default="site.toml",
        show_default=True,
        type=click.Path(path_type=Path),
        callback=callback,
        help="The site's configuration file.",
    )


@contextmanager
def opened(site: Site) -> Iterator[Store]:
    """The site's store, closed afterwards."""
    store = open_store(site.store_url)
    try:
        yield store
    finally:
        store.close()


def check_address(protocol: str, address: str) -> str:
    """A meter's address as its protocol writes it."""
    return PROTOCOLS[protocol].check_address(address)


def tariffs_of(site: Site) -> list[Tariff]:
    """The shipped tariffs and the site's own; `ConfigError` with every problem of any."""
    tariffs, problems = survey_tariffs(site)
    if problems:
        raise ConfigError(problems)
    return tariffs


def survey_tariffs(site: Site) -> tuple[list[Tariff], list[Problem]]:
    """The tariffs that can be loaded, and what is wrong with the others; a version may stand in one file only."""
    found: dict[tuple[str, str], Tariff] = {}
    problems: list[Problem] = []
    for folder in site.tariff_folders:
        try:
            tariffs = load_tariffs(folder)
        except ConfigError as error:
            problems += error.problems
            continue
        for tariff in tariffs:
            if (tariff.id, tariff.version) in found:
                what = f"tariff {tariff.id} version {tariff.version} is shipped already"
                problems.append(Problem(folder.name, what, "give the file another id or version"))
            found[tariff.id, tariff.version] = tariff
    return list(found.values()), problems


def find_meter(site: Site, store: Store, meter_id: str) -> Meter:
    """The registered meter called `meter_id`."""
    with store.read() as conn:
        row = registry.meter(conn, meter_id)
    if row is None:
        raise UsageError(
            f"no meter {meter_id!r} in the store",
            remedy="`headend status --meters` lists them; `headend import` adds them",
        )
    return meters_of(site, [row])[0]


def line_of(site: Site, meter: Meter) -> Line:
    """The meter's line, for this process to open."""
    settings = next(line for line in site.lines if line.name == meter.line)
    if settings.endpoint.kind == "listen":
        raise UsageError(
            f"meter {meter.id} dials in on line {settings.name}", remedy="start `headend run`; it holds the modems"
        )
    if settings.endpoint.kind == "mqtt":
        what = f"meter {meter.id} is reached by way of broker {settings.endpoint.broker}"
        raise UsageError(what, remedy="start `headend run`; it holds the connection")
    return Line(settings)


def instant(text: str, site_zone: str) -> datetime:
    """A time a person typed: a date (its local midnight), or ISO 8601; without an offset it is the site's zone."""
    tz = zone(site_zone)
    remedy = "write 2026-10-01 or 2026-10-01T08:15"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time", remedy=remedy) from error
    if moment.year not in _YEARS:
        raise UsageError(f"{text!r} is in no year that meters know", remedy=remedy)
    if len(text) == 10:
        return day_start(moment.date(), tz)
    return (moment if moment.tzinfo else moment.replace(tzinfo=tz)).astimezone(UTC)


def span(site: Site, start: str | None, end: str | None, *, days: int) -> Window:
    """The span a person typed; by default the last `days`, up to now."""
    now = now_utc()
    first = instant(start, site.zone) if start else now - timedelta(days=days)
    last = instant(end, site.zone) if end else now
    if last < first:
        raise UsageError("the span ends before it starts", remedy="give --from an earlier time than --to")
    return Window(first, last)


def local(moment: datetime, site_zone: str) -> str:
    """An instant in the site's zone, as people read it."""
    return moment.astimezone(zone(site_zone)).strftime("%Y-%m-%d %H:%M:%S")


def month_of(text: str) -> tuple[int, int]:
    """Year and month typed as 2026-10."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise UsageError(f"{text!r} is no month", remedy="write it like 2026-10") from error
    if first.year not in _YEARS:
        raise UsageError(f"{text!r} is in no year that meters know", remedy="write it like 2026-10")
    return first.year, first.month


def decimal_of(text: str, what: str) -> Decimal:
    """A plain decimal number a person typed; `what` it is, for the message."""
    if not re.fullmatch(r"-?[0-9]{1,16}(\.[0-9]{1,16})?", text):
        raise UsageError(f"{text!r} is not {what}", remedy="write it like 120.50")
    return Decimal(text)


def user() -> str:
    """Who gives the command, for the record."""
    return f"{getpass.getuser()} on the command line"
