"""Guesses the format of a sample's payload. Pure.

A format is accepted only if the whole payload can be decoded: magic bytes or a first character are not enough.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from bridge.cli.init.columns import MAX_COLUMNS, MAX_MEMBERS, NUMBER
from bridge.mapping import FormatOptions
from bridge.mapping.formats import MissingExtra, compile_decoder
from bridge.mapping.formats.compressed import compile_decompressor, compression_of
from bridge.mapping.payload import MAX_PAYLOAD, elements, objects
from bridge.mapping.unmappable import Unmappable

EVERY_ELEMENT = "jmespath:@"
"""``each`` for arrays whose elements aren't objects."""

DELIMITERS = (",", ";", "|")

UNMARKED = {"msgpack": "MessagePack", "cbor": "CBOR", "influx": "InfluxDB line protocol"}
"""Formats without magic bytes: a payload may be decodable by chance."""

RAW = FormatOptions(name="raw")

_JSON, _SCALAR, _INFLUX = FormatOptions(), FormatOptions(name="scalar"), FormatOptions(name="influx")
_BINARY = (FormatOptions(name="msgpack"), FormatOptions(name="cbor"))
_HEADER = re.compile(r"[^\W\d][\w .()/%°-]*")

# Measurement, tags and first field of the first point in line protocol; white space and punctuation may be escaped.
_WORD = r"(?:\\.|[^\s,=\\])++"
_POINT = re.compile(
    rf"(?:\s|\#[^\n]*\n)*+ {_WORD} (?:,{_WORD}={_WORD})*+ \ ++ {_WORD}="
    r'(?: " | -?[0-9][0-9.eE+-]*+[iu]?(?=[,\s]|\Z) | (?:[tTfF]|[tT]rue|TRUE|[fF]alse|FALSE)(?=[,\s]|\Z))',
    re.VERBOSE,
)


class GuessedFormat(NamedTuple):
    """A payload's format, as guessed."""

    options: FormatOptions
    each: str | None
    signature: frozenset[str]
    """What similar payloads have in common: names of members, or the type of a single value."""


def guess_format(payload: bytes) -> GuessedFormat:
    """The format that the payload seems to have; ``raw`` if no other fits.

    Raises:
        MissingExtra: it seems to need an optional library that isn't installed.
    """
    # 78 5E may be the start of zlib or text; decompressing shows which.
    compression = compression_of(payload) or ("zlib" if payload.startswith(b"x^") else None)
    if compression is not None:
        decompress = compile_decompressor(compression, MAX_PAYLOAD)
        assert decompress is not None
        try:
            guess = _plain(decompress(payload))
            return guess._replace(options=replace(guess.options, compression=compression))
        except Unmappable:
            pass
    return _plain(payload)


def common_format(one: FormatOptions, other: FormatOptions) -> FormatOptions:
    """A format that decodes the payloads of both."""
    if one == other:
        return one
    compression = one.compression if one.compression == other.compression else "auto"
    if replace(one, compression="none") == replace(other, compression="none"):
        both = replace(one, compression=compression)
    elif {one.name, other.name} & {"raw", *(options.name for options in _BINARY)}:
        both = replace(RAW, compression=compression)
    else:
        both = replace(_SCALAR, compression=compression)
    if compression == "auto":
        if both.name == "raw":
            return RAW  # any bytes may be a payload, also bytes that happen to look compressed
        try:
            compile_decoder(both)
        except MissingExtra:
            return RAW
    return both


def simpler_format(options: FormatOptions) -> FormatOptions | None:
    """The next simpler format, which decodes everything that this one does and more; None if there is none."""
    if options.name == "raw":
        return None if options.compression == "none" else RAW
    if options == replace(_SCALAR, compression=options.compression) or options.name in ("msgpack", "cbor"):
        return RAW if options.compression == "auto" else replace(RAW, compression=options.compression)
    return replace(_SCALAR, compression=options.compression)


def rows_of(options: FormatOptions, each: str | None, payload: bytes) -> list[dict[str, Any]]:
    """The objects in the payload that become one row each.

    Raises:
        Unmappable: the payload doesn't have this format.
    """
    decoded = compile_decoder(options)(payload)
    return objects(decoded) if each is None else elements(decoded, each)


def _plain(payload: bytes) -> GuessedFormat:
    guess = _json(payload)
    if guess is not None:
        return guess
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return next((guess for options in _BINARY if (guess := _structured(options, payload))), _raw())
    if _POINT.match(text) and (guess := _structured(_INFLUX, payload)):
        return guess
    table = _csv(text)
    if table is not None:
        return GuessedFormat(table[0], None, frozenset(table[1]))
    try:
        value = rows_of(_SCALAR, None, payload)[0]["value"]
    except Unmappable:
        return _raw()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return GuessedFormat(_SCALAR, None, frozenset({"number" if is_number else type(value).__name__}))


def _raw() -> GuessedFormat:
    return GuessedFormat(RAW, None, frozenset())


def _json(payload: bytes) -> GuessedFormat | None:
    try:
        decoded = compile_decoder(_JSON)(payload)
        try:
            return GuessedFormat(_JSON, None, _names(objects(decoded)))
        except Unmappable:
            if isinstance(decoded, list):
                elements(decoded, EVERY_ELEMENT)
                return GuessedFormat(_JSON, EVERY_ELEMENT, frozenset({"value"}))
    except Unmappable:
        pass
    return None


def _structured(options: FormatOptions, payload: bytes) -> GuessedFormat | None:
    """The guess, if the payload is one or more objects and none is empty."""
    try:
        found = rows_of(options, None, payload)
    except Unmappable:
        return None
    if not all(found):
        return None
    if options.name == "influx":  # all points have the same members: only the names of their fields differ
        return GuessedFormat(
            options, None, _names([f"{one['measurement']} {name}" for name in one["fields"]] for one in found)
        )
    return GuessedFormat(options, None, _names(found))


def _names(found: Iterable[Iterable[str]]) -> frozenset[str]:
    return frozenset(islice(dict.fromkeys(name for names in found for name in names), MAX_MEMBERS))


def _csv(text: str) -> tuple[FormatOptions, Sequence[str]] | None:
    """The format and columns, if every line has the same number of cells and the first is a header or has a number."""
    for delimiter in DELIMITERS:
        if delimiter not in text:
            continue
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            lines = [line for line in reader if line]
        except csv.Error:
            continue
        if not lines or any(len(line) != len(lines[0]) for line in lines) or not 2 <= len(lines[0]) <= MAX_COLUMNS:
            continue
        head, body = lines[0], lines[1:]
        if body and all(_HEADER.fullmatch(cell.strip()) for cell in head) and len(set(head)) == len(head):
            return FormatOptions(name="csv", delimiter=delimiter), head
        if any(NUMBER.fullmatch(cell.strip()) for cell in head):
            names = tuple(f"cell_{number}" for number in range(1, len(head) + 1))
            return FormatOptions(name="csv", delimiter=delimiter, columns=names), names
    return None
