"""The page an explanation is written on, and data as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from headend.errors import ProtocolError
from headend.protocols.dlms.apdu import parse_part
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.catalogue import CLASSES, find, name_of
from headend.protocols.dlms.clock import is_time, stamp_text
from headend.protocols.dlms.cosem import Attribute, obis_short, obis_text
from headend.protocols.dlms.objects import Scale
from headend.protocols.dlms.units import scaled, unit_name
from headend.protocols.explanation import Field, Value

__all__ = ["HIDDEN", "Page", "attribute_text", "datum_text", "is_secret", "short"]

HIDDEN: Final = "not shown"
_MAX_TEXT: Final = 2000
_MAX_HEX: Final = 48
_TIMES: Final = (Tag.DATE_TIME, Tag.DATE, Tag.TIME)

# Attributes and methods whose data is a secret: LLS secret, change of HLS secret, keys handed over.
_SECRET_ATTRIBUTES: Final = frozenset({(12, 7), (15, 7), (64, 6)})
_SECRET_METHODS: Final = frozenset({(12, 6), (15, 1), (15, 2), (64, 2), (64, 3)})


@dataclass(slots=True)
class Page:
    """What is found. asked: attributes of the last GET by invoke id, to name its answer; titles: of either side."""

    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    fields: list[Field] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    ok: bool = True
    asked: dict[int, list[Attribute]] = field(default_factory=dict)
    parts: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    client_title: bytes = b""
    meter_title: bytes = b""
    dedicated_key: bytes = field(default=b"", repr=False)

    def note(self, name: str, text: str, data: bytes = b"") -> None:
        """One field; long ones show their first bytes."""
        shown = data.hex().upper()
        self.fields.append(Field(name, text, shown if len(shown) <= _MAX_HEX else shown[:_MAX_HEX] + "…"))

    def say(self, text: str) -> None:
        """Add to the summary."""
        self.said.append(text)

    def bad(self, problem: str) -> None:
        """Something that makes the bytes not sound."""
        self.ok = False
        self.problems.append(problem)

    def block_fields(self, apdu: bytes) -> None:
        """The head of a block of a general block transfer. Raises `BadFrame`."""
        block = parse_part(apdu)
        words = [f"block {block.number}", "the last" if block.last else "more follow"]
        words += ["streaming"] if block.streaming else []
        words.append(f"acknowledges {block.acknowledged}")
        self.note("block transfer", f"{', '.join(words)}, {len(block.data)} bytes", apdu[:6])

    def value(self, obis: bytes | None, datum: Datum, scale: Scale | None = None, note: str = "") -> None:
        """One value with its name, in its unit where that is told."""
        item = None if obis is None else find(obis)
        name = item.name if item else "value" if obis is None else "unknown object"
        text, unit = _in_unit(datum, scale)
        self.values.append(
            Value(name, item.name_zh if item else "", text, unit, "" if obis is None else obis_short(obis), "", note)
        )


def _in_unit(datum: Datum, scale: Scale | None) -> tuple[str | None, str]:
    if datum.tag == Tag.NULL:
        return None, ""
    number = datum.value
    if scale is not None and isinstance(number, int | Decimal) and not isinstance(number, bool):
        try:
            return f"{scaled(number, scale.exponent):f}", unit_name(scale.unit)
        except ProtocolError:
            return f"{number} (scaler {scale.exponent})", unit_name(scale.unit)
    return datum_text(datum), ""


def datum_text(datum: Datum) -> str:
    """A value as text; a long one is cut."""
    parts, size = [], 0
    for piece in _pieces(datum):
        parts.append(piece)
        size += len(piece)
        if size > _MAX_TEXT:
            return "".join(parts)[:_MAX_TEXT] + "…"
    return "".join(parts)


def _pieces(datum: Datum) -> Iterator[str]:
    if datum.tag not in (Tag.ARRAY, Tag.STRUCTURE):
        yield _scalar(datum)
        return
    yield "[" if datum.tag == Tag.ARRAY else "{"
    for index, item in enumerate(datum.value):
        yield ", " if index else ""
        yield from _pieces(item)
    yield "]" if datum.tag == Tag.ARRAY else "}"


def _scalar(datum: Datum) -> str:
    value = datum.value
    if datum.tag in _TIMES or is_time(datum):
        return stamp_text(datum)
    if isinstance(value, bytes):
        if len(value) == 6 and find(value) is not None:
            return obis_short(value)
        text = value.rstrip(b"\0 ")
        if len(text) > 3 and text.isascii() and text.decode("ascii").isprintable():
            return f'"{text.decode("ascii")}"'
        return value.hex().upper() or "empty"
    if isinstance(value, str):
        return f'"{value}"' if datum.tag != Tag.BIT_STRING else value
    if datum.tag == Tag.BCD:
        return f"{value:02X}"
    if value is None:
        return "null" if datum.tag == Tag.NULL else "don't care"
    return str(value).lower() if isinstance(value, bool) else f"{value:f}" if isinstance(value, Decimal) else str(value)


def attribute_text(attribute: Attribute, what: str = "attribute") -> str:
    """`register 1-0:1.8.0 (active energy import total), attribute 2`."""
    known = CLASSES.get(attribute.class_id, f"class {attribute.class_id}")
    return f"{known} {name_of(attribute.obis)}, {what} {attribute.index}"


def is_secret(attribute: Attribute, *, method: bool = False) -> bool:
    """Whether what is written there must not be shown."""
    return attribute[::2] in (_SECRET_METHODS if method else _SECRET_ATTRIBUTES)


def short(attribute: Attribute) -> str:
    """For summaries: `1-0:1.8.0`, with the attribute where it is not the value."""
    text = obis_short(attribute.obis) if len(attribute.obis) == 6 else obis_text(attribute.obis)
    return text if attribute.index == 2 else f"{text} attribute {attribute.index}"
