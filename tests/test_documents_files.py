"""Documents of a store: what is gathered for a bill, exports of a month, statements, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import ledger
from billing import store as bill_store
from billing.calendar import PeriodSpan, spans
from billing.documents.content import bill_content, posted
from billing.documents.plain import bill_data
from billing.documents.spreadsheet import BILL_HEAD, LINE_HEAD, cell, csv_text
from billing.documents.statement import extract, statement_csv, statement_json, statement_pdf
from billing.ledger import Entry, Statement
from billing.model import Hold
from billing.rating.rate import tou_charge
from config.tariff_files import tariff_from_text
from headend.cli import cli
from headend.errors import HeadendError, UsageError
from headend.model import ReadKind, Window
from headend.store import Store, open_store
from tests.billing_support import (
    NOW,
    SHANGHAI,
    add_meter,
    connect,
    feed,
    feed_month,
    month,
    points,
    shipped,
)
from tests.documents_kit import JUNE, UTILITY, all_text, held, household_bill, page_texts

TARIFF = "cn-zhejiang-residential-tou-step"
MAY = month(5)
MANUAL = Path(__file__).parents[1] / "docs" / "documents.md"


@dataclass(frozen=True, slots=True)
class Place:
    """A site with a household read over June and billed in May and June, and what it truly used."""

    folder: Path
    store: Store
    energies: tuple[Decimal, ...]
    as_of: int

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, [*words, "--site", str(self.folder / "site.toml")])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("documents")
    text = f'[site]\nname = "{UTILITY}"\nzone = "{SHANGHAI}"\n[[line]]\nname = "L1"\nendpoint = "tcp://127.0.0.1:9"\n'
    (folder / "site.toml").write_text(text, encoding="utf-8")
    store = open_store(f"sqlite:///{folder / 'headend.db'}")
    tariff = shipped(TARIFF)
    meter = add_meter(store)
    connect(store, meter, tariff)
    energies = feed_month(store, meter, JUNE)
    with store.write() as conn:
        as_of = bill_store.highest_outcome(conn)
        charge = tou_charge(tariff)
        assert charge is not None
        split = {JUNE: spans(charge.schedule, JUNE, SHANGHAI)}
        bill_store.put_tariff(conn, tariff, split, NOW)
        known = {"tariff": tariff.id, "tariff_version": tariff.version, "tariff_sha": tariff.sha, "as_of": as_of}
        june = household_bill(**known)
        may = replace(june, number="A1-2026-05", window=MAY, determinants=june.determinants[:1])
        for bill, at in ((may, JUNE.start), (june, JUNE.end + timedelta(days=1))):
            assert bill_store.put(conn, bill, at) == "issued"
            ledger.post_bills(conn, [bill.number], at)
        other = replace(held(), number="A2-2026-06", account="A2", tariff_sha="")
        assert bill_store.put(conn, other, NOW) == "held"
    yield Place(folder, store, tuple(energies), as_of)
    store.close()


# -- what is gathered --------------------------------------------------------------------------------------------------


def test_days_and_hours_are_what_was_truly_used(place: Place) -> None:
    with place.store.read() as conn:
        found = bill_content(conn, "A1-2026-06", UTILITY, tariff_from_text)
    assert found.usage is not None
    by_day = [sum(place.energies[day * 96 : day * 96 + 96], Decimal(0)) for day in range(30)]
    assert [day.energy for day in found.usage.days] == by_day
    assert [day.day.day for day in found.usage.days] == list(range(1, 31))
    seven = sum((sum(place.energies[day * 96 + 28 : day * 96 + 32], Decimal(0)) for day in range(30)), Decimal(0))
    assert found.usage.hours[7] == seven / 30
    assert found.usage.periods == tuple("peak" if 8 <= hour < 22 else "valley" for hour in range(24))


def test_a_bill_knows_its_ledger_entry_its_customer_its_steps_and_its_month_before(place: Place) -> None:
    with place.store.read() as conn:
        found = bill_content(conn, "A1-2026-06", UTILITY, tariff_from_text)
    assert (found.invoice, found.customer, found.reversed_by) == ("B000002", "C1", "")
    assert [(past.number, past.energy) for past in found.past] == [("A1-2026-05", Decimal(400))]
    assert found.steps is not None
    assert found.steps.limits == (Decimal(2760), Decimal(4800))
    assert found.title == shipped(TARIFF).title


def test_without_the_tariff_there_are_no_limits_but_a_document(place: Place) -> None:
    with place.store.read() as conn:
        assert bill_content(conn, "A1-2026-06", UTILITY).steps is None
        assert bill_content(conn, "A1-2026-06", UTILITY, lambda _text: None).steps is None


def test_a_period_in_parts_has_the_hours_of_each_part(store: Store) -> None:
    """Two versions of a tariff: for 20 days nights are valley under one, for 10 all is peak under the other."""
    meter, old, new = add_meter(store), shipped(TARIFF), replace(shipped(TARIFF), version="2", sha="two")
    connect(store, meter, old)
    feed_month(store, meter, JUNE)
    middle = JUNE.start + timedelta(days=20)
    first, second = Window(JUNE.start, middle), Window(middle, JUNE.end)
    charge = tou_charge(old)
    assert charge is not None
    with store.write() as conn:
        bill_store.put_tariff(conn, old, {first: spans(charge.schedule, first, SHANGHAI)}, NOW)
        bill_store.put_tariff(conn, new, {second: [PeriodSpan(second.start, second.end, "peak")]}, NOW)
        segments = ((JUNE.start, old.sha), (middle, new.sha))
        bill_store.put(conn, household_bill(segments=segments, tariff_sha=new.sha), NOW)
        found = bill_content(conn, "A1-2026-06", UTILITY, tariff_from_text)
    assert found.usage is not None
    assert found.usage.periods == tuple("peak" if 8 <= hour < 22 else "valley" for hour in range(24))
    assert found.steps is None


def test_what_comes_later_changes_no_document(store: Store) -> None:
    """A late value replaces the one a bill saw, and a bill of the month before is issued after it."""
    meter = add_meter(store)
    connect(store, meter, shipped("example-flat"))
    start = JUNE.start
    feed(store, meter, ReadKind.CURVE, points(start, 900, "100", [Decimal("0.10")] * 96))
    with store.write() as conn:
        as_of = bill_store.highest_outcome(conn)
        bill_store.put(conn, household_bill(as_of=as_of), NOW)
        before = bill_content(conn, "A1-2026-06", UTILITY)
    assert before.usage is not None
    assert before.usage.days[0].energy == Decimal("9.6")
    later = points(start, 900, "100", [Decimal("0.10")] * 40)[-1]
    changed = replace(later, value=later.value + Decimal("0.05"), taken_at=later.taken_at + timedelta(days=3))
    feed(store, meter, ReadKind.CURVE, [changed])
    feed(store, meter, ReadKind.CURVE, points(start + timedelta(days=2), 900, "130", [Decimal("0.20")] * 96))
    with store.write() as conn:
        may = household_bill(number="A1-2026-05", window=MAY)
        bill_store.put(conn, may, NOW + timedelta(days=1))
        after = bill_content(conn, "A1-2026-06", UTILITY)
    assert after.usage == before.usage
    assert after.past == before.past == ()


def test_a_reversed_bill_says_so_and_its_month_is_compared_no_more(store: Store) -> None:
    with store.write() as conn:
        bill_store.put(conn, household_bill(number="A1-2026-05", window=MAY), NOW)
        ledger.post_bills(conn, ["A1-2026-05"], NOW)
        back = ledger.reverse(conn, "A1-2026-05", "wrong meter", NOW + timedelta(hours=1))
        bill_store.put(conn, household_bill(), NOW + timedelta(hours=2))
        found = bill_content(conn, "A1-2026-05", UTILITY)
        assert found.reversed_by == back.number
        assert posted(conn, ["A1-2026-05", "A1-2026-06"]) == {"A1-2026-05": ("B000001", back.number)}
        assert bill_content(conn, "A1-2026-06", UTILITY).past == ()


def test_a_held_bill_is_refused_with_its_reason(place: Place) -> None:
    with place.store.read() as conn:
        with pytest.raises(UsageError, match="is held, so there is no document of it: M1: no reading at the end"):
            bill_content(conn, "A2-2026-06", UTILITY)
        with pytest.raises(UsageError, match="unknown bill 'nothing'"):
            bill_content(conn, "nothing", UTILITY)


# -- the command line --------------------------------------------------------------------------------------------------


def test_bill_pdf_writes_the_same_file_again(place: Place, tmp_path: Path) -> None:
    paths = [tmp_path / "1.pdf", tmp_path / "2.pdf"]
    for path in paths:
        words = ("-o", str(path), "--language", "en", "--due-days", "14")
        result = place.run("bill", "pdf", "A1-2026-06", *words)
        assert result.exit_code == 0, result.output
    assert paths[0].read_bytes() == paths[1].read_bytes()
    text = all_text(paths[0].read_bytes())
    for said in (
        UTILITY,
        "C1",
        "B000002",
        "Steps",
        "2,760",
        "4,800",
        "Energy by day",
        "Average day",
        "¥197.34",
        "2026-07-16",
    ):
        assert said in text


def test_export_writes_a_month_in_every_format(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "june"
    result = place.run("bill", "export", "2026-06", "-o", str(folder), "--format", "pdf,json,csv", "--bom")
    assert result.exit_code == 0, result.output
    assert "1 held, without a PDF" in result.output
    names = ["A1-2026-06.json", "A1-2026-06.pdf", "A2-2026-06.json", "bills.csv", "lines.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    raw = (folder / "bills.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    bills = list(csv.DictReader(StringIO(raw.decode("utf-8-sig"))))
    assert [(row["bill"], row["state"], row["total"], row["kwh"], row["invoice"]) for row in bills] == [
        ("A1-2026-06", "issued", "197.34", "400", "B000002"),
        ("A2-2026-06", "held", "", "", ""),
    ]
    assert (bills[0]["first_day"], bills[0]["last_day"]) == ("2026-06-01", "2026-06-30")
    lines = list(csv.DictReader(StringIO((folder / "lines.csv").read_text("utf-8-sig"))))
    assert [(row["code"], row["group"], row["amount"]) for row in lines] == [
        ("energy_peak", "energy", "142.28"),
        ("energy_valley", "energy", "43.06"),
        ("step2_adder", "energy", "12.00"),
    ]
    assert sum(Decimal(row["amount"]) for row in lines) == Decimal(bills[0]["total"])


def test_json_holds_all_there_is_of_a_bill(place: Place, tmp_path: Path) -> None:
    result = place.run("bill", "export", "2026-06", "-o", str(tmp_path), "--format", "json")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "A1-2026-06.json").read_text("utf-8"))
    tariff = shipped(TARIFF)
    assert data["tariff"] == {"id": tariff.id, "version": tariff.version, "sha256": tariff.sha}
    assert (data["invoice"], data["as_of"], data["total"], data["findings"]) == ("B000002", place.as_of, "197.34", [])
    energy = data["determinants"][0]
    assert energy["used_before"] == "2600"
    assert energy["counts"] == {"valid": 1, "estimated": 1}
    assert [parent["kind"] for parent in energy["parents"]] == ["register", "used_before"]
    assert energy["parents"][0]["end"]["quality"] == "estimated"
    assert Decimal(energy["parents"][0]["value"]) == 400
    assert [parent["kind"] for parent in data["determinants"][1]["parents"]] == ["intervals", "derived"]
    reasons = json.loads((tmp_path / "A2-2026-06.json").read_text("utf-8"))
    assert reasons["holds"][0]["what"] == "no reading at the end"
    assert reasons["total"] is None


def test_the_example_of_the_manual_is_a_real_export_and_names_every_column(place: Place, tmp_path: Path) -> None:
    result = place.run("bill", "export", "2026-06", "-o", str(tmp_path), "--format", "json,csv")
    assert result.exit_code == 0, result.output
    manual = MANUAL.read_text("utf-8")
    shown = json.loads(manual.split("```json\n")[1].split("```")[0])
    data = json.loads((tmp_path / "A1-2026-06.json").read_text("utf-8"))
    data["tariff"]["sha256"] = shown["tariff"][
        "sha256"
    ]  # a new text of the tariff is another example, not another form
    assert data == shown
    told = set(re.findall(r"`(\w+)`", manual))
    reasons = json.loads((tmp_path / "A2-2026-06.json").read_text("utf-8"))
    assert _keys(data) | _keys(reasons) - {"valid", "estimated"} <= told | {"valid", "estimated"}
    for name, head in (("bills.csv", BILL_HEAD), ("lines.csv", LINE_HEAD)):
        assert (tmp_path / name).read_text("utf-8").splitlines()[0].split(",") == list(head)
        section = manual.split(f"**{name}**")[1].split("\n\n")[0]
        assert tuple(re.findall(r"`(\w+)`", section)) == head


def _keys(data: object) -> set[str]:
    """Every key of an object and of what is in it."""
    if isinstance(data, dict):
        return set(data) | {key for value in data.values() for key in _keys(value)}
    return {key for value in data for key in _keys(value)} if isinstance(data, list) else set()


def test_findings_of_an_issued_bill_are_told_apart_from_holds() -> None:
    finding = Hold("high", "three times the month before", review=True)
    data = bill_data(household_bill(holds=(finding,)))
    assert data["holds"] == []
    assert data["findings"][0]["code"] == "high"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bill", "pdf", "A2-2026-06"), "is held"),
        (("bill", "pdf", "A1-2026-06", "-o", "/no/such/folder/x.pdf"), "can't write"),
        (("bill", "export", "2026-06", "-o", "OUT", "--format", "xls"), "unknown format 'xls'"),
        (("bill", "export", "2026-06", "-o", "OUT", "--format", ","), "unknown format"),
        (("bill", "export", "2030-01", "-o", "OUT"), "no bills of 2030-01"),
        (("account", "statement", "A9"), "unknown account 'A9'"),
        (("account", "statement", "A1", "--from", "2026-07-01", "--to", "2026-06-01"), "ends before it starts"),
    ],
)
def test_what_can_not_be_done_is_told(place: Place, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = place.run(*(word.replace("OUT", str(tmp_path / "out")) for word in words))
    assert isinstance(result.exception, HeadendError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_no_file_names_stay_apart(place: Place, tmp_path: Path) -> None:
    with place.store.write() as conn:
        for number in ("A/1-2026-03", "A:1-2026-03"):
            bill = household_bill(number=number, account=number, window=month(3))
            bill_store.put(conn, bill, NOW)
    result = place.run("bill", "export", "2026-03", "-o", str(tmp_path), "--format", "json")
    assert result.exit_code == 0, result.output
    found = sorted(tmp_path.iterdir())
    assert len(found) == 2
    assert {json.loads(path.read_text("utf-8"))["number"] for path in found} == {"A/1-2026-03", "A:1-2026-03"}


# -- tables for spreadsheets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", '=cmd|" /C calc"!A0'])
def test_a_formula_in_a_name_is_text_in_a_spreadsheet(text: str) -> None:
    assert cell(text) == f"'{text}"
    row = next(iter(csv.reader(StringIO(csv_text(("a",), [(text,)]).split("\r\n", 1)[1]))))
    assert row == [f"'{text}"]


def test_numbers_stay_numbers() -> None:
    assert [cell(value) for value in (Decimal("-12.30"), "-12.30", 7, None, Decimal("1E+3"))] == [
        "-12.30",
        "-12.30",
        "7",
        "",
        "1000",
    ]


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=2, max_size=4))
def test_any_texts_come_back_from_a_table(texts: list[str]) -> None:
    found = list(csv.reader(StringIO(csv_text(tuple("abcd"[: len(texts)]), [texts]), newline="")))
    assert [one.removeprefix("'") if one != text else one for one, text in zip(found[1], texts, strict=True)] == texts


# -- statements --------------------------------------------------------------------------------------------------------


def entries(count: int) -> Statement:
    made, balance = [], Decimal(0)
    for number in range(count):
        amount = Decimal(f"{100 + number}.00") if number % 2 == 0 else Decimal("-90.00")
        balance += amount
        kind = "bill" if number % 2 == 0 else "payment"
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
        made.append(Entry(f"{kind[0].upper()}{number:06d}", kind, at, f"R{number}", "农网", "CNY", amount, balance))
    return Statement("A1", tuple(made), (("CNY", balance),))


@settings(max_examples=60)
@given(st.integers(0, 30), st.integers(-2, 32), st.integers(-2, 32))
def test_an_extract_is_opening_plus_entries_is_closing(count: int, first: int, last: int) -> None:
    whole = entries(count)
    day = datetime(2026, 1, 1, tzinfo=UTC)
    start, end = day + timedelta(days=min(first, last)), day + timedelta(days=max(first, last))
    found = extract(whole, start=start, end=end)
    for currency, opening in found.opening:
        inside = sum((entry.amount for entry in found.entries if entry.currency == currency), Decimal(0))
        assert dict(found.closing)[currency] == opening + inside
        before = [entry.balance for entry in whole.entries if entry.at < start]
        assert opening == (before[-1] if before else 0)
    assert all(start <= entry.at < end for entry in found.entries)
    assert extract(whole).closing == whole.balances


def test_a_long_statement_flows_and_names_both_balances() -> None:
    found = extract(entries(90), "张三", datetime(2026, 1, 3, tzinfo=UTC))
    pdf = statement_pdf(found, UTILITY, SHANGHAI)
    pages = page_texts(pdf)
    assert len(pages) >= 3
    text = " ".join(pages)
    assert all(entry.number in text for entry in found.entries)
    assert "B000000" not in text
    assert "期初余额 / Opening balance (CNY) ¥10.00" in pages[0]
    assert f"¥{dict(found.closing)['CNY']:,f}" in pages[0]
    assert "张三" in pages[0]
    assert statement_pdf(found, UTILITY, SHANGHAI) == pdf
    assert "Nothing was posted" in all_text(statement_pdf(extract(entries(0)), UTILITY, SHANGHAI, "en"))


def test_a_statement_as_table_and_as_data() -> None:
    found = extract(entries(3), "=HYPERLINK()")
    rows = list(csv.DictReader(StringIO(statement_csv(found, SHANGHAI))))
    assert [(row["entry"], row["amount"], row["balance"]) for row in rows] == [
        ("opening", "", "0"),
        ("B000000", "100.00", "100.00"),
        ("P000001", "-90.00", "10.00"),
        ("B000002", "102.00", "112.00"),
        ("closing", "", "112.00"),
    ]
    assert rows[1]["at"] == "2026-01-01 08:00:00"
    data = statement_json(found)
    assert data["closing"] == {"CNY": "112.00"}
    assert [entry["balance"] for entry in data["entries"]] == ["100.00", "10.00", "112.00"]


def test_account_statement_on_the_command_line(place: Place, tmp_path: Path) -> None:
    for kind in ("pdf", "csv", "json"):
        path = tmp_path / f"s.{kind}"
        words = ("account", "statement", "A1", "--from", "2026-06-15", "--format", kind, "-o", str(path))
        result = place.run(*words)
        assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert data["opening"] == {"CNY": "197.34"}
    assert data["closing"] == {"CNY": "394.68"}
    assert [entry["number"] for entry in data["entries"]] == ["B000002"]
    assert "¥394.68" in all_text((tmp_path / "s.pdf").read_bytes())
    assert "B000002" in (tmp_path / "s.csv").read_text("utf-8")
