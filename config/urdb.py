"""A rate of the OpenEI Utility Rate Database (URDB, JSON as its API gives it) as a tariff file of ours.

Fields are those of version 7 and 8 of the API. What our charges can't express is a `Problem` for each field; nothing of
a rate is dropped silently: what doesn't stand in a charge stands in the notes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from billing.charges import Tariff
from config.problems import nearest, read_bytes, shown
from config.tariff_files import load_tariff
from config.urdb_demand import demand_charges, says_nothing
from config.urdb_energy import TOO_LONG, Found, energy_tables, rounded
from config.urdb_toml import Steps, charge_fixed, charge_minimum, charge_steps, charge_surcharge, text_of
from headend.civil import zone
from headend.errors import ConfigError, Problem

__all__ = ["Imported", "from_urdb", "read_urdb", "write_tariff"]

_REMEDY: Final = "enter it by hand afterwards: --partial leaves it out and says so in the tariff's note"

_ENERGY: Final = ("energyratestructure", "energyweekdayschedule", "energyweekendschedule")
_USED: Final = (
    *_ENERGY, "name", "utility", "uri", "label", "source", "startdate", "enddate", "country", "fixedmonthlycharge",
    "fixedchargefirstmeter", "fixedchargeunits", "mincharge", "minchargeunits", "minmonthlycharge",
    "flatdemandstructure", "demandratestructure", "fueladjustmentsmonthly", "demandratchetpercentage",
    "lookbackPercent", "lookbackpercent",
)  # fmt: skip

# Told as they are: what a person must read, for no number follows from it.
_READ: Final = (
    "description", "basicinformationcomments", "energycomments", "demandcomments", "energyattrs", "fixedattrs",
    "demandattrs", "dgrules", "usenetmetering", "peakkwcapacitymin", "peakkwcapacitymax", "peakkwcapacityhistory",
    "peakkwhusagemin", "peakkwhusagemax", "peakkwhusagehistory", "voltageminimum", "voltagemaximum", "voltagecategory",
    "phasewiring", "sector", "servicetype",
)  # fmt: skip

# Where the rate comes from and what it replaces: names and marks of the database.
_MARKS: Final = (
    "approved", "is_default", "eiaid", "supercedes", "supersedes", "sourceparent", "revisions", "latest_update",
)  # fmt: skip

_NOT_YET: Final[Mapping[str, str]] = {
    "coincidentratestructure": "a price for the demand at the utility's peak",
    "demandreactivepowercharge": "a price for reactive power",
    "fixedchargeeaaddl": "a fixed charge for each further meter",
    "annualmincharge": "a minimum for the year",
}

# Without the structure above they belong to, these say nothing.
_BELONGS: Final[Mapping[str, str]] = {
    "demandweekdayschedule": "demandratestructure",
    "demandweekendschedule": "demandratestructure",
    "demandrateunit": "demandratestructure",
    "flatdemandmonths": "flatdemandstructure",
    "flatdemandunit": "flatdemandstructure",
    "coincidentrateschedule": "coincidentratestructure",
    "coincidentrateunit": "coincidentratestructure",
    "lookbackmonths": "lookbackpercent",
    "lookbackrange": "lookbackpercent",
    "lookbackMonths": "lookbackPercent",
    "lookbackRange": "lookbackPercent",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A tariff file's text, and what a person must know about the rate beside it."""

    text: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Rate:
    """A rate as it is turned into charges: `refused` is what can't be expressed, `wrong` what makes no sense."""

    item: Mapping[str, Any]
    file: str
    refused: list[Problem] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, found: Found) -> None:
        """What was found in one of its tables."""
        self.wrong += [Problem(f"{self.file}: {key}", what, remedy) for key, what, remedy in found.wrong]
        self.refused += [Problem(f"{self.file}: {key}", what, _REMEDY) for key, what in found.refused]
        self.notes += found.notes

    def refuse(self, key: str, what: str) -> None:
        self.refused.append(Problem(f"{self.file}: {key}", what, _REMEDY))


