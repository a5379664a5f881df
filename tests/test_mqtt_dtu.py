"""DTUs that pass frames on over a pair of topics: the drivers of wires run over them unchanged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.meter_models import SHIPPED_MODELS, load_model
from config.site import load_site
from headend import collect
from headend.access import Access, memory_access
from headend.endpoints import Endpoint, LineSettings, Topics, parse_endpoint
from headend.errors import BadFrame, ConfigError, UsageError
from headend.line import Line
from headend.model import Meter, Outcome, ReadJob, ReadKind, Status, Window
from headend.mqtt.link import Codec, DtuEnd, end_of
from headend.mqtt.service import Service
from headend.store import Store
from simulators.bus import Bus, Shared
from simulators.clock import SettableClock
from simulators.dlms_spec import DlmsClient, DlmsSpec
from simulators.dlms_station import DlmsLine
from simulators.dlms_town import dlms_meter
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.modbus_bus import ModbusBus
from simulators.modbus_meter import ModbusMeter, ModbusSpec, Point
from simulators.modbus_truth import Truth
from simulators.mqtt_concentrator import Out
from simulators.mqtt_dtu import Dtu
from simulators.mqtt_runner import BrokerAddress, Peer, run_device
from simulators.tcp import TcpLine
from tests.helpers import make_meter
from tests.mqtt_kit import broker_settings, served, until
from tests.mqtt_servers import RunningBroker, iotcore, mosquitto, mosquitto_program

IMEI = "860000000000001"
UP, DOWN = f"/iotinfo/{IMEI}", f"/iotmonitor/{IMEI}"
NOW_S = 1_773_799_200
NOW = datetime.fromtimestamp(NOW_S, UTC)
CODECS = {
    "hex": Topics(UP, DOWN, "hex"),
    "raw": Topics(UP, DOWN, "raw"),
    "json": Topics(UP, DOWN, "json:d", '{"d":"{hex}","o":2}'),
}


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


# -- the three kinds of meter ------------------------------------------------------------------------------------------


@dataclass
class Wire:
    """Meters on a wire, one of them ours, what to ask of it, and the register it must show."""

    bus: Shared
    meter: Meter
    access: Access
    true_kwh: Decimal
    curve: bool = False


def register(seed: int = 3) -> Register:
    return Register(Household(Load(seed=seed)), 12_340_000)


def dlt645() -> Wire:
    counter = register()
    meters = [(f"m{n}", Dlt645Meter(MeterSpec(f"{n:012d}"), counter, SettableClock(NOW_S))) for n in (1, 2)]
    true = Decimal(counter.units(NOW_S) // 100).scaleb(-2)
    return Wire(Bus(meters, SettableClock(NOW_S)), make_meter(2), memory_access(), true, curve=True)


def dlms() -> Wire:
    device = dlms_meter(SettableClock(NOW_S), DlmsSpec(clients=(DlmsClient(16, "lls", b"Zq7-pass"),)))
    model = load_model(SHIPPED_MODELS / "dlms-generic-hdlc.toml")
    settings = replace(model.details, authentication="lls")  # type: ignore[type-var]
    meter = make_meter(1, address="1/17", protocol="dlms", model=replace(model, details=settings))
    true = Decimal(device.imported(NOW_S)).scaleb(-3)
    return Wire(DlmsLine(device), meter, memory_access({"password": b"Zq7-pass"}), true, curve=True)


def modbus() -> Wire:
    model = load_model(SHIPPED_MODELS / "modbus-eastron-sdm630.toml")
    points = (Point("import_kwh", 4, 72, "f32"), Point("voltage_v_a", 4, 0, "f32"))
    counter = register(5)
    slave = ModbusMeter(ModbusSpec(points), 7, Truth(counter, register(6)), SettableClock(NOW_S))
    meter = make_meter(1, address="7", protocol="modbus-rtu", model=model)
    true = Decimal(counter.units(NOW_S)).scaleb(-4)
    return Wire(ModbusBus([("m7", slave)], SettableClock(NOW_S), framing="rtu"), meter, memory_access(), true)


WIRES: dict[str, Callable[[], Wire]] = {"dlt645": dlt645, "dlms": dlms, "modbus": modbus}


def clock() -> datetime:
    return NOW


async def asked(line: Line, wire: Wire, kind: ReadKind = ReadKind.REGISTERS) -> Outcome:
    window = Window(NOW - timedelta(hours=6), NOW) if kind is ReadKind.CURVE else None
    job = ReadJob(wire.meter, kind, ("import_kwh",), window)
    return await collect.run(line, job, clock=clock, access=wire.access)


@asynccontextmanager
async def dtu_line(
    broker: RunningBroker, store: Store, topics: Topics, **settings: Any
) -> AsyncIterator[tuple[Line, DtuEnd, Service]]:
    session = broker_settings(broker.port, client_id=f"headend-{time.monotonic_ns()}", session_expiry_s=1)
    async with served(store, [], session) as service:
        endpoint = replace(parse_endpoint("mqtt://test"), topics=topics)
        times: dict[str, Any] = {"reply_s": 3.0, "gap_s": 0.3, "connect_s": 5.0} | settings
        line_settings = LineSettings("dtu", endpoint, **times)
        end = end_of(line_settings, service, clock=lambda: datetime.now(UTC))
        assert isinstance(end, DtuEnd)
        line = Line(line_settings, opener=end.open)
        try:
            yield line, end, service
        finally:
            await line.close()


async def connected(dtu: Dtu, broker: RunningBroker) -> Peer:
    return await run_device(dtu, BrokerAddress("127.0.0.1", broker.port), f"dtu-{time.monotonic_ns()}")


# -- drivers over DTUs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("protocol", WIRES)
def test_a_driver_reads_through_a_dtu_what_it_reads_on_a_wire(
    broker: RunningBroker, sqlite_store: Store, protocol: str, codec: str
) -> None:
    async def main() -> None:
        wire, direct = WIRES[protocol](), WIRES[protocol]()
        kinds = [ReadKind.REGISTERS, *([ReadKind.CURVE] if wire.curve else [])]
        server = TcpLine(direct.bus, "127.0.0.1", 0)
        await server.start()
        straight = Line(LineSettings("tcp", parse_endpoint(server.endpoint())))
        dtu = Dtu(IMEI, wire.bus, codec=codec, split=40 if codec == "json" else 0)
        peer = await connected(dtu, broker)
        try:
            async with dtu_line(broker, sqlite_store, CODECS[codec]) as (line, end, _):
                for kind in kinds:
                    got, wanted = await asked(line, wire, kind), await asked(straight, direct, kind)
                    assert got.status is Status.OK, got.detail
                    assert got.readings == wanted.readings
                    assert [f.data for f in got.frames if f.direction == ">"] == [
                        f.data for f in wanted.frames if f.direction == ">"
                    ]
                    if kind is ReadKind.REGISTERS:
                        assert abs(got.readings[0].value - wire.true_kwh) < Decimal("0.01")
                    else:
                        assert len(got.readings) == 24
                assert (end.undecodable, dtu.done["not understood"]) == (0, 0)
                assert dtu.done["heard"] == line.stats.sends
        finally:
            await straight.close()
            await server.stop()
            await peer.stop()

    asyncio.run(main())


def test_two_lines_share_one_connection(broker: RunningBroker, sqlite_store: Store) -> None:
    async def main() -> None:
        one, two = dlt645(), modbus()
        first, second = Dtu(IMEI, one.bus, codec="hex"), Dtu("2", two.bus, codec="hex")
        peers = [await connected(first, broker), await connected(second, broker)]
        other = Topics("/iotinfo/2", "/iotmonitor/2")
        async with dtu_line(broker, sqlite_store, CODECS["hex"]) as (line, _, service):
            settings = LineSettings("two", replace(line.settings.endpoint, topics=other), reply_s=3.0)
            beside = Line(settings, opener=end_of(settings, service, clock=clock).open)
            outcomes = await asyncio.gather(
                *(asked(line, one) for _ in range(5)), *(asked(beside, two) for _ in range(5))
            )
            assert {outcome.status for outcome in outcomes} == {Status.OK}
            assert service.client.stats.connections == 1
            assert service.intake.stats.messages == service.intake.stats.unknown == 0  # frames are nothing to store
            assert service.client.waiting == 0
            await beside.close()
        for peer in peers:
            await peer.stop()

    asyncio.run(main())


def test_a_silent_meter_is_no_answer_and_what_is_no_frame_is_counted(
    broker: RunningBroker, sqlite_store: Store
) -> None:
    async def main() -> None:
        wire = dlt645()
        dtu = Dtu(IMEI, wire.bus, codec="hex")
        peer = await connected(dtu, broker)
        async with dtu_line(broker, sqlite_store, CODECS["hex"], reply_s=0.5) as (line, end, service):
            dtu.deaf = True
            assert (await asked(line, wire)).status is Status.NO_ANSWER
            (request,) = service.status()["requests"]
            assert (request["line"], request["topic"], request["cid"]) == ("dtu", DOWN, "")
            dtu.deaf = False
            for strange in (b"+CSQ: 21", b"6", b"", b"\xff\xfe"):
                peer.publish(Out(UP, strange))
            await until(lambda: end.undecodable == 3)
            outcome = await asked(line, wire)
            assert outcome.status is Status.OK, outcome.detail
        await peer.stop()

    asyncio.run(main())


def test_a_retained_frame_is_not_taken_for_an_answer(broker: RunningBroker, sqlite_store: Store) -> None:
    async def main() -> None:
        wire = dlt645()
        dtu = Dtu(IMEI, wire.bus, codec="hex")
        peer = await connected(dtu, broker)
        peer.publish(Out(UP, bytes.fromhex("68AABB16").hex().encode(), retain=True))
        await peer.flushed()
        try:
            async with dtu_line(broker, sqlite_store, CODECS["hex"]) as (line, end, service):
                handed: list[bytes] = []
                hand_over = end.hand_over

                def noted(data: bytes) -> None:
                    handed.append(data)
                    hand_over(data)

                end.hand_over = noted  # type: ignore[method-assign]
                assert (await asked(line, wire)).status is Status.OK
                assert bytes.fromhex("68AABB16") not in handed
                assert handed
                await until(lambda: service.client.stats.received > len(handed))  # it did come
        finally:
            peer.publish(Out(UP, b"", retain=True))
            await peer.flushed()
            await peer.stop()

    asyncio.run(main())


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_nobody_at_the_other_end_is_told_at_once_where_the_broker_tells(tmp_path: Path, sqlite_store: Store) -> None:
    if mosquitto_program() is None:
        pytest.skip("no mosquitto")

    async def main(broker: RunningBroker) -> None:
        async with dtu_line(broker, sqlite_store, CODECS["hex"], reply_s=20.0) as (line, _, _service):
            started = time.monotonic()
            outcome = await asked(line, dlt645())
            assert outcome.status is Status.LINE_DOWN
            assert f"nobody listens on {DOWN}" in outcome.detail
            assert time.monotonic() - started < 10

    with mosquitto(tmp_path) as broker:
        asyncio.run(main(broker))


def test_a_frame_that_could_not_be_delivered_in_time_is_not_delivered_later(
    tmp_path: Path, sqlite_store: Store
) -> None:
    """A DTU with a session that was away must not carry out what was asked of it long ago."""
    if mosquitto_program() is None:
        pytest.skip("no mosquitto")
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    def device(got: list[bytes], ready: Any) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, "a-dtu", protocol=paho.MQTTv5)
        client.on_message = lambda _c, _u, message: got.append(bytes(message.payload))
        client.on_connect = lambda c, *_: c.subscribe(DOWN, 1)
        client.on_subscribe = lambda *_: ready()
        return client

    async def session(broker: RunningBroker, got: list[bytes]) -> paho.Client:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        client = device(got, lambda: loop.call_soon_threadsafe(ready.set))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 300
        client.connect("127.0.0.1", broker.port, clean_start=False, properties=properties)
        client.loop_start()
        async with asyncio.timeout(10):
            await ready.wait()
        return client

    async def main(broker: RunningBroker) -> None:
        got: list[bytes] = []
        client = await session(broker, got)
        client.disconnect()
        client.loop_stop()
        async with dtu_line(broker, sqlite_store, CODECS["hex"], reply_s=1.0) as (line, _, service):
            assert (await asked(line, dlt645())).status is Status.NO_ANSWER
            await asyncio.sleep(2.1)  # the broker counts in whole seconds
            client = await session(broker, got)
            await service.publish(DOWN, b"6800")  # comes behind whatever was kept
            await until(lambda: b"6800" in got)
            assert got == [b"6800"]
            client.disconnect()
            client.loop_stop()

    with mosquitto(tmp_path) as broker:
        asyncio.run(main(broker))


@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_a_broker_that_dies_amid_a_conversation_takes_the_line_down_and_brings_it_back(
    tmp_path: Path, sqlite_store: Store, kind: str
) -> None:
    if kind == "mosquitto" and mosquitto_program() is None:
        pytest.skip("no mosquitto")
    if kind == "iotcore":
        pytest.importorskip("iotcore")

    async def main(broker: RunningBroker) -> None:
        wire = dlt645()
        dtu = Dtu(IMEI, wire.bus, codec="hex")
        peer = await connected(dtu, broker)
        async with dtu_line(broker, sqlite_store, CODECS["hex"], reply_s=30.0) as (line, _, service):
            assert (await asked(line, wire)).status is Status.OK
            dtu.deaf = True
            asking = asyncio.create_task(asked(line, wire))
            heard = dtu.done["heard"]
            await until(lambda: dtu.done["heard"] > heard)
            broker.kill()
            outcome = await asking
            assert outcome.status is Status.LINE_DOWN
            assert "broker test" in outcome.detail
            assert service.status()["requests"] == []
            dtu.deaf = False
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(30):
                await service.client.connected.wait()
                await peer.until_ready()
            outcome = await asked(line, wire)
            assert outcome.status is Status.OK, outcome.detail
            assert line.stats.opened == 2
        await peer.stop()

    with mosquitto(tmp_path) if kind == "mosquitto" else iotcore(tmp_path) as broker:
        asyncio.run(main(broker))


def test_no_broker_is_a_line_that_is_down(sqlite_store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        from headend.ingest import EvidencePolicy, Ingest
        from headend.mqtt.canonical import CANONICAL

        ingest = Ingest(sqlite_store, EvidencePolicy())
        service = Service(broker_settings(1), [CANONICAL], [], ingest, sqlite_store)
        await service.start()
        settings = LineSettings("dtu", Endpoint("mqtt", broker="test", topics=CODECS["hex"]), connect_s=0.5)
        line = Line(settings, opener=end_of(settings, service, clock=clock).open)
        outcome = await asked(line, dlt645())
        assert outcome.status is Status.LINE_DOWN
        assert "no connection to broker test" in outcome.detail
        assert not outcome.frames
        await service.close()

    asyncio.run(main())


# -- codecs and configuration ------------------------------------------------------------------------------------------

FRAME = bytes.fromhex("FEFEFEFE6878563412000068110433333433C616")


def test_codecs_say_frames_as_dtus_do() -> None:
    assert Codec(Topics("u", "d", "hex")).encode(FRAME) == b"fefefefe6878563412000068110433333433c616"
    assert Codec(Topics("u", "d", "raw")).encode(FRAME) == FRAME
    said = Codec(Topics("u", "d", "json:d", '{"d":"{hex}","o":2}')).encode(FRAME)
    assert said == b'{"d":"fefefefe6878563412000068110433333433c616","o":2}'
    assert json.loads(Codec(Topics("u", "d", "json:data.hex")).encode(b"\x68")) == {"data": {"hex": "68"}}


@pytest.mark.parametrize(
    ("codec", "payload", "frame"),
    [
        ("hex", b"68 aA\r\n16", b"\x68\xaa\x16"),
        ("hex", b"", None),
        ("raw", b"\x00h\xff", b"\x00h\xff"),
        ("raw", b"", None),
        ("json:d", b'{"d":"68AA","o":2}', b"\x68\xaa"),
        ("json:d", b'{"online":1}', None),
        ("json:d", b'{"d":null}', None),
        ("json:a.b", b'{"a":{"b":"16"}}', b"\x16"),
        ("json:a.b", b'{"a":"b"}', None),
        ("json:a.b", b"[]", None),
    ],
)
def test_codecs_understand_payloads(codec: str, payload: bytes, frame: bytes | None) -> None:
    assert Codec(Topics("u", "d", codec)).decode(payload) == frame


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        ("hex", b"6"),
        ("hex", b"6x"),
        ("hex", b"00" * 200_000),
        ("json:d", b"{"),
        ("json:d", b'{"d":7}'),
        ("json:d", b'{"d":"zz"}'),
        ("json:d", b"[" * 100_000),
    ],
)
def test_codecs_refuse_what_is_broken(codec: str, payload: bytes) -> None:
    with pytest.raises(BadFrame):
        Codec(Topics("u", "d", codec)).decode(payload)


def test_an_unknown_codec_is_refused() -> None:
    for codec in ("xml", "json", "json:", "hex:d"):
        with pytest.raises(UsageError):
            Codec(Topics("u", "d", codec))


SITE = """
[site]
name = "Town"

