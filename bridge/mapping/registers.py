"""Numbers in registers, as of Modbus: signed, of several 16-bit words, or single bits."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from bridge.mapping.coercion import parse_text
from bridge.mapping.numbers import whole_of
from bridge.mapping.payload import kind
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

_CODES = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "float32": "f",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float64": "d",
}
REGISTER_TYPES = tuple(_CODES)

ORDERS = {
    1: ("A",),
    2: ("AB", "BA"),
    4: ("ABCD", "CDAB", "BADC", "DCBA"),
    8: ("ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"),
}
"""By size in bytes: orders in which a device may send the bytes A (most significant), B, …; the first is the default.
The words of ``CDAB`` are swapped."""

MAX_BIT = 63


def compile_registers(type_: str, order: str | None) -> Callable[[Any], int | float | None]:
    """Compile a decoder of a whole number as wide as the type, or of an array of 16-bit words.

    The decoder gives None for a NaN or an infinity, with which devices mark a missing value.

    Raises:
        ValueError: type or order is invalid; the message says why.
    """
    if type_ not in _CODES:
        raise ValueError(f"registers must be one of {', '.join(_CODES)}, not {type_!r}")
    number = struct.Struct(f">{_CODES[type_]}")
    size = number.size
    orders = ORDERS[size]
    if order is not None and order not in orders:
        raise ValueError(f"byte_order of {type_} must be one of {', '.join(orders)}, not {order!r}")
    places = [(order or orders[0]).index(letter) for letter in orders[0]]

    def decode(value: Any) -> int | float | None:
        sent = _words(value, size) if isinstance(value, list) else _bytes(value, size)
        (found,) = number.unpack(bytes([sent[place] for place in places]))
        return found if math.isfinite(found) else None

    return decode


def compile_bit(bit: int) -> Callable[[Any], int]:
    """Compile a reader of one bit of a whole number; 0 is the least significant.

    Raises:
        ValueError: there is no such bit.
    """
    if not 0 <= bit <= MAX_BIT:
        raise ValueError(f"bit must be from 0 to {MAX_BIT}, not {bit}")
    return lambda value: _whole(value) >> bit & 1


def _words(words: list[Any], size: int) -> bytes:
    if len(words) * 2 != size:
        raise Unmappable(
            Reason.TYPE_MISMATCH, f"an array of {len(words)} registers has {len(words) * 16} bits, not {size * 8}"
        )
    return b"".join([_bytes(word, 2) for word in words])


def _bytes(value: Any, size: int) -> bytes:
    number, bits = _whole(value), size * 8
    if not -(1 << bits - 1) <= number < 1 << bits:
        raise Unmappable(Reason.OUT_OF_RANGE, f"{preview(value)} is no register of {bits} bits")
    return (number % (1 << bits)).to_bytes(size, "big")


def _whole(value: Any) -> int:
    number = parse_text(value.strip(), AttributeType.LONG) if type(value) is str else value
    if isinstance(number, float) and math.isfinite(number):
        try:
            number = whole_of(number)
        except OverflowError:
            raise Unmappable(Reason.OUT_OF_RANGE, f"{preview(value)}: it would lose digits") from None
    if type(number) is not int:
        raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(value)} ({preview(value)}) is not a whole number")
    return number
