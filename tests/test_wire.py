"""Wire arithmetic against an independent table, against the driver's own frames, and against a line at real speed.

vectors/wire_limits.csv: frame lengths by clauses 5 and 7 of DL/T 645-2007 with 11 bits a character, worked out apart
from this program for six speeds.
"""

from __future__ import annotations

import asyncio
import csv
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headend import collect
from headend.endpoints import Endpoint, LineSettings
from headend.forecast import LineForecast, Traffic, forecast, rehearse
from headend.line import Line
from headend.model import CurveSpec, Meter, ReadJob, ReadKind, Status, Window
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645 import ideal, read_item
from headend.scheduler.settings import Schedule
from headend.wire import bits_per_char, chars_s, exchange_s
from simulators.bus import Bus, Wire
from simulators.clock import SettableClock
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.tcp import TcpLine
from tests.helpers import MODEL, make_meter

NOW = datetime(2026, 3, 18, 3, 0, 20, tzinfo=UTC)
TABLE = Path(__file__).parent / "vectors" / "wire_limits.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
SPEEDS = (1200, 2400, 4800, 9600, 19200, 115_200)
RECORD = replace(MODEL, name="record", curve=CurveSpec("record", 900, 62))
CURVES = Schedule("curves", ReadKind.CURVE, ("import_kwh",), settle_s=30)
FREEZES = Schedule("freezes", ReadKind.DAILY_FREEZE, ("import_kwh",), settle_s=60)
NAMES = ("import_kwh", "import_kwh_t1", "voltage_v_a", "demand_kw", "clock_offset_s")
REGISTERS = Schedule("registers", ReadKind.REGISTERS, NAMES, every_s=900)
CLOCKS = Schedule("clocks", ReadKind.CLOCK, ("clock_offset_s",), every_s=86_400)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['item']}-{row['case']}")
def test_exchanges_take_as_long_as_the_table_says(row: dict[str, str]) -> None:
    delay_s = int(row["case"].split("Td=")[1].removesuffix("ms")) / 1000
    for baud in SPEEDS:
        seconds = exchange_s(int(row["req_bytes"]), int(row["rep_bytes"]), baud, delay_s)
        assert round(seconds * 1000, 1) == pytest.approx(float(row[f"ms_{baud}"]), abs=0.051), baud


def test_characters_have_as_many_bits_as_their_format_says() -> None:
    assert bits_per_char(8, "E", 1) == 11
    assert bits_per_char(8, "N", 1) == 10
    assert bits_per_char(7, "O", 2) == 11
    assert chars_s(240, 2400) == pytest.approx(1.1)
    assert exchange_s(20, 24, 2400, 0.02, turnaround_s=0.05) == pytest.approx(44 * 11 / 2400 + 0.07)


ITEMS = {
    "total energy 00010000": "00010000",
    "phase voltage 02010100": "02010100",
    "voltage block 0201FF00 (3ph)": "0201FF00",
    "current block 0202FF00": "0202FF00",
    "TOU block 0001FF00, 4 rates": "0001FF00",
    "demand block 0101FF00, 4 rates": "0101FF00",
    "daily freeze 05060101, 4 rates": "05060101",
    "clock 0400010C": "0400010C",
}


@pytest.mark.parametrize("item", ITEMS)
def test_the_rehearsal_asks_and_hears_frames_of_the_table_s_length(item: str) -> None:
    row = next(row for row in ROWS if row["item"] == item and row["case"].startswith("4 FE"))
    meter = make_meter()
    traffic = rehearse(read_item(meter.address, ITEMS[item]), partial(ideal.answer, meter, now=NOW))
    assert traffic == Traffic(1, int(row["req_bytes"]), int(row["rep_bytes"]))


def on_line(*meters: Meter) -> list[Meter]:
    return [replace(meter, line="w") for meter in meters]


def settings(**over: Any) -> LineSettings:
    return LineSettings("w", Endpoint("tcp", host="h", port=1), **{"wire_baud": 2400, **over})


