"""A second, independent hand at DL/T 645 for the tests: builds frames and answers without the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TypeVar

from headend.conversation import Conversation, Send
from headend.errors import NoAnswer
from headend.model import CurveSpec, Meter, MeterModel, ReadJob, ReadKind, Window

T = TypeVar("T")

ADDRESS = "000000193600"
BEIJING = timezone(timedelta(hours=8))
NOW = datetime(2025, 11, 2, 4, 30, tzinfo=UTC)  # 12:30 in Beijing
STEP_S = 900


def wire(address: str, control: int, data: bytes = b"", fe: int = 4) -> bytes:
    """A frame as it goes over the wire."""
    frame = [0x68]
    for i in range(10, -1, -2):
        frame.append(int(address[i : i + 2], 16))
    frame += [0x68, control, len(data)]
    frame += [(b + 0x33) % 256 for b in data]
    total = 0
    for b in frame:
        total += b
    return bytes([0xFE] * fe + frame + [total % 256, 0x16])


def di_bytes(di: str) -> bytes:
    """An identifier of either version, lowest byte first."""
    return bytes(int(di[i : i + 2], 16) for i in range(len(di) - 2, -1, -2))


def bcd(value: str | Decimal | int, size: int) -> bytes:
    """Digits of `value` (its point left out) as BCD, lowest byte first."""
    digits = str(value).replace(".", "").rjust(2 * size, "0")
    assert len(digits) == 2 * size
    return bytes(int(digits[2 * i : 2 * i + 2], 16) for i in range(size - 1, -1, -1))


def kwh(value: str) -> bytes:
    return bcd(f"{Decimal(value):.2f}", 4)


def minute(local: datetime) -> bytes:
    """`mm hh DD MM YY` of a local time."""
    return bytes(int(f"{n:02d}", 16) for n in (local.minute, local.hour, local.day, local.month, local.year % 100))


def read_request(di: str, extra: bytes = b"", address: str = ADDRESS) -> bytes:
    return wire(address, 0x11, di_bytes(di) + extra)


def read_answer(di: str, data: bytes, address: str = ADDRESS, control: int = 0x91) -> bytes:
    return wire(address, control, di_bytes(di) + data)


def refusal(code: int = 0x02, address: str = ADDRESS, control: int = 0xD1) -> bytes:
    return wire(address, control, bytes([code]))


def local(year: int, month: int, day: int, hour: int = 0, minute_: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute_, tzinfo=BEIJING)


def utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def meter(form: str | None = "0610", depth: int = 62, address: str = ADDRESS) -> Meter:
    curve = CurveSpec(form, STEP_S, 60, ("import_kwh",)) if form else None
    model = MeterModel("test", "dlt645-2007", Decimal(1000000), Decimal(60), 4, curve, depth)
    return Meter(1, "M1", address, "dlt645-2007", "line", model)


def meter_1997(address: str = ADDRESS) -> Meter:
    model = MeterModel("old", "dlt645-1997", Decimal(1000000), Decimal(60))
    return Meter(1, "M1", address, "dlt645-1997", "line", model)


def job(kind: ReadKind, *quantities: str, window: Window | None = None, of: Meter | None = None) -> ReadJob:
    return ReadJob(of or meter(), kind, quantities, window)


def converse(conversation: Conversation[T], answer: Callable[[bytes], Iterable[bytes]]) -> T:
    """Drive a conversation; `answer` gives the chunks that follow a request, after which the line is silent."""
    try:
        wish = next(conversation)
        chunks: Iterator[bytes] = iter(())
        while True:
            if isinstance(wish, Send):
                chunks = iter(answer(wish.data))
                if not wish.expect_reply:
                    wish = conversation.send(b"")
                    continue
            chunk = next(chunks, None)
            wish = conversation.throw(NoAnswer("silence")) if chunk is None else conversation.send(chunk)
    except StopIteration as stop:
        result: T = stop.value
        return result


@dataclass
class Slave:
    """A meter on the wire: gives `items` by identifier, refuses what it does not have. `asked` keeps every request.

    It speaks both versions: by the function of the request.
    """

    items: dict[str, bytes] = field(default_factory=dict)
    address: str = ADDRESS
    asked: list[str] = field(default_factory=list)
    load: Callable[[str, int, datetime], bytes] | None = None

    def __call__(self, request: bytes) -> Iterable[bytes]:
        frame = request.lstrip(b"\xfe")
        data = bytes((b - 0x33) % 256 for b in frame[10:-2])
        size = 2 if frame[8] == 0x01 else 4
        di = "".join(f"{b:02X}" for b in data[size - 1 :: -1])
        self.asked.append(di)
        if self.load is not None and di.startswith("06") and len(data) == 10:
            mm, hh, day, month, year = (int(f"{b:02X}") for b in data[5:])
            return [read_answer(di, self.load(di, data[4], local(2000 + year, month, day, hh, mm)), self.address)]
        if di in self.items:
            return [read_answer(di, self.items[di], self.address, frame[8] | 0x80)]
        return [refusal(0x02, self.address, frame[8] | 0xC0)]
