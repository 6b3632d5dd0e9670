"""Decompresses payloads (gzip, zlib, zstd), with a bound on the result."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from bridge.mapping.formats.options import COMPRESSIONS, load_extra
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

Decompressor = Callable[[bytes], bytes]
"""(payload) -> the decompressed bytes; raises Unmappable."""

MAX_MEMBERS = 64
"""Maximum members of a gzip file or frames of zstd: decompressing tens of thousands of empty ones takes long."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""Bytes. The recommended minimum for decoders (RFC 8878, 3.1.1.1.2); a larger one only lets frames use more memory."""

_ZSTD_STEP = 64
"""Bytes decompressed at a time: the library can't bound its output. A block has at least 4 bytes and gives at most
128 KiB (RFC 8878, 3.1.1.2.4), so a step gives at most 2 MiB."""

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}

# RFC 1952, 2.3.1; RFC 8878, 3.1.1; RFC 1950, 2.2 with a window of 32 KiB. Without 78 5E: it is also the text "x^".
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([0x78, n]), "zlib") for n in (0x01, 0x9C, 0xDA)),
)


def compile_decompressor(compression: str, limit: int) -> Decompressor | None:
    """Make the decompressor; None for no compression.

    Args:
        compression: one of ``COMPRESSIONS``. ``auto`` decides by the first bytes; an unknown payload is left unchanged.
        limit: maximum size of the result in bytes.

    Raises:
        ValueError: there is no such compression.
        MissingExtra: zstd's library isn't installed.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"unknown compression {compression!r}; there are: {', '.join(COMPRESSIONS)}")
    if compression == "none":
        return None
    names = [name for name in (*_WBITS, "zstd") if compression in (name, "auto")]
    decompressors = {name: _decompressor(name, limit) for name in names}
    if compression != "auto":
        return decompressors[compression]

    def decompress(payload: bytes) -> bytes:
        name = compression_of(payload)
        return payload if name is None else decompressors[name](payload)

    return decompress


def compression_of(payload: bytes) -> str | None:
    """The compression by the first bytes; None if they match none."""
    return next((name for magic, name in _MAGIC if payload.startswith(magic)), None)


def _decompressor(name: str, limit: int) -> Decompressor:
    decompress_member = _zstd() if name == "zstd" else _deflate(name)

    def decompress(payload: bytes) -> bytes:
        parts = []
        room = limit
        for _ in range(1 if name == "zlib" else MAX_MEMBERS):  # zlib data has no members
            part, payload = decompress_member(payload, room)
            parts.append(part)
            room -= len(part)
            if not payload:
                return b"".join(parts)
        raise Unmappable(Reason.UNDECODABLE, f"{len(payload)} bytes follow the {name} data")

    return decompress


_MemberDecompressor = Callable[[bytes, int], tuple[bytes, bytes]]
"""(compressed, room) -> the first member decompressed, at most ``room`` bytes, and the compressed bytes after it."""


def _deflate(name: str) -> _MemberDecompressor:
    def decompress_member(data: bytes, room: int) -> tuple[bytes, bytes]:
        stream = zlib.decompressobj(_WBITS[name])
        try:
            part = stream.decompress(data, room + 1)  # one byte more than allowed, to see that there is more
        except zlib.error as exc:
            raise Unmappable(Reason.UNDECODABLE, f"the payload is not {name}: {exc}") from exc
        _check_size(part, room)
        if not stream.eof:
            raise _truncated(name)
        return part, stream.unused_data

    return decompress_member


def _zstd() -> _MemberDecompressor:
    library = load_extra("zstandard", "compression zstd")
    context = library.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    error: type[Exception] = library.ZstdError

    def decompress_member(data: bytes, room: int) -> tuple[bytes, bytes]:
        stream = context.decompressobj()
        part = bytearray()
        for start in range(0, len(data), _ZSTD_STEP):
            try:
                part += stream.decompress(data[start : start + _ZSTD_STEP])
            except error as exc:
                raise Unmappable(Reason.UNDECODABLE, f"the payload is not zstd: {exc}") from exc
            _check_size(part, room)
            if stream.eof:
                return bytes(part), stream.unused_data + data[start + _ZSTD_STEP :]
        raise _truncated("zstd")

    return decompress_member


def _check_size(part: bytes | bytearray, room: int) -> None:
    if len(part) > room:
        raise Unmappable(Reason.TOO_LARGE, "the payload decompresses to more bytes than are allowed")


def _truncated(name: str) -> Unmappable:
    return Unmappable(Reason.UNDECODABLE, f"the payload's {name} data is truncated")
