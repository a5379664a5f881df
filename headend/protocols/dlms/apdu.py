"""xDLMS service APDUs of logical-name referencing: requests as bytes, answers as `Reply` (IEC 62056-5-3 clause 8).

Everything here is one APDU at a time and unciphered; blocks and lists are put together in services.py. An answer that
is no answer raises: an exception response or a service error what it says, anything else `BadFrame`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from headend.errors import BadFrame
from headend.protocols.dlms.axdr import Datum, Tag, decode, encode, encode_length
from headend.protocols.dlms.cosem import Attribute
from headend.protocols.dlms.failures import ActionError, CounterRefused, DataAccessError, exception_of, service_error_of

__all__ = [
    "NOTIFICATIONS",
    "ActionError",
    "Apdu",
    "CounterRefused",
    "DataAccessError",
    "Kind",
    "Part",
    "Reader",
    "Reply",
    "action",
    "action_block",
    "action_first_block",
    "action_next",
    "entry_descriptor",
    "get",
    "get_list",
    "get_next",
    "invoke_byte",
    "parse_list",
    "parse_part",
    "parse_reply",
    "parse_result",
    "part",
    "range_descriptor",
    "set_block",
    "set_first_block",
    "set_value",
]


class Apdu(IntEnum):
    """Tags of unciphered APDUs."""

    INITIATE_REQUEST = 0x01
    INITIATE_RESPONSE = 0x08
    SERVICE_ERROR = 0x0E
    DATA_NOTIFICATION = 0x0F
    AARQ = 0x60
    AARE = 0x61
    RLRQ = 0x62
    RLRE = 0x63
    GET_REQUEST = 0xC0
    SET_REQUEST = 0xC1
    EVENT_NOTIFICATION = 0xC2
    ACTION_REQUEST = 0xC3
    GET_RESPONSE = 0xC4
    SET_RESPONSE = 0xC5
    ACTION_RESPONSE = 0xC7
    EXCEPTION = 0xD8
    BLOCK_TRANSFER = 0xE0


NOTIFICATIONS: Final = frozenset({Apdu.DATA_NOTIFICATION, Apdu.EVENT_NOTIFICATION})

OTHER_REASON = 250  # taken for a refusal whose code says success
MAX_LIST = 255  # items of an answer to a GET with a list; what is asked for is fewer


class Kind(IntEnum):
    """What an answer holds."""

    RESULT = 1  # data, or a result code
    BLOCK = 2  # one block of the data
    LIST = 3  # several results
    NEXT = 4  # the meter wants the next block of the request


class Reply(NamedTuple):
    """One answer. service: its tag. code: result (0 success); data: encoded data, None where there is none; number and
    last: of a block, or of the block it acknowledges."""

    service: int
    kind: Kind
    invoke: int
    code: int = 0
    data: bytes | None = None
    number: int = 0
    last: bool = True


class Reader:
    """A cursor over the bytes of an APDU. Reading past the end raises `BadFrame`."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise BadFrame("an answer ends too early", remedy="read again; on a clean line report the meter's model")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def number(self, size: int = 1) -> int:
        """The next unsigned number of `size` bytes, highest first."""
        return int.from_bytes(self.take(size), "big")

    def length(self) -> int:
        """A length in one byte, or after 81, 82, 83, 84 in as many; the same in A-XDR and BER."""
        first = self.number()
        if first < 0x80:
            return first
        if first not in (0x81, 0x82, 0x83, 0x84):
            raise BadFrame(f"an answer holds a length of the form {first:02X}, which means nothing")
        return self.number(first & 0x7F)

    def octets(self) -> bytes:
        """A length and as many bytes."""
        return self.take(self.length())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise BadFrame(f"an answer has {self.left} byte(s) too many")


# --- Requests


def invoke_byte(number: int, *, confirmed: bool, high_priority: bool) -> int:
    """Invoke-Id-And-Priority: number 0 to 15, service class in bit 6, priority in bit 7."""
    return number & 0x0F | confirmed << 6 | high_priority << 7


def _descriptor(class_id: int, obis: bytes, index: int) -> bytes:
    return class_id.to_bytes(2, "big") + obis + index.to_bytes(1, "big", signed=index < 0)


def _selected(attribute: Attribute, selection: bytes | None) -> bytes:
    return _descriptor(*attribute) + (b"\x01" + selection if selection else b"\x00")


