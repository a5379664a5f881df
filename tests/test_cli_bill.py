"""headend bill on a site of its own: close, list, show, review, release, preview, runs, and status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from billing import store as bills
from billing.charges import Tariff
from billing.listing import listed
from billing.preview import preview
from billing.run import Book
from billing.schema import bill as bill_table
from config.tariff_files import load_tariff
from headend.cli import cli, main
from headend.errors import HeadendError
from headend.model import Quality, ReadKind
from headend.store import Store, open_store, registry
from tests.billing_support import add_meter, connect, feed, freeze, local, month
from tests.documents_kit import all_text

SITE = """
[site]
name = "town"

[[line]]
name = "L1"
endpoint = "tcp://127.0.0.1:9"

[[billing.cycle]]
name = "town"
"""
TARIFF = """
id = "plain"
version = "1"
title = "plain"
source = "a test"
source_date = 2020-01-01
verified = true
valid_from = 2020-01-01
zone = "Asia/Shanghai"
currency = "CNY"

[[charges]]
kind = "energy"
price = "0.5"
unit = "kWh"

[[charges]]
kind = "fixed"
code = "service"
amount = "12.00"
unit = "month"
"""
NOW = datetime(2024, 3, 20, 4, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """A site in a folder, with an open store."""

    path: Path
    store: Store
    tariff: Tariff

    def run(self, *words: str) -> str:
        """What a verb prints."""
        done = CliRunner().invoke(cli, [*words, "--site", str(self.path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def refused(self, *words: str) -> str:
        with pytest.raises(HeadendError) as error:
            self.run(*words)
        return str(error.value)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Accounts A1 (its February is odd, both years' Februaries known) and A2 (without a read at the end)."""
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "tariffs").mkdir()
    (tmp_path / "tariffs" / "plain.toml").write_text(TARIFF)
    store = open_store(f"sqlite:///{tmp_path / 'headend.db'}")
    found = Place(tmp_path / "site.toml", store, load_tariff(tmp_path / "tariffs" / "plain.toml"))
    values = [((2, 2023), "0"), ((3, 2023), "290"), ((1, 2024), "1000"), ((2, 2024), "1310"), ((3, 2024), "2900")]
    for name in ("A1", "A2"):
        meter = add_meter(store, f"M-{name}")
        connect(store, meter, found.tariff, account=name, since=month(1, 2022).start)
        rows = [freeze(month(number, year).start, value) for (number, year), value in values]
        feed(store, meter, ReadKind.DAILY_FREEZE, rows if name == "A1" else rows[3:4])
    yield found
    store.close()


def test_closing_reviewing_and_releasing_a_month(place: Place) -> None:
    for early in ("2023-02", "2024-01"):
        place.run("bill", "close", early, "--account", "A1")
    said = " ".join(place.run("bill", "close", "2024-02").split())
    assert said.startswith("0 issued, 2 held, 0 issued before held A1-2024-02 1590 kWh: +448.28 % a day against last")
    assert "`headend bill review 2024-02` ranks what is odd" in said
    first, second = place.json("bill", "review", "2024-02")
    assert (first["number"], first["state"]) == ("A1-2024-02", "held")
    assert [(one["code"], one["holds"]) for one in first["findings"]] == [("use_change", True)]
    assert [(one["code"], one["holds"]) for one in second["findings"]] == [("register_absent", False)]
    table = " ".join(place.run("bill", "review", "2024-02").split())
    assert "2 held, 1 of them wait for a person alone; 0 issued are odd" in table
    assert table.index("use_change") < table.index("register_absent")

    assert "can't be released, something is missing" in place.refused("bill", "release", "A2-2024-02", "--reason", "x")
    said = place.run("bill", "release", "A1-2024-02", "--reason", "a bakery now", "--by", "Li")
    assert said.strip() == "A1-2024-02 is released for use_change; the next close issues it"
    assert "1 issued, 1 held" in place.run("bill", "close", "2024-02")
    shown = place.json("bill", "show", "A1-2024-02")
    assert (shown["state"], shown["total"], shown["invoice"]) == ("issued", "807.00", "B000003")
    assert [(one["code"], one["holds"]) for one in shown["findings"]] == [("use_change", False)]
    assert [(one["by"], one["codes"]) for one in shown["releases"]] == [("Li", ["use_change"])]
    printed = place.run("bill", "show", "A1-2024-02")
    assert "invoice B000003" in printed
    assert "by Li for use_change: a bakery now" in printed
    listed = place.json("bill", "list", "2024-02")
    assert [(one["number"], one["state"], one["invoice"]) for one in listed] == [
        ("A1-2024-02", "issued", "B000003"),
        ("A2-2024-02", "held", None),
    ]
    assert [one["state"] for one in place.json("bill", "review", "2024-02")] == ["held", "issued"]


