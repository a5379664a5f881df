"""What a meter holds, by the meter itself: its list of objects, and what a model needs to know of them.

One association; a few hundred small questions on a meter with many objects. What the client may not read is left out
and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import BadFrame, ProtocolError
from headend.model import Meter
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.buffer import CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD, Layout, layout_of
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.haul import in_session
from headend.protocols.dlms.objects import (
    DATA_CLASS,
    PROFILE_CLASS,
    Scale,
    scale_attribute,
    scale_of,
    settings_of,
)
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsObject

__all__ = ["Browsed", "BrowsedObject", "BrowsedProfile", "browse", "object_list_of"]

ASSOCIATION: Final = Attribute(15, obis_bytes("0.0.40.0.0.255"), 2)
PROFILE_ENTRIES: Final = 8
_NAMES: Final = ("0.0.42.0.0.255", "0.0.96.1.0.255", "1.0.0.2.0.255")
_BATCH: Final = 8

# Access modes of associations up to version 2: 1 read, 3 read and write, 4 and 6 the same when authenticated. Version 3
# has bits instead: 0 read, 1 write, 2 to 4 how the request must be protected.
_MODES_READ: Final = frozenset({1, 3, 4, 6})
_MODES_WRITE: Final = frozenset({2, 3, 5, 6})
_BITS_FROM: Final = 3


@dataclass(frozen=True, slots=True)
class BrowsedObject:
    """One object of the list. readable, writable: numbers of attributes; methods: those the client may call."""

    class_id: int
    version: int
    obis: bytes
    readable: tuple[int, ...] = ()
    writable: tuple[int, ...] = ()
    methods: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BrowsedProfile:
    """A profile generic. entries: the most rows it keeps."""

    layout: Layout
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Browsed:
    """What was found. profiles, scales, names: by OBIS bytes. refused: what could not be read, and why."""

    objects: tuple[BrowsedObject, ...]
    profiles: dict[bytes, BrowsedProfile] = field(default_factory=dict)
    scales: dict[bytes, Scale] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)
    refused: tuple[tuple[Attribute, str], ...] = ()


Tell = Callable[[str, int, int], None]
"""Told what is being read, how many are done, how many there are."""


def browse(meter: Meter, access: Access, tell: Tell = lambda what, done, of: None) -> Conversation[Browsed]:
    """Ask the meter what it holds, as its client may see it. Raises what it refuses of the list itself."""

    def task(session: Session) -> Conversation[Browsed]:
        tell("object list", 0, 1)
        association = Attribute(15, obis_bytes(settings_of(meter).hls_object), 2)
        try:
            told = yield from session.get(ASSOCIATION)
        except ProtocolError:
            if association == ASSOCIATION:
                raise
            told = yield from session.get(association)
        objects = object_list_of(told)
        tell("object list", 1, 1)
        answers = yield from _ask(session, list(_wanted(objects, meter)), tell)
        return _browsed(objects, answers)

    return (yield from in_session(meter, access, task))


def _wanted(objects: Iterable[BrowsedObject], meter: Meter) -> Iterable[Attribute]:
    for one in objects:
        if one.class_id == PROFILE_CLASS:
            for index in (CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD, PROFILE_ENTRIES):
                yield Attribute(PROFILE_CLASS, one.obis, index)
        scale = scale_attribute(DlmsObject("", ".".join(map(str, one.obis)), one.class_id))
        if scale is not None:
            yield scale
        if one.class_id == DATA_CLASS and one.obis in map(obis_bytes, _NAMES):
            yield Attribute(DATA_CLASS, one.obis, 2)


def _ask(
    session: Session, wanted: Sequence[Attribute], tell: Tell
) -> Conversation[dict[Attribute, Datum | ProtocolError]]:
    answers: dict[Attribute, Datum | ProtocolError] = {}
    for at in range(0, len(wanted), _BATCH):
        batch = wanted[at : at + _BATCH]
        tell("profiles and scalers", at, len(wanted))
        answers.update(zip(batch, (yield from session.get_many(batch)), strict=True))
    tell("profiles and scalers", len(wanted), len(wanted))
    return answers


def _browsed(objects: tuple[BrowsedObject, ...], answers: dict[Attribute, Datum | ProtocolError]) -> Browsed:
    profiles: dict[bytes, BrowsedProfile] = {}
    scales: dict[bytes, Scale] = {}
    names: dict[bytes, str] = {}
    refused: list[tuple[Attribute, str]] = []
    for attribute, answer in answers.items():
        try:
            if isinstance(answer, ProtocolError):
                raise answer
            if attribute.class_id == PROFILE_CLASS:
                if attribute.index == CAPTURE_OBJECTS:
                    numbers = [
                        _number(answers.get(attribute._replace(index=index)))
                        for index in (CAPTURE_PERIOD, SORT_METHOD, PROFILE_ENTRIES)
                    ]
                    profiles[attribute.obis] = BrowsedProfile(
                        layout_of(answer, numbers[0], numbers[1] == 2), numbers[2]
                    )
            elif attribute.class_id == DATA_CLASS:
                names[attribute.obis] = _text(answer)
            else:
                scales[attribute.obis] = scale_of(answer)
        except ProtocolError as error:
            refused.append((attribute, str(error)))
    return Browsed(objects, profiles, scales, names, tuple(refused))


def _number(answer: Datum | ProtocolError | None) -> int:
    value = answer.value if isinstance(answer, Datum) else 0
    return value if isinstance(value, int) else 0


def _text(datum: Datum) -> str:
    """A name as text; bytes that are none in hex."""
    if isinstance(datum.value, bytes):
        return datum.value.decode("ascii") if datum.value.isascii() else datum.value.hex().upper()
    return str(datum.value)


# --- the object list ------------------------------------------------------------------------------------------------


def object_list_of(datum: Datum) -> tuple[BrowsedObject, ...]:
    """The objects in attribute object_list of an association (class 15). Raises `BadFrame`."""
    if datum.tag != Tag.ARRAY:
        raise BadFrame("the meter's object list is no array")
    bits = any(_association_version(one) >= _BITS_FROM for one in datum.value)
    return tuple(_object(one, bits) for one in datum.value)


def _association_version(datum: Datum) -> int:
    match datum:
        case Datum(Tag.STRUCTURE, (Datum(_, 15), Datum(_, int(version)), *_)):
            return version
    return 0


def _object(datum: Datum, bits: bool) -> BrowsedObject:
    match datum:
        case Datum(
            Tag.STRUCTURE,
            (Datum(_, int(class_id)), Datum(_, int(version)), Datum(_, bytes(obis)), Datum(Tag.STRUCTURE, rights)),
        ) if len(obis) == 6 and len(rights) == 2:
            modes, calls = _modes(rights[0]), _modes(rights[1])
            return BrowsedObject(
                class_id,
                version,
                obis,
                tuple(index for index, mode in modes if (mode & 1 if bits else mode in _MODES_READ)),
                tuple(index for index, mode in modes if (mode & 2 if bits else mode in _MODES_WRITE)),
                tuple(index for index, mode in calls if mode),
            )
    raise BadFrame("the meter's object list holds something that is no object")


def _modes(rights: Datum) -> list[tuple[int, int]]:
    """Number and access mode of each attribute or method."""
    found = []
    for one in rights.value if rights.tag == Tag.ARRAY else ():
        match one:
            case Datum(Tag.STRUCTURE, (Datum(_, int(index)), Datum(_, int(mode)), *_)):
                found.append((index, int(mode)))
    return found
