"""Published tables of transformer losses: read whole or refused, looked up by hand examples, told on the bill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.explain import Node, explain
from billing.gathering.losses import Loss, loss
from billing.recompute import recompute_now
from billing.run import close_period
from config.import_losses import LOSS_COLUMNS
from config.imports import check_files, import_files
from config.site import Site, load_site
from headend.errors import ConfigError
from headend.model import ReadKind
from headend.store import Store, open_store
from headend.store.loss_tables import LossRow, loss_rows, put_loss_rows
from headend.store.rows import Counts
from headend.store.terms import SupplyRow, put_supplies, supplies
from tests.billing_support import NOW, add_meter, connect, feed, freeze, local, month, shipped
from tests.imports_kit import EXAMPLE, T0, T1, TARIFFS, check_address, csv_file, problems_of

SINCE = local("2025-01-01T00:00")
ROWS = tuple(
    LossRow("S9", *(Decimal(number) for number in numbers))
    for numbers in (
        (315, 10_000, 520, 2600),
        (315, 30_000, 610, 2900),
        (500, 10_000, 740, 3800),
        (500, 30_000, 805, 4100),
        (500, 60_000, 1010, "4900.5"),
    )
)
BANDS = [f"S9,{r.rated_kva},{r.up_to_kwh},{r.active_kwh},{r.reactive_kvarh}" for r in ROWS]


def supply(rated_kva: str, **others: Any) -> SupplyRow:
    nothing = (Decimal(0), Decimal(0))
    return SupplyRow("U-A1", SINCE, None, Decimal(rated_kva), *nothing, table="S9", losses=ROWS, **others)


def at(rated_kva: str, kwh: str, hours: int = 720, **others: Any) -> tuple[int, int]:
    """Active and reactive loss at `kwh` in `hours` of a month of 720."""
    found = loss(supply(rated_kva, **others), Decimal(kwh), Decimal(0), Decimal(hours), Decimal(720))
    return int(found.active_kwh), int(found.reactive_kvarh)


@pytest.mark.parametrize(
    ("rated_kva", "kwh", "lost"),
    [
        ("315", "0", (520, 2600)),  # the iron, in the first band
        ("315", "10000", (520, 2600)),  # the end of a band belongs to it
        ("315", "10000.0001", (610, 2900)),
        ("400", "30000", (805, 4100)),  # between 315 and 500 kVA: the larger
        ("315.5", "9999", (740, 3800)),
        ("100", "20000", (610, 2900)),  # below all: the smallest
        ("500", "60000", (1010, 4901)),  # 4900.5 kvarh, half-up
    ],
)
def test_the_row_is_that_of_the_capacity_and_the_band(rated_kva: str, kwh: str, lost: tuple[int, int]) -> None:
    assert at(rated_kva, kwh) == lost


def test_of_a_part_of_a_month_the_energy_goes_on_as_it_went() -> None:
    """10 of 30 days: 10000 kWh go on to 30000 kWh, a third of 805 kWh is 268.33, of 4100 kvarh 1366.67; a kWh more and
    it is the band above: 336.67 and 1633.5."""
    assert at("500", "10000", 240) == (268, 1367)
    assert at("500", "10001", 240) == (337, 1634)


def test_share_and_line_count_as_with_the_formula() -> None:
    """Half of 805 kWh is 402.5, so 403; the line loses 2 % of 20403 kWh, 408.06."""
    assert at("500", "20000", share=Decimal("0.5"), line_percent=Decimal(2)) == (403 + 408, 2050)


@pytest.mark.parametrize(
    ("rated_kva", "kwh", "told"),
    [
        ("500", "60000.01", "the loss table S9 for 500 kVA ends with 60000 kWh a month, below the 60001 kWh"),
        ("630", "1", "the loss table S9 has no row for 630 kVA or more"),
        ("500", "-1", "not below 0"),
    ],
)
def test_beyond_the_table_nothing_is_guessed(rated_kva: str, kwh: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        at(rated_kva, kwh)


# -- import ------------------------------------------------------------------------------------------------------------

SUPPLIES = "usage_point,since,rated_kva,no_load_kw,load_kw,no_load_percent,impedance_percent,load_factor,table"


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(EXAMPLE / "site.toml")


@pytest.fixture
def opened(tmp_path: Path, site: Site) -> Iterator[Store]:
    """The example site's store."""
    store = open_store(f"sqlite:///{tmp_path}/headend.db")
    files: dict[str, Any] = {name: EXAMPLE / f"{name}.csv" for name in ("meters", "usage_points")}
    import_files(store, site, **files, check_address=check_address)
    yield store
    store.close()


