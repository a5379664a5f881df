"""Associations from opening to release: against a simulated meter with every mechanism and oddity, and by hand."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headend.access import Access, memory_access
from headend.conversation import Conversation, Pause, Send, play
from headend.errors import BadFrame, HeadendError, LineDown, NoAccess, NoAnswer, Refused, Unsupported
from headend.protocols.dlms.apdu import DataAccessError
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.channel import raise_counter
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.security import Ciphers, unwrap
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsSettings
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsClient, DlmsQuirks, DlmsSpec
from simulators.dlms_station import DlmsStation
from simulators.household import Household, Load
from tests.dlms_talk import AARE, AARQ, WRAPPER, script, session, told, w

T = TypeVar("T")

H = bytes.fromhex
TITLE = "4D4D4D0000BC614E"
PASSWORD = b"12345678"
SECRETS = {
    "password": PASSWORD,
    "encryption_key": bytes(range(16)),
    "authentication_key": bytes(range(0xD0, 0xE0)),
}
NOW_S = datetime(2026, 3, 10, 4, 7, 30, tzinfo=UTC).timestamp()
NAME = Attribute(1, obis_bytes("0.0.42.0.0.255"), 2)
CLOCK = Attribute(8, obis_bytes("0.0.1.0.0.255"), 2)
ENERGY = Attribute(3, obis_bytes("1.0.1.8.0.255"), 2)
NOTHING = Attribute(3, obis_bytes("1.0.99.99.0.255"), 2)
PROFILE_COLUMNS = Attribute(7, obis_bytes("1.0.99.1.0.255"), 3)

PLAIN = DlmsSettings(interface="wrapper")
LLS = replace(PLAIN, client=32, authentication="lls")
GMAC = replace(PLAIN, client=1, authentication="hls-gmac", policy="authenticated-encrypted", client_title=TITLE)


@dataclass
class Bench:
    """A simulated meter at the end of a wire, and what a head-end knows of it. sent, recorded, heard: our chunks, what
    a record of them shows, and the meter's; pauses: silences kept."""

    meter: DlmsMeter
    access: Access
    interface: str = "wrapper"
    sent: list[bytes] = field(default_factory=list)
    recorded: list[bytes] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def run(self, conversation: Conversation[T]) -> T:
        arrived: deque[bytes] = deque()
        gone: list[bool] = []
        station = DlmsStation(self.meter, arrived.append, lambda: gone.append(True), interface=self.interface)
        try:
            request = next(conversation)
            while True:
                if isinstance(request, Send):
                    self.sent.append(request.data)
                    self.recorded.append(request.data if request.shown is None else request.shown)
                    if not gone:
                        station.feed(request.data)
                if isinstance(request, Pause):
                    self.pauses.append(request.seconds)
                if isinstance(request, Pause) or (isinstance(request, Send) and not request.expect_reply):
                    request = conversation.send(b"")
                elif arrived:
                    self.heard.append(arrived.popleft())
                    request = conversation.send(self.heard[-1])
                elif gone:
                    request = conversation.throw(LineDown("the meter closed the connection"))
                else:
                    request = conversation.throw(NoAnswer("no answer"))
        except StopIteration as stop:
            result: T = stop.value
            return result


def bench(client: DlmsClient, *, secrets: dict[str, bytes] | None = None, **quirks: Any) -> Bench:
    spec = DlmsSpec(clients=(DlmsClient(16, access="public"), client), quirks=DlmsQuirks(**quirks))
    meter = DlmsMeter(spec, Household(Load(seed=7)), lambda: NOW_S)
    return Bench(meter, memory_access(SECRETS if secrets is None else secrets))


def visit(there: Bench, settings: DlmsSettings, *attributes: Attribute, address: str = "1") -> list[Any]:
    """Open, get, close: the values, or the codes of refusals."""
    talk = Session(settings, address, there.access)

    def work() -> Conversation[list[Datum | DataAccessError]]:
        try:
            yield from talk.open()
            found = yield from talk.get_many(attributes)
        except HeadendError:
            yield from talk.close()
            raise
        yield from talk.close()
        return found

    return [item.code if isinstance(item, DataAccessError) else item.value for item in there.run(work())]


def association(authentication: str, policy: str = "none") -> tuple[DlmsSettings, DlmsClient]:
    """Settings and the meter's client that fit."""
    settings = replace(PLAIN, client=1, authentication=authentication, policy=policy, client_title=TITLE)  # type: ignore[arg-type]
    password = b"" if authentication in ("none", "hls-gmac") else PASSWORD
    return settings, DlmsClient(1, authentication, password, policy)


