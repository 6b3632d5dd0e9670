"""Payloads to JSON-like values: one decoder per format, within bounds of size, depth, time and memory.

``compile_decoder`` is run once per route; what it gives is run for every message and raises nothing but ``Unmappable``.
"""

from __future__ import annotations

from bridge.mapping.formats.binary import decode_msgpack, decode_raw
from bridge.mapping.formats.cbor import decode_cbor
from bridge.mapping.formats.compressed import compile_decompressor
from bridge.mapping.formats.lines import compile_csv, compile_influx
from bridge.mapping.formats.options import COMPRESSIONS, FORMATS, MAX_DEPTH, Decode, FormatOptions, MissingExtra
from bridge.mapping.formats.text import compile_text, decode_json, decode_scalar
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

__all__ = ["COMPRESSIONS", "FORMATS", "MAX_DEPTH", "Decode", "FormatOptions", "MissingExtra", "compile_decoder"]


def compile_decoder(options: FormatOptions) -> Decode:
    """What decodes payloads that are written as ``options`` says.

    It returns a JSON-like value and raises ``Unmappable`` for a payload that is none of this format: TOO_LARGE, EMPTY,
    NOT_JSON (json), UNDECODABLE (the others).

    Raises:
        ValueError: the options describe no format; the message says why.
        MissingExtra: a library is wanting.
    """
    parse = _parser(options)
    decompress = compile_decompressor(options.compression, options.max_payload)
    limit = options.max_payload

    def decode(payload: bytes) -> object:
        if len(payload) > limit:
            raise Unmappable(Reason.TOO_LARGE, f"the payload has {len(payload)} bytes, at most {limit} are taken")
        if decompress is not None:
            payload = decompress(payload)
        if not payload:
            raise Unmappable(Reason.EMPTY, "the payload is empty")
        return parse(payload)

    return decode


def _parser(options: FormatOptions) -> Decode:
    if options.pattern is not None and options.name != "text":
        raise ValueError(f'a pattern is for format "text", not for {options.name!r}: remove it')
    if options.columns and options.name != "csv":
        raise ValueError(f'columns are for format "csv", not for {options.name!r}: remove them')
    if options.delimiter != "," and options.name != "csv":
        raise ValueError(f'a delimiter is for format "csv", not for {options.name!r}: remove it')
    match options.name:
        case "json":
            return decode_json
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
    raise ValueError(f"{options.name!r} is no format; there are: {', '.join(FORMATS)}")
