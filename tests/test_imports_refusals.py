"""Master data from CSV: what is refused, in which words."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from config.imports import Held, read_meters, read_usage_points
from config.site import Site, load_site
from headend.errors import ConfigError
from headend.protocols import PROTOCOLS
from headend.store.registry import (
    InstallationRow,
    MeterRow,
)
from tests.imports_kit import (
    EXAMPLE,
    M1,
    METERS,
    POINTS,
    T0,
    T1,
    T2,
    account_refusals,
    check_address,
    csv_file,
    meter_refusals,
    point_refusals,
    problems_of,
)


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(EXAMPLE / "site.toml")


def test_every_problem_of_a_file_at_once(tmp_path: Path, site: Site) -> None:
    assert meter_refusals(
        tmp_path,
        site,
        f"{M1},",
        f"{M1.replace(',1,', ',2,')},",
        f"{M1.replace('M1', 'M2').replace(',1,', ',001,')},",
        "M3,dlt645,3,est,dlt645-2007-1p,",
        "M4,dlt645-2007,12G,east,dlt645-2007-1ph,Europe/Berlin",
        ",dlt645-2007,5,east,dlt645-2007-1ph,Mars",
        "M6,dlt645-2007,6,east,dlt645-2007-1ph",
        header=f"{METERS},clock_zone",
    ) == [
        "meters.csv:8: the row has 5 cells, the header 6 -> "
        "give every row one cell for each column; a comma inside a cell needs quotes around it",
        'meters.csv:3: meter_id: the meter "M1" stands in meters.csv:2 already -> remove one of the two rows',
        'meters.csv:4: address: the address "000000000001" on line east is that of meter M1 in meters.csv:2 -> '
        "correct the address or the line of one of them",
        'meters.csv:5: line: there is no line "est" -> did you mean east?',
        'meters.csv:5: model: there is no meter model "dlt645-2007-1p" -> '
        "did you mean dlt645-2007-1ph or dlt645-2007-3ph or dlt645-2007-1ph-60?",
        'meters.csv:5: protocol: there is no protocol "dlt645" -> did you mean dlt645-2007 or dlt645-1997?',
        "meters.csv:6: address: '12G' is no DL/T 645 address -> "
        "write the up to 12 digits on the meter's plate, such as 000000193600",
        "meters.csv:6: clock_zone: Europe/Berlin has daylight saving, which the stamps of a meter can't show -> "
        "write +01:00 and let the meter keep that time all year",
        "meters.csv:7: meter_id: the cell is empty -> fill it in",
        "meters.csv:7: clock_zone: unknown time zone 'Mars' -> use an IANA name or an offset like +08:00",
    ]


def test_an_address_the_store_gave_to_another_meter(tmp_path: Path, site: Site) -> None:
    old = MeterRow("M9", "dlt645-2007", "000000000001", "east", "dlt645-2007-1ph", "UTC", Decimal(1_000_000), 900)
    assert meter_refusals(tmp_path, site, M1, held=Held(meters=(old,))) == [
        'meters.csv:2: address: the address "000000000001" on line east is that of meter M9 in the store -> '
        "correct the address or the line of one of them"
    ]


def test_a_model_of_another_protocol(tmp_path: Path, site: Site) -> None:
    (tmp_path / "meters").mkdir()
    text = 'source = "x"\nprotocol = "other"\nregister_wrap = 10000\nmax_power_kw = 10\n'
    (tmp_path / "meters" / "mine.toml").write_text(text)
    (tmp_path / "site.toml").write_text((EXAMPLE / "site.toml").read_text())
    mixed = load_site(tmp_path / "site.toml", protocols=["other", *PROTOCOLS])
    assert meter_refusals(tmp_path, mixed, M1.replace("dlt645-2007-1ph", "mine")) == [
        "meters.csv:2: protocol: the meter model mine speaks other, not dlt645-2007 -> "
        "write other or choose another model"
    ]


EMPTY = f"meters.csv: the file is empty -> write the header {METERS},clock_zone,serial,options and the rows"


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"", [EMPTY]),
        (b"\n,,\n", [EMPTY]),
        (
            b"meter_id,protokol,address,line,line",
            [
                'meters.csv:1: unknown column "protokol" -> did you mean protocol?',
                "meters.csv:1: the column line stands twice -> remove one",
                f"meters.csv:1: the column protocol is missing -> the header is {METERS},clock_zone,serial,options",
                f"meters.csv:1: the column model is missing -> the header is {METERS},clock_zone,serial,options",
            ],
        ),
        (
            METERS.replace(",", ";").encode(),
            ["meters.csv:1: the columns are not separated by commas -> save the file as CSV with commas"],
        ),
        (
            METERS.encode("utf-16"),
            ["meters.csv: the text is UTF-16 or not text at all -> save the file as CSV UTF-8"],
        ),
        (
            METERS.encode() + b"\nM\xff1,x,1,east,y\n",
            ["meters.csv:2: the text is neither UTF-8 nor GB18030 -> save the file as CSV UTF-8"],
        ),
        (
            METERS.encode() + b"\n\xc4\xfc\n\xaa\xa1,x,1,east,y\n",
            ["meters.csv:3: the text is neither UTF-8 nor GB18030 -> save the file as CSV UTF-8"],
        ),
        (
            METERS.encode() + "\n\u0378,x,1,east,y\n".encode("gb18030"),
            ["meters.csv:2: the text is neither UTF-8 nor GB18030 -> save the file as CSV UTF-8"],
        ),
        (
            f'{METERS}\n"M"1,x\n'.encode(),
            [
                "meters.csv:2: not CSV: ',' expected after '\"' -> "
                'close every ", write "" for one inside a quoted cell, end lines with a line feed'
            ],
        ),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, site: Site, data: bytes, messages: list[str]) -> None:
    path = tmp_path / "meters.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_meters(path, site, check_address=check_address)
    assert problems_of(caught) == messages


def test_a_missing_file(tmp_path: Path, site: Site) -> None:
    with pytest.raises(ConfigError) as caught:
        read_meters(tmp_path / "no.csv", site, check_address=check_address)
    assert problems_of(caught) == [f"{tmp_path}/no.csv: there is no such file -> check the file's name"]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (
            "U1,,M1,2026-01-01,1,",
            [
                'installed_at: "2026-01-01" has no offset from UTC -> '
                "write 2026-01-01T00:00:00+08:00 if the time of Asia/Shanghai is meant"
            ],
        ),
        (
            "U1,,M1,1/1/2026,0,1",
            [
                'installed_at: "1/1/2026" is no time -> write it like 2026-01-31T00:00:00+08:00',
                'removed_at: "1" is no time -> write it like 2026-01-31T00:00:00+08:00',
                "multiplier: 0 is out of range -> use a number above 0",
            ],
        ),
        (
            f'U1,,M1,{T1},"1,5",{T1}',
            [
                f"removed_at: {T1} is not after installed_at, {T1} -> "
                "correct one of the two, or leave the end empty while it lasts",
                'multiplier: "1,5" is no decimal number with at most 15 digits before and 4 after the point -> '
                "write it like 12.5, without thousands separators",
            ],
        ),
        (
            "U1,,M1,2026-01-01T00:00:00.5+08:00,1,0001-01-01T00:00:00+23:00",
            [
                'installed_at: "2026-01-01T00:00:00.5+08:00" is finer than a second -> use whole seconds',
                "removed_at: the year 1 is out of range -> use a year from 1970 to 2199",
            ],
        ),
    ],
)
def test_cells_that_are_wrong(tmp_path: Path, site: Site, row: str, messages: list[str]) -> None:
    assert point_refusals(tmp_path, site, row) == [f"usage_points.csv:2: {message}" for message in messages]


def test_installations_that_overlap(tmp_path: Path, site: Site) -> None:
    remedy = "end the earlier installation with removed_at"
    assert point_refusals(
        tmp_path, site, f"U1,D1,M1,{T0},1,", f"U2,D1,M1,{T1},1,{T2}", f"U1,D2,M2,{T1},1,", f"U2,D1,M2,{T0},1,{T1}"
    ) == [
        'usage_points.csv:4: district: the usage point "U1" is in district "D1" by line 2 -> '
        "write one district in all its rows",
        "usage_points.csv:3: installed_at: the meter M1 stands at U1 at the same time, by usage_points.csv:2 -> "
        + remedy,
        "usage_points.csv:4: installed_at: the usage point U1 has the meter M1 at the same time, "
        f"by usage_points.csv:2 -> {remedy}",
    ]


def test_a_long_installation_collides_with_each_later_one(tmp_path: Path, site: Site) -> None:
    row = "U{},,M1,2026-01-{:02}T00:00:00Z,1,2026-01-{:02}T00:00:00Z".format
    assert point_refusals(tmp_path, site, row(1, 1, 20), row(2, 2, 3), row(2, 10, 11), row(2, 20, 21)) == [
        f"usage_points.csv:{line}: installed_at: the meter M1 stands at U1 at the same time, by usage_points.csv:2 -> "
        "end the earlier installation with removed_at"
        for line in (3, 4)
    ]


def test_an_installation_that_overlaps_one_in_the_store(tmp_path: Path, site: Site) -> None:
    later = InstallationRow("U2", "M1", datetime(2026, 2, 1, tzinfo=UTC))
    assert point_refusals(tmp_path, site, f"U1,,M1,{T0},1,", held=Held(installations=(later,))) == [
        "usage_points.csv:2: installed_at: the meter M1 stands at U2 at the same time, by the store -> "
        "end the earlier installation with removed_at"
    ]
    path = csv_file(tmp_path, "usage_points.csv", POINTS, f"U1,,M1,{T0},1,2026-02-01T00:00:00Z")
    assert read_usage_points(path, site, ["M1"], held=Held(installations=(later,)))[1][0].until == later.since


def test_accounts_that_make_no_sense(tmp_path: Path, site: Site) -> None:
    assert account_refusals(
        tmp_path,
        site,
        f"A1,U1,Wang,example-flat,{T0},,,",
        f"A1,U2,Wang,example-flat,{T0},5,,",
        f"A3,U2,Li,example-flt,{T1},-5,{T1},{T0}",
        f"A4,U1,Li,example-flat,{T1},,{T0},",
        f"A5,U1,Li,example-flat,{T1},,,",
    ) == [
        'accounts.csv:3: account: the account "A1" stands in line 2 already -> remove one of the two rows',
        "accounts.csv:3: step_used_at: step_used_kwh and step_used_at belong together, this one is empty -> "
        "fill in both or neither",
        'accounts.csv:4: tariff: there is no tariff "example-flt" -> '
        "did you mean example-flat or example-commercial-tou?",
        f"accounts.csv:4: until: {T0} is not after since, {T1} -> "
        "correct one of the two, or leave the end empty while it lasts",
        "accounts.csv:4: step_used_kwh: -5 is out of range -> use a number of 0 or more",
        "accounts.csv:5: step_used_kwh: step_used_kwh and step_used_at belong together, this one is empty -> "
        "fill in both or neither",
        "accounts.csv:6: since: the account A1 has the usage point U1 with the tariff example-flat at the same time, "
        "by accounts.csv:2 -> end the earlier account with until",
    ]
