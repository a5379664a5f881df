"""Daily freezes: the value of a midnight is the one the meter says it froze at that midnight, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import BadFrame, HeadendError, NoAnswer, Refused, Unsupported
from headend.model import Cause, Harvest, ReadKind, Source, Window
from headend.protocols import PROTOCOLS
from tests.dlt645_wire import BEIJING, NOW, converse, job, kwh, meter, minute, read_answer, refusal, utc

DRIVER = PROTOCOLS["dlt645-2007"]
TODAY = date(2025, 11, 2)
DAY = timedelta(days=1)
NAMES = ("import_kwh", "import_kwh_t1", "import_kwh_t2", "import_kwh_t3", "import_kwh_t4")


def midnight(day: date) -> datetime:
    return utc(datetime(day.year, day.month, day.day, tzinfo=BEIJING))


def back(days: int) -> date:
    return TODAY - timedelta(days=days)


def block(day: date, rates: int = 4) -> bytes:
    """What the register stood at: a number that tells the day."""
    return b"".join(kwh(f"{(day - date(2025, 1, 1)).days}.{rate:02d}") for rate in range(rates + 1))


def truth(day: date) -> dict[str, Decimal]:
    return {name: Decimal(f"{(day - date(2025, 1, 1)).days}.{rate:02d}") for rate, name in enumerate(NAMES)}


class Freezer:
    """A meter with a freeze memory, newest first; `at_request` maps a request's number to a day frozen before it."""

    def __init__(self, days: Iterable[date], at_request: dict[int, date] | None = None, empty: str = "refuse") -> None:
        self.days = list(days)
        self.at_request = at_request or {}
        self.empty = empty
        self.asked: list[str] = []
        self.silent_from = 10**9
        self.values: dict[date, bytes] = {}
        self.times: dict[date, bytes] = {}

    def __call__(self, request: bytes) -> list[bytes]:
        if (day := self.at_request.get(len(self.asked))) is not None and day not in self.days:
            self.days.insert(0, day)
        data = bytes((b - 0x33) & 0xFF for b in request.lstrip(b"\xfe")[10:-2])
        di = data[3::-1].hex().upper()
        self.asked.append(di)
        if len(self.asked) > self.silent_from:
            return []
        kk, nth = di[4:6], int(di[6:], 16)
        assert di[:4] == "0506"
        if not 1 <= nth <= len(self.days):
            none = {"refuse": None, "bare": b"", "ff": b"\xff" * (5 if kk == "00" else 20), "zero": bytes(5)}[
                self.empty
            ]
            return [refusal(0x02)] if none is None else [read_answer(di, none)]
        frozen = self.days[nth - 1]
        if kk == "00":
            local = datetime(frozen.year, frozen.month, frozen.day, tzinfo=BEIJING)
            return [read_answer(di, self.times.get(frozen, minute(local)))]
        return [read_answer(di, self.values.get(frozen, block(frozen)))]


def read(freezer: Freezer, first: date, last: date, *names: str, depth: int = 62) -> Harvest:
    device = meter(depth=depth)
    window = Window(midnight(first), midnight(last + DAY))
    work = job(ReadKind.DAILY_FREEZE, *(names or NAMES), window=window, of=device)
    return converse(DRIVER.read(device, work, now=NOW), freezer)


def by_day(harvest: Harvest) -> dict[date, dict[str, Decimal]]:
    days: dict[date, dict[str, Decimal]] = {}
    for reading in harvest.readings:
        assert reading.source is Source.DAILY_FREEZE
        assert reading.taken_at == NOW
        days.setdefault(reading.at.astimezone(BEIJING).date(), {})[reading.quantity] = reading.value
    return days


def missing(harvest: Harvest, name: str = "import_kwh") -> dict[date, Cause]:
    found: dict[date, Cause] = {}
    for fault in harvest.faults:
        if fault.quantity == name:
            assert fault.window is not None
            assert fault.window.end - fault.window.start == DAY
            found[fault.window.start.astimezone(BEIJING).date()] = fault.cause
    return found


def test_last_midnight_is_time_value_time() -> None:
    freezer = Freezer(back(n) for n in range(62))
    harvest = read(freezer, TODAY, TODAY)
    assert freezer.asked == ["05060001", "05060101", "05060001"]
    assert by_day(harvest) == {TODAY: truth(TODAY)}
    assert harvest.faults == ()


def test_a_week_costs_two_exchanges_a_day_and_one() -> None:
    freezer = Freezer(back(n) for n in range(62))
    harvest = read(freezer, back(6), TODAY, "import_kwh")
    assert len(freezer.asked) == 15
    assert {day: v["import_kwh"] for day, v in by_day(harvest).items()} == {
        back(n): truth(back(n))["import_kwh"] for n in range(7)
    }


