"""Pages of a document: text, boxes, tables that flow from page to page, page numbers. A4, lengths in points.

What is drawn is kept as a list of strokes for each page and written at the end, when the number of pages is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from billing.documents.fonts import CHINESE, fold, runs, width, wrap
from billing.documents.words import say

__all__ = ["ACCENT", "BOTTOM", "FAINT", "GREY", "INK", "LEFT", "LINE", "RIGHT", "WARN", "Column", "Row", "Sheet"]

PAGE_WIDTH: Final = float(A4[0])
PAGE_HEIGHT: Final = float(A4[1])
LEFT: Final = 42.0
RIGHT: Final = PAGE_WIDTH - 42.0
TOP: Final = PAGE_HEIGHT - 40.0
BOTTOM: Final = 48.0

INK: Final = HexColor("#1c2430")
GREY: Final = HexColor("#5d6876")
LINE: Final = HexColor("#c9d1db")
FAINT: Final = HexColor("#f1f4f8")
ACCENT: Final = HexColor("#17457a")
WARN: Final = HexColor("#b4500f")
_PAD = 3.0
_THICK_FROM = 9.0
"""Smaller Chinese text would be smudged by a drawn outline."""

Stroke = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. align: `l`, `r`, `c`, or `d`: numbers with their decimal points under each other."""

    head: str
    width: float
    align: str = "l"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. kind: `row`; `group`, a heading that stays with the row after it; `sum` or `total`, in bold.

    small: a second text under the first cell's. warn: cells that stand in the colour of a warning.
    """

    cells: tuple[str, ...]
    kind: str = "row"
    small: str = ""
    warn: tuple[int, ...] = ()


class Sheet:
    """A document while it is drawn, from the top down. `y` is where the next thing goes.

    running: what stands at the top of every page but the first, left and right. mark: a word across every page.
    """

    def __init__(self, title: str, author: str, language: str, *, running: tuple[str, str], mark: str = "") -> None:
        self.language = language
        self.y = TOP
        self._title, self._author, self._mark, self._running = title, author, mark, running
        self._pages: list[list[Stroke]] = [[]]

    # -- strokes -------------------------------------------------------------------------------------------------------

    def _add(self, stroke: Stroke) -> None:
        self._pages[-1].append(stroke)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 9,
        *,
        bold: bool = False,
        align: str = "l",
        colour: Color = INK,
        room: float = 0,
    ) -> None:
        """One line of text whose base line is `y`; smaller when it would be wider than `room` (0: no limit)."""
        wide = width(text, size, bold)
        if room and wide > room:
            size *= room / wide
            wide = room
        start = {"l": x, "r": x - wide, "c": x - wide / 2}[align]
        self._add(lambda canvas: _write(canvas, start, y, text, size, bold, colour))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Color = LINE, thick: float = 0.6) -> None:
        """A straight line."""

        def stroke(canvas: Any) -> None:
            canvas.setStrokeColor(colour)
            canvas.setLineWidth(thick)
            canvas.line(x0, y0, x1, y1)

        self._add(stroke)

    def box(self, x: float, y: float, wide: float, high: float, fill: Color, edge: Color | None = None) -> None:
        """A filled rectangle with its lower left corner at (x, y)."""

        def stroke(canvas: Any) -> None:
            canvas.setFillColor(fill)
            canvas.setLineWidth(0.6)
            canvas.setStrokeColor(edge or fill)
            canvas.rect(x, y, wide, high, stroke=int(edge is not None), fill=1)

        self._add(stroke)

    def hatch(self, x: float, y: float, wide: float, high: float, kind: str, colour: Color) -> None:
        """Fine lines over a rectangle, so that it is told from others in print without colours.

        kind: any of `/`, `\\`, `-`, `|` together; "" for none.
        """

        def stroke(canvas: Any) -> None:
            canvas.saveState()
            path = canvas.beginPath()
            path.rect(x, y, wide, high)
            canvas.clipPath(path, stroke=0, fill=0)
            canvas.setStrokeColor(colour)
            canvas.setLineWidth(0.5)
            for x0, y0, x1, y1 in _hatching(x, y, wide, high, kind):
                canvas.line(x0, y0, x1, y1)
            canvas.restoreState()

        if kind:
            self._add(stroke)

    # -- flow ----------------------------------------------------------------------------------------------------------

    def need(self, high: float) -> bool:
        """Start a new page unless `high` points are left on this one; whether it did."""
        if self.y - high >= BOTTOM:
            return False
        self._pages.append([])
        self.y = TOP
        left, right = self._running
        self.text(LEFT, self.y - 4, left, 8, colour=GREY, room=300)
        self.text(RIGHT, self.y - 4, right, 8, colour=GREY, align="r", room=200)
        self.line(LEFT, self.y - 10, RIGHT, self.y - 10)
        self.y -= 24
        return True

    @property
    def pages(self) -> int:
        """How many pages there are by now."""
        return len(self._pages)

    def place(self) -> tuple[int, int, float]:
        """Where drawing stands, for `back_to`."""
        return len(self._pages), len(self._pages[-1]), self.y

    def back_to(self, place: tuple[int, int, float]) -> None:
        """Take back all that was drawn since `place`."""
        pages, strokes, self.y = place
        del self._pages[pages:]
        del self._pages[-1][strokes:]

    def skip(self, high: float) -> None:
        """Leave room."""
        self.y -= high

    def heading(self, text: str, keep: float = 40) -> None:
        """A heading, with `keep` points under it on the same page."""
        self.need(26 + keep)
        self.title(text, LEFT, RIGHT - LEFT)

    def title(self, text: str, x: float, wide: float) -> None:
        """A heading over a part of the width; its room must be there."""
        self.y -= 20
        self.text(x, self.y, text, 11, bold=True, colour=ACCENT, room=wide)
        self.y -= 6

    def box_of(self, title: str, *columns: Sequence[str], size: float = 8, colour: Color = GREY) -> None:
        """Sentences in a box under a title (if there is one), each beginning a line; kept on one page.

        Several columns stand side by side, each as wide as its text is long among all.
        """
        slots = _slots([sum(width(one, size) for one in column) for column in columns], RIGHT - LEFT - 6)
        texts = [
            [row for one in column for row in wrap(one, size, slot - 14)]
            for column, slot in zip(columns, slots, strict=True)
        ]
        leading = size * 1.4
        head = 16 if title else 0
        high = head + leading * max(len(rows) for rows in texts) + 12
        self.need(high + 10)
        self.y -= 10
        self.box(LEFT, self.y - high, RIGHT - LEFT, high, FAINT, colour if colour != GREY else LINE)
        at = self.y - 14
        if title:
            self.text(LEFT + 10, at, title, 9, bold=True, room=RIGHT - LEFT - 20)
            at -= 15
        for number, rows in enumerate(texts):
            for step, row in enumerate(rows):
                self.text(LEFT + 10 + sum(slots[:number]), at - leading * step, row, size, colour=colour)
        self.y -= high

    def table(self, columns: Sequence[Column], rows: Sequence[Row], *, size: float = 8.5) -> None:
        """A table over the width of the page. A row is never cut; its head is said again on every page."""
        heights = [_height(columns, row, size) for row in rows]
        head_rows = [wrap(column.head, 7.5, column.width - 2 * _PAD, True) for column in columns]
        head_high = max(len(texts) for texts in head_rows) * 9.5 + 6
        self.need(head_high + sum(heights[:2]))
        tails = [_widest_tail(rows, number, size) if one.align == "d" else 0.0 for number, one in enumerate(columns)]
        self._table_head(columns, head_rows, head_high)
        for number, (row, high) in enumerate(zip(rows, heights, strict=True)):
            keep = high + (heights[number + 1] if row.kind == "group" and number + 1 < len(rows) else 0)
            if self.need(keep):
                self._table_head(columns, head_rows, head_high)
            self._table_row(columns, row, high, size, tails)
        self.line(LEFT, self.y, RIGHT, self.y)

    def _table_head(self, columns: Sequence[Column], texts: Sequence[Sequence[str]], high: float) -> None:
        self.box(LEFT, self.y - high, RIGHT - LEFT, high, FAINT)
        x = LEFT
        for column, lines in zip(columns, texts, strict=True):
            for number, line in enumerate(lines):
                at, align = _edge(x, column)
                self.text(at, self.y - 10 - 9.5 * number, line, 7.5, bold=True, align=align, colour=GREY)
            x += column.width
        self.y -= high

    def _table_row(self, columns: Sequence[Column], row: Row, high: float, size: float, tails: Sequence[float]) -> None:
        bold = row.kind != "row"
        size += row.kind == "total"
        if row.kind == "total":
            self.box(LEFT, self.y - high, RIGHT - LEFT, high, FAINT)
        if row.kind in ("row", "total"):
            self.line(LEFT, self.y, RIGHT, self.y, thick=0.3)
        x, base = LEFT, self.y - size - (5 if row.kind == "group" else 2)
        for number, (column, cell) in enumerate(zip(columns, row.cells, strict=True)):
            room = _room(columns, number, row) - 2 * _PAD
            at, align = _edge(x, column)
            if column.align == "d" and cell:  # a number too long for it stands further right
                at -= min(tails[number] - width(_tail(cell), size), max(room - width(cell, size), 0))
            colour = WARN if number in row.warn else ACCENT if row.kind == "group" else INK
            lines = _lines(cell, size, room, bold, column.align)
            for step, text in enumerate(lines):
                self.text(at, base - step * size * 1.35, text, size, bold=bold, align=align, colour=colour, room=room)
            if number == 0 and row.small:
                under = base - len(lines) * size * 1.35 + 1
                for step, text in enumerate(wrap(row.small, size - 1.5, room)):
                    self.text(at, under - step * (size - 1.5) * 1.35, text, size - 1.5, colour=GREY)
            x += column.width
        self.y -= high

    # -- end -----------------------------------------------------------------------------------------------------------

    def pdf(self) -> bytes:
        """The document; the same strokes give the same bytes."""
        stream = BytesIO()
        canvas = Canvas(stream, pagesize=A4, pageCompression=1, invariant=1)
        canvas.setTitle(fold(self._title))
        canvas.setAuthor(fold(self._author))
        canvas.setCreator("headend")
        for number, strokes in enumerate(self._pages, start=1):
            for stroke in strokes:
                stroke(canvas)
            self._foot(canvas, number)
            if self._mark:
                _watermark(canvas, self._mark)
            canvas.showPage()
        canvas.save()
        return stream.getvalue()

    def _foot(self, canvas: Any, number: int) -> None:
        words = say("page", self.language, number, len(self._pages))
        _write(canvas, RIGHT - width(words, 7.5), 28, words, 7.5, False, GREY)
        _write(canvas, LEFT, 28, self._running[1], 7.5, False, GREY)


def _edge(x: float, column: Column) -> tuple[float, str]:
    """Where a cell's text starts or ends, and how it is aligned."""
    align = "r" if column.align == "d" else column.align
    where = {"l": x + _PAD, "r": x + column.width - _PAD, "c": x + column.width / 2}
    return where[align], align