MECHANISMS = ["none", "lls", "hls-md5", "hls-sha1", "hls-gmac", "hls-sha256"]
POLICIES = ["none", "authenticated", "encrypted", "authenticated-encrypted"]
FORMS = ["service-glo", "general-glo", "service-ded", "general-ded"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_with_every_policy(mechanism: str, policy: str) -> None:
    settings, client = association(mechanism, policy)
    there = bench(client)
    name, refused, time = visit(there, settings, NAME, NOTHING, CLOCK)
    assert len(name) > 4
    assert refused == 4
    assert len(time) == 12
    readable = any(name in data for data in there.heard)
    assert readable is (policy in ("none", "authenticated"))


@pytest.mark.parametrize("policy", POLICIES[1:])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_ciphering(form: str, policy: str) -> None:
    settings, client = association("hls-gmac", policy)
    there = bench(client)
    for _ in range(3):  # counters go on from one association to the next; dedicated keys are new
        visit(there, replace(settings, ciphering=form), NAME, CLOCK)  # type: ignore[arg-type]
    assert there.access.counter("tx").value > 3
    # what only encrypts vouches for nothing, so its numbers are not held against later ones
    assert (there.access.counter("rx").value > 0) is ("authenticated" in policy)


@pytest.mark.parametrize("interface", ["hdlc", "wrapper"])
def test_over_hdlc_too(interface: str) -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client)
    there.interface = interface
    address = "1/17" if interface == "hdlc" else "1"
    settings = replace(settings, interface=interface, release="rlrq")  # type: ignore[arg-type]
    columns, name = visit(there, settings, PROFILE_COLUMNS, NAME, address=address)
    assert len(columns) == 3
    assert name


@pytest.mark.parametrize("length", [8, 16, 32, 64])
def test_challenges_of_every_length(length: int) -> None:
    for mechanism in ("hls-md5", "hls-gmac"):
        settings, client = association(mechanism)
        there = bench(client, challenge_bytes=length)
        assert visit(there, replace(settings, challenge_bytes=length), NAME)
        assert there.sent[0][8] == 0x60


def test_preestablished() -> None:
    settings = replace(PLAIN, client=102, preestablished=True, meter_title="53494D0000BC614E")
    there = bench(DlmsClient(102, preestablished=True))
    assert visit(there, settings, NAME)
    assert there.sent[0][8] == 0xC0, "no AARQ"
    ciphered = replace(settings, policy="authenticated-encrypted", client_title=TITLE, ciphering="general-glo")
    there = bench(DlmsClient(102, policy="authenticated-encrypted", preestablished=True))
    assert visit(there, ciphered, NAME)


