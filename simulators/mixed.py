"""One line, meters of several protocols: what arrives goes to all of them, and each answers what it takes for its own.

As on a real pair of wires: a meter hears every frame, also those of protocols it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulators.bus import Hearing, Shared, no_baud

__all__ = ["MixedBus", "MixedStation"]


class MixedBus:
    """Buses that share one line; any transport serves it as it would one of them."""

    def __init__(self, buses: Sequence[Shared]) -> None:
        self.buses = tuple(buses)

    def station(
        self,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> MixedStation:
        """A new connection to all of them."""
        return MixedStation([bus.station(send, drop, baud, lasting=lasting) for bus in self.buses], send)


class MixedStation:
    """One connection to several buses."""

    def __init__(self, stations: Sequence[Hearing], send: Callable[[bytes], None]) -> None:
        self.stations = tuple(stations)
        self.send = send

    def feed(self, chunk: bytes) -> None:
        """Bytes that arrived just now, heard by all."""
        for station in self.stations:
            station.feed(chunk)
