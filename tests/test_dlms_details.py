"""`[dlms]` of a meter model: every knob, every refusal, the shipped models, and the page that explains them."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.details import with_options
from config.dlms_details import (
    NESTED,
    DlmsTable,
    EventLogTable,
    ObjectTable,
    ProfileTable,
    PushTable,
    parse,
)
from config.meter_models import SHIPPED_MODELS, load_model
from headend.model import Meter, MeterModel
from headend.protocols import PROTOCOLS
from headend.protocols.dlms.push import decode_push, readings_of
from headend.protocols.dlms.settings import DlmsObject, DlmsProfile, DlmsPush, DlmsSettings, EventLog

DOCS = Path(__file__).parents[1] / "docs" / "dlms.md"
CAPTURES = Path(__file__).parent / "vectors" / "dlms_captures.jsonl"
DLMS_MODELS = sorted(SHIPPED_MODELS.glob("dlms-*.toml"))


def where(key: str) -> str:
    return f"m.toml: dlms.{key}" if key else "m.toml: dlms"


def refusals(**table: Any) -> list[str]:
    parsed, problems = parse(table, where)
    assert parsed is None
    return [str(problem) for problem in problems]


def made(**table: Any) -> DlmsSettings:
    parsed, problems = parse(table, where)
    assert problems == []
    assert parsed is not None
    return parsed


# --- the tables are the settings ------------------------------------------------------------------------------------


def test_every_knob_of_the_settings_is_a_key_and_no_key_is_none() -> None:
    keys = {NESTED[name][2] if name in NESTED else name for name in DlmsTable.model_fields}
    assert keys == {field.name for field in fields(DlmsSettings)}


@pytest.mark.parametrize(
    ("table", "kind"),
    [(ObjectTable, DlmsObject), (ProfileTable, DlmsProfile), (EventLogTable, EventLog), (PushTable, DlmsPush)],
)
def test_every_field_of_a_nested_table_too(table: Any, kind: Any) -> None:
    assert set(table.model_fields) == {field.name for field in fields(kind)}


def test_an_empty_table_is_the_defaults() -> None:
    assert made() == DlmsSettings()


def test_the_page_names_every_knob_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]*)` \|", DOCS.read_text(), re.MULTILINE))
    for field in fields(DlmsSettings):
        if field.name in (target for _, _, target in NESTED.values()):
            continue
        default = field.default
        text = (
            {True: "true", False: "false", "": '""'}.get(default, str(default))
            if isinstance(default, bool | str)
            else f"{default}"
        )
        assert rows[field.name] == text, field.name


def test_the_page_names_every_key_of_the_nested_tables() -> None:
    page = DOCS.read_text()
    for key, (table, repeats, _) in NESTED.items():
        assert (f"[[dlms.{key}]]" if repeats else f"[dlms.{key}]") in page
        for name in table.model_fields:
            assert f"`{name}`" in page, f"{key}.{name}"


# --- what is taken --------------------------------------------------------------------------------------------------


def test_everything_that_can_be_written_arrives() -> None:
    settings_ = made(
        interface="wrapper",
        client=1,
        reply_s=3,
        authentication="hls-gmac",
        policy="authenticated-encrypted",
        client_title="4d4d4d0000bc614e",
        physical_rule="SN % 10000 + 1000",
        object=[{"quantity": "import_kwh", "obis": "1.1.1.8.0.255", "scaler": -1, "unit": 30}],
        profile={"columns": ["0.0.1.0.0.255", "", "1.1.1.8.0.255"], "scalers": [0, 0, -1], "stamp": "start"},
        daily={"obis": "1.0.99.2.0.255"},
        billing={"obis": "0.0.98.1.0.255", "selective": "entry"},
        event_log=[{"name": "standard", "obis": "0.0.99.98.0.255", "codes": ["12 = cover opened".replace(" = ", "=")]}],
        push={"items": ["", "1.0.1.8.0.255"], "identity": "serial", "step_s": 900},
    )
    assert settings_ == DlmsSettings(
        interface="wrapper",
        client=1,
        reply_s=3,
        authentication="hls-gmac",
        policy="authenticated-encrypted",
        client_title="4D4D4D0000BC614E",
        physical_rule="SN % 10000 + 1000",
        objects=(DlmsObject("import_kwh", "1.1.1.8.0.255", scaler=-1, unit=30),),
        profile=DlmsProfile(columns=("0.0.1.0.0.255", "", "1.1.1.8.0.255"), scalers=(0, 0, -1), stamp="start"),
        daily=DlmsProfile(obis="1.0.99.2.0.255"),
        billing=DlmsProfile(obis="0.0.98.1.0.255", selective="entry"),
        event_logs=(EventLog("standard", "0.0.99.98.0.255", ((12, "cover opened"),)),),
        push=DlmsPush(items=("", "1.0.1.8.0.255"), identity="serial", step_s=900),
    )


def test_a_meters_own_options_lie_over_its_model(tmp_path: Path) -> None:
    model = load_model(SHIPPED_MODELS / "dlms-secure-wrapper.toml")
    own, problems = with_options(
        model, 'client = 17; reply_s = 3.5; profile.selective = "entry"; meter_title = "4D4D4D0000000001"', "row 2"
    )
    assert problems == []
    assert isinstance(own, DlmsSettings)
    assert (own.client, own.reply_s, own.policy) == (17, 3.5, "authenticated-encrypted")
    assert own.profile == DlmsProfile(selective="entry")
    _, problems = with_options(model, "clinet = 17", "row 2")
    assert [str(problem) for problem in problems] == ['row 2: clinet: unknown key "clinet" -> did you mean client?']


# --- what is refused ------------------------------------------------------------------------------------------------


def test_all_problems_come_at_once() -> None:
    assert refusals(
        interface="hdcl",
        clinet=3,
        client_title="4D4D",
        conformance="00FE1",
        address_bytes=3,
        window_tx=8,
        hls_object="0.0.40.0.0",
        object=[{"quantity": "import_kw_h", "obis": "1.0.1.8.0.256", "class_id": 7}],
        daily={},
        event_log=[{"name": "a", "obis": "0.0.99.98.0.255", "codes": ["12"]}],
        push={"step_s": 7},
    ) == [
        'm.toml: dlms.interface: "hdcl" is not known here -> use hdlc or wrapper',
        "m.toml: dlms.address_bytes: 3 is not known here -> use 0, 1, 2 or 4",
        "m.toml: dlms.window_tx: 8 is out of range -> use a number of at most 7",
        'm.toml: dlms.client_title: "4D4D" is not 16 hex digits -> write 16 of 0 to 9 and A to F, in quotes',
        'm.toml: dlms.hls_object: "0.0.40.0.0" is no OBIS code -> '
        "write six numbers of 0 to 255 with points, like 1.0.1.8.0.255",
        'm.toml: dlms.conformance: "00FE1" is not 6 hex digits -> write 6 of 0 to 9 and A to F, in quotes',
        'm.toml: dlms.clinet: unknown key "clinet" -> did you mean client?',
        "m.toml: dlms.object[1].quantity: unknown quantity 'import_kw_h' -> "
        "did you mean import_kwh or import_kw_c or import_kw_b?",
        'm.toml: dlms.object[1].obis: "1.0.1.8.0.256" is no OBIS code -> '
        "write six numbers of 0 to 255 with points, like 1.0.1.8.0.255",
        "m.toml: dlms.object[1].class_id: class 7 holds no single value -> "
        "use 1 (data), 3 (register), 4 (extended register) or 5 (demand register)",
        "m.toml: dlms.daily.obis: the key 'obis' is missing -> write obis = \"1.0.99.2.0.255\"",
        'm.toml: dlms.event_log[1].codes: "12" is no event code -> write number=text: "12=cover opened"',
        "m.toml: dlms.push.step_s: a day is not a whole number of 7 s -> use 300, 600, 900, 1800 or 3600; 0: no curve",
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"authentication": "hls-gmac"}, "dlms.client_title: hls-gmac needs a system title of ours"),
        ({"policy": "encrypted"}, "dlms.client_title: a policy needs a system title of ours"),
        ({"authentication": "hls-sha256"}, "dlms.client_title: hls-sha256 hashes both system titles"),
        ({"check_title": True}, "dlms.meter_title: there is no title to check against"),
        ({"mode_e": True, "interface": "wrapper"}, "dlms.mode_e: mode E leads to HDLC"),
        ({"mode_e_start": "300 9E1"}, "dlms.mode_e_start: '9E1' is no character format"),
        ({"text_encoding": "cp12510"}, 'dlms.text_encoding: unknown text encoding "cp12510"'),
        ({"physical_rule": "SN ** 2"}, "dlms.physical_rule: 'SN ** 2' is no rule for physical addresses"),
        ({"physical_rule": "__import__('os')"}, "is no rule for physical addresses"),
        ({"reply_s": -1}, "dlms.reply_s: -1 is out of range"),
        ({"reply_s": float("nan")}, "dlms.reply_s: nan"),
        ({"clock_shift_max_s": 901}, "dlms.clock_shift_max_s: 901 is out of range -> use a number of at most 900"),
        ({"client": "16"}, 'dlms.client: "16" is not a whole number -> write client = 16'),
        ({"confirmed": 1}, "dlms.confirmed: 1 is not true or false"),
        ({"object": {"quantity": "import_kwh"}}, "dlms.object: a table stands where repeated tables are wanted"),
        ({"profile": [1]}, "dlms.profile: a list stands where a table is wanted"),
        ({"profile": {"columns": ["1.0.1.8.0.255"]}}, "dlms.profile.columns: no column is the clock 0.0.1.0.0.255"),
        (
            {"profile": {"columns": ["0.0.1.0.0.255", "1.0.1.8.0.255"], "scalers": [0]}},
            "dlms.profile.scalers: 1 scalers for 2 columns",
        ),
        (
            {"object": [{"quantity": "import_kwh", "obis": "1.0.1.8.0.255"}] * 2},
            "dlms.object[2]: import_kwh stands in object[1] already",
        ),
        (
            {"event_log": [{"name": "a", "obis": "0.0.99.98.0.255", "codes": ["1=x", "1=y"]}]},
            "dlms.event_log[1].codes: code 1 is given twice",
        ),
        ({"push": {"lists": [["1.0.1.8.0.255"], [""]]}}, "dlms.push.lists: two lists of one length"),
        (
            {"preestablished": True, "policy": "encrypted", "client_title": "4D4D4D0000BC614E"},
            "dlms.meter_title: a pre-established association tells no title",
        ),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(table: dict[str, Any], message: str) -> None:
    assert any(message in text for text in refusals(**table)), refusals(**table)


@given(
    st.dictionaries(
        st.sampled_from(sorted(DlmsTable.model_fields)),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=8),
            st.lists(
                st.one_of(st.integers(), st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.integers()))
            ),
            st.dictionaries(st.sampled_from(["obis", "columns", "name", "items"]), st.text(max_size=4)),
        ),
        max_size=6,
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_written_there_is_settings_or_problems_never_a_traceback(table: dict[str, Any]) -> None:
    parsed, problems = parse(table, where)
    assert (parsed is None) == bool(problems)
    assert all(problem.where.startswith("m.toml: dlms") and problem.what for problem in problems)


# --- shipped models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DLMS_MODELS, ids=lambda path: path.stem)
def test_shipped_models_load_and_say_that_they_met_no_meter(path: Path) -> None:
    model = load_model(path, PROTOCOLS)
    assert model.protocol == "dlms"
    assert isinstance(model.details, DlmsSettings)
    assert "never met real hardware" in " ".join(path.read_text().split()).lower()


def test_kamstrup_pushes_are_the_energies_their_source_says() -> None:
    """toreamun/amshan, tests/test_kamstrup.py: 77 452 500 Wh, 137 310 and 11 415 870 varh, 223 V, 45.12 A."""
    captures = {one["id"]: one for one in map(json.loads, CAPTURES.read_text().splitlines())}
    capture = captures["amshan-kamstrup-no_list_2_single_phase_real_sample"]
    model: MeterModel = load_model(SHIPPED_MODELS / "dlms-kamstrup-han.toml")
    assert isinstance(model.details, DlmsSettings)
    meter = Meter(1, "K1", "1", "dlms", "L1", model, "+01:00", details=model.details)
    push = decode_push(bytes.fromhex(capture["hex"]), model.details, meter.clock_zone)
    readings, faults = readings_of(push, meter, datetime(2021, 11, 23, 23, 0, 26, tzinfo=UTC))
    values = {reading.quantity: reading.value for reading in readings}
    assert faults == ()
    assert values["import_kwh"] == Decimal("77452.5")
    assert values["export_kwh"] == 0
    assert values["import_kvarh"] == Decimal("137.31")
    assert values["export_kvarh"] == Decimal("11415.87")
    assert (values["voltage_v_a"], values["current_a_a"]) == (Decimal(223), Decimal("45.12"))
    assert push.serial == capture["claims"]["meter_id"]
    assert {reading.at for reading in readings} == {datetime(2021, 11, 23, 23, 0, 25, tzinfo=UTC)}
