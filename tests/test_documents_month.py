"""A month's documents as files: the same by any number of processes, of corrected bills too, whatever came later."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from billing.documents.bill_pdf import bill_pdf
from billing.documents.content import bill_content
from billing.documents.month import Wanted, numbers_of, write_month
from billing.run import pool
from config.tariff_files import tariff_from_text
from headend.cli import cli
from headend.model import Quality, ReadKind
from headend.store import Store, open_store
from tests.billing_support import NOW, SHANGHAI, feed, freeze, month, points
from tests.corrections_kit import FLAT, adjust, again, close, correct, customer, edit
from tests.documents_kit import UTILITY, all_text, page_texts

CORRECTED = "A1-2026-06.1"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Town:
    """A1's June was billed wrongly and corrected, after an adjustment for May was on it; A2 is held, A3 estimated."""

    folder: Path
    store: Store
    pages: dict[str, bytes]

    def page(self, number: str, language: str = "both") -> bytes:
        with self.store.read() as conn:
            return bill_pdf(bill_content(conn, number, UTILITY, tariff_from_text), language)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    text = f'[site]\nname = "{UTILITY}"\nzone = "{SHANGHAI}"\n[[line]]\nname = "L1"\nendpoint = "tcp://127.0.0.1:9"\n'
    (folder / "site.toml").write_text(text, encoding="utf-8")
    store = open_store(f"sqlite:///{folder / 'headend.db'}")
    meter = customer(store, "100", "400", "700")
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(5).start, "0")])
    june = points(month(6).start, 3600, "100", [Decimal("0.40")] * 720)
    feed(store, meter, ReadKind.CURVE, june)
    close(store, FLAT, 5)
    with store.write() as conn:
        adjust(conn, "A1-2026-05", "抄表有误", kwh=Decimal("-10"), price=Decimal("0.5"))
    customer(store, account="A2")
    guessed = customer(store, "0", account="A3")
    feed(store, guessed, ReadKind.DAILY_FREEZE, [freeze(month(7).start, "50", quality=Quality.ESTIMATED)])
    close(store, FLAT, 6)
    edit(store, meter, 7, "390")
    town = Town(folder, store, {})
    assert [made.new.number for made in correct(store, "A1-2026-06").made] == [CORRECTED]
    town.pages.update({number: town.page(number) for number in ("A1-2026-06", CORRECTED)})
    edit(store, meter, 6, "99")  # what is known later
    changed = [point for point in june if point.at < month(6).start + timedelta(days=3)][5:]
    feed(store, meter, ReadKind.CURVE, [freeze(p.at, p.value + 1) for p in changed[:1]])
    close(store, FLAT, 7, now=NOW + timedelta(days=40))
    yield town
    store.close()


def test_a_corrected_bill_says_what_it_replaces_and_what_it_holds(town: Town) -> None:
    text = all_text(town.pages[CORRECTED])
    for words in (
        "本账单更正并代替账单 A1-2026-06。",
        "This bill corrects bill A1-2026-06",
        "390.00 人工 / edited",
        "以前账单调整",
        "关于账单 A1-2026-05 的调整：抄表有误",
        "adjustment for bill A1-2026-05: 抄表有误",
        "changed by a person",
    ):
        assert words in text
    old = all_text(town.pages["A1-2026-06"])
    assert "taken back by entry R000001" in old
    assert "corrects bill" not in old


def test_a_corrected_bill_has_the_same_page_whatever_is_known_later(town: Town) -> None:
    for number, page in town.pages.items():
        assert town.page(number) == page
    assert again(town.store, CORRECTED) == []
    assert town.page(CORRECTED, "zh") != town.pages[CORRECTED]


def test_an_estimated_end_is_marked(town: Town) -> None:
    text = all_text(town.page("A3-2026-06", "en"))
    assert "50.00 estimated" in text
    assert "1 actual, 1 estimated" in text


def _export(town: Town, folder: Path, executor: Executor | None = None, language: str = "both") -> dict[str, bytes]:
    folder.mkdir()
    with town.store.read() as conn:
        numbers = numbers_of(conn, month(6))
    wanted = Wanted(folder, ("pdf", "json", "csv"), UTILITY, language, tariff_from_text)
    made = write_month(town.store, numbers, wanted, executor=executor)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (made.bills, made.held, made.files) == (4, 1, len(files))
    return files


class Elsewhere(Executor):
    """Does the work at once, with what a worker in another process would get."""

    def submit(self, function: Any, /, *words: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        function, words = pickle.loads(pickle.dumps((function, words)))
        future.set_result(function(*words, **named))
        return future


def test_a_month_is_written_bill_by_bill_in_the_order_of_numbers(town: Town, tmp_path: Path) -> None:
    alone = _export(town, tmp_path / "alone")
    assert _export(town, tmp_path / "shared", Elsewhere()) == alone
    assert alone["A1-2026-06.1.pdf"] == town.pages[CORRECTED]
    assert "A2-2026-06.pdf" not in alone
    rows = list(csv.DictReader(alone["bills.csv"].decode().splitlines()))
    assert [(row["bill"], row["state"], row["replaces"], row["reversed_by"]) for row in rows] == [
        ("A1-2026-06", "issued", "", "R000001"),
        ("A1-2026-06.1", "issued", "A1-2026-06", ""),
        ("A2-2026-06", "held", "", ""),
        ("A3-2026-06", "issued", "", ""),
    ]
    lines = list(csv.DictReader(alone["lines.csv"].decode().splitlines()))
    for row in rows:
        amounts = [Decimal(line["amount"]) for line in lines if line["bill"] == row["bill"]]
        assert sum(amounts, Decimal(0)) == Decimal(row["total"] or 0)
    data = json.loads(alone["A1-2026-06.1.json"])
    assert (data["replaces"], data["sequence"], data["reversed_by"]) == ("A1-2026-06", 1, "")


def test_every_bill_of_the_town_is_one_page(town: Town) -> None:
    for number in ("A1-2026-06", CORRECTED, "A3-2026-06"):
        for language in ("zh", "en", "both"):
            assert len(page_texts(town.page(number, language))) == 1


@pytest.mark.slow
def test_processes_and_surroundings_change_no_byte(town: Town, tmp_path: Path) -> None:
    alone = _export(town, tmp_path / "alone")
    with pool(2) as executor:
        assert _export(town, tmp_path / "shared", executor) == alone
    for number, (zone, language, seed) in enumerate((("America/Lima", "C", "7"), ("Asia/Tokyo", "de_DE.UTF-8", "99"))):
        path = tmp_path / f"{number}.pdf"
        words = ["bill", "pdf", CORRECTED, "-o", str(path), "--site", str(town.folder / "site.toml")]
        surroundings = os.environ | {"TZ": zone, "LC_ALL": language, "LANG": language, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-m", "headend", *words]
        subprocess.run(command, cwd=ROOT, env=surroundings, check=True, capture_output=True)
        assert path.read_bytes() == town.pages[CORRECTED]


@pytest.mark.slow
def test_export_shares_the_bills_out(town: Town, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, processes in zip(folders, ("1", "2"), strict=True):
        words = ["bill", "export", "2026-06", "-o", str(folder), "--format", "pdf,csv", "--processes", processes]
        result = CliRunner().invoke(cli, [*words, "--site", str(town.folder / "site.toml")])
        assert result.exit_code == 0, result.output
        assert "wrote 5 files of 4 bills" in " ".join(result.output.split())
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
