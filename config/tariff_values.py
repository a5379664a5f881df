"""The values of a tariff file: numbers written as text, hours, days of the year, instants. Each wrong one says how to
write it."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from billing.calendar import MINUTES_PER_DAY

__all__ = [
    "ALL_MONTHS",
    "OF_ACCOUNT",
    "ContractText",
    "DayOfYear",
    "DecimalText",
    "Holidays",
    "LocalInstant",
    "Month",
    "PeriodName",
    "PriceText",
    "WindowText",
]

ALL_MONTHS: Final = tuple(range(1, 13))
OF_ACCOUNT: Final = "account"
"""In place of a contract or a capacity: each account has its own."""

_DECIMAL: Final = re.compile(r"-?\d{1,12}(\.\d{1,8})?")
_WINDOW: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def _decimal(value: object) -> Decimal:
    """A number written as text; a TOML number is refused, because a TOML float is not a decimal."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise PydanticCustomError("number", "not a number", {"remedy": 'write it as text, like "0.538"'})
    if not isinstance(value, str):
        raise PydanticCustomError(
            "number", "{value} is not text", {"value": value, "remedy": f'write the number as text: "{value}"'}
        )
    if not _DECIMAL.fullmatch(value):
        raise PydanticCustomError(
            "number",
            "{value} is not a decimal number with up to 8 places",
            {"value": repr(value), "remedy": 'write it like "0.538"'},
        )
    return Decimal(value)


def _price(value: object) -> Decimal:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "price", "the price {value} is not text", {"value": value, "remedy": f'write the price as text: "{value}"'}
        )
    return _decimal(value)


def _contract(value: object) -> Decimal | str:
    """A number as text, or `account`."""
    if value == OF_ACCOUNT:
        return OF_ACCOUNT
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        remedy = f'write it like "500", or "{OF_ACCOUNT}" where each account has its own'
        raise PydanticCustomError("contract", "{value} is no amount", {"value": repr(value), "remedy": remedy})
    return _decimal(value)


def _window(value: object) -> tuple[int, int]:
    """`"08:00-22:00"` as minutes of the day; `"22:00-06:00"` runs past midnight."""
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    start, end = (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match else (0, 0)
    if match is None or start >= MINUTES_PER_DAY or end > MINUTES_PER_DAY or start == end:
        raise PydanticCustomError(
            "window", "{value} is not a span of hours", {"value": repr(value), "remedy": 'write it like "08:00-22:00"'}
        )
    return start, end


def _year_start(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2})-(\d{2})", value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 12 or not 1 <= int(match[2]) <= 31:
        raise PydanticCustomError(
            "year_start", "{value} is not a day of the year", {"value": repr(value), "remedy": 'write it like "01-01"'}
        )
    return int(match[1]), int(match[2])


def _local_instant(value: object) -> datetime:
    """A naive datetime: wall-clock time of the tariff's zone."""
    text = value.isoformat(timespec="minutes") if isinstance(value, datetime) else value
    wrong = PydanticCustomError(
        "instant",
        "{value} is no local time of whole minutes",
        {"value": repr(str(value)), "remedy": 'write wall-clock time of the zone, like "2026-07-15T14:00"'},
    )
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        raise wrong
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None


def _days(value: object) -> list[date]:
    """A list of TOML dates, each as a text too."""
    if not isinstance(value, list):
        raise PydanticCustomError("days", "not a list of days", {"remedy": "write it like [2026-10-01, 2026-10-02]"})
    found = []
    for one in value:
        try:
            day = date.fromisoformat(one) if isinstance(one, str) else one
        except ValueError:
            day = one
        if not isinstance(day, date) or isinstance(day, datetime):
            raise PydanticCustomError(
                "days", "{value} is no day", {"value": repr(str(one)), "remedy": "write it like 2026-10-01"}
            )
        found.append(day)
    return found


PriceText = Annotated[Decimal, BeforeValidator(_price)]
DecimalText = Annotated[Decimal, BeforeValidator(_decimal)]
ContractText = Annotated[Decimal | str, BeforeValidator(_contract)]
WindowText = Annotated[tuple[int, int], BeforeValidator(_window)]
DayOfYear = Annotated[tuple[int, int], BeforeValidator(_year_start)]
LocalInstant = Annotated[datetime, BeforeValidator(_local_instant)]
Holidays = Annotated[list[date], BeforeValidator(_days)]
Month = Annotated[int, Field(ge=1, le=12)]
PeriodName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
