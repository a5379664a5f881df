"""The meters of a town file: [[group]] and [[meter]], and the [[event]]s that befall them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import shake_128

from simulators.dlms_plan import DlmsPlan, named_dlms, read_dlms
from simulators.dlt645_events import HAPPENINGS
from simulators.dlt645_spec import FORMS, RELAYS, MeterSpec
from simulators.household import KINDS, Load
from simulators.line_file import BAUDS, PARITIES, read_instant
from simulators.tenancy import NO_TENANCY, Tenancy, read_tenancy
from simulators.toml_table import Table
from simulators.truth_bills import Tariff

__all__ = ["Common", "EventPlan", "MeterPlan", "read_event", "read_meters"]

_MODELS = {
    ("0610", 15): "dlt645-2007-1ph",
    ("0610", 60): "dlt645-2007-1ph-60",
    ("record", 15): "dlt645-2007-record",
    ("1997", 15): "dlt645-1997-basic",
    ("1997", 60): "dlt645-1997-basic",
    ("dlms", 15): "dlms-generic-hdlc",
    ("mqtt", 15): "hes-mqtt-15",
}
_PROTOCOLS = {"1997": "dlt645-1997", "dlms": "dlms", "mqtt": "hes-mqtt"}
_DLMS_ADDRESS = re.compile(r"\d{1,5}(/\d{1,5})?")


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """One meter and the account behind it. cross_kwh: yearly limit its year passes within the last closed month. dlms:
    what it is if it speaks DLMS; of `spec` only address, step and form then matter."""

    meter_id: str
    line: str
    model: str
    spec: MeterSpec
    load: Load
    start_units: int
    clock_zone: str
    account: str
    usage_point: str
    customer: str
    district: str
    tariff: str
    multiplier: int
    cross_kwh: int | None
    dlms: DlmsPlan | None = None
    tenancy: Tenancy = NO_TENANCY

    @property
    def protocol(self) -> str:
        """What it speaks, by the head-end's name."""
        return _PROTOCOLS.get(self.spec.form, "dlt645-2007")


@dataclass(frozen=True, slots=True)
class EventPlan:
    """Something that befalls a meter. start_s, end_s: epoch seconds, end_s None while it lasts."""

    meter_id: str
    kind: str
    start_s: int
    end_s: int | None


@dataclass(frozen=True, slots=True)
class Common:
    """What the [town] table sets for everything below it."""

    seed: int
    offset_s: int
    offset_text: str
    installed_day: int
    memory_days: int
    rates: tuple[tuple[int, int], ...]


def read_meters(
    table: Table, town: Common, lines: set[str], tariffs: Mapping[str, Tariff], *, single: bool
) -> list[MeterPlan]:
    """The meters of one [[group]], or the one of a [[meter]]."""
    count = 1 if single else table.integer("count", 1, 1, 100_000)
    first = 1 if single else table.integer("first", 1)
    patterns = {
        "meter_id": table.text("meter_id"),
        "address": table.text("address"),
        "account": table.text("account", "A-{meter_id}"),
        "usage_point": table.text("usage_point", "UP-{meter_id}"),
        "customer": table.text("customer", "Customer {meter_id}"),
    }
    base = _meter_base(table, town, lines, tariffs)
    daily = table.span("daily_wh", (5_000, 9_000), 1, 1_000_000)
    start = table.span("start_kwh", (0, 30_000), 0, 999_999)
    tenancy = read_tenancy(table, single=single)
    table.done()
    meters = []
    for n in range(first, first + count):
        names = _names(table, patterns, n, dlms=base.dlms is not None)
        if names is None:
            break
        chance = shake_128(f"{town.seed}:{names['meter_id']}".encode()).digest(16)
        load = replace(
            base.load,
            seed=int.from_bytes(chance[:6], "big"),
            daily_wh=_between(daily, chance[6:10]),
        )
        start_units = _between(start, chance[10:14]) * 10_000 + int.from_bytes(chance[14:], "big") % 10_000
        meters.append(
            replace(
                base,
                meter_id=names["meter_id"],
                account=names["account"],
                usage_point=names["usage_point"],
                customer=names["customer"],
                spec=replace(base.spec, address=names["address"]),
                dlms=base.dlms and named_dlms(base.dlms, town.seed, names["meter_id"], names["address"]),
                load=load,
                start_units=start_units,
                tenancy=tenancy,
            )
        )
    return meters


def _between(ends: tuple[int, int], chance: bytes) -> int:
    return ends[0] + (ends[1] - ends[0]) * int.from_bytes(chance, "big") // 0xFFFFFFFF


def _names(table: Table, patterns: Mapping[str, str], n: int, *, dlms: bool) -> dict[str, str] | None:
    names: dict[str, str] = {}
    for key, pattern in patterns.items():
        try:
            names[key] = pattern.format(n=n, **names)
        except (KeyError, ValueError, IndexError):
            table.wrong(key, f"{pattern!r} is no pattern", "use {n} for the number, like {n:03d}, and {meter_id}")
            return None
    if dlms:
        if not _DLMS_ADDRESS.fullmatch(names["address"]):
            table.wrong("address", f"{names['address']!r} is no DLMS address", "write LOGICAL or LOGICAL/PHYSICAL")
            return None
        return names
    if len(names["address"]) != 12 or not names["address"].isascii() or not names["address"].isdecimal():
        table.wrong("address", f"{names['address']!r} is no meter address", "make the pattern give 12 digits")
        return None
    return names