def _slots(lengths: Sequence[float], wide: float) -> list[float]:
    """`wide` shared out by lengths of text, none below a third of an equal share."""
    most = sum(lengths)
    if most <= 0:
        return [wide / len(lengths) for _ in lengths]
    least = wide / len(lengths) / 3
    return [least + (wide - least * len(lengths)) * length / most for length in lengths]


def _tail(number: str) -> str:
    """A number from its decimal point on."""
    return number[number.index(".") :] if "." in number else ""


def _widest_tail(rows: Sequence[Row], number: int, size: float) -> float:
    return max((width(_tail(row.cells[number]), size) for row in rows), default=0.0)


def _room(columns: Sequence[Column], number: int, row: Row) -> float:
    """How wide a cell may be: headings and sums run over the empty cells after them."""
    room = columns[number].width
    if row.kind != "row" and columns[number].align == "l":
        for later in range(number + 1, len(columns)):
            if row.cells[later]:
                break
            room += columns[later].width
    return room


def _lines(cell: str, size: float, room: float, bold: bool, align: str) -> list[str]:
    """A cell's lines; numbers (right-aligned) are made smaller instead of broken."""
    return cell.split("\n") if align in ("r", "d") else wrap(cell, size, room, bold)


def _height(columns: Sequence[Column], row: Row, size: float) -> float:
    bold = row.kind != "row"
    size += row.kind == "total"
    counts = [
        len(_lines(cell, size, _room(columns, number, row) - 2 * _PAD, bold, columns[number].align))
        for number, cell in enumerate(row.cells)
    ]
    small = len(wrap(row.small, size - 1.5, columns[0].width - 2 * _PAD)) if row.small else 0
    first = counts[0] * size * 1.35 + small * (size - 1.5) * 1.35
    return max(first, max(counts) * size * 1.35) + 5 + (1 if row.kind == "group" else 0)


