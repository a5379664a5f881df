"""A bill as a PDF: who and when, what is due, what the meters showed, each charge, and pictures of the energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from billing.documents.capitals import capitals
from billing.documents.charts import (
    BARS_HIGH,
    average_day,
    compared,
    day_bars,
    energy_text,
    pictures_high,
    step_bar,
    tou_bar,
)
from billing.documents.content import BillContent
from billing.documents.fonts import width, wrap
from billing.documents.phrases import own_words
from billing.documents.sheet import ACCENT, FAINT, GREY, INK, LEFT, RIGHT, WARN, Column, Sheet
from billing.documents.tables import charge_rows, reading_rows
from billing.documents.words import fact_name, group_of, note, quality_name, say
from billing.model import MINOR_DIGITS, Bill, Determinant, IntervalPart, RegisterPart
from billing.names import PERCENT, TOTAL
from headend.civil import zone
from headend.model import Quality, Window
from headend.quantities import QUANTITIES, Kind

__all__ = ["bill_pdf", "money"]

_HEIGHTS = (92.0, 76.0, 62.0, 48.0, 36.0)
"""How high the bars of pictures may be, in points: as high as the page has room for."""

_SYMBOLS = {"CNY": "¥", "EUR": "€", "GBP": "£", "USD": "$"}


def money(amount: Decimal, currency: str) -> str:
    """An amount with its currency's sign: ¥1,234.50."""
    sign = "-" if amount < 0 else ""
    places = max(MINOR_DIGITS.get(currency, 0), -int(amount.as_tuple().exponent))
    return f"{sign}{_SYMBOLS.get(currency, currency + ' ')}{abs(amount):,.{places}f}"


def bill_pdf(content: BillContent, language: str = "both") -> bytes:
    """The document of a bill in a language (`zh`, `en` or `both`). A bill that was never stored is marked a draft.

    Raises `ValueError` for a held bill: it has no lines.
    """
    bill = content.bill
    if bill.state == "held" or bill.total is None:
        raise ValueError(f"bill {bill.number} is {bill.state} and has no total")
    mark = "" if bill.state == "issued" else say("draft", language)
    number = f"{say('number', language)} {bill.number}"
    title = f"{say('bill', language)} {bill.number}"
    sheet = Sheet(title, content.utility, language, running=(content.utility, number), mark=mark)
    _head(sheet, content)
    _parties(sheet, content)
    _notices(sheet, content)
    _due(sheet, content)
    _readings(sheet, bill)
    _charges(sheet, bill)
    _rest(sheet, content)
    return sheet.pdf()


def _rest(sheet: Sheet, content: BillContent) -> None:
    """Pictures and how to read the bill, on the page at hand if that can be done with pictures that are not too low.

    Where it can't, the words go first: they stand on the page of the charges if there is room.
    """
    start, page = sheet.place(), sheet.pages
    for high in _HEIGHTS:
        _pictures(sheet, content, high)
        _how_to_read(sheet, content)
        if sheet.pages == page:
            return
        sheet.back_to(start)
    _how_to_read(sheet, content)
    _pictures(sheet, content, _HEIGHTS[0])


def _pictures(sheet: Sheet, content: BillContent, high: float) -> None:
    """Steps beside energy by time, then days beside the average day; each pair on one page."""
    middle, half = (LEFT + RIGHT) / 2 + 6, (RIGHT - LEFT) / 2 - 6
    shares = tou_shares(content.bill)
    by_time = len(shares) > 1 and sum(value for _, value in shares) > 0
    if content.steps is not None or by_time:
        sheet.need(BARS_HIGH - 22)
        top = sheet.y
        if content.steps is not None:
            step_bar(sheet, content.steps, LEFT, half if by_time else RIGHT - LEFT)
        low, sheet.y = sheet.y, top
        if by_time:
            tou_bar(sheet, shares, *((middle, half) if content.steps is not None else (LEFT, RIGHT - LEFT)))
        sheet.y = min(low, sheet.y)
    if content.usage is not None:
        sheet.need(pictures_high(high))
        top = sheet.y
        day_bars(sheet, content.usage.days, LEFT, half, high)
        low, sheet.y = sheet.y, top
        average_day(sheet, content.usage.hours, content.usage.periods, middle, half, high)
        sheet.y = min(low, sheet.y)