def written(folder: Path, bands: list[str], behind: list[str]) -> dict[str, Any]:
    paths = {"loss_tables": csv_file(folder, "loss_tables.csv", ",".join(LOSS_COLUMNS), *bands)}
    return paths | ({"supplies": csv_file(folder, "supplies.csv", SUPPLIES, *behind)} if behind else {})


def test_a_table_is_imported_named_and_again_changes_nothing(opened: Store, site: Site, tmp_path: Path) -> None:
    files = written(tmp_path, BANDS, [f"UP-0002,{T0},400,,,,,,S9"])
    for added, same in ((5, 0), (0, 5)):
        counts = import_files(opened, site, **files, tariffs=TARIFFS, check_address=check_address)
        assert (counts["loss_tables"].added, counts["loss_tables"].same) == (added, same)
    with opened.read() as conn:
        assert loss_rows(conn) == list(ROWS)
        (row,) = supplies(conn)
    assert (row.table, row.losses) == ("S9", ROWS)
    assert (row.rated_kva, row.no_load_kw) == (Decimal(400), Decimal(0))
    again = written(tmp_path, [], [f"UP-0002,{T1},500,,,,,,S9"])  # the table is the store's by now
    del again["loss_tables"]
    with pytest.raises(ConfigError, match="another transformer"):
        import_files(opened, site, **again, tariffs=TARIFFS, check_address=check_address)


def test_all_that_is_wrong_is_told_at_once(opened: Store, site: Site, tmp_path: Path) -> None:
    files = written(tmp_path, [*BANDS[:2], BANDS[1], "S9,315,x,1,1", ",315,5,1,1"], [])
    with pytest.raises(ConfigError) as caught:
        import_files(opened, site, **files, check_address=check_address)
    assert [line.split(" -> ")[0] for line in problems_of(caught)] == [
        'loss_tables.csv:4: up_to_kwh: "S9" has this band already, line 3',
        'loss_tables.csv:5: up_to_kwh: "x" is no decimal number with at most 15 digits before and 4 after the point',
        "loss_tables.csv:6: type: the cell is empty",
    ]
    bands = [BANDS[1], BANDS[0], "S9,500,1,9,9", "S9,500,2,8,7", "S9,630,0,1,1"]
    behind = [
        f"UP-0001,{T0},800,,,,,,S9",
        f"UP-0002,{T0},0,0.5,,,,1.05,S9",
        f"UP-0002,{T1},315,,,,,,S11",
        f"UP-0001,{T1},315,,1,1,1,,",
    ]
    with pytest.raises(ConfigError) as caught:
        import_files(opened, site, **written(tmp_path, bands, behind), check_address=check_address)
    assert [line.split(" -> ")[0] for line in problems_of(caught)] == [
        "loss_tables.csv:3: up_to_kwh: the band up to 10000 kWh comes after the one up to 30000 kWh",
        "loss_tables.csv:5: active_kwh: a loss of 8 kWh after 9 kWh in the band below",
        "loss_tables.csv:5: reactive_kvarh: a loss of 7 kvarh after 9 kvarh in the band below",
        "loss_tables.csv:6: up_to_kwh: up_to_kwh 0 is not above 0",
        "supplies.csv:2: table: the loss table S9 ends with 630 kVA, below the 800 kVA of the transformer",
        "supplies.csv:3: no_load_kw: no_load_kw 0.5 of no transformer, as rated_kva is 0",
        "supplies.csv:3: no_load_kw: no_load_kw 0.5 beside the loss table S9, which tells the loss",
        "supplies.csv:3: load_factor: load_factor 1.05 beside the loss table S9, which knows none",
        "supplies.csv:3: rated_kva: the loss table S9 of no transformer, as rated_kva is 0",
        "supplies.csv:4: table: there is no loss table S11",
        'supplies.csv:5: no_load_kw: "" is no decimal number with at most 15 digits before and 4 after the point',
    ]
    with opened.read() as conn:
        assert (loss_rows(conn), supplies(conn)) == ([], [])


