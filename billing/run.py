"""Closing a billing period: one bill per account, issued once or held with its reasons, as often as it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from billing import ledger, rate
from billing import store as bill_store
from billing.calendar import PeriodSpan, billing_month, spans
from billing.determinants import gather, part_month
from billing.model import Bill, Hold, Tariff
from headend.errors import StoreError, UsageError
from headend.model import Window
from headend.store import Store, registry
from headend.store.registry import AccountRow

__all__ = ["CloseReport", "bill_number", "close_period"]

_BATCH = 50
"""Accounts whose bills are written in one transaction."""


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What a close did: numbers of the bills issued by it, of those held and why, and of those issued before."""

    issued: tuple[str, ...] = ()
    held: tuple[tuple[str, tuple[Hold, ...]], ...] = ()
    already: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Prepared:
    bill: Bill
    tariff: Tariff | None
    split: tuple[PeriodSpan, ...] = ()


def bill_number(account: str, year: int, month: int) -> str:
    """The number of an account's bill for a civil month."""
    return f"{account}-{year:04d}-{month:02d}"


def close_period(
    store: Store,
    tariffs: Sequence[Tariff],
    year: int,
    month: int,
    accounts: Sequence[str] | None = None,
    *,
    now: datetime,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> CloseReport:
    """Bill every account in force in a civil month (or those named), each in its tariff's zone.

    Idempotent: what is issued stays as it is, what is held is looked at again. Raises `UsageError` for an unknown
    account, and for a month that has not ended at `now`. `progress(done, total)` is called as accounts are done.
    """
    with store.read() as conn:
        rows = _chosen(registry.accounts(conn), accounts)
        rows = [row for row in rows if _in_force(row, _month(row, tariffs, year, month))]
        numbers = [bill_number(row.id, year, month) for row in rows]
        done = bill_store.issued_numbers(conn, numbers)
    for row in rows:
        if (end := _month(row, tariffs, year, month).end) > now:
            what = (
                f"{year:04d}-{month:02d} ends at {end:%Y-%m-%d %H:%M} UTC for account {row.id}, and has not ended yet"
            )
            raise UsageError(what, remedy="close it after that")
    results: dict[str, str] = dict.fromkeys((number for number in numbers if number in done), "already")
    holds: dict[str, tuple[Hold, ...]] = {}
    open_rows = [row for row in rows if bill_number(row.id, year, month) not in done]
    for start in range(0, len(open_rows), _BATCH):
        with store.read() as conn:
            batch = [_prepare(conn, row, tariffs, year, month) for row in open_rows[start : start + _BATCH]]
        results.update(_write(store, batch, now))
        holds.update((prepared.bill.number, prepared.bill.holds) for prepared in batch)
        progress(start + len(batch), len(open_rows))
    return CloseReport(
        tuple(number for number, result in results.items() if result == "issued"),
        tuple((number, holds[number]) for number, result in results.items() if result == "held"),
        tuple(number for number, result in results.items() if result == "already"),
    )


def _chosen(rows: Sequence[AccountRow], wanted: Sequence[str] | None) -> list[AccountRow]:
    if wanted is None:
        return list(rows)
    known = {row.id: row for row in rows}
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "see the accounts in the store"
            raise UsageError(f"unknown account {name!r}", remedy=remedy)
    return [known[name] for name in dict.fromkeys(wanted)]


def _month(account: AccountRow, tariffs: Sequence[Tariff], year: int, month: int) -> Window:
    """The month in the zone of the account's tariff; in UTC while the account has no tariff that is known."""
    return billing_month(year, month, next((t.zone for t in tariffs if t.id == account.tariff), "UTC"))


def _in_force(account: AccountRow, window: Window) -> bool:
    return account.since < window.end and (account.until is None or account.until > window.start)


def _tariff_for(account: AccountRow, tariffs: Sequence[Tariff], year: int, month: int) -> Tariff | None:
    """The version of the account's tariff that holds on every day of the month."""
    first, following = date(year, month, 1), date(year + month // 12, month % 12 + 1, 1)
    for tariff in tariffs:
        until = tariff.valid_to or date.max
        if tariff.id == account.tariff and tariff.valid_from <= first and following <= until:
            return tariff
    return None


def _prepare(conn: Connection, account: AccountRow, tariffs: Sequence[Tariff], year: int, month: int) -> _Prepared:
    """The bill as it can be made now; nothing is written."""
    number = bill_number(account.id, year, month)
    tariff = _tariff_for(account, tariffs, year, month)
    if tariff is None:
        window = _month(account, tariffs, year, month)
        what = f"no version of tariff {account.tariff!r} holds for the whole of {year:04d}-{month:02d}"
        hold = Hold("no_tariff", what, "add the tariff or correct the account", start=window.start, end=window.end)
        return _Prepared(_held(number, account, window, None, 0, [hold]), None)
    as_of = bill_store.highest_outcome(conn)
    window, holds = part_month(tariff, account, billing_month(year, month, tariff.zone))
    gathered = gather(conn, account, tariff, window, as_of=as_of)
    holds += gathered.holds
    if holds:
        return _Prepared(_held(number, account, window, tariff, as_of, holds), tariff)
    lines = rate.lines(tariff, {d.name: d for d in gathered.determinants}, window)
    bill = Bill(
        number=number,
        account=account.id,
        usage_point=account.usage_point,
        window=window,
        state="issued",
        tariff=tariff.id,
        tariff_version=tariff.version,
        tariff_sha=tariff.sha,
        zone=tariff.zone,
        currency=tariff.currency,
        as_of=as_of,
        lines=tuple(lines),
        determinants=gathered.determinants,
    )
    charge = rate.tou_charge(tariff)
    return _Prepared(bill, tariff, spans(charge.schedule, window, tariff.zone) if charge else ())


def _held(
    number: str, account: AccountRow, window: Window, tariff: Tariff | None, as_of: int, holds: Sequence[Hold]
) -> Bill:
    return Bill(
        number=number,
        account=account.id,
        usage_point=account.usage_point,
        window=window,
        state="held",
        tariff=account.tariff,
        tariff_version=tariff.version if tariff else "",
        tariff_sha=tariff.sha if tariff else "",
        zone=tariff.zone if tariff else "UTC",
        currency=tariff.currency if tariff else "",
        as_of=as_of,
        holds=tuple(holds),
    )


def _write(store: Store, batch: Sequence[_Prepared], now: datetime) -> dict[str, str]:
    """Store a batch in one transaction; bill by bill, once more, where another close was at the same accounts."""
    try:
        with store.write() as conn:
            return dict(_put_all(conn, batch, now))
    except StoreError as error:
        if not isinstance(error.__cause__, IntegrityError):
            raise
    results: dict[str, str] = {}
    for prepared in batch:
        with store.write() as conn:
            results.update(_put_all(conn, [prepared], now))
    return results


def _put_all(conn: Connection, batch: Sequence[_Prepared], now: datetime) -> Iterator[tuple[str, str]]:
    splits: dict[str, dict[Window, tuple[PeriodSpan, ...]]] = {}
    tariffs: dict[str, Tariff] = {}
    for prepared in batch:
        if prepared.tariff is not None:
            tariffs[prepared.tariff.sha] = prepared.tariff
            split = splits.setdefault(prepared.tariff.sha, {})
            if prepared.split:
                split[prepared.bill.window] = prepared.split
    for sha, tariff in tariffs.items():
        bill_store.put_tariff(conn, tariff, splits[sha], now)
    issued: list[str] = []
    for prepared in batch:
        result = bill_store.put(conn, prepared.bill, now)
        if result == "issued":
            issued.append(prepared.bill.number)
        yield prepared.bill.number, result
    ledger.post_bills(conn, issued, now)
