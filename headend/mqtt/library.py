"""paho-mqtt, held here alone: a client set up before it connects, subscriptions, and what its results mean."""

from __future__ import annotations

import ssl
from typing import Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from headend.mqtt.settings import BrokerSettings, password_of
from headend.mqtt.tls import tls_context

__all__ = ["NOBODY_LISTENS", "Handlers", "Paho", "PahoMessage", "Reason", "buffered", "ended", "expiring", "new_client"]
__all__ += ["subscribe"]

Paho = paho.Client
PahoMessage = paho.MQTTMessage
Reason = ReasonCode

NOBODY_LISTENS: Final = 0x10
"""Reason with which a broker says that it took a message for which nobody has subscribed (MQTT 5)."""

_FILTERS: Final = 100  # in one SUBSCRIBE: brokers limit its size
_QOS: Final = 1  # QoS 2 is acknowledged before anything is stored


class Handlers(Protocol):
    """Who is told what happens on a connection."""

    def on_connect(self, client: Paho, _data: Any, _flags: Any, reason: Reason, _more: Any) -> None: ...
    def on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Reason, _properties: Any) -> None: ...
    def on_message(self, _client: Any, _data: Any, message: PahoMessage) -> None: ...
    def on_publish(self, _client: Any, _data: Any, mid: int, reason: Reason, _properties: Any) -> None: ...
    def on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[Reason], _properties: Any) -> None: ...
    def on_want_write(self, _client: Any, _data: Any, _socket: Any) -> None: ...
    def on_wrote(self, _client: Any, _data: Any, sock: Any) -> None: ...
    def on_socket_close(self, _client: Any, _data: Any, sock: Any) -> None: ...


def new_client(settings: BrokerSettings, handlers: Handlers) -> Paho:
    """A client with everything set: a resumed session delivers as soon as it connects. `LineDown` for a password or
    certificate that is not there."""
    five = settings.version == 5
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if five else False,
        protocol=paho.MQTTv5 if five else paho.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.on_connect = handlers.on_connect
    client.on_disconnect = handlers.on_disconnect
    client.on_message = handlers.on_message
    client.on_publish = handlers.on_publish
    client.on_subscribe = handlers.on_subscribe
    client.on_socket_register_write = handlers.on_want_write
    client.on_socket_unregister_write = handlers.on_wrote
    client.on_socket_close = handlers.on_socket_close
    client.max_inflight_messages_set(0)
    client.connect_timeout = settings.connect_s
    if settings.username:
        client.username_pw_set(settings.username, password_of(settings))
    if settings.tls:
        client.tls_set_context(tls_context(settings))
    properties = None
    if five:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = settings.session_expiry_s
        # Lower values stall a broker after a resume (mosquitto 2.0.11); not reading holds it back as well.
        properties.ReceiveMaximum = 65_535
    start = False if five else paho.MQTT_CLEAN_START_FIRST_ONLY
    host, port = settings.host, settings.port
    client.connect_async(host, port, keepalive=settings.keepalive_s, clean_start=start, properties=properties)
    return client


def subscribe(client: Paho, settings: BrokerSettings, filters: list[str]) -> list[int]:
    """Subscribe; the numbers of the requests, each of which is answered."""
    wanted: list[tuple[str, Any]] = [(text, _QOS) for text in filters]
    if settings.version == 5:
        wanted = [(text, SubscribeOptions(qos=_QOS)) for text in filters]
    numbers = [client.subscribe(wanted[start : start + _FILTERS])[1] for start in range(0, len(wanted), _FILTERS)]
    return [number for number in numbers if number is not None]


def expiring(settings: BrokerSettings, expiry_s: int | None) -> Properties | None:
    """What lets the broker drop a message it could not deliver within `expiry_s`; MQTT 3.1.1 has no such thing."""
    if expiry_s is None or settings.version != 5:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = expiry_s
    return properties


def ended(result: int) -> str:
    """Why the connection has ended, by the result of a step; "" if it has not."""
    if result in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN):
        return ""
    return paho.error_string(MQTTErrorCode(result))


def buffered(sock: object) -> bool:
    """Whether a TLS socket holds bytes it has decrypted already: the event loop will not tell of them."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
