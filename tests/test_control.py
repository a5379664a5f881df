"""Telling meters to do something: what holds an order back, that it goes out once, what is kept of it, how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete, text, update

from config.imports import import_files
from config.site import load_site
from headend.access import Access, memory_access
from headend.app import Daemon
from headend.cli import cli
from headend.control import DISCONNECT, RECONNECT, SET_CLOCK, Order, Rules, obey, switch_state
from headend.conversation import Send
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import NoAccess, StoreError, UsageError
from headend.line import Line
from headend.local_api import LocalApi
from headend.masterkey import new_master_key
from headend.model import FrameRecord, Meter
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645 import control as dlt645_control
from headend.protocols.dlt645.frame import Scanner
from headend.store import Store, commands, open_store, schema
from headend.store.commands import CommandRow
from headend.store.unplaced import UnplacedRow, mark_replayed, put_unplaced, unplaced
from simulators.bus import Bus
from simulators.clock import RunningClock
from simulators.dlms_serve import serve_dlms_tcp
from simulators.dlms_spec import DlmsClient, DlmsSpec
from simulators.dlms_town import dlms_meter
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.tcp import TcpLine
from tests.helpers import make_meter, registered

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALLOWED = Rules(True, 3)
ADDRESS = f"{1:012d}"
PASSWORDS = ((2, "813572"), (4, "649137"))
SECRETS = {"dlt645_password_2": bytes.fromhex("813572"), "dlt645_password_4": bytes.fromhex("649137")}


def simulated(**settings: Any) -> Dlt645Meter:
    """A DL/T 645-2007 meter on today's time, with passwords of its own."""
    register = Register(Household(Load(seed=1)))
    return Dlt645Meter(MeterSpec(ADDRESS, passwords=PASSWORDS, **settings), register, RunningClock(time.time()))


class Heard:
    """A line of meters that counts the requests it hears of each function, and can lose the answers to some."""

    def __init__(self, meter: Any, *, lose: frozenset[int] = frozenset(), echo: bool = False) -> None:
        self.meter, self.lose, self.echo = meter, lose, echo
        self.functions: list[int] = []
        self.serving: list[asyncio.Task[Any] | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.current_task())
        scanner = Scanner()
        while data := await reader.read(4096):
            if self.echo:
                writer.write(data)
            for frame in scanner.feed(data):
                self.functions.append(frame.function)
                answer = self.meter.answer(bytes.fromhex(frame.address)[::-1], frame.control, frame.data)
                if answer is not None and frame.function not in self.lose:
                    writer.write(answer)
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def line_to(heard: Heard, **settings: Any) -> AsyncIterator[Line]:
    server = await asyncio.start_server(heard.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = Line(LineSettings("bus-1", parse_endpoint(f"tcp://127.0.0.1:{port}"), reply_s=0.3, gap_s=0.1, **settings))
    try:
        yield line
    finally:
        await line.close()
        server.close()
        await asyncio.gather(*filter(None, heard.serving))
        heard.serving.clear()


def now() -> datetime:
    return datetime.now(UTC)


def told(
    store: Store,
    meter: Meter,
    heard: Heard,
    action: str,
    *,
    secrets: dict[str, bytes] | None = None,
    rules: Rules = ALLOWED,
    reason: str = "moved out",
    **settings: Any,
) -> dict[str, Any]:
    """Order `action` of the simulated meter and wait for its end."""

    async def main() -> dict[str, Any]:
        async with line_to(heard, **settings) as line:
            order = Order(meter, action, "Wang", reason)
            access = memory_access(SECRETS if secrets is None else secrets)
            return await obey(order, line=line, access=access, store=store, rules=rules, clock=now, settle_s=0.05)

    return asyncio.run(main())


def rows(store: Store) -> list[CommandRow]:
    with store.read() as conn:
        return commands.commands(conn)


# -- orders carried out ------------------------------------------------------------------------------------------------


def test_a_consumer_is_disconnected_and_may_reconnect(store: Store) -> None:
    (meter,) = registered(store)
    device = simulated()
    heard = Heard(device)
    ended = told(store, meter, heard, DISCONNECT)
    assert (ended["status"], ended["result"], ended["detail"]) == ("done", "disconnected", "")
    assert device.relay.is_open(int(time.time()))
    ended = told(store, meter, heard, RECONNECT, reason="new contract")
    assert (ended["status"], ended["result"]) == ("done", "ready to be connected by hand")
    device.press_button()
    assert heard.functions == [0x1C, 0x11, 0x1C, 0x11]
    newest, oldest = rows(store)
    assert (oldest.meter, oldest.action, oldest.asked_by, oldest.reason) == (meter.id, DISCONNECT, "Wang", "moved out")
    assert (oldest.status, oldest.result, newest.reason) == ("done", "disconnected", "new contract")
    assert oldest.ended_at is not None
    assert [frame.direction for frame in oldest.frames] == [">", "<", ">", "<"]


def test_the_clock_is_set_and_read_back(store: Store) -> None:
    (meter,) = registered(store)
    device = simulated(clock_error_s=500)
    ended = told(store, meter, Heard(device), SET_CLOCK)
    assert ended["status"] == "done"
    assert abs(int(ended["result"].split()[1])) <= 2
    assert abs(device.clock.local(int(time.time())) - time.time() - 28_800) <= 2


def test_a_clock_in_two_items_is_set_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlt645_control, "_MIDNIGHT", timedelta())
    (meter,) = registered(store)
    heard = Heard(simulated(clock_error_s=500, lacks=("0400010C",)))
    assert told(store, meter, heard, SET_CLOCK)["status"] == "done"
    assert heard.functions.count(0x14) == 3


