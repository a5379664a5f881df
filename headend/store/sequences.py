"""How far the numbering of a sender has come: what it may forget, and what it must send again.

A sender numbers its messages from each of its starts (boots), beginning at 1 (or 0). The first one seen need not be
the first one sent: a broker that was killed, or had nobody listening, drops some. So what is before it is missing
too, as far back as BEFORE_KEPT.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, select

from headend.civil import to_epoch_s
from headend.store.portable import chunks, upsert
from headend.store.schema import mqtt_sequence

__all__ = ["BEFORE_KEPT", "BOOTS_KEPT", "MISSING_KEPT", "Numbering", "advance", "note_sequences", "sequence_state"]

MISSING_KEPT: Final = 10_000
"""How many missing numbers of a boot are remembered; beyond that the oldest are given up."""

BEFORE_KEPT: Final = 500
"""How many numbers before the first one seen of a boot are waited for: of a sender that has been running for years not
all can be."""

BOOTS_KEPT: Final = 8
"""How many boots of a sender are remembered, the newest."""

_Range = tuple[int, int]  # first and last, both included


class Numbering(NamedTuple):
    """One boot's numbers: all up to `upto` are stored, or were given up; beyond it those in the ranges `ahead` are.

    given_up: how many were given up by the step that led here.
    """

    boot: int
    upto: int
    ahead: tuple[_Range, ...] = ()
    given_up: int = 0

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers between `upto` and the last one seen that are not stored, ascending."""
        gaps: list[int] = []
        before = self.upto
        for first, last in self.ahead:
            gaps += range(before + 1, first)
            before = last
        return tuple(gaps)


def advance(held: Numbering | None, boot: int, seq: int) -> Numbering:
    """The numbering once `seq` of `boot` is stored as well. held: what is known of this boot, None nothing."""
    if held is None:
        begins = max(seq - BEFORE_KEPT, 1)
        return Numbering(boot, seq) if seq <= begins else Numbering(boot, begins - 1, ((seq, seq),))
    if seq <= held.upto:
        return Numbering(boot, held.upto, held.ahead)
    upto, ahead = held.upto, _with(held.ahead, seq)
    if ahead[0][0] == upto + 1:
        upto, ahead = ahead[0][1], ahead[1:]
    return _bounded(Numbering(boot, upto, ahead))


def _with(ranges: Sequence[_Range], seq: int) -> tuple[_Range, ...]:
    """`ranges` and `seq`, joined where they touch."""
    if ranges and ranges[-1][0] <= seq <= ranges[-1][1] + 1:  # as a rule it follows the last
        first, last = ranges[-1]
        return (*ranges[:-1], (first, max(last, seq)))
    joined: list[_Range] = []
    for first, last in sorted([*ranges, (seq, seq)]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _bounded(state: Numbering) -> Numbering:
    """`state` with no more than MISSING_KEPT numbers missing: the oldest go."""
    if not state.ahead:
        return state
    upto, ahead = state.upto, list(state.ahead)
    present = sum(last - first + 1 for first, last in ahead)
    excess = ahead[-1][1] - upto - present - MISSING_KEPT
    given_up = 0
    while given_up < excess:
        first, last = ahead[0]
        step = min(excess - given_up, first - upto - 1)
        given_up += step
        upto += step
        if upto + 1 == first:
            upto = last
            del ahead[0]
    return Numbering(state.boot, upto, tuple(ahead), given_up)


def sequence_state(
    conn: Connection, concentrator: str, boot: int | None = None
) -> tuple[int, int, tuple[int, ...]] | None:
    """Boot, upto and missing of a sender: of its boot heard last, or of the one given. None when there is none."""
    table = mqtt_sequence
    query = select(table).where(table.c.concentrator == concentrator)
    if boot is not None:
        query = query.where(table.c.boot == boot)
    row = conn.execute(query.order_by(table.c.updated_at.desc(), table.c.boot.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return row.boot, row.upto, Numbering(row.boot, row.upto, _ranges(row.ahead)).missing


def note_sequences(conn: Connection, seen: Sequence[tuple[str, int, int]], at: datetime) -> list[Numbering]:
    """Note that these messages (concentrator, boot, seq) are stored, in the order given; the numbering after each."""
    held: dict[tuple[str, int], Numbering] = {}
    # Locked in the order of their names: two writers never wait for each other in a ring.
    for some in chunks(sorted({name for name, _, _ in seen})):
        query = select(mqtt_sequence).where(mqtt_sequence.c.concentrator.in_(some))
        for row in conn.execute(query.order_by(mqtt_sequence.c.concentrator, mqtt_sequence.c.boot).with_for_update()):
            held[row.concentrator, row.boot] = Numbering(row.boot, row.upto, _ranges(row.ahead))
    known = set(held)
    after = []
    for concentrator, boot, seq in seen:
        state = held[concentrator, boot] = advance(held.get((concentrator, boot)), boot, seq)
        after.append(state)
    touched = sorted({(concentrator, boot) for concentrator, boot, _ in seen})
    rows = [
        {
            "concentrator": concentrator,
            "boot": boot,
            "upto": held[concentrator, boot].upto,
            "ahead": ",".join(f"{first}-{last}" for first, last in held[concentrator, boot].ahead),
            "updated_at": to_epoch_s(at),
        }
        for concentrator, boot in touched
    ]
    upsert(conn, mqtt_sequence, rows)
    for concentrator in sorted({name for name, boot in touched if (name, boot) not in known}):
        _forget_old_boots(conn, concentrator)
    return after


def _forget_old_boots(conn: Connection, concentrator: str) -> None:
    table = mqtt_sequence
    mine = table.c.concentrator == concentrator
    newest = select(table.c.boot).where(mine).order_by(table.c.updated_at.desc(), table.c.boot.desc())
    kept = list(conn.scalars(newest.limit(BOOTS_KEPT)))
    conn.execute(delete(table).where(mine, table.c.boot.not_in(kept)))


def _ranges(text: str) -> tuple[_Range, ...]:
    """Ranges as the column `ahead` keeps them: `12-15,20-20`."""
    pairs = (part.partition("-") for part in text.split(",") if part)
    return tuple((int(first), int(last)) for first, _, last in pairs)
