"""The canonical MQTT protocol: what its messages say, and that nothing wrong is taken for right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.errors import BadFrame, UsageError
from headend.mqtt.batch import NOT_TAKEN, Column, EventRow, ReadKindWord, Rejected, State
from headend.mqtt.canonical import CANONICAL, decode
from headend.mqtt.columns import column, quantity_of_obis
from headend.mqtt.dialect import Dialect, concentrator_of, matches, subscriptions
from headend.protocols.hes_mqtt.messages import decode_message, encode_ack, encode_command, encode_raw

VECTORS = json.loads((Path(__file__).parent / "vectors" / "mqtt_canonical.json").read_text("utf-8"))["messages"]
NOW = datetime.fromtimestamp(1_764_000_100, UTC)


def said(kind: str, message: dict[str, Any] | bytes, now: datetime = NOW) -> Any:
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    return decode(f"hes/v1/C0001/up/{kind}", payload, now)


def reads(**changes: Any) -> dict[str, Any]:
    return {**VECTORS["reads"], **changes}


def test_the_example_of_reads() -> None:
    batch = said("reads", VECTORS["reads"])
    assert (batch.concentrator, batch.boot, batch.seq) == ("C0001", 7, 4711)
    assert (batch.kind, batch.step_s, batch.rejected) == (ReadKindWord.INTERVAL, 900, ())
    assert batch.columns == (Column("import_kwh", 100), Column("import_kwh_t1", 100))
    first, second = batch.meters
    assert first.address == "000123456789"
    assert list(first.times) == [1_764_000_000, 1_763_999_100]
    assert [list(row) for row in first.values] == [[1_234_567, 345_678], [1_234_541, 345_660]]
    assert (list(second.bits), [list(row) for row in second.values]) == ([4], [[None, None]])
    assert batch.sent_at == datetime.fromtimestamp(1_764_000_030, UTC)


def test_the_examples_of_events_state_and_answers() -> None:
    events = said("events", VECTORS["events"]).events
    assert events == (
        EventRow("000123456789", 1_763_990_000, "cover_open", "start", {}),
        EventRow("000123456789", 1_763_990_500, "phase_loss", "end", {"phase": "B"}),
    )
    state = said("state", VECTORS["state"])
    assert state.state == State(online=True, firmware="2.1.0", meters=186, backlog=0)
    answer = said("rsp", VECTORS["rsp"])
    assert (answer.boot, answer.seq, answer.meters) == (7, 4711, ())  # counted; links read it
    assert said("raw", VECTORS["raw"]).concentrator == "C0001"


def test_what_goes_down_is_what_the_examples_say() -> None:
    ack, cmd, raw = VECTORS["ack"], VECTORS["cmd"], VECTORS["raw"]
    assert json.loads(encode_ack("C0001", "h-100", ack["ts"], 7, 4711, [4702])) == ack
    made = encode_command("C0001", "h-99", cmd["ts"], "read", "7c1e", cmd["exp"], cmd["m"], cmd["args"])
    assert json.loads(made) == cmd
    frame = encode_raw("C0001", "h-101", raw["ts"], "rs485-1", "dlt645", bytes.fromhex(raw["hex"]), 2000)
    assert {k: v for k, v in json.loads(frame).items() if v is not None} == raw


def test_rows_without_quality_bits_and_unknown_fields_are_taken() -> None:
    message = reads(meters=[{"m": "1", "r": [[1_764_000_000, [1, 2]]], "new": 1}], extra={"a": 1})
    (meter,) = said("reads", message).meters
    assert list(meter.bits) == [0]


def test_bad_rows_are_rejected_each_with_its_reason_and_the_rest_is_taken() -> None:
    late = 1_764_000_100 + 601
    rows = [[late, [1, 2], 0], [946_684_799, [1, 2], 0], [1_764_000_000, [1], 0], [1_764_000_000, [7, 8], 0]]
    batch = said("reads", reads(meters=[{"m": "1", "r": rows}, {"m": "2", "r": [[1_764_000_000, [3, 4], 0]]}]))
    assert [list(meter.times) for meter in batch.meters] == [[1_764_000_000], [1_764_000_000]]
    assert batch.rejected == (
        Rejected("1", f"dated in the future: {datetime.fromtimestamp(late, UTC):%Y-%m-%d %H:%M:%S} UTC"),
        Rejected("1", "dated before 2000: 1999-12-31 23:59:59 UTC"),
        Rejected("1", "a row of 1 values under 2 columns"),
    )


def test_ten_minutes_ahead_is_not_yet_the_future() -> None:
    batch = said("reads", reads(meters=[{"m": "1", "r": [[1_764_000_700, [1, 2], 0]]}]))
    assert (len(batch.meters[0].times), batch.rejected) == (1, ())


@pytest.mark.parametrize(
    ("col", "reason"),
    [
        (["9-9:1.8.0", "kWh", 0], "no quantity for OBIS '9-9:1.8.0'"),
        (["1-0:1.8.0", "furlong", 0], "unknown unit 'furlong'"),
        (["1-0:1.8.0", "V", 0], "import_kwh is not measured in 'V'"),
        (["1-0:1.8.0", "kWh", -12], "unknown scaler -12 of 1-0:1.8.0"),
        (["1-0:1.8.0", "kWh", 10], "unknown scaler 10 of 1-0:1.8.0"),
        (["1-0:1.8.1", "kWh", 0], "OBIS 1-0:1.8.1 stands twice"),
    ],
)
def test_a_column_that_means_nothing_keeps_its_place_and_says_why(col: list[Any], reason: str) -> None:
    batch = said("reads", reads(cols=[["1-0:1.8.1", "Wh", -1], col]))
    assert batch.columns == (Column("import_kwh_t1", 1), NOT_TAKEN)
    assert [one.reason.split(" ->")[0] for one in batch.rejected] == [reason]
    assert len(batch.meters) == 2


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\x00",
        b"\xff\xfe\x00",
        b'{"v":1,"type":"reads","con":"\xff"}',
        b"[]",
        b'"reads"',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        {},
        reads(v=2),
        reads(type="nonsense"),
        reads(boot=-1),
        reads(seq="4711"),
        reads(seq=None),
        reads(boot=True),
        reads(kind="hourly"),
        reads(cols=[]),
        reads(meters=[]),
        reads(period=0),
        reads(period=700),
        reads(cols=[["1-0:1.8.0", "kWh"]]),
        reads(cols=[["1-0:1.8.0", "kWh", 1.5]]),
        reads(meters=[{"m": "1"}]),
        reads(meters=[{"m": 1, "r": []}]),
        reads(meters=[{"m": "1", "r": [[1_764_000_000, [1.5, 2], 0]]}]),
        reads(meters=[{"m": "1", "r": [[1_764_000_000, ["1", 2], 0]]}]),
        reads(meters=[{"m": "1", "r": [[1_764_000_000, [True, 2], 0]]}]),
        reads(meters=[{"m": "1", "r": [[1_764_000_000.0, [1, 2], 0]]}] * 2001),
        VECTORS["ack"],
        VECTORS["cmd"],
        VECTORS["events"],
    ],
)
def test_what_is_malformed_is_refused_in_one_line(message: dict[str, Any] | bytes) -> None:
    with pytest.raises(BadFrame) as told:
        said("reads", message)
    assert len(str(told.value)) < 300
    assert "\n" not in str(told.value)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        said("reads", payload)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(["v", "con", "mid", "boot", "seq", "ts", "kind", "period", "cols", "meters"]),
)
def test_any_value_in_any_field_is_taken_or_refused(value: Any, key: str) -> None:
    try:
        batch = said("reads", reads(**{key: value}))
    except BadFrame:
        return
    assert len(batch.columns) >= 1


@pytest.mark.parametrize(
    ("name", "unit", "scaler", "factors"),
    [
        ("import_kwh", "kWh", -2, (100, 1)),
        ("import_kwh", "Wh", 0, (10, 1)),
        ("import_kwh", "Wh", -1, (1, 1)),
        ("import_kwh", "Wh", -3, (1, 100)),
        ("import_kwh", "MWh", 0, (10_000_000, 1)),
        ("voltage_v_a", "V", -1, (1_000, 1)),
        ("voltage_v_a", "kV", -3, (10_000, 1)),
        ("current_a", "mA", 0, (10, 1)),
        ("power_kw", "W", 0, (10, 1)),
        ("power_factor", "", -3, (10, 1)),
        ("frequency_hz", "Hz", -2, (100, 1)),
        ("import_kvarh", "varh", 1, (100, 1)),
    ],
)
def test_units_and_scalers_are_exact(name: str, unit: str, scaler: int, factors: tuple[int, int]) -> None:
    name = "current_a_a" if name == "current_a" else name
    found = column(name, unit, scaler)
    assert (found.units_factor, found.units_divisor) == factors


def test_a_unit_of_another_quantity_is_refused() -> None:
    with pytest.raises(UsageError, match="not measured in"):
        column("import_kwh", "varh", 0)


def test_short_and_long_obis_codes() -> None:
    for text in ("1-0:1.8.0", "1.8.0", "1-0:1.8.0.255", "1-0:1.8.0*255", "01-00:01.08.00"):
        assert quantity_of_obis(text) == "import_kwh", text
    for text in ("1-0:1.8.0.1", "1-1:1.8.0", "1.8", "", "x", "1-0:1.8.0*254", "1" * 400):
        assert quantity_of_obis(text) is None, text


def test_filters_name_the_concentrator() -> None:
    assert isinstance(CANONICAL, Dialect)
    wanted = list(subscriptions(CANONICAL.filters[:1], ["C0001", "C0002"], "b07"))
    assert wanted == ["b07/hes/v1/C0001/up/reads", "b07/hes/v1/C0002/up/reads"]
    assert list(subscriptions(CANONICAL.filters[:1], ["*"])) == ["hes/v1/+/up/reads"]
    assert concentrator_of("hes/v1/{concentrator}/up/reads", "hes/v1/C7/up/reads") == "C7"
    assert concentrator_of("hes/v1/{concentrator}/up/reads", "hes/v1/C7/up/events") is None
    assert concentrator_of("a/+/{concentrator}/#", "a/b/c/d/e") == "c"
    assert concentrator_of("a/#", "a/b") == ""
    assert matches("a/+", "a/b")
    assert not matches("a/+", "a/b/c")
    assert not matches("a/b/c", "a/b")


def test_typed_messages_of_every_kind() -> None:
    for name, message in VECTORS.items():
        assert decode_message(json.dumps(message).encode()).con == "C0001", name
