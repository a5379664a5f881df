"""Status words as named flags and their changes as events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.errors import UsageError
from headend.protocols.dlt645 import Change, events_of, status_flags
from headend.protocols.dlt645.status import WORDS, status_text

words = st.integers(0, 0xFFFF)


def held(word: int, value: int) -> set[str]:
    return {flag.name for flag in status_flags(word, value) if flag.set}


@pytest.mark.parametrize(
    ("word", "value", "names"),
    [
        (3, 0x0050, {"relay_open", "relay_commanded_open"}),  # recorded after a trip (vector 45)
        (3, 0x0000, set()),  # and after closing (vector 46)
        (3, 0x0002, {"auxiliary_supply"}),
        (3, 0x0004, {"battery_supply"}),
        (3, 0x0006, set()),  # supply 11 means nothing
        (3, 0x0100, {"energy_prepaid"}),
        (3, 0x0200, {"money_prepaid"}),
        (1, 0x003E, {f"{n}" for n in ("block_demand", "clock_battery_low", "reading_battery_low")}
            | {"active_power_reversed", "reactive_power_reversed"}),
        (2, 0x0014, {"phase_c_active_power_reversed", "phase_a_reactive_power_reversed"}),
        (4, 0x0081, {"phase_a_voltage_loss", "phase_a_phase_failure"}),
        (5, 0x0100, {"phase_b_current_interrupted"}),
        (6, 0x0048, {"phase_c_current_loss", "phase_c_reverse_flow"}),
        (7, 0x0044, {"voltage_unbalance", "demand_over_limit"}),
    ],
)  # fmt: skip
def test_bits_have_the_names_of_appendix_c(word: int, value: int, names: set[str]) -> None:
    assert held(word, value) == names


def test_names_are_unique_over_all_words_and_both_languages_are_there() -> None:
    every = [flag for word in range(1, WORDS + 1) for flag in status_flags(word, 0)]
    assert len({flag.name for flag in every}) == len({flag.name_zh for flag in every}) == len(every) == 54
    assert all(flag.name.isidentifier() and flag.name == flag.name.lower() for flag in every)
    assert not any(flag.set for flag in every)


@pytest.mark.parametrize(("word", "value"), [(0, 0), (8, 0), (1, -1), (1, 0x10000)])
def test_what_is_no_word_is_refused(word: int, value: int) -> None:
    with pytest.raises(UsageError):
        status_flags(word, value)


def test_a_trip_is_an_event_and_so_is_closing() -> None:
    closed, tripped = status_flags(3, 0x0000), status_flags(3, 0x0050)
    raised = events_of(closed, tripped)
    assert [(flag.name, change) for flag, change in raised] == [
        ("relay_open", Change.RAISED),
        ("relay_commanded_open", Change.RAISED),
    ]
    assert {change for _, change in events_of(tripped, closed)} == {Change.CLEARED}
    assert [change.value for change in Change] == ["raised", "cleared"]


def test_a_flag_not_seen_before_is_no_event() -> None:
    before = [flag for flag in status_flags(3, 0) if flag.name != "relay_open"]
    assert [flag.name for flag, _ in events_of(before, status_flags(3, 0x50))] == ["relay_commanded_open"]
    assert events_of((), status_flags(3, 0xFFFF)) == []


@given(st.integers(1, WORDS), words, words)
def test_events_are_exactly_the_differences(word: int, before: int, after: int) -> None:
    events = events_of(status_flags(word, before), status_flags(word, after))
    raised = {flag.name for flag, change in events if change is Change.RAISED}
    cleared = {flag.name for flag, change in events if change is Change.CLEARED}
    assert raised == held(word, after) - held(word, before)
    assert cleared == held(word, before) - held(word, after)


@given(st.integers(1, WORDS), words)
def test_words_as_text(word: int, value: int) -> None:
    text = status_text(word, value)
    assert all(name in text for name in held(word, value))
    assert text


def test_the_relay_is_always_told() -> None:
    assert status_text(3, 0) == "relay closed 继电器闭合"
    assert status_text(3, 0x10) == "relay_open 继电器断开"
    assert status_text(7, 0) == "nothing set"
