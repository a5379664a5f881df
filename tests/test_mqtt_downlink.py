"""Commands to concentrators: reads on demand, windows, clock, relay; correlation, expiry, parts, and who is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result

from config.imports import import_files
from config.site import load_site
from headend import collect
from headend.access import memory_access
from headend.app import Daemon
from headend.cli import cli
from headend.control import DISCONNECT, RECONNECT, SET_CLOCK, Order, Rules, obey, switch_state
from headend.conversation import MORE, Conversation, Send
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import BadFrame, NoAnswer, Refused, Unsupported, UsageError
from headend.line import Line
from headend.local_api import LocalApi
from headend.model import Cause, CurveSpec, Meter, Outcome, Quality, ReadJob, ReadKind, Source, Status, Window
from headend.mqtt.link import end_of
from headend.mqtt.service import Service
from headend.protocols import PROTOCOLS
from headend.protocols.hes_mqtt import Behind, check_address, discover, explain, read, switch
from headend.scheduler.board import Board
from headend.scheduler.settings import Schedule
from headend.store import Store, commands, open_store
from headend.store.curve_reads import curve
from simulators.bus import Bus
from simulators.clock import RunningClock
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec
from simulators.mqtt_dtu import Dtu
from simulators.mqtt_meters import fleet
from simulators.mqtt_runner import BrokerAddress, Running, run_concentrator, run_device
from tests.mqtt_kit import MODEL, add_meters, broker_settings, served, until
from tests.mqtt_servers import RunningBroker, iotcore, mosquitto, mosquitto_program

T = TypeVar("T")

NAME = "C0001"
CURVE = replace(MODEL, curve=CurveSpec("profile", 900, 60), daily_freeze_depth=60)
AT = datetime(2026, 3, 10, 4, 0, tzinfo=UTC)
METER = Meter(1, "M1", "000100000001", "hes-mqtt", NAME, CURVE, "+08:00", details=Behind(NAME, 10.0))
KWH = ["1-0:1.8.0", "kWh", -2]


# -- the driver alone --------------------------------------------------------------------------------------------------


def answered(
    conversation: Conversation[T], *answers: dict[str, Any] | bytes | type[NoAnswer], con: str = NAME
) -> tuple[dict[str, Any], T]:
    """Drive it with these answers, each with the command's cid unless it has one; the command, and what came of it."""
    sent = next(conversation)
    assert isinstance(sent, Send)
    command = json.loads(sent.data)
    try:
        for answer in answers:
            if isinstance(answer, type):
                request = conversation.throw(answer("no answer on the line"))
            elif isinstance(answer, bytes):
                request = conversation.send(answer)
            else:
                body = {"v": 1, "type": "rsp", "con": con, "mid": "x", "ts": command["ts"] + 1, "cid": command["cid"]}
                request = conversation.send(json.dumps(body | answer).encode())
            assert request is MORE, "a command is sent once"
    except StopIteration as stop:
        return command, stop.value
    raise AssertionError("it wants more answers")


def reading_job(*names: str, kind: ReadKind = ReadKind.REGISTERS, **more: Any) -> ReadJob:
    return ReadJob(METER, kind, names or ("import_kwh",), **more)


def row(*values: int | None, at: datetime = AT, bits: int = 0) -> list[Any]:
    return [int(at.timestamp()), list(values), bits]


def ok(data: Any, cols: Any = (KWH,), **more: Any) -> dict[str, Any]:
    return {"ok": True, "data": {METER.address: data}, "cols": list(cols), **more}


def test_a_register_is_asked_for_by_its_obis_code_and_decoded_by_its_scaler() -> None:
    command, harvest = answered(read(METER, reading_job(), now=AT), ok(row(1234570)))
    assert {key: command[key] for key in ("type", "con", "op", "m", "args")} == {
        "type": "cmd",
        "con": NAME,
        "op": "read",
        "m": [METER.address],
        "args": {"obis": ["1-0:1.8.0"]},
    }
    assert (command["ts"], command["exp"]) == (int(AT.timestamp()), int(AT.timestamp()) + 10)
    (value,) = harvest.readings
    assert (value.quantity, value.value, value.at, value.source) == (
        "import_kwh",
        Decimal("12345.70"),
        AT,
        Source.CURRENT,
    )


