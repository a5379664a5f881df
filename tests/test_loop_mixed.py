"""Meters of two protocols on one RS-485 pair: every line's bytes belong to whoever is spoken to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from headend import collect
from headend.endpoints import LineSettings, parse_endpoint
from headend.line import Line
from headend.model import Priority, ReadJob, ReadKind, Status
from simulators.town import load_town
from tests.helpers import make_meter

NOW_S = int(datetime(2026, 3, 10, 4, 7, tzinfo=UTC).timestamp())

_TOWN = """
[town]
name = "mixed"
installed = "2025-01-01"

[[line]]
name = "pair"
kind = "tcp"

[[group]]
line = "pair"
count = 4
meter_id = "N{n}"
address = "24991100000{n}"
tariff = "t"

[[group]]
line = "pair"
count = 4
meter_id = "O{n}"
address = "24991200000{n}"
form = "1997"
tariff = "t"

[[tariff]]
id = "t"
kind = "year-step"
limits_kwh = [2760, 4800]
prices = ["0.5", "0.6", "0.9"]
"""


def test_both_versions_are_read_in_turn_on_one_pair(tmp_path: Path) -> None:
    (tmp_path / "town.toml").write_text(_TOWN)
    town = load_town(tmp_path / "town.toml", now=lambda: NOW_S)
    now = datetime.fromtimestamp(NOW_S, UTC)

    async def main() -> None:
        await town.start()
        line = Line(LineSettings("pair", parse_endpoint(town.endpoints()[0]["endpoint"]), reply_s=0.5))
        try:
            for turn in range(40):
                meter_id = f"{'NO'[turn % 2]}{turn // 2 % 4 + 1}"
                protocol = "dlt645-2007" if meter_id[0] == "N" else "dlt645-1997"
                plan = town.plans[meter_id]
                meter = make_meter(id=meter_id, address=plan.spec.address, protocol=protocol, line="pair")
                meter = replace(meter, model=replace(meter.model, protocol=protocol))
                job = ReadJob(meter, ReadKind.REGISTERS, ("import_kwh", "voltage_v_a"), None, Priority.SCHEDULED)
                outcome = await collect.run(line, job, clock=lambda: now)
                assert outcome.status is Status.OK, (meter_id, outcome.detail)
                energy = next(r.value for r in outcome.readings if r.quantity == "import_kwh")
                assert energy == Decimal(town.true_register(meter_id, now)).scaleb(-2)
        finally:
            await line.close()
            await town.stop()
            await asyncio.sleep(0.01)

    asyncio.run(main())
