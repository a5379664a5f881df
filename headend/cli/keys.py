"""headend keys: passwords and keys of meters. No verb here shows a value, and none takes one as an argument."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import click
from rich.table import Table

from config.secret_rows import read_secrets
from config.site import Site
from headend import keyring
from headend.app import now_utc, open_vault
from headend.cli.common import local, opened, out, site_option
from headend.errors import ConfigError, Problem, UsageError
from headend.local_api import socket_answers
from headend.masterkey import MasterKey, load_master_key, new_master_key, read_master_key
from headend.store import Store, registry, secrets
from headend.store.registry import MeterRow
from headend.store.secrets import SecretRow

__all__ = ["keys"]


@click.group()
def keys() -> None:
    """Keep passwords and keys of meters, sealed under one master key.

    The master key is made by `headend keys init` and lies in a file or an environment variable, never in the store:
    who has only one of the two has nothing. A running head-end notices changes by itself within seconds. Values come
    from files or the standard input and are never shown. Names, and how to change a key: docs/keys.md.
    """


@keys.command()
@site_option
@click.option(
    "--file", type=click.Path(path_type=Path), help="Where to write it.  [default: as site.toml says, else master.key]"
)
def init(site: Site, file: Path | None) -> None:
    """Make a new master key and write it to a file that its owner alone can read.

    A file that is there already is never overwritten. Keep a copy of the key apart from copies of the database.
    """
    place = file or site.master_key_file or site.path.parent / "master.key"
    key = new_master_key(place)
    click.echo(f"master key {key.id.hex()} written to {place}")
    if site.master_key_file is None or place.absolute() != site.master_key_file.absolute():
        click.echo(f'write in site.toml:\n[vault]\nmaster_key_file = "{place.absolute()}"')


@keys.command(name="import")
@site_option
@click.argument("file", type=click.Path(path_type=Path))
def import_(site: Site, file: Path) -> None:
    """Take secrets from a CSV file with the columns meter_id, name, value.

    A value is written in hex, or as text: and a text. The whole file is checked first; with one mistake in it nothing
    is changed. What a meter had under the same name is retired, not lost. Delete the file afterwards.
    """
    with opened(site) as store:
        entries = read_secrets(file, {row.id: row for row in _meters(store)})
        counts = keyring.put_entries(store, _master(site), entries, now_utc())
    click.echo(f"secrets: {counts.added} added, {counts.changed} changed, {counts.same} as before")
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        click.echo(f"warning: others can read {file}: chmod 600 it, or better delete it", err=True)


@keys.command(name="list")
@site_option
@click.argument("meter_id", metavar="[METER]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(site: Site, meter_id: str | None, as_json: bool) -> None:
    """List which secrets meters have: names, generations, dates; never values."""
    with opened(site) as store:
        wanted = None if meter_id is None else [_meter(store, meter_id).key]
        with store.read() as conn:
            rows = secrets.secrets(conn, wanted)
        problems = open_vault(site, store).problems()
    if as_json:
        click.echo(json.dumps([_as_json(row) for row in rows], ensure_ascii=False, indent=1))
    else:
        table = Table("meter", "name", "generation", "state", "created", "changed")
        for row in rows:
            created, changed = local(row.created_at, site.zone), local(row.changed_at, site.zone)
            table.add_row(row.meter, row.name, str(row.generation), row.state, created, changed)
        out.print(table if rows else "no secrets")
    if problems:
        raise ConfigError(problems)


def _as_json(row: SecretRow) -> dict[str, object]:
    return {
        "meter": row.meter,
        "name": row.name,
        "generation": row.generation,
        "state": row.state,
        "created_at": row.created_at.isoformat(),
        "changed_at": row.changed_at.isoformat(),
    }


@keys.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("name")
@click.option("--file", type=click.Path(path_type=Path), help="Read the value from this file.  [default: ask for it]")
def rotate(site: Site, meter_id: str, name: str, file: Path | None) -> None:
    """Keep a new generation of a secret beside the active one, until the meter has it too.

    The value, in hex or as text: and a text, is read from the file, else from the standard input. Once the meter was
    given it, `headend keys activate` makes it the one in use; `headend keys drop` forgets it.
    """
    with opened(site) as store:
        meter, master = _meter(store, meter_id), _master(site)
        value = keyring.parse_secret(name, _value_from(file))
        generation = keyring.put_pending(store, master, keyring.Entry(meter, name, value), now_utc())
    click.echo(f"generation {generation} of {name} of meter {meter_id} is pending")


@keys.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("name")
@click.option("--generation", type=int, help="Which one.  [default: the pending one]")
def activate(site: Site, meter_id: str, name: str, generation: int | None) -> None:
    """Use a generation of a secret from now on; the one used until now is retired, and can be activated again."""
    with opened(site) as store:
        done = keyring.activate(store, _meter(store, meter_id), name, now_utc(), generation)
    click.echo(f"generation {done} of {name} of meter {meter_id} is active")


@keys.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("name")
@click.option("--generation", type=int, help="Which one.  [default: the pending one]")
def drop(site: Site, meter_id: str, name: str, generation: int | None) -> None:
    """Delete a generation of a secret that is not the active one."""
    with opened(site) as store:
        done = keyring.drop(store, _meter(store, meter_id), name, generation)
    click.echo(f"generation {done} of {name} of meter {meter_id} is gone")


@keys.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(site: Site, meter_id: str, name: str | None, yes: bool) -> None:
    """Delete a secret of a meter with all its generations, or all its secrets."""
    with opened(site) as store:
        meter = _meter(store, meter_id)
        if not yes and not click.confirm(f"delete {name or 'every secret'} of meter {meter_id}?"):
            raise UsageError("nothing was deleted")
        number = keyring.remove(store, meter, name)
    click.echo(f"{number} generation(s) deleted")


@keys.command(name="rotate-master")
@site_option
@click.argument("new_file", metavar="NEWFILE", type=click.Path(path_type=Path))
def rotate_master(site: Site, new_file: Path) -> None:
    """Seal every secret under the master key in NEWFILE, which is made if it is not there.

    All or none, in one transaction. The head-end must not be running: it holds the old master key. Afterwards NEWFILE
    is the master key: name it in site.toml. Copies of the database made before need the old one.
    """
    if socket_answers(site.path):
        raise UsageError("a head-end of this site is running", remedy="stop it first")
    old = _master(site)
    with opened(site) as store:
        new = read_master_key(new_file) if new_file.exists() else new_master_key(new_file)
        if new.id == old.id:
            raise UsageError("this is the master key in use already", remedy="name another file")
        number = keyring.reseal_all(store, old, new)
    click.echo(f"{number} secret(s) sealed under master key {new.id.hex()} of {new_file}")
    click.echo(f'write in site.toml:\n[vault]\nmaster_key_file = "{new_file.absolute()}"')


def _master(site: Site) -> MasterKey:
    key = load_master_key(site.vault.master_key_env, site.master_key_file)
    if key is None:
        raise UsageError(
            f"there is no master key: the environment variable {site.vault.master_key_env} is not set",
            remedy="make one with `headend keys init`, and name it in [vault] of site.toml",
        )
    return key


def _meters(store: Store) -> list[MeterRow]:
    with store.read() as conn:
        return registry.meters(conn)


def _meter(store: Store, meter_id: str) -> MeterRow:
    with store.read() as conn:
        row = registry.meter(conn, meter_id)
    if row is None:
        raise UsageError(f"no meter {meter_id!r} in the store", remedy="`headend status --meters` lists them")
    return row


def _value_from(file: Path | None) -> str:
    """A value as written, without the end of its line."""
    if file is None:
        if sys.stdin.isatty():
            typed: str = click.prompt("value", hide_input=True)
            return typed
        return sys.stdin.readline().rstrip("\r\n")
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError):
        raise ConfigError([Problem(str(file), "can't be read as text", "check the name and who may read it")]) from None