def _how_to_read(sheet: Sheet, content: BillContent) -> None:
    """The box of notes: those that this bill has something to do with; with both languages side by side."""
    bill, language = content.bill, sheet.language
    keys = ["readings"] if _registers(bill) else []
    keys.append("charges")
    if any(line.unit == PERCENT for line in bill.lines):
        keys.append("percent")
    if content.steps is not None:
        keys.append("steps")
    if len(tou_shares(bill)) > 1:
        keys.append("tou")
    keys.append("question")
    languages = ("zh", "en") if language == "both" else (language,)
    columns = [[note(key, one, utility=content.utility) for key in keys] for one in languages]
    sheet.box_of(say("read", language), *columns, size=7)


# -- the top of the first page -----------------------------------------------------------------------------------------


def _head(sheet: Sheet, content: BillContent) -> None:
    lines = wrap(content.utility, 15, 290, True)[:2]
    y = sheet.y - 14
    for line in lines:
        sheet.text(LEFT, y, line, 15, bold=True, colour=ACCENT, room=290)
        y -= 19
    sheet.text(RIGHT, sheet.y - 13, say("bill", sheet.language), 13, bold=True, align="r", room=210)
    sheet.text(RIGHT, sheet.y - 28, content.bill.number, 9, align="r", colour=GREY, room=210)
    sheet.y = min(y + 19, sheet.y - 28) - 9
    sheet.line(LEFT, sheet.y, RIGHT, sheet.y, ACCENT, 1.6)
    sheet.y -= 6


def _parties(sheet: Sheet, content: BillContent) -> None:
    """Two columns of facts: whom the bill is for, and what it covers."""
    bill, language = content.bill, sheet.language
    meters = list(dict.fromkeys(part.meter for part in _meter_parts(bill)))
    left = [
        (say("customer", language), content.customer),
        (say("account", language), bill.account),
        (say("usage_point", language), bill.usage_point),
        (say("meter" if len(meters) == 1 else "meters", language), ", ".join(meters)),
    ]
    right = [
        (say("period", language), period_text(bill.window, bill.zone)),
        (say("tariff", language), own_words(content.title or bill.tariff, language)),
        (say("invoice", language), content.invoice),
        (say("issued", language), _day(bill.issued_at, bill.zone)),
        (say("due", language), f"{content.due:%Y-%m-%d}" if content.due else ""),
    ]
    middle = (LEFT + RIGHT) / 2
    low = min(_facts(sheet, LEFT, left, middle - LEFT - 14), _facts(sheet, middle, right, RIGHT - middle))
    sheet.y = low - 2


def _facts(sheet: Sheet, x: float, facts: Sequence[tuple[str, str]], wide: float) -> float:
    """Names and values one under the other; those without a value are left out. The lowest point."""
    shown = [(name, value) for name, value in facts if value]
    label = min(max((width(name, 7.5) for name, _ in shown), default=0) + 8, wide * 0.5)
    y = sheet.y
    for name, value in shown:
        y -= 14
        sheet.text(x, y, name, 7.5, colour=GREY, room=label - 6)
        for number, line in enumerate(wrap(value, 9, wide - label)):
            if number:
                y -= 11.5
            sheet.text(x + label, y, line, 9)
    return y - 6


