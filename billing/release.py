"""A person lets a bill pass that was held for being odd; what is missing can't be let pass."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert

from billing import schema, store
from billing.model import Hold
from billing.store import Release
from headend.civil import to_epoch_s
from headend.errors import UsageError

__all__ = ["release"]


def release(conn: Connection, number: str, reason: str, by: str, now: datetime) -> tuple[Release, tuple[Hold, ...]]:
    """Let a held bill pass for what a review now holds against it; also what else holds it, which can't be released.

    Raises `UsageError` for an unknown bill, one that is not held, one that only lacks data, and an empty reason.
    """
    if not (reason := reason.strip()):
        raise UsageError("a release needs a reason", remedy="say it with --reason")
    found = store.bill(conn, number)
    if found is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    if found.state != "held":
        raise UsageError(f"bill {number} is {found.state}, there is nothing to release")
    others = tuple(hold for hold in found.holds if not hold.review)
    codes = tuple(dict.fromkeys(hold.code for hold in found.holds if hold.review))
    if not codes:
        first = found.holds[0]
        what = f"bill {number} can't be released, something is missing: {first.what}"
        raise UsageError(what, remedy=first.remedy or "mend that, then close again")
    made = Release(number, codes, reason, by, now)
    values = {"number": number, "codes": "\n".join(codes), "reason": reason, "released_by": by}
    conn.execute(insert(schema.bill_release), [values | {"at": to_epoch_s(now)}])
    return made, others
