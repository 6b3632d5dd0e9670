"""Payloads: bytes from a device to decoded JSON objects, strictly.

What isn't RFC 8259 JSON in UTF-8 is refused, NaN and Infinity too: the row would be refused at the far end, unseen.
Whole numbers keep all their digits. Of equal keys in an object the last wins.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Any

import msgspec

from bridge.mapping.reason import Reason, Unmappable, shown

MAX_PAYLOAD = 512 * 1024
"""Bytes. A GDN frame is at most 1 MiB with base64 and envelope around the row (gdn-api.md C.5); half is ample for a device."""

JsonObject = dict[str, Any]


class WrittenFloat(float):
    """A float that remembers how it was written, for where its text is wanted: 1.10 is not "1.1"."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> WrittenFloat:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


_decode = msgspec.json.Decoder().decode
_decode_written = msgspec.json.Decoder(float_hook=WrittenFloat).decode


def decode(payload: bytes, *, max_payload: int = MAX_PAYLOAD, written: bool = False) -> JsonObject | list[JsonObject]:
    """The JSON object in ``payload``, or the objects of its array.

    Args:
        payload: as it came; a byte order mark is passed over.
        max_payload: bytes allowed.
        written: give floats as ``WrittenFloat``; slower, for the rare row that needs it.

    Raises:
        Unmappable: empty, too_large, not_json, not_an_object, or out_of_range for a number no 64-bit float holds.
    """
    if len(payload) > max_payload:
        raise Unmappable(Reason.TOO_LARGE, f"the payload has {len(payload)} bytes, the limit is {max_payload}")
    try:
        value: Any = (_decode_written if written else _decode)(payload.removeprefix(BOM_UTF8))
    except msgspec.ValidationError as exc:
        raise Unmappable(Reason.OUT_OF_RANGE, f"a number is too large to be read: {exc}") from exc
    except msgspec.DecodeError as exc:
        if not payload.removeprefix(BOM_UTF8).strip():
            raise Unmappable(Reason.EMPTY, "the payload is empty") from exc
        raise Unmappable(Reason.NOT_JSON, str(exc)) from exc
    except UnicodeDecodeError as exc:
        raise Unmappable(Reason.NOT_JSON, f"a string in it is not UTF-8: {exc.reason}") from exc
    except RecursionError as exc:
        raise Unmappable(Reason.NOT_JSON, "the JSON is nested too deeply") from exc
    if type(value) is dict:
        return value
    if type(value) is not list:
        raise Unmappable(Reason.NOT_AN_OBJECT, f"the payload is {shown(value)}, not an object or an array of objects")
    if not value:
        raise Unmappable(Reason.EMPTY, "the payload is an empty array")
    for index, element in enumerate(value):
        if type(element) is not dict:
            raise Unmappable(Reason.NOT_AN_OBJECT, f"element {index} is {shown(element)}, not an object")
    return value