def test_a_command_is_not_to_be_done_after_the_deadline_of_its_job() -> None:
    job = reading_job(deadline=AT + timedelta(seconds=4))
    command, _ = answered(read(METER, job, now=AT), ok(row(1)))
    assert command["exp"] == int(AT.timestamp()) + 4
    with pytest.raises(UsageError, match="no time left"):
        next(read(METER, reading_job(deadline=AT), now=AT))


def test_two_commands_have_two_names() -> None:
    cids = {
        answered(read(METER, reading_job(), now=AT + timedelta(microseconds=n)), ok(row(1)))[0]["cid"]
        for n in range(50)
    }
    assert len(cids) == 50


def test_the_answer_to_another_command_or_of_another_concentrator_is_not_ours() -> None:
    strange = ok(row(99), cid="ffff")
    elsewhere = json.dumps(
        {"v": 1, "type": "rsp", "con": "C0002", "mid": "x", "ts": 1, **ok(row(99), cid="x")}
    ).encode()
    _, harvest = answered(read(METER, reading_job(), now=AT), strange, elsewhere, b"not JSON", ok(row(1234570)))
    assert [one.value for one in harvest.readings] == [Decimal("12345.70")]


def test_nothing_but_strange_answers_is_no_answer() -> None:
    with pytest.raises(NoAnswer):
        answered(read(METER, reading_job(), now=AT), ok(row(99), cid="ffff"), NoAnswer)


