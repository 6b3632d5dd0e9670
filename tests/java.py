"""Java programs for tests: the JRE, and artifacts that Maven fetches once and keeps in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

RESOLVE_SECONDS = 480


def unavailable(reason: str) -> NoReturn:
    """Skip the test; in CI fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI it must be there", pytrace=False)
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program. Without it, skips the test."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is not installed")
    return found


def from_maven(pom: Path, goal: str, *, output: str, is_whole: Callable[[Path], bool]) -> Path:
    """What a goal of Maven makes of a `pom.xml`: a file or a directory, made once and then from a cache.

    Args:
        pom: names the artifacts.
        goal: of a plugin, with its version.
        output: the goal's property for the path of what it makes.
        is_whole: whether what the cache has is complete.
    """
    maven = program("mvn")
    name = f"{pom.parent.name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gdn-bridge"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / name
    with (cache / f"{pom.parent.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers start together, and one download is enough
        if made.exists() and is_whole(made):
            return made
        part = cache / f"{name}.part"
        command = [maven, "-B", "-f", str(pom), goal, f"-D{output}={part}"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            unavailable(f"the artifacts of {pom} were not there within {RESOLVE_SECONDS} s")
        if run.returncode:
            errors = [line for line in run.stdout.splitlines() if line.startswith("[ERROR]")]
            unavailable(f"the artifacts of {pom} can't be resolved: {errors[0] if errors else run.stdout[-500:]}")
        if made.is_dir():
            shutil.rmtree(made)
        part.rename(made)
    return made
