"""The texts of lines in the document's language: what rating adds to a tariff's words, and the days of a part.

Rating writes English (`maximum demand, contract (maximum 1800 kW), 1-15 Oct`). Its clauses are known here and said in
Chinese; words of a tariff that are not known stand as they are. A tariff that names things in both languages writes
`中文 / English`: a document in one language shows only its own half.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LineWords", "adjustment_words", "chosen", "own_words", "words_of"]

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = re.compile(rf"(?:, | \()(\d{{1,2}})(?:-(\d{{1,2}}))? ({'|'.join(_MONTHS)})\)?")

_CLAUSES: Mapping[re.Pattern[str], str] = {
    re.compile(pattern): text
    for pattern, text in {
        r"(\d+) of (\d+) days": "按 {0}/{1} 天",
        r"contract \(maximum (\S+) kW\)": "按合同需量（最大需量 {0} kW）",
        r"above the limit": "超过允许上限的部分",
        r"above the contract": "超过合同需量的部分",
        r"at least (\S+) % of (\S+) kW": "不低于前期最高需量 {1} kW 的 {0}%",
        r"(\S+) kWh or more for each kW of contract": "每千瓦合同需量用电 {0} kWh 及以上",
        r"(\S+) kVA for (\d+) of (\d+) days": "{0} kVA，按 {1}/{2} 天",
        r"standard (\d\S*)": "标准 {0}",
        r"step (\d+)": "第{0}档",
        r"addition": "加价",
    }.items()
}
"""What rating adds to the words of a charge, and its Chinese."""

_HEADS: Mapping[str, str] = {
    "energy": "电量",
    "addition": "加价",
    "demand": "需量",
    "maximum demand": "最大需量",
    "contracted demand": "合同需量",
    "capacity": "容量",
    "installed capacity": "变压器容量",
    "power factor": "功率因数",
    "up to the minimum": "补足最低费用",
    "export": "上网电量",
    "export beyond import": "净上网电量",
    "energy at market prices": "市场电量",
    "water works fund": "水利建设基金",
    "local fund": "地方基金",
    "service charge": "服务费",
    "customer charge": "用户固定费用",
}
"""Words of charges that are common, and their Chinese."""

_ADJUSTED = re.compile(r"adjustment for bill (\S+): (.*)", re.DOTALL)
_FACTOR = re.compile(r"(.+) (\d\.\d+)")
_CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class LineWords:
    """A line's text taken apart. head: the charge's own words; clauses: what rating added; days: of its part, or None.

    days: month, first and last day.
    """

    head: str
    clauses: tuple[str, ...] = ()
    days: tuple[int, int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether the head says no more than the line's code does."""
        return self.head.casefold() in _HEADS or bool(
            (found := _FACTOR.fullmatch(self.head)) and found[1].casefold() in _HEADS
        )

    def head_in(self, language: str) -> str:
        """The head in a language, as far as it is known."""
        found = _FACTOR.fullmatch(self.head)
        word, number = (found[1], f" {found[2]}") if found else (self.head, "")
        known = _HEADS.get(word.casefold())
        if known is None:
            return own_words(self.head, language)
        return chosen(f"{known}{number}", self.head, language)

    def clauses_in(self, language: str, *, but: tuple[str, ...] = ()) -> list[str]:
        """The clauses in a language, without those in `but`."""
        return [chosen(_in_chinese(one), one, language) for one in self.clauses if one not in but]

    def days_in(self, language: str) -> str:
        """The days of the line's part: `10月1日–15日`, `1–15 Oct`; "" where the line is for all of the period."""
        if self.days is None:
            return ""
        month, first, last = self.days
        chinese = f"{month}月{first}日" + (f"–{last}日" if last != first else "")
        english = (f"{first}–{last}" if last != first else f"{first}") + f" {_MONTHS[month - 1]}"
        return chosen(chinese, english, language)


def words_of(text: str, *, parts: bool) -> LineWords:
    """A line's text taken apart; parts: whether its bill's period has several, so that days may stand at its end."""
    days = None
    if parts and (found := re.search(f"{_DAYS.pattern}$", text)):
        first = int(found[1])
        days = _MONTHS.index(found[3]) + 1, first, int(found[2] or first)
        text = text[: found.start()]
    pieces = text.split(", ")
    clauses: list[str] = []
    while len(pieces) > 1 and any(pattern.fullmatch(pieces[-1]) for pattern in _CLAUSES):
        clauses.insert(0, pieces.pop())
    return LineWords(", ".join(pieces), tuple(clauses), days)


def adjustment_words(text: str, language: str) -> str:
    """The text of an adjustment's line: for which bill, and why in the words of who made it."""
    found = _ADJUSTED.fullmatch(text)
    return chosen(f"关于账单 {found[1]} 的调整：{found[2]}", text, language) if found else text


def _in_chinese(clause: str) -> str:
    for pattern, text in _CLAUSES.items():
        if found := pattern.fullmatch(clause):
            return text.format(*found.groups())
    return clause


def chosen(chinese: str, english: str, language: str) -> str:
    """One of two, or both with a stroke between them."""
    if language == "both":
        return chinese if chinese == english else f"{chinese} / {english}"
    return chinese if language == "zh" else english


def own_words(text: str, language: str) -> str:
    """The half of `中文 / English` that is in the language; any other text as it is."""
    halves = text.split(" / ")
    if language == "both" or len(halves) != 2:
        return text
    chinese = [half for half in halves if _CHINESE.search(half)]
    if len(chinese) != 1:
        return text
    return chinese[0] if language == "zh" else next(half for half in halves if half is not chinese[0])
