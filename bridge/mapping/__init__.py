"""From a device's message to rows of a GDN stream: topic templates, payloads, field expressions, coercion.

Pure: no I/O, no clock, no thread. ``Mapping`` does it, ``Route`` configures it, ``check`` finds what is wrong with it.
"""

from __future__ import annotations

from bridge.mapping.check import check
from bridge.mapping.mapping import Mapping
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.mapping.reason import Reason
from bridge.mapping.routes import Route
from bridge.mapping.topics import TopicTemplate

__all__ = ["MAX_PAYLOAD", "Mapping", "Reason", "Route", "TopicTemplate", "check"]
