"""Bills made by hand for documents, and what can be seen of a PDF: its texts, its fonts."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO

import pypdfium2
import pypdfium2.raw as raw
from fontTools.ttLib import TTFont

from billing.documents.content import BillContent, Past, StepProgress
from billing.documents.usage import Day, Usage
from billing.model import (
    Bill,
    BillLine,
    Derived,
    Determinant,
    Hold,
    IntervalPart,
    RegisterEnd,
    RegisterPart,
    UsedBefore,
    round_money,
)
from headend.model import Quality, Source
from tests.billing_support import SHANGHAI, month

UTILITY = "某某市供电公司 Example Power"
CUSTOMER = "张𠮷䶮 (Müller)"
JUNE = month(6)


def line(code: str, quantity: str, unit: str, price: str, determinant: str, text: str = "") -> BillLine:
    """A line whose amount is what it should be."""
    number, each = Decimal(quantity), Decimal(price)
    amount = round_money(number.scaleb(-2) if unit == "%" else number, each, 2)
    return BillLine(code, text or code, number, unit, each, amount, determinant)


def end(at: datetime, value: str, quality: Quality = Quality.VALID) -> RegisterEnd:
    return RegisterEnd(at, int(Decimal(value).scaleb(4)), quality, Source.DAILY_FREEZE, 7)


def register(quantity: str, start: str, stop: str, multiplier: str = "1", **changes: object) -> RegisterPart:
    wrap_units = 10**10
    part = RegisterPart(
        1, "000012345678", quantity, end(JUNE.start, start), end(JUNE.end, stop), wrap_units, Decimal(multiplier)
    )
    return replace(part, **changes)  # type: ignore[arg-type]


def made(number: str, lines: Sequence[BillLine], determinants: Sequence[Determinant], /, **changes: object) -> Bill:
    """An issued bill of June 2026 for these lines."""
    total = sum((one.amount for one in lines), Decimal(0))
    issued = datetime(2026, 7, 2, 1, 30, tzinfo=UTC)
    bill = Bill(
        number, "A1", "U-A1", JUNE, "issued", "some-tariff", "2026", "", SHANGHAI, "CNY", total, issued, 7,
        tuple(lines), tuple(determinants),
    )  # fmt: skip
    return replace(bill, **changes)  # type: ignore[arg-type]


def household_bill(**changes: object) -> Bill:
    """Zhejiang with peak and valley: 2,600 kWh were used before in the year, and 400 cross the limit of 2,760."""
    lines = [
        line("energy_peak", "250.5", "kWh", "0.568", "import_kwh_peak", "energy, peak"),
        line("energy_valley", "149.5", "kWh", "0.288", "import_kwh_valley", "energy, valley"),
        line("step2_adder", "240", "kWh", "0.05", "import_kwh", "addition, step 2"),
    ]
    used = UsedBefore("A1-2026-05", Decimal(2600), JUNE.start)
    intervals = IntervalPart(1, "000012345678", "import_interval_kwh", JUNE, 900, 1800, 2505000, 10**10, Decimal(1), 7)
    determinants = [
        Determinant(
            "import_kwh",
            Decimal(400),
            "kWh",
            Decimal(2600),
            ((Quality.VALID, 1), (Quality.ESTIMATED, 1)),
            (register("import_kwh", "1234.56", "1634.56", end=end(JUNE.end, "1634.56", Quality.ESTIMATED)), used),
        ),
        Determinant(
            "import_kwh_peak",
            Decimal("250.5"),
            "kWh",
            None,
            ((Quality.VALID, 1788), (Quality.ESTIMATED, 12)),
            (intervals, Derived("import_kwh", Decimal(400))),
        ),
        Determinant("import_kwh_valley", Decimal("149.5"), "kWh"),
    ]
    return made("A1-2026-06", lines, determinants, **changes)


def factory_bill(parts: int = 12, **changes: object) -> Bill:
    """A long one: steps by period, demand, power factor, surcharges, an adjustment, a tax; several pages."""
    lines = []
    for step in range(1, parts + 1):
        for period in ("sharp", "peak", "flat", "valley"):
            words = f"大工业电度电费，阶梯与分时合并计价 large industry energy by step and time, step {step}, {period}"
            name = f"import_kwh_step{step}_{period}"
            lines.append(
                line(f"energy_step{step}_{period}", f"{1000 + step}.25", "kWh", f"0.{6000 + step}", name, words)
            )
    lines += [
        line("basic_demand", "400", "kW", "40.8", "import_max_kw", "demand, contract (maximum 380 kW)"),
        line("pf_adjust", "1.5", "%", "50000.00", "power_factor", "power factor 0.87, standard 0.90"),
        line("reservoir_fund", "48000", "kWh", "0.0062", "import_kwh", "大中型水库移民后期扶持资金"),
        line("rural_fund", "48000", "kWh", "0.02", "import_kwh", "农网还贷资金"),
        line("service", "1", "month", "12", "month", "服务费"),
        line("adjustment", "-100", "kWh", "0.6", "adjustment:AD000001", "A1-2026-04: meter read again"),
        line("vat", "13", "%", "66000.00", "", "VAT"),
    ]
    determinants = [
        Determinant("import_kwh", Decimal(48000), "kWh", None, (), (register("import_kwh", "100", "1060", "50"),)),
        Determinant("import_max_kw", Decimal(380), "kW", None, (), (register("import_max_kw", "0", "7.6", "50"),)),
        Determinant("power_factor", Decimal("0.87"), ""),
        Determinant("loss_kwh", Decimal("412"), "kWh"),
    ]
    return made("A1-2026-06", lines, determinants, **changes)


def content(bill: Bill | None = None, **changes: object) -> BillContent:
    """What a document shows, with pictures."""
    days = tuple(
        Day(date(2026, 6, 1) + timedelta(days=n), None if n == 7 else Decimal(8 + n % 9), n == 12) for n in range(30)
    )
    hours = tuple(Decimal(abs(14 - hour) + 2) / 10 for hour in range(24))
    periods = tuple("peak" if 8 <= hour < 22 else "valley" for hour in range(24))
    may, last_year = month(5), month(6, 2025)
    past = (
        Past("A1-2025-06", last_year, Decimal(500), Decimal(250)),
        Past("A1-2026-05", may, Decimal(320), Decimal(160)),
    )
    steps = StepProgress("year", Decimal(2600), Decimal(400), (Decimal(2760), Decimal(4800)))
    found = BillContent(
        bill or household_bill(), UTILITY, CUSTOMER, "B000123", "", date(2026, 7, 31), "Zhejiang residential 居民电价",
        past, steps, Usage(days, hours, periods),
    )  # fmt: skip
    return replace(found, **changes)  # type: ignore[arg-type]


def held() -> Bill:
    reason = Hold("missing_end", "no reading at the end", "read it again", "M1")
    return replace(household_bill(), state="held", total=None, lines=(), holds=(reason,))


# -- what is in a PDF --------------------------------------------------------------------------------------------------


@contextmanager
def opened(pdf: bytes) -> Iterator[pypdfium2.PdfDocument]:
    document = pypdfium2.PdfDocument(pdf)
    try:
        yield document
    finally:
        document.close()


def page_texts(pdf: bytes) -> list[str]:
    """The text of each page, white space made one."""
    found = []
    with opened(pdf) as document:
        for number in range(len(document)):
            page = document[number]
            words = page.get_textpage()
            found.append(re.sub(r"\s+", " ", words.get_text_bounded()))
            words.close()
            page.close()
    return found


def all_text(pdf: bytes) -> str:
    return " ".join(page_texts(pdf))


def boxes(pdf: bytes) -> list[tuple[int, float, float, float, float]]:
    """Where each text stands: page, left, bottom, right, top."""
    found = []
    with opened(pdf) as document:
        for number in range(len(document)):
            page = document[number]
            for thing in page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT]):
                found.append((number, *thing.get_bounds()))
            page.close()
    return found


def fonts(pdf: bytes) -> dict[bytes, bool]:
    """The programs of all fonts the texts use, and whether they are embedded."""
    found: dict[bytes, bool] = {}
    with opened(pdf) as document:
        for number in range(len(document)):
            page = document[number]
            for thing in page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT]):
                font = raw.FPDFTextObj_GetFont(thing.raw)
                size = ctypes.c_size_t()
                raw.FPDFFont_GetFontData(font, None, 0, ctypes.byref(size))
                buffer = (ctypes.c_uint8 * size.value)()
                raw.FPDFFont_GetFontData(font, buffer, size.value, ctypes.byref(size))
                found[bytes(buffer)] = bool(raw.FPDFFont_GetIsEmbedded(font))
            page.close()
    return found


def boxes_for_nothing(program: bytes) -> list[str]:
    """Glyphs of an embedded font, beside the first, that look like its sign for a missing character."""
    font = TTFont(BytesIO(program))
    glyphs, order = font["glyf"], font.getGlyphOrder()
    nothing = glyphs[order[0]]
    if nothing.numberOfContours <= 0:
        return []
    return [name for name in order[1:] if glyphs[name] == nothing]