def _meter_base(table: Table, town: Common, lines: set[str], tariffs: Mapping[str, Tariff]) -> MeterPlan:
    """What all meters of a group share; names, seeds and addresses come one by one."""
    form = table.choice("form", (*FORMS, "dlms", "mqtt"), "0610")
    step_min = _step(table)
    dlms = _dlms(table, town, step_min) if form == "dlms" else None
    model = table.text("model", _MODELS.get((form, step_min), "-"))
    if model == "-":
        table.wrong("step_min", f"no usual model has {form} every {step_min} min", "use step_min = 15, or name a model")
    bare = MeterSpec("0" * 12, step_min=step_min, form=form)
    spec = bare if form in ("dlms", "mqtt") else _spec(table, town, form, step_min)
    load = Load(
        seed=0,
        kind=table.choice("load", KINDS, "household"),
        installed_day=town.installed_day,
        offset_s=town.offset_s,
        rates=town.rates,
    )
    cross = table.integer("cross_kwh", 0, 0, 1_000_000)
    return MeterPlan(
        meter_id="",
        line=table.choice("line", sorted(lines)),
        model=model,
        spec=spec,
        load=load,
        start_units=0,
        clock_zone=town.offset_text,
        account="",
        usage_point="",
        customer="",
        district=table.text("district", "D1"),
        tariff=table.choice("tariff", sorted(tariffs)),
        multiplier=table.integer("ct", 1, 1, 10_000) * table.integer("pt", 1, 1, 10_000),
        cross_kwh=cross or None,
        dlms=dlms,
    )


def _dlms(table: Table, town: Common, step_min: int) -> DlmsPlan:
    memory_days = table.integer("memory_days", town.memory_days, 1, 366)
    return read_dlms(table, step_min=step_min, memory_days=memory_days, zone_offset_s=town.offset_s)


def _spec(table: Table, town: Common, form: str, step_min: int) -> MeterSpec:
    """What kind of meter it is; the address is still to come."""
    spec = MeterSpec(
        address="0" * 12,
        step_min=step_min,
        form=form,
        memory_days=table.integer("memory_days", town.memory_days, 1, 366),
        preamble=table.integer("preamble", 4, 0, 4),
        zone_offset_s=town.offset_s,
        clock_error_s=table.integer("clock_error_s", 0, -86_400, 86_400),
        clock_drift_ppm=table.integer("clock_drift_ppm", 0, -1000, 1000),
        frame_bytes=table.integer("frame_bytes", 200, 64, 200),
        lacks=_lacks(table, 4 if form == "1997" else 8),
        passwords=_passwords(table),
        needs_key=table.flag("needs_key", False),
        baud=_baud(table),
        parity=table.choice("parity", ("", *PARITIES), ""),
    )
    if form == "1997":
        return replace(spec, block_end=table.flag("block_end", False), hears_99=table.flag("hears_99", False))
    return replace(
        spec,
        followup=table.choice("followup", ("by_seq", "next"), "by_seq"),
        esam=table.flag("esam", False),
        reactive_percent=table.integer("reactive_percent", 30, 0, 300),
        relay=table.choice("relay", RELAYS, "works"),
        relay_delay_s=table.integer("relay_delay_s", 0, 0, 86_400),
    )


def _lacks(table: Table, digits: int) -> tuple[str, ...]:
    found = tuple(di.upper() for di in table.texts("lacks"))
    for di in found:
        if len(di) != digits or not set(di) <= set("0123456789ABCDEF"):
            table.wrong("lacks", f"{di!r} is no data identifier", f"write {digits} hex digits each")
            return ()
    return found


def _passwords(table: Table) -> tuple[tuple[int, str], ...]:
    """Levels and passwords; those as delivered if none are given."""
    value = table.raw("passwords")
    if value is None:
        return MeterSpec("0" * 12).passwords
    if isinstance(value, dict) and all(_is_password(level, digits) for level, digits in value.items()):
        return tuple(sorted((int(level), digits) for level, digits in value.items()))
    table.wrong("passwords", "not usable", 'write levels 0 to 9 and six digits each, { 2 = "000000", 4 = "111111" }')
    return ()


def _is_password(level: str, digits: object) -> bool:
    right = isinstance(digits, str) and len(digits) == 6 and digits.isascii() and digits.isdecimal()
    return right and len(level) == 1 and level in "0123456789"


def _baud(table: Table) -> int:
    baud = table.integer("baud", 0)
    if baud not in (0, *BAUDS):
        table.wrong("baud", f"{baud} is no line speed", f"use one of {', '.join(map(str, BAUDS))}")
        return 0
    return baud


def read_event(table: Table, forms: Mapping[str, str]) -> EventPlan:
    """An [[event]]. forms: each meter's."""
    meter = table.text("meter")
    if forms.get(meter, "1997") == "1997":
        what = f"{meter!r} keeps no events" if meter in forms else f"unknown {meter!r}"
        table.wrong("meter", what, "name a meter_id of this file that is no 1997 meter")
    kind = table.choice("kind", HAPPENINGS)
    start_s, end_s = read_instant(table, "from"), read_instant(table, "until")
    if start_s is None:
        table.wrong("from", "missing", "write from = 2026-01-31T08:00:00+08:00, without quotes")
    elif end_s is not None and end_s <= start_s:
        table.wrong("until", "not later than from", "let it end after it began, or leave until out")
    table.done()
    return EventPlan(meter, kind, int(start_s or 0), None if end_s is None else int(end_s))


def _step(table: Table) -> int:
    step_min = table.integer("step_min", 15, 1, 60)
    if step_min not in (15, 60):
        table.wrong("step_min", f"{step_min} is no step these meters have", "use 15 or 60")
        return 15
    return step_min
