"""What goes wrong on a line, on purpose: by seeded chance or by script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from simulators.dlt645_frame import build

__all__ = ["FAULTS", "FaultRule", "Faults", "Spoiled"]

FAULTS = ("silence", "late", "noise", "flip", "cut", "foreign", "echo", "dead", "drop")


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault and when it strikes.

    kind: one of FAULTS; None when `script` says. meter: id, or empty for every meter of the line.
    probability: of one exchange, 0 to 1. script: what befalls exchange after exchange, `ok` for nothing; when it is
    used up the rule rests. delay_s: how late `late` is. from_s, until_s: epoch seconds between which the rule lives.
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
    """What becomes of an answer: its bytes (empty for silence), how late it comes, whether the connection drops."""

    data: bytes
    delay_s: float = 0.0
    drop: bool = False


class Faults:
    """The rules of one line; the same seed and the same exchanges give the same faults."""

    def __init__(self, rules: Iterable[FaultRule] = (), seed: int | str = 0) -> None:
        self.rules = tuple(rules)
        self._random = Random(seed)
        self._places = [0] * len(self.rules)

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
        data, delay_s, drop, echo = answer, 0.0, False, False
        for rule in struck:
            if rule.kind == "echo":
                echo = True
            elif rule.kind == "late":
                delay_s += rule.delay_s
            elif rule.kind == "drop":
                drop, data = True, b""
            elif rule.kind in ("silence", "dead"):
                data = b""
            elif data and rule.kind is not None:
                data = _DAMAGE[rule.kind](data, self._random, other)
        return Spoiled((request if echo else b"") + data, delay_s, drop)


def _noise(data: bytes, random: Random, _other: bytes) -> bytes:
    """One to twelve random characters before the frame, a false start among them at times."""
    return random.randbytes(random.randint(0, 11)) + random.choice((b"\x68", b"\x00", b"\xff")) + data


def _flip(data: bytes, random: Random, _other: bytes) -> bytes:
    """One bit of the frame turned."""
    start = data.index(0x68)
    at = random.randrange(start, len(data))
    return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]


def _cut(data: bytes, random: Random, _other: bytes) -> bytes:
    """The end of the frame lost."""
    start = data.index(0x68)
    return data[: random.randrange(start + 1, len(data))]


def _foreign(data: bytes, _random: Random, other: bytes) -> bytes:
    """The same content in a good frame of another meter."""
    start = data.index(0x68)
    frame = data[start:]
    plain = bytes((byte - 0x33) & 0xFF for byte in frame[10:-2])
    return build(other, frame[8], plain, start)


_DAMAGE: dict[str, Callable[[bytes, Random, bytes], bytes]] = {
    "noise": _noise,
    "flip": _flip,
    "cut": _cut,
    "foreign": _foreign,
}
