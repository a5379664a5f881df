"""The shapes of site.toml's tables: keys, types, defaults, limits. `config.site` checks what spans several tables."""

from __future__ import annotations

import os
import re
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from config.problems import Table, nearest, refuse, shown
from headend import civil
from headend.endpoints import BAUDS, Endpoint, parse_endpoint, parse_serial
from headend.errors import UsageError
from headend.quantities import QUANTITIES

__all__ = [
    "READS_BY_PERIOD",
    "ControlSettings",
    "EvidenceSettings",
    "IngestSettings",
    "LineTable",
    "PushTable",
    "ScheduleTable",
    "SiteTable",
    "VaultSettings",
    "expand_environment",
]

READS_BY_PERIOD: Final = ("registers", "clock", "settlement", "timed_freeze", "events")

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEX_PREFIX: Final = "hex:"
_TOPIC_BYTES: Final = 1024
_JSON_CODEC: Final = re.compile(r"json:[^.\s]+(\.[^.\s]+)*")


def expand_environment(text: str) -> str:
    """`text` with every `${NAME}` replaced from the environment.

    Raises `UsageError`, naming the variable only, when one isn't set.

    A value that stands before an `@`, a user name or password, is percent-encoded, so that it may hold any character.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not _VARIABLE_NAME.fullmatch(name):
            raise UsageError(
                f"{shown(match[0])} names no environment variable", remedy="write ${NAME} with letters, digits and _"
            )
        if name not in os.environ:
            raise UsageError(f"the environment variable {name} is not set", remedy=f"set {name} before starting")
        return quote(os.environ[name], safe="") if "@" in text[match.end() :] else os.environ[name]

    return _VARIABLE.sub(value, text)


def _name(text: str) -> str:
    if not text.strip():
        refuse("the name is empty", "give it a name")
    if text != text.strip() or not text.isprintable():
        refuse(f"{shown(text)} starts or ends with a space or holds a control character", "use a plain name")
    if text == "*":
        refuse("'*' means all and can't be a name", "give it a name")
    return text


def _zone(text: str) -> str:
    try:
        civil.zone(text)
    except UsageError as error:
        refuse(error.problem.what, error.problem.remedy)
    return text


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, str):
        refuse(f"{shown(value)} is not a text", 'write endpoint = "tcp://192.0.2.1:4001"')
    try:
        return parse_endpoint(value)
    except UsageError as error:
        refuse(error.problem.what, error.problem.remedy)


def _modem_bytes(value: object) -> bytes:
    """Text as UTF-8, or bytes written as `hex:68 AA`."""
    if not isinstance(value, str):
        refuse(f"{shown(value)} is not a text", 'write "text" or "hex:68 AA"')
    if not value.startswith(_HEX_PREFIX):
        return value.encode()
    try:
        return bytes.fromhex(value.removeprefix(_HEX_PREFIX))
    except ValueError:
        refuse(f"{shown(value)} is not hexadecimal", 'write pairs of digits, like "hex:68 AA"')


def _topic(text: str) -> str:
    if not text or len(text.encode()) > _TOPIC_BYTES or not text.isprintable() or set("+#") & set(text):
        refuse(f"{shown(text)} is no topic of a DTU", "write one whole topic, without + and #")
    return text


def _codec(text: str) -> str:
    if text not in ("hex", "raw") and not _JSON_CODEC.fullmatch(text):
        refuse(f"{shown(text)} is no codec", 'write "hex", "raw", or "json:FIELD" with the name of the field')
    return text


def _template(text: str) -> str:
    if text.count("{hex}") != 1:
        refuse("the template does not have {hex} once", 'write it like \'{"d":"{hex}","o":2}\'')
    return text


Topic = Annotated[str, AfterValidator(_topic)]
Name = Annotated[str, AfterValidator(_name)]
Zone = Annotated[str, AfterValidator(_zone)]
ModemBytes = Annotated[bytes, BeforeValidator(_modem_bytes)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class SiteTable(Table):
    """`[site]`."""

    name: Name = Field(examples=['"Town"'])
    zone: Zone = Field(default="Asia/Shanghai", examples=['"Asia/Shanghai"'])
    store: str = Field(default="sqlite:///headend.db", examples=['"sqlite:///headend.db"'], repr=False)
    tariffs: str | None = Field(default=None, examples=['"tariffs"'])
    meter_models: str | None = Field(default=None, examples=['"meters"'])
    mqtt_mappings: str | None = Field(default=None, examples=['"mqtt_mappings"'])


class LineTable(Table):
    """One `[[line]]`."""

    name: Name = Field(examples=['"east"'])
    endpoint: Annotated[Endpoint, BeforeValidator(_endpoint)] = Field(examples=['"tcp://192.0.2.1:4001"'])
    serial: str = Field(default="", examples=['"2400 8E1"'])
    registration: ModemBytes = Field(default=b"", examples=['"13900001234"'])
    heartbeat: ModemBytes = Field(default=b"", examples=['"hex:FE"'])
    reply_s: Seconds = Field(default=2.0, gt=0, le=120, examples=["2.0"])
    gap_s: Seconds = Field(default=0.5, gt=0, le=60, examples=["0.5"])
    quiet_s: Seconds = Field(default=0.05, ge=0, le=60, examples=["0.05"])
    connect_s: Seconds = Field(default=5.0, gt=0, le=120, examples=["5.0"])
    echo: bool = Field(default=False, examples=["false"])
    turnaround_s: Seconds = Field(default=0.0, ge=0, le=60, examples=["0.05"])
    reopen_after: int = Field(default=5, ge=0, le=1_000_000, examples=["5"])
    dead_share: float = Field(default=0.05, ge=0.001, le=1, examples=["0.05"])
    wire_baud: int = Field(default=0, examples=["2400"])
    up: Topic = Field(default="", examples=['"/iotinfo/860000000000001"'])
    down: Topic = Field(default="", examples=['"/iotmonitor/860000000000001"'])
    codec: Annotated[str, AfterValidator(_codec)] = Field(default="hex", examples=['"hex"'])
    template: Annotated[str, AfterValidator(_template)] = Field(default="", examples=['\'{"d":"{hex}","o":2}\''])
    qos: Literal[0, 1] = Field(default=1, examples=["1"])

    @field_validator("wire_baud")
    @classmethod
    def _speed_behind(cls, baud: int, info: ValidationInfo) -> int:
        endpoint = info.data.get("endpoint")
        if endpoint is not None and endpoint.kind == "serial":
            refuse("the speed of a serial endpoint stands in serial", "remove the key")
        if baud not in BAUDS:
            refuse(f"{shown(str(baud))} is no speed a line runs at", f"use one of {', '.join(map(str, BAUDS))}")
        return baud

    @field_validator("up", "down", "codec", "template", "qos")
    @classmethod
    def _of_a_dtu(cls, value: str | int, info: ValidationInfo) -> str | int:
        endpoint = info.data.get("endpoint")
        if endpoint is not None and (endpoint.kind != "mqtt" or endpoint.concentrator):
            refuse(f"{info.field_name} is for DTUs, which end at mqtt://BROKER", "remove the key")
        return value

    @field_validator("serial")
    @classmethod
    def _serial_format(cls, text: str, info: ValidationInfo) -> str:
        endpoint = info.data.get("endpoint")
        if endpoint is not None and endpoint.kind != "serial":
            refuse(
                f"a {endpoint.kind} endpoint has no serial settings", "remove the key: the server's own settings hold"
            )
        try:
            parse_serial(text)
        except UsageError as error:
            refuse(error.problem.what, error.problem.remedy)
        return text

    @field_validator("registration")
    @classmethod
    def _dials_in(cls, text: bytes, info: ValidationInfo) -> bytes:
        endpoint = info.data.get("endpoint")
        if text and endpoint is not None and endpoint.kind != "listen":
            refuse(f"nothing registers on a {endpoint.kind} endpoint", "remove the key, or use listen://host:port")
        return text


class ScheduleTable(Table):
    """One `[[schedule]]`."""

    name: Name = Field(examples=['"curves"'])
    read: Literal["curve", "daily_freeze", "timed_freeze", "settlement", "registers", "clock", "events"] = Field(
        examples=['"curve"']
    )
    quantities: list[str] = Field(default=[], examples=['["import_kwh"]'])
    every_min: int = Field(default=0, ge=1, le=44_640, examples=["60"])
    horizon_days: int = Field(default=62, ge=1, le=3660, examples=["62"])
    settle_s: int = Field(default=30, ge=0, le=86_400, examples=["30"])
    deadline_min: int = Field(default=60, ge=1, le=44_640, examples=["60"])
    lines: list[str] = Field(default=["*"], examples=['["*"]'])
    models: list[str] = Field(default=["*"], examples=['["*"]'])

    @field_validator("quantities")
    @classmethod
    def _known_quantities(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in QUANTITIES:
                refuse(f"unknown quantity {shown(name)}", nearest(name, QUANTITIES))
        return _each_once(names, "quantities")

    @field_validator("lines", "models")
    @classmethod
    def _named_once(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if not names:
            refuse("the list is empty: nothing would be read", 'write ["*"] for all')
        if "*" in names and len(names) > 1:
            refuse('"*" stands beside names', 'write ["*"] alone or the names alone')
        return _each_once(names, info.field_name or "names")


class EvidenceSettings(Table):
    """`[evidence]`: of answers without a fault, the frames of every n-th are kept."""

    keep_good_every: int = Field(default=16, ge=1, le=1_000_000, examples=["16"])


class IngestSettings(Table):
    """`[ingest]`: how many outcomes may wait for the store, and how many one transaction takes."""

    max_pending: int = Field(default=1000, ge=1, le=1_000_000, examples=["1000"])
    max_batch: int = Field(default=200, ge=1, le=100_000, examples=["200"])


class PushTable(Table):
    """One `[[push]]`: a port on which meters send on their own."""

    name: Name = Field(examples=['"wan"'])
    endpoint: Annotated[Endpoint, BeforeValidator(_endpoint)] = Field(examples=['"listen://:4059"'])
    transport: Literal["tcp", "udp"] = Field(default="tcp", examples=['"udp"'])
    idle_s: Seconds = Field(default=900.0, gt=0, le=86_400, examples=["900"])
    connections: int = Field(default=10_000, ge=1, le=1_000_000, examples=["10000"])

    @field_validator("endpoint")
    @classmethod
    def _listens(cls, endpoint: Endpoint) -> Endpoint:
        if endpoint.kind != "listen":
            refuse("pushes come to a listening port", 'write endpoint = "listen://:4059"; transport says tcp or udp')
        return endpoint


class VaultSettings(Table):
    """`[vault]`: where the master key of the secrets is: a file if one is named, else an environment variable."""

    master_key_env: str = Field(default="HEADEND_MASTER_KEY", examples=['"HEADEND_MASTER_KEY"'])
    master_key_file: str = Field(default="", examples=['"master.key"'])

    @field_validator("master_key_env")
    @classmethod
    def _variable(cls, name: str) -> str:
        if not _VARIABLE_NAME.fullmatch(name):
            refuse(f"{shown(name)} names no environment variable", "write a name of letters, digits and _")
        return name

    @field_validator("master_key_file")
    @classmethod
    def _file(cls, name: str) -> str:
        if "\0" in name:
            refuse("this is no name of a file", 'write master_key_file = "master.key"')
        return name


class ControlSettings(Table):
    """`[control]`: whether meters may be told to do something, and how many may be disconnected in 24 hours."""

    enabled: bool = Field(default=False, examples=["true"])
    disconnects_per_day: int = Field(default=10, ge=0, le=1_000_000, examples=["10"])


def _each_once(names: list[str], what: str) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 10_000 else []
    if twice:
        refuse(f"{', '.join(map(shown, twice))} stands twice in {what}", "name each once")
    return names