@pytest.mark.parametrize(
    "quirks",
    [
        {"push_amid": True},
        {"stale": True},
        {"always_blocks": True},
        {"first_block": 0, "always_blocks": True},
        {"empty_last_block": True, "always_blocks": True},
        {"with_list": "exception"},
        {"with_list": "refuse"},
        {"with_list_max": 1},
        {"empty_title": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("ciphered", [False, True])
def test_oddities_change_nothing(quirks: dict[str, Any], ciphered: bool) -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted" if ciphered else "none")
    settings = replace(settings, ciphering="general-glo")
    plain = visit(bench(client), settings, PROFILE_COLUMNS, NAME, ENERGY)
    odd = visit(bench(client, **quirks), settings, PROFILE_COLUMNS, NAME, ENERGY)
    assert odd == plain


def test_pushes_in_the_middle_are_kept_decrypted() -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, push_amid=True)
    talk = Session(settings, "1", there.access)

    def work() -> Conversation[None]:
        yield from talk.open()
        for _ in range(3):
            yield from talk.get(NAME)

    there.run(work())
    assert len(talk.notifications) == 3
    assert all(apdu[0] == 0x0F for apdu in talk.notifications)


def test_general_block_transfer() -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, gbt=40)
    wanted = replace(settings, conformance="20FE1F")
    assert visit(there, wanted, PROFILE_COLUMNS) == visit(bench(client), settings, PROFILE_COLUMNS)
    assert any(data[8:9] == b"\xe0" for data in there.heard)


# --- What goes wrong


def wrong(there: Bench, settings: DlmsSettings, kind: type[HeadendError], message: str) -> HeadendError:
    with pytest.raises(kind, match=message) as caught:
        visit(there, settings, NAME)
    text = f"{caught.value}{caught.value.problem.remedy}"
    assert not any(secret.hex() in text.lower() or secret.decode("latin-1") in text for secret in SECRETS.values())
    return caught.value


def test_a_wrong_password_is_named() -> None:
    there = bench(DlmsClient(32, "lls", b"87654321"))
    error = wrong(there, LLS, NoAccess, r"^association: the meter refuses the association: authentication failed")
    assert "password" in error.problem.remedy


@pytest.mark.parametrize("mechanism", ["hls-md5", "hls-sha1", "hls-sha256"])
def test_a_wrong_secret_is_refused(mechanism: str) -> None:
    settings, client = association(mechanism)
    there = bench(replace(client, password=b"other"))
    wrong(there, settings, NoAccess, r"^authentication: the meter does not accept our answer to its challenge")


def test_a_meter_that_does_not_prove_itself() -> None:
    for mechanism in ("hls-md5", "hls-gmac"):
        settings, client = association(mechanism)
        wrong(bench(client, wrong_hls_reply=True), settings, NoAccess, r"^authentication: the meter does not prove")


def test_our_own_challenge_sent_back_is_no_proof() -> None:
    settings = replace(WRAPPER, authentication="hls-md5")
    aarq = (
        ">6036A1090607608574050801018A0207808B0760857405080203AC0A80081112131415161718"
        "BE10040E01000000065F1F040000FE1F0400"
    )
    aare = (
        "<6142A109060760857405080101A203020100A305A10302010E88020780890760857405080203AA0A80081112131415161718"
        "BE10040E0800065F1F0400007E1F04000007"
    )
    talk = Session(settings, "1", memory_access(SECRETS), challenge=lambda size: H("1112131415161718"))
    with pytest.raises(NoAccess, match="sends our own challenge back"):
        play(talk.open(), script(aarq, aare))


@pytest.mark.parametrize("policy", POLICIES[1:])
@pytest.mark.parametrize("how", ["exception", "silent", "close"])
def test_wrong_keys(policy: str, how: str) -> None:
    settings, client = association("none", policy)
    keys = {**SECRETS, "encryption_key": bytes(16)}
    there = bench(client, secrets=keys, on_bad=how)
    with pytest.raises(HeadendError, match=r"^association: ") as caught:
        visit(there, settings, NAME)
    if how == "exception" and "authenticated" in policy:
        assert isinstance(caught.value, NoAccess)
        assert "can't decipher" in str(caught.value)


def test_tags_of_the_meter_are_checked_unless_they_can_not_be() -> None:
    settings, client = association("none", "authenticated-encrypted")
    there = bench(client, wrong_tag=True)
    wrong(there, settings, NoAccess, "does not pass its authentication tag")
    assert visit(there, replace(settings, check_tag=False), NAME)


@pytest.mark.parametrize("secret", ["encryption_key", "authentication_key"])
def test_a_missing_or_short_key_is_named_before_anything_is_sent(secret: str) -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, secrets={name: value for name, value in SECRETS.items() if name != secret})
    wrong(there, settings, NoAccess, rf"^association: {secret} of the meter is not known")
    there = bench(client, secrets={**SECRETS, secret: b"short"})
    wrong(there, settings, NoAccess, rf"^association: {secret} of the meter has 5 bytes, not 16")
    wrong(there, replace(settings, client_title=""), NoAccess, "of the meter has 5 bytes")
    untitled = bench(client)
    wrong(untitled, replace(settings, client_title=""), NoAccess, "system title is not set")
    assert there.sent == untitled.sent == []


def test_a_missing_password_is_named() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD), secrets={})
    wrong(there, LLS, NoAccess, "password of the meter is not known")


def test_a_client_the_meter_does_not_know() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD))
    wrong(
        there, replace(PLAIN, client=77), Refused, r"^association: the meter refuses the association: no reason given"
    )


def test_a_mechanism_the_meter_does_not_want() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD))
    error = wrong(there, replace(LLS, authentication="hls-md5"), NoAccess, "authentication mechanism not recognised")
    assert "authentication of the meter's model" in error.problem.remedy
    wrong(there, replace(LLS, authentication="none"), NoAccess, "authentication mechanism name required")


