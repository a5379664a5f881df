"""Published captures of pushes, as they were seen on wires: every one decodes to what its source says, or fails as it
should. `tests/vectors/dlms_captures.jsonl` names the source and licence of each."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headend.access import Access, memory_access
from headend.errors import BadFrame, HeadendError, NoAccess
from headend.protocols.dlms.cosem import obis_bytes, obis_text
from headend.protocols.dlms.intake import Arrival, Intake, arrivals
from headend.protocols.dlms.push import Item, Push, decode_push, text_of
from headend.protocols.dlms.security import unwrap
from headend.protocols.dlms.settings import DlmsPush, DlmsSettings
from headend.protocols.dlms.units import scaled

VECTORS = Path(__file__).parent / "vectors" / "dlms_captures.jsonl"
CAPTURES: dict[str, dict[str, Any]] = {
    one["id"]: one for one in map(json.loads, VECTORS.read_text("utf-8").splitlines())
}

# What can't be decoded, and why not.
DAMAGED = {
    "dp-hdlc_landis_gyr_zmf100": (BadFrame, "wrong FCS"),
    "dp-mbus_kmswest": (NoAccess, "encryption_key"),
    "roarfred-kaifa-stream": (BadFrame, "no whole frame"),
}
PUSHES = sorted(set(CAPTURES) - set(DAMAGED))

# The source's figures for these are not what the bytes hold: it reads the data index of the object list as the value.
LISTED = "dp-raw_energomera"

# Kaifa's list KFM_001 names nothing. Its three lengths, as the decoder that made the claims reads them.
_KFM_HEAD = ("1.1.0.2.129.255", "0.0.96.1.0.255", "0.0.96.1.7.255")
_KFM_POWER = tuple(f"1.0.{c}.7.0.255" for c in (1, 2, 3, 4, 31, 51, 71, 32, 52, 72))
_KFM_ENERGY = ("0.0.1.0.0.255", *(f"1.0.{c}.8.0.255" for c in (1, 2, 3, 4)))
KAIFA = DlmsPush(items=(*_KFM_HEAD, *_KFM_POWER, *_KFM_ENERGY), lists=(("1.0.1.7.0.255",), (*_KFM_HEAD, *_KFM_POWER)))
NETZ_NOE = DlmsPush(items=("0.0.1.0.0.255", "0.0.96.1.0.255"))

# Claims by name instead of by OBIS: groups C.D they mean.
NAMES = {
    "active_power_import": "1.7",
    "active_power_export": "2.7",
    "reactive_power_import": "3.7",
    "reactive_power_export": "4.7",
    "act_pow_pos": "1.7",
    "act_pow_neg": "2.7",
    "react_pow_pos": "3.7",
    "react_pow_neg": "4.7",
    **{
        f"{name}{phase}": f"{c + 20 * n}.7"
        for name, c in (("current_l", 31), ("curr_L", 31), ("voltage_l", 32), ("volt_L", 32))
        for n, phase in enumerate("123")
    },
    **{
        f"{name}_l{phase}": f"{c + 20 * n}.7"
        for name, c in (
            ("active_power_import", 21),
            ("active_power_export", 22),
            ("reactive_power_import", 23),
            ("reactive_power_export", 24),
        )
        for n, phase in enumerate("123")
    },
    "active_power_import_total": "1.8",
    "active_power_export_total": "2.8",
    "reactive_power_import_total": "3.8",
    "reactive_power_export_total": "4.8",
}
TEXTS = {
    "meter_id": ("0.0.96.1.0.255", "1.1.0.0.5.255"),
    "meter_ID": ("0.0.96.1.0.255", "1.1.0.0.5.255"),
    "meter_type": ("0.0.96.1.7.255", "1.1.96.1.1.255"),
    "list_ver_id": ("1.1.0.2.129.255", "1.0.0.2.129.255"),
}
# Powers of ten a maker's bodies don't tell, by group of quantity: current, voltage, energy.
UNTOLD = {"Kaifa": (-3, -1, 0), "Kamstrup": (-2, 0, 1)}


def _access(capture: dict[str, Any]) -> Access:
    names = {"key": "encryption_key", "auth_key": "authentication_key"}
    return memory_access({name: bytes.fromhex(capture[field]) for field, name in names.items() if field in capture})


def _settings(capture: dict[str, Any]) -> DlmsSettings:
    maker = capture["claims"].get("meter_manufacturer", capture["meter"]) if capture.get("claims") else ""
    if capture["id"] == "dp-mbus_netz_noe_p1":
        return DlmsSettings(push=NETZ_NOE)
    return DlmsSettings(push=KAIFA) if "Kaifa" in maker else DlmsSettings()


def _push(name: str) -> Push:
    capture = CAPTURES[name]
    return decode_push(bytes.fromhex(capture["hex"]), _settings(capture), "Europe/Oslo", access=_access(capture))


def _number(item: Item, maker: str) -> Decimal:
    """The value in the meter's unit."""
    assert isinstance(item.datum.value, int)
    if item.scale is not None:
        return scaled(item.datum.value, item.scale.exponent)
    assert item.obis is not None
    c, d = item.obis[2:4]
    current, voltage, energy = UNTOLD.get(maker, (0, 0, 0))
    exponent = energy if d == 8 else current if c % 20 == 11 else voltage if c % 20 == 12 else 0
    return scaled(item.datum.value, exponent)


