"""APDUs and services: association APDUs against published ones, GET, SET and ACTION in every form, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
from dlms_cosem.enumerations import AuthenticationMechanism
from dlms_cosem.protocol.acse import ApplicationAssociationRequest
from hypothesis import given
from hypothesis import strategies as st

from headend.access import memory_access
from headend.conversation import Conversation, play
from headend.errors import BadFrame, HeadendError, NoAccess, NoAnswer, Refused
from headend.protocols.dlms import acse, channel, library, services
from headend.protocols.dlms.apdu import (
    ActionError,
    DataAccessError,
    entry_descriptor,
    parse_list,
    parse_part,
    parse_reply,
    parse_result,
    range_descriptor,
)
from headend.protocols.dlms.axdr import Datum, Tag, encode
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsSettings
from tests.dlms_talk import AARE, AARQ, WRAPPER, chunks, opened, script, session, told
from tests.test_dlms_security import CLIENT_TITLE, GLO_INITIATE, INITIATE, TITLE

T = TypeVar("T")

H = bytes.fromhex

# --- Association APDUs

# Green Book 11: LLS, ciphered, with a dedicated key.
GREEN_BOOK_AARQ = H(
    "6066A109060760857405080103A60A04084D4D4D0000BC614E8A0207808B0760857405080201AC0A80083132333435363738BE34043221303001"
    "234567801302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855"
)

# An Elster gas volume corrector's answer with a challenge of 64 bytes, so in the long form.
LONG_AARE = H(
    "61819CA109060760857405080103A203020100A305A10302010EA40A0408454C5300003D2EAF88020780890760857405080205AA42804044"
    "5A71544E595566767869506F77475031336636444D763163334B37585033345664454A41426A6B7561494A4D49336D644B4377724A504265"
    "4F6541564B6536BE2604242822300123456746857FB0825BCA8645003D01A6D224346CB6CF7336E9F1AEB7B4EB8921"
)
"""`61 81 9C`: 156 bytes."""


def test_green_book_aarq() -> None:
    request = acse.Associate(ciphered=True, mechanism=1, initiate=GLO_INITIATE, title=TITLE, value=b"12345678")
    assert acse.encode_aarq(request) == GREEN_BOOK_AARQ


def test_green_book_initiate_request() -> None:
    assert acse.initiate_request(H("007E1F"), 0x04B0, INITIATE[3:19]) == INITIATE


def test_another_implementation_reads_our_aarq() -> None:
    request = acse.Associate(
        ciphered=True, mechanism=5, initiate=GLO_INITIATE, title=CLIENT_TITLE, value=bytes(16), user_id=5
    )
    peer = ApplicationAssociationRequest.from_bytes(acse.encode_aarq(request))
    assert peer.ciphered
    assert peer.authentication is AuthenticationMechanism.HLS_GMAC
    assert bytes(peer.system_title) == CLIENT_TITLE
    assert bytes(peer.authentication_value) == bytes(16)
    assert bytes(peer.calling_ae_invocation_identifier) == H("020105")


def test_a_long_aarq_has_long_lengths() -> None:
    aarq = acse.encode_aarq(acse.Associate(False, 6, INITIATE, CLIENT_TITLE, bytes(64)))
    assert aarq[:2] == H("6081")
    assert aarq[2] == len(aarq) - 3 > 127


def test_an_aare_in_the_long_form() -> None:
    answer = acse.parse_aare(LONG_AARE)
    assert (answer.context, answer.result, answer.provider, answer.diagnostic) == (3, 0, False, 14)
    assert (answer.title, answer.mechanism) == (H("454C5300003D2EAF"), 5)
    assert len(answer.value) == 64
    assert answer.value == b"DZqTNYUfvxiPowGP13f6DMv1c3K7XP34VdEJABjkuaIJMI3mdKCwrJPBeOeAVKe6"
    assert answer.user_information.startswith(H("28223001234567"))


@pytest.mark.parametrize(
    ("aare", "conformance", "max_pdu"),
    [
        (AARE, {"get", "set", "action", "selective_access", "multiple_references"}, 1024),
        # Green Book 11, as others quote it
        (
            "6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F040000501F01F40007",
            {"get", "set", "action", "selective_access", "event_notification"},
            500,
        ),
        # with a quality of service, and with VAA FA00 beside logical names (EK240)
        (
            "6142A109060760857405080101A203020100A305A1030201008802078089076085740508020"
            "1AA0A80083535353535353535BE10040E0800065F1F040000001D0190FA00",
            {"get", "set", "selective_access", "action"},
            400,
        ),
        (
            "612AA109060760857405080101A203020100A305A103020100BE11040F080100065F1F040000001D01900007",
            {"get", "set", "selective_access", "action"},
            400,
        ),
    ],
)
def test_what_an_aare_agrees(aare: str, conformance: set[str], max_pdu: int) -> None:
    answer = acse.parse_aare(H(aare))
    agreed = acse.parse_initiate_response(answer.user_information)
    assert conformance <= library.services(agreed.conformance)
    assert "access" not in library.services(agreed.conformance)
    assert agreed.max_pdu == max_pdu


def test_rlrq() -> None:
    assert acse.encode_rlrq() == H("6203800100")
    # Green Book: ciphered, as others quote it
    assert acse.encode_rlrq(GLO_INITIATE) == H("6239800100BE340432") + GLO_INITIATE
    assert acse.parse_rlre(H("6303800100")) == 0
    assert acse.parse_rlre(H("6300")) == 0


@given(st.binary(max_size=60))
def test_any_bytes_are_an_association_answer_or_damage(data: bytes) -> None:
    for apdu in (data, b"\x61" + bytes((len(data),)) + data, LONG_AARE[: len(data)], b"\x08\x00\x06" + data):
        for parse in (acse.parse_aare, acse.parse_initiate_response, acse.parse_rlre):
            try:
                parsed = parse(apdu)
            except BadFrame:
                continue
            assert apdu[0] in (0x61, 0x08, 0x63)
            assert parsed is not None


# --- Selective access


def test_descriptors() -> None:
    clock = Attribute(8, obis_bytes("0.0.1.0.0.255"), 2)
    start, end = (Datum(Tag.OCTET_STRING, H(f"07E8010{day}FF00000000800000")) for day in (1, 2))
    # as dlms-cosem writes it
    assert range_descriptor(clock, start, end) == H(
        "010204020412000809060000010000FF0F02120000090C07E80101FF00000000800000090C07E80102FF000000008000000100"
    )
    assert range_descriptor(clock, start, end, [clock]).endswith(H("0101020412000809060000010000FF0F02120000"))
    assert entry_descriptor(1, 10) == H("02020406000000010600" + "00000A" + "120001120000")


# --- Answers


@pytest.mark.parametrize(
    ("apdu", "kind", "message"),
    [
        ("", BadFrame, "answered with nothing"),
        ("C0", BadFrame, "answered with C0"),
        ("C401", BadFrame, "ends too early"),
        ("C40141", BadFrame, "ends too early"),
        ("C4014102", BadFrame, "neither data nor a result"),
        ("C4024100", BadFrame, "ends too early"),
        ("C402410000000001000211", BadFrame, "ends too early"),
        ("C40241000000000100011122", BadFrame, "too many"),
        ("C404C100", BadFrame, "form 4"),
        ("C504C100", BadFrame, "form 4"),
        ("C703C100", BadFrame, "form 3"),
        ("D8", BadFrame, "ends too early"),
        ("D80102", Refused, "service not allowed, service not supported"),
        ("D8FFEE", Refused, "state 255, code 238"),
        ("D80105", NoAccess, "can't decipher"),
        ("D8010600000010", NoAccess, "refuses our invocation counter"),
        ("D80106", NoAccess, "refuses our invocation counter"),
        ("0E", BadFrame, "ends too early"),
        ("0E050500", Refused, "access, code 0"),
        ("0E01060302", Refused, "initiate, PDU size too short"),
    ],
)
def test_what_is_no_answer(apdu: str, kind: type[HeadendError], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_reply(H(apdu))


def test_parse_result() -> None:
    assert parse_result(H("00")) == (0, None)
    assert parse_result(H("0000")) == (0, None)
    assert parse_result(H("00010011AA")) == (0, H("11AA"))
    assert parse_result(H("000101FA")) == (250, None)
    assert parse_result(H("03010103")) == (3, None)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_answer_or_an_error_of_ours(data: bytes) -> None:
    def outcome(apdu: bytes) -> object:
        try:
            return parse_list(data, 2) if apdu == data else parse_reply(apdu)
        except HeadendError as error:
            return error

    for head in (b"", b"\xc4", b"\xc4\x02\x41\x00", b"\xc5", b"\xc7", b"\xd8", b"\x0e"):
        assert outcome(head + data) is not None


@given(st.binary(max_size=40))
def test_any_bytes_are_a_block_or_damage(data: bytes) -> None:
    try:
        block = parse_part(b"\xe0" + data)
    except BadFrame:
        return
    assert data.endswith(block.data)
    assert len(data) >= 6


# --- GET, over a scripted wrapper

CLOCK = Attribute(8, obis_bytes("0.0.1.0.0.255"), 2)
ENERGY = Attribute(3, obis_bytes("1.0.1.8.0.255"), 2)
GET_CLOCK = ">C001C1 0008 0000010000FF 02 00"
GET_ENERGY = ">C001{} 0003 0100010800FF 02 00"
NUMBER = Datum(Tag.DOUBLE_LONG_UNSIGNED, 0x1234)


def ask(*lines: str, attribute: Attribute = CLOCK) -> Datum:
    talk = session()
    return told(talk.get(attribute), *lines, talk=talk)


def test_get() -> None:
    assert ask(GET_CLOCK, "<C401C1 00 0600001234") == NUMBER


def test_get_with_selection() -> None:
    talk = session()
    work = talk.get(CLOCK, entry_descriptor(1, 1))
    sent = ">C001C1 0008 0000010000FF 02 01 02 0204 0600000001 0600000001 120001 120000"
    assert told(work, sent, "<C401C1 00 0100", talk=talk) == Datum(Tag.ARRAY, ())


@pytest.mark.parametrize(
    ("code", "name"), [(3, "read or write denied"), (4, "object undefined"), (250, "other reason"), (5, "code 5")]
)
def test_get_refused(code: int, name: str) -> None:
    with pytest.raises(
        DataAccessError, match=rf"8/0\.0\.1\.0\.0\.255/2: the meter refuses the value: {name}"
    ) as caught:
        ask(GET_CLOCK, f"<C401C101{code:02X}")
    assert (caught.value.code, caught.value.name) == (code, name)


def test_a_refusal_that_says_success_is_one_all_the_same() -> None:
    with pytest.raises(DataAccessError, match="other reason"):
        ask(GET_CLOCK, "<C401C10100")


LONG = Datum(Tag.OCTET_STRING, bytes(range(200)))


def blocks(data: bytes, first: int, *, empty_last: bool = False, size: int = 50) -> list[str]:
    """Answers in blocks and the questions for the next."""
    parts = [*chunks(data, size), *([b""] if empty_last else [])]
    lines: list[str] = []
    for number, part in enumerate(parts, first):
        if number > first:
            lines.append(f">C002C1{number - 1:08X}")
        last = number == first + len(parts) - 1
        lines.append(f"<C402C1{last:02X}{number:08X}00{len(part):02X}{part.hex()}")
    return lines


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("empty_last", [False, True])
def test_get_in_blocks(first: int, empty_last: bool) -> None:
    assert ask(GET_CLOCK, *blocks(encode(LONG), first, empty_last=empty_last)) == LONG


def test_the_first_answer_may_be_the_last_block() -> None:
    assert ask(GET_CLOCK, *blocks(encode(NUMBER), 1)) == NUMBER


def test_a_lost_or_doubled_block_is_damage() -> None:
    lines = blocks(encode(LONG), 1)
    for wrong in (1, 3):
        altered = lines[2].replace("C402C10000000002", f"C402C100{wrong:08X}")
        with pytest.raises(BadFrame, match=f"block {wrong} came instead of 2"):
            ask(GET_CLOCK, *lines[:2], altered)


def test_a_first_block_with_any_other_number_is_damage() -> None:
    with pytest.raises(BadFrame, match="block 7 came instead of 1"):
        ask(GET_CLOCK, "<C402C1010000000700020900")


def test_blocks_end_with_a_refusal() -> None:
    lines = blocks(encode(LONG), 1)
    with pytest.raises(DataAccessError, match="long get aborted"):
        ask(GET_CLOCK, *lines[:2], "<C402C1010000000201" + "0F")
    with pytest.raises(DataAccessError, match="long get aborted"):
        ask(GET_CLOCK, *lines[:2], "<C401C1010F")
    with pytest.raises(BadFrame, match="breaks off"):
        ask(GET_CLOCK, *lines[:2], "<C401C1000600001234")


def test_empty_blocks_without_end_are_given_up() -> None:
    lines = [GET_CLOCK, "<C402C100000000010000"]
    for number in range(1, 9):
        lines += [f">C002C1{number:08X}", f"<C402C100{number + 1:08X}0000"]
    with pytest.raises(BadFrame, match="blocks without end"):
        ask(*lines)


def test_what_is_put_together_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_DATA", 100)
    with pytest.raises(BadFrame, match=r"blocks without end \(150 bytes so far\)"):
        ask(GET_CLOCK, *blocks(encode(LONG), 1)[:5])
    monkeypatch.setattr(services, "MAX_BLOCKS", 2)
    with pytest.raises(BadFrame, match="more than 2 blocks"):
        ask(GET_CLOCK, *blocks(encode(LONG), 1)[:5])
    monkeypatch.setattr(channel, "MAX_DATA", 100)
    parts = [gbt(0x40, number, 0, bytes(50)) for number in (1, 2, 3)]
    with pytest.raises(BadFrame, match="more than 100 bytes"):
        ask(GET_CLOCK, *parts)


def test_data_cut_short_or_too_long_is_damage() -> None:
    with pytest.raises(BadFrame):
        ask(GET_CLOCK, "<C401C100060000")
    with pytest.raises(BadFrame):
        ask(GET_CLOCK, "<C401C100110100")


def test_the_answer_of_another_service_is_damage() -> None:
    with pytest.raises(BadFrame, match="answered C0 with C5"):
        ask(GET_CLOCK, "<C501C100")
    with pytest.raises(BadFrame, match="one GET with a list"):
        ask(GET_CLOCK, "<C403C1" + "01" + "00" + "0600001234")


def test_an_answer_to_something_else_is_dropped() -> None:
    assert ask(GET_CLOCK, "<C401C2001101", "<C501C300", "<C401C1000600001234") == NUMBER


def test_only_answers_to_something_else_are_no_answer() -> None:
    with pytest.raises(NoAnswer):
        ask(GET_CLOCK, "<C401C2001101")


def test_messages_without_end_are_given_up() -> None:
    with pytest.raises(BadFrame, match="none of them the answer"):
        ask(GET_CLOCK, *["<C401C2001101"] * 64)


def test_an_invoke_id_alone_tells() -> None:
    assert ask(GET_CLOCK, "<C40101000600001234") == NUMBER, "service class and priority do not count"


def test_notifications_in_the_middle_are_kept() -> None:
    talk = session()
    push, event = "0F000000010002010911", "C2000003" + "0100010800FF" + "02" + "1101"
    assert told(talk.get(CLOCK), GET_CLOCK, f"<{push}", f"<{event}", "<C401C1000600001234", talk=talk) == NUMBER
    assert talk.notifications == [H(push), H(event)]


def test_invoke_ids_go_round() -> None:
    talk = session()

    def many() -> Conversation[list[Datum]]:
        data: list[Datum] = []
        for _ in range(17):
            data.append((yield from talk.get(ENERGY)))
        return data

    lines: list[str] = []
    for number in [*range(1, 16), 1, 2]:
        lines += [GET_ENERGY.format(f"C{number:X}"), f"<C401C{number:X}000600001234"]
    assert told(many(), *lines, talk=talk) == [NUMBER] * 17


# --- General block transfer


def gbt(control: int, number: int, acknowledged: int, data: bytes) -> str:
    return f"<E0{control:02X}{number:04X}{acknowledged:04X}{len(data):02X}{data.hex()}"


ANSWER = H("C401C100") + encode(LONG)


def test_general_block_transfer_streams_and_waits_for_acknowledgements() -> None:
    parts = list(chunks(ANSWER, 50))
    assert len(parts) == 5
    lines = [
        gbt(0x43, 1, 0, parts[0]),
        gbt(0x43, 2, 0, parts[1]),
        gbt(0x03, 3, 0, parts[2]),
        ">E083" + "0001" + "0003" + "00",
        gbt(0x43, 4, 1, parts[3]),
        gbt(0x80, 5, 1, parts[4]),
    ]
    assert ask(GET_CLOCK, *lines) == LONG


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([gbt(0x40, 1, 0, ANSWER[:50]), gbt(0x80, 3, 0, ANSWER[100:])], "block 2 of a general block transfer is lost"),
        ([gbt(0x40, 2, 0, ANSWER[50:100])], "block 1 of a general block transfer is lost"),
        ([gbt(0x40, 1, 0, ANSWER[:50]), "<C401C1001101"], "something else came"),
        ([gbt(0x80, 1, 0, H("E0800001000000"))], "holds another"),
        (["<E08000010000"], "ends too early"),
        (["<E0800001000005AA"], "ends too early"),
        ([gbt(0x80, 1, 0, b"")], "with nothing"),
    ],
)
def test_damage_in_a_general_block_transfer(lines: Sequence[str], message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        ask(GET_CLOCK, *lines)


# --- Several at once

THREE = [CLOCK, ENERGY, Attribute(3, obis_bytes("1.0.2.8.0.255"), 2)]
LIST_OF_THREE = ">C003C1 03 0008 0000010000FF 02 00 0003 0100010800FF 02 00 0003 0100020800FF 02 00"
SINGLE = [f">C001C{n} {a.class_id:04X} {a.obis.hex()} 02 00" for n, a in enumerate(THREE, 2)]
ALL_GOOD = ["<C401C2000600001234", "<C401C3001101", "<C401C40104"]


def several(talk_settings: DlmsSettings, *lines: str, memo: bool = False) -> list[object]:
    access = memory_access()
    talk = session(talk_settings, access)
    found = told(talk.get_many(THREE), *lines, talk=talk)
    assert bool(access.memo) is memo
    return [item.code if isinstance(item, DataAccessError) else item.value for item in found]


def test_many_in_one_list() -> None:
    assert several(WRAPPER, LIST_OF_THREE, "<C403C1 03 00 0600001234 00 1101 01 04") == [0x1234, 1, 4]


def test_a_list_may_come_in_blocks() -> None:
    data = H("03 00 0600001234 00 1101 01 04")
    assert several(WRAPPER, LIST_OF_THREE, *blocks(data, 1, size=5)) == [0x1234, 1, 4]


@pytest.mark.parametrize("refusal", ["<D80102", "<0E010505", "<C401C10103", "<C401C1000600001234"])
def test_a_refused_list_is_asked_for_one_by_one_and_remembered(refusal: str) -> None:
    lines = [part for pair in zip(SINGLE, ALL_GOOD, strict=True) for part in pair]
    assert several(WRAPPER, LIST_OF_THREE, refusal, *lines, memo=True) == [0x1234, 1, 4]


def test_when_single_ones_are_refused_too_it_was_not_the_list() -> None:
    access = memory_access()
    talk = session(WRAPPER, access)
    with pytest.raises(Refused, match="service not allowed"):
        told(talk.get_many(THREE), LIST_OF_THREE, "<D80102", SINGLE[0], "<D80101", talk=talk)
    assert not access.memo


def test_what_is_remembered_is_used() -> None:
    access = memory_access()
    for first in (True, False):
        talk = session(WRAPPER, access)
        singles, answers = SINGLE, ALL_GOOD
        if not first:
            singles = [line.replace(f"C001C{n}", f"C001C{n - 1}") for n, line in enumerate(SINGLE, 2)]
            answers = [line.replace(f"C401C{n}", f"C401C{n - 1}") for n, line in enumerate(ALL_GOOD, 2)]
        lines = [part for pair in zip(singles, answers, strict=True) for part in pair]
        asked = [LIST_OF_THREE, "<D80102"] if first else []
        assert len(told(talk.get_many(THREE), *asked, *lines, talk=talk)) == 3


def test_no_list_is_longer_than_the_settings_and_the_meter_allow() -> None:
    first_two = ">C003C1 02 0008 0000010000FF 02 00 0003 0100010800FF 02 00"
    third = ">C001C2 0003 0100020800FF 02 00"
    answers = ["<C403C1 02 00 1101 00 1102", "<C401C2001103"]
    expected = [1, 2, 3]
    short = DlmsSettings(interface="wrapper", with_list_max=2)
    assert several(short, first_two, answers[0], third, answers[1]) == expected
    talk = session()
    small = AARE.replace("0400" + "0007", "001E" + "0007")  # 30 bytes: two items of ten and a head of four
    work = talk.get_many(THREE)
    found = small_room(talk, work, small, first_two, answers[0], third, answers[1])
    assert [item.value for item in found if isinstance(item, Datum)] == expected


def small_room(talk: Session, work: Conversation[T], aare: str, *lines: str) -> T:
    return play(opened(talk, work), script(f">{AARQ}", f"<{aare}", *lines))


def test_a_list_of_another_length_is_damage() -> None:
    talk = session()
    with pytest.raises(BadFrame, match="3 values were asked for in one list, the meter answered 2"):
        told(talk.get_many(THREE), LIST_OF_THREE, "<C403C1 02 00 1101 00 1102", talk=talk)


# --- SET and ACTION

SET_CLOCK = ">C101C1 0008 0000010000FF 02 00 0600001234"


def test_set() -> None:
    talk = session()
    assert told(talk.set(CLOCK, NUMBER), SET_CLOCK, "<C501C100", talk=talk) is None
    talk = session()
    with pytest.raises(DataAccessError, match="type unmatched"):
        told(talk.set(CLOCK, NUMBER), SET_CLOCK, "<C501C10C", talk=talk)


SMALL = AARE.replace("0400" + "0007", "0050" + "0007")  # 80 bytes: blocks of 56


def test_set_in_blocks() -> None:
    data = encode(LONG).hex()
    parts = [data[i : i + 112] for i in range(0, len(data), 112)]
    assert len(parts) == 4
    lines = [f">C102C1 0008 0000010000FF 02 00 00 00000001 38 {parts[0]}"]
    for number in (2, 3, 4):
        lines.append(f"<C502C1{number - 1:08X}")
        part = parts[number - 1]
        lines.append(f">C103C1 {number == 4:02X} {number:08X} {len(part) // 2:02X} {part}")
    talk = session()
    assert small_room(talk, as_list(talk.set(CLOCK, LONG)), SMALL, *lines, "<C503C10000000004") == [None]
    for answer, error, message in [
        ("<C503C10200000004", DataAccessError, "temporary failure"),
        ("<C501C111", DataAccessError, "long set aborted"),
        ("<C502C1000000", BadFrame, "ends too early"),
        ("<C502C100000004", BadFrame, "wants more"),
    ]:
        talk = session()
        with pytest.raises(error, match=message):
            small_room(talk, as_list(talk.set(CLOCK, LONG)), SMALL, *lines, answer)
    talk = session()
    with pytest.raises(DataAccessError, match="read or write denied"):
        small_room(talk, as_list(talk.set(CLOCK, LONG)), SMALL, lines[0], "<C501C103")
    talk = session()
    with pytest.raises(BadFrame, match="does not acknowledge block 1 of 4"):
        small_room(talk, as_list(talk.set(CLOCK, LONG)), SMALL, lines[0], "<C502C100000002")


def as_list(work: Conversation[object]) -> Conversation[list[object]]:
    return [(yield from work)]


def test_action() -> None:
    talk = session()
    relay = obis_bytes("0.0.96.3.10.255")
    sent = ">C301C1 0046 000060030AFF 01 01 0F00"
    work = talk.action(70, relay, 1, Datum(Tag.INTEGER, 0))
    assert told(work, sent, "<C701C10000", talk=talk) is None
    talk = session()
    work = talk.action(70, relay, 1)
    assert told(work, ">C301C1 0046 000060030AFF 01 00", "<C701C1000100" + "1105", talk=talk) == (17, 5)
    for answer, message in (("<C701C10F00", "long action aborted"), ("<C701C1000101FA", "other reason")):
        talk = session()
        with pytest.raises(ActionError, match=message):
            told(talk.action(70, relay, 1), ">C301C1 0046 000060030AFF 01 00", answer, talk=talk)


@pytest.mark.parametrize("head", ["", "000100"])
def test_action_with_blocks_both_ways(head: str) -> None:
    data = encode(LONG).hex()
    parts = [data[i : i + 112] for i in range(0, len(data), 112)]
    lines = [f">C304C1 0012 00002C0000FF 02 00 00000001 38 {parts[0]}"]
    for number in (2, 3, 4):
        lines.append(f"<C704C1{number - 1:08X}")
        part = parts[number - 1]
        lines.append(f">C306C1 {number == 4:02X} {number:08X} {len(part) // 2:02X} {part}")
    answer = head + data
    lines += [f"<C702C1 00 00000001 32 {answer[:100]}", ">C302C100000001"]
    lines += [f"<C702C1 01 00000002 81{len(answer[100:]) // 2:02X} {answer[100:]}"]
    talk = session()
    work = as_list(talk.action(18, obis_bytes("0.0.44.0.0.255"), 2, LONG))
    assert small_room(talk, work, SMALL, *lines) == [LONG]


def test_unconfirmed_requests_wait_for_nothing() -> None:
    talk = session(DlmsSettings(interface="wrapper", confirmed=False))
    assert told(talk.set(CLOCK, NUMBER), SET_CLOCK.replace("C101C1", "C10181"), talk=talk) is None