def test_titles() -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    registered = bench(client, known_title="0011223344556677")
    error = wrong(registered, settings, NoAccess, "client system title not recognised")
    assert "client_title" in error.problem.remedy
    assert visit(registered, replace(settings, client_title="0011223344556677"), NAME)
    there = bench(client)
    other = replace(settings, meter_title="0102030405060708", check_title=True)
    wrong(there, other, NoAccess, "the meter's system title is 53494D0000BC614E, not 0102030405060708")
    assert visit(there, replace(other, meter_title="53494D0000BC614E"), NAME)
    silent = bench(client, title=False)
    wrong(silent, settings, NoAccess, "the meter's system title is not known")
    assert visit(silent, replace(settings, meter_title="53494D0000BC614E"), NAME)


def test_sending_our_title() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD))
    for rule, sent in (("auto", False), ("always", True), ("never", False)):
        there.sent.clear()
        visit(there, replace(LLS, client_title=TITLE, send_title=rule), NAME)  # type: ignore[arg-type]
        assert (H(TITLE) in there.sent[0]) is sent


def test_a_pdu_size_the_meter_refuses() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD), refuse_max_pdu=512)
    wrong(there, LLS, Refused, "no reason given|PDU size too short")
    assert visit(there, replace(LLS, max_pdu=512), NAME)


@pytest.mark.parametrize("how", ["silent", "close", "refuse", "garbage", "exception"])
@pytest.mark.parametrize("step", ["aarq", "hls", "get", "release"])
def test_failures_at_every_step_are_ours(step: str, how: str) -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, fail_at=step, fail_how=how)
    settings = replace(settings, release="rlrq", with_list_max=1)
    if (step, how) == ("get", "refuse"):
        assert isinstance(visit(there, settings, NAME)[0], int)
    elif step == "release" and how != "close":
        assert visit(there, settings, NAME)
    else:
        with pytest.raises(LineDown if how == "close" else HeadendError) as caught:
            visit(there, settings, NAME)
        where = {"aarq": "association", "hls": "authentication"}.get(step, "")
        assert caught.value.problem.where.startswith(where)


# --- Counters


def behind(known: int, **quirks: Any) -> tuple[Bench, DlmsSettings]:
    """A meter that has seen our counter up to `known`, and settings to read it."""
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, **quirks)
    there.meter.seen[1] = known
    return there, replace(settings, counter_object="0.0.43.1.0.255", public_switch_s=0.7)


def clients(there: Bench) -> list[int]:
    """Who spoke, in turn."""
    spoke = [int.from_bytes(data[2:4], "big") for data in there.sent]
    return [client for index, client in enumerate(spoke) if index == 0 or spoke[index - 1] != client]


def test_a_counter_that_is_behind_is_told_by_the_refusal() -> None:
    there, settings = behind(4711)
    assert visit(there, settings, NAME)
    assert clients(there) == [1]
    assert there.access.counter("tx").value > 4711


@pytest.mark.parametrize("how", ["exception", "silent"])
def test_a_counter_that_is_behind_is_read_with_the_public_client(how: str) -> None:
    there, settings = behind(4711, counter_in_exception=False, on_bad=how)
    assert visit(there, settings, NAME)
    assert clients(there) == [1, 16, 1]
    assert there.pauses == [0.7]
    assert there.access.counter("tx").value > 4711


def test_a_meter_that_hangs_up_is_asked_for_its_counter_the_next_time() -> None:
    there, settings = behind(4711, on_bad="close")
    wrong(there, settings, LineDown, "association: the meter closed the connection")
    there.sent.clear()
    assert visit(there, settings, NAME)
    assert clients(there) == [16, 1]
    there.sent.clear()
    assert visit(there, settings, NAME)
    assert clients(there) == [1], "and then no more"


def test_over_hdlc_the_counter_is_read_on_a_link_of_its_own() -> None:
    there, settings = behind(4711, counter_in_exception=False)
    there.interface = "hdlc"
    assert visit(there, replace(settings, interface="hdlc"), NAME, address="1/17")
    assert there.access.counter("tx").value > 4711
    assert there.pauses == [0.7]


def test_a_counter_that_can_not_be_read_does_not_hide_the_refusal() -> None:
    there, settings = behind(4711, counter_in_exception=False)
    error = wrong(there, replace(settings, counter_object="0.0.43.1.9.255"), Refused, "with an exception")
    assert "its counter can't be read: the meter refuses the value: object undefined" in str(error)
    there, settings = behind(4711, counter_in_exception=False)
    error = wrong(there, replace(settings, counter_object="0.0.42.0.0.255"), Refused, "with an exception")
    assert "0.0.42.0.0.255 holds no counter" in str(error)


