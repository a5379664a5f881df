"""From the store to uses by day and hour: exchanges, multipliers, exports, suspects, rollovers, interval meters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.analysis.gather import average, bounds, daily, hourly, net_daily, places, signs
from headend.civil import zone
from headend.model import Meter, Quality, Reading, ReadKind, Source, Window
from headend.store import Store, registry
from tests.helpers import make_outcome, put, reading, registered

TZ = zone("Asia/Shanghai")
START = datetime(2026, 10, 1, tzinfo=TZ).astimezone(UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def midnights(count: int) -> list[datetime]:
    return bounds(Window(START, START + count * DAY), TZ)


def install(store: Store, *spans: tuple[str, datetime, datetime | None, str]) -> None:
    with store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U1", "D1")])
        rows = [registry.InstallationRow("U1", m, since, until, Decimal(ratio)) for m, since, until, ratio in spans]
        registry.put_installations(conn, rows)


def freezes(store: Store, meter: Meter, values: Sequence[str | None], quantity: str = "import_kwh") -> None:
    found = [
        reading(START + i * DAY, value, quantity=quantity, source=Source.DAILY_FREEZE)
        for i, value in enumerate(values)
        if value is not None
    ]
    put(store, make_outcome(meter, found, kind=ReadKind.DAILY_FREEZE, quantities=(quantity,)))


def uses(store: Store, count: int, quantity: str = "import_kwh") -> list[str | None]:
    with store.read() as conn:
        [place] = places(conn, START + 40 * DAY)
        return [None if v is None else f"{v.normalize():f}" for v in daily(conn, place, midnights(count), quantity)]


def test_a_day_is_a_difference_times_the_multiplier_and_a_gap_stays_one(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START - DAY, None, "20"))
    freezes(sqlite_store, meter, ["999998.5", "0.5", None, "3", "1", "4"])
    assert uses(sqlite_store, 5) == ["40", None, None, None, "60"], "a rollover counts, running back does not"


def test_a_suspect_freeze_is_left_out_and_the_curve_stands_in(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START - DAY, None, "1"))
    wrong = reading(START + DAY, "700", source=Source.DAILY_FREEZE, quality=Quality.SUSPECT)
    put(sqlite_store, make_outcome(meter, [wrong], kind=ReadKind.DAILY_FREEZE))
    put(sqlite_store, make_outcome(meter, [reading(START + i * DAY, str(10 + 2 * i)) for i in (0, 1, 2)]))
    assert uses(sqlite_store, 2) == ["2", "2"]


def test_an_exchange_is_followed_and_without_a_meter_nothing_is_counted(sqlite_store: Store) -> None:
    """The old meter stands for a day and a half, the new one follows at once, and is taken away on day 4."""
    old, new = registered(sqlite_store, 2)
    noon = START + DAY + 12 * HOUR
    install(sqlite_store, (old.id, START, noon, "1"), (new.id, noon, START + 3 * DAY, "10"))
    freezes(sqlite_store, old, ["10", "12"])
    put(sqlite_store, make_outcome(old, [reading(noon, "13", source=Source.CURRENT)], kind=ReadKind.REGISTERS))
    put(sqlite_store, make_outcome(new, [reading(noon, "0.1", source=Source.CURRENT)], kind=ReadKind.REGISTERS))
    freezes(sqlite_store, new, [None, None, "0.3", "0.8"])
    assert uses(sqlite_store, 4) == ["2", "3", "5", "0"]


def test_export_is_taken_off_where_there_is_any(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START, None, "1"))
    freezes(sqlite_store, meter, ["10", "15", "16"])
    with sqlite_store.read() as conn:
        [place] = places(conn, START + DAY)
        assert net_daily(conn, place, midnights(2)) == [5, 1]
    freezes(sqlite_store, meter, ["0", "2", "5"], "export_kwh")
    with sqlite_store.read() as conn:
        assert net_daily(conn, place, midnights(2)) == [3, -2]


def test_hours_need_all_their_quarters(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START, None, "2"))
    quarter = HOUR / 4
    points = [reading(START + i * quarter, str(5 + i)) for i in range(13) if i != 6]
    put(sqlite_store, make_outcome(meter, points))
    with sqlite_store.read() as conn:
        [place] = places(conn, START + DAY)
        assert hourly(conn, place, Window(START, START + 4 * HOUR)) == [8, None, 8, None]


def test_a_meter_of_intervals_has_its_days_summed(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START, None, "1"))
    points = [reading(START + i * HOUR, "0.5", quantity="import_interval_kwh", step=HOUR) for i in range(24)]
    put(sqlite_store, make_outcome(meter, points, quantities=("import_interval_kwh",)))
    assert uses(sqlite_store, 2) == ["12", None]


def test_an_average_is_over_the_month_or_its_known_days(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START, None, "1"))
    october = Window(START, START + 31 * DAY)
    freezes(sqlite_store, meter, [str(2 * i) for i in range(18)])
    with sqlite_store.read() as conn:
        [place] = places(conn, START + DAY)
        assert average(conn, place, october, TZ) == 2, "17 of 31 days are known"
        assert average(conn, place, Window(START - 30 * DAY, START), TZ) is None, "no meter stood there"
    freezes(sqlite_store, meter, [*[None] * 31, "310"])
    with sqlite_store.read() as conn:
        assert average(conn, place, october, TZ) == 10


def test_what_a_meter_told_before_it_stood_there_is_no_sign(sqlite_store: Store) -> None:
    [meter] = registered(sqlite_store)
    install(sqlite_store, (meter.id, START + DAY, None, "1"))
    words = [
        Reading("status_word_4", Decimal(value), START + hours * HOUR, START + hours * HOUR, Source.INSTANT)
        for hours, value in ((1, 1), (25, 0), (26, 8))
    ]
    [_, _, told] = [put(sqlite_store, make_outcome(meter, [w], kind=ReadKind.REGISTERS))[0] for w in words]
    with sqlite_store.read() as conn:
        [place] = places(conn, START + 2 * DAY)
        [found] = signs(conn, place, Window(START, START + 3 * DAY))
    assert (found.name, found.at, found.after) == ("phase A current loss", START + 26 * HOUR, START + 25 * HOUR)
    assert found.outcome_id == told
