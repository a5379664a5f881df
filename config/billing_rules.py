"""`[billing]` of site.toml: when months are closed, and what is odd about a bill. Keys and defaults: docs/site.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from billing.cycles import Cycle
from billing.review import Rules
from config.problems import Table, check_table, exact_decimal, nearest, place, refuse, repeated, shown, taken_twice
from config.tables import Name
from headend.errors import Problem

__all__ = ["BillingSettings", "billing_of"]

_KEYS = ("cycle", "review")

Exact = Annotated[Decimal, BeforeValidator(exact_decimal)]
Level = Literal["off", "warn", "hold"]


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """What the site says of billing. cycles: none where months are closed by hand; the first one is the default."""

    cycles: tuple[Cycle, ...] = ()
    rules: Rules = field(default_factory=Rules)


def _clock(text: str) -> str:
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo or moment.second or moment.microsecond or len(text) != 5:
        refuse(f"{shown(text)} is no time of day", 'write time = "03:00"')
    return text


class CycleTable(Table):
    """One `[[billing.cycle]]`."""

    name: Name = Field(examples=['"town"'])
    day: int = Field(default=2, ge=1, le=28, examples=["2"])
    time: Annotated[str, AfterValidator(_clock)] = Field(default="03:00", examples=['"03:00"'])
    retry_hours: int = Field(default=24, ge=0, le=744, examples=["24"])
    processes: int = Field(default=1, ge=1, le=256, examples=["4"])


class ReviewTable(Table):
    """`[billing.review]`."""

    enabled: bool = Field(default=True, examples=["true"])
    least_kwh: Exact = Field(default=Decimal(100), ge=0, examples=['"100"'])
    change_warn_percent: int = Field(default=30, ge=1, le=100_000, examples=["30"])
    change_hold_percent: int = Field(default=50, ge=1, le=100_000, examples=["50"])
    zero_use: Level = Field(default="warn", examples=['"warn"'])
    reverse_energy: Level = Field(default="warn", examples=['"warn"'])
    reverse_kwh: Exact = Field(default=Decimal(1), ge=0, examples=['"1"'])
    capacity_warn_percent: int = Field(default=120, ge=1, le=100_000, examples=["120"])
    capacity_hold_percent: int = Field(default=200, ge=1, le=100_000, examples=["200"])
    step_jump: int = Field(default=2, ge=0, le=20, examples=["2"])
    early_months: int = Field(default=3, ge=0, le=11, examples=["3"])
    estimated_warn_percent: int = Field(default=5, ge=0, le=100, examples=["5"])
    estimated_hold_percent: int = Field(default=50, ge=0, le=100, examples=["50"])
    estimated_bills: int = Field(default=2, ge=0, le=100, examples=["2"])
    estimated_cap_percent: int = Field(default=200, ge=1, le=100_000, examples=["200"])

    @model_validator(mode="after")
    def _holds_after_warning(self) -> ReviewTable:
        for name in ("change", "capacity", "estimated"):
            warn, hold = getattr(self, f"{name}_warn_percent"), getattr(self, f"{name}_hold_percent")
            if hold < warn:
                what = f"{name}_hold_percent {hold} lies below {name}_warn_percent {warn}"
                refuse(what, "a bill is held from more on than what warns")
        return self


def billing_of(raw: Mapping[str, Any], file: str) -> tuple[BillingSettings, list[Problem]]:
    """What the table `[billing]` of site.toml says, and its problems; the defaults where it is not there."""
    table = raw.get("billing", {})
    if not isinstance(table, dict):
        return BillingSettings(), [Problem(f"{file}: billing", f"{shown(table)} is no table", "write [billing.review]")]
    problems = [
        Problem(f"{file}: billing", f"unknown key {shown(key)}", nearest(key, _KEYS))
        for key in table
        if key not in _KEYS
    ]
    review, wrong = check_table(ReviewTable, table.get("review", {}), place(file, "billing.review"))
    problems += wrong
    tables, wrong = repeated({"billing.cycle": table.get("cycle", [])}, "billing.cycle", file)
    problems += wrong
    cycles = []
    for number, one in enumerate(tables, start=1):
        checked, wrong = check_table(CycleTable, one, place(file, f"billing.cycle[{number}]"))
        problems += wrong
        if checked is not None:
            at = time.fromisoformat(checked.time)
            cycles.append(Cycle(checked.name, checked.day, at, checked.retry_hours, checked.processes))
    problems += taken_twice(tables, "billing.cycle", file)
    rules = Rules(**review.model_dump()) if review is not None else Rules()
    return BillingSettings(tuple(cycles), rules), problems