def test_without_a_way_to_read_it_the_refusal_stands() -> None:
    there, settings = behind(4711, counter_in_exception=False)
    wrong(there, replace(settings, counter_object=""), Refused, "association: ")
    assert clients(there) == [1]
    there, settings = behind(4711)
    error = wrong(there, replace(settings, counter_sync="never"), NoAccess, "refuses our invocation counter")
    assert "counter_sync" in error.problem.remedy
    assert there.access.counter("tx").value == 1


def test_always_means_before_each_association() -> None:
    there, settings = behind(4711)
    visit(there, replace(settings, counter_sync="always"), NAME)
    assert clients(there) == [16, 1]


def test_our_counter_is_never_lowered() -> None:
    there, settings = behind(5)
    there.access.counter("tx").raise_to(100)
    visit(there, replace(settings, counter_sync="always"), NAME)
    assert there.access.counter("tx").value > 100


def test_a_refusal_that_has_nothing_to_do_with_the_counter_is_told_once() -> None:
    there, settings = behind(5)
    there.access.counter("tx").raise_to(100)
    wrong(there, replace(settings, authentication="lls"), NoAccess, "mechanism not recognised")
    assert clients(there) == [1, 16]


def test_a_counter_refused_later_is_made_good_once() -> None:
    there, settings = behind(0)
    talk = Session(settings, "1", there.access)

    def work() -> Conversation[list[Datum]]:
        yield from talk.open()
        there.meter.seen[1] = 900
        first = yield from talk.get(NAME)
        there.meter.seen[1] = 2000
        with pytest.raises(NoAccess, match="refuses our invocation counter"):
            yield from talk.get(NAME)
        return [first]

    assert there.run(work())[0].value
    assert 901 < there.access.counter("tx").value < 2000


def test_a_counter_near_its_end_is_not_believed() -> None:
    counter = memory_access().counter("tx")
    raise_counter(counter, 0xFFFEFFFF)
    assert counter.value == 0xFFFF0000
    with pytest.raises(NoAccess, match="near its end"):
        raise_counter(counter, 0xFFFFFFFF)
    assert counter.value == 0xFFFF0000


@pytest.mark.parametrize("rule", ["next", "same"])
def test_the_counter_of_the_proof(rule: str) -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client)
    visit(there, replace(settings, gmac_counter=rule), NAME)  # type: ignore[arg-type]
    assert there.access.counter("tx").value == {"next": 4, "same": 3}[rule]  # AARQ, the proof, pass 3, GET


def test_a_meter_whose_counter_stands_still_is_refused_unless_told() -> None:
    settings, client = association("hls-gmac", "authenticated-encrypted")
    there = bench(client, counter_stuck=True)
    wrong(there, settings, NoAccess, "an old answer again")
    assert visit(there, replace(settings, check_counter=False), NAME)


# --- Release, records


@pytest.mark.parametrize("rlrq", ["works", "silent", "no-user-information", "exception"])
@pytest.mark.parametrize("information", [False, True])
def test_release_is_best_effort(rlrq: str, information: bool) -> None:
    for policy in ("none", "authenticated-encrypted"):
        settings, client = association("hls-gmac", policy)
        there = bench(client, rlrq=rlrq)
        visit(there, replace(settings, release="rlrq", rlrq_user_information=information), NAME)
        assert there.sent[-1][8:11] == (b"\x62" + bytes((len(there.sent[-1]) - 10,)) + b"\x80")
        assert (b"\xbe" in there.sent[-1][8:]) or not information


def test_a_silent_meter_is_not_asked_for_release() -> None:
    there = bench(DlmsClient(32, "lls", PASSWORD), fail_at="get", fail_how="silent")
    wrong(there, replace(LLS, release="rlrq", with_list_max=1), NoAnswer, "no answer")
    assert there.sent[-1][8] == 0xC0


def test_closing_twice_or_unopened_sends_nothing() -> None:
    talk = session()
    assert play(talk.close(), []) is None