def one(meters: list[Meter], *schedules: Schedule, delay_s: float = 0.1, **over: Any) -> LineForecast:
    (found,) = forecast([settings(**over)], meters, schedules, NOW, delay_s=delay_s)
    return found


def test_a_round_of_a_curve_is_one_exchange_a_meter() -> None:
    # 0610: request 16 + 1 + 5 + 4 FE, answer 12 + 4 + 5 + 4 + 4 FE (clause 5, supplement).
    line = one(on_line(make_meter(1), make_meter(2)), CURVES)
    (a_round,) = line.rounds
    assert (a_round.meters, a_round.exchanges, a_round.bytes, a_round.period_s) == (2, 2, 2 * (26 + 29), 900)
    each_s = exchange_s(26, 29, 2400, 0.1)
    assert a_round.round_s == pytest.approx(2 * each_s)
    assert a_round.share == pytest.approx(2 * each_s / 900)
    assert a_round.ends_s == pytest.approx(30 + 2 * each_s)
    # 62 days of 96 points each: three answers a day, of 47, 47 and 2 points, at 100 ms each.
    assert line.backfill_exchanges == pytest.approx(2 * 62 * 3, abs=8)
    assert line.fits is True


def test_turnaround_and_a_slower_meter_cost_what_they_do() -> None:
    quick = one(on_line(make_meter(1)), CURVES).rounds[0].round_s
    assert quick is not None
    assert one(on_line(make_meter(1)), CURVES, turnaround_s=0.05).rounds[0].round_s == pytest.approx(quick + 0.05)
    port = LineSettings("w", Endpoint("serial", device="/dev/x", baud=9600))
    slow = on_line(make_meter(1, serial="1200 8N1"), make_meter(2))
    (line,) = forecast([port], slow, [CURVES], NOW, delay_s=0.1)
    assert line.rounds[0].round_s == pytest.approx(55 * 10 / 1200 + 55 * 11 / 9600 + 0.2)
    assert line.speed == "9600 8E1"


def test_an_unknown_speed_is_said_and_nothing_is_made_up() -> None:
    line = one(on_line(make_meter(1)), CURVES, FREEZES, wire_baud=0)
    assert (line.speed, line.share, line.backfill_s, line.fits) == ("", None, None, None)
    assert [a_round.round_s for a_round in line.rounds] == [None, None]
    assert line.rounds[0].exchanges == 1


def test_a_line_that_can_not_do_it_does_not_fit() -> None:
    often = replace(REGISTERS, every_s=60)
    line = one(on_line(*(make_meter(n) for n in range(1, 101))), often)
    assert line.fits is False
    assert line.share is not None
    assert line.share > 1
    assert line.backfill_takes_s is None
    assert "of the line's time" in line.why_not[0]


def test_a_round_that_ends_too_late_does_not_fit() -> None:
    hasty = replace(CURVES, deadline_s=60)
    line = one(on_line(*(make_meter(n) for n in range(1, 201))), hasty)
    assert line.fits is False
    assert line.why_not[0].startswith("a round of curves may end ")
    assert line.why_not[0].endswith(" s after its boundary, 60 s are allowed")


def test_what_can_not_be_rehearsed_is_told() -> None:
    odd = replace(MODEL, curve=CurveSpec("9999", 900, 62))
    line = one(on_line(make_meter(1, model=odd)), CURVES)
    assert line.fits is False
    assert "can't be predicted" in line.why_not[0]


def test_lines_without_meters_are_left_out_and_many_meters_take_no_time() -> None:
    empty = LineSettings("empty", Endpoint("tcp", host="h", port=2))
    meters = on_line(*(make_meter(n) for n in range(1, 20_001)))
    started = time.perf_counter()
    found = forecast([empty, settings()], meters, [CURVES, FREEZES, REGISTERS], NOW, delay_s=0.1)
    assert time.perf_counter() - started < 10
    assert [line.line for line in found] == ["w"]
    assert found[0].meters == 20_000


