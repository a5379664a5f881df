"""A serial line as a pseudo-terminal: what a program opens as a port, with meters at the other end.

A pty carries bytes at any speed and without parity bits. What speed its user set can be told, and is the wire's speed
where that is minded; Linux drops the parity setting of a pty, so a program has to open it without parity.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from pathlib import Path

from simulators.bus import Hearing, Shared

__all__ = ["PtyLine"]

_SPEEDS = {
    getattr(termios, f"B{baud}"): baud for baud in (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
}


class PtyLine:
    """`path` is the terminal's name once started; `link`, if given, a symbolic link to it with a name that lasts."""

    def __init__(self, bus: Shared, link: Path | None = None) -> None:
        self.bus = bus
        self.link = link
        self.path = ""
        self._master = -1
        self._slave = -1
        self._station: Hearing | None = None

    async def start(self) -> None:
        """Open the terminal and set the link. OSError when the link's place is taken by a real file."""
        self._master, self._slave = os.openpty()  # ours of the slave stays open: no hang-up between two users
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._station = self.bus.station(self._send, self._dropped, self._baud, lasting=True)
        asyncio.get_running_loop().add_reader(self._master, self._receive)
        if self.link is not None:
            self._set_link(self.link)

    def _set_link(self, link: Path) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(self.path)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._master, 4096)
            if self._station is not None:
                self._station.feed(chunk)

    def _baud(self) -> int:
        """The speed the port's user set, 0 for one unheard of."""
        return _SPEEDS.get(termios.tcgetattr(self._slave)[5], 0)

    def _dropped(self) -> None:
        """A port can't hang up on its user: nothing happens."""

    def _send(self, data: bytes) -> None:
        if self._master >= 0:
            with contextlib.suppress(BlockingIOError):  # nobody reads: lost, as on a wire
                os.write(self._master, data)

    async def stop(self) -> None:
        """Close the terminal and take the link away."""
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        for handle in (self._master, self._slave):
            os.close(handle)
        self._master = self._slave = -1
        if self.link is not None and self.link.is_symlink() and os.readlink(self.link) == self.path:
            self.link.unlink()

    def endpoint(self) -> str:
        """`serial:PATH`, by the link if there is one."""
        return f"serial:{self.link or self.path}"