def get(invoke: int, attribute: Attribute, selection: bytes | None = None) -> bytes:
    """GET-Request-Normal."""
    return bytes((Apdu.GET_REQUEST, 1, invoke)) + _selected(attribute, selection)


def get_next(invoke: int, number: int) -> bytes:
    """GET-Request-Next: the block after `number`."""
    return bytes((Apdu.GET_REQUEST, 2, invoke)) + number.to_bytes(4, "big")


def get_list(invoke: int, attributes: Sequence[Attribute]) -> bytes:
    """GET-Request-With-List, without selection."""
    items = b"".join(_selected(attribute, None) for attribute in attributes)
    return bytes((Apdu.GET_REQUEST, 3, invoke)) + encode_length(len(attributes)) + items


def set_value(invoke: int, attribute: Attribute, data: bytes) -> bytes:
    """SET-Request-Normal."""
    return bytes((Apdu.SET_REQUEST, 1, invoke)) + _selected(attribute, None) + data


def set_first_block(invoke: int, attribute: Attribute, block: bytes) -> bytes:
    """SET-Request-With-First-Datablock; block: of `part`."""
    return bytes((Apdu.SET_REQUEST, 2, invoke)) + _selected(attribute, None) + block


def set_block(invoke: int, block: bytes) -> bytes:
    """SET-Request-With-Datablock."""
    return bytes((Apdu.SET_REQUEST, 3, invoke)) + block


def action(invoke: int, class_id: int, obis: bytes, method: int, data: bytes | None) -> bytes:
    """ACTION-Request-Normal."""
    parameters = b"\x00" if data is None else b"\x01" + data
    return bytes((Apdu.ACTION_REQUEST, 1, invoke)) + _descriptor(class_id, obis, method) + parameters


def action_next(invoke: int, number: int) -> bytes:
    """ACTION-Request-Next-Pblock: the block of the answer after `number`."""
    return bytes((Apdu.ACTION_REQUEST, 2, invoke)) + number.to_bytes(4, "big")


def action_first_block(invoke: int, class_id: int, obis: bytes, method: int, block: bytes) -> bytes:
    """ACTION-Request-With-First-Pblock; block: of `part`."""
    return bytes((Apdu.ACTION_REQUEST, 4, invoke)) + _descriptor(class_id, obis, method) + block


def action_block(invoke: int, block: bytes) -> bytes:
    """ACTION-Request-With-Pblock."""
    return bytes((Apdu.ACTION_REQUEST, 6, invoke)) + block


def part(number: int, last: bool, data: bytes) -> bytes:
    """A data block of a SET or ACTION request (DataBlock-SA)."""
    return bytes((last,)) + number.to_bytes(4, "big") + encode_length(len(data)) + data


# --- Selective access (Blue Book, class 7, attribute 2)


def range_descriptor(restricting: Attribute, start: Datum, end: Datum, columns: Sequence[Attribute] = ()) -> bytes:
    """Rows whose column `restricting` lies between `start` and `end`, both included; no columns: all of them."""
    return b"\x01" + encode(
        Datum(
            Tag.STRUCTURE,
            (_column(restricting), start, end, Datum(Tag.ARRAY, tuple(_column(column) for column in columns))),
        )
    )


def entry_descriptor(first: int, last: int, first_column: int = 1, last_column: int = 0) -> bytes:
    """Rows by number from 1 (last 0: to the end), columns likewise."""
    rows = tuple(Datum(Tag.DOUBLE_LONG_UNSIGNED, number) for number in (first, last))
    columns = tuple(Datum(Tag.LONG_UNSIGNED, number) for number in (first_column, last_column))
    return b"\x02" + encode(Datum(Tag.STRUCTURE, rows + columns))


def _column(attribute: Attribute) -> Datum:
    return Datum(
        Tag.STRUCTURE,
        (
            Datum(Tag.LONG_UNSIGNED, attribute.class_id),
            Datum(Tag.OCTET_STRING, attribute.obis),
            Datum(Tag.INTEGER, attribute.index),
            Datum(Tag.LONG_UNSIGNED, 0),
        ),
    )


# --- Answers


def parse_reply(apdu: bytes) -> Reply:
    """An answer to GET, SET or ACTION. Raises what an exception response or service error says, else `BadFrame`."""
    tag = apdu[0] if apdu else -1
    if tag == Apdu.EXCEPTION:
        raise exception_of(apdu)
    if tag == Apdu.SERVICE_ERROR:
        raise service_error_of(apdu)
    reader = Reader(apdu, 1)
    if tag == Apdu.GET_RESPONSE:
        return _get(reader, reader.number(), reader.number())
    if tag == Apdu.SET_RESPONSE:
        return _set(reader, reader.number(), reader.number())
    if tag == Apdu.ACTION_RESPONSE:
        return _action(reader, reader.number(), reader.number())
    said = f"{tag:02X}" if apdu else "nothing"
    raise BadFrame(f"the meter answered with {said}, which is no answer to the request")


