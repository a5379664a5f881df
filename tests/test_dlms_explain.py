"""What captured DLMS bytes are told to mean: frames, services, associations, protection. No secret, no raise."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from headend.cli import cli
from headend.protocols.dlms import hdlc, mbus
from headend.protocols.dlms.explain import explain
from headend.protocols.explanation import Explanation

H = bytes.fromhex
CAPTURES: dict[str, dict[str, Any]] = {
    one["id"]: one
    for one in map(
        json.loads, (Path(__file__).parent / "vectors" / "dlms_captures.jsonl").read_text("utf-8").splitlines()
    )
}

# Examples printed in the Green Book (DLMS UA 1000-2): keys, title and APDUs of clause 9.2 and of its annex.
KEYS = {
    "encryption_key": H("000102030405060708090A0B0C0D0E0F"),
    "authentication_key": H("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"),
    "system_title": H("4D4D4D0000BC614E"),
}
GLO_GET = H("C81E3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B")
GLO_GET_ENCRYPTED = H("C8122001234567411312FF935A47566827C467BC")
GLO_GET_AUTHENTICATED = H("C81E1001234567C0010000080000010000FF020006725D910F9221D263877516")
AARQ_LLS = H(
    "6036A1090607608574050801018A0207808B0760857405080201AC0A80083132333435363738BE10040E01000000065F1F0400007E1F04B0"
)
AARE = H("6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F040000501F01F40007")
AARE_REFUSED = H("611FA109060760857405080101A203020101A305A10302010DBE0604040E010600")


def _told(data: bytes, **secrets: bytes) -> Explanation:
    explanation = explain(data, secrets=secrets)
    json.dumps(explanation.to_json())
    return explanation


def _fields(explanation: Explanation) -> dict[str, str]:
    return {one.name: one.text for one in explanation.fields}


# --- captures ---------------------------------------------------------------------------------------------------------

DAMAGED = {"dp-hdlc_landis_gyr_zmf100", "roarfred-kaifa-stream"}


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_every_capture_is_told(name: str) -> None:
    capture = CAPTURES[name]
    names = {"key": "encryption_key", "auth_key": "authentication_key"}
    secrets = {names[key]: H(capture[key]) for key in names if key in capture}
    explanation = _told(H(capture["hex"]), **secrets)
    assert explanation.ok == (name not in DAMAGED), explanation.problems
    if name == "dp-mbus_kmswest":
        assert explanation.problems == ("ciphered: give the encryption key to see what it says",)
        assert _fields(explanation)["system title"] == "454C536570000001 (maker ELS)"
    elif name != "dp-hdlc_landis_gyr_zmf100":
        assert "data notification" in explanation.summary
        assert explanation.values
    told = {(one.obis, one.value) for one in explanation.values}
    for key, claim in (capture.get("claims") or {}).items():
        if key.count(".") == 5 and isinstance(claim, str) and claim and name not in DAMAGED and ":" not in claim:
            written = {f'"{claim}"', claim, claim.encode().hex().upper()}
            assert written & {value for _, value in told}, (key, claim)
    for secret in secrets.values():
        assert secret.hex() not in json.dumps(explanation.to_json()).lower()


def test_a_frame_field_by_field() -> None:
    explanation = _told(H(CAPTURES["dp-hdlc_norway_han_1phase"]["hex"]))
    fields = _fields(explanation)
    assert fields["HDLC"] == "frame of type 3, 210 bytes"
    assert (fields["destination"], fields["source"]) == ("32", "4/65")
    assert fields["control"] == "unnumbered information (UI), poll/final"
    assert (fields["HCS"], fields["FCS"], fields["LLC"]) == ("right", "right", "from the meter")
    voltage = next(one for one in explanation.values if one.obis == "1-0:32.7.0")
    assert (voltage.name, voltage.name_zh, voltage.value, voltage.unit) == ("voltage L1", "A相电压", "250.0", "V")
    text = next(one for one in explanation.values if one.obis == "1-1:0.2.129")
    assert (text.value, text.note) == ('"AIDON_V0001"', "")


def test_a_wrong_check_is_told_with_the_right_one() -> None:
    explanation = _told(H(CAPTURES["dp-hdlc_landis_gyr_zmf100"]["hex"]))
    assert _fields(explanation)["FCS"] == "wrong, 38B9 would be right"
    assert explanation.problems == ("396 bytes that are no good frame: wrong FCS",)
    assert explanation.summary.startswith("damaged: ")


def test_values_without_scaler_are_told_as_sent() -> None:
    capture = CAPTURES["dp-hdlc_lgz_e450_2"]
    explanation = _told(H(capture["hex"]), encryption_key=H(capture["key"]), authentication_key=H(capture["auth_key"]))
    fields = _fields(explanation)
    assert fields["security control"] == "suite 0, authenticated, encrypted"
    assert (fields["invocation counter"], fields["tag"]) == ("707715", "right")
    assert fields["block transfer"] == "block 3, the last, streaming, acknowledges 0, 31 bytes"
    energy = next(one for one in explanation.values if one.obis == "1-0:1.8.0")
    assert (energy.value, energy.unit, energy.note) == ("12048950", "", "as sent, the body tells no scaler")


def test_a_missing_block_or_segment_is_told() -> None:
    frames = H(CAPTURES["dp-hdlc_lgz_e450_2"]["hex"]).split(b"\x7e\x7e")
    first, last = frames[0] + b"\x7e", b"\x7e" + frames[2]
    assert "block 2 of a block transfer was lost" in _told(first + last).problems[0]
    assert "cut off" in _told(first).problems[0]
    iskra = H(CAPTURES["dp-hdlc_iskra550"]["hex"]).split(b"\x7e\x7e")
    explanation = _told(iskra[0] + b"\x7e")
    assert (explanation.ok, explanation.summary) == (False, "damaged: part of a segmented APDU")
    noe = H(CAPTURES["dp-mbus_netz_noe_p1"]["hex"])
    assert "segment was lost" in _told(noe[256:]).problems[0]


# --- services ---------------------------------------------------------------------------------------------------------

GET = H("C001C1000301000108 00FF0200")
ANSWER = H("C401C1000600 0015B3")


def test_a_request_names_the_answer_behind_it() -> None:
    request = hdlc.encode(H("0223"), H("21"), 0x10, hdlc.LLC_COMMAND + GET)
    answer = hdlc.encode(H("21"), H("0223"), 0x30, hdlc.LLC_RESPONSE + ANSWER)
    explanation = _told(request + answer)
    assert explanation.ok
    assert explanation.summary == "GET request: 1-0:1.8.0; GET response"
    [value] = explanation.values
    assert (value.name, value.value, value.obis) == ("active energy import total", "5555", "1-0:1.8.0")
    assert _fields(explanation)["attribute"] == "register 1-0:1.8.0 (active energy import total), attribute 2"
    assert _fields(explanation)["invoke id"] == "1, confirmed, high priority"
    alone = _told(ANSWER)
    assert [(one.name, one.value) for one in alone.values] == [("value", "5555")]


@pytest.mark.parametrize(
    ("text", "summary", "problem"),
    [
        ("C401C10104", "GET response; refused: object undefined", "the meter refuses a value: object undefined"),
        ("C401C101 77", "GET response; refused: code 119", "the meter refuses a value: code 119"),
        ("C501C103", "SET response: read or write denied", "the meter refuses: read or write denied"),
        ("C501C100", "SET response: success", ""),
        ("C701C10000", "ACTION response: success", ""),
        ("C701C103", "ACTION response: read or write denied", "the meter refuses: read or write denied"),
        ("C002C100000001", "GET request for the next block", ""),
        ("C502C100000002", "SET response: next block", ""),
        ("D80101", "exception response: operation not possible", "an exception: operation not possible"),
        ("D8010600000123", "exception response: wrong invocation counter", "wrong invocation counter"),
        ("0E010600", "confirmed service error", "initiate, other reason"),
        ("C301C1004600006003 0AFF01 010F00", "ACTION request: 0-0:96.3.10 method 1", ""),
        ("C101C100080000010000FF0200 1907E80101FF00000000800000", "SET request: 0-0:1.0.0", ""),
        ("6203800100", "release request (RLRQ)", ""),
        ("0C0100", "read response (short names)", "not taken apart"),
        ("DD00", "general ciphering (public keys)", "not taken apart"),
    ],
)
def test_services_and_refusals_in_words(text: str, summary: str, problem: str) -> None:
    explanation = _told(H(text.replace(" ", "")))
    assert explanation.ok, explanation.problems
    assert explanation.summary == summary
    assert (problem in explanation.problems[0]) if problem else not explanation.problems


def test_exception_names_state_and_counter() -> None:
    fields = _fields(_told(H("D8010600000123")))
    assert (fields["state error"], fields["service error"]) == ("service not allowed", "wrong invocation counter")
    assert fields["invocation counter"] == "291"


def test_a_selection_is_spelled_out() -> None:
    descriptor = (
        "01020402041200080906000001 0000FF0F02120000090C07E80101FF00000000800000090C07E80102FF000000008000000100"
    )
    text = "C001C1 0007 0100630100FF 02 01" + descriptor
    fields = _fields(_told(H(text.replace(" ", ""))))
    assert fields["attribute"].startswith("profile generic 1-0:99.1.0 (load profile 1")
    assert fields["selection"].startswith("range: {{8, 0-0:1.0.0, 2, 0}, 2024-01-01 00:00:00")


def test_blocks_of_an_answer_are_put_together() -> None:
    def answer(number: int, last: int, part: bytes) -> bytes:
        return H("C402C1") + bytes((last,)) + number.to_bytes(4, "big") + b"\x00" + bytes((len(part),)) + part

    data = H("0910") + b"KFM1200200234804"
    frames = b"".join(
        hdlc.encode(H("21"), H("0223"), 0x30, hdlc.LLC_RESPONSE + apdu)
        for apdu in (answer(1, 0, data[:7]), answer(2, 1, data[7:]))
    )
    explanation = _told(frames)
    assert [one.value for one in explanation.values] == ['"KFM1200200234804"']
    missing = _told(hdlc.encode(H("21"), H("0223"), 0x30, hdlc.LLC_RESPONSE + answer(2, 1, data[7:])))
    assert missing.values == ()


def test_link_frames_in_words() -> None:
    snrm = hdlc.encode(H("0223"), H("21"), 0x93, H("8180120501800601800704000000010804000000 01"))
    explanation = _told(snrm)
    fields = _fields(explanation)
    assert explanation.summary == "HDLC connect (SNRM) from 16 to 1/17"
    assert fields["longest information field, sending"] == "128"
    assert fields["window, receiving"] == "1"
    dm = _told(hdlc.encode(H("21"), H("0223"), 0x1F))
    assert dm.problems == ("the meter is not connected on this link",)
    frmr = _told(hdlc.encode(H("21"), H("0223"), 0x97, H("100004")))
    assert "information field too long" in frmr.problems[0]


def test_the_wrapper_and_mbus_in_words() -> None:
    fields = _fields(_told(H("0001 0001 0010 0009".replace(" ", "")) + ANSWER))
    assert (fields["source wPort"], fields["destination wPort"], fields["length"]) == ("1", "16", "9 bytes")
    fields = _fields(_told(mbus.encode(ANSWER)))
    assert (fields["segment"], fields["access points"]) == ("number 0, the last", "1 to 103")


# --- associations -----------------------------------------------------------------------------------------------------


def test_an_association_is_told_and_its_password_is_not() -> None:
    explanation = _told(AARQ_LLS)
    fields = _fields(explanation)
    assert explanation.ok
    assert fields["context"] == "logical names"
    assert fields["mechanism"] == "password (LLS)"
    assert fields["authentication value"] == "8 bytes, not shown"
    assert fields["conformance"].split(", ") == [
        "priority",
        "attribute 0 with GET",
        "block transfer with GET",
        "block transfer with SET",
        "block transfer with ACTION",
        "multiple references",
        "GET",
        "SET",
        "selective access",
        "event notification",
        "ACTION",
    ]
    assert fields["longest PDU"] == "1200 bytes"
    _hides(explanation, "12345678")


def _hides(explanation: Explanation, secret: str) -> None:
    whole = json.dumps(explanation.to_json())
    assert secret not in whole
    assert secret.encode().hex() not in whole.lower()


def test_answers_to_an_association() -> None:
    accepted = _told(AARE)
    assert accepted.ok
    assert accepted.summary == "association response (AARE); accepted"
    fields = _fields(accepted)
    assert (fields["diagnostic"], fields["longest PDU"]) == ("none", "500 bytes")
    assert fields["VAA name"] == "0007 (logical names)"
    refused = _told(AARE_REFUSED)
    assert refused.summary.startswith("association response (AARE); refused for good")
    assert "its reason: authentication failed" in refused.problems


def test_titles_user_and_challenge_of_a_high_level_association() -> None:
    body = (
        "A109060760857405080103"
        "A60A04084D4D4D0000BC614E"
        "A903020105"
        "8A020780"
        "8B0760857405080205"
        "AC0A80084B35366956616759"
        "BE10040E01000000065F1F0400007E1F04B0"
    )
    explanation = _told(b"\x60" + bytes((len(H(body)),)) + H(body))
    fields = _fields(explanation)
    assert fields["context"] == "logical names, ciphered"
    assert fields["system title"] == "4D4D4D0000BC614E (maker MMM)"
    assert (fields["mechanism"], fields["user"]) == ("HLS GMAC", "5")
    _hides(explanation, "K56iVagY")


def test_a_dedicated_key_is_not_told() -> None:
    key = b"0123456789ABCDEF"
    explanation = _told(H("010110") + key + H("0000065F1F0400007E1F04B0"))
    assert _fields(explanation)["dedicated key"] == "16 bytes, not shown"
    _hides(explanation, key.decode())


@pytest.mark.parametrize(
    "text",
    [
        "C101C1000F0000280000FF0700 0908" + b"geheim!!".hex(),  # SET of the LLS secret
        "C301C1000F0000280000FF0101 0908" + b"geheim!!".hex(),  # answer to a challenge
        "C301C1000F0000280000FF0201 0908" + b"geheim!!".hex(),  # change of the HLS secret
        "C301C1004000002B0000FF0201 0101020216000908" + b"geheim!!".hex(),  # keys handed over
        "C701C100010009 08".replace(" ", "") + b"geheim!!".hex(),  # what an action returns
        "C103C101000000010A 0908" + b"geheim!!".hex(),  # part of a SET in blocks
    ],
)
def test_secrets_in_services_are_not_told(text: str) -> None:
    explanation = _told(H(text.replace(" ", "")))
    _hides(explanation, "geheim!!")
    assert "not shown" in " ".join(one.text for one in explanation.fields)


# --- protection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apdu", "control", "tag"),
    [
        (GLO_GET, "suite 0, authenticated, encrypted", "right"),
        (GLO_GET_ENCRYPTED, "suite 0, encrypted", None),
        (GLO_GET_AUTHENTICATED, "suite 0, authenticated", "right"),
    ],
)
def test_the_green_books_ciphered_get_is_opened(apdu: bytes, control: str, tag: str | None) -> None:
    explanation = _told(apdu, **KEYS)
    fields = _fields(explanation)
    assert explanation.ok, explanation.problems
    assert explanation.summary == "GET request: 0-0:1.0.0"
    assert fields["security control"] == control
    assert fields["invocation counter"] == "19088743"
    assert fields.get("tag") == tag
    assert fields["attribute"] == "clock 0-0:1.0.0 (clock), attribute 2"


def test_without_keys_the_header_is_told_and_what_is_in_the_clear() -> None:
    closed = _told(GLO_GET)
    assert closed.ok
    assert closed.summary == "glo get request, invocation counter 19088743"
    assert "give the encryption key" in closed.problems[0]
    clear = _told(GLO_GET_AUTHENTICATED)
    assert clear.summary == "GET request: 0-0:1.0.0"
    assert _fields(clear)["tag"] == "not checked: no keys given"
    half = _told(GLO_GET, **{**KEYS, "authentication_key": b""})
    assert half.summary == "GET request: 0-0:1.0.0"
    assert _fields(half)["tag"].startswith("not checked")


def test_wrong_keys_and_changed_bytes_are_told() -> None:
    wrong = _told(GLO_GET, **{**KEYS, "authentication_key": bytes(16)})
    assert not wrong.ok
    assert "the authentication tag is wrong" in wrong.problems[0]
    assert wrong.values == ()
    changed = _told(GLO_GET[:-1] + b"\x00", **KEYS)
    assert not changed.ok
    blind = _told(GLO_GET_ENCRYPTED, **{**KEYS, "encryption_key": bytes(16)})
    assert not blind.ok
    assert "the encryption key is another one" in blind.problems[0]
    untitled = _told(GLO_GET, **{**KEYS, "system_title": b""})
    assert "system title is not known" in untitled.problems[0]


def test_the_association_in_the_input_tells_the_titles() -> None:
    body = "A109060760857405080103A60A04084D4D4D0000BC614EBE10040E01000000065F1F0400007E1F04B0"
    aarq = b"\x60" + bytes((len(H(body)),)) + H(body)
    frames = b"".join(
        hdlc.encode(H("0223"), H("21"), control, hdlc.LLC_COMMAND + apdu)
        for control, apdu in ((0x10, aarq), (0x32, GLO_GET))
    )
    explanation = _told(frames, **{**KEYS, "system_title": b""})
    assert explanation.ok
    assert "GET request: 0-0:1.0.0" in explanation.summary


# --- anything ---------------------------------------------------------------------------------------------------------


def test_no_bytes_and_no_dlms() -> None:
    assert explain(b"").summary == "no bytes"
    assert not explain(b"\x00").ok
    assert not explain(b"hello").ok
    assert not explain(b"\x7e" * 20).problems
    layers = b"\x01"
    for _ in range(60):
        user = b"\xbe" + _length(len(layers) + len(_length(len(layers))) + 1) + b"\x04" + _length(len(layers)) + layers
        layers = b"\x60" + _length(len(user)) + user
    assert "layers" in " ".join(explain(layers).problems)


def _length(size: int) -> bytes:
    return bytes((size,)) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")


@given(st.binary(max_size=200))
def test_any_bytes_are_told_something(data: bytes) -> None:
    assert _told(data, **KEYS).summary


@given(
    st.sampled_from([0x01, 0x08, 0x0E, 0x0F, 0x60, 0x61, 0x62, 0x63, *range(0xC0, 0xE1)]),
    st.binary(max_size=60),
    st.sampled_from(["bare", "hdlc", "wrapper", "mbus"]),
)
def test_any_apdu_is_told_something(tag: int, rest: bytes, framing: str) -> None:
    apdu = bytes((tag,)) + rest
    match framing:
        case "hdlc":
            data = hdlc.encode(H("21"), H("0223"), 0x30, hdlc.LLC_RESPONSE + apdu)
        case "wrapper":
            data = H("000100010010") + len(apdu).to_bytes(2, "big") + apdu
        case "mbus":
            data = mbus.encode(apdu)
        case _:
            data = apdu
    assert _told(data, **KEYS).summary


def test_damaged_captures_are_told_without_a_raise() -> None:
    rng = random.Random(4059)
    originals = [H(one["hex"])[:700] for one in CAPTURES.values()] + [AARQ_LLS, AARE, GLO_GET]
    for _ in range(1500):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            if rng.random() < 0.3:
                del data[at : at + rng.randint(1, 6)]
                data += b"\x7e"
            else:
                data[at] = rng.randrange(256)
        started = time.process_time()
        assert _told(bytes(data), **KEYS).summary
        assert time.process_time() - started < 1


# --- the verb ---------------------------------------------------------------------------------------------------------


def _decode(*words: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(cli, ["decode", "dlms", *words], env=env)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_decode_takes_keys_from_options_or_the_environment() -> None:
    keys = ("000102030405060708090A0B0C0D0E0F", "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF")
    title = ("--title", "4D4D4D0000BC614E")
    by_option = _decode(GLO_GET.hex(), "--key", keys[0], "--auth-key", keys[1], *title)
    by_environment = _decode(GLO_GET.hex(), *title, env={"HEADEND_KEY": keys[0], "HEADEND_AUTH_KEY": keys[1]})
    assert by_option == by_environment
    assert "GET request: 0-0:1.0.0" in by_option
    assert keys[0].lower() not in by_option.lower()
    assert "ciphered: give the encryption key" in _decode(GLO_GET.hex())


def test_decode_never_repeats_a_key_it_refuses() -> None:
    for words, env in ((["--key", "5ECRE7"], {}), ([], {"HEADEND_AUTH_KEY": "5ECRE7"})):
        result = CliRunner().invoke(cli, ["decode", "dlms", GLO_GET.hex(), *words], env=env)
        assert result.exit_code
        assert "is not 32 hex digits" in str(result.exception)
        assert "5ECRE7" not in result.output + str(result.exception)


def test_decode_shows_units_and_names_in_text_and_json() -> None:
    capture = CAPTURES["dp-hdlc_norway_han_1phase"]["hex"]
    assert "= voltage L1 (A相电压): 250.0 V  1-0:32.7.0" in _decode(capture)
    told = json.loads(_decode(capture, "--json"))
    assert told["ok"] is True
    assert {"name", "value", "unit", "obis", "note"} <= set(told["values"][0])
    assert "wrong FCS" in _decode(CAPTURES["dp-hdlc_landis_gyr_zmf100"]["hex"], code=1)
