"""What goes wrong on a line, on purpose: by seeded chance or by script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from simulators.dlt645_frame import build

__all__ = ["FAULTS", "FaultRule", "Faults", "Spoiled"]

_OVERHEAD = 12  # characters of a frame beside its data


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault and when it strikes.

    kind: one of FAULTS; None when `script` says. meter: id, or empty for every meter of the line.
    probability: of one exchange, 0 to 1. script: what befalls exchange after exchange, `ok` for nothing; when it is
    used up the rule rests. delay_s: how late `late` is, how long `babble` goes on. from_s, until_s: epoch seconds
    between which the rule lives.
    """

    kind: str | None = None
    meter: str = ""
    probability: float = 1.0
    script: tuple[str, ...] = ()
    delay_s: float = 2.0
    from_s: float | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What becomes of an answer: its bytes (empty for silence), how late it comes, how long a chatterer talks first
    (`babble_s`), whether the connection drops after it, whether it stays open and says no more."""

    data: bytes
    delay_s: float = 0.0
    babble_s: float = 0.0
    drop: bool = False
    half_open: bool = False


class Faults:
    """The rules of one line; the same seed and the same exchanges give the same faults. `struck` counts them."""

    def __init__(self, rules: Iterable[FaultRule] = (), seed: int | str = 0) -> None:
        self.rules = tuple(rules)
        self._random = Random(seed)
        self._places = [0] * len(self.rules)
        self._previous = b""
        self.struck: Counter[str] = Counter()

    def strike(self, meter_id: str, now_s: float) -> list[FaultRule]:
        """The faults that befall this exchange with `meter_id`, each as a rule that surely strikes."""
        struck = []
        for k, rule in enumerate(self.rules):
            if rule.meter not in ("", meter_id):
                continue
            if (rule.from_s is not None and now_s < rule.from_s) or (
                rule.until_s is not None and now_s >= rule.until_s
            ):
                continue
            kind = self._next(k, rule)
            if kind is not None:
                struck.append(FaultRule(kind, delay_s=rule.delay_s))
                self.struck[kind] += 1
        return struck

    def _next(self, k: int, rule: FaultRule) -> str | None:
        if rule.script:
            place = self._places[k]
            self._places[k] = place + 1
            kind = rule.script[place] if place < len(rule.script) else "ok"
            return None if kind == "ok" else kind
        return rule.kind if self._random.random() < rule.probability else None

    def spoil(self, struck: Iterable[FaultRule], request: bytes, answer: bytes, other: bytes) -> Spoiled:
        """`answer` after the faults in `struck`. request: the frame asked, for an echo. other: the address of another
        meter, lowest pair first."""
        data, delay_s, babble_s, echo = answer, 0.0, 0.0, False
        kinds = set()
        for rule in struck:
            kinds.add(rule.kind)
            if rule.kind == "late":
                delay_s += rule.delay_s
            elif rule.kind == "babble":
                babble_s += rule.delay_s
            elif rule.kind == "echo":
                echo = True
            elif rule.kind == "stale":
                data = self._previous + data
            elif rule.kind in _SILENT:
                data = b""
            elif data and rule.kind is not None:
                data = _DAMAGE[rule.kind](data, self._random, other)
        if answer:
            self._previous = answer
        dropped = bool(kinds & {"drop", "hangup"})
        return Spoiled((request if echo else b"") + data, delay_s, babble_s, dropped, "halfopen" in kinds)

    def babble(self, count: int) -> bytes:
        """`count` characters of a device that talks without being asked."""
        return self._random.randbytes(count)


def _start(data: bytes) -> int:
    """Where the frame starts, behind FE; 0 when an earlier fault left none."""
    return max(data.find(0x68), 0)


def _noise(data: bytes, random: Random, _other: bytes) -> bytes:
    """One to twelve random characters before the frame, a false start among them at times."""
    return random.randbytes(random.randint(0, 11)) + random.choice((b"\x68", b"\x00", b"\xff")) + data


def _flip_bits(data: bytes, random: Random, count: int) -> bytes:
    start = _start(data)
    bad = bytearray(data)
    for bit in random.sample(range(8 * start, 8 * len(data)), count):
        bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def _flip(data: bytes, random: Random, _other: bytes) -> bytes:
    """One bit of the frame turned."""
    return _flip_bits(data, random, 1)


def _flip2(data: bytes, random: Random, _other: bytes) -> bytes:
    """Two bits of the frame turned; the checksum, a sum of bytes, does not always see it."""
    return _flip_bits(data, random, 2)


def _burst(data: bytes, random: Random, _other: bytes) -> bytes:
    """Two to ten characters in a row inside the frame come out as others."""
    start = _start(data)
    size = min(random.randint(2, 10), len(data) - start)
    at = random.randrange(start, len(data) - size + 1)
    garbage = bytes((byte + random.randint(1, 255)) & 0xFF for byte in data[at : at + size])
    return data[:at] + garbage + data[at + size :]


def _lost(data: bytes, random: Random, _other: bytes) -> bytes:
    """One character of the frame missing."""
    at = random.randrange(_start(data), len(data))
    return data[:at] + data[at + 1 :]


def _inserted(data: bytes, random: Random, _other: bytes) -> bytes:
    """One character too many inside the frame."""
    at = random.randint(_start(data) + 1, max(len(data) - 1, _start(data) + 1))
    return data[:at] + random.randbytes(1) + data[at:]


def _cut(data: bytes, random: Random, _other: bytes) -> bytes:
    """The end of the frame lost."""
    start = _start(data)
    return data[: random.randint(start + 1, max(len(data) - 1, start + 1))]


def _foreign(data: bytes, _random: Random, other: bytes) -> bytes:
    """The same content in a good frame of another meter."""
    start = _start(data)
    if len(data) < start + _OVERHEAD:
        return data
    return build(other, data[start + 8], _plain(data, start), start)


def _duplicate(data: bytes, random: Random, _other: bytes) -> bytes:
    """A second meter of the same address, with other numbers, starts up to three characters later: a 0 from either
    wins."""
    start = _start(data)
    if len(data) < start + _OVERHEAD:
        return data
    plain = bytearray(_plain(data, start))
    for at in range(min(4, max(len(plain) - 1, 0)), len(plain)):
        plain[at] = random.randrange(10) << 4 | random.randrange(10)
    second = build(data[start + 1 : start + 7], data[start + 8], bytes(plain), start)
    late = random.randint(0, 3)
    padded = b"\xff" * late + second
    size = max(len(data), len(padded))
    one, two = data.ljust(size, b"\xff"), padded.ljust(size, b"\xff")
    return bytes(a & b for a, b in zip(one, two, strict=True))


def _plain(data: bytes, start: int) -> bytes:
    """The data field of the frame at `start`, 33H taken off."""
    return bytes((byte - 0x33) & 0xFF for byte in data[start + 10 : -2])


_DAMAGE: dict[str, Callable[[bytes, Random, bytes], bytes]] = {
    "noise": _noise,
    "flip": _flip,
    "flip2": _flip2,
    "burst": _burst,
    "lost": _lost,
    "inserted": _inserted,
    "cut": _cut,
    "hangup": _cut,
    "foreign": _foreign,
    "duplicate": _duplicate,
}
_SILENT = ("silence", "dead", "drop", "halfopen")
FAULTS = ("silence", "late", "echo", "stale", "babble", *_SILENT[1:], *_DAMAGE)
