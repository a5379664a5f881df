"""Foreign formats against documented payloads (tests/vectors/mqtt_foreign.json names the source of each)."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.mqtt_mapping import SHIPPED_MAPPINGS, load_mapping, load_mappings
from headend.civil import from_epoch_s
from headend.errors import BadFrame, ConfigError
from headend.mqtt.batch import Batch, State
from headend.mqtt.dialect import Dialect, concentrator_of
from headend.quantities import from_units

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "mqtt_foreign.json").read_text(encoding="utf-8")
)
SHIPPED = load_mappings([SHIPPED_MAPPINGS])
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
QUALITY = {0: "", 1: "estimated", 2: "suspect", 8: "clock doubtful"}


def said(batch: Batch) -> set[tuple[str, str, str, str, str]]:
    """Every value of a batch: meter, instant, quantity, value, quality."""
    found = [
        (rows.address, from_epoch_s(at).isoformat(), column.quantity, _text(value), QUALITY[bits])
        for rows in batch.meters
        for at, row, bits in zip(rows.times, rows.values, rows.bits, strict=True)
        for column, value in zip(batch.columns, row, strict=True)
        if value is not None
    ]
    assert len(set(found)) == len(found), "a value stands twice"
    return set(found)


def _text(units: int) -> str:
    text = format(from_units(units), "f")
    return text.rstrip("0").rstrip(".")


def rejected(batch: Batch) -> list[tuple[str, str]]:
    return [(one.address, one.reason) for one in batch.rejected]


def listens(dialect: Dialect, topic: str) -> bool:
    return any(concentrator_of(one, topic) is not None for one in dialect.filters)


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{i}-{v['mapping']}" for i, v in enumerate(VECTORS)])
def test_documented_payloads_mean_what_they_say(vector: dict[str, Any]) -> None:
    dialect = SHIPPED[vector["mapping"]]
    payload = vector["payload"]
    data = payload.encode() if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False).encode()
    assert listens(dialect, vector["topic"])
    batch = dialect.decode(vector["topic"], data, datetime.fromisoformat(vector["received"]))
    named = next(n for f in dialect.filters if (n := concentrator_of(f, vector["topic"])) is not None)
    assert (named or batch.concentrator) == vector["concentrator"]
    assert not (named and batch.concentrator) or named == batch.concentrator
    expected = {(m, at, q, x.removesuffix(".0"), *(how or [""])) for m, at, q, x, *how in vector["values"]}
    assert said(batch) == expected
    assert rejected(batch) == [tuple(one) for one in vector["rejected"]]
    if vector["reply"] is None:
        assert dialect.name.startswith("acrel") or batch.reply == ("", b"")
    else:
        assert (batch.reply[0], json.loads(batch.reply[1])) == (vector["reply"][0], vector["reply"][1])


def test_every_shipped_mapping_has_a_vector() -> None:
    assert {vector["mapping"] for vector in VECTORS} == set(SHIPPED)


# -- nothing a sender writes does more than be refused -----------------------------------------------------------------

TOPICS = sorted({(vector["mapping"], vector["topic"]) for vector in VECTORS})
WORDS = """
    timestamp values tags name value error params time body dev val quality batch metrics device_id gwSN meterSN type
    data utc method msgid sn payload compress encrypt deviceInfo devEui object fPort ts properties key unit
    location_code id media ENERGY SML Time EPI import_kwh Total
