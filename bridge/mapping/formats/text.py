"""Payloads that are one text: JSON, a single value, or what a pattern takes apart."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from bridge.mapping.formats.options import MAX_DEPTH, Decode, load_extra
from bridge.mapping.formats.values import nests_deeper, whole
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason

MAX_TEXT = 8 * 1024
"""Bytes of a payload that a pattern is held against: RE2 takes time by pattern times text."""

MAX_PATTERN = 1000
"""Characters of a pattern."""

PATTERN_MEMORY = 1024 * 1024
"""Bytes that RE2 may use for a pattern. It refuses larger programs, and with that what takes long: see compile_text."""

_MAX_NUMBER = 100  # characters; what is longer is text
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # RFC 8259, 6
_BOOLEANS = {"true": True, "false": False}

_parse_json = msgspec.json.Decoder().decode


def decode_json(payload: bytes) -> Any:
    """The value that a JSON text is (RFC 8259; NaN and Infinity are none). A byte order mark is skipped.

    Whole numbers stay exact, also those beyond 64 bits (msgspec refuses more than 4,300 digits): what can't hold one
    says so. All other formats give such numbers as text.

    Raises:
        Unmappable: it is no JSON, or nests too deeply.
    """
    if payload.startswith(_BOM):
        payload = payload[3:]
    if not payload or payload.isspace():
        raise Unmappable(Reason.EMPTY, "the payload is empty")
    try:
        decoded = _parse_json(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unmappable(Reason.NOT_JSON, f"the payload is no JSON: {exc}") from exc
    # Few payloads have as many brackets as would be needed: only those are walked.
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and nests_deeper(decoded, MAX_DEPTH):
        raise Unmappable(Reason.NOT_JSON, f"the payload nests deeper than {MAX_DEPTH} levels")
    return decoded


def decode_scalar(payload: bytes) -> dict[str, Any]:
    """The member ``value``: a number written as JSON writes it, ``true`` and ``false`` in any case, else the text.

    White space around it is skipped. Numbers that don't fit (whole ones in 64 bits, others in a double) stay text.

    Raises:
        Unmappable: it is not UTF-8, or blank.
    """
    text = decoded(payload).strip()
    number = _NUMBER.fullmatch(text) if len(text) <= _MAX_NUMBER else None
    if number is None:
        return {"value": _BOOLEANS.get(text.lower(), text) if len(text) <= len("false") else text}
    if number[1] is None and number[2] is None:
        return {"value": whole(int(text))}
    value = float(text)
    return {"value": value if math.isfinite(value) else text}


def compile_text(pattern: str | None) -> Decode:
    """What holds texts against a pattern: its named groups become members, text each, null if a group took no part.

    The whole text must match, without the white space around it. The pattern is RE2's: no backreferences and no
    look-around, and never more than linear time in the text, also for ``(a+)+$``. With ``MAX_TEXT`` and
    ``PATTERN_MEMORY`` the worst that was found takes 20 ms, ``(?P<x>(?:a?){1000}a*)``; usual ones take microseconds.

    Raises:
        ValueError: it is no pattern, or names no group.
        MissingExtra: RE2 isn't installed.
    """
    if pattern is None:
        raise ValueError('format "text" needs a pattern with named groups, as (?P<value>[0-9.]+) C')
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters, at most {MAX_PATTERN} are taken")
    re2 = load_extra("re2", 'format "text"')
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    try:
        compiled = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as exc:
        said = exc.args[0].decode(errors="replace") if isinstance(exc, re2.error) else str(exc)
        raise ValueError(f"{pattern!r} is no pattern (RE2's syntax): {said}") from exc
    names = [(name.decode(), index) for name, index in compiled.groupindex.items()]
    if not names:
        raise ValueError(f"{pattern!r} names no group, as (?P<value>[0-9.]+) does: nothing would be taken")

    def decode(payload: bytes) -> dict[str, Any]:
        if len(payload) > MAX_TEXT:
            raise Unmappable(Reason.TOO_LARGE, f"the text has {len(payload)} bytes, at most {MAX_TEXT} are taken")
        text = decoded(payload).strip()
        match = compiled.fullmatch(text.encode())
        if match is None:
            raise Unmappable(Reason.UNDECODABLE, f"the text {shown(text)} doesn't match the pattern")
        return {name: None if (found := match[index]) is None else found.decode() for name, index in names}

    return decode


def decoded(payload: bytes) -> str:
    """The text, without byte order mark.

    Raises:
        Unmappable: it is not UTF-8, or blank.
    """
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Unmappable(Reason.UNDECODABLE, f"the payload is no UTF-8: {exc.reason} at byte {exc.start}") from exc
    if not text or text.isspace():
        raise Unmappable(Reason.EMPTY, "the payload is empty")
    return text