def test_the_meter_counts_nn_in_hex() -> None:
    freezer = Freezer(back(n) for n in range(62))
    assert by_day(read(freezer, back(30), back(30))) == {back(30): truth(back(30))}
    assert freezer.asked[0] == "0506001F"


def test_a_shifted_count_is_corrected_by_the_time_read() -> None:
    lagging = Freezer(back(n) for n in range(1, 62))  # its clock has not come to midnight yet
    assert by_day(read(lagging, back(3), back(3))) == {back(3): truth(back(3))}
    assert lagging.asked == ["05060004", "05060003", "05060103", "05060003"]
    ahead = Freezer([TODAY + DAY, *(back(n) for n in range(61))])
    assert by_day(read(ahead, back(3), back(3))) == {back(3): truth(back(3))}


def test_days_the_meter_was_off_are_not_in_memory_and_the_others_are_found() -> None:
    freezer = Freezer([TODAY, back(1), back(5), back(6), back(7)])
    harvest = read(freezer, back(8), TODAY)
    assert by_day(harvest) == {day: truth(day) for day in (TODAY, back(1), back(5), back(6), back(7))}
    assert missing(harvest) == dict.fromkeys((back(2), back(3), back(4), back(8)), Cause.NOT_IN_MEMORY)


@pytest.mark.parametrize("empty", ["refuse", "bare", "ff", "zero"])
def test_what_is_not_held_is_not_in_memory(empty: str) -> None:
    harvest = read(Freezer([], empty=empty), back(1), TODAY)
    assert harvest.readings == ()
    assert missing(harvest) == dict.fromkeys((TODAY, back(1)), Cause.NOT_IN_MEMORY)


@pytest.mark.parametrize("held", [1, 2, 13, 45, 61])
def test_a_meter_younger_than_its_memory_is_long_says_so_of_any_day_before(held: int) -> None:
    days = [back(k) for k in range(held)]
    for gone in range(held, 62):
        freezer = Freezer(days)
        harvest = read(freezer, back(gone), back(gone), "import_kwh")
        assert [fault.cause for fault in harvest.faults] == [Cause.NOT_IN_MEMORY]
        assert len(freezer.asked) <= 9
    for there in range(held):
        assert [r.value for r in read(Freezer(days), back(there), back(there), "import_kwh").readings] == [
            truth(back(there))["import_kwh"]
        ]


def test_beyond_the_depth_is_not_in_memory() -> None:
    freezer = Freezer(back(n) for n in range(62))
    assert missing(read(freezer, back(62), back(62))) == {back(62): Cause.NOT_IN_MEMORY}
    assert missing(read(freezer, back(12), back(12), depth=10)) == {back(12): Cause.NOT_IN_MEMORY}


def test_a_midnight_still_to_come_is_not_asked_for() -> None:
    freezer = Freezer(back(n) for n in range(62))
    harvest = read(freezer, TODAY, TODAY + DAY)
    assert by_day(harvest) == {TODAY: truth(TODAY)}
    assert missing(harvest) == {TODAY + DAY: Cause.NOT_YET}
    assert freezer.asked == ["05060001", "05060101", "05060001"]


def test_a_freeze_that_is_not_at_midnight_is_not_taken() -> None:
    freezer = Freezer([TODAY])
    freezer.times[TODAY] = minute(datetime(2025, 11, 2, 0, 1, tzinfo=BEIJING))
    harvest = read(freezer, TODAY, TODAY)
    assert harvest.readings == ()
    assert missing(harvest) == {TODAY: Cause.NOT_IN_MEMORY}


def test_an_unreadable_time_costs_only_its_day() -> None:
    freezer = Freezer(back(n) for n in range(5))
    freezer.times[back(1)] = b"\x00\x00\x0a\x11\x25"
    harvest = read(freezer, back(3), TODAY)
    assert sorted(by_day(harvest)) == [back(3), back(2), TODAY]
    assert missing(harvest) == {back(1): Cause.BAD_FRAME}


def test_ff_and_bad_digits_and_missing_rates_are_faults() -> None:
    freezer = Freezer([TODAY])
    freezer.values[TODAY] = kwh("1.00") + b"\xff" * 4 + b"\x00\x0b\x00\x00" + kwh("2.00")
    harvest = read(freezer, TODAY, TODAY)
    assert by_day(harvest) == {TODAY: {"import_kwh": Decimal("1.00"), "import_kwh_t3": Decimal("2.00")}}
    causes = {f.quantity: f.cause for f in harvest.faults}
    assert causes == {
        "import_kwh_t1": Cause.NULL_VALUE,
        "import_kwh_t2": Cause.BAD_FRAME,
        "import_kwh_t4": Cause.UNSUPPORTED,
    }


def test_exported_energy_has_its_own_block() -> None:
    freezer = Freezer([TODAY])
    harvest = read(freezer, TODAY, TODAY, "import_kwh", "export_kwh", "power_kw")
    assert freezer.asked == ["05060001", "05060101", "05060201", "05060001"]
    assert {r.quantity for r in harvest.readings} == {"import_kwh", "export_kwh"}
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("power_kw", Cause.UNSUPPORTED)]