def test_a_release_for_something_else_is_told(place: Place) -> None:
    for early in ("2023-02", "2024-01"):
        place.run("bill", "close", early, "--account", "A1")
    place.run("bill", "close", "2024-02", "--account", "A1")
    (before,) = place.json("bill", "review", "2024-02")
    assert before["findings"][0]["released_else"] == []
    place.run("bill", "release", "A1-2024-02", "--reason", "a bakery now", "--by", "Li")
    late = freeze(month(3, 2024).start, "3310", quality=Quality.EDITED, taken_at=NOW)
    feed(place.store, add_meter(place.store, "M-A1"), ReadKind.DAILY_FREEZE, [late])
    assert "0 issued, 1 held" in place.run("bill", "close", "2024-02", "--account", "A1")
    (again,) = place.json("bill", "review", "2024-02")
    seen = before["findings"][0]["what"]
    assert again["findings"][0]["released_else"] == [seen]
    assert again["findings"][0]["what"].startswith("2000 kWh: ")
    assert "it was released for something else: 1590 kWh: +448.28 % a day" in squeezed(
        place.run("bill", "review", "2024-02")
    )
    shown = place.json("bill", "show", "A1-2024-02")["releases"]
    assert shown[0]["covers"] == [{"code": "use_change", "what": seen}]


def squeezed(table: str) -> str:
    """The text of the one wide column that is broken over lines: what is left of a table without its frame."""
    cells = [line.split("│")[5] for line in table.splitlines() if line.count("│") == 7]
    return " ".join(" ".join(cells).split())


def test_many_held_bills_are_told_by_their_reasons(place: Place) -> None:
    for index in range(25):
        meter = add_meter(place.store, f"M-B{index}")
        connect(place.store, meter, place.tariff, account=f"B{index}", since=month(1, 2022).start)
    said = place.run("bill", "close", "2024-01")
    assert said.startswith("1 issued, 26 held, 0 issued before\n")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert rows[0][:3] == ["register_absent", "missing", "26"]
    assert "`headend bill review 2024-01` lists each of them" in said
    assert "B24-2024-01" not in said


def test_nothing_is_told_in_words(place: Place) -> None:
    assert place.run("bill", "list", "2024-01") == (
        "there are no bills of 2024-01; `headend bill close 2024-01` makes them\n"
    )
    assert place.run("bill", "review", "2024-01") == "no bill of 2024-01 is held or odd\n"
    assert place.run("bill", "runs").startswith("no month was closed yet")
    assert "none of the accounts asked for is in force in 2021-01" in place.run("bill", "close", "2021-01")


def test_a_list_tells_of_each_bill_what_the_whole_bills_do(place: Place) -> None:
    for early in ("2023-02", "2024-01"):
        place.run("bill", "close", early, "--account", "A1")
    place.run("bill", "close", "2024-02")
    place.run("account", "reverse", "A1-2024-01", "--reason", "wrong")
    place.run("bill", "close", "2024-01")
    for number in (1, 2):
        with place.store.read() as conn:
            whole, short = bills.bills(conn, month(number, 2024)), listed(conn, month(number, 2024))
        assert len(whole) == len(short) >= 2
        for one, item in zip(whole, short, strict=True):
            energy = next((d.value for d in one.determinants if d.name == "import_kwh"), None)
            same = (one.number, one.account, one.tariff, one.state, one.replaces, one.reversed_by)
            assert (*same, energy, one.total, one.currency, one.holds) == (
                item.number, item.account, item.tariff, item.state, item.replaces, item.reversed_by,
                item.energy, item.total, item.currency, item.holds,
            )  # fmt: skip


def test_a_month_billed_anew_is_told_as_such(place: Place) -> None:
    place.run("bill", "close", "2024-01", "--account", "A1")
    place.run("account", "reverse", "A1-2024-01", "--reason", "wrong")
    place.run("bill", "close", "2024-01", "--account", "A1")
    first, second = place.json("bill", "list", "2024-01")
    assert (first["number"], first["reversed_by"], first["sequence"]) == ("A1-2024-01", "R000001", 0)
    assert (second["number"], second["replaces"], second["sequence"]) == ("A1-2024-01.1", "A1-2024-01", 1)
    assert second["invoice"] == "B000002"
    assert "taken back by ledger entry R000001" in place.run("bill", "show", "A1-2024-01")
    assert "replaces A1-2024-01" in place.run("bill", "show", "A1-2024-01.1")


