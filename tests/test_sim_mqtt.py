"""The simulated concentrators and gateways: what they say is true, what is not acknowledged is kept."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlt645_meter import Dlt645Meter
from simulators.dlt645_spec import MeterSpec
from simulators.household import Household, Load, Register
from simulators.mqtt_acrel import AcrelDomestic, AcrelOverseas
from simulators.mqtt_bad import BAD, bad
from simulators.mqtt_bench import BenchLoad, build, publish
from simulators.mqtt_buffer import Buffer, Kept
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec, MessageFaults, Out
from simulators.mqtt_dtu import CODECS, Dtu, pack, unpack
from simulators.mqtt_firmware import FIRMWARES, messages, truths
from simulators.mqtt_meters import COLUMNS, ENERGY, ColumnSpec, fleet
from simulators.mqtt_runner import BrokerAddress, Peer, run_concentrator, run_device
from simulators.mqtt_town import ConcentratorLine
from tests.mqtt_servers import RunningBroker, iotcore

NOW_S = 1_764_000_030
QUARTER_S = 1_764_000_000
DAY = 20_400  # installed then: few days to add up
SCHEMA_TYPES = {"v", "type", "con", "mid", "ts"}


def concentrator(meters: int = 3, **more: Any) -> tuple[Concentrator, list[Out], SettableClock]:
    clock = SettableClock(NOW_S)
    said: list[Out] = []
    spec = more.pop("spec", ConcentratorSpec("C0001"))
    con = Concentrator(spec, fleet(meters, installed_day=DAY), clock, emit=said.append, **more)
    con.connected()
    said.clear()
    return con, said, clock


def body(out: Out | Kept) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.payload)
    return found


def order(con: Concentrator, op: str, *, cid: str = "1", exp: int = NOW_S + 60, m: Any = (), **args: Any) -> None:
    message = {"v": 1, "type": "cmd", "con": "C0001", "mid": "h", "ts": 0, "op": op, "cid": cid, "exp": exp}
    con.hear("hes/v1/C0001/down/cmd", json.dumps(message | {"m": list(m), "args": args}).encode())


def ack(con: Concentrator, boot: int, upto: int, missing: Any = ()) -> None:
    message = {"v": 1, "type": "ack", "con": "C0001", "mid": "h", "ts": 0, "boot": boot, "upto": upto}
    con.hear("hes/v1/C0001/down/ack", json.dumps(message | {"missing": list(missing)}).encode())


# -- what it says ------------------------------------------------------------------------------------------------------


def test_an_interval_message_is_as_the_schema_says_and_holds_what_the_registers_truly_show() -> None:
    con, said, _ = concentrator(spec=ConcentratorSpec("C0001", columns=ENERGY))
    con.interval()
    assert said[0].topic == "hes/v1/C0001/up/reads"
    message = body(said[0])
    assert set(message) >= SCHEMA_TYPES
    assert (message["v"], message["kind"], message["period"], message["boot"], message["seq"]) == (
        1,
        "interval",
        900,
        1,
        1,
    )
    assert message["cols"][0] == ["1-0:1.8.0", "kWh", -2]
    for entry, meter in zip(message["meters"], con.meters.values(), strict=True):
        (at_s, values, bits) = entry["r"][0]
        assert (entry["m"], at_s, bits) == (meter.address, QUARTER_S, 0)
        assert values == [meter.register.shown(QUARTER_S), *meter.register.shown_rates(QUARTER_S), 0]


def test_truths_are_the_values_of_all_messages() -> None:
    con, said, _ = concentrator(spec=ConcentratorSpec("C0001", columns=ENERGY[:2]))
    con.whole_day(QUARTER_S - 86_400)
    con.daily_freeze(QUARTER_S - 3_600)
    sent = {
        (entry["m"], obis, at_s, message["kind"]): Decimal(value).scaleb(scaler)
        for message in map(body, said)
        for entry in message["meters"]
        for at_s, values, _ in entry["r"]
        for (obis, _, scaler), value in zip(message["cols"], values, strict=True)
    }
    assert len(sent) == 3 * 2 * (96 + 1)
    assert {(t.address, t.obis, t.at_s, t.kind): t.value for t in con.truths()} == sent


@pytest.mark.parametrize(
    ("unit", "scaler", "integer"), [("kWh", -4, 1_234_567), ("kWh", -2, 12_345), ("Wh", 0, 123_456), ("MWh", -3, 123)]
)
def test_a_column_says_the_same_energy_in_any_unit(unit: str, scaler: int, integer: int) -> None:
    column = ColumnSpec("1-0:1.8.0", unit, scaler)
    assert column.integer(1_234_567) == integer
    assert 0 <= Decimal("123.4567") - column.value(integer) < Decimal(1).scaleb(2)


def test_a_wrong_clock_dates_true_values_wrongly() -> None:
    con, said, _ = concentrator(1, spec=ConcentratorSpec("C0001", clock_error_s=7_200))
    con.interval()
    meter = con.meters["000000000001"]
    assert body(said[0])["meters"][0]["r"][0][:2] == [QUARTER_S + 7_200, [meter.register.shown(QUARTER_S)]]
    (truth,) = con.truths()
    assert (truth.at_s, truth.true_at_s) == (QUARTER_S + 7_200, QUARTER_S)


def test_a_silent_meter_is_told_as_missing_and_has_no_truth() -> None:
    con, said, _ = concentrator(2)
    con.meters["000000000002"].silent = True
    con.interval()
    assert body(said[0])["meters"][1]["r"] == [[QUARTER_S, [None], 4]]
    assert {truth.address for truth in con.truths()} == {"000000000001"}


def test_states_and_events() -> None:
    con, said, _ = concentrator()
    con.event("000000000001", "cover_open", "start", NOW_S - 5, phase_name="A")
    event = body(said[0])
    assert event["events"] == [
        {"m": "000000000001", "t": NOW_S - 5, "code": "cover_open", "phase": "start", "data": {"phase_name": "A"}}
    ]
    assert event["seq"] == 1
    state, will = con.state(), con.will()
    assert state.retain
    assert will.retain
    assert state.topic == will.topic == "hes/v1/C0001/up/state"
    assert (body(state)["online"], body(state)["backlog"], body(will)["online"]) == (True, 1, False)


# -- what it keeps -----------------------------------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_sent_again_after_it_was_offline() -> None:
    con, said, _ = concentrator()
    con.disconnected()
    con.backlog(QUARTER_S - 9_000, QUARTER_S, rows=2)
    assert said == []
    con.connected()
    assert [body(out).get("seq") for out in said] == [None, 1, 2, 3, 4, 5]
    said.clear()
    ack(con, 1, 4, missing=[2])
    assert [body(out)["seq"] for out in said] == [2]
    said.clear()
    con.connected()
    assert [body(out).get("seq") for out in said] == [None, 2, 5]


def test_an_acknowledgement_of_another_boot_or_for_another_concentrator_forgets_nothing() -> None:
    con, _, _ = concentrator()
    con.interval()
    ack(con, 2, 99)
    con.hear("hes/v1/C0001/down/ack", b'{"v":1,"con":"C0002","boot":1,"upto":9}')
    con.hear("hes/v1/C0001/down/ack", b"nonsense")
    assert len(con.buffer) == 1
    assert con.done["not understood"] == 2


def test_a_restart_begins_another_numbering_and_keeps_the_old_messages() -> None:
    con, said, _ = concentrator()
    con.interval()
    con.restart()
    con.interval()
    con.connected()
    assert [(body(out)["boot"], body(out)["seq"]) for out in said if "seq" in body(out)] == [(1, 1), (2, 1)] * 2
    con.restart(forget=True)
    assert con.buffer.pending() == []


def test_the_buffer_on_disk_outlives_its_process_and_a_torn_last_line(tmp_path: Path) -> None:
    con, _, _ = concentrator(folder=tmp_path)
    for _ in range(4):
        con.interval()
    ack(con, 1, 3, missing=[2])
    con.buffer.close()
    with (tmp_path / "buffer.jsonl").open("a") as file:
        file.write('{"boot":1,"se')
    again, said, _ = concentrator(folder=tmp_path)
    assert again.boot == 2
    assert [(kept.boot, kept.seq) for kept in again.buffer.pending()] == [(1, 2), (1, 4)]
    again.connected()
    assert [body(out)["seq"] for out in said[1:]] == [2, 4]
    again.buffer.close()


def test_a_full_buffer_loses_the_oldest_and_counts_it() -> None:
    buffer = Buffer(limit=2)
    for seq in range(5):
        buffer.add(Kept(1, seq, "t", b""))
    assert [kept.seq for kept in buffer.pending()] == [3, 4]
    assert buffer.dropped == 3


def test_faults_lose_forget_double_and_reorder_as_seeded() -> None:
    def sequence(**faults: float) -> tuple[list[int], int]:
        con, said, _ = concentrator(1, faults=MessageFaults(seed=7, **faults))
        for _ in range(200):
            con.interval()
        con.release()
        return [body(out)["seq"] for out in said], len(con.buffer)

    lost, kept = sequence(lose=0.2)
    assert 20 < 200 - len(lost) < 70
    assert kept == 200
    forgotten, kept = sequence(forget=0.2)
    assert len(forgotten) == kept < 180
    doubled, _ = sequence(duplicate=0.2)
    assert 220 < len(doubled) < 270
    assert set(doubled) == set(range(1, 201))
    swapped, _ = sequence(swap=0.2)
    assert sorted(swapped) == list(range(1, 201)) != swapped
    assert sequence(swap=0.2)[0] == swapped


# -- what it does when told --------------------------------------------------------------------------------------------


def test_read_answers_with_values_of_this_moment_in_parts() -> None:
    con, said, _ = concentrator(3, spec=ConcentratorSpec("C0001", part_meters=2))
    order(con, "read", obis=["1-0:1.8.0", "1-0:32.7.0"])
    one, two = map(body, said)
    assert (one["part"], one["more"], two["part"], two["more"]) == (0, True, 1, False)
    assert one["cols"] == [["1-0:1.8.0", "kWh", -2], ["1-0:32.7.0", "V", -1]]
    meter = con.meters["000000000001"]
    assert one["data"]["000000000001"] == [
        NOW_S,
        [meter.register.shown(NOW_S), meter.units("1-0:32.7.0", NOW_S) // 1000],
        0,
    ]
    assert set(two["data"]) == {"000000000003"}


def test_a_command_heard_twice_is_done_once_and_one_too_late_is_not_done() -> None:
    con, said, _ = concentrator()
    order(con, "relay", cid="a", m=["000000000001"], state="open")
    con.meters["000000000001"].relay_open = False
    order(con, "relay", cid="a", m=["000000000001"], state="open")
    assert not con.meters["000000000001"].relay_open
    order(con, "relay", cid="b", exp=NOW_S - 1, m=["000000000001"], state="open")
    assert not con.meters["000000000001"].relay_open
    answers = [(body(out)["cid"], body(out)["ok"], body(out).get("err")) for out in said]
    assert answers == [("a", True, None), ("a", True, None), ("b", False, "expired")]
    assert len(con.commands) == 1


@pytest.mark.parametrize(
    ("op", "m", "args", "err"),
    [
        ("read", ["nobody"], {}, "unknown: nobody"),
        ("read", [], {"obis": ["9.9.9"]}, "unknown: 9.9.9"),
        ("fly", [], {}, "unknown: fly"),
        ("relay", [], {"state": "open"}, "bad arguments: name the meters"),
        ("config", [], {"period": 7}, "bad arguments: a period of 7 s divides no day"),
        ("raw", [], {"port": "rs485-9", "proto": "dlt645", "hex": "FE"}, "unknown: rs485-9"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(op: str, m: list[str], args: dict[str, Any], err: str) -> None:
    con, said, _ = concentrator()
    order(con, op, m=m, **args)
    assert (body(said[0])["ok"], body(said[0])["err"]) == (False, err)


def test_a_stuck_relay_says_where_it_is() -> None:
    con, said, _ = concentrator()
    con.meters["000000000001"].relay_stuck = True
    order(con, "relay", m=["000000000001", "000000000002"], state="open")
    assert body(said[0])["data"] == {"000000000001": "closed", "000000000002": "open"}


def test_resend_by_number_and_by_time() -> None:
    con, said, _ = concentrator()
    for _ in range(3):
        con.interval()
    ack(con, 1, 1)
    said.clear()
    order(con, "resend", cid="a", boot=1, seq=[1, 2])
    assert [body(out).get("seq") for out in said] == [2, None]
    assert body(said[-1])["data"] == {"sent": 1, "gone": [1]}
    said.clear()
    order(con, "resend", cid="b", since=QUARTER_S - 1_800, until=QUARTER_S)
    assert [row[0] for row in body(said[0])["meters"][0]["r"]] == [QUARTER_S - 1_800, QUARTER_S - 900]


def test_set_clock_sets_its_own_or_that_of_meters() -> None:
    con, said, _ = concentrator(spec=ConcentratorSpec("C0001", clock_error_s=500))
    con.meters["000000000001"].clock_offset_s = 33
    order(con, "set_clock", cid="a", exp=NOW_S + 1_000, time=NOW_S)
    assert con.believed_s() == NOW_S
    order(con, "set_clock", cid="b", m=["000000000001"])
    assert con.meters["000000000001"].clock_offset_s == 0
    assert all(body(out)["ok"] for out in said)


def dlt645_line(clock: Callable[[], float]) -> Bus:
    meter = Dlt645Meter(MeterSpec("000012345678"), Register(Household(Load(5, installed_day=DAY))), clock)
    return Bus([("M", meter)], clock)


ASK = bytes.fromhex("FEFEFEFE6878563412000068110433333433C616")  # 00010000 of meter 12345678, from the luat documents


def test_a_frame_through_a_port_comes_back_as_a_frame_and_as_an_answer() -> None:
    async def scene() -> list[Out]:
        con, _, clock = concentrator()
        con.ports["rs485-1"] = dlt645_line(clock)
        came: asyncio.Queue[Out] = asyncio.Queue()
        con.emit = came.put_nowait
        message = {"v": 1, "type": "raw", "con": "C0001", "mid": "h-1", "ts": 0, "port": "rs485-1", "proto": "dlt645"}
        con.hear("hes/v1/C0001/down/raw", json.dumps(message | {"hex": ASK.hex()}).encode())
        order(con, "raw", port="rs485-1", proto="dlt645", hex=ASK.hex())
        order(con, "raw", cid="2", port="rs485-1", proto="dlt645", hex="00", timeout_ms=30)
        async with asyncio.timeout(10):
            return [await came.get() for _ in range(3)]

    by_topic: dict[str, list[dict[str, Any]]] = {}
    for out in asyncio.run(scene()):
        by_topic.setdefault(out.topic.rpartition("/")[2], []).append(body(out))
    (raw,) = by_topic["raw"]
    assert bytes.fromhex(raw["hex"]).lstrip(b"\xfe")[:9] == bytes.fromhex("687856341200006891")
    good = next(answer for answer in by_topic["rsp"] if answer["cid"] == "1")
    assert good["data"]["hex"].upper() == raw["hex"]
    assert next(answer for answer in by_topic["rsp"] if answer["cid"] == "2")["err"] == "no answer"


# -- bad messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_message_is_wrong_in_its_one_way(kind: str) -> None:
    con, _, _ = concentrator()
    good = json.loads(con.interval_body())
    out = bad(kind, con, size=100_000)
    try:
        message = json.loads(out.payload)
    except (ValueError, RecursionError):
        return  # so it should be for the five that are no JSON
    assert (out.topic, message) != (con.topic("reads"), good | {"seq": 2, "mid": "C0001-1-2"})
    if kind == "oversized":
        assert len(out.payload) == 100_000


# -- firmware ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIRMWARES)
def test_every_firmware_tells_the_truth_in_its_own_words(name: str) -> None:
    meters = fleet(3, installed_day=DAY)
    meters[1].silent = True
    said = "".join(out.payload.decode() + out.topic for out in messages(name, "gw1", meters, NOW_S))
    expected = truths(name, meters, NOW_S)
    assert {truth.address for truth in expected} == {meters[0].address, meters[2].address}
    assert meters[1].address not in said
    for truth in expected:
        tag = next(tag for tag in FIRMWARES[name].tags if tag.obis == truth.obis)
        assert f'"{tag.key}"' in said
        assert repr(float(truth.value.scaleb(-tag.shift))) in said
        exact = Decimal(next(m for m in meters if m.address == truth.address).units(truth.obis, NOW_S)).scaleb(-4)
        assert 0 <= exact - truth.value < Decimal(1).scaleb(tag.shift - tag.decimals)


def test_times_are_as_each_vendor_writes_them() -> None:
    meters = fleet(1, installed_day=DAY)

    def said(name: str) -> dict[str, Any]:
        return body(messages(name, "gw1", meters, NOW_S)[0])

    assert said("tasmota")["Time"] == "2025-11-25T00:00:30"  # local, and does not say so
    assert said("wmbusmeters")["timestamp"] == "2025-11-24T16:00:30Z"
    assert said("edgelogger")["batch"][0]["timestamp"] == "20251125000030000"
    assert said("neuron")["timestamp"] == NOW_S * 1000
    assert said("chirpstack")["time"] == "2025-11-24T16:00:30+00:00"


def test_an_uplinks_bytes_say_what_its_object_says() -> None:
    uplink = body(messages("chirpstack", "7", fleet(1, installed_day=DAY), NOW_S)[0])
    data = base64.b64decode(uplink["data"])
    assert data[:2] == b"\x03\x74"
    assert int.from_bytes(data[2:4], "little") == round(uplink["object"]["voltage"] * 10)
    assert data[10:12] == b"\x06\x83"
    assert int.from_bytes(data[12:16], "little") == uplink["object"]["power_consumption"]


def test_acrel_for_abroad_sends_nothing_before_its_login_is_answered_and_then_what_it_kept() -> None:
    clock, said = SettableClock(NOW_S), list[Out]()
    gateway = AcrelOverseas("12209263660002", "ADW300", fleet(2, installed_day=DAY), clock, emit=said.append)
    gateway.read()
    gateway.connected()
    assert [out.topic for out in said] == ["/gw/acrelHW/ADW300/login/12209263660002"]
    gateway.hear("/server/acrelHW/ADW300/login/12209263660002", b'{"type":"login","res":1}')
    assert [body(out)["type"] for out in said] == ["login", "time", "hstdata", "hstdata"]
    assert (body(said[1])["utc"], body(said[1])["time"]) == ("8", "20251125000030")
    clock.advance(300)
    gateway.read()
    assert body(said[-1])["type"] == "data"
    assert len(gateway.kept) == 4
    answer = b'{"type":"data","res":1,"meterSN":"000000000002"}'
    gateway.hear("/server/acrelHW/ADW300/data/12209263660002", answer)
    assert {address for address, _ in gateway.kept.values()} == {"000000000001", "000000000002"}
    assert len(gateway.kept) == 3
    told = {(t.address, t.obis, t.at_s): t.value for t in gateway.truths()}
    assert Decimal(str(body(said[-1])["EPI"])) == told["000000000002", "1-0:1.8.0", NOW_S + 300]


@pytest.mark.parametrize("compress", [False, True])
def test_acrel_domestic_speaks_in_envelopes_and_forgets_what_was_answered(compress: bool) -> None:
    clock, said = SettableClock(NOW_S), list[Out]()
    gateway = AcrelDomestic("1234567890123", "pk", fleet(1, installed_day=DAY), clock, emit=said.append)
    gateway.compress = compress
    gateway.connected()
    login = body(said[0])
    assert (said[0].topic, login["method"], login["sn"]) == ("sys/dev/pk/1234567890123", "login", "1234567890123")
    assert ("compressAlgo" in login["payload"]) is compress
    gateway.hear("sys/server/pk/1234567890123", json.dumps({**login, "payload": None, "res": 1}).encode())
    gateway.read()
    raw = zlib.decompress(said[-1].payload) if compress else said[-1].payload
    data = json.loads(raw)
    assert (data["method"], data["payload"]["sn"]) == ("data", "000000000001")
    assert data["payload"]["EPI"] == str(next(iter(gateway.truths())).value)
    assert len(gateway.kept) == 1
    answer = {"msgid": data["msgid"], "method": "data", "sn": "1234567890123", "res": 1}
    gateway.hear("sys/server/pk/1234567890123", json.dumps(answer).encode())
    assert gateway.kept == {}


# -- a DTU -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("split", [0, 5])
def test_a_dtu_carries_frames_to_its_meters_and_back(codec: str, split: int) -> None:
    async def scene() -> tuple[list[Out], Dtu]:
        said: list[Out] = []
        dtu = Dtu("860000000000001", dlt645_line(SettableClock(NOW_S)), emit=said.append, codec=codec, split=split)
        dtu.hear(dtu.subscription, pack(codec, ASK, 2, "gw"))
        dtu.hear(dtu.subscription, b'{"d":')
        dtu.deaf = True
        dtu.hear(dtu.subscription, pack(codec, ASK))
        return said, dtu

    said, dtu = asyncio.run(scene())
    assert {out.topic for out in said} == {"/iotinfo/860000000000001"}
    frame = b"".join(unpack(codec, out.payload) for out in said).lstrip(b"\xfe")
    assert frame[:9] == bytes.fromhex("687856341200006891")
    assert frame[-2] == sum(frame[:-2]) & 0xFF
    assert (len(said) > 1) is bool(split)
    assert dtu.done["not understood"] == (0 if codec == "raw" else 1)


# -- over a broker -----------------------------------------------------------------------------------------------------


@contextmanager
def broker_at(tmp_path: Path) -> Iterator[tuple[RunningBroker, BrokerAddress]]:
    with iotcore(tmp_path / "broker") as running:
        yield running, BrokerAddress(running.host, running.port)


class Watched(Concentrator):
    """A concentrator one can wait for."""

    news: asyncio.Event | None = None

    def hear(self, topic: str, payload: bytes) -> None:
        super().hear(topic, payload)
        self._tell()

    def disconnected(self) -> None:
        super().disconnected()
        self._tell()

    def _tell(self) -> None:
        if self.news is not None:
            self.news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        self.news = asyncio.Event()
        async with asyncio.timeout(20):
            while not true():
                self.news.clear()
                await self.news.wait()


class Ear:
    """The head-end's side of a test: hears everything, and lets one wait for it."""

    def __init__(self, address: BrokerAddress, topics: str) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.news = asyncio.Event()
        self.peer = Peer(address, "ear", subscriptions=(topics,), hear=self._hear)

    def _hear(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, json.loads(payload)))
        self.news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self.news.clear()
                await self.news.wait()

    def seqs(self) -> list[int]:
        return [message["seq"] for topic, message in self.heard if topic.endswith("/reads")]

    def onlines(self) -> list[bool]:
        return [message["online"] for topic, message in self.heard if topic.endswith("/state")]


