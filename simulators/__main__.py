"""`python -m simulators TOWN.toml --truth DIR`: run a town until stopped."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from simulators.errors import SimulatorError
from simulators.town import run


def _print_ready(ready: dict[str, Any]) -> None:
    print("ready", json.dumps(ready), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 after SIGINT or SIGTERM, 2 when the file or a line is not usable."""
    parser = argparse.ArgumentParser(prog="python -m simulators", description="Run a simulated town until stopped.")
    parser.add_argument("file", type=Path, help="town file")
    parser.add_argument("--truth", type=Path, required=True, help="folder for the truth files and relative pty links")
    parser.add_argument("--once-ready-print", action="store_true", help="print the ready line (the default)")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(run(options.file, options.truth, _print_ready))
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
