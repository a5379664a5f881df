"""Lines that end at a broker: bytes to a DTU over a pair of topics, or commands to a concentrator.

An `End` lasts as long as the program and listens all the time; a link is what a line opens and loses. What is sent
expires, so that nothing sent long ago is done when a device that was away comes back (MQTT 5).
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from math import ceil
from typing import Any, Final

import msgspec

from headend.endpoints import Endpoint, LineSettings, Topics
from headend.errors import BadFrame, LineDown, UsageError
from headend.line import Link
from headend.mqtt.commands import OpenRequest, expiry_of, request_of
from headend.mqtt.service import Service
from headend.protocols.hes_mqtt.messages import StateMessage, decode_message, down_topic, up_topic

__all__ = ["Codec", "ConcentratorEnd", "DtuEnd", "End", "MqttLink", "end_of"]

log = logging.getLogger(__name__)

_LARGEST_BYTES: Final = 65_536  # of a frame in whatever dress


def _drop(_data: bytes) -> None:
    """Bytes nobody waits for."""


class MqttLink:
    """An open line over a broker; see `headend.line.Link`."""

    def __init__(self, end: End) -> None:
        self.on_data: Callable[[bytes], None] = _drop
        self.on_lost: Callable[[str], None] = lambda _why: None
        self._end: End | None = end

    @property
    def is_open(self) -> bool:
        return self._end is not None and self._end.service.connected

    def write(self, data: bytes) -> None:
        if self._end is None:
            raise LineDown("the line over the broker is closed")
        self._end.send(self, data)

    def close(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end.let_go(self)

    def lose(self, why: str) -> None:
        """It ended, and not by us."""
        if self._end is not None:
            self.close()
            self.on_lost(why)


class End:
    """The far end of one line. `open` is what the line is given as its opener. on_up: called when the way to it is
    free again."""

    def __init__(
        self, settings: LineSettings, service: Service, down: str, qos: int, *, clock: Callable[[], datetime]
    ) -> None:
        self.settings = settings
        self.service = service
        self.on_up: Callable[[], None] = lambda: None
        self.undecodable = 0
        self._down = down
        self._qos = qos
        self._clock = clock
        self._link: MqttLink | None = None
        self._request: OpenRequest | None = None
        self._sending: set[asyncio.Task[None]] = set()
        service.watch(self._broker_lost)
        service.show(self.requests)

    async def open(self, endpoint: Endpoint, connect_s: float) -> Link:
        """A link; `LineDown` when there is no connection to the broker within `connect_s`."""
        await self.service.until_connected(connect_s)
        self._link = MqttLink(self)
        return self._link

    def send(self, link: MqttLink, data: bytes) -> None:
        """Publish `data`. That the broker refuses it, or nobody listens, ends the link."""
        if not self.service.connected:
            raise LineDown(f"there is no connection to broker {self.service.name}")
        self._request = request_of(self.settings.name, self._down, data, self._clock(), self.settings.reply_s)
        task = asyncio.get_running_loop().create_task(self._publish(link, data))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _publish(self, link: MqttLink, data: bytes) -> None:
        expiry_s = expiry_of(data, ceil(self.settings.reply_s))
        try:
            heard = await self.service.publish(self._down, self.dressed(data), self._qos, expiry_s=expiry_s)
        except LineDown as error:
            self._request = None
            link.lose(error.problem.what)
            return
        if not heard:
            self._request = None
            link.lose(f"nobody listens on {self._down}: is the device connected to the broker?")

    def dressed(self, data: bytes) -> bytes:
        """What is published to say `data`."""
        return data

    def hand_over(self, data: bytes) -> None:
        """An answer came: to the link, if one is open."""
        self._request = None
        if self._link is not None:
            self._link.on_data(data)

    def let_go(self, link: MqttLink) -> None:
        """`link` was closed."""
        if self._link is link:
            self._link = None

    def lose(self, why: str) -> None:
        """End the link there is."""
        if self._link is not None:
            self._link.lose(why)

    def requests(self) -> Iterable[OpenRequest]:
        """What is not answered yet: at most one, as a line has one conversation at a time."""
        return [] if self._request is None else [self._request.seen_at(self._clock())]

    def _broker_lost(self, why: str) -> None:
        self._request = None
        self.lose(f"broker {self.service.name}: {why}")


# -- DTUs --------------------------------------------------------------------------------------------------------------


class Codec:
    """How payloads hold bytes; see `headend.endpoints.Topics`."""

    def __init__(self, topics: Topics) -> None:
        kind, _, path = topics.codec.partition(":")
        if kind not in ("hex", "raw", "json") or (kind == "json") != bool(path):
            raise UsageError(f"there is no codec {topics.codec!r}", remedy="use hex, raw or json:FIELD")
        self._kind = kind
        self._path = tuple(path.split("."))
        self._template = topics.template or (_template(self._path) if kind == "json" else "{hex}")

    def encode(self, data: bytes) -> bytes:
        """The payload that says `data`."""
        return data if self._kind == "raw" else self._template.replace("{hex}", data.hex()).encode()

    def decode(self, payload: bytes) -> bytes | None:
        """The bytes in `payload`; None where it holds none, as a DTU's own messages. `BadFrame` for broken ones."""
        if len(payload) > 2 * _LARGEST_BYTES + 4096:
            raise BadFrame(f"a payload of {len(payload)} bytes is no frame")
        if self._kind == "raw":
            return payload or None
        text: Any = payload.decode("utf-8", "replace") if self._kind == "hex" else self._field(payload)
        if text is None:
            return None
        if not isinstance(text, str):
            raise BadFrame(f"the field {'.'.join(self._path)} holds no text")
        try:
            return binascii.unhexlify("".join(text.split())) or None
        except ValueError:
            raise BadFrame(f"the payload holds no hexadecimal: {text[:40]!r}") from None

    def _field(self, payload: bytes) -> Any:
        try:
            node: Any = msgspec.json.decode(payload)
        except (ValueError, RecursionError):
            raise BadFrame("the payload is no JSON") from None
        for step in self._path:
            node = node.get(step) if isinstance(node, dict) else None
        return node


