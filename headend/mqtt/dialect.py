"""What a format of MQTT messages offers: where it listens, and how a message of it is understood. Pure.

A filter names the level that holds the concentrator as `{concentrator}`; where none does, the payload must say it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Final, Protocol, runtime_checkable

from headend.mqtt.batch import Batch

__all__ = ["CONCENTRATOR", "Dialect", "concentrator_of", "matches", "subscriptions"]

CONCENTRATOR: Final = "{concentrator}"


@runtime_checkable
class Dialect(Protocol):
    """One format. name: as site.toml writes it. filters: MQTT topic filters, `{concentrator}` standing for a level."""

    @property
    def name(self) -> str:
        """As site.toml writes it."""
        ...

    @property
    def filters(self) -> tuple[str, ...]:
        """Topic filters, without the bucket level."""
        ...

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """What the message says. topic: without the bucket level. `BadFrame` with a clear reason for what is malformed;
        what is well-formed but can't be taken in part goes to `Batch.rejected`."""
        ...


def subscriptions(filters: Iterable[str], concentrators: Iterable[str], bucket: str = "") -> Iterator[str]:
    """The filters as the broker takes them, for these concentrators (`*` is all)."""
    before = f"{bucket}/" if bucket else ""
    names = tuple(concentrators)
    for text in filters:
        if CONCENTRATOR not in text:
            yield before + text
            continue
        for name in names:
            yield before + text.replace(CONCENTRATOR, "+" if name == "*" else name)


@lru_cache(maxsize=4096)
def _levels(text: str) -> tuple[str, ...]:
    return tuple(text.split("/"))


def concentrator_of(pattern: str, topic: str) -> str | None:
    """The concentrator a topic names by `pattern`: "" if the pattern has no such level, None if it does not match."""
    levels, wanted = topic.split("/"), _levels(pattern)
    found = ""
    for position, want in enumerate(wanted):
        if want == "#":
            return found
        if position == len(levels):
            return None
        level = levels[position]
        if want == CONCENTRATOR:
            found = level
        elif want not in ("+", level):
            return None
    return found if len(levels) == len(wanted) else None


def matches(pattern: str, topic: str) -> bool:
    """Whether `topic` is one that the filter `pattern` takes."""
    return concentrator_of(pattern, topic) is not None
