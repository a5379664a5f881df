"""Whose rows are these? A meter is found by its concentrator and by what that calls it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headend.civil import zone
from headend.model import Meter
from headend.protocols.hes_mqtt.ask import behind
from headend.quantities import to_units

__all__ = ["PROTOCOL", "Place", "Places"]

PROTOCOL: Final = "hes-mqtt"
"""The protocol of meters that a concentrator reads and publishes."""


@dataclass(frozen=True, slots=True)
class Place:
    """A meter, and what of it is needed for every value. offset_s: of its clock's zone, which is one all year.

    wrap_units: where its registers return to 0. power_units: what its wiring can carry in an hour.
    """

    meter: Meter
    key: int
    offset_s: int
    wrap_units: int
    power_units: int


class Places:
    """The meters behind concentrators. line_concentrators: which one a line is, where the meters do not say."""

    def __init__(self, meters: Iterable[Meter], line_concentrators: Mapping[str, str] | None = None) -> None:
        named = line_concentrators or {}
        self._by_concentrator: dict[str, dict[str, Place]] = defaultdict(dict)
        self._elsewhere: dict[str, list[str]] = defaultdict(list)
        for meter in meters:
            if meter.protocol != PROTOCOL:
                continue
            concentrator = named.get(meter.line) or behind(meter).concentrator
            self._by_concentrator[concentrator][meter.address] = _place(meter)
            self._elsewhere[meter.address].append(concentrator)

    def __len__(self) -> int:
        return sum(map(len, self._by_concentrator.values()))

    def of(self, concentrator: str) -> Mapping[str, Place]:
        """The meters of a concentrator by address; empty for one nobody knows."""
        return self._by_concentrator.get(concentrator, {})

    def known(self, concentrator: str) -> bool:
        """Whether any meter is behind `concentrator`."""
        return concentrator in self._by_concentrator

    def why_not(self, concentrator: str, address: str) -> str:
        """Why a meter that `of` does not hold can't be placed."""
        others = [name for name in self._elsewhere.get(address, ()) if name != concentrator]
        if others:
            return f"meter {address[:64]} is registered behind concentrator {', '.join(sorted(others)[:3])}"
        return f"unknown meter {address[:64]}"


def _place(meter: Meter) -> Place:
    # Clock zones have one offset all year, so any day tells it.
    offset = datetime(2026, 1, 1, tzinfo=UTC).astimezone(zone(meter.clock_zone)).utcoffset()
    seconds = 0 if offset is None else offset.days * 86_400 + offset.seconds
    return Place(meter, meter.key, seconds, to_units(meter.model.register_wrap), int(meter.model.max_power_kw * 10_000))
