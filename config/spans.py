"""Spans of time that must not overlap: one sweep over what a file brings and what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from config.csvfile import CsvRow

__all__ = ["Span", "overlaps"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that holds for `key` in `[since, until)`; `row` is None when the store holds it."""

    key: str
    since: datetime
    until: datetime | None
    label: str
    row: CsvRow | None

    @property
    def place(self) -> str:
        return "the store" if self.row is None else f"{self.row.file}:{self.row.line}"


def overlaps(spans: Iterable[Span]) -> Iterator[tuple[CsvRow, Span]]:
    """Rows of a file that overlap another span of the same key: each with the span it collides with."""
    longest: dict[str, Span] = {}
    for span in sorted(spans, key=lambda span: (span.since, span.place)):
        before = longest.get(span.key)
        if before is None or (before.until is not None and before.until <= span.since):
            longest[span.key] = span
            continue
        if span.row is not None:
            yield span.row, before
        elif before.row is not None:
            yield before.row, span
        if before.until is not None and (span.until is None or span.until > before.until):
            longest[span.key] = span
