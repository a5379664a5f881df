"""Scripts of DLMS conversations over the wrapper, written by hand: client 16, logical device 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from headend.access import Access, memory_access
from headend.conversation import Conversation, play
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsSettings

T = TypeVar("T")
Script = list[tuple[str, bytes]]

AARQ = "601DA109060760857405080101BE10040E01000000065F1F040000FE1F0400"
AARE = "6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F0400007E1F04000007"

WRAPPER = DlmsSettings(interface="wrapper", conformance="00FE1F")


def w(text: str, *, client: int = 16, server: int = 1, up: bool = True) -> bytes:
    """An APDU in hex, wrapped; up: to the meter."""
    apdu = bytes.fromhex(text)
    ports = (client, server) if up else (server, client)
    return b"\x00\x01" + b"".join(n.to_bytes(2, "big") for n in (*ports, len(apdu))) + apdu


def script(*lines: str, client: int = 16) -> Script:
    """`> hex` to the meter, `< hex` from it; several `<` in a row come in one chunk each."""
    return [(line[0], w(line[1:], client=client, up=line[0] == ">")) for line in lines]


def session(settings: DlmsSettings = WRAPPER, access: Access | None = None) -> Session:
    return Session(settings, "1", access or memory_access())


def opened(talk: Session, work: Conversation[T]) -> Conversation[T]:
    """Open, do the work."""
    yield from talk.open()
    return (yield from work)


def told(work: Conversation[T], *lines: str, talk: Session) -> T:
    """What `work` returns when the conversation after an open association goes like `lines`."""
    return play(opened(talk, work), script(f">{AARQ}", f"<{AARE}", *lines))


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
