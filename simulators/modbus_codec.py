"""Numbers as registers hold them: every type, word order and byte order, and what stands for no value."""

from __future__ import annotations

import struct
from fractions import Fraction

__all__ = ["TYPES", "encode", "limits", "resolution", "words_of"]

TYPES = {"f32": 2, "f64": 4} | {f"{sign}{16 * n}": n for sign in ("u", "s", "sm", "bcd") for n in (1, 2, 3, 4)}
"""How many registers a number takes. `sm`: the highest bit is the sign, the others the size. `mod10`, which counts to
9999 in each register, is as long as a map says."""

_FLOATS = {"f32": ">f", "f64": ">d"}
_MANTISSA_BITS = {"f32": 24, "f64": 53}


def words_of(kind: str, words: int = 0) -> int:
    """How many registers a number of this type takes; `words` where the type does not say."""
    return TYPES.get(kind, words)


def limits(kind: str, words: int = 0) -> tuple[int, int]:
    """Least and greatest whole number of a type that has no fractions."""
    bits = 16 * words_of(kind, words)
    if kind.startswith(("bcd", "mod10")):
        return 0, 10 ** (bits // 4) - 1
    if kind.startswith("sm"):
        return 1 - (1 << bits - 1), (1 << bits - 1) - 1
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind.startswith("s") else (0, (1 << bits) - 1)


def _plain(kind: str, words: int, raw: Fraction, *, wraps: bool) -> bytes:
    """High word first. A counter that is too large starts again at zero, anything else stays at the limit."""
    if kind in _FLOATS:
        return struct.pack(_FLOATS[kind], float(raw))
    whole = int(raw)
    least, greatest = limits(kind, words)
    whole = whole % (greatest + 1) if wraps and whole >= 0 else min(max(whole, least), greatest)
    if kind.startswith("bcd"):
        return bytes.fromhex(f"{whole:0{4 * words}d}")
    if kind == "mod10":
        return b"".join((whole // 10_000**k % 10_000).to_bytes(2, "big") for k in reversed(range(words)))
    if kind.startswith("sm") and whole < 0:
        whole = -whole | 1 << 16 * words - 1
    return whole.to_bytes(2 * words, "big", signed=whole < 0)


def _order(data: bytes, word_order: str, byte_order: str) -> bytes:
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if word_order == "little":
        words.reverse()
    return b"".join(word[::-1] if byte_order == "little" else word for word in words)


def encode(
    kind: str,
    raw: Fraction | None,
    *,
    word_order: str = "big",
    byte_order: str = "big",
    missing: bytes = b"",
    wraps: bool = False,
    words: int = 0,
) -> bytes:
    """The registers of the number `raw` (already in units of its scale), truncated to what the type can hold.
    raw None: what stands for no value, `missing` or all ones, as plain big-endian bytes."""
    words = words_of(kind, words)
    plain = (missing or b"\xff" * (2 * words)) if raw is None else _plain(kind, words, raw, wraps=wraps)
    return _order(plain, word_order, byte_order)


def resolution(kind: str, raw: Fraction) -> Fraction:
    """How far the number that is read may be from `raw`: a step of a whole type, half of the last bit of a float."""
    if kind not in _FLOATS:
        return Fraction(1)
    if raw == 0:
        return Fraction(0)
    exponent = 0
    size = abs(raw)
    while size >= 1:
        size /= 2
        exponent += 1
    while size < Fraction(1, 2):
        size *= 2
        exponent -= 1
    return Fraction(2) ** (exponent - _MANTISSA_BITS[kind] - 1)
