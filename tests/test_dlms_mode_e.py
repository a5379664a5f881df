"""The sign-on of IEC 62056-21 in mode E, and HDLC after it: speeds, parity, echoes, meters that do otherwise."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from dataclasses import dataclass, field
from typing import Any

import pytest

from headend.conversation import Conversation, Pause, Send, SetSpeed
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import BadFrame, NoAnswer, ProtocolError, Unsupported
from headend.line import Line
from headend.protocols.dlms.link import make_link
from headend.protocols.dlms.mode_e import SignOn, sign_on, with_parity
from headend.protocols.dlms.settings import DlmsSettings
from tests.hdlc_kit import Station
from tests.test_line_links import speed_and_stops

IDENTIFICATION = b"/ISK5\\2MT382-1000\r\n"  # Iskraemeco MT382: offers 9600, enhanced mode
READOUT = b"\x02F.F(00000000)\r\n1.8.0(0012345.6*kWh)\r\n!\r\n\x03\x55"


def parity_on(text: bytes) -> bytes:
    return bytes(byte | 0x80 if bin(byte).count("1") % 2 else byte for byte in text)


@dataclass
class Meter:
    """An optical port: text at `form`, then HDLC at the speed agreed. What comes at another speed is not heard.

    parity: its link hands parity bits through, and it wants them. confirms: says ACK 2 Z 2 too. stays: at its speed.
    """

    identification: bytes = IDENTIFICATION
    form: str = "300 7E1"
    device: bytes = b""
    parity: bool = False
    echo: bool = False
    confirms: bool = True
    stays: bool = False
    readout: bytes = b""
    station: Station = field(default_factory=lambda: Station(b"\x03", b"\x21"))
    heard: list[bytes] = field(default_factory=list)
    speeds: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    signed_on: bool = False

    def feed(self, data: bytes, now: str) -> bytes:
        """What it sends for `data` that come while our port is set to `now`."""
        if self.station.connected or self.signed_on:
            return self.station.feed(data) if now == self.form else b""
        if now != self.form:
            return b""
        text = bytes(byte & 0x7F for byte in data)
        if self.parity and data != parity_on(text):
            return data if self.echo else b""
        self.heard.append(data)
        reply = self._text(text)
        if self.parity:
            reply = parity_on(reply)
        return (data if self.echo else b"") + reply

    def _text(self, text: bytes) -> bytes:
        if text == b"/?" + self.device + b"!\r\n":
            return self.identification
        if text[:2] == b"\x062" and text[3:] == b"2\r\n":
            if self.readout:
                return self.readout
            baud = {"0": 300, "3": 2400, "5": 9600, "6": 19200}[chr(text[2])]
            self.signed_on = True
            self.form = f"{300 if self.stays else baud} 8N1"
            return text if self.confirms else b""
        return b""

    def run(self, conversation: Conversation[Any]) -> Any:
        """Drive `conversation`; what comes in a pause is dropped."""
        chunks: list[bytes] = []
        now = ""
        try:
            request = next(conversation)
            for _ in range(2000):
                if isinstance(request, SetSpeed):
                    now = request.serial
                    self.speeds.append(now)
                    request = conversation.send(b"")
                    continue
                if isinstance(request, Pause):
                    self.pauses.append(request.seconds)
                    chunks.clear()
                    request = conversation.send(b"")
                    continue
                if isinstance(request, Send):
                    reply = self.feed(request.data, now)
                    chunks += [reply[at : at + 5] for at in range(0, len(reply), 5)]
                request = conversation.send(chunks.pop(0)) if chunks else conversation.throw(NoAnswer("silence"))
        except StopIteration as stop:
            return stop.value
        raise AssertionError("the conversation does not end")


def through(**knobs: Any) -> Conversation[bytes]:
    link = make_link(DlmsSettings(mode_e=True, **knobs), "1")
    yield from link.open()
    answer = yield from link.exchange(b"\xc0\x01\xc1")
    yield from link.close()
    return answer


# -- what works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirms", [True, False])
@pytest.mark.parametrize("echo", [True, False])
def test_sign_on_then_hdlc_at_the_speed_the_meter_offers(confirms: bool, echo: bool) -> None:
    meter = Meter(confirms=confirms, echo=echo)
    assert meter.run(through()) == b"\xc0\x01\xc1"
    assert meter.heard == [b"/?!\r\n", b"\x06252\r\n"]
    assert meter.speeds == ["300 7E1", "9600 8N1"]
    assert meter.station.asked == [b"\xc0\x01\xc1"]
    assert all(pause >= 0.2 for pause in meter.pauses)
    assert len(meter.pauses) == (2 if confirms else 1)  # without a word from it, the wait for one was the pause


def test_what_the_meter_says_it_is() -> None:
    assert Meter().run(sign_on(DlmsSettings())) == SignOn(9600, 300, "ISK", "\\2MT382-1000")


def test_a_device_address_and_another_start() -> None:
    meter = Meter(device=b"12345678", form="2400 7E1")
    assert meter.run(through(mode_e_device="12345678", mode_e_start="2400 7E1")) == b"\xc0\x01\xc1"
    assert meter.speeds == ["2400 7E1", "9600 8N1"]


def test_a_speed_of_one_s_own_choice() -> None:
    meter = Meter()
    assert meter.run(through(mode_e_baud=2400)) == b"\xc0\x01\xc1"
    assert meter.heard[1] == b"\x06232\r\n"
    assert meter.speeds == ["300 7E1", "2400 8N1"]


@pytest.mark.parametrize("letter", [b"0", b"3", b"6"])
def test_every_speed_goes_back_to_the_meter_as_its_letter(letter: bytes) -> None:
    meter = Meter(identification=b"/LGZ" + letter + b"ZMD120AP\r\n")
    assert meter.run(through()) == b"\xc0\x01\xc1"
    assert meter.heard[1] == b"\x062" + letter + b"2\r\n"
    assert meter.speeds[1] == {b"0": "300 8N1", b"3": "2400 8N1", b"6": "19200 8N1"}[letter]


def test_a_meter_that_stays_at_its_speed_is_found_there() -> None:
    """Landis+Gyr ZMD120 confirms the speed and does not change it."""
    meter = Meter(stays=True)
    assert meter.run(through(link_retries=1)) == b"\xc0\x01\xc1"
    assert meter.speeds == ["300 7E1", "9600 8N1", "300 8N1"]


@pytest.mark.parametrize("echo", [True, False])
def test_behind_a_serial_server_that_hands_parity_through(echo: bool) -> None:
    """The meter's characters come with parity in bit 7, and it takes ours only with parity."""
    meter = Meter(parity=True, echo=echo)
    assert meter.run(through()) == b"\xc0\x01\xc1"
    assert meter.heard == [b"\xaf\x3f\x21\x8d\x0a", parity_on(b"\x06252\r\n")]


