"""Lengths and windows of an HDLC link, as SNRM proposes and UA settles them (Green Book 8.4.5.3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headend.protocols.dlms.hdlc import MAX_INFO
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["Limits", "accepted", "proposal"]

_FORMAT: Final = b"\x81\x80"  # format identifier, group identifier
_SEND_BYTES, _RECEIVE_BYTES, _SEND_WINDOW, _RECEIVE_WINDOW = 5, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Limits:
    """From our side: longest information field, and frames without a confirmation between. Defaults: ISO/IEC 13239."""

    send_bytes: int = 128
    receive_bytes: int = 128
    send_window: int = 1
    receive_window: int = 1

    @staticmethod
    def of(settings: DlmsSettings) -> Limits:
        """What the settings propose."""
        return Limits(settings.max_info_tx, settings.max_info_rx, settings.window_tx, settings.window_rx)


def proposal(limits: Limits) -> bytes:
    """The information field of SNRM."""
    body = _length(_SEND_BYTES, limits.send_bytes) + _length(_RECEIVE_BYTES, limits.receive_bytes)
    for identifier, window in ((_SEND_WINDOW, limits.send_window), (_RECEIVE_WINDOW, limits.receive_window)):
        body += bytes((identifier, 4)) + window.to_bytes(4, "big")
    return _FORMAT + bytes((len(body),)) + body


def _length(identifier: int, value: int) -> bytes:
    size = 1 if value < 0x100 else 2
    return bytes((identifier, size)) + value.to_bytes(size, "big")


def accepted(proposed: Limits, info: bytes) -> Limits:
    """What holds after a UA with the information field `info`: never more than proposed; defaults for what it lacks.

    The meter says what it sends and receives, so its words are the other way round. Of one that does not say how many
    frames it sends in a row, as many as proposed are heard out.
    """
    said = _parameters(info)
    return Limits(
        _lower(proposed.send_bytes, said.get(_RECEIVE_BYTES), 128, MAX_INFO),
        _lower(proposed.receive_bytes, said.get(_SEND_BYTES), 128, MAX_INFO),
        _lower(proposed.send_window, said.get(_RECEIVE_WINDOW), 1, 7),
        _lower(proposed.receive_window, said.get(_SEND_WINDOW), 7, 7),
    )


def _lower(proposed: int, said: int | None, default: int, highest: int) -> int:
    return min(proposed, said if said else default, highest)


def _parameters(info: bytes) -> dict[int, int]:
    """The parameters of an information field, as far as it can be read."""
    said: dict[int, int] = {}
    at = 3 if info[:2] == _FORMAT else len(info)
    while at + 2 <= len(info):
        size = info[at + 1]
        value = info[at + 2 : at + 2 + size]
        if len(value) == size:
            said[info[at]] = int.from_bytes(value, "big")
        at += 2 + size
    return said
