"""The DLMS meter simulator against published bytes and a client by others."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dlms_cosem import enumerations as enums
from dlms_cosem.clients.dlms_client import DataResultError
from dlms_cosem.clients.dlms_client import DlmsClient as Peer
from dlms_cosem.cosem import CosemAttribute, Obis

from simulators.clock import SettableClock
from simulators.dlms_cipher import BadTag, gmac, protect, unprotect
from simulators.dlms_gbt import cut
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_push import framed, push_apdu
from simulators.dlms_security import general_glo
from simulators.dlms_serve import serve_dlms_pty, serve_dlms_tcp
from simulators.dlms_spec import DlmsClient, DlmsQuirks, DlmsSpec
from simulators.dlms_town import dlms_meter
from simulators.dlms_wire import take_frame
from tests.sim_dlms_kit import AK, EK, NOW_S, Wrapper, meter_of

TITLE = bytes.fromhex("4d4d4d0000bc614e")
VECTORS = {
    vector["id"]: vector
    for vector in map(json.loads, (Path(__file__).parent / "vectors" / "dlms_captures.jsonl").read_text().splitlines())
}


# -- published bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "protected"),
    [
        (0x10, "1001234567c0010000080000010000ff020006725d910f9221d263877516"),
        (0x20, "2001234567411312ff935a47566827c467bc"),
        (0x30, "3001234567411312ff935a47566827c467bc7d825c3be4a77c3fcc056b6b"),
    ],
)
def test_ciphering_is_the_green_books(control: int, protected: str) -> None:
    """GET of the clock protected three ways: the worked example of the Green Book's chapter on information security."""
    plain = bytes.fromhex("c0010000080000010000ff0200")
    assert protect(control, EK, AK, TITLE, 0x01234567, plain).hex() == protected
    assert unprotect(EK, AK, TITLE, bytes.fromhex(protected)) == plain


@pytest.mark.parametrize("control", [0x10, 0x30])
def test_another_authentication_key_is_noticed(control: int) -> None:
    raw = protect(control, EK, AK, TITLE, 1, b"\xc0\x01\x00")
    with pytest.raises(BadTag):
        unprotect(EK, EK, TITLE, raw)


def test_gmac_is_the_green_books() -> None:
    """HLS 5, both directions: the worked example of the Green Book."""
    client = bytes.fromhex("4d4d4d0000000001")
    assert gmac(EK, AK, client, 1, b"P6wRJ21F").hex() == "10000000011a52fe7dd3e72748973c1e28"
    assert gmac(EK, AK, TITLE, 0x01234567, b"K56iVagY").hex() == "1001234567fe1466afb3dbcd4f9389e2b7"


def test_association_with_a_password_is_the_green_books() -> None:
    """AARQ with the password 12345678 and the AARE to it, as the Green Book encodes them."""
    spec = DlmsSpec(clients=(DlmsClient(16, "lls", b"12345678"),), conformance=0x00501F, max_pdu=500)
    asked = "6036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738"
    asked += "be10040e01000000065f1f0400007e1f04b0"
    said = "6129a109060760857405080101a203020100a305a103020100be10040e0800065f1f040000501f01f40007"
    assert Wrapper(meter_of(spec)).ask(asked).hex() == said


@pytest.mark.parametrize(
    ("name", "count"),
    [("dp-hdlc_iskra550", 3), ("amshan-hdlc-flag-in-info", 1), ("amshan-hdlc-escape-in-info", 1)],
)
def test_frames_of_real_meters_are_read(name: str, count: int) -> None:
    """Segmented, with a flag and with an escape inside; all checksums good."""
    buffer = bytearray.fromhex("00a07e" + VECTORS[name]["hex"])
    frames = []
    while (frame := take_frame(buffer)) is not None:
        frames.append(frame)
    assert len(frames) == count
    assert [frame.segmented for frame in frames] == [True] * (count - 1) + [False]
    assert frames[0].info.startswith(b"\xe6\xe7\x00")


def _at(*when: int) -> float:
    """The instant of a UTC time."""
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def test_a_ciphered_push_is_kamstrups() -> None:
    """Omnipower: the plain APDU under the meter's keys and counter comes out as the frame it sent."""
    vector = VECTORS["dp-hdlc_kamstrup_omnipower"]
    spec = DlmsSpec(
        title=bytes.fromhex("4b414d4501349083"),
        encryption_key=bytes.fromhex(vector["key"]),
        authentication_key=bytes.fromhex(vector["auth_key"]),
        first_counter=0x010F60A4,
    )
    meter = meter_of(spec)
    apdu = general_glo(meter, bytes.fromhex(vector["plain_apdu"]))
    assert b"".join(framed(meter, [apdu], "hdlc", destination=b"\x41", source=b"\x03")).hex() == vector["hex"]
    assert meter.counter == 0x010F60A5


