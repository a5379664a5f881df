"""Messages by the fast way: the same store as by the slow one, whatever comes, however it is split."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from headend.errors import StoreError
from headend.ingest import EvidencePolicy, Ingest, write
from headend.model import Cause, Fault, Meter, Outcome, Quality, Reading, ReadJob, ReadKind, Source, Status, Window
from headend.store import Store, readings, schema
from headend.store.blocks import PACKED, at_s, pack, unpack
from headend.store.curves import tighten
from headend.store.ledger import SlotSet, open_slots
from headend.store.registry import meters as meter_rows
from headend.store.sequences import sequence_state
from headend.store.sheets import Message, Sheet, Written, write_messages
from headend.store.unplaced import UnplacedRow, unplaced
from tests.helpers import DAY, STEP, make_meter, make_outcome, put, reading, registered, window

SECOND = timedelta(seconds=1)
ALL = EvidencePolicy(keep_good_every=1)
NONE = EvidencePolicy(keep_good_every=0)


def sheet(meter: Meter, at: datetime, values: Sequence[int], *, step: timedelta = STEP, **over: Any) -> Sheet:
    """Values (in units) one after the other from `at`, valid ones unless told otherwise."""
    step_s = int(step / SECOND)
    first = int(at.timestamp())
    times = array("q", [first + i * step_s for i in range(len(values))])
    made = Sheet(meter.key, "import_kwh", Source.CURVE, step_s, times, array("q", values), bytes([1] * len(values)))
    return replace(made, **over)


def message(*sheets: Sheet, at: datetime = DAY + timedelta(days=1), **over: Any) -> Message:
    return replace(Message(at, "mqtt main", "hes/v1/C1/up/reads", b"{payload}" * 9, tuple(sheets)), **over)


def take(store: Store, *messages: Message, policy: EvidencePolicy = ALL) -> list[Written]:
    with store.write() as conn:
        return write_messages(conn, messages, policy)


# -- the same as by the slow way ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A message without the store's numbers: sheets and faults name meters by their place."""

    minute: int
    sheets: tuple[tuple[int, str, Source, int, tuple[int, ...], tuple[int, ...], tuple[Quality, ...]], ...]
    faults: tuple[tuple[int, str, int, int, Cause], ...]


_QUALITIES = st.one_of(
    st.just(Quality.VALID), st.sampled_from([Quality.VALID, Quality.SUSPECT, Quality.ESTIMATED, Quality.EDITED])
)
_STEPS = {Source.CURVE: (900, 3600), Source.DAILY_FREEZE: (0,), Source.CURRENT: (0,)}


