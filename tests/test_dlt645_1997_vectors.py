"""Recorded frames of DL/T 645-1997: our reading against their sources, and every recorded answer maltreated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headend.conversation import Conversation, Send
from headend.model import Harvest, ReadKind
from headend.protocols import PROTOCOLS, dlt645
from headend.protocols.dlt645 import decode_item
from headend.protocols.dlt645.catalogue import items_1997
from headend.protocols.explanation import Explanation
from headend.quantities import BY_DI
from tests import dlt645_walker as walker
from tests.dlt645_walker import Case
from tests.dlt645_wire import NOW, job, meter_1997

VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "vectors" / "dlt645_1997.jsonl").read_text(encoding="utf-8").splitlines()
]
BY_ID = {vector["id"]: vector for vector in VECTORS}
DRIVER = PROTOCOLS["dlt645-1997"]

# Where we read something else than the source claims, and why.
DISAGREEMENTS: dict[int, tuple[str, str]] = {
    170: ("0.36", "the log reads 36 00 00 00 as a binary number; energies are BCD"),
    172: ("error word 02", "the log reads its error word without taking 33H off"),
}
# Requests of the KTS log that are no read of 1997: bytes sent without 33H, or with more than an identifier.
ODD = {
    171: "identifier CECD is not in the catalogue",
    174: "identifier CECD is not in the catalogue",
    175: "identifier CECD is not in the catalogue",
    176: "identifier 0100 is not in the catalogue",
    181: "no meter answers",
    196: "perhaps the maker's own",
    197: "perhaps the maker's own",
    198: "identifier C135 is not in the catalogue",
    203: "identifier 90FF is not in the catalogue",
}


def explained(vector: dict[str, Any]) -> Explanation:
    return dlt645.explain(bytes.fromhex(vector["hex"]))


def ids(vectors: Iterable[dict[str, Any]]) -> list[str]:
    return [str(vector["id"]) for vector in vectors]


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == 55
    assert all(vector["source"] for vector in VECTORS)
    assert sum(vector["c"] == "81" for vector in VECTORS) == 24


CLAIMED = [v for v in VECTORS if v["claimed_value"] and v["id"] not in DISAGREEMENTS]


@pytest.mark.parametrize("vector", CLAIMED, ids=ids(CLAIMED))
def test_our_reading_is_what_the_source_claims(vector: dict[str, Any]) -> None:
    explanation = explained(vector)
    claim: str = vector["claimed_value"]
    assert explanation.ok
    if claim.startswith("ERR"):
        assert [f.hex for f in explanation.fields if f.name == "error word"] == [claim[4:]]
    else:
        (value,) = explanation.values
        assert Decimal(value.value or "") == Decimal(claim)
        assert explanation.problems == ()


# Answers without a claim, by what the bytes say and a second, independent decoder agreed on.
SECOND = [v for v in VECTORS if v["c"] == "81" and v["id"] not in (191, 193, 195)]


@pytest.mark.parametrize("vector", SECOND, ids=ids(SECOND))
def test_our_reading_is_that_of_a_second_decoder(vector: dict[str, Any]) -> None:
    (value,) = explained(vector).values
    assert Decimal(value.value or "") == Decimal(vector["decoded"])


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (191, "201708176934"),  # its own address
        (193, "2019-07-06, weekday 06"),  # a Saturday
        (195, "22:22:04"),
        (201, "2019-07-06, weekday 06"),  # written, with password 00000000
    ],
)
def test_texts_and_times(number: int, value: str) -> None:
    assert [v.value for v in explained(BY_ID[number]).values] == [value]


@pytest.mark.parametrize("number", DISAGREEMENTS, ids=str)
def test_where_we_disagree_we_say_what_we_read(number: int) -> None:
    said, reason = DISAGREEMENTS[number]
    explanation = explained(BY_ID[number])
    assert explanation.ok
    assert reason
    assert said in " ".join((explanation.summary, *explanation.problems))
    assert BY_ID[number]["claimed_value"] not in explanation.summary


@pytest.mark.parametrize("number", ODD, ids=str)
def test_what_is_odd_is_named(number: int) -> None:
    assert ODD[number] in " | ".join(explained(BY_ID[number]).problems)


@pytest.mark.parametrize("vector", VECTORS, ids=ids(VECTORS))
def test_the_control_code_tells_the_version(vector: dict[str, Any]) -> None:
    explanation = explained(vector)
    assert "(DL/T 645-1997)" in explanation.summary
    assert explanation == DRIVER.explain(bytes.fromhex(vector["hex"]))
    assert vector["addr"] in explanation.summary
    parts = "".join(f.hex for f in explanation.fields if f.name in walker.FRAME_PARTS)
    assert parts == vector["hex"].upper()
    forced = PROTOCOLS["dlt645-2007"].explain(bytes.fromhex(vector["hex"]))
    assert any("it belongs to DL/T 645-1997" in problem for problem in forced.problems)


REQUESTS = [v for v in VECTORS if v["c"] == "01" and v["id"] not in (*(set(ODD) - {181, 198, 203}),)]


@pytest.mark.parametrize("vector", REQUESTS, ids=ids(REQUESTS))
def test_our_requests_are_those_recorded(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["hex"])
    sent = next(dlt645.read_item_1997(vector["addr"], _di(frame)))
    assert isinstance(sent, Send)
    assert sent.data == b"\xfe" * 4 + frame


def test_discovery_asks_what_was_recorded() -> None:
    sent = next(DRIVER.discover())
    assert isinstance(sent, Send)
    assert sent.data == b"\xfe" * 4 + bytes.fromhex(BY_ID[103]["hex"])


# --- the walker ---------------------------------------------------------------------------------------------------


def _di(frame: bytes) -> str:
    return bytes((b - 0x33) & 0xFF for b in frame[11:9:-1]).hex().upper()


def _item_case(vector: dict[str, Any]) -> Case:
    answer = bytes.fromhex(vector["hex"])
    di = _di(answer)

    def start() -> Conversation[Any]:
        data = yield from dlt645.read_item_1997(vector["addr"], di)
        return decode_item(di, data)

    return Case(start, answer, list(explained(vector).values))


def _register_case(vector: dict[str, Any]) -> Case | None:
    answer = bytes.fromhex(vector["hex"])
    item = items_1997()[_di(answer)]
    value = explained(vector).values[0].value
    if item.maps_to not in BY_DI or value is None or item.kind != "num":
        return None
    device = meter_1997(address=vector["addr"])
    name = BY_DI[item.maps_to].name

    def start() -> Conversation[Any]:
        harvest: Harvest = yield from DRIVER.read(device, job(ReadKind.REGISTERS, name, of=device), now=NOW)
        assert not harvest.faults
        return [(r.quantity, r.value) for r in harvest.readings]

    return Case(start, answer, [(name, Decimal(value))])


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for vector in VECTORS:
        if vector["c"] != "81":
            continue
        cases[f"{vector['id']}-item"] = _item_case(vector)
        register = _register_case(vector)
        if register is not None:
            cases[f"{vector['id']}-register"] = register
        answer = bytes.fromhex(vector["hex"])
        if _di(answer) == "9010":
            cases[f"{vector['id']}-discover"] = Case(DRIVER.discover, answer, vector["addr"])
    return cases


CASES = _cases()
walk = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def test_the_walker_has_enough_to_walk() -> None:
    assert len(CASES) > 55


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