def test_parity_by_the_book() -> None:
    assert with_parity(bytes(range(128))) == parity_on(bytes(range(128)))
    assert with_parity(b"/?!\r\n") == b"\xaf\x3f\x21\x8d\x0a"


def test_noise_before_the_identification_is_passed_over() -> None:
    meter = Meter(identification=b"\x00\xff?\r\n" + IDENTIFICATION)
    assert meter.run(through()) == b"\xc0\x01\xc1"


# -- what does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meter", [Meter(readout=READOUT), Meter(readout=READOUT[18:]), Meter(b"/x\r\n" + READOUT)])
def test_a_meter_that_answers_a_readout_has_no_mode_e(meter: Meter) -> None:
    """After ACK 2 Z 2, as a mode C meter that knows no mode E does, from its start or its middle; or at once."""
    with pytest.raises(Unsupported, match="answers the sign-on with a readout of its registers: it does not take up"):
        meter.run(through())


def test_an_identification_with_the_readout_right_behind_is_mode_a() -> None:
    signing = sign_on(DlmsSettings())
    next(signing)
    signing.send(b"")
    with pytest.raises(Unsupported, match="a readout of its registers"):
        signing.send(b"/EMH5 ED2000\r\n" + READOUT)


def test_a_meter_of_mode_b_is_named() -> None:
    with pytest.raises(Unsupported, match="the meter EMH offers speed 'E', which is none of mode E"):
        Meter(identification=b"/EMHEED2000\r\n").run(through())


def test_no_answer_to_the_sign_on() -> None:
    meter = Meter(device=b"77")
    with pytest.raises(NoAnswer, match="mode E sign-on: no answer -> check the optical head, mode_e_start and the"):
        meter.run(through(link_retries=2))
    assert meter.heard == [b"/?!\r\n", b"\xaf\x3f\x21\x8d\x0a", b"/?!\r\n"]


def test_something_else_than_an_identification() -> None:
    with pytest.raises(BadFrame, match="mode E sign-on: 9 bytes came that are no identification -> check mode_e_start"):
        Meter(identification=b"nonsense\x00").run(through(link_retries=0))


def test_only_our_own_echo_is_no_identification() -> None:
    with pytest.raises(ProtocolError, match="mode E sign-on"):
        Meter(identification=b"", echo=True).run(through())


def test_a_meter_that_signs_on_and_then_says_nothing() -> None:
    meter = Meter(station=Station(b"\x05", b"\x21"))
    with pytest.raises(NoAnswer, match="meter 1, client 16: no answer"):
        meter.run(through(link_retries=0))
    assert meter.speeds == ["300 7E1", "9600 8N1", "300 8N1"]


@pytest.mark.parametrize("rubbish", [b"\x00", b"/", b"/?!\r\n", b"\xff" * 100, IDENTIFICATION])
def test_a_line_that_never_falls_silent_holds_nobody(rubbish: bytes) -> None:
    def babbling() -> Conversation[int]:
        conversation = sign_on(DlmsSettings())
        request = next(conversation)
        for count in range(5000):
            try:
                request = conversation.send(rubbish if not isinstance(request, Pause | SetSpeed) else b"")
            except (ProtocolError, StopIteration):
                return count
        raise AssertionError("it goes on and on")
        yield

    with pytest.raises(StopIteration):
        next(babbling())


# -- on a real port ----------------------------------------------------------------------------------------------------


def test_on_a_port_whose_speed_really_changes() -> None:
    """A pseudo-terminal: the meter answers only what comes while the port is set to its speed."""
    meter = Meter()
    bauds: list[int] = []

    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(master)
        loop = asyncio.get_running_loop()

        def serve() -> None:
            data = os.read(master, 1000)
            baud = speed_and_stops(slave)[0]
            bauds.append(baud)
            attributes = termios.tcgetattr(slave)
            assert attributes[4] == attributes[5]
            form = meter.form if meter.form.split()[0] == str(baud) else "wrong"
            os.write(master, meter.feed(data, form))

        loop.add_reader(master, serve)
        line = Line(LineSettings("p", parse_endpoint(f"serial:{os.ttyname(slave)}", "2400 8N1"), reply_s=1.0))
        try:
            assert await line.run(through()) == b"\xc0\x01\xc1"
        finally:
            await line.close()
            loop.remove_reader(master)
            os.close(slave)
            os.close(master)

    asyncio.run(main())
    assert bauds == [300, 300, 9600, 9600, 9600]
    assert not meter.station.connected
