"""Fixtures for tests of the deployment: a Docker engine of their own, removed afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import ROOT, wait_for
from tests.deploy.namespace import children

DOCKER_IMAGES = ("python:3.13-slim-bookworm", "eclipse-mosquitto:2")
DOCKER_PLUGINS = ("docker-compose", "docker-buildx")


def missing(what: str) -> NoReturn:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and in CI nothing may be skipped")
    pytest.skip(what)


def block(guide: str, start: str) -> str:
    """The block of commands in a page of docs/ that begins with ``start``."""
    text = (ROOT / "docs" / guide).read_text()
    (found,) = [commands for commands in re.findall(r"```\n(.*?)```", text, re.DOTALL) if commands.startswith(start)]
    return str(found)


class DockerEngine:
    """A ``dockerd`` with its own directories and socket. It ends with this process, even if that is killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = directory / "config"
        (config / "cli-plugins").mkdir(parents=True)
        foreign = ("DOCKER_", "COMPOSE_", "BRIDGE_", "GDN_BRIDGE_", "BUILDKIT_")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "1",
        }
        self._log = directory / "engine.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.engine", str(directory)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                start_new_session=True,  # a signal to our process group must leave it time to clean up
            )

    def wait(self) -> None:
        def answers() -> bool:
            if self._process.poll() is not None:
                missing(f"the Docker engine ended: {self._log.read_text()[-2000:]}")
            return self.run("version", check=False).returncode == 0

        wait_for(answers, what="the Docker engine")

    def run(
        self, *arguments: str, check: bool = True, timeout: float = 60, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *arguments],
            env={**self.environment, **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("inspect", name).stdout)
        return dict(found)

    def kill(self, pid: int) -> None:
        """Kill a process by the process id that the engine gives: the engine has its own namespace."""
        ((first,),) = (children(below) for below in children(self._process.pid))
        subprocess.run(["nsenter", "--target", str(first), "--pid", "kill", "-KILL", str(pid)], check=True)

    def stop(self) -> None:
        """Stop the engine and its containers, and undo its changes to this machine."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _run(command: list[str], timeout: float = 60) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stdout


def _fetch_plugins(engine: DockerEngine) -> None:
    """Compose and Buildx from the next Debian, unpacked beside the engine: this one's are too old. Installs nothing."""
    apt = engine.directory / "apt"
    for name in ("parts", "lists/partial", "cache/archives/partial", "packages", "tree"):
        (apt / name).mkdir(parents=True)
    sources = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    (apt / "parts" / "debian.sources").write_text(sources.replace("bookworm", "trixie"))
    options = [
        *("-qq", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={apt}/parts"),
        *("-o", f"Dir::State::lists={apt}/lists", "-o", f"Dir::Cache={apt}/cache", "-o", "APT::Sandbox::User=root"),
    ]
    _run(["apt-get", *options, "update"], timeout=120)
    subprocess.run(
        ["apt-get", *options, "download", *DOCKER_PLUGINS],
        cwd=apt / "packages",
        check=True,
        timeout=120,
        capture_output=True,
    )
    for package in (apt / "packages").glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(apt / "tree")])
    for plugin in (apt / "tree/usr/libexec/docker/cli-plugins").iterdir():
        shutil.copy(plugin, engine.directory / "config" / "cli-plugins")
    shutil.rmtree(apt)


def find_python(version: str) -> str:
    """A CPython on this machine with that version, such as 3.13."""
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    candidates = [*map(str, installed), f"python{version}"]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.append(sys.executable)
    found = next((program for name in candidates if (program := shutil.which(name))), None)
    return found or missing(f"there is no CPython {version} on this machine")


def need_docker() -> None:
    """Skip, or fail in CI, if this machine can't run an engine."""
    if os.geteuid():
        missing("a Docker engine of our own needs root")
    for program in ("dockerd", "docker", "iptables-save", "mmdebstrap", "setpriv", "unshare"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """A running engine with Compose, Buildx and the base images: the official ones if a registry answers."""
    need_docker()
    engine = DockerEngine(tmp_path_factory.mktemp("docker"))
    try:
        engine.wait()
        if engine.run("compose", "version", check=False).returncode:
            _fetch_plugins(engine)
        pulled = [engine.run("pull", "--quiet", i, check=False, timeout=120).returncode == 0 for i in DOCKER_IMAGES]
        if not all(pulled):
            built = subprocess.run(
                [ROOT / "deploy" / "docker" / "stand-ins" / "build.sh", find_python("3.13")],
                env=engine.environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert built.returncode == 0, built.stdout + built.stderr
        yield engine
    finally:
        engine.stop()
