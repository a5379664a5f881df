"""Versions of tariffs in the store: kept when they are loaded, never changed, listed, compared. Append-only.

A version is known by its id and name, and once its text is in the store it stands: a bill made from it is computed
again from that text. Other prices need another version.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from billing.charges import Tariff
from billing.schema import tariff_version
from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import ConfigError, Problem
from headend.store.portable import add_absent

__all__ = ["StoredVersion", "check_versions", "difference", "store_versions", "versions"]

_CHUNK = 400


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One text of a tariff as the store keeps it. sha: that of `Tariff`."""

    sha: str
    id: str
    version: str
    title: str
    source: str
    verified: bool
    zone: str
    currency: str
    text: str
    stored_at: datetime


def versions(conn: Connection, tariff_id: str) -> list[StoredVersion]:
    """Every text of a tariff that the store holds, in the order in which they were stored."""
    table = tariff_version
    query = select(table).where(table.c.id == tariff_id).order_by(table.c.stored_at, table.c.version, table.c.sha)
    return [
        StoredVersion(
            row.sha, row.id, row.version, row.title, row.source, row.verified, row.zone, row.currency, row.text,
            from_epoch_s(row.stored_at),
        )
        for row in conn.execute(query)
    ]  # fmt: skip


def check_versions(conn: Connection, tariffs: Sequence[Tariff]) -> list[Problem]:
    """Tariffs whose text is not the one the store already holds under the same id and version. Empty if none is."""
    stored = _shas(conn, tariffs)
    problems = []
    for tariff in tariffs:
        shas = stored.get((tariff.id, tariff.version), {})
        if shas and tariff.sha not in shas:
            what = f"version {tariff.version!r} was changed after it was stored on {min(shas.values()):%Y-%m-%d}"
            remedy = f"give it a new version and leave {tariff.version!r} as it was: bills were or can be made from it"
            problems.append(Problem(f"tariff {tariff.id}", what, remedy))
    return problems


def store_versions(conn: Connection, tariffs: Sequence[Tariff], now: datetime) -> tuple[list[Tariff], list[Tariff]]:
    """Keep the texts of `tariffs`: those that are new to the store, and those it knew already.

    `ConfigError` with every tariff whose text was changed under its version; then nothing is stored.
    """
    if problems := check_versions(conn, tariffs):
        raise ConfigError(problems)
    stored = _shas(conn, tariffs)
    new: list[Tariff] = []
    known: list[Tariff] = []
    for one in tariffs:
        (known if one.sha in stored.get((one.id, one.version), {}) else new).append(one)
    rows = [
        {
            "sha": one.sha,
            "id": one.id,
            "version": one.version,
            "title": one.title,
            "source": one.source,
            "verified": one.verified,
            "zone": one.zone,
            "currency": one.currency,
            "text": one.text,
            "stored_at": to_epoch_s(now),
        }
        for one in new
    ]
    if rows:
        add_absent(conn, tariff_version, rows)
    return new, known


def _shas(conn: Connection, tariffs: Sequence[Tariff]) -> dict[tuple[str, str], dict[str, datetime]]:
    """What the store holds of these tariffs: by id and version the hashes, and when each was stored."""
    found: dict[tuple[str, str], dict[str, datetime]] = {}
    table = tariff_version
    ids = sorted({tariff.id for tariff in tariffs})
    for first in range(0, len(ids), _CHUNK):
        query = select(table.c.id, table.c.version, table.c.sha, table.c.stored_at)
        for row in conn.execute(query.where(table.c.id.in_(ids[first : first + _CHUNK]))):
            found.setdefault((row.id, row.version), {})[row.sha] = from_epoch_s(row.stored_at)
    return found


def difference(old: StoredVersion, new: StoredVersion) -> Iterator[str]:
    """The lines of a unified diff of two texts; none where they are the same."""
    names = (f"{old.id}@{old.version}", f"{new.id}@{new.version}")
    return difflib.unified_diff(old.text.splitlines(), new.text.splitlines(), *names, lineterm="")
