"""The metadata of a message, for fields that use it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from bridge.mapping.fields import USER
from bridge.message import MqttMessage
from bridge.timing import CLOCK_IS_SET_FROM

_CLOCK_IS_SET_FROM = CLOCK_IS_SET_FROM * 10**9

_USER_PROPERTY = 0x26

# Sizes of the other properties of a PUBLISH (MQTT 5, 2.2.2.2); 0: prefixed by a length of two bytes.
_SIZES = {0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x23: 2}
_SUBSCRIPTION_IDENTIFIER = 0x0B


def metadata_of(message: MqttMessage, wanted: AbstractSet[str], client: str) -> dict[str, Any]:
    """Metadata by name, without ``$id`` and ``$root``; ``$received_at`` is in nanoseconds since the epoch.

    It is None if the clock wasn't set when the message arrived. ``$user`` is parsed only if wanted.
    """
    received_at = message.received_at
    found: dict[str, Any] = {
        "$topic": message.topic,
        "$client": client,
        "$qos": message.qos,
        "$retain": message.retain,
        # 0 is the time of the examples that `gdn-bridge test` runs.
        "$received_at": received_at if received_at >= _CLOCK_IS_SET_FROM or not received_at else None,
    }
    if USER in wanted:
        found[USER] = user_properties(message.properties)
    return found


def user_properties(properties: bytes) -> dict[str, str]:
    """The user properties of a PUBLISH (MQTT 5, 3.3.2.3.7): the first of each name, up to what can't be parsed."""
    found: dict[str, str] = {}
    at = 0
    while at < len(properties):
        identifier = properties[at]
        at += 1
        if identifier == _USER_PROPERTY:
            name, at = _string(properties, at)
            value, at = _string(properties, at)
            if value is not None and name is not None:
                found.setdefault(name, value)
        elif identifier == _SUBSCRIPTION_IDENTIFIER:
            while at < len(properties) and properties[at] & 0x80:  # a variable byte integer (MQTT 5, 1.5.5)
                at += 1
            at += 1
        elif identifier in _SIZES:
            at += _SIZES[identifier] or 2 + int.from_bytes(properties[at : at + 2], "big")
        else:
            break
    return found


def _string(data: bytes, at: int) -> tuple[str | None, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data):  # truncated: there is nothing to parse after it
        return None, len(data)
    return data[at + 2 : end].decode("utf-8", "replace"), end
