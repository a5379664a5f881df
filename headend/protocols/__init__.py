"""Every protocol by its name in the configuration. A protocol is a few functions; adding one is adding a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headend.conversation import Conversation
from headend.model import Harvest
from headend.protocols import dlt645
from headend.protocols.explanation import Explanation, Field, Value

__all__ = ["PROTOCOLS", "Driver", "Explanation", "Field", "Value"]


@dataclass(frozen=True, slots=True)
class Driver:
    """What a protocol offers.

    read(meter, job, now=now): the conversation that does a job. discover(): the address of the only meter on a line.
    explain(data): what captured bytes mean; never raises. check_address(text): the address as the protocol writes it,
    or `UsageError` saying what to write. read_item(address, identifier): the bytes a meter holds for any of the
    protocol's own identifiers, `UsageError` for what is none; decode_item(identifier, data): those bytes as values,
    never raises. None where a protocol has no identifiers.
    """

    name: str
    read: Callable[..., Conversation[Harvest]]
    discover: Callable[[], Conversation[str]]
    explain: Callable[[bytes], Explanation]
    check_address: Callable[[str], str]
    read_item: Callable[[str, str], Conversation[bytes]] | None = None
    decode_item: Callable[[str, bytes], list[Value]] | None = None


PROTOCOLS: dict[str, Driver] = {
    driver.name: driver
    for driver in (
        Driver(
            "dlt645-2007",
            dlt645.read,
            dlt645.discover,
            dlt645.explain_2007,
            dlt645.check_address,
            dlt645.read_item,
            dlt645.decode_item,
        ),
        Driver(
            "dlt645-1997",
            dlt645.read_1997,
            dlt645.discover_1997,
            dlt645.explain_1997,
            dlt645.check_address,
            dlt645.read_item_1997,
            dlt645.decode_item,
        ),
    )
}
