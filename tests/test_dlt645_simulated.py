"""Our driver and commands against the simulated meters, which were written by another hand from the same facts.

Where both were wrong in the same way this would not show; it shows where they disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from headend.conversation import Conversation
from headend.errors import NoAnswer, Refused
from headend.model import CurveSpec, Harvest, Meter, MeterModel, ReadJob, ReadKind, Source, Window
from headend.protocols import PROTOCOLS, dlt645
from headend.protocols.dlt645 import command, command_1997
from headend.protocols.dlt645.auth import Auth, Password
from headend.protocols.dlt645.command import Control
from simulators.clock import SettableClock
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_frame import take
from simulators.dlt645_meter import Dlt645Meter
from simulators.dlt645_spec import MeterSpec
from simulators.household import Household, Load, Register
from tests.dlt645_wire import BEIJING, converse

ADDRESS = "240101000001"
NOW = datetime(2026, 3, 18, 10, 7, 30, tzinfo=BEIJING)
AUTH = Auth(2, "000000", "00000001")
KEEPER = Auth(4, "000000")
MODEL = MeterModel("sim", "dlt645-2007", Decimal(1_000_000), Decimal(60), 4, CurveSpec("0610", 900, 62), 62)

Simulated = Dlt645Meter | Dlt645Meter1997


def make(version: str = "2007", **settings: Any) -> tuple[Simulated, SettableClock]:
    clock = SettableClock(NOW.timestamp())
    register = Register(Household(Load(seed=99, daily_wh=9_000)), 123_456_789)
    if version == "1997":
        return Dlt645Meter1997(MeterSpec(address=ADDRESS, form="1997", **settings), register, clock), clock
    return Dlt645Meter(MeterSpec(address=ADDRESS, **settings), register, clock), clock


def line(meter: Simulated) -> Any:
    """The meter as what answers a request's bytes."""

    def answer(request: bytes) -> Iterable[bytes]:
        buffer = bytearray(request)
        asked = take(buffer)
        assert asked is not None
        reply = meter.answer(asked.address, asked.control, asked.data)
        return [reply] if reply else []

    return answer


def device(version: str) -> Meter:
    return Meter(1, "S", ADDRESS, f"dlt645-{version}", "line", MODEL)


def read(meter: Simulated, version: str, kind: ReadKind, *names: str, window: Window | None = None) -> Harvest:
    of = device(version)
    conversation = PROTOCOLS[of.protocol].read(of, ReadJob(of, kind, names, window), now=NOW.astimezone(UTC))
    harvest: Harvest = converse(conversation, line(meter))
    return harvest


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2007", "1997"])
def test_both_versions_tell_the_same_household(version: str) -> None:
    names = ("import_kwh", *(f"import_kwh_t{rate}" for rate in range(1, 5)), "clock_offset_s", "import_max_kw")
    found = {r.quantity: r for r in read(make(version)[0], version, ReadKind.REGISTERS, *names).readings}
    assert set(found) == set(names)
    total = found["import_kwh"].value
    assert abs(sum(found[name].value for name in names[1:5]) - total) <= Decimal("0.05")
    assert found["clock_offset_s"].value == 0
    other = read(make("2007")[0], "2007", ReadKind.REGISTERS, "import_kwh").readings[0].value
    assert total == other
    when = found["import_max_kw"].occurred_at
    assert when is not None
    assert NOW - timedelta(days=32) < when <= NOW


@pytest.mark.parametrize("block_end", [False, True])
def test_1997_blocks_with_and_without_their_end(block_end: bool) -> None:
    harvest = read(make("1997", block_end=block_end)[0], "1997", ReadKind.REGISTERS, "import_kwh", "import_kwh_t1")
    assert len(harvest.readings) == 2
    assert harvest.faults == ()


@pytest.mark.parametrize("version", ["2007", "1997"])
def test_discovery_and_detection(version: str) -> None:
    meter, _ = make(version)
    assert converse(PROTOCOLS[f"dlt645-{version}"].discover(), line(meter)) == ADDRESS
    assert converse(dlt645.detect(), line(meter)) == (version, ADDRESS)


def test_settlements_are_those_the_meter_made() -> None:
    window = Window(datetime(2025, 12, 31, tzinfo=UTC), NOW.astimezone(UTC))
    harvest = read(make()[0], "2007", ReadKind.SETTLEMENT, "import_kwh", "import_kwh_t1", window=window)
    found = [(r.at.astimezone(BEIJING), r.value) for r in harvest.readings if r.quantity == "import_kwh"]
    assert [at for at, _ in found] == [datetime(2026, month, 1, tzinfo=BEIJING) for month in (3, 2, 1)]
    assert {r.source for r in harvest.readings} == {Source.SETTLEMENT}
    for at, value in found:  # the same register, read by a meter whose present is that midnight
        meter, clock = make()
        clock.set(at.timestamp())
        assert read(meter, "2007", ReadKind.REGISTERS, "import_kwh").readings[0].value == value


# --- commands -----------------------------------------------------------------------------------------------------


def obey(meter: Simulated, conversation: Conversation[command.Done]) -> command.Done:
    return converse(conversation, line(meter))


def relay(meter: Simulated) -> command.Relay:
    return converse(command.confirm_relay(ADDRESS), line(meter))


def order(
    kind: Control, auth: Auth = AUTH, deadline: datetime = NOW + timedelta(hours=1)
) -> Conversation[command.Done]:
    return command.control(ADDRESS, kind, auth, deadline=deadline)


