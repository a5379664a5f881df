"""One message received, understood, placed and checked: what the store is to keep of it, and what is kept aside.

No IO. Nothing here raises for what a concentrator sent: what can't be used is told with its reason.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import BadFrame, ProtocolError
from headend.model import Fault, Quality, Source
from headend.mqtt.batch import Batch, MeterRows, State
from headend.mqtt.dialect import Dialect, concentrator_of
from headend.mqtt.judge import Anchors, judged
from headend.mqtt.place import Place, Places
from headend.mqtt.quick import Quick
from headend.mqtt.settings import BrokerSettings, channel_of
from headend.mqtt.tabulate import tabulate, taken_of
from headend.quantities import UNITS_PER_ONE
from headend.store.events import MeterEvent
from headend.store.sheets import Message, Sheet
from headend.store.unplaced import UnplacedRow

__all__ = ["Interpreter", "Understood", "quarantined"]

log = logging.getLogger(__name__)

_SHOWN: Final = 5  # reasons told of one message
_CLOCK_LIMIT_S: Final = 10 * 365 * 86_400  # beyond it a clock is not wrong but unset


@dataclass(frozen=True, slots=True)
class Understood:
    """A message ready for the store. concentrator: "" where that is not certain. reason: why it, or part of it, is kept
    aside; "" if nothing is. reply: what the dialect answers once this is stored, as (topic, payload)."""

    message: Message
    concentrator: str = ""
    state: State | None = None
    reason: str = ""
    reply: tuple[str, bytes] = ("", b"")


class Interpreter:
    """What messages of one broker mean for the meters there are."""

    def __init__(self, settings: BrokerSettings, dialects: Sequence[Dialect], places: Places, anchors: Anchors) -> None:
        self.settings = settings
        self.places = places
        self.anchors = anchors
        self._patterns = [(pattern, dialect) for dialect in dialects for pattern in dialect.filters]

    def understand(
        self, topic: str, payload: bytes, received_at: datetime, *, size: int = 0, retained: bool = False
    ) -> Understood:
        """topic: as the broker has it, bucket and all. size: bytes as received, if `payload` was cut. retained: an old
        message the broker kept; it has no place in the numbering of what comes now."""
        said = self._without_bucket(topic)
        if size > self.settings.max_message_bytes:
            limit = self.settings.max_message_bytes
            reason = f"{size} bytes are more than max_message_bytes ({limit}); the first {len(payload)} are kept"
            return quarantined(self.settings, topic, payload, received_at, reason)
        try:
            batch, named = self._decode(said, payload, received_at)
        except ProtocolError as error:
            return quarantined(self.settings, topic, payload, received_at, str(error))
        except Exception as error:
            log.exception("mqtt %s: a message on %s was not understood", self.settings.name, topic)
            words = f"not understood: {type(error).__name__}: {error}"
            return quarantined(self.settings, topic, payload, received_at, words)
        concentrator = named or batch.concentrator
        if named and batch.concentrator and named != batch.concentrator:
            reason = f"its topic is of {named[:64]}, but it says it is {batch.concentrator[:64]}"
            return quarantined(self.settings, topic, payload, received_at, reason)
        if not concentrator and (batch.meters or batch.events):
            reason = "neither topic nor payload tell which concentrator it is from"
            return quarantined(self.settings, topic, payload, received_at, reason)
        return self._placed(batch, concentrator, topic, payload, received_at, retained=retained)

    def takes(self, topic: str) -> bool:
        """Whether a dialect listens to `topic`."""
        said = self._without_bucket(topic)
        return any(concentrator_of(pattern, said) is not None for pattern, _ in self._patterns)

    def _without_bucket(self, topic: str) -> str:
        return topic.removeprefix(f"{self.settings.bucket}/") if self.settings.bucket else topic

    def _decode(self, topic: str, payload: bytes, received_at: datetime) -> tuple[Batch, str]:
        """By the dialect whose filter takes the topic; of several, by the first that understands it."""
        refusal: ProtocolError | None = None
        for pattern, dialect in self._patterns:
            named = concentrator_of(pattern, topic)
            if named is None:
                continue
            try:
                return dialect.decode(topic, payload, received_at), named
            except ProtocolError as error:
                refusal = refusal or error
        raise refusal or BadFrame("no dialect of this broker takes this topic")

    def _placed(
        self, batch: Batch, concentrator: str, topic: str, payload: bytes, received_at: datetime, *, retained: bool
    ) -> Understood:
        reasons: Counter[str] = Counter()
        for part in batch.rejected:
            reasons[f"{part.address}: {part.reason}" if part.address else part.reason] += 1
        sheets, faults = self._values(batch, concentrator, received_at, reasons)
        events = self._events(batch, concentrator, reasons)
        reason = _told(reasons)
        channel = channel_of(self.settings.name)
        aside = (UnplacedRow(received_at, channel, topic, reason, payload),) if reason else ()
        numbered = batch.boot is not None and batch.seq is not None and concentrator and not retained
        message = Message(
            received_at=received_at,
            channel=channel,
            topic=topic,
            payload=payload,
            sheets=tuple(sheets),
            faults=tuple(faults),
            events=tuple(events),
            sequence=(concentrator, batch.boot or 0, batch.seq or 0) if numbered else None,
            unplaced=aside,
        )
        return Understood(message, concentrator, batch.state, reason, batch.reply)

    def _values(
        self, batch: Batch, concentrator: str, received_at: datetime, reasons: Counter[str]
    ) -> tuple[list[Sheet], list[tuple[int, Fault]]]:
        sheets: list[Sheet] = []
        faults: list[tuple[int, Fault]] = []
        if not batch.meters or batch.kind is None:
            return sheets, faults
        places = self.places.of(concentrator)
        taken, untaken = taken_of(batch)
        reasons.update(untaken)
        quick = Quick(batch, taken, self.anchors)
        for rows in batch.meters:
            place = places.get(rows.address)
            if place is None:
                reasons[self.places.why_not(concentrator, rows.address)] += 1
                continue
            made = quick.sheets(rows, place)
            if made is not None:
                sheets += made
                self._note_clock(rows, place, batch.sent_at or received_at, sheets)
                continue
            table = tabulate(batch, rows, place, taken)
            sheets += judged(table.sheets, place, self.anchors)
            for fault in () if batch.sparse else table.faults:
                faults.append((place.key, fault))
            for reason in table.reasons:
                reasons[f"{rows.address}: {reason}"] += 1
            self._note_clock(rows, place, batch.sent_at or received_at, sheets)
        return sheets, faults

    def _note_clock(self, rows: MeterRows, place: Place, at: datetime, sheets: list[Sheet]) -> None:
        """What the concentrator says of the meter's clock."""
        offset_s = rows.clock_offset_s
        if offset_s is not None and abs(offset_s) < _CLOCK_LIMIT_S:
            sheets.append(_clock(place.key, offset_s, at))

    def _events(self, batch: Batch, concentrator: str, reasons: Counter[str]) -> list[MeterEvent]:
        places = self.places.of(concentrator)
        events = []
        for event in batch.events:
            place = places.get(event.address)
            if place is None:
                reasons[self.places.why_not(concentrator, event.address)] += 1
            else:
                events.append(MeterEvent(place.key, from_epoch_s(event.at), event.code, event.phase, event.data))
        return events


def _clock(meter_key: int, offset_s: int, at: datetime) -> Sheet:
    units = array("q", [offset_s * UNITS_PER_ONE])
    when = array("q", [to_epoch_s(at)])
    return Sheet(meter_key, "clock_offset_s", Source.INSTANT, 0, when, units, bytes([Quality.VALID]))


def _told(reasons: Counter[str]) -> str:
    """Reasons in a line, the most frequent first."""
    if not reasons:
        return ""
    words = [f"{reason} (x{count})" if count > 1 else reason for reason, count in reasons.most_common(_SHOWN)]
    more = len(reasons) - len(words)
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def quarantined(settings: BrokerSettings, topic: str, payload: bytes, received_at: datetime, reason: str) -> Understood:
    """A message of which nothing can be used, to be kept as it came."""
    channel = channel_of(settings.name)
    row = UnplacedRow(received_at, channel, topic, reason, payload)
    return Understood(Message(received_at, channel, topic, payload, unplaced=(row,)), reason=reason)
