"""The sign-on of IEC 62056-21 at 300 bauds that opens the way to HDLC (mode E)."""

from __future__ import annotations

from collections.abc import Sequence

from simulators.dlms_meter import DlmsMeter
from simulators.dlms_wire import BAUDS, identification, parity_even, readout, take_line

__all__ = ["SignOn"]

_SPEED = "5"  # offered: 9600
_START_BAUD = 300


class SignOn:
    """The sign-on state of a line. Speeds are minded only where the transport has one (a pty)."""

    def __init__(self, meters: Sequence[DlmsMeter]) -> None:
        self._meters = [meter for meter in meters if meter.spec.quirks.mode_e]
        self._called: DlmsMeter | None = None
        self._baud = 0  # of HDLC once agreed; 0: not signed on

    @property
    def wanted(self) -> bool:
        """Whether any meter wants a sign-on first."""
        return bool(self._meters)

    def done(self, baud: int) -> bool:
        """Whether HDLC is spoken, and at this speed."""
        return bool(self._baud) and baud in (0, self._baud)

    def over(self) -> None:
        """After DISC it begins again."""
        self._baud = 0
        self._called = None

    def hear(self, text: bytearray, baud: int) -> list[bytes]:
        """What is said to the lines in `text`; they are taken off it."""
        said = []
        if baud not in (0, _START_BAUD):
            text.clear()
            return []
        while (line := take_line(text)) is not None:
            plain, marked = line
            for answer in self._answer(plain):
                said.append(parity_even(answer) if marked else answer)
        del text[:-64]
        return said

    def _answer(self, line: str) -> list[bytes]:
        if line.startswith("/?"):
            return self._identify(line[2:].rstrip("!").lstrip("0"))
        meter = self._called
        if meter is None or len(line) != 4:
            return []
        if meter.spec.quirks.mode_e == "readout" or line[1] != "2":
            self.over()
            return [readout(_registers(meter))]
        self._baud = _START_BAUD if meter.spec.quirks.mode_e == "ignore-speed" else BAUDS.get(line[2], 0)
        return [f"\x06{line[1:]}\r\n".encode("ascii")]

    def _identify(self, device: str) -> list[bytes]:
        self.over()
        for meter in self._meters:
            spec = meter.spec
            if device in ("", spec.serial.lstrip("0")):
                self._called = meter
                return [identification(spec.manufacturer, _SPEED, spec.model)]
        return []


def _registers(meter: DlmsMeter) -> list[str]:
    """The registers as a readout names them, in kWh."""
    wh = meter.register.units(meter.now_s()) // 10
    return [f"0.0.0({meter.spec.serial})", f"1.8.0({wh // 1000:06d}.{wh % 1000:03d}*kWh)"]
