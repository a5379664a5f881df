"""A concentrator as a line of a town: what its meters recorded in the last days goes out when it connects, then each
interval as it comes."""

from __future__ import annotations

from collections.abc import Sequence

from simulators.clock import Now
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec
from simulators.mqtt_meters import ENERGY, ConMeter
from simulators.mqtt_runner import BrokerAddress, Running

__all__ = ["ConcentratorLine"]

_DAY_S = 86_400
_LOOK_S = 1.0  # how often it looks whether an interval is over
_REPEAT_S = 5.0  # without an acknowledgement it sends again what is not acknowledged
_REGISTERS = ENERGY[:5]  # frozen each midnight: total and four rates


class ConcentratorLine:
    """Meters behind one concentrator named `name`, on the broker at host:port, which it tries until it is there.

    memory_days: how far back it tells when it starts. offset_s: local time minus UTC, for the meters' midnights.
    from_s: when the meters began to count. `con` is the concentrator.
    """

    def __init__(
        self,
        name: str,
        meters: Sequence[ConMeter],
        host: str,
        port: int,
        now: Now,
        *,
        memory_days: int = 62,
        offset_s: int = 28_800,
        from_s: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.con = Concentrator(ConcentratorSpec(name), meters, now)
        self._memory_days = memory_days
        self._offset_s = offset_s
        self._from_s = from_s
        self._running: Running | None = None

    def _recall(self) -> None:
        """Put what the meters remember into messages: a day each, and each midnight's registers."""
        con = self.con
        now_s = con.believed_s()
        today_s = (now_s + self._offset_s) // _DAY_S * _DAY_S - self._offset_s
        for day in range(self._memory_days, -1, -1):
            start_s = today_s - day * _DAY_S
            times = range(max(start_s, self._from_s), min(start_s + _DAY_S, now_s + 1), con.period_s)
            if times:
                con.reads("interval", times)
            if start_s >= self._from_s:
                con.daily_freeze(start_s, columns=_REGISTERS)

    async def start(self) -> None:
        """Connect in the background, and tell everything."""
        self._recall()
        self._running = Running(self.con, BrokerAddress(self.host, self.port))
        await self._running.start(None)
        self._running.record(_LOOK_S)
        self._running.repeat(_REPEAT_S)

    async def stop(self) -> None:
        """Disconnect."""
        running, self._running = self._running, None
        if running is not None:
            await running.stop()

    def endpoint(self) -> str:
        """`mqtt://host:port`, of its broker."""
        return f"mqtt://{self.host}:{self.port}"
