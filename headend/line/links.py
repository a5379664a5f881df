"""Open connections: bytes out, bytes in, and word of the end. TCP, UDP and serial behind one small class each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import termios
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import serial

from headend.endpoints import Endpoint
from headend.errors import LineDown

__all__ = ["Format", "Link", "SerialLink", "TcpLink", "UdpLink", "open_link"]


class Format(NamedTuple):
    """Speed (bits per second) and characters of a serial port."""

    baud: int
    bytesize: int
    parity: str
    stopbits: int

    def __str__(self) -> str:
        return f"{self.baud} {self.bytesize}{self.parity}{self.stopbits}"


class Link(Protocol):
    """One open connection. `on_data` is called with each chunk, `on_lost` once when it ends."""

    on_data: Callable[[bytes], None]
    on_lost: Callable[[str], None]

    @property
    def is_open(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


_DATAGRAM_LIMIT_BYTES = 65_507
_PSEUDO_TERMINALS = range(136, 144)  # device numbers of /dev/pts


def _drop(_data: bytes) -> None:
    """Bytes nobody waits for."""


class TcpLink(asyncio.Protocol):
    """A TCP connection, either side of it."""

    def __init__(self, on_made: Callable[[TcpLink], None] | None = None) -> None:
        self.on_data: Callable[[bytes], None] = _drop
        self.on_lost: Callable[[str], None] = lambda _why: None
        self.peer = ""
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _keep_alive(sock)
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        self.on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.on_lost(str(exc) if exc else "the other side closed the connection")

    def write(self, data: bytes) -> None:
        if self._transport is None:
            raise LineDown("the connection is closed")
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _keep_alive(sock: socket.socket) -> None:
    """A serial server or modem that vanishes without a word is noticed within about two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class UdpLink(asyncio.DatagramProtocol):
    """Datagrams to and from one host and port; those of others do not come through. Each is a chunk of its own.

    A port that is closed over there is told by its host, if at all, with the first datagram: the link ends then.
    """

    def __init__(self) -> None:
        self.on_data: Callable[[bytes], None] = _drop
        self.on_lost: Callable[[str], None] = lambda _why: None
        self._transport: asyncio.DatagramTransport | None = None
        self._sending = False
        self._failure = ""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data:
            self.on_data(data)

    def error_received(self, exc: Exception) -> None:
        why = "nothing listens there" if isinstance(exc, ConnectionRefusedError) else _reason(exc)
        if self._sending:
            self._failure = why
        else:
            self._lose(why)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:  # not by us
            self._transport = None
            self.on_lost(str(exc) if exc else "the socket was closed")

    def write(self, data: bytes) -> None:
        if self._transport is None:
            raise LineDown("the socket is closed")
        if len(data) > _DATAGRAM_LIMIT_BYTES:
            raise LineDown(f"{len(data)} bytes do not go into one datagram", remedy="lower max_pdu, or use tcp://")
        self._sending, self._failure = True, ""
        try:
            self._transport.sendto(data)
        finally:
            self._sending = False
        if self._failure:
            self.close()
            raise LineDown(f"can't send: {self._failure}", remedy="is the meter up and the port right?")

    def _lose(self, why: str) -> None:
        if self._transport is not None:
            self.close()
            self.on_lost(why)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


