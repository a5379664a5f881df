"""What kind of DL/T 645 meter one is, and how it says no. Both versions of the protocol use it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "BROADCAST",
    "ERR_BAUD",
    "ERR_NO_DATA",
    "ERR_OTHER",
    "ERR_REFUSED",
    "FORMS",
    "RELAYS",
    "MeterSpec",
    "Refused",
]

FORMS = ("0610", "record", "1997")
RELAYS = ("works", "stuck")
BROADCAST = b"\x99" * 6
ERR_OTHER, ERR_NO_DATA, ERR_REFUSED, ERR_BAUD = 0x01, 0x02, 0x04, 0x08


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """address: 12 digits. form: where its load profile is, `0610` or `record` (appendix B, class 4 stored); `1997` is a
    meter of that version, which has none. preamble: FE before an answer, 0..4.
    clock_error_s, clock_drift_ppm: how wrong its clock is.
    followup: `by_seq` sends what SEQ asks for again; `next` ignores SEQ and sends the next piece, once.
    frame_bytes: the longest data field of an answer; what is longer comes in pieces.
    lacks: data identifiers it refuses though its kind has them, as hex digits.

    passwords: level 0 (highest) to 9, and six digits, highest pair first. esam: has a security chip and takes no
    password. needs_key: its programming key has to be pressed before it can be written.
    reactive_percent: reactive energy in hundredths of active energy.
    relay: `stuck` acknowledges and does not move. relay_delay_s: how long after the order it moves.
    baud, parity: what it listens to on a wire with a speed; 0 and "" for whatever the wire has.

    Of the 1997 version only: block_end puts AA after a block, hears_99 answers reads and writes to address 99..99.
    """

    address: str
    step_min: int = 15
    form: str = "0610"
    memory_days: int = 62
    freeze_days: int = 62
    preamble: int = 4
    zone_offset_s: int = 28_800
    clock_error_s: int = 0
    clock_drift_ppm: int = 0
    followup: str = "by_seq"
    frame_bytes: int = 200
    lacks: tuple[str, ...] = ()
    passwords: tuple[tuple[int, str], ...] = field(default=((2, "000000"), (4, "000000")), repr=False)
    esam: bool = False
    needs_key: bool = False
    relay: str = "works"
    relay_delay_s: int = 0
    baud: int = 0
    parity: str = ""
    reactive_percent: int = 30
    block_end: bool = False
    hears_99: bool = False


class Refused(Exception):
    """The meter says no, with this error word."""

    def __init__(self, err: int) -> None:
        super().__init__(err)
        self.err = err
