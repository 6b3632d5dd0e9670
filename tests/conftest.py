"""Fixtures for tests against real peers: a Mosquitto, a local GDN, the daemon as a process."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from bridge.local.broker import free_port
from tests.order import LongestFirst

# A deadline per example measures the machine, not the code. --hypothesis-profile=quick chooses the other one.
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("full")

API_KEY = "acme.testkey.s3cr3tvalue"
TENANT = "acme"
TABLE = "tutorialAppOutputTable"
"""The output table of the worker in tests."""

CANARY = {
    "BRIDGE_CANARY__ENABLED": "true",
    "BRIDGE_CANARY__TOPIC": "devices/{marker}/rooms/0/telemetry",
    "BRIDGE_CANARY__PAYLOAD": '{"temperature": 0}',
    "BRIDGE_CANARY__QUERY": f'FOR d IN {TABLE} FILTER d.id == "0-{{marker}}" RETURN d.id',
    "BRIDGE_CANARY__CLEANING_QUERY": f'FOR d IN {TABLE} FILTER d.id == "0-{{marker}}" REMOVE d IN {TABLE}',
}
"""Settings of a canary for that worker, with the default interval."""

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def log_of_other_tests_stays() -> Iterator[None]:
    """A test that calls the command in this process configures the log of the process."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``, the slowest files first."""
    return LongestFirst(config, log) if config.getvalue("dist") == "loadfile" else None


def wait_for(condition: Callable[[], Any], *, seconds: float = 30.0, what: str = "the condition") -> Any:
    """Wait for a true value of the condition and return it; fail the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"{what} did not come true within {seconds:g} s")


def uninstall(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the import of an optional library fail as if it weren't installed."""
    real = importlib.import_module

    def without(name: str) -> Any:
        if name == module:
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


class Process:
    """A child process with its log kept in a file."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(command, stdout=out, stderr=out, env=env)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait(10)

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        self._popen.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 20.0) -> int:
        return self._popen.wait(seconds)

    def end(self) -> None:
        if self.is_running:
            self._popen.terminate()
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Mosquitto(Process):
    """A Mosquitto on a loopback port, with a queue that holds a test's backlog."""

    def __init__(self, directory: Path, *lines: str, port: int | None = None) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("Mosquitto is not installed, and in CI it must be")
            pytest.skip("Mosquitto is not installed")
        self.port = port or free_port()
        configuration = directory / "mosquitto.conf"
        configuration.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    "max_queued_messages 0",
                    "max_inflight_messages 1000",
                    "persistence false",
                    *(lines or ["allow_anonymous true"]),
                ]
            )
            + "\n"
        )
        super().__init__([program, "-c", str(configuration)], directory / "mosquitto.log")
        wait_for(lambda: is_listening(self.port), seconds=10, what="Mosquitto")


class LocalGdn(Process):
    """The local GDN as a process."""

    def __init__(
        self, directory: Path, port: int | None = None, *, host_name: str = "localhost", options: Sequence[str] = ()
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            [
                *(sys.executable, "-m", "bridge", "local-gdn", "--port", str(self.port)),
                *("--api-key", API_KEY, "--tenant", TENANT, "--host-name", host_name),
                *options,
            ],
            directory / "gdn.log",
        )
        wait_for(lambda: is_listening(self.port), seconds=20, what="the local GDN")

    def call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"apikey {API_KEY}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def set_faults(self, **faults: object) -> None:
        """Set or unset faults; `_` stands for `-` in their names."""
        self.call("POST", "/_local/faults", {name.replace("_", "-"): value for name, value in faults.items()})

    def query(self, c8ql: str) -> list[Any]:
        path = "/_fabric/_system/_api/cursor"
        try:
            answer = self.call("POST", path, {"query": c8ql, "batchSize": 1000})
        except urllib.error.HTTPError as exc:
            if exc.code == 404:  # the collection doesn't exist before the worker has been activated
                exc.close()
                return []
            raise
        rows = list(answer["result"])
        while answer["hasMore"]:
            answer = self.call("PUT", f"{path}/{answer['id']}")
            rows += answer["result"]
        return rows

    def count(self, collection: str = TABLE) -> int:
        return int((self.query(f"RETURN LENGTH({collection})") or [0])[0])