def test_trip_and_close() -> None:
    meter, _ = make()
    assert relay(meter).closed
    assert obey(meter, order(Control.TRIP)).meter == ADDRESS
    assert relay(meter).open
    obey(meter, order(Control.CLOSE))
    assert relay(meter).closed
    obey(meter, order(Control.KEEP_SUPPLY_ON))
    with pytest.raises(Refused):
        obey(meter, order(Control.TRIP))
    obey(meter, order(Control.KEEP_SUPPLY_OFF))
    obey(meter, order(Control.TRIP))


def test_an_acknowledged_order_is_not_yet_a_relay_that_moved() -> None:
    meter, _ = make(relay="stuck")
    obey(meter, order(Control.TRIP))
    assert relay(meter).closed


def test_an_order_past_its_deadline_is_refused() -> None:
    with pytest.raises(Refused):
        obey(make()[0], order(Control.TRIP, deadline=NOW - timedelta(seconds=1)))


def test_esam_and_a_wrong_password_are_refused_alike_and_told_so() -> None:
    for meter, auth in ((make(esam=True)[0], AUTH), (make()[0], Auth(2, "111111"))):
        with pytest.raises(Refused, match=r"level 02 is wrong.*ESAM"):
            obey(meter, order(Control.TRIP, auth))


def test_the_clock_is_set_by_broadcast() -> None:
    meter, _ = make(clock_error_s=120)
    assert read(meter, "2007", ReadKind.CLOCK).readings[0].value == 120
    done = obey(meter, command.broadcast_time(NOW, "Asia/Shanghai"))
    assert (done.meter, done.acknowledged) == ("999999999999", False)
    assert read(meter, "2007", ReadKind.CLOCK).readings[0].value == 0


def test_a_parameter_is_written_and_read_back() -> None:
    meter, _ = make()
    obey(meter, command.write(ADDRESS, "04000B01", bytes.fromhex("0115"), KEEPER))
    data = converse(dlt645.read_item(ADDRESS, "04000B01"), line(meter))
    assert [v.value for v in dlt645.decode_item("04000B01", data)] == ["15 01"]


def test_a_password_is_changed() -> None:
    meter, _ = make()
    obey(meter, command.change_password(ADDRESS, AUTH, Auth(2, "123456")))
    with pytest.raises(Refused):
        obey(meter, order(Control.TRIP))
    obey(meter, order(Control.TRIP, Auth(2, "123456")))


def test_an_address_is_written_only_with_the_key_pressed() -> None:
    meter, _ = make(needs_key=True)
    with pytest.raises(NoAnswer, match="not known"):
        obey(meter, command.write_address("000000000007"))
    meter.press_key()
    assert obey(meter, command.write_address("000000000007")).meter == "000000000007"
    assert converse(PROTOCOLS["dlt645-2007"].discover(), line(meter)) == "000000000007"


def test_a_freeze_makes_an_entry() -> None:
    meter, _ = make()
    obey(meter, command.freeze(ADDRESS))
    data = converse(dlt645.read_item(ADDRESS, "05010001"), line(meter))
    assert [v.value for v in dlt645.decode_item("05010001", data)] == ["2026-03-18 10:07"]


def test_clearing() -> None:
    meter, _ = make()
    obey(meter, command.clear_demand(ADDRESS, KEEPER))
    (demand,) = read(meter, "2007", ReadKind.REGISTERS, "import_max_kw").readings
    assert demand.value == 0
    obey(meter, command.clear_meter(ADDRESS, AUTH))
    assert read(meter, "2007", ReadKind.REGISTERS, "import_kwh").readings[0].value == 0
    (cleared, *_) = converse(dlt645.read_events(ADDRESS, "033001"), line(meter))
    assert cleared.start == NOW
    assert cleared.operator == "00000001"


def test_events_are_read_and_cleared() -> None:
    meter, _ = make()
    assert isinstance(meter, Dlt645Meter)
    start = int(NOW.timestamp()) - 7_200
    for late in (0, 1_800):
        meter.happen("cover_open", start + late, start + late + 60)
    found = converse(dlt645.read_events(ADDRESS, "03300D"), line(meter))
    assert [(r.start, r.end) for r in found] == [
        (NOW - timedelta(minutes=90), NOW - timedelta(minutes=89)),
        (NOW - timedelta(hours=2), NOW - timedelta(minutes=119)),
    ]
    obey(meter, command.clear_events(ADDRESS, AUTH))
    assert converse(dlt645.read_events(ADDRESS, "03300D"), line(meter)) == []


def test_a_write_of_1997() -> None:
    meter, _ = make("1997", clock_error_s=3_600)
    meter.press_key()
    local = NOW.astimezone(BEIJING)
    time = bytes.fromhex(f"{local:%S%M%H}")
    password = _password_1997(meter)
    obey(meter, command_1997.write(ADDRESS, "C011", time, password))
    assert read(meter, "1997", ReadKind.CLOCK).readings[0].value == 0
    with pytest.raises(Refused, match="wrong password"):
        obey(meter, command_1997.write(ADDRESS, "C011", time, Password("99999999")))


def _password_1997(meter: Simulated) -> Password:
    """PA 04, then the six digits, as this simulator lays it out."""
    digits = dict(meter.spec.passwords)[4]
    return Password(f"{digits}04")
