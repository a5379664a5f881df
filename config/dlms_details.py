"""`[dlms]` of a meter model, and a meter's own options: every knob checked, all problems at once.

What each knob is for stands in docs/dlms.md; defaults stand in `headend.protocols.dlms.settings` only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from config.problems import Table, Where, check_table, nearest, refuse, shown
from headend.endpoints import parse_serial
from headend.errors import Problem, UsageError
from headend.protocols.dlms.link import check_rule
from headend.protocols.dlms.settings import (
    Authentication,
    Ciphering,
    DlmsObject,
    DlmsProfile,
    DlmsPush,
    DlmsSettings,
    EventLog,
    Interface,
    Policy,
)
from headend.quantities import QUANTITIES

__all__ = ["NESTED", "DlmsTable", "EventLogTable", "ObjectTable", "PeriodTable", "ProfileTable", "PushTable", "parse"]

_OBIS = re.compile(r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(?:\.(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){5}")
_HEX = re.compile("[0-9A-Fa-f]*")
_CODE = re.compile("([0-9]{1,10})=(.+)")
_TITLE_DIGITS: Final = 16
_CONFORMANCE_DIGITS: Final = 6

# Read with a scaler each; 1 (data) has none of its own.
_CLASSES: Final = (1, 3, 4, 5)


def _default(owner: type[Any], name: str) -> Any:
    """The default of `owner.name`, so that it is written down once."""
    found = next(field.default for field in fields(owner) if field.name == name)
    return ... if found is MISSING else found


def _knob(name: str, example: str = "", owner: type[Any] = DlmsSettings, **limits: Any) -> Any:
    """The pydantic field of a knob. example: how the key is written, for remedies."""
    return Field(default=_default(owner, name), examples=[example] if example else None, **limits)


def _seconds(name: str, most: float = 600.0) -> Any:
    return _knob(name, "2.5", ge=0, le=most, allow_inf_nan=False)


def _check_obis(text: str) -> str:
    if not _OBIS.fullmatch(text):
        refuse(f"{shown(text)} is no OBIS code", "write six numbers of 0 to 255 with points, like 1.0.1.8.0.255")
    return ".".join(str(int(part)) for part in text.split("."))


def _check_obis_or_none(text: str) -> str:
    return _check_obis(text) if text else text


def _check_all_obis(texts: list[str]) -> list[str]:
    return [_check_obis_or_none(text) for text in texts]


def _check_hex(text: str, digits: int) -> str:
    if not _HEX.fullmatch(text) or len(text) != digits:
        refuse(
            f"{shown(text)} is not {digits} hex digits",
            f"write {digits} of 0 to 9 and A to F, in quotes",
        )
    return text.upper()


class ObjectTable(Table):
    """`[[dlms.object]]`: where a quantity is in the meter."""

    quantity: str = Field(min_length=1, examples=['"import_kwh"'])
    obis: str = Field(min_length=1, examples=['"1.0.1.8.0.255"'])
    class_id: int = _knob("class_id", "3", DlmsObject)
    attribute: int = _knob("attribute", "2", DlmsObject, ge=1, le=127)
    scaler: int | None = _knob("scaler", "-1", DlmsObject, ge=-12, le=12)
    unit: int = _knob("unit", "30", DlmsObject, ge=0, le=255)

    _obis = field_validator("obis")(_check_obis)

    @field_validator("quantity")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in QUANTITIES:
            refuse(f"unknown quantity {name!r}", nearest(name, QUANTITIES))
        return name

    @field_validator("class_id")
    @classmethod
    def _readable(cls, class_id: int) -> int:
        if class_id not in _CLASSES:
            what = f"class {class_id} holds no single value"
            refuse(what, "use 1 (data), 3 (register), 4 (extended register) or 5 (demand register)")
        return class_id


class ProfileTable(Table):
    """`[dlms.profile]`: one profile generic."""

    obis: str = _knob("obis", '"1.0.99.1.0.255"', DlmsProfile)
    columns: list[str] = Field(default=[], examples=['["0.0.1.0.0.255", "1.0.1.8.0.255"]'])
    scalers: list[int] = Field(default=[], examples=["[0, -3]"])
    stamp: Literal["end", "start"] = _knob("stamp", '"end"', DlmsProfile)
    selective: Literal["range", "entry", "none"] = _knob("selective", '"range"', DlmsProfile)
    restrict_by: str = _knob("restrict_by", '"0.0.1.0.0.255"', DlmsProfile)
    nulls: Literal["repeat", "missing"] = _knob("nulls", '"repeat"', DlmsProfile)

    _obis = field_validator("obis", "restrict_by")(_check_obis)
    _all = field_validator("columns")(_check_all_obis)


class PeriodTable(ProfileTable):
    """`[dlms.daily]`, `[dlms.billing]`: there is no place where most meters keep them, so it is named."""

    obis: str = Field(min_length=1, examples=['"1.0.99.2.0.255"'])


class EventLogTable(Table):
    """`[[dlms.event_log]]`: a profile generic of times and codes."""

    name: str = Field(min_length=1, max_length=40, examples=['"standard"'])
    obis: str = Field(min_length=1, examples=['"0.0.99.98.0.255"'])
    codes: list[str] = Field(default=[], examples=['["12=cover opened"]'])

    _obis = field_validator("obis")(_check_obis)

    @field_validator("codes")
    @classmethod
    def _told(cls, codes: list[str]) -> list[str]:
        seen = set()
        for code in codes:
            match = _CODE.fullmatch(code)
            if match is None:
                refuse(f"{shown(code)} is no event code", 'write number=text: "12=cover opened"')
            if int(match[1]) in seen:
                refuse(f"code {match[1]} is given twice", "remove one")
            seen.add(int(match[1]))
        return codes


class PushTable(Table):
    """`[dlms.push]`: what the meter sends on its own."""

    items: list[str] = Field(default=[], examples=['["0.0.1.0.0.255", "1.0.1.8.0.255"]'])
    lists: list[list[str]] = Field(default=[], examples=['[["0.0.1.0.0.255", "1.0.1.8.0.255"]]'])
    identity: Literal["title", "serial", "address"] = _knob("identity", '"title"', DlmsPush)
    serial_obis: str = _knob("serial_obis", '"0.0.96.1.0.255"', DlmsPush)
    step_s: int = _knob("step_s", "900", DlmsPush, ge=0, le=86_400)
    plain: bool = _knob("plain", "true", DlmsPush)

    _obis = field_validator("serial_obis")(_check_obis)
    _all = field_validator("items")(_check_all_obis)

    @field_validator("lists")
    @classmethod
    def _lengths(cls, lists: list[list[str]]) -> list[list[str]]:
        checked = [_check_all_obis(one) for one in lists]
        if len({len(one) for one in checked}) < len(checked):
            refuse("two lists of one length can't be told apart", "keep one list of each length")
        return checked

    @field_validator("step_s")
    @classmethod
    def _divides_the_day(cls, step_s: int) -> int:
        if step_s and 86_400 % step_s:
            refuse(f"a day is not a whole number of {step_s} s", "use 300, 600, 900, 1800 or 3600; 0: no curve")
        return step_s


class DlmsTable(Table):
    """`[dlms]`: link, association, security, services and clock of one type of meter."""

    interface: Interface = _knob("interface", '"hdlc"')
    client: int = _knob("client", "16", ge=0, le=16_383)
    address_bytes: Literal[0, 1, 2, 4] = _knob("address_bytes", "4")
    physical_rule: str = _knob("physical_rule", '"SN % 10000 + 1000"')
    negotiate: bool = _knob("negotiate", "true")
    max_info_tx: int = _knob("max_info_tx", "128", ge=32, le=2030)
    max_info_rx: int = _knob("max_info_rx", "128", ge=32, le=2030)
    window_tx: int = _knob("window_tx", "1", ge=1, le=7)
    window_rx: int = _knob("window_rx", "1", ge=1, le=7)
    max_info_is_frame: bool = _knob("max_info_is_frame", "true")
    link_retries: int = _knob("link_retries", "2", ge=0, le=10)
    reply_s: float = _seconds("reply_s")
    interframe_s: float = _seconds("interframe_s", 10.0)
    open_quiet_s: float = _seconds("open_quiet_s")
    reconnect_s: float = _seconds("reconnect_s")
    mode_e: bool = _knob("mode_e", "true")
    mode_e_device: str = _knob("mode_e_device", '"12345678"', max_length=32, pattern="^[0-9A-Za-z ]*$")
    mode_e_start: str = _knob("mode_e_start", '"300 7E1"')
    mode_e_baud: Literal[0, 300, 600, 1200, 2400, 4800, 9600, 19200] = _knob("mode_e_baud", "9600")
    swap_wports: bool = _knob("swap_wports", "true")

    authentication: Authentication = _knob("authentication", '"lls"')
    preestablished: bool = _knob("preestablished", "true")
    challenge_bytes: int = _knob("challenge_bytes", "16", ge=8, le=64)
    client_title: str = _knob("client_title", '"4D4D4D0000BC614E"')
    send_title: Literal["auto", "always", "never"] = _knob("send_title", '"auto"')
    meter_title: str = _knob("meter_title", '"4D4D4D0000000001"')
    check_title: bool = _knob("check_title", "true")
    hls_object: str = _knob("hls_object", '"0.0.40.0.0.255"')
    conformance: str = _knob("conformance", '"00FE1F"')
    max_pdu: int = _knob("max_pdu", "1024", ge=12, le=65_535)
    release: Literal["rlrq", "disc"] = _knob("release", '"disc"')
    rlrq_user_information: bool = _knob("rlrq_user_information", "true")
    public_switch_s: float = _seconds("public_switch_s")
    user_id: int = _knob("user_id", "1", ge=-1, le=255)

    policy: Policy = _knob("policy", '"authenticated-encrypted"')
    ciphering: Ciphering = _knob("ciphering", '"service-glo"')
    counter_object: str = _knob("counter_object", '"0.0.43.1.0.255"')
    counter_client: int = _knob("counter_client", "16", ge=0, le=16_383)
    counter_sync: Literal["refused", "always", "never"] = _knob("counter_sync", '"refused"')
    gmac_counter: Literal["next", "same"] = _knob("gmac_counter", '"next"')
    check_counter: bool = _knob("check_counter", "true")
    check_tag: bool = _knob("check_tag", "true")

    with_list_max: int = _knob("with_list_max", "10", ge=1, le=64)
    selective_access: bool = _knob("selective_access", "true")
    range_deviation: Literal["meter", "unspecified"] = _knob("range_deviation", '"meter"')
    range_local: bool = _knob("range_local", "true")
    check_invoke: bool = _knob("check_invoke", "true")
    confirmed: bool = _knob("confirmed", "true")
    high_priority: bool = _knob("high_priority", "true")

    clock_obis: str = _knob("clock_obis", '"0.0.1.0.0.255"')
    deviation_reversed: bool = _knob("deviation_reversed", "true")
    ignore_deviation: bool = _knob("ignore_deviation", "true")
    clock_set: Literal["time", "shift"] = _knob("clock_set", '"shift"')
    clock_shift_max_s: int = _knob("clock_shift_max_s", "900", ge=0, le=900)
    text_encoding: str = _knob("text_encoding", '"cp1251"')
    disconnect_obis: str = _knob("disconnect_obis", '"0.0.96.3.10.255"')

    # Tables of their own, checked one by one so that each problem names its key.
    object: Any = None
    profile: Any = None
    daily: Any = None
    billing: Any = None
    event_log: Any = None
    push: Any = None

    _obis = field_validator("hls_object", "clock_obis", "disconnect_obis")(_check_obis)
    _some_obis = field_validator("counter_object")(_check_obis_or_none)

    @field_validator("client_title", "meter_title")
    @classmethod
    def _title(cls, text: str) -> str:
        return _check_hex(text, _TITLE_DIGITS) if text else text

    @field_validator("conformance")
    @classmethod
    def _block(cls, text: str) -> str:
        return _check_hex(text, _CONFORMANCE_DIGITS)

    @field_validator("physical_rule")
    @classmethod
    def _rule(cls, text: str) -> str:
        try:
            return check_rule(text) if text else text
        except UsageError as error:
            refuse(error.problem.what, error.problem.remedy)

    @field_validator("mode_e_start")
    @classmethod
    def _serial(cls, text: str) -> str:
        try:
            parse_serial(text)
        except UsageError as error:
            refuse(error.problem.what, error.problem.remedy)
        return text

    @field_validator("text_encoding")
    @classmethod
    def _codec(cls, text: str) -> str:
        try:
            codecs.lookup(text)
        except (LookupError, ValueError):
            refuse(f"unknown text encoding {shown(text)}", "write utf-8, cp1251, gb18030 or another that Python knows")
        return text


# Tables within [dlms]: their key, their shape, whether they repeat, and the settings' field they become.
NESTED: Final[Mapping[str, tuple[type[Table], bool, str]]] = {
    "object": (ObjectTable, True, "objects"),
    "profile": (ProfileTable, False, "profile"),
    "daily": (PeriodTable, False, "daily"),
    "billing": (PeriodTable, False, "billing"),
    "event_log": (EventLogTable, True, "event_logs"),
    "push": (PushTable, False, "push"),
}


def parse(table: Mapping[str, Any], where: Where) -> tuple[DlmsSettings | None, list[Problem]]:
    """The settings in a `[dlms]` table, or every problem of it; never raises for what a person wrote."""
    flat, problems = check_table(DlmsTable, dict(table), where)
    inner: dict[str, Any] = {}
    for key, (shape, repeats, target) in NESTED.items():
        if key in table:
            found, wrong = _tables(shape, table[key], key, where) if repeats else _one(shape, table[key], key, where)
            inner[target] = found
            problems += wrong
    if flat is None or problems:
        return None, problems
    settings = DlmsSettings(
        **{name: getattr(flat, name) for name in DlmsTable.model_fields if name not in NESTED}, **inner
    )
    problems = _together(settings, where)
    return (None, problems) if problems else (settings, [])


def _one(shape: type[Table], raw: object, key: str, where: Where) -> tuple[object, list[Problem]]:
    table, problems = check_table(shape, raw, lambda part: where(f"{key}.{part}" if part else key))
    return None if table is None else _frozen(table), problems


def _tables(shape: type[Table], raw: object, key: str, where: Where) -> tuple[tuple[object, ...], list[Problem]]:
    if not isinstance(raw, list):
        what = f"{shown(raw)} stands where repeated tables are wanted"
        return (), [Problem(where(key), what, f"write [[dlms.{key}]]")]
    found = [_one(shape, one, f"{key}[{number}]", where) for number, one in enumerate(raw, start=1)]
    return tuple(one for one, _ in found), [problem for _, wrong in found for problem in wrong]


def _frozen(table: Table) -> object:
    """The settings' own object for a checked table."""
    match table:
        case ObjectTable():
            return DlmsObject(**table.model_dump())
        case ProfileTable():
            given = table.model_dump()
            return DlmsProfile(**{**given, "columns": tuple(table.columns), "scalers": tuple(table.scalers)})
        case PushTable():
            lists = tuple(tuple(one) for one in table.lists)
            return DlmsPush(**{**table.model_dump(), "items": tuple(table.items), "lists": lists})
        case EventLogTable():
            pairs = (code.split("=", 1) for code in table.codes)
            return EventLog(table.name, table.obis, tuple((int(number), text.strip()) for number, text in pairs))
    raise AssertionError("every nested table has its own object")


