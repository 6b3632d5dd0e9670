"""Programs that tests install once from a registry and keep, beside the Maven artifacts of ``java``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.java import RESOLVE_SECONDS, unavailable


@contextmanager
def cache(name: str) -> Iterator[Path]:
    """The directory of downloads. Test processes that start together wait for each other, by ``name``."""
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gdn-bridge"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def key(*files: Path) -> str:
    """Changes with the files: what is cached under it was made from them."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def run(command: Sequence[str | Path], *, of: str, directory: Path) -> None:
    """Run a command that installs ``of``, in this directory; without success, skips the test."""
    try:
        ended = subprocess.run(
            command,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=RESOLVE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        unavailable(f"{of} was not installed within {RESOLVE_SECONDS} s")
    if ended.returncode:
        unavailable(f"{of} can't be installed: {(ended.stdout + ended.stderr)[-500:]}")
