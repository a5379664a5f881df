"""How one broker is reached and what is taken from it: `[[mqtt]]` of site.toml, checked. Opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headend.errors import LineDown

__all__ = ["BrokerSettings", "channel_of", "password_of"]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker.

    name: what lines (`mqtt://NAME/...`), messages and the quarantine call it. version: of MQTT, 5 or 311 (3.1.1).
    client_id: of the session the broker keeps for us; no two clients may have the same. ca, cert, key: PEM files; ca
    None with tls uses the system's. password_env, password_file: where the password is, read at each connection and
    kept nowhere. session_expiry_s: how long the broker keeps what came while we were away (MQTT 5). concentrators:
    those whose messages are taken, `*` all. bucket: first level of every topic, "" none. dialects: the formats
    expected. max_message_bytes: a larger message is quarantined. max_waiting, max_waiting_bytes: what may be held
    unacknowledged before the socket is no longer read. resend: whether gaps in a numbering are asked for.
    """

    name: str
    host: str
    port: int = 1883
    version: Literal[5, 311] = 5
    client_id: str = "headend"
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str = ""
    password_env: str = ""
    password_file: Path | None = None
    keepalive_s: int = 60
    connect_s: float = 10.0
    session_expiry_s: int = 7 * 86_400
    concentrators: tuple[str, ...] = ("*",)
    bucket: str = ""
    dialects: tuple[str, ...] = ("canonical",)
    max_message_bytes: int = 8 * 1024 * 1024
    max_waiting: int = 1_000
    max_waiting_bytes: int = 64 * 1024 * 1024
    resend: bool = True

    def owns(self, concentrator: str) -> bool:
        """Whether this daemon takes messages of `concentrator`."""
        return "*" in self.concentrators or concentrator in self.concentrators

    def topic(self, rest: str) -> str:
        """A topic of ours under the bucket."""
        return f"{self.bucket}/{rest}" if self.bucket else rest


def channel_of(broker: str) -> str:
    """What the store calls messages of this broker."""
    return f"mqtt {broker}"


def password_of(settings: BrokerSettings) -> str | None:
    """The password as it stands now; `LineDown` when where it should be there is none."""
    where = f"broker {settings.name}"
    if settings.password_env:
        if settings.password_env not in os.environ:
            what = f"the environment variable {settings.password_env} is not set"
            raise LineDown(what, where=where, remedy=f"set {settings.password_env} before starting")
        return os.environ[settings.password_env]
    if settings.password_file is not None:
        try:
            return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            what = f"the password file {settings.password_file.name} can't be read: {reason}"
            raise LineDown(what, where=where, remedy="check the name and who may read it") from error
    return None
