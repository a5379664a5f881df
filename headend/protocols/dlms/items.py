"""One attribute of any object of a meter, for a person: `0.0.96.1.0.255`, `1-0:1.8.0`, `3/1.0.1.8.0.255/2`."""

from __future__ import annotations

import re
from typing import Final

from headend.access import NO_ACCESS, Access
from headend.conversation import Conversation
from headend.errors import HeadendError, ProtocolError, UsageError
from headend.model import Meter
from headend.protocols.dlms.axdr import Datum, Tag, decode, encode
from headend.protocols.dlms.catalogue import find, name_of
from headend.protocols.dlms.clock import is_time, stamp_text
from headend.protocols.dlms.cosem import Attribute, obis_bytes, obis_text
from headend.protocols.dlms.haul import in_session
from headend.protocols.dlms.objects import CLOCK_CLASS, Scale, scale_attribute, scale_of, settings_of
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsObject
from headend.protocols.dlms.units import scaled, unit_name
from headend.protocols.explanation import Value

__all__ = ["decode_item", "is_item", "parse_item", "read_item"]

_IDENTIFIER: Final = re.compile(r"(?:(?P<class>[0-9]{1,5})/)?(?P<obis>[0-9][0-9.:*&-]*)(?:/(?P<attribute>[0-9]{1,3}))?")
_REMEDY: Final = "write an OBIS code, or class/OBIS/attribute, like 0.0.96.1.0.255 or 3/1.0.1.8.0.255/2"
_MOST_VALUES: Final = 500  # a person reads no more


def is_item(text: str) -> bool:
    """Whether `text` names an attribute of a meter."""
    try:
        parse_item(text)
    except UsageError:
        return False
    return True


def parse_item(text: str) -> Attribute:
    """The attribute `text` names; class and attribute are the catalogue's where it does not say. `UsageError`."""
    match = _IDENTIFIER.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} names no attribute of a meter", remedy=_REMEDY)
    obis = obis_bytes(match["obis"])
    known = find(obis)
    if match["class"] is None and known is None:
        raise UsageError(
            f"the class of {match['obis']} is not known", remedy=f"write it too, like 1/{obis_text(obis)}/2"
        )
    class_id = int(match["class"]) if match["class"] else known.class_id if known else 0
    same = known is not None and known.class_id == class_id
    default = known.attribute if known is not None and same else 2
    attribute = int(match["attribute"]) if match["attribute"] else default
    if not 1 <= class_id <= 0xFFFF or not 1 <= attribute <= 127:
        raise UsageError(f"{text!r} names no attribute of a meter", remedy=_REMEDY)
    return Attribute(class_id, obis, attribute)


def read_item(
    address: str, identifier: str, *, meter: Meter | None = None, access: Access = NO_ACCESS
) -> Conversation[bytes]:
    """The attribute's value as sent, with scaler and unit after it where its object has such (A-XDR).

    Raises `UsageError` for what names no attribute, `DataAccessError` when the meter refuses it.
    """
    attribute = parse_item(identifier)
    if meter is None:
        raise UsageError("a DLMS meter is read with its settings and keys", remedy=f"import the meter at {address}")
    settings_of(meter)
    scale = scale_attribute(DlmsObject("", obis_text(attribute.obis), attribute.class_id))
    wanted = [attribute]
    if scale is not None and attribute.index in _scaled_attributes(attribute.class_id):
        wanted.append(scale)

    def task(session: Session) -> Conversation[bytes]:
        answers = yield from session.get_many(wanted)
        if isinstance(answers[0], ProtocolError):
            raise answers[0]
        return b"".join(encode(answer) for answer in answers if isinstance(answer, Datum))

    return (yield from in_session(meter, access, task))


def _scaled_attributes(class_id: int) -> tuple[int, ...]:
    """The attributes that scaler and unit hold for (Blue Book 4.3.2 to 4.3.4)."""
    return (2, 3) if class_id == 5 else (2,)


def decode_item(identifier: str, data: bytes) -> list[Value]:
    """Those bytes as values, each part of an array or structure by itself. Never raises."""
    try:
        attribute = parse_item(identifier)
        datum, end = decode(data)
        scale = scale_of(decode(data, end)[0]) if end < len(data) else None
    except HeadendError as error:
        return [Value(identifier, "", None, "", "", identifier, str(error))]
    name = name_of(attribute.obis)
    known = find(attribute.obis)
    name_zh = known.name_zh if known is not None else ""
    found: list[Value] = []
    for path, leaf in _leaves(datum, ""):
        if len(found) == _MOST_VALUES:
            found.append(Value(name, name_zh, None, "", obis_text(attribute.obis), str(attribute), "and more"))
            break
        text, unit, note = _shown(leaf, attribute, scale)
        found.append(Value(name + path, name_zh, text, unit, obis_text(attribute.obis), str(attribute), note))
    return found


def _leaves(datum: Datum, path: str) -> list[tuple[str, Datum]]:
    """The simple values in `datum`, each with its place."""
    if datum.tag not in (Tag.ARRAY, Tag.STRUCTURE):
        return [(path, datum)]
    return [
        leaf
        for number, part in enumerate(datum.value, start=1)
        for leaf in _leaves(part, f"{path} [{number}]" if not path else f"{path[:-1]}.{number}]")
    ]


def _shown(datum: Datum, attribute: Attribute, scale: Scale | None) -> tuple[str | None, str, str]:
    """A simple value's text, unit and note."""
    value = datum.value
    if value is None:
        return None, "", "null-data"
    if scale is not None and not isinstance(value, bool | bytes | str):
        try:
            return f"{scaled(value, scale.exponent):f}", unit_name(scale.unit), ""
        except HeadendError as error:
            return str(value), "", str(error)
    if is_time(datum) or (attribute.class_id == CLOCK_CLASS and attribute.index == 2):
        return stamp_text(datum), "", ""
    if isinstance(value, bytes):
        if len(value) == 6 and attribute.class_id in (7, 15):
            return obis_text(value), "", name_of(value)
        printable = bool(value) and all(0x20 <= byte < 0x7F for byte in value)
        return (value.decode("ascii"), "", "") if printable else (value.hex().upper(), "", "bytes in hex")
    if isinstance(value, bool):
        return ("true" if value else "false"), "", ""
    return str(value), "", ""
