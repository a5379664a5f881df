"""The broker files that are shipped, with the real mosquitto: who gets in, who reads and writes what, what is kept."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.mqtt_servers import Identity, Pki, RunningBroker, iotcore, mosquitto, mosquitto_program, shipped_conf
from tests.servers import free_port

_WAIT_S = 10.0
NOT_AUTHORIZED = 0x87


class Client:
    """One MQTT 5 client of the test. `got`: messages as (topic, payload)."""

    def __init__(
        self,
        broker: RunningBroker,
        client_id: str,
        *,
        identity: Identity | None = None,
        ca: Path | None = None,
        clean: bool = True,
        will: str = "",
    ) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.session_present = False
        self.client_id = client_id
        self._answers: queue.Queue[int] = queue.Queue()
        self._down = threading.Event()
        self._paho = paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        if ca is not None:
            context = ssl.create_default_context(cafile=str(ca))
            if identity is not None:
                context.load_cert_chain(identity.cert, identity.key)
            paho.tls_set_context(context)
        if will:
            paho.will_set(will, b"gone", 1)
        paho.on_message = lambda _c, _u, message: self.got.put((message.topic, bytes(message.payload)))
        paho.on_publish = lambda _c, _u, _mid, reason, _p: self._answers.put(reason.value)
        paho.on_subscribe = lambda _c, _u, _mid, reasons, _p: self._answers.put(reasons[0].value)
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 0 if clean else 3600
        told: queue.Queue[int] = queue.Queue()

        def connected(_c: object, _u: object, flags: mqtt.ConnectFlags, reason: ReasonCode, more: object) -> None:
            self.session_present = flags.session_present
            self.client_id = getattr(more, "AssignedClientIdentifier", self.client_id)
            told.put(reason.value)

        def lost(*_: object) -> None:
            self._down.set()
            told.put(-1)

        paho.on_connect, paho.on_disconnect = connected, lost
        try:
            paho.connect(broker.host, broker.port, 30, clean_start=clean, properties=session)
        except ssl.SSLError as error:
            raise ConnectionRefusedError(str(error)) from error
        paho.loop_start()
        if reason := told.get(timeout=_WAIT_S):
            paho.loop_stop()
            raise ConnectionRefusedError(reason)

    def subscribe(self, topics: str) -> int:
        """The reason code of the answer."""
        self._paho.subscribe(topics, 1)
        return self.answer()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """The reason code of the answer."""
        self.send(topic, payload, retain=retain)
        return self.answer()

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish and do not wait for the `answer`."""
        self._paho.publish(topic, payload, 1, retain)

    def answer(self) -> int:
        return self._answers.get(timeout=_WAIT_S)

    def message(self) -> tuple[str, bytes]:
        return self.got.get(timeout=_WAIT_S)

    @property
    def is_down(self) -> bool:
        return self._down.is_set()

    def wait_down(self) -> bool:
        """Wait until the broker cuts it off."""
        return self._down.wait(_WAIT_S)

    def close(self) -> None:
        self._paho.disconnect()
        self._paho.loop_stop()

    def cut(self) -> None:
        """Lose the connection without a word."""
        sock = self._paho.socket()
        assert isinstance(sock, socket.socket)
        sock.close() if isinstance(sock, ssl.SSLSocket) else sock.shutdown(socket.SHUT_RDWR)
        self._down.wait(_WAIT_S)
        self._paho.loop_stop()


@contextmanager
def connected(broker: RunningBroker, name: str, pki: Pki, **more: object) -> Iterator[Client]:
    client = Client(broker, name, identity=pki.issue(name), ca=pki.ca, **more)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def _mosquitto_wanted() -> None:
    if mosquitto_program() is None:
        reason = "no mosquitto found: install it (Debian: mosquitto)"
        if os.environ.get("HEADEND_NO_SKIP") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def broker(tmp_path: Path, pki: Pki) -> Iterator[RunningBroker]:
    """mosquitto with the shipped configuration and ACL."""
    _mosquitto_wanted()
    port = free_port()
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto(folder, shipped_conf(folder, port, pki), port=port) as running:
        yield running


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_nobody_comes_in_without_a_certificate(broker: RunningBroker, pki: Pki) -> None:
    with pytest.raises(ConnectionRefusedError):
        Client(broker, "C0001", ca=pki.ca)


