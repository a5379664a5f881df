"""An association's way to the meter: protection put on and taken off, general block transfer put together, and what is
no answer to the request set aside.

While we wait, a meter may send a notification (kept), or the answer to an earlier request (its invoke-id says so;
dropped). So a late answer is never taken for a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headend.access import Counter
from headend.conversation import Conversation
from headend.errors import BadFrame, LineDown, NoAccess, NoAnswer, ProtocolError
from headend.protocols.dlms.apdu import NOTIFICATIONS, Apdu, Part, Reply, invoke_byte, parse_part, parse_reply
from headend.protocols.dlms.failures import CounterRefused, OldAnswer, exception_of, service_error_of
from headend.protocols.dlms.link import Link
from headend.protocols.dlms.security import OVERHEAD, Ciphers, is_protected

__all__ = ["MAX_DATA", "Channel", "raise_counter"]

MAX_DATA = 16 << 20  # bytes of one answer put together: more than two years of a wide profile
MAX_SET_ASIDE = 64  # APDUs that are no answer, before we stop waiting
MAX_TOLD_COUNTER = 0xFFFF0000  # told in the clear: a counter this near its end would lock us out for good


def raise_counter(counter: Counter, told: int) -> None:
    """Go on above the counter the meter told. It is never lowered. Raises `NoAccess` where that can't be true."""
    if told >= MAX_TOLD_COUNTER:
        raise NoAccess(
            f"the meter names an invocation counter near its end, {told}",
            remedy="if it is true, change the meter's keys; the counter was left as it is",
        )
    counter.raise_to(told + 1)


