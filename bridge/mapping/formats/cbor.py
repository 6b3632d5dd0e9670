"""CBOR (RFC 8949), decoded without a library.

Python's libraries are vulnerable to hostile payloads. They hash arrays used as map keys: with thousands of equal
hashes, cbor2 6.3 took 2.6 s for 256 KB, and its option against this also refuses whole numbers as keys, which SenML
uses. Tags make them build cycles, nested copies, huge decimals and compiled regular expressions.
"""

from __future__ import annotations

import math
import re
import struct
import uuid
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

from bridge.mapping.formats.options import MAX_DEPTH
from bridge.mapping.formats.values import as_base64, whole
from bridge.mapping.numbers import number_of
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

# Major types (RFC 8949, 3.1).
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)

# Tags (RFC 8949, 3.4; IANA registry "CBOR Tags").
_BIGNUM, _NEGATIVE_BIGNUM, _DECIMAL, _UUID = 2, 3, 4, 37
_REFERENCES = {25: "a string reference", 29: "a shared reference"}

_MAX_BIGNUM = 128
"""Bytes. Converting a number to text takes time quadratic in its digits."""

_SIMPLE = {20: False, 21: True, 22: None, 23: None}  # false, true, null, undefined
_WHOLE = re.compile(r"-?[0-9]+")
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}


def decode_cbor(payload: bytes) -> Any:
    """Decode a CBOR data item.

    Whole numbers as keys become text, bytes base64 text; undefined, NaN and the infinities become null. Numbers that
    don't fit in 64 bits become text, decimal fractions numbers, UUIDs text. Other tags are ignored: a time is its text
    or its seconds.

    Raises:
        Unmappable: it isn't exactly one data item, nests too deeply, or has references, or keys or simple values of
            other kinds.
    """
    reader = _CborReader(payload)
    value = reader.item(MAX_DEPTH)
    if reader.at != len(payload):
        raise _undecodable(f"{len(payload) - reader.at} bytes follow the data item")
    return value


def _undecodable(problem: str) -> Unmappable:
    return Unmappable(Reason.UNDECODABLE, f"the payload is not supported CBOR: {problem}")


class _CborReader:
    __slots__ = ("_data", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def item(self, levels: int) -> Any:
        """The next data item; it may nest ``levels`` deep."""
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
        if not levels:
            raise _undecodable(f"it nests deeper than {MAX_DEPTH} levels")
        if major == _ARRAY:
            return self._array(info, levels - 1)
        if major == _MAP:
            return self._map(info, levels - 1)
        return self._tagged(self._argument(info), levels - 1)

    def _take(self, size: int) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self._data):
            raise _undecodable(f"it ends inside a data item: {size} bytes expected at byte {start}")
        return self._data[start : self.at]

    def _head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        return first >> 5, first & 0x1F

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise _undecodable(f"unexpected additional information {info} at byte {self.at - 1}")
        return int.from_bytes(self._take(1 << (info - 24)))  # 24 to 27: in the next 1, 2, 4 or 8 bytes

    def _take_break(self) -> bool:
        found = self._data[self.at : self.at + 1] == b"\xff"
        self.at += found
        return found

    def _bytes(self, info: int, major: int = _BYTES) -> bytes:
        if info != 31:  # 31: indefinite length, in chunks up to a break (RFC 8949, 3.2.3)
            return self._take(self._argument(info))
        chunks = []
        while not self._take_break():
            chunk_major, chunk_info = self._head()
            if chunk_major != major or chunk_info == 31:
                raise _undecodable(f"a chunk has another type before byte {self.at}")
            chunks.append(self._take(self._argument(chunk_info)))
        return b"".join(chunks)

    def _text(self, info: int) -> str:
        try:
            return self._bytes(info, _TEXT).decode()
        except UnicodeDecodeError as exc:
            raise _undecodable(f"a text is not UTF-8 before byte {self.at}") from exc

    def _array(self, info: int, levels: int) -> list[Any]:
        if info != 31:
            # A huge length is harmless: the data ends first, and each item takes at least a byte.
            return [self.item(levels) for _ in range(self._argument(info))]
        elements = []
        while not self._take_break():
            elements.append(self.item(levels))
        return elements

    def _map(self, info: int, levels: int) -> dict[str, Any]:
        members = {}
        left = -1 if info == 31 else self._argument(info)  # negative: until a break
        while left and not (left < 0 and self._take_break()):
            name = self._name()
            members[name] = self.item(levels)
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
        raise _undecodable(f"a key is neither text nor a whole number at byte {self.at - 1}")

    def _simple(self, info: int) -> Any:
        if info in _FLOATS:
            value: float = _FLOATS[info].unpack(self._take(_FLOATS[info].size))[0]
            return value if math.isfinite(value) else None
        if info not in _SIMPLE:
            raise _undecodable(f"unexpected simple value or break ({info}) at byte {self.at - 1}")
        return _SIMPLE[info]

    def _tagged(self, tag: int, levels: int) -> Any:
        if tag in (_BIGNUM, _NEGATIVE_BIGNUM, _UUID):
            major, info = self._head()
            if major != _BYTES:
                raise _undecodable(f"tag {tag} has no byte string at byte {self.at - 1}")
            data = self._bytes(info)
            return _uuid(data) if tag == _UUID else _bignum(data, negative=tag == _NEGATIVE_BIGNUM)
        if tag in _REFERENCES:
            raise _undecodable(f"{_REFERENCES[tag]} (tag {tag}) before byte {self.at}")
        content = self.item(levels)
        return _decimal(content) if tag == _DECIMAL else content


def _bignum(data: bytes, *, negative: bool) -> int | str:
    if len(data) > _MAX_BIGNUM:
        raise _undecodable(f"a number has {len(data)} bytes, at most {_MAX_BIGNUM} are allowed")
    number = int.from_bytes(data)
    return whole(-1 - number if negative else number)


def _decimal(content: Any) -> float:
    """Mantissa times a power of ten (RFC 8949, 3.4.4), like a number in JSON."""
    match content:
        # A boolean is an int to Python. A mantissa that is a string is a bignum, or a text in its place.
        case [int() as power, int() | str() as digits] if type(power) is int and _WHOLE.fullmatch(str(digits)):
            with suppress(InvalidOperation):
                return number_of(str(Decimal(f"{digits}e{power}")))
    raise _undecodable("a decimal fraction is malformed or too large")


def _uuid(data: bytes) -> str:
    if len(data) != 16:
        raise _undecodable(f"a UUID has {len(data)} bytes")
    return str(uuid.UUID(bytes=data))
