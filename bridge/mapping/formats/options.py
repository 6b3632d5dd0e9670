"""Names and options of payload formats, their bounds, and the loading of optional libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.mapping.payload import MAX_PAYLOAD

FORMATS = ("json", "scalar", "text", "csv", "msgpack", "cbor", "influx", "raw")
TEXT_FORMATS = ("text", "csv")
"""Formats whose values are all text, which is parsed as the type it looks like, as captures are."""
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
    max_payload: int = MAX_PAYLOAD
    """Bytes, both as received and decompressed."""


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
