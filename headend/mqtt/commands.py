"""What was sent down to concentrators and DTUs and is not answered yet, for people to see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from headend.errors import BadFrame
from headend.protocols.hes_mqtt.messages import CommandMessage, decode_message

__all__ = ["OpenRequest", "expiry_of", "request_of"]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """One request on its way. line: whose. topic: where it was published. what: in words. cid: of a command, "" of a
    frame. sent_at, expires_at: ISO 8601, UTC. state: `waiting`, or `late` after it has expired."""

    line: str
    topic: str
    what: str
    cid: str
    sent_at: str
    expires_at: str
    state: str = "waiting"

    def seen_at(self, now: datetime) -> OpenRequest:
        """The same as it stands at `now`."""
        return replace(self, state="late") if now.isoformat() > self.expires_at else self


def request_of(line: str, topic: str, data: bytes, now: datetime, reply_s: float) -> OpenRequest:
    """The request that `data`, a command or a frame, is."""
    command = _command(data)
    expires_s = reply_s if command is None else command.exp - command.ts
    expires_at = (now + timedelta(seconds=expires_s)).isoformat()
    if command is None:
        return OpenRequest(line, topic, f"frame of {len(data)} bytes", "", now.isoformat(), expires_at)
    meters = f" of {', '.join(command.m[:3])}{'...' if len(command.m) > 3 else ''}" if command.m else ""
    return OpenRequest(line, topic, f"{command.op}{meters}", command.cid, now.isoformat(), expires_at)


def expiry_of(data: bytes, reply_s: float) -> int:
    """Seconds after which `data` is not to be delivered any more: nobody waits for what it would do."""
    command = _command(data)
    return max(1, round(reply_s) if command is None else command.exp - command.ts)


def _command(data: bytes) -> CommandMessage | None:
    if not data.startswith(b"{"):
        return None
    try:
        message = decode_message(data)
    except BadFrame:
        return None
    return message if isinstance(message, CommandMessage) else None