def _write(canvas: Any, x: float, y: float, text: str, size: float, bold: bool, colour: Color) -> None:
    for name, written in runs(text, bold):
        piece = canvas.beginText(x, y)
        piece.setFont(name, size)
        piece.setFillColor(colour)
        thick = bold and name == CHINESE and size >= _THICK_FROM
        if thick:  # the Chinese font has no bold: its outline is drawn as well
            canvas.setStrokeColor(colour)
            canvas.setLineWidth(size / 40)
            piece.setTextRenderMode(2)
        piece.textOut(written)
        if thick:
            piece.setTextRenderMode(0)
        canvas.drawText(piece)
        x += canvas.stringWidth(written, name, size)


def _hatching(x: float, y: float, wide: float, high: float, kind: str) -> list[tuple[float, float, float, float]]:
    """The lines of a hatching, three points apart."""
    apart, found = 3.0, []
    for number in range(1, int((wide + high) / apart) + 1):
        at = apart * number
        if "/" in kind:
            found.append((x + at - high, y, x + at, y + high))
        if "\\" in kind:
            found.append((x + at, y, x + at - high, y + high))
        if "|" in kind and at < wide:
            found.append((x + at, y, x + at, y + high))
        if "-" in kind and at < high:
            found.append((x, y + at, x + wide, y + at))
    return found


def _watermark(canvas: Any, mark: str) -> None:
    size = min(90.0, 90.0 * 460 / max(width(mark, 90, True), 1))
    canvas.saveState()
    canvas.translate(PAGE_WIDTH / 2, PAGE_HEIGHT / 2)
    canvas.rotate(50)
    pale = Color(WARN.red, WARN.green, WARN.blue, alpha=0.15)
    _write(canvas, -width(mark, size, True) / 2, -size / 3, mark, size, True, pale)
    canvas.restoreState()
