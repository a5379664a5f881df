"""Texts of lines in each language, prices under each other, what fits on a page, colours that can be told apart."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib.colors import Color, HexColor

from billing.documents import charts, sheet
from billing.documents.bill_pdf import bill_pdf, money
from billing.documents.phrases import own_words, words_of
from billing.documents.tables import charge_rows
from billing.model import Bill, BillLine, Determinant
from headend.model import Quality
from tests.documents_kit import (
    JUNE,
    all_text,
    content,
    end,
    factory_bill,
    household_bill,
    line,
    made,
    opened,
    page_texts,
    register,
)


def said(one: BillLine, language: str, *, parts: bool = False) -> tuple[str, str]:
    """What the table says of a line, and in small under it."""
    segments = ((JUNE.start, "a"), (JUNE.start, "b")) if parts else ()
    row = charge_rows(household_bill(lines=(one,), segments=segments), language)[0]
    return row.cells[0], row.small


@pytest.mark.parametrize(
    ("code", "unit", "determinant", "text", "zh", "en"),
    [
        ("energy_step1", "kWh", "import_kwh@2026-10-01", "energy, step 1, 1-15 Oct",
         ("第1档 (10月1日–15日)", ""), ("Step 1 (1–15 Oct)", "")),
        ("energy_peak", "kWh", "import_kwh_peak@2026-10-16", "energy, peak, 16 Oct",
         ("峰时段电量 (10月16日)", ""), ("peak (16 Oct)", "")),
        ("basic_demand", "kW", "contract_kw", "maximum demand, contract (maximum 1800 kW)",
         ("需量", "按合同需量（最大需量 1800 kW）"), ("Demand", "contract (maximum 1800 kW)")),
        ("basic_demand", "kW", "contract_kw",
         "demand, contract (maximum 9 kW), at least 80 % of 20 kW, 15 of 31 days, 1-15 Oct",
         ("需量 (10月1日–15日)", "按合同需量（最大需量 9 kW），不低于前期最高需量 20 kW 的 80%，按 15/31 天"),
         ("Demand (1–15 Oct)", "contract (maximum 9 kW), at least 80 % of 20 kW, 15 of 31 days")),
        ("basic_excess", "kW", "import_max_kw", "demand, above the limit", ("超合同需量", "超过允许上限的部分"),
         ("Demand above contract", "above the limit")),
        ("basic_capacity", "kVA", "capacity_kva", "capacity, 400 kVA for 15 of 30 days (1-15 Oct)",
         ("变压器容量 (10月1日–15日)", "400 kVA，按 15/30 天"), ("Capacity (1–15 Oct)", "400 kVA for 15 of 30 days")),
        ("pf_adjust", "%", "power_factor", "power factor 0.96, standard 0.90",
         ("功率因数调整", "功率因数 0.96，标准 0.90"), ("Power-factor adjustment", "power factor 0.96, standard 0.90")),
        ("fund", "kWh", "import_kwh", "water works fund", ("水利建设基金", ""), ("water works fund", "")),
        ("fund", "kWh", "import_kwh", "农网还贷资金 / rural grid fund", ("农网还贷资金", ""), ("rural grid fund", "")),
        ("fund", "kWh", "import_kwh", "a fund of ours", ("a fund of ours", ""), ("a fund of ours", "")),
        ("meter_rent", "month", "month", "meter rent, 12 of 30 days", ("meter rent", "按 12/30 天"),
         ("meter rent", "12 of 30 days")),
        ("energy_flat", "kWh", "import_kwh_flat", "大工业, flat", ("平时段电量", "大工业"), ("flat", "大工业")),
        ("adjustment", "kWh", "adjustment:ADJ000001", "A1-2026-04: read again, addition",
         ("以前账单调整", "A1-2026-04: read again, addition"),
         ("Adjustment of an earlier bill", "A1-2026-04: read again, addition")),
    ],
)  # fmt: skip
def test_a_line_is_told_in_the_language_of_its_document(
    code: str, unit: str, determinant: str, text: str, zh: tuple[str, str], en: tuple[str, str]
) -> None:
    one = line(code, "3", unit, "2", determinant, text)
    parts = "Oct" in text
    assert said(one, "zh", parts=parts) == zh
    assert said(one, "en", parts=parts) == en
    both = said(one, "both", parts=parts)
    assert all(word in both[0] for word in (zh[0].split(" (")[0], en[0].split(" (")[0]))


def test_days_are_only_those_of_a_part() -> None:
    one = line("rent", "1", "month", "2", "month", "rent, due 1-15 Oct")
    assert said(one, "zh") == ("rent, due 1-15 Oct", "")
    assert words_of("rent, 1-15 Oct", parts=False).days is None


@settings(max_examples=150)
@given(st.text(max_size=60), st.booleans(), st.sampled_from(("zh", "en")))
def test_no_text_of_a_tariff_is_lost(text: str, parts: bool, language: str) -> None:
    words = words_of(text, parts=parts)
    if not words.clauses and words.days is None:
        assert words.head == text
    halves = text.split(" / ")
    assert own_words(text, language) in (text, *halves)


def test_what_stands_under_lines_is_said_once() -> None:
    text = all_text(bill_pdf(content(factory_bill(1), steps=None), "zh"))
    assert text.count("大工业电度电费") == 1
    assert text.count("第1档") == 4


# -- numbers -----------------------------------------------------------------------------------------------------------


def _edges(pdf: bytes, texts: list[str]) -> dict[str, tuple[float, float]]:
    """Where each of these texts starts and ends on the first page."""
    found = {}
    with opened(pdf) as document:
        page = document[0]
        words = page.get_textpage()
        for text in texts:
            searcher = words.search(text, match_whole_word=True)
            where = searcher.get_next()
            assert where is not None, text
            start, count = where
            first, last = words.get_charbox(start), words.get_charbox(start + count - 1)
            found[text] = first[0], last[2]
            searcher.close()
        words.close()
        page.close()
    return found


def test_prices_have_no_needless_zeros_and_their_points_under_each_other() -> None:
    prices = ["1.028", "0.6425", "40.80", "0.00196875", "13.00"]
    lines = [line(f"c{n}", "7", "kWh", price, "import_kwh", f"charge {n}") for n, price in enumerate(prices)]
    pdf = bill_pdf(content(made("A1-2026-06", lines, []), steps=None, usage=None, past=()), "en")
    text = all_text(pdf)
    assert "1.028 " in text
    assert "1.0280" not in text
    edges = _edges(pdf, prices)
    digit = (edges["0.00196875"][1] - edges["0.6425"][1]) / 4
    assert digit > 3
    for price, (_, right) in edges.items():
        places = len(price.partition(".")[2])
        assert right == pytest.approx(edges["0.00196875"][1] - digit * (8 - places), abs=1.0), price


def test_money_has_the_places_of_its_currency() -> None:
    assert [money(Decimal(text), "CNY") for text in ("0", "-100", "1234.5", "0.05")] == [
        "¥0.00", "-¥100.00", "¥1,234.50", "¥0.05",
    ]  # fmt: skip


# -- what a bill rests on ----------------------------------------------------------------------------------------------


def _read(quality: Quality) -> Bill:
    part = register("import_kwh", "1", "401", end=end(JUNE.end, "401", quality))
    return replace(household_bill(), determinants=(Determinant("import_kwh", Decimal(400), "kWh", None, (), (part,)),))


@pytest.mark.parametrize(
    ("quality", "counted", "noted", "unsaid"),
    [
        (Quality.VALID, "2 actual.", "", "Readings marked"),
        (Quality.ESTIMATED, "1 actual, 1 estimated.", "worked out, not read", "by a person"),
        (Quality.EDITED, "1 actual, 1 edited.", "changed by a person", "worked out"),
    ],
)
def test_how_readings_came_about_is_counted_and_told(quality: Quality, counted: str, noted: str, unsaid: str) -> None:
    text = all_text(bill_pdf(content(_read(quality), steps=None), "en"))
    assert f"rests on readings of registers: {counted}" in text
    assert noted in text
    assert unsaid not in text


def test_the_parts_of_a_period_are_not_counted_twice() -> None:
    bill = household_bill()
    peak = bill.determinants[1]
    parts = tuple(replace(peak, name=f"{peak.name}@2026-06-{day}") for day in ("01", "16"))
    text = all_text(bill_pdf(content(replace(bill, determinants=(*bill.determinants, *parts))), "en"))
    assert "interval values: 1,788 actual, 12 estimated" in text


def test_a_customer_is_told_whom_to_ask() -> None:
    text = all_text(bill_pdf(content(), "both"))
    assert "请凭账单编号向某某市供电公司" in text
    assert "ask 某某市供电公司 Example Power and name the bill number" in text


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["zh", "en", "both"])
def test_a_household_s_bill_is_one_page(language: str) -> None:
    actual = replace(household_bill(), determinants=(_read(Quality.VALID).determinants[0],))
    pages = page_texts(bill_pdf(content(actual), language))
    assert len(pages) == 1
    for word in (
        ("阶梯进度", "分时电量", "每日用电量", "平均日负荷", "如何阅读") if language != "en" else ("Average day",)
    ):
        assert word in pages[0]


def test_how_to_read_stays_with_the_charges_where_the_pictures_do_not_fit() -> None:
    bill = factory_bill(2)
    pages = page_texts(bill_pdf(content(bill, steps=None), "zh"))
    assert len(pages) == 2
    assert "如何阅读" in next(text for text in pages if "应付合计" in text and "增值税" in text)


def test_a_very_long_name_is_shown_whole() -> None:
    name = " ".join(f"名字{number}号有限责任公司" for number in range(20))
    text = all_text(bill_pdf(content(customer=name), "zh")).replace(" ", "")
    assert name.replace(" ", "") in text


# -- colours -----------------------------------------------------------------------------------------------------------


def _luminance(colour: Color) -> float:
    parts = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (colour.red, colour.green, colour.blue)
    ]
    return float(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])


def _contrast(one: Color, other: Color) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [sheet.INK, sheet.GREY, sheet.ACCENT, sheet.WARN])
def test_every_text_can_be_read_on_white_and_in_boxes(colour: Color) -> None:
    """WCAG 2.1 asks for 4.5 to 1."""
    assert min(_contrast(colour, HexColor("#ffffff")), _contrast(colour, sheet.FAINT)) >= 4.5


def test_periods_are_told_apart_without_colours() -> None:
    looks = charts._looks(["sharp", "peak", "flat", "valley", "deep_valley"])
    assert len({look.hatch for look in looks.values()}) == 5
    strange = charts._looks(["a", "b", "c", "d"])
    assert len({look.hatch for look in strange.values()}) == 4
    for name in ("/", "\\", "|", "-", "/\\"):
        strokes = sheet._hatching(10, 20, 30, 12, name)
        assert len(strokes) >= 3
    assert sheet._hatching(10, 20, 30, 12, "") == []


def test_a_hatched_area_differs_from_a_plain_one_in_grey() -> None:
    drawn = sheet.Sheet("t", "a", "en", running=("", ""))
    for number, kind in enumerate(("", "/", "\\", "-", "|", "/\\")):
        drawn.box(50 + 60 * number, 400, 40, 40, HexColor("#d3621a"))
        drawn.hatch(50 + 60 * number, 400, 40, 40, kind, HexColor("#ffffff"))
    with opened(drawn.pdf()) as document:
        page = document[0]
        grey = page.render(scale=4).to_pil().convert("L")
        page.close()
    low = grey.height - 4 * 440
    areas = [grey.crop((4 * (55 + 60 * n), low + 20, 4 * (85 + 60 * n), low + 140)) for n in range(6)]
    spans = [area.getextrema() for area in areas]
    assert spans[0][0] == spans[0][1]
    assert all(high - dark > 60 for dark, high in spans[1:])
    assert len({area.tobytes() for area in areas}) == 6
