"""JSON, and sequences of JSON values (JSON Lines)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from bridge.mapping.formats.options import MAX_DEPTH, PayloadDecoder
from bridge.mapping.formats.values import nests_deeper
from bridge.mapping.numbers import number_of
from bridge.mapping.payload import MAX_ROWS
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

_BOM = b"\xef\xbb\xbf"
_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_STRING = rb'"(?:[^"\\]++|\\.)*+"?'  # also an unterminated one, so that nothing is scanned twice
_NUMBERS = re.compile(_STRING + rb"|(-?[0-9]++)((?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)", re.DOTALL)
_CONSTANTS = re.compile(
    _STRING + rb"|(?<![\w.])([+-]?(?:nan(?:\([a-z]*\))?|inf(?:inity)?|1\.\#(?:qnan|snan|ind|inf)[0-9]*)(?![\w.]))",
    re.DOTALL | re.IGNORECASE,
)
_TRAILING = b"\0 \t\r\n"
_RECORD_SEPARATOR = b"\x1e"
_LONG = re.compile(rb"[0-9]{4300}")
_AS_FRACTION = "e" + 40 * "0"  # no device writes it
"""Appended to whole numbers that the library would refuse (over 4,300 digits) or change (-0)."""


def _number(text: str) -> float:
    return number_of(text.removesuffix(_AS_FRACTION))


_DECODER = msgspec.json.Decoder()
_NUMBERS_DECODER = msgspec.json.Decoder(float_hook=_number)


def compile_json(*, keep_digits: bool, nan_is_null: bool = False, is_sequence: bool = False) -> PayloadDecoder:
    """Make the decoder of JSON (RFC 8259). A byte order mark, and NULs at the end, are skipped.

    Whole numbers are exact, also beyond 64 bits: the column's coercion refuses one that doesn't fit. The other formats
    give such numbers as text. Numbers beyond a double are ``WrittenNumber``.

    Args:
        keep_digits: whether every number that a double wouldn't print as it was written is a ``WrittenNumber``.
        nan_is_null: whether NaN and the infinities, as C, Python and JavaScript write them, are null.
        is_sequence: whether the payload is a sequence of values, with or without line breaks between: JSON Lines,
            or JSON text sequences (RFC 7464). They become an array.
    """
    parse_numbers = _with_digits(_NUMBERS_DECODER.decode_lines if is_sequence else _NUMBERS_DECODER.decode)
    plain: PayloadDecoder = _DECODER.decode_lines if is_sequence else _DECODER.decode
    parse = parse_numbers if keep_digits else plain

    def decode(payload: bytes) -> Any:
        if payload.startswith(_BOM):
            payload = payload[len(_BOM) :]
        try:
            decoded = parse(payload)
        except _REFUSALS:
            decoded = _parse_again(_prepared(payload, nan_is_null, is_sequence), parse_numbers)
        # Only a payload with more brackets than allowed levels can nest too deeply: few need the walk.
        if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and nests_deeper(decoded, MAX_DEPTH):
            raise Unmappable(Reason.NOT_JSON, f"the payload nests deeper than {MAX_DEPTH} levels")
        return decoded

    return _counted(decode) if is_sequence else decode


def _prepared(payload: bytes, nan_is_null: bool, is_sequence: bool) -> bytes:
    """A payload that was refused, without what isn't JSON but may be there."""
    payload = payload.rstrip(_TRAILING)
    if nan_is_null:
        payload = _CONSTANTS.sub(lambda token: token[0] if token[1] is None else b"null", payload)
    return payload.replace(_RECORD_SEPARATOR, b"\n") if is_sequence else payload


def _parse_again(payload: bytes, parse_numbers: PayloadDecoder) -> Any:
    """Decode what the faster decoder refuses, which also refuses numbers beyond a double.

    Raises:
        Unmappable: it isn't JSON.
    """
    if not payload:
        raise Unmappable(Reason.EMPTY, "the payload is empty")
    try:
        return parse_numbers(payload)
    except _REFUSALS as exc:
        raise Unmappable(Reason.NOT_JSON, f"the payload is not JSON: {exc}") from exc


def _counted(decode: PayloadDecoder) -> PayloadDecoder:
    def counted(payload: bytes) -> Any:
        values = decode(payload)
        if not values:
            raise Unmappable(Reason.EMPTY, "the payload has no JSON value")
        if len(values) > MAX_ROWS:
            raise Unmappable(Reason.TOO_LARGE, f"there are more than {MAX_ROWS} JSON values")
        return values

    return counted


def _with_digits(parse: Callable[[bytes], Any]) -> PayloadDecoder:
    def parse_numbers(payload: bytes) -> Any:
        if b"-0" in payload or (len(payload) > 4300 and _LONG.search(payload)):
            payload = _NUMBERS.sub(_readable, payload)
        return parse(payload)

    return parse_numbers


def _readable(token: re.Match[bytes]) -> bytes:
    whole, rest = token.groups()
    if whole is None or rest or (whole != b"-0" and len(whole) < 4300):
        return token[0]
    return whole + _AS_FRACTION.encode()