[[mqtt]]
name = "field"
host = "127.0.0.1"
concentrators = ["C0001"]
"""


def site_of(folder: Path, *lines: str) -> Path:
    path = folder / "site.toml"
    path.write_text(SITE + "".join(f"\n[[line]]\n{line}\n" for line in lines))
    return path


def test_lines_at_brokers_in_site_toml(tmp_path: Path) -> None:
    dtu = 'name = "a"\nendpoint = "mqtt://field"\nup = "/iotinfo/1"\ndown = "/iotmonitor/1"'
    more = 'codec = \'json:d\'\ntemplate = \'{"d":"{hex}","o":2}\'\nqos = 0'
    other = 'name = "b"\nendpoint = "mqtt://field"\nup = "u"\ndown = "d"\nreply_s = 9.0'
    concentrator = 'name = "c"\nendpoint = "mqtt://field/C0001"'
    site = load_site(site_of(tmp_path, f"{dtu}\n{more}", other, concentrator))
    one, two, three = site.lines
    assert one.endpoint.topics == Topics("/iotinfo/1", "/iotmonitor/1", "json:d", '{"d":"{hex}","o":2}', 0)
    assert (one.reply_s, two.reply_s, three.reply_s) == (5.0, 9.0, 30.0)
    assert two.endpoint.topics == Topics("u", "d")
    assert (str(one.endpoint), str(three.endpoint)) == ("mqtt://field", "mqtt://field/C0001")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('endpoint = "mqtt://elsewhere/C0001"', "there is no broker 'elsewhere' -> did you mean|known: field"),
        ('endpoint = "mqtt://field/C0002"', "concentrator C0002 is not among those of broker field"),
        ('endpoint = "mqtt://field"\nup = "u"', "line\\[1\\].down: is missing"),
        ('endpoint = "mqtt://field"\nup = "u"\ndown = "u"', "is the same topic as up"),
        ('endpoint = "mqtt://field"\nup = "u/+"\ndown = "d"', "no topic of a DTU"),
        ('endpoint = "mqtt://field"\nup = "u"\ndown = "d"\ncodec = "xml"', "is no codec"),
        ('endpoint = "mqtt://field"\nup = "u"\ndown = "d"\ntemplate = "{hex}"', "means nothing to the codec hex"),
        ('endpoint = "mqtt://field"\nup = "u"\ndown = "d"\ncodec = "json:d"\ntemplate = "{}"', "does not have {hex}"),
        ('endpoint = "mqtt://field/C0001"\nup = "u"', "up is for DTUs"),
        ('endpoint = "tcp://127.0.0.1:1"\ndown = "d"', "down is for DTUs"),
        ('endpoint = "mqtt://field/a/b"', "names no broker of the site"),
        ('endpoint = "mqtt://field/C0001"\nserial = "2400 8E1"', "a mqtt endpoint has no serial settings"),
    ],
)
def test_lines_at_brokers_that_can_not_be(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_site(site_of(tmp_path, f'name = "a"\n{line}'))


def test_two_dtus_have_topics_of_their_own_and_two_lines_have_two_concentrators(tmp_path: Path) -> None:
    dtu = 'endpoint = "mqtt://field"\nup = "u"\ndown = "d"'
    with pytest.raises(ConfigError, match='line\\[1\\] has the topic "u" already'):
        load_site(site_of(tmp_path, f'name = "a"\n{dtu}', f'name = "b"\n{dtu}'))
    con = 'endpoint = "mqtt://field/C0001"'
    with pytest.raises(ConfigError, match="has the endpoint mqtt://field/C0001 already"):
        load_site(site_of(tmp_path, f'name = "a"\n{con}', f'name = "b"\n{con}'))