@pytest.mark.parametrize("interface", ["wrapper", "hdlc"])
def test_the_password_is_in_no_record_log_or_print(
    interface: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    settings, address = replace(LLS, interface=interface), "1/17" if interface == "hdlc" else "1"
    there = bench(DlmsClient(32, "lls", PASSWORD))
    there.interface = interface
    visit(there, settings, NAME, ENERGY, address=address)
    visit(there, replace(settings, release="rlrq"), PROFILE_COLUMNS, address=address)
    with pytest.raises(NoAccess):
        visit(bench(DlmsClient(32, "lls", b"87654321")), LLS, NAME)
    assert PASSWORD in b"".join(there.sent), "it does go out"
    assert b"********" in b"".join(there.recorded)
    assert [len(data) for data in there.recorded] == [len(data) for data in there.sent]
    written = capfd.readouterr()
    everything = (
        caplog.text + written.out + written.err + repr(there.recorded) + repr(vars(Session(LLS, "1", there.access)))
    )
    for shape in (PASSWORD.decode(), PASSWORD.hex(), PASSWORD.hex(" "), repr(list(PASSWORD))):
        assert shape not in everything
    assert written.out + written.err == ""
    assert all(PASSWORD not in data for data in there.recorded)


# --- By hand


def aare(result: int, source: str, information: str = "") -> str:
    body = f"A109060760857405080101A20302{1:02X}{result:02X}A305{source}"
    if information:
        size = len(information) // 2
        body += f"BE{size + 2:02X}04{size:02X}{information}"
    return f"61{len(body) // 2:02X}{body}"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (aare(1, "A103020101"), Refused, "the meter refuses the association: no reason given"),
        (aare(2, "A103020102"), NoAccess, "for now: application context not supported"),
        (aare(1, "A203020102"), Refused, "no common ACSE version"),
        (aare(1, "A103020163"), Refused, "diagnostic 99"),
        (aare(1, "A103020100", "0E010603"), Refused, "initiate, PDU size too short"),
        # result accepted, and yet a service error (EK240)
        (aare(0, "A103020101", "0E010600"), Refused, "initiate, other reason"),
        (aare(0, "A103020100"), BadFrame, "ends too early|no InitiateResponse"),
        ("D80102", Refused, "exception: service not allowed"),
        ("0E010601", Refused, "DLMS version too low"),
        ("63038001" + "00", BadFrame, "answered 60 with 63"),
        (AARE.replace("0101A2", "0102A2"), Unsupported, "short-name"),
        (AARE.replace("0800065F", "0800055F"), BadFrame, "DLMS version 5"),
    ],
)
def test_refused_associations(answer: str, kind: type[HeadendError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        play(session().open(), script(f">{AARQ}", f"<{answer}"))
    assert caught.value.problem.where == "association"


def test_a_dedicated_key_of_the_vault_is_used() -> None:
    settings, client = association("none", "authenticated-encrypted")
    key = bytes(range(32, 48))
    there = bench(client, secrets={**SECRETS, "dedicated_key": key})
    assert visit(there, replace(settings, ciphering="service-ded"), NAME)
    opened = unwrap(there.sent[-1][8:], settings, there.access, dedicated_key=key, count=False)
    assert opened[:3] == H("C001C1")
    short = bench(client, secrets={**SECRETS, "dedicated_key": b"short"})
    wrong(short, replace(settings, ciphering="service-ded"), NoAccess, "dedicated_key of the meter has 5 bytes")


def test_what_belongs_to_an_association_before_is_dropped() -> None:
    talk = session()
    lines = (f">{AARQ}", "<C401C1001105", "<CC0530000000005A", "<0F00000000000900", f"<{AARE}")
    play(talk.open(), script(*lines))
    assert talk.notifications == [H("0F00000000000900")]
    assert talk.max_pdu == 1024
    assert {"get", "set", "action", "multiple_references"} <= talk.conformance


def test_user_id() -> None:
    aarq = "6022A109060760857405080101A903020105BE10040E01000000065F1F040000FE1F0400"
    play(session(replace(WRAPPER, user_id=5)).open(), script(f">{aarq}", f"<{AARE}"))


def test_no_answer_names_the_step() -> None:
    with pytest.raises(NoAnswer, match=r"^association: meter 1, client 16: no answer"):
        play(session().open(), script(f">{AARQ}"))


def outcome(there: Bench, settings: DlmsSettings, spoil: Callable[[int, bytes], bytes]) -> list[Any] | HeadendError:
    """A visit in which every chunk of the meter, by its number, is spoiled before it is heard."""
    talk = Session(settings, "1", there.access)

    def work() -> Conversation[list[Any]]:
        yield from talk.open()
        found = yield from talk.get_many([NAME, CLOCK])
        yield from talk.set(ENERGY, Datum(Tag.UNSIGNED, 1))
        return list(found)

    def spoiled(conversation: Conversation[list[Any]]) -> Conversation[list[Any]]:
        request, number = next(conversation), 0
        try:
            while True:
                try:
                    chunk = yield request
                except HeadendError as error:
                    request = conversation.throw(error)
                else:
                    request = conversation.send(spoil(number, chunk))
                    number += 1
        except StopIteration as stop:
            result: list[Any] = stop.value
            return result

    try:
        return there.run(spoiled(work()))
    except HeadendError as error:
        return error


@examples(max_examples=400)
@given(
    st.integers(0, 4),
    st.integers(0, 80),
    st.binary(max_size=3),
    st.integers(0, 3),
    st.sampled_from(["hls-md5", "hls-gmac"]),
    st.sampled_from(["none", "authenticated-encrypted"]),
)
def test_any_damage_at_any_step_only_raises_ours(
    step: int, at: int, put: bytes, taken: int, mechanism: str, policy: str
) -> None:
    """Bytes are put into an answer and others taken out, its length made right again."""
    settings, client = association(mechanism, policy)
    there = bench(client, always_blocks=at % 2 == 0)

    def spoil(number: int, chunk: bytes) -> bytes:
        apdu = chunk[8:]
        if number != step or not apdu:
            return chunk
        apdu = apdu[: at % len(apdu)] + put + apdu[at % len(apdu) + taken :]
        return w(apdu.hex(), client=1, up=False)

    found = outcome(there, settings, spoil)
    assert isinstance(found, list | HeadendError)
    assert not any(secret.hex() in str(found) for secret in SECRETS.values())


@examples(max_examples=300)
@given(
    st.integers(0, 4),
    st.binary(max_size=40),
    st.sampled_from(["", "61", "C4", "C402C100", "C701C1", "E080000100", "D8"]),
)
def test_any_bytes_at_any_step_only_raise_ours(step: int, data: bytes, head: str) -> None:
    settings, client = association("hls-md5")
    said = w(head + data.hex(), client=1, up=False)
    found = outcome(bench(client), settings, lambda number, chunk: said if number == step else chunk)
    assert isinstance(found, list | HeadendError)


@examples(max_examples=300)
@given(
    st.binary(max_size=40), st.sampled_from(["", "C401C100", "C402C1000000000100", "C403C102", "0F", "E0800001", "D8"])
)
def test_any_bytes_under_right_protection_only_raise_ours(data: bytes, head: str) -> None:
    settings, client = association("none", "authenticated-encrypted")
    there = bench(client)
    sealing = replace(settings, ciphering="general-glo", client_title=there.meter.title.hex())

    def spoil(number: int, chunk: bytes) -> bytes:
        if number == 0:
            return chunk
        meter = Ciphers(sealing, memory_access(SECRETS), there.meter.title)
        meter.access.counter("tx").raise_to(1000 + number)
        return w(meter.protect(H(head) + data).hex(), client=1, up=False)

    assert isinstance(outcome(there, settings, spoil), list | HeadendError)


def test_a_number_that_is_no_number_is_damage() -> None:
    huge = "6182" + f"{2009 + 15:04X}" + "A2" + "8207DD" + "02" + "8207D9" + "FF" * 2009 + "A305A103020100"
    with pytest.raises(BadFrame, match="a number of 2009 bytes"):
        play(session().open(), script(f">{AARQ}", f"<{huge}"))


def test_one_reply_of_several_in_a_chunk() -> None:
    talk = session()
    both = w("C401C2001105", up=False) + w("C401C1001106", up=False)
    lines = [*script(f">{AARQ}", f"<{AARE}", f">C001C1{NAME.class_id:04X}{NAME.obis.hex()}0200"), ("<", both)]

    def work() -> Conversation[Datum]:
        yield from talk.open()
        return (yield from talk.get(NAME))

    assert play(work(), lines).value == 6


def test_services_are_known_from_the_answer() -> None:
    talk = session()
    told(talk.get(NAME), f">C001C1{NAME.class_id:04X}{NAME.obis.hex()}0200", "<C401C1001105", talk=talk)
    assert "general_block_transfer" not in talk.conformance
