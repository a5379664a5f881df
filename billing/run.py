"""Closing a billing period: one bill per account, issued once or held with its reasons, as often as it is called.

Accounts are done in batches, each in one transaction: whatever stops a run, what was written stays, and the next run
goes on from there. An executor of `concurrent.futures` may share the accounts out among threads, processes or a
cluster; the work is the same.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from itertools import repeat

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from billing import ledger, schema
from billing import store as bill_store
from billing.calendar import PeriodSpan, billing_month
from billing.charges import Tariff
from billing.model import Hold
from billing.prepare import Book, Prepared, bill_number, numbers_of, prepare, prepare_cases, splits
from billing.review import Rules
from billing.run_log import complete_run, open_run
from billing.segments import in_force, month_of
from billing.versions import check_versions
from headend.civil import from_epoch_s
from headend.errors import ConfigError, StoreError, UsageError
from headend.model import Window
from headend.store import Store, open_store, registry
from headend.store import schema as registered
from headend.store.portable import chunks
from headend.store.registry import AccountRow
from headend.store.terms import AccountTerm

__all__ = [
    "Book",
    "CloseReport",
    "Prepared",
    "Work",
    "bill_number",
    "close_chunk",
    "close_period",
    "pool",
    "prepare",
    "prepare_cases",
    "write",
]

_BATCH = 200
"""Accounts whose bills are made together and written in one transaction."""

_LEAST_CHUNK, _MOST_CHUNK, _PARTS = 50, 1_000, 16
"""Accounts that are given to a worker at once, and into how many parts few accounts are cut."""

_TRIES = 3


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What a close did: numbers of the bills issued by it, of those held and why, and of those issued before."""

    issued: tuple[str, ...] = ()
    held: tuple[tuple[str, tuple[Hold, ...]], ...] = ()
    already: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to every account of a run."""

    tariffs: Sequence[Tariff]
    rules: Rules
    year: int
    month: int
    now: datetime


def close_period(
    store: Store,
    tariffs: Sequence[Tariff],
    year: int,
    month: int,
    accounts: Sequence[str] | None = None,
    *,
    now: datetime,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    rules: Rules | None = None,
    groups: Collection[str] | None = None,
    cycle: str = "",
    asked_by: str = "",
    executor: Executor | None = None,
    clock: Callable[[], datetime] | None = None,
) -> CloseReport:
    """Bill every account in force in a civil month (or those named), each in its tariff's zone.

    groups: only accounts whose `cycle` is one of these; cycle: the name under which the run is recorded. executor: who
    does the work, this process by default. rules: of the review, the defaults if None. clock: tells when the run ended.

    Idempotent: what is issued stays as it is, what is held is looked at again. Raises `UsageError` for an unknown
    account, and for a month that has not ended at `now`; `ConfigError` for a tariff in use whose text was changed under
    the version that bills were made from. `progress(done, total)` is called as accounts are done; what
    it raises ends the run, and what was written stays.
    """
    work = Work(tariffs, rules or Rules(), year, month, now)
    with store.read() as conn:
        asked = _asked(conn)
        if problems := check_versions(conn, [tariff for tariff in tariffs if tariff.id in asked]):
            raise ConfigError(problems)
        ids = list(_chosen(conn, work, accounts, groups))
    with store.write() as conn:
        key = open_run(conn, cycle, year, month, asked_by, now)
    reports: list[CloseReport] = []
    detail = "stopped"
    try:
        for done, report in _reports(store, work, ids, executor):
            reports.append(report)
            progress(done, len(ids))
        detail = ""
    except Exception as error:
        detail = f"stopped: {error}"
        raise
    finally:
        whole = _joined(reports)
        with store.write() as conn:
            counts = (len(whole.issued), len(whole.held), len(whole.already))
            complete_run(conn, key, clock() if clock else now, counts, detail)
    return whole


def _asked(conn: Connection) -> set[str]:
    """The tariffs that accounts have or had."""
    own = conn.scalars(select(registered.account.c.tariff).distinct())
    later = conn.scalars(select(registered.account_term.c.tariff).distinct())
    return {tariff for tariff in (*own, *later) if tariff}


@contextmanager
def pool(processes: int) -> Iterator[Executor | None]:
    """An executor of so many processes; None for one. Processes are started anew: a copy of this one would share its
    connections."""
    if processes <= 1:
        yield None
        return
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def close_chunk(url: str, work: Work, ids: Sequence[str]) -> CloseReport:
    """Bill these accounts in the store at `url`: what a worker elsewhere does. All of it can be pickled."""
    store = open_store(url, migrate=False)
    try:
        return _joined([report for _, report in _batches(store, work, ids)])
    finally:
        store.close()


def _reports(
    store: Store, work: Work, ids: Sequence[str], executor: Executor | None
) -> Iterator[tuple[int, CloseReport]]:
    """What each part of the work came to, with the number of accounts done so far."""
    if executor is None:
        yield from _batches(store, work, ids)
        return
    size = min(_MOST_CHUNK, max(_LEAST_CHUNK, -(-len(ids) // _PARTS)))
    parts = list(chunks(ids, size))
    url = store.engine.url.render_as_string(hide_password=False)
    done = 0
    for part, report in zip(parts, executor.map(close_chunk, repeat(url), repeat(work), parts), strict=False):
        done += len(part)
        yield done, report


def _batches(store: Store, work: Work, ids: Sequence[str]) -> Iterator[tuple[int, CloseReport]]:
    if not ids:
        return
    with store.read() as conn:
        book = Book.read(conn, work.tariffs, work.rules)
    done = 0
    for batch in chunks(ids, _BATCH):
        done += len(batch)
        yield done, _close_batch(store, book, work, batch)


def _joined(reports: Sequence[CloseReport]) -> CloseReport:
    return CloseReport(
        tuple(number for report in reports for number in report.issued),
        tuple(held for report in reports for held in report.held),
        tuple(number for report in reports for number in report.already),
    )


# -- which accounts ----------------------------------------------------------------------------------------------------


def _chosen(
    conn: Connection, work: Work, accounts: Sequence[str] | None, groups: Collection[str] | None
) -> Iterator[str]:
    """The accounts in force in the month; `UsageError` if it has not ended for one of them."""
    terms = Book.read(conn, ()).terms
    wanted = None if accounts is None else dict.fromkeys(accounts)
    known: set[str] = set()
    months: dict[str, Window] = {}
    table = registered.account
    query = select(table.c.id, table.c.tariff, table.c.since, table.c.until, table.c.cycle).order_by(table.c.id)
    found = []
    for id_, tariff, since, until, group in conn.execute(query):
        if wanted is not None:
            known.add(id_)
        if (wanted is not None and id_ not in wanted) or (groups is not None and group not in groups):
            continue
        row = AccountRow(id_, "", "", tariff, from_epoch_s(since), None if until is None else from_epoch_s(until))
        window = _month(row, terms.get(id_, ()), work, months)
        if in_force(row, window):
            _check_ended(row, window, work)
            found.append(id_)
    for name in wanted or ():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "see the accounts in the store"
            raise UsageError(f"unknown account {name!r}", remedy=remedy)
    yield from found


def _month(account: AccountRow, terms: Sequence[AccountTerm], work: Work, months: dict[str, Window]) -> Window:
    """The month in the zone of the account's tariff; months: of tariffs met before."""
    if terms:
        return month_of(account, terms, work.tariffs, work.year, work.month)
    if account.tariff not in months:
        zone_name = next((one.zone for one in work.tariffs if one.id == account.tariff), "UTC")
        months[account.tariff] = billing_month(work.year, work.month, zone_name)
    return months[account.tariff]


