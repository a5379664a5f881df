"""Terms, transformers and lines, sub-meters from CSV: what arrives in the store, what is refused and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from config.import_losses import LOSS_COLUMNS
from config.import_rows import Held
from config.import_terms import (
    SUBMETER_COLUMNS,
    SUBMETER_OPTIONS,
    SUPPLY_COLUMNS,
    SUPPLY_OPTIONS,
    TERM_COLUMNS,
    TERM_OPTIONS,
)
from config.imports import check_files, import_files
from config.site import Site, load_site
from headend.cli import cli
from headend.errors import ConfigError
from headend.store import Store, open_store
from headend.store.registry import accounts
from headend.store.rows import Counts
from headend.store.terms import AccountTerm, SubmeterRow, SupplyRow, submeters, supplies, terms
from tests.imports_kit import (
    ACCOUNTS,
    EXAMPLE,
    REFERENCE,
    START,
    T0,
    T1,
    T2,
    TARIFFS,
    check_address,
    csv_file,
    problems_of,
)

TERMS = ",".join((*TERM_COLUMNS, *TERM_OPTIONS))
SUPPLIES = ",".join((*SUPPLY_COLUMNS, *SUPPLY_OPTIONS[:-1]))
SUBMETERS = ",".join((*SUBMETER_COLUMNS, *SUBMETER_OPTIONS))
FEBRUARY = datetime(2026, 1, 31, 16, tzinfo=UTC)
A1, A2, U1, U2 = "A-0001", "A-0002", "UP-0001", "UP-0002"
SUPPLY = f"{U2},{T0},630,0.81,6.2,0.9,4.5,{T1},1.05,0.5,2"


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(EXAMPLE / "site.toml")


@pytest.fixture
def store(tmp_path: Path, site: Site) -> Iterator[Store]:
    """The example site's store."""
    opened = open_store(f"sqlite:///{tmp_path}/headend.db")
    files: dict[str, Any] = {name: EXAMPLE / f"{name}.csv" for name in ("meters", "usage_points", "accounts")}
    import_files(opened, site, **files, tariffs=TARIFFS, check_address=check_address)
    yield opened
    opened.close()


def bring(
    store: Store, site: Site, folder: Path, zones: dict[str, str] | None = None, **files: list[str]
) -> dict[str, Counts]:
    """Import files given as their rows; the header is known by their name."""
    headers = {"terms": TERMS, "supplies": SUPPLIES, "submeters": SUBMETERS, "accounts": f"{ACCOUNTS},cycle"}
    paths: dict[str, Any] = {
        name: csv_file(folder, f"{name}.csv", headers[name], *rows) for name, rows in files.items()
    }
    return import_files(store, site, **paths, tariffs=TARIFFS, zones=zones, check_address=check_address)


