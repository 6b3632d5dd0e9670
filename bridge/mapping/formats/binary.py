"""MessagePack, and raw bytes."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from bridge.mapping.formats.options import MAX_DEPTH
from bridge.mapping.formats.values import as_base64
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

# Decoded level by level through msgspec.Raw. A decoder for any type makes tuples of arrays used as map keys, and a
# device can send thousands of tuples with the same hash (-1 and -2 have the same): 256 KB took 3.6 s.
_parse_map = msgspec.msgpack.Decoder(dict[str | int, msgspec.Raw]).decode
_parse_array = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_parse_scalar = msgspec.msgpack.Decoder().decode

# Leading bytes (MessagePack specification, "Overview").
_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_ARRAYS = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])


def decode_raw(payload: bytes) -> dict[str, Any]:
    """An object with the member ``payload``: the bytes as base64 text."""
    return {"payload": as_base64(payload)}


def decode_msgpack(payload: bytes) -> Any:
    """Decode a MessagePack object.

    Whole numbers as keys become text, bytes base64 text, timestamps ISO 8601 text (UTC, microseconds); NaN and the
    infinities become null.

    Raises:
        Unmappable: it isn't MessagePack, nests too deeply, or has keys or extension types of other kinds.
    """
    try:
        return _value(payload, MAX_DEPTH)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unmappable(Reason.UNDECODABLE, f"the payload is not MessagePack: {exc}") from exc


def _value(data: bytes | msgspec.Raw, levels: int) -> Any:
    first = memoryview(data)[0]
    if first in _MAPS or first in _ARRAYS:
        if not levels:
            raise Unmappable(Reason.UNDECODABLE, f"the payload nests deeper than {MAX_DEPTH} levels")
        if first in _MAPS:
            members = _parse_map(data)
            return {str(name): _value(member, levels - 1) for name, member in members.items()}
        return [_value(element, levels - 1) for element in _parse_array(data)]
    value = _parse_scalar(data)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return as_base64(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise Unmappable(Reason.UNDECODABLE, "the payload has an extension type other than timestamp")
