"""A client made of literal bytes, for the tests of the DLMS meter simulator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from simulators.clock import SettableClock
from simulators.dlms_cipher import protect, unprotect
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsClient, DlmsQuirks, DlmsSpec
from simulators.dlms_station import DlmsLine, DlmsStation
from simulators.dlms_town import dlms_meter
from simulators.dlms_wire import Frame, build_frame, take_frame

NOW_S = 1_790_000_000  # 2026-09-21 14:13:20 UTC
OPEN = DlmsClient(16)
EK, AK = bytes(range(16)), bytes(range(0xD0, 0xE0))
CLIENT_TITLE = b"CLIENT01"
AARQ = "601da109060760857405080101be10040e01000000065f1f0400fffeff{pdu:04x}"


def spec_with(spec: DlmsSpec | None = None, **quirks: Any) -> DlmsSpec:
    """A spec with one open client and these quirks."""
    base = spec or DlmsSpec(clients=(OPEN,))
    return replace(base, quirks=DlmsQuirks(**quirks))


def meter_of(spec: DlmsSpec | None = None, now_s: float = NOW_S) -> DlmsMeter:
    return dlms_meter(SettableClock(now_s), spec or DlmsSpec(clients=(OPEN,)))


class Wrapper:
    """One client over the wrapper: hex in, hex out."""

    def __init__(self, meter: DlmsMeter, client: int = 16) -> None:
        self.meter = meter
        self.client = client
        self.dropped = 0
        self.said: list[bytes] = []
        self.station = DlmsStation(meter, self.said.append, self._drop, interface="wrapper")

    def _drop(self) -> None:
        self.dropped += 1

    def all(self, apdu: bytes | str) -> list[bytes]:
        """Every APDU the meter answers with."""
        raw = bytes.fromhex(apdu) if isinstance(apdu, str) else apdu
        self.said.clear()
        ports = self.client.to_bytes(2, "big") + self.meter.spec.logical.to_bytes(2, "big")
        self.station.feed(b"\x00\x01" + ports + len(raw).to_bytes(2, "big") + raw)
        return [said[8:] for said in self.said]

    def ask(self, apdu: bytes | str) -> bytes:
        (answer,) = self.all(apdu)
        return answer

    def open(self, pdu: int = 0xFFFF) -> Wrapper:
        """Associate without security."""
        assert self.ask(AARQ.format(pdu=pdu))[:1] == b"\x61"
        return self

    def get(self, class_id: int, obis: str, attribute: int = 2, selection: str = "00") -> bytes:
        return self.ask(get_request(class_id, obis, attribute, selection))


def name(obis: str) -> str:
    return bytes(int(part) for part in obis.split(".")).hex()


def get_request(class_id: int, obis: str, attribute: int = 2, selection: str = "00") -> str:
    return f"c001c1{class_id:04x}{name(obis)}{attribute:02x}{selection}"


def blocks_of(wire: Wrapper, first: bytes) -> tuple[list[int], bytes]:
    """Numbers and content of an answer in blocks, fetched to its end."""
    numbers, data, answer = [], b"", first
    while True:
        assert answer[:2] == b"\xc4\x02"
        number = int.from_bytes(answer[4:8], "big")
        numbers.append(number)
        assert answer[8] == 0, answer.hex()
        size, start = (answer[9], 10) if answer[9] < 0x80 else _long(answer)
        assert start + size == len(answer)
        data += answer[start:]
        if answer[3]:
            return numbers, data
        answer = wire.ask(b"\xc0\x02\xc1" + number.to_bytes(4, "big"))


def _long(answer: bytes) -> tuple[int, int]:
    count = answer[9] & 0x7F
    return int.from_bytes(answer[10 : 10 + count], "big"), 10 + count


def rows_of(data: bytes) -> list[list[int | bytes | None]]:
    """Rows of a profile: null, octet-string, date-time, unsigned of one, two and four bytes only."""
    assert data[0] == 1
    count, at = (
        (data[1], 2)
        if data[1] < 0x80
        else (int.from_bytes(data[2 : 2 + (data[1] & 0x7F)], "big"), 2 + (data[1] & 0x7F))
    )
    rows: list[list[int | bytes | None]] = []
    for _ in range(count):
        assert data[at] == 2
        cells: list[int | bytes | None] = []
        width, at = data[at + 1], at + 2
        for _ in range(width):
            cell, at = _cell(data, at)
            cells.append(cell)
        rows.append(cells)
    assert at == len(data)
    return rows


def _cell(data: bytes, at: int) -> tuple[int | bytes | None, int]:
    tag, at = data[at], at + 1
    if tag == 0:
        return None, at
    if tag == 9:
        return data[at + 1 : at + 1 + data[at]], at + 1 + data[at]
    size = {17: 1, 18: 2, 6: 4, 25: 12}[tag]
    raw = data[at : at + size]
    return (raw if tag == 25 else int.from_bytes(raw, "big")), at + size


def selection_range(first: str, last: str) -> str:
    """A range by the clock; times as 12 bytes in hex, all columns."""
    return f"0101020402041200080906{name('0.0.1.0.0.255')}0f02120000090c{first}090c{last}0100"


def selection_entry(first: int, last: int, column: int = 1, to_column: int = 0) -> str:
    return f"0102020406{first:08x}06{last:08x}12{column:04x}12{to_column:04x}"


class Ciphered(Wrapper):
    """A client with suite 0 keys over the wrapper."""

    def __init__(
        self, meter: DlmsMeter, client: int = 1, *, counter: int = 1, key: bytes = EK, control: int = 0x30
    ) -> None:
        super().__init__(meter, client)
        self.counter = counter
        self.key = key
        self.control = control
        self.dedicated = b""
        self.seen: list[int] = []

    def wrap(self, tag: int, plain: str, key: bytes = b"") -> bytes:
        body = protect(self.control, key or self.key, AK, CLIENT_TITLE, self.counter, bytes.fromhex(plain))
        self.counter += 1
        return bytes((tag,)) + _length(len(body)) + body

    def general(self, plain: str) -> bytes:
        body = self.wrap(0xDB, plain)[1:]
        return b"\xdb\x08" + CLIENT_TITLE + body

    def unwrap(self, apdu: bytes, key: bytes = b"") -> bytes:
        at = 1 if apdu[0] != 0xDB else 10
        at += 1 if apdu[at] < 0x80 else 1 + (apdu[at] & 0x7F)
        self.seen.append(int.from_bytes(apdu[at + 1 : at + 5], "big"))
        return unprotect(key or self.key, AK, self.meter.title, apdu[at:])

    def aarq(self, mechanism: int = 5, challenge: bytes = b"K56iVagY", dedicated: bytes = b"") -> bytes:
        key = f"01{len(dedicated):02x}{dedicated.hex()}" if dedicated else "00"
        initiate = self.wrap(0x21, f"01{key}0000065f1f0400fffeffffff")
        body = bytes.fromhex(
            f"a109060760857405080103a60a0408{CLIENT_TITLE.hex()}8a0207808b07608574050802{mechanism:02x}"
        )
        body += b"\xac" + bytes((len(challenge) + 2, 0x80, len(challenge))) + challenge
        body += (
            b"\xbe"
            + _length(len(initiate) + 1 + len(_length(len(initiate))))
            + b"\x04"
            + _length(len(initiate))
            + initiate
        )
        return b"\x60" + _length(len(body)) + body


def _length(count: int) -> bytes:
    return bytes((count,)) if count < 0x80 else bytes((0x81, count))


class Hdlc:
    """A client of one line over HDLC, with addresses as on the wire."""

    def __init__(self, line: DlmsLine | DlmsMeter, server: str = "0223", client: int = 16) -> None:
        self.server = bytes.fromhex(server)
        self.client = bytes((client << 1 | 1,))
        self.said: list[bytes] = []
        self.dropped: list[bool] = []
        self.station = DlmsStation(line, self.said.append, lambda: self.dropped.append(True))

    def raw(self, data: bytes) -> list[bytes]:
        self.said.clear()
        self.station.feed(data)
        return list(self.said)

    def frames(self, control: int, info: str | bytes = b"", segmented: bool = False) -> list[Frame]:
        raw = bytes.fromhex(info) if isinstance(info, str) else info
        return parsed(self.raw(build_frame(Frame(self.server, self.client, control, raw, segmented))))

    def one(self, control: int, info: str | bytes = b"", segmented: bool = False) -> Frame:
        (frame,) = self.frames(control, info, segmented)
        assert frame.destination == self.client
        assert frame.source == self.server
        return frame


def parsed(chunks: Iterable[bytes]) -> list[Frame]:
    buffer = bytearray(b"".join(chunks))
    frames = []
    while (frame := take_frame(buffer)) is not None:
        frames.append(frame)
    return frames
