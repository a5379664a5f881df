"""Messages no head-end should take: each kind wrong in one way, the rest as it should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from simulators.mqtt_concentrator import Concentrator, Out, compact

__all__ = ["BAD", "bad"]

_FUTURE_S = 7 * 86_400


def bad(kind: str, con: Concentrator, *, size: int = 10_000_000) -> Out:
    """A message of `con` that is wrong as `BAD` says. Those with an envelope take the next sequence number, as firmware
    would. size: of the oversized one, in bytes."""
    message = json.loads(con.interval_body())
    topic = con.topic("reads")
    if kind == "oversized":
        message["padding"] = ""
        message["padding"] = "x" * (size - len(compact(message)))
    elif kind in _BYTES:
        return Out(topic, _BYTES[kind](compact(message)))
    elif kind == "foreign topic":
        topic = topic.replace(f"/{con.spec.name}/", f"/{con.spec.name}X/")
    elif kind == "wrong type on topic":
        topic = con.topic("events")
    else:
        _CHANGES[kind](message)
    return Out(topic, compact(message))


_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "no json": lambda _raw: b"\x00\xffnot json",
    "cut short": lambda raw: raw[: len(raw) // 2],
    "empty": lambda _raw: b"",
    "bad utf-8": lambda raw: raw.replace(b'"mid":"', b'"mid":"\xff\xfe', 1),
    "deeply nested": lambda _raw: b"[" * 100_000 + b"]" * 100_000,
    "huge number": lambda raw: raw.replace(b'"seq":', b'"seq":1' + b"0" * 5_000, 1),
}


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(message: dict[str, Any]) -> None:
        at: Any = message
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to

    return change


def _future(message: dict[str, Any]) -> None:
    for meter in message["meters"]:
        for row in meter["r"]:
            row[0] += _FUTURE_S - _FUTURE_S % message["period"]


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda message: message.pop(key)


_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wrong identity": _set("con", to="SOMEBODY-ELSE"),
    "future": _future,
    "before 2000": _set("meters", 0, "r", 0, 0, to=0),
    "unknown scaler": _set("cols", 0, 2, to=12),
    "unknown unit": _set("cols", 0, 1, to="BTU"),
    "unknown obis": _set("cols", 0, 0, to="1-0:99.99.99"),
    "unknown meter": _set("meters", 0, "m", to="999999999999"),
    "too few values": _set("meters", 0, "r", 0, 1, to=[]),
    "value is text": _set("meters", 0, "r", 0, 1, 0, to="12.5"),
    "value is a fraction": _set("meters", 0, "r", 0, 1, 0, to=12.5),
    "value beyond int64": _set("meters", 0, "r", 0, 1, 0, to=10**30),
    "period of no grid": _set("period", to=7),
    "other version": _set("v", to=2),
    "unknown kind": _set("kind", to="guess"),
    "no meters": _set("meters", to=[]),
    "no con": _drop("con"),
    "no seq": _drop("seq"),
    "negative seq": _set("seq", to=-1),
}

BAD = ("oversized", "foreign topic", "wrong type on topic", *_BYTES, *_CHANGES)
"""Every kind of bad message."""
