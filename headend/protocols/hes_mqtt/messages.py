"""The messages of the canonical MQTT protocol, version 1, as typed values. Source: hes-push-v1 schema.

Up: reads, events, state, rsp, raw. Down: cmd, ack, raw. Topics: `hes/v1/{concentrator}/up/...` and `.../down/...`.
What a field means, with examples: docs/mqtt.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from headend.errors import BadFrame

__all__ = [
    "AckMessage",
    "CommandMessage",
    "EventMessage",
    "EventsMessage",
    "MeterPart",
    "RawMessage",
    "ReadsMessage",
    "ResponseMessage",
    "StateMessage",
    "decode_message",
    "down_topic",
    "encode_ack",
    "encode_command",
    "encode_raw",
    "up_topic",
]

VERSION: Final = 1

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[int, Meta(ge=-(2**40), le=2**40)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Id = Annotated[str, Meta(max_length=64)]
_Kind = Literal["interval", "register", "daily_freeze", "monthly_freeze", "billing_reset", "ondemand"]
_Operation = Literal["read", "resend", "set_clock", "relay", "config", "topology", "raw"]
_Wire = Literal["dlt645", "dlms", "modbus_rtu"]
_Hex = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2})*$")]

Row = tuple[int, tuple[int | None, ...], int]
"""Capture time in epoch seconds UTC, one whole number or none per column, quality bits."""


_Turned = tuple[Sequence[int], Sequence[tuple[int | None, ...]], Sequence[int]]


class MeterPart(Struct, gc=False, rename={"address": "m", "rows": "r", "clock_offset_s": "clk"}):
    """The rows of one meter in a message; the interface of `headend.mqtt.batch.MeterRows`."""

    address: str
    rows: list[Row]
    clock_offset_s: int | None = None

    @property
    def turned(self) -> _Turned:
        """Times, values and bits, each of all rows."""
        if not self.rows:
            return (), (), ()
        if len(self.rows) == 1:
            time, values, bits = self.rows[0]
            return (time,), (values,), (bits,)
        times, all_values, all_bits = zip(*self.rows, strict=True)
        return times, all_values, all_bits

    @property
    def times(self) -> Sequence[int]:
        return self.turned[0]

    @property
    def values(self) -> Sequence[tuple[int | None, ...]]:
        return self.turned[1]

    @property
    def bits(self) -> Sequence[int]:
        return self.turned[2]


class _Envelope(Struct, kw_only=True, tag_field="type"):
    """What every message has. ts: when it was sent, epoch seconds. boot, seq: its number since the sender's start."""

    v: Literal[1]
    con: _Id
    mid: _Id
    ts: _Seconds


class _Numbered(_Envelope, kw_only=True):
    boot: _Count
    seq: _Count


class ReadsMessage(_Numbered, kw_only=True, tag="reads"):
    """Values of many meters. cols: OBIS, unit, scaler. period: seconds, of kind interval."""

    kind: _Kind
    cols: Annotated[list[tuple[str, str, int]], Meta(min_length=1, max_length=64)]
    meters: Annotated[list[MeterPart], Meta(min_length=1, max_length=2000)]
    period: int = 0


class EventMessage(Struct, rename={"address": "m", "at": "t"}):
    """Something that befell a meter."""

    address: _Id
    at: _Seconds
    code: _Id
    phase: Literal["start", "end", "instant"] = "instant"
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class EventsMessage(_Numbered, kw_only=True, tag="events"):
    """Events of meters."""

    events: list[EventMessage]


class StateMessage(_Envelope, kw_only=True, tag="state"):
    """How a concentrator is; retained, and its last will when it is gone."""

    online: bool
    boot: _Count | None = None
    seq: _Count | None = None
    fw: str = ""
    proto: str = ""
    rssi: int | None = None
    meters: int | None = None
    backlog: int | None = None
    oldest: int | None = None


class ResponseMessage(_Envelope, kw_only=True, tag="rsp"):
    """The answer to a command, in parts where it is long (`part` from 0, `more` until the last). cols: of the values in
    an answer to `read`, as in reads."""

    cid: str
    ok: bool
    boot: _Count | None = None
    seq: _Count | None = None
    err: str = ""
    data: Any = None
    cols: Annotated[list[tuple[str, str, int]], Meta(max_length=64)] = msgspec.field(default_factory=list)
    part: int = 0
    more: bool = False


class RawMessage(_Envelope, kw_only=True, tag="raw"):
    """Bytes of a meter's own protocol, as they go over a port of the concentrator."""

    port: str
    proto: _Wire
    hex: _Hex
    boot: _Count | None = None
    seq: _Count | None = None
    timeout_ms: int | None = None