def test_runs_and_cycles_are_on_record(place: Place) -> None:
    assert place.refused("bill", "close", "2024-01", "--cycle", "mill") == (
        "there is no billing cycle 'mill' -> known: town"
    )
    assert "billing cycle town: no run yet; next on " in place.run("status")
    assert "1 issued, 1 held" in place.run("bill", "close", "2024-01", "--cycle", "town", "--processes", "2")
    (run,) = place.json("bill", "runs")
    assert (run["cycle"], run["month"], run["issued"], run["held"], run["detail"]) == ("town", "2024-01", 1, 1, "")
    assert run["asked_by"].endswith("on the command line")
    assert "town" in place.run("bill", "runs")
    (line,) = place.json("status")["billing"]
    assert line.startswith("billing cycle town: 2024-01 closed ")
    assert ", 1 issued, 1 held; next on " in line


def test_a_draft_of_a_month_that_has_not_ended(place: Place) -> None:
    rows = [freeze(local(f"2024-03-{day:02d}T00:00"), value) for day, value in ((8, "3000"), (15, "3100"))]
    with place.store.read() as conn:
        meter = registry.meter(conn, "M-A1")
        account = registry.account(conn, "A1")
    assert meter is not None
    assert account is not None
    feed(place.store, add_meter(place.store, "M-A1"), ReadKind.DAILY_FREEZE, rows)
    with place.store.read() as conn:
        book = Book.read(conn, [place.tariff])
        made = preview(conn, book, account, 2024, 3, now=NOW)
        earlier = preview(conn, book, account, 2024, 3, now=NOW, until=date(2024, 3, 8))
        missing = preview(conn, book, account, 2024, 3, now=NOW, until=date(2024, 3, 9))
    assert (made.bill.state, made.bill.window.start, made.bill.window.end) == (
        "draft",
        month(3, 2024).start,
        rows[1].at,
    )
    assert [(line.code, line.amount) for line in made.bill.lines] == [
        ("energy", Decimal("100.00")),
        ("service", Decimal("12.00")),  # in full: the month will be a whole one
    ]
    assert (made.bill.total, made.counts) == (Decimal("112.00"), ((Quality.VALID, 2),))
    assert earlier.bill.total == Decimal("62.00")
    assert (missing.bill.state, [hold.code for hold in missing.bill.holds]) == ("held", ["register_absent"])
    told = place.json("bill", "preview", "A1", "--month", "2024-03", "--until", "2024-03-15")
    assert (told["state"], told["total"], told["rests_on"]) == ("draft", "112.00", {"valid": 2})
    assert told["determinants"] == {"import_kwh": "200"}
    assert "DRAFT of a bill, not issued" in place.run("bill", "preview", "A1", "--month", "2024-03")
    assert "unknown account 'A9'" in place.refused("bill", "preview", "A9")
    pdf = place.path.with_name("draft.pdf")
    said = place.run("bill", "preview", "A1", "--month", "2024-03", "--pdf", str(pdf), "--language", "en")
    assert f"wrote {pdf}" in said
    text = all_text(pdf.read_bytes())
    assert "DRAFT" in text
    assert "112.00" in text
    missing_folder = str(place.path.parent / "none" / "draft.pdf")
    assert "can't write" in place.refused("bill", "preview", "A1", "--month", "2024-03", "--pdf", missing_folder)
    assert "2024-05-01 is not in the billing period" in place.refused(
        "bill", "preview", "A1", "--month", "2024-03", "--until", "2024-05-01"
    )
    with place.store.read() as conn:
        assert conn.execute(bill_table.select()).all() == []  # nothing of it was stored
        assert bills.bills(conn, month(3, 2024)) == []


def test_a_draft_needs_a_day(place: Place) -> None:
    with place.store.read() as conn:
        account = registry.account(conn, "A1")
        assert account is not None
        book = Book.read(conn, [place.tariff])
        with pytest.raises(HeadendError, match="2024-03 has no whole day of account A1 yet"):
            preview(conn, book, account, 2024, 3, now=local("2024-03-01T23:00"))
        with pytest.raises(HeadendError, match="account A1 is not in force in 2021-12"):
            preview(conn, book, account, 2021, 12, now=NOW)


def test_what_is_no_amount_and_what_is_no_text_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.refused("account", "pay", "A1", "-5", "--reference", "r") == (
        "'-5' is no amount -> write it like 120.50"
    )
    monkeypatch.setattr(sys, "argv", ["headend", "bill", "show", "\udcff", "--site", str(place.path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: an argument holds bytes that are no text -> write it in UTF-8\n"
