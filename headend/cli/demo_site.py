"""The head-end's side of the demo town: its site.toml, and the tariffs that are the town's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from config.site import Site, load_site

__all__ = ["by_intervals", "write_site", "write_tariffs"]

_SITE = """# Written by `headend demo`: the head-end's side of the simulated town.
[site]
name = "Demo town"
zone = "Asia/Shanghai"
store = "sqlite:///headend.db"

[vault]
master_key_file = "master.key"

{broker}{lines}
[[schedule]]
name = "curve"
read = "curve"
quantities = ["import_kwh"]
horizon_days = 62

[[schedule]]
name = "freeze"
read = "daily_freeze"
quantities = ["import_kwh", "import_kwh_t1", "import_kwh_t2", "import_kwh_t3", "import_kwh_t4"]
horizon_days = 62

# Plants are billed for reactive energy too; the others' meters are not asked for it.
[[schedule]]
name = "reactive"
read = "daily_freeze"
quantities = ["import_kvarh"]
models = ["dlt645-2007-3ph"]
horizon_days = 62

# What these meters keep when the month ends: the highest demand of it.
[[schedule]]
name = "settlement"
read = "settlement"
quantities = ["import_max_kw"]
models = ["dlt645-2007-3ph"]
every_min = 1440
horizon_days = 62

[[schedule]]
name = "now"
read = "registers"
quantities = ["import_kwh", "voltage_v_a", "power_kw"]
every_min = 5

[evidence]
keep_good_every = 1
"""

_CHANGED = "demo-residential-steps"
"""The tariff whose prices change amid the billed month; its files name a day of their own."""

_BY_REGISTER = 'measured_by = "register"\n'


def write_site(folder: Path, lines: Sequence[Mapping[str, Any]], dial_port: int, broker_port: int) -> Site:
    """Write site.toml for the town's `lines` into `folder`, and read it."""
    path = folder / "site.toml"
    broker = f'[[mqtt]]\nname = "broker"\nhost = "127.0.0.1"\nport = {broker_port}\n\n'
    path.write_text(_SITE.format(broker=broker, lines="".join(_line_toml(line, dial_port) for line in lines)), "utf-8")
    return load_site(path)


def by_intervals(town: str) -> str:
    """The town file, with the demand that a meter keeps at its settlement billed by intervals."""
    return town.replace('demand = "register"', 'demand = "maximum"')


def write_tariffs(folder: Path, changes_on: date, *, settled: bool = True) -> None:
    """Copy the town's own tariffs into `folder`.

    changes_on: the day from which the new prices hold. settled: a demand that the meter keeps at its settlement is
    billed by that; False: by the intervals.
    """
    folder.mkdir(exist_ok=True)
    for file in files("simulators").joinpath("towns", "tariffs").iterdir():
        text = file.read_text("utf-8")
        if file.name.startswith(f"{_CHANGED}@"):
            changed = "valid_to" if "valid_to" in text else "valid_from"
            text = re.sub(rf"^{changed} = .*$", f"{changed} = {changes_on}", text, flags=re.MULTILINE)
        if not settled:
            text = text.replace(_BY_REGISTER, 'measured_by = "intervals"\nblock_min = 15\n')
        (folder / file.name).write_text(text, "utf-8")


def _line_toml(line: Mapping[str, Any], dial_port: int) -> str:
    text = f'[[line]]\nname = "{line["line"]}"\n'
    if line["kind"] == "dial":
        text += f'endpoint = "listen://127.0.0.1:{dial_port}"\nregistration = "{line["registration"]}"\n'
    elif line["kind"] == "mqtt":
        text += f'endpoint = "mqtt://broker/{line["line"]}"\n'
    else:
        text += f'endpoint = "{line["endpoint"]}"\n'
    if line["kind"] == "pty":
        text += 'serial = "9600 8N1"  # a pseudo-terminal takes no parity\n'
    return text + "\n"
