"""What a concentrator keeps until the head-end has it: numbered messages, in memory or in a journal on disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Buffer", "Kept"]

_TIDY_LINES = 20_000  # a journal longer than this, and mostly of what is over, is written anew


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as it was first made. boot, seq: its number."""

    boot: int
    seq: int
    topic: str
    payload: bytes


class Buffer:
    """Messages by number, oldest first. folder: for its journal, None to keep them in memory only. Opening a folder
    again brings back what was not acknowledged. `boot`: the highest it has seen, 0 if none. limit: how many it holds,
    0 for any number; beyond it the oldest go (`dropped` counts them)."""

    def __init__(self, folder: Path | None = None, *, limit: int = 0) -> None:
        self.boot = 0
        self.dropped = 0
        self._limit = limit
        self._kept: dict[tuple[int, int], Kept] = {}
        self._lines = 0
        self._path = folder / "buffer.jsonl" if folder else None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._load(self._path)
        self._file = self._path.open("a", encoding="utf-8") if self._path else None

    def __len__(self) -> int:
        return len(self._kept)

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        for line in path.read_text("utf-8").splitlines():
            self._lines += 1
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the power went while it was written
            self.boot = max(self.boot, row["boot"])
            if "upto" in row:
                self._forget(row["boot"], row["upto"], row["but"])
            else:
                kept = Kept(row["boot"], row["seq"], row["topic"], base64.b64decode(row["payload"]))
                self._kept[kept.boot, kept.seq] = kept

    def add(self, message: Kept) -> None:
        """Keep a message until it is acknowledged."""
        self.boot = max(self.boot, message.boot)
        self._kept[message.boot, message.seq] = message
        self._write(_row(message))
        if self._limit and len(self._kept) > self._limit:
            del self._kept[next(iter(self._kept))]
            self.dropped += 1

    def acknowledged(self, boot: int, upto: int, missing: Iterable[int] = ()) -> list[Kept]:
        """Forget everything of `boot` up to `upto` but the missing ones; those of them that are here, to send again."""
        but = sorted(set(missing))
        if self._forget(boot, upto, but):
            self._write({"boot": boot, "upto": upto, "but": but})
        return [self._kept[boot, seq] for seq in but if (boot, seq) in self._kept]

    def _forget(self, boot: int, upto: int, but: Iterable[int]) -> bool:
        keep = set(but)
        gone = [key for key in self._kept if key[0] == boot and key[1] <= upto and key[1] not in keep]
        for key in gone:
            del self._kept[key]
        return bool(gone)

    def get(self, boot: int, seq: int) -> Kept | None:
        """The message of that number, if it is still here."""
        return self._kept.get((boot, seq))

    def pending(self) -> list[Kept]:
        """Everything that is not acknowledged."""
        return list(self._kept.values())

    def clear(self) -> None:
        """Lose everything, as with a broken memory card."""
        self._kept.clear()
        self._rewrite()

    def close(self) -> None:
        """Close the journal; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, row: dict[str, object]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()
        self._lines += 1
        if self._lines > _TIDY_LINES and self._lines > 4 * len(self._kept):
            self._rewrite()

    def _rewrite(self) -> None:
        if self._file is None or self._path is None:
            return
        self._file.close()
        self._file = self._path.open("w", encoding="utf-8")
        self._lines = 0
        self._write({"boot": self.boot, "upto": -1, "but": []})  # so that the number of the last start is not lost
        for message in self._kept.values():
            self._write(_row(message))


def _row(message: Kept) -> dict[str, object]:
    payload = base64.b64encode(message.payload).decode()
    return {"boot": message.boot, "seq": message.seq, "topic": message.topic, "payload": payload}
