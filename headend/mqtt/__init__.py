"""MQTT: concentrators, gateways and DTUs that publish reads and take commands."""