@st.composite
def _sheets(draw: st.DrawFn) -> tuple[int, str, Source, int, tuple[int, ...], tuple[int, ...], tuple[Quality, ...]]:
    meter, name = draw(st.integers(0, 1)), draw(st.sampled_from(["import_kwh", "import_interval_kwh"]))
    source = draw(st.sampled_from([Source.CURVE] * 4 + [Source.DAILY_FREEZE, Source.CURRENT]))
    step_s = draw(st.sampled_from(_STEPS[source]))
    if source is Source.CURVE:
        # A day and a half from a quarter before midnight: most runs pass the end of a day; some are off the grid.
        first = draw(st.integers(80, 100)) * step_s + draw(st.sampled_from([0, 0, 0, 0, 60]))
        number = draw(st.integers(1, 12))
        gaps = draw(st.one_of(st.just([1] * number), st.lists(st.integers(1, 3), min_size=number, max_size=number)))
        times = tuple(first + step_s * sum(gaps[:i]) for i in range(number))
    else:
        times = tuple(sorted(draw(st.sets(st.sampled_from([0, 86_400, 172_800]), min_size=1))))
    level = draw(st.sampled_from([0, 0, 0, 1]))  # as a rule what comes twice is the same
    units = tuple(at // 10 + level for at in times)
    plain = draw(st.booleans())
    qualities = [Quality.VALID if plain else draw(_QUALITIES) for _ in times]
    return meter, name, source, step_s, times, units, tuple(qualities)


@st.composite
def _faults(draw: st.DrawFn) -> tuple[int, str, int, int, Cause]:
    name = draw(st.sampled_from(["import_kwh", "import_interval_kwh", "never_seen"]))
    start = draw(st.integers(80, 110)) * 900
    cause = draw(st.sampled_from([Cause.NULL_VALUE, Cause.NOT_IN_MEMORY]))
    return draw(st.integers(0, 1)), name, start, start + draw(st.integers(0, 8)) * 900, cause


_MESSAGES = st.builds(
    Given,
    minute=st.integers(0, 3).map(lambda number: number * 700),
    sheets=st.lists(_sheets(), max_size=4).map(tuple),
    faults=st.lists(_faults(), max_size=1).map(tuple),
)


_Traffic = tuple[list[Given], list[int], list[int], list[int], datetime]
"""Messages with some of them again, two ways to split them into transactions, slots that are due, the day it begins."""


@st.composite
def _traffic(draw: st.DrawFn) -> _Traffic:
    """What comes, in the past or now (blocks of open days are packed and changed in another way)."""
    some = draw(st.lists(_MESSAGES, min_size=1, max_size=6))
    again = draw(st.lists(st.sampled_from(some), max_size=3))
    given = [*some, *again]
    cuts = [draw(st.lists(st.booleans(), min_size=len(given), max_size=len(given))) for _ in range(2)]
    due = draw(st.lists(st.integers(80, 110), max_size=12, unique=True))
    base = draw(st.sampled_from([DAY, datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)]))
    return given, [i for i, cut in enumerate(cuts[0]) if cut], [i for i, cut in enumerate(cuts[1]) if cut], due, base


def _split(items: list[Any], cuts: list[int]) -> list[list[Any]]:
    bounds = [0, *(cut for cut in cuts if cut), len(items)]
    return [items[a:b] for a, b in pairwise(bounds) if a < b]


def _at(base: datetime, second: int) -> datetime:
    return base + second * SECOND


def _as_message(given: Given, meters: list[Meter], base: datetime) -> Message:
    start = int(base.timestamp())
    return message(
        *(
            Sheet(
                meters[place].key,
                name,
                source,
                step_s,
                array("q", [start + at for at in times]),
                array("q", units),
                bytes(qualities),
            )
            for place, name, source, step_s, times, units, qualities in given.sheets
        ),
        at=base + timedelta(minutes=given.minute),
        faults=tuple(
            (meters[place].key, _fault(base, name, start, end, cause))
            for place, name, start, end, cause in given.faults
        ),
    )


def _fault(base: datetime, name: str, start: int, end: int, cause: Cause) -> Fault:
    return Fault(name, cause, "said so", Window(_at(base, start), _at(base, end)))


def _as_outcomes(given: Given, meters: list[Meter], base: datetime) -> list[Outcome]:
    received = base + timedelta(minutes=given.minute)
    outcomes = []
    for place in dict.fromkeys([part[0] for part in given.sheets] + [part[0] for part in given.faults]):
        found = [
            Reading(name, Decimal(value).scaleb(-4), _at(base, at), received, source, step_s, quality)
            for where, name, source, step_s, times, units, qualities in given.sheets
            if where == place
            for at, value, quality in zip(times, units, qualities, strict=True)
        ]
        faults = tuple(
            _fault(base, name, start, end, cause) for where, name, start, end, cause in given.faults if where == place
        )
        status = Status.PARTIAL if faults else Status.OK
        job = ReadJob(meters[place], ReadKind.PUSH, ())
        outcomes.append(Outcome(job, status, received, 0.0, tuple(found), faults))
    return outcomes