def test_nobody_comes_in_with_a_certificate_of_another_authority(
    broker: RunningBroker, pki: Pki, tmp_path: Path
) -> None:
    other = Pki(tmp_path / "other", "HES test CA")
    with pytest.raises(ConnectionRefusedError):
        Client(broker, "C0001", identity=other.issue("C0001"), ca=pki.ca)


@pytest.mark.parametrize(("version", "let_in"), [("TLSv1_1", False), ("TLSv1_2", True)])
def test_nobody_comes_in_with_less_than_tls_1_2(broker: RunningBroker, pki: Pki, version: str, let_in: bool) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pki.issue("C0001").cert, pki.issue("C0001").key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection((broker.host, broker.port), _WAIT_S) as plain:
        if let_in:
            with context.wrap_socket(plain, server_hostname=broker.host) as wrapped:
                assert wrapped.version() == "TLSv1.2"
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname=broker.host)


@pytest.mark.parametrize("how", ["restart", "reload"])
def test_a_revoked_certificate_is_refused(broker: RunningBroker, pki: Pki, how: str) -> None:
    with connected(broker, "C0001", pki) as before:
        assert before.publish("hes/v1/C0001/up/reads", b"1") in (0, 0x10)
    pki.revoke(pki.issue("C0001"))
    if how == "restart":
        broker.stop()
        broker.start()
    else:
        broker.reload()
        _until_refused(broker, pki)
    with pytest.raises(ConnectionRefusedError):
        Client(broker, "C0001", identity=pki.issue("C0001"), ca=pki.ca)
    with connected(broker, "C0002", pki) as other:
        assert other.publish("hes/v1/C0002/up/reads", b"1") in (0, 0x10)


def _until_refused(broker: RunningBroker, pki: Pki) -> None:
    """A signal says nothing when it is done: connect until it shows."""
    for _ in range(100):
        try:
            Client(broker, "C0001", identity=pki.issue("C0001"), ca=pki.ca).close()
        except ConnectionRefusedError:
            return
    pytest.fail("the broker never took the new revocation list")


# -- who reads and writes what -----------------------------------------------------------------------------------------


def test_the_headend_reads_what_every_concentrator_says_and_answers_it(broker: RunningBroker, pki: Pki) -> None:
    with (
        connected(broker, "headend", pki) as headend,
        connected(broker, "C0001", pki) as one,
        connected(broker, "C0002", pki) as two,
    ):
        assert headend.subscribe("hes/v1/+/up/#") == 1
        assert one.subscribe("hes/v1/C0001/down/#") == 1
        assert two.subscribe("hes/v1/C0002/down/#") == 1
        assert one.publish("hes/v1/C0001/up/reads", b"r") == 0
        assert headend.message() == ("hes/v1/C0001/up/reads", b"r")
        assert two.publish("hes/v1/C0002/up/events", b"e") == 0
        assert headend.message() == ("hes/v1/C0002/up/events", b"e")
        assert headend.publish("hes/v1/C0001/down/ack", b"a") == 0
        assert one.message() == ("hes/v1/C0001/down/ack", b"a")
        assert headend.publish("hes/v1/C0002/down/cmd", b"c") == 0
        assert two.message() == ("hes/v1/C0002/down/cmd", b"c")
        assert one.got.empty()


@pytest.mark.parametrize(
    "topic",
    [
        "hes/v1/C0002/up/reads",  # another's name
        "hes/v1/C0001/down/cmd",  # a command to itself
        "hes/v1/C0002/down/cmd",  # a command to another
        "hes/v1/C0001",
        "other/topic",
        "$SYS/broker/version",
    ],
)
def test_a_concentrator_publishes_nowhere_else(broker: RunningBroker, pki: Pki, topic: str) -> None:
    with connected(broker, "C0001", pki) as client:
        assert client.publish(topic, b"x") == NOT_AUTHORIZED


def test_a_concentrator_reads_nobody_elses_topics(broker: RunningBroker, pki: Pki) -> None:
    with (
        connected(broker, "headend", pki) as headend,
        connected(broker, "C0002", pki) as nosy,
        connected(broker, "C0001", pki) as honest,
    ):
        for topics in ("hes/v1/C0001/#", "hes/v1/+/down/#", "hes/v1/+/up/#", "#", "hes/v1/C0002/down/#"):
            nosy.subscribe(topics)
        headend.publish("hes/v1/C0001/down/cmd", b"secret")
        honest.publish("hes/v1/C0001/up/reads", b"secret")
        # Its own comes after the others on the same connection: had they been let through, they would be here first.
        headend.publish("hes/v1/C0002/down/cmd", b"for you")
        assert {nosy.message()} == {("hes/v1/C0002/down/cmd", b"for you")}
        assert all(topic == "hes/v1/C0002/down/cmd" for topic, _ in list(nosy.got.queue))