def _get(reader: Reader, choice: int, invoke: int) -> Reply:
    if choice == 1:
        data, code = _get_data_result(reader)
        return Reply(Apdu.GET_RESPONSE, Kind.RESULT, invoke, code, data)
    if choice == 2:
        last, number = bool(reader.number()), reader.number(4)
        if _choice(reader):
            code = reader.number()
            return Reply(Apdu.GET_RESPONSE, Kind.RESULT, invoke, code or OTHER_REASON, None, number)
        data = reader.octets()
        reader.end()
        return Reply(Apdu.GET_RESPONSE, Kind.BLOCK, invoke, 0, data, number, last)
    if choice == 3:
        return Reply(Apdu.GET_RESPONSE, Kind.LIST, invoke, 0, reader.rest())
    raise _strange("GET", choice)


def _set(reader: Reader, choice: int, invoke: int) -> Reply:
    if choice == 1:
        return Reply(Apdu.SET_RESPONSE, Kind.RESULT, invoke, reader.number())
    if choice == 2:
        return Reply(Apdu.SET_RESPONSE, Kind.NEXT, invoke, number=reader.number(4))
    if choice == 3:
        code = reader.number()
        return Reply(Apdu.SET_RESPONSE, Kind.RESULT, invoke, code, number=reader.number(4))
    raise _strange("SET", choice)


def _action(reader: Reader, choice: int, invoke: int) -> Reply:
    if choice == 1:
        code, data = parse_result(reader.rest())
        return Reply(Apdu.ACTION_RESPONSE, Kind.RESULT, invoke, code, data)
    if choice == 2:
        last, number, data = bool(reader.number()), reader.number(4), reader.octets()
        reader.end()
        return Reply(Apdu.ACTION_RESPONSE, Kind.BLOCK, invoke, 0, data, number, last)
    if choice == 4:
        return Reply(Apdu.ACTION_RESPONSE, Kind.NEXT, invoke, number=reader.number(4))
    raise _strange("ACTION", choice)


def _get_data_result(reader: Reader) -> tuple[bytes | None, int]:
    """Get-Data-Result that is the rest of an APDU: its data, or a code that is not 0."""
    if not _choice(reader):
        return reader.rest(), 0
    return None, reader.number() or OTHER_REASON


def _choice(reader: Reader) -> int:
    choice = reader.number()
    if choice > 1:
        raise BadFrame(f"an answer holds neither data nor a result but {choice:02X}")
    return choice


def _strange(service: str, choice: int) -> BadFrame:
    return BadFrame(f"the meter answered {service} with a form {choice} that was not asked for")


def parse_result(data: bytes) -> tuple[int, bytes | None]:
    """Action-Response-With-Optional-Data: result, and the encoded data it returns. Some meters end after the result."""
    reader = Reader(data)
    code = reader.number()
    if not reader.left or not _choice(reader):
        return code, None
    returned, error = _get_data_result(reader)
    return code or error, returned


def parse_list(data: bytes, asked: int) -> list[Datum | DataAccessError]:
    """The results of a GET with a list, `asked` of them."""
    reader = Reader(data)
    count = reader.length()
    if count != asked or count > MAX_LIST:
        raise BadFrame(f"{asked} values were asked for in one list, the meter answered {count}")
    results: list[Datum | DataAccessError] = []
    for _ in range(count):
        if _choice(reader):
            results.append(DataAccessError(reader.number() or OTHER_REASON))
        else:
            datum, reader.at = decode(data, reader.at)
            results.append(datum)
    reader.end()
    return results


class Part(NamedTuple):
    """One block of a general block transfer. window: blocks the sender takes before it wants an acknowledgement."""

    last: bool
    streaming: bool
    window: int
    number: int
    acknowledged: int
    data: bytes


def parse_part(apdu: bytes) -> Part:
    """A general block transfer APDU (E0)."""
    reader = Reader(apdu, 1)
    control = reader.number()
    block = Part(
        bool(control & 0x80), bool(control & 0x40), control & 0x3F, reader.number(2), reader.number(2), reader.octets()
    )
    reader.end()
    return block
