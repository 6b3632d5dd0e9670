"""JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bridge.mapping.formats.options import MAX_DEPTH, PayloadDecoder
from bridge.mapping.formats.values import nests_deeper
from bridge.mapping.numbers import number_of
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

_BOM = b"\xef\xbb\xbf"
_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_STRING = rb'"(?:[^"\\]++|\\.)*+"?'  # also an unterminated one, so that nothing is scanned twice
_NUMBERS = re.compile(_STRING + rb"|(-?[0-9]++)((?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)", re.DOTALL)
_LONG = re.compile(rb"[0-9]{4300}")
_AS_FRACTION = "e000"
"""Appended to whole numbers that the library would refuse (over 4,300 digits) or change (-0)."""


def _number(text: str) -> float:
    return number_of(text.removesuffix(_AS_FRACTION))


_parse = msgspec.json.Decoder().decode
_parse_numbers = msgspec.json.Decoder(float_hook=_number).decode


def compile_json(*, keep_digits: bool) -> PayloadDecoder:
    """Make the decoder of JSON (RFC 8259, so without NaN and Infinity). A byte order mark is skipped.

    Whole numbers are exact, also beyond 64 bits: the column's coercion refuses one that doesn't fit. The other formats
    give such numbers as text. Numbers beyond a double are ``WrittenNumber``.

    Args:
        keep_digits: whether every number that a double wouldn't print as it was written is a ``WrittenNumber``.
    """
    parse = _parse_with_digits if keep_digits else _parse

    def decode(payload: bytes) -> Any:
        if payload.startswith(_BOM):
            payload = payload[len(_BOM) :]
        try:
            decoded = parse(payload)
        except _REFUSALS:
            decoded = _parse_again(payload)
        # Only a payload with more brackets than allowed levels can nest too deeply: few need the walk.
        if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and nests_deeper(decoded, MAX_DEPTH):
            raise Unmappable(Reason.NOT_JSON, f"the payload nests deeper than {MAX_DEPTH} levels")
        return decoded

    return decode


def _parse_with_digits(payload: bytes) -> Any:
    if b"-0" in payload or (len(payload) > 4300 and _LONG.search(payload)):
        payload = _NUMBERS.sub(_readable, payload)
    return _parse_numbers(payload)


def _readable(token: re.Match[bytes]) -> bytes:
    whole, rest = token.groups()
    if whole is None or rest or (whole != b"-0" and len(whole) < 4300):
        return token[0]
    return whole + _AS_FRACTION.encode()


def _parse_again(payload: bytes) -> Any:
    """Decode what the fast decoder refuses, which also refuses numbers beyond a double.

    Raises:
        Unmappable: it isn't JSON.
    """
    try:
        return _parse_with_digits(payload)
    except _REFUSALS as exc:
        if not payload or payload.isspace():
            raise Unmappable(Reason.EMPTY, "the payload is empty") from None
        raise Unmappable(Reason.NOT_JSON, f"the payload is not JSON: {exc}") from exc
