"""A meter model's file, drafted from what a meter said of itself. What no meter tells is marked for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from decimal import Decimal
from typing import Final

from headend.model import Meter
from headend.protocols.dlms.browse import Browsed, BrowsedObject, BrowsedProfile
from headend.protocols.dlms.buffer import Layout
from headend.protocols.dlms.catalogue import CLASSES, find, name_of
from headend.protocols.dlms.cosem import obis_bytes, obis_text
from headend.protocols.dlms.objects import quantity_at, settings_of
from headend.protocols.dlms.settings import DlmsSettings
from headend.protocols.dlms.units import unit_name
from headend.quantities import Kind, Quantity

__all__ = ["draft_model"]

_DAY_S: Final = 86_400
_VALUE_CLASSES: Final = (1, 3, 4, 5)
_CURVE_KINDS: Final = (Kind.REGISTER, Kind.INTERVAL, Kind.INSTANT)
_LOAD_PROFILE: Final = obis_bytes("1.0.99.1.0.255")
_EVENT_LOGS: Final = (bytes((0, 0, 99, 98)), bytes((1, 0, 99, 97)))
_PER_MODEL: Final = {"objects", "profile", "daily", "billing", "event_logs", "push"}
_OWN: Final = {"meter_title"}  # of one meter, not of its model


def draft_model(found: Browsed, meter: Meter, on: date) -> str:
    """The text of a meter model that `headend check` takes. on: the day the meter was read."""
    settings = settings_of(meter)
    places = _places(found)
    lines = [*_head(found, meter, on), *_curve(found), *_dlms(settings), *_profiles(found)]
    lines += _logs(found)
    for one, item in places:
        lines += _object(found, one, item)
    lines += _unknown(found, {item.obis for _, item in places})
    return "\n".join(lines) + "\n"


def _head(found: Browsed, meter: Meter, on: date) -> Iterator[str]:
    names = ", ".join(f"{name_of(obis)} {text}" for obis, text in found.names.items())
    daily = _daily(found)
    yield 'source = """'
    count = len(found.objects)
    yield f"Read from meter {_plain(meter.id)} on {on.isoformat()} by headend dlms browse: {count} objects."
    if names:
        yield f"It says of itself: {_plain(names)}."
    yield '"""'
    yield f'protocol = "{meter.protocol}"'
    yield "# A meter does not tell where its registers return to 0, what its wiring carries, how many rates are used."
    yield "# These are those of the model it was read with: check them against the data sheet."
    yield f'register_wrap = "{meter.model.register_wrap.normalize():f}"'
    yield f'max_power_kw = "{meter.model.max_power_kw.normalize():f}"'
    yield f"rates = {meter.model.rates}"
    yield f"daily_freeze_depth = {min(daily[1].entries, 3660) if daily else 0}"


def _plain(text: str) -> str:
    """Text that can stand in a TOML text of three quotes."""
    return "".join(char if char.isprintable() and char not in '"\\' else "?" for char in text)


# --- profiles -------------------------------------------------------------------------------------------------------


def _load(found: Browsed) -> tuple[bytes, BrowsedProfile] | None:
    """The load profile: 1-0:99.1.0, else the one of the shortest step that holds a register or consumption."""
    fit = {
        obis: one
        for obis, one in found.profiles.items()
        if 0 < one.layout.period_s < _DAY_S and _DAY_S % one.layout.period_s == 0 and _held(found, one.layout)
    }
    if _LOAD_PROFILE in fit:
        return _LOAD_PROFILE, fit[_LOAD_PROFILE]
    return min(fit.items(), key=lambda item: item[1].layout.period_s, default=None)


def _daily(found: Browsed) -> tuple[bytes, BrowsedProfile] | None:
    return next(
        (
            (obis, one)
            for obis, one in found.profiles.items()
            if one.layout.period_s == _DAY_S and _held(found, one.layout)
        ),
        None,
    )


def _billing(found: Browsed) -> tuple[bytes, BrowsedProfile] | None:
    """The first profile of billing periods (0-b:98.d.e, 1-b:98.d.e) that holds registers."""
    return next(
        (
            (obis, one)
            for obis, one in found.profiles.items()
            if obis[2] == 98 and obis[0] < 2 and _held(found, one.layout)
        ),
        None,
    )


def _held(found: Browsed, layout: Layout) -> list[Quantity]:
    """The registers, consumptions and momentary values in the rows of a profile, as far as [[dlms.object]] names them
    so."""
    elsewhere = {one.name: item.obis for one, item in _places(found)}
    held = {}
    for column in layout.columns:
        one = _quantity(column.obis)
        if one is None or one.kind not in _CURVE_KINDS or one.unit == "s" or column.index != 2:
            continue
        if elsewhere.get(one.name, column.obis) == column.obis and (one.name in elsewhere or not column.obis[1]):
            held[one.name] = one
    return list(held.values())


