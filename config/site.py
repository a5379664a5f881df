"""site.toml, read and checked whole: every problem of it and of its meter models at once, nothing opened.

`load_site` gives a `Site` of frozen values from which the program is built. Keys, units and defaults: docs/site.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config.billing_rules import BillingSettings, billing_of
from config.meter_models import SHIPPED_MODELS, load_models
from config.mqtt_lines import broker_problems, mqtt_endpoint, mqtt_reply_s, shared_topics, topics_problems
from config.mqtt_mapping import SHIPPED_MAPPINGS, load_mappings
from config.mqtt_tables import brokers_of
from config.problems import check_table, nearest, place, read_toml, repeated, shown, taken_twice
from config.schedules import schedules_of
from config.tables import (
    ControlSettings,
    EvidenceSettings,
    IngestSettings,
    LineTable,
    PushTable,
    SiteTable,
    VaultSettings,
    expand_environment,
)
from headend.endpoints import DEFAULT_SERIAL, Endpoint, LineSettings, PushSettings, parse_endpoint, parse_serial
from headend.errors import ConfigError, Problem, UsageError
from headend.model import MeterModel
from headend.mqtt.canonical import CANONICAL
from headend.mqtt.dialect import Dialect
from headend.mqtt.settings import BrokerSettings
from headend.protocols import PROTOCOLS
from headend.scheduler.settings import Schedule

__all__ = ["SHIPPED_TARIFFS", "Site", "load_site", "survey_site"]

SHIPPED_TARIFFS: Final = Path(__file__).parent / "tariffs"

_TABLES: Final = ("site", "line", "schedule", "evidence", "ingest", "vault", "control", "push", "mqtt", "billing")
_POSTGRES: Final = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Site:
    """Everything site.toml says. `store_url` may hold a password and is therefore not shown by `repr`.

    path: the file, absolute. zone: IANA name or offset of the site's civil time. tariff_folders: where tariffs are
    found, the shipped folder first. dialects: formats of MQTT messages by name, where there is a broker.
    """

    path: Path
    name: str
    zone: str
    store_url: str = field(repr=False)
    lines: tuple[LineSettings, ...]
    schedules: tuple[Schedule, ...]
    models: Mapping[str, MeterModel] = field(repr=False)
    evidence: EvidenceSettings
    ingest: IngestSettings
    tariff_folders: tuple[Path, ...]
    vault: VaultSettings = field(default_factory=VaultSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    pushes: tuple[PushSettings, ...] = ()
    brokers: tuple[BrokerSettings, ...] = ()
    dialects: Mapping[str, Dialect] = field(default_factory=dict, repr=False)
    billing: BillingSettings = field(default_factory=BillingSettings)

    @property
    def master_key_file(self) -> Path | None:
        """Where the master key is, None when it is in the environment."""
        return self.path.parent / self.vault.master_key_file if self.vault.master_key_file else None


def load_site(path: Path, protocols: Collection[str] = PROTOCOLS) -> Site:
    """The site described by the file `path`. Raises `ConfigError` with all problems of it and of its meter models.

    `protocols` are the names meter models may speak. Opens no port and no database.
    """
    site, problems = survey_site(path, protocols)
    if problems:
        raise ConfigError(problems)
    return site


def survey_site(path: Path, protocols: Collection[str] = PROTOCOLS) -> tuple[Site, list[Problem]]:
    """What can be made of the file at `path`, and all its problems: so that other files can be checked beside it.

    A line with problems keeps its name only, another table with problems is as if empty. `ConfigError` if it is no
    TOML.
    """
    path = path.absolute()
    raw = read_toml(path, missing="name the site's file, or start from docs/example-site/site.toml")
    file, folder = path.name, path.parent
    problems = [
        Problem(file, f"unknown table {shown(key)}", nearest(key, _TABLES)) for key in raw if key not in _TABLES
    ]
    site, wrong = _site_table(raw, file)
    problems += wrong
    store_url, wrong = _store_url(raw, folder, f"{file}: site.store")
    problems += wrong
    model_folders, wrong = _folders(raw, "meter_models", "meters", SHIPPED_MODELS, path)
    problems += wrong
    tariff_folders, wrong = _folders(raw, "tariffs", "tariffs", SHIPPED_TARIFFS, path)
    problems += wrong
    models, wrong = _models(model_folders, protocols)
    problems += wrong
    lines, wrong = _lines(raw, file)
    problems += wrong
    schedules, wrong = schedules_of(raw, file, models)
    problems += wrong
    evidence, wrong = check_table(EvidenceSettings, raw.get("evidence", {}), place(file, "evidence"))
    problems += wrong
    ingest, wrong = check_table(IngestSettings, raw.get("ingest", {}), place(file, "ingest"))
    problems += wrong
    vault, wrong = check_table(VaultSettings, raw.get("vault", {}), place(file, "vault"))
    problems += wrong
    control, wrong = check_table(ControlSettings, raw.get("control", {}), place(file, "control"))
    problems += wrong
    pushes, wrong = _pushes(raw, file)
    problems += wrong
    brokers, dialects, wrong = _brokers(raw, path)
    problems += wrong
    problems += _line_brokers(raw, file, brokers)
    billing, wrong = billing_of(raw, file)
    problems += wrong
    # What stands in for a table with problems is only ever used to check other files.
    site = site or SiteTable(name="?")
    evidence, ingest = evidence or EvidenceSettings(), ingest or IngestSettings()
    whole = Site(
        path,
        site.name,
        site.zone,
        store_url,
        lines,
        schedules,
        models or {},
        evidence,
        ingest,
        tariff_folders,
        vault or VaultSettings(),
        control or ControlSettings(),
        pushes,
        brokers,
        dialects,
        billing,
    )
    return whole, problems


def _site_table(raw: Mapping[str, Any], file: str) -> tuple[SiteTable | None, list[Problem]]:
    if "site" not in raw:
        return None, [Problem(file, "the table [site] is missing", 'write [site] and under it name = "Town"')]
    return check_table(SiteTable, raw["site"], place(file, "site"))


def _site_value(raw: Mapping[str, Any], key: str) -> object:
    table = raw.get("site")
    return table.get(key) if isinstance(table, dict) else None


def _store_url(raw: Mapping[str, Any], folder: Path, where: str) -> tuple[str, list[Problem]]:
    """The store's URL with secrets filled in and an SQLite path made absolute. Problems never show its text."""
    text = _site_value(raw, "store")
    if text is None:
        text = SiteTable.model_fields["store"].default
    if not isinstance(text, str):
        return "", []  # the table's own check says so
    remedy = 'write "sqlite:///headend.db" or "postgresql+psycopg://user:${PASSWORD}@host/database"'
    try:
        url = make_url(expand_environment(text))
    except UsageError as error:
        return "", [Problem(where, error.problem.what, error.problem.remedy)]
    except (ArgumentError, ValueError):
        return "", [Problem(where, "this is no database URL", remedy)]
    if url.drivername in ("postgresql", _POSTGRES):
        if not url.database:
            return "", [Problem(where, "the URL names no database", remedy)]
        return url.set(drivername=_POSTGRES).render_as_string(hide_password=False), []
    if url.drivername != "sqlite":
        return "", [Problem(where, "only SQLite and PostgreSQL can hold the store", remedy)]
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return "", [Problem(where, "the URL names no SQLite file", remedy)]
    return url.set(database=str(folder / url.database)).render_as_string(hide_password=False), []


