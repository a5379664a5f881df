"""The documents of a month's bills as files in a folder: bill by bill, never a month in memory, by several processes.

The tables are written as bills come, in the order of their numbers, so that they are the same however many processes
there are.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from sqlalchemy import Connection, select

from billing import schema
from billing import store as bill_store
from billing.documents import spreadsheet
from billing.documents.bill_pdf import bill_pdf
from billing.documents.content import ReadTariff, content_of, posted
from billing.documents.plain import bill_data
from headend.civil import to_epoch_s
from headend.errors import UsageError
from headend.model import Window
from headend.store import Store, open_store, registry
from headend.store.portable import chunks

__all__ = ["Wanted", "Written", "file_name", "numbers_of", "write_file", "write_month"]

_CHUNK = 25
"""Bills a worker is given at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written, and where. formats: of `pdf`, `json`, `csv`. All of it can be pickled."""

    folder: Path
    formats: tuple[str, ...]
    utility: str
    language: str = "both"
    read_tariff: ReadTariff | None = None
    due_days: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What was done for some bills: files, bills that are held, and the rows of the tables (CSV text)."""

    bills: int
    files: int
    held: int
    rows: str = ""
    lines: str = ""


def file_name(name: str) -> str:
    """A number as the name of a file; what a file system would not take is replaced, and a hash keeps names apart."""
    safe = re.sub(r"[^\w.-]", "_", name)
    if safe == name and not name.startswith("."):
        return name
    return f"{safe.lstrip('.')}-{sha256(name.encode()).hexdigest()[:8]}"


def write_file(path: Path, data: bytes) -> None:
    """Write a file; `UsageError` where that can't be done."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _no_writing(path, error) from error


def _no_writing(path: Path, error: OSError) -> UsageError:
    what = f"can't write {path}: {error.strerror or error}"
    return UsageError(what, remedy="name a file in a folder that exists and may be written")


def numbers_of(conn: Connection, window: Window) -> list[str]:
    """The numbers of the bills whose period starts within `window`, in their order."""
    table = schema.bill
    started = (table.c.period_start >= to_epoch_s(window.start)) & (table.c.period_start < to_epoch_s(window.end))
    return list(conn.scalars(select(table.c.number).where(started).order_by(table.c.number)))


def write_month(
    store: Store,
    numbers: Sequence[str],
    wanted: Wanted,
    *,
    executor: Executor | None = None,
    bom: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> Written:
    """Write the documents of these bills into a folder that exists, and the tables of all.

    executor: who does the work, this process by default; a worker opens the store by its address. `progress(done)` is
    told the bills that are done.
    """
    bills = files = held = 0
    with ExitStack() as opened:
        tables = _tables(opened, wanted, bom) if "csv" in wanted.formats else None
        for part in _parts(store, numbers, wanted, executor):
            bills, files, held = bills + part.bills, files + part.files, held + part.held
            if tables is not None:
                for stream, text in zip(tables, (part.rows, part.lines), strict=True):
                    stream.write(text)
            progress(bills)
    return Written(bills, files + (2 if tables else 0), held)


def _tables(opened: ExitStack, wanted: Wanted, bom: bool) -> tuple[TextIO, TextIO]:
    """Both tables with their heads, ready for rows."""
    found = []
    for name, head in (("bills.csv", spreadsheet.BILL_HEAD), ("lines.csv", spreadsheet.LINE_HEAD)):
        path = wanted.folder / name
        try:
            stream = opened.enter_context(path.open("w", encoding="utf-8", newline=""))
        except OSError as error:
            raise _no_writing(path, error) from error
        stream.write(spreadsheet.csv_text(head, (), bom=bom))
        found.append(stream)
    return found[0], found[1]


def _parts(store: Store, numbers: Sequence[str], wanted: Wanted, executor: Executor | None) -> Iterator[Written]:
    """What came of each chunk, in order; with an executor no more chunks are under way than keep it busy."""
    parts = chunks(numbers, _CHUNK)
    if executor is None:
        yield from (_write_chunk(store, wanted, part) for part in parts)
        return
    work = partial(write_chunk, store.engine.url.render_as_string(hide_password=False), wanted)
    under_way: deque[Future[Written]] = deque()
    for part in parts:
        under_way.append(executor.submit(work, part))
        if len(under_way) >= _UNDER_WAY:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


_UNDER_WAY = 64
"""Chunks given to an executor before the first of them is waited for."""


def write_chunk(url: str, wanted: Wanted, numbers: Sequence[str]) -> Written:
    """Write the documents of these bills of the store at `url`: what a worker does."""
    store = open_store(url, migrate=False)
    try:
        return _write_chunk(store, wanted, numbers)
    finally:
        store.close()


def _write_chunk(store: Store, wanted: Wanted, numbers: Sequence[str]) -> Written:
    files = held = 0
    rows: list[Sequence[object]] = []
    lines: list[Sequence[object]] = []
    with store.read() as conn:
        entries = posted(conn, numbers)
        for number in numbers:
            bill = bill_store.bill(conn, number)
            if bill is None:
                continue
            account = registry.account(conn, bill.account)
            customer = account.customer if account else ""
            invoice, reversed_by = entries.get(number, ("", ""))
            held += bill.state == "held"
            path = wanted.folder / file_name(number)
            if "pdf" in wanted.formats and bill.state != "held":
                content = content_of(conn, bill, wanted.utility, wanted.read_tariff, wanted.due_days)
                write_file(path.with_name(f"{path.name}.pdf"), bill_pdf(content, wanted.language))
                files += 1
            if "json" in wanted.formats:
                data = bill_data(bill, customer=customer, invoice=invoice, reversed_by=reversed_by)
                text = json.dumps(data, ensure_ascii=False, indent=1)
                write_file(path.with_name(f"{path.name}.json"), f"{text}\n".encode())
                files += 1
            rows.append(spreadsheet.bill_row(bill, customer, invoice, reversed_by))
            lines += spreadsheet.line_rows(bill)
    tables = ("", "")
    if "csv" in wanted.formats:
        tables = spreadsheet.rows_text(rows), spreadsheet.rows_text(lines)
    return Written(len(numbers), files, held, *tables)