@dataclass(slots=True)
class Channel:
    """One link and what protects it. max_pdu: bytes the meter takes in one APDU, 0 no limit. resend: a request the
    meter refused for its counter may go once more. silent: the last thing we waited for did not come, nor will
    another."""

    link: Link
    ciphers: Ciphers
    max_pdu: int = 0
    notifications: list[bytes] = field(default_factory=list)
    resend: bool = False
    silent: bool = False
    invoke: int = 0

    def next_invoke(self) -> int:
        """Invoke-Id-And-Priority of the next request; ids go round from 1 to 15."""
        settings = self.ciphers.settings
        self.invoke = self.invoke % 15 + 1
        return invoke_byte(self.invoke, confirmed=settings.confirmed, high_priority=settings.high_priority)

    @property
    def room(self) -> int:
        """Bytes a request may have before it is protected; 0: no limit."""
        if not self.max_pdu:
            return 0
        return max(self.max_pdu - (OVERHEAD if self.ciphers.settings.policy != "none" else 0), 1)

    def request(self, apdu: bytes, service: int) -> Conversation[Reply]:
        """The answer to `apdu`, a GET, SET or ACTION whose third byte is its invoke-id. service: tag it must have."""
        try:
            return (yield from self._request(apdu, service))
        except CounterRefused as refused:
            if refused.counter is None or not self.resend or self.ciphers.settings.counter_sync == "never":
                raise
            raise_counter(self.ciphers.access.counter("tx"), refused.counter)
        self.resend = False
        return (yield from self._request(apdu, service))

    def next_answer(self, apdu: bytes, service: int) -> Conversation[Reply]:
        """Another answer to `apdu`, which was sent already: the first one was no use."""
        return (yield from self._request(apdu, service, sent=True))

    def tell(self, apdu: bytes) -> Conversation[None]:
        """Send an unconfirmed request: no answer comes."""
        yield from self.link.send(self.ciphers.protect(apdu))

    def _request(self, apdu: bytes, service: int, *, sent: bool = False) -> Conversation[Reply]:
        old: OldAnswer | None = None
        raw = b"" if sent else (yield from self._exchange(self.ciphers.protect(apdu)))
        for turn in range(MAX_SET_ASIDE):
            try:
                if turn or sent:
                    raw = yield from self._receive()
                plain = yield from self._plain(raw)
            except OldAnswer as heard_before:
                old = heard_before
                continue
            except NoAnswer:
                if old is not None:
                    raise old from None
                raise
            if plain[0] in NOTIFICATIONS:
                self._keep(raw, plain)
            else:
                reply = parse_reply(plain)
                if (reply.invoke ^ apdu[2]) & 0x0F == 0 or not self.ciphers.settings.check_invoke:
                    if reply.service != service:
                        raise BadFrame(f"the meter answered {apdu[0]:02X} with {reply.service:02X}")
                    return reply
        raise BadFrame(f"{MAX_SET_ASIDE} messages came, none of them the answer")

    def associate(self, apdu: bytes, answer: int, shown: bytes | None = None) -> Conversation[bytes]:
        """The answer to an AARQ or RLRQ: the APDU with tag `answer`. shown: recorded in the request's place."""
        raw = yield from self._exchange(apdu, shown=shown)
        for turn in range(MAX_SET_ASIDE):
            if turn:  # what came belongs to an association before this one
                raw = yield from self._receive()
            raw = yield from self._whole(raw)
            tag = raw[0] if raw else -1
            if tag == answer:
                return raw
            if tag == Apdu.EXCEPTION:
                raise exception_of(raw)
            if tag == Apdu.SERVICE_ERROR:
                raise service_error_of(raw)
            if tag in NOTIFICATIONS:
                self._keep(raw, raw)
            elif tag not in (Apdu.GET_RESPONSE, Apdu.SET_RESPONSE, Apdu.ACTION_RESPONSE) and not is_protected(raw):
                said = f"{tag:02X}" if raw else "nothing"
                raise BadFrame(f"the meter answered {apdu[0]:02X} with {said}")
        raise BadFrame(f"{MAX_SET_ASIDE} messages came, none of them the answer")

    def _plain(self, raw: bytes) -> Conversation[bytes]:
        """`raw` put together and in the clear, never empty."""
        whole = yield from self._whole(raw)
        plain = whole if whole[:1] and whole[0] in NOTIFICATIONS else self.ciphers.unwrap(whole)
        if not plain:
            raise BadFrame("the meter answered with nothing")
        return plain

    def _whole(self, raw: bytes) -> Conversation[bytes]:
        """All blocks of a general block transfer that begins with `raw`; anything else as it is."""
        if raw[:1] != bytes((Apdu.BLOCK_TRANSFER,)):
            return raw
        parts: list[bytes] = []
        size = sent = 0
        block = parse_part(raw)
        while True:
            if block.number != len(parts) + 1:
                raise BadFrame(f"block {len(parts) + 1} of a general block transfer is lost, {block.number} came")
            parts.append(block.data)
            size += len(block.data)
            if size > MAX_DATA:
                raise BadFrame(f"a general block transfer has more than {MAX_DATA} bytes")
            if block.last:
                break
            if block.streaming:
                raw = yield from self._receive()
            else:
                sent += 1
                raw = yield from self._exchange(_acknowledgement(sent, block))
            if raw[:1] != bytes((Apdu.BLOCK_TRANSFER,)):
                raise BadFrame("something else came in the middle of a general block transfer")
            block = parse_part(raw)
        whole = b"".join(parts)
        if whole[:1] == bytes((Apdu.BLOCK_TRANSFER,)):
            raise BadFrame("a general block transfer holds another")
        return whole

    def _exchange(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[bytes]:
        return (yield from self._heard(self.link.exchange(apdu, shown=shown)))

    def _receive(self) -> Conversation[bytes]:
        return (yield from self._heard(self.link.receive()))

    def _heard(self, waiting: Conversation[bytes]) -> Conversation[bytes]:
        self.silent = True
        try:
            raw = yield from waiting
        except (NoAnswer, LineDown):
            raise
        except BaseException:
            self.silent = False
            raise
        self.silent = False
        self._collect()
        return raw

    def _collect(self) -> None:
        """Keep the notifications the link met while it waited. One we can't read is no reason to lose the answer."""
        while self.link.unsolicited:
            raw = self.link.unsolicited.pop(0)
            try:
                plain = raw if raw[:1] and raw[0] in NOTIFICATIONS else self.ciphers.unwrap(raw)
            except ProtocolError:
                continue
            if plain and plain[0] in NOTIFICATIONS:
                self._keep(raw, plain)

    def _keep(self, raw: bytes, plain: bytes) -> None:
        """Keep a notification. One in the clear, where policy asks for more, anybody could have sent."""
        settings = self.ciphers.settings
        trusted = settings.policy == "none" or (settings.push is not None and settings.push.plain)
        if trusted or raw[:1] != plain[:1]:
            self.notifications.append(plain)


def _acknowledgement(sent: int, block: Part) -> bytes:
    """We have nothing to send (last, empty), took all up to `block`, and take as many again."""
    control = 0x80 | (block.window or 1)
    return (
        bytes((Apdu.BLOCK_TRANSFER, control))
        + (sent & 0xFFFF).to_bytes(2, "big")
        + block.number.to_bytes(2, "big")
        + b"\x00"
    )
