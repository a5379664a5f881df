"""What the tests of CSV imports share: the example site, headers, files written and refusals read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.imports import Held, read_accounts, read_meters, read_usage_points
from config.site import Site
from headend.errors import ConfigError
from headend.protocols import PROTOCOLS

EXAMPLE = Path(__file__).parent.parent / "docs" / "example-site"
REFERENCE = EXAMPLE.parent / "import.md"

METERS = "meter_id,protocol,address,line,model"
POINTS = "usage_point,district,meter_id,installed_at,multiplier,removed_at"
ACCOUNTS = "account,usage_point,customer,tariff,since,step_used_kwh,step_used_at,until"
M1 = "M1,dlt645-2007,1,east,dlt645-2007-1ph"
NOTHING = Held()
TARIFFS = ("example-flat", "cn-zhejiang-residential-step", "example-commercial-tou")

START = datetime(2025, 12, 31, 16, tzinfo=UTC)
T0, T1, T2 = "2026-01-01T00:00:00+08:00", "2026-02-01T00:00:00+08:00", "2026-03-01T00:00:00+08:00"


def check_address(protocol: str, address: str) -> str:
    return PROTOCOLS[protocol].check_address(address)


def csv_file(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems_of(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(problem) for problem in caught.value.problems]


def meter_refusals(folder: Path, site: Site, *rows: str, header: str = METERS, held: Held = NOTHING) -> list[str]:
    path = csv_file(folder, "meters.csv", header, *rows)
    with pytest.raises(ConfigError) as caught:
        read_meters(path, site, check_address=check_address, held=held, year=2026)
    return problems_of(caught)


def point_refusals(folder: Path, site: Site, *rows: str, held: Held = NOTHING) -> list[str]:
    path = csv_file(folder, "usage_points.csv", POINTS, *rows)
    with pytest.raises(ConfigError) as caught:
        read_usage_points(path, site, {"M1", "M2"}, held=held)
    return problems_of(caught)


def account_refusals(folder: Path, site: Site, *rows: str, held: Held = NOTHING) -> list[str]:
    path = csv_file(folder, "accounts.csv", ACCOUNTS, *rows)
    with pytest.raises(ConfigError) as caught:
        read_accounts(path, site, TARIFFS, {"U1", "U2"}, held=held)
    return problems_of(caught)