def test_the_clock_of_a_1997_meter_is_set(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlt645_control, "_MIDNIGHT", timedelta())
    (meter,) = registered(sqlite_store, protocol="dlt645-1997")
    spec = MeterSpec(ADDRESS, form="1997", clock_error_s=300, passwords=((0, "813572"),))
    device = Dlt645Meter1997(spec, Register(Household(Load(seed=1))), RunningClock(time.time()))
    secret = bytes.fromhex("81357200")
    ended = told(sqlite_store, meter, Heard(device), SET_CLOCK, secrets={"dlt645_1997_password": secret})
    assert ended["status"] == "done"
    assert not any(shows(frame, secret) for frame in rows(sqlite_store)[0].frames)
    with pytest.raises(UsageError, match="speaks dlt645-1997, through which it can't be told to disconnect"):
        told(sqlite_store, meter, Heard(device), DISCONNECT)


def test_date_and_time_apart_are_not_set_at_midnight() -> None:
    meter = make_meter(protocol="dlt645-1997")
    access = memory_access({"dlt645_1997_password": bytes(4)})
    for moment, held in (("15:59:40", True), ("16:00:20", True), ("15:59:00", False), ("16:01:00", False)):
        at = datetime.fromisoformat(f"2026-03-01T{moment}+00:00")  # midnight in Shanghai is 16:00 UTC
        conversation = dlt645_control.set_clock_1997(meter, lambda at=at: at, access)  # type: ignore[misc]
        if held:
            with pytest.raises(UsageError, match="it is midnight at the meter"):
                next(conversation)
        else:
            assert isinstance(next(conversation), Send)


@pytest.mark.parametrize(
    ("at", "date", "clock"),
    [("2026-03-01T00:00:05+00:00", "00010326", "050008"), ("2026-03-07T15:59:59+00:00", "06070326", "595923")],
)
def test_weekday_date_and_time_as_the_meter_keeps_them(at: str, date: str, clock: str) -> None:
    """Sunday 1 March 2026, 08:00:05, and Saturday 7 March, 23:59:59, in Shanghai: lowest byte first."""
    moment = datetime.fromisoformat(at)
    request = next(dlt645_control.set_clock(make_meter(), lambda: moment, memory_access(SECRETS)))
    assert isinstance(request, Send)
    (frame,) = Scanner().feed(request.data)
    assert frame.data[12:].hex() == clock + date


def test_the_highest_level_at_hand_below_the_usual_one_is_used() -> None:
    request = next(dlt645_control.switch(make_meter(), DISCONNECT, memory_access({"dlt645_password_0": bytes(3)})))
    assert isinstance(request, Send)
    assert Scanner().feed(request.data)[0].data[0] == 0
    with pytest.raises(NoAccess, match=r"no password of meter .* under the name dlt645_password_2"):
        next(dlt645_control.switch(make_meter(), DISCONNECT, memory_access({"dlt645_password_4": bytes(3)})))