"""
KEYS = WORDS.split()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["report_regular", "sub_elemeters", "up", "electricity", "1e400", "9" * 60, "20221008105559"])
    | st.sampled_from([1650006388943, 1e300, 10**30, -1, "2019-03-01T09:30:08.230+0800", "AI", "kWh", "login"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(pair=st.sampled_from(TOPICS), value=JSON)
def test_any_json_is_a_batch_or_a_bad_frame(pair: tuple[str, str], value: Any) -> None:
    _survives(SHIPPED[pair[0]], pair[1], json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(vector=st.sampled_from(VECTORS), data=st.data())
def test_a_damaged_vector_is_a_batch_or_a_bad_frame(vector: dict[str, Any], data: st.DataObject) -> None:
    """A true payload with one value, anywhere in it, replaced by anything."""
    payload = vector["payload"]
    root = json.loads(payload) if isinstance(payload, str) else json.loads(json.dumps(payload))
    node = root
    while isinstance(node, dict | list) and node:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(JSON)
            break
        node = node[key]
    _survives(SHIPPED[vector["mapping"]], vector["topic"], json.dumps(root).encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(pair=st.sampled_from(TOPICS), payload=st.binary(max_size=60))
def test_any_bytes_are_a_batch_or_a_bad_frame(pair: tuple[str, str], payload: bytes) -> None:
    _survives(SHIPPED[pair[0]], pair[1], payload)


def _survives(dialect: Dialect, topic: str, payload: bytes) -> None:
    try:
        batch = dialect.decode(topic, payload, NOW)
    except BadFrame:
        return
    for rows in batch.meters:
        assert rows.address
        assert len(rows.times) == len(rows.values) == len(rows.bits)
        assert all(len(row) == len(batch.columns) for row in rows.values)
        assert all(v is None or abs(v) < 2**63 for row in rows.values for v in row)
    assert len(batch.rejected) <= 101
    json.dumps([[one.address, one.reason] for one in batch.rejected]).encode()
    json.dumps([one.data for one in batch.events])


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\xfe", b"nothing", b'{"a": NaN}', b'{"a": 1e99999999999999999999}', b"[" * 100_000, b"9" * 5000],
)
def test_no_json_is_a_bad_frame_with_a_reason(payload: bytes) -> None:
    with pytest.raises(BadFrame, match="payload"):
        SHIPPED["neuron"].decode("/neuron/a/b/c", payload, NOW)


# -- Acrel overseas ----------------------------------------------------------------------------------------------------

TIME = {"country": "China", "utc": "8", "time": "20221008105600", "gwSN": "12209263660002", "type": "time"}
DATA = {
    "type": "data",
    "gwSN": "12209263660002",
    "meterSN": "4711",
    "time": "20221008110000",
    "EPI": "345.67",
    "Ua": 231,
}


def overseas(command: str, body: dict[str, Any], dialect: Dialect) -> Batch:
    return dialect.decode(f"/gw/acrelHW/ADW300/{command}/12209263660002", json.dumps(body).encode(), NOW)


def test_acrel_takes_local_times_by_the_zone_a_gateway_told() -> None:
    dialect = load_mapping(SHIPPED_MAPPINGS / "acrel-overseas.toml")
    before = overseas("data", DATA, dialect)
    assert said(before) == set()
    assert rejected(before) == [("4711", "2022-10-08 11:00:00 is a local time, and its zone is not known")]
    overseas("time", TIME, dialect)
    after = overseas("data", DATA, dialect)
    assert said(after) == {
        ("4711", "2022-10-08T03:00:00+00:00", "import_kwh", "345.67", ""),
        ("4711", "2022-10-08T03:00:00+00:00", "voltage_v_a", "231", ""),
    }
    assert (after.concentrator, rejected(after)) == ("12209263660002", [])
    assert json.loads(after.reply[1]) == {"type": "data", "res": 1}


def test_acrel_sends_again_what_an_outage_held_back_with_its_own_times() -> None:
    dialect = load_mapping(SHIPPED_MAPPINGS / "acrel-overseas.toml")
    overseas("time", {**TIME, "utc": "5.5"}, dialect)
    rows = [
        {"meterSN": "1", "time": "20221008110000", "EPI": "1"},
        {"meterSN": "2", "time": "20221008111500", "EPI": 2},
    ]
    batch = overseas("hstdata", {"type": "hstdata", "gwSN": "12209263660002", "data": rows}, dialect)
    assert said(batch) == {
        ("1", "2022-10-08T05:30:00+00:00", "import_kwh", "1", ""),
        ("2", "2022-10-08T05:45:00+00:00", "import_kwh", "2", ""),
    }
    assert batch.reply == ("/server/acrelHW/ADW300/hstdata/12209263660002", b'{"type":"hstdata","res":1}')


def test_acrel_tells_a_time_only_where_the_zone_is_known() -> None:
    dialect = load_mapping(SHIPPED_MAPPINGS / "acrel-overseas.toml")
    batch = overseas("time", {**TIME, "utc": "east"}, dialect)
    assert json.loads(batch.reply[1]) == {"type": "time", "res": 0}
    assert rejected(batch) == [("", "utc is east, which is no number of hours")]


def test_acrel_login_heartbeat_and_event() -> None:
    dialect = load_mapping(SHIPPED_MAPPINGS / "acrel-overseas.toml")
    overseas("time", TIME, dialect)
    login = overseas("login", {"type": "login", "ver": 1011, "gwSN": "12209263660002"}, dialect)
    assert login.state == State(True, "1011")
    assert overseas("heart", {"type": "heart"}, dialect).state == State(True)
    batch = overseas("event", {"type": "event", "meterSN": "9", "time": "20221008110000", "code": 7, "x": 1.5}, dialect)
    (event,) = batch.events
    assert (event.address, event.at, event.code, event.data) == ("9", 1665198000, "acrel:7", {"code": 7, "x": "1.5"})


def test_acrel_transparent_frames_are_no_message_of_the_format() -> None:
    assert not listens(SHIPPED["acrel-overseas"], "/gw/acrelHW/ADW300/transport/1")
    with pytest.raises(BadFrame, match="is none of acrel-overseas"):
        SHIPPED["acrel-overseas"].decode("/gw/acrelHW/ADW300/transport/1", b"{}", NOW)


# -- Acrel domestic ----------------------------------------------------------------------------------------------------

UP = {"msgid": "m1", "method": "data", "sn": "gw1", "timestamp": 1696929012}


def domestic(payload: bytes) -> Batch:
    return SHIPPED["acrel-domestic"].decode("sys/dev/pk/gw1", payload, NOW)


def test_acrel_domestic_values_are_texts_and_meters_have_their_own_serials() -> None:
    rows = [{"sn": "7", "timestamp": 1696929000, "EPI": "100.1"}, {"sn": "8", "EPI": "2"}]
    batch = domestic(json.dumps({**UP, "payload": rows}).encode())
    assert said(batch) == {
        ("7", "2023-10-10T09:10:00+00:00", "import_kwh", "100.1", ""),
        ("8", "2023-10-10T09:10:12+00:00", "import_kwh", "2", ""),
    }
    assert json.loads(batch.reply[1])["res"] == 1
    assert json.loads(batch.reply[1])["msgid"] == "m1"


def test_acrel_domestic_unpacks_zlib_and_refuses_what_it_cannot_read() -> None:
    plain = json.dumps({**UP, "payload": {"EPI": "100.1"}}).encode()
    assert said(domestic(zlib.compress(plain))) == said(domestic(plain)) != set()
    with pytest.raises(BadFrame, match="LZO and AES"):
        domestic(bytes.fromhex("0011223344"))
    with pytest.raises(BadFrame, match="cut off"):
        domestic(zlib.compress(plain)[:-6])
    with pytest.raises(BadFrame, match="grows beyond"):
        domestic(zlib.compress(b" " * (65 * 1024 * 1024)))


def test_acrel_domestic_tells_at_login_that_what_comes_will_not_be_read() -> None:
    login = {**UP, "method": "login", "payload": {"compress": 1, "compressAlgo": "LZO", "encrypt": 1}}
    batch = domestic(json.dumps(login).encode())
    assert [reason.split(",")[0] for _, reason in rejected(batch)] == [
        "the gateway will compress with LZO",
        "the gateway will encrypt with AES",
    ]
    assert json.loads(batch.reply[1])["res"] == 1
    zlib_login = {**UP, "method": "login", "payload": {"compress": 1, "compressAlgo": "ZLIB"}}
    assert rejected(domestic(json.dumps(zlib_login).encode())) == []


# -- ChirpStack --------------------------------------------------------------------------------------------------------


def uplink(**changes: Any) -> Batch:
    event = {"time": "2024-06-20T08:48:38Z", "deviceInfo": {"devEui": "0a", "deviceProfileName": "Milesight WS52x"}}
    return SHIPPED["chirpstack"].decode(
        "application/app/device/0A/event/up", json.dumps({**event, **changes}).encode(), NOW
    )


def test_the_same_uplink_twice_says_the_same() -> None:
    assert said(uplink(object={"voltage": 230}, deduplicationId="a")) == said(
        uplink(object={"voltage": 230}, deduplicationId="b", rxInfo=[{"rssi": -1}])
    )
    assert [rows.address for rows in uplink(object={"voltage": 230}).meters] == ["0a"]


def test_uplinks_that_can_not_be_read_are_told() -> None:
    assert rejected(uplink())[0][1].startswith("the uplink has no object")
    assert rejected(uplink(object={"new": 3})) == [("0a", "no quantity for new")]
    with pytest.raises(BadFrame, match="no base64"):
        uplink(data="!")
    with pytest.raises(BadFrame, match="but it says it is 0b"):
        uplink(deviceInfo={"devEui": "0b"})
    short = {"devEui": "0a", "deviceProfileName": "Eastron SDM230"}
    assert [r for _, r in rejected(uplink(deviceInfo=short, data="AQIDBAEMQ2Y="))] == [
        "8 bytes are too few for voltage_v_a",
        "8 bytes are too few for current_a_a",
        "8 bytes are too few for import_kwh",
    ]


# -- files that set up these formats -----------------------------------------------------------------------------------


def test_a_dialect_file_is_checked_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        """
dialect = "chirpstack"
source = "mine"
zone = "+08:00"
[[profile]]
[[profile]]
starts = "01??"
[[profile.field]]
offset = 0
type = "f32"
quantity = "import_kWh"
unit = "kWh"
[[profile]]
[[profile.value]]
at = "x"
quantity = "import_kwh"
unit = "V"
""",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_mapping(file)
    assert [(p.where, p.what) for p in caught.value.problems] == [
        ("mine.toml: zone", "means nothing to chirpstack"),
        ("mine.toml: profile[1]", "has not exactly one of [[profile.value]] and [[profile.field]]"),
        ("mine.toml: profile[2].starts", '"01??" is no hex with ?? before it'),
        ("mine.toml: profile[2].field[1].quantity", 'unknown quantity "import_kWh"'),
        ("mine.toml: profile[3].value[1].unit", "import_kwh is not measured in 'V'"),
    ]


def test_an_unknown_dialect_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('dialect = "acrel"\nsource = "mine"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match='"acrel" is not known here'):
        load_mapping(file)
