"""Words of documents in Chinese and English, and names for codes of lines, periods and units.

A language is `zh`, `en` or `both`; with `both` a word is Chinese, then English. A code that is not in the tables stands
for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from billing.ledger import charge_kind
from billing.model import BillLine
from headend.model import Quality

__all__ = [
    "GROUPS",
    "LANGUAGES",
    "fact_name",
    "group_of",
    "kind_name",
    "line_label",
    "note",
    "period_name",
    "quality_name",
    "register_name",
    "say",
    "unit_name",
]

LANGUAGES: Final = ("zh", "en", "both")

GROUPS: Final = (
    "energy",
    "export",
    "demand",
    "fixed",
    "surcharge",
    "power_factor",
    "minimum",
    "other",
    "adjustment",
    "rounding",
    "tax",
)
"""Groups of lines, in the order a bill shows them."""

_WORDS: Mapping[str, tuple[str, str]] = {
    "bill": ("电费账单", "Electricity bill"),
    "statement": ("账户对账单", "Account statement"),
    "number": ("账单编号", "Bill number"),
    "invoice": ("记账凭证号", "Invoice number"),
    "account": ("户号", "Account"),
    "customer": ("户名", "Customer"),
    "usage_point": ("用电地点", "Usage point"),
    "meter": ("电能表", "Meter"),
    "meters": ("电能表", "Meters"),
    "period": ("计费周期", "Billing period"),
    "issued": ("出账日期", "Issued"),
    "due": ("缴费截止日", "Due"),
    "tariff": ("电价", "Tariff"),
    "total": ("应付合计", "Amount due"),
    "credit": ("应退合计", "Credit"),
    "in_words": ("大写", "In words"),
    "energy_used": ("用电量", "Energy used"),
    "readings": ("电能表示数", "Meter readings"),
    "register": ("示数类型", "Register"),
    "start": ("上次示数", "Start"),
    "end": ("本次示数", "End"),
    "multiplier": ("倍率", "Multiplier"),
    "quantity": ("数量", "Quantity"),
    "quality": ("类别", "Kind"),
    "charges": ("费用明细", "Charges"),
    "item": ("项目", "Item"),
    "unit": ("单位", "Unit"),
    "price": ("单价/基数", "Price or base"),
    "amount": ("金额", "Amount"),
    "subtotal": ("小计", "Subtotal"),
    "steps": ("阶梯进度", "Steps"),
    "step": ("第{}档", "Step {}"),
    "used_before": ("此前已用", "Used before"),
    "this_bill": ("本期", "This bill"),
    "tou": ("分时电量", "Energy by time of use"),
    "days": ("每日用电量 (kWh)", "Energy by day (kWh)"),
    "average_day": ("平均日负荷 (kWh/h)", "Average day (kWh per hour)"),
    "compare": ("用电量比较", "Comparison"),
    "month_before": ("上月", "Month before"),
    "year_before": ("去年同月", "Same month last year"),
    "this_month": ("本月", "This month"),
    "read": ("如何阅读本账单", "How to read this bill"),
    "page": ("第 {} 页，共 {} 页", "Page {} of {}"),
    "draft": ("草稿", "DRAFT"),
    "from_day": ("自 {} 起", "from {}"),
    "reversed": ("本账单已由凭证 {} 冲销，不需缴纳。", "This bill was taken back by entry {}; it is not to be paid."),
    "replaces": ("本账单更正并代替账单 {}。", "This bill corrects bill {} and stands in its place."),
    "adjusted": (
        "本账单含对以前账单的调整，见“调整”。",
        "This bill holds adjustments of earlier bills; see the charges under Adjustments.",
    ),
    "estimated_note": (
        "标有“估”的示数或电量为估算值，非电能表实抄。",
        "Readings marked “estimated” were worked out, not read from the meter.",
    ),
    "edited_note": (
        "标有“人工”的示数由人工录入或修改。",
        "Readings marked “edited” were entered or changed by a person.",
    ),
    "estimated": ("含估算值", "holds estimated values"),
    "basis": ("本账单依据：{}。", "This bill rests on {}."),
    "ends": ("电能表示数：{}", "readings of registers: {}"),
    "intervals": ("区间值：{}", "interval values: {}"),
    "missing_days": ("空白：当日无完整数据", "Gap: no complete data for that day"),
    "entries": ("往来明细", "Entries"),
    "entry": ("凭证号", "Entry"),
    "date": ("日期", "Date"),
    "kind": ("类型", "Kind"),
    "reference": ("关联号", "Reference"),
    "text": ("说明", "Text"),
    "balance": ("余额", "Balance"),
    "span": ("对账期间", "From – to"),
    "opening": ("期初余额", "Opening balance"),
    "closing": ("期末余额", "Closing balance"),
    "no_entries": ("本期无往来。", "Nothing was posted in this time."),
    "balance_note": (
        "余额为正表示应缴，为负表示预存。",
        "A balance above zero is owed; below zero it is paid ahead.",
    ),
    "group_energy": ("电量电费", "Energy"),
    "group_export": ("上网电量", "Export"),
    "group_demand": ("基本电费", "Demand and capacity"),
    "group_power_factor": ("力调电费", "Power factor"),
    "group_fixed": ("固定费用", "Fixed charges"),
    "group_minimum": ("最低费用", "Minimum"),
    "group_surcharge": ("附加", "Surcharges"),
    "group_tax": ("税", "Taxes"),
    "group_adjustment": ("调整", "Adjustments"),
    "group_rounding": ("尾差", "Rounding"),
    "group_other": ("其他", "Other"),
}

_CODES: Mapping[str, tuple[str, str]] = {
    "energy": ("电量", "Energy"),
    "basic_demand": ("需量", "Demand"),
    "basic_excess": ("超合同需量", "Demand above contract"),
    "basic_discount": ("需量优惠", "Demand discount"),
    "basic_capacity": ("变压器容量", "Capacity"),
    "pf_adjust": ("功率因数调整", "Power-factor adjustment"),
    "minimum": ("补足最低费用", "Up to the minimum"),
    "export_credit": ("上网电量", "Exported energy"),
    "adjustment": ("以前账单调整", "Adjustment of an earlier bill"),
    "rounding": ("尾差", "Rounding"),
    "service": ("服务费", "Service"),
    "vat": ("增值税", "Value added tax"),
}

_PERIODS: Mapping[str, tuple[str, str]] = {
    "sharp": ("尖峰", "sharp peak"),
    "critical_peak": ("尖峰", "critical peak"),
    "critical": ("尖峰", "critical peak"),
    "peak": ("峰", "peak"),
    "flat": ("平", "flat"),
    "shoulder": ("平", "shoulder"),
    "normal": ("平", "normal"),
    "valley": ("谷", "valley"),
    "off_peak": ("谷", "off-peak"),
    "deep_valley": ("深谷", "deep valley"),
    "day": ("日间", "day"),
    "night": ("夜间", "night"),
}

_REGISTERS: Mapping[str, tuple[str, str]] = {
    "import_kwh": ("正向有功", "Import"),
    "export_kwh": ("反向有功", "Export"),
    "import_kvarh": ("正向无功", "Reactive import"),
    "export_kvarh": ("反向无功", "Reactive export"),
    "import_max_kw": ("最大需量", "Maximum demand"),
    "export_max_kw": ("反向最大需量", "Maximum demand exported"),
}

_FACTS: Mapping[str, tuple[str, str]] = {
    "power_factor": ("功率因数", "Power factor"),
    "import_max_kw": ("最大需量", "Maximum demand"),
    "contract_kw": ("合同需量", "Contracted demand"),
    "capacity_kva": ("合同容量", "Installed capacity"),
    "ratchet_kw": ("前期最高需量", "Highest demand of earlier months"),
    "loss_kwh": ("变线损电量", "Losses of transformer and line"),
    "export_kwh": ("上网电量", "Exported energy"),
    "net_kwh": ("净用电量", "Net energy"),
    "surplus_kwh": ("净余电量", "Surplus"),
    "carried_kwh": ("上期结转电量", "Carried from the month before"),
    "carried_on_kwh": ("结转下期电量", "Carried on to the next month"),
    "people": ("家庭人口", "People"),
}

_UNITS: Mapping[str, tuple[str, str]] = {"month": ("月", "month"), "day": ("天", "day")}

_KINDS: Mapping[str, tuple[str, str]] = {
    "bill": ("账单", "bill"),
    "payment": ("缴费", "payment"),
    "reversal": ("冲销", "reversal"),
    "penalty": ("违约金", "late-payment penalty"),
    "adjustment": ("调整", "adjustment"),
}

_QUALITIES: Mapping[Quality, tuple[str, str]] = {
    Quality.MISSING: ("缺", "missing"),
    Quality.VALID: ("实抄", "actual"),
    Quality.ESTIMATED: ("估", "estimated"),
    Quality.EDITED: ("人工", "edited"),
    Quality.SUSPECT: ("存疑", "suspect"),
}

NOTES: Mapping[str, tuple[str, str]] = {
    "readings": (
        "“电能表示数”为计费周期起止时表上的示数；止减起再乘以倍率，即为电量。",
        "Energy is what the meter showed at the end less what it showed at the start, times the multiplier.",
    ),
    "charges": (
        "每一项费用 = 数量 × 单价，四舍五入到分。",
        "A charge is quantity times price, rounded half up.",
    ),
    "percent": (
        "单位为 % 的项目按“基数”的百分比计算。",
        "Where the unit is %, a charge is so much of the base.",
    ),
    "steps": (
        "“阶梯进度”表示年度或月度累计电量所处的档次，竖线为各档上限。",
        "Steps: energy of the step year or month so far; upright lines are the limits.",
    ),
    "tou": (
        "“分时电量”为各时段电量及其占比，时段由电价规定，以当地时间为准。",
        "Energy by time of use is split by the tariff's hours, in local time.",
    ),
    "question": (
        "对示数或费用有疑问，请凭账单编号向{}查询。本账单可用原始数据重新核算；确有差错的，以更正账单或调整项目处理。",
        "Questions about a reading or a charge: ask {} and name the bill number. The bill can be made again from its "
        "values; an error is put right by a corrected bill or an adjustment.",
    ),
}
"""Sentences of the box that tells how to read a bill."""


def _choose(pair: tuple[str, str], language: str, between: str = " / ") -> str:
    if language == "both":
        return pair[0] if pair[0] == pair[1] else between.join(pair)
    return pair[0 if language == "zh" else 1]


def say(key: str, language: str, *values: object, between: str = " / ") -> str:
    """The word `key` in a language, with `values` where it has room for them."""
    zh, en = _WORDS[key]
    return _choose((zh.format(*values), en.format(*values)), language, between)


def note(key: str, language: str, *, utility: str) -> str:
    """A sentence of the box that tells how to read a bill, in one language. utility: who is to be asked."""
    return _choose(NOTES[key], language).format(utility)


def period_name(period: str, language: str) -> str:
    """The name of a TOU period."""
    return _choose(_PERIODS.get(period, (period, period.replace("_", " "))), language)


def unit_name(unit: str, language: str) -> str:
    """The name of a unit."""
    return _choose(_UNITS.get(unit, (unit, unit)), language, "/")


def kind_name(kind: str, language: str) -> str:
    """The name of a kind of ledger entry."""
    return _choose(_KINDS.get(kind, (kind, kind)), language)


def register_name(quantity: str, language: str) -> str:
    """The name of a meter's register: of all energy, or of one of its rates."""
    stem, rate = re.sub(r"_t\d+$", "", quantity), re.search(r"_t(\d+)$", quantity)
    zh, en = _REGISTERS.get(stem, (stem, stem))
    return _choose((f"{zh} 费率{rate[1]}", f"{en}, rate {rate[1]}") if rate else (zh, en), language)


