"""Simulated concentrators on a real broker against the intake: everything told is stored, and then forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from headend.store import Store
from simulators.clock import SettableClock
from simulators.mqtt_bad import bad
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec, MessageFaults
from simulators.mqtt_meters import fleet
from simulators.mqtt_runner import BrokerAddress, run_concentrator
from tests import mqtt_kit
from tests.mqtt_servers import iotcore

NAMES = ("C0001", "C0002")
METERS = 4
NOW_S = mqtt_kit.BASE + 40_000
FAULTS = MessageFaults(lose=0.1, duplicate=0.1, swap=0.1, seed=3)


def concentrators() -> list[Concentrator]:
    """Two of them, with faults of different kinds."""
    return [
        Concentrator(
            ConcentratorSpec(name),
            fleet(METERS, seed=number, pattern=f"{number:04d}{{n:08d}}", installed_day=20_400),
            SettableClock(NOW_S),
            faults=FAULTS,
        )
        for number, name in enumerate(NAMES, 1)
    ]


def wanted(cons: Iterable[Concentrator]) -> dict[tuple[str, int], int]:
    """Ten-thousandths of a kWh by address and time."""
    return {
        (truth.address, truth.at_s): int(truth.value.scaleb(4))
        for con in cons
        for truth in con.truths()
        if truth.kind == "interval"
    }


def test_lost_doubled_and_reordered_messages_and_a_restart_leave_nothing_out(
    sqlite_store: Store, tmp_path: Path
) -> None:
    meters = mqtt_kit.add_meters(sqlite_store, NAMES, METERS)

    async def scene() -> list[Concentrator]:
        with iotcore(tmp_path / "broker") as broker:
            settings = mqtt_kit.broker_settings(broker.port)
            address = BrokerAddress(broker.host, broker.port)
            async with mqtt_kit.served(sqlite_store, meters, settings):
                cons = concentrators()
                running = [await run_concentrator(con, address) for con in cons]
                for con in cons:
                    con.backlog(mqtt_kit.BASE - 86_400, mqtt_kit.BASE, rows=2)
                    one = running[cons.index(con)]
                    await one.go_offline()
                    con.restart()
                    con.backlog(mqtt_kit.BASE, mqtt_kit.BASE + 9_000)
                    await one.go_online()
                    one.peer.publish(bad("cut short", con))
                    one.peer.publish(bad("unknown meter", con))
                    con.release()
                for one in running:
                    one.repeat(0.5)
                await mqtt_kit.until(lambda: not any(len(con.buffer) for con in cons))
                for one in running:
                    await one.stop()
                return cons

    cons = asyncio.run(scene())
    stored = {
        (meter.address, at_s): units
        for meter in meters
        for at_s, (units, _) in mqtt_kit.points(sqlite_store, meter).items()
    }
    truth = wanted(cons)
    assert len(truth) == len(NAMES) * METERS * (96 + 10)
    assert {key: stored.get(key) for key in truth} == truth
    assert sum(con.done["lost"] for con in cons) > 0
    assert sum(con.done["duplicated"] for con in cons) > 0
    assert sum(con.done["swapped"] for con in cons) > 0
