"""Formats that need code beside their mapping: sessions, acknowledgements, packed or binary payloads."""

from headend.mqtt.dialects.acrel_domestic import AcrelDomestic
from headend.mqtt.dialects.acrel_overseas import AcrelOverseas
from headend.mqtt.dialects.chirpstack import ChirpStack, Field, Profile

__all__ = ["AcrelDomestic", "AcrelOverseas", "ChirpStack", "Field", "Profile"]
