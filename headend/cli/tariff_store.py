"""headend tariff load, versions, diff: the texts of tariffs that the store keeps."""

from __future__ import annotations

import json

import click
from rich.markup import escape
from rich.table import Table

from billing.versions import StoredVersion, difference, store_versions, versions
from config.problems import nearest
from config.site import Site
from headend.app import now_utc
from headend.cli.common import local, opened, out, site_option, tariffs_of
from headend.errors import UsageError

__all__ = ["diff", "load", "versions_"]

_SHA_SHOWN = 12


@click.command()
@site_option
def load(site: Site) -> None:
    """Check every tariff of the site, the shipped ones too, and keep their texts in the store.

    A version that the store holds already must have the same text: a file that was changed needs a new version. Bills
    can be computed again from what the store keeps, whatever becomes of the files.
    """
    tariffs = tariffs_of(site)
    with opened(site) as store, store.write() as conn:
        new, known = store_versions(conn, tariffs, now_utc())
    for one in new:
        out.print(f"new    {one.id} version {one.version}", markup=False)
    out.print(f"{len(new)} new, {len(known)} known")


@click.command("versions")
@click.argument("tariff_id", metavar="ID")
@site_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def versions_(tariff_id: str, site: Site, as_json: bool) -> None:
    """List the versions of a tariff that the store keeps, in the order in which they came."""
    found = _stored(site, tariff_id)
    if as_json:
        rows = [
            {
                "id": one.id,
                "version": one.version,
                "title": one.title,
                "source": one.source,
                "verified": one.verified,
                "sha": one.sha,
                "stored_at": one.stored_at.isoformat(),
            }
            for one in found
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table("version", "title", "verified", "stored", "text")
    for one in found:
        verified = "yes" if one.verified else "[yellow]no[/yellow]"
        stored = local(one.stored_at, site.zone)
        table.add_row(escape(one.version), escape(one.title), verified, stored, one.sha[:_SHA_SHOWN])
    out.print(table)


@click.command()
@click.argument("tariff_id", metavar="ID")
@click.argument("old")
@click.argument("new")
@site_option
def diff(tariff_id: str, old: str, new: str, site: Site) -> None:
    """Compare the texts of two versions of a tariff that the store keeps.

    OLD and NEW are versions, or the beginning of a text's hash as `headend tariff versions` shows it.
    """
    found = _stored(site, tariff_id)
    lines = list(difference(_one(found, old), _one(found, new)))
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1]) if line[:3] not in ("+++", "---") else None
        click.echo(click.style(line, fg=colour))
    if not lines:
        out.print("the texts are the same")


def _stored(site: Site, tariff_id: str) -> list[StoredVersion]:
    with opened(site) as store, store.read() as conn:
        found = versions(conn, tariff_id)
    if not found:
        raise UsageError(
            f"the store holds no tariff {tariff_id!r}",
            remedy="`headend tariff load` keeps those of the site; `headend tariff list` names them",
        )
    return found


def _one(found: list[StoredVersion], name: str) -> StoredVersion:
    """The version called `name`, else the one whose hash begins so; of several texts of one version the last."""
    by_name = [one for one in found if one.version == name]
    by_sha = [one for one in found if one.sha.startswith(name.lower())] if len(name) >= 6 else []
    if not by_name and len(by_sha) != 1:
        remedy = nearest(name, {one.version for one in found})
        raise UsageError(f"the store holds no version {name!r} of {found[0].id}", remedy=remedy)
    return (by_name or by_sha)[-1]
