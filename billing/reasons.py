"""Words a person gives for the record, checked before they are kept."""

from __future__ import annotations

from headend.errors import UsageError

__all__ = ["MOST_CHARACTERS", "checked", "name_of", "reason_of"]

MOST_CHARACTERS = 500
"""A reason is a sentence or two; it stands in ledgers and tables, and that of an adjustment on the bill."""


def reason_of(text: str, what: str) -> str:
    """The reason for `what`, without blanks around it. `UsageError` if it is empty, too long or no plain text."""
    if not (text := text.strip()):
        raise UsageError(f"{what} needs a reason", remedy="say it with --reason")
    return checked(text, f"the reason for {what}")


def name_of(text: str) -> str:
    """The name of who decides."""
    if not (text := text.strip()):
        raise UsageError("a decision needs the name of who makes it", remedy="say it with --by")
    return checked(text, "the name of who decides")


def checked(text: str, what: str) -> str:
    """`text` as it is; `UsageError` if it is too long, or holds characters that can't be printed, as a line's end."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"{what} has {len(text)} characters", remedy=f"write at most {MOST_CHARACTERS}, without line ends"
        )
    if not text.isprintable():
        raise UsageError(f"{what} is no plain text", remedy="write it in one line, without control characters")
    return text