def test_a_band_that_only_the_store_has_would_stay_between_the_new_ones(opened: Store) -> None:
    with opened.write() as conn:
        assert put_loss_rows(conn, ROWS) == Counts(added=5)
        assert put_loss_rows(conn, [replace(ROWS[0], active_kwh=Decimal(521)), ROWS[1]]) == Counts(changed=1, same=1)
    told = r"S9, 315 kVA: the store has a band up to 30000 kWh, for 315 kVA, which is not listed"
    with opened.write() as conn, pytest.raises(ConfigError, match=told):
        put_loss_rows(conn, [ROWS[0], replace(ROWS[1], up_to_kwh=Decimal(40_000))])
    with opened.write() as conn, pytest.raises(ConfigError, match="there is no loss table S7"):
        put_supplies(conn, [replace(supply("315"), usage_point="UP-0001", table="S7")])


def test_checking_without_the_table_leaves_its_name_alone(site: Site, tmp_path: Path) -> None:
    files = written(tmp_path, BANDS, [f"UP-0002,{T0},400,,,,,,S11"])
    check_files(site, supplies=files["supplies"], check_address=check_address)
    with pytest.raises(ConfigError, match="there is no loss table S11"):
        check_files(site, **files, check_address=check_address)


# -- on the bill -------------------------------------------------------------------------------------------------------


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def test_the_bill_has_the_loss_and_tells_the_row_it_is_from(sqlite_store: Store) -> None:
    """18000 kWh behind 400 kVA: the row of 500 kVA up to 30000 kWh, 805 kWh."""
    tariff = shipped("example-flat")
    meter = add_meter(sqlite_store, step_s=0)
    connect(sqlite_store, meter, tariff)
    for name, value in (("import_kwh", "18000"), ("import_kvarh", "300")):
        ends = [freeze(when, n, quantity=name) for when, n in ((month(6).start, "0"), (month(6).end, value))]
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, ends)
    with sqlite_store.write() as conn:
        put_loss_rows(conn, ROWS)
        put_supplies(conn, [supply("400")])
    assert close_period(sqlite_store, [tariff], 2026, 6, now=NOW).issued == ("A1-2026-06",)
    with sqlite_store.read() as conn:
        titles = [node.title for node in walk(explain(conn, "A1-2026-06"))]
        assert recompute_now(conn, "A1-2026-06", [tariff]).differences == ()
    assert "import_kwh = 18805 kWh" in titles
    assert "table S9, 500 kVA, up to 30000 kWh: 805 kWh" in titles
    with sqlite_store.write() as conn:
        put_loss_rows(conn, [replace(row, active_kwh=row.active_kwh + 1) for row in ROWS])
        told = [str(one) for one in recompute_now(conn, "A1-2026-06", [tariff]).differences]
    assert any("loss_kwh" in one and "806" in one for one in told), told


def test_energy_above_the_last_band_holds_the_bill(sqlite_store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(sqlite_store, step_s=0)
    connect(sqlite_store, meter, tariff)
    for name in ("import_kwh", "import_kvarh"):
        ends = [freeze(when, n, quantity=name) for when, n in ((month(6).start, "0"), (month(6).end, "60001"))]
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, ends)
    with sqlite_store.write() as conn:
        put_loss_rows(conn, ROWS)
        put_supplies(conn, [supply("400")])
    ((_, (hold,)),) = close_period(sqlite_store, [tariff], 2026, 6, now=NOW).held
    assert hold.code == "supply_loss"
    assert "ends with 60000 kWh a month, below the 60001 kWh" in hold.what


def test_the_formula_still_tells_itself() -> None:
    row = SupplyRow("U", SINCE, None, Decimal(100), Decimal(1), Decimal(0))
    assert loss(row, Decimal(0), Decimal(0), Decimal(720)) == Loss(Decimal(720), Decimal(0), "transformer")
