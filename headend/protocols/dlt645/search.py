"""Finding the meters of a line nobody has a list of: a search by wildcard addresses (clause 7.2). A pure conversation.

Leading pairs AA of an address stand for any; the pairs behind them must match, lowest first. A question to `AA..AA34`
is answered by every meter whose address ends in 34. One meter answers: found. Several answer at once: their bits
collide and what arrives makes no frame; then the search goes one pair further, 00 to 99. Silence: nothing there.

Bits that collide can, by bad luck, look like a good frame, of a meter that is not there or of one that hides another.
Therefore an answer from one meter alone must stand against further questions, whose checksums differ, and the meter
must answer to its full address. An answer that comes too late, to an earlier question, counts for nothing where it
comes; its meter is asked by its full address at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headend.conversation import MORE, Conversation, Send
from headend.errors import NoAnswer
from headend.protocols.dlt645.frame import ANY_ADDRESS, Frame, Scanner, encode, matches

__all__ = ["VERSIONS", "Found", "search"]

READ_ADDRESS = 0x13
MAX_HEARD = 4096
STRAY_BYTES = 3
"""Bytes beside a whole frame that adapters make when they turn round; more are taken for another meter."""

PAIRS = 6


@dataclass(frozen=True, slots=True)
class _Version:
    """How a version of the protocol reads a register. dis: the first to look with, the others to make sure."""

    function: int
    dis: tuple[bytes, ...]
    has_read_address: bool


def _wire(*dis: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(di)[::-1] for di in dis)


VERSIONS: dict[str, _Version] = {
    "dlt645-2007": _Version(0x11, _wire("00010000", "00000000", "00020000", "00010300"), True),
    "dlt645-1997": _Version(0x01, _wire("9010", "9020", "9110", "9013"), False),
}
"""The versions that can be searched for, by the protocol's name; 2007 first, as its questions mean nothing to 1997."""


@dataclass(frozen=True, slots=True)
class Found:
    """A meter that answered. duplicate: why its address is taken for that of two meters, or ""."""

    protocol: str
    address: str
    duplicate: str = ""


@dataclass(slots=True)
class _Heard:
    """What came to one question. answers: by address, the different answers. noise: bytes of no such frame."""

    answers: dict[str, set[bytes]] = field(default_factory=dict)
    noise: int = 0

    @property
    def silent(self) -> bool:
        return not self.answers and self.noise <= STRAY_BYTES

    @property
    def lone(self) -> str:
        """The address of the only meter that answered, "" when there may be more or it did not say."""
        if len(self.answers) != 1 or self.noise > STRAY_BYTES:
            return ""
        ((address, answers),) = self.answers.items()
        return "" if len(answers) > 1 or "A" in address else address

    def twice(self, address: str) -> bool:
        """Whether `address` gave two different answers to one question."""
        return len(self.answers.get(address, ())) > 1


def search(
    protocol: str,
    *,
    reply_s: float,
    tries: int = 1,
    thorough: bool = False,
    found: Callable[[Found], None] = lambda _found: None,
    progress: Callable[[float, int], None] = lambda _share, _questions: None,
) -> Conversation[list[Found]]:
    """The meters of `protocol` (a key of VERSIONS) on a line, in the order they were found.

    reply_s: how long to wait for an answer. tries: how often silence is asked again. thorough: looks behind meters that
    answered alone too, for others that a stronger one might hide; takes minutes for each. found: told of each meter at
    once. progress: told of the share of the search that is done, 0 to 1, and of the questions asked.
    """
    state = _Search(protocol, VERSIONS[protocol], reply_s, tries, thorough, found, progress)
    yield from _from_root(state)
    for address in state.late:
        if not state.has(address):
            heard = yield from _read(state, address, tries=2)
            if not heard.silent:
                yield from _judge(state, address, heard)
    return state.meters