def read_urdb(
    path: Path, tariff_id: str, zone_name: str, *, today: date, label: str | None = None, partial: bool = False
) -> Imported:
    """The rate in a JSON file: one rate, a list of them, or an answer of the API (`items`), of which `label` is meant.

    `ConfigError` with everything that is wrong with it, and with what can't be expressed unless `partial`.
    """
    data = read_bytes(path, missing="check the file's name")
    try:
        content = json.loads(data, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        remedy = "save the answer of the API as it is: UTF-8 JSON"
        raise ConfigError([Problem(path.name, f"is not JSON: {error}", remedy)]) from None
    return from_urdb(_chosen(content, path.name, label), tariff_id, zone_name, path.name, today=today, partial=partial)


def _no_number(text: str) -> Decimal:
    raise ValueError(f"{text} is no number of JSON")


def _chosen(content: object, file: str, label: str | None) -> Mapping[str, Any]:
    items = content.get("items", content) if isinstance(content, dict) else content
    items = items if isinstance(items, list) else [items]
    rates = [item for item in items if isinstance(item, dict) and any(key in item for key in _USED)]
    if label is not None:
        labels = {str(rate["label"]) for rate in rates if "label" in rate}
        rates = [rate for rate in rates if str(rate.get("label")) == label]
        if not rates:
            raise ConfigError([Problem(file, f"holds no rate labelled {shown(label)}", nearest(label, labels))])
    if not rates:
        raise ConfigError([Problem(file, "holds no rate of URDB", "ask the API with detail=full and format=json")])
    if len(rates) > 1:
        labels = {str(rate.get("label")) for rate in rates}
        raise ConfigError([Problem(file, f"holds {len(rates)} rates", f"choose one with --label: {', '.join(labels)}")])
    return rates[0]


def from_urdb(
    item: Mapping[str, Any], tariff_id: str, zone_name: str, file: str = "URDB", *, today: date, partial: bool = False
) -> Imported:
    """A rate as the text of a tariff file. Decimal numbers must have been read as `Decimal`."""
    zone(zone_name)
    rate = _Rate(item, file)
    charges = _energy(rate)
    charges += _fixed(rate)
    charges += _demand(rate)
    charges += _fuel(rate, charges)
    charges += _minimum(rate)
    _others(rate)
    head = _head(rate, tariff_id, zone_name, today)
    if not charges and not rate.wrong and (partial or not rate.refused):
        rate.wrong.append(Problem(file, "nothing of this rate can be expressed", "write the tariff by hand"))
    if rate.wrong or (rate.refused and not partial):
        raise ConfigError([*rate.wrong, *rate.refused])
    left_out = [f"{problem.where.removeprefix(f'{file}: ')}: {problem.what}" for problem in rate.refused]
    head["note"] = " ".join(
        ["Imported from URDB; not checked against the utility's own sheet.", *(f"LEFT OUT: {one}." for one in left_out)]
    )
    notes = [*(f"left out: {one}" for one in left_out), *rate.notes]
    return Imported(text_of(head, charges, notes), tuple(notes))


def _energy(rate: _Rate) -> list[str]:
    found = Found()
    structure, weekday, weekend = (rate.item.get(key) for key in _ENERGY)
    if structure is not None or weekday is not None or weekend is not None:
        charges = energy_tables(structure, weekday, weekend, found)
    else:
        charges = []
        rate.notes.append("the rate has no price for energy")
    rate.take(found)
    return charges


def _demand(rate: _Rate) -> list[str]:
    found = Found()
    charges = demand_charges(rate.item, found)
    rate.take(found)
    return charges


def _fuel(rate: _Rate, charges: Sequence[str]) -> list[str]:
    """A fuel adjustment: the same in all months as a surcharge, one that changes as an addition to the energy of each
    month; that is refused beside steps that have prices or additions of their own by period."""
    key = "fueladjustmentsmonthly"
    months = rate.item.get(key)
    if says_nothing(months):
        return []
    if not isinstance(months, list) or len(months) != 12 or not all(type(n) in (int, Decimal) for n in months):
        rate.wrong.append(Problem(f"{rate.file}: {key}", "is no list of 12 numbers", "ask the API with detail=full"))
        return []
    if far := [n for n in months if Decimal(n).adjusted() >= TOO_LONG]:
        rate.wrong.append(Problem(f"{rate.file}: {key}", f"{shown(far[0])} is out of range", "correct it"))
        return []
    prices = [rounded(Decimal(n), key, rate.notes) for n in months]
    if len(set(prices)) == 1:
        return [charge_surcharge("fuel_adjustment", prices[0])]
    if any('kind = "step_adder"' in text or 'kind = "step_tou"' in text for text in charges):
        rate.refuse(key, "a fuel adjustment that changes by the month, beside tiers by period, can't be expressed")
        return []
    tables: dict[Steps, list[int]] = {}
    for month, price in enumerate(prices, start=1):
        tables.setdefault(((None, price),), []).append(month)
    return [charge_steps("step_adder", tables, "fuel adjustment")]


def _amount(rate: _Rate, key: str) -> Decimal | None:
    """A number of the rate other than 0; None where there is none."""
    value = rate.item.get(key)
    if says_nothing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        rate.wrong.append(Problem(f"{rate.file}: {key}", f"{shown(value)} is no number", "write a JSON number"))
        return None
    if Decimal(value).adjusted() >= TOO_LONG:
        rate.wrong.append(Problem(f"{rate.file}: {key}", f"{shown(value)} is out of range", "correct it"))
        return None
    return rounded(Decimal(value), key, rate.notes)


def _monthly(rate: _Rate, key: str, units_key: str) -> Decimal | None:
    """An amount for each month; one in another unit is refused."""
    amount, units = _amount(rate, key), rate.item.get(units_key)
    if amount is None:
        return None
    if says_nothing(units):
        rate.notes.append(f"{key} has no unit: it is taken for an amount a month")
    elif units != "$/month":
        rate.refuse(key, f"{amount:f} {shown(units)}: only amounts a month can be expressed")
        return None
    return amount


def _fixed(rate: _Rate) -> list[str]:
    old, first = _amount(rate, "fixedmonthlycharge"), _monthly(rate, "fixedchargefirstmeter", "fixedchargeunits")
    if old is not None and first is not None and old != first:
        what = f"{old:f} a month, while fixedchargefirstmeter is {first:f}"
        rate.wrong.append(Problem(f"{rate.file}: fixedmonthlycharge", what, "keep the one that is right"))
    amount = first if first is not None else old
    return [] if amount is None else [charge_fixed("customer_charge", amount)]


def _minimum(rate: _Rate) -> list[str]:
    old, new = _amount(rate, "minmonthlycharge"), _monthly(rate, "mincharge", "minchargeunits")
    amounts = {amount for amount in (old, new) if amount is not None}
    if len(amounts) > 1:
        what = "minmonthlycharge and mincharge differ"
        rate.wrong.append(Problem(f"{rate.file}: mincharge", what, "keep the one that is right"))
    return [charge_minimum(amount) for amount in amounts][:1]


def _others(rate: _Rate) -> None:
    """Every field that no charge was made from: refused, told, or told to be a mark of the database."""
    marks = []
    for key, value in rate.item.items():
        if key in _USED or says_nothing(value):
            continue
        if key in _NOT_YET:
            rate.refuse(key, f"{_NOT_YET[key]} can't be expressed")
        elif key in ("demandwindow", "demandunits"):
            _of_demand(rate, key, value)
        elif key in _BELONGS:
            if says_nothing(rate.item.get(_BELONGS[key])):
                rate.notes.append(f"{key} is left out: the rate has no {_BELONGS[key]}")
        elif key in _READ:
            rate.notes.append(f"{key}: {_plain(value)}")
        elif key in _MARKS:
            marks.append(key)
        else:
            rate.refuse(key, f"an unknown field, {shown(value)}")
    if marks:
        rate.notes.append(f"marks of the database, left out: {', '.join(marks)}")


def _of_demand(rate: _Rate, key: str, value: object) -> None:
    """A field of both forms of demand; without either it says nothing."""
    if says_nothing(rate.item.get("flatdemandstructure")) and says_nothing(rate.item.get("demandratestructure")):
        rate.notes.append(f"{key} is left out: the rate has no flatdemandstructure")
    elif key == "demandunits" and value != "kW":
        rate.refuse(key, f"{shown(value)}: only a price for kW can be expressed")


def _head(rate: _Rate, tariff_id: str, zone_name: str, today: date) -> dict[str, str | bool | date]:
    item = rate.item
    start, end = _day(rate, "startdate"), _day(rate, "enddate")
    if start is None:
        rate.notes.append("the rate has no startdate: valid_from is only early enough")
    if end is not None:
        rate.notes.append(f"enddate {end} is taken for the first day on which the rate no longer holds")
    country = item.get("country")
    if not says_nothing(country) and country not in ("USA", "US"):
        rate.refuse("country", f"{shown(country)}: prices of URDB are US dollars only in the USA")
    label = _plain(item.get("label", ""))
    source = ", ".join(_plain(item[key]) for key in ("uri", "source") if not says_nothing(item.get(key)))
    head: dict[str, str | bool | date] = {
        "id": tariff_id,
        "version": label or "1",
        "title": ", ".join(_plain(item[key]) for key in ("utility", "name") if not says_nothing(item.get(key)))
        or tariff_id,
        "source": f"OpenEI Utility Rate Database: {source or label or 'no address given'}",
        "source_date": today,
        "verified": False,
        "note": "",
        "valid_from": start or date(2000, 1, 1),
    }
    if end is not None:
        head["valid_to"] = end
    return head | {"zone": zone_name, "currency": "USD"}


def _day(rate: _Rate, key: str) -> date | None:
    """Seconds since 1970, or a text like 2017-01-01T08:00:00Z, as the day whose UTC midnight is nearest: the database
    has midnights of several zones."""
    value = rate.item.get(key)
    try:
        if isinstance(value, str) and value:
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        else:
            seconds = _amount(rate, key)
            if seconds is None:
                return None
            moment = datetime.fromtimestamp(int(seconds), UTC)
        return (moment + timedelta(hours=12, seconds=-1)).date()
    except (ValueError, OverflowError, OSError):
        rate.wrong.append(Problem(f"{rate.file}: {key}", f"{shown(value)} is no time", "write seconds since 1970"))
        return None


def _plain(value: object) -> str:
    """A value on one line; lists and tables as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else " " for c in text).strip()


def write_tariff(path: Path, imported: Imported) -> Tariff:
    """Write an imported tariff where it is wanted, after it was loaded and checked as any other file is."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(imported.text, encoding="utf-8")
        tariff = load_tariff(draft)
    try:
        path.write_text(imported.text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(path), f"can't be written: {error.strerror}", "name another file")]) from error
    return tariff
