"""The numbering of senders: what they may forget, what is missing, what is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from headend.ingest import EvidencePolicy, write_messages
from headend.store import Store, schema
from headend.store.sequences import BEFORE_KEPT, BOOTS_KEPT, MISSING_KEPT, Numbering, advance, sequence_state
from headend.store.sheets import Message, Written
from tests.helpers import DAY


def message(sequence: tuple[str, int, int]) -> Message:
    return Message(DAY, "mqtt main", "hes/v1/C1/up/state", b"{}", sequence=sequence)


def take(store: Store, *messages: Message) -> list[Written]:
    with store.write() as conn:
        return write_messages(conn, messages, EvidencePolicy())


def test_a_gap_is_missing_until_it_is_filled(store: Store) -> None:
    def after(boot: int, seq: int) -> tuple[int | None, tuple[int, ...]]:
        (written,) = take(store, message(("C1", boot, seq)))
        return written.upto, written.missing

    assert after(1, 1) == (1, ())
    assert after(1, 2) == (2, ())
    assert after(1, 6) == (2, (3, 4, 5))
    assert after(1, 4) == (2, (3, 5))
    assert after(1, 4) == (2, (3, 5))
    assert after(1, 3) == (4, (5,))
    assert after(2, 0) == (0, ())
    assert after(1, 5) == (6, ())
    with store.read() as conn:
        assert sequence_state(conn, "C1", 2) == (2, 0, ())
        assert sequence_state(conn, "C1", 1) == (1, 6, ())
        assert sequence_state(conn, "C2") is None
        assert conn.scalar(select(func.count()).select_from(schema.message)) == 0


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_numbering_is_a_set_of_numbers(seen: list[int]) -> None:
    state: Numbering | None = None
    for seq in seen:
        state = advance(state, 1, seq)
    assert state is not None
    # What came before the first one seen is missing too, from 1 on.
    upto = seen[0] if seen[0] <= 1 else 0
    there = {seq for seq in seen if seq >= upto}
    while upto + 1 in there:
        upto += 1
    assert (state.upto, state.missing) == (upto, tuple(sorted(set(range(upto + 1, max([*there, 0]))) - there)))


def test_a_sender_running_for_years_is_not_asked_for_all() -> None:
    state = advance(None, 1, 1_000_000)
    assert (state.upto, len(state.missing), state.missing[-1]) == (1_000_000 - BEFORE_KEPT - 1, BEFORE_KEPT, 999_999)


def test_more_missing_than_are_remembered_are_given_up() -> None:
    state = advance(advance(None, 1, 1), 1, 3)
    state = advance(state, 1, MISSING_KEPT + 100)
    assert (state.given_up, len(state.missing), state.missing[-1]) == (97, MISSING_KEPT, MISSING_KEPT + 99)
    assert state.upto == state.missing[0] - 1
    assert advance(state, 1, state.missing[0]).given_up == 0


def test_old_boots_are_forgotten(store: Store) -> None:
    for boot in range(BOOTS_KEPT + 3):
        take(store, message(("C1", boot, 1)), message(("C2", 7, boot + 1)))
    with store.read() as conn:
        assert sequence_state(conn, "C1", 2) is None
        assert sequence_state(conn, "C1", 3) == (3, 1, ())
        assert sequence_state(conn, "C2") == (7, BOOTS_KEPT + 3, ())
