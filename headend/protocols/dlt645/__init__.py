"""DL/T 645-2007, the Chinese meter protocol on RS-485, infrared and serial servers. No IO, no clock, no tasks here."""

from __future__ import annotations

from headend.protocols.dlt645.explain import explain
from headend.protocols.dlt645.frame import check_address
from headend.protocols.dlt645.read import discover, read, read_item
from headend.protocols.dlt645.values import decode_item

__all__ = ["check_address", "decode_item", "discover", "explain", "read", "read_item"]
