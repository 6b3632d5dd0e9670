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

CLASS_PATH_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.8:build-classpath"
RESOLVE_SECONDS = 480

QUICK_START = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options of a JVM with a short life: no second compiler, no collector threads."""


def unavailable(reason: str) -> NoReturn:
    """Skip the test; in CI fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI it must be there", pytrace=False)
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program. Without it, skips the test."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
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


def class_path(pom: Path, *, sums: Path | None = None) -> str:
    """The class path of a `pom.xml`.

    Args:
        pom: names the artifacts and their versions.
        sums: SHA-256 and name of each jar, as ``sha256sum`` writes them, sorted by name; other jars fail the test.
    """
    jars = from_maven(pom, CLASS_PATH_GOAL, output="mdep.outputFile", is_whole=_has_all_jars).read_text()
    if sums is not None:
        assert sums_of(jars) == sums.read_text(), f"the jars of {pom} are not those of {sums.name}"
    return jars


def sums_of(jars: str) -> str:
    """What a file of sums has to contain for this class path."""
    paths = sorted(map(Path, jars.split(os.pathsep)), key=lambda path: path.name)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)


def _has_all_jars(resolved: Path) -> bool:
    return all(Path(jar).exists() for jar in resolved.read_text().split(os.pathsep))
