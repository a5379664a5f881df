"""Putting secrets into the store and taking them out: generations, and changing the master key.

Of each secret of a meter one generation is active; a pending one waits until the meter has been given it; those that
were active before are retired and kept until they are dropped. No function here shows or returns a value.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection

from headend.errors import NoAccess, UsageError
from headend.masterkey import MasterKey, sealed_under
from headend.store import Store, secrets
from headend.store.registry import Counts, MeterRow
from headend.store.secrets import ACTIVE, PENDING, RETIRED, SecretRow

__all__ = [
    "NAMES",
    "Entry",
    "activate",
    "drop",
    "parse_secret",
    "put_entries",
    "put_pending",
    "remove",
    "reseal_all",
]

NAMES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "password": (1, 64),  # DLMS: LLS, and HLS with MD5, SHA-1 or SHA-256
        "encryption_key": (16, 16),  # global unicast encryption key (GUEK)
        "authentication_key": (16, 16),  # global authentication key (GAK)
        "dedicated_key": (16, 16),
        "broadcast_key": (16, 16),  # global broadcast encryption key (GBEK)
        **{f"dlt645_password_{level}": (3, 3) for level in range(10)},
        "dlt645_operator": (4, 4),
        "dlt645_1997_password": (4, 4),
    }
)
"""Secrets a meter may have, with their least and most bytes."""

_TEXT: Final = "text:"


@dataclass(frozen=True, slots=True)
class Entry:
    """One secret to be stored."""

    meter: MeterRow
    name: str
    value: bytes = field(repr=False)


def parse_secret(name: str, text: str) -> bytes:
    """The bytes of a value written in hex, or as `text:` and a text. `UsageError` that repeats nothing of it."""
    if name not in NAMES:
        raise UsageError("there is no secret of this name", remedy=f"there are {_names()}")
    if text.startswith(_TEXT):
        value = text.removeprefix(_TEXT).encode()
    else:
        try:
            value = bytes.fromhex(text)
        except ValueError:
            raise UsageError(
                f"the value of {name} is neither hex nor a text", remedy="write pairs of hex digits, or text:..."
            ) from None
    least, most = NAMES[name]
    if not least <= len(value) <= most:
        sizes = f"{least}" if least == most else f"{least} to {most}"
        raise UsageError(f"a value of {len(value)} bytes for {name}", remedy=f"it has {sizes} bytes")
    return value


def put_entries(store: Store, master: MasterKey, entries: Iterable[Entry], now: datetime) -> Counts:
    """Make each entry the active generation of its secret; one that has this value already is left alone."""
    added = changed = same = 0
    with store.write() as conn:
        secrets.note_change(conn)
        held = _by_place(_all_ours(conn, master))
        for entry in entries:
            before = held.get((entry.meter.key, entry.name), [])
            active = next((row for row in before if row.state == ACTIVE), None)
            if active is not None and _holds(master, active, entry.value):
                same += 1
                continue
            if active is not None:
                secrets.set_state(conn, active, RETIRED, now)
            secrets.add(conn, [_sealed(master, entry, before, ACTIVE, now)])
            added, changed = added + (active is None), changed + (active is not None)
    return Counts(added, changed, same)


def put_pending(store: Store, master: MasterKey, entry: Entry, now: datetime) -> int:
    """Keep a new generation beside the active one; its number. `UsageError` when one is pending already."""
    with store.write() as conn:
        secrets.note_change(conn)
        before = _by_place(_all_ours(conn, master)).get((entry.meter.key, entry.name), [])
        waiting = next((row for row in before if row.state == PENDING), None)
        if waiting is not None:
            raise UsageError(
                f"generation {waiting.generation} of {entry.name} of meter {entry.meter.id} is pending already",
                remedy="activate or drop it first",
            )
        row = _sealed(master, entry, before, PENDING, now)
        secrets.add(conn, [row])
    return row.generation


def activate(store: Store, meter: MeterRow, name: str, now: datetime, generation: int | None = None) -> int:
    """Make the pending generation active, or the one named; its number. The active one is retired, not lost."""
    with store.write() as conn:
        secrets.note_change(conn)
        rows = _rows(conn, meter, name)
        chosen = _chosen(rows, meter, name, generation)
        for row in rows:
            if row.state == ACTIVE and row.key != chosen.key:
                secrets.set_state(conn, row, RETIRED, now)
        secrets.set_state(conn, chosen, ACTIVE, now)
    return chosen.generation


def drop(store: Store, meter: MeterRow, name: str, generation: int | None = None) -> int:
    """Delete the pending generation, or the one named; its number. The active one is refused."""
    with store.write() as conn:
        secrets.note_change(conn)
        chosen = _chosen(_rows(conn, meter, name), meter, name, generation)
        if chosen.state == ACTIVE:
            raise UsageError(
                f"generation {chosen.generation} of {name} of meter {meter.id} is active",
                remedy="activate another first, or remove the secret whole",
            )
        secrets.remove(conn, [chosen])
    return chosen.generation


def remove(store: Store, meter: MeterRow, name: str | None = None) -> int:
    """Delete every generation of a secret, or of all secrets of the meter; how many."""
    with store.write() as conn:
        secrets.note_change(conn)
        rows = [row for row in secrets.secrets(conn, [meter.key]) if name is None or row.name == name]
        if not rows:
            raise UsageError(f"meter {meter.id} has no secret {name or 'at all'}", remedy="see `headend keys list`")
        secrets.remove(conn, rows)
    return len(rows)


def reseal_all(store: Store, old: MasterKey, new: MasterKey) -> int:
    """Seal every secret under another master key, all or none; how many."""
    with store.write() as conn:
        secrets.note_change(conn)
        rows = _all_ours(conn, old)
        for row in rows:
            value = _opened(old, row)
            secrets.reseal(conn, row, new.seal(row.meter, row.name, row.generation, value))
    return len(rows)


def _all_ours(conn: Connection, master: MasterKey) -> list[SecretRow]:
    """Every secret of the store; `UsageError` when some are sealed under another master key: they must not mix."""
    rows = secrets.secrets(conn)
    foreign = next((row for row in rows if sealed_under(row.sealed) not in (master.id, b"")), None)
    if foreign is not None:
        raise UsageError(
            f"the store's secrets are sealed under another master key ({sealed_under(foreign.sealed).hex()}) than the "
            f"one given ({master.id.hex()})",
            remedy="give that one; to change it use `headend keys rotate-master`",
        )
    return rows


def _by_place(rows: Iterable[SecretRow]) -> dict[tuple[int, str], list[SecretRow]]:
    found: dict[tuple[int, str], list[SecretRow]] = {}
    for row in rows:
        found.setdefault((row.meter_key, row.name), []).append(row)
    return found


def _rows(conn: Connection, meter: MeterRow, name: str) -> list[SecretRow]:
    return [row for row in secrets.secrets(conn, [meter.key]) if row.name == name]


def _chosen(rows: list[SecretRow], meter: MeterRow, name: str, generation: int | None) -> SecretRow:
    for row in rows:
        if row.state == PENDING if generation is None else row.generation == generation:
            return row
    what = "pending generation" if generation is None else f"generation {generation}"
    raise UsageError(f"{name} of meter {meter.id} has no {what}", remedy="see `headend keys list`")


def _sealed(master: MasterKey, entry: Entry, before: list[SecretRow], state: str, now: datetime) -> SecretRow:
    generation = max((row.generation for row in before), default=0) + 1
    sealed = master.seal(entry.meter.id, entry.name, generation, entry.value)
    return SecretRow(entry.meter.key, entry.meter.id, entry.name, generation, sealed, state, now, now)


def _holds(master: MasterKey, row: SecretRow, value: bytes) -> bool:
    """Whether `row` is `value`; one that was damaged is not."""
    try:
        return hmac.compare_digest(_opened(master, row), value)
    except NoAccess:
        return False


def _opened(master: MasterKey, row: SecretRow) -> bytes:
    return master.open(row.meter, row.name, row.generation, row.sealed)


def _names() -> str:
    return ", ".join(NAMES).replace(
        ", ".join(f"dlt645_password_{level}" for level in range(10)), "dlt645_password_0 to dlt645_password_9"
    )
