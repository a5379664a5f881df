"""Billing a month of quarter-hour energies: from a full store to issued bills and a posted ledger, beside plain numpy.

    python benchmarks/closing.py [--accounts 2000] [--processes 1,2] [--url postgresql+psycopg://... | --postgres]

The tariff has four TOU periods with weekends apart, additions by two yearly steps, and a maximum demand from the
intervals: seven lines a bill. Two limits come first, over the same loads in memory: plain numpy (a formulation of its
own that shares no code with billing: also what the bills are checked against, to the cent), and billing's own kernel.
Then a store is filled (told apart), and `close_period` bills all of it in processes of their own: with one, and with
several through `concurrent.futures`. Printed are seconds, accounts a second and the ratio to plain numpy, the same by
parts (of several workers the mean), and without the ledger; the CPU time of all our processes; and the most memory that
any of them held: to be flat, it must not grow with --accounts. From the unit costs: a million accounts, on paper.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from benchmarks.closing_store import DAYS, MONTH, SLOTS, TARIFF_ID, YEAR_MONTH, Loads, fill, loads
from billing import kernel, ledger, prepare, review, schema, store
from billing.calendar import billing_month, period_index
from billing.charges import Tariff
from billing.rating import rate
from billing.rating.rate import tou_charge
from billing.run import close_period
from config.tariff_files import load_tariff
from headend.store import Store, open_store
from tests.servers import postgresql, postgresql_bin

PERIODS: Final = ("sharp", "peak", "flat", "valley")
PRICES: Final = (Decimal("1.2336"), Decimal("1.028"), Decimal("0.6425"), Decimal("0.2891"))
STEPS: Final = ((Decimal(2760), Decimal(0)), (Decimal(4800), Decimal("0.05")), (None, Decimal("0.30")))
DEMAND_PRICE: Final = Decimal("1.275")
TARIFF: Final = f"""id = "{TARIFF_ID}"
version = "1"
title = "Benchmark: four periods, yearly steps, maximum demand"
source = "made for this benchmark"
source_date = 2026-01-01
verified = false
note = "no one's tariff"
valid_from = 2026-01-01
zone = "UTC"
currency = "CNY"

[[charges]]
kind = "tou"
unit = "kWh"
prices = {{ sharp = "1.2336", peak = "1.028", flat = "0.6425", valley = "0.2891" }}

[[charges.seasons]]
days = "weekday"
[charges.seasons.periods]
sharp = ["10:00-11:00", "19:00-21:00"]
peak = ["08:00-10:00", "18:00-19:00"]
flat = ["06:00-08:00", "11:00-18:00", "21:00-22:00"]
valley = ["22:00-06:00"]

[[charges.seasons]]
days = "weekend"
[charges.seasons.periods]
peak = ["08:00-11:00", "18:00-21:00"]
flat = ["06:00-08:00", "11:00-18:00", "21:00-22:00"]
valley = ["22:00-06:00"]

[[charges]]
kind = "step_adder"
unit = "kWh"
period = "year"
[[charges.tables]]
steps = [
  {{ up_to = "2760", price = "0" }},
  {{ up_to = "4800", price = "0.05" }},
  {{ price = "0.30" }},
]