def _curve(found: Browsed) -> Iterator[str]:
    load = _load(found)
    if load is None:
        yield "# No load profile of regular steps was found."
        return
    _, one = load
    depth = max(1, min(one.entries * one.layout.period_s // _DAY_S, 3660))
    if one.layout.period_s % 60:
        yield f"# The load profile has a step of {one.layout.period_s} s, which is no whole number of minutes."
        return
    yield ""
    yield "[curve]"
    yield 'form = "profile"'
    yield f"step_min = {one.layout.period_s // 60}"
    yield f"depth_days = {depth}  # {one.entries} rows"
    yield f"quantities = [{', '.join(_quoted(held.name) for held in _held(found, one.layout))}]"


def _profiles(found: Browsed) -> Iterator[str]:
    yield ""
    yield "# Columns are those of this one meter. Where others of the type may keep others, take the line out: each is"
    yield "# then asked for its own, once. Whether a row's time is the end of its interval or the start, no meter says."
    for key, chosen in (("profile", _load(found)), ("daily", _daily(found)), ("billing", _billing(found))):
        if chosen is None:
            continue
        obis, one = chosen
        yield ""
        yield f"[dlms.{key}]  # {_plain(name_of(obis))}"
        yield f"obis = {_quoted(obis_text(obis))}"
        yield f"columns = [{', '.join(_column(one.layout, index) for index in range(len(one.layout.columns)))}]"


def _column(layout: Layout, index: int) -> str:
    """A column as a model names it; those of a capture time go by the object they belong to."""
    return _quoted(obis_text(layout.columns[index].obis))


def _logs(found: Browsed) -> Iterator[str]:
    used: set[str] = set()
    for obis in found.profiles:
        if obis[:4] not in _EVENT_LOGS:
            continue
        item = find(obis)
        name = (item.name if item is not None else obis_text(obis))[:40]
        name = name if name not in used else obis_text(obis)
        used.add(name)
        yield ""
        yield "[[dlms.event_log]]"
        yield f"name = {_quoted(_plain(name))}"
        yield f"obis = {_quoted(obis_text(obis))}"
        yield 'codes = []  # what they mean, the maker tells: "12=cover opened"'


# --- settings and objects -------------------------------------------------------------------------------------------


def _dlms(settings: DlmsSettings) -> Iterator[str]:
    """`[dlms]`: what differs from the defaults in the settings the meter was read with."""
    yield ""
    yield "[dlms]  # as the meter was read"
    for one in fields(DlmsSettings):
        value = getattr(settings, one.name)
        if one.name in _PER_MODEL or one.name in _OWN or value == one.default:
            continue
        if isinstance(value, bool):
            yield f"{one.name} = {str(value).lower()}"
        elif isinstance(value, str):
            yield f"{one.name} = {_quoted(value)}"
        else:
            yield f"{one.name} = {value}"
    if settings.check_title:
        yield "# check_title needs each meter's own meter_title: give it in the meter's options."


def _places(found: Browsed) -> list[tuple[Quantity, BrowsedObject]]:
    """Which object each quantity is: the one without a channel (group B 0) where there are several."""
    places: dict[str, tuple[Quantity, BrowsedObject]] = {}
    for item in sorted(found.objects, key=lambda item: (item.obis[1], item.obis)):
        one = _quantity(item.obis)
        if one is not None and item.class_id in _VALUE_CLASSES and one.name not in places:
            places[one.name] = (one, item)
    return list(places.values())


def _quantity(obis: bytes) -> Quantity | None:
    """The quantity an object is, whatever its channel."""
    here = quantity_at(DlmsSettings(), obis[:1] + b"\0" + obis[2:])
    return None if here is None else here[0]


def _object(found: Browsed, one: Quantity, item: BrowsedObject) -> Iterator[str]:
    yield ""
    yield f"[[dlms.object]]  # {_plain(name_of(item.obis))}"
    yield f"quantity = {_quoted(one.name)}"
    yield f"obis = {_quoted(obis_text(item.obis))}"
    yield f"class_id = {item.class_id}"
    scale = found.scales.get(item.obis)
    if scale is not None and abs(scale.exponent) <= 12:
        yield f"scaler = {scale.exponent}"
        yield f"unit = {scale.unit}  # {Decimal(10) ** scale.exponent:f} {unit_name(scale.unit)}".rstrip()
    elif item.class_id != 1:
        yield "# Its scaler could not be read here; it is asked for when it is needed."


def _unknown(found: Browsed, used: set[bytes]) -> Iterator[str]:
    yield ""
    yield "# What else the meter holds (class version OBIS, attributes that may be read / written):"
    for item in found.objects:
        if item.obis in used and item.class_id in _VALUE_CLASSES:
            continue
        name = CLASSES.get(item.class_id, f"class {item.class_id}")
        rights = f"{_numbers(item.readable)} / {_numbers(item.writable)}"
        yield f"#   {item.class_id} {item.version} {_plain(name_of(item.obis))}: {name}, {rights}"
    for attribute, why in found.refused:
        yield f"# Not read: {attribute}: {_plain(why)}"


def _numbers(indexes: tuple[int, ...]) -> str:
    return ",".join(map(str, indexes)) or "none"


def _quoted(text: str) -> str:
    """A TOML text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