# -- how they can end otherwise ----------------------------------------------------------------------------------------


def test_a_lost_answer_is_unknown_and_nothing_is_sent_again(store: Store) -> None:
    (meter,) = registered(store)
    device = simulated()
    heard = Heard(device, lose=frozenset({0x1C}))
    ended = told(store, meter, heard, DISCONNECT)
    assert (ended["status"], ended["result"]) == ("unknown", "disconnected")
    assert "whether it was carried out is not known" in ended["detail"]
    assert heard.functions == [0x1C, 0x11]
    assert rows(store)[0].status == "unknown"


def test_a_silent_meter_leaves_it_unknown(store: Store) -> None:
    (meter,) = registered(store)
    heard = Heard(simulated(), lose=frozenset({0x1C, 0x11}))
    ended = told(store, meter, heard, DISCONNECT)
    assert (ended["status"], ended["result"]) == ("unknown", "")
    assert heard.functions.count(0x1C) == 1
    assert "afterwards: " in ended["detail"]


def test_a_relay_that_does_not_move_is_told(store: Store) -> None:
    (meter,) = registered(store)
    ended = told(store, meter, Heard(simulated(relay="stuck")), DISCONNECT)
    assert (ended["status"], ended["result"]) == ("no effect", "connected")


def test_a_slow_relay_is_looked_at_again(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    heard = Heard(simulated(relay_delay_s=1))

    async def main() -> dict[str, Any]:
        async with line_to(heard) as line:
            order = Order(meter, DISCONNECT, "Wang", "moved out")
            access = memory_access(SECRETS)
            return await obey(
                order, line=line, access=access, store=sqlite_store, rules=ALLOWED, clock=now, settle_s=0.6
            )

    ended = asyncio.run(main())
    assert (ended["status"], ended["result"]) == ("done", "disconnected")
    assert heard.functions.count(0x11) > 1


def test_a_wrong_password_is_refused_once(store: Store) -> None:
    (meter,) = registered(store)
    heard = Heard(simulated())
    ended = told(store, meter, heard, DISCONNECT, secrets={"dlt645_password_2": bytes.fromhex("999999")})
    assert ended["status"] == "refused"
    assert "the password of level 02 is wrong" in ended["detail"]
    assert heard.functions == [0x1C]


@pytest.mark.parametrize("secrets", [{}, {"dlt645_password_4": bytes(3)}])
def test_without_a_password_nothing_is_sent(store: Store, secrets: dict[str, bytes]) -> None:
    (meter,) = registered(store)
    heard = Heard(simulated())
    ended = told(store, meter, heard, DISCONNECT, secrets=secrets)
    assert (ended["status"], ended["frames"]) == ("not sent", [])
    assert "dlt645_password_2" in ended["detail"]
    assert heard.functions == []


def test_a_line_that_is_down_sends_nothing(store: Store) -> None:
    (meter,) = registered(store)

    async def main() -> dict[str, Any]:
        line = Line(LineSettings("bus-1", parse_endpoint("tcp://127.0.0.1:9"), connect_s=0.5))
        order = Order(meter, DISCONNECT, "Wang", "moved out")
        access = memory_access(SECRETS)
        return await obey(order, line=line, access=access, store=store, rules=ALLOWED, clock=now)

    assert asyncio.run(main())["status"] == "not sent"
    assert rows(store)[0].status == "not sent"


def test_one_that_is_cut_off_is_written_down_as_unknown(store: Store) -> None:
    (meter,) = registered(store)
    heard = Heard(simulated(), lose=frozenset({0x1C}))

    async def main() -> None:
        async with line_to(heard) as line:
            order = Order(meter, DISCONNECT, "Wang", "moved out")
            access = memory_access(SECRETS)
            task = asyncio.ensure_future(obey(order, line=line, access=access, store=store, rules=ALLOWED, clock=now))
            while not heard.functions:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    (row,) = rows(store)
    assert (row.status, len(row.frames)) == ("unknown", 1)


def test_the_state_is_a_read_and_leaves_no_row(store: Store) -> None:
    (meter,) = registered(store)

    async def main() -> dict[str, Any]:
        async with line_to(Heard(simulated())) as line:
            return await switch_state(line, meter, memory_access())

    ended = asyncio.run(main())
    assert (ended["status"], ended["result"], ended["connected"]) == ("done", "connected", True)
    assert rows(store) == []


# -- what holds an order back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "order", "words"),
    [
        (Rules(False, 10), {}, r"this site tells no meter to do anything -> write \[control\] enabled = true"),
        (ALLOWED, {"reason": "  "}, "an order without a reason"),
        (ALLOWED, {"asked_by": ""}, "an order without a reason or without who wants it"),
        (ALLOWED, {"reason": "x" * 501}, "the reason is too long"),
        (ALLOWED, {"reason": "a\x1b[2J"}, "not plain text"),
        (ALLOWED, {"action": "explode"}, "there is no order 'explode'"),
        (Rules(True, 0), {}, "0 meters were disconnected in the last 24 hours, 0 is the limit"),
    ],
)
def test_interlocks_hold_it_back_before_anything_is_written_or_sent(
    sqlite_store: Store, rules: Rules, order: dict[str, str], words: str
) -> None:
    (meter,) = registered(sqlite_store)
    heard = Heard(simulated())
    whole = replace(Order(meter, DISCONNECT, "Wang", "moved out"), **order)  # type: ignore[arg-type]

    async def main() -> None:
        async with line_to(heard) as line:
            await obey(whole, line=line, access=memory_access(SECRETS), store=sqlite_store, rules=rules, clock=now)

    with pytest.raises(UsageError, match=words):
        asyncio.run(main())
    assert (heard.functions, rows(sqlite_store)) == ([], [])


