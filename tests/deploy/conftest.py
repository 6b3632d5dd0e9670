"""Fixtures for tests of what the bridge is deployed with: a Docker engine of their own, thrown away afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import ROOT, Process, wait_for

DOCKER_IMAGES = ("python:3.13-slim-bookworm", "eclipse-mosquitto:2")
DOCKER_PLUGINS = ("docker-compose", "docker-buildx")


def docker_missing(what: str) -> NoReturn:
    """Skip the Docker tests, or fail where skipping would hide something."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and in CI the Docker tests must run")
    pytest.skip(what)


class DockerEngine:
    """A ``dockerd`` with directories and a socket of its own. Another one on this machine would share its firewall."""

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
        self._rules = [_firewall(table) for table in ("filter", "nat")]
        self._forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
        self._process = Process(
            [
                *("dockerd", "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
                *("--pidfile", f"{directory}/pid", "--host", self.environment["DOCKER_HOST"]),
            ],
            directory / "dockerd.log",
        )

    def wait(self) -> None:
        def answers() -> bool:
            if not self._process.is_running:
                docker_missing(f"dockerd ended: {self._process.text()[-2000:]}")
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

    def stop(self) -> None:
        """End it and take back what it did to this machine's network."""
        for container in self.run("ps", "--all", "--quiet", check=False).stdout.split():
            self.run("rm", "--force", "--volumes", container, check=False)
        self.run("network", "prune", "--force", check=False)
        self._process.terminate(60)
        for rules in self._rules:
            subprocess.run(["iptables-restore"], input=rules, text=True, check=False)
        Path("/proc/sys/net/ipv4/ip_forward").write_text(self._forwarding)
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def _run(command: list[str], timeout: float = 60) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stdout


def _firewall(table: str) -> str:
    """A table of the firewall, for iptables-restore; listing it first makes one that isn't there."""
    _run(["iptables", "--table", table, "--list-rules"])
    return _run(["iptables-save", "--table", table])


def _fetch_plugins(engine: DockerEngine) -> None:
    """Compose and Buildx from the next Debian, unpacked beside the engine: this one's is too old. Installs nothing."""
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


def _dockerd_runs() -> bool:
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended since
            if name.read_text().strip() == "dockerd":
                return True
    return False


def _find_python() -> str | None:
    """A CPython 3.13 that stands in for the official image's."""
    on_path = shutil.which("python3.13")
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.13*/bin/python3.13"))
    candidates = [*map(str, pyenv), *([on_path] if on_path else [])]
    if sys.version_info[:2] == (3, 13):
        candidates.append(sys.executable)
    return next(iter(candidates), None)


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """A running engine with Compose, Buildx and the base images; the official ones where a registry answers."""
    if os.geteuid():
        docker_missing("a Docker engine of our own needs root")
    for program in ("dockerd", "docker", "iptables-save", "mmdebstrap"):
        if shutil.which(program) is None:
            docker_missing(f"{program} is not installed")
    if _dockerd_runs():
        docker_missing("this machine runs a Docker engine, and a second one would get in its way")
    engine = DockerEngine(tmp_path_factory.mktemp("docker"))
    try:
        engine.wait()
        if engine.run("compose", "version", check=False).returncode:
            _fetch_plugins(engine)
        pulled = [engine.run("pull", "--quiet", i, check=False, timeout=120).returncode == 0 for i in DOCKER_IMAGES]
        if not all(pulled):
            python = _find_python()
            if python is None:
                docker_missing("no registry answers, and there is no CPython 3.13 for a stand-in image")
            built = subprocess.run(
                [ROOT / "deploy" / "docker" / "stand-ins" / "build.sh", python],
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
