"""A serial line as a pseudo-terminal: what a program opens as a port, with meters at the other end.

A pty has no speed and no parity bit of its own; the wire's speed is the bus's. Linux drops the parity setting of a pty,
so a program has to open it without parity.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from pathlib import Path

from simulators.bus import Bus, Station

__all__ = ["PtyLine"]


class PtyLine:
    """`path` is the terminal's name once started; `link`, if given, a symbolic link to it with a name that lasts."""

    def __init__(self, bus: Bus, link: Path | None = None) -> None:
        self.bus = bus
        self.link = link
        self.path = ""
        self._master = -1
        self._slave = -1
        self._station: Station | None = None

    async def start(self) -> None:
        """Open the terminal and set the link. OSError when the link's place is taken by a real file."""
        self._master, self._slave = os.openpty()  # ours of the slave stays open: no hang-up between two users
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._station = Station(self.bus, self._send, lambda: None)
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
