"""Decodes payloads to JSON-like values: one decoder per format, with bounds on size, depth, time and memory.

``compile_decoder`` runs once per route; the decoder runs for every message and raises only ``Unmappable``.
"""

from __future__ import annotations

from bridge.mapping.formats.binary import decode_msgpack, decode_raw
from bridge.mapping.formats.cbor import decode_cbor
from bridge.mapping.formats.compressed import compile_decompressor
from bridge.mapping.formats.json_text import compile_json
from bridge.mapping.formats.lines import compile_csv, compile_influx
from bridge.mapping.formats.options import (
    COMPRESSIONS,
    FORMATS,
    JSON_FORMATS,
    MAX_DEPTH,
    FormatOptions,
    MissingExtra,
    PayloadDecoder,
)
from bridge.mapping.formats.substitutions import compile_substitution
from bridge.mapping.formats.text import compile_scalar, compile_text, compile_transcoder
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

__all__ = ["COMPRESSIONS", "FORMATS", "MAX_DEPTH", "FormatOptions", "MissingExtra", "PayloadDecoder", "compile_decoder"]

_TEXTUAL = ("json", "jsonl", "scalar", "text", "csv")
_UNTYPED = (*_TEXTUAL, "msgpack", "cbor", "influx")
_FORMATS_OF_OPTION: dict[str, tuple[str, ...]] = {
    "pattern": ("text",),
    "columns": ("csv",),
    "delimiter": ("csv",),
    "encoding": (*_TEXTUAL, "influx"),
    "nan": JSON_FORMATS,
    "decimal": _TEXTUAL,
    "null_values": _UNTYPED,
    "embedded_json": tuple(name for name in _UNTYPED if name != "scalar"),  # there it is json's $root
}


def compile_decoder(options: FormatOptions, *, keep_digits: bool = False) -> PayloadDecoder:
    """Make the decoder of payloads in this format and compression.

    With ``keep_digits`` numbers of JSON keep the digits that they were written with, which takes more time.

    The decoder raises ``Unmappable`` with TOO_LARGE, EMPTY, NOT_JSON (json, jsonl, embedded_json) or UNDECODABLE.

    Raises:
        ValueError: the options are invalid; the message says why.
        MissingExtra: a library isn't installed.
    """
    check_options(options)
    parse = _rewriting(_parser(options, keep_digits=keep_digits), options, keep_digits=keep_digits)
    decompress = compile_decompressor(options.compression, options.max_payload)
    limit = options.max_payload

    def decode(payload: bytes) -> object:
        if len(payload) > limit:
            raise Unmappable(Reason.TOO_LARGE, f"the payload has {len(payload)} bytes, at most {limit} are allowed")
        if decompress is not None:
            payload = decompress(payload)
        if not payload:
            raise Unmappable(Reason.EMPTY, "the payload is empty")
        return parse(payload)

    return decode


def check_options(options: FormatOptions) -> None:
    """Refuse options that the format doesn't have.

    Raises:
        ValueError: it doesn't have one; the message says which.
    """
    defaults = FormatOptions()
    for option, formats in _FORMATS_OF_OPTION.items():
        if options.name not in formats and getattr(options, option) != getattr(defaults, option):
            of = f'format "{formats[0]}"' if len(formats) == 1 else f"the formats {', '.join(formats)}"
            raise ValueError(f"{option} is only for {of}, not for {options.name!r}: remove it")


def _rewriting(parse: PayloadDecoder, options: FormatOptions, *, keep_digits: bool) -> PayloadDecoder:
    """The decoder, also with the payload's encoding and with what replaces its values."""
    transcode = compile_transcoder(options.encoding, options.max_payload)
    # Numbers in texts of other formats are decoded once, so with their digits.
    keep_digits = keep_digits or options.name not in JSON_FORMATS
    parse_json = compile_json(keep_digits=keep_digits, nan_is_null=options.nan == "null")
    substitute = compile_substitution(options, parse_json)
    if transcode is None and substitute is None:
        return parse

    def rewrite(payload: bytes) -> object:
        value = parse(payload if transcode is None else transcode(payload))
        return value if substitute is None else substitute(value)

    return rewrite


def _parser(options: FormatOptions, *, keep_digits: bool) -> PayloadDecoder:
    match options.name:
        case "json":
            return compile_json(keep_digits=keep_digits, nan_is_null=options.nan == "null")
        case "jsonl":
            return compile_json(keep_digits=keep_digits, nan_is_null=options.nan == "null", is_sequence=True)
        case "scalar":
            return compile_scalar(options.decimal)
        case "text":
            return compile_text(options.pattern)
        case "csv":
            return compile_csv(options.delimiter, options.columns)
        case "msgpack":
            return decode_msgpack
        case "cbor":
            return decode_cbor
        case "influx":
            return compile_influx()
        case "raw":
            return decode_raw
    raise ValueError(f"unknown format {options.name!r}; there are: {', '.join(FORMATS)}")
