"""Damaged and invented bytes against every DLMS decoder: nothing hangs, nothing but our own errors comes out, and what
the bytes claim costs no memory before it is believed."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.access import memory_access
from headend.errors import HeadendError
from headend.protocols.dlms import acse, apdu, axdr, hdlc, mbus, wrapper
from headend.protocols.dlms.body import items_of
from headend.protocols.dlms.buffer import layout_of
from headend.protocols.dlms.clock import parse_time, stamp_text
from headend.protocols.dlms.explain import explain
from headend.protocols.dlms.failures import exception_of, service_error_of
from headend.protocols.dlms.hdlc_limits import Limits, accepted
from headend.protocols.dlms.intake import Arrival, Intake, arrivals
from headend.protocols.dlms.push import decode_push, notification, readings_of, sender_title
from headend.protocols.dlms.security import Ciphers, header_of, unwrap
from headend.protocols.dlms.settings import DlmsPush, DlmsSettings
from tests.dlms_ports_kit import SECRETS, TITLE, meter_of
from tests.dlms_talk import AARE, AARQ

VECTORS = Path(__file__).parent / "vectors" / "dlms_captures.jsonl"
NOW = datetime(2026, 3, 10, 4, 7, 30, tzinfo=UTC)
MOST_S = 1.0  # of processor time for one input; the slowest take a few milliseconds
MOST_BYTES = 8 << 20
LONGEST = 700

Decoder = Callable[[bytes], object]

PLAIN = DlmsSettings(push=DlmsPush(step_s=900))
CIPHERED = DlmsSettings(policy="authenticated-encrypted", client_title=TITLE, check_counter=False)
ACCESS = memory_access(SECRETS)
METER = meter_of(1, "1", PLAIN)


def take_all(take: Callable[[bytearray], object]) -> Decoder:
    """Everything a framing finds; each find must take bytes off the buffer, or it would never end."""

    def run(data: bytes) -> int:
        buffer, found = bytearray(data), 0
        while buffer:
            before = len(buffer)
            if take(buffer) is None:
                break
            assert len(buffer) < before
            found += 1
        return found

    return run


def in_chunks(data: bytes) -> object:
    intake, found = Intake(), []
    for at in range(0, len(data), 7):
        found += intake.feed(data[at : at + 7])
    return [*found, *intake.close()]


def pushed(data: bytes) -> object:
    return readings_of(decode_push(data, PLAIN, "Europe/Oslo"), METER, NOW)


def opened(data: bytes) -> bytes:
    ciphers = Ciphers(CIPHERED, ACCESS, bytes.fromhex(TITLE), b"SIM\0\0\0\0\1", SECRETS["dedicated_key"])
    return ciphers.unwrap(data)


def explained(data: bytes) -> str:
    """Never raises, whatever it is given; with keys or without."""
    return "\n".join([str(explain(data)), str(explain(data, secrets=SECRETS))])


FRAMINGS: dict[str, Decoder] = {
    "hdlc": take_all(hdlc.take),
    "wrapper": take_all(wrapper.take),
    "mbus": take_all(mbus.take),
    "intake": arrivals,
    "intake in chunks": in_chunks,
    "push": pushed,
}
APDUS: dict[str, Decoder] = {
    "reply": apdu.parse_reply,
    "list": lambda data: apdu.parse_list(data, 3),
    "result": apdu.parse_result,
    "block": apdu.parse_part,
    "aare": acse.parse_aare,
    "rlre": acse.parse_rlre,
    "initiate": acse.parse_initiate_response,
    "header": header_of,
    "unwrap": lambda data: unwrap(data, CIPHERED, ACCESS, meter_title=b"SIM\0\0\0\0\1", count=False),
    "answer": opened,
    "exception": exception_of,
    "service error": service_error_of,
    "notification": lambda data: notification(data, PLAIN, "Europe/Oslo"),
    "push": pushed,
    "sender": sender_title,
    "LLC": hdlc.strip_llc,
    "limits": lambda data: accepted(Limits(), data),
}
DATA: dict[str, Decoder] = {
    "axdr": axdr.decode_all,
    "body": items_of,
    "layout": lambda data: layout_of(axdr.decode_all(data)),
    "time": lambda data: (parse_time(data, PLAIN, "Europe/Oslo"), stamp_text(data)),
}
EXPLAIN: dict[str, Decoder] = {"explain": explained}
EVERYTHING = {**FRAMINGS, **APDUS, **DATA, **EXPLAIN}


def survives(decode: Decoder, data: bytes) -> bool:
    """Whether `data` means something to it; any error but ours passes through."""
    try:
        decode(data)
    except HeadendError:
        return False
    return True


# -- invented ----------------------------------------------------------------------------------------------------

HEADS = st.sampled_from(
    [bytes((tag,)) for tag in (*apdu.Apdu, 0x21, 0x28, 0xC8, 0xCC, 0xD0, 0xD4, 0xDB, 0xDC, 0x7E, 0x68, *range(30))]
    + [b"\x00\x01\x00\x01\x00\x10", b"\x7e\xa0", b"\x7e\xa8", b"\xe6\xe7\x00", b"\xc4\x02\x01", b"\xc4\x03\x01", b""]
)


@pytest.mark.parametrize("name", EVERYTHING)
@given(head=HEADS, rest=st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_invented_bytes(name: str, head: bytes, rest: bytes) -> None:
    started = time.process_time()
    survives(EVERYTHING[name], head + rest)
    assert time.process_time() - started < MOST_S


@given(
    st.lists(st.sampled_from([b"\x01", b"\x02", b"\x13", b"\x81", b"\x82\xff\xff", b"\xff", b"\x09\x06"]), max_size=60)
)
@settings(max_examples=200, deadline=None)
def test_nested_claims(parts: list[bytes]) -> None:
    data = b"".join(parts)
    started = time.process_time()
    for decode in DATA.values():
        survives(decode, data)
        survives(pushed, b"\x0f\x00\x00\x00\x01\x00" + data)
    explained(b"\xc4\x01\x01\x00" + data)
    assert time.process_time() - started < MOST_S


# -- damaged -----------------------------------------------------------------------------------------------------


def seeds() -> tuple[list[bytes], list[bytes]]:
    """What went over wires, and the APDUs in it; with associations and answers beside, which no push has."""
    wires, whole = [], [bytes.fromhex(one) for one in (AARE, AARQ, "C401C100060001E240", "D801060000138800")]
    whole += [bytes.fromhex("C402C10000000001000B01010202090600010C07E0"), bytes.fromhex("C403C1020006000000010104")]
    for line in VECTORS.read_text("utf-8").splitlines():
        one = json.loads(line)
        raw = bytes.fromhex(one["hex"])
        wires += [raw[at : at + LONGEST] for at in range(0, min(len(raw), 5 * LONGEST), LONGEST)]
        whole += [found.apdu for found in arrivals(raw)[:4] if isinstance(found, Arrival)]
        if "plain_apdu" in one:
            whole.append(bytes.fromhex(one["plain_apdu"]))
    return wires, whole


WIRES, WHOLE = seeds()
LIKELY = (0x00, 0x01, 0x02, 0x06, 0x09, 0x0F, 0x13, 0x7E, 0x81, 0x82, 0x84, 0xA0, 0xFF)


def damaged(rng: random.Random, original: bytes) -> bytes:
    """A few bytes changed, lost, put in between, or said twice."""
    data = bytearray(original)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(6):
            case 0 if data:
                data[at] = rng.randrange(256)
            case 1 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randint(1, 9)]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 5))
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _ if data:
                data[at] = rng.choice(LIKELY)
    return bytes(data)


def framed(rng: random.Random, data: bytes) -> bytes:
    """A damaged APDU in a frame that passes its check: what is behind the checks must stand it too."""
    if rng.random() < 0.5:
        return wrapper.encode(1, 16, data or b"\x00")
    return hdlc.encode(b"\x02\x23", b"\x21", 0x13, hdlc.LLC_RESPONSE + data[:1900])


def inputs(count: int, seed: int) -> Iterator[tuple[dict[str, Decoder], bytes]]:
    """What to decode, and with what."""
    rng = random.Random(seed)
    for number in range(count):
        kind = number % 4
        if kind == 0:
            yield FRAMINGS, damaged(rng, rng.choice(WIRES))
            continue
        data = damaged(rng, rng.choice(WHOLE))
        if kind == 1:
            yield FRAMINGS, framed(rng, data)
        elif kind == 2:
            yield APDUS, data
        else:
            yield DATA, data[rng.randrange(min(len(data), 24) + 1) :]


def hammer(count: int, seed: int, *, explain_every: int = 4) -> tuple[int, float]:
    """How often damaged bytes still meant something, and the slowest input, seconds of processor time."""
    understood, slowest = 0, 0.0
    for number, (decoders, data) in enumerate(inputs(count, seed)):
        started = time.process_time()
        try:
            understood += sum(survives(decode, data) for decode in decoders.values())
            if number % explain_every == 0:
                assert len(explained(data)) < 400 * len(data) + 4000
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {data.hex()}") from error
        slowest = max(slowest, time.process_time() - started)
    assert slowest < MOST_S
    return understood, slowest


@pytest.mark.parametrize("seed", [645, 1107])
def test_damaged_captures(seed: int) -> None:
    understood, _ = hammer(50_000, seed)
    assert understood > 50_000  # the damage is small enough that most decoders see more than the first byte


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(4))
def test_a_million_damaged_captures(seed: int) -> None:
    understood, slowest = hammer(250_000, seed, explain_every=10)
    assert understood > 250_000
    assert slowest < MOST_S


def test_damage_costs_no_memory() -> None:
    """The peak while one input is decoded by everything."""
    worst = 0
    tracemalloc.start()
    try:
        for number, (decoders, data) in enumerate(inputs(400, 9)):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for decode in decoders.values():
                survives(decode, data)
            if number % 4 == 0:
                explained(data)
            worst = max(worst, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert worst < MOST_BYTES