def _notices(sheet: Sheet, content: BillContent) -> None:
    """What a customer must know of this bill before anything else."""
    bill, language, said = content.bill, sheet.language, []
    if content.reversed_by:
        said.append(say("reversed", language, content.reversed_by, between=" "))
    if bill.replaces:
        said.append(say("replaces", language, bill.replaces, between=" "))
    if any(group_of(line) == "adjustment" for line in bill.lines):
        said.append(say("adjusted", language, between=" "))
    ends = _end_counts(_registers(bill))
    if set(ends) - {Quality.VALID, Quality.EDITED}:
        said.append(say("estimated_note", language, between=" "))
    if Quality.EDITED in ends:
        said.append(say("edited_note", language, between=" "))
    if said:
        sheet.box_of("", said, size=8.5, colour=WARN)


def _due(sheet: Sheet, content: BillContent) -> None:
    """The total, and beside it how the energy compares."""
    bill, language = content.bill, sheet.language
    total = bill.total or Decimal(0)
    words = capitals(abs(total), bill.currency) if language != "en" else ""
    high, wide = 66.0, 250.0
    sheet.need(high + 12)
    sheet.y -= 10
    y = sheet.y - high
    sheet.box(LEFT, y, wide, high, FAINT)
    sheet.box(LEFT, y, 3.5, high, ACCENT)
    sheet.text(LEFT + 14, sheet.y - 14, say("total" if total >= 0 else "credit", language), 8.5, colour=GREY)
    sheet.text(LEFT + 14, sheet.y - 39, money(abs(total), bill.currency), 23, bold=True, colour=ACCENT, room=wide - 24)
    if words:
        label = f"{say('in_words', 'zh')} "
        sheet.text(LEFT + 14, sheet.y - 57, label + words, 8.5, colour=INK, room=wide - 24)
    energy = _energy(bill)
    if energy is not None:
        start = LEFT + wide + 18
        sheet.text(start, sheet.y - 10, say("compare", language), 8.5, bold=True, colour=INK, room=RIGHT - start)
        before, year = _earlier(content)
        rows = [("this_month", energy), ("month_before", before), ("year_before", year)]
        compared(sheet, start, sheet.y - 26, RIGHT - start, [(say(key, language), value) for key, value in rows])
    sheet.y = y - 2


def _energy(bill: Bill) -> Decimal | None:
    return next((determinant.value for determinant in bill.determinants if determinant.name == TOTAL), None)


def _earlier(content: BillContent) -> tuple[Decimal | None, Decimal | None]:
    """Energy of the month before and of the same month a year before, where they were billed."""
    tz = zone(content.bill.zone)
    start = content.bill.window.start.astimezone(tz)
    by_month = {}
    for past in content.past:
        local = past.window.start.astimezone(tz)
        by_month[local.year * 12 + local.month] = past.energy
    this = start.year * 12 + start.month
    return by_month.get(this - 1), by_month.get(this - 12)


def _day(moment: datetime | None, zone_name: str) -> str:
    return "" if moment is None else f"{moment.astimezone(zone(zone_name)):%Y-%m-%d}"


def period_text(window: Window, zone_name: str) -> str:
    """A period by its first and last civil day."""
    last = window.end - timedelta(seconds=1)
    return f"{_day(window.start, zone_name)} – {_day(last, zone_name)}"


# -- what the meters showed, and the charges ---------------------------------------------------------------------------


def _meter_parts(bill: Bill) -> list[RegisterPart | IntervalPart]:
    return [
        parent
        for determinant in bill.determinants
        for parent in determinant.parents
        if isinstance(parent, (RegisterPart, IntervalPart))
    ]


def _registers(bill: Bill) -> list[RegisterPart]:
    """The registers a bill was made from, each once, in the order of its determinants."""
    found = (part for part in _meter_parts(bill) if isinstance(part, RegisterPart))
    return list(dict.fromkeys(found))


