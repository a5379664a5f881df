"""Every protocol by its name in the configuration. A protocol is four functions; adding one is adding a line here."""

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
    or `UsageError` saying what to write.
    """

    name: str
    read: Callable[..., Conversation[Harvest]]
    discover: Callable[[], Conversation[str]]
    explain: Callable[[bytes], Explanation]
    check_address: Callable[[str], str]


PROTOCOLS: dict[str, Driver] = {
    driver.name: driver
    for driver in (Driver("dlt645-2007", dlt645.read, dlt645.discover, dlt645.explain, dlt645.check_address),)
}
