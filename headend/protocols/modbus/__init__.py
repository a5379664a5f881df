"""Modbus: RTU on serial lines and behind serial servers, and TCP; the meters' registers are data (`RegisterMap`).

No IO, no clock, no tasks here. pymodbus encodes and decodes PDUs, behind `library`.
"""

from __future__ import annotations

from headend.protocols.modbus.explain import explain, explain_rtu, explain_tcp
from headend.protocols.modbus.frame import check_rtu_address, check_tcp_address
from headend.protocols.modbus.items import decode_item, is_item, read_item
from headend.protocols.modbus.model import RegisterMap
from headend.protocols.modbus.read import discover, read

__all__ = [
    "RegisterMap",
    "check_rtu_address",
    "check_tcp_address",
    "decode_item",
    "discover",
    "explain",
    "explain_rtu",
    "explain_tcp",
    "is_item",
    "read",
    "read_item",
]
