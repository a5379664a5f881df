"""Pushes as readings: quantities in our units, nothing guessed, and everything a body may be shaped like."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from config.dlms_details import parse
from headend.access import memory_access
from headend.cli import cli
from headend.errors import BadFrame, NoAccess, Unsupported
from headend.model import Cause, Meter, MeterModel, Source
from headend.protocols.dlms import mbus
from headend.protocols.dlms.axdr import NULL, Datum, Tag, encode
from headend.protocols.dlms.catalogue import find, historical, items, name_of
from headend.protocols.dlms.cosem import obis_bytes, obis_short, obis_text
from headend.protocols.dlms.push import decode_push, readings_of, sender_title
from headend.protocols.dlms.settings import DlmsObject, DlmsPush, DlmsSettings
from headend.protocols.dlms.units import UNITS, in_unit, scaled, unit_name
from headend.quantities import QUANTITIES

CAPTURES = {
    one["id"]: one
    for one in map(
        json.loads, (Path(__file__).parent / "vectors" / "dlms_captures.jsonl").read_text("utf-8").splitlines()
    )
}
PLAIN = DlmsSettings()
NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)


def _meter(settings: DlmsSettings = PLAIN, zone: str = "Europe/Oslo") -> Meter:
    model = MeterModel("test", "dlms", Decimal(1_000_000), Decimal(100), details=settings)
    return Meter(1, "M1", "1", "dlms", "L1", model, zone)


def _read(name: str, settings: DlmsSettings = PLAIN) -> tuple[dict[str, str], dict[str, str]]:
    capture = CAPTURES[name]
    secrets = {"encryption_key": bytes.fromhex(capture["key"])} if "key" in capture else {}
    push = decode_push(
        bytes.fromhex(capture["hex"]),
        replace(settings, check_tag=False),
        "Europe/Oslo",
        access=memory_access(secrets),
    )
    readings, faults = readings_of(push, _meter(settings), NOW)
    return {one.quantity: str(one.value) for one in readings}, {one.quantity: one.detail for one in faults}


def _octets(text: str) -> Datum:
    return Datum(Tag.OCTET_STRING, obis_bytes(text))


def _scaler(exponent: int, unit: int) -> Datum:
    return Datum(Tag.STRUCTURE, (Datum(Tag.INTEGER, exponent), Datum(Tag.ENUM, unit)))


def _structure(*parts: Datum) -> Datum:
    return Datum(Tag.STRUCTURE, parts)


def _notification(body: Datum, time: str = "0c07e8010101080000ff000000") -> bytes:
    return bytes.fromhex("0f00000001" + time) + encode(body)


def _one(obis: str, value: int, *beside: Datum) -> Datum:
    return _structure(_structure(_octets(obis), Datum(Tag.DOUBLE_LONG_UNSIGNED, value), *beside))


def _push_readings(apdu: bytes, settings: DlmsSettings = PLAIN) -> tuple[dict[str, Decimal], list[str]]:
    push = decode_push(apdu, settings, "UTC")
    readings, faults = readings_of(push, _meter(settings, "UTC"), NOW)
    return {one.quantity: one.value for one in readings}, [f"{one.quantity}: {one.cause.name}" for one in faults]


# --- real pushes as readings ------------------------------------------------------------------------------------------


def test_values_with_scaler_and_unit_become_ours() -> None:
    got, faults = _read("dp-raw_salzburg_netz")
    assert faults == {}
    assert got == {
        "voltage_v_a": "229.2",
        "voltage_v_b": "231.6",
        "voltage_v_c": "231.4",
        "current_a_a": "1.65",
        "current_a_b": "1.73",
        "current_a_c": "0.37",
        "import_kw": "0.714",
        "export_kw": "0.000",
        "import_kwh": "1327.456",
        "export_kwh": "0.000",
        "import_kvarh": "4.818",
        "export_kvarh": "376.416",
    }


def test_a_body_without_scalers_is_never_guessed() -> None:
    got, faults = _read("dp-hdlc_landis_gyr_e450")
    assert got == {}
    assert "tells no scaler" in faults["import_kwh"]
    assert "1.0.1.8.0.255" in faults["import_kwh"]


def test_the_models_objects_give_scalers_the_body_does_not_tell() -> None:
    objects = (
        DlmsObject("import_kwh", "1.0.1.8.0.255", scaler=0, unit=30),
        DlmsObject("import_kwh_t1", "1.0.1.8.1.255", scaler=0),  # no unit: that of the quantity
        DlmsObject("import_kw", "1.0.1.7.0.255", scaler=0, unit=27),
    )
    got, faults = _read("dp-hdlc_landis_gyr_e450", DlmsSettings(objects=objects))
    assert got == {"import_kwh": "4408.736", "import_kwh_t1": "3593.919", "import_kw": "2.893"}
    assert "export_kwh" in faults


def test_channel_1_is_another_object_until_the_model_says_it_is_the_meter() -> None:
    name = "amshan-kamstrup-no_list_2_single_phase_real_sample"
    got, faults = _read(name)
    assert (got, faults) == ({}, {})
    objects = (
        DlmsObject("import_kwh", "1.1.1.8.0.255", scaler=1, unit=30),
        DlmsObject("current_a_a", "1.1.31.7.0.255", scaler=-2, unit=33),
    )
    got, faults = _read(name, DlmsSettings(objects=objects))
    assert got == {"import_kwh": "77452.50", "current_a_a": "45.12"}
    assert faults == {}


def test_positions_are_named_by_the_list_of_the_bodys_length() -> None:
    objects = (
        DlmsObject("import_kw", "1.0.1.7.0.255", scaler=0, unit=27),
        DlmsObject("voltage_v_a", "1.0.32.7.0.255", scaler=-1, unit=35),
    )
    names = ("", "0.0.96.1.0.255", "", "1.0.1.7.0.255", "", "", "", "", "", "", "1.0.32.7.0.255", "", "")
    settings = DlmsSettings(objects=objects, push=DlmsPush(items=names, lists=(("1.0.1.7.0.255",),)))
    assert _read("roarfred-kaifa-list2", settings)[0] == {"import_kw": "0.764", "voltage_v_a": "239.8"}
    assert _read("roarfred-kaifa-list1", settings)[0] == {"import_kw": "0.767"}
    got, faults = _read("amshan-kaifa-no_list_3", settings)
    assert got == {}
    assert faults == {"push": "the body has 18 values without names, the model names 1 or 13"}


def test_lists_are_set_in_a_models_file() -> None:
    good, problems = parse({"push": {"lists": [["1.0.1.7.0.255"], ["", "0.0.96.1.0.255"]]}}, str)
    assert problems == []
    assert good is not None
    assert good.push is not None
    assert good.push.lists == (("1.0.1.7.0.255",), ("", "0.0.96.1.0.255"))
    for lists, words in (([["1.0"]], "no OBIS code"), ([["", ""], ["", ""]], "can't be told apart")):
        nothing, [problem] = parse({"push": {"lists": lists}}, str)
        assert nothing is None
        assert words in problem.what


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_past_billing_periods_are_never_the_present() -> None:
    assert _push_readings(_notification(_one("1.0.1.8.0.101", 5000, _scaler(0, 30)))) == ({}, [])
    assert _push_readings(_notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 30)))) == (
        {"import_kwh": Decimal("5.000")},
        [],
    )


def test_a_unit_that_measures_something_else_is_a_fault() -> None:
    assert _push_readings(_notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 35)))) == (
        {},
        ["import_kwh: UNSUPPORTED"],
    )
    assert _push_readings(_notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 99)))) == (
        {},
        ["import_kwh: UNSUPPORTED"],
    )
    assert _push_readings(_notification(_one("1.0.1.8.0.255", 5000, _scaler(77, 30)))) == (
        {},
        ["import_kwh: UNSUPPORTED"],
    )


def test_null_and_what_is_no_number_are_faults() -> None:
    null = _structure(_structure(_octets("1.0.1.8.0.255"), NULL, _scaler(0, 30)))
    assert _push_readings(_notification(null)) == ({}, ["import_kwh: NULL_VALUE"])
    text = _structure(_structure(_octets("1.0.1.8.0.255"), Datum(Tag.VISIBLE_STRING, "5"), _scaler(0, 30)))
    assert _push_readings(_notification(text)) == ({}, ["import_kwh: BAD_FRAME"])


def test_finer_than_the_store_keeps_is_cut_for_registers_and_rounded_for_the_rest() -> None:
    body = _structure(
        _octets("1.0.1.8.0.255"),
        Datum(Tag.DOUBLE_LONG_UNSIGNED, 123_456_789),
        _scaler(-3, 30),
        _octets("1.0.1.7.0.255"),
        Datum(Tag.DOUBLE_LONG_UNSIGNED, 1_289),
        _scaler(-2, 27),
    )
    got, _ = _push_readings(_notification(body))
    assert got == {"import_kwh": Decimal("123.4567"), "import_kw": Decimal("0.0129")}


def test_attribute_descriptors_with_tags_carry_scaler_and_capture_time() -> None:
    def descriptor(class_id: int, obis: str, index: int, value: Datum) -> Datum:
        head = (Datum(Tag.LONG_UNSIGNED, class_id), _octets(obis), Datum(Tag.INTEGER, index))
        return _structure(*head, value)

    occurred = Datum(Tag.OCTET_STRING, bytes.fromhex("07e7010201083000ff000000"))
    body = Datum(
        Tag.ARRAY,
        (
            descriptor(4, "1.0.1.6.0.255", 2, Datum(Tag.DOUBLE_LONG_UNSIGNED, 4321)),
            descriptor(4, "1.0.1.6.0.255", 3, _scaler(0, 27)),
            descriptor(4, "1.0.1.6.0.255", 5, occurred),
        ),
    )
    readings, faults = readings_of(decode_push(_notification(body), DlmsSettings(), "UTC"), _meter(), NOW)
    assert faults == ()
    [reading] = readings
    assert (reading.quantity, reading.value) == ("import_max_kw", Decimal("4.321"))
    assert reading.occurred_at == datetime(2023, 1, 2, 8, 48, tzinfo=UTC)
    assert reading.source is Source.INSTANT


def test_an_object_list_that_does_not_fit_its_values_is_refused() -> None:
    definition = _structure(
        Datum(Tag.LONG_UNSIGNED, 3), _octets("1.0.1.8.0.255"), Datum(Tag.INTEGER, 2), Datum(Tag.LONG_UNSIGNED, 0)
    )
    two = Datum(Tag.ARRAY, (definition, definition))
    number = Datum(Tag.UNSIGNED, 1)
    with pytest.raises(BadFrame, match="lists 2 objects and holds 1"):
        decode_push(_notification(_structure(two, number)), DlmsSettings(), "UTC")
    assert len(decode_push(_notification(_structure(two, number, number)), DlmsSettings(), "UTC").items) == 2


def test_an_event_names_its_attribute() -> None:
    apdu = bytes.fromhex("c2010c07e8010101080000ff000000" + "0001 0000616200ff 02".replace(" ", "") + "0600000004")
    push = decode_push(apdu, DlmsSettings(), "UTC")
    assert push.event
    assert push.at == datetime(2024, 1, 1, 8, tzinfo=UTC)
    [item] = push.items
    assert (obis_text(item.obis or b""), item.class_id, item.attribute, item.datum.value) == (
        "0.0.97.98.0.255",
        1,
        2,
        4,
    )
    without_time = bytes.fromhex("c200" + "0001 0000616200ff 02".replace(" ", "") + "0600000004")
    assert decode_push(without_time, DlmsSettings(), "UTC").at is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0f",
        "0f00000001",
        "0f0000000100",
        "0f00000001070000",  # a time of 7 bytes
        "0f000000010c07e80d01ff08000000800000" + "0600000001",  # month 13
        "0f0000000100" + "0203",  # a body cut short
        "0f0000000100" + "060000000100",  # a byte too many
        "c2",
        "c20000010000616200ff",
        "c401810006000015b3",  # an answer, no push
        "e08000010000",
    ],
)
def test_what_is_no_push_is_a_bad_frame(text: str) -> None:
    with pytest.raises(BadFrame):
        decode_push(bytes.fromhex(text), DlmsSettings(), "UTC")


def test_several_pushes_are_not_one() -> None:
    apdu = _notification(_one("1.0.1.8.0.255", 1, _scaler(0, 30)))
    framed = b"".join(b"\x00\x01\x00\x01\x00\x01" + len(apdu).to_bytes(2, "big") + apdu for _ in range(2))
    with pytest.raises(BadFrame, match="2 pushes"):
        decode_push(framed, DlmsSettings(), "UTC")


def test_blocks_may_come_one_by_one() -> None:
    apdu = _notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 30)))
    half = len(apdu) // 2
    blocks = [
        bytes((0xE0, control, 0, number, 0, 0, len(part))) + part
        for control, number, part in ((0x40, 1, apdu[:half]), (0xC0, 2, apdu[half:]))
    ]
    assert len(decode_push(blocks, DlmsSettings(), "UTC").items) == 1
    with pytest.raises(BadFrame, match="last block"):
        decode_push(blocks[:1], DlmsSettings(), "UTC")
    with pytest.raises(BadFrame, match="block 1 of a block transfer was lost"):
        decode_push(blocks[1:], DlmsSettings(), "UTC")


def test_mbus_frames_are_made_and_taken_alike() -> None:
    frame = mbus.encode(b"abc", number=3, last=False)
    buffer = bytearray(b"\x00\x68\x68" + frame + frame[:-1] + b"\x17" + frame[:4])
    kinds = []
    while (taken := mbus.take(buffer)) is not None:
        kinds.append(taken.why if isinstance(taken, mbus.Damaged) else (taken.number, taken.last, taken.data))
    assert (3, False, b"abc") in kinds
    assert "no 16 at the end of the M-Bus frame" in kinds
    assert len(kinds) < 8


# --- time and identity ------------------------------------------------------------------------------------------------


def _at(time: str, push: DlmsPush | None = None) -> tuple[datetime | None, list[str]]:
    settings = DlmsSettings(push=push)
    got = decode_push(_notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 30)), time), settings, "UTC")
    readings, faults = readings_of(got, _meter(settings, "UTC"), NOW)
    return (readings[0].at if readings else None), [one.detail for one in faults]


def test_a_value_is_of_the_pushs_own_time_or_where_that_is_no_good_of_now() -> None:
    assert _at("0c07e8010101080000ff000000") == (datetime(2024, 1, 1, 8, tzinfo=UTC), [])
    assert _at("00") == (NOW, [])
    assert _at("0c07d0010106162100ff000001") == (NOW, [])  # the meter's clock was never set: status invalid


def test_a_value_of_a_curve_stands_at_its_boundary_or_is_a_fault() -> None:
    hourly = DlmsPush(step_s=3600)
    at, faults = _at("0c07e8010101080019ff000000", hourly)  # 25 s past the hour, as Kamstrup does
    assert (at, faults) == (datetime(2024, 1, 1, 8, tzinfo=UTC), [])
    at, [fault] = _at("0c07e8010101080200ff000000", hourly)
    assert at is None
    assert "on no boundary of 3600 s" in fault
    at, [fault] = _at("00", hourly)
    assert at is None
    assert "no time" in fault
    settings = DlmsSettings(push=hourly)
    push = decode_push(_notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 30))), settings, "UTC")
    [reading], _ = readings_of(push, _meter(settings), NOW)
    assert (reading.source, reading.step_s, reading.taken_at) == (Source.CURVE, 3600, NOW)
    assert readings_of(push, _meter(settings), NOW)[1] == ()


def test_who_sent_it_is_told_before_any_key_is_known() -> None:
    ciphered = bytes.fromhex("db084c475a67735dd3a9050000000001")
    assert sender_title(ciphered).hex() == "4c475a67735dd3a9"
    assert sender_title(bytes.fromhex("0f0000000100")) == b""
    assert sender_title(b"\xdb") == b""
    with pytest.raises(NoAccess):
        decode_push(bytes.fromhex("db084c475a67735dd3a90a20000000010102030405"), DlmsSettings(), "UTC")


def test_an_old_push_played_again_is_refused() -> None:
    capture = CAPTURES["dp-hdlc_kamstrup_omnipower"]
    keys = {"encryption_key": bytes.fromhex(capture["key"]), "authentication_key": bytes.fromhex(capture["auth_key"])}
    access, data = memory_access(keys), bytes.fromhex(capture["hex"])
    assert decode_push(data, DlmsSettings(), "UTC", access=access).title.hex() == "4b414d4501349083"
    with pytest.raises(NoAccess, match="counter"):
        decode_push(data, DlmsSettings(), "UTC", access=access)
    assert decode_push(data, DlmsSettings(), "UTC", access=access, count=False).items


def test_a_push_in_the_clear_is_refused_where_policy_asks_for_more() -> None:
    capture = CAPTURES["dp-hdlc_kamstrup_omnipower"]
    keys = {"encryption_key": bytes.fromhex(capture["key"]), "authentication_key": bytes.fromhex(capture["auth_key"])}
    strict = DlmsSettings(policy="authenticated-encrypted")
    assert decode_push(bytes.fromhex(capture["hex"]), strict, "UTC", access=memory_access(keys)).items
    plain = _notification(_one("1.0.1.8.0.255", 5000, _scaler(0, 30)))
    content = bytes(5) + plain  # security control 00: a title, and nothing behind it
    forged = bytes.fromhex("db084b414d4501349083") + bytes((len(content),)) + content
    for push in (plain, forged):
        with pytest.raises(NoAccess, match="less protected"):
            decode_push(push, strict, "UTC", access=memory_access(keys))
    half = CAPTURES["dp-mbus_netz_noe_p1"]  # encrypted only
    key = memory_access({"encryption_key": bytes.fromhex(half["key"])})
    with pytest.raises(NoAccess, match="less protected"):
        decode_push(bytes.fromhex(half["hex"]), strict, "UTC", access=key)
    assert decode_push(bytes.fromhex(half["hex"]), DlmsSettings(policy="encrypted"), "UTC", access=key).items
    allowed = DlmsSettings(policy="authenticated-encrypted", push=DlmsPush(plain=True))
    assert decode_push(plain, allowed, "UTC").items


# --- names and units --------------------------------------------------------------------------------------------------


def test_obis_codes_are_read_in_every_writing_and_refused_when_they_are_none() -> None:
    for text in ("1.0.1.8.0.255", "1-0:1.8.0*255", "1-0:1.8.0", "1-0:1.8.0.255", " 1.0.1.8.0 "):
        assert obis_bytes(text) == bytes((1, 0, 1, 8, 0, 255)), text
    assert obis_bytes("1-0:1.8.0*101")[5] == 101
    assert obis_short(bytes((1, 0, 1, 8, 0, 101))) == "1-0:1.8.0*101"
    for text in ("", "1.0.300.8.0.255", "1.8", "1-0", "1.0.1.8.0.255.1", "١.0.1.8.0.255"):
        with pytest.raises(Exception, match="no OBIS code"):
            obis_bytes(text)


def test_names_tell_channel_and_period() -> None:
    assert name_of(obis_bytes("1.0.1.8.0.255")) == "1-0:1.8.0 (active energy import total)"
    assert name_of(obis_bytes("1.1.1.8.0.255")) == "1-1:1.8.0 (active energy import total, channel 1)"
    assert name_of(obis_bytes("1.0.1.8.0.103")) == "1-0:1.8.0*103 (active energy import total, 3 billing periods back)"
    assert name_of(obis_bytes("1.0.130.8.0.255")) == "1-0:130.8.0"
    assert name_of(b"abc") == "616263"
    assert historical(obis_bytes("1.0.1.8.0.101"))
    item = find(obis_bytes("1.0.62.29.0.255"))
    assert item is not None
    assert (item.name, item.unit) == ("active energy of the interval export L3", "Wh")


def test_the_catalogue_is_searched_for_obis_codes_too() -> None:
    def found(*words: str) -> list[dict[str, str]]:
        result = CliRunner().invoke(cli, ["catalogue", *words, "--json"])
        assert result.exit_code == 0, result.output
        rows: list[dict[str, str]] = json.loads(result.output)
        return [row for row in rows if row["protocol"] == "dlms"]

    assert {row["obis"] for row in found("dlms", "voltage l1")} >= {"1-0:32.7.0"}
    assert [row["name"] for row in found("1.0.1.8.0.255")] == ["active energy import total"]
    assert [row["note"] for row in found("0-0:96.3.10")] == ["class 70 disconnect control, attribute 2"]
    assert [row["name"] for row in found("1-0:1.8.0*102")] == ["active energy import total, 2 billing periods back"]
    shown = CliRunner().invoke(cli, ["catalogue", "dlms", "active power import total"]).output
    assert "import_kw" in shown


def test_the_catalogue_and_our_quantities_agree_on_units() -> None:
    assert len(items()) > 150
    for one in QUANTITIES.values():
        item = find(obis_bytes(one.obis)) if one.obis else None
        if item is not None and item.unit:
            code = next(code for code, symbol in UNITS.items() if symbol == item.unit)
            if one.unit:
                in_unit(1, 0, code, one.unit)


@pytest.mark.parametrize(
    ("raw", "scaler", "code", "unit", "value"),
    [
        (12345, 0, 30, "kWh", "12.345"),
        (12345, -1, 30, "kWh", "1.2345"),
        (5, 3, 30, "kWh", "5"),
        (2304, -1, 35, "V", "230.4"),
        (98, 0, 56, "", "0.98"),
        (30000, -2, 52, "°C", "26.85"),
        (2, 0, 6, "s", "120"),
        (2**64 - 1, -3, 32, "kvarh", "18446744073709.551615"),
    ],
)
def test_units_become_ours_exactly(raw: int, scaler: int, code: int, unit: str, value: str) -> None:
    assert in_unit(raw, scaler, code, unit) == Decimal(value)


def test_units_that_can_not_be_are_refused() -> None:
    for code, unit in ((35, "kWh"), (30, "kvarh"), (255, "kWh"), (99, "kWh"), (27, "kWh")):
        with pytest.raises(Unsupported):
            in_unit(1, 0, code, unit)
    with pytest.raises(Unsupported):
        scaled(1, 100)
    with pytest.raises(Unsupported):
        scaled(Decimal("NaN"), 0)
    assert unit_name(99) == "unit 99"


def test_causes_of_faults_are_named() -> None:
    body = _one("1.0.1.8.0.255", 5000)
    _, [fault] = readings_of(decode_push(_notification(body), DlmsSettings(), "UTC"), _meter(), NOW)
    assert fault.cause is Cause.UNSUPPORTED
    assert "set scaler and unit of 1.0.1.8.0.255" in fault.detail
