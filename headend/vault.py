"""Secrets opened, counters that never repeat: what drivers get as `Access`, kept in the store.

Secrets lie in the store sealed under one master key (`headend.masterkey`) and are opened in memory. Numbers of a
counter are reserved a block at a time, and a block is committed before its first number is given: whatever dies, no
number is given twice. It costs the rest of a block at each start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from types import MappingProxyType
from typing import Final

from headend.access import Access, Counter
from headend.errors import NoAccess, Problem
from headend.masterkey import MasterKey, sealed_under
from headend.model import Meter
from headend.store import Store, secrets
from headend.store.secrets import SecretRow

__all__ = ["BLOCK", "HIGHEST", "Vault"]

BLOCK: Final = 1000
"""Numbers of a counter reserved at a time."""
HIGHEST: Final = 2**32 - 1
"""The highest number of an invocation counter (four bytes in every protocol that has one)."""

_RECEIVED = "rx"
_LOW = 100  # a counter with fewer numbers left gets its next block before the job, not within it


# -- counters ----------------------------------------------------------------------------------------------------------


class _Given:
    """A counter of numbers we give: never one twice. Its block is [next, end), `spare` the block after it."""

    __slots__ = ("_end", "_lock", "_next", "_reserve", "_spare")

    def __init__(self, reserve: _Reserve) -> None:
        self._reserve = reserve
        self._lock = threading.Lock()
        self._next = self._end = 0
        self._spare: tuple[int, int] | None = None

    @property
    def value(self) -> int:
        with self._lock:
            self._fill()
            return self._next

    def take(self) -> int:
        with self._lock:
            self._fill()
            taken = self._next
            self._next += 1
            return taken

    def raise_to(self, value: int) -> None:
        _refuse_used_up(value)
        with self._lock:
            if value <= self._next:
                return
            self._next = value
            if self._spare is not None and self._spare[1] > value:
                return  # the block at hand or the spare one holds it
            if value >= self._end:
                self._spare = None
                self._set(self._reserve(value))

    @property
    def low(self) -> bool:
        """Whether the next block should be fetched before it is needed."""
        return self._spare is None and self._end - self._next < _LOW

    def add(self, first: int, end: int) -> None:
        """Give it a block that is reserved and committed."""
        with self._lock:
            if self._next >= self._end and self._spare is None:
                self._set((first, end))
            elif self._spare is None and first >= self._end:
                self._spare = (first, end)

    def _fill(self) -> None:
        """Have a number to give; what the block holds below `_next` was skipped."""
        if self._next >= self._end and self._spare is not None:
            spare, self._spare = self._spare, None
            self._set(spare)
        if self._next >= self._end:
            self._set(self._reserve(self._next))
        _refuse_used_up(self._next)

    def _set(self, block: tuple[int, int]) -> None:
        self._next, self._end = max(self._next, block[0]), block[1]


class _Received:
    """A counter of numbers a meter gives: one above the highest seen. Written down now and then, never lowered."""

    __slots__ = ("dirty", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self.dirty = False

    def take(self) -> int:
        raise TypeError("a counter of received numbers gives none")

    def raise_to(self, value: int) -> None:
        if value > self.value:
            self.value, self.dirty = value, True


def _refuse_used_up(value: int) -> None:
    if value > HIGHEST:
        raise NoAccess(
            f"the invocation counter would pass {HIGHEST}: its key is used up", remedy="give the meter a new key"
        )


class _Reserve:
    """Reserves a block of one counter in the store: [first, end), committed when it returns."""

    __slots__ = ("_block", "_key", "_name", "_store")

    def __init__(self, store: Store, meter_key: int, name: str, block: int) -> None:
        self._store, self._key, self._name, self._block = store, meter_key, name, block

    def __call__(self, at_least: int) -> tuple[int, int]:
        with self._store.write() as conn:
            # 1 and not 0: some meters take only numbers above the last one, which is 0 in the beginning
            first = secrets.reserve(conn, self._key, self._name, self._block, at_least=max(at_least, 1))
        return first, first + self._block


# -- the vault ---------------------------------------------------------------------------------------------------------


class _Secrets(Mapping[str, bytes]):
    """A meter's secrets: those that open, and for the others why not, told when one is wanted. Shows no value."""

    __slots__ = ("_open", "_shut")

    def __init__(self, opened: dict[str, bytes], shut: dict[str, NoAccess]) -> None:
        self._open, self._shut = opened, shut

    def __getitem__(self, name: str) -> bytes:
        if name in self._shut:
            error = self._shut[name]
            raise NoAccess(error.problem.what, where=error.problem.where, remedy=error.problem.remedy)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._open
        yield from self._shut

    def __len__(self) -> int:
        return len(self._open) + len(self._shut)

    def __repr__(self) -> str:
        return f"<{len(self)} secret(s)>"