def _fresh(store: Store, due: list[int], base: datetime) -> list[Meter]:
    """Two meters with nothing stored of them but slots that are due."""
    with store.write() as conn:
        for name in ("curve", "snapshot", "slot", "last_value", "revision", "evidence", "outcome", "message"):
            conn.execute(delete(schema.METADATA.tables[name]))
        known = bool(meter_rows(conn))
    meters = registered(store, 2) if not known else _again(store)
    instants = tuple(base + number * STEP for number in due)
    with store.write() as conn:
        open_slots(conn, [SlotSet(meter.key, "import_kwh", Source.CURVE, 900, instants) for meter in meters])
    return meters


def _again(store: Store) -> list[Meter]:
    with store.read() as conn:
        keys = sorted(row.key for row in meter_rows(conn))
    return [make_meter(key) for key in keys]


def _contents(store: Store, parents: dict[int, Any]) -> dict[str, list[Any]]:
    """Everything stored of values; outcomes by what they are for both ways."""
    parents = {**parents, 0: None}
    with store.read() as conn:
        blocks = [
            (row["day"], row["meter_key"], row["quantity_code"], row["step_s"], unpack(row))
            for row in conn.execute(select(schema.curve)).mappings()
        ]
        tables = {
            name: [row._asdict() for row in conn.execute(select(schema.METADATA.tables[name]))]
            for name in ("curve", "snapshot", "slot", "last_value", "revision")
        }
    points = [
        (*key, at_s(key[0], block, slot), units, quality, state, cause, parents[parent])
        for *key, block in blocks
        for slot, (units, quality, state, cause, parent) in enumerate(
            zip(block.units, block.qualities, block.states, block.causes, block.outcome_ids, strict=True)
        )
        if quality or state
    ]
    counts = [[row[n] for n in ("total", "due", "got", "late", "estimated", "waived")] for row in tables["curve"]]
    for row in tables["snapshot"] + tables["revision"]:
        row["outcome_id"] = parents[row["outcome_id"]]
    for row in tables["revision"]:
        row["replaced_by"] = parents[row["replaced_by"]]
        del row["replaced_at"], row["id"]
    for row in tables["last_value"]:  # of equals, which came last depends on the split
        del row["outcome_id"]
    found: dict[str, list[Any]] = {**tables, "curve": points, "counts": counts}
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


def _compare(store: Store, traffic: _Traffic) -> None:
    given, cuts, other_cuts, due, base = traffic
    if any(at % step_s for one in given for _, _, _, step_s, times, *_ in one.sheets if step_s for at in times):
        other_cuts = cuts  # a new block is on the grid that most of a transaction's values are on
    meters = _fresh(store, due, base)
    parents: dict[int, Any] = {}
    numbered = list(enumerate(given))
    for batch in _split(numbered, cuts):
        outcomes = [(number, outcome) for number, one in batch for outcome in _as_outcomes(one, meters, base)]
        with store.write() as conn:
            ids = write(conn, [outcome for _, outcome in outcomes], NONE)
        parents |= {key: (number, outcome.job.meter.key) for key, (number, outcome) in zip(ids, outcomes, strict=True)}
    slow = _contents(store, parents)
    meters = _fresh(store, due, base)
    parents = {}
    totals: list[Written] = []
    for batch in _split(numbered, other_cuts):
        written = take(store, *(_as_message(one, meters, base) for _, one in batch), policy=NONE)
        totals += written
        for (number, _), one in zip(batch, written, strict=True):
            parents |= {key: (number, meter) for meter, key in one.outcome_ids.items()}
    assert _contents(store, parents) == slow
    assert sum(one.new + one.same + one.replaced for one in totals) == sum(len(s[4]) for g in given for s in g.sheets)
    assert sum(one.replaced for one in totals) == sum("'replaced_by': None" not in row for row in slow["revision"])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(traffic=_traffic())
def test_both_ways_give_the_same_store(sqlite_store: Store, traffic: _Traffic) -> None:
    _compare(sqlite_store, traffic)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(traffic=_traffic())
def test_both_ways_give_the_same_store_on_both_databases(store: Store, traffic: _Traffic) -> None:
    _compare(store, traffic)


# -- what a message leaves ---------------------------------------------------------------------------------------------