def test_the_headend_cannot_speak_as_a_concentrator(broker: RunningBroker, pki: Pki) -> None:
    with connected(broker, "headend", pki) as headend:
        assert headend.publish("hes/v1/C0001/up/reads", b"x") == NOT_AUTHORIZED


def test_a_will_for_a_foreign_topic_is_not_published(broker: RunningBroker, pki: Pki) -> None:
    with connected(broker, "headend", pki) as headend:
        headend.subscribe("hes/v1/+/up/#")
        bad = Client(broker, "C0002", identity=pki.issue("C0002"), ca=pki.ca, will="hes/v1/C0001/up/state")
        good = Client(broker, "C0001", identity=pki.issue("C0001"), ca=pki.ca, will="hes/v1/C0001/up/state")
        bad.cut()
        good.cut()
        assert headend.message() == ("hes/v1/C0001/up/state", b"gone")
        assert headend.got.empty()


def test_nobody_takes_the_headends_session_over_by_its_client_id(broker: RunningBroker, pki: Pki) -> None:
    with connected(broker, "headend", pki) as headend:
        headend.subscribe("hes/v1/+/up/#")
        rogue = Client(broker, "headend", identity=pki.issue("C0002"), ca=pki.ca, clean=False)
        assert rogue.publish("hes/v1/C0002/up/reads", b"mine") == 0
        assert headend.message() == ("hes/v1/C0002/up/reads", b"mine")
        assert not headend.is_down
        rogue.close()


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_far_more_than_a_thousand_messages_wait_for_the_headend_and_outlive_an_orderly_restart(
    broker: RunningBroker, pki: Pki
) -> None:
    count = 3_000
    with connected(broker, "headend", pki, clean=False) as headend:
        assert headend.subscribe("hes/v1/+/up/#") == 1
    with connected(broker, "C0001", pki) as client:
        for number in range(count):
            client.send("hes/v1/C0001/up/reads", b"%d" % number)
        assert [client.answer() for _ in range(count)] == [0] * count
    broker.stop()
    broker.start()
    with connected(broker, "headend", pki, clean=False) as headend:
        assert headend.session_present
        assert [int(headend.message()[1]) for _ in range(count)] == list(range(count))


def test_a_message_of_ten_megabytes_reaches_the_headend_and_one_beyond_the_limit_cuts_its_sender_off(
    broker: RunningBroker, pki: Pki
) -> None:
    with connected(broker, "headend", pki) as headend, connected(broker, "C0001", pki) as client:
        headend.subscribe("hes/v1/+/up/#")
        assert client.publish("hes/v1/C0001/up/reads", b"x" * 10_000_000) == 0
        assert len(headend.message()[1]) == 10_000_000
        client.send("hes/v1/C0001/up/reads", b"x" * 17_000_000)
        assert client.wait_down()
        assert headend.got.empty()


# -- the broker without a system package -------------------------------------------------------------------------------


def test_iotcore_listens_on_loopback_only_and_keeps_a_session_while_its_client_is_away(tmp_path: Path) -> None:
    with iotcore(tmp_path / "iotcore") as broker:
        assert set(_listening(broker)) == {"0100007F"}
        away = Client(broker, "headend", clean=False)
        assert away.subscribe("hes/v1/+/up/#") == 1
        away.close()
        sender = Client(broker, "C0001", will="hes/v1/C0001/up/state")
        for number in range(500):
            sender.publish("hes/v1/C0001/up/reads", b"%d" % number)
        sender.cut()
        back = Client(broker, "headend", clean=False)
        assert back.session_present
        assert [back.message()[1] for _ in range(501)] == [*(b"%d" % number for number in range(500)), b"gone"]
        back.close()


def _listening(broker: RunningBroker) -> list[str]:
    """Addresses, as the kernel writes them, that any socket listens on at the broker's ports."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    ends = [row[1].split(":") for row in rows if row[3] == "0A"]
    return [address for address, port in ends if int(port, 16) in (broker.port, broker.port_311)]
