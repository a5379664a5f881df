"""Meter status words 040005ww (appendix C of DL/T 645-2007) as named flags, and their changes as events.

A word tells how things stand now; two readings of it tell what has happened in between. Bits of the SGCC supplements
(relay command, alarm, prepayment) are named too: public meter firmware and recorded relay dialogues agree on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from headend.errors import UsageError

__all__ = ["WORDS", "Change", "Flag", "events_of", "status_flags", "status_text"]

WORDS = 7

_MAX_WORD = 0xFFFF


@dataclass(frozen=True, slots=True)
class Flag:
    """One named state of a status word and whether it holds."""

    name: str
    name_zh: str
    set: bool


class Change(StrEnum):
    """What became of a flag."""

    RAISED = "raised"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class _Bits:
    """A flag's place: `width` bits from bit `low` on; it holds when they say `equals`."""

    name: str
    name_zh: str
    low: int
    width: int = 1
    equals: int = 1

    def holds(self, word: int) -> bool:
        return (word >> self.low) & ((1 << self.width) - 1) == self.equals


def _phase(letter: str) -> tuple[_Bits, ...]:
    """Words 4 to 6: what is wrong with one phase."""
    faults = (
        ("voltage_loss", "失压", 0),
        ("undervoltage", "欠压", 1),
        ("overvoltage", "过压", 2),
        ("current_loss", "失流", 3),
        ("overcurrent", "过流", 4),
        ("overload", "过载", 5),
        ("reverse_flow", "潮流反向", 6),
        ("phase_failure", "断相", 7),
        ("current_interrupted", "断流", 8),
    )
    return tuple(_Bits(f"phase_{letter.lower()}_{name}", f"{letter}相{zh}", bit) for name, zh, bit in faults)


def _directions(kind: str, zh: str, low: int) -> tuple[_Bits, ...]:
    return tuple(
        _Bits(f"phase_{letter.lower()}_{kind}_power_reversed", f"{letter}相{zh}功率反向", low + i)
        for i, letter in enumerate("ABC")
    )


_WORDS: dict[int, tuple[_Bits, ...]] = {
    1: (
        _Bits("block_demand", "需量为区间式", 1),
        _Bits("clock_battery_low", "时钟电池欠压", 2),
        _Bits("reading_battery_low", "停电抄表电池欠压", 3),
        _Bits("active_power_reversed", "有功功率反向", 4),
        _Bits("reactive_power_reversed", "无功功率反向", 5),
    ),
    2: (*_directions("active", "有功", 0), *_directions("reactive", "无功", 4)),
    3: (
        _Bits("second_day_table", "当前运行第二套时段", 0),
        _Bits("auxiliary_supply", "辅助电源供电", 1, 2, 1),
        _Bits("battery_supply", "电池供电", 1, 2, 2),
        _Bits("programming_enabled", "编程允许", 3),
        _Bits("relay_open", "继电器断开", 4),
        _Bits("relay_commanded_open", "继电器命令断开", 6),
        _Bits("pre_trip_alarm", "预跳闸报警", 7),
        _Bits("energy_prepaid", "电量型预付费", 8, 2, 1),
        _Bits("money_prepaid", "电费型预付费", 8, 2, 2),
    ),
    4: _phase("A"),
    5: _phase("B"),
    6: _phase("C"),
    7: (
        _Bits("voltage_sequence_reversed", "电压逆相序", 0),
        _Bits("current_sequence_reversed", "电流逆相序", 1),
        _Bits("voltage_unbalance", "电压不平衡", 2),
        _Bits("current_unbalance", "电流不平衡", 3),
        _Bits("auxiliary_power_lost", "辅助电源失电", 4),
        _Bits("power_down", "掉电", 5),
        _Bits("demand_over_limit", "需量超限", 6),
    ),
}


def status_flags(word_number: int, value: int) -> tuple[Flag, ...]:
    """Every flag of status word `word_number` (1 to 7) as `value` has them; bits without a name are left out."""
    if word_number not in _WORDS:
        raise UsageError(f"there is no status word {word_number}", remedy=f"they are numbered 1 to {WORDS}")
    if not 0 <= value <= _MAX_WORD:
        raise UsageError(f"a status word is 0 to {_MAX_WORD}, not {value}")
    return tuple(Flag(bits.name, bits.name_zh, bits.holds(value)) for bits in _WORDS[word_number])


def events_of(before: Iterable[Flag], after: Iterable[Flag]) -> list[tuple[Flag, Change]]:
    """What changed from `before` to `after`, in the order of `after`, each flag as it stands now.

    Give the flags of one word, or of several joined. A flag that `before` does not have is no event: how it stood is
    not known.
    """
    stood = {flag.name: flag.set for flag in before}
    return [
        (flag, Change.RAISED if flag.set else Change.CLEARED)
        for flag in after
        if flag.name in stood and stood[flag.name] != flag.set
    ]


def status_text(word_number: int, value: int) -> str:
    """The flags that are set, as `name 中文`, for a person; the relay is told either way."""
    said = [f"{flag.name} {flag.name_zh}" for flag in status_flags(word_number, value) if flag.set]
    if word_number == 3 and not any(text.startswith("relay_open") for text in said):
        said.append("relay closed 继电器闭合")
    return ", ".join(said) or "nothing set"
