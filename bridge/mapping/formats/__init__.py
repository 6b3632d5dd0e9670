"""Decodes payloads to JSON-like values: one decoder per format, with bounds on size, depth, time and memory.

``compile_decoder`` runs once per route; the decoder runs for every message and raises only ``Unmappable``.
"""

from __future__ import annotations

from bridge.mapping.formats.binary import decode_msgpack, decode_raw
from bridge.mapping.formats.cbor import decode_cbor
from bridge.mapping.formats.compressed import compile_decompressor
from bridge.mapping.formats.json_text import compile_json
from bridge.mapping.formats.lines import compile_csv, compile_influx
from bridge.mapping.formats.options import COMPRESSIONS, FORMATS, MAX_DEPTH, FormatOptions, MissingExtra, PayloadDecoder
from bridge.mapping.formats.text import compile_text, decode_scalar
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

__all__ = ["COMPRESSIONS", "FORMATS", "MAX_DEPTH", "FormatOptions", "MissingExtra", "PayloadDecoder", "compile_decoder"]

# Options that only one format has.
_FORMAT_OF_OPTION = {"pattern": "text", "columns": "csv", "delimiter": "csv"}


def compile_decoder(options: FormatOptions, *, keep_digits: bool = False) -> PayloadDecoder:
    """Make the decoder of payloads in this format and compression.

    With ``keep_digits`` numbers of JSON keep the digits that they were written with, which takes more time.

    The decoder raises ``Unmappable`` with TOO_LARGE, EMPTY, NOT_JSON (json) or UNDECODABLE (the other formats).

    Raises:
        ValueError: the options are invalid; the message says why.
        MissingExtra: a library isn't installed.
    """
    _check_options(options)
    parse = _parser(options, keep_digits=keep_digits)
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


def _check_options(options: FormatOptions) -> None:
    defaults = FormatOptions()
    for option, format_ in _FORMAT_OF_OPTION.items():
        if options.name != format_ and getattr(options, option) != getattr(defaults, option):
            raise ValueError(f'{option} is only for format "{format_}", not for {options.name!r}: remove it')


def _parser(options: FormatOptions, *, keep_digits: bool) -> PayloadDecoder:
    match options.name:
        case "json":
            return compile_json(keep_digits=keep_digits)
        case "scalar":
            return decode_scalar
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
