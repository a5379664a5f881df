"""Meters behind a concentrator that speaks the canonical MQTT protocol: its messages, and commands to it."""

from headend.protocols.hes_mqtt.ask import Behind
from headend.protocols.hes_mqtt.control import set_clock, switch
from headend.protocols.hes_mqtt.explain import explain
from headend.protocols.hes_mqtt.read import check_address, discover, read

__all__ = ["Behind", "check_address", "discover", "explain", "read", "set_clock", "switch"]
