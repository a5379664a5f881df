"""Bills as PDF: what is said in them, in fonts that have it, the same bytes every time, no row cut."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.charges import Household, Step, StepAdder, StepTable
from billing.documents import words
from billing.documents.bill_pdf import bill_pdf, tou_shares
from billing.documents.content import StepProgress, step_progress
from billing.documents.fonts import BOLD, CHINESE, REGULAR, fold, font, runs, width, wrap
from billing.documents.words import GROUPS, LANGUAGES, group_of, line_label
from billing.model import Determinant
from tests.billing_support import shipped
from tests.documents_kit import (
    CUSTOMER,
    UTILITY,
    all_text,
    boxes,
    boxes_for_nothing,
    content,
    factory_bill,
    fonts,
    held,
    household_bill,
    line,
    opened,
    page_texts,
)


@pytest.fixture(scope="module")
def documents() -> dict[str, bytes]:
    """The household's bill in each language."""
    return {language: bill_pdf(content(), language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def long_bill() -> bytes:
    return bill_pdf(content(factory_bill(), steps=None), "both")


# -- what is said ------------------------------------------------------------------------------------------------------


def test_a_bill_says_who_when_and_how_much(documents: dict[str, bytes]) -> None:
    for text in map(all_text, documents.values()):
        for said in (UTILITY, "A1-2026-06", "B000123", "000012345678", "U-A1", "2026-06-01 – 2026-06-30", "2026-07-02",
                     "2026-07-31", "1,234.56", "1,634.56", "¥197.34", "250.5", "0.568", "142.28", "43.06", "12.00",
                     "Zhejiang residential 居民电价"):  # fmt: skip
            assert said in text
    assert sum((one.amount for one in household_bill().lines), Decimal(0)) == Decimal("197.34")


def test_each_language_speaks_for_itself(documents: dict[str, bytes]) -> None:
    zh, en, both = (all_text(documents[language]) for language in ("zh", "en", "both"))
    for said in (
        "电费账单",
        "户名",
        "应付合计",
        "大写 人民币壹佰玖拾柒元叁角肆分",
        "峰时段电量",
        "第2档加价",
        "如何阅读本账单",
    ):
        assert said in zh
        assert said in both
    for said in ("Electricity bill", "Customer", "Amount due", "Step 2, addition", "How to read this bill", "peak"):
        assert said in en
        assert said in both
        assert said not in zh
    assert "电费账单" not in en
    assert "大写" not in en


def test_an_estimated_reading_is_marked_and_an_actual_one_is_not(documents: dict[str, bytes]) -> None:
    text = all_text(documents["en"])
    assert "1,234.56 actual" in text
    assert "1,634.56 estimated" in text
    assert "rests on readings of registers: 1 actual, 1 estimated; interval values: 1,788 actual, 12 estimated." in text
    assert "Readings marked “estimated”" in text
    bill = household_bill()
    first = bill.determinants[0]
    read = replace(bill, determinants=(Determinant("import_kwh", first.value, "kWh"),))
    assert "marked “estimated”" not in all_text(bill_pdf(content(read), "en"))


def test_comparison_with_the_month_before_and_the_year_before(documents: dict[str, bytes]) -> None:
    text = all_text(documents["en"])
    assert "320 kWh (+25 %)" in text
    assert "500 kWh (-20 %)" in text
    alone = all_text(bill_pdf(content(past=()), "en"))
    assert "Month before -" in alone
    assert "%)" not in alone


def test_what_a_customer_must_know_first() -> None:
    bill = household_bill(replaces="A1-2026-06-X", sequence=1)
    text = page_texts(bill_pdf(content(bill, reversed_by="R000007"), "both"))[0]
    assert "taken back by entry R000007" in text
    assert "由凭证 R000007 冲销" in text
    assert "corrects bill A1-2026-06-X" in text
    plain = all_text(bill_pdf(content(), "both"))
    assert "taken back" not in plain
    assert "corrects" not in plain


def test_a_due_date_only_where_there_is_one() -> None:
    assert "Due" not in all_text(bill_pdf(content(due=None), "en")).replace("Amount due", "")


def test_a_bill_without_curve_or_steps_shows_none() -> None:
    text = all_text(bill_pdf(content(steps=None, usage=None), "en"))
    assert "Steps:" not in text  # nor is it told how to read them
    assert "Energy by day" not in text
    assert "Average day" not in text
    assert "Steps Step 1" not in text
    assert "Energy by time of use" in text  # by its lines


def test_a_credit_is_no_debt() -> None:
    bill = household_bill(lines=(line("export_credit", "100", "kWh", "-0.4", "export_kwh"),), total=Decimal("-40.00"))
    text = all_text(bill_pdf(content(bill), "both"))
    assert "应退合计 / Credit" in text
    assert "人民币肆拾元整" in text
    assert "Amount due" not in text


def test_a_draft_is_marked_on_every_page_and_a_held_bill_has_no_document() -> None:
    draft = factory_bill(state="draft", issued_at=None)
    assert all("DRAFT" in text for text in page_texts(bill_pdf(content(draft), "en")))
    assert "DRAFT" not in all_text(bill_pdf(content(), "en"))
    with pytest.raises(ValueError, match="is held"):
        bill_pdf(content(held()))


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_long_bill_flows_over_pages_with_whole_rows(long_bill: bytes) -> None:
    pages = page_texts(long_bill)
    assert len(pages) >= 3
    for number, text in enumerate(pages, start=1):
        assert f"Page {number} of {len(pages)}" in text
    for one in factory_bill().lines:
        amount = (
            f"{one.price.normalize():,f} {one.amount:,f}"
            if one.price < 1 and one.price != Decimal("0.6")
            else f"{one.amount:,f}"
        )
        label = line_label(one, "both") or one.text
        assert any(label in text and amount in text for text in pages), label
    rows_on = [text.count("Step ") for text in pages if "费用明细" in text or "项目 / Item" in text]
    assert sum(rows_on) >= 48
    assert all("单价/基数" in text for text, rows in zip(pages, rows_on, strict=False) if rows)  # the head, again


def test_nothing_leaves_the_page_or_reaches_into_its_foot(long_bill: bytes, documents: dict[str, bytes]) -> None:
    for pdf in (long_bill, *documents.values()):
        found = boxes(pdf)
        assert len(found) > 60
        for _, left, bottom, right, top in found:
            assert left >= 38
            assert right <= 595.3 - 38
            assert top <= 842 - 30
            assert bottom >= 44 or (bottom >= 24 and top <= 38)  # the text above the foot, or the foot itself


def test_the_groups_of_a_long_bill_stand_in_their_order(long_bill: bytes) -> None:
    text = all_text(long_bill)
    heads = ("电量电费", "基本电费", "固定费用", "附加 /", "力调电费", "调整 /", "税 /")
    places = [text.index(head, text.index("费用明细")) for head in heads]
    assert places == sorted(places)
    assert "Losses of transformer and line 412 kWh" in text


def test_the_same_bill_gives_the_same_bytes(documents: dict[str, bytes]) -> None:
    assert bill_pdf(content(), "both") == documents["both"]
    assert bill_pdf(content(customer="someone else"), "both") != documents["both"]


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(documents: dict[str, bytes]) -> None:
    code = (
        "import sys; from tests.documents_kit import content; from billing.documents.bill_pdf import bill_pdf;"
        "sys.stdout.buffer.write(bill_pdf(content(), 'both'))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "TZ": "America/Lima"}
    root = Path(__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True, env=environment)
    assert other.stdout == documents["both"]


# -- fonts -------------------------------------------------------------------------------------------------------------


def test_every_font_is_embedded_and_draws_no_box_for_a_missing_character(documents: dict[str, bytes]) -> None:
    for pdf in documents.values():
        used = fonts(pdf)
        assert len(used) >= 2
        assert all(used.values())
        for program in used:
            assert boxes_for_nothing(program) == []


def test_rare_characters_of_a_name_are_shown_or_told_by_number(documents: dict[str, bytes]) -> None:
    assert "𠮷" in CUSTOMER
    for text in map(all_text, documents.values()):
        assert "张U+20BB7䶮 (Müller)" in text
    rare = "㐂㛃䶮龘𪚥\u202eabc\u0000\tЖΩ€🙂"
    text = all_text(bill_pdf(content(customer=rare), "en"))
    assert "㐂㛃䶮龘U+2A6A5abc" in text
    assert "ЖΩ€U+1F642" in text


def test_every_word_of_the_tables_has_its_glyphs() -> None:
    tables = (words._WORDS, words._CODES, words._PERIODS, words._UNITS, words._KINDS, words._REGISTERS, words._FACTS)
    texts = [text for table in tables for pair in table.values() for text in pair]
    texts += [text.format("") for pair in words.NOTES.values() for text in pair]
    for text in texts:
        for bold in (False, True):
            assert fold(text, bold) == text


@settings(max_examples=150)
@given(st.text(max_size=40), st.booleans())
def test_any_text_is_written_with_glyphs_that_exist(text: str, bold: bool) -> None:
    for name, written in runs(text, bold):
        assert name in (BOLD if bold else REGULAR, CHINESE)
        assert all(font(name).face.charToGlyph.get(ord(character), 0) > 0 for character in written)


@settings(max_examples=100)
@given(st.text(alphabet="ab c电费，。 longword1", max_size=60), st.integers(30, 200))
def test_wrapped_lines_fit_and_lose_nothing(text: str, room: int) -> None:
    lines = wrap(text, 9, room)
    assert all(width(one, 9) <= room for one in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


# -- what the pictures are made of -------------------------------------------------------------------------------------


def test_energy_by_period_is_summed_over_steps() -> None:
    shares = dict(tou_shares(factory_bill(3)))
    assert list(shares) == ["sharp", "peak", "flat", "valley"]
    assert shares["peak"] == Decimal("1001.25") + Decimal("1002.25") + Decimal("1003.25")
    assert tou_shares(household_bill()) == [("peak", Decimal("250.5")), ("valley", Decimal("149.5"))]


def test_steps_are_shown_as_the_lines_were_made() -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    expected = StepProgress("year", Decimal(2600), Decimal(400), (Decimal(2760), Decimal(4800)))
    assert step_progress(household_bill(), tariff) == expected
    lines = (*household_bill().lines[:2], line("step2_adder", "100", "kWh", "0.05", "import_kwh"))
    assert step_progress(household_bill(lines=lines), tariff) is None  # made with other limits
    assert step_progress(household_bill(), shipped("example-flat")) is None


def test_a_large_household_has_higher_limits() -> None:
    table = StepTable(tuple(range(1, 13)), (Step(Decimal(2760), Decimal(0)), Step(None, Decimal("0.05"))))
    charge = StepAdder("year", (table,), household=Household(5, Decimal(100)))
    tariff = replace(shipped("cn-zhejiang-residential-tou-step"), charges=(charge,))
    bill = household_bill(lines=household_bill().lines[:2])
    five = replace(bill, determinants=(*bill.determinants, Determinant("people", Decimal(5), "")))
    four = replace(bill, determinants=(*bill.determinants, Determinant("people", Decimal(4), "")))
    assert [found.limits for one in (five, four) if (found := step_progress(one, tariff))] == [
        (Decimal(3960),),
        (Decimal(2760),),
    ]


def test_every_line_has_a_group_and_unknown_codes_keep_their_text() -> None:
    codes = {
        "energy": "energy", "energy_step2_peak": "energy", "step2_adder": "energy", "basic_excess": "demand",
        "pf_adjust": "power_factor", "export_credit": "export", "adjustment": "adjustment", "rounding": "rounding",
    }  # fmt: skip
    for code, group in codes.items():
        assert group_of(line(code, "1", "kWh", "1", "import_kwh")) == group
    assert group_of(line("fund", "1", "kWh", "1", "import_kwh@2026-06-16")) == "surcharge"
    assert group_of(line("vat", "13", "%", "1", "")) == "tax"
    assert group_of(line("strange", "1", "x", "1", "nothing")) == "other"
    assert set(codes.values()) <= set(GROUPS)
    assert line_label(line("own_code", "1", "kWh", "1", "import_kwh"), "both") == ""


def test_a_part_of_a_period_says_from_when() -> None:
    one = replace(household_bill().lines[0], determinant="import_kwh_peak@2026-06-16")
    bill = household_bill(lines=(one, *household_bill().lines[1:]))
    assert "from 2026-06-16" in all_text(bill_pdf(content(bill, steps=None), "en"))


def test_pages_can_be_drawn() -> None:
    with opened(bill_pdf(content(), "both")) as document:
        page = document[0]
        picture = page.render(scale=0.5).to_pil().convert("L")
        page.close()
    dark = sum(picture.histogram()[:128])
    assert dark > 500
