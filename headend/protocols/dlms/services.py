"""GET, SET and ACTION whole: one APDU or many blocks each way (IEC 62056-5-3 clause 9.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Refused
from headend.protocols.dlms import apdu
from headend.protocols.dlms.apdu import ActionError, Apdu, DataAccessError, Kind, Reply
from headend.protocols.dlms.axdr import Datum, decode_all, encode
from headend.protocols.dlms.channel import MAX_DATA, Channel
from headend.protocols.dlms.cosem import Attribute

__all__ = ["action", "get", "get_list", "list_fits", "set_value"]

MAX_BLOCKS: Final = 65_536
MAX_EMPTY: Final = 8  # blocks without a byte in a row
MAX_REPEATED: Final = 4  # blocks that come again before the one that was asked for
BLOCK_HEADER = 24  # bytes of a first block beside its data, at most
SMALLEST_BLOCK = 16
LIST_HEADER = 4
LIST_ITEM = 10


def get(channel: Channel, attribute: Attribute, selection: bytes | None = None) -> Conversation[Datum]:
    """One attribute. Raises `DataAccessError` with the meter's code, `BadFrame`, and what the channel raises."""
    invoke = channel.next_invoke()
    reply = yield from channel.request(apdu.get(invoke, attribute, selection), Apdu.GET_RESPONSE)
    reply = yield from _whole(channel, reply, lambda number: apdu.get_next(invoke, number))
    if reply.code:
        raise DataAccessError(reply.code, where=str(attribute))
    if reply.kind not in (Kind.RESULT, Kind.BLOCK) or reply.data is None:
        raise BadFrame("the meter answered one GET with a list", where=str(attribute))
    return decode_all(reply.data)


def list_fits(room: int) -> int:
    """How many attributes one GET may name when it may have `room` bytes; 0 room: no limit."""
    return (room - LIST_HEADER) // LIST_ITEM if room else apdu.MAX_LIST


def get_list(channel: Channel, attributes: Sequence[Attribute]) -> Conversation[list[Datum | DataAccessError]]:
    """Several attributes at once, each with its value or its refusal. Raises `Refused` when the list itself is."""
    invoke = channel.next_invoke()
    reply = yield from channel.request(apdu.get_list(invoke, attributes), Apdu.GET_RESPONSE)
    reply = yield from _whole(channel, reply, lambda number: apdu.get_next(invoke, number))
    if reply.code:
        raise DataAccessError(reply.code)
    if reply.kind not in (Kind.LIST, Kind.BLOCK) or reply.data is None:
        raise Refused("the meter answers a list with a single value")
    return apdu.parse_list(reply.data, len(attributes))


def set_value(channel: Channel, attribute: Attribute, datum: Datum) -> Conversation[None]:
    """Write one attribute, in blocks where it does not fit. Raises `DataAccessError`. Sent once."""
    invoke = channel.next_invoke()
    data = encode(datum)
    request = apdu.set_value(invoke, attribute, data)
    if not channel.ciphers.settings.confirmed:
        yield from channel.tell(request)
        return
    if _fits(channel, request):
        reply = yield from channel.request(request, Apdu.SET_RESPONSE)
    else:
        reply = yield from _in_blocks(
            channel,
            data,
            lambda block: apdu.set_first_block(invoke, attribute, block),
            lambda block: apdu.set_block(invoke, block),
            Apdu.SET_RESPONSE,
        )
    if reply.kind is not Kind.RESULT:
        raise BadFrame("the meter wants more of a SET that is whole", where=str(attribute))
    if reply.code:
        raise DataAccessError(reply.code, where=str(attribute))