def fact_name(determinant: str, language: str) -> str:
    """The name of a quantity that a bill shows beside its lines; "" for one it does not."""
    return _choose(_FACTS.get(determinant, ("", "")), language)


def quality_name(quality: Quality, language: str) -> str:
    """How a value came about."""
    return _choose(_QUALITIES[quality], language)


_STEP = re.compile(r"energy_step(\d+)(?:_(.+))?")
_ADDER = re.compile(r"step(\d+)_adder")


def line_label(line: BillLine, language: str) -> str:
    """What a line is called by its code; "" for a code that only its tariff knows."""
    if language == "both":
        zh, en = line_label(line, "zh"), line_label(line, "en")
        return zh if zh == en else f"{zh} / {en}"
    if found := _STEP.fullmatch(line.code):
        text = say("step", language, found[1])
        return f"{text} {period_name(found[2], language)}" if found[2] else text
    if found := _ADDER.fullmatch(line.code):
        text = say("step", language, found[1])
        return f"{text}加价" if language == "zh" else f"{text}, addition"
    if line.code in _CODES:
        return _choose(_CODES[line.code], language)
    if line.code.startswith("energy_"):
        period = period_name(line.code.removeprefix("energy_"), language)
        return f"{period}时段电量" if language == "zh" and period != line.code.removeprefix("energy_") else period
    return ""


_GROUP_OF_KIND = {"adjustment": "power_factor", "correction": "adjustment"}


def group_of(line: BillLine) -> str:
    """Which of `GROUPS` a line stands in."""
    kind = charge_kind(line.code, line.unit, line.determinant)
    group = _GROUP_OF_KIND.get(kind, kind)
    return group if group in GROUPS else "other"
