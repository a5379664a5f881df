"""A client made of the PyPI package gurux_dlms, over a TCP connection.

Argument: JSON with `port`, `address` ([logical, physical]; physical null over the wrapper), `steps`, and how the client
is set up: `interface` (HDLC or WRAPPER), `client` (SAP), `authentication` (NONE, LOW, HIGH_MD5, HIGH_SHA1, HIGH_GMAC,
HIGH_SHA256), `password`, `security` (NONE, AUTHENTICATION, ENCRYPTION, AUTHENTICATION_ENCRYPTION), `title`,
`encryption_key`, `authentication_key` in hex. Steps: ["get", class, OBIS, attribute], ["rows", OBIS, start, end] (local
times), ["entries", OBIS, first, count], ["list", [[class, OBIS, attribute], ...]], ["disconnect"], ["reconnect"],
["objects"]. Prints one line of JSON: what each step gave; "raised: ..." for an exception.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import redirect_stdout
from datetime import datetime, timedelta, timezone
from typing import Any

from gurux_dlms import GXByteBuffer, GXDateTime, GXDLMSClient, GXReplyData
from gurux_dlms.enums import Authentication, InterfaceType, ObjectType, Security
from gurux_dlms.objects import GXDLMSDisconnectControl, GXDLMSProfileGeneric
from gurux_dlms.secure import GXDLMSSecureClient


def plain(value: Any) -> Any:
    """What JSON can say."""
    if isinstance(value, GXDateTime):
        return value.value.replace(tzinfo=None).isoformat() if value.value else None
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bool | str | float | None):
        return value
    return int(value) if isinstance(value, int) else str(value)


class Talk:
    """The connection and the client on it."""

    def __init__(self, told: dict[str, Any]) -> None:
        logical, physical = told["address"]
        over_hdlc = told["interface"] == "HDLC"
        address = GXDLMSClient.getServerAddress(logical, physical) if over_hdlc else logical
        self.client = GXDLMSSecureClient(
            True,
            told["client"],
            address,
            Authentication[told["authentication"]],
            told.get("password") or None,
            InterfaceType[told["interface"]],
        )
        cipher = self.client.ciphering
        if told.get("title"):
            cipher.systemTitle = bytearray.fromhex(told["title"])
            cipher.blockCipherKey = bytearray.fromhex(told["encryption_key"])
            cipher.authenticationKey = bytearray.fromhex(told["authentication_key"])
            cipher.security = Security[told["security"]]
        self.client.maxReceivePDUSize = told.get("max_pdu", 0xFFFF)
        self.socket = socket.create_connection(("127.0.0.1", told["port"]), 5)
        self.socket.settimeout(5)

    def ask(self, request: Any) -> GXReplyData:
        """Send packets, one or several, and hear the whole answer."""
        packets = request if isinstance(request, list) else [request]
        reply = GXReplyData()
        for packet in packets:
            reply.clear()
            self._exchange(packet, reply)
            while reply.isMoreData():
                following = None if reply.isStreaming() else self.client.receiverReady(reply)
                self._exchange(following, reply)
        return reply

    def _exchange(self, packet: Any, reply: GXReplyData) -> None:
        if packet:
            self.socket.sendall(bytes(packet))
        heard = GXByteBuffer()
        notice = GXReplyData()
        while True:
            heard.set(bytearray(self._some()))
            if self.client.getData(heard, reply, notice):
                break
        if reply.error:
            raise ValueError(f"error {reply.error}")

    def _some(self) -> bytes:
        data = self.socket.recv(4096)
        if not data:
            raise ConnectionError("the meter closed the connection")
        return data

    def open(self) -> None:
        snrm = self.client.snrmRequest()
        if snrm:
            self.client.parseUAResponse(self.ask(snrm).data)
        self.client.parseAareResponse(self.ask(self.client.aarqRequest()).data)
        if self.client.isAuthenticationRequired:
            answer = self.ask(self.client.getApplicationAssociationRequest())
            self.client.parseApplicationAssociationResponse(answer.data)

    def close(self) -> None:
        request = self.client.releaseRequest()
        if request:
            self.ask(request)
        if self.client.interfaceType == InterfaceType.HDLC:
            self.ask(self.client.disconnectRequest())

    def step(self, name: str, *arguments: Any) -> Any:
        return getattr(self, f"do_{name}")(*arguments)

    def do_get(self, class_id: int, obis: str, attribute: int) -> Any:
        target = self.client.createObject(ObjectType(class_id))
        target.logicalName = obis
        reply = self.ask(self.client.read(target, attribute)[0])
        return plain(self.client.updateValue(target, attribute, reply.value))

    def do_list(self, wanted: list[list[Any]]) -> Any:
        targets = []
        for class_id, obis, attribute in wanted:
            target = self.client.createObject(ObjectType(class_id))
            target.logicalName = obis
            targets.append((target, attribute))
        values: list[Any] = []
        for packet in self.client.readList(targets):
            values += self.ask(packet).value
        self.client.updateValues(targets, values)
        return [plain(target.getValues()[attribute - 1]) for target, attribute in targets]

    def _profile(self, obis: str) -> GXDLMSProfileGeneric:
        profile = GXDLMSProfileGeneric(obis)
        reply = self.ask(self.client.read(profile, 3)[0])
        self.client.updateValue(profile, 3, reply.value)
        return profile

    def _rows(self, profile: GXDLMSProfileGeneric, request: Any) -> Any:
        reply = self.ask(request)
        self.client.updateValue(profile, 2, reply.value)
        return plain(profile.buffer)

    def do_rows(self, obis: str, start: str, end: str) -> Any:
        profile = self._profile(obis)
        zone = timezone(timedelta(hours=8))
        times = [GXDateTime(datetime.fromisoformat(one).replace(tzinfo=zone)) for one in (start, end)]
        return self._rows(profile, self.client.readRowsByRange(profile, *times))

    def do_entries(self, obis: str, first: int, count: int) -> Any:
        profile = self._profile(obis)
        return self._rows(profile, self.client.readRowsByEntry(profile, first, count))

    def do_disconnect(self) -> Any:
        self.ask(GXDLMSDisconnectControl("0.0.96.3.10.255").remoteDisconnect(self.client))
        return "done"

    def do_reconnect(self) -> Any:
        self.ask(GXDLMSDisconnectControl("0.0.96.3.10.255").remoteReconnect(self.client))
        return "done"

    def do_objects(self) -> Any:
        reply = self.ask(self.client.getObjectsRequest())
        return sorted(one.logicalName for one in self.client.parseObjects(reply.data, False, False))


def main() -> None:
    with redirect_stdout(sys.stderr):  # the package prints what it does
        found = run(json.loads(sys.argv[1]))
    print(json.dumps(found), flush=True)


def run(told: dict[str, Any]) -> list[Any]:
    """What each step gave, then the closing."""
    found: list[Any] = []
    try:
        talk = Talk(told)
        talk.open()
    except Exception as error:
        return [f"raised: {error!r}"]
    for name, *arguments in told["steps"]:
        try:
            found.append(talk.step(name, *arguments))
        except Exception as error:
            found.append(f"raised: {error!r}")
    try:
        talk.close()
        found.append("closed")
    except Exception as error:
        found.append(f"raised: {error!r}")
    return found


if __name__ == "__main__":
    main()
