"""Foreign payloads: bytes to JSON within bounds, what stands where in it, numbers and times, exactly. Pure.

No number passes through a binary float: JSON numbers are read as whole numbers or as `Decimal` of their very digits.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

import msgspec

from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import BadFrame
from headend.mqtt.canonical import EARLIEST_S, FUTURE_S

__all__ = [
    "ABSENT",
    "MAX_BYTES",
    "BadTime",
    "Moment",
    "Path",
    "at",
    "clear_bytes",
    "decode_json",
    "each",
    "encode_json",
    "epoch_s",
    "hours_zone",
    "number",
    "pick_text",
    "plain",
    "to_store",
]

Path = tuple[str, ...]
"""Keys from an object inwards; a digit string also counts from 0 into a list; `*` (in `each` only) is every one."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""What a compressed payload may grow to."""

ABSENT: Final = object()
"""Stands for what is not there, so that JSON's null stays itself."""

_DIGITS_MAX: Final = 40  # of a number; an int64 of ten-thousandths has 19
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NAME_MAX: Final = 64
_INT64: Final = 2**63 - 1


class BadTime(ValueError):
    """A time that can't be taken; the text says why."""


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:20]} is no number that can be held") from None


_JSON: Final = msgspec.json.Decoder(float_hook=_exact)
_PLAIN: Final = msgspec.json.Encoder(decimal_format="number")


# -- bytes and JSON ----------------------------------------------------------------------------------------------------


def clear_bytes(payload: bytes, compression: str) -> bytes:
    """`payload` unpacked. compression: "", gzip, zlib, or auto, which looks at the first bytes. Raises `BadFrame`."""
    if compression == "auto":
        compression = "gzip" if payload[:2] == b"\x1f\x8b" else "zlib" if payload[:1] == b"\x78" else ""
    if not compression:
        return payload
    inflater = zlib.decompressobj(wbits=31 if compression == "gzip" else 15)
    try:
        clear = inflater.decompress(payload, MAX_BYTES)
    except zlib.error:
        raise BadFrame(f"the payload is no sound {compression} data") from None
    if inflater.unconsumed_tail:
        raise BadFrame(f"the payload grows beyond {MAX_BYTES // 1024 // 1024} MiB when unpacked")
    if not inflater.eof:
        raise BadFrame(f"the {compression} data of the payload is cut off")
    return clear


def decode_json(data: bytes, encoding: str = "utf-8") -> Any:
    """The JSON in `data`; fractions as `Decimal`. Raises `BadFrame`."""
    try:
        if encoding != "utf-8":
            data = data.decode(encoding).encode()
        return _JSON.decode(data)
    except RecursionError:
        raise BadFrame("the payload's JSON is nested too deep") from None
    except UnicodeError:
        raise BadFrame(f"the payload's text is not {encoding}") from None
    except ValueError as error:
        raise BadFrame(f"the payload is no JSON: {str(error)[:100]}") from None


def encode_json(value: object) -> bytes:
    """`value` as JSON; a `Decimal` is written as the number it is."""
    return _PLAIN.encode(value)


# -- what stands where -------------------------------------------------------------------------------------------------


def at(node: Any, path: Path) -> Any:
    """What stands at `path` under `node`, or `ABSENT`."""
    for step in path:
        if isinstance(node, dict):
            node = node.get(step, ABSENT)
        elif isinstance(node, list) and step.isascii() and step.isdigit() and len(step) < 7 and int(step) < len(node):
            node = node[int(step)]
        else:
            return ABSENT
    return node


def each(node: Any, path: Path, key: str = "") -> Iterator[tuple[str, Any]]:
    """Whatever stands at `path`, with the last key of an object that a `*` stood for."""
    for position, step in enumerate(path):
        if step == "*":
            rest = path[position + 1 :]
            if isinstance(node, dict):
                for name, child in node.items():
                    yield from each(child, rest, name)
            elif isinstance(node, list):
                for child in node:
                    yield from each(child, rest, key)
            return
        node = at(node, (step,))
    if node is not ABSENT:
        yield key, node


def pick_text(value: object) -> str:
    """A name as text: a text or whole number; "" for anything else, or what is no sensible name."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    if isinstance(value, int) and abs(value) > _INT64:
        return ""
    text = str(value).strip()
    return text if len(text) <= _NAME_MAX and text.isprintable() else ""


def plain(value: object) -> str:
    """A value shown in a reason, cut to a readable length."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else _shown(value)
    text = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 40 else f"{text[:40]}…"