def test_a_concentrator_on_a_broker_keeps_what_was_not_acknowledged_over_a_power_cut(tmp_path: Path) -> None:
    async def scene(address: BrokerAddress) -> None:
        ear = Ear(address, "hes/v1/+/up/#")
        await ear.peer.start()
        con = Watched(ConcentratorSpec("C0001"), fleet(2, installed_day=DAY), SettableClock(NOW_S))
        running = await run_concentrator(con, address)
        con.interval()
        await ear.until(lambda: ear.seqs() == [1])
        await running.go_offline()
        await ear.until(lambda: ear.onlines()[-1:] == [False])  # its last will
        con.interval()
        await running.go_online()
        await ear.until(lambda: ear.seqs() == [1, 1, 2])
        assert ear.onlines() == [True, False, True]
        message = {"v": 1, "type": "ack", "con": "C0001", "mid": "h", "ts": 0, "boot": 1, "upto": 2}
        ear.peer.publish(Out("hes/v1/C0001/down/ack", json.dumps(message).encode()))
        await con.until(lambda: len(con.buffer) == 0)
        await running.stop()
        await ear.peer.stop()

    with broker_at(tmp_path) as (_, address):
        asyncio.run(scene(address))


def test_a_concentrator_comes_back_by_itself_when_the_broker_was_killed(tmp_path: Path) -> None:
    async def scene(running_broker: RunningBroker, address: BrokerAddress) -> None:
        con = Watched(ConcentratorSpec("C0001"), fleet(2, installed_day=DAY), SettableClock(NOW_S))
        running = await run_concentrator(con, address)
        con.interval()
        await running.peer.flushed()
        running_broker.kill()
        await con.until(lambda: not con.online)
        con.interval()
        running_broker.start()
        ear = Ear(address, "hes/v1/+/up/#")
        await ear.peer.start()
        running.repeat(0.2)
        await ear.until(lambda: {1, 2} <= set(ear.seqs()))
        await running.stop()
        await ear.peer.stop()

    with broker_at(tmp_path) as (running_broker, address):
        asyncio.run(scene(running_broker, address))


