"""What the charges of a tariff file are made of: seasons and events, steps and their tables, what a ratchet sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from billing.calendar import MINUTES_PER_DAY
from billing.charges import Calendar, PeriodEvent, PeriodWindow, PriceSeries, Schedule, Season
from config.tariff_values import ALL_MONTHS, DecimalText, LocalInstant, Month, PeriodName, PriceText, WindowText

__all__ = [
    "Around",
    "EventKeys",
    "HouseholdKeys",
    "Keys",
    "PricedStepKeys",
    "PricedTableKeys",
    "RatchetKeys",
    "SeasonKeys",
    "StepKeys",
    "TableKeys",
    "schedule_of",
]


@dataclass(frozen=True, slots=True)
class Around:
    """What a charge is built from beside its own keys: the tariff's zone and calendar, and the price series by name."""

    tz: tzinfo = UTC
    calendar: Calendar = field(default_factory=Calendar)
    series: Mapping[str, PriceSeries] = field(default_factory=dict)


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SeasonKeys(Keys):
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
    days: Literal["all", "weekday", "weekend", "holiday"] = "all"
    periods: dict[PeriodName, list[WindowText]]

    def build(self) -> Season:
        windows = [
            piece
            for period, spans in self.periods.items()
            for start, end in spans
            for piece in _within_day(period, start, end)
        ]
        return Season(tuple(self.months), self.days, tuple(windows))


class EventKeys(Keys):
    period: PeriodName
    start: LocalInstant
    end: LocalInstant

    def build(self, around: Around) -> PeriodEvent:
        start, end = (moment.replace(tzinfo=around.tz).astimezone(UTC) for moment in (self.start, self.end))
        return PeriodEvent(self.period, start, end)


class HouseholdKeys(Keys):
    people: Annotated[int, Field(ge=2, le=99)]
    kwh: DecimalText


class RatchetKeys(Keys):
    months: Annotated[int, Field(ge=1, le=36)]
    percent: DecimalText
    of_months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)


class StepKeys(Keys):
    up_to: DecimalText | None = None
    price: PriceText


class TableKeys(Keys):
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
    steps: list[StepKeys] = Field(min_length=1)


class PricedStepKeys(Keys):
    up_to: DecimalText | None = None
    prices: dict[PeriodName, PriceText] = Field(min_length=1)


class PricedTableKeys(Keys):
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
    steps: list[PricedStepKeys] = Field(min_length=1)


def schedule_of(seasons: Sequence[SeasonKeys], events: Sequence[EventKeys], around: Around) -> Schedule:
    """The hours of a charge, by the tariff's calendar."""
    return Schedule(tuple(s.build() for s in seasons), around.calendar, tuple(e.build(around) for e in events))


def _within_day(period: str, start: int, end: int) -> Iterator[PeriodWindow]:
    """A window past midnight as its two pieces of one civil day."""
    if start < end:
        yield PeriodWindow(period, start, end)
        return
    yield PeriodWindow(period, start, MINUTES_PER_DAY)
    if end > 0:
        yield PeriodWindow(period, 0, end)
