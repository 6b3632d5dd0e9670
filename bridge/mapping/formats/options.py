"""How a route's payloads are written, and what decodes them: names, bounds and the optional libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.mapping.payload import MAX_PAYLOAD

FORMATS = ("json", "scalar", "text", "csv", "msgpack", "cbor", "influx", "raw")
COMPRESSIONS = ("none", "gzip", "zlib", "zstd", "auto")

MAX_DEPTH = 100
"""Levels of arrays and objects in each other. What reads values after the decoder is recursive in part."""

Decode = Callable[[bytes], Any]
"""(payload) -> a JSON-like value: dict with text keys, list, str, int, float, bool or None; raises Unmappable."""


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """How a route's payloads are written."""

    name: str = "json"
    """One of ``FORMATS``."""
    compression: str = "none"
    """One of ``COMPRESSIONS``; ``auto`` goes by the first bytes and takes plain payloads too."""
    pattern: str | None = None
    """text: RE2 expression that the whole text must match; its named groups become members."""
    delimiter: str = ","
    """csv: one character."""
    columns: tuple[str, ...] = ()
    """csv: the columns' names; empty: the first line names them."""
    max_payload: int = MAX_PAYLOAD
    """Bytes, of what is received and of what it decompresses to."""


class MissingExtra(ValueError):
    """A format or compression needs a library that isn't installed. The text has the command that installs it."""


def load_extra(module: str, wanted: str) -> Any:
    """The module of an optional library.

    Args:
        module: its import name.
        wanted: what needs it, to begin a sentence with.

    Raises:
        MissingExtra: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        text = f"{wanted} needs the module {module}, which isn't installed: pip install 'gdn-bridge[formats]'"
        raise MissingExtra(text) from exc
