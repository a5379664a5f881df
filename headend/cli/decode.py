"""headend decode: what a frame says. headend quantities: what can be measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from rich.table import Table

from config.meter_models import SHIPPED_MODELS, load_model
from config.problems import nearest
from headend.cli.common import out
from headend.errors import UsageError
from headend.protocols import PROTOCOLS, Explanation, dlt645
from headend.protocols.dlms.explain import explain as explain_dlms
from headend.protocols.modbus import RegisterMap
from headend.protocols.modbus import explain as explain_modbus
from headend.quantities import QUANTITIES

__all__ = ["decode", "explanation_text", "quantities"]

# A protocol's name without a version: the frame says which it is.
_EXPLAIN = {
    **{name: driver.explain for name, driver in PROTOCOLS.items()},
    "dlt645": dlt645.explain,
    "dlms": explain_dlms,
    "modbus": explain_modbus,
}
_KEY_BYTES = 16
_TITLE_BYTES = 8


@click.command()
@click.argument("protocol", type=click.Choice(sorted(_EXPLAIN)))
@click.argument("hex_text", metavar="HEX", nargs=-1, required=True)
@click.option("--key", envvar="HEADEND_KEY", help="dlms: encryption key in hex; better in HEADEND_KEY.")
@click.option("--auth-key", envvar="HEADEND_AUTH_KEY", help="dlms: authentication key; better in HEADEND_AUTH_KEY.")
@click.option("--title", help="dlms: system title of the sender, where the bytes do not say it.")
@click.option("--model", "model_name", metavar="NAME", help="modbus: the meter model, for names, units and scales.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def decode(
    protocol: str,
    hex_text: tuple[str, ...],
    key: str | None,
    auth_key: str | None,
    title: str | None,
    model_name: str | None,
    as_json: bool,
) -> None:
    """Explain a frame given in hex: its fields, names, values, checks, and what is odd about it.

    Spaces and 0x are allowed. `dlt645` tells the version, 1997 or 2007, by the frame's control code; the full names
    force one. `dlms` takes HDLC, wrapper and M-Bus frames, several of them too, or a bare APDU; with its keys it
    deciphers them and checks the tag. Keys on the command line stay in the shell's history: put them into the
    environment. `modbus` tells RTU and TCP apart; of a request and its answer, given together, it names the registers.
    Passwords and keys in a frame are not spelled out. The exit status is 1 if the bytes hold no sound frame.

    \b
    Examples:
      headend decode dlt645 68 61 01 00 00 00 00 68 91 08 33 33 34 33 59 33 33 33 8A 16
      headend decode dlms C4 01 81 00 06 00 00 15 B3
      headend decode modbus 010400480002F1DD 010404449A51ECF346 --model modbus-eastron-sdm630
    """
    text = re.sub(r"0x|[\s,:-]", "", " ".join(hex_text), flags=re.IGNORECASE)
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise UsageError("that is not hex", remedy="give pairs of hex digits, like 68 61 01 ... 16") from error
    if protocol == "dlms":
        explanation = explain_dlms(data, secrets=_secrets(key, auth_key, title))
    elif protocol.startswith("modbus") and model_name:
        explanation = explain_modbus(data, _registers(model_name))
    else:
        explanation = _EXPLAIN[protocol](data)
    if as_json:
        click.echo(json.dumps(explanation.to_json(), ensure_ascii=False, indent=2))
    else:
        click.echo(explanation_text(explanation))
    if not explanation.ok:
        raise SystemExit(1)


def _registers(name: str) -> RegisterMap:
    """The registers of a shipped Modbus meter model, or of a file of one."""
    path = Path(name) if name.endswith(".toml") else SHIPPED_MODELS / f"{name}.toml"
    if path.parent == SHIPPED_MODELS and not path.exists():
        known = [one.stem for one in SHIPPED_MODELS.glob("modbus-*.toml")]
        raise UsageError(f"there is no meter model {name!r}", remedy=f"{nearest(name, known)} Or name a .toml file")
    details = load_model(path, PROTOCOLS).details
    if not isinstance(details, RegisterMap):
        raise UsageError(f"{name} is no Modbus meter model", remedy="name one with [modbus]")
    return details


def _secrets(key: str | None, auth_key: str | None, title: str | None) -> dict[str, bytes]:
    """What was given, as bytes. One encryption key serves whichever the frame was ciphered with."""
    secrets = {}
    for name, option, text, size in (
        ("encryption_key", "--key", key, _KEY_BYTES),
        ("authentication_key", "--auth-key", auth_key, _KEY_BYTES),
        ("system_title", "--title", title, _TITLE_BYTES),
    ):
        if text:
            secrets[name] = _hidden_hex(option, text, size)
    for other in ("broadcast_key", "dedicated_key"):
        if "encryption_key" in secrets:
            secrets[other] = secrets["encryption_key"]
    return secrets


def _hidden_hex(option: str, text: str, size: int) -> bytes:
    """Bytes of a hex text that no message may repeat."""
    try:
        data = bytes.fromhex(text.strip())
    except ValueError:
        data = b""
    if len(data) != size:
        raise UsageError(f"{option} is not {2 * size} hex digits", remedy="give it without 0x")
    return data


def explanation_text(explanation: Explanation) -> str:
    """An explanation as lines of text."""
    lines = [explanation.summary]
    width = max((len(field.name) for field in explanation.fields), default=0)
    lines += [f"  {field.name:<{width}}  {field.hex:<14}  {field.text}" for field in explanation.fields]
    for value in explanation.values:
        shown = "null (not there)" if value.value is None else f"{value.value} {value.unit}".rstrip()
        obis = f"  {value.obis}" if value.obis else ""
        note = f"  {value.note}" if value.note and value.value is not None else ""
        zh = f" ({value.name_zh})" if value.name_zh or value.di else ""
        di = f"  [{value.di}]" if value.di else ""
        lines.append(f"  = {value.name}{zh}: {shown}{di}{obis}{note}")
    lines += [f"  ! {problem}" for problem in explanation.problems]
    return "\n".join(lines)


@click.command()
@click.argument("word", required=False, default="")
def quantities(word: str) -> None:
    """List what can be measured: our names with the field's (OBIS, DL/T 645 DI, CIM ReadingType)."""
    table = Table("name", "unit", "kind", "OBIS", "DI", "CIM", "what")
    for item in QUANTITIES.values():
        row = (item.name, item.unit, item.kind.value, item.obis, item.di, item.cim, item.title)
        if word.lower() in " ".join(row).lower():
            table.add_row(*row)
    out.print(table)
