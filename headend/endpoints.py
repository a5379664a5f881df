"""Where a line ends: endpoints as an operator writes them, parsed. Opens nothing.

tcp://host:port      a serial server, a modem or a meter that accepts connections
udp://host:port      a meter that answers datagrams
serial:/dev/ttyS1    a port of this machine, with its character format (`2400 8E1`)
listen://host:port   a port on which modems dial in; an empty host means every interface
mqtt://broker        a DTU that passes bytes on over two topics of a broker of the site
mqtt://broker/name   a concentrator that takes commands over that broker
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from headend.errors import UsageError

__all__ = ["BAUDS", "DEFAULT_SERIAL", "Endpoint", "LineSettings", "PushSettings", "Topics", "parse_endpoint"]
__all__ += ["parse_serial"]

EndpointKind = Literal["tcp", "udp", "serial", "listen", "mqtt"]
Parity = Literal["N", "E", "O"]

BAUDS: tuple[int, ...] = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
DEFAULT_SERIAL = "2400 8E1"

_FORMS = "write tcp://host:port, udp://host:port, serial:/dev/ttyS1, listen://host:port or mqtt://broker"
_CHARACTER = re.compile(r"([78])([NEO])([12])")
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_MQTT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DEVICE = re.compile(r"(?!//)[^\s\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Topics:
    """Where a DTU passes bytes on. up: the topic it publishes on; down: the one it listens to. codec: how a payload
    holds the bytes: `hex`, `raw`, or `json:FIELD`, hexadecimal in a field (`json:data.d`: of an object within).
    template: of what is published, with `{hex}` where the bytes stand; "" what the codec says. qos: of what is
    published, 0 or 1."""

    up: str
    down: str
    codec: str = "hex"
    template: str = ""
    qos: int = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a line. `host` and `port` are for tcp, udp and listen, `broker` and what follows for mqtt, the rest
    for serial.

    host: name or address, lower case, an IPv6 address without brackets; "" (listen only) is every interface.
    baud: bits per second. parity: N, E or O. broker: its name in site.toml. concentrator: "" for a DTU, which has
    topics instead.
    """

    kind: EndpointKind
    host: str = ""
    port: int = 0
    device: str = ""
    baud: int = 2400
    bytesize: int = 8
    parity: Parity = "E"
    stopbits: int = 1
    broker: str = ""
    concentrator: str = ""
    topics: Topics | None = None

    def __str__(self) -> str:
        if self.kind == "mqtt":
            return f"mqtt://{self.broker}/{self.concentrator}".rstrip("/")
        if self.kind == "serial":
            return f"serial:{self.device}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How one line is run.

    registration: the first bytes a modem sends after it dialled in (listen only; b"" takes any). heartbeat: bytes a
    modem sends on its own from time to time, dropped wherever they stand alone. reply_s: how long to wait for the
    first byte of an answer. gap_s: silence that ends an answer. quiet_s: silence kept after a timeout before the next
    request. turnaround_s: silence kept between the end of an answer and the next request. connect_s: how long a
    connection may take. reopen_after: conversations in a row without a single byte after which a connection is
    closed and opened anew (all but serial; 0 never). wire_baud: speed of the wire behind an endpoint that is no serial
    port, 0 unknown. echo: the line gives back what is sent, which is then dropped. dead_share: how much of the line's
    time silent meters may cost together, 0 to 1.
    """

    name: str
    endpoint: Endpoint
    registration: bytes = b""
    heartbeat: bytes = b""
    reply_s: float = 2.0
    gap_s: float = 0.5
    quiet_s: float = 0.05
    connect_s: float = 5.0
    echo: bool = False
    turnaround_s: float = 0.0
    reopen_after: int = 5
    dead_share: float = 0.05
    wire_baud: int = 0


@dataclass(frozen=True, slots=True)
class PushSettings:
    """One listening port. idle_s: a connection on which nothing comes for so long is closed. connections: how many may
    be open at once."""

    name: str
    transport: Literal["tcp", "udp"]
    host: str
    port: int
    idle_s: float = 900.0
    connections: int = 10_000


def parse_endpoint(text: str, serial: str = "") -> Endpoint:
    """The endpoint written as `text`; `serial` is the character format of a serial one ("" is `2400 8E1`).

    Raises `UsageError` saying what is allowed; also when `serial` is given for an endpoint that has no such thing.
    """
    if text.startswith("serial:"):
        return _serial_endpoint(text.removeprefix("serial:"), serial or DEFAULT_SERIAL)
    if serial:
        raise UsageError(
            "serial settings stand beside an endpoint that is no serial port",
            remedy="remove them or write serial:/dev/...",
        )
    if text.startswith("tcp://"):
        return _remote_endpoint("tcp", text)
    if text.startswith("udp://"):
        return _remote_endpoint("udp", text)
    if text.startswith("listen://"):
        host, port = _host_port(text, text.removeprefix("listen://"))
        return Endpoint("listen", host=host, port=port)
    if text.startswith("mqtt://"):
        return _mqtt_endpoint(text)
    raise UsageError(f"{text!r} is no endpoint", remedy=_FORMS)


def parse_serial(text: str) -> tuple[int, int, Parity, int]:
    """Baud, data bits, parity and stop bits written as `2400 8E1`. Raises `UsageError` naming what is allowed."""
    words = text.split()
    if len(words) != 2:
        raise UsageError(f"{text!r} is no serial format", remedy="write speed and character format, like 2400 8E1")
    speed, character = words
    if not (speed.isascii() and speed.isdigit() and len(speed) < 10 and int(speed) in BAUDS):
        allowed = ", ".join(str(baud) for baud in BAUDS)
        raise UsageError(f"{speed!r} is no speed a line runs at", remedy=f"use one of {allowed}")
    match = _CHARACTER.fullmatch(character.upper())
    if match is None:
        remedy = "write data bits 7 or 8, parity N, E or O, stop bits 1 or 2, like 8E1"
        raise UsageError(f"{character!r} is no character format", remedy=remedy)
    bits, letter, stop = match.groups()
    parity: Parity = "N" if letter == "N" else "E" if letter == "E" else "O"
    return int(speed), int(bits), parity, int(stop)


def _remote_endpoint(kind: Literal["tcp", "udp"], text: str) -> Endpoint:
    host, port = _host_port(text, text.removeprefix(f"{kind}://"))
    if not host:
        raise UsageError(f"endpoint {text!r} names no host", remedy=f"write {kind}://host:port")
    return Endpoint(kind, host=host, port=port)


def _mqtt_endpoint(text: str) -> Endpoint:
    broker, slash, concentrator = text.removeprefix("mqtt://").partition("/")
    if not _MQTT_NAME.fullmatch(broker) or (slash and not _MQTT_NAME.fullmatch(concentrator)):
        raise UsageError(
            f"endpoint {text!r} names no broker of the site, or no concentrator",
            remedy="write mqtt://BROKER for a DTU, mqtt://BROKER/CONCENTRATOR for a concentrator",
        )
    return Endpoint("mqtt", broker=broker, concentrator=concentrator)


def _serial_endpoint(device: str, serial: str) -> Endpoint:
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"{device!r} is no serial port", remedy="write serial:/dev/ttyS1")
    baud, bytesize, parity, stopbits = parse_serial(serial)
    return Endpoint("serial", device=device, baud=baud, bytesize=bytesize, parity=parity, stopbits=stopbits)


def _host_port(text: str, rest: str) -> tuple[str, int]:
    host, colon, digits = rest.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"endpoint {text!r} names no port", remedy="write host:port, an IPv6 address as [::1]:port")
    if len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise UsageError(f"port {digits} of endpoint {text!r} does not exist", remedy="use a port from 1 to 65535")
    return _host(text, host), int(digits)


def _host(text: str, host: str) -> str:
    """`host` in the one form in which two spellings compare equal."""
    refusal = UsageError(
        f"{host!r} in endpoint {text!r} is no host", remedy="use a host name, 192.0.2.1 or [2001:db8::1]"
    )
    if not host:
        return ""
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(IPv6Address(host[1:-1]))
        if host.replace(".", "").isdigit():
            return str(IPv4Address(host))
    except ValueError:
        raise refusal from None
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise refusal
    return host.lower()
