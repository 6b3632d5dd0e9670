"""Payloads that were compressed: gzip, zlib and zstd, to a bound that the compressed bytes can't lift."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from bridge.mapping.formats.options import COMPRESSIONS, load_extra
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

Decompress = Callable[[bytes], bytes]
"""(payload) -> what was compressed; raises Unmappable."""

MAX_MEMBERS = 64
"""Members of a gzip file or frames of zstd: tens of thousands of empty ones would take their time."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""Bytes. What a decoder should support at least (RFC 8878, 3.1.1.1.2); more is only memory that a frame asks for."""

_ZSTD_STEP = 64
"""Bytes that are decompressed at a time: the library has no bound of its own. A block takes 4 bytes and gives at most
128 KiB (RFC 8878, 3.1.1.2.4), so a step gives at most 2 MiB."""

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}

# RFC 1952, 2.3.1; RFC 8878, 3.1.1; RFC 1950, 2.2 with a window of 32 KiB, but for 78 5E, which is also the text "x^".
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([0x78, n]), "zlib") for n in (0x01, 0x9C, 0xDA)),
)


def compile_decompressor(compression: str, limit: int) -> Decompress | None:
    """What undoes a compression; None if there is none.

    Args:
        compression: one of ``COMPRESSIONS``. ``auto`` goes by the first bytes; what begins otherwise is taken as it is.
        limit: bytes that may come out.

    Raises:
        ValueError: there is no such compression.
        MissingExtra: zstd's library isn't installed.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"{compression!r} is no compression; there are: {', '.join(COMPRESSIONS)}")
    if compression == "none":
        return None
    names = [name for name in (*_WBITS, "zstd") if compression in (name, "auto")]
    known = {name: _decompressor(name, limit) for name in names}
    if compression != "auto":
        return known[compression]

    def decompress(payload: bytes) -> bytes:
        name = compression_of(payload)
        return payload if name is None else known[name](payload)

    return decompress


def compression_of(payload: bytes) -> str | None:
    """The compression that the first bytes name; None: none that is known."""
    return next((name for magic, name in _MAGIC if payload.startswith(magic)), None)


def _decompressor(name: str, limit: int) -> Decompress:
    unpack = _zstd() if name == "zstd" else _deflate(name)

    def decompress(payload: bytes) -> bytes:
        parts = []
        room = limit
        for _ in range(1 if name == "zlib" else MAX_MEMBERS):
            part, payload = unpack(payload, room)
            parts.append(part)
            room -= len(part)
            if not payload:
                return b"".join(parts)
        raise Unmappable(Reason.UNDECODABLE, f"{len(payload)} bytes follow what was compressed by {name}")

    return decompress


_Unpack = Callable[[bytes, int], tuple[bytes, bytes]]
"""(compressed, room) -> what the first member gives, of at most ``room`` bytes, and the bytes behind it."""


def _deflate(name: str) -> _Unpack:
    def unpack(data: bytes, room: int) -> tuple[bytes, bytes]:
        stream = zlib.decompressobj(_WBITS[name])
        try:
            part = stream.decompress(data, room + 1)
        except zlib.error as exc:
            raise Unmappable(Reason.UNDECODABLE, f"the payload is no {name}: {exc}") from exc
        _bound(part, room)
        if not stream.eof:
            raise _cut(name)
        return part, stream.unused_data

    return unpack


def _zstd() -> _Unpack:
    library = load_extra("zstandard", "compression by zstd")
    context = library.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    error: type[Exception] = library.ZstdError

    def unpack(data: bytes, room: int) -> tuple[bytes, bytes]:
        stream = context.decompressobj()
        part = bytearray()
        for start in range(0, len(data), _ZSTD_STEP):
            try:
                part += stream.decompress(data[start : start + _ZSTD_STEP])
            except error as exc:
                raise Unmappable(Reason.UNDECODABLE, f"the payload is no zstd: {exc}") from exc
            _bound(part, room)
            if stream.eof:
                return bytes(part), stream.unused_data + data[start + _ZSTD_STEP :]
        raise _cut("zstd")

    return unpack


def _bound(part: bytes | bytearray, room: int) -> None:
    if len(part) > room:
        raise Unmappable(Reason.TOO_LARGE, "the payload decompresses to more bytes than are taken")


def _cut(name: str) -> Unmappable:
    return Unmappable(Reason.UNDECODABLE, f"the payload ends before its {name} does")
