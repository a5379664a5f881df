"""headend analyse: whose use fluctuates, what districts lose, whom to look at first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from billing.analysis.classes import EDGES, classes
from billing.analysis.district import District, DistrictLosses, findings, grouped, losses
from billing.analysis.fluctuation import Use, rank
from billing.analysis.gather import Place, average, bounds, places
from billing.analysis.irregular import CLEAR, Suspect, suspects
from billing.calendar import billing_month
from config.csvfile import identifier, read_csv
from config.site import Site
from headend.app import now_utc
from headend.civil import zone
from headend.cli.common import month_of, opened, out, site_option
from headend.cli.rows import MOST_SHOWN, Row, kwh, note, part, print_rows
from headend.errors import ConfigError, Problem, UsageError
from headend.model import Window

__all__ = ["analyse"]

_SUMS = "districts.csv"


@dataclass(frozen=True, slots=True)
class _Span:
    """The month looked at, those it is compared with, and the site's zone."""

    month: Window
    before: Window
    year_ago: Window
    tz: tzinfo


@click.group()
def analyse() -> None:
    """Analysis for staff: fluctuating use, consumption classes, losses of districts, suspected irregular use."""


def _common(function: Callable[..., None]) -> Callable[..., None]:
    """The options all these verbs have; the verb gets `site`, `span`, `district`, `form`."""

    @site_option
    @click.option("--month", default=None, help="Month to look at, 2026-10. [default: the last one that has ended]")
    @click.option("--district", default=None, help="Only this district.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @click.option("--csv", "as_csv", is_flag=True, help="Print CSV for programs and spreadsheets.")
    @wraps(function)
    def verb(site: Site, month: str | None, as_json: bool, as_csv: bool, **rest: Any) -> None:
        if as_json and as_csv:
            raise UsageError("--json and --csv are two forms", remedy="give one of them")
        form = "json" if as_json else "csv" if as_csv else "table"
        function(site=site, span=_span_of(site, month), form=form, **rest)

    return verb


def _sum_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that tell where sum meters are; the verb gets `sums_file` and `sum_point`."""
    of_file = click.option(
        "--sums",
        "sums_file",
        default=None,
        type=click.Path(path_type=Path),
        help="CSV of the sum points: district,sum_point. [default: districts.csv beside site.toml, if there]",
    )
    of_point = click.option(
        "--sum-point", default=None, help="Usage point of the sum meter of the one --district; instead of a file."
    )
    return of_file(of_point(function))


def _span_of(site: Site, text: str | None) -> _Span:
    tz = zone(site.zone)
    if text is None:
        first = now_utc().astimezone(tz).replace(day=1)
        year, month = _earlier(first.year, first.month)
    else:
        year, month = month_of(text)
    return _Span(
        billing_month(year, month, site.zone),
        billing_month(*_earlier(year, month), site.zone),
        billing_month(year - 1, month, site.zone),
        tz,
    )


def _earlier(year: int, month: int) -> tuple[int, int]:
    return (year - 1, 12) if month == 1 else (year, month - 1)


# -- fluctuation and classes -------------------------------------------------------------------------------------------


@analyse.command()
@_common
def fluctuation(site: Site, span: _Span, district: str | None, form: str) -> None:
    """Rank usage points by how their use changed, apart from what their peers did.

    Average daily use of the month is compared with the month before and the same month a year ago. Peers are the points
    of the same district and tariff; their median change is taken out (`beyond`). Marked are +-30 % (warn) and +-50 %
    (order).
    """
    with _read(site) as conn:
        members = _members(conn, site, span, district)
        uses = [_use(conn, place, span) for place in members]
    rows = [
        {
            "usage_point": f.use.point,
            "district": f.use.district,
            "tariff": f.use.tariff,
            "daily_kwh": kwh(f.use.now),
            "month_before_kwh": kwh(f.use.before),
            "change": part(f.change),
            "year_ago_kwh": kwh(f.use.year_ago),
            "year_change": part(f.year_change),
            "peers": f.peers,
            "peers_daily_kwh": kwh(f.peer_daily),
            "peers_change": part(f.peer_change),
            "beyond": part(f.beyond),
            "mark": f.mark,
        }
        for f in rank(uses)
    ]
    print_rows(rows, form, percent=("change", "year_change", "peers_change", "beyond"))


def _use(conn: Connection, place: Place, span: _Span) -> Use:
    now, before, year_ago = (average(conn, place, month, span.tz) for month in (span.month, span.before, span.year_ago))
    return Use(place.id, place.district, place.tariff, now, before, year_ago)


@analyse.command(name="classes")
@_common
@click.option("--edges", default=None, help="Upper limits of the classes, kWh a month: 0,230,400. [default: 0 to 800]")
def classes_(site: Site, span: _Span, district: str | None, form: str, edges: str | None) -> None:
    """Count usage points by how much they used in the month: consumption classes, or the steps of a tariff.

    `in_band_kwh` is what all points together used of the band between two limits: the energy that falls into that step.
    Points whose use is not known are told on stderr.
    """
    limits = EDGES if edges is None else _limits(edges)
    days = len(bounds(span.month, span.tz)) - 1
    with _read(site) as conn:
        found = {place.id: average(conn, place, span.month, span.tz) for place in _members(conn, site, span, district)}
    known = {point: use * days for point, use in found.items() if use is not None}
    if len(known) < len(found):
        note(f"the use of {len(found) - len(known)} of {len(found)} usage points is not known")
    rows = [
        {
            "above_kwh": "" if c.above is None else f"{c.above:f}",
            "up_to_kwh": "" if c.up_to is None else f"{c.up_to:f}",
            "points": c.points,
            "energy_kwh": kwh(c.energy),
            "in_band_kwh": kwh(c.in_band),
        }
        for c in classes(known, limits)
    ]
    print_rows(rows, form)


def _limits(text: str) -> tuple[Decimal, ...]:
    try:
        found = tuple(Decimal(part.strip()) for part in text.split(","))
    except ArithmeticError as error:
        raise UsageError(f"{text!r} are no limits", remedy="write them like 0,230,400") from error
    if not all(limit.is_finite() for limit in found):
        raise UsageError(f"{text!r} are no limits", remedy="write them like 0,230,400")
    return found


# -- losses and suspects -----------------------------------------------------------------------------------------------


@analyse.command(name="losses")
@_common
@_sum_options
@click.option("--days", "by_day", is_flag=True, help="One row a day, instead of one a district.")
def losses_(
    site: Site,
    span: _Span,
    district: str | None,
    form: str,
    sums_file: Path | None,
    sum_point: str | None,
    by_day: bool,
) -> None:
    """Compare what districts were supplied with and what their meters counted.

    A district's supply is told by a sum meter: a meter with a usage point of its own, named in districts.csv or by
    --sum-point. Days on which a meter's reads are missing are left out; which meters is told on stderr.
    """
    with _read(site) as conn:
        chosen = _districts(conn, site, span, district, sums_file, sum_point)
        found = [losses(conn, one, span.month, span.before, span.tz) for one in chosen]
    _tell_notes(found)
    rows = [row for one in found for row in (_day_rows(one, span) if by_day else [_loss_row(one)])]
    print_rows(rows, form, percent=("loss_share", "share_before", "share_after"))


def _loss_row(found: DistrictLosses) -> Row:
    change = found.change
    known = found.month.days > 0
    return {
        "district": found.district,
        "days": found.month.days,
        "supply_kwh": kwh(found.month.supply if known else None),
        "loss_kwh": kwh(found.month.loss if known else None),
        "loss_share": part(found.month.share),
        "changed_on": change.day.isoformat() if change else None,
        "share_before": part(change.before.share) if change else None,
        "share_after": part(change.after.share) if change else None,
    }


def _day_rows(found: DistrictLosses, span: _Span) -> list[Row]:
    first = span.month.start.astimezone(span.tz).date()
    return [
        {
            "district": found.district,
            "day": day.day.isoformat(),
            "supply_kwh": kwh(day.supply),
            "metered_kwh": kwh(day.metered),
            "loss_kwh": kwh(day.loss),
            "loss_share": part(day.loss / day.supply if day.loss is not None and day.supply else None),
            "missing": " ".join(day.missing),
        }
        for day in found.days
        if day.day >= first
    ]


@analyse.command(name="suspects")
@_common
@_sum_options
@click.option("--all", "everything", is_flag=True, help="Also points below a score of 1.")
def suspects_(
    site: Site,
    span: _Span,
    district: str | None,
    form: str,
    sums_file: Path | None,
    sum_point: str | None,
    everything: bool,
) -> None:
    """Rank usage points that may use energy no meter counts, each with its reasons.

    Reasons are: the district's loss follows the point's use; its use fell for good, alone or when the loss rose; what
    its meter or concentrator told (a cover, a current, a direction). A weight of 1 is one clear reason. A score says
    where to look first; it is no proof.
    """
    with _read(site) as conn:
        chosen = _districts(conn, site, span, district, sums_file, sum_point)
        looked = [(one, *findings(conn, one, span.month, span.before, span.tz)) for one in chosen]
    _tell_notes([balances for _, balances, _ in looked])
    meters = {place.id: _meters(place, span) for one, _, _ in looked for place in one.members}
    found = [suspect for _, _, own in looked for suspect in suspects(own, span.tz)]
    found = [suspect for suspect in found if everything or suspect.score >= CLEAR]
    found.sort(key=lambda suspect: (-suspect.score, suspect.point))
    if form == "json":
        click.echo(json.dumps([_suspect_json(s, meters[s.point]) for s in found], ensure_ascii=False, indent=1))
    elif form == "csv":
        print_rows(_reason_rows(found, meters), form)
    else:
        _suspect_table(found, meters)


def _meters(place: Place, span: _Span) -> str:
    """The meters that stood there in the month."""
    stood = [m.id for i, m in place.meters if i.since < span.month.end and (not i.until or i.until > span.month.start)]
    return " ".join(stood)


def _suspect_json(suspect: Suspect, meters: str) -> Row:
    return {
        "usage_point": suspect.point,
        "district": suspect.district,
        "meters": meters.split(),
        "score": round(suspect.score, 2),
        "reasons": [
            {
                "kind": reason.kind,
                "weight": round(reason.weight, 2),
                "since": reason.since.isoformat() if reason.since else None,
                "text": reason.text,
            }
            for reason in suspect.reasons
        ],
    }


def _reason_rows(found: Sequence[Suspect], meters: dict[str, str]) -> list[Row]:
    return [
        {
            "rank": place,
            "usage_point": suspect.point,
            "district": suspect.district,
            "meters": meters[suspect.point],
            "score": f"{suspect.score:.2f}",
            "kind": reason.kind,
            "weight": f"{reason.weight:.2f}",
            "since": reason.since.isoformat() if reason.since else None,
            "text": reason.text,
        }
        for place, suspect in enumerate(found, start=1)
        for reason in suspect.reasons
    ]


def _suspect_table(found: Sequence[Suspect], meters: dict[str, str]) -> None:
    table = Table("score", "usage point", "district", "meters", "weight", "reason")
    for suspect in found[:MOST_SHOWN]:
        cells = [f"{suspect.score:.1f}", suspect.point, suspect.district, meters[suspect.point]]
        for reason in suspect.reasons:
            table.add_row(*map(escape, cells), f"{reason.weight:.1f}", escape(reason.text))
            cells = [""] * len(cells)
    out.print(table if found else "nobody stands out in that month")
    if len(found) > MOST_SHOWN:
        out.print(f"... and {len(found) - MOST_SHOWN} more; --json and --csv give all")


# -- what they share ---------------------------------------------------------------------------------------------------


@contextmanager
def _read(site: Site) -> Iterator[Connection]:
    with opened(site) as store, store.read() as conn:
        yield conn


def _members(conn: Connection, site: Site, span: _Span, district: str | None) -> list[Place]:
    """The places with a meter in the month, of one district or of all; sum points of districts.csv are no consumers."""
    apart = set(_sums(site, None).values())
    found = [place for place in places(conn, span.month.end) if _meters(place, span) and place.id not in apart]
    if district is None:
        return found
    if not (own := [place for place in found if place.district == district]):
        raise UsageError(f"no usage point with a meter in that month is in district {district!r}")
    return own


def _districts(
    conn: Connection, site: Site, span: _Span, district: str | None, sums_file: Path | None, sum_point: str | None
) -> list[District]:
    if sum_point is not None:
        if district is None or sums_file is not None:
            raise UsageError("--sum-point is for one --district, without --sums", remedy="add --district NAME")
        sums = {district: sum_point}
    else:
        sums = _sums(site, sums_file)
    found = grouped(places(conn, span.month.end), sums, district)
    if not found:
        raise UsageError("no usage point has a district", remedy="fill in the column district of usage_points.csv")
    return found


def _sums(site: Site, path: Path | None) -> dict[str, str]:
    """The sum point of each district, from the file named or the one beside site.toml; none without a file."""
    beside = site.path.parent / _SUMS
    if path is None and not beside.exists():
        return {}
    rows, problems = read_csv(path or beside, ("district", "sum_point"), ())
    sums: dict[str, str] = {}
    for row in rows:
        name, point = identifier(row, "district", problems), identifier(row, "sum_point", problems)
        if name in sums:
            problems.append(Problem(row.where("district"), f"district {name} stands twice", "keep one of the rows"))
        elif name is not None and point is not None:
            sums[name] = point
    if problems:
        raise ConfigError(problems)
    return sums


def _tell_notes(found: Sequence[DistrictLosses]) -> None:
    for one in found:
        for remark in one.notes:
            note(f"district {one.district}: {remark}")