_NO_SECRETS: Final = _Secrets({}, {})
_NO_ROWS: Final[Mapping[int, list[SecretRow]]] = MappingProxyType({})


class Vault:
    """What drivers may know of meters: secrets opened once and kept in memory, counters, memos.

    Without a master key everything works that needs no secret; what needs one ends in `NoAccess` that names the master
    key. named: what to call the place the master key should come from. block: numbers reserved at a time.
    """

    def __init__(self, store: Store, master: MasterKey | None, *, named: str = "", block: int = BLOCK) -> None:
        self._store = store
        self._master = master
        self._named = named or "HEADEND_MASTER_KEY"
        self._block = block
        self._lock = threading.Lock()
        self._changes: int | None = None  # of the secrets in memory; None: they were never all loaded
        self._rows: Mapping[int, list[SecretRow]] = _NO_ROWS
        self._counted: dict[tuple[int, str], int] | None = None
        self._accesses: dict[int, Access] = {}
        self._given: dict[int, dict[str, _Given]] = {}
        self._received: dict[tuple[int, str], _Received] = {}
        self._memos: dict[str, MutableMapping[tuple[str, ...], object]] = {}

    def __repr__(self) -> str:
        return f"<vault of {self._store.url_shown}, {self._master or 'no master key'}>"

    def access(self, meter: Meter) -> Access:
        """The secrets and counters of `meter`. Never raises for secrets that don't open: using one does."""
        access = self._accesses.get(meter.key)
        return access if access is not None else self._made(meter)

    async def ready(self, meter: Meter) -> Access:
        """As `access`; what must be fetched from the store is fetched in a thread, so that no other line waits."""
        if self._wants(meter.key):
            await asyncio.to_thread(self._fetch, meter)
        return self.access(meter)

    def load(self, meters: Iterable[Meter]) -> None:
        """Get everything of `meters` in few statements: for a program that will read them all."""
        self.refresh()
        keys = {meter.key for meter in meters}
        with self._store.read() as conn:
            counted = secrets.counters(conn)
        known = [place for place in counted if place[0] in keys and not place[1].startswith(_RECEIVED)]
        if known:
            with self._store.write() as conn:
                first = secrets.reserve_all(conn, known, self._block)
            for (key, name), number in first.items():
                self._giver(key, name).add(number, number + self._block)
        self._counted = counted

    def refresh(self) -> None:
        """Write down the numbers received, and let go of secrets when any were changed in the store since."""
        self.flush()
        with self._store.read() as conn:
            changes = secrets.changes(conn)
            if changes == self._changes:
                return
            rows = secrets.secrets(conn)
        self._take_in(rows)
        self._changes = changes

    def flush(self) -> None:
        """Write down the numbers received."""
        dirty = [(place, counter) for place, counter in list(self._received.items()) if counter.dirty]
        if not dirty:
            return
        for _, counter in dirty:
            counter.dirty = False
        try:
            with self._store.write() as conn:
                secrets.raise_counters(conn, {place: counter.value for place, counter in dirty})
        except BaseException:
            for _, counter in dirty:
                counter.dirty = True
            raise

    def problems(self) -> list[Problem]:
        """What keeps secrets of the store from being opened; one for a missing or wrong master key, not one each."""
        with self._store.read() as conn:
            rows = secrets.secrets(conn)
        meters = {row.meter for row in rows}
        if rows and self._master is None:
            return [Problem(f"{len(rows)} secret(s) of {len(meters)} meter(s)", *self._no_master())]
        found: dict[str, Problem] = {}
        for row in rows:
            try:
                self._opened(row)
            except NoAccess as error:
                place = sealed_under(row.sealed).hex() if self._foreign(row) else f"{row.meter} {row.name}"
                found.setdefault(place, Problem("vault", error.problem.what, error.problem.remedy))
        return list(found.values())

    # -- one meter -----------------------------------------------------------------------------------------------------

    def _made(self, meter: Meter) -> Access:
        all_rows = self._rows
        rows = all_rows.get(meter.key, []) if self._changes is not None else self._rows_of(meter.key)
        memo = self._memos.setdefault(meter.model.name, {})
        access = Access(self._secrets(rows), partial(self._counter, meter.key), memo)
        with self._lock:
            if all_rows is self._rows:  # else secrets were changed meanwhile: it is made anew the next time
                self._accesses[meter.key] = access
        return access

    def _rows_of(self, meter_key: int) -> list[SecretRow]:
        with self._store.read() as conn:
            return secrets.secrets(conn, [meter_key])

    def _secrets(self, rows: list[SecretRow]) -> _Secrets:
        opened: dict[str, bytes] = {}
        shut: dict[str, NoAccess] = {}
        for row in rows:
            if row.state == secrets.ACTIVE:
                try:
                    opened[row.name] = self._opened(row)
                except NoAccess as error:
                    shut[row.name] = error
        return _Secrets(opened, shut) if rows else _NO_SECRETS

    def _opened(self, row: SecretRow) -> bytes:
        if self._master is None:
            what, remedy = self._no_master()
            raise NoAccess(f"the secrets of meter {row.meter} can't be opened: {what}", remedy=remedy)
        return self._master.open(row.meter, row.name, row.generation, row.sealed)

    def _no_master(self) -> tuple[str, str]:
        return f"there is no master key ({self._named})", "give the master key they were sealed under, and start again"

    def _foreign(self, row: SecretRow) -> bool:
        return self._master is not None and sealed_under(row.sealed) != self._master.id

    def _take_in(self, rows: list[SecretRow]) -> None:
        by_meter: dict[int, list[SecretRow]] = {}
        for row in rows:
            by_meter.setdefault(row.meter_key, []).append(row)
        with self._lock:
            self._rows = by_meter
            self._accesses.clear()

    def _wants(self, meter_key: int) -> bool:
        """Whether a job of this meter would have to wait for the store."""
        if self._changes is None and meter_key not in self._accesses:
            return True
        return any(counter.low for counter in self._given.get(meter_key, {}).values())

    def _fetch(self, meter: Meter) -> None:
        self.access(meter)
        low = [(meter.key, name) for name, counter in self._given.get(meter.key, {}).items() if counter.low]
        if low:
            with self._store.write() as conn:
                first = secrets.reserve_all(conn, low, self._block)
            for (key, name), number in first.items():
                self._giver(key, name).add(number, number + self._block)

    # -- its counters --------------------------------------------------------------------------------------------------

    def _counter(self, meter_key: int, name: str) -> Counter:
        if name.startswith(_RECEIVED):
            counter = self._received.get((meter_key, name))
            return counter if counter is not None else self._receiver(meter_key, name)
        return self._given.get(meter_key, {}).get(name) or self._giver(meter_key, name)

    def _giver(self, meter_key: int, name: str) -> _Given:
        with self._lock:
            named = self._given.setdefault(meter_key, {})
            if name not in named:
                named[name] = _Given(_Reserve(self._store, meter_key, name, self._block))
            return named[name]

    def _receiver(self, meter_key: int, name: str) -> _Received:
        place = (meter_key, name)
        counted = self._counted
        if counted is None:
            with self._store.read() as conn:
                counted = secrets.counters(conn, [meter_key])
        with self._lock:
            return self._received.setdefault(place, _Received(counted.get(place, 0)))