def test_the_daily_limit_counts_what_may_have_happened_in_24_hours(store: Store) -> None:
    (meter,) = registered(store)
    device = simulated()
    heard = Heard(device)
    with store.write() as conn:
        old = commands.begin(conn, meter.key, DISCONNECT, "Li", "long ago", now() - timedelta(hours=25))
        commands.complete(conn, old, status="done", detail="", result="", frames=(), at=now())
    assert told(store, meter, heard, DISCONNECT, secrets={})["status"] == "not sent"
    assert told(store, meter, heard, DISCONNECT, secrets={"dlt645_password_2": bytes(3)})["status"] == "refused"
    heard.lose = frozenset({0x1C})
    assert told(store, meter, heard, DISCONNECT)["status"] == "unknown"
    with store.write() as conn:
        commands.begin(conn, meter.key, DISCONNECT, "Li", "was killed", now())
    heard.lose = frozenset()
    assert told(store, meter, heard, DISCONNECT)["status"] == "done"
    with pytest.raises(UsageError, match="3 meters were disconnected in the last 24 hours, 3 is the limit"):
        told(store, meter, heard, DISCONNECT)
    assert told(store, meter, heard, RECONNECT)["status"] == "done"


def test_two_at_once_do_not_pass_the_limit_together(store: Store) -> None:
    (meter,) = registered(store)

    async def main() -> list[dict[str, Any] | BaseException]:
        async with line_to(Heard(simulated())) as line:
            order = Order(meter, DISCONNECT, "Wang", "moved out")
            access, rules = memory_access(SECRETS), Rules(True, 2)
            orders = (
                obey(order, line=line, access=access, store=store, rules=rules, clock=now, settle_s=0.01)
                for _ in range(6)
            )
            return await asyncio.gather(*orders, return_exceptions=True)

    ended = asyncio.run(main())
    assert sum(isinstance(one, UsageError) for one in ended) == 4
    assert [one["status"] for one in ended if isinstance(one, dict)] == ["done", "done"]


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_command_is_completed_once_and_never_changed_or_deleted(store: Store) -> None:
    (meter,) = registered(store)
    with store.write() as conn:
        key = commands.begin(conn, meter.key, DISCONNECT, "Wang", "moved out", NOW)

    def end(**over: Any) -> Callable[[], None]:
        def do() -> None:
            with store.write() as conn:
                parts: dict[str, Any] = {"status": "done", "detail": "", "result": "", "frames": (), "at": NOW}
                commands.complete(conn, key, **{**parts, **over})

        return do

    def run(statement: Any) -> Callable[[], None]:
        def do() -> None:
            with store.write() as conn:
                conn.execute(statement)

        return do

    table = schema.command
    refused = [
        run(update(table).values(reason="because")),
        run(update(table).values(reason="because", ended_at=5)),
        run(update(table).values(asked_at=5, ended_at=5)),
        run(update(table).values(meter_key=meter.key, status="done")),
        run(delete(table)),
    ]
    for statement in refused:
        with pytest.raises(StoreError, match="completed once and then never changed"):
            statement()
    end(frames=(FrameRecord(NOW, ">", b"\x68"),))()
    refused += [end(status="refused"), run(update(table).values(result="x"))]
    if store.engine.dialect.name == "postgresql":
        refused.append(run(text("TRUNCATE command")))
    for statement in refused:
        with pytest.raises(StoreError, match="completed once and then never changed"):
            statement()
    (row,) = rows(store)
    assert (row.status, row.ended_at, row.frames) == ("done", NOW, (FrameRecord(NOW, ">", b"\x68"),))


