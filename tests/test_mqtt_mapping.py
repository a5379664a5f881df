"""Mappings: what a file may say, what is told of a wrong one, and that mapped values equal the truth."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from config.mqtt_mapping import SHIPPED_MAPPINGS, load_mapping, load_mappings
from config.site import load_site
from headend.cli import cli
from headend.errors import BadFrame, ConfigError
from headend.model import Meter, Source
from headend.mqtt.batch import Batch
from headend.mqtt.dialect import Dialect, concentrator_of
from headend.mqtt.interpret import Interpreter
from headend.mqtt.judge import Anchors
from headend.mqtt.mapping import MappedDialect
from headend.mqtt.payload import BadTime, epoch_s, number
from headend.mqtt.place import Places
from headend.mqtt.settings import BrokerSettings
from headend.mqtt.shapes import Part, Term, Time, Topic, Value, factor
from tests.test_mqtt_dialects import rejected, said

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AT = 1_790_000_000  # 2026-09-21T14:13:20Z
WHEN = "2026-09-21T14:13:20+00:00"

BASE = """
source = "made up"
topics = ["up/{concentrator}/{meter}"]
"""
PART = """
[[part]]
meter = { topic = "meter" }
time = { at = "t", format = "epoch_s" }
"""
VALUE = """
[[part.value]]
at = "e"
quantity = "import_kwh"
unit = "kWh"
"""


def mapping(tmp_path: Path, text: str) -> Dialect:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return load_mapping(file)


def problems(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        mapping(tmp_path, text)
    return [(one.where.removeprefix("mine.toml").lstrip(": "), one.what) for one in caught.value.problems]


def take(dialect: Dialect, payload: Any, topic: str = "up/c1/m1") -> Batch:
    data = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return dialect.decode(topic, data, NOW)


# -- values ------------------------------------------------------------------------------------------------------------

UNITS = {"Wh": Decimal("0.001"), "kWh": Decimal(1), "MWh": Decimal(1000)}
SCALES = ("1", "0.001", "0.01", "10", "40", "-1", "0.0625")


@settings(max_examples=400, deadline=None)
@given(
    units=st.integers(-(10**15), 10**15),
    unit=st.sampled_from(sorted(UNITS)),
    scale=st.sampled_from(SCALES),
    as_text=st.booleans(),
)
def test_mapped_values_equal_the_truth(units: int, unit: str, scale: str, as_text: bool) -> None:
    """A true value written in any unit and scale comes out as it was, whether as number or as text."""
    truth = Decimal(units).scaleb(-4)
    sent = format(truth / UNITS[unit] / Decimal(scale), "f")  # exact: every scale here divides a power of ten
    value = Value(("e",), "import_kwh", factor("import_kwh", unit, Fraction(scale)))
    part = Part(Term("topic", "meter"), (value,), Time(("t",), form="epoch_s"))
    dialect = MappedDialect("mine", (Topic("up/{concentrator}/{meter}"),), (part,))
    batch = take(dialect, f'{{"t": {AT}, "e": {json.dumps(sent) if as_text else sent}}}'.encode())
    (rows,) = batch.meters
    assert ([*rows.times], [list(row) for row in rows.values]) == ([AT], [[units]])
    assert batch.rejected == ()


@settings(max_examples=200, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=9))
def test_what_is_finer_than_the_store_is_off_by_half_a_ten_thousandth_at_most(sent: Decimal) -> None:
    value = Value(("e",), "import_kwh", factor("import_kwh", "kWh", Fraction(1)))
    dialect = MappedDialect("mine", (Topic("{concentrator}/{meter}"),), (Part(Term("topic", "meter"), (value,)),))
    (rows,) = take(dialect, f'{{"e": {sent:f}}}'.encode(), "c/m").meters
    (units,) = rows.values[0]
    assert units is not None
    assert abs(Fraction(units, 10_000) - Fraction(sent)) <= Fraction(1, 20_000)


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        ("12.50", "12.50"),
        (" -3 ", "-3"),
        ("+.5e3", "500"),
        (7, "7"),
        (Decimal("1E+2"), "100"),
        ("1e400", None),
        ("9" * 41, None),
        ("12,5", None),
        ("1_000", None),
        ("١٢", None),
        ("NaN", None),
        ("", None),
        (True, None),
        (None, None),
        ([1], None),
        (10**41, None),
        (Decimal("1E+41"), None),
        (Decimal("0E+900"), "0"),
    ],
)
def test_what_is_a_number(value: object, exact: str | None) -> None:
    assert number(value) == (None if exact is None else Decimal(exact))


def test_a_value_that_is_none_is_told_with_its_reason_and_the_rest_is_taken(tmp_path: Path) -> None:
    text = BASE + PART + VALUE + '[[part.value]]\nat = "p"\nquantity = "power_kw"\nunit = "W"\n'
    batch = take(mapping(tmp_path, text), {"t": AT, "e": "--", "p": 1500, "new": 3, "note": "x"})
    assert said(batch) == {("m1", WHEN, "power_kw", "1.5", "")}
    assert sorted(rejected(batch)) == [
        ("m1", "e is --, which is no number that can be stored"),
        ("m1", "no quantity for new"),
    ]


def test_words_for_no_value_and_numbers_not_wanted_are_not_told(tmp_path: Path) -> None:
    text = BASE + PART + 'missing = ["--", ""]\nignore = ["new*", "x.*"]\n' + VALUE
    for nothing in ("--", "", None):
        batch = take(mapping(tmp_path, text), {"t": AT, "e": nothing, "new7": 3, "x": {"y": [1, 2]}})
        assert (said(batch), rejected(batch)) == (set(), [])
    assert rejected(take(mapping(tmp_path, BASE + PART + "strict = false\n" + VALUE), {"t": AT, "z": 1})) == []


def test_a_value_given_twice_differently_is_told(tmp_path: Path) -> None:
    text = BASE + PART + 'items = "*"\n' + VALUE
    batch = take(mapping(tmp_path, text), [{"t": AT, "e": 1}, {"t": AT, "e": 1}, {"t": AT, "e": 2}])
    assert said(batch) == {("m1", WHEN, "import_kwh", "1", "")}
    assert rejected(batch) == [("m1", "import_kwh is given twice for one instant")]


def test_reasons_are_bounded(tmp_path: Path) -> None:
    batch = take(mapping(tmp_path, BASE + PART + VALUE), {"t": AT, **{f"k{n}": n for n in range(5000)}})
    assert len(batch.rejected) == 101
    assert batch.rejected[-1].reason == "and more of the kind"


def test_units_that_come_with_the_value_are_converted_or_told(tmp_path: Path) -> None:
    text = BASE + '[[part]]\nmeter = { topic = "meter" }\ntime = { root = "t", format = "epoch_s" }\n'
    text += 'entries = { at = "v", name = "n", value = "x", unit = "u" }\n'
    text += '[[part.value]]\nat = "正向有功总电能"\nquantity = "import_kwh"\nunit = "kWh"\nscale = "40"\n'
    entries: list[dict[str, Any]] = [{"n": "正向有功总电能", "x": "2.5", "u": "MWh"}]
    assert said(take(mapping(tmp_path, text), {"t": AT, "v": entries})) == {("m1", WHEN, "import_kwh", "100000", "")}
    entries = [{"n": "正向有功总电能", "x": "2.5", "u": "m3"}, {"x": 1}, {"n": "正向有功总电能"}]
    reasons = [reason for _, reason in rejected(take(mapping(tmp_path, text), {"t": AT, "v": entries}))]
    assert reasons == ["正向有功总电能: unknown unit 'm3'", "a value without a name", "正向有功总电能 has no value"]


def test_quality_of_a_field(tmp_path: Path) -> None:
    text = BASE + PART + 'quality = { at = "q", values = { "1" = "ok", "e" = "estimated", "x" = "missing" } }\n' + VALUE
    dialect = mapping(tmp_path, text)
    words = {"1": "", "e": "estimated", "9": "suspect"}
    for said_quality, word in words.items():
        assert said(take(dialect, {"t": AT, "e": 1, "q": said_quality})) == {("m1", WHEN, "import_kwh", "1", word)}
    assert said(take(dialect, {"t": AT, "e": 1})) == {("m1", WHEN, "import_kwh", "1", "")}
    assert said(take(dialect, {"t": AT, "e": 1, "q": "x"})) == set()


# -- where things stand ------------------------------------------------------------------------------------------------


def test_topics_with_named_levels() -> None:
    topic = Topic("tele/tasmota_{meter}/{concentrator}/SENSOR")
    assert topic.filter == "tele/+/{concentrator}/SENSOR"
    assert topic.names("tele/tasmota_a.b/c/SENSOR") == {"meter": "a.b", "concentrator": "c"}
    assert topic.names("tele/other_a/c/SENSOR") is None
    assert topic.names("tele/tasmota_a/c/d/SENSOR") is None
    assert Topic("a/{meter}/#").names("a/7/b/c") == {"meter": "7"}
    assert Topic("a/{meter}/#").names("a/7") == {"meter": "7"}
    assert Topic("a/+/{meter}").names("a//7") == {"meter": "7"}


@given(st.lists(st.text(st.characters(exclude_characters="/+#{}\0"), min_size=1, max_size=5), min_size=3, max_size=3))
def test_a_filter_takes_every_topic_its_template_takes(levels: list[str]) -> None:
    topic = Topic("up/{concentrator}/{meter}/+")
    text = "up/" + "/".join(levels)
    assert topic.names(text) == {"concentrator": levels[0], "meter": levels[1]}
    assert concentrator_of(topic.filter, text) == levels[0]


def test_meters_by_key_by_path_and_not_at_all(tmp_path: Path) -> None:
    head = '\n[[part]]\nitems = "*"\nmeter = {}\ntime = {{ at = "t", format = "epoch_s" }}\n'
    by_key = mapping(tmp_path, BASE + head.format("{ key = true }") + VALUE)
    assert said(take(by_key, {"7": {"t": AT, "e": 1}})) == {("7", WHEN, "import_kwh", "1", "")}
    by_path = mapping(tmp_path, BASE + head.format('{ at = ["id.x", "n"] }') + VALUE)
    assert said(take(by_path, [{"id.x": {"n": 7}, "t": AT, "e": 1}])) == {("7", WHEN, "import_kwh", "1", "")}
    for bad in (None, True, [1], "", "x" * 65, "a\nb", 1.5, 10**30):
        batch = take(by_path, [{"id.x": {"n": bad}, "t": AT, "e": 1}, {"id.x": {"n": 8}, "t": AT, "e": 2}])
        assert said(batch) == {("8", WHEN, "import_kwh", "2", "")}
        assert rejected(batch)[0] == ("", "no meter named in it: id.x.n is not there or no name")


def test_an_item_without_its_values_is_told(tmp_path: Path) -> None:
    text = BASE + PART + 'items = "*"\ninside = "values"\n' + VALUE
    batch = take(mapping(tmp_path, text), [{"t": AT, "value": {"e": 1}}, {"t": AT, "values": 5}])
    assert [reason for _, reason in rejected(batch)] == [
        "no values at values: nothing is there",
        "no values at values: 5",
    ]


def test_the_concentrator_may_stand_in_the_payload(tmp_path: Path) -> None:
    text = 'source = "x"\ntopics = ["up/{meter}"]\nconcentrator = { root = "gw.id" }\n' + PART + 'ignore = ["gw.*"]\n'
    batch = take(mapping(tmp_path, text + VALUE), {"t": AT, "e": 1, "gw": {"id": 77}}, "up/m1")
    assert (batch.concentrator, rejected(batch)) == ("77", [])


def test_packed_and_chinese_payloads(tmp_path: Path) -> None:
    payload = json.dumps({"t": AT, "e": 1}).encode()
    dialect = mapping(tmp_path, 'compression = "auto"\n' + BASE + PART + VALUE)
    for packed in (payload, gzip.compress(payload), zlib.compress(payload)):
        assert said(take(dialect, packed)) == {("m1", WHEN, "import_kwh", "1", "")}
    with pytest.raises(BadFrame, match="no sound gzip"):
        take(dialect, b"\x1f\x8bxxxx")
    text = 'encoding = "gb18030"\n' + BASE + PART + VALUE.replace('"e"', '"电能"')
    chinese = mapping(tmp_path, text)
    assert said(take(chinese, f'{{"t": {AT}, "电能": 2}}'.encode("gb18030"))) == {("m1", WHEN, "import_kwh", "2", "")}
    with pytest.raises(BadFrame, match="not gb18030"):
        take(chinese, b'{"\xff": 1}')


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "value", "zone", "expected"),
    [
        ("epoch_s", AT, None, AT),
        ("epoch_s", str(AT), None, AT),
        ("epoch_ms", AT * 1000 + 999, None, AT),
        ("epoch_s", Decimal("1790000000.9"), None, AT),
        ("iso", "2026-09-21T14:13:20Z", None, AT),
        ("iso", "2026-09-21T22:13:20.230+0800", None, AT),
        ("iso", "2026-09-21 22:13:20", "+08:00", AT),
        ("%Y%m%d%H%M%S", "20260921221320", "Asia/Shanghai", AT),
        ("%Y%m%d%H%M%S", 20260921221320, "Asia/Shanghai", AT),
        ("%Y%m%d%H%M%S%f", "20260921221320881", "+08:00", AT),
        ("%d.%m.%Y %H:%M:%S%z", "21.09.2026 16:13:20+0200", None, AT),
    ],
)
def test_times(form: str, value: object, zone: str | None, expected: int) -> None:
    from headend.civil import zone as zone_of

    place = None if zone is None else zone_of(zone)
    assert epoch_s(value, form, place, NOW).at_s == expected


@pytest.mark.parametrize(
    ("form", "value", "reason"),
    [
        ("epoch_s", AT * 1000, "dated in the future: beyond any calendar"),
        ("epoch_ms", AT, "dated before 2000: 1970-01-21 17:13:20 UTC"),
        ("epoch_s", "soon", "soon is no time in epoch_s"),
        ("epoch_s", True, "true is no time in epoch_s"),
        ("epoch_s", 1_795_000_000, "dated in the future: 2026-11-18"),
        ("iso", "2026-09-21T14:13:20", "2026-09-21 14:13:20 is a local time, and its zone is not known"),
        ("iso", "yesterday", "yesterday is no time written as iso"),
        ("iso", {"a": 1}, "an object is no time"),
        ("iso", "0001-01-01T00:00:00+14:00", "is no time written as iso"),
        ("%Y%m%d%H%M%S%z", "20261340000000+0000", "is no time written as"),
    ],
)
def test_times_that_can_not_be_taken(form: str, value: object, reason: str) -> None:
    when = NOW if "11-18" not in reason else NOW - timedelta(days=10)
    with pytest.raises(BadTime) as caught:
        epoch_s(value, form, None, when)
    assert reason in str(caught.value)


def test_a_time_with_too_few_digits_is_not_read_as_another() -> None:
    from headend.civil import zone

    with pytest.raises(BadTime, match="2022100810555 is no time"):
        epoch_s("2022100810555", "%Y%m%d%H%M%S", zone("+08:00"), NOW)


def test_the_hours_clocks_are_put_back_and_forward(tmp_path: Path) -> None:
    time = 'time = { at = "t", format = "iso", zone = "Europe/Berlin" }\n'
    dialect = mapping(tmp_path, BASE + PART.replace('time = { at = "t", format = "epoch_s" }\n', time) + VALUE)
    twice = said(take(dialect, {"t": "2026-10-25T02:30:00", "e": 1}))
    assert twice == {("m1", "2026-10-25T00:30:00+00:00", "import_kwh", "1", "clock doubtful")}
    never = take(dialect, {"t": "2026-03-29T02:30:00", "e": 1})
    assert said(never) == set()
    assert rejected(never) == [
        ("m1", "2026-03-29 02:30:00 does not exist in Europe/Berlin: clocks were put forward"),
    ]
    for hour, utc in (("01:59:59", "00:59:59"), ("03:00:00", "01:00:00")):
        expected = {("m1", f"2026-03-29T{utc}+00:00", "import_kwh", "1", "")}
        assert said(take(dialect, {"t": f"2026-03-29T{hour}", "e": 1})) == expected


def test_a_missing_time_is_refused_or_that_of_arrival(tmp_path: Path) -> None:
    strict = mapping(tmp_path, BASE + PART + VALUE)
    assert rejected(take(strict, {"e": 1})) == [("m1", "no time at t")]
    received = PART.replace('"epoch_s"', '"epoch_s", absent = "received"')
    assert said(take(mapping(tmp_path, BASE + received + VALUE), {"e": 1})) == {
        ("m1", NOW.isoformat(), "import_kwh", "1", ""),
    }
    assert rejected(take(mapping(tmp_path, BASE + received + VALUE), {"t": "x", "e": 1})) == [
        ("m1", "x is no time in epoch_s"),
    ]


def test_times_near_a_boundary_of_the_grid_are_pulled_to_it(tmp_path: Path) -> None:
    text = 'kind = "interval"\nstep_s = 900\n' + BASE + PART.replace('"epoch_s"', '"epoch_s", snap_s = 20') + VALUE
    dialect = mapping(tmp_path, text)
    boundary = AT // 900 * 900
    for off in (-20, -1, 0, 7, 20):
        (rows,) = take(dialect, {"t": boundary + off, "e": 1}).meters
        assert list(rows.times) == [boundary]
    (rows,) = take(dialect, {"t": boundary + 21, "e": 1}).meters
    assert list(rows.times) == [boundary + 21]  # off the grid: the intake tells so


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answers_echo_what_they_name(tmp_path: Path) -> None:
    text = BASE + '[reply]\ntopic = "down/{concentrator}/{topic}"\nunless = { ack = 0 }\n'
    text += 'body = { id = "{at:h.id}", n = "{at:n}", m = "{topic:meter}", s = "{now:epoch_s}", '
    text += 'ms = "{now:epoch_ms}", gone = "{at:gone}", list = ["{at:h}", 1, "plain {at:n}"] }\n'
    dialect = mapping(tmp_path, text + PART + 'ignore = ["n", "ack", "h.*"]\n' + VALUE)
    topic, body = take(dialect, {"t": AT, "e": 1, "h": {"id": "a-1"}, "n": 1.50}).reply
    assert topic == "down/c1/up/c1/m1"
    now = int(NOW.timestamp())
    assert json.loads(body) == {
        "id": "a-1",
        "n": 1.5,
        "m": "m1",
        "s": now,
        "ms": now * 1000,
        "gone": None,
        "list": [None, 1, "plain {at:n}"],
    }
    assert take(dialect, {"t": AT, "e": 1, "ack": 0}).reply == ("", b"")


# -- files -------------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = """
topics = ["a/{x}/#/b", "a/b+", "a/{x}{y}", "a/{x}/{x}"]
kind = "interval"
colour = "red"
[reply]
topic = "down/{nobody}/#"
body = {}
[[part]]
meter = { topic = "meter", at = "x" }
time = { format = "epoch" }
quality = { at = "q", values = { "1" = "good" } }
[[part.value]]
at = "e"
quantity = "import_kw"
unit = "kWh"
[[part.value]]
at = "f"
quantity = "import_kwhh"
unit = "kWh"
scale = 0.1
[[part.value]]
at = "g"
quantity = "import_kwh"
unit = "kWh"
scale = "0"
[[part]]
meter = { topic = "meter" }
time = { at = "t", format = "%Y", zone = "Mars/Base" }
"""
    told = problems(tmp_path, text)
    assert told == [
        ("source", "the key 'source' is missing"),
        ("colour", 'unknown key "colour"'),
        ("topics[1]", '"a/{x}/#/b" is no topic'),
        ("topics[2]", '"a/b+": `+` stands for a whole level'),
        ("topics[3]", '"a/{x}{y}" has a level that is not readable'),
        ("topics[4]", '"a/{x}/{x}": every name stands once'),
        ("part[1].meter", "has not exactly one place"),
        ("part[1].time", "has not exactly one place"),
        ("part[1].time.format", '"epoch" is no format of times'),
        ("part[1].quality.values", '"good" is not known here'),
        ("part[1].value[1].unit", "import_kw is not measured in 'kWh'"),
        ("part[1].value[2].scale", "0.1 is a float, which is not exact"),
        ("part[1].value[3].scale", "a scale of 0 makes everything nothing"),
        ("part[2].value", "the key 'value' is missing"),
        ("part[2].meter.topic", 'no topic level is named "meter"'),
        ("part[2].time.zone", "unknown time zone 'Mars/Base'"),
        ("concentrator", "nothing says which concentrator a message is from"),
        ("reply.topic", 'no topic level is named "nobody"'),
        ("reply.topic", "an answer goes to one topic, without + and #"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind = 'interval'\nstep_s = 700\n" + BASE + PART + VALUE, "values at the boundaries of a grid need its step"),
        ("step_s = 900\n" + BASE + PART + VALUE, "means nothing to register"),
        (BASE + PART.replace('"epoch_s"', '"%Y%m%d"') + VALUE, "a local time without a zone is no instant"),
        (BASE + PART + VALUE + VALUE, "is empty, or given twice"),
        (BASE + PART + VALUE.replace("import_kwh", "import_kWh"), 'unknown quantity "import_kWh"'),
        (BASE + "part = 3\n", "is not a list"),
        (BASE + "part = [3]\n", "3 stands where a table is wanted"),
        (BASE + PART.replace('topic = "meter"', "key = false") + VALUE, "not known here"),
        (BASE + PART + "value = [1]\n", "1 stands where a table is wanted"),
    ],
)
def test_one_wrong_thing(tmp_path: Path, text: str, told: str) -> None:
    assert any(told in what for _, what in problems(tmp_path, text)), problems(tmp_path, text)


def test_the_example_of_the_documentation_is_a_mapping(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "mqtt_mappings.md").read_text(encoding="utf-8")
    dialect = mapping(tmp_path, page.split("```toml\n")[1].split("```")[0])
    item = {"device_id": "7", "ts": AT * 1000, "q": "e", "values": {"energy": {"total": 100}, "rssi": -70}}
    batch = take(dialect, {"id": "x", "type": "report", "data": [item]}, "up/gw1/m7/now")
    assert said(batch) == {("7", WHEN, "import_kwh", "0.001", "estimated")}
    assert rejected(batch) == []
    assert batch.reply[0] == "up/gw1/m7/now_reply"
    for name in load_mappings([SHIPPED_MAPPINGS]):
        assert f"`{name}`" in page, f"{name} is shipped, but not told of"


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "neuron.toml").write_text(BASE + PART + VALUE, encoding="utf-8")
    (tmp_path / "canonical.toml").write_text(BASE + PART + VALUE, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_mappings([SHIPPED_MAPPINGS, tmp_path])
    assert [p.what.split(" in ")[0] for p in caught.value.problems] == [
        "the name 'canonical' is taken",
        "the name 'neuron' is taken",
    ]


def test_shipped_mappings_say_their_source_and_listen_apart() -> None:
    shipped = load_mappings([SHIPPED_MAPPINGS])
    filters = [one for dialect in shipped.values() for one in dialect.filters]
    assert len(filters) == len(set(filters)), "two mappings listen to one topic"
    for file in SHIPPED_MAPPINGS.glob("*.toml"):
        assert file.read_text(encoding="utf-8").startswith("# "), f"{file.name} does not say what it is"


# -- on to the store, and at the command line --------------------------------------------------------------------------


def test_what_a_message_does_not_speak_of_is_no_missing_value(site_meter: Meter) -> None:
    dialect = load_mappings([SHIPPED_MAPPINGS])["thingsboard"]
    interpreter = Interpreter(BrokerSettings("b", "h"), [dialect], Places([site_meter]), Anchors())
    first = {"ts": AT * 1000, "values": {"import_kwh": 42}}
    second = {"ts": AT * 1000 + 60_000, "values": {"power_kw": "0.5"}}
    payload = json.dumps({site_meter.address: [first, second], "stranger": [first]}).encode()
    understood = interpreter.understand("v1/gateway/telemetry", payload, NOW)
    sheets = {(one.quantity, one.source, tuple(one.times), tuple(one.units)) for one in understood.message.sheets}
    assert sheets == {
        ("import_kwh", Source.CURRENT, (AT,), (420_000,)),
        ("power_kw", Source.INSTANT, (AT + 60,), (5_000,)),
    }
    assert understood.message.faults == ()
    assert understood.reason == "unknown meter stranger"
    assert [row.payload for row in understood.message.unplaced] == [payload]


@pytest.fixture
def site_meter() -> Meter:
    from headend.model import MeterModel

    model = MeterModel("m", "hes-mqtt", Decimal(1_000_000), Decimal("15.84"))
    return Meter(1, "meter-1", "Device A", "hes-mqtt", "thingsboard", model)


def test_try_shows_what_a_payload_means(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text(
        json.dumps({"Time": "2026-07-02T11:00:00", "SML": {"Total_in": 12345.678, "x": 1}}), encoding="utf-8"
    )
    ran = CliRunner().invoke(cli, ["mqtt", "try", "tasmota", "tele/haus/SENSOR", str(file)])
    assert ran.exit_code == 1
    for words in ("concentrator tasmota: register", "haus", "2026-07-02T09:00:00+00:00", "12345.6780", "import_kwh"):
        assert words in ran.output
    assert "not taken: haus: no quantity for x" in ran.output
    file.write_text(json.dumps({"location_code": 7, "ts": AT, "properties": []}), encoding="utf-8")
    ran = CliRunner().invoke(cli, ["mqtt", "try", "cet-zhongdian", "CET/NX/upload", str(file), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(json.loads(ran.output)["reply"]["payload"])["location_code"] == 7


def test_try_takes_a_mapping_of_ones_own_and_names_what_is_wrong(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(BASE + PART + VALUE, encoding="utf-8")
    payload = json.dumps({"t": AT, "e": 1})
    ran = CliRunner().invoke(cli, ["mqtt", "try", str(mine), "up/c/m", "-"], input=payload)
    assert ran.exit_code == 0, ran.output
    for arguments, words in (
        ([str(mine), "up/c", "-"], "does not listen to up/c"),
        (["tasmoda", "up/c", "-"], "no mapping 'tasmoda' is shipped"),
        ([str(mine), "up/c/m", "-", "--received", "noon"], "'noon' is no time"),
    ):
        ran = CliRunner().invoke(cli, ["mqtt", "try", *arguments], input=payload)
        assert words in str(ran.exception)


def test_a_site_finds_its_own_mappings(tmp_path: Path) -> None:
    (tmp_path / "mqtt_mappings").mkdir()
    (tmp_path / "mqtt_mappings" / "mine.toml").write_text(BASE + PART + VALUE, encoding="utf-8")
    site = tmp_path / "site.toml"
    site.write_text(
        '[site]\nname = "s"\nzone = "Asia/Shanghai"\nstore = "sqlite:///s.db"\n'
        '[[mqtt]]\nname = "b"\nhost = "127.0.0.1"\ndialects = ["mine", "neuron"]\n',
        encoding="utf-8",
    )
    assert {"mine", "neuron", "canonical"} <= set(load_site(site).dialects)
