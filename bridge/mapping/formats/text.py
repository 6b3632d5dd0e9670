"""Text formats: a single value, and text matched by a pattern."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from bridge.mapping.formats.options import ENCODINGS, PayloadDecoder, load_extra
from bridge.mapping.formats.values import whole
from bridge.mapping.numbers import EXACT_DOUBLE, number_of
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason

MAX_TEXT = 8 * 1024
"""Bytes of a payload for a pattern: RE2 takes time proportional to pattern times text."""

MAX_PATTERN = 1000
"""Characters of a pattern."""

PATTERN_MEMORY = 1024 * 1024
"""Bytes that RE2 may use for a pattern. It refuses patterns that need more, so also slow ones: see compile_text."""

_MAX_NUMBER = 100  # characters; longer ones are text
_EXACT_DIGITS = 15  # characters of a number in the range of exact whole numbers that a double holds exactly
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # RFC 8259, 6
TRAILING = "\0 \t\r\n"
"""Padding after a text, if there is a NUL in it."""
_BOOLEANS = {"true": True, "false": False}


class Scalar(dict[str, Any]):
    """A decoded scalar, which keeps its text."""

    __slots__ = ("text",)

    text: str


def texts_of(element: Any) -> Any:
    """A decoded scalar as the text that came; anything else is returned unchanged."""
    if not isinstance(element, Scalar):
        return element
    return {"value": None if element["value"] is None else element.text}


def compile_scalar(decimal: str) -> PayloadDecoder:
    """Make the decoder of a single value: an object with the member ``value``.

    That is a number in JSON's syntax, ``true`` or ``false`` in any case, else the text without surrounding white space.
    A number that doesn't fit (a whole one in 64 bits, others in a double) is text, and so is one with a point if the
    decimal separator is a comma. The decoder raises ``Unmappable`` if the payload isn't UTF-8, or is blank.
    """
    has_comma = decimal == ","

    def decode(payload: bytes) -> Scalar:
        text = decode_utf8(payload).strip()
        scalar = Scalar(value=text if has_comma and "." in text else _scalar_value(text))
        scalar.text = text
        return scalar

    return decode


def _scalar_value(text: str) -> Any:
    number = _NUMBER.fullmatch(text) if len(text) <= _MAX_NUMBER else None
    if number is None:
        return _BOOLEANS.get(text.lower(), text) if len(text) <= len("false") else text
    if number[1] is None and number[2] is None:
        return whole(int(text))
    value = float(text)
    if not math.isfinite(value):
        return text
    return value if len(text) <= _EXACT_DIGITS and abs(value) < EXACT_DOUBLE else number_of(text)


def compile_text(pattern: str | None) -> PayloadDecoder:
    """Make the decoder that matches text with a pattern: each named group becomes a member, text or null.

    The whole text must match, without surrounding white space. Patterns have RE2's syntax, without backreferences and
    look-around, and take time linear in the text, even ``(a+)+$``. With ``MAX_TEXT`` and ``PATTERN_MEMORY`` the slowest
    pattern found, ``(?P<x>(?:a?){1000}a*)``, takes 20 ms; usual ones take microseconds.

    Raises:
        ValueError: the pattern is invalid, or has no named group.
        MissingExtra: RE2 isn't installed.
    """
    if pattern is None:
        raise ValueError('format "text" needs a pattern with named groups, such as (?P<value>[0-9.]+) C')
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters, at most {MAX_PATTERN} are allowed")
    re2 = load_extra("re2", 'format "text"')
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    try:
        compiled = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as exc:
        error = exc.args[0].decode(errors="replace") if isinstance(exc, re2.error) else str(exc)
        raise ValueError(f"{pattern!r} is not a valid pattern (RE2 syntax): {error}") from exc
    names = [(name.decode(), index) for name, index in compiled.groupindex.items()]
    if not names:
        raise ValueError(f"{pattern!r} has no named group, such as (?P<value>[0-9.]+): it would give no values")

    def decode(payload: bytes) -> dict[str, Any]:
        if len(payload) > MAX_TEXT:
            raise Unmappable(Reason.TOO_LARGE, f"the text has {len(payload)} bytes, at most {MAX_TEXT} are allowed")
        text = decode_utf8(payload).strip()
        match = compiled.fullmatch(text.encode())
        if match is None:
            raise Unmappable(Reason.UNDECODABLE, f"the text {preview(text)} doesn't match the pattern")
        return {name: None if (found := match[index]) is None else found.decode() for name, index in names}

    return decode


def compile_transcoder(encoding: str, limit: int) -> Callable[[bytes], bytes] | None:
    """Make what converts a payload to UTF-8, of at most ``limit`` bytes; None if it is UTF-8 already.

    Raises:
        ValueError: the encoding is unknown.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"unknown encoding {encoding!r}; there are: {', '.join(ENCODINGS)}")
    if encoding == "utf-8":
        return None

    def transcode(payload: bytes) -> bytes:
        codec = encoding
        if encoding == "utf-16":  # Python's codec would take the byte order of this machine
            codec = "utf-16-be" if payload.startswith(b"\xfe\xff") else "utf-16-le"
        try:
            text = payload.decode(codec)
        except UnicodeDecodeError as exc:
            detail = f"the payload is not {encoding}: {exc.reason} at byte {exc.start}"
            raise Unmappable(Reason.UNDECODABLE, detail) from exc
        found = text.encode()
        if len(found) > limit:
            detail = f"the payload has {len(found)} bytes as UTF-8, at most {limit} are allowed"
            raise Unmappable(Reason.TOO_LARGE, detail)
        return found

    return transcode


def decode_utf8(payload: bytes) -> str:
    """The text, without byte order mark and without NULs at its end.

    Raises:
        Unmappable: it isn't UTF-8, or is blank.
    """
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Unmappable(Reason.UNDECODABLE, f"the payload is not UTF-8: {exc.reason} at byte {exc.start}") from exc
    if "\0" in text:
        stripped = text.rstrip(TRAILING)
        text = stripped if "\0" in text[len(stripped) :] else text
    if not text or text.isspace():
        raise Unmappable(Reason.EMPTY, "the payload is empty")
    return text