def test_a_message_of_two_meters_comes_back(store: Store) -> None:
    one, two = registered(store, 2)
    sent = message(sheet(one, DAY, [100, 200, 300]), sheet(two, DAY, [7]), sheet(one, DAY, [5], quantity="export_kwh"))
    (written,) = take(store, sent)
    assert (written.new, written.same, written.replaced) == (5, 0, 0)
    assert set(written.outcome_ids) == {one.key, two.key}
    with store.read() as conn:
        points = readings.curve(conn, one.key, "import_kwh", window(DAY, 3))
        assert [(p.units, p.state.name, p.outcome_id) for p in points] == [
            (100, "LATE", written.outcome_ids[one.key]),
            (200, "LATE", written.outcome_ids[one.key]),
            (300, "LATE", written.outcome_ids[one.key]),
        ]
        outcome = readings.outcome(conn, written.outcome_ids[two.key])
        assert outcome is not None
        assert (outcome.kind, outcome.status, outcome.started_at) == (ReadKind.PUSH, Status.OK, sent.received_at)
        assert outcome.message_key == written.key
        carrier = readings.message(conn, written.key)
        assert carrier is not None
        assert (carrier.channel, carrier.topic, carrier.size) == (sent.channel, sent.topic, len(sent.payload))
        assert carrier.payload == sent.payload
        (frame,) = readings.frames(conn, written.outcome_ids[one.key])
        assert (frame.at, frame.direction, frame.data) == (sent.received_at, "<", sent.payload)
    (again,) = take(store, sent)
    assert (again.new, again.same, again.replaced) == (0, 5, 0)
    assert min(again.outcome_ids.values()) > max(written.outcome_ids.values())


def test_values_of_the_hour_are_got_older_ones_late(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    take(sqlite_store, message(sheet(meter, DAY, [1, 2, 3, 4, 5, 6]), at=DAY + timedelta(minutes=75)))
    with sqlite_store.read() as conn:
        points = readings.curve(conn, meter.key, "import_kwh", window(DAY, 6))
    assert [point.state.name for point in points] == ["LATE", "GOT", "GOT", "GOT", "GOT", "GOT"]


def test_jobs_and_messages_number_their_outcomes_together(store: Store) -> None:
    (meter,) = registered(store)
    ids = []
    for slot in range(3):
        ids += put(store, make_outcome(meter, [reading(DAY + slot * STEP, "1")]))
        ids += take(store, message(sheet(meter, DAY + slot * STEP, [10_000])))[0].outcome_ids.values()
    assert ids == sorted(set(ids))


def test_payloads_are_kept_by_policy(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    good = message(sheet(meter, DAY, [1]))
    some = [
        replace(good, kind=ReadKind.DAILY_FREEZE),
        replace(good, sheets=(sheet(meter, DAY, [1], qualities=bytes([Quality.SUSPECT])),)),
        replace(good, faults=((meter.key, Fault("import_kwh", Cause.NULL_VALUE, "null")),)),
    ]
    written = take(sqlite_store, *some, *[good] * 20, policy=EvidencePolicy(keep_good_every=5))
    with sqlite_store.read() as conn:
        kept = [readings.message(conn, one.key) for one in written]
    assert [row is not None and row.payload is not None for row in kept] == [True] * 3 + [
        one.key % 5 == 0 for one in written[3:]
    ]


def test_faults_wait_as_causes_and_the_outcome_is_partial(store: Store) -> None:
    one, two = registered(store, 2)
    with store.write() as conn:
        open_slots(conn, [SlotSet(one.key, "import_kwh", Source.CURVE, 900, (DAY, DAY + STEP))])
    fault = Fault("import_kwh", Cause.NULL_VALUE, "the meter gave none", window(DAY + STEP, 1))
    (written,) = take(store, message(sheet(one, DAY, [1]), sheet(two, DAY, [2]), faults=((one.key, fault),)))
    with store.read() as conn:
        points = readings.curve(conn, one.key, "import_kwh", window(DAY, 2))
        rows = [readings.outcome(conn, written.outcome_ids[meter.key]) for meter in (one, two)]
    assert [(point.state.name, point.cause) for point in points] == [("LATE", Cause.NONE), ("DUE", Cause.NULL_VALUE)]
    assert [(row.status, row.detail) for row in rows if row] == [
        (Status.PARTIAL, "import_kwh: the meter gave none"),
        (Status.OK, ""),
    ]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"step_s": 0}, "without a grid step"),
        ({"step_s": 7000}, "does not divide a day"),
        ({"qualities": b"\0"}, "without a value"),
        ({"qualities": b"\1\1"}, "differ in length"),
        ({"meter_key": 999}, "no meter with key 999"),
    ],
)
def test_what_the_store_cannot_hold_is_refused_whole(store: Store, over: dict[str, Any], words: str) -> None:
    (meter,) = registered(store)
    bad = replace(sheet(meter, DAY, [1]), **over)
    with pytest.raises(StoreError, match=words):
        take(store, message(sheet(meter, DAY, [1]), bad, sequence=("C1", 1, 1)))
    with store.read() as conn:
        assert [conn.scalar(select(func.count()).select_from(t)) for t in (schema.curve, schema.message)] == [0, 0]
        assert sequence_state(conn, "C1") is None


