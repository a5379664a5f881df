"""What comes over a connection to a broker: a message, how much of it is held, and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from headend.mqtt.settings import BrokerSettings

__all__ = ["ClientStats", "Held", "Received"]


class Received(NamedTuple):
    """A message. size: its bytes as they came; payload holds the first 64 KiB only where that is more than allowed.

    generation: of the connection it came by. token: what acknowledges it.
    """

    topic: str
    payload: bytes
    retained: bool
    received_at: datetime
    size: int
    generation: int
    token: int
    qos: int


@dataclass(slots=True)
class ClientStats:
    """What went over the connection since the start. again: messages the broker marked as sent before."""

    connections: int = 0
    received: int = 0
    received_bytes: int = 0
    again: int = 0
    acknowledged: int = 0
    published: int = 0
    refused: int = 0
    failures: int = 0
    last_error: str = field(default="")

    def count(self, size: int, *, again: bool) -> None:
        """One more message of `size` bytes."""
        self.received += 1
        self.received_bytes += size
        self.again += again


class Held:
    """The messages of one connection that are not acknowledged yet, against what may be held."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._most = settings.max_waiting
        self._most_bytes = settings.max_waiting_bytes
        self._sizes: dict[int, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, token: int, size: int) -> None:
        """One more."""
        self._sizes[token] = size
        self._bytes += size

    def drop(self, token: int) -> None:
        """It is acknowledged."""
        self._bytes -= self._sizes.pop(token, 0)

    def clear(self) -> None:
        """The connection has gone, and what it brought comes again."""
        self._sizes.clear()
        self._bytes = 0

    def room(self, share: float) -> bool:
        """Whether less than this share of what may be held is held."""
        return len(self._sizes) < self._most * share and self._bytes < self._most_bytes * share
