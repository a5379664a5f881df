"""Which test module answers for which worked bills of `vectors/worked_bills.json`; each is in one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

STEPS: Final = ("R01", "R02", "R04", "R06", "R07", "R08", "R09", "R10", "R11", "R13", "R14")
METERED: Final = ("M01", "M02", "M04", "M06", "T01", "T03")
DEMAND: Final = ("D01", "D02", "D03", "D05", "D07")
FACTOR: Final = ("F01", "F02", "F03", "F04", "F06", "F07", "B02")
RATING: Final = (*STEPS, *METERED, *DEMAND, *FACTOR)
"""test_billing_worked: what is priced, and how."""

LOSSES: Final = ("M07",)
"""test_billing_losses: energy lost in transformer and line."""

BACK_BILLING: Final = ("X01", "X02", "X03", "X04", "X06")
"""test_back_billing: after a metering fault."""

LATE: Final = ("P01", "P02", "P03", "P05", "A01")
"""test_late: penalties of late payment, and which debt a payment settles."""

ALL: Final = (*RATING, *LOSSES, *BACK_BILLING, *LATE)


def cases() -> dict[str, dict[str, Any]]:
    """The worked bills by their id."""
    path = Path(__file__).parent / "vectors" / "worked_bills.json"
    return {case["id"]: case for case in json.loads(path.read_text(encoding="utf-8"))["cases"]}