def shows(frame: FrameRecord, secret: bytes) -> bool:
    """Whether a frame holds a secret of DL/T 645 as it goes over the wire: backwards, 33H added."""
    return bytes(byte + 0x33 & 0xFF for byte in secret[::-1]) in frame.data


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("action", [DISCONNECT, SET_CLOCK])
def test_no_recorded_frame_holds_the_password_not_even_its_echo(sqlite_store: Store, action: str, echo: bool) -> None:
    (meter,) = registered(sqlite_store)
    device = simulated()
    ended = told(sqlite_store, meter, Heard(device, echo=echo), action, echo=echo)
    assert ended["status"] == "done"
    frames = rows(sqlite_store)[0].frames
    assert len(frames) >= 4
    assert not any(shows(frame, secret) for frame in frames for secret in SECRETS.values())
    assert [frame["hex"] for frame in ended["frames"]] == [frame.data.hex().upper() for frame in frames]
    (masked,) = Scanner().feed(frames[0].data)
    position = 1 if action == DISCONNECT else 5
    assert masked.data[position : position + 3] == b"\xff\xff\xff"


def test_what_nobody_can_place_is_kept_until_it_is(store: Store) -> None:
    with store.write() as conn:
        first = put_unplaced(conn, UnplacedRow(NOW, "mqtt", "10.0.0.9", "no such title", b"\x00\x01"))
        second = put_unplaced(conn, UnplacedRow(NOW, "tcp", "10.0.0.8", "does not open", b"\xff" * 5000))
    with store.read() as conn:
        kept = unplaced(conn)
    assert [(row.key, row.channel, row.peer, row.reason) for row in kept] == [
        (first, "mqtt", "10.0.0.9", "no such title"),
        (second, "tcp", "10.0.0.8", "does not open"),
    ]
    assert kept[1].payload == b"\xff" * 5000
    with store.write() as conn:
        mark_replayed(conn, first, NOW)
    with store.read() as conn:
        assert [row.key for row in unplaced(conn)] == [second]
        assert unplaced(conn, after=second) == []
    with store.write() as conn:
        for number in range(5):
            last = put_unplaced(conn, UnplacedRow(NOW, "tcp", "", "", bytes((number,))), keep=3)
        assert put_unplaced(conn, UnplacedRow(NOW, "tcp", "", "again", bytes((4,))), keep=3) == last
    with store.read() as conn:
        kept = unplaced(conn)
    assert [(row.key, row.times) for row in kept] == [(last - 2, 1), (last - 1, 1), (last, 2)]


# -- the command line and the daemon -----------------------------------------------------------------------------------

