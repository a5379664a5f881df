"""What a driver may know of a meter's secrets and counters. Drivers see this; where it is kept is the vault's business.

A secret never goes into a log, an error, a record of frames or an API: `Access` does not show its secrets, and a
`Send` that holds one says what to record in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

__all__ = ["NO_ACCESS", "Access", "Counter", "MemoryCounter", "memory_access"]


class Counter(Protocol):
    """An invocation counter: a number that only ever rises, whatever dies."""

    @property
    def value(self) -> int:
        """The number `take` gives next; of a counter of received numbers, one above the highest seen."""
        ...

    def take(self) -> int:
        """A number that was never given before and never will be again."""
        ...

    def raise_to(self, value: int) -> None:
        """Let `value` at least be the next number; a lower one changes nothing."""
        ...


class MemoryCounter:
    """A counter that lives as long as the process: for tests, and where nothing is ciphered."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def take(self) -> int:
        taken = self.value
        self.value += 1
        return taken

    def raise_to(self, value: int) -> None:
        self.value = max(self.value, value)


@dataclass(frozen=True, slots=True)
class Access:
    """One meter's secrets and counters.

    secrets: by name (`password`, `encryption_key`, `authentication_key`, `dedicated_key`, `broadcast_key`).
    counter(name): an invocation counter of this meter, made on first use. memo: what drivers remember of meters of this
    model while the process lives (scalers, captured objects); keyed by what the driver chooses. now: the time, where it
    matters when within a conversation something came; None: only that of its start is known.
    """

    secrets: Mapping[str, bytes] = field(repr=False)
    counter: Callable[[str], Counter] = field(repr=False)
    memo: MutableMapping[tuple[str, ...], object] = field(repr=False)
    now: Callable[[], datetime] | None = field(default=None, repr=False)


def memory_access(secrets: Mapping[str, bytes] = MappingProxyType({})) -> Access:
    """An access whose counters live in memory."""
    counters: dict[str, Counter] = {}

    def counter(name: str) -> Counter:
        return counters.setdefault(name, MemoryCounter())

    return Access(dict(secrets), counter, {})


NO_ACCESS = memory_access()
