"""Protected APDUs of one association: service-specific and general, global and dedicated key, counters both ways.

An answer is protected as its request was.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.dlms_axdr import Malformed, length, take_length
from simulators.dlms_cipher import BadTag, protect, unprotect
from simulators.dlms_hdlc import HangUp
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_services import Mute, Refusal

__all__ = ["Shield", "Shielding", "general_glo"]

_GENERAL_GLO, _GENERAL_DED = 0xDB, 0xDC
_GLO = {0x21: 0x01, 0xC8: 0xC0, 0xC9: 0xC1, 0xCB: 0xC3}
_DED = {0xD0: 0xC0, 0xD1: 0xC1, 0xD3: 0xC3}
_GLO_ANSWERS = {0x08: 0x28, 0xC4: 0xCC, 0xC5: 0xCD, 0xC7: 0xCF}
_DED_ANSWERS = {0xC4: 0xD4, 0xC5: 0xD5, 0xC7: 0xD7}
_BAD_KEY = b"\xd8\x01\x05"
_OLD_COUNTER = b"\xd8\x01\x06"


@dataclass(frozen=True, slots=True)
class Shield:
    """How a request was protected. control: its security control byte."""

    general: bool
    dedicated: bool
    control: int


def general_glo(
    meter: DlmsMeter,
    plain: bytes,
    control: int = 0x30,
    *,
    dedicated_key: bytes = b"",
    counter: int = -1,
    length_bytes: int = 0,
) -> bytes:
    """A general-glo-ciphering APDU of the meter, general-ded-ciphering with a key of its own. counter: -1 for the
    meter's next. length_bytes: of the length of the ciphered content, 0 for as many as needed."""
    spec = meter.spec
    number = meter.next_counter() if counter < 0 else counter
    key = dedicated_key or spec.encryption_key
    body = _spoiled(meter, protect(control, key, spec.authentication_key, meter.title, number, plain), control)
    title = b"" if spec.quirks.empty_title else meter.title
    tag = _GENERAL_DED if dedicated_key else _GENERAL_GLO
    size = (
        bytes((0x80 | length_bytes,)) + len(body).to_bytes(length_bytes, "big") if length_bytes else length(len(body))
    )
    return bytes((tag, len(title))) + title + size + body


def _spoiled(meter: DlmsMeter, body: bytes, control: int) -> bytes:
    """A wrong tag where the meter has one."""
    if meter.spec.quirks.wrong_tag and control & 0x10:
        return body[:-1] + bytes((body[-1] ^ 0x01,))
    return body


class Shielding:
    """title: the client's system title."""

    def __init__(self, meter: DlmsMeter, sap: int) -> None:
        self._meter = meter
        self._sap = sap
        self.title = b""
        self._dedicated = b""
        self._dedicated_seen = -1
        self._dedicated_own = 0

    def reset(self) -> None:
        """The association is gone."""
        self.title = b""
        self.dedicate(b"")

    def dedicate(self, key: bytes) -> None:
        """From now on this is the dedicated key; its counters begin anew."""
        self._dedicated, self._dedicated_seen, self._dedicated_own = key, -1, 0

    def open(self, apdu: bytes) -> tuple[bytes, Shield | None]:
        """The plain APDU and how it was protected, None for a plain one. Refusal, Mute, HangUp when it can't be
        opened."""
        tag = apdu[0]
        if tag in (_GENERAL_GLO, _GENERAL_DED):
            size, at = take_length(apdu, 1)
            title, at = apdu[at : at + size], at + size
            body = self._body(apdu, at)
            shield = Shield(True, tag == _GENERAL_DED, body[0])
            return self._plain(body, shield, title or self.title), shield
        if tag in _GLO or tag in _DED:
            body = self._body(apdu, 1)
            shield = Shield(False, tag in _DED, body[0])
            return self._plain(body, shield, self.title), shield
        return apdu, None

    @staticmethod
    def _body(apdu: bytes, at: int) -> bytes:
        size, at = take_length(apdu, at)
        if at + size != len(apdu) or size < 5:
            raise Malformed("protected APDU cut short")
        return apdu[at:]

    def _plain(self, body: bytes, shield: Shield, title: bytes) -> bytes:
        spec = self._meter.spec
        key = self._dedicated if shield.dedicated else spec.encryption_key
        if len(title) != 8 or not key or body[0] & 0x0F:
            self._bad(_BAD_KEY)
        try:
            plain = unprotect(key, spec.authentication_key, title, body)
        except BadTag:
            self._bad(_BAD_KEY)
        self._count(int.from_bytes(body[1:5], "big"), shield.dedicated)
        self.title = self.title or title
        return plain

    def _count(self, counter: int, dedicated: bool) -> None:
        """A client's counter must rise; for a key shared with no other, from the last one seen."""
        seen = self._dedicated_seen if dedicated else self._meter.seen.get(self._sap, -1)
        if counter <= seen:
            known = (seen & 0xFFFFFFFF).to_bytes(4, "big") if self._meter.spec.quirks.counter_in_exception else b""
            self._bad(_OLD_COUNTER + known if known else b"\xd8\x01\x03")
        if dedicated:
            self._dedicated_seen = counter
        else:
            self._meter.seen[self._sap] = counter

    def _bad(self, exception: bytes) -> None:
        how = self._meter.spec.quirks.on_bad
        if how == "close":
            raise HangUp
        if how == "silent":
            raise Mute
        raise Refusal(exception)

    def close(self, plain: bytes, shield: Shield | None) -> bytes:
        """The answer, protected as `shield`."""
        if shield is None:
            return plain
        meter, key = self._meter, b""
        number = -1
        if shield.dedicated:
            key, number = self._dedicated, self._dedicated_own
            self._dedicated_own += 1
        if shield.general:
            return general_glo(meter, plain, shield.control, dedicated_key=key, counter=number)
        tag = (_DED_ANSWERS if shield.dedicated else _GLO_ANSWERS)[plain[0]]
        spec = meter.spec
        counter = number if shield.dedicated else meter.next_counter()
        body = protect(shield.control, key or spec.encryption_key, spec.authentication_key, meter.title, counter, plain)
        body = _spoiled(meter, body, shield.control)
        return bytes((tag,)) + length(len(body)) + body