def test_general_block_transfer_of_a_ciphered_push_is_landis_gyrs() -> None:
    """E450: three blocks, each in a frame to the broadcast address, the LLC bytes in the first only."""
    vector = VECTORS["dp-hdlc_landis_gyr_e450"]
    spec = DlmsSpec(
        title=bytes.fromhex("4c475a677370b177"),
        encryption_key=bytes.fromhex(vector["key"]),
        authentication_key=bytes.fromhex(vector["auth_key"]),
        first_counter=0x00177BCA,
    )
    meter = meter_of(spec)
    apdu = general_glo(meter, bytes.fromhex(vector["plain_apdu"]), length_bytes=2)
    blocks = cut(apdu, 0x7A, first=0x77)
    frames = framed(meter, blocks, "hdlc", destination=b"\xce\xff", source=b"\x03", llc_once=True)
    assert b"".join(frames).hex() == vector["hex"]


def test_a_position_push_is_kaifas() -> None:
    """MA304H3E, 2017-09-14 21:17:02: one value, time as an octet-string, hundredths and deviation not specified."""
    vector = VECTORS["roarfred-kaifa-list1"]
    quirks = DlmsQuirks(deviation="unspecified", no_hundredths=True)
    meter = meter_of(DlmsSpec(zone_offset_s=7200, quirks=quirks), _at(2017, 9, 14, 19, 17, 2))
    meter.set_value("1.0.1.7.0.255", bytes.fromhex("06000002ff"))
    apdu = push_apdu(meter, "position", items=("1.0.1.7.0.255",), invoke=0x40000000)
    frames = framed(meter, [apdu], "hdlc", destination=b"\x01", source=b"\x02\x01", control=0x10)
    assert b"".join(frames).hex() == vector["hex"]


def test_an_entries_push_is_aidons() -> None:
    """List 1 of Aidon 6515: an array of OBIS, value, scaler and unit."""
    meter = meter_of()
    meter.set_value("1.0.1.7.0.255", bytes.fromhex("0600000118"))
    apdu = push_apdu(meter, "entries", items=("1.0.1.7.0.255",), invoke=0x40000000)
    assert b"\xe6\xe7\x00" + apdu == bytes.fromhex("e6e7000f40000000000101020309060100010700ff060000011802020f00161b")


def test_a_pairs_push_is_kamstrups() -> None:
    """List 1 of a Kamstrup meter of three phases: a name, then OBIS and value in turn; its clock was never set."""
    wanted = bytes.fromhex(
        "0f000000000c07d0010106162100ff80000102190a0e4b616d73747275705f563030303109060101000005ff0a103537303635363730303030"
        "303030303009060101600101ff0a1230303030303030303030303030303030303009060101010700ff060000000009060101020700ff060000"
        "000009060101030700ff060000000009060101040700ff0600000000090601011f0700ff060000000009060101330700ff0600000000090601"
        "01470700ff060000000009060101200700ff12000009060101340700ff12000009060101480700ff120000"
    )
    quirks = DlmsQuirks(deviation="unspecified", no_hundredths=True)
    meter = meter_of(DlmsSpec(model="Kamstrup", zone_offset_s=0, quirks=quirks), _at(2000, 1, 1, 22, 33))
    meter.clock.status = 1
    numbers = {f"1.1.{code}.7.0.255": "0600000000" for code in (1, 2, 3, 4, 31, 51, 71)}
    numbers |= {f"1.1.{code}.7.0.255": "120000" for code in (32, 52, 72)}
    texts = {"1.1.0.0.5.255": "0a10" + b"5706567000000000".hex(), "1.1.96.1.1.255": "0a12" + (b"0" * 18).hex()}
    for obis, value in (texts | numbers).items():
        meter.add_object(obis, bytes.fromhex(value))
    assert push_apdu(meter, "pairs", items=tuple(texts | numbers), invoke=0) == wanted


def test_an_untagged_push_begins_as_egds() -> None:
    """Descriptors without tags, as in the example of EG.D."""
    meter = meter_of()
    meter.add_object("0.0.42.0.0.255", bytes.fromhex("0909454744303132333435"))
    apdu = push_apdu(meter, "untagged", items=("0.0.42.0.0.255",), invoke=1)
    assert apdu.hex() == "0f0000000100020216010101" + "0202000100002a0000ff020909454744303132333435"


