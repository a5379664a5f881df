"""Pushes: what meters send on their own over TCP or UDP, placed with their meter and put through the one door."""

from headend.push.door import PushDoor
from headend.push.place import Placed, Placer, Unknown

__all__ = ["Placed", "Placer", "PushDoor", "Unknown"]