_SITE = """
[site]
name = "t"
zone = "Asia/Shanghai"

[[line]]
name = "bus"
endpoint = "{bus}"
reply_s = 0.5
gap_s = 0.05

[[line]]
name = "ip"
endpoint = "{ip}"

[vault]
master_key_file = "master.key"

[control]
enabled = true
"""
_MODEL = """
source = "test"
protocol = "dlms"
register_wrap = "1000000"
max_power_kw = "20"

[dlms]
interface = "wrapper"
client = 16
authentication = "lls"
"""


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[tuple[Path, Dlt645Meter, Any]]:
    """A site with a DL/T 645 meter A and a DLMS meter D behind ports, their passwords in the vault."""
    device, clock = simulated(clock_error_s=120), RunningClock(time.time())
    bus = TcpLine(Bus([("A", device)], clock), "127.0.0.1", 0)
    await bus.start()
    cosem = dlms_meter(clock, DlmsSpec(clients=(DlmsClient(16, "lls", b"Zq7-pass"),)))
    ip = await serve_dlms_tcp(cosem)
    path = folder / "site.toml"
    path.write_text(_SITE.format(bus=bus.endpoint(), ip=ip.endpoint()))
    (folder / "meters").mkdir()
    (folder / "meters" / "lls.toml").write_text(_MODEL)
    table = [f"A,dlt645-2007,{ADDRESS},bus,dlt645-2007-1ph", "D,dlms,1,ip,lls"]
    (folder / "meters.csv").write_text("\n".join(("meter_id,protocol,address,line,model", *table, "")))
    site = load_site(path)
    store = open_store(site.store_url)
    import_files(store, site, meters=folder / "meters.csv", check_address=lambda p, a: PROTOCOLS[p].check_address(a))
    store.close()
    new_master_key(folder / "master.key")
    secrets = folder / "secrets.csv"
    secrets.write_text(
        "meter_id,name,value\nA,dlt645_password_2,813572\nA,dlt645_password_4,649137\nD,password,text:Zq7-pass\n"
    )
    secrets.chmod(0o600)
    assert verb(folder, "keys", "import", str(secrets)).exit_code == 0
    try:
        yield path, device, cosem
    finally:
        await ip.stop()
        await bus.stop()


def verb(folder: Path, *words: str, given: str | None = None) -> Result:
    at = 2 if words[0] == "keys" else 1
    site = ["--site", str(folder / "site.toml")]
    return CliRunner().invoke(cli, [*words[:at], *site, *words[at:]], input=given)


async def said(folder: Path, *words: str, given: str | None = None) -> Result:
    """A verb, run beside the meters' loop."""
    return await asyncio.to_thread(verb, folder, *words, given=given)


async def told_as_json(folder: Path, *words: str) -> dict[str, Any]:
    result = await said(folder, *words, "--json", "--yes")
    assert result.exit_code == 0, result.output + repr(result.exception)
    ended: dict[str, Any] = json.loads(result.stdout)
    return ended


async def everything(folder: Path, device: Dlt645Meter, cosem: Any) -> None:
    """Both meters: state, disconnect, reconnect, clock; and what is listed afterwards."""
    for meter, ready in (("A", "ready to be connected by hand"), ("D", "connected")):
        assert (await told_as_json(folder, "relay", meter))["result"].startswith("connected")
        ended = await told_as_json(folder, "relay", meter, "disconnect", "--reason", "moved out")
        assert (ended["status"], ended["result"].split(" (")[0]) == ("done", "disconnected")
        ended = await told_as_json(folder, "relay", meter, "reconnect", "--reason", "new contract")
        assert ended["status"] == "done"
        assert ended["result"].startswith(ready)
        assert (await told_as_json(folder, "clock", meter, "--set"))["status"] == "done"
        shown = await said(folder, "clock", meter)
        assert abs(int(shown.stdout.split()[-3])) <= 2
    assert not device.relay.told_open
    assert abs(device.clock.local(int(time.time())) - time.time() - 28_800) <= 2
    listed = json.loads((await said(folder, "commands", "--json")).stdout)
    assert [(row["meter"], row["action"], row["status"]) for row in reversed(listed)] == [
        (meter, action, "done") for meter in "AD" for action in (DISCONNECT, RECONNECT, SET_CLOCK)
    ]
    assert all(row["asked_by"].endswith("on the command line") for row in listed)
    clock_a = next(row for row in listed if (row["meter"], row["action"]) == ("A", SET_CLOCK))
    assert clock_a["reason"] in ("its clock was +119 s off", "its clock was +120 s off")
    shown = await said(folder, "commands", "A")
    assert "moved out" in shown.stdout
    frames = [bytes.fromhex(frame["hex"]) for row in listed for frame in row["frames"]]
    assert len(frames) > 20
    assert not any(b"Zq7-pass" in frame for frame in frames)
    assert not any(shows(FrameRecord(NOW, ">", frame), secret) for frame in frames for secret in SECRETS.values())


async def stopped(api: LocalApi, daemon: Daemon) -> None:
    await api.close()
    await daemon.stop()
    await asyncio.sleep(0.05)  # the last request's connection ends by itself