class SerialLink:
    """A serial port through pyserial, read by the event loop when it has bytes."""

    def __init__(self, port: serial.Serial, form: Format) -> None:
        self.format = form
        self.on_data: Callable[[bytes], None] = _drop
        self.on_lost: Callable[[str], None] = lambda _why: None
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._pending = b""
        self._fd: int = port.fileno()
        self._pseudo = os.major(os.fstat(self._fd).st_rdev) in _PSEUDO_TERMINALS
        self._open = True
        self._loop.add_reader(self._fd, self._readable)

    @property
    def is_open(self) -> bool:
        return self._open

    def _readable(self) -> None:
        try:
            chunk = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the port failed: {error.strerror}")
            return
        if chunk:
            self.on_data(chunk)
        else:
            self._lose("the port was unplugged")

    def set_format(self, form: Format) -> None:
        """Another speed or character format from now on. `LineDown` when the port can't.

        Only what differs is set, as each setting goes to the driver at once. A pseudo-terminal (a program at its other
        end plays a port) has a speed, but always 8 data bits without parity, and refuses to be told otherwise.
        """
        own = form._replace(parity="N", bytesize=8 if form.bytesize == 7 else form.bytesize) if self._pseudo else form
        try:
            if self._pseudo and self._port.parity != "N":
                self._port.parity = "N"  # as it was opened; nothing else can be set before
            for name, value in own._asdict().items():
                attribute = "baudrate" if name == "baud" else name
                if getattr(self._port, attribute) != value:
                    setattr(self._port, attribute, value)
        except (serial.SerialException, OSError, ValueError, termios.error) as error:
            self.close()
            raise LineDown(
                f"can't set {self._port.port} to {form}: {_reason(error)}",
                remedy="does the adapter know this speed and format?",
            ) from error
        self.format = form

    def write(self, data: bytes) -> None:
        if not self._open:
            raise LineDown("the port is closed")
        if self._pending:
            self._pending += data
            return
        self._pending = data
        self._flush()

    def _flush(self) -> None:
        """Write what the driver takes; the rest goes when the port is writable again."""
        try:
            written = os.write(self._fd, self._pending)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self._lose(f"the port failed: {error.strerror}")
            return
        self._pending = self._pending[written:]
        if self._pending:
            self._loop.add_writer(self._fd, self._flush)
        else:
            self._loop.remove_writer(self._fd)

    def _lose(self, why: str) -> None:
        if self._open:
            self.close()
            self.on_lost(why)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            with contextlib.suppress(OSError):
                self._port.close()


async def open_link(endpoint: Endpoint, connect_s: float) -> Link:
    """Open a TCP, UDP or serial endpoint. Raises `LineDown` with the reason in words."""
    if endpoint.kind == "tcp":
        return await _open_tcp(endpoint.host, endpoint.port, connect_s)
    if endpoint.kind == "udp":
        return await _open_udp(endpoint.host, endpoint.port, connect_s)
    if endpoint.kind == "serial":
        return _open_serial(endpoint)
    raise LineDown(f"{endpoint} is not opened from here", remedy="`headend run` holds it: use it through the daemon")


async def _open_tcp(host: str, port: int, connect_s: float) -> TcpLink:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(connect_s):
            _, link = await loop.create_connection(TcpLink, host, port)
    except TimeoutError as error:
        raise LineDown(
            f"no connection to {host}:{port} within {connect_s:g} s",
            remedy="check the address, the network and the server's connection limit",
        ) from error
    except OSError as error:
        raise LineDown(
            f"can't connect to {host}:{port}: {_reason(error)}",
            remedy="is the serial server up and the port right?",
        ) from error
    return link


async def _open_udp(host: str, port: int, connect_s: float) -> UdpLink:
    """A socket that sends to `host`; whether anybody is there shows only when nothing comes back."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(connect_s):
            _, link = await loop.create_datagram_endpoint(UdpLink, remote_addr=(host, port))
    except TimeoutError as error:
        raise LineDown(
            f"{host} was not found within {connect_s:g} s", remedy="check the name and the network"
        ) from error
    except OSError as error:
        raise LineDown(
            f"can't send to {host}:{port}: {_reason(error)}", remedy="check the address and the network"
        ) from error
    return link


def _open_serial(endpoint: Endpoint) -> SerialLink:
    try:
        port = serial.Serial(
            endpoint.device,
            baudrate=endpoint.baud,
            bytesize=endpoint.bytesize,
            parity=endpoint.parity,
            stopbits=endpoint.stopbits,
            timeout=0,  # set once and never again: a pty refuses a second tcsetattr with parity
            exclusive=True,
        )
    except (serial.SerialException, OSError, ValueError, termios.error) as error:
        raise LineDown(
            f"can't open {endpoint.device}: {_reason(error)}",
            remedy="is it plugged in, readable by this user, and not held by another program?",
        ) from error
    return SerialLink(port, Format(endpoint.baud, endpoint.bytesize, endpoint.parity, endpoint.stopbits))


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):  # its numbers are not those of other errors
        return error.strerror or str(error)
    number = error.args[0] if isinstance(error, termios.error) and error.args else getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else str(error)
