"""GET, SET and ACTION of one association: plain APDUs in and out, in blocks where they do not fit (Green Book 9.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from simulators import dlms_axdr as axdr
from simulators.dlms_axdr import Malformed, Value
from simulators.dlms_hdlc import HangUp
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_objects import INCONSISTENT, UNDEFINED, Denied, Thing

__all__ = ["NOT_ALLOWED", "Mute", "Refusal", "Services"]

NOT_ALLOWED = b"\xd8\x01\x01"
_NOT_SUPPORTED = b"\xd8\x02\x02"
_OTHER_REASON = b"\xd8\x01\x03"
_NO_BLOCK, _BLOCK_NUMBER, _LONG_ABORTED, _TEMPORARY = 14, 19, 15, 2
_BLOCK_HEAD = 12  # bytes of a block APDU before its data


class Mute(Exception):
    """The meter says nothing."""


class Refusal(Exception):
    """The meter answers with this APDU instead."""

    def __init__(self, apdu: bytes) -> None:
        super().__init__(apdu)
        self.apdu = apdu


@dataclass(slots=True)
class _Long:
    """An answer under way in blocks. number: of the first of them."""

    blocks: list[bytes]
    number: int
    sent: int = 0


@dataclass(slots=True)
class _Coming:
    """A request under way in blocks."""

    kind: int
    head: bytes
    number: int
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Services:
    """The services of one open association. things: by OBIS. max_pdu: the longest plain APDU the client takes."""

    meter: DlmsMeter
    things: dict[str, Thing]
    max_pdu: int
    _long: _Long | None = None
    _coming: _Coming | None = None

    def answer(self, apdu: bytes) -> bytes:
        """The answer to a plain request. Refusal, Mute, HangUp; Malformed when it is no request."""
        if len(apdu) < 3:
            raise Malformed("too short")
        serve = {0xC0: self._get, 0xC1: self._set, 0xC3: self._action}.get(apdu[0])
        if serve is None:
            raise Refusal(_NOT_SUPPORTED)
        return serve(apdu[1], self._invoke(apdu[2]), apdu, 3)

    def _invoke(self, asked: int) -> int:
        return 0xC1 if self.meter.spec.quirks.invoke_stuck else asked

    def _fails(self, step: str) -> bool:
        """Whether this step is refused; raises what else befalls it."""
        how = self.meter.fails(step)
        if how == "silent":
            raise Mute
        if how == "close":
            raise HangUp
        if how == "garbage":
            raise Refusal(self.meter.noise())
        if how == "exception":
            raise Refusal(_OTHER_REASON)
        return how == "refuse"

    def _thing(self, class_id: int, raw: bytes) -> Thing:
        thing = self.things.get(axdr.obis_text(raw))
        if thing is None:
            raise Denied(UNDEFINED)
        if thing.class_id != class_id:
            raise Denied(INCONSISTENT)
        return thing

    # -- GET -----------------------------------------------------------------------------------------------------

    def _get(self, kind: int, invoke: int, apdu: bytes, at: int) -> bytes:
        if kind == 2:
            return self._next_block(invoke, int.from_bytes(apdu[at:], "big"))
        refused = self._fails("get")
        self._long = None
        if kind == 1:
            result = self._read_one(apdu, at, refused)[0]
            return self._fit(invoke, bytes((0xC4, 1, invoke)), result, result[1:] if result[0] == 0 else b"")
        if kind != 3:
            raise Refusal(_NOT_SUPPORTED)
        quirks = self.meter.spec.quirks
        if quirks.with_list in ("exception", "none"):
            raise Refusal(_NOT_SUPPORTED)
        count, at = axdr.take_length(apdu, at)
        refused = refused or quirks.with_list == "refuse" or count > quirks.with_list_max
        results = []
        for _ in range(count):
            result, at = self._read_one(apdu, at, refused)
            results.append(result)
        body = axdr.length(count) + b"".join(results)
        return self._fit(invoke, bytes((0xC4, 3, invoke)), body, body)

    def _read_one(self, apdu: bytes, at: int, refused: bool) -> tuple[bytes, int]:
        """A get-data-result, and where its descriptor ended."""
        class_id, name, attribute, at = _descriptor(apdu, at)
        selection: tuple[int, Value] | None = None
        if apdu[at : at + 1] == b"\x01":
            if at + 1 >= len(apdu):
                raise Malformed("selection cut short")
            value, end = axdr.decode(apdu, at + 2)
            selection, at = (apdu[at + 1], value), end
        else:
            at += 1
        try:
            if refused:
                raise Denied(_TEMPORARY)
            return b"\x00" + self._thing(class_id, name).get(self.meter, attribute, selection), at
        except Denied as no:
            return bytes((1, no.result)), at

    def _fit(self, invoke: int, head: bytes, body: bytes, raw: bytes) -> bytes:
        """The answer whole, or the first block of `raw`."""
        quirks = self.meter.spec.quirks
        if not raw or (len(head) + len(body) <= self.max_pdu and not quirks.always_blocks):
            return head + body
        size = max(self.max_pdu - _BLOCK_HEAD, 1)
        blocks = [raw[at : at + size] for at in range(0, len(raw), size)]
        if quirks.empty_last_block and len(blocks) > 1:
            blocks.append(b"")
        self._long = _Long(blocks, quirks.first_block)
        return self._block(invoke, self._long)

    def _block(self, invoke: int, long: _Long) -> bytes:
        data = long.blocks[long.sent]
        last = long.sent == len(long.blocks) - 1
        number = (long.number + long.sent).to_bytes(4, "big")
        long.sent += 1
        if last:
            self._long = None
        return bytes((0xC4, 2, invoke, last)) + number + b"\x00" + axdr.length(len(data)) + data

    def _next_block(self, invoke: int, number: int) -> bytes:
        """The block after `number`, as GET-Request-Next confirms it."""
        long = self._long
        refused = self._fails("block")
        wrong = _LONG_ABORTED if refused else _NO_BLOCK if long is None else 0
        if long is not None and not wrong and number != long.number + long.sent - 1:
            wrong = _BLOCK_NUMBER
        if wrong or long is None:
            self._long = None
            return bytes((0xC4, 2, invoke, 1)) + number.to_bytes(4, "big") + bytes((1, wrong))
        return self._block(invoke, long)

    # -- SET -----------------------------------------------------------------------------------------------------

    def _set(self, kind: int, invoke: int, apdu: bytes, at: int) -> bytes:
        if kind == 3:
            return self._more(invoke, apdu, at, 0xC5)
        refused = self._fails("set")
        if kind in (1, 2):
            end = _descriptor_end(apdu, at)
            if kind == 2:
                return self._begin(kind, invoke, apdu, at, end, 0xC5)
            return bytes((0xC5, 1, invoke, self._write(apdu[at:end], apdu[end:], refused)))
        if kind == 4:
            results = self._write_list(apdu, at, refused)
            return bytes((0xC5, 5, invoke)) + axdr.length(len(results)) + bytes(results)
        raise Refusal(_NOT_SUPPORTED)

    def _write(self, descriptor: bytes, data: bytes, refused: bool = False) -> int:
        class_id, name, attribute, _ = _descriptor(descriptor, 0)
        value, end = axdr.decode(data)
        if end != len(data):
            raise Malformed("bytes after the value")
        return self._attempt(lambda: self._thing(class_id, name).set(attribute, value), refused)

    def _attempt(self, what: Callable[[], None], refused: bool) -> int:
        try:
            if refused:
                raise Denied(_TEMPORARY)
            what()
        except Denied as no:
            return no.result
        return 0

    def _write_list(self, apdu: bytes, at: int, refused: bool) -> list[int]:
        count, at = axdr.take_length(apdu, at)
        ends = []
        for _ in range(count):
            end = _descriptor_end(apdu, at)
            ends.append((at, end))
            at = end
        _, at = axdr.take_length(apdu, at)
        results = []
        for start, end in ends:
            _, after = axdr.decode(apdu, at)
            results.append(self._write(apdu[start:end], apdu[at:after], refused))
            at = after
        return results

    # -- requests in blocks ----------------------------------------------------------------------------------------

    def _begin(self, kind: int, invoke: int, apdu: bytes, at: int, end: int, answer: int) -> bytes:
        """The first block of a SET or ACTION: its descriptor, then the block."""
        self._coming = _Coming(answer, apdu[at:end], 0)
        return self._more(invoke, apdu, end, answer)

    def _more(self, invoke: int, apdu: bytes, at: int, answer: int) -> bytes:
        coming = self._coming
        if coming is None or coming.kind != answer:
            raise Refusal(_OTHER_REASON)
        last, number, data = _block(apdu, at)
        if number != coming.number + 1:
            self._coming = None
            return bytes((answer, 3, invoke, _BLOCK_NUMBER)) + number.to_bytes(4, "big")
        coming.number = number
        coming.data += data
        if not last:
            return bytes((answer, 2 if answer == 0xC5 else 4, invoke)) + number.to_bytes(4, "big")
        self._coming = None
        if answer == 0xC5:
            result = self._write(coming.head, bytes(coming.data))
            return bytes((answer, 3, invoke, result)) + number.to_bytes(4, "big")
        return self._done(invoke, *self._invoke_method(coming.head, bytes(coming.data), False))

    # -- ACTION --------------------------------------------------------------------------------------------------

    def _action(self, kind: int, invoke: int, apdu: bytes, at: int) -> bytes:
        if kind == 6:
            return self._more(invoke, apdu, at, 0xC7)
        refused = self._fails("action")
        if kind == 4:
            return self._begin(kind, invoke, apdu, at, at + 9, 0xC7)
        if kind != 1:
            raise Refusal(_NOT_SUPPORTED)
        _descriptor(apdu, at)
        end = at + 9
        data = apdu[end + 1 :] if apdu[end : end + 1] == b"\x01" else b""
        return self._done(invoke, *self._invoke_method(apdu[at:end], data, refused))

    def _invoke_method(self, descriptor: bytes, data: bytes, refused: bool) -> tuple[int, bytes | None]:
        class_id, name, method, _ = _descriptor(descriptor, 0)
        value: Value = axdr.decode(data)[0] if data else (0, None)
        try:
            if refused:
                raise Denied(_TEMPORARY)
            return 0, self._thing(class_id, name).do(method, value)
        except Denied as no:
            return no.result, None

    @staticmethod
    def _done(invoke: int, result: int, returned: bytes | None) -> bytes:
        tail = b"\x00" if returned is None else b"\x01\x00" + returned
        return bytes((0xC7, 1, invoke, result)) + tail


def _descriptor(apdu: bytes, at: int) -> tuple[int, bytes, int, int]:
    """Class, instance, attribute or method, and where it ends."""
    if at + 9 > len(apdu):
        raise Malformed("descriptor cut short")
    return int.from_bytes(apdu[at : at + 2], "big"), apdu[at + 2 : at + 8], apdu[at + 8], at + 9


def _descriptor_end(apdu: bytes, at: int) -> int:
    """Where an attribute descriptor with its selection ends."""
    end = _descriptor(apdu, at)[3]
    if apdu[end : end + 1] != b"\x01":
        return end + 1
    return axdr.decode(apdu, end + 2)[1]


def _block(apdu: bytes, at: int) -> tuple[bool, int, bytes]:
    """Last, number and data of a DataBlock-SA."""
    if at + 5 > len(apdu):
        raise Malformed("block cut short")
    size, start = axdr.take_length(apdu, at + 5)
    if start + size != len(apdu):
        raise Malformed("block cut short")
    return bool(apdu[at]), int.from_bytes(apdu[at + 1 : at + 5], "big"), apdu[start:]