def _readings(sheet: Sheet, bill: Bill) -> None:
    language, registers = sheet.language, _registers(bill)
    intervals, facts = _interval_counts(bill), _quantities(bill, language)
    ends = _end_counts(registers)
    if not registers and not intervals and not facts:
        return
    sheet.heading(say("readings", language), 60)
    if registers:
        columns = [
            Column(say("meter", language), 66),
            Column(say("register", language), 88),
            Column(say("start", language), 104, "r"),
            Column(say("end", language), 104, "r"),
            Column(say("multiplier", language), 72, "r"),
            Column(say("quantity", language), RIGHT - LEFT - 434, "r"),
        ]
        sheet.table(columns, reading_rows(registers, bill.zone, language), size=8)
    said = []
    for one in ("zh", "en") if language == "both" else (language,):
        basis = [
            say(key, one, _counts(found, one)) for key, found in (("ends", ends), ("intervals", intervals)) if found
        ]
        if basis:
            said += wrap(say("basis", one, ("；" if one == "zh" else "; ").join(basis)), 8, RIGHT - LEFT)
    said += wrap("    ".join(facts), 8, RIGHT - LEFT) if facts else []
    for text in said:
        sheet.need(14)
        sheet.y -= 12
        sheet.text(LEFT, sheet.y, text, 8, colour=GREY)


def _end_counts(registers: Sequence[RegisterPart]) -> dict[Quality, int]:
    """How many readings of registers the bill was made from, by quality; one that ends a part and begins another once.

    Of a demand only the settlement counts that kept its maximum.
    """
    found = {}
    for part in registers:
        demand = QUANTITIES[part.quantity].kind is Kind.DEMAND
        for end in (part.end,) if demand else (part.start, part.end):
            found[part.meter, part.quantity, end.at] = end.quality
    return dict(Counter(found.values()))


def _counts(found: Mapping[Quality, int], language: str) -> str:
    """Numbers by how the values came about: `1,788 actual, 12 estimated`."""
    one = "{1} {0}" if language == "zh" else "{0} {1}"
    said = [one.format(f"{found[quality]:,}", quality_name(quality, language)) for quality in sorted(found)]
    return ("、" if language == "zh" else ", ").join(said)


def _interval_counts(bill: Bill) -> dict[Quality, int]:
    """How many interval values went into the energies by time, by quality; those of a part are in the whole's."""
    names = {determinant.name for determinant in bill.determinants}
    found: dict[Quality, int] = {}
    for determinant in bill.determinants:
        whole = determinant.name.partition("@")[0]
        if whole != determinant.name and whole in names:
            continue
        if _is_energy(determinant) and any(isinstance(parent, IntervalPart) for parent in determinant.parents):
            for quality, count in determinant.counts:
                found[quality] = found.get(quality, 0) + count
    return found


def _is_energy(determinant: Determinant) -> bool:
    return determinant.name.startswith(f"{TOTAL}_")


def _quantities(bill: Bill, language: str) -> list[str]:
    """What was billed or used to bill beside energies: demand, power factor, losses, contract."""
    return [
        f"{name} {energy_text(determinant.value)} {determinant.unit}".strip()
        for determinant in bill.determinants
        if (name := fact_name(determinant.name, language))
    ]


def _charges(sheet: Sheet, bill: Bill) -> None:
    language = sheet.language
    sheet.heading(say("charges", language), 60)
    columns = [
        Column(say("item", language), 198),
        Column(say("quantity", language), 80, "r"),
        Column(say("unit", language), 46, "c"),
        Column(say("price", language), 104, "d"),
        Column(f"{say('amount', language)} ({bill.currency})", RIGHT - LEFT - 428, "r"),
    ]
    sheet.table(columns, charge_rows(bill, language))


def tou_shares(bill: Bill) -> list[tuple[str, Decimal]]:
    """Energy of each TOU period by the bill's lines, in their order; of all steps and all parts together."""
    found: dict[str, Decimal] = {}
    for line in bill.lines:
        name = line.determinant.split("@")[0]
        period = line.code.removeprefix("energy_")
        if period == line.code or group_of(line) != "energy":
            continue
        if period.startswith("step"):
            period = period.partition("_")[2]
        if period and name.startswith(TOTAL):
            found[period] = found.get(period, Decimal(0)) + line.quantity
    return list(found.items())
