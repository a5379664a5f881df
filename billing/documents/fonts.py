"""The fonts of documents, embedded in each: which font has a character, how wide a text is.

A character that no font has is written as its code point (`U+20BB7`), never as an empty box.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfbase.ttfonts import TTFont

__all__ = ["BOLD", "CHINESE", "REGULAR", "fold", "runs", "width", "wrap"]

REGULAR: Final = "HeadendSans"
BOLD: Final = "HeadendSans-Bold"
CHINESE: Final = "HeadendChinese"

_FILES = {
    REGULAR: "NotoSans-Regular.ttf",
    BOLD: "NotoSans-Bold.ttf",
    CHINESE: "DroidSansFallback-CJK.ttf",
}

_NEVER_FIRST = "，。、；：！？）》】”’…%,.;:!?)]}·"
"""Punctuation that does not begin a line."""


@cache
def font(name: str) -> TTFont:
    """The font of this name, read once and known to the PDF library from then on."""
    made = TTFont(name, str(Path(__file__).parent / "fonts" / _FILES[name]))
    registerFont(made)
    return made


def _has(name: str, character: str) -> bool:
    return ord(character) in font(name).face.charToGlyph


@cache
def _place(character: str, bold: bool) -> tuple[str, str]:
    """The font for a character, and what is written for it."""
    latin = BOLD if bold else REGULAR
    if character.isspace() or (unicodedata.category(character) in ("Cc", "Cf") and character != "\u00ad"):
        return latin, " " if character.isspace() else ""
    for name in (latin, CHINESE):
        if _has(name, character):
            return name, character
    return latin, f"U+{ord(character):04X}"


def fold(text: str, bold: bool = False) -> str:
    """`text` as it is written: without control characters, with code points for what no font has."""
    return "".join(_place(character, bold)[1] for character in text)


@cache
def _advance(character: str, bold: bool) -> float:
    """Width of a character at size 1."""
    name, written = _place(character, bold)
    return float(font(name).stringWidth(written, 1))


def runs(text: str, bold: bool = False) -> list[tuple[str, str]]:
    """`text` in pieces of one font each: (font, what is written)."""
    found: list[tuple[str, str]] = []
    for character in text:
        name, written = _place(character, bold)
        if found and found[-1][0] == name:
            found[-1] = name, found[-1][1] + written
        elif written:
            found.append((name, written))
    return found


def width(text: str, size: float, bold: bool = False) -> float:
    """How wide `text` is in points."""
    return size * sum(_advance(character, bold) for character in text)


def _units(text: str) -> list[str]:
    """Pieces between which a line may be broken: words with the space after them, and each Chinese character."""
    pieces: list[str] = []
    for character in text:
        alone = ord(character) >= 0x2E80
        joins = pieces and (
            character in _NEVER_FIRST or (not alone and not pieces[-1][-1].isspace() and ord(pieces[-1][-1]) < 0x2E80)
        )
        if pieces and (joins or character.isspace()):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def wrap(text: str, size: float, room: float, bold: bool = False) -> list[str]:
    """`text` in lines that are no wider than `room` points; a word that is longer is cut."""
    return list(_wrapped(text, size, room, bold))


@lru_cache(maxsize=4096)
def _wrapped(text: str, size: float, room: float, bold: bool) -> tuple[str, ...]:
    """Kept for the texts that stand on every bill."""
    lines, line, long = [], "", 0.0
    for unit in _units(text):
        if line and long + width(unit.rstrip(), size, bold) > room:
            lines.append(line.rstrip())
            line, long = "", 0.0
        while width(unit.rstrip(), size, bold) > room and len(unit) > 1:
            fits = max(next((n for n in range(len(unit), 0, -1) if width(unit[:n], size, bold) <= room), 1), 1)
            lines.append(unit[:fits])
            unit = unit[fits:]
        line += unit
        long += width(unit, size, bold)
    return (*lines, line.rstrip()) if line.strip() or not lines else tuple(lines)