def test_the_concentrators_words_are_told() -> None:
    with pytest.raises(Refused, match="the concentrator says: meter not in my list"):
        answered(read(METER, reading_job(), now=AT), {"ok": False, "err": "meter not in my list"})
    with pytest.raises(NoAnswer, match="no answer from 000100000001"):
        answered(read(METER, reading_job(), now=AT), {"ok": False, "err": "no answer from 000100000001"})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(row(1), cols=()), "units and scalers"),
        (ok(row(1, 2)), "2 values under 1 columns"),
        (ok([int(AT.timestamp()), [1.5], 0]), "no whole number"),
        (ok([int(AT.timestamp())]), "is not \\[time, values, bits\\]"),
        (ok("closed"), "holds no rows"),
        ({"ok": True, "data": {"other": row(1)}, "cols": [KWH]}, "says nothing of the meter"),
        (ok(row(1, at=AT + timedelta(hours=1))), "dated in the future"),
        ({"ok": True, "data": {}, "cols": [["1-0:1.8.0", "kWh"]]}, "makes no sense"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_bad_frame(answer: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        answered(read(METER, reading_job(), now=AT), answer)


def test_what_is_missing_unknown_or_too_fine_is_a_fault_of_its_own() -> None:
    cols = (KWH, ["1-0:2.8.0", "parsec", 0], ["1-0:3.8.0", "kvarh", -9], ["1-0:32.7.0", "V", -1])
    names = ("import_kwh", "export_kwh", "import_kvarh", "voltage_v_a", "frequency_hz", "voltage_v_ab")
    _, harvest = answered(read(METER, reading_job(*names), now=AT), ok(row(None, 1, 1, 2312), cols))
    assert {one.quantity: one.cause for one in harvest.faults} == {
        "import_kwh": Cause.NULL_VALUE,
        "export_kwh": Cause.BAD_FRAME,
        "import_kvarh": Cause.BAD_FRAME,
        "frequency_hz": Cause.NO_ANSWER,
        "voltage_v_ab": Cause.UNSUPPORTED,
    }
    assert [(one.quantity, one.value, one.source) for one in harvest.readings] == [
        ("voltage_v_a", Decimal("231.2"), Source.INSTANT)
    ]


def test_parts_are_joined_whatever_their_order_and_a_part_that_comes_twice_counts_once() -> None:
    start = AT - timedelta(hours=1)
    job = reading_job(kind=ReadKind.CURVE, window=Window(start, AT))
    rows = [row(100 + n, at=start + n * timedelta(minutes=15)) for n in range(4)]
    parts = [ok(rows[:2], part=0, more=True), ok(rows[2:], part=1, more=False)]
    for order in ((0, 1), (1, 0), (0, 0, 1)):
        command, harvest = answered(read(METER, job, now=AT), *(parts[n] for n in order))
        assert [one.value for one in harvest.readings] == [Decimal(n).scaleb(-2) for n in range(100, 104)]
        assert not harvest.faults
    assert command["args"] == {
        "obis": ["1-0:1.8.0"],
        "kind": "interval",
        "period": 900,
        "from": int(start.timestamp()),
        "to": int(AT.timestamp()),
    }


def test_what_came_before_a_part_was_lost_is_kept_and_the_rest_is_still_to_come() -> None:
    start = AT - timedelta(hours=1)
    job = reading_job(kind=ReadKind.CURVE, window=Window(start, AT))
    first = ok([row(100, at=start), row(101, at=start + timedelta(minutes=15))], part=0, more=True)
    _, harvest = answered(read(METER, job, now=AT), first, NoAnswer)
    assert len(harvest.readings) == 2
    (fault,) = harvest.faults
    assert (fault.cause, fault.window) == (Cause.NO_ANSWER, Window(start + timedelta(minutes=30), AT))


def test_a_whole_answer_tells_what_the_concentrator_does_not_hold() -> None:
    start = AT - timedelta(hours=1)
    job = reading_job(kind=ReadKind.CURVE, window=Window(start, AT))
    middle = [row(101, at=start + timedelta(minutes=15)), row(None, at=start + timedelta(minutes=30), bits=4)]
    _, harvest = answered(read(METER, job, now=AT), ok(middle))
    step = timedelta(minutes=15)
    told = {(one.cause, one.window.start, one.window.end) for one in harvest.faults if one.window is not None}
    assert told == {
        (Cause.NOT_IN_MEMORY, start, start + step),
        (Cause.NULL_VALUE, start + 2 * step, start + 3 * step),
        (Cause.NOT_IN_MEMORY, start + 3 * step, AT),
    }
    with pytest.raises(BadFrame, match="off the grid"):
        answered(read(METER, job, now=AT), ok([row(1, at=start + timedelta(seconds=7))]))


def test_a_daily_freeze_read_just_after_midnight_is_that_midnights() -> None:
    midnight = datetime(2026, 3, 9, 16, tzinfo=UTC)
    job = reading_job(kind=ReadKind.DAILY_FREEZE, window=Window(midnight, midnight + timedelta(days=1)))
    _, harvest = answered(read(METER, job, now=AT), ok([row(500, at=midnight + timedelta(seconds=30), bits=1)]))
    (value,) = harvest.readings
    assert (value.at, value.source, value.quality) == (midnight, Source.DAILY_FREEZE, Quality.ESTIMATED)


def test_an_interval_is_kept_at_its_start_though_its_row_tells_its_end() -> None:
    start = AT - timedelta(minutes=30)
    job = reading_job("import_interval_kwh", kind=ReadKind.CURVE, window=Window(start, AT))
    rows = [row(n, at=start + n * timedelta(minutes=15)) for n in (1, 2)]
    command, harvest = answered(read(METER, job, now=AT), ok(rows, [["1-0:1.29.0", "Wh", 0]]))
    assert command["args"]["to"] == int(AT.timestamp()) + 900
    assert [(one.at, one.value) for one in harvest.readings] == [
        (start, Decimal("0.001")),
        (start + timedelta(minutes=15), Decimal("0.002")),
    ]
    assert not harvest.faults


def test_the_clock_is_the_meters_against_ours_not_the_concentrators() -> None:
    # The meter is 7 s ahead of a concentrator that is 60 s behind us: 53 s behind.
    theirs = int(AT.timestamp()) - 60
    access = replace(memory_access(), now=lambda: AT + timedelta(seconds=3))
    answer = {"ok": True, "data": {METER.address: [theirs, [theirs + 7], 0]}, "cols": [["0-0:1.0.0", "s", 0]]}
    job = reading_job("clock_offset_s", kind=ReadKind.CLOCK)
    _, harvest = answered(read(METER, job, now=AT, access=access), answer | {"ts": theirs + 3})
    assert [(one.quantity, one.value) for one in harvest.readings] == [("clock_offset_s", Decimal(-53))]


def test_addresses_and_what_a_concentrator_is_not_asked_for() -> None:
    assert check_address("Meter_1.a-b") == "Meter_1.a-b"
    for text in ("", "a b", "x" * 65, "a/b", "+"):
        with pytest.raises(UsageError):
            check_address(text)
    with pytest.raises(Unsupported):
        next(discover())
    with pytest.raises(Unsupported):
        next(read(METER, reading_job(kind=ReadKind.SAMPLE), now=AT))
    with pytest.raises(UsageError, match="needs the time"):
        next(switch(METER, "state", memory_access()))


def test_explain_tells_command_and_answer_in_words() -> None:
    command, _ = answered(read(METER, reading_job(), now=AT), ok(row(1234570)))
    answer = {"v": 1, "type": "rsp", "con": NAME, "mid": "x", "ts": 1, "cid": command["cid"], **ok(row(1234570))}
    said = explain(json.dumps(command).encode() + json.dumps(answer).encode())
    assert said.ok
    assert said.summary == (
        f"command read of {METER.address} to concentrator {NAME}, not after 2026-03-10 04:00:10 UTC; "
        f"concentrator {NAME} did it"
    )
    assert [(one.name, one.value, one.unit) for one in said.values] == [("import_kwh", "12345.7", "kWh")]
    assert not explain(b"\x68\x16\xff").ok
    assert not explain(b'{"v":1}').ok


# -- over brokers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mosquitto", "iotcore"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "iotcore":
        pytest.importorskip("iotcore")
        with iotcore(folder) as running:
            yield running
        return
    if mosquitto_program() is None:
        pytest.skip("no mosquitto")
    with mosquitto(folder) as running:
        yield running


class Rig:
    """A meter behind a simulated concentrator, and the line to it."""

    def __init__(self, service: Service, meters: list[Meter], con: Concentrator, running: Running, line: Line) -> None:
        self.service, self.meters, self.con, self.running, self.line = service, meters, con, running, line

    def truth(self, meter: Meter, at: datetime, obis: str = "1-0:1.8.0") -> Decimal:
        """What the meter's register showed, cut to the 0.01 it is sent with."""
        return Decimal(self.con.meters[meter.address].units(obis, int(at.timestamp())) // 100).scaleb(-2)

    async def ask(self, kind: ReadKind, *names: str, window: Window | None = None, meter: int = 0) -> Outcome:
        job = ReadJob(self.meters[meter], kind, names or ("import_kwh",), window)
        return await collect.run(self.line, job, clock=now)


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def rig(
    broker: RunningBroker, store: Store, *, reply_s: float = 5.0, start: bool = True, **spec: Any
) -> AsyncIterator[Rig]:
    meters = [
        replace(meter, model=CURVE, details=Behind(NAME, reply_s)) for meter in add_meters(store, (NAME,), count=3)
    ]
    con = Concentrator(ConcentratorSpec(NAME, **spec), fleet(3, pattern="0001{n:08d}"), time.time)
    running = Running(con, BrokerAddress("127.0.0.1", broker.port))
    settings = broker_settings(broker.port, client_id=f"headend-{time.monotonic_ns()}", session_expiry_s=1)
    async with served(store, meters, settings) as service:
        line_settings = LineSettings(NAME, parse_endpoint(f"mqtt://test/{NAME}"), reply_s=reply_s, connect_s=1.0)
        end = end_of(line_settings, service, clock=now)
        line = Line(line_settings, clock=now, opener=end.open)
        end.on_up = lambda: line.on_up()
        try:
            if start:
                await running.start()
                await until(lambda: NAME in service.concentrators)
            yield Rig(service, meters, con, running, line)
        finally:
            await line.close()
            await running.stop()


def with_rig(broker: RunningBroker, store: Store, test: Callable[[Rig], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with rig(broker, store, **settings) as made:
            await test(made)

    asyncio.run(main())


def test_a_read_on_demand_is_the_truth(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        outcome = await made.ask(ReadKind.REGISTERS, "import_kwh", "import_kwh_t1", "voltage_v_a")
        assert outcome.status is Status.OK, outcome.detail
        values = {one.quantity: one for one in outcome.readings}
        assert set(values) == {"import_kwh", "import_kwh_t1", "voltage_v_a"}
        at = values["import_kwh"].at
        assert values["import_kwh"].value == made.truth(made.meters[0], at)
        assert values["import_kwh_t1"].value == made.truth(made.meters[0], at, "1-0:1.8.1")
        assert [frame.direction for frame in outcome.frames] == [">", "<"]
        assert explain(outcome.frames[0].data + outcome.frames[1].data).ok
        assert made.service.status()["requests"] == []

    with_rig(broker, sqlite_store, test)


def test_a_window_is_filled_on_demand_in_parts(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        end = datetime.fromtimestamp(time.time() // 900 * 900, UTC)
        window = Window(end - timedelta(days=1), end)
        outcome = await made.ask(ReadKind.CURVE, window=window, meter=1)
        assert (outcome.status, len(outcome.readings)) == (Status.OK, 96), outcome.detail
        assert all(one.value == made.truth(made.meters[1], one.at) for one in outcome.readings)
        assert [one.at for one in outcome.readings] == [window.start + n * timedelta(minutes=15) for n in range(96)]

    with_rig(broker, sqlite_store, test, part_rows=10)


def test_the_clock_is_read_and_set(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        made.con.meters[made.meters[0].address].clock_offset_s = 250
        outcome = await made.ask(ReadKind.CLOCK, "clock_offset_s")
        (value,) = outcome.readings
        assert abs(value.value - 250) <= 2
        ended = await told(made, sqlite_store, SET_CLOCK, Rules(True, 0))
        assert ended["status"] == "done"
        assert abs(made.con.meters[made.meters[0].address].clock_offset_s) <= 1

    with_rig(broker, sqlite_store, test)


async def told(made: Rig, store: Store, action: str, rules: Rules) -> dict[str, Any]:
    order = Order(made.meters[0], action, "Wang", "moved out")
    return await obey(order, line=made.line, access=memory_access(), store=store, rules=rules, clock=now, settle_s=0.05)


def test_the_relay_moves_only_where_the_site_allows_it(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        meter = made.con.meters[made.meters[0].address]
        with pytest.raises(UsageError, match="this site tells no meter"):
            await told(made, sqlite_store, DISCONNECT, Rules())
        assert not made.con.commands
        ended = await told(made, sqlite_store, DISCONNECT, Rules(True, 1))
        assert (ended["status"], ended["result"], meter.relay_open) == ("done", "disconnected", True)
        with pytest.raises(UsageError, match="1 is the limit"):
            await told(made, sqlite_store, DISCONNECT, Rules(True, 1))
        state = await switch_state(made.line, made.meters[0], memory_access())
        assert (state["status"], state["connected"]) == ("done", False)
        ended = await told(made, sqlite_store, RECONNECT, Rules(True, 1))
        assert (ended["status"], ended["result"], meter.relay_open) == ("done", "connected", False)
        meter.relay_stuck = True
        ended = await told(made, sqlite_store, DISCONNECT, Rules(True, 9))
        assert (ended["status"], ended["result"]) == ("no effect", "connected")
        assert [one["args"] for one in made.con.commands if "args" in one] == [
            {"state": "open"},
            {"state": "closed"},
            {"state": "open"},
        ]

    with_rig(broker, sqlite_store, test)
    with sqlite_store.read() as conn:
        assert sorted(one.status for one in commands.commands(conn)) == ["done", "done", "no effect"]


def test_no_answer_to_an_order_is_unknown_and_it_is_not_sent_again(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        made.con.faults = replace(made.con.faults, unanswered=1.0)
        ended = await told(made, sqlite_store, DISCONNECT, Rules(True, 9))
        assert ended["status"] == "unknown"
        orders = [f for f in ended["frames"] if f["direction"] == ">" and b"open" in bytes.fromhex(f["hex"])]
        assert len(orders) == 1
        assert not made.con.meters[made.meters[0].address].relay_open

    with_rig(broker, sqlite_store, test, reply_s=1.0)


def test_a_command_that_comes_too_late_is_not_done(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        made.con.clock_error_s = 3600  # by its clock every command has expired
        outcome = await made.ask(ReadKind.REGISTERS)
        assert (outcome.status, outcome.detail) == (Status.REFUSED, "the concentrator says: expired")
        assert not made.con.commands

    with_rig(broker, sqlite_store, test)


def test_a_request_under_way_is_shown(broker: RunningBroker, sqlite_store: Store) -> None:
    async def test(made: Rig) -> None:
        made.con.faults = replace(made.con.faults, unanswered=1.0)
        asking = asyncio.create_task(made.ask(ReadKind.REGISTERS))
        await until(lambda: bool(made.service.status()["requests"]))
        (request,) = made.service.status()["requests"]
        assert (request["line"], request["what"], request["state"]) == (
            NAME,
            f"read of {made.meters[0].address}",
            "waiting",
        )
        assert (await asking).status is Status.NO_ANSWER
        await until(lambda: made.service.status()["requests"][0]["state"] == "late")

    with_rig(broker, sqlite_store, test, reply_s=1.0)


def test_nothing_is_sent_to_a_concentrator_that_is_away_and_it_is_asked_when_it_is_back(
    broker: RunningBroker, sqlite_store: Store
) -> None:
    async def test(made: Rig) -> None:
        up = asyncio.Event()
        made.line.on_up = up.set
        await made.running.go_offline()
        await until(lambda: made.service.concentrators[NAME].state is not None and not online(made))
        outcome = await made.ask(ReadKind.REGISTERS)
        assert outcome.status is Status.LINE_DOWN
        assert "C0001 is offline" in outcome.detail
        assert not outcome.frames
        ended = await told(made, sqlite_store, DISCONNECT, Rules(True, 9))
        assert ended["status"] == "not sent"
        await made.running.go_online()
        async with asyncio.timeout(10):
            await up.wait()
        await asyncio.sleep(1.0)  # an opening that failed is not tried again sooner
        assert (await made.ask(ReadKind.REGISTERS)).status is Status.OK
        assert not made.con.done["commands expired"]
        assert len(made.con.commands) == 1

    with_rig(broker, sqlite_store, test)


def online(made: Rig) -> bool:
    state = made.service.concentrators[NAME].state
    return state is not None and state.online


def test_a_concentrator_that_goes_while_it_is_asked_ends_the_conversation(
    broker: RunningBroker, sqlite_store: Store
) -> None:
    async def test(made: Rig) -> None:
        made.con.faults = replace(made.con.faults, unanswered=1.0)
        asking = asyncio.create_task(made.ask(ReadKind.REGISTERS))
        await until(lambda: made.con.done["commands unanswered"] == 1)
        await made.running.go_offline()
        outcome = await asking
        assert outcome.status is Status.LINE_DOWN
        assert "went offline" in outcome.detail

    with_rig(broker, sqlite_store, test, reply_s=30.0)


def test_meters_whose_reads_come_by_themselves_have_no_jobs_but_their_slots_are_expected() -> None:
    schedules = [
        Schedule("curves", ReadKind.CURVE, ("import_kwh",), 0, 2, 30, 3600, ("*",), ("*",)),
        Schedule("registers", ReadKind.REGISTERS, ("import_kwh",), 900, 1, 0, 900, ("*",), ("*",)),
    ]
    wired = replace(METER, key=2, protocol="dlt645-2007", line="wire", details=None)
    board = Board([METER, wired], schedules)
    opened = board.tick(AT)
    assert {one.track.meter.key for one in opened} == {1, 2}
    assert board.next("wire", AT) is not None
    assert board.next(NAME, AT) is None
    assert board.lacking(NAME) == 0
    asked = reading_job()
    board.ask(asked)
    assert board.next(NAME, AT) is asked


def test_only_meters_behind_concentrators_push() -> None:
    assert [name for name, driver in PROTOCOLS.items() if driver.pushed] == ["hes-mqtt"]


# -- the daemon and its command line -----------------------------------------------------------------------------------

SITE = """
[site]
name = "Town"

[control]
enabled = true
disconnects_per_day = 1

[[mqtt]]
name = "field"
host = "127.0.0.1"
port = {port}
client_id = "{client}"

[[line]]
name = "substation"
endpoint = "mqtt://field/C0001"
reply_s = 5.0

[[line]]
name = "yard"
endpoint = "mqtt://field"
up = "/iotinfo/1"
down = "/iotmonitor/1"

[[schedule]]
name = "curves"
read = "curve"
models = ["hes-mqtt-15"]
horizon_days = 1
"""


def test_the_command_line_reaches_meters_behind_a_broker(broker: RunningBroker, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(port=broker.port, client=f"headend-{time.monotonic_ns()}"))
    table = ["A,hes-mqtt,000100000001,substation,hes-mqtt-15", "B,dlt645-2007,000000000002,yard,dlt645-2007-1ph"]
    meters = tmp_path / "meters.csv"
    meters.write_text("\n".join(("meter_id,protocol,address,line,model", *table, "")))
    site = load_site(path)
    store = open_store(site.store_url)
    import_files(store, site, meters=meters, check_address=lambda name, text: PROTOCOLS[name].check_address(text))
    store.close()

    async def said(*words: str, given: str | None = None) -> Result:
        at = [words[0], "--site", str(path), *words[1:]]
        return await asyncio.to_thread(lambda: CliRunner().invoke(cli, at, input=given))

    async def main() -> None:
        refused = await said("read", "A")
        assert "start `headend run`" in str(refused.exception)
        con = Concentrator(ConcentratorSpec(NAME), fleet(1, pattern="0001{n:08d}"), time.time)
        address = BrokerAddress("127.0.0.1", broker.port)
        running = await run_concentrator(con, address)
        wired = Dlt645Meter(MeterSpec(f"{2:012d}"), Register(Household(Load(seed=2))), RunningClock(time.time()))
        dtu = Dtu("1", Bus([("B", wired)], RunningClock(time.time())), codec="hex")
        peer = await run_device(dtu, address, f"dtu-{time.monotonic_ns()}")
        daemon = Daemon(site)
        api = LocalApi(daemon)
        await daemon.start()
        await api.start()
        try:
            end = datetime.fromtimestamp(time.time() // 900 * 900, UTC)
            start = end - timedelta(hours=6)
            asked = await said("read", "A", "--curve", "--from", start.isoformat(), "--to", end.isoformat(), "--json")
            assert asked.exit_code == 0, asked.output
            rows = json.loads(asked.output)["readings"]
            truth = {start + n * timedelta(minutes=15): n for n in range(24)}
            assert {datetime.fromisoformat(one["at"]) for one in rows} == set(truth)
            for one in rows:
                units = con.meters["000100000001"].units(
                    "1-0:1.8.0", int(datetime.fromisoformat(one["at"]).timestamp())
                )
                assert Decimal(one["value"]) == Decimal(units // 100).scaleb(-2)
            assert (await said("read", "A", "--json")).exit_code == 0
            assert (await said("read", "B", "--json")).exit_code == 0
            ended = await said("relay", "A", "disconnect", "--reason", "moved out", given="A\n")
            assert ended.exit_code == 0, ended.output
            assert con.meters["000100000001"].relay_open
            listed = await said("commands")
            assert "disconnect" in listed.output
            assert "done" in listed.output
            # The curve, registers, the clock; the schedule asks for nothing.
            assert [one["op"] for one in con.commands] == ["read", "read", "read", "relay"]
        finally:
            await api.close()
            await daemon.stop()
            await running.stop()
            await peer.stop()
        with open_store(site.store_url).read() as conn:
            stored = curve(conn, 1, "import_kwh", Window(start, end))
        assert [one.units for one in stored] == [
            con.meters["000100000001"].units("1-0:1.8.0", int(at.timestamp())) // 100 * 100 for at in truth
        ]

    asyncio.run(main())
