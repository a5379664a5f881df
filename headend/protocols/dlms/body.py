"""The values in the body of a push, whatever the shape its maker gave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headend.errors import BadFrame
from headend.protocols.dlms.axdr import Datum, Tag, decode, decode_all, decode_length
from headend.protocols.dlms.objects import Scale

__all__ = ["Item", "items_of"]

_COLLECTIONS: Final = (Tag.ARRAY, Tag.STRUCTURE)
_MAX_A: Final = 15  # group A of an OBIS code; a serial number in ASCII begins with more
_PUSH_SETUP: Final = 40
_PROFILE: Final = 7
# Attributes that belong to the value of the same object: scaler and unit, capture time; by class.
_SCALER_UNIT: Final = {3: 3, 4: 3, 5: 4}
_CAPTURE_TIME: Final = {4: 5, 5: 6}


@dataclass(frozen=True, slots=True)
class Item:
    """One value. obis: None when the body does not name it; scale: where it stands beside the value; class_id and
    attribute: 0 when not told; position: of an unnamed value among those, from 0, else -1; captured: when, of a
    demand."""

    obis: bytes | None
    datum: Datum
    scale: Scale | None = None
    class_id: int = 0
    attribute: int = 0
    position: int = -1
    captured: Datum | None = None


def items_of(body: bytes) -> list[Item]:
    """The values in `body`, which is all that follows a notification's time. Raises `BadFrame`."""
    untagged = _untagged(body)
    if untagged is not None:
        return _joined(untagged)
    datum = decode_all(body)
    listed = _listed(datum)
    if listed is not None:
        return _joined(listed)
    items: list[Item] = []
    if datum.tag in _COLLECTIONS:
        _walk(datum.value, items)
    else:
        items.append(Item(None, datum))
    return _joined(_numbered(items))


def _numbered(items: Sequence[Item]) -> list[Item]:
    """The unnamed ones numbered."""
    numbered = []
    position = 0
    for item in items:
        if item.obis is None:
            item = replace(item, position=position)
            position += 1
        numbered.append(item)
    return numbered


def _walk(elements: tuple[Datum, ...], items: list[Item]) -> None:
    """Values in the order of the body: OBIS, value and perhaps scaler-unit side by side, at any depth."""
    at = 0
    while at < len(elements):
        element = elements[at]
        at += 1
        if _is_obis(element) and at < len(elements):
            datum, scale = elements[at], None
            at += 1
            if at < len(elements) and _is_scale(elements[at]):
                scale = _scale(elements[at])
                at += 1
            items.append(Item(element.value, datum, scale))
            while at < len(elements) and elements[at].tag == Tag.NULL:
                at += 1  # Kamstrup fills up the phases a meter does not have
        elif element.tag in _COLLECTIONS:
            described = _described(element.value)
            if described is None:
                _walk(element.value, items)
            else:
                items.append(described)
        else:
            items.append(Item(None, element))


def _is_obis(datum: Datum) -> bool:
    return datum.tag == Tag.OCTET_STRING and len(datum.value) == 6 and datum.value[0] <= _MAX_A


def _is_scale(datum: Datum) -> bool:
    return (
        datum.tag == Tag.STRUCTURE
        and len(datum.value) == 2
        and datum.value[0].tag == Tag.INTEGER
        and datum.value[1].tag == Tag.ENUM
    )


def _scale(datum: Datum) -> Scale:
    return Scale(datum.value[0].value, datum.value[1].value)


def _names_attribute(parts: tuple[Datum, ...]) -> bool:
    """Whether the first three of `parts` are class, OBIS and attribute."""
    return len(parts) >= 3 and parts[0].tag == Tag.LONG_UNSIGNED and _is_obis(parts[1]) and parts[2].tag == Tag.INTEGER


def _described(parts: tuple[Datum, ...]) -> Item | None:
    """A structure of class, OBIS, attribute and value, perhaps with a data index before the value."""
    if len(parts) not in (4, 5) or not _names_attribute(parts):
        return None
    return Item(parts[1].value, parts[-1], None, parts[0].value, parts[2].value)


def _listed(body: Datum) -> list[Item] | None:
    """Values after a list of the objects they are of; None when the body has no such list.

    The list is often itself the first of the objects it names: attribute 2 of the push setup.
    """
    if body.tag not in _COLLECTIONS or not body.value or body.value[0].tag != Tag.ARRAY:
        return None
    objects: tuple[Datum, ...] = body.value[0].value
    if not objects or not all(
        one.tag == Tag.STRUCTURE and len(one.value) >= 4 and _names_attribute(one.value) for one in objects
    ):
        return None
    values = body.value[1:]
    if len(values) == len(objects) - 1 and _attribute(objects[0])[::2] == (_PUSH_SETUP, 2):
        objects = objects[1:]
    if len(values) != len(objects):
        raise BadFrame(f"a push lists {len(objects)} objects and holds {len(values)} values")
    items = []
    for one, datum in zip(objects, values, strict=True):
        class_id, obis, index = _attribute(one)
        items.append(Item(obis, datum, None, class_id, index))
    return items


def _attribute(definition: Datum) -> tuple[int, Any, int]:
    class_id, obis, index = (part.value for part in definition.value[:3])
    return class_id, obis, index


def _untagged(body: bytes) -> list[Item] | None:
    """Sagemcom XT211 and the like (EG.D): an enum, then an array of two, class, OBIS and attribute without tags, value.

    The structure around it has no count, or has one. None when the body is something else: the shape must fit to the
    last byte.
    """
    at = 1 if body[:2] == b"\x02\x16" else 2 if body[:3] == b"\x02\x02\x16" else 0
    if not at or body[at + 2 : at + 3] != b"\x01":
        return None
    items = []
    try:
        count, at = decode_length(body, at + 3)
        for _ in range(count):
            if body[at : at + 2] != b"\x02\x02" or len(body) < at + 11:
                return None
            class_id, obis, index = int.from_bytes(body[at + 2 : at + 4], "big"), body[at + 4 : at + 10], body[at + 10]
            datum, at = decode(body, at + 11)
            items.append(Item(obis, datum, None, class_id, index))
    except BadFrame:
        return None
    return items if at == len(body) else None


def _joined(items: list[Item]) -> list[Item]:
    """Scalers and capture times that came as items of their own, put to the values they are of."""
    scales = {
        item.obis: _scale(item.datum)
        for item in items
        if item.attribute and _SCALER_UNIT.get(item.class_id) == item.attribute and _is_scale(item.datum)
    }
    times = {
        item.obis: item.datum for item in items if item.attribute and _CAPTURE_TIME.get(item.class_id) == item.attribute
    }
    if not scales and not times:
        return items
    return [
        replace(item, scale=item.scale or scales.get(item.obis), captured=times.get(item.obis))
        if item.attribute == 2 or not item.attribute
        else item
        for item in items
    ]
