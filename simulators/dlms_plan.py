"""DLMS/COSEM meters of a town file: [[group]] and [[meter]] with form = "dlms"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import shake_128

from simulators.dlms_spec import AUTHENTICATIONS, PUBLIC, DlmsClient, DlmsSpec
from simulators.toml_table import Table

__all__ = ["DlmsPlan", "named_dlms", "read_dlms"]

# Wh times ten, so that a meter shows what the truth of a town is told in: 0.01 kWh.
_SCALER = 1


@dataclass(frozen=True, slots=True)
class DlmsPlan:
    """How a head-end reads it. options: for meters.csv. secrets: by the head-end's names; not shown."""

    spec: DlmsSpec
    interface: str
    options: str

    def secrets(self) -> Mapping[str, bytes]:
        """What a utility was given with the meter."""
        client = self.spec.clients[-1]
        found = {"password": client.password} if client.password else {}
        if client.authentication == "hls-gmac":
            found["encryption_key"] = self.spec.encryption_key
            found["authentication_key"] = self.spec.authentication_key
        return found


def read_dlms(table: Table, *, step_min: int, memory_days: int, zone_offset_s: int) -> DlmsPlan:
    """What the meters of a group share; serial numbers, addresses and secrets are still to come."""
    interface = table.choice("interface", ("hdlc", "wrapper"), "hdlc")
    authentication = table.choice("authentication", AUTHENTICATIONS, "none")
    sap = table.integer("client", 16 if authentication == "none" else 32, 1, 127)
    ciphered = authentication == "hls-gmac"
    client = DlmsClient(sap, authentication, policy="authenticated-encrypted" if ciphered else "none")
    spec = DlmsSpec(
        clients=(client,) if sap == PUBLIC.sap else (PUBLIC, client),
        step_min=step_min,
        memory_days=memory_days,
        zone_offset_s=zone_offset_s,
        clock_error_s=table.integer("clock_error_s", 0, -86_400, 86_400),
        max_info=table.integer("max_info", 128, 128, 2030),
        scaler=_SCALER,
    )
    options = f'client = {sap}; authentication = "{authentication}"'
    if ciphered:
        options += (
            '; policy = "authenticated-encrypted"; counter_object = "0.0.43.1.0.255"; client_title = "4845440000000001"'
        )
    return DlmsPlan(spec, interface, options)


def named_dlms(plan: DlmsPlan, seed: int, meter_id: str, address: str) -> DlmsPlan:
    """The plan of one meter: its address, and a serial number and secrets of its own."""
    logical, _, physical = address.partition("/")
    chance = shake_128(f"{seed}:{meter_id}:secrets".encode()).digest(48)
    client = plan.spec.clients[-1]
    if client.authentication not in ("none", "hls-gmac"):
        client = replace(client, password=chance[:4].hex().encode())
    spec = replace(
        plan.spec,
        serial=str(10_000_000 + int.from_bytes(chance[4:8], "big") % 90_000_000),
        logical=int(logical),
        physical=int(physical) if physical else None,
        clients=(*plan.spec.clients[:-1], client),
        encryption_key=chance[16:32],
        authentication_key=chance[32:48],
    )
    return replace(plan, spec=spec)
