"""Maltreats a recorded answer in every way a line can: what comes out is the right value or an error, nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from headend.conversation import Conversation
from headend.errors import HeadendError
from tests.dlt645_wire import converse

FRAME_PARTS = ("start", "address", "control", "length", "data", "checksum", "end")
"""Fields of an explanation that together are the whole frame."""


@dataclass(frozen=True)
class Case:
    """A conversation and the answer recorded for it."""

    start: Callable[[], Conversation[Any]]
    answer: bytes
    value: Any


def whole_and_byte_by_byte(case: Case) -> None:
    assert converse(case.start(), lambda _: [case.answer]) == case.value
    assert converse(case.start(), lambda _: [bytes((b,)) for b in case.answer]) == case.value


def after_noise_and_after_an_echo(case: Case) -> None:
    noise = bytes(random.Random(7).choices([0x00, 0x16, 0x68, 0x91, 0xFE, 0xFF], k=120))
    assert converse(case.start(), lambda _: [noise, b"\xfe" * 4 + case.answer]) == case.value
    assert converse(case.start(), lambda request: [request + case.answer]) == case.value
    assert converse(case.start(), lambda request: [request, case.answer[:9], case.answer[9:]]) == case.value


def cut_at_every_length(case: Case) -> None:
    for length in range(len(case.answer)):
        with pytest.raises(HeadendError):
            converse(case.start(), lambda _, n=length: [case.answer[:n]])  # type: ignore[misc]


def every_bit_flipped(case: Case) -> None:
    for bit in range(8 * len(case.answer)):
        spoilt = bytearray(case.answer)
        spoilt[bit // 8] ^= 1 << bit % 8
        try:
            result = converse(case.start(), lambda _, data=bytes(spoilt): [data])  # type: ignore[misc]
        except HeadendError:
            continue
        assert result == case.value, f"bit {bit}"


def lost_once(case: Case) -> None:
    tries: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        tries.append(request)
        return [] if len(tries) == 1 else [case.answer]

    assert converse(case.start(), answer) == case.value
    assert tries[0] == tries[1]