class CommandMessage(_Envelope, kw_only=True, omit_defaults=True, tag="cmd"):
    """Something a concentrator is to do, not after `exp` (epoch seconds). cid: comes back in the answer."""

    op: _Operation
    cid: str
    exp: _Seconds
    m: list[str] = msgspec.field(default_factory=list)
    args: dict[str, Any] = msgspec.field(default_factory=dict)


class AckMessage(_Envelope, kw_only=True, omit_defaults=True, tag="ack"):
    """Everything of `boot` up to `upto` is stored, but for `missing`; the rest may be forgotten."""

    boot: int
    upto: int
    missing: list[int] = msgspec.field(default_factory=list)


UpMessage = ReadsMessage | EventsMessage | StateMessage | ResponseMessage | RawMessage
Message = UpMessage | CommandMessage | AckMessage


class _LooseRow(Struct, array_like=True):
    """A row as the schema allows it: without quality bits too, and with more behind them."""

    time: int
    values: tuple[_Int64 | None, ...]
    bits: _Count = 0


class _LooseMeter(Struct, rename={"address": "m", "rows": "r", "clock_offset_s": "clk"}):
    address: str
    rows: list[_LooseRow]
    clock_offset_s: int | None = None


class _LooseReads(_Numbered, kw_only=True, tag="reads"):
    kind: _Kind
    cols: Annotated[list[tuple[str, str, int]], Meta(min_length=1, max_length=64)]
    meters: Annotated[list[_LooseMeter], Meta(min_length=1, max_length=2000)]
    period: int = 0


_READS: Final = msgspec.json.Decoder(ReadsMessage)
_ANY: Final = msgspec.json.Decoder(
    _LooseReads | EventsMessage | StateMessage | ResponseMessage | RawMessage | CommandMessage | AckMessage
)
_ENCODER: Final = msgspec.json.Encoder()


def decode_message(payload: bytes) -> Message:
    """The message in `payload`, typed; `BadFrame` saying which field is wrong. Fields it does not know are ignored."""
    try:
        return _READS.decode(payload)  # nearly all of them
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        message = _ANY.decode(payload)
    except msgspec.ValidationError as error:
        raise BadFrame(f"not as the protocol says: {_plain(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"no JSON: {_plain(error)}") from None
    return _strict(message) if isinstance(message, _LooseReads) else message


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _strict(loose: _LooseReads) -> ReadsMessage:
    meters = [
        MeterPart(meter.address, [(row.time, row.values, row.bits) for row in meter.rows], meter.clock_offset_s)
        for meter in loose.meters
    ]
    return ReadsMessage(
        v=loose.v,
        con=loose.con,
        mid=loose.mid,
        ts=loose.ts,
        boot=loose.boot,
        seq=loose.seq,
        kind=loose.kind,
        cols=loose.cols,
        meters=meters,
        period=loose.period,
    )


# -- what goes down ----------------------------------------------------------------------------------------------------


def up_topic(concentrator: str, what: str) -> str:
    """Where a concentrator publishes: `reads`, `events`, `state`, `rsp`, `raw`."""
    return f"hes/v1/{concentrator}/up/{what}"


def down_topic(concentrator: str, what: str) -> str:
    """Where a concentrator listens: `cmd`, `ack`, `raw`."""
    return f"hes/v1/{concentrator}/down/{what}"


def encode_ack(concentrator: str, mid: str, ts: int, boot: int, upto: int, missing: list[int] | None = None) -> bytes:
    """The acknowledgement of everything up to `upto` but for `missing`."""
    return _ENCODER.encode(
        AckMessage(v=1, con=concentrator, mid=mid, ts=ts, boot=boot, upto=upto, missing=list(missing or ()))
    )


def encode_command(
    concentrator: str,
    mid: str,
    ts: int,
    op: _Operation,
    cid: str,
    exp: int,
    meters: list[str] | None = None,
    args: dict[str, Any] | None = None,
) -> bytes:
    """A command. exp: epoch seconds after which it is no longer to be done. cid: found again in its answer."""
    return _ENCODER.encode(
        CommandMessage(
            v=1, con=concentrator, mid=mid, ts=ts, op=op, cid=cid, exp=exp, m=list(meters or ()), args=dict(args or {})
        )
    )


def encode_raw(
    concentrator: str, mid: str, ts: int, port: str, proto: _Wire, data: bytes, timeout_ms: int | None = None
) -> bytes:
    """Bytes for a port of the concentrator."""
    return _ENCODER.encode(
        RawMessage(
            v=1, con=concentrator, mid=mid, ts=ts, port=port, proto=proto, hex=data.hex().upper(), timeout_ms=timeout_ms
        )
    )
