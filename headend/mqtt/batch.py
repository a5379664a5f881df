"""What a message from a concentrator says, whatever its format: columns of numbers for many meters. Pure.

Every dialect decodes to `Batch`; everything behind it (placing, checking, storing, acknowledging) knows only this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

__all__ = ["NOT_TAKEN", "Batch", "Column", "EventRow", "MeterRows", "ReadKindWord", "Rejected", "Rows", "State"]


class ReadKindWord(StrEnum):
    """What the values of a batch are; the words of the canonical protocol."""

    INTERVAL = "interval"  # at the boundaries of a grid of `step_s`: registers or consumption, by quantity
    REGISTER = "register"  # as it stands at the row's time
    DAILY_FREEZE = "daily_freeze"
    MONTHLY_FREEZE = "monthly_freeze"
    BILLING_RESET = "billing_reset"
    ONDEMAND = "ondemand"


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of ours. units_factor: what an integer of the message is multiplied by to give ten-thousandths of
    the quantity's unit (kWh with scaler -2: 100); units_divisor: what it is then divided by, exactly (1 as a rule)."""

    quantity: str
    units_factor: int
    units_divisor: int = 1


NOT_TAKEN = Column("", 1)
"""Stands for a column that can't be taken (why, is in `Batch.rejected`), so that the others keep their places."""


class MeterRows(Protocol):
    """The rows of one meter, whoever holds them; see `Rows`. May be computed at each look: look once."""

    @property
    def address(self) -> str: ...

    @property
    def times(self) -> Sequence[int]: ...

    @property
    def values(self) -> Sequence[Sequence[int | None]]: ...

    @property
    def bits(self) -> Sequence[int]: ...

    @property
    def clock_offset_s(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one meter. address: as the concentrator calls it. times: epoch seconds UTC. values: for each row one
    integer or None per column. bits: quality bits of each row (1 estimated, 2 suspect, 4 missing, 8 clock doubtful).
    clock_offset_s: meter clock minus the sender's, None unknown."""

    address: str
    times: Sequence[int]
    values: Sequence[Sequence[int | None]]
    bits: Sequence[int]
    clock_offset_s: int | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that befell a meter. at: epoch seconds UTC. phase: start, end, instant."""

    address: str
    at: int
    code: str
    phase: str = "instant"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """What a concentrator says of itself."""

    online: bool
    firmware: str = ""
    meters: int | None = None
    backlog: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Part of a message that is not usable: an unknown quantity, unit, scaler, time. What is wrong, and for whom."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One message, decoded. concentrator: who sent it, by its payload ("" if it does not say). boot, seq: its place in
    the sender's numbering, None where there is none. reply: what the dialect answers once this is committed, as
    (topic, payload); b"" none. rejected: what could not be taken: the rest is stored, and the message
    kept aside as well. sparse: a None only tells that the message says nothing, not that there is no value; a meter may
    then stand in `meters` more than once."""

    concentrator: str
    kind: ReadKindWord | None = None
    step_s: int = 0
    columns: tuple[Column, ...] = ()
    meters: Sequence[MeterRows] = ()
    events: tuple[EventRow, ...] = ()
    state: State | None = None
    boot: int | None = None
    seq: int | None = None
    sent_at: datetime | None = None
    reply: tuple[str, bytes] = ("", b"")
    rejected: tuple[Rejected, ...] = ()
    sparse: bool = False