def test_a_dtu_on_a_broker_answers(tmp_path: Path) -> None:
    async def scene(address: BrokerAddress) -> None:
        ear = Ear(address, "/iotinfo/+")
        await ear.peer.start()
        dtu = Dtu("860000000000001", dlt645_line(SettableClock(NOW_S)))
        peer = await run_device(dtu, address, "dtu")
        ear.peer.publish(Out("/iotmonitor/860000000000001", pack("json", ASK)))
        await ear.until(lambda: bool(ear.heard))
        assert bytes.fromhex(ear.heard[0][1]["d"]).lstrip(b"\xfe")[8] == 0x91
        await peer.stop()
        await ear.peer.stop()

    with broker_at(tmp_path) as (_, address):
        asyncio.run(scene(address))


def test_a_concentrator_of_a_town_tells_its_last_days_and_goes_on_as_time_does(tmp_path: Path) -> None:
    async def scene(address: BrokerAddress) -> None:
        ear = Ear(address, "hes/v1/+/up/#")
        await ear.peer.start()
        clock = SettableClock(NOW_S)
        line = ConcentratorLine("C0001", fleet(2, installed_day=DAY), address.host, address.port, clock, memory_days=3)
        await line.start()
        await ear.until(lambda: len(ear.seqs()) == 8)
        times = {
            kind: [row[0] for _, m in ear.heard if m.get("kind") == kind for row in m["meters"][0]["r"]]
            for kind in ("interval", "daily_freeze")
        }
        midnight_s = (NOW_S + 28_800) // 86_400 * 86_400 - 28_800
        assert times["interval"] == list(range(midnight_s - 3 * 86_400, NOW_S, 900))
        assert times["daily_freeze"] == [midnight_s - day * 86_400 for day in (3, 2, 1, 0)]
        clock.advance(1_800)
        await ear.until(lambda: len(ear.seqs()) == 10)
        assert ear.heard[-1][1]["meters"][1]["r"][0][0] == QUARTER_S + 1_800
        await line.stop()
        await ear.peer.stop()

    with broker_at(tmp_path) as (_, address):
        asyncio.run(scene(address))


def test_benchmark_messages_are_good_and_all_arrive(tmp_path: Path) -> None:
    load = BenchLoad(messages=40, meters=5, intervals=3, concentrators=4, columns=COLUMNS)
    payloads = build(load)
    last = body(payloads[-1])
    assert (last["con"], last["seq"], len(last["meters"])) == ("C0003", 10, 5)
    at_s = load.start_s + (9 * 3 + 2) * 900
    assert last["meters"][4]["r"][-1] == [at_s, [load.value(4, at_s)], 0]
    assert load.readings == 40 * 5 * 3

    async def scene(address: BrokerAddress) -> None:
        ear = Ear(address, "hes/v1/+/up/#")
        await ear.peer.start()
        sent = await asyncio.to_thread(publish, address, payloads)
        assert sent.messages == 40
        await ear.until(lambda: len(ear.heard) == 40)
        await ear.peer.stop()

    with broker_at(tmp_path) as (_, address):
        asyncio.run(scene(address))