@pytest.mark.parametrize("kind", [DlmsSpec, DlmsQuirks])
def test_every_switch_is_documented(kind: type[DlmsSpec] | type[DlmsQuirks]) -> None:
    text = (Path(__file__).parent.parent / "docs" / "simulate.md").read_text("utf-8")
    table = text[text.index("### DlmsSpec") : text.index("### Pushes")]
    told = {name for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert {field.name for field in fields(kind)} - {"quirks"} <= told


# -- a client by others ----------------------------------------------------------------------------------------------

REGISTER, CLOCK, DATA = enums.CosemInterface.REGISTER, enums.CosemInterface.CLOCK, enums.CosemInterface.DATA
IMPORT = CosemAttribute(REGISTER, Obis(1, 0, 1, 8, 0), 2)
NAME = CosemAttribute(DATA, Obis(0, 0, 42, 0, 0), 2)
PROFILE = CosemAttribute(enums.CosemInterface.PROFILE_GENERIC, Obis(1, 0, 99, 1, 0), 2)
LLS = {"authentication_method": enums.AuthenticationMechanism.LLS, "password": b"12345678"}
GMAC = {
    "authentication_method": enums.AuthenticationMechanism.HLS_GMAC,
    "encryption_key": EK,
    "authentication_key": AK,
    "client_system_title": b"CLIENT01",
    "client_initial_invocation_counter": 5,
}
_PEER_METER = DlmsSpec(first_counter=1, memory_days=3)  # it refuses a first counter of 0


def _with_peer(port: int, client: int, security: dict[str, Any], attributes: list[CosemAttribute]) -> list[bytes]:
    peer = Peer.with_tcp_transport("127.0.0.1", port, client, 1, timeout=5, **security)
    peer.connect()
    try:
        peer.associate()
        answers = [bytes(peer.get(attribute)) for attribute in attributes]
        peer.release_association()
    finally:
        peer.disconnect()
    return answers


def _over_tcp(meter: DlmsMeter, client: int, security: dict[str, Any], attributes: list[CosemAttribute]) -> list[bytes]:
    async def run() -> list[bytes]:
        server = await serve_dlms_tcp(meter)
        try:
            return await asyncio.to_thread(_with_peer, server.port, client, security, attributes)
        finally:
            await server.stop()

    return asyncio.run(run())


@pytest.mark.parametrize(("client", "security"), [(32, LLS), (1, GMAC)], ids=["lls", "hls-gmac"])
def test_the_peer_reads_the_truth(client: int, security: dict[str, Any]) -> None:
    meter = dlms_meter(SettableClock(NOW_S), _PEER_METER)
    register, name, profile = _over_tcp(meter, client, security, [IMPORT, NAME, PROFILE])
    true_wh = meter.register.units(NOW_S) // 10
    assert register == b"\x06" + true_wh.to_bytes(4, "big")
    assert name == b"\x09\x10SIM0000012345678"
    assert profile[:4] == b"\x01\x82" + (3 * 96).to_bytes(2, "big")
    last_s = NOW_S // 900 * 900
    assert profile[-4:] == (meter.register.units(last_s) // 10).to_bytes(4, "big")


def test_the_peer_reads_as_the_public_client_what_it_may() -> None:
    meter = dlms_meter(SettableClock(NOW_S), _PEER_METER)
    (name,) = _over_tcp(meter, 16, {}, [NAME])
    assert name.endswith(b"SIM0000012345678")
    with pytest.raises(DataResultError, match="OBJECT_UNDEFINED"):
        _over_tcp(meter, 16, {}, [IMPORT])


def test_the_peer_reads_over_hdlc() -> None:
    """Through a pseudo-terminal; the peer negotiates nothing."""

    def read(path: str) -> list[bytes]:
        peer = Peer.with_serial_hdlc_transport(path, 32, 1, 17, timeout=5, **LLS)
        peer.connect()
        peer.associate()
        answers = [bytes(peer.get(IMPORT)), bytes(peer.get(NAME))]
        peer.release_association()
        peer.io_interface._serial.close()  # not disconnect: it waits for ever on a UA without information
        return answers

    async def run() -> list[bytes]:
        line = await serve_dlms_pty(meter)
        try:
            return await asyncio.to_thread(read, line.path)
        finally:
            await line.stop()

    meter = dlms_meter(SettableClock(NOW_S), _PEER_METER)
    register, name = asyncio.run(run())
    assert register == b"\x06" + (meter.register.units(NOW_S) // 10).to_bytes(4, "big")
    assert name.endswith(b"12345678")