@pytest.mark.parametrize("before", range(12))
def test_a_midnight_in_the_middle_never_files_a_value_under_the_wrong_day(before: int) -> None:
    freezer = Freezer((back(n) for n in range(62)), at_request={before: TODAY + DAY})
    harvest = read(freezer, back(3), TODAY)
    assert by_day(harvest) == {back(n): truth(back(n)) for n in range(4)}
    assert harvest.faults == ()


@settings(max_examples=150, deadline=None)
@given(
    held=st.sets(st.integers(-1, 12), max_size=12),
    first=st.integers(0, 12),
    passes=st.sets(st.integers(0, 20), max_size=1),
    silent=st.integers(1, 60),
)
def test_whatever_the_memory_holds_a_value_is_of_its_day(
    held: set[int], first: int, passes: set[int], silent: int
) -> None:
    freezer = Freezer((back(n) for n in sorted(held)), at_request=dict.fromkeys(passes, TODAY + DAY))
    freezer.silent_from = silent
    try:
        harvest = read(freezer, back(first), TODAY)
    except HeadendError:
        return
    days = by_day(harvest)
    assert all(days[day] == truth(day) for day in days)
    told = set(days) | set(missing(harvest))
    assert told == {back(n) for n in range(first + 1)}
    if silent == 60 and not passes:
        assert set(days) == {back(n) for n in held if 0 <= n <= first}


def test_silence_in_the_middle_keeps_what_is_sure() -> None:
    freezer = Freezer(back(n) for n in range(62))
    freezer.silent_from = 5  # the third day's time was read, its value not
    harvest = read(freezer, back(4), TODAY)
    assert sorted(by_day(harvest)) == [back(1), TODAY]
    assert missing(harvest) == dict.fromkeys((back(2), back(3), back(4)), Cause.NO_ANSWER)


def test_silence_after_a_midnight_in_the_middle_keeps_nothing_doubtful() -> None:
    """The first value was read after the midnight, under the time read before it; the end was never reached."""
    freezer = Freezer((back(n) for n in range(3)), at_request={1: TODAY + DAY})
    freezer.silent_from = 6
    with pytest.raises(NoAnswer):
        read(freezer, back(2), TODAY)


def test_silence_before_anything_is_sure_is_raised() -> None:
    for silent_from in (0, 1, 2):
        freezer = Freezer(back(n) for n in range(62))
        freezer.silent_from = silent_from
        with pytest.raises(NoAnswer):
            read(freezer, TODAY, TODAY)


def test_a_memory_that_moves_twice_is_given_up() -> None:
    freezer = Freezer((back(n) for n in range(62)), at_request={2: TODAY + DAY, 6: TODAY + 2 * DAY, 5: TODAY + 2 * DAY})
    with pytest.raises(BadFrame, match="moved on twice"):
        read(freezer, TODAY, TODAY)


def test_other_refusals_are_raised() -> None:
    device = meter()
    work = job(ReadKind.DAILY_FREEZE, "import_kwh", window=Window(midnight(TODAY), midnight(TODAY + DAY)))
    with pytest.raises(Refused, match="not authorised"):
        converse(DRIVER.read(device, work, now=NOW), lambda _: [refusal(0x04)])


def test_a_model_without_freezes_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="no daily freeze"):
        read(Freezer([]), TODAY, TODAY, depth=0)


@pytest.mark.parametrize("spoilt_answer", [0, 1, 2])
def test_any_single_bit_flipped_gives_the_right_values_or_none(spoilt_answer: int) -> None:
    size = len(Freezer([TODAY])(_first_request())[0]) if spoilt_answer != 1 else 16 + 20 + 4
    for bit in range(8 * size):
        freezer = Freezer(back(n) for n in range(3))
        count = [0]

        def answer(request: bytes, f: Freezer = freezer, n: list[int] = count, b: int = bit) -> list[bytes]:
            (good,) = f(request)
            n[0] += 1
            if n[0] - 1 != spoilt_answer:
                return [good]
            bad = bytearray(good)
            bad[b // 8] ^= 1 << b % 8
            return [bytes(bad)]

        work = job(ReadKind.DAILY_FREEZE, *NAMES, window=Window(midnight(TODAY), midnight(TODAY + DAY)))
        harvest = converse(DRIVER.read(meter(), work, now=NOW), answer)
        assert by_day(harvest) == {TODAY: truth(TODAY)}  # asked again after the damage


def _first_request() -> bytes:
    work = job(ReadKind.DAILY_FREEZE, *NAMES, window=Window(midnight(TODAY), midnight(TODAY + DAY)))
    return bytes(getattr(next(DRIVER.read(meter(), work, now=NOW)), "data", b""))
