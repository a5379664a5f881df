"""What a mapping is made of: topics with named levels, and where in a payload things stand. Frozen values, no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, Literal

from headend.mqtt.columns import column
from headend.mqtt.dialect import CONCENTRATOR
from headend.mqtt.payload import Path

__all__ = ["Entries", "Part", "Quality", "Reply", "Term", "Time", "Topic", "Value", "factor"]

_LEVEL: Final = re.compile(r"([^{}+#]*)\{([a-z_]+)\}([^{}+#]*)")


# -- topics ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic with named levels: `/neuron/{concentrator}/{meter}/{group}`, `tele/tasmota_{meter}/SENSOR`. A last level
    `#` stands for all further ones."""

    text: str

    @property
    def filter(self) -> str:
        """As a dialect's filter: `{concentrator}` where a whole level is one, `+` for the other names."""
        levels = self.text.split("/")
        return "/".join(one if one == CONCENTRATOR else "+" if "{" in one else one for one in levels)

    def names(self, topic: str) -> dict[str, str] | None:
        """What the names stand for in `topic`; None if it is another topic."""
        match = _pattern(self.text).fullmatch(topic)
        return None if match is None else match.groupdict()


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    levels = text.split("/")
    rest = levels[-1] == "#" and len(levels) > 1
    body = "/".join(_level(one) for one in (levels[:-1] if rest else levels))
    return re.compile(f"{body}(?:/.*)?" if rest else body, re.DOTALL)


def _level(level: str) -> str:
    if level == "+":
        return "[^/]*"
    if match := _LEVEL.fullmatch(level):
        return f"{re.escape(match[1])}(?P<{match[2]}>[^/]+){re.escape(match[3])}"
    return re.escape(level)


# -- what a mapping is made of -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """Where a name comes from. source: a topic level's name, a path from the payload's root or from the item, the key
    the item stands under, or a fixed text."""

    source: Literal["topic", "root", "at", "key", "text"]
    name: str = ""
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Time:
    """When the values hold. path: in the item, or from the root. form: epoch_s, epoch_ms, iso or a strptime format.
    zone: of local times. received: take the moment of arrival where there is no time. snap_s: a time this near to a
    boundary of the mapping's grid is taken for it."""

    path: Path = ()
    root: bool = False
    form: str = "epoch_ms"
    zone: tzinfo | None = None
    received: bool = False
    snap_s: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """One quantity of ours. path: where it stands; for entries, its name as the only step. factor: what the number is
    multiplied with to be ten-thousandths of the quantity's unit; plain: of it, what is not the unit's."""

    path: Path
    quantity: str
    factor: Fraction
    plain: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Entries:
    """Values as a list of {name, value, ...} or an object of named ones. path: to it, in the item. name: of an entry,
    () for the key it stands under. value: in the entry; () the entry itself. unit, time: where an entry has its own.
    error: where it says that it has no value. only: entries that differ in these are told, not taken."""

    path: Path
    name: Path = ()
    value: Path = ("value",)
    unit: Path | None = None
    time: Path | None = None
    error: Path | None = None
    only: tuple[tuple[Path, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality bits by the text of a field, in the entry or else in the item. other: for a text not listed."""

    path: Path
    bits: Mapping[str, int]
    other: int


@dataclass(frozen=True, slots=True)
class Part:
    """One shape a payload may have. items: what stands for one meter, `*` every one. when: fields of the root by which
    the shape is known; `*` asks that there be one. inside: where in the item the values are. missing: texts that say
    there is no value. ignore: names, with `*`, of numbers not wanted. strict: tell of numbers that are neither mapped
    nor ignored."""

    meter: Term
    values: tuple[Value, ...]
    time: Time = Time()
    items: Path = ()
    when: tuple[tuple[Path, Any], ...] = ()
    inside: Path = ()
    entries: Entries | None = None
    quality: Quality | None = None
    missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered once a message is committed. topic: with `{names}` of the topic, `{topic}` the whole of it.
    body: JSON; a text `{at:path}`, `{topic:name}`, `{now:epoch_s}`, `{now:epoch_ms}` stands for what it names.
    unless: fields of the root that say no answer is wanted."""

    topic: str
    body: Any
    unless: tuple[tuple[Path, Any], ...] = ()


def factor(quantity: str, unit: str, scale: Fraction) -> Fraction:
    """What numbers of `scale` `unit` are multiplied with to be ten-thousandths of `quantity`'s unit. `UsageError`."""
    one = column(quantity, unit, 0)
    return scale * one.units_factor / one.units_divisor
