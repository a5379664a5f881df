"""The canonical protocol v1 as a dialect: what its messages say, as a `Batch`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import BadFrame, UsageError
from headend.mqtt.batch import (
    NOT_TAKEN,
    Batch,
    Column,
    EventRow,
    MeterRows,
    ReadKindWord,
    Rejected,
    Rows,
    State,
)
from headend.mqtt.columns import column, quantity_of_obis
from headend.protocols.hes_mqtt.messages import (
    AckMessage,
    CommandMessage,
    EventsMessage,
    MeterPart,
    ReadsMessage,
    StateMessage,
    decode_message,
    encode_ack,
    encode_command,
)

__all__ = ["CANONICAL", "EARLIEST_S", "FUTURE_S", "Canonical", "decode", "encode_ack", "encode_command"]

FUTURE_S: Final = 600
"""A row dated later than this after its arrival is not taken."""

EARLIEST_S: Final = 946_684_800
"""2000-01-01 UTC: a row dated before it comes from a clock that was never set."""

_MANY: Final = 8  # rows of a meter from which on it pays to turn them into columns
_LAST_S: Final = 253_402_300_799  # the last second a datetime knows
_WORDS: Final = ("reads", "events", "state", "rsp", "raw")  # the last two are only counted here: links hear them


@dataclass(frozen=True, slots=True)
class Canonical:
    """The canonical protocol v1."""

    name: str = "canonical"
    filters: tuple[str, ...] = tuple(f"hes/v1/{{concentrator}}/up/{word}" for word in _WORDS)

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """See `Dialect.decode`."""
        return decode(topic, payload, received_at)


CANONICAL: Final = Canonical()


def decode(topic: str, payload: bytes, received_at: datetime) -> Batch:
    """What a message says. `BadFrame` for what is malformed, or of another type than its topic says."""
    message = decode_message(payload)
    said = topic.rpartition("/")[2]
    if isinstance(message, ReadsMessage):
        _same_type(said, "reads")
        return _reads(message, to_epoch_s(received_at) + FUTURE_S)
    if isinstance(message, EventsMessage):
        _same_type(said, "events")
        return _events(message, to_epoch_s(received_at) + FUTURE_S)
    if isinstance(message, StateMessage):
        _same_type(said, "state")
        state = State(message.online, message.fw, message.meters, message.backlog)
        return Batch(message.con, boot=message.boot, seq=message.seq, state=state, sent_at=_instant(message.ts))
    if isinstance(message, CommandMessage | AckMessage):
        raise BadFrame("a message for concentrators came from one")
    _same_type(said, "rsp" if hasattr(message, "cid") else "raw")
    return Batch(message.con, boot=message.boot, seq=message.seq, sent_at=_instant(message.ts))


def _same_type(topic: str, message: str) -> None:
    if topic != message:
        raise BadFrame(f"a message of type {message} on a topic of {topic[:20]}")


def _instant(ts: int) -> datetime | None:
    return from_epoch_s(ts) if 0 <= ts <= _LAST_S else None


# -- reads -------------------------------------------------------------------------------------------------------------


def _reads(message: ReadsMessage, latest: int) -> Batch:
    kind = ReadKindWord(message.kind)
    if kind is ReadKindWord.INTERVAL and not (0 < message.period <= 86_400 and 86_400 % message.period == 0):
        raise BadFrame(f"a period of {message.period} s divides no day", remedy="intervals have the period of a grid")
    columns, rejected = _columns(tuple(message.cols))
    meters: Sequence[MeterRows] = message.meters
    many = sum([len(meter.rows) for meter in message.meters]) > _MANY * len(message.meters)
    if many or not _all_usable(message.meters, len(columns), latest):
        look = _turned if many else _usable
        looked_at = [look(meter, len(columns), latest) for meter in message.meters]
        meters = [usable for usable, _ in looked_at]
        rejected = (*rejected, *(one for _, wrong in looked_at for one in wrong))
    return Batch(
        message.con,
        kind,
        message.period if kind is ReadKindWord.INTERVAL else 0,
        columns,
        tuple(meters),
        boot=message.boot,
        seq=message.seq,
        sent_at=_instant(message.ts),
        rejected=rejected,
    )


@lru_cache(maxsize=1024)
def _columns(cols: tuple[tuple[str, str, int], ...]) -> tuple[tuple[Column, ...], tuple[Rejected, ...]]:
    """Columns of ours, `NOT_TAKEN` where we have none, and why; the same for every message of a concentrator."""
    found: list[Column] = []
    rejected: list[Rejected] = []
    for obis, unit, scaler in cols:
        name = quantity_of_obis(obis)
        try:
            if name is None:
                raise UsageError(f"no quantity for OBIS {obis[:30]!r}")
            if not -9 <= scaler <= 9:
                raise UsageError(f"unknown scaler {str(scaler)[:20]} of {obis[:30]}")
            if any(name == other.quantity for other in found):
                raise UsageError(f"OBIS {obis[:30]} stands twice")
            found.append(column(name, unit, scaler))
        except UsageError as error:
            found.append(NOT_TAKEN)
            rejected.append(Rejected("", error.problem.what))
    return tuple(found), tuple(rejected)


def _all_usable(meters: list[MeterPart], width: int, latest: int) -> bool:
    """Whether nothing in the rows needs a closer look: the common case, decided without one."""
    rows = [row for meter in meters for row in meter.rows]
    if not rows:
        return True
    times = [row[0] for row in rows]
    return max(times) <= latest and min(times) >= EARLIEST_S and {len(row[1]) for row in rows} == {width}


def _turned(meter: MeterPart, width: int, latest: int) -> tuple[Rows, list[Rejected]]:
    """The many rows of a meter as columns, looked at as such."""
    times, values, bits = meter.turned
    if times and (max(times) > latest or min(times) < EARLIEST_S or set(map(len, values)) != {width}):
        return _usable(meter, width, latest)
    return Rows(meter.address, times, values, bits, meter.clock_offset_s), []


def _usable(meter: MeterPart, width: int, latest: int) -> tuple[Rows, list[Rejected]]:
    """The rows of a meter that can be taken, and why the others can't."""
    rows, wrong = [], []
    for time, values, bits in meter.rows:
        if len(values) != width:
            wrong.append(f"a row of {len(values)} values under {width} columns")
        elif time > latest:
            wrong.append(f"dated in the future: {_shown(time)}")
        elif time < EARLIEST_S:
            wrong.append(f"dated before 2000: {_shown(time)}")
        else:
            rows.append((time, values, bits))
    kept = Rows(
        meter.address,
        [time for time, _, _ in rows],
        [values for _, values, _ in rows],
        [bits for _, _, bits in rows],
        meter.clock_offset_s,
    )
    return kept, [Rejected(meter.address, reason) for reason in dict.fromkeys(wrong)]


def _shown(time: int) -> str:
    return f"{from_epoch_s(time):%Y-%m-%d %H:%M:%S} UTC" if 0 <= time <= _LAST_S else f"{time} s"


# -- events ------------------------------------------------------------------------------------------------------------


def _events(message: EventsMessage, latest: int) -> Batch:
    events: list[EventRow] = []
    rejected: list[Rejected] = []
    for event in message.events:
        if EARLIEST_S <= event.at <= latest:
            events.append(EventRow(event.address, event.at, event.code, event.phase, event.data))
        else:
            when = "in the future" if event.at > latest else "before 2000"
            rejected.append(Rejected(event.address, f"event {event.code} dated {when}: {_shown(event.at)}"))
    return Batch(
        message.con,
        events=tuple(events),
        boot=message.boot,
        seq=message.seq,
        sent_at=_instant(message.ts),
        rejected=tuple(rejected),
    )
