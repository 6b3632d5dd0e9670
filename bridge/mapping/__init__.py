"""From an MQTT message to rows of the worker's input stream. Pure: no I/O, no clock, no thread."""

from bridge.mapping.reasons import Reason
from bridge.mapping.routes import Mapping, Route, check

__all__ = ["Mapping", "Reason", "Route", "check"]
