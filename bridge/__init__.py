"""gdn-bridge: feeds Macrometa GDN stream workers from MQTT devices, and never loses what it acknowledged."""

__version__ = "0.1.0"
