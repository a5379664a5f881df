"""What carries APDUs to a meter and back: an HDLC link or the wrapper, and the addresses of both.

A link knows nothing of what it carries. Every wait in it has an end, whatever bytes come.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Final, Protocol

from headend.conversation import Conversation
from headend.errors import UsageError
from headend.protocols.dlms.hdlc import client_address, server_address
from headend.protocols.dlms.hdlc_link import HdlcLink
from headend.protocols.dlms.settings import DlmsSettings
from headend.protocols.dlms.wrapper_link import WrapperLink

__all__ = ["Link", "check_address", "check_rule", "make_link", "physical_address"]


class Link(Protocol):
    """Carries APDUs (without LLC bytes or wrapper) to one meter, as one client.

    Raises `NoAnswer`, `BadFrame`, `WrongMeter`, `Refused` (the meter does not want a link, or has closed it),
    `Unsupported` (it does not speak so) and `LineDown`. After an error of an HDLC link only `open` and `close` work.
    unsolicited: APDUs nobody asked for, oldest first: what the meter sent on its own, and what came too late. Its
    reader takes them out; over the wrapper a push may also come as the answer of `exchange`.
    """

    unsolicited: list[bytes]

    def open(self) -> Conversation[None]:
        """Make the link, also anew after it was closed or an exchange failed."""
        ...

    def exchange(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[bytes]:
        """Send `apdu` and return the next one that comes. shown: what is recorded in its place."""
        ...

    def receive(self) -> Conversation[bytes]:
        """The next APDU of the meter, without sending one."""
        ...

    def send(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[None]:
        """Send an APDU to which no answer is expected."""
        ...

    def close(self) -> Conversation[None]:
        """End the link. Best effort: never raises for what the meter or the line does."""
        ...


def make_link(settings: DlmsSettings, address: str, *, client: int | None = None) -> Link:
    """The link to the meter at `address` as client `client` (None: that of the settings); nothing is sent yet.

    Raises `UsageError` when the address does not fit the settings.
    """
    logical, physical = _parts(settings, check_address(address))
    client = settings.client if client is None else client
    if settings.interface == "hdlc":
        server = server_address(logical, physical, settings.address_bytes)
        return HdlcLink(settings, server, client_address(client))
    if physical is not None:
        raise UsageError(f"address {address!r} has a physical part, which the wrapper has not", remedy="write LOGICAL")
    if not 0 <= client <= 0xFFFF:
        raise UsageError(f"client {client} does not exist", remedy="use 1 to 65535")
    return WrapperLink(settings, logical, client)


# -- addresses ---------------------------------------------------------------------------------------------------------

_ADDRESS: Final = re.compile(r"([0-9]{1,5})(?:/([0-9]{1,5})|#([0-9]{1,20}))?")
_RULE: Final = re.compile(r"[0-9SN+\-*/%() ]{1,100}")
_OPERATIONS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Mod: lambda a, b: a % b,
    ast.FloorDiv: lambda a, b: a // b,
}


def check_address(text: str) -> str:
    """A meter's address as it is kept: `1`, `1/17`, `1#12345678`. Raises `UsageError` saying what to write."""
    match = _ADDRESS.fullmatch(text.strip())
    remedy = "write LOGICAL, LOGICAL/PHYSICAL or LOGICAL#SERIALNUMBER, such as 1, 1/17 or 1#12345678"
    if match is None:
        raise UsageError(f"{text!r} is no DLMS address", remedy=remedy)
    logical, physical, serial = match.groups()
    if int(logical) > 0xFFFF or (physical and int(physical) > 0x3FFF):
        raise UsageError(
            f"{text!r} is no DLMS address", remedy="logical addresses end at 65535, physical ones at 16383"
        )
    if physical is not None:
        return f"{int(logical)}/{int(physical)}"
    return f"{int(logical)}#{serial}" if serial is not None else str(int(logical))


def _parts(settings: DlmsSettings, address: str) -> tuple[int, int | None]:
    """Logical and physical address of a checked `address`."""
    if "#" in address:
        logical, serial = address.split("#")
        if settings.interface == "wrapper":  # the serial number only tells meters apart
            return int(logical), None
        if not settings.physical_rule:
            raise UsageError(
                f"address {address!r} holds a serial number, and there is no rule to make a physical address of it",
                remedy='set physical_rule, such as "SN % 10000 + 1000"',
            )
        return int(logical), physical_address(settings.physical_rule, int(serial))
    logical, slash, physical = address.partition("/")
    return int(logical), int(physical) if slash else None


def check_rule(rule: str) -> str:
    """`rule` if it is a formula for physical addresses; `UsageError` says what one is made of."""
    physical_address(rule, 0, check_only=True)
    return rule


def physical_address(rule: str, serial_number: int, *, check_only: bool = False) -> int:
    """The physical address a formula such as `SN % 10000 + 1000` gives. Raises `UsageError` when it is no formula.

    It is parsed and walked, never run as code.
    """
    refusal = UsageError(
        f"{rule!r} is no rule for physical addresses",
        remedy="use SN (the serial number), whole numbers, + - * // % and parentheses",
    )
    if not _RULE.fullmatch(rule):
        raise refusal
    try:
        tree = ast.parse(rule.strip(), mode="eval").body
        value = _walk(tree, serial_number, refusal)
    except ZeroDivisionError:
        if check_only:
            return 0
        raise UsageError(
            f"{rule!r} divides by 0 for serial number {serial_number}", remedy="correct the rule"
        ) from None
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise refusal from None
    if not check_only and not 0 <= value <= 0x3FFF:
        raise UsageError(
            f"{rule!r} makes {value} of serial number {serial_number}, which is no physical address",
            remedy="correct the rule: the result must be 0 to 16383",
        )
    return value


def _walk(node: ast.expr, serial_number: int, refusal: UsageError) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name) and node.id == "SN":
        return serial_number
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _walk(node.left, serial_number, refusal), _walk(node.right, serial_number, refusal)
        return _OPERATIONS[type(node.op)](left, right)
    raise refusal
