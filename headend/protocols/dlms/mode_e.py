"""The sign-on of IEC 62056-21 that leads to HDLC (mode E, 6.4.5): /?!, the meter's identification, ACK 2 Z 2.

It speaks 7E1. A serial server that is set to 8N1 hands the parity bit through as bit 7: it is taken off, and put on
where that is what the meter seems to wait for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headend.conversation import MORE, Conversation, Pause, Send, SetSpeed
from headend.endpoints import parse_serial
from headend.errors import BadFrame, NoAnswer, ProtocolError, Unsupported
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["BAUDS", "SignOn", "sign_on", "with_parity"]

BAUDS: Final = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}

_MAX_HEARD: Final = 512
_REPLY_S: Final = 1.5  # longest time to an answer (6.3.14)
_REACTION_S: Final = 0.2  # shortest time between a message and the next
_SEVEN_BITS: Final = bytes(byte & 0x7F for byte in range(256))
_EVEN: Final = bytes(byte | 0x80 if byte.bit_count() % 2 else byte for byte in range(128)) + bytes(range(128, 256))
_IDENTIFICATION: Final = re.compile(rb"/([A-Za-z]{3})([\x21-\x7e])([^\r\n]{0,40})\r\n")
_READOUT: Final = re.compile(rb"\x02[\x20-\x7e\r\n]{0,40}\(|\([\x20-\x7e]{0,60}\)\r\n")


@dataclass(frozen=True, slots=True)
class SignOn:
    """What a sign-on gave: speed to go on with and the one it began at (bits per second), and who the meter says it
    is: the manufacturer's three letters and its identification."""

    baud: int
    start_baud: int
    manufacturer: str
    identification: str


def with_parity(text: bytes) -> bytes:
    """Seven-bit characters with their even parity in bit 7."""
    return text.translate(_EVEN)


def sign_on(settings: DlmsSettings) -> Conversation[SignOn]:
    """Sign on and propose HDLC. The speed is still that of the start when it returns.

    Raises `Unsupported` when the meter has no mode E or gives a readout instead, `NoAnswer`, `BadFrame`.
    """
    start_baud = parse_serial(settings.mode_e_start)[0]
    yield SetSpeed(settings.mode_e_start)
    request = f"/?{settings.mode_e_device}!\r\n".encode("ascii", "replace")
    heard, found = yield from _identification(settings, request)
    letter = _proposed(settings, found)
    confirm = b"\x062" + letter.encode() + b"2\r\n"
    yield Pause(_REACTION_S)
    echoed = request in heard.translate(_SEVEN_BITS)
    yield from _confirmed(with_parity(confirm) if max(heard) > 0x7F else confirm, echoed=echoed)
    return SignOn(BAUDS[letter], start_baud, found[1].decode(), found[3].decode("ascii", "replace"))


def _identification(settings: DlmsSettings, request: bytes) -> Conversation[tuple[bytes, re.Match[bytes]]]:
    """What was heard, and the meter's identification in it. Every other question carries parity bits of our own."""
    heard = b""
    for attempt in range(settings.link_retries + 1):
        heard = b""
        try:
            chunk = yield Send(with_parity(request) if attempt % 2 else request, settings.reply_s or _REPLY_S + 0.5)
            while len(heard) < _MAX_HEARD:
                heard += chunk
                found = _answer(heard)
                if found is not None:
                    return heard, found
                chunk = yield MORE
        except NoAnswer:
            pass
    raise _nothing(heard)


def _answer(heard: bytes) -> re.Match[bytes] | None:
    """The identification in what was heard. Raises `Unsupported` when data follow it or stand in its place."""
    text = heard.translate(_SEVEN_BITS)
    if _READOUT.search(text):
        raise _readout()
    return _IDENTIFICATION.search(text)


def _proposed(settings: DlmsSettings, found: re.Match[bytes]) -> str:
    """The letter of the speed to go to: the settings', else the meter's own."""
    letter = found[2].decode()
    if letter not in BAUDS:
        raise Unsupported(
            f"the meter {found[1].decode()} offers speed {letter!r}, which is none of mode E",
            where="mode E sign-on",
            remedy="set mode_e = false if it speaks HDLC at once",
        )
    for own, baud in BAUDS.items():
        if baud == settings.mode_e_baud:
            return own
    return letter


def _confirmed(confirm: bytes, *, echoed: bool) -> Conversation[None]:
    """Send ACK 2 Z 2 and wait: the meter may say the same, at its new speed, and needs its time either way.

    A meter without mode E starts its readout here.
    """
    plain = confirm.translate(_SEVEN_BITS)
    heard = b""
    try:
        chunk = yield Send(confirm, _REPLY_S)
        while len(heard) < _MAX_HEARD:
            heard += chunk
            text = heard.translate(_SEVEN_BITS)
            if _READOUT.search(text):
                raise _readout()
            if text.count(plain) > echoed:
                yield Pause(_REACTION_S)
                return
            chunk = yield MORE
    except NoAnswer:
        return


def _readout() -> Unsupported:
    return Unsupported(
        "the meter answers the sign-on with a readout of its registers: it does not take up HDLC here",
        where="mode E sign-on",
        remedy="does it need another device address, speed or port? set mode_e = false if it speaks HDLC at once",
    )


def _nothing(heard: bytes) -> ProtocolError:
    if heard:
        return BadFrame(
            f"{len(heard)} bytes came that are no identification",
            where="mode E sign-on",
            remedy="check mode_e_start (300 7E1 in most meters) and the speed of a serial server",
        )
    return NoAnswer("no answer", where="mode E sign-on", remedy="check the optical head, mode_e_start and the device")