def _shown(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # a whole number beyond what Python prints
        return "a very long number"


# -- numbers -----------------------------------------------------------------------------------------------------------


def number(value: object) -> Decimal | None:
    """A JSON number, or a text that is one, exactly; None for anything else."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) > _DIGITS_MAX or not _NUMBER.fullmatch(value):
            return None
        value = Decimal(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 10**_DIGITS_MAX:
            return None
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        return None
    digits = value.as_tuple()
    if len(digits.digits) > _DIGITS_MAX or abs(value.adjusted()) > _DIGITS_MAX:
        return None if value else Decimal(0)
    return value


def to_store(value: Decimal, factor: Fraction) -> int | None:
    """`value` times `factor`, in whole ten-thousandths, rounded half to even; None beyond what the store holds.

    Numbers finer than a ten-thousandth come from floats in the sender (161.30000000000018); the store has no finer.
    """
    top, bottom = value.as_integer_ratio()
    bottom *= factor.denominator
    units, rest = divmod(top * factor.numerator, bottom)
    if 2 * rest > bottom or (2 * rest == bottom and units % 2):
        units += 1
    return units if abs(units) <= _INT64 else None


# -- times -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant as a sender gave it. ambiguous: its local time came twice that night, and the first is taken."""

    at_s: int
    ambiguous: bool = False


def epoch_s(value: object, form: str, zone: tzinfo | None, received_at: datetime) -> Moment:
    """The instant of a time as `form` writes it: epoch_s, epoch_ms, iso, or a strptime format.

    zone: of a local time that carries no offset. Raises `BadTime` for no time, and for one that can't be true.
    """
    moment = _epoch(value, form) if form.startswith("epoch") else _civil(value, form, zone)
    if moment.at_s > to_epoch_s(received_at) + FUTURE_S:
        raise BadTime(f"dated in the future: {_said(moment.at_s)}")
    if moment.at_s < EARLIEST_S:
        raise BadTime(f"dated before 2000: {_said(moment.at_s)}")
    return moment


def _said(at_s: int) -> str:
    return f"{from_epoch_s(at_s):%Y-%m-%d %H:%M:%S} UTC" if 0 <= at_s < 2**37 else "beyond any calendar"


def _epoch(value: object, form: str) -> Moment:
    exact = number(value)
    if exact is None:
        raise BadTime(f"{plain(value)} is no time in {form}")
    return Moment(int(exact // (1000 if form == "epoch_ms" else 1)))


def _civil(value: object, form: str, zone: tzinfo | None) -> Moment:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _INT64 else value
    if not isinstance(text, str) or len(text) > _NAME_MAX:
        raise BadTime(f"{plain(value)} is no time")
    try:
        civil = datetime.fromisoformat(text) if form == "iso" else _by_format(text, form)
        if civil.tzinfo is not None:
            return Moment(to_epoch_s(civil.astimezone(UTC)))
        return _local(civil, zone)
    except BadTime:
        raise
    except (ValueError, OverflowError):
        raise BadTime(f"{plain(text)} is no time written as {form}") from None


def _by_format(text: str, form: str) -> datetime:
    """strptime, but `2022100810555` is not taken for a time with a short second: written back, it must be the same."""
    moment = datetime.strptime(text, form)  # noqa: DTZ007 (the zone is applied by the caller)
    again = moment.strftime(form)
    if again == text or "%z" in form or (form.endswith("%f") and again.startswith(text)):
        return moment
    raise ValueError(text)


def _local(civil: datetime, zone: tzinfo | None) -> Moment:
    if zone is None:
        raise BadTime(f"{civil:%Y-%m-%d %H:%M:%S} is a local time, and its zone is not known")
    first, second = civil.replace(tzinfo=zone, fold=0), civil.replace(tzinfo=zone, fold=1)
    apart = first.utcoffset() != second.utcoffset()
    instant = first.astimezone(UTC)
    if apart and instant.astimezone(zone).replace(tzinfo=None, fold=0) != civil.replace(fold=0):
        raise BadTime(f"{civil:%Y-%m-%d %H:%M:%S} does not exist in {zone}: clocks were put forward")
    return Moment(to_epoch_s(instant), apart)


def hours_zone(hours: object) -> tzinfo | None:
    """The zone so many hours east of UTC, as `8`, `"8"`, `5.5` say it; None for what is none."""
    exact = number(hours)
    return None if exact is None or abs(exact) > 14 else timezone(timedelta(minutes=int(exact * 60)))