def refusals(
    store: Store, site: Site, folder: Path, zones: dict[str, str] | None = None, **files: list[str]
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        bring(store, site, folder, zones, **files)
    return problems_of(caught)


def test_what_the_files_say_is_in_the_store_and_again_changes_nothing(store: Store, site: Site, tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "accounts": [f"{A1},{U1},Wang,cn-zhejiang-residential-step,{T0},,,,north"],
        "terms": [f"{A1},{T0},,,,5", f"{A2},{T0},,200.5,315,", f"{A2},{T1},example-flat,,400,"],
        "supplies": [SUPPLY, f"{U2},{T1},0,0,0,0,0,,,,3"],
        "submeters": [f"{U1},{U2},{T0},ratio,33.3,{T1}", f"{U1},{U2},{T1},metered,,"],
    }
    counts = bring(store, site, tmp_path, **files)
    assert counts["accounts"] == Counts(changed=1)
    assert [counts[name].added for name in ("terms", "supplies", "submeters")] == [3, 2, 2]
    counts = bring(store, site, tmp_path, **files)
    assert counts["accounts"] == Counts(same=1)
    assert [counts[name] for name in ("terms", "supplies", "submeters")] == [
        Counts(same=3),
        Counts(same=2),
        Counts(same=2),
    ]
    numbers = [Decimal(n) for n in ("630", "0.81", "6.2", "0.9", "4.5", "1.05", "0.5", "2")]
    line = [Decimal(n) for n in ("0", "0", "0", "0", "0", "1", "1", "3")]
    with store.read() as conn:
        assert [row.cycle for row in accounts(conn)] == ["north", ""]
        assert terms(conn) == [
            AccountTerm(A1, START, people=5),
            AccountTerm(A2, START, contract_kw=Decimal("200.5"), capacity_kva=Decimal(315)),
            AccountTerm(A2, FEBRUARY, tariff="example-flat", capacity_kva=Decimal(400)),
        ]
        assert supplies(conn) == [SupplyRow(U2, START, FEBRUARY, *numbers), SupplyRow(U2, FEBRUARY, None, *line)]
        assert submeters(conn) == [
            SubmeterRow(U1, U2, START, FEBRUARY, "ratio", Decimal("33.3")),
            SubmeterRow(U1, U2, FEBRUARY, None, "metered"),
        ]


def test_the_problems_of_all_files_come_together_and_nothing_is_written(
    store: Store, site: Site, tmp_path: Path
) -> None:
    told = refusals(
        store,
        site,
        tmp_path,
        terms=[f"{A1},{T0},,,,5", f"A-9,{T0},flat,0,,", f"{A1},{T1},,,,", f"{A1},{T2},,,,2.5", f"{A1},{T0},,,,6"],
        supplies=[f"UP-9,{T0},630,0.81,6.2,0.9,4.5,,,,", f"{U1},{T0},0,1,0,0,0,,0,2,100", SUPPLY.replace("0.81", "")],
        submeters=[f"{U1},{U1},{T0},ratio,101,", f"{U2},UP-8,{T0},guess,5,", f"{U1},{U2},{T1},metered,5,{T0}"],
    )
    assert told == [
        'terms.csv:3: account: there is no account "A-9" -> known: A-0001, A-0002',
        'terms.csv:3: tariff: there is no tariff "flat"'
        " -> known: cn-zhejiang-residential-step, example-commercial-tou, example-flat",
        "terms.csv:3: contract_kw: 0 is out of range -> use a number above 0",
        "terms.csv:4: nothing changes by this row -> fill in one of tariff, contract_kw, capacity_kva, people",
        'terms.csv:5: people: "2.5" is no number of people from 1 to 10000 -> write a whole number, or leave it empty',
        'terms.csv:6: since: "A-0001" has a row with this start already, line 2 -> remove one of the two rows',
        'supplies.csv:2: usage_point: there is no usage point "UP-9" -> known: UP-0001, UP-0002',
        "supplies.csv:3: no_load_kw: no_load_kw 1 of no transformer, as rated_kva is 0"
        " -> give rated_kva, or 0 for both",
        "supplies.csv:3: load_factor: load_factor 0 leaves out the loss of the load -> write 1 where none is agreed",
        "supplies.csv:3: share: share 2 is above 1 -> write it as a part of 1: 0.5 is half of the loss",
        "supplies.csv:3: line_percent: line_percent 100 is not below 100 -> correct it",
        'supplies.csv:4: no_load_kw: "" is no decimal number with at most 15 digits before and 4 after the point'
        " -> write it like 12.5, without thousands separators",
        'submeters.csv:2: parent: the usage point "UP-0001" stands behind itself'
        " -> name the usage point whose meter comes before it",
        'submeters.csv:3: parent: there is no usage point "UP-8" -> known: UP-0001, UP-0002',
        'submeters.csv:3: method: there is no method "guess" -> known: metered, quantity, ratio',
        f"submeters.csv:4: until: {T0} is not after since, {T1}"
        " -> correct one of the two, or leave the end empty while it lasts",
    ]
    with store.read() as conn:
        assert (terms(conn), supplies(conn), submeters(conn)) == ([], [], [])


def test_terms_start_at_midnight_of_their_tariffs_zone(store: Store, site: Site, tmp_path: Path) -> None:
    """09:00 is a mistake; midnight of Shanghai is none of Berlin's, once the tariff is one of Berlin."""
    zones = {"example-flat": "Europe/Berlin"}
    rows = [f"{A1},2026-01-20T09:00:00+08:00,,,,2", f"{A1},{T1},example-flat,,,", f"{A1},{T2},,,,3"]
    assert refusals(store, site, tmp_path, zones, terms=rows) == [
        "terms.csv:2: since: 2026-01-20 09:00:00 is within a day of Asia/Shanghai; terms start at midnight of their"
        " tariff's zone -> write 2026-01-21T00:00:00+08:00 for the next one",
        "terms.csv:3: since: 2026-01-31 17:00:00 is within a day of Europe/Berlin; terms start at midnight of their"
        " tariff's zone -> write 2026-02-01T00:00:00+01:00 for the next one",
        "terms.csv:4: since: 2026-02-28 17:00:00 is within a day of Europe/Berlin; terms start at midnight of their"
        " tariff's zone -> write 2026-03-01T00:00:00+01:00 for the next one",
    ]
    berlin = [f"{A1},2026-02-01T00:00:00+01:00,example-flat,,,", f"{A1},{T0},,,,2"]
    assert bring(store, site, tmp_path, zones, terms=berlin)["terms"] == Counts(added=2)
    later = [f"{A1},{T2},,,,3"]  # the store knows of the tariff
    assert "within a day of Europe/Berlin" in refusals(store, site, tmp_path, zones, terms=later)[0]


def test_terms_at_the_accounts_own_first_instant_and_after_its_end(store: Store, site: Site, tmp_path: Path) -> None:
    at = "2026-01-20T09:00:00+08:00"
    rows = [f"{A1},{U1},Wang,cn-zhejiang-residential-step,{at},,,{T1},"]
    assert bring(store, site, tmp_path, accounts=rows, terms=[f"{A1},{at},,,,2"])["terms"] == Counts(added=1)
    assert refusals(store, site, tmp_path, terms=[f"{A1},{T1},,,,2"]) == [
        f"terms.csv:2: since: the account A-0001 has ended by then, {T1} -> correct since, or the account's until"
    ]


def test_overlaps_circles_and_ratios_are_found_with_what_the_store_holds(
    store: Store, site: Site, tmp_path: Path
) -> None:
    held = [f"{U1},{U2},{T0},ratio,60,{T2}"]
    bring(store, site, tmp_path, supplies=[SUPPLY.replace(f",{T1},", ",,")], submeters=held)
    assert refusals(
        store,
        site,
        tmp_path,
        supplies=[SUPPLY.replace(T0, T2).replace(f",{T1},", ",,")],
        submeters=[f"{U1},{U2},{T1},metered,,", f"{U2},{U1},{T1},quantity,5,"],
    ) == [
        "supplies.csv:2: since: the usage point UP-0002 has another transformer or line at the same time, by the store"
        " -> end the earlier one with until",
        "submeters.csv:2: since: the usage point UP-0001 stands behind UP-0002 at the same time, by the store"
        " -> end the earlier row with until",
        "submeters.csv:2: parent: a circle: UP-0001 behind UP-0002 behind UP-0001 -> correct the parents",
    ]
    points = csv_file(
        tmp_path,
        "usage_points.csv",
        "usage_point,district,meter_id,installed_at,multiplier",
        f"{U1},D-01,M-0001,{T0},1",
        f"UP-3,,M-0003,{T0},1",
    )
    meters = csv_file(
        tmp_path,
        "meters.csv",
        "meter_id,protocol,address,line,model",
        "M-0003,dlt645-2007,3,east,dlt645-2007-1ph",
    )
    below = csv_file(tmp_path, "submeters.csv", SUBMETERS, f"UP-3,{U2},{T1},ratio,40.0001,")
    files: dict[str, Any] = {"meters": meters, "usage_points": points, "submeters": below}
    with pytest.raises(ConfigError) as caught:
        import_files(store, site, **files, tariffs=TARIFFS, check_address=check_address)
    assert problems_of(caught) == [
        "submeters.csv:2: amount: the ratios behind UP-0002 come to 100.0001 percent then"
        " -> correct the amounts: together at most 100"
    ]


def test_checking_needs_no_store(site: Site, tmp_path: Path) -> None:
    """What only the store could know is left alone; what the given files should hold is not."""
    path = csv_file(tmp_path, "terms.csv", TERMS, f"A-7,{T0},,,,5")
    check_files(site, terms=path, tariffs=TARIFFS, check_address=check_address)
    with pytest.raises(ConfigError, match='there is no account "A-7"'):
        check_files(site, terms=path, accounts=EXAMPLE / "accounts.csv", tariffs=TARIFFS, check_address=check_address)


def test_the_commands_take_the_files(tmp_path: Path) -> None:
    """`headend check` and `headend import` on the example site with all six files."""
    for path in EXAMPLE.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    csv_file(tmp_path, "terms.csv", TERMS, f"{A2},{T1},,,400,")
    csv_file(tmp_path, "supplies.csv", SUPPLIES, SUPPLY)
    csv_file(tmp_path, "submeters.csv", SUBMETERS, f"{U1},{U2},{T0},metered,,")
    options = [f"--{name}={EXAMPLE / name.replace('-', '_')}.csv" for name in ("meters", "usage-points", "accounts")]
    options += [f"--{name}={tmp_path / name}.csv" for name in ("terms", "supplies", "submeters")]
    options += ["--site", str(tmp_path / "site.toml")]
    runner = CliRunner()
    checked = runner.invoke(cli, ["check", *options])
    assert checked.exit_code == 0, checked.output
    taken = runner.invoke(cli, ["import", *options])
    assert taken.exit_code == 0, taken.output
    for name in ("terms", "supplies", "submeters"):
        assert f"{name}: 1 added, 0 changed, 0 as before" in taken.output
    nothing = runner.invoke(cli, ["import", "--site", str(tmp_path / "site.toml")])
    assert nothing.exit_code != 0


def test_the_examples_of_the_reference_are_taken_as_they_are(store: Store, site: Site, tmp_path: Path) -> None:
    """Each table of docs/import.md names every column, and its example cells make a row that is imported."""
    text = REFERENCE.read_text(encoding="utf-8")
    paths: dict[str, Any] = {}
    columns = {"terms": TERMS, "supplies": f"{SUPPLIES},table", "submeters": SUBMETERS}
    columns["loss_tables"] = ",".join(LOSS_COLUMNS)
    for name, header in columns.items():
        section = text.split(f"## {name}.csv")[1].split("\n## ")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (?:`([^`]+)`)? ?\|$", section, re.MULTILINE))
        assert ",".join(rows) == header or set(rows) == set(header.split(","))
        paths[name] = csv_file(tmp_path, f"{name}.csv", ",".join(rows), ",".join(rows.values()))
    counts = import_files(store, site, **paths, tariffs=TARIFFS, check_address=check_address)
    assert [counts[name] for name in columns] == [Counts(added=1)] * 4
    assert "| `cycle` |" in text


_CELLS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", A1, U1, U2, "metered", "ratio", "quantity", "1", "0", "101", "1e9", T0, T1, "-1", '"']),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(_CELLS, min_size=5, max_size=11), max_size=4))
def test_anything_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, site: Site, content: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.csv"
    for name, header in (("terms", TERMS), ("supplies", SUPPLIES), ("submeters", SUBMETERS)):
        path.write_text("\n".join([header, *map(",".join, content)]), encoding="utf-8", errors="replace")
        files: dict[str, Any] = {name: path}
        try:
            check_files(site, **files, tariffs=TARIFFS, check_address=check_address)
        except ConfigError as error:
            assert error.problems  # noqa: PT017
    assert Held().terms == ()
