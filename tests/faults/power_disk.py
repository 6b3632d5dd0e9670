"""A directory as a power loss may leave it, computed from a recording of what a process did to it.

``power_recorder.c`` writes the recording. The model of the disk is that of POSIX, not of one file system:

* A file's bytes and size that were written before an ``fsync`` or ``fdatasync`` are safe once that call has returned.
  Of later writes each sector may be on disk or not. A sector on disk has everything written to it up to some moment.
  The size may be any that the file had since then.
* A directory's entries (creations, renames, unlinks) are safe once an ``fsync`` of the directory has returned. Of later
  ones those up to some moment may be on disk (a journal), or any of them. A rename is atomic.
* The content of a directory whose own entry is lost is lost with it.

ext4 and XFS do more: an ``fsync`` of a new file makes its entry safe too. POSIX doesn't promise that.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

SECTOR = 512
"""Bytes that a disk writes atomically."""

UNSEEN = ("-shm", ".reserve")
"""Suffixes of files whose content isn't recorded: SQLite rebuilds the one, the other only reserves space."""

ENTRY = struct.Struct("<IIQqq")

OPEN, MKDIR, RENAME, UNLINK = "OMRU"
"""Names: a file was created (object: inode; data: path), a directory (the same), renamed (data: both, NUL between),
removed."""
WRITE, RESIZE, ALLOCATE = "WTF"
"""Data, of the inode ``object``: written (a: offset), cut or extended (a: size), extended if shorter (a: size)."""
SYNC_BEGINS, SYNC_DONE = "sS"
"""A sync of the inode ``object`` (a: token)."""
CONNECTED, SEND, SENT, RECEIVED = "cpPr"
"""On connection ``object``: its first use (a: the peer's port), a send begins (a: token; data), its end (a: token;
b: bytes sent, or -1), bytes received."""
UNSUPPORTED = "X"
"""The process made a call that the model doesn't support (data: which)."""

NAMES = OPEN + MKDIR + RENAME + UNLINK
DISK = NAMES + WRITE + RESIZE + ALLOCATE + SYNC_BEGINS + SYNC_DONE

Survival = Literal["nothing", "everything", "prefix", "any"]
"""Which unsynced changes survive: none; all; those up to some moment; any."""
SURVIVALS: tuple[Survival, ...] = ("nothing", "everything", "prefix", "any")

Tree = dict[str, bytes | None]
"""Content by path below the root; None: a directory."""


class Incomplete(Exception):
    """The recording is incomplete: it allows no conclusions."""


class Event(NamedTuple):
    """An entry of the recording; its members depend on the kind (above)."""

    kind: str
    process: int
    """The number of the process in the recording."""
    object: int
    a: int
    b: int
    data: bytes


def read_log(path: Path, process: int) -> Iterator[Event]:
    """The events of one process. The last one is left out if SIGKILL cut it short."""
    log = path.read_bytes()
    at = 0
    while at + ENTRY.size <= len(log):
        size, kind, number, a, b = ENTRY.unpack_from(log, at)
        at += ENTRY.size
        if at + size > len(log):
            return
        yield Event(chr(kind), process, number, a, b, log[at : at + size])
        at += size


