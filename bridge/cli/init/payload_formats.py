"""Guesses the format of a sample's payload. Pure.

A format is accepted only if the whole payload can be decoded: magic bytes or a first character are not enough.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import Any, NamedTuple

from bridge.cli.init.columns import MAX_COLUMNS, source_of
from bridge.cli.init.shapes import has_readings
from bridge.cli.init.texts import has_decimal_comma, number_in, time_formats
from bridge.mapping import FormatOptions
from bridge.mapping.formats import MissingExtra, compile_decoder
from bridge.mapping.formats.compressed import compile_decompressor, compression_of
from bridge.mapping.payload import MAX_PAYLOAD, elements, objects
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

EVERY_ELEMENT = "jmespath:@"
"""``each`` for arrays whose elements aren't objects."""

DELIMITERS = ("\t", ";", "|", ",")
"""In this order: with semicolons, commas are usually those of decimals."""

UNMARKED = {"msgpack": "MessagePack", "cbor": "CBOR", "influx": "InfluxDB line protocol"}
"""Formats without magic bytes: a payload may be decodable by chance."""

STRUCTURED = ("json", "jsonl", "msgpack", "cbor", "csv", "influx")
"""Formats whose rows may have several members."""

RAW = FormatOptions(name="raw")

_JSON, _SCALAR, _INFLUX = FormatOptions(), FormatOptions(name="scalar"), FormatOptions(name="influx")
_JSONL = FormatOptions(name="jsonl")
_BINARY = (FormatOptions(name="msgpack"), FormatOptions(name="cbor"))
_WORD_NAME = re.compile(r"[A-Za-z_]+")  # a name with a digit or a space may be that of one device
_HEADER = re.compile(r"[^\W\d][\w .()/%°-]*")

# Measurement, tags and first field of the first point in line protocol; white space and punctuation may be escaped.
_WORD = r"(?:\\.|[^\s,=\\])++"
_POINT = re.compile(
    rf"(?:\s|\#[^\n]*\n)*+ {_WORD} (?:,{_WORD}={_WORD})*+ \ ++ {_WORD}="
    r'(?: " | -?[0-9][0-9.eE+-]*+[iu]?(?=[,\s]|\Z) | (?:[tTfF]|[tT]rue|TRUE|[fF]alse|FALSE)(?=[,\s]|\Z))',
    re.VERBOSE,
)


class GuessedFormat(NamedTuple):
    """A payload's format, as guessed, and the path to the values that become rows."""

    options: FormatOptions
    each: str | None = None


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
            plain = decompress(payload)
            if plain:
                guess = _plain(plain)
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
    elif {one.name, other.name} == {"json", "jsonl"}:
        both = replace(_JSONL, compression=compression)  # one line is JSON
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


class Decoded(NamedTuple):
    """A payload's rows, and the members beside them if they are in an array."""

    rows: list[dict[str, Any]]
    root: dict[str, Any] | None = None


def decode(guess: GuessedFormat, payload: bytes) -> Decoded:
    """The objects in the payload that become one row each.

    Raises:
        Unmappable: the payload doesn't have this format.
    """
    options, each = guess
    decoded = compile_decoder(options)(payload)
    if each is None:
        return Decoded(objects(decoded))
    if each == EVERY_ELEMENT:
        return Decoded(elements(decoded, each))
    name = _list_of_rows(decoded)
    if name is None:
        raise Unmappable(Reason.MISSING_FIELD, f"there is no array of objects at {each}")
    return Decoded(elements(decoded[name], each), {key: value for key, value in decoded.items() if key != name})


def _plain(payload: bytes) -> GuessedFormat:
    guess = _json(payload)
    if guess is not None:
        return guess
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return next((guess for options in _BINARY if (guess := _structured(options, payload))), GuessedFormat(RAW))
    if text.lstrip().startswith("{") and (guess := _structured(_JSONL, payload)):
        return guess
    if _POINT.match(text) and (guess := _structured(_INFLUX, payload)):
        return guess
    table = _csv(text)
    if table is not None:
        return GuessedFormat(table)
    try:
        compile_decoder(_SCALAR)(payload)
    except Unmappable:
        return GuessedFormat(RAW)
    return GuessedFormat(_SCALAR)


def _json(payload: bytes) -> GuessedFormat | None:
    try:
        decoded = compile_decoder(_JSON)(payload)
        name = _list_of_rows(decoded)
        if name is not None:
            return GuessedFormat(_JSON, source_of((name,)))
        try:
            objects(decoded)
        except Unmappable:
            if not isinstance(decoded, list):
                return None
            elements(decoded, EVERY_ELEMENT)
            return GuessedFormat(_JSON, EVERY_ELEMENT)
    except Unmappable:
        return None
    return GuessedFormat(_JSON)


def _list_of_rows(decoded: Any) -> str | None:
    """The only array in an object whose other members describe readings but are none; None if there is no such."""
    if not isinstance(decoded, dict):
        return None
    names = [name for name, value in decoded.items() if isinstance(value, list)]
    if len(names) != 1 or not _WORD_NAME.fullmatch(names[0]) or not decoded[names[0]]:
        return None
    if not all(isinstance(one, dict) for one in decoded[names[0]]):
        return None
    beside = {name: value for name, value in decoded.items() if name != names[0]}
    is_described = not any(isinstance(value, dict) for value in beside.values()) and not has_readings(beside)
    return names[0] if is_described else None


def _structured(options: FormatOptions, payload: bytes) -> GuessedFormat | None:
    """The guess, if the payload is one or more objects and none is empty."""
    guess = GuessedFormat(options)
    try:
        found = decode(guess, payload).rows
    except Unmappable:
        return None
    return guess if all(found) else None


def _csv(text: str) -> FormatOptions | None:
    """The format, if every line has the same number of cells and the first is a header or has a number."""
    if has_decimal_comma(text):
        return None
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
            return FormatOptions(name="csv", delimiter=delimiter)
        if any(number_in(cell) is not None or has_decimal_comma(cell) for cell in head):
            names = tuple(f"cell_{number}" for number in range(1, len(head) + 1))
            if time_formats(head[0]):
                names = ("time", *names[1:])
            return FormatOptions(name="csv", delimiter=delimiter, columns=names)
    return None
