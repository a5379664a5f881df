"""A meter made of the PyPI package gurux_dlms, on a TCP port, one connection after the other.

Argument: JSON with `interface` (HDLC or WRAPPER), `authentication` (NONE, LOW, HIGH_MD5, HIGH_SHA1, HIGH_GMAC,
HIGH_SHA256), `password`, `import_wh` (what register 1.0.1.8.0.255 holds), `rows`: [local time, status, Wh] of the load
profile, `max_pdu`; for ciphering `title`, `encryption_key`, `authentication_key` in hex. Its clock stands at
2026-03-10 12:07:30, +8 h. Says `ready PORT`, then answers each line of standard input with one of JSON: `state`
(whether its switch is on). Ends with standard input.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import redirect_stdout
from datetime import datetime, timedelta, timezone
from typing import Any

from gurux_dlms import GXDateTime, GXDLMSServer, GXServerReply, ValueEventArgs
from gurux_dlms.enums import (
    AccessMode,
    Authentication,
    DataType,
    InterfaceType,
    MethodAccessMode,
    SourceDiagnostic,
    Unit,
)
from gurux_dlms.GXCiphering import GXCiphering
from gurux_dlms.objects import (
    GXDLMSAssociationLogicalName,
    GXDLMSCaptureObject,
    GXDLMSClock,
    GXDLMSData,
    GXDLMSDisconnectControl,
    GXDLMSProfileGeneric,
    GXDLMSRegister,
)

ZONE = timezone(timedelta(hours=8))


# What the package's own handlers ask of it and it has not.
ValueEventArgs.__iter__ = lambda self: iter([self])
ValueEventArgs.getRowEndIndex = lambda self: self.rowEndIndex


def stamp(text: str) -> GXDateTime:
    return GXDateTime(datetime.fromisoformat(text).replace(tzinfo=ZONE))


class Reply(GXServerReply):  # type: ignore[misc]
    """With the two methods its server calls and it has not."""

    def setReply(self, value: Any) -> None:
        self.reply = value

    def getConnectionInfo(self) -> Any:
        return self.connectionInfo


class Meter(GXDLMSServer):  # type: ignore[misc]
    """Lets in whoever knows the password; gives every value it has."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(True, InterfaceType[told["interface"]])
        self.wanted = Authentication[told["authentication"]]
        self.secret = told.get("password", "").encode()
        self.settings.maxPduSize = told["max_pdu"]  # its own property calls itself for ever
        self.settings.gbtWndowSize = 1  # so spelt where it is read
        if told["interface"] == "HDLC":
            # Its answer to SNRM stands only where there is no setup object, and asks that for its limits all the same.
            self.hdlc = self.settings.hdlc
            type(self.hdlc).__bool__ = lambda limits: False
        if told.get("title"):
            cipher = self.settings.cipher = GXCiphering(bytearray.fromhex(told["title"]))
            cipher.blockCipherKey = bytearray.fromhex(told["encryption_key"])
            cipher.authenticationKey = bytearray.fromhex(told["authentication_key"])
        self._fill(told)
        self.initialize()

    def _fill(self, told: dict[str, Any]) -> None:
        association = GXDLMSAssociationLogicalName()
        association.authenticationMechanismName.mechanismId = self.wanted
        association.secret = self.secret
        clock = GXDLMSClock()
        clock.time = stamp("2026-03-10T12:07:30")
        energy = GXDLMSRegister("1.0.1.8.0.255")
        energy.value, energy.scaler, energy.unit = told["import_wh"], 1, Unit.ACTIVE_ENERGY
        energy.setDataType(2, DataType.UINT32)
        status = GXDLMSData("0.0.96.10.1.255")
        status.value = 0
        status.setDataType(2, DataType.UINT8)
        self.switch = GXDLMSDisconnectControl("0.0.96.3.10.255")
        self.switch.outputState = True
        profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
        profile.capturePeriod = 900
        profile.profileEntries = 10_000
        profile.sortObject = clock
        for one in (clock, status, energy):
            profile.captureObjects.append((one, GXDLMSCaptureObject(2, 0)))
        profile.buffer = [[stamp(at), bits, value] for at, bits, value in told["rows"]]
        profile.entriesInUse = len(profile.buffer)
        for one in (association, clock, energy, status, self.switch, profile):
            self.items.append(one)
            association.objectList.append(one)

    def isTarget(self, server: int, client: int) -> bool:
        return True

    def onValidateAuthentication(self, authentication: Any, password: Any) -> Any:
        if authentication != self.wanted:
            return SourceDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED
        if authentication == Authentication.LOW and bytes(password or b"") != self.secret:
            return SourceDiagnostic.AUTHENTICATION_FAILURE
        return SourceDiagnostic.NONE

    def onFindObject(self, kind: Any, sn: int, ln: str) -> Any:
        return None

    def onGetAttributeAccess(self, arg: Any) -> Any:
        return AccessMode.READ_WRITE

    def onGetMethodAccess(self, arg: Any) -> Any:
        return MethodAccessMode.ACCESS

    def onPreAction(self, args: Any) -> None:
        for one in args:
            if one.target is self.switch:
                self.switch.outputState = one.index == 2
                one.handled, one.value = True, 0

    # Called by the package's own handlers, and its server has it not.
    def setTransaction(self, value: Any) -> None:
        self.transaction = value


def nothing(meter: Meter, *args: Any) -> None:
    """What happens is of no interest here."""


HAPPENS = ("PreGet", "PostGet", "PreRead", "PostRead", "PreWrite", "PostWrite", "PostAction")
for name in (*HAPPENS, "Connected", "InvalidConnection", "Disconnected"):
    setattr(Meter, f"on{name}", nothing)
Meter.notifyRead = nothing  # called, and not there


def serve(meter: Meter, listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            meter.reset()
            while data := connection.recv(4096):
                reply = Reply(bytearray(data))
                meter.handleRequest(reply)
                if reply.reply:
                    connection.sendall(bytes(reply.reply))


def main() -> None:
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        meter = Meter(json.loads(sys.argv[1]))
        listener = socket.create_server(("127.0.0.1", 0))
        print("ready", listener.getsockname()[1], flush=True, file=out)
        threading.Thread(target=serve, args=(meter, listener), daemon=True).start()
        for line in sys.stdin:
            print(json.dumps({"state": meter.switch.outputState}[line.strip()]), flush=True, file=out)


if __name__ == "__main__":
    main()