def _together(settings: DlmsSettings, where: Where) -> list[Problem]:
    """What no key says alone."""
    problems = []
    ciphered = settings.policy != "none"
    if (ciphered or settings.authentication == "hls-gmac") and not settings.client_title:
        by = "a policy" if ciphered else "hls-gmac"
        what = f"{by} needs a system title of ours"
        problems.append(Problem(where("client_title"), what, "write the 16 hex digits the utility registered"))
    if settings.authentication in ("hls-sha256",) and not settings.client_title:
        what = "hls-sha256 hashes both system titles"
        problems.append(Problem(where("client_title"), what, "write the 16 hex digits the utility registered"))
    if settings.check_title and not settings.meter_title:
        what = "there is no title to check against"
        problems.append(Problem(where("meter_title"), what, "write the meter's 16 hex digits in its options"))
    if settings.preestablished and ciphered and not settings.meter_title:
        what = "a pre-established association tells no title of the meter"
        problems.append(Problem(where("meter_title"), what, "write the meter's 16 hex digits in its options"))
    if settings.mode_e and settings.interface != "hdlc":
        problems.append(Problem(where("mode_e"), "mode E leads to HDLC", 'write interface = "hdlc" or mode_e = false'))
    for key in ("profile", "daily", "billing"):
        profile: DlmsProfile | None = getattr(settings, key)
        if profile is not None:
            problems += _profile_problems(profile, settings.clock_obis, partial(_within, where, key))
    return problems + _named_twice(settings, where)


def _within(where: Where, table: str, key: str) -> str:
    return where(f"{table}.{key}")


def _profile_problems(profile: DlmsProfile, clock: str, where: Where) -> list[Problem]:
    problems = []
    if profile.scalers and len(profile.scalers) != len(profile.columns):
        what = f"{len(profile.scalers)} scalers for {len(profile.columns)} columns"
        problems.append(Problem(where("scalers"), what, "write one for each column, 0 for the clock"))
    if profile.columns and clock not in profile.columns:
        what = f"no column is the clock {clock}, so its rows have no time"
        problems.append(Problem(where("columns"), what, "name every column in order, the clock's too"))
    return problems


def _named_twice(settings: DlmsSettings, where: Where) -> list[Problem]:
    problems = []
    for key, names in (
        ("object", [one.quantity for one in settings.objects]),
        ("event_log", [one.name for one in settings.event_logs]),
    ):
        for number, name in enumerate(names, start=1):
            if name in names[: number - 1]:
                what = f"{name} stands in {key}[{names.index(name) + 1}] already"
                problems.append(Problem(where(f"{key}[{number}]"), what, "keep one of the two"))
    return problems
