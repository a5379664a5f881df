"""MQTT brokers for tests, each in a process of its own on free loopback ports: mosquitto where it is installed, and
iotcore (rumqttd in a wheel), which needs no system package. And the certificates a broker with TLS wants.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.servers import free_port

__all__ = [
    "DEPLOY",
    "Identity",
    "Pki",
    "RunningBroker",
    "iotcore",
    "mosquitto",
    "mosquitto_program",
    "plain_conf",
    "shipped_conf",
]

DEPLOY = Path(__file__).resolve().parents[1] / "deploy" / "mosquitto"
_READY_S = 15.0
_LOOPBACK = ip_address("127.0.0.1")


def mosquitto_program() -> str | None:
    """Where mosquitto is; Debian puts it where an ordinary user's PATH does not look."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


@dataclass
class RunningBroker:
    """A broker in its own process. port: MQTT 5. port_311: MQTT 3.1.1, the same for mosquitto. durable: sessions and
    retained messages outlive an orderly stop. log: what it says. `kill` is SIGKILL; `start` brings it back on the same
    ports."""

    kind: str
    command: list[str]
    port: int
    port_311: int
    log: Path
    durable: bool
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + _READY_S
        for port in {self.port, self.port_311}:
            while not _listens(self.host, port):
                if self.process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    raise RuntimeError(f"{self.kind} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._end(signal.SIGTERM)

    def reload(self) -> None:
        """Let it read its configuration again, as after a change of the ACL or the revocation list."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Let it hang: connections stay, nothing moves."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 0.5).close()
    except OSError:
        return False
    return True


@contextmanager
def _running(broker: RunningBroker) -> Iterator[RunningBroker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


# -- mosquitto ---------------------------------------------------------------------------------------------------------


def plain_conf(folder: Path, port: int, extra: str = "") -> str:
    """A broker for everybody on loopback that keeps what it holds in `folder`."""
    return (
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
        f"autosave_interval 1800\nmax_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n{extra}\n"
    )


def shipped_conf(folder: Path, port: int, pki: Pki) -> str:
    """The configuration that is shipped in deploy/mosquitto, on another port and with the test's own files."""
    text = (DEPLOY / "mosquitto.conf").read_text("utf-8")
    places = {
        "listener 8883": f"listener {port} 127.0.0.1",
        "/etc/mosquitto/certs/ca.crt": str(pki.ca),
        "/etc/mosquitto/certs/crl.pem": str(pki.crl),
        "/etc/mosquitto/certs/broker.crt": str(pki.issue("127.0.0.1", server=True).cert),
        "/etc/mosquitto/certs/broker.key": str(pki.issue("127.0.0.1", server=True).key),
        "/etc/mosquitto/hes.acl": str(shutil.copy(DEPLOY / "acl", folder / "acl")),
        "/var/lib/mosquitto/": f"{folder}/",
        "log_dest syslog": "log_dest stderr",
    }
    for shipped, here in places.items():
        if len(re.findall(rf"{re.escape(shipped)}$", text, re.MULTILINE)) != 1:
            raise AssertionError(f"{shipped!r} is not once in deploy/mosquitto/mosquitto.conf")
        text = re.sub(rf"{re.escape(shipped)}$", here, text, flags=re.MULTILINE)
    return text


@contextmanager
def mosquitto(folder: Path, conf: str | None = None, *, port: int = 0, extra: str = "") -> Iterator[RunningBroker]:
    """A running mosquitto; its files in `folder`. conf: its configuration, `plain_conf` with `extra` by default; a
    given one must listen on `port`."""
    program = mosquitto_program()
    if program is None:
        raise RuntimeError("there is no mosquitto: install it (Debian: mosquitto)")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    text = plain_conf(folder, port, extra) if conf is None else conf
    if os.geteuid() == 0:
        text += "\nuser root\n"  # else it becomes a user who may not enter the test's folder
    path = folder / "mosquitto.conf"
    path.write_text(text, "utf-8")
    with _running(
        RunningBroker("mosquitto", [program, "-c", str(path)], port, port, folder / "broker.log", durable=True)
    ) as broker:
        yield broker


# -- iotcore -----------------------------------------------------------------------------------------------------------


@contextmanager
def iotcore(folder: Path) -> Iterator[RunningBroker]:
    """A running iotcore; MQTT 5 and 3.1.1 each on a port of its own. All it holds is gone when it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    port, port_311 = free_port(), free_port()
    command = [sys.executable, "-m", "simulators.mqtt_broker", "--port", str(port), "--port-311", str(port_311)]
    command += ["--folder", str(folder)]
    with _running(RunningBroker("iotcore", command, port, port_311, folder / "broker.log", durable=False)) as broker:
        yield broker


# -- certificates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as files."""

    name: str
    cert: Path
    key: Path
    serial: int


class Pki:
    """A certificate authority of the test's own. `ca`, `crl`: files; `crl` is written anew by `revoke`."""

    def __init__(self, folder: Path, name: str = "HES test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca, self.crl = folder / "ca.crt", folder / "crl.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._issued: dict[tuple[str, bool], Identity] = {}
        self._revoked: list[int] = []
        now = datetime.now(UTC)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        cert = (
            self._builder(self._name, self._key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        self._write_crl()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
        )

    def issue(self, name: str, *, server: bool = False) -> Identity:
        """The certificate of `name` (its CN); the same one when asked again. server: for a broker at 127.0.0.1."""
        if known := self._issued.get((name, server)):
            return known
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(subject, key.public_key(), datetime.now(UTC))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(_LOOPBACK)])
            builder = builder.add_extension(names, critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        stem = f"{len(self._issued)}-{'server' if server else 'client'}"
        cert_file, key_file = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        found = self._issued[name, server] = Identity(name, cert_file, key_file, cert.serial_number)
        return found

    def revoke(self, identity: Identity) -> None:
        """Put it on the revocation list. A broker that runs reads the list again on `reload`, or when restarted."""
        self._revoked.append(identity.serial)
        self._write_crl()

    def _write_crl(self) -> None:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - timedelta(hours=1)).next_update(now + timedelta(days=2))
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(minutes=1))
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(self._key, hashes.SHA256())
        self.crl.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