def _folders(
    raw: Mapping[str, Any], key: str, default: str, shipped: Path, path: Path
) -> tuple[tuple[Path, ...], list[Problem]]:
    """The shipped folder and the site's own; a default one that isn't there is left out, a named one is a problem."""
    named = _site_value(raw, key)
    folder = path.parent / (named if isinstance(named, str) else default)
    if "\0" not in str(folder) and folder.is_dir():
        return ((shipped,) if folder.samefile(shipped) else (shipped, folder)), []
    if not isinstance(named, str):
        return (shipped,), []
    remedy = "make the folder or remove the key; relative names start at the folder of this file"
    return (shipped,), [Problem(f"{path.name}: site.{key}", f"there is no folder {shown(named)}", remedy)]


def _models(
    folders: tuple[Path, ...], protocols: Collection[str]
) -> tuple[dict[str, MeterModel] | None, list[Problem]]:
    try:
        return load_models(folders, protocols), []
    except ConfigError as error:
        return None, list(error.problems)


def _lines(raw: Mapping[str, Any], file: str) -> tuple[tuple[LineSettings, ...], list[Problem]]:
    tables, problems = repeated(raw, "line", file)
    lines = []
    for number, table in enumerate(tables, start=1):
        where = place(file, f"line[{number}]")
        checked, wrong = check_table(LineTable, table, where)
        problems += wrong
        if checked is not None:
            problems += topics_problems(checked, where)
            lines.append(_line(checked))
        elif isinstance(table, dict) and isinstance(table.get("name"), str):
            lines.append(LineSettings(table["name"], Endpoint("tcp")))  # its name only, for the meters on it
    problems += taken_twice(tables, "line", file)
    problems += _shared_endpoints(tables, file)
    problems += shared_topics(tables, file, [_endpoint_of(table) for table in tables])
    return tuple(lines), problems


def _line_brokers(raw: Mapping[str, Any], file: str, brokers: tuple[BrokerSettings, ...]) -> list[Problem]:
    """Lines whose broker is nowhere, or does not let their concentrator in."""
    tables = repeated(raw, "mqtt", file)[0] if "mqtt" in raw else []
    named = [name for table in tables if isinstance(table, dict) and isinstance(name := table.get("name"), str)]
    problems = []
    for number, table in enumerate(repeated(raw, "line", file)[0], start=1):
        endpoint = _endpoint_of(table)
        if endpoint is not None:
            problems += broker_problems(endpoint, brokers, named, place(file, f"line[{number}]"))
    return problems


