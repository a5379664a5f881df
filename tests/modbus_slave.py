"""A Modbus slave for tests, written apart from what it tests: own CRC, own frames, a memory of registers.

`converse` plays a conversation against it without a line; `serve` puts it on a TCP port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from headend.conversation import Conversation, Pause, Send
from headend.errors import NoAnswer

__all__ = ["Slave", "converse", "crc_bytes", "frame_rtu", "frame_tcp", "serve", "words"]

T = TypeVar("T")


def crc_bytes(data: bytes) -> bytes:
    """CRC-16 bit by bit, as the standard describes it."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return bytes((crc & 0xFF, crc >> 8))


def frame_rtu(unit: int, pdu: bytes) -> bytes:
    body = bytes((unit,)) + pdu
    return body + crc_bytes(body)


def frame_tcp(transaction: int, unit: int, pdu: bytes) -> bytes:
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu


def words(start: int, data: bytes) -> dict[int, int]:
    """Registers from `start` on that hold `data`."""
    return {start + at // 2: int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)}


@dataclass
class Slave:
    """One unit. memory: registers by function. holes: exception code for what is not there; most: of one read."""

    memory: Mapping[int, dict[int, int]]
    unit: int = 1
    most: int = 125
    identity: tuple[bytes, ...] = ()
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def answer(self, pdu: bytes) -> bytes:
        """The PDU of the answer."""
        function, address = pdu[0], int.from_bytes(pdu[1:3], "big")
        if function in (1, 2, 3, 4):
            return self._read(function, address, int.from_bytes(pdu[3:5], "big"))
        if function == 0x10:
            self.memory[3].update(words(address, pdu[6:]))
            return pdu[:5]
        if function == 6:
            self.memory[3][address] = int.from_bytes(pdu[3:5], "big")
            return pdu
        if function == 0x2B and self.identity:
            number = pdu[3]  # one object an answer, so that following them is tested
            more = number + 1 < len(self.identity)
            text = self.identity[number]
            head = bytes((0x2B, 0x0E, 1, 1, 0xFF if more else 0, number + 1 if more else 0, 1, number, len(text)))
            return head + text
        return bytes((function | 0x80, 1))

    def _read(self, function: int, address: int, count: int) -> bytes:
        self.asked.append((function, address, count))
        held = self.memory.get(function, {})
        if count > self.most:
            return bytes((function | 0x80, 3))
        if any(one not in held for one in range(address, address + count)):
            return bytes((function | 0x80, 2))
        if function in (1, 2):
            bits = sum(held[address + n] << n for n in range(count))
            data = bits.to_bytes((count + 7) // 8, "little")
        else:
            data = b"".join(held[address + n].to_bytes(2, "big") for n in range(count))
        return bytes((function, len(data))) + data

    def rtu(self, frame: bytes) -> bytes:
        """The frame that comes back on a serial line; nothing for another unit or a wrong CRC."""
        if frame[0] != self.unit or crc_bytes(frame[:-2]) != frame[-2:]:
            return b""
        return frame_rtu(self.unit, self.answer(frame[1:-2]))

    def tcp(self, frame: bytes) -> bytes:
        """The frame that comes back over TCP; a gateway's exception for another unit."""
        pdu = self.answer(frame[7:]) if frame[6] == self.unit else bytes((frame[7] | 0x80, 0x0B))
        return frame_tcp(int.from_bytes(frame[:2], "big"), frame[6], pdu)


def converse(
    conversation: Conversation[T], reply: Callable[[bytes], bytes | Iterable[bytes]], pauses: list[float] | None = None
) -> T:
    """Drive `conversation`: what it sends is given to `reply`, whose chunks it gets; then silence."""
    queue: list[bytes] = []
    try:
        request = next(conversation)
        while True:
            if isinstance(request, Pause):
                if pauses is not None:
                    pauses.append(request.seconds)
                queue.clear()
                request = conversation.send(b"")
                continue
            if isinstance(request, Send):
                said = reply(request.data)
                queue = [said] if isinstance(said, bytes) else list(said)
                queue = [chunk for chunk in queue if chunk]
            request = conversation.send(queue.pop(0)) if queue else conversation.throw(NoAnswer("nothing came"))
    except StopIteration as stop:
        result: T = stop.value
        return result


@asynccontextmanager
async def serve(reply: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """A TCP port on which every chunk received is answered by `reply`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1024):
                writer.write(reply(chunk))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
