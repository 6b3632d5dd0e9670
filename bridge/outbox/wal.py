"""Reads SQLite's write-ahead log beyond damage, where SQLite's own recovery stops.

SQLite reads the log up to the first frame with a wrong checksum, and silently drops everything behind it. Normally that
is right: a power loss may tear the last transaction, which was not synced and so never acknowledged. But SQLite syncs
each transaction before it writes the next one: if another transaction follows the damaged one, synced data was lost.

Damage within the last transaction can't be distinguished from a write torn by a power loss, and is treated as one.

Format: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC_LITTLE, MAGIC_BIG = 0x377F0682, 0x377F0683
"""Magic numbers: checksums are computed over little-endian or big-endian words."""
VERSION = 3007000
PAGE_SIZES = frozenset(2**n for n in range(9, 17))
DEFAULT_PAGE_SIZE = 4096

HEADER = struct.Struct(">8I")
"""Magic, version, page size, checkpoint number, two salts, two checksums."""
FRAME_HEADER = struct.Struct(">6I")
"""Page number, size of the file after a commit in pages (0: no commit), two salts, two checksums."""

ANY_PAGE = 0
"""In ``Verdict.stale``: a damaged frame whose page number is unknown."""

Checksum = tuple[int, int]


class Log(NamedTuple):
    """What the header of a write-ahead log says."""

    page_size: int
    order: str
    """Byte order of the checksums, for ``struct``."""
    salts: tuple[int, int]
    """Of the current generation. Frames with other salts are left over from before the log was restarted."""
    seeds: frozenset[Checksum]
    """The header's checksum as computed and as stored: the first frame's checksum continues either."""
    is_header_intact: bool


class Frame(NamedTuple):
    """A page as a transaction wrote it."""

    page: int
    commit: int
    """Not 0 in the last frame of a transaction."""
    content: bytes
    is_intact: bool
    is_current: bool
    """Whether it has the salts of the log. If not, ``page`` and ``commit`` are meaningless."""


class Verdict(NamedTuple):
    """Whether a log is damaged, and what can be read of it."""

    is_damaged: bool
    """Whether committed and synced frames were lost."""
    frames: int
    """Number of frames up to the end of the last usable transaction, damaged ones included."""
    stale: frozenset[int]
    """Pages whose latest version among these frames is damaged."""


NOTHING = Verdict(False, 0, frozenset())


def judge(path: Path, database: Path) -> Verdict:
    """Judge the write-ahead log of a database file that no transaction writes to. Reads the whole log.

    Raises:
        OSError: it can't be read.
    """
    while True:
        with path.open("rb") as file:
            log = _open(file, database)
            verdict = NOTHING if log is None else _judge(log, _frames(file, log))
            # Another process, such as `gdn-bridge deadletter`, may have restarted the log meanwhile.
            if log == _open(file, database):
                return verdict


def write_intact(path: Path, database: Path, *, frames: int, to: Path) -> None:
    """Write a log that SQLite reads to its end, from the intact ones of the first ``frames`` frames.

    Raises:
        OSError: a file can't be read or written.
    """
    with path.open("rb") as file, to.open("wb") as new:
        log = _open(file, database)
        if log is None:
            return
        begin = struct.pack(">6I", MAGIC_BIG, VERSION, log.page_size, 0, *log.salts)
        checksum = _checksum(begin, (0, 0), ">")
        new.write(begin + struct.pack(">2I", *checksum))
        for number, frame in enumerate(_frames(file, log), start=1):
            if number > frames:
                break
            if frame.is_intact:
                begin = struct.pack(">2I", frame.page, frame.commit)
                checksum = _checksum(begin + frame.content, checksum, ">")
                new.write(FRAME_HEADER.pack(frame.page, frame.commit, *log.salts, *checksum) + frame.content)


def _judge(log: Log, frames: Iterator[Frame]) -> Verdict:
    has_damage = is_damaged = False
    usable = 0
    stale: set[int] = set()
    stale_in_transaction: dict[int, bool] = {}  # by page, of the frames since the last usable transaction
    is_whole = True  # no frame of the current transaction is damaged so far
    ends_before = False  # whether the frame before this one is the last of its transaction
    for number, frame in enumerate(frames, start=1):
        if ends_before and frame.is_intact:
            # This frame begins another transaction, so the one before was synced, whether or not it is intact.
            is_damaged |= has_damage
            usable = max(usable, number - 1)
            _merge(stale, stale_in_transaction)
        if ends_before:
            is_whole = True
        has_damage |= not frame.is_intact
        is_whole &= frame.is_intact
        stale_in_transaction[frame.page if frame.is_current else ANY_PAGE] = not frame.is_intact
        ends_before = frame.is_current and frame.commit != 0
        if ends_before and frame.is_intact and is_whole:
            usable = number
            _merge(stale, stale_in_transaction)
    # The header is synced before the first frame is written.
    return Verdict(is_damaged or (not log.is_header_intact and usable > 0), usable, frozenset(stale))


def _merge(stale: set[int], changes: dict[int, bool]) -> None:
    for page, is_stale in changes.items():
        if is_stale:
            stale.add(page)
        else:
            stale.discard(page)
    changes.clear()


def _open(file: BinaryIO, database: Path) -> Log | None:
    """The log's header; None if no frame follows it."""
    file.seek(0)
    header = file.read(HEADER.size)
    first = file.read(FRAME_HEADER.size)
    if len(first) < FRAME_HEADER.size:
        return None
    magic, version, page_size, _, *salts, sum_0, sum_1 = HEADER.unpack(header)
    order = {MAGIC_LITTLE: "<", MAGIC_BIG: ">"}.get(magic, "<" if sys.byteorder == "little" else ">")
    computed = _checksum(header[:-8], (0, 0), order)
    is_intact = magic in (MAGIC_LITTLE, MAGIC_BIG) and version == VERSION and computed == (sum_0, sum_1)
    if not is_intact:
        # Any field of a damaged header may be wrong; the first frame repeats its salts.
        _, _, *salts, _, _ = FRAME_HEADER.unpack(first)
        page_size = _page_size(database) or (page_size if page_size in PAGE_SIZES else DEFAULT_PAGE_SIZE)
    return Log(page_size, order, (salts[0], salts[1]), frozenset({computed, (sum_0, sum_1)}), is_intact)


def _frames(file: BinaryIO, log: Log) -> Iterator[Frame]:
    """All frames, in file order. Each checksum must continue the one stored in the frame before."""
    file.seek(HEADER.size)
    seeds = log.seeds
    while len(data := file.read(FRAME_HEADER.size + log.page_size)) == FRAME_HEADER.size + log.page_size:
        page, commit, salt_0, salt_1, sum_0, sum_1 = FRAME_HEADER.unpack_from(data)
        content = data[FRAME_HEADER.size :]
        is_current = (salt_0, salt_1) == log.salts
        is_intact = is_current and any(_checksum(data[:8] + content, s, log.order) == (sum_0, sum_1) for s in seeds)
        yield Frame(page, commit, content, is_intact, is_current)
        seeds = frozenset({(sum_0, sum_1)})


def _checksum(data: bytes, seed: Checksum, order: str) -> Checksum:
    first, second = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word, next_word in zip(words, words, strict=True):
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next_word + first) & 0xFFFFFFFF
    return first, second


def _page_size(database: Path) -> int | None:
    """The page size in the database's header; None if there is no valid one."""
    with database.open("rb") as file:
        header = file.read(18)
    size = int.from_bytes(header[16:18], "big") if header.startswith(b"SQLite format 3\0") else 0
    size = 65536 if size == 1 else size
    return size if size in PAGE_SIZES else None