def _check_ended(account: AccountRow, window: Window, work: Work) -> None:
    if window.end > work.now:
        month = f"{work.year:04d}-{work.month:02d}"
        what = f"{month} ends at {window.end:%Y-%m-%d %H:%M} UTC for account {account.id}, and has not ended yet"
        raise UsageError(what, remedy="close it after that")


# -- one batch ---------------------------------------------------------------------------------------------------------


class _Taken(StoreError):
    """What this batch was made from changed meanwhile: an adjustment was taken on, a bill before was taken back."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} while bills were made from it", remedy="give the command again")


def _close_batch(store: Store, book: Book, work: Work, ids: Sequence[str]) -> CloseReport:
    for _ in range(_TRIES - 1):
        try:
            return _tried(store, book, work, ids)
        except _Taken:
            continue
    if len(ids) == 1:
        return _tried(store, book, work, ids)
    # Where others are at many of these accounts, a batch may always be late for one of them.
    return _joined([_close_batch(store, book, work, [id_]) for id_ in ids])


def _tried(store: Store, book: Book, work: Work, ids: Sequence[str]) -> CloseReport:
    with store.read() as conn:
        latest = numbers_of(conn, ids, work.year, work.month)
        done = {id_: found.number for id_, found in latest.items() if found.state == "issued" and not found.reversed}
        rows = registry.accounts_among(conn, [id_ for id_ in ids if id_ not in done])
        batch = prepare(conn, book, rows, work.year, work.month)
    results = dict.fromkeys(done.values(), "already") | _write(store, batch, work.now)
    holds = {prepared.bill.number: prepared.bill.holds for prepared in batch}
    return CloseReport(
        tuple(number for number, result in results.items() if result == "issued"),
        tuple((number, holds[number]) for number, result in results.items() if result == "held"),
        tuple(number for number, result in results.items() if result == "already"),
    )


def _write(store: Store, batch: Sequence[Prepared], now: datetime) -> dict[str, str]:
    """Store a batch in one transaction; bill by bill, once more, where another close was at the same accounts."""
    if not batch:
        return {}
    try:
        with store.write() as conn:
            return write(conn, batch, now)
    except StoreError as error:
        if not isinstance(error.__cause__, IntegrityError):
            raise
    results: dict[str, str] = {}
    for prepared in batch:
        with store.write() as conn:
            results.update(write(conn, [prepared], now))
    return results


def write(conn: Connection, batch: Sequence[Prepared], now: datetime) -> dict[str, str]:
    """Store prepared bills and post the issued ones to the ledger, within the transaction of `conn`.

    By number what became of each: `issued`, `held`, or `already` (issued before).
    """
    split: dict[str, dict[Window, tuple[PeriodSpan, ...]]] = {}
    tariffs: dict[str, Tariff] = {}
    for prepared in batch:
        tariffs.update({tariff.sha: tariff for tariff in prepared.tariffs})
        if prepared.bill.state != "held":
            for tariff, window, spans in splits(prepared):
                split.setdefault(tariff.sha, {})[window] = spans
    for sha, tariff in tariffs.items():
        bill_store.put_tariff(conn, tariff, split.get(sha, {}), now)
    adjusted = {one.bill.number: one.adjustments for one in batch if one.adjustments}
    _check_free(conn, [number for numbers in adjusted.values() for number in numbers])
    results = bill_store.put_many(conn, [prepared.bill for prepared in batch], now, adjusted)
    issued = [number for number, result in results.items() if result == "issued"]
    ledger.post_bills(conn, issued, now)
    _check_stands(conn, issued)
    return results


def _check_free(conn: Connection, numbers: Sequence[str]) -> None:
    """Refuse adjustments that another bill has taken on since they were looked up; others wait for this one."""
    table, taken = schema.bill_adjustment, schema.bill_adjusted
    for chunk in chunks(numbers):
        conn.execute(select(table.c.number).where(table.c.number.in_(chunk)).with_for_update()).all()
        query = (
            select(taken.c.adjustment)
            .join(schema.bill, schema.bill.c.key == taken.c.bill_key)
            .where(taken.c.adjustment.in_(chunk), bill_store.standing())
        )
        if (taken_on := conn.scalars(query).first()) is not None:
            raise _Taken(f"adjustment {taken_on} was taken on by another bill")


def _check_stands(conn: Connection, numbers: Sequence[str]) -> None:
    """Refuse bills that rest on one that was taken back since they were made. The ledger is locked by now: whoever
    takes back a bill after this sees what rests on it."""
    bill, used, entry = schema.bill, schema.bill_used, schema.ledger_entry
    for chunk in chunks(numbers):
        query = (
            select(used.c.number)
            .join(bill, bill.c.key == used.c.bill_key)
            .join(entry, (entry.c.account == bill.c.account) & (entry.c.reference == used.c.number))
            .where(bill.c.number.in_(chunk), entry.c.kind == "reversal")
        )
        if (gone := conn.scalars(query).first()) is not None:
            raise _Taken(f"bill {gone} was taken back")
