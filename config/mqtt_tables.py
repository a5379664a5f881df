"""`[[mqtt]]` of site.toml: the brokers concentrators publish to. Keys, units and defaults: docs/site.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from config.problems import Table, check_table, nearest, place, refuse, repeated, shown, taken_twice
from headend.errors import Problem
from headend.mqtt.settings import BrokerSettings

__all__ = ["MqttTable", "brokers_of"]

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:.]{2,45}")
_VERSIONS: Final[dict[str, Literal[5, 311]]] = {"5": 5, "3.1.1": 311}


class MqttTable(Table):
    """One `[[mqtt]]`."""

    name: str = Field(examples=['"field"'])
    host: str = Field(examples=['"broker.example"'])
    port: int = Field(default=0, ge=0, le=65_535, examples=["8883"])
    version: Literal["5", "3.1.1"] = Field(default="5", examples=['"5"'])
    client_id: str = Field(default="", max_length=200, examples=['"headend-1"'])
    tls: bool = Field(default=False, examples=["true"])
    ca: str = Field(default="", examples=['"tls/ca.pem"'])
    cert: str = Field(default="", examples=['"tls/headend.pem"'])
    key: str = Field(default="", examples=['"tls/headend.key"'])
    username: str = Field(default="", examples=['"headend"'])
    password_env: str = Field(default="", examples=['"MQTT_PASSWORD"'])
    password_file: str = Field(default="", examples=['"mqtt.password"'])
    keepalive_s: int = Field(default=60, ge=5, le=3600, examples=["60"])
    connect_s: float = Field(default=10.0, gt=0, le=120, allow_inf_nan=False, examples=["10.0"])
    session_expiry_h: int = Field(default=168, ge=1, le=8760, examples=["168"])
    concentrators: list[str] = Field(default=["*"], examples=['["C0001", "C0002"]'])
    bucket: str = Field(default="", examples=['"b07"'])
    dialects: list[str] = Field(default=["canonical"], examples=['["canonical"]'])
    max_message_mb: int = Field(default=8, ge=1, le=256, examples=["8"])
    max_waiting: int = Field(default=1000, ge=10, le=65_535, examples=["1000"])
    max_waiting_mb: int = Field(default=64, ge=1, le=4096, examples=["64"])
    resend: bool = Field(default=True, examples=["true"])

    @field_validator("name", "bucket")
    @classmethod
    def _plain(cls, text: str, info: ValidationInfo) -> str:
        if not (info.field_name == "bucket" and not text) and not _NAME.fullmatch(text):
            refuse(f"{shown(text)} holds more than letters, digits, _ . -, or is longer than 64", "use a plain name")
        return text

    @field_validator("host")
    @classmethod
    def _host(cls, text: str) -> str:
        if not _HOST.fullmatch(text):
            refuse(f"{shown(text)} is no host", "use a host name or an address, without scheme and port")
        return text

    @field_validator("ca", "cert", "key", "password_file")
    @classmethod
    def _file(cls, text: str) -> str:
        if "\0" in text:
            refuse("this is no name of a file", "name a file; relative names start at the folder of this one")
        return text

    @field_validator("password_env")
    @classmethod
    def _variable(cls, text: str) -> str:
        if text and not _VARIABLE_NAME.fullmatch(text):
            refuse(f"{shown(text)} names no environment variable", "write a name of letters, digits and _")
        return text

    @field_validator("username", "client_id")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not text.isprintable():
            refuse("it holds a control character", "use a plain name")
        return text

    @field_validator("concentrators", "dialects")
    @classmethod
    def _each_once(cls, names: list[str], info: ValidationInfo) -> list[str]:
        what = info.field_name or "names"
        if not names:
            refuse(
                "the list is empty: nothing would be taken", 'write ["*"]' if what == "concentrators" else "name one"
            )
        if len(set(names)) < len(names):
            refuse(f"a name stands twice in {what}", "name each once")
        if what == "concentrators":
            if "*" in names and len(names) > 1:
                refuse('"*" stands beside names', 'write ["*"] alone or the names alone')
            for name in names:
                if name != "*" and not _NAME.fullmatch(name):
                    refuse(f"{shown(name)} can't be a level of a topic here", "use letters, digits, _ . -")
        return names


def brokers_of(
    raw: Mapping[str, Any], file: str, folder: Path, dialects: Collection[str]
) -> tuple[tuple[BrokerSettings, ...], list[Problem]]:
    """The brokers of a site file and their problems. folder: where relative names of files start. dialects: the
    formats there are."""
    tables, problems = repeated(raw, "mqtt", file)
    brokers: list[BrokerSettings] = []
    for number, table in enumerate(tables, start=1):
        where = place(file, f"mqtt[{number}]")
        checked, wrong = check_table(MqttTable, table, where)
        problems += wrong
        if checked is None:
            continue
        for name in checked.dialects:
            if name not in dialects:
                problems.append(Problem(where("dialects"), f"unknown dialect {shown(name)}", nearest(name, dialects)))
        problems += _together(checked, folder, where)
        brokers.append(_settings(checked, folder))
    problems += taken_twice(tables, "mqtt", file)
    problems += _same_session(brokers, file)
    return tuple(brokers), problems


def _together(table: MqttTable, folder: Path, where: Any) -> list[Problem]:
    """Keys that make sense only with others, and files that are not there."""
    problems = []
    if table.password_env and table.password_file:
        problems.append(Problem(where("password_file"), "password_env is given as well", "keep one of them"))
    if (table.password_env or table.password_file) and not table.username:
        problems.append(Problem(where("username"), "a password is given, but no user", 'write username = "headend"'))
    if table.key and not table.cert:
        problems.append(Problem(where("key"), "a key without its certificate", "name the certificate in cert"))
    for key in ("ca", "cert", "key"):
        name = getattr(table, key)
        if name and not table.tls:
            problems.append(
                Problem(where(key), "the connection is not encrypted", "write tls = true, or remove the key")
            )
        elif name and not (folder / name).is_file():
            problems.append(Problem(where(key), f"there is no file {shown(name)}", "name a PEM file"))
    if table.password_file and not (folder / table.password_file).is_file():
        problems.append(
            Problem(where("password_file"), f"there is no file {shown(table.password_file)}", "name a file")
        )
    return problems


def _settings(table: MqttTable, folder: Path) -> BrokerSettings:
    def file(name: str) -> Path | None:
        return folder / name if name else None

    return BrokerSettings(
        name=table.name,
        host=table.host,
        port=table.port or (8883 if table.tls else 1883),
        version=_VERSIONS[table.version],
        client_id=table.client_id or f"headend-{table.name}",
        tls=table.tls,
        ca=file(table.ca),
        cert=file(table.cert),
        key=file(table.key),
        username=table.username,
        password_env=table.password_env,
        password_file=file(table.password_file),
        keepalive_s=table.keepalive_s,
        connect_s=table.connect_s,
        session_expiry_s=table.session_expiry_h * 3600,
        concentrators=tuple(table.concentrators),
        bucket=table.bucket,
        dialects=tuple(table.dialects),
        max_message_bytes=table.max_message_mb << 20,
        max_waiting=table.max_waiting,
        max_waiting_bytes=table.max_waiting_mb << 20,
        resend=table.resend,
    )


def _same_session(brokers: list[BrokerSettings], file: str) -> list[Problem]:
    """Two tables that would push each other off one broker."""
    problems = []
    seen: dict[tuple[str, int, str], str] = {}
    for broker in brokers:
        key = (broker.host, broker.port, broker.client_id)
        other = seen.setdefault(key, broker.name)
        if other != broker.name:
            what = f"broker {broker.name} has the client_id of {other} on the same host: each would end the other's"
            problems.append(Problem(f"{file}: mqtt", what, "give each its own client_id"))
    return problems
