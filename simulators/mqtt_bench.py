"""Publishes prebuilt messages as fast as a broker takes them, for benchmarks.

    payloads = build(BenchLoad(meters=180, messages=1_000))        # once; not part of any measurement
    sent = publish(BrokerAddress("127.0.0.1", 1883), payloads)

One thread, one connection; blocks until the broker has acknowledged everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from simulators.mqtt_concentrator import Out
from simulators.mqtt_meters import ENERGY, ColumnSpec
from simulators.mqtt_runner import BrokerAddress, make_client

__all__ = ["BenchLoad", "Sent", "build", "publish"]

_QUARTER_S = 900


@dataclass(frozen=True, slots=True)
class BenchLoad:
    """What to build. meters a message; intervals: rows of each meter in a message (1, or 96 for whole days).
    concentrators: messages go round them. start_s: epoch seconds of the first boundary, on the grid.

    Values are not households': each meter's register rises by a few hundredths of a kWh an interval, so that building
    is quick; `value` tells them."""

    messages: int = 1_000
    meters: int = 180
    intervals: int = 1
    concentrators: int = 1
    start_s: int = 1_764_000_000 // 86_400 * 86_400
    columns: tuple[ColumnSpec, ...] = ENERGY[:1]
    prefix: str = "C"
    boot: int = 1

    def name(self, concentrator: int) -> str:
        """The id of a concentrator, counted from 0."""
        return f"{self.prefix}{concentrator:04d}"

    def address(self, concentrator: int, meter: int) -> str:
        """The address of a meter of a concentrator, both counted from 0."""
        return f"{concentrator + 1:04d}{meter + 1:08d}"

    def value(self, meter: int, at_s: int) -> int:
        """What every column of a meter says at `at_s`, before its scaler: the same of every concentrator."""
        return 100_000 + 1_000 * meter + (at_s - self.start_s) // _QUARTER_S * (3 + meter % 5)

    @property
    def readings(self) -> int:
        """Values in all messages together."""
        return self.messages * self.meters * self.intervals * len(self.columns)


@dataclass(frozen=True, slots=True)
class Sent:
    """How it went: messages and bytes published, seconds until the last was acknowledged."""

    messages: int
    size: int
    seconds: float


def build(load: BenchLoad) -> list[Out]:
    """The messages, in order."""
    cols = ",".join(f'["{column.obis}","{column.unit}",{column.scaler}]' for column in load.columns)
    heads = [
        [f'{{"m":"{load.address(con, meter)}","r":[' for meter in range(load.meters)]
        for con in range(load.concentrators)
    ]
    found = []
    for number in range(load.messages):
        turn, con = divmod(number, load.concentrators)
        first_s = load.start_s + turn * load.intervals * _QUARTER_S
        times = range(first_s, first_s + load.intervals * _QUARTER_S, _QUARTER_S)
        meters = ",".join(head + _rows(load, meter, times) + "]}" for meter, head in enumerate(heads[con]))
        name, seq = load.name(con), turn + 1
        text = (
            f'{{"v":1,"type":"reads","con":"{name}","mid":"{name}-{load.boot}-{seq}","boot":{load.boot},"seq":{seq},'
            f'"ts":{times[-1] + 30},"kind":"interval","period":{_QUARTER_S},"cols":[{cols}],"meters":[{meters}]}}'
        )
        found.append(Out(f"hes/v1/{name}/up/reads", text.encode()))
    return found


def _rows(load: BenchLoad, meter: int, times: range) -> str:
    count = len(load.columns)
    if count == 1:
        return ",".join(f"[{at_s},[{load.value(meter, at_s)}],0]" for at_s in times)
    return ",".join(f"[{at_s},[{','.join([str(load.value(meter, at_s))] * count)}],0]" for at_s in times)


def publish(
    broker: BrokerAddress,
    messages: Sequence[Out],
    *,
    client_id: str = "bench",
    window: int = 1_000,
    timeout_s: float = 600,
) -> Sent:
    """Publish them all with QoS 1. window: how many may be unacknowledged. TimeoutError when it takes longer."""
    client = make_client(broker, client_id)
    client.max_inflight_messages_set(window)
    room = threading.Semaphore(window * 2)  # what paho may hold; beyond it memory would fill
    over = threading.Event()
    ready = threading.Event()
    count = [0]

    def landed(*_: object) -> None:
        count[0] += 1
        room.release()
        if count[0] == len(messages):
            over.set()

    client.on_publish = landed
    client.on_connect = lambda *_: ready.set()
    client.connect(broker.host, broker.port, 60)
    client.loop_start()
    try:
        if not ready.wait(15):
            raise TimeoutError("the broker let nobody in")
        start = time.perf_counter()
        for out in messages:
            if not room.acquire(timeout=timeout_s):
                raise TimeoutError("the broker acknowledges no more")
            client.publish(out.topic, out.payload, 1, out.retain)
        if messages and not over.wait(timeout_s):
            raise TimeoutError(f"{len(messages) - count[0]} messages were not acknowledged")
        return Sent(len(messages), sum(len(out.payload) for out in messages), time.perf_counter() - start)
    finally:
        client.disconnect()
        client.loop_stop()