@dataclass(slots=True)
class _Search:
    """A search under way. late: meters heard after their time. share: how much of the tree of addresses is done."""

    protocol: str
    version: _Version
    reply_s: float
    tries: int
    thorough: bool
    found: Callable[[Found], None]
    progress: Callable[[float, int], None]
    meters: list[Found] = field(default_factory=list)
    late: dict[str, None] = field(default_factory=dict)
    questions: int = 0
    share: float = 0.0

    def has(self, address: str) -> bool:
        return any(meter.address == address for meter in self.meters)

    def report(self, address: str, duplicate: str = "") -> None:
        if not self.has(address):
            meter = Found(self.protocol, address, duplicate)
            self.meters.append(meter)
            self.found(meter)

    def done(self, share: float) -> None:
        self.share += share
        self.progress(min(self.share, 1.0), self.questions)


def _from_root(state: _Search) -> Conversation[None]:
    """Any meter at all? One alone is found at once."""
    heard = _Heard()
    if state.version.has_read_address:
        heard = yield from _probe(state, ANY_ADDRESS, READ_ADDRESS, b"")
    if heard.silent:
        heard = yield from _read(state, ANY_ADDRESS, tries=max(2, state.tries))
    if not heard.silent:
        alone = not state.thorough and (yield from _is_alone(state, ANY_ADDRESS, heard.lone))
        if not alone:
            yield from _descend(state, "", 1.0)
            return
    state.done(1.0)


def _descend(state: _Search, suffix: str, share: float) -> Conversation[None]:
    """Every address that ends in `suffix`, by the pair in front of it."""
    for pair in range(100):
        yield from _node(state, f"{pair:02d}{suffix}", share / 100)


def _node(state: _Search, suffix: str, share: float) -> Conversation[None]:
    address = suffix.rjust(2 * PAIRS, "A")
    heard = yield from _read(state, address, tries=state.tries)
    if not heard.silent:
        if address == suffix:
            yield from _judge(state, address, heard)
        elif state.thorough or not (yield from _is_alone(state, address, heard.lone)):
            yield from _descend(state, suffix, share)
            return
    state.done(share)


def _is_alone(state: _Search, wildcard: str, address: str) -> Conversation[bool]:
    """Whether `address` is really there and the only one that `wildcard` reaches; if so it is reported."""
    if not address:
        return False
    for di in state.version.dis[1:]:
        heard = yield from _probe(state, wildcard, state.version.function, di)
        if not heard.silent and heard.lone != address:
            return False
    heard = yield from _read(state, address, tries=2)
    if heard.silent:
        return False  # a ghost: the bits of several meters happened to make this address
    yield from _judge(state, address, heard)
    return True


def _judge(state: _Search, address: str, first: _Heard) -> Conversation[None]:
    """Report the meter at `address`, which answered, or the two that share it."""
    heard = [first]
    for di in state.version.dis[1:3]:
        heard.append((yield from _probe(state, address, state.version.function, di)))
    garbled = sum(not one.silent and one.lone != address for one in heard)
    if any(one.twice(address) for one in heard):
        state.report(address, "two different answers came to one question")
    elif garbled > 1:
        state.report(address, "answers to its full address collide")
    elif garbled < sum(not one.silent for one in heard):
        state.report(address)


def _read(state: _Search, address: str, *, tries: int) -> Conversation[_Heard]:
    heard = _Heard()
    for _ in range(tries):
        heard = yield from _probe(state, address, state.version.function, state.version.dis[0])
        if not heard.silent:
            break
    return heard


def _probe(state: _Search, address: str, function: int, data: bytes) -> Conversation[_Heard]:
    """Ask once and listen until nothing more comes: a second meter may answer later than the first."""
    state.questions += 1
    scanner = Scanner()
    frames: list[Frame] = []
    came = 0
    try:
        chunk = yield Send(encode(address, function, data), reply_s=state.reply_s)
        while came < MAX_HEARD:
            came += len(chunk)
            frames += scanner.feed(chunk)
            chunk = yield MORE
    except NoAnswer:
        frames += scanner.flush()
    heard = _Heard(noise=scanner.noise)
    for frame in frames:
        if not frame.from_meter:
            continue  # our own question, given back by the adapter
        if (
            frame.function == function
            and matches(address, frame.address)
            and (frame.abnormal or frame.data[: len(data)] == data)
        ):
            heard.answers.setdefault(frame.address, set()).add(bytes((frame.control,)) + frame.data)
        elif frame.address.isdecimal():
            state.late[frame.address] = None
    state.progress(min(state.share, 1.0), state.questions)
    return heard
