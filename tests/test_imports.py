"""Master data from CSV: what arrives in the store, and that any file is imported or refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.imports import check_files, import_files, read_accounts, read_meters, read_usage_points
from config.site import Site, load_site
from headend.errors import ConfigError, HeadendError
from headend.store import Store, open_store
from headend.store.registry import (
    AccountRow,
    Counts,
    InstallationRow,
    UsagePointRow,
    accounts,
    installations,
    meters,
    usage_points,
)
from tests.imports_kit import (
    ACCOUNTS,
    EXAMPLE,
    M1,
    METERS,
    POINTS,
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


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(EXAMPLE / "site.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/headend.db")
    yield opened
    opened.close()


def _import_example(store: Store, site: Site) -> dict[str, Counts]:
    return import_files(
        store,
        site,
        meters=EXAMPLE / "meters.csv",
        usage_points=EXAMPLE / "usage_points.csv",
        accounts=EXAMPLE / "accounts.csv",
        tariffs=TARIFFS,
        check_address=check_address,
    )


def test_the_example_is_imported_and_again_changes_nothing(store: Store, site: Site) -> None:
    tables = ("meters", "usage_points", "installations", "accounts")
    not_given = dict.fromkeys(("terms", "loss_tables", "supplies", "submeters"), Counts())
    assert _import_example(store, site) == {**{table: Counts(added=2) for table in tables}, **not_given}
    assert _import_example(store, site) == {**{table: Counts(same=2) for table in tables}, **not_given}
    with store.read() as conn:
        assert [(m.id, m.address, m.line, m.model, m.clock_zone, m.curve_step_s) for m in meters(conn)] == [
            ("M-0001", "000000000001", "east", "dlt645-2007-1ph", "Asia/Shanghai", 900),
            ("M-0002", "000000000002", "east", "dlt645-2007-3ph", "Asia/Shanghai", 900),
        ]
        assert {m.register_wrap for m in meters(conn)} == {Decimal(1_000_000)}
        assert [(u.id, u.district) for u in usage_points(conn)] == [("UP-0001", "D-01"), ("UP-0002", "D-01")]
        assert [(i.usage_point, i.meter, i.since, i.until, i.multiplier) for i in installations(conn)] == [
            ("UP-0001", "M-0001", START, None, Decimal(1)),
            ("UP-0002", "M-0002", START, None, Decimal(30)),
        ]
        assert [(a.id, a.usage_point, a.customer, a.tariff, a.since) for a in accounts(conn)] == [
            ("A-0001", "UP-0001", "Wang", "cn-zhejiang-residential-step", START),
            ("A-0002", "UP-0002", "Corner shop", "example-commercial-tou", START),
        ]


def test_the_example_uses_shipped_tariffs(site: Site) -> None:
    shipped = {
        tomllib.loads(path.read_text(encoding="utf-8"))["id"]
        for folder in site.tariff_folders
        for path in folder.glob("*.toml")
    }
    assert shipped >= set(TARIFFS)


def test_a_changed_row_changes_what_is_held(store: Store, site: Site, tmp_path: Path) -> None:
    _import_example(store, site)
    swapped = csv_file(
        tmp_path,
        "meters.csv",
        METERS,
        "M-0001,dlt645-2007,2,east,dlt645-2007-1ph",
        "M-0002,dlt645-2007,1,east,dlt645-2007-3ph",
    )
    counts = import_files(store, site, meters=swapped, check_address=check_address)
    assert counts["meters"] == Counts(changed=2)
    with store.read() as conn:
        assert [m.address for m in meters(conn)] == ["000000000002", "000000000001"]


def test_nothing_is_half_applied(store: Store, site: Site, tmp_path: Path) -> None:
    """All problems of all files come together, and good rows beside them are not written."""
    with pytest.raises(ConfigError) as caught:
        import_files(
            store,
            site,
            meters=csv_file(tmp_path, "meters.csv", METERS, M1, "M2,dlt645-2007,2,west,dlt645-2007-1ph"),
            usage_points=csv_file(tmp_path, "usage_points.csv", POINTS, f"U1,,M2,{T0},1,", f"U2,,M3,{T0},1,"),
            accounts=csv_file(tmp_path, "accounts.csv", ACCOUNTS, f"A1,U2,Wang,flat,{T0},,,", f"A2,U3,Li,,{T0},,,"),
            tariffs=["example-flat"],
            check_address=check_address,
        )
    assert problems_of(caught) == [
        'meters.csv:3: line: there is no line "west" -> did you mean east?',
        'usage_points.csv:3: meter_id: there is no meter "M3" -> known: M1, M2',
        'accounts.csv:2: tariff: there is no tariff "flat" -> known: example-flat',
        'accounts.csv:3: usage_point: there is no usage point "U3" -> known: U1, U2',
        "accounts.csv:3: tariff: the cell is empty -> fill it in",
    ]
    with store.read() as conn:
        assert (meters(conn), usage_points(conn), installations(conn), accounts(conn)) == ([], [], [], [])


def test_a_meter_exchange_comes_from_a_later_file(store: Store, site: Site, tmp_path: Path) -> None:
    _import_example(store, site)
    new = csv_file(tmp_path, "meters.csv", METERS, "M-0003,dlt645-2007,3,east,dlt645-2007-1ph")
    points = ("usage_points.csv", POINTS, f"UP-0001,D-01,M-0003,{T1},1,")
    with pytest.raises(ConfigError) as caught:
        import_files(store, site, meters=new, usage_points=csv_file(tmp_path, *points), check_address=check_address)
    assert problems_of(caught) == [
        "usage_points.csv:2: installed_at: the usage point UP-0001 has the meter M-0001 at the same time, by the store"
        " -> end the earlier installation with removed_at"
    ]
    both = csv_file(tmp_path, *points, f"UP-0001,D-01,M-0001,{T0},1,{T1}")
    counts = import_files(store, site, meters=new, usage_points=both, check_address=check_address)
    assert counts["installations"] == Counts(added=1, changed=1)


def test_accounts_keep_what_was_used_before(site: Site, tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accounts.csv", ACCOUNTS, f"A1,U1,Wang,example-flat,{T0},1320.5,{T1},{T2}")
    assert read_accounts(path, site, TARIFFS, {"U1"}) == [
        AccountRow(
            "A1",
            "U1",
            "Wang",
            "example-flat",
            START,
            datetime(2026, 2, 28, 16, tzinfo=UTC),
            Decimal("1320.5"),
            datetime(2026, 1, 31, 16, tzinfo=UTC),
        )
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_encodings_of_spreadsheets(site: Site, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "usage_points.csv"
    text = f'{POINTS}\r\n"U1", 城东台区 ,M1,{T0},1,\r\n,,,,,\r\n\r\n'
    path.write_bytes(text.encode(encoding))
    points, found = read_usage_points(path, site, ["M1"])
    assert points == [UsagePointRow("U1", "城东台区")]
    assert found == [InstallationRow("U1", "M1", START)]


@pytest.mark.parametrize(
    ("zone", "cell", "clock_zone"),
    [
        ("Asia/Shanghai", "", "Asia/Shanghai"),
        ("Europe/Berlin", "", "+01:00"),
        ("America/New_York", "", "-05:00"),
        ("Europe/Berlin", "UTC", "UTC"),
        ("Asia/Shanghai", "+08:00", "+08:00"),
    ],
)
def test_clock_zones(tmp_path: Path, zone: str, cell: str, clock_zone: str) -> None:
    csv_file(tmp_path, "site.toml", '[site]\nname = "T"', f'zone = "{zone}"', "[[line]]", 'name = "east"',
          'endpoint = "tcp://192.0.2.1:1"')  # fmt: skip
    path = csv_file(tmp_path, "meters.csv", f"{METERS},clock_zone", f"{M1},{cell}")
    rows = read_meters(path, load_site(tmp_path / "site.toml"), check_address=check_address, year=2026)
    assert [row.clock_zone for row in rows] == [clock_zone]


def test_a_meter_without_a_curve_has_no_step(site: Site, tmp_path: Path) -> None:
    path = csv_file(tmp_path, "meters.csv", METERS, M1.replace("1ph", "basic"))
    assert [row.curve_step_s for row in read_meters(path, site, check_address=check_address)] == [0]


def test_checking_files_needs_no_store(site: Site, tmp_path: Path) -> None:
    """Names that only the store could know are left alone; those a given file should hold are not."""
    points = csv_file(tmp_path, "usage_points.csv", POINTS, f"U1,,M1,{T0},1,")
    accounts_file = csv_file(tmp_path, "accounts.csv", ACCOUNTS, f"A1,U1,Wang,example-flat,{T0},,,")
    check_files(site, usage_points=points, tariffs=TARIFFS, check_address=check_address)
    check_files(site, accounts=accounts_file, tariffs=TARIFFS, check_address=check_address)
    meters_file = csv_file(tmp_path, "meters.csv", METERS, M1.replace("M1", "M2"))
    with pytest.raises(ConfigError) as caught:
        check_files(
            site,
            meters=meters_file,
            usage_points=points,
            accounts=csv_file(tmp_path, "accounts.csv", ACCOUNTS, f"A1,U2,Wang,example-flat,{T0},,,"),
            tariffs=TARIFFS,
            check_address=check_address,
        )
    assert problems_of(caught) == [
        'usage_points.csv:2: meter_id: there is no meter "M1" -> known: M2',
        'accounts.csv:2: usage_point: there is no usage point "U2" -> known: U1',
    ]


# Properties

_CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "M1", "U1", "east", "dlt645-2007", "dlt645-2007-1ph", "example-flat", "1", "1e9", T0, T1,
                     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "2026-01-01", "UTC", '"', '""', "\n"]),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(), st.lists(st.lists(_CELLS, min_size=4, max_size=9), max_size=5)))
def test_anything_is_imported_or_refused(
    tmp_path_factory: pytest.TempPathFactory, site: Site, content: bytes | list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for header in ("", METERS, f"{METERS},clock_zone", POINTS, ACCOUNTS):
        body = content if isinstance(content, bytes) else "\n".join(map(",".join, content)).encode()
        path.write_bytes(header.encode() + b"\n" + body)
        for read in (
            lambda: read_meters(path, site, check_address=check_address),
            lambda: read_usage_points(path, site, ["M1"]),
            lambda: read_accounts(path, site, TARIFFS, ["U1"]),
        ):
            try:
                rows = read()
            except ConfigError as error:
                assert error.problems  # noqa: PT017
                assert issubclass(type(error), HeadendError)  # noqa: PT017
            else:
                assert isinstance(rows, list | tuple)


_DAYS = st.integers(0, 30)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from("UVW"), st.sampled_from("MN"), _DAYS, _DAYS), max_size=5))
def test_overlaps_are_found_exactly(
    tmp_path_factory: pytest.TempPathFactory, site: Site, spans: list[tuple[str, str, int, int]]
) -> None:
    """A file is refused exactly if, on some day, a meter stands twice or a usage point has two meters."""
    spans = [span for span in spans if span[2] < span[3]]
    path = tmp_path_factory.getbasetemp() / "overlaps.csv"
    stamp = "2026-01-{:02}T00:00:00Z".format
    rows = [f"{point},,{meter},{stamp(start + 1)},1,{stamp(end + 1)}" for point, meter, start, end in spans]
    path.write_text("\n".join([POINTS, *rows]))
    collides = False
    for day in range(31):
        here = [(point, meter) for point, meter, start, end in spans if start <= day < end]
        collides |= len({m for _, m in here}) < len(here) or len({p for p, _ in here}) < len(here)
    try:
        _, found = read_usage_points(path, site, ["M", "N"])
    except ConfigError:
        assert collides
    else:
        assert not collides
        assert len(found) == len(spans)


@settings(deadline=None)
@given(st.one_of(st.text(), st.sampled_from(["..", "/etc/passwd", "Asia", "zone.tab", "+24:00", "-00:99", "a" * 5000])))
def test_any_text_as_a_clock_zone(tmp_path_factory: pytest.TempPathFactory, site: Site, zone: str) -> None:
    path = tmp_path_factory.getbasetemp() / "zones.csv"
    quoted = zone.replace('"', '""')
    path.write_bytes(f'{METERS},clock_zone\n{M1},"{quoted}"\n'.encode(errors="surrogatepass"))
    try:
        rows = read_meters(path, site, check_address=check_address, year=2026)
    except ConfigError:
        return
    assert [row.id for row in rows] == ["M1"]


def test_every_column_is_in_the_reference() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for column in f"{METERS},clock_zone,{POINTS},{ACCOUNTS}".split(","):
        assert f"| `{column}` |" in text, f"{column} is not in docs/import.md"
