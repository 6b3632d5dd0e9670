"""CBOR (RFC 8949), read here and not by a library.

What a library for Python does before anyone can look is what hostile bytes are made for: it hashes arrays as keys
(thousands with one hash: 256 KB kept cbor2 6.3 busy for 2.6 s; its guard against that refuses whole numbers as keys
too, which SenML has), and by tags it makes cycles, copies of copies, huge decimals and compiled expressions.
"""

from __future__ import annotations

import math
import struct
import uuid
from typing import Any

from bridge.mapping.formats.options import MAX_DEPTH
from bridge.mapping.formats.values import as_base64, whole
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

# Major types (RFC 8949, 3.1).
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)

# Tags (RFC 8949, 3.4; IANA registry "CBOR Tags").
_BIGNUM, _NEGATIVE_BIGNUM, _DECIMAL, _UUID = 2, 3, 4, 37
_REFERENCES = {25: "a string reference", 29: "a shared reference"}

_MAX_BIGNUM = 128
"""Bytes. Numbers to text takes time by the square of the digits."""

_SIMPLE = {20: False, 21: True, 22: None, 23: None}  # false, true, null, undefined
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}


def decode_cbor(payload: bytes) -> Any:
    """The value that a CBOR data item is.

    Whole numbers as keys become text, bytes base64 text; undefined, NaN and the infinities become null. Numbers that
    don't fit in 64 bits become text, decimal fractions numbers, UUIDs their text. Of any other tag the content stays:
    a time is its text or its seconds.

    Raises:
        Unmappable: it is none or more than one, nests too deeply, or has other keys, references or simple values.
    """
    reader = _Reader(payload)
    value = reader.item(MAX_DEPTH)
    if reader.at != len(payload):
        raise _undecodable(f"{len(payload) - reader.at} bytes follow the data item")
    return value


def _undecodable(what: str) -> Unmappable:
    return Unmappable(Reason.UNDECODABLE, f"the payload is no CBOR that is taken: {what}")


class _Reader:
    __slots__ = ("_data", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def item(self, room: int) -> Any:
        """The next data item; ``room`` is how many levels it may have."""
        major, info = self._head()
        if major == _TEXT:
            return self._text(info)
        if major == _UNSIGNED:
            return self._argument(info)
        if major == _NEGATIVE:
            return whole(-1 - self._argument(info))
        if major == _BYTES:
            return as_base64(self._bytes(info))
        if major > _TAG:
            return self._simple(info)
        if not room:
            raise _undecodable(f"it nests deeper than {MAX_DEPTH} levels")
        if major == _ARRAY:
            return self._array(info, room - 1)
        if major == _MAP:
            return self._map(info, room - 1)
        return self._tagged(self._argument(info), room - 1)

    def _take(self, size: int) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self._data):
            raise _undecodable(f"it ends within a data item: {size} bytes are wanted at byte {start}")
        return self._data[start : self.at]

    def _head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        return first >> 5, first & 0x1F

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise _undecodable(f"additional information {info} at byte {self.at - 1}")
        return int.from_bytes(self._take(1 << (info - 24)))

    def _at_break(self) -> bool:
        found = self._data[self.at : self.at + 1] == b"\xff"
        self.at += found
        return found

    def _bytes(self, info: int, major: int = _BYTES) -> bytes:
        if info != 31:
            return self._take(self._argument(info))
        chunks = []
        while not self._at_break():
            chunk_major, chunk_info = self._head()
            if chunk_major != major or chunk_info == 31:
                raise _undecodable(f"a chunk of another type before byte {self.at}")
            chunks.append(self._take(self._argument(chunk_info)))
        return b"".join(chunks)

    def _text(self, info: int) -> str:
        try:
            return self._bytes(info, _TEXT).decode()
        except UnicodeDecodeError as exc:
            raise _undecodable(f"a text that is no UTF-8 before byte {self.at}") from exc

    def _array(self, info: int, room: int) -> list[Any]:
        if info != 31:
            return [self.item(room) for _ in range(self._argument(info))]
        elements = []
        while not self._at_break():
            elements.append(self.item(room))
        return elements

    def _map(self, info: int, room: int) -> dict[str, Any]:
        members = {}
        left = -1 if info == 31 else self._argument(info)  # below 0: until a break
        while left and not (left < 0 and self._at_break()):
            name = self._name()
            members[name] = self.item(room)
            left -= 1
        return members

    def _name(self) -> str:
        major, info = self._head()
        if major == _TEXT:
            return self._text(info)
        if major == _UNSIGNED:
            return str(self._argument(info))
        if major == _NEGATIVE:
            return str(-1 - self._argument(info))
        raise _undecodable(f"a key that is neither text nor a whole number at byte {self.at - 1}")

    def _simple(self, info: int) -> Any:
        if info in _FLOATS:
            value: float = _FLOATS[info].unpack(self._take(_FLOATS[info].size))[0]
            return value if math.isfinite(value) else None
        if info not in _SIMPLE:
            raise _undecodable(f"simple value or break ({info}) at byte {self.at - 1}")
        return _SIMPLE[info]

    def _tagged(self, tag: int, room: int) -> Any:
        if tag in (_BIGNUM, _NEGATIVE_BIGNUM, _UUID):
            major, info = self._head()
            if major != _BYTES:
                raise _undecodable(f"tag {tag} without bytes at byte {self.at - 1}")
            data = self._bytes(info)
            return _uuid(data) if tag == _UUID else _bignum(data, negative=tag == _NEGATIVE_BIGNUM)
        if tag in _REFERENCES:
            raise _undecodable(f"{_REFERENCES[tag]} (tag {tag}) before byte {self.at}")
        content = self.item(room)
        return _decimal(content) if tag == _DECIMAL else content


def _bignum(data: bytes, *, negative: bool) -> int | str:
    if len(data) > _MAX_BIGNUM:
        raise _undecodable(f"a number of {len(data)} bytes, at most {_MAX_BIGNUM} are taken")
    number = int.from_bytes(data)
    return whole(-1 - number if negative else number)


def _decimal(content: Any) -> float:
    """Mantissa times a power of ten (RFC 8949, 3.4.4), in a double as if it had been written in JSON."""
    match content:
        case [int() as exponent, int() | str() as mantissa] if str(mantissa).lstrip("-").isdecimal():
            value = float(f"{mantissa}e{exponent}")
            if math.isfinite(value):
                return value
    raise _undecodable("a decimal fraction that is none, or too large")


def _uuid(data: bytes) -> str:
    if len(data) != 16:
        raise _undecodable(f"a UUID of {len(data)} bytes")
    return str(uuid.UUID(bytes=data))
