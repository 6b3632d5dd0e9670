"""MessagePack, and bytes that nobody takes apart."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from bridge.mapping.formats.options import MAX_DEPTH
from bridge.mapping.formats.values import as_base64
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

# Level by level, by msgspec.Raw: a decoder for anything makes tuples of arrays that are a map's keys, and a device can
# choose thousands of tuples with one hash (-1 and -2 have the same): 256 KB kept it busy for 3.6 s.
_parse_map = msgspec.msgpack.Decoder(dict[str | int, msgspec.Raw]).decode
_parse_array = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_parse_scalar = msgspec.msgpack.Decoder().decode

# Leading bytes (MessagePack specification, "Overview").
_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_ARRAYS = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])


def decode_raw(payload: bytes) -> dict[str, Any]:
    """The member ``payload``: the bytes as base64 text."""
    return {"payload": as_base64(payload)}


def decode_msgpack(payload: bytes) -> Any:
    """The value that a MessagePack object is.

    Whole numbers as keys become text, bytes base64 text, timestamps ISO 8601 text (UTC, microseconds); NaN and the
    infinities become null.

    Raises:
        Unmappable: it is none, nests too deeply, or has other keys or extension types.
    """
    try:
        return _value(payload, MAX_DEPTH)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unmappable(Reason.UNDECODABLE, f"the payload is no MessagePack: {exc}") from exc


def _value(data: bytes | msgspec.Raw, room: int) -> Any:
    first = memoryview(data)[0]
    if first in _MAPS or first in _ARRAYS:
        if not room:
            raise Unmappable(Reason.UNDECODABLE, f"the payload nests deeper than {MAX_DEPTH} levels")
        if first in _MAPS:
            members = _parse_map(data)
            return {str(name): _value(member, room - 1) for name, member in members.items()}
        return [_value(element, room - 1) for element in _parse_array(data)]
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
