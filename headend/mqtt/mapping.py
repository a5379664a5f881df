"""A foreign format as data: where in a topic and a payload stand meter, time, quantities; units, quality, the answer.

A mapping is a `Dialect`. It says what it can take and, of all else it finds in its places, why not: nothing is dropped.
Mappings are written as TOML (`config/mqtt_mapping.py` checks them); here they are frozen values, and decoding is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from fractions import Fraction
from math import gcd
from typing import Any, Final

from headend.civil import to_epoch_s
from headend.errors import BadFrame, UsageError
from headend.mqtt.batch import Batch, ReadKindWord
from headend.mqtt.gather import CLOCK_DOUBTFUL, MISSING, Gathering
from headend.mqtt.payload import (
    ABSENT,
    BadTime,
    Moment,
    Path,
    at,
    clear_bytes,
    decode_json,
    each,
    encode_json,
    epoch_s,
    number,
    pick_text,
    plain,
    to_store,
)
from headend.mqtt.shapes import Entries, Part, Reply, Term, Topic, Value, factor

__all__ = ["MappedDialect", "take_part"]

_WHOLE: Final = re.compile(r"\{(at|topic|now):?([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class MappedDialect:
    """A mapping. concentrator: where the topic has no level of that name; None if nothing says it."""

    name: str
    topics: tuple[Topic, ...]
    parts: tuple[Part, ...]
    concentrator: Term | None = None
    kind: ReadKindWord = ReadKindWord.REGISTER
    step_s: int = 0
    compression: str = ""
    encoding: str = "utf-8"
    reply: Reply | None = None
    source: str = field(default="", compare=False)

    @property
    def filters(self) -> tuple[str, ...]:
        """See `Dialect.filters`."""
        return tuple(dict.fromkeys(topic.filter for topic in self.topics))

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """See `Dialect.decode`."""
        names = next((said for one in self.topics if (said := one.names(topic)) is not None), None)
        if names is None:
            raise BadFrame(f"topic {plain(topic)} is none of the mapping {self.name}")
        root = decode_json(clear_bytes(payload, self.compression), self.encoding)
        into = Gathering()
        found = False
        for part in self.parts:
            found |= take_part(part, root, names, received_at, self.step_s, into)
        if not found:
            into.reject("", f"nothing in it has a shape that the mapping {self.name} knows")
        return into.batch(
            _concentrator(self.concentrator, root, names),
            kind=self.kind,
            step_s=self.step_s,
            reply=_reply(self.reply, topic, root, names, received_at),
        )


# -- decoding ----------------------------------------------------------------------------------------------------------


def take_part(
    part: Part, root: Any, names: Mapping[str, str], received_at: datetime, step_s: int, into: Gathering
) -> bool:
    """Take what has the shape of `part` into `into`; whether there was any."""
    if any(not _same(at(root, path), wanted) for path, wanted in part.when):
        return False
    seen = False
    container = part.inside if part.entries is None else part.entries.path
    for key, item in each(root, part.items):
        if "*" not in part.items and at(item, container) is ABSENT:
            continue  # another part's shape; among many items it would be told
        seen = True
        address = _text_of(part.meter, root, item, key, names)
        if not address:
            into.reject("", f"no meter named in it: {_place(part.meter)} is not there or no name")
            continue
        _Item(part, root, item, address, received_at, step_s, into).take()
    return seen


@dataclass(slots=True)
class _Item:
    """One meter's values on their way into the gathering."""

    part: Part
    root: Any
    item: Any
    address: str
    received_at: datetime
    step_s: int
    into: Gathering

    def take(self) -> None:
        if self.part.entries is None:
            self._take_paths()
        else:
            self._take_entries(self.part.entries)

    def _take_paths(self) -> None:
        part = self.part
        inside = at(self.item, part.inside)
        if not isinstance(inside, dict | list):
            self._reject(f"no values at {_dotted(part.inside) or 'the item'}: {_what(inside)}")
            return
        found = [(value, raw) for value in part.values if (raw := at(inside, value.path)) is not ABSENT]
        if part.strict:
            self._tell_unknown(inside)
        if not found:
            return
        moment = self._moment(at(self.root if part.time.root else self.item, part.time.path))
        bits = self._bits(None)
        for value, raw in found:
            self._put(value, raw, value.factor, moment, bits)

    def _tell_unknown(self, inside: Any) -> None:
        part = self.part
        known = {value.path for value in part.values}
        deep = len(part.inside)
        for path in _own_places(part):
            if path[:deep] == part.inside and len(path) > deep:
                known.add(path[deep:])
        for place in _numbers(inside, known):
            if self.into.full:
                return
            name = _dotted(place)
            if not any(fnmatchcase(name, wild) for wild in part.ignore):
                self._reject(f"no quantity for {plain(name)}")

    def _take_entries(self, entries: Entries) -> None:
        by_name = {value.path[0]: value for value in self.part.values}
        there = at(self.item, entries.path)
        if not isinstance(there, dict | list):
            self._reject(f"no values at {_dotted(entries.path) or 'the item'}: {_what(there)}")
            return
        for key, entry in each(there, ("*",)):
            name = pick_text(at(entry, entries.name)) if entries.name else key
            if any(fnmatchcase(name, wild) for wild in self.part.ignore):
                continue
            if wrong := [path for path, wanted in entries.only if not _same(at(entry, path), wanted)]:
                self._reject(f"{plain(name)}: {_dotted(wrong[0])} is {_what(at(entry, wrong[0]))}, which is not mapped")
            elif name in by_name:
                self._take_entry(entries, by_name[name], entry)
            elif self.part.strict:
                self._reject(f"no quantity for {plain(name)}" if name else "a value without a name")

    def _take_entry(self, entries: Entries, value: Value, entry: Any) -> None:
        raw = at(entry, entries.value) if isinstance(entry, dict) else entry
        if raw is ABSENT:
            if entries.error is None or at(entry, entries.error) is ABSENT:
                self._reject(f"{plain(value.path[0])} has no value")
            return
        factored = value.factor
        unit = at(entry, entries.unit) if entries.unit is not None else ABSENT
        if isinstance(unit, str):
            try:
                factored = factor(value.quantity, unit.strip(), value.plain)
            except UsageError as error:
                self._reject(f"{plain(value.path[0])}: {error.problem.what}")
                return
        time = at(entry, entries.time) if entries.time is not None and isinstance(entry, dict) else ABSENT
        if time is ABSENT:
            time = at(self.root if self.part.time.root else self.item, self.part.time.path)
        self._put(value, raw, factored, self._moment(time), self._bits(entry))

    def _put(self, value: Value, raw: Any, by: Fraction, moment: Moment | None, bits: int) -> None:
        if moment is None or raw is None or (isinstance(raw, str) and raw.strip() in self.part.missing):
            return
        exact = number(raw)
        units = None if exact is None else to_store(exact, by)
        if units is None:
            self._reject(f"{plain(_dotted(value.path))} is {plain(raw)}, which is no number that can be stored")
            return
        if bits & MISSING:
            return
        bits |= CLOCK_DOUBTFUL if moment.ambiguous else 0
        self.into.put(self.address, moment.at_s, bits, value.quantity, units)

    def _moment(self, raw: Any) -> Moment | None:
        """The instant; None if there is none, which is then told."""
        time = self.part.time
        if not time.path or raw is ABSENT or raw is None:
            if not time.received and time.path:
                self._reject(f"no time at {_dotted(time.path)}")
                return None
            return self._snapped(Moment(to_epoch_s(self.received_at)))
        try:
            return self._snapped(epoch_s(raw, time.form, time.zone, self.received_at))
        except BadTime as error:
            self._reject(str(error))
            return None

    def _snapped(self, moment: Moment) -> Moment:
        """The moment, pulled to a boundary it is near to. Grids lie on quarters of an hour in every zone there is."""
        if not self.part.time.snap_s or not self.step_s:
            return moment
        grid = gcd(self.step_s, 900)
        off = (moment.at_s + grid // 2) % grid - grid // 2
        return Moment(moment.at_s - off, moment.ambiguous) if abs(off) <= self.part.time.snap_s else moment

    def _bits(self, entry: Any) -> int:
        quality = self.part.quality
        if quality is None:
            return 0
        said = at(entry, quality.path) if entry is not None else ABSENT
        if said is ABSENT:
            said = at(self.item, quality.path)
        if said is ABSENT or said is None:
            return 0
        return quality.bits.get(_key_of(said), quality.other)

    def _reject(self, reason: str) -> None:
        self.into.reject(self.address, reason)


def _concentrator(term: Term | None, root: Any, names: Mapping[str, str]) -> str:
    if term is not None:
        return _text_of(term, root, root, "", names)
    return names.get("concentrator", "")


def _text_of(term: Term, root: Any, item: Any, key: str, names: Mapping[str, str]) -> str:
    if term.source == "text":
        return term.name
    if term.source == "topic":
        return pick_text(names.get(term.name, ""))
    if term.source == "key":
        return pick_text(key)
    return pick_text(at(root if term.source == "root" else item, term.path))


def _place(term: Term) -> str:
    places = {"topic": f"level {term.name} of the topic", "key": "the key", "text": "the text"}
    return places.get(term.source) or _dotted(term.path) or "the item"


def _dotted(path: Path) -> str:
    return ".".join(path)


def _what(value: Any) -> str:
    return "nothing is there" if value is ABSENT else plain(value)


def _key_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else plain(value).strip()


def _same(value: Any, wanted: Any) -> bool:
    """Whether a field is what a mapping asks for, `*` anything; a text and a number written alike are the same, as
    senders mix them."""
    return value is not ABSENT and (wanted == "*" or _key_of(value) == _key_of(wanted))


def _own_places(part: Part) -> Iterator[Path]:
    """Places in the item that hold no value: who, when, how good."""
    if part.meter.source == "at":
        yield part.meter.path
    if part.quality is not None:
        yield part.quality.path
    if not part.time.root:
        yield part.time.path


def _numbers(node: Any, known: set[Path]) -> Iterator[Path]:
    """Paths of all numbers under `node`, and texts that are some, except at or below a known path."""
    stack: list[tuple[Path, Any]] = [((), node)]
    while stack:
        path, here = stack.pop()
        if path in known:
            continue
        if isinstance(here, dict):
            stack += [((*path, name), child) for name, child in here.items()]
        elif isinstance(here, list):
            stack += [((*path, str(index)), child) for index, child in enumerate(here)]
        elif here is not None and not isinstance(here, bool) and number(here) is not None:
            yield path


# -- answers -----------------------------------------------------------------------------------------------------------


def _reply(
    reply: Reply | None, topic: str, root: Any, names: Mapping[str, str], received_at: datetime
) -> tuple[str, bytes]:
    if reply is None or any(_same(at(root, path), value) for path, value in reply.unless):
        return "", b""
    where = reply.topic
    for name, level in {"topic": topic, **names}.items():
        where = where.replace(f"{{{name}}}", level)
    return where, encode_json(_filled(reply.body, root, names, received_at))


def _filled(body: Any, root: Any, names: Mapping[str, str], received_at: datetime) -> Any:
    """A reply's body with its places filled; what the message does not say becomes null."""
    if isinstance(body, dict):
        return {name: _filled(child, root, names, received_at) for name, child in body.items()}
    if isinstance(body, list):
        return [_filled(child, root, names, received_at) for child in body]
    match = _WHOLE.fullmatch(body) if isinstance(body, str) else None
    if match is None:
        return body
    if match[1] == "topic":
        return names.get(match[2], "")
    if match[1] == "now":
        return to_epoch_s(received_at) * (1000 if match[2] == "epoch_ms" else 1)
    said = at(root, tuple(match[2].split(".")))
    return said if isinstance(said, str | int) or number(said) is not None else None
