"""Names and options of payload formats, their bounds, and the loading of optional libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.mapping.payload import MAX_PAYLOAD

FORMATS = ("json", "scalar", "text", "csv", "jsonl", "msgpack", "cbor", "influx", "raw")
JSON_FORMATS = ("json", "jsonl")
"""Formats that decode numbers without their digits first: see ``compile_decoder``."""
TEXT_FORMATS = ("text", "csv")
"""Formats whose values are all text, which is parsed as the type it looks like, as captures are."""
ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be")
COMPRESSIONS = ("none", "gzip", "zlib", "zstd", "auto")

MAX_DEPTH = 100
"""Levels of nested arrays and objects. Code that reads decoded values is partly recursive."""

PayloadDecoder = Callable[[bytes], Any]
"""(payload) -> a JSON-like value: dict with text keys, list, str, int, float, bool or None; raises Unmappable."""


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """The format and compression of a route's payloads."""

    name: str = "json"
    """One of ``FORMATS``."""
    compression: str = "none"
    """One of ``COMPRESSIONS``; ``auto`` decides by the first bytes and accepts uncompressed payloads too."""
    pattern: str | None = None
    """text: RE2 expression that must match the whole text; its named groups become members."""
    delimiter: str = ","
    """csv: one character."""
    columns: tuple[str, ...] = ()
    """csv: the names of the columns; empty: the first line has them."""
    encoding: str = "utf-8"
    """Of texts, one of ``ENCODINGS``; ``utf-16`` without byte order mark is little-endian."""
    nan: str = "refuse"
    """json, jsonl: ``null`` reads NaN and the infinities as null."""
    decimal: str = "."
    """The decimal separator of numbers in texts, ``.`` or ``,``."""
    null_values: tuple[str, ...] = ()
    """Texts that mean no value."""
    embedded_json: tuple[str, ...] = ()
    """Paths to texts that contain JSON; ``$root`` is the whole payload."""
    max_payload: int = MAX_PAYLOAD
    """Bytes, as received, decompressed, and as UTF-8."""

    def described(self) -> str:
        """The format, and the options that differ from the defaults."""
        parts = [self.name, *([] if self.compression == "none" else [self.compression])]
        for option, value, default in (
            ("encoding", self.encoding, "utf-8"),
            ("nan", self.nan, "refuse"),
            ("decimal", self.decimal, "."),
            ("null_values", list(self.null_values), []),
            ("embedded_json", list(self.embedded_json), []),
        ):
            if value != default:
                parts.append(f"{option} {value!a}")
        return ", ".join(parts)


class MissingExtra(ValueError):
    """A format or compression needs a library that isn't installed. The message has the command that installs it."""


def load_extra(module: str, needed_by: str) -> Any:
    """Import the module of an optional library.

    Args:
        module: its import name.
        needed_by: what needs it; starts the error message.

    Raises:
        MissingExtra: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        advice = "install the extra `formats` (docs/install.md)"
        raise MissingExtra(f"{needed_by} needs the module {module}, which isn't installed: {advice}") from exc