@dataclass(eq=False)
class File:
    """An inode with content."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """Not synced: (number, offset, data), or (number, size, None) for a change of size."""
    size: int = 0
    """The state with all pending changes."""

    def add(self, number: int, at: int, data: bytes | None) -> None:
        """A write, or a change of size."""
        self.pending.append((number, at, data))
        self.size = at if data is None else max(self.size, at + len(data))

    def sync(self, before: int) -> None:
        """Changes before that number are safe."""
        done = [change for change in self.pending if change[0] < before]
        self.pending = self.pending[len(done) :]
        for _, at, data in done:
            _apply(self.durable, at, data)

    def after_crash(self, survival: Survival, cut: int, rng: random.Random) -> bytes:
        """The content; with ``prefix`` the changes before number ``cut``, and some sectors of that one."""
        content = bytearray(self.durable)
        if survival == "any":
            return self._with_any(content, rng)
        for number, at, data in self.pending:
            if survival == "everything" or (survival == "prefix" and number < cut):
                _apply(content, at, data)
            elif survival == "prefix" and number == cut and data is not None:
                for start, part in _sectors(at, data):
                    if rng.random() < 0.5:
                        _apply(content, start, part)
        return bytes(content)

    def _with_any(self, content: bytearray, rng: random.Random) -> bytes:
        sizes = [len(content)]
        for _, at, data in self.pending:
            sizes.append(at if data is None else max(sizes[-1], at + len(data)))
        sized = rng.randrange(len(sizes))  # the changes of size up to this one are on disk
        latest = self._latest_writes(sizes, sized, rng)
        content.extend(bytes(max(sizes) - len(content)))
        for n, (_, at, data) in enumerate(self.pending, 1):
            if data is not None:
                for start, part in _sectors(at, data):
                    if n <= latest.get(start // SECTOR, 0):
                        content[start : start + len(part)] = part
            elif n <= sized and at < sizes[n - 1]:
                content[at:] = bytes(len(content) - at)
        return bytes(content[: sizes[sized]])

    def _latest_writes(self, sizes: Sequence[int], sized: int, rng: random.Random) -> dict[int, int]:
        """By sector, the last pending write that reached it, counted from 1."""
        share = rng.choice((0.1, 0.5, 0.9))
        latest: dict[int, int] = {}
        hidden_from = max(sizes)
        for n, (_, at, data) in enumerate(self.pending, 1):
            if data is None:
                # Data written after a truncation that isn't on disk is in blocks that don't belong to the file on disk.
                hidden_from = min(hidden_from, at) if n > sized and at < sizes[n - 1] else hidden_from
                continue
            is_torn = rng.random() < 0.3
            is_kept = rng.random() < share
            for start, _part in _sectors(at, data):
                if (rng.random() < 0.5 if is_torn else is_kept) and start < hidden_from:
                    latest[start // SECTOR] = n
        return latest


@dataclass(eq=False)
class Directory:
    """An inode with entries."""

    durable: dict[str, File | Directory] = field(default_factory=dict)
    entries: dict[str, File | Directory] = field(default_factory=dict)
    """The state with all pending changes."""
    pending: list[tuple[int, str | None, str | None, File | Directory]] = field(default_factory=list)
    """Not synced: (number, the name that the node loses, the name that it gets, the node)."""

    def add(self, number: int, old: str | None, new: str | None, node: File | Directory) -> None:
        """A creation (no old name), a removal (no new one), a rename."""
        self.pending.append((number, old, new, node))
        _rename(self.entries, old, new, node)

    def sync(self, before: int) -> None:
        """Changes before that number are safe."""
        done = [change for change in self.pending if change[0] < before]
        self.pending = self.pending[len(done) :]
        for _, old, new, node in done:
            _rename(self.durable, old, new, node)

    def after_crash(self, survival: Survival, cut: int, rng: random.Random) -> dict[str, File | Directory]:
        """The entries; with ``prefix`` the changes before number ``cut``."""
        entries = dict(self.durable)
        for number, old, new, node in self.pending:
            survives = {
                "nothing": False,
                "everything": True,
                "prefix": number < cut,
                "any": rng.random() < 0.5,
            }[survival]
            if survives:
                _rename(entries, old, new, node)
        return entries


class Disk:
    """The recorded directory: apply the events in order, and compute at any moment what a power loss would leave.

    Args:
        root: its path during the recording.
        inodes: of the root and of its content at the start, by path below the root ("" for the root itself).
        content: what was in it, all of it safe.
    """

    def __init__(self, root: str, inodes: Mapping[str, int], content: Tree) -> None:
        self._root = PurePosixPath(root)
        self._number = 0
        self._syncs: dict[tuple[int, int], tuple[File | Directory, int]] = {}
        self._top = Directory()
        self._nodes: dict[int, File | Directory] = {inodes[""]: self._top}
        for path, data in sorted(content.items()):
            node = Directory() if data is None else File(bytearray(data), size=len(data))
            self._nodes[inodes[path]] = node
            parent, name = self._place(f"{root}/{path}")
            parent.add(0, None, name, node)
            parent.sync(1)

    def apply(self, event: Event) -> None:
        """The next event.

        Raises:
            Incomplete: it can't have happened after those before it, or is beyond the model.
        """
        if event.kind not in DISK + UNSUPPORTED:
            return
        self._number += 1
        try:
            self._apply(event)
        except KeyError as exc:
            raise Incomplete(f"{event.kind} {event.data[:200]!r}: nothing is known of {exc}") from exc

    def _apply(self, event: Event) -> None:
        kind, number = event.kind, self._number
        if kind in (OPEN, MKDIR):
            made = self._nodes[event.object] = File() if kind == OPEN else Directory()
            parent, name = self._place(event.data.decode())
            parent.add(number, None, name, made)
        elif kind == UNLINK:
            parent, name = self._place(event.data.decode())
            parent.add(number, name, None, parent.entries[name])
        elif kind == RENAME:
            old, new = (self._place(path) for path in event.data.decode().split("\0"))
            if old[0] is not new[0]:
                raise Incomplete("a rename into another directory")
            old[0].add(number, old[1], new[1], old[0].entries[old[1]])
        elif kind in (WRITE, RESIZE, ALLOCATE):
            file = self._nodes[event.object]
            assert isinstance(file, File)
            if kind != ALLOCATE or event.a > file.size:
                file.add(number, event.a, event.data if kind == WRITE else None)
        elif kind == SYNC_BEGINS:
            self._syncs[event.process, event.a] = self._nodes[event.object], number
        elif kind == SYNC_DONE:
            node, before = self._syncs.pop((event.process, event.a))
            node.sync(before)
        else:
            raise Incomplete(f"the process used {event.data.decode()}, which the model doesn't know")

    def after_crash(self, names: Survival, data: Survival, rng: random.Random) -> Tree:
        """The tree that a power loss at this moment would leave."""
        pending = [change[0] for node in self._nodes.values() for change in node.pending]
        cut = rng.choice(pending) if pending else 0
        tree: Tree = {}

        def write_out(directory: Directory, prefix: str) -> None:
            for name, node in sorted(directory.after_crash(names, cut, rng).items()):
                path = prefix + name
                if isinstance(node, Directory):
                    tree[path] = None
                    write_out(node, f"{path}/")
                else:
                    tree[path] = b"" if path.endswith(UNSEEN) else node.after_crash(data, cut, rng)

        write_out(self._top, "")
        return tree

    def inode(self, path: str) -> int:
        """The inode of the file with this path below the root."""
        parent, name = self._place(f"{self._root}/{path}")
        return next(number for number, node in self._nodes.items() if node is parent.entries[name])

    def _place(self, path: str) -> tuple[Directory, str]:
        """The directory that a path is in, as the process sees it, and the name there."""
        *parents, name = PurePosixPath(path).relative_to(self._root).parts
        node: File | Directory = self._top
        for parent in parents:
            assert isinstance(node, Directory)
            node = node.entries[parent]
        assert isinstance(node, Directory)
        return node, name


def snapshot(root: Path) -> tuple[dict[str, int], Tree]:
    """Inodes and content of a real directory, as ``Disk`` takes them."""
    inodes, content = {"": root.stat().st_ino}, Tree()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        inodes[name] = path.stat().st_ino
        content[name] = None if path.is_dir() else b"" if name.endswith(UNSEEN) else path.read_bytes()
    return inodes, content


def write_tree(tree: Tree, root: Path) -> None:
    """Write a tree into an empty directory."""
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def digest(tree: Tree) -> bytes:
    """A digest of the tree's content."""
    hashed = blake2b(digest_size=16)
    for path, content in sorted(tree.items()):
        hashed.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
        hashed.update(content or b"")
    return hashed.digest()


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    size = at if data is None else max(len(content), at + len(data))
    if size > len(content):
        content.extend(bytes(size - len(content)))
    del content[size:]
    if data is not None:
        content[at : at + len(data)] = data


def _sectors(at: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a write at the sector boundaries, into (offset, bytes)."""
    end = at + len(data)
    start = at
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield start, data[start - at : stop - at]
        start = stop


def _rename(entries: dict[str, File | Directory], old: str | None, new: str | None, node: File | Directory) -> None:
    """Give a node another name, if it still has the old one: its creation may have been lost."""
    if old is not None:
        if entries.get(old) is not node:
            return
        del entries[old]
    if new is not None:
        entries[new] = node
