"""Smart-meter head-end: from the byte on the wire to the interval in the store."""

__version__ = "0.1.0"
