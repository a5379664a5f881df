"""What captured messages of the canonical MQTT protocol say, in words. They stand one after another in the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headend.civil import from_epoch_s
from headend.errors import BadFrame, UsageError
from headend.protocols.explanation import Explanation, Field, Value
from headend.protocols.hes_mqtt.messages import (
    AckMessage,
    CommandMessage,
    EventsMessage,
    Message,
    RawMessage,
    ReadsMessage,
    ResponseMessage,
    StateMessage,
    decode_message,
)
from headend.protocols.hes_mqtt.units import quantity_of_obis, store_factors
from headend.quantities import from_units, quantity

__all__ = ["explain"]

_SHOWN = 200  # values
_SHOWN_CHARACTERS = 200


def explain(data: bytes) -> Explanation:
    """What the messages in `data` say; never raises."""
    said: list[str] = []
    fields: list[Field] = []
    values: list[Value] = []
    problems: list[str] = []
    for part in _messages(data):
        try:
            message = decode_message(part)
        except BadFrame as error:
            problems.append(error.problem.what)
            continue
        said.append(_summary(message))
        fields += _fields(message)
        values += _values(message, problems)
    if len(values) > _SHOWN:
        problems.append(f"{len(values) - _SHOWN} more values are not shown")
    summary = "; ".join(said) or "no message of the protocol"
    return Explanation(bool(said) and not problems, summary, tuple(fields), tuple(values[:_SHOWN]), tuple(problems))


def _messages(data: bytes) -> Iterator[bytes]:
    """The JSON objects that stand one after another."""
    text = data.decode("utf-8", "replace").strip()
    decoder = json.JSONDecoder()
    while text:
        try:
            _, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            yield text.encode()
            return
        yield text[:end].encode()
        text = text[end:].lstrip()


def _summary(message: Message) -> str:
    con = message.con
    if isinstance(message, CommandMessage):
        meters = f" of {', '.join(message.m[:5])}{' and more' if len(message.m) > 5 else ''}" if message.m else ""
        return f"command {message.op}{meters} to concentrator {con}, not after {_time(message.exp)}"
    if isinstance(message, ResponseMessage):
        part = (
            f", part {message.part}{' of more' if message.more else ', the last'}"
            if message.part or message.more
            else ""
        )
        return f"concentrator {con} {'did it' if message.ok else f'says no: {message.err}'}{part}"
    if isinstance(message, ReadsMessage):
        rows = sum(len(meter.rows) for meter in message.meters)
        return f"{message.kind} of {len(message.meters)} meters, {rows} rows, from concentrator {con}"
    if isinstance(message, EventsMessage):
        return f"{len(message.events)} events from concentrator {con}"
    if isinstance(message, StateMessage):
        return f"concentrator {con} is {'online' if message.online else 'offline'}"
    if isinstance(message, AckMessage):
        return f"acknowledged to concentrator {con}: up to {message.upto}, {len(message.missing)} missing"
    return f"{len(message.hex) // 2} bytes of {message.proto} on port {message.port} of concentrator {con}"


def _time(epoch_s: int) -> str:
    try:
        return f"{from_epoch_s(epoch_s):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{epoch_s} s"


def _fields(message: Message) -> Iterator[Field]:
    yield Field("mid", message.mid, "")
    yield Field("ts", _time(message.ts), "")
    boot, seq = getattr(message, "boot", None), getattr(message, "seq", None)
    if seq is not None:
        yield Field("boot, seq", f"{boot}, {seq}", "")
    if isinstance(message, CommandMessage | ResponseMessage):
        yield Field("cid", message.cid[:64], "")
    if isinstance(message, CommandMessage) and message.args:
        yield Field("args", _short(message.args), "")
    if isinstance(message, ResponseMessage) and message.data is not None:
        yield Field("data", _short(message.data), "")
    if isinstance(message, RawMessage):
        yield Field("frame", message.proto, message.hex.upper())
    if isinstance(message, EventsMessage):
        for event in message.events[:_SHOWN]:
            yield Field(event.code, f"meter {event.address}, {_time(event.at)}, {event.phase}", "")


def _short(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _values(message: Message, problems: list[str]) -> Iterator[Value]:
    """Values with the names of ours, of reads and of answers to reads."""
    if isinstance(message, ReadsMessage):
        for meter in message.meters:
            for row in meter.rows:
                yield from _row(meter.address, list(row), message.cols)
    elif isinstance(message, ResponseMessage) and message.cols and isinstance(message.data, dict):
        for address, data in message.data.items():
            rows = data if isinstance(data, list) and data and isinstance(data[0], list) else [data]
            for row in rows:
                if isinstance(row, list) and len(row) >= 2 and isinstance(row[1], list):
                    yield from _row(address, row, message.cols)
                else:
                    problems.append(f"what is said of meter {address} is no row")


def _row(address: str, row: list[Any], cols: list[tuple[str, str, int]]) -> Iterator[Value]:
    at = _time(row[0]) if isinstance(row[0], int) else "?"
    for (obis, unit, scaler), value in zip(cols, row[1], strict=False):
        name = quantity_of_obis(obis)
        note = f"meter {address}, {at}"
        text = None
        if isinstance(value, int) and not isinstance(value, bool):
            text, unit = _number(name, unit, scaler, value)
        yield Value(name or obis[:40], "", text, unit, obis[:40], "", note)


def _number(name: str | None, unit: str, scaler: int, value: int) -> tuple[str, str]:
    """The number in our unit; in theirs where there is none of ours."""
    try:
        if name is not None:
            factor, divisor = store_factors(name, unit, scaler)
            units, rest = divmod(value * factor, divisor)
            if not rest:
                return f"{from_units(units).normalize():f}", quantity(name).unit
    except UsageError:
        pass
    return f"{value} x 10^{scaler}", unit