class Bridge:
    """The daemon as a process, configured by environment alone; may be started, killed and started again."""

    def __init__(self, directory: Path, *, mqtt_port: int, gdn_url: str, **settings: str) -> None:
        self.directory = directory
        self.status_port = free_port()
        self.settings = {
            "BRIDGE_MQTT__URL": f"mqtt://127.0.0.1:{mqtt_port}",
            "BRIDGE_GDN__URL": gdn_url,
            "BRIDGE_GDN__API_KEY": API_KEY,
            "BRIDGE_GDN__TENANT": TENANT,
            "BRIDGE_WORKER__DEFINITION": str(ROOT / "config" / "worker.sql"),
            "BRIDGE_WORKER__SETTLE_TIME": "1",
            "BRIDGE_ROUTES": json.dumps(
                [{"topic": "devices/{deviceID}/rooms/{roomNo}/telemetry", "stream": "tutorialAppInputStream"}]
            ),
            "BRIDGE_OUTBOX__PATH": str(directory / "outbox.db"),
            "BRIDGE_STATUS__LISTEN": f"127.0.0.1:{self.status_port}",
            "BRIDGE_HEALTH__QUERY_INTERVAL": "1",
            "BRIDGE_HEALTH__WORKER_INTERVAL": "1",
            **settings,
        }
        self.process: Process | None = None

    def use_shipped_intervals(self) -> None:
        """Use the default intervals of the health checks: those for tests would exceed the limits of a plan."""
        for name in ("BRIDGE_HEALTH__QUERY_INTERVAL", "BRIDGE_HEALTH__WORKER_INTERVAL"):
            del self.settings[name]

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
        return {**inherited, **self.settings}

    def start(self) -> Process:
        self.process = Process(
            [sys.executable, "-m", "bridge", "run"], self.directory / "bridge.log", env=self.environment()
        )
        return self.process

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bridge", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def get(self, path: str) -> tuple[int, str]:
        """HTTP status and body; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def readiness(self) -> dict[str, Any]:
        status, body = self.get("/readyz")
        return json.loads(body) if status else {"ready": False, "parts": [], "books": None}

    def part(self, name: str) -> dict[str, Any]:
        return next((p for p in self.readiness()["parts"] if p["name"] == name), {"state": None, "error": None})

    def books(self) -> dict[str, Any]:
        return self.readiness()["books"] or {}

    def wait_ready(self) -> None:
        wait_for(lambda: self.readiness()["ready"], what="readiness")

    def wait_subscribed(self) -> None:
        wait_for(lambda: self.part("mqtt")["state"] == "connected", what="the subscription")

    def peak_memory(self) -> int:
        """Peak resident memory of the running process, in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.end()


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto that allows subscriptions below ``ok/`` and refuses all others.

    That needs its plugin: with an ``acl_file`` Mosquitto 2.0 grants any subscription, then withholds the messages.
    """
    plugins = [*Path("/usr").glob("lib*/mosquitto_dynamic_security.so"), *Path("/usr/lib").glob("*/mosquitto_dyn*.so")]
    if not plugins:
        if os.environ.get("CI"):
            pytest.fail("Mosquitto's dynamic security plugin is not installed, and in CI it must be")
        pytest.skip("Mosquitto's dynamic security plugin is not installed")
    rules = tmp_path / "rules.json"
    rules.write_text(
        json.dumps(
            {
                "defaultACLAccess": {"subscribe": False, "publishClientReceive": True, "publishClientSend": True},
                "roles": [
                    {
                        "rolename": "reader",
                        "acls": [{"acltype": "subscribePattern", "topic": "ok/#", "priority": 0, "allow": True}],
                    }
                ],
                "groups": [{"groupname": "all", "roles": [{"rolename": "reader"}]}],
                "anonymousGroup": "all",
            }
        )
    )
    directory = tmp_path / "strict"
    directory.mkdir()
    # Started by root, Mosquitto would switch to another user, who can't read the test's directory.
    options = ["user root", f"plugin {plugins[0]}", f"plugin_opt_config_file {rules}"]
    broker = Mosquitto(directory, "allow_anonymous true", *options)
    yield broker
    broker.end()


@pytest.fixture
def gdn(tmp_path: Path) -> Iterator[LocalGdn]:
    far_end = LocalGdn(tmp_path)
    yield far_end
    far_end.end()


@pytest.fixture
def secure_gdn(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Returns its port and the file of its certificate authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    port = free_port()
    command = [sys.executable, "-m", "bridge", "local-gdn", "--port", str(port), "--tls"]
    gdn = Process([*command, "--api-key", API_KEY, "--tenant", TENANT], tmp_path / "gdn.log")
    wait_for(lambda: is_listening(port), what="the local GDN")
    trusted = re.search(r"must trust (\S+)", gdn.text())
    assert trusted is not None
    yield port, trusted[1]
    gdn.end()


@pytest.fixture
def make_bridge(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    made: list[Bridge] = []

    def make(**settings: Any) -> Bridge:
        made.append(Bridge(tmp_path, **settings))
        return made[-1]

    yield make
    for bridge in made:
        if bridge.process is not None:
            bridge.process.end()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of 24 MiB, or of as many KiB as the parameter says."""
    mount = tmp_path / "small"
    mount.mkdir()
    size = f"size={getattr(request, 'param', 24 << 10)}k"
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", mount], check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)