def action(
    channel: Channel, class_id: int, obis: bytes, method: int, datum: Datum | None, *, confirmed: bool | None = None
) -> Conversation[Datum | None]:
    """Run a method; what it returns. Raises `ActionError`. Sent once. confirmed: None as the settings say."""
    wanted = channel.ciphers.settings.confirmed if confirmed is None else confirmed
    invoke = channel.next_invoke() | wanted << 6
    data = None if datum is None else encode(datum)
    request = apdu.action(invoke, class_id, obis, method, data)
    if not wanted:
        yield from channel.tell(request)
        return None
    if data is None or _fits(channel, request):
        reply = yield from channel.request(request, Apdu.ACTION_RESPONSE)
    else:
        reply = yield from _in_blocks(
            channel,
            data,
            lambda block: apdu.action_first_block(invoke, class_id, obis, method, block),
            lambda block: apdu.action_block(invoke, block),
            Apdu.ACTION_RESPONSE,
        )
    reply = yield from _whole(channel, reply, lambda number: apdu.action_next(invoke, number))
    if reply.kind is Kind.NEXT:
        raise BadFrame("the meter wants more of an ACTION that is whole")
    if reply.kind is Kind.BLOCK and reply.data is not None:
        return _returned(reply.data)
    if reply.code:
        raise ActionError(reply.code)
    return None if reply.data is None else decode_all(reply.data)


def _returned(data: bytes) -> Datum | None:
    """What the blocks of an ACTION answer hold: the data itself, or a result and then the data. Meters do both."""
    try:
        return decode_all(data)
    except BadFrame:
        code, returned = apdu.parse_result(data)
    if code:
        raise ActionError(code)
    return None if returned is None else decode_all(returned)


def _whole(channel: Channel, reply: Reply, ask_next: Callable[[int], bytes]) -> Conversation[Reply]:
    """`reply`; where it is the first block, the last one with the data of all. Numbers start at 1, on some meters 0."""
    if reply.kind is not Kind.BLOCK:
        return reply
    parts: list[bytes] = []
    size = empty = 0
    expected = min(reply.number, 1)
    for _ in range(MAX_BLOCKS):
        if reply.number != expected:
            raise BadFrame(f"block {reply.number} came instead of {expected}")
        data = reply.data or b""
        parts.append(data)
        size += len(data)
        if reply.last:
            return reply._replace(data=b"".join(parts))
        empty = 0 if data else empty + 1
        if size > MAX_DATA or empty > MAX_EMPTY:
            raise BadFrame(f"the meter sends blocks without end ({size} bytes so far)")
        expected += 1
        reply = yield from _block(channel, ask_next(reply.number), reply.service, expected)
        if reply.code:
            return reply
        if reply.kind is not Kind.BLOCK:
            raise BadFrame("the meter breaks off an answer in blocks")
    raise BadFrame(f"an answer has more than {MAX_BLOCKS} blocks")


def _block(channel: Channel, request: bytes, service: int, expected: int) -> Conversation[Reply]:
    """The answer to a request for block `expected`. Blocks before it, which some meters send again, are passed over."""
    reply = yield from channel.request(request, service)
    for _ in range(MAX_REPEATED):
        if reply.code or reply.kind is not Kind.BLOCK or reply.number >= expected:
            break
        try:
            reply = yield from channel.next_answer(request, service)
        except NoAnswer:
            break
    return reply


def _fits(channel: Channel, request: bytes) -> bool:
    return not channel.room or len(request) <= channel.room


def _in_blocks(
    channel: Channel,
    data: bytes,
    first: Callable[[bytes], bytes],
    following: Callable[[bytes], bytes],
    service: int,
) -> Conversation[Reply]:
    """Send `data` in blocks as large as the meter takes; its answer to the last one, or to one it refuses."""
    size = max(channel.room - BLOCK_HEADER, SMALLEST_BLOCK)
    count = -(-len(data) // size)
    for number in range(1, count + 1):
        block = apdu.part(number, number == count, data[(number - 1) * size : number * size])
        reply = yield from channel.request((first if number == 1 else following)(block), service)
        if number == count or reply.code:
            return reply
        if reply.kind is not Kind.NEXT or reply.number != number:
            raise BadFrame(f"the meter does not acknowledge block {number} of {count}")
    raise AssertionError("data that does not fit has a block")
