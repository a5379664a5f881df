"""Take values out of a TOML table one by one, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Table"]


class Table:
    """One table of a file. `where` names it in messages; `problems` is shared by the whole file."""

    def __init__(self, data: Mapping[str, Any], where: str, problems: list[str]) -> None:
        self._data = data
        self.where = where
        self.problems = problems
        self._taken: set[str] = set()

    def wrong(self, key: str, what: str, remedy: str) -> None:
        """Note that `key` is not usable."""
        self.problems.append(f"{self.where} {key}: {what} -> {remedy}")

    def raw(self, key: str) -> Any:
        """Whatever stands there, None if nothing."""
        self._taken.add(key)
        return self._data.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without `default` it has to be there."""
        value = self.raw(key)
        if isinstance(value, str) and value:
            return value
        if value is None and default is not None:
            return default
        self.wrong(key, "missing" if value is None else f"{value!r} is no text", f'write {key} = "..."')
        return default or ""

    def integer(self, key: str, default: int | None = None, low: int = 0, high: int = 10**12) -> int:
        """A whole number in [low, high]."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        what = "missing" if value is None else f"{value!r} is not usable"
        self.wrong(key, what, f"write a whole number from {low} to {high}")
        return default if default is not None else low

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number that is neither energy nor money."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.wrong(key, f"{value!r} is not usable", f"write a number from {low:g} to {high:g}")
        return default

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.wrong(key, f"{value!r} is not usable", "write true or false")
        return default

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of `choices`."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if value in choices:
            return str(value)
        what = "missing" if value is None else f"unknown {value!r}"
        self.wrong(key, what, f"use one of {', '.join(choices) or '(none defined)'}")
        return default or (choices[0] if choices else "")

    def span(self, key: str, default: tuple[int, int], low: int, high: int) -> tuple[int, int]:
        """A whole number, or two of them as a range."""
        value = self.raw(key)
        if value is None:
            return default
        ends = value if isinstance(value, list) else [value, value]
        whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
        if len(ends) == 2 and whole and low <= ends[0] <= ends[1] <= high:
            return ends[0], ends[1]
        self.wrong(key, f"{value!r} is not usable", f"write a whole number or [low, high] from {low} to {high}")
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty if not there."""
        value = self.raw(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self.wrong(key, f"{value!r} is no list of texts", f'write {key} = ["...", "..."]')
        return ()

    def tables(self, key: str) -> list[Table]:
        """The tables of an array, empty if not there."""
        value = self.raw(key)
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            prefix = self.where.removesuffix(":")
            return [Table(item, f"{prefix} [[{key}]] {k}:", self.problems) for k, item in enumerate(value, 1)]
        self.wrong(key, "is no array of tables", f"write [[{key}]]")
        return []

    def others(self) -> list[str]:
        """Keys nobody asked for yet."""
        return [key for key in self._data if key not in self._taken]

    def done(self) -> None:
        """Every key should have been asked for by now; the others are misspelt."""
        for key in self.others():
            near = difflib.get_close_matches(key, self._taken, 1)
            self.wrong(key, "unknown key", f"did you mean {near[0]}?" if near else "leave it out")