def test_without_a_daemon_the_line_is_opened_here(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as (_, device, cosem):
            await everything(tmp_path, device, cosem)

    asyncio.run(main())


def test_through_the_running_daemon(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as (path, device, cosem):
            daemon = Daemon(load_site(path))
            api = LocalApi(daemon)
            await api.start()
            await daemon.start()
            opened = daemon.lines["bus"].stats
            try:
                refused = await said(tmp_path, "keys", "rotate-master", str(tmp_path / "new.key"))
                assert "a head-end of this site is running -> stop it first" in str(refused.exception)
                assert not (tmp_path / "new.key").exists()
                await everything(tmp_path, device, cosem)
                assert opened.conversations > 6
            finally:
                await stopped(api, daemon)

    asyncio.run(main())


def test_a_meter_that_lets_nobody_in_has_refused(tmp_path: Path) -> None:
    """A wrong DLMS password: the association is refused, at the order and when looking afterwards."""

    async def main() -> None:
        async with town(tmp_path) as (_, _device, _cosem):
            secrets = tmp_path / "secrets.csv"
            secrets.write_text("meter_id,name,value\nD,password,text:Xk3-wrong\n")
            assert (await said(tmp_path, "keys", "import", str(secrets))).exit_code == 0
            result = await said(tmp_path, "relay", "D", "disconnect", "--reason", "moved out", "--yes", "--json")
            ended = json.loads(result.stdout)
            assert (result.exit_code, ended["status"], ended["result"]) == (1, "refused", "")
            assert not any(b"Xk3-wrong".hex() in frame["hex"].lower() for frame in ended["frames"])
            assert "Xk3" not in result.output

    asyncio.run(main())


def test_a_person_types_the_meters_id_and_a_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as (_, device, _cosem):
            refused = await said(tmp_path, "relay", "A", "disconnect", "--yes")
            assert "a reason is needed to disconnect" in str(refused.exception)
            words = ("relay", "A", "disconnect", "--reason", "moved out")
            refused = await said(tmp_path, *words, given="B\n")
            assert "that is not A: nothing was sent" in str(refused.exception)
            assert not device.relay.told_open
            assert (await said(tmp_path, *words, given="A\n")).exit_code == 0
            assert device.relay.told_open

    asyncio.run(main())


@pytest.mark.parametrize("daemon", [False, True])
def test_a_site_that_does_not_allow_it_tells_no_meter(tmp_path: Path, daemon: bool) -> None:
    async def main() -> None:
        async with town(tmp_path) as (path, device, _cosem):
            path.write_text(path.read_text().replace("enabled = true", "enabled = false"))
            running = Daemon(load_site(path)) if daemon else None
            api = LocalApi(running) if running else None
            if running and api:
                await api.start()
                await running.start()
            refused = await said(tmp_path, "relay", "A", "disconnect", "--reason", "moved out", "--yes")
            assert "this site tells no meter to do anything" in str(refused.exception)
            assert not device.relay.told_open
            assert (await told_as_json(tmp_path, "relay", "A"))["result"] == "connected"
            if running and api:
                await stopped(api, running)

    asyncio.run(main())


def test_an_order_without_an_end_is_shown_as_unknown(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as (path, _device, _cosem):
            store = open_store(load_site(path).store_url)
            with store.write() as conn:
                commands.begin(conn, 1, DISCONNECT, "Wang", "was killed", now() - timedelta(hours=1))
                commands.begin(conn, 1, DISCONNECT, "Wang", "under way", now())
            store.close()
            listed = json.loads((await said(tmp_path, "commands", "--json")).stdout)
            assert [row["status"] for row in listed] == ["asked", "unknown"]

    asyncio.run(main())


def test_an_access_that_does_not_open_is_told_before_anything_is_sent(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    heard = Heard(simulated())

    class Shut(dict[str, bytes]):
        def get(self, name: str, default: Any = None) -> Any:
            raise NoAccess("the secrets of meter M000001 can't be opened: there is no master key")

    async def main() -> dict[str, Any]:
        async with line_to(heard) as line:
            access = Access(Shut(), memory_access().counter, {})
            order = Order(meter, DISCONNECT, "Wang", "moved out")
            return await obey(order, line=line, access=access, store=sqlite_store, rules=ALLOWED, clock=now)

    ended = asyncio.run(main())
    assert (ended["status"], heard.functions) == ("not sent", [])
    assert "no master key" in ended["detail"]
