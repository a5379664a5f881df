"""headend simulate: a fleet of meters described in TOML, with its truth beside it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from headend.errors import ConfigError, Problem
from simulators import town
from simulators.errors import SimulatorError

__all__ = ["simulate"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder for the truth: asset lists to import, true registers, true bills. [default: FILE's name + .truth]",
)
def simulate(file: Path, truth: Path | None) -> None:
    """Run the simulated meters described in FILE until Ctrl-C.

    Households with a seeded load answer over TCP serial servers, pseudo-terminals and dial-in modems. Once all lines
    are up, one line of JSON names their endpoints. The truth folder then holds meters.csv, usage_points.csv and
    accounts.csv for `headend import`, the true registers, and the true bills of last month. See docs/simulate.md.
    """

    def announce(endpoints: dict[str, Any]) -> None:
        click.echo("ready " + json.dumps(endpoints))

    try:
        asyncio.run(town.run(file, truth or file.with_suffix(".truth"), announce))
    except SimulatorError as error:
        raise ConfigError(Problem("", problem) for problem in error.problems) from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