# -- against a line at real speed --------------------------------------------------------------------------------------

BAUD, DELAY_S = 9600, 0.03
_JOBS = {
    "curve, 96 points": (MODEL, ReadKind.CURVE, ("import_kwh",), timedelta(days=1)),
    "load record, 12 points": (RECORD, ReadKind.CURVE, ("import_kwh",), timedelta(hours=3)),
    "freeze, 5 days": (MODEL, ReadKind.DAILY_FREEZE, ("import_kwh",), timedelta(days=5)),
    "registers": (MODEL, ReadKind.REGISTERS, ("import_kwh", "import_kwh_t1", "voltage_v_a", "clock_offset_s"), None),
}


def simulated(meters: list[Meter]) -> Bus:
    clock = SettableClock(NOW.timestamp())
    members = []
    for meter in meters:
        form = meter.model.curve.form if meter.model.curve else "0610"
        register = Register(Household(Load(seed=meter.key)))
        members.append((meter.id, Dlt645Meter(MeterSpec(meter.address, form=form), register, clock)))
    return Bus(members, clock, wire=Wire(baud=BAUD, answer_delay_s=DELAY_S))


async def measured_s(meters: list[Meter], jobs: list[ReadJob]) -> float:
    """How long the jobs take over a socket to meters at the wire's speed."""
    server = TcpLine(simulated(meters), "127.0.0.1", 0)
    await server.start()
    line = Line(LineSettings("w", Endpoint("tcp", host="127.0.0.1", port=server.port), wire_baud=BAUD))
    try:
        await collect.run(line, jobs[0], clock=lambda: NOW)  # opens the connection
        started = time.perf_counter()
        for job in jobs:
            outcome = await collect.run(line, job, clock=lambda: NOW)
            assert outcome.status is Status.OK, outcome.detail
        seconds = time.perf_counter() - started
        # Of the time in use, what the bits took is known too.
        assert line.stats.wire_s == pytest.approx(line.stats.busy_s - line.stats.sends * DELAY_S, rel=0.1)
        return seconds
    finally:
        await line.close()
        await server.stop()


@pytest.mark.parametrize("name", _JOBS)
def test_a_job_takes_as_long_as_predicted(name: str) -> None:
    model, kind, quantities, span = _JOBS[name]
    end = datetime(2026, 3, 17, 16, 0, tzinfo=UTC)  # midnight in the meters' zone
    window = None if span is None else Window(end - span, end)
    meters = [make_meter(n, model=model) for n in (1, 2)]
    jobs = [ReadJob(meter, kind, quantities, window) for meter in meters]
    traffic = sum(
        (
            rehearse(PROTOCOLS[j.meter.protocol].read(j.meter, j, now=NOW), partial(ideal.answer, j.meter, now=NOW))
            for j in jobs
        ),
        Traffic(),
    )
    predicted_s = exchange_s(traffic.request_bytes, traffic.reply_bytes, BAUD, traffic.exchanges * DELAY_S)
    assert asyncio.run(measured_s(meters, jobs)) == pytest.approx(predicted_s, rel=0.05)


def test_a_round_takes_as_long_as_predicted() -> None:
    meters = [make_meter(n, model=model, line="w") for n, model in ((1, MODEL), (2, RECORD), (3, MODEL))]
    line = one(meters, CURVES, CLOCKS, delay_s=DELAY_S, wire_baud=BAUD)
    predicted_s = sum(a_round.round_s or 0.0 for a_round in line.rounds)
    end = NOW.replace(minute=0, second=0)
    window = Window(end, end + timedelta(minutes=15))
    jobs = [ReadJob(meter, ReadKind.CURVE, ("import_kwh",), window) for meter in meters]
    jobs += [ReadJob(meter, ReadKind.CLOCK, ("clock_offset_s",)) for meter in meters]
    assert asyncio.run(measured_s(meters, jobs)) == pytest.approx(predicted_s, rel=0.05)
