"""Payloads to objects: JSON, strictly (RFC 8259), within bounds."""

from __future__ import annotations

from typing import Any

import msgspec

from bridge.mapping.reasons import Reason, Unmappable

MAX_PAYLOAD = 512 * 1024
"""Bytes. A GDN frame is at most 1 MiB with base64 and envelope (gdn-api.md C.5): more could never be sent."""

_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode


def objects(payload: bytes, *, max_payload: int = MAX_PAYLOAD) -> list[dict[str, Any]]:
    """The object in the payload, or the objects of its array.

    Raises:
        Unmappable: there is none, it is no JSON, or it is too large.
    """
    if len(payload) > max_payload:
        raise Unmappable(Reason.TOO_LARGE, f"the payload has {len(payload)} bytes, at most {max_payload} are taken")
    if payload.startswith(_BOM):
        payload = payload[3:]
    if not payload or payload.isspace():
        raise Unmappable(Reason.EMPTY, "the payload is empty")
    try:
        decoded = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unmappable(Reason.NOT_JSON, f"the payload is no JSON: {exc}") from exc
    if type(decoded) is dict:
        return [decoded]
    if not isinstance(decoded, list):
        raise Unmappable(Reason.NOT_AN_OBJECT, f"the payload is {kind(decoded)}, not an object or an array of objects")
    if not decoded:
        raise Unmappable(Reason.EMPTY, "the payload is an empty array")
    for number, element in enumerate(decoded):
        if not isinstance(element, dict):
            raise Unmappable(Reason.NOT_AN_OBJECT, f"element {number} of the array is {kind(element)}, not an object")
    return decoded


def kind(value: object) -> str:
    """A JSON value's kind in words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string"}
    return kinds.get(type(value), "an array" if isinstance(value, list) else "an object")