def test_all_published_captures_are_here_with_their_source() -> None:
    assert len(CAPTURES) == 35
    assert all(one["source"].startswith("github.com/") and one["source_licence"] for one in CAPTURES.values())


@pytest.mark.parametrize("name", PUSHES)
def test_what_a_push_says_is_what_its_source_claims(name: str) -> None:
    capture, push = CAPTURES[name], _push(name)
    by_obis = {obis_text(item.obis): item for item in push.items if item.obis is not None}
    compared = 0
    for key, claim in capture["claims"].items():
        if name == LISTED or key == "meter_manufacturer":
            continue
        if key in ("meter_datetime", "0.0.0.0.0.0", "0.0.1.0.0.255", "0.1.1.0.0.255"):
            if claim != "Kamstrup_V0001":
                assert push.stamp.local is not None
                claimed = datetime.fromisoformat(claim)
                assert (push.at if claimed.tzinfo else push.stamp.local) == claimed, key
            else:
                assert text_of(push.items[0].datum) == claim
        elif key in TEXTS:
            found = [by_obis[obis] for obis in TEXTS[key] if obis in by_obis]
            assert [text_of(item.datum) for item in found] == [claim] or text_of(push.items[0].datum) == claim, key
        elif key in NAMES:
            c, d = map(int, NAMES[key].split("."))
            [item] = [one for one in push.items if one.obis is not None and tuple(one.obis[2:5]) == (c, d, 0)]
            maker = capture["claims"].get("meter_manufacturer", "")
            assert _number(item, maker) == Decimal(str(claim)), key
        elif isinstance(claim, str):
            told = text_of(by_obis[key].datum)
            # The source shows the one octet-string that holds a logical name as an empty text.
            assert told == claim or (not claim and key == "0.2.25.9.0.255"), key
        else:
            assert _number(by_obis[key], "") == Decimal(str(claim)), key
        compared += 1
    assert compared >= 2 or len(capture["claims"]) <= 3 or name == LISTED


def test_an_object_list_in_the_body_names_the_values_behind_it() -> None:
    push = _push(LISTED)
    assert [(obis_text(item.obis or b""), item.datum.value) for item in push.items[:2]] == [
        ("0.0.96.5.134.255", 1),
        ("0.0.42.0.0.255", b"EMR0222173608710"),
    ]
    assert push.serial == "012415173608710"
    assert [item.datum.value for item in push.items[3:5]] == [16, 0xFFFF]
    listed = set(CAPTURES[LISTED]["claims"]) - {"0.0.25.9.0.255"}
    assert {obis_text(item.obis or b"") for item in push.items} == listed


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_what_is_damaged_or_ciphered_fails_with_the_error_that_says_so(name: str) -> None:
    error, words = DAMAGED[name]
    with pytest.raises(error, match=words):
        _push(name)


CIPHERED = sorted(name for name, one in CAPTURES.items() if "plain_apdu" in one)


@pytest.mark.parametrize("name", CIPHERED)
def test_published_keys_give_the_published_plain_text(name: str) -> None:
    capture = CAPTURES[name]
    [arrival] = arrivals(bytes.fromhex(capture["hex"]))
    assert isinstance(arrival, Arrival)
    assert unwrap(arrival.apdu, DlmsSettings(), _access(capture)).hex() == capture["plain_apdu"]


