"""Protection of APDUs and proofs of high level security: the Green Book's own examples first."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from headend.access import memory_access
from headend.errors import BadFrame, HeadendError, NoAccess, Unsupported
from headend.protocols.dlms import library
from headend.protocols.dlms.security import (
    MAX_COUNTER,
    Ciphers,
    Proof,
    challenge_reply,
    check_challenge_reply,
    header_of,
    secret,
    unwrap,
)
from headend.protocols.dlms.settings import DlmsSettings

H = bytes.fromhex

# Green Book 8.1, tables 40 and 43.
EK = H("000102030405060708090A0B0C0D0E0F")
AK = H("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF")
TITLE = H("4D4D4D0000BC614E")
CLIENT_TITLE = H("4D4D4D0000000001")
COUNTER = 0x01234567
GET_CLOCK = H("C0010000080000010000FF0200")
CIPHERED = {
    "authenticated": H("C81E1001234567C0010000080000010000FF020006725D910F9221D263877516"),
    "encrypted": H("C8122001234567411312FF935A47566827C467BC"),
    "authenticated-encrypted": H("C81E3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B"),
}
INITIATE = H("01011000112233445566778899AABBCCDDEEFF0000065F1F0400007E1F04B0")
GLO_INITIATE = H("21303001234567801302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855")
C_TO_S, S_TO_C = b"K56iVagY", b"P6wRJ21F"

KEYS = {"encryption_key": EK, "authentication_key": AK}


def ciphers(policy: str, ciphering: str = "service-glo", counter: int = COUNTER, **more: Any) -> Ciphers:
    access = memory_access(KEYS)
    access.counter("tx").raise_to(counter)
    settings = DlmsSettings(policy=policy, ciphering=ciphering, **more)  # type: ignore[arg-type]
    return Ciphers(settings, access, TITLE, TITLE)


@pytest.mark.parametrize("policy", CIPHERED)
def test_green_book_get_request_is_protected_as_published(policy: str) -> None:
    ours = ciphers(policy)
    assert ours.protect(GET_CLOCK) == CIPHERED[policy]
    assert (ours.sent, ours.access.counter("tx").value) == (COUNTER, COUNTER + 1)


@pytest.mark.parametrize("policy", CIPHERED)
def test_green_book_get_request_is_opened_again(policy: str) -> None:
    settings = DlmsSettings(client_title=TITLE.hex())
    assert unwrap(CIPHERED[policy], settings, memory_access(KEYS)) == GET_CLOCK


def test_green_book_initiate_request_with_a_dedicated_key() -> None:
    ours = ciphers("authenticated-encrypted")
    assert ours.protect(INITIATE, initiate=True) == GLO_INITIATE
    assert unwrap(GLO_INITIATE, DlmsSettings(client_title=TITLE.hex()), memory_access(KEYS)) == INITIATE


def test_a_dedicated_key_never_goes_out_readable() -> None:
    ours = ciphers("authenticated", "service-ded")
    ours.dedicated_key = INITIATE[3:19]
    protected = ours.protect(INITIATE, initiate=True)
    assert ours.dedicated_key not in protected
    assert header_of(protected).control == 0x30


def test_green_book_gmac_proofs() -> None:
    access = memory_access(KEYS)
    ours = Proof(CLIENT_TITLE, TITLE, S_TO_C, C_TO_S)
    assert challenge_reply("hls-gmac", ours, access, 1) == H("10000000011A52FE7DD3E72748973C1E28")
    theirs = Proof(TITLE, CLIENT_TITLE, C_TO_S, S_TO_C)
    check_challenge_reply("hls-gmac", theirs, access, H("1001234567FE1466AFB3DBCD4F9389E2B7"))
    for wrong in (b"", H("1001234568FE1466AFB3DBCD4F9389E2B7"), H("1001234567FE1466AFB3DBCD4F9389E2B6"), bytes(17)):
        with pytest.raises(NoAccess, match="does not prove"):
            check_challenge_reply("hls-gmac", theirs, access, wrong)


def test_hash_proofs_are_over_what_the_standard_says() -> None:
    access = memory_access({"password": b"secret"})
    proof = Proof(CLIENT_TITLE, TITLE, S_TO_C, C_TO_S)
    assert challenge_reply("hls-md5", proof, access) == hashlib.md5(b"P6wRJ21Fsecret").digest()
    assert challenge_reply("hls-sha1", proof, access) == hashlib.sha1(b"P6wRJ21Fsecret").digest()
    expected = hashlib.sha256(b"secret" + CLIENT_TITLE + TITLE + S_TO_C + C_TO_S).digest()
    assert challenge_reply("hls-sha256", proof, access) == expected


# Pushes of meters in the field with their keys (github.com/esphome-libs/dlms_parser, tests/dumps, Apache-2.0).
KAMSTRUP = H(
    "db084b414d45013490838201d030010f60a4ac4b6048a68093068d24fbc9225ea9aa8fe3441e02f54dbda3d9ed58425a2fa099985243fdef"
    "3390afc26c90a9b81e774774c90ce2a381d6a64f3e148f1fcfe282c2a793f9fdc273cf3cdff63c279f43635ab2f7fb31bd6db83ede632b9b"
    "5e1bc7c276a86a62f7c68d2b3e065e7dceb00ce7655e0577a7a3e5e8f3e656e3a7e827e9b327970a61d17e27c0db0987bfcf902c7bbaf5d9"
    "68c38edf29ba2f1d9aee13a6899c6c0325a2a00cab915f519b55329270380effae9f5e2a47cfdb9c84cdf5d2d3348afb9d00da1dee1b9c33"
    "af56784d9988caca556f18d62f2e70d3f10744a86774cb78f5b3ca336f23d833937d8f5cf3f7a35db8b37132488fe0c66703b845014eb6df"
    "8455fe90383028342ad39b126ad26f969ea47e1ab090cfbecd10dc3e5da3104bba96184b14afe9e960d51b4c62d5f01e82d467ca57198167"
    "1ab783c972349bcb98c89a19b1c98db0eba2670a9bca21f8419b04c94db510e75e3e426d75b2cfa91f8f4caaf8758b33768df7fe55fd8b49"
    "83b19a19dde7a5891bc0f266a8029d2089b6ea0c2d11c2ef96a6e40365bc85d259dc169dd43e16499ebc6f080e4ccd8657dace68939ce40e"
    "4f55a6b0cc40dffc9dc1b4149dd09d72c7ddb5e0f10e31948b665168c6"
)
KAMSTRUP_KEYS = {
    "encryption_key": H("00112233445566778899aabbccddeeff"),
    "authentication_key": H("ffeeddccbbaa99887766554433221100"),
}


def test_a_captured_push_opens_with_its_keys() -> None:
    plain = unwrap(KAMSTRUP, DlmsSettings(), memory_access(KAMSTRUP_KEYS))
    assert plain.startswith(H("0f000000000c07ea030c040f181eff80000002410a0e4b616d73747275705f5630303031"))
    assert plain.endswith(H("09060101290800ff060024bf10090601013d0800ff060029029c"))


def test_without_the_authentication_key_it_opens_unchecked() -> None:
    only_key = {"encryption_key": KAMSTRUP_KEYS["encryption_key"]}
    with pytest.raises(NoAccess, match="authentication_key of the meter is not known"):
        unwrap(KAMSTRUP, DlmsSettings(), memory_access(only_key))
    access = memory_access(only_key)
    plain = unwrap(KAMSTRUP, DlmsSettings(check_tag=False), access)
    assert plain == unwrap(KAMSTRUP, DlmsSettings(), memory_access(KAMSTRUP_KEYS))
    assert access.counter("rx").value == 0, "a number nobody vouches for must not lock out the true ones"


def test_the_broadcast_key_is_used_where_its_bit_says_so() -> None:
    control = 0x70
    sealed = library.seal(control, TITLE, 7, bytes(16), AK, b"\x0f\x00")
    apdu = bytes((0xDB, 8)) + TITLE + bytes((5 + len(sealed), control)) + (7).to_bytes(4, "big") + sealed
    access = memory_access({**KEYS, "broadcast_key": bytes(16)})
    assert unwrap(apdu, DlmsSettings(), access) == b"\x0f\x00"
    with pytest.raises(NoAccess, match="broadcast_key"):
        unwrap(apdu, DlmsSettings(), memory_access(KEYS))


@pytest.mark.parametrize("position", [-1, 20, 300])
def test_a_changed_bit_is_noticed(position: int) -> None:
    changed = bytearray(KAMSTRUP)
    changed[position] ^= 1
    access = memory_access(KAMSTRUP_KEYS)
    with pytest.raises(NoAccess, match="does not pass its authentication tag") as caught:
        unwrap(bytes(changed), DlmsSettings(), access)
    assert "encryption_key, authentication_key" in caught.value.problem.remedy
    assert access.counter("rx").value == 0


def test_a_changed_bit_in_plain_but_authenticated_text_is_noticed() -> None:
    protected = ciphers("authenticated").protect(RESPONSE)
    for position in range(7, len(protected)):
        changed = bytearray(protected)
        changed[position] ^= 1
        with pytest.raises(NoAccess, match="does not pass its authentication tag"):
            ciphers("authenticated").unwrap(bytes(changed))


def test_numbers_of_the_meter_must_rise() -> None:
    access = memory_access(KAMSTRUP_KEYS)
    unwrap(KAMSTRUP, DlmsSettings(), access)
    unwrap(KAMSTRUP, DlmsSettings(), access, count=False)
    with pytest.raises(NoAccess, match="an old answer again"):
        unwrap(KAMSTRUP, DlmsSettings(), access)
    unwrap(KAMSTRUP, DlmsSettings(check_counter=False), access)


FORMS = ["service-glo", "general-glo", "service-ded", "general-ded"]
ALL_CIPHERED = ["authenticated", "encrypted", "authenticated-encrypted"]
RESPONSE = H("C4010100") + H("0600001234")


@pytest.mark.parametrize("policy", ALL_CIPHERED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 107, 200, 300, 70_000])
def test_what_one_side_protects_the_other_opens(form: str, policy: str, size: int) -> None:
    meter, ours = ciphers(policy, form, counter=0), ciphers(policy, form)
    meter.dedicated_key = ours.dedicated_key = bytes(range(16, 32))
    apdu = RESPONSE + bytes(size)
    protected = meter.protect(apdu)
    assert (protected == apdu) is False
    assert protected[0] == {"service-glo": 0xCC, "general-glo": 0xDB, "service-ded": 0xD4, "general-ded": 0xDC}[form]
    assert ours.unwrap(protected) == apdu  # the first number of a meter may be 0


def test_an_empty_title_in_general_ciphering_means_the_known_one() -> None:
    meter, ours = ciphers("authenticated-encrypted", "general-glo"), ciphers("authenticated-encrypted", "general-glo")
    protected = meter.protect(RESPONSE)
    assert ours.unwrap(b"\xdb\x00" + protected[10:]) == RESPONSE
    ours.meter_title = b""
    with pytest.raises(NoAccess, match="system title is not known"):
        ours.unwrap(b"\xdb\x00" + protected[10:])


def test_less_protection_than_agreed_is_refused() -> None:
    ours = ciphers("authenticated-encrypted")
    with pytest.raises(NoAccess, match="answers unprotected"):
        ours.unwrap(RESPONSE)
    with pytest.raises(NoAccess, match="less protection than policy asks for"):
        ours.unwrap(ciphers("encrypted").protect(RESPONSE))
    assert ours.unwrap(H("D80102")) == H("D80102"), "an exception comes in the clear"
    assert ciphers("encrypted").unwrap(ciphers("authenticated").protect(RESPONSE)) == RESPONSE


def test_protected_in_name_only_is_refused() -> None:
    apdu = bytes((0xCC, 5 + len(RESPONSE), 0)) + bytes(4) + RESPONSE
    for policy in ALL_CIPHERED:
        with pytest.raises(NoAccess, match="less protection"):
            ciphers(policy).unwrap(apdu)


def test_another_meters_title_is_refused() -> None:
    other = ciphers("authenticated-encrypted", "general-glo")
    other.client_title = CLIENT_TITLE
    protected = other.protect(RESPONSE)
    titled: dict[str, Any] = {"meter_title": TITLE.hex(), "check_title": True}
    for more in ({}, titled):
        ours = ciphers("authenticated-encrypted", "general-glo", **more)
        with pytest.raises(NoAccess, match="another meter answers: its system title is 4D4D4D0000000001"):
            ours.unwrap(protected)
    assert ciphers("authenticated-encrypted", "general-glo", meter_title=TITLE.hex()).unwrap(protected) == RESPONSE


def test_our_own_request_come_back_moves_no_counter() -> None:
    for form in ("general-glo", "service-glo"):
        ours = ciphers("authenticated-encrypted", form)
        ours.client_title = CLIENT_TITLE
        echo = ours.protect(GET_CLOCK)
        with pytest.raises(BadFrame, match="our own request came back"):
            ours.unwrap(echo)
        seen = unwrap(echo, DlmsSettings(client_title=CLIENT_TITLE.hex()), ours.access)
        assert seen == GET_CLOCK
        assert ours.access.counter("rx").value == 0


@pytest.mark.parametrize(
    ("apdu", "error", "message"),
    [
        (H("CC1031") + bytes(15), Unsupported, "security suite 1"),
        (H("CC10B0") + bytes(15), Unsupported, "compresses"),
        (H("DD000000"), Unsupported, "general-ciphering"),
        (H("CC0530") + bytes(4), BadFrame, "too short for its authentication tag"),
        (H("CC0430") + bytes(3), BadFrame, "ends too early"),
        (H("DB04010203040530") + bytes(4), BadFrame, "system title of 4 bytes"),
        (H("CC053000"), BadFrame, "ends too early"),
        (H("CC053000000000FF"), BadFrame, "too many"),
    ],
)
def test_what_can_not_be_opened_says_why(apdu: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ciphers("authenticated-encrypted").unwrap(apdu)


def test_missing_and_wrong_secrets_are_named_and_never_shown() -> None:
    access = memory_access({"encryption_key": b"tooshort-secret"})
    with pytest.raises(NoAccess, match=r"^encryption_key of the meter has 15 bytes, not 16") as caught:
        secret(access, "encryption_key", 16)
    assert "tooshort" not in str(caught.value)
    with pytest.raises(NoAccess, match=r"^password of the meter is not known"):
        secret(access, "password")
    shown = repr(ciphers("encrypted")) + repr(memory_access(KEYS))
    assert EK.hex() not in shown
    assert repr(EK) not in shown


def test_a_used_up_counter_ends_it() -> None:
    ours = ciphers("encrypted", counter=MAX_COUNTER)
    ours.protect(GET_CLOCK)
    with pytest.raises(NoAccess, match="used up"):
        ours.protect(GET_CLOCK)


@given(st.binary(max_size=80), st.sampled_from(ALL_CIPHERED), st.sampled_from(FORMS))
def test_any_bytes_open_or_raise_ours(data: bytes, policy: str, form: str) -> None:
    def opened(apdu: bytes) -> bytes | HeadendError:
        try:
            ciphers(policy, form).unwrap(apdu)
            return unwrap(apdu, DlmsSettings(meter_title=TITLE.hex()), memory_access(KEYS))
        except HeadendError as error:
            return error

    for apdu in (data, b"\xcc" + data, b"\xdb\x08" + TITLE + data, b"\xdc\x00" + data, b"\x28" + data):
        assert isinstance(opened(apdu), bytes | HeadendError)


@given(st.binary(max_size=300), st.integers(0, MAX_COUNTER), st.sampled_from(ALL_CIPHERED))
def test_the_protection_is_that_of_another_implementation(plain: bytes, counter: int, policy: str) -> None:
    apdu = b"\xc0" + plain
    control = {"authenticated": 0x10, "encrypted": 0x20, "authenticated-encrypted": 0x30}[policy]
    nonce, head = TITLE + counter.to_bytes(4, "big"), bytes((control,)) + AK
    peer = AESGCM(EK)
    if policy == "authenticated":
        expected = apdu + peer.encrypt(nonce, b"", head + apdu)[:12]
    elif policy == "encrypted":
        expected = peer.encrypt(nonce, apdu, b"")[: len(apdu)]
    else:
        expected = peer.encrypt(nonce, apdu, head)[: len(apdu) + 12]
    header = header_of(ciphers(policy, counter=counter).protect(apdu))
    assert (header.control, header.counter, header.text) == (control, counter, expected)
