"""Every protocol by its name in the configuration. A protocol is a few functions; adding one is adding a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from headend.access import Access
from headend.conversation import Conversation
from headend.model import Harvest, ReadJob, SwitchState
from headend.protocols import dlms, dlt645, hes_mqtt, modbus
from headend.protocols.explanation import Explanation, Field, Value

__all__ = ["PROTOCOLS", "Driver", "Explanation", "Field", "Value"]


@dataclass(frozen=True, slots=True)
class Driver:
    """What a protocol offers.

    read(meter, job, now=now): the conversation that does a job; it is given access=access too where `needs_access`
    says so (`start` sees to that). discover(): the address of the only meter on a line; raises
    `Unsupported` where that can't be asked.
    explain(data): what captured bytes mean; never raises. check_address(text): the address as the protocol writes it,
    or `UsageError` saying what to write. read_item(address, identifier): the bytes a meter holds for any of the
    protocol's own identifiers, `UsageError` for what is none; it is given meter=meter, access=access too where
    `needs_access` says so. decode_item(identifier, data): those bytes as values,
    never raises. None where a protocol has no identifiers. Where `needs_access` says so, read_item is given meter=meter
    and access=access too. weak_check: damage passes its checksum often enough
    that on a noisy line a value must come twice. pushed: its meters' reads come by themselves: none is scheduled.

    Commands, None where a protocol has none; each is sent once. set_clock(meter, now, access): set the meter's clock to
    what `now()` tells. switch(meter, action, access): `state` gives how the supply switch stands; `disconnect` and
    `reconnect` order it and give how it stands then, None where that was not looked at. A frame that holds a secret is
    a `Send` with `shown`.
    """

    name: str
    read: Callable[..., Conversation[Harvest]]
    discover: Callable[[], Conversation[str]]
    explain: Callable[[bytes], Explanation]
    check_address: Callable[[str], str]
    read_item: Callable[..., Conversation[bytes]] | None = None
    decode_item: Callable[[str, bytes], list[Value]] | None = None
    weak_check: bool = False
    needs_access: bool = False
    pushed: bool = False
    set_clock: Callable[..., Conversation[None]] | None = None
    switch: Callable[..., Conversation[SwitchState | None]] | None = None

    def start(self, job: ReadJob, *, now: datetime, access: Access) -> Conversation[Harvest]:
        """The conversation that does `job`."""
        if self.needs_access:
            return self.read(job.meter, job, now=now, access=access)
        return self.read(job.meter, job, now=now)


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
            weak_check=True,
            set_clock=dlt645.set_clock,
            switch=dlt645.switch,
        ),
        Driver(
            "dlt645-1997",
            dlt645.read_1997,
            dlt645.discover_1997,
            dlt645.explain_1997,
            dlt645.check_address,
            dlt645.read_item_1997,
            dlt645.decode_item,
            weak_check=True,
            set_clock=dlt645.set_clock_1997,
        ),
        Driver(
            "dlms",
            dlms.read,
            dlms.discover,
            dlms.explain,
            dlms.check_address,
            dlms.read_item,
            dlms.decode_item,
            needs_access=True,
            set_clock=dlms.set_clock,
            switch=dlms.switch,
        ),
        Driver(
            "hes-mqtt",
            hes_mqtt.read,
            hes_mqtt.discover,
            hes_mqtt.explain,
            hes_mqtt.check_address,
            needs_access=True,
            pushed=True,
            set_clock=hes_mqtt.set_clock,
            switch=hes_mqtt.switch,
        ),
        *(
            Driver(
                name,
                modbus.read,
                modbus.discover,
                explain,
                check_address,
                read_item,
                modbus.decode_item,
                needs_access=True,
            )
            for name, explain, check_address, read_item in (
                ("modbus-rtu", modbus.explain_rtu, modbus.check_rtu_address, modbus.read_item),
                ("modbus-tcp", modbus.explain_tcp, modbus.check_tcp_address, partial(modbus.read_item, tcp=True)),
            )
        ),
    )
}
