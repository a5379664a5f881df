"""A person lets a bill pass that was held for being odd; what is missing can't be let pass.

A release covers what was seen and nothing else: a finding with the same code that says something else holds the bill
again. It is kept as lines `CODE<TAB>what`; one kept as the code alone, as releases once were, covers whatever it says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import Connection, insert

from billing import schema, store
from billing.model import Hold
from billing.reasons import name_of, reason_of
from billing.store import Release
from headend.civil import to_epoch_s
from headend.errors import UsageError

__all__ = ["code_of", "covers", "release", "released_else", "seen", "told"]


def seen(hold: Hold) -> str:
    """A finding as a release keeps it."""
    return f"{hold.code}\t{_one_line(hold.what)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def covers(released: Collection[str], hold: Hold) -> bool:
    """Whether a bill released for these lines may pass with this finding."""
    return hold.code in released or seen(hold) in released


def released_else(released: Iterable[str], hold: Hold) -> tuple[str, ...]:
    """What else a bill was released for under the code of a finding that these lines do not cover."""
    found = [line.partition("\t") for line in dict.fromkeys(released)]
    own = [what for code, _, what in found if code == hold.code]
    return () if "" in own or _one_line(hold.what) in own else tuple(own)


def code_of(line: str) -> str:
    """The code of a line of a release."""
    return line.partition("\t")[0]


def told(line: str) -> str:
    """A line of a release for people."""
    code, _, what = line.partition("\t")
    return f"{code} ({what})" if what else code


def release(conn: Connection, number: str, reason: str, by: str, now: datetime) -> tuple[Release, tuple[Hold, ...]]:
    """Let a held bill pass for what a review now holds against it; also what else holds it, which can't be released.

    Raises `UsageError` for an unknown bill, one that is not held, one that only lacks data, and for a reason or a name
    that is empty, too long or no plain text.
    """
    reason, by = reason_of(reason, "a release"), name_of(by)
    found = store.bill(conn, number)
    if found is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    if found.state != "held":
        raise UsageError(f"bill {number} is {found.state}, there is nothing to release")
    others = tuple(hold for hold in found.holds if not hold.review)
    codes = tuple(dict.fromkeys(seen(hold) for hold in found.holds if hold.review))
    if not codes:
        first = found.holds[0]
        what = f"bill {number} can't be released, something is missing: {first.what}"
        raise UsageError(what, remedy=first.remedy or "mend that, then close again")
    made = Release(number, codes, reason, by, now)
    values = {"number": number, "codes": "\n".join(codes), "reason": reason, "released_by": by}
    conn.execute(insert(schema.bill_release), [values | {"at": to_epoch_s(now)}])
    return made, others
