"""The lines of a town file and what goes wrong on them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from simulators.dial import packet
from simulators.faults import FAULTS, FaultRule
from simulators.toml_table import Table

__all__ = ["BAUDS", "LINE_KINDS", "PARITIES", "LinePlan", "read_fault", "read_instant", "read_line"]

LINE_KINDS = ("tcp", "pty", "dial", "mqtt")
PARITIES = ("N", "E", "O")
BAUDS = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)


@dataclass(frozen=True, slots=True)
class LinePlan:
    """One line. host, port: where a tcp line listens, a dial line connects, an mqtt line has its broker. baud 0:
    free-running."""

    name: str
    kind: str
    host: str = ""
    port: int = 0
    max_clients: int = 0
    link: str = ""
    baud: int = 0
    parity: str = "E"
    answer_delay_s: float = 0.0
    registration: bytes = b""
    heartbeat: bytes = b""
    heartbeat_s: float = 60.0
    reconnect_s: float = 2.0
    faults: tuple[FaultRule, ...] = ()


def read_line(table: Table) -> LinePlan:
    """A [[line]]."""
    name = table.text("name")
    kind = table.choice("kind", LINE_KINDS)
    host, port = "", 0
    if kind == "tcp":
        host, port = _host_port(table, "listen", "127.0.0.1:0", 0)
    elif kind == "dial":
        host, port = _host_port(table, "connect", None, 1)
    elif kind == "mqtt":
        host, port = _host_port(table, "broker", None, 1)
    accurate = table.flag("baud_accurate", False)
    baud = table.integer("baud", 2400)
    if baud not in BAUDS:
        table.wrong("baud", f"{baud} is no line speed", f"use one of {', '.join(map(str, BAUDS))}")
    delay_ms = table.integer("answer_delay_ms", 20 if accurate else 0, 0, 60_000)
    line = LinePlan(
        name=name,
        kind=kind,
        host=host,
        port=port,
        max_clients=table.integer("max_clients", 0, 0, 1000) if kind == "tcp" else 0,
        link=table.text("link", "-").removeprefix("-") if kind == "pty" else "",
        baud=baud if accurate else 0,
        parity=table.choice("parity", PARITIES, "E"),
        answer_delay_s=delay_ms / 1000,
        registration=_packet(table, "registration") if kind == "dial" else b"",
        heartbeat=_packet(table, "heartbeat") if kind == "dial" else b"",
        heartbeat_s=table.number("heartbeat_s", 60, 0.01, 86_400) if kind == "dial" else 60,
        reconnect_s=table.number("reconnect_s", 2, 0.01, 86_400) if kind == "dial" else 2,
    )
    table.done()
    return line


def _host_port(table: Table, key: str, default: str | None, low: int) -> tuple[str, int]:
    text = table.text(key, default)
    host, _, port = text.rpartition(":")
    if host and port.isascii() and port.isdecimal() and low <= int(port) <= 65_535:
        return host, int(port)
    if text:
        table.wrong(key, f"{text!r} is no endpoint", 'write "host:port"')
    return "", 0


def _packet(table: Table, key: str) -> bytes:
    value = table.raw(key)
    try:
        return packet(value) if isinstance(value, str) else packet("" if value is None else "hex:?")
    except ValueError:
        table.wrong(key, f"{value!r} is no packet", 'write a text, or bytes as "hex:68 01 16"')
        return b""


def read_fault(table: Table, lines: set[str], line_of: Mapping[str, str]) -> tuple[str, FaultRule]:
    """A [[fault]]: the line it is on, and the rule. line_of: each meter's line."""
    meter = table.text("meter", "-").removeprefix("-")
    if meter:
        line = line_of.get(meter, "")
        if not line:
            table.wrong("meter", f"unknown {meter!r}", "name a meter_id of this file")
    else:
        line = table.choice("line", sorted(lines))
    script = table.texts("script")
    for item in script:
        if item not in ("ok", *FAULTS):
            table.wrong("script", f"unknown {item!r}", f"use ok, {', '.join(FAULTS)}")
    rule = FaultRule(
        kind=None if script else table.choice("kind", FAULTS),
        meter=meter,
        probability=table.number("probability", 1.0, 0.0, 1.0),
        script=script,
        delay_s=table.number("delay_s", 2.0, 0.0, 3600.0),
        from_s=read_instant(table, "from"),
        until_s=read_instant(table, "until"),
    )
    table.done()
    return line, rule


def read_instant(table: Table, key: str) -> float | None:
    """Epoch seconds of a TOML date-time with its offset, None if it is not there."""
    value = table.raw(key)
    if value is None:
        return None
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.timestamp()
    table.wrong(key, f"{value!r} is no instant", f"write {key} = 2026-01-31T08:00:00+08:00, without quotes")
    return None
