"""Recorded frames: our reading against the claims of their sources, and every recorded answer maltreated.

The walker plays each answer whole, byte by byte, after noise, after an echo, cut at every length and with every single
bit flipped: the result is the right value or an error, never another value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from headend.conversation import Conversation
from headend.model import Harvest, ReadKind
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645 import decode_item, read_item
from headend.protocols.dlt645.frame import Scanner
from headend.protocols.explanation import Explanation
from headend.quantities import BY_DI
from tests import dlt645_walker as walker
from tests.dlt645_walker import Case
from tests.dlt645_wire import NOW, job, meter

VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "vectors" / "dlt645_2007.jsonl").read_text(encoding="utf-8").splitlines()
]
BY_ID = {vector["id"]: vector for vector in VECTORS}
DRIVER = PROTOCOLS["dlt645-2007"]

# Where we read something else than the source claims, or the source itself breaks the standard, and why.
DISAGREEMENTS: dict[int, tuple[str, str]] = {
    102: ("2056-34-12 02:11:25", "the source sends year first; clause 7.6 has ss mm hh DD MM YY"),
    90: ("checksum 38 is wrong, 37 would be right", "the source's checksum is off by one"),
    126: ("checksum 7F is wrong, 7E would be right", "the source's checksum is off by one"),
    141: ("checksum E8 is wrong, E7 would be right", "a negative example, spoilt on purpose"),
    129: ("error word FE", "the source sends its error word 31 without the 33H"),
    148: ("the catalogue says 4", "a maker's own layout under a standard identifier"),
    83: ("000E0000 has digits above nine", "no BCD: damaged or made up"),
}


def explained(vector: dict[str, Any]) -> Explanation:
    return DRIVER.explain(bytes.fromhex(vector["hex"]))


def ids(vectors: Iterable[dict[str, Any]]) -> list[str]:
    return [str(vector["id"]) for vector in vectors]


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == 93
    assert all(vector["source"] for vector in VECTORS)


CLAIMED = [v for v in VECTORS if v["claimed_value"] and v["id"] not in DISAGREEMENTS]


@pytest.mark.parametrize("vector", CLAIMED, ids=ids(CLAIMED))
def test_our_reading_is_what_the_source_claims(vector: dict[str, Any]) -> None:
    explanation = explained(vector)
    claim: str = vector["claimed_value"]
    values = [v.value or "" for v in explanation.values]
    assert explanation.ok
    if claim.startswith("ERR"):
        assert [f.hex for f in explanation.fields if f.name == "error word"] == [claim[4:]]
    elif claim == "ACK":
        assert explanation.summary.endswith("done")
    elif vector["c"] == "08":
        assert values == [f"20{claim}"]
    elif vector["c"] in ("1C", "93") or "0503" in explanation.summary:
        assert values == [claim]
    else:
        assert [Decimal(v) for v in values] == [Decimal(c) for c in claim.split(",")]


@pytest.mark.parametrize("number", DISAGREEMENTS, ids=str)
def test_where_we_disagree_we_say_what_is_odd(number: int) -> None:
    said, reason = DISAGREEMENTS[number]
    explanation = explained(BY_ID[number])
    assert reason
    assert any(said in problem for problem in explanation.problems), explanation.problems
    assert explanation.ok is ("checksum" not in said)


@pytest.mark.parametrize("vector", VECTORS, ids=ids(VECTORS))
def test_every_frame_is_taken_apart_completely(vector: dict[str, Any]) -> None:
    explanation = explained(vector)
    assert vector["addr"] in explanation.summary
    parts = "".join(f.hex for f in explanation.fields if f.name in walker.FRAME_PARTS)
    assert parts == vector["hex"].upper()


REQUESTS = [v for v in VECTORS if v["c"] == "11" and v["addr"].isdecimal() and v["addr"] != "9" * 12]


@pytest.mark.parametrize("vector", REQUESTS, ids=ids(REQUESTS))
def test_our_requests_are_those_recorded(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["hex"])
    di = bytes((b - 0x33) & 0xFF for b in frame[13:9:-1]).hex().upper()
    sent = next(read_item(vector["addr"], di))
    assert getattr(sent, "data", b"") == b"\xfe" * 4 + frame


# --- the walker ---------------------------------------------------------------------------------------------------


def _item_case(vector: dict[str, Any]) -> Case:
    answer = bytes.fromhex(vector["hex"])
    di = bytes((b - 0x33) & 0xFF for b in answer[13:9:-1]).hex().upper()

    def start() -> Conversation[Any]:
        data = yield from read_item(vector["addr"], di)
        return decode_item(di, data)

    return Case(start, answer, list(explained(vector).values))


def _register_case(vector: dict[str, Any]) -> Case | None:
    answer = bytes.fromhex(vector["hex"])
    di = bytes((b - 0x33) & 0xFF for b in answer[13:9:-1]).hex().upper()
    value = explained(vector).values[0]
    if di not in BY_DI or value.value is None:
        return None
    device = meter(address=vector["addr"])
    name = BY_DI[di].name
    expected = Decimal(int(value.value, 16)) if name == "status_word_3" else Decimal(value.value)

    def start() -> Conversation[Any]:
        harvest: Harvest = yield from DRIVER.read(device, job(ReadKind.REGISTERS, name, of=device), now=NOW)
        assert not harvest.faults
        return [(r.quantity, r.value) for r in harvest.readings]

    return Case(start, answer, [(name, expected)])


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for vector in VECTORS:
        if vector["c"] == "93":
            cases[f"{vector['id']}-discover"] = Case(DRIVER.discover, bytes.fromhex(vector["hex"]), vector["addr"])
        elif vector["c"] == "91" and vector["id"] != 141:
            cases[f"{vector['id']}-item"] = _item_case(vector)
            register = _register_case(vector)
            if register is not None:
                cases[f"{vector['id']}-register"] = register
    return cases


CASES = _cases()
walk = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def test_the_walker_has_enough_to_walk() -> None:
    assert len(CASES) > 50


@walk
def test_whole_and_byte_by_byte(case: Case) -> None:
    walker.whole_and_byte_by_byte(case)


@walk
def test_after_noise_and_after_an_echo(case: Case) -> None:
    walker.after_noise_and_after_an_echo(case)


@walk
def test_cut_at_every_length_it_is_an_error(case: Case) -> None:
    walker.cut_at_every_length(case)


@walk
def test_with_any_single_bit_flipped_it_is_the_right_value_or_an_error(case: Case) -> None:
    walker.every_bit_flipped(case)


@walk
def test_lost_once_it_is_asked_again(case: Case) -> None:
    walker.lost_once(case)


def test_how_many_two_bit_flips_pass_the_checksum() -> None:
    """The checksum is a byte sum: opposite flips of one bit in two bytes cancel out. Known, and why values must also
    be plausible; here is how many slip through with a well-formed wrong kWh (of vector 2)."""
    vector = BY_ID[2]
    right = bytes.fromhex(vector["hex"])
    wrong = pairs = 0
    for first, second in combinations(range(8 * len(right)), 2):
        pairs += 1
        spoilt = bytearray(right)
        spoilt[first // 8] ^= 1 << first % 8
        spoilt[second // 8] ^= 1 << second % 8
        for frame in Scanner().feed(bytes(spoilt)):
            if frame.address == vector["addr"] and frame.control == 0x91 and frame.di == "00010000":
                (value,) = decode_item("00010000", frame.data[4:])
                wrong += value.value not in (None, "0.26")
    assert pairs == 12720
    assert wrong == 13  # 0.10 %
