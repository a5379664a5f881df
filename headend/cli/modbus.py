"""headend model: a Modbus meter's registers, before it is registered: what would be read, and what a meter answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from config.meter_models import SHIPPED_MODELS, load_model, load_models
from config.problems import nearest
from config.site import Site, load_site
from headend.cli.common import out, site_path_option
from headend.cli.line import find_line
from headend.conversation import Conversation
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import BadFrame, HeadendError, ProtocolError, UsageError
from headend.line import Line
from headend.local_api import ask_daemon
from headend.protocols import PROTOCOLS, Value
from headend.protocols.modbus.exchange import Talk, identify
from headend.protocols.modbus.items import value_text
from headend.protocols.modbus.model import Register, RegisterMap
from headend.protocols.modbus.plan import Request, plan, wanted
from headend.protocols.modbus.registers import Got, read_registers
from headend.protocols.modbus.values import exponent

__all__ = ["model"]

_OBJECTS = {0: "vendor", 1: "product", 2: "revision"}
_TCP_PORT = 502


@click.group()
def model() -> None:
    """Look at Modbus meter models, and try one on a meter."""


@model.command("plan")
@site_path_option
@click.argument("name", metavar="NAME")
@click.argument("names", metavar="[QUANTITY]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def show_plan(site_path: Path, name: str, names: tuple[str, ...], as_json: bool) -> None:
    """Show the reads that bring the quantities of a Modbus meter model; without any, of all its registers.

    NAME is a meter model, or a file of one (its name ends in .toml). Without a site the shipped models are known.

    \b
    Examples:
      headend model plan modbus-eastron-sdm630 import_kwh export_kwh
      headend model plan meters/mine.toml
    """
    registers = _registers(_site(site_path), name)
    requests = plan(registers, _asked(registers, names))
    if as_json:
        click.echo(json.dumps([_plain(one) for one in requests], ensure_ascii=False, indent=2))
        return
    table = Table(
        "function", "from", "registers", "brings", title=f"{name}: {len(requests)} reads", title_justify="left"
    )
    for one in requests:
        brings = ", ".join(register.name for register in one.registers)
        table.add_row(str(one.function), f"0x{one.address:04X}", str(one.count), brings)
    out.print(table)
    if registers.sunspec:
        ids = ", ".join(map(str, registers.sunspec))
        out.print(f"addresses count from SunSpec model {ids}, which is looked for first")


@model.command("try")
@site_path_option
@click.argument("file", metavar="FILE")
@click.argument("line_name", metavar="LINE")
@click.argument("address", metavar="ADDRESS")
@click.option("--serial", default="", metavar="FORMAT", help="Of a serial endpoint, like 9600 8N1.")
@click.option(
    "--tcp", "tcp", type=bool, default=None, help="Whether the line speaks Modbus TCP.  [default: port 502 does]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def try_model(
    site_path: Path, file: str, line_name: str, address: str, serial: str, tcp: bool | None, as_json: bool
) -> None:
    """Read every register of a meter model from a meter, registered or not: reads only, stores nothing.

    FILE is a meter model or a file of one (its name ends in .toml), LINE a line of the site or an endpoint, ADDRESS the
    unit id. Shows each value with its raw registers, what the meter refuses, and who it says it is (function 43). The
    daemon must not be running: it owns the lines. The exit status is 1 if nothing was read.

    \b
    Examples:
      headend model try modbus-eastron-sdm630 east 7
      headend model try meters/mine.toml tcp://192.0.2.7:502 12
      headend model try modbus-orno-we504 serial:/dev/ttyUSB0 1 --serial "9600 8E1"
    """
    site = _site(site_path)
    registers = _registers(site, file)
    settings = _line(site, line_name, serial)
    over_tcp = settings.endpoint.port == _TCP_PORT if tcp is None else tcp
    protocol = "modbus-tcp" if over_tcp else "modbus-rtu"
    unit = int(PROTOCOLS[protocol].check_address(address))
    if settings.endpoint.kind == "listen":
        raise UsageError(f"line {line_name} is dialled in to", remedy="start `headend run` and use `headend read`")
    if site is not None and asyncio.run(ask_daemon(site.path, {"do": "lines"})) is not None:
        raise UsageError("the head-end is running and owns the lines", remedy="stop `headend run`, try, start it again")
    talk = Talk(unit, over_tcp, late_s=registers.late_s, busy_s=registers.busy_s)
    found = asyncio.run(_on_line(settings, _try(talk, registers)))
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False, indent=2))
    else:
        _show(found, f"unit {unit} on {line_name} ({protocol})")
    if not found.values:
        raise SystemExit(1)


@dataclass(frozen=True, slots=True)
class _Found:
    """identity: what the meter says it is. values: its registers. missing: what did not come, by register, and why."""

    identity: dict[str, str]
    values: list[Value]
    missing: dict[str, str]


def _try(talk: Talk, registers: RegisterMap) -> Conversation[_Found]:
    got = yield from read_registers(talk, registers, registers.registers, memo={}, model="")
    if got.error is not None and not got.data:
        raise got.error
    identity: dict[str, str] = {}
    if got.error is None:
        try:
            objects = yield from identify(talk)
        except ProtocolError as error:
            identity["none"] = str(error)
        else:
            identity = {_OBJECTS.get(n, f"object {n}"): text.decode("utf-8", "replace") for n, text in objects.items()}
    values = [_value(registers, one, got) for one in registers.registers if one.name in got.data]
    missing = {one.name: _why(one, got) for one in registers.registers if one.name not in got.data}
    return _Found(identity, values, missing)


def _value(registers: RegisterMap, one: Register, got: Got) -> Value:
    power: int | None = 0
    if one.scale_register:
        raw = got.data.get(one.scale_register)
        try:
            power = None if raw is None else exponent(registers.by_name[one.scale_register], raw)
        except BadFrame:
            power = None
    return value_text(one, got.data[one.name], power)


def _why(one: Register, got: Got) -> str:
    error: HeadendError | None = got.errors.get(one.name) or got.error
    return str(error) if error is not None else "not asked"


async def _on_line(settings: LineSettings, conversation: Conversation[_Found]) -> _Found:
    line = Line(settings)
    try:
        return await line.run(conversation)
    finally:
        await line.close()


def _site(path: Path) -> Site | None:
    """The site, None where there is no such file: the shipped models need none."""
    return load_site(path) if path.exists() else None


def _line(site: Site | None, name: str, serial: str) -> LineSettings:
    """A line of the site, or one made of an endpoint."""
    if ":" in name:
        return LineSettings(name, parse_endpoint(name, serial))
    if serial:
        raise UsageError("a line of the site has its own serial format", remedy="leave --serial out")
    if site is None:
        raise UsageError(f"there is no site that has a line {name!r}", remedy="name --site, or write an endpoint")
    return find_line(site, name)


def _registers(site: Site | None, name: str) -> RegisterMap:
    """The registers of a model known by name or standing in a file."""
    models = load_models([SHIPPED_MODELS], PROTOCOLS) if site is None else site.models
    if name.endswith(".toml"):
        found = load_model(Path(name), PROTOCOLS)
    elif name in models:
        found = models[name]
    else:
        known = sorted(key for key, one in models.items() if isinstance(one.details, RegisterMap))
        raise UsageError(f"there is no meter model {name!r}", remedy=f"{nearest(name, known)} Or name a .toml file")
    if not isinstance(found.details, RegisterMap):
        raise UsageError(f"the meter model {name} speaks {found.protocol}", remedy="name a Modbus meter model")
    return found.details


def _asked(registers: RegisterMap, names: Sequence[str]) -> tuple[Register, ...]:
    found, unknown = wanted(registers, names or registers.by_name)
    if unknown:
        known = ", ".join(registers.by_name)
        raise UsageError(f"the model has no register {', '.join(unknown)}", remedy=f"it has {known}")
    return found


def _plain(one: Request) -> dict[str, Any]:
    names = [register.name for register in one.registers]
    return {"function": one.function, "address": one.address, "count": one.count, "registers": names}


def _show(found: _Found, title: str) -> None:
    table = Table("register", "value", "unit", "OBIS", "where it is, raw, note", title=title, title_justify="left")
    for one in found.values:
        shown = "null (not there)" if one.value is None else one.value
        table.add_row(*map(escape, (one.name, shown, one.unit, one.obis, one.note)))
    if table.row_count:
        out.print(table)
    for name, why in found.missing.items():
        out.print(f"[red]{name}[/red] {escape(why)}")
    for name, text in found.identity.items():
        out.print(f"identification, {name}: {escape(text)}")