def _template(path: tuple[str, ...]) -> str:
    """The plainest object with the bytes at `path`."""
    node: Any = "{hex}"
    for step in reversed(path):
        node = {step: node}
    return msgspec.json.encode(node).decode()


class DtuEnd(End):
    """A DTU that passes bytes on between a pair of topics and its serial port."""

    def __init__(
        self, settings: LineSettings, service: Service, topics: Topics, *, clock: Callable[[], datetime]
    ) -> None:
        super().__init__(settings, service, topics.down, topics.qos, clock=clock)
        self._codec = Codec(topics)
        service.subscribe(topics.up, self._heard)

    def dressed(self, data: bytes) -> bytes:
        return self._codec.encode(data)

    def _heard(self, topic: str, payload: bytes, retained: bool) -> None:
        if retained:
            return  # an answer to a question of long ago
        try:
            data = self._codec.decode(payload)
        except BadFrame as error:
            self.undecodable += 1
            if self.undecodable == 1:
                log.warning("line %s: %s: %s", self.settings.name, topic, error)
            return
        if data is not None:
            self.hand_over(data)


# -- concentrators -----------------------------------------------------------------------------------------------------


class ConcentratorEnd(End):
    """A concentrator that takes the commands of the canonical protocol. online: by itself or its last will, None
    unknown."""

    def __init__(
        self, settings: LineSettings, service: Service, concentrator: str, *, clock: Callable[[], datetime]
    ) -> None:
        super().__init__(settings, service, down_topic(concentrator, "cmd"), 1, clock=clock)
        self.concentrator = concentrator
        self.online: bool | None = None
        service.subscribe(up_topic(concentrator, "rsp"), self._answered)
        service.subscribe(up_topic(concentrator, "state"), self._told)

    async def open(self, endpoint: Endpoint, connect_s: float) -> Link:
        """As `End.open`; and `LineDown` while the concentrator is known to be away: nothing is sent then."""
        link = await super().open(endpoint, connect_s)
        if self.online is False:
            link.close()
            what = f"concentrator {self.concentrator} is offline, by its own word or last will"
            raise LineDown(what, remedy="see `headend mqtt status`; it is asked again when it is back")
        return link

    def _broker_lost(self, why: str) -> None:
        self.online = None  # it may come back while nobody tells us
        super()._broker_lost(why)

    def _answered(self, _topic: str, payload: bytes, retained: bool) -> None:
        if not retained:
            self.hand_over(payload)

    def _told(self, _topic: str, payload: bytes, _retained: bool) -> None:
        try:
            message = decode_message(payload)
        except BadFrame:
            return  # the intake keeps it, and says why
        if not isinstance(message, StateMessage) or message.con != self.concentrator:
            return
        was, self.online = self.online, message.online
        if not message.online:
            self.lose(f"concentrator {self.concentrator} went offline")
        elif was is False:
            self.on_up()


def end_of(settings: LineSettings, service: Service, *, clock: Callable[[], datetime]) -> End:
    """The far end of a line whose endpoint is at the broker of `service`."""
    endpoint = settings.endpoint
    if endpoint.concentrator:
        return ConcentratorEnd(settings, service, endpoint.concentrator, clock=clock)
    if endpoint.topics is None:
        raise UsageError(f"line {settings.name} names no topics", remedy="give it up and down in site.toml")
    return DtuEnd(settings, service, endpoint.topics, clock=clock)
