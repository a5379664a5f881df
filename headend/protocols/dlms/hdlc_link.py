"""An HDLC link to one meter (Green Book clause 8: normal response mode, we are the primary station).

Every turn is the same: we send, the meter answers until it sets its final bit, and what is sent next follows from what
is still missing: segments of ours it has not confirmed, or else RR, which asks for what it has not sent. Repetition
after a timeout, duplicates, REJ and RNR all come out of that. A turn that brings nothing new counts; they are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from headend.conversation import Conversation, Pause, SetSpeed
from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer
from headend.protocols.dlms import hdlc
from headend.protocols.dlms.hdlc import Frame
from headend.protocols.dlms.hdlc_limits import Limits, accepted, proposal
from headend.protocols.dlms.hdlc_station import Station
from headend.protocols.dlms.mode_e import sign_on
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["MAX_APDU", "HdlcLink"]

MAX_APDU: Final = 1 << 20
_MAX_FRAMES: Final = 10_000  # of one exchange
_MAX_BUSY_S: Final = 10.0  # how long a meter may say that it is not ready, where its answers may not take longer
_BUSY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # silence before a meter that is not ready is asked again, by times

_I: Final = 0x00
_RR: Final = 0x01


@dataclass(slots=True)
class _Transfer:
    """One APDU out, one in. segments: ours, and what is recorded in their place; taken: how many the meter has."""

    segments: list[bytes]
    shown: list[bytes] | None
    expected: bool  # whether an APDU is to come back
    taken: int = 0
    whole: bool = False
    frames: int = 0
    silences: int = 0
    resends: int = 0
    polls: int = 0
    busy_s: float = 0.0  # rests between them

    @property
    def done(self) -> bool:
        return self.taken == len(self.segments) and (self.whole or not self.expected)


@dataclass(slots=True)
class _Turn:
    """What one turn brought."""

    news: bool = False  # a segment of ours confirmed, or one of the meter's
    final: bool = False
    busy: bool = False
    received: int = 0


class HdlcLink:
    """The link to the meter with the encoded address `server` as `client`. See `link.Link`."""

    def __init__(self, settings: DlmsSettings, server: bytes, client: bytes) -> None:
        self._settings = settings
        self._station = Station(settings, server, client)
        self.unsolicited = self._station.unsolicited
        self._limits = Limits()
        self._info = bytearray()  # segments of an APDU of the meter, so far
        self._send_number = 0  # V(S) of the next segment
        self._receive_number = 0  # V(R): what the meter must send next
        self._waiting: list[bytes] = []  # whole APDUs that came before they were asked for
        self._state: Literal["closed", "open", "broken", "down"] = "closed"

    # -- opening and closing -------------------------------------------------------------------------------------------

    def open(self) -> Conversation[None]:
        """Sign on where the meter wants it, then SNRM until UA."""
        self._reset()
        if self._settings.open_quiet_s > 0:
            yield Pause(self._settings.open_quiet_s)
        if not self._settings.mode_e:
            yield from self._connect()
            return
        offered = yield from sign_on(self._settings)
        yield SetSpeed(f"{offered.baud} 8N1")
        try:
            yield from self._connect()
        except (NoAnswer, BadFrame):
            if offered.baud == offered.start_baud:
                raise
            yield SetSpeed(f"{offered.start_baud} 8N1")  # some meters confirm a speed and stay where they are
            yield from self._connect()

    def close(self) -> Conversation[None]:
        """DISC, answered by UA or DM; what goes wrong does not matter any more."""
        state, self._state = self._state, "closed"
        if state in ("closed", "down"):
            return
        try:
            self._clear()
            for _ in range(2 if state == "open" else 1):
                frame = yield from self._command(hdlc.DISC, b"")
                if frame is not None and frame.kind in ("UA", "DM"):
                    break
            if self._settings.reconnect_s > 0:
                yield Pause(self._settings.reconnect_s)
        except HeadendError:
            return

    def _reset(self) -> None:
        self._state = "closed"
        self._clear()
        self._send_number = self._receive_number = 0
        self._limits = Limits()

    def _clear(self) -> None:
        self._station.clear()
        self._info.clear()
        self._waiting.clear()

    def _connect(self) -> Conversation[None]:
        """SNRM with our limits, and once more without any when the meter does not take them."""
        wanted = Limits.of(self._settings)
        fields = [proposal(wanted), b""] if self._settings.negotiate else [b""]
        refusal: Frame | None = None
        for info in fields:
            silent = info != fields[0] and refusal is None
            for _ in range(1 if silent else self._settings.link_retries + 1):
                reply = yield from self._command(hdlc.SNRM, info)
                if reply is not None and reply.kind == "UA":
                    self._limits = accepted(wanted, reply.info)
                    self._state = "open"
                    return
                if reply is not None:
                    refusal = reply
                    break
        raise self._station.verdict() if refusal is None else self._station.ended(refusal)

    def _command(self, control: int, info: bytes) -> Conversation[Frame | None]:
        """Send SNRM or DISC; the frame that answers it, None when there is none."""
        request = self._station.frame(control | hdlc.POLL, info)
        try:
            yield from self._station.send(request)
            while True:
                frame = yield from self._station.next()
                if frame.kind in ("UA", "DM", "FRMR"):
                    return frame
        except NoAnswer:
            for frame in self._station.rest():
                if frame.kind in ("UA", "DM", "FRMR"):
                    return frame
            return None
        except LineDown:
            self._state = "down"
            raise

    # -- APDUs ---------------------------------------------------------------------------------------------------------

    def exchange(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[bytes]:
        """Send `apdu` and return the one that comes."""
        self._set_aside()
        yield from self._transfer(self._outgoing(apdu, shown, expected=True))
        return self._waiting.pop(0)

    def receive(self) -> Conversation[bytes]:
        """The next APDU: one that is here already, or what the meter has when it is polled."""
        self._take_stock()
        if not self._waiting:
            yield from self._transfer(_Transfer([], None, expected=True))
        return self._waiting.pop(0)

    def send(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[None]:
        """Send `apdu` until the meter has confirmed it."""
        self._set_aside()
        yield from self._transfer(self._outgoing(apdu, shown, expected=False))

    def _set_aside(self) -> None:
        """What came before a question is no answer to it."""
        self._take_stock()
        for apdu in self._waiting:
            self._station.keep(apdu)
        self._waiting.clear()

    def _take_stock(self) -> None:
        """Take in frames that came behind the last answer."""
        if self._state == "open":
            before = _Transfer([], None, expected=True)
            for frame in self._station.here():
                self._take_in(before, _Turn(), frame)

    def _outgoing(self, apdu: bytes, shown: bytes | None, *, expected: bool) -> _Transfer:
        size = self._limits.send_bytes
        if self._settings.max_info_is_frame:
            size -= self._station.overhead
        size = max(1, size)
        segments = _segments(hdlc.LLC_COMMAND + apdu, size)
        if shown is None:
            return _Transfer(segments, None, expected)
        masked = _segments(hdlc.LLC_COMMAND + shown, size)[: len(segments)]
        return _Transfer(segments, masked + [b""] * (len(segments) - len(masked)), expected)

    def _transfer(self, task: _Transfer) -> Conversation[None]:
        if self._state != "open":
            raise NoAnswer(
                "the HDLC link is not open, or an exchange failed", where=self._station.where, remedy="open it again"
            )
        self._station.begin()
        self._state = "broken"  # until this exchange is through: its numbers are not sure before
        try:
            poll = not task.segments
            while not task.done:
                turn = yield from self._take_turn(task, poll=poll)
                poll = yield from self._judge(task, turn)
        except LineDown:
            self._state = "down"
            raise
        self._send_number = (self._send_number + len(task.segments)) & 7
        self._state = "open"

    def _take_turn(self, task: _Transfer, *, poll: bool) -> Conversation[_Turn]:
        """Send what is due and take in what comes, until it is our turn again."""
        turn = _Turn()
        window = [] if poll else self._window(task)
        rr = self._station.frame(_RR | hdlc.POLL | self._receive_number << 5)
        out = b"".join(self._information(task, index, window[-1]) for index in window) or rr
        shown = None
        if window and task.shown is not None:
            shown = b"".join(self._information(task, index, window[-1], masked=True) for index in window)
        try:
            yield from self._station.send(out, shown)
            while not turn.final and not task.done:
                self._take_in(task, turn, (yield from self._station.next()))
        except NoAnswer:
            for frame in self._station.rest():
                self._take_in(task, turn, frame)
        return turn

    def _judge(self, task: _Transfer, turn: _Turn) -> Conversation[bool]:
        """After a turn: whether to poll next; else segments are sent (again). Raises when enough has been tried."""
        if task.done:
            return False
        unconfirmed = task.taken < len(task.segments)
        if turn.news:
            task.silences = task.resends = task.polls = 0
            task.busy_s = 0.0
            if not turn.busy:
                return not unconfirmed
        if turn.busy or (turn.final and not unconfirmed):
            if task.busy_s >= max(_MAX_BUSY_S, self._settings.reply_s):
                raise NoAnswer(
                    "the meter is busy and gives no answer", where=self._station.where, remedy="raise reply_s"
                )
            rest_s = _BUSY_S[min(task.polls, len(_BUSY_S) - 1)]
            yield Pause(rest_s)
            task.polls += 1
            task.busy_s += rest_s
            return True
        if turn.final:  # the meter waits for what it did not get
            task.resends += 1
        else:
            task.silences += 1
        if max(task.resends, task.silences) > self._settings.link_retries:
            raise self._station.verdict()
        # A silent meter is asked what it has got before anything is sent again, and the other way round next time.
        return not turn.final and (not unconfirmed or task.silences % 2 == 1)

    # -- frames out ----------------------------------------------------------------------------------------------------

    def _window(self, task: _Transfer) -> range:
        """The segments to send now."""
        return range(task.taken, min(task.taken + self._limits.send_window, len(task.segments)))

    def _information(self, task: _Transfer, index: int, last: int, *, masked: bool = False) -> bytes:
        """Segment `index` as an I frame; the last of a window polls."""
        segments = task.shown if masked and task.shown is not None else task.segments
        number = (self._send_number + index) & 7
        control = _I | number << 1 | self._receive_number << 5 | (hdlc.POLL if index == last else 0)
        more = index + 1 < len(task.segments)
        return self._station.frame(control, segments[index], segmented=more)

    # -- frames in -----------------------------------------------------------------------------------------------------

    def _take_in(self, task: _Transfer, turn: _Turn, frame: Frame) -> None:
        """What a frame of the meter changes."""
        task.frames += 1
        if task.frames > _MAX_FRAMES:
            raise BadFrame(f"more than {_MAX_FRAMES} frames for one answer", where=self._station.where)
        kind = frame.kind
        if kind in ("DM", "FRMR", "DISC"):
            raise self._station.ended(frame)
        if kind not in ("I", "RR", "RNR", "REJ", "SREJ"):
            return  # a second UA, when SNRM had to be sent twice
        turn.final = turn.final or frame.final
        turn.busy = kind == "RNR" or (turn.busy and kind == "I")
        if self._confirm(task, turn, frame.number_received) and kind == "RR" and task.taken < len(task.segments):
            turn.final = True  # some meters leave out the bit; it has nothing to say before it has all of ours
        if kind == "I":
            self._take_segment(task, turn, frame)
            turn.received += 1
            turn.final = turn.final or turn.received >= self._limits.receive_window

    def _confirm(self, task: _Transfer, turn: _Turn, number: int) -> bool:
        """N(R) of a frame says what the meter has got of ours; whether it says more than before."""
        newly = (number - self._send_number - task.taken) & 7
        if not 0 < newly <= min(self._limits.send_window, len(task.segments) - task.taken):
            return False
        task.taken += newly
        turn.news = True
        return True

    def _take_segment(self, task: _Transfer, turn: _Turn, frame: Frame) -> None:
        """An I frame: the one that is due; duplicates, and what stands behind a gap, are dropped."""
        if frame.number_sent != self._receive_number:
            return
        self._receive_number = (self._receive_number + 1) & 7
        turn.news = turn.news or bool(frame.info)
        self._info += frame.info
        if len(self._info) > MAX_APDU:
            raise BadFrame(f"an answer of more than {MAX_APDU} bytes", where=self._station.where)
        if frame.segmented:
            return
        info = bytes(self._info)
        self._info.clear()
        if task.taken < len(task.segments):
            return  # the answer to an earlier request: the meter has not even got all of this one
        try:
            self._waiting.append(hdlc.strip_llc(info))
        except BadFrame as error:
            raise BadFrame(error.problem.what, where=self._station.where) from None
        task.whole = True


def _segments(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