[[charges]]
kind = "demand"
unit = "kW"
price = "1.275"
measured_by = "intervals"
"""


LEDGER: Final = "ledger posted"


@dataclass(slots=True)
class Parts:
    """Seconds spent in each part of closing, and the functions they are taken from."""

    seconds: dict[str, float] = field(default_factory=partial(defaultdict, float))

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added to `name`."""

        def timed(*args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds[name] += time.perf_counter() - begin

        return timed


# -- the limits --------------------------------------------------------------------------------------------------------


def own_period_index() -> NDArray[np.intp]:
    """The period of every interval of the month, written out by hand: (days, slots)."""
    hours = np.full((DAYS, 24), PERIODS.index("flat"))
    hours[:, 22:] = hours[:, :6] = PERIODS.index("valley")
    for day in range(DAYS):
        weekend = (MONTH + timedelta(days=day)).weekday() >= 5
        hours[day, 8:10] = hours[day, 18] = PERIODS.index("peak")
        hours[day, [10, 19, 20]] = PERIODS.index("peak" if weekend else "sharp")
    return np.repeat(hours, SLOTS // 24, axis=1)


def half_up(value: NDArray[np.int64], unit: int) -> NDArray[np.int64]:
    """Whole `unit`s in values that are not negative, rounded half-up."""
    return (2 * value + unit) // (2 * unit)


def plain_numpy(units: NDArray[np.int64], used: NDArray[np.int64], index: NDArray[np.intp]) -> NDArray[np.int64]:
    """Totals in cents. Units and prices are ten-thousandths: a cent is a million of their products."""
    total = np.zeros(len(units), dtype=np.int64)
    for number, price in enumerate(PRICES):
        energy = units[:, index == number].sum(axis=1)
        total += half_up(energy * int(price * 10_000), 1_000_000)
    energy, reached = units.sum(axis=(1, 2)), used
    for (_, price), low, high in zip(STEPS, (0, 2760, 4800), (2760, 4800, 10**9), strict=True):
        inside = np.minimum(reached + energy, high * 10_000) - np.maximum(reached, low * 10_000)
        total += half_up(np.maximum(inside, 0) * int(price * 10_000), 1_000_000)
    kilowatts = units.max(axis=(1, 2)) * 4
    return total + half_up(kilowatts * int(DEMAND_PRICE * 10_000), 1_000_000)


def with_kernel(units: NDArray[np.int64], used: NDArray[np.int64], index: NDArray[np.intp]) -> NDArray[np.int64]:
    """Totals in cents by the functions of `billing.kernel`."""
    rows = units.reshape(len(units), -1)
    count = len(rows)
    sums = kernel.period_sums(rows, index, len(PERIODS))
    amounts = [
        kernel.amounts(kernel.Column(sums[:, n], 4), kernel.constant(price, count), 2) for n, price in enumerate(PRICES)
    ]
    energy = kernel.Column(sums.sum(axis=1), 4)
    limits = [None if limit is None else kernel.constant(limit, count) for limit, _ in STEPS]
    parts = kernel.fill_steps(kernel.Column(used, 4), energy, limits)
    amounts += [
        kernel.amounts(part, kernel.constant(price, count), 2) for part, (_, price) in zip(parts, STEPS, strict=True)
    ]
    _, top = kernel.highest_block(rows, 1)
    amounts.append(kernel.amounts(kernel.Column(top * 4, 4), kernel.constant(DEMAND_PRICE, count), 2))
    return sum((amount.values for amount in amounts[1:]), amounts[0].values)


def best(
    function: Callable[..., NDArray[np.int64]], some: Loads, index: NDArray[np.intp]
) -> tuple[NDArray[np.int64], float]:
    """What it gives, and the seconds of the faster of two times: the first one finds memory cold."""
    took = []
    for _ in range(2):
        begin = time.perf_counter()
        found = function(some.units, some.used, index)
        took.append(time.perf_counter() - begin)
    return found, min(took)


def limits(number: int, tariff: Tariff) -> tuple[int, float]:
    """Print both limits; the sum of all bills in cents, and the seconds of plain numpy."""
    charge = tou_charge(tariff)
    assert charge is not None
    window = billing_month(*YEAR_MONTH, "UTC")
    index = period_index(charge.schedule, window, "UTC", 900, PERIODS)
    by_hand = own_period_index()
    seconds, cents = [0.0, 0.0], 0
    for some in loads(number):
        plain, took = best(plain_numpy, some, by_hand)
        ours, took_ours = best(with_kernel, some, index)
        seconds[0] += took
        seconds[1] += took_ours
        if not np.array_equal(plain, ours):
            raise SystemExit("kernel and plain numpy differ")
        cents += int(plain.sum())
    report("plain numpy, loads in memory", seconds[0], number, seconds[0])
    report("billing's kernel, loads in memory", seconds[1], number, seconds[0])
    return cents, seconds[0]


# -- the store ---------------------------------------------------------------------------------------------------------


def report(what: str, seconds: float, number: int, floor: float) -> None:
    """One line of the result."""
    print(f"{what:42} {seconds:9.2f} s {number / seconds:12,.0f} accounts/s {seconds / floor:8.1f} x numpy", flush=True)


def peak_mb() -> float:
    """The most memory this process has held, in MB, as Linux tells it.

    Not `getrusage`: that counts what the process held that this one was forked from.
    """
    told = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM:")) / 1024


def whole(full: Store, number: int, cents: int) -> None:
    """Every account has its bill, the bills come to the cent to what numpy says, and the ledger to nothing."""
    with full.read() as conn:
        count, total = conn.execute(select(func.count(), func.sum(schema.bill.c.total_minor))).one()
        posted = conn.scalar(select(func.sum(schema.ledger_posting.c.amount_minor)))
        entries = conn.scalar(select(func.count()).select_from(schema.ledger_entry))
    if (count, int(total), int(posted or 0), entries) != (number, cents, 0, number):
        raise SystemExit(f"{count} bills of {total} cents, {entries} entries of {posted}; wanted {number} of {cents}")


@dataclass(frozen=True, slots=True)
class Told:
    """What one process says of its work so far. cpu_s: since it was started."""

    process: int
    parts: Parts
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Closed:
    """What closing took. parts: of several workers their mean. peaks_mb: of each process that billed."""

    seconds: float
    cpu_s: float
    parts: Parts
    peaks_mb: list[float]


class Workers(ProcessPoolExecutor):
    """Processes that say with each result what it took."""

    def __init__(self, processes: int) -> None:
        super().__init__(processes, mp_context=multiprocessing.get_context("spawn"))
        self.told: list[Told] = []

    def map(self, fn: Callable[..., Any], *iterables: Any, **named: Any) -> Iterator[Any]:
        """As of any executor."""
        for result, told in super().map(partial(_telling, fn), *iterables, **named):
            self.told.append(told)
            yield result


def _telling(function: Callable[..., Any], *args: Any) -> tuple[Any, Told]:
    parts = Parts()
    with parted(parts):
        result = function(*args)
    return result, Told(os.getpid(), parts, time.process_time(), peak_mb())


def close(url: str, tariff: Tariff, processes: int) -> Closed:
    """Bill everything."""
    opened = open_store(url)
    now = MONTH + timedelta(days=40)
    begin, cpu_s, parts = time.perf_counter(), time.process_time(), Parts()
    with ExitStack() as stack:
        workers = None if processes == 1 else stack.enter_context(Workers(processes))
        if workers is None:
            stack.enter_context(parted(parts))
        done = close_period(opened, [tariff], *YEAR_MONTH, now=now, executor=workers)
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_s
    opened.close()
    if done.held:
        raise SystemExit(f"{len(done.held)} bills are held: {done.held[0][1][0]}")
    if workers is None:
        return Closed(seconds, cpu_s, parts, [peak_mb()])
    for told in workers.told:
        for what, took in told.parts.seconds.items():
            parts.seconds[what] += took / processes
    cpus_s, peaks_mb = dict[int, float](), dict[int, float]()
    for told in workers.told:
        cpus_s[told.process] = max(told.cpu_s, cpus_s.get(told.process, 0))
        peaks_mb[told.process] = max(told.peak_mb, peaks_mb.get(told.process, 0))
    return Closed(seconds, cpu_s + sum(cpus_s.values()), parts, list(peaks_mb.values()))


@contextmanager
def parted(parts: Parts) -> Iterator[None]:
    """Take the time of the parts of `billing.run` within the block."""
    places: list[tuple[Any, str, str]] = [
        (prepare, "gather", "reading and determinants"),
        (rate, "rate_cases", "rating"),
    ]
    places += [(review, "findings", "review"), (store, "put_many", "bills written")]
    places += [(ledger, "post_bills", LEDGER)]
    kept = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, what in places:
        setattr(module, name, parts.timing(what, getattr(module, name)))
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def bench(url: str, number: int, tariff: Tariff, processes: int, cents: int, floor: float, kind: str) -> None:
    """Fill a store, bill it, check it, tell."""
    begin = time.perf_counter()
    with closing(open_store(url)) as full:
        fill(full, number)
    filled = time.perf_counter() - begin
    print(f"{kind}: filled with {number * DAYS * SLOTS:,} intervals in {filled:.0f} s")
    # In a process of its own: what the loads took here counts for nothing.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        closed = apart.submit(close, url, tariff, processes).result()
    seconds, parts = closed.seconds, closed.parts.seconds
    report(f"{kind}, {processes} process{'es' if processes > 1 else ''}: all of it", seconds, number, floor)
    report("  of that all but the ledger", seconds - parts[LEDGER], number, floor)
    for what, took in parts.items():
        report(f"    {what}", took, number, floor)
    report("    the rest", seconds - sum(parts.values()), number, floor)
    print(f"  CPU time of our processes: {closed.cpu_s:.1f} s, {closed.cpu_s / number * 1e6:.0f} us an account")
    print(f"  peak memory of a process: {', '.join(f'{peak:.0f}' for peak in closed.peaks_mb)} MB", flush=True)
    with closing(open_store(url)) as full:
        whole(full, number, cents)
    on_paper(seconds, number, kind, processes)


def on_paper(seconds: float, number: int, kind: str, processes: int) -> None:
    """What a million accounts would take at the same cost an account."""
    print(f"  on paper: 1,000,000 accounts in {seconds / number * 1e6 / 60:.1f} min ({kind}, {processes} at work)")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--processes", default="1,2", help="numbers of processes, one run each")
    parser.add_argument("--url", default="", help="an empty PostgreSQL database; needs one number of processes")
    parser.add_argument("--postgres", action="store_true", help="start a PostgreSQL of its own")
    parser.add_argument("--folder", type=Path, default=None, help="where stores go; a temporary one by default")
    told = parser.parse_args()
    processes = [int(one) for one in told.processes.split(",")]
    with tempfile.TemporaryDirectory(dir=told.folder) as folder, ExitStack() as stack:
        path = Path(folder) / f"{TARIFF_ID}.toml"
        path.write_text(TARIFF, "utf-8")
        tariff = load_tariff(path)
        cents, floor = limits(told.accounts, tariff)
        if told.url:
            bench(told.url, told.accounts, tariff, processes[0], cents, floor, "PostgreSQL")
            return 0
        server = ""
        if told.postgres:
            binaries = postgresql_bin()
            if binaries is None:
                raise SystemExit("no PostgreSQL server programs found: install PostgreSQL, or give --url")
            server = stack.enter_context(postgresql(binaries))
        for number in processes:
            url = f"sqlite:///{folder}/bench-{number}.db"
            bench(url, told.accounts, tariff, number, cents, floor, "SQLite")
            Path(url.removeprefix("sqlite:///")).unlink()
            if server:
                bench(new_database(server, f"bench{number}"), told.accounts, tariff, number, cents, floor, "PostgreSQL")
    return 0


def new_database(server: str, name: str) -> str:
    """An empty database on a server."""
    from sqlalchemy import create_engine, text

    engine = create_engine(server + "postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server + name


if __name__ == "__main__":
    sys.exit(main())