@pytest.mark.parametrize("name", [name for name in CIPHERED if "auth_key" in CAPTURES[name]])
def test_a_flipped_bit_in_a_ciphered_push_does_not_pass_its_tag(name: str) -> None:
    capture = CAPTURES[name]
    [arrival] = arrivals(bytes.fromhex(capture["hex"]))
    assert isinstance(arrival, Arrival)
    for at in (20, len(arrival.apdu) // 2, len(arrival.apdu) - 1):
        apdu = bytearray(arrival.apdu)
        apdu[at] ^= 0x10
        with pytest.raises(NoAccess, match="authentication tag"):
            decode_push(bytes(apdu), DlmsSettings(), "UTC", access=_access(capture))
    blind = DlmsSettings(check_tag=False)
    only = memory_access({"encryption_key": bytes.fromhex(capture["key"])})
    assert len(decode_push(arrival, blind, "UTC", access=only).items) > 10


def test_a_lost_block_drops_the_push_and_says_so() -> None:
    frames = bytes.fromhex(CAPTURES["dp-hdlc_landis_gyr_e450"]["hex"]).split(b"\x7e\x7e")
    assert len(frames) == 3
    first, middle, last = frames[0] + b"\x7e", b"\x7e" + frames[1] + b"\x7e", b"\x7e" + frames[2]
    intake = Intake()
    [lost] = intake.feed(first + last)
    assert isinstance(lost, BadFrame)
    assert "block 2 of a block transfer was lost" in str(lost)
    again = intake.feed(first + middle + middle + last)  # a block sent twice is taken once
    assert [type(one) for one in again] == [Arrival]
    broken, whole = intake.feed(first + middle + first + middle + last)
    assert isinstance(broken, BadFrame)
    assert "last blocks" in str(broken)
    assert isinstance(whole, Arrival)


def test_a_lost_segment_drops_the_push_and_says_so() -> None:
    capture = bytes.fromhex(CAPTURES["dp-mbus_netz_noe_p1"]["hex"])
    first, second = capture[:256], capture[256:]
    assert second[0] == 0x68
    intake = Intake()
    assert intake.feed(first) == []
    [whole] = intake.feed(second)
    assert isinstance(whole, Arrival)
    [lost] = intake.feed(second)
    assert isinstance(lost, BadFrame)
    assert "segment was lost" in str(lost)
    assert [type(one) for one in intake.feed(first + second)] == [Arrival]


def test_a_damaged_segment_takes_its_push_with_it() -> None:
    capture = bytearray.fromhex(CAPTURES["dp-hdlc_iskra550"]["hex"])
    capture[200] ^= 0x01  # in the second of three frames
    intake = Intake()
    found = intake.feed(bytes(capture))
    assert any(isinstance(one, BadFrame) and "dropped" in str(one) for one in found)
    for one in found:
        if isinstance(one, Arrival):  # the last segment alone is no push
            with pytest.raises(BadFrame):
                decode_push(one, DlmsSettings(), "UTC")


def test_a_stream_gives_every_whole_push_however_it_is_cut() -> None:
    stream = bytes.fromhex(CAPTURES["roarfred-kaifa-stream"]["hex"])
    at_once = arrivals(stream)
    whole = [one for one in at_once if isinstance(one, Arrival)]
    assert len(whole) == 104
    assert [str(one) for one in at_once if isinstance(one, BadFrame)] != []
    settings = DlmsSettings(push=KAIFA)
    pushes = [decode_push(one, settings, "Europe/Oslo") for one in whole]
    powers = [item.datum.value for push in pushes for item in push.items if item.obis == obis_bytes("1.0.1.7.0.255")]
    assert len(powers) == 104
    assert powers[:5] == [764, 767, 763, 763, 765]
    stamps = [push.at for push in pushes]
    assert all(later > earlier for earlier, later in pairwise(stamps) if earlier and later)
    for size in (1, 7, 100):
        intake = Intake()
        chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
        got = [one for chunk in chunks for one in intake.feed(chunk) if isinstance(one, Arrival)]
        assert got == whole, size


def test_a_wrapper_push_tells_its_port() -> None:
    apdu = bytes.fromhex(CAPTURES["dp-raw_salzburg_netz"]["hex"])
    framed = b"\x00\x01\x00\x01\x00\x67" + len(apdu).to_bytes(2, "big") + apdu
    assert decode_push(framed, DlmsSettings(), "UTC").source == "1"
    assert Intake(swap_wports=True).feed(framed) == [Arrival(apdu, "103")]
    with pytest.raises(HeadendError):
        decode_push(framed[:-1], DlmsSettings(), "UTC")
