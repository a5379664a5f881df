"""Load curves for tests of tariffs, and the verbs run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from unittest.mock import patch

from billing.try_curve import Curve
from headend.civil import zone
from headend.cli import main


def curve(zone_name: str, first: str, last: str, energy: Callable[[datetime], Decimal], step_s: int = 3600) -> Curve:
    """Intervals from one local midnight to another; `energy` of the local start of each."""
    tz = zone(zone_name)
    at = datetime.fromisoformat(first).replace(tzinfo=tz).astimezone(UTC)
    end = datetime.fromisoformat(last).replace(tzinfo=tz).astimezone(UTC)
    values, moment = [], at
    while moment < end:
        values.append(energy(moment.astimezone(tz)))
        moment += timedelta(seconds=step_s)
    return Curve(at, step_s, tuple(values))


def headend(folder: Path, *words: str, fails: bool = False) -> str:
    """What `headend tariff ...` prints in `folder`; of one that fails what it says on stderr."""
    printed, told, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(told),
        patch.object(sys, "argv", ["headend", "tariff", *words]),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    assert status == (1 if fails else 0), told.getvalue()
    return told.getvalue() if fails else printed.getvalue()