def test_days_gone_by_are_packed_tight_and_read_the_same(store: Store) -> None:
    (meter,) = registered(store)
    take(store, message(sheet(meter, DAY, [100, 200, 300])))
    with store.write() as conn:
        (row,) = conn.execute(select(schema.curve)).mappings()
        block = unpack(row)
        loose = dict(zip(PACKED, pack(block, tight=False), strict=True))
        conn.execute(update(schema.curve).values(loose))
    with store.read() as conn:
        assert conn.execute(select(schema.curve.c.units)).scalar_one()[0] == 1
    (again,) = take(store, message(sheet(meter, DAY, [100, 200, 301])))
    assert (again.same, again.replaced) == (2, 1)
    with store.write() as conn:
        conn.execute(update(schema.curve).values(loose))
        day = int(DAY.timestamp()) // 86_400
        assert (tighten(conn, day), tighten(conn, day), tighten(conn, day + 1)) == (1, 0, 0)
    with store.read() as conn:
        (kept,) = conn.execute(select(schema.curve)).mappings()
    assert dict(kept) == dict(row)


# -- through the writer ------------------------------------------------------------------------------------------------


def test_messages_and_outcomes_share_the_writer_and_fail_alone(store: Store) -> None:
    (meter,) = registered(store)

    async def all_at_once() -> list[Any]:
        ingest = Ingest(store, ALL)
        ingest.start()
        works = [
            ingest.put_message(message(sheet(meter, DAY, [1, 2]), sequence=("C1", 1, 1))),
            ingest.put_message(message(sheet(make_meter(999), DAY, [1]), sequence=("C1", 1, 2))),
            ingest.put(make_outcome(meter, [reading(DAY + 2 * STEP, "3")])),
            ingest.put_message(message(sheet(meter, DAY, [1, 2]), sequence=("C1", 1, 3), unplaced=(stray,))),
        ]
        try:
            return list(await asyncio.gather(*works, return_exceptions=True))
        finally:
            await ingest.close()

    stray = UnplacedRow(DAY, "mqtt main", "topic", "no such meter", b"{}")
    first, refused, number, third = asyncio.run(all_at_once())
    assert isinstance(refused, StoreError)
    assert "no meter with key 999" in str(refused)
    assert isinstance(number, int)
    assert (first.new, first.upto, third.same, third.upto, third.missing) == (2, 1, 2, 1, (2,))
    with store.read() as conn:
        assert [point.units for point in readings.curve(conn, meter.key, "import_kwh", window(DAY, 3))] == [
            1,
            2,
            30_000,
        ]
        assert [row.reason for row in unplaced(conn)] == ["no such meter"]