def _pushes(raw: Mapping[str, Any], file: str) -> tuple[tuple[PushSettings, ...], list[Problem]]:
    """The ports pushes come to. One port has one door, and no line listens on it."""
    tables, problems = repeated(raw, "push", file)
    listening = {str(end) for table in repeated(raw, "line", file)[0] if (end := _endpoint_of(table)) is not None}
    doors = []
    taken: dict[tuple[str, str], int] = {}
    for number, table in enumerate(tables, start=1):
        where = place(file, f"push[{number}]")
        checked, wrong = check_table(PushTable, table, where)
        problems += wrong
        if checked is None:
            continue
        listens_on = str(checked.endpoint)
        other = taken.setdefault((checked.transport, listens_on), number)
        if other != number:
            problems.append(Problem(where("endpoint"), f"push[{other}] listens on {listens_on} already", "remove one"))
        elif checked.transport == "tcp" and listens_on in listening:
            what = f"a line listens on {listens_on} already"
            problems.append(Problem(where("endpoint"), what, "give it another port"))
        host, port = checked.endpoint.host, checked.endpoint.port
        settings = (checked.name, checked.transport, host, port, checked.idle_s, checked.connections)
        doors.append(PushSettings(*settings))
    problems += taken_twice(tables, "push", file)
    return tuple(doors), problems


def _brokers(
    raw: Mapping[str, Any], path: Path
) -> tuple[tuple[BrokerSettings, ...], dict[str, Dialect], list[Problem]]:
    """The brokers, and the formats there are; mappings are looked at only where there is a broker."""
    if "mqtt" not in raw:
        return (), {}, []
    folders, problems = _folders(raw, "mqtt_mappings", "mqtt_mappings", SHIPPED_MAPPINGS, path)
    dialects: dict[str, Dialect] = {CANONICAL.name: CANONICAL}
    try:
        dialects.update(load_mappings(folders))
    except ConfigError as error:
        problems += error.problems
    brokers, wrong = brokers_of(raw, path.name, path.parent, dialects)
    return brokers, dialects, problems + wrong


def _line(table: LineTable) -> LineSettings:
    endpoint = table.endpoint
    if endpoint.kind == "serial":
        baud, bytesize, parity, stopbits = parse_serial(table.serial or DEFAULT_SERIAL)
        endpoint = replace(endpoint, baud=baud, bytesize=bytesize, parity=parity, stopbits=stopbits)
    if endpoint.kind == "mqtt":
        endpoint = mqtt_endpoint(table)
    return LineSettings(
        name=table.name,
        endpoint=endpoint,
        registration=table.registration,
        heartbeat=table.heartbeat,
        reply_s=mqtt_reply_s(table) if endpoint.kind == "mqtt" else table.reply_s,
        gap_s=table.gap_s,
        quiet_s=table.quiet_s,
        connect_s=table.connect_s,
        echo=table.echo,
        turnaround_s=table.turnaround_s,
        reopen_after=table.reopen_after,
        dead_share=table.dead_share,
        wire_baud=table.wire_baud,
    )


def _shared_endpoints(tables: list[Any], file: str) -> list[Problem]:
    """Endpoints on which two lines would get in each other's way."""
    problems = []
    seen: dict[str, list[tuple[int, str]]] = {}
    for number, table in enumerate(tables, start=1):
        endpoint = _endpoint_of(table)
        if endpoint is None or (endpoint.kind == "mqtt" and not endpoint.concentrator):
            continue  # DTUs share a broker, and are told apart by their topics
        registration = table.get("registration", "")
        registration = registration if isinstance(registration, str) else ""
        for other, other_registration in seen.setdefault(str(endpoint), []):
            if clash := _clash(endpoint, other, registration, other_registration):
                problems.append(Problem(f"{file}: line[{number}].{clash[0]}", *clash[1:]))
                break
        seen[str(endpoint)].append((number, registration))
    return problems


def _clash(endpoint: Endpoint, other: int, mine: str, theirs: str) -> tuple[str, str, str] | None:
    """Key, what and remedy if two lines can't share `endpoint`."""
    if endpoint.kind != "listen":
        remedy = "one line owns an endpoint: put all its meters on one line"
        return "endpoint", f"line[{other}] has the endpoint {endpoint} already", remedy
    if mine == theirs:
        what = f"line[{other}] listens on {endpoint} with the same registration"
        return "endpoint", what, "give each line its own registration or its own port"
    if mine and theirs and (mine in theirs or theirs in mine):
        what = f"can't be told from line[{other}]'s registration: one holds the other"
        return "registration", what, "use registrations of which none is part of another"
    return None


def _endpoint_of(table: object) -> Endpoint | None:
    text = table.get("endpoint") if isinstance(table, dict) else None
    try:
        return parse_endpoint(text) if isinstance(text, str) else None
    except UsageError:
        return None  # said where the line itself is checked
