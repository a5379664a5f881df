"""How long bytes take on a wire. Pure arithmetic; all speeds in bits per second, all spans in seconds."""

from __future__ import annotations

__all__ = ["BITS_8E1", "bits_per_char", "chars_s", "exchange_s"]

BITS_8E1 = 11
"""Bits of a character of DL/T 645 (clause 5.2.1): start, eight data, even parity, stop."""


def bits_per_char(bytesize: int, parity: str, stopbits: int) -> int:
    """Bits a character takes: one start bit, its data bits, a parity bit unless `parity` is N, its stop bits."""
    return 1 + bytesize + (parity != "N") + stopbits


def chars_s(count: int, baud: int, bits: int = BITS_8E1) -> float:
    """Time `count` characters without a pause take at `baud`."""
    return count * bits / baud


def exchange_s(
    request_bytes: int,
    reply_bytes: int,
    baud: int,
    delay_s: float,
    *,
    turnaround_s: float = 0.0,
    bits: int = BITS_8E1,
) -> float:
    """Time of one question and its answer: the request's characters, the meter's delay (Td), the answer's.

    turnaround_s: silence kept before the next question.
    """
    return chars_s(request_bytes + reply_bytes, baud, bits) + delay_s + turnaround_s
