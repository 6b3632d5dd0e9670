"""The image, and `docker compose up` with the shipped files, in a copy of the tree.

If no registry answers, substitute base images are built (deploy/docker/stand-ins): the same names, Debian's Mosquitto
instead of Alpine's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import bridge
from bridge.local.broker import free_port
from tests.conftest import ROOT, wait_for
from tests.deploy.conftest import DockerEngine, block, need_docker
from tests.deploy.engine import engine_runs

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

MEGABYTE = 1_000_000
BASE, IMAGE, LOCAL_IMAGE = "python:3.13-slim-bookworm", "gdn-bridge", "gdn-bridge-local"
TABLE = "tutorialAppOutputTable"
DEVICE = "T1"
BRIDGE_UID = "10001"
LABELS = {"version": bridge.__version__, "revision": "0123abc"}
DEVICES_PASSWORD = (ROOT / "deploy/docker/demo/secrets/devices_password").read_text().strip()
NOT_SHIPPED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "dist")


def copy_of_the_tree(target: Path) -> Path:
    shutil.copytree(ROOT, target, ignore=NOT_SHIPPED)
    return target


class Client:
    """An MQTT client on a published port; disconnects at the end of its block."""

    def __init__(
        self, port: int, username: str | None, password: str | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._reason: Any = None
        self._answered = threading.Event()
        self.received: list[str] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(500)
        self._client.on_connect = self._on_connect
        self._client.on_message = lambda _c, _d, message: self.received.append(message.topic)
        if username is not None:
            self._client.username_pw_set(username, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_connect(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        self._reason = self._reason or reason
        self._answered.set()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def is_let_in(self) -> bool:
        assert self._answered.wait(10), "no answer from the broker"
        return not self._reason.is_failure

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, 1)

    def publish(self, rooms: Iterable[int], topic: str = f"devices/{DEVICE}/rooms/{{}}/telemetry") -> set[str]:
        """Publish a reading for each room at QoS 1; returns the ids of their rows, once all are acknowledged."""
        assert self.is_let_in()
        sent = {f"{n}-{DEVICE}": self._client.publish(topic.format(n), '{"temperature": 18.5}', 1) for n in rooms}
        wait_for(lambda: all(m.is_published() for m in sent.values()), what="the broker's acknowledgements")
        return set(sent)


class Stack:
    """What `docker compose` runs from a copy of the tree."""

    def __init__(self, engine: DockerEngine, tree: Path, *overlays: str, **environment: str) -> None:
        self.engine = engine
        self.tree = tree
        self.mqtt_port, self.mqtts_port, self.status_port = free_port(), free_port(), free_port()
        self._files = (
            [option for file in ("compose.yaml", *overlays) for option in ("--file", file)] if overlays else []
        )
        # Only the ports are set: this machine may run a broker on the default one.
        self._environment = {
            "MQTT_LISTEN": f"127.0.0.1:{self.mqtt_port}",
            "MQTTS_LISTEN": f"127.0.0.1:{self.mqtts_port}",
            "STATUS_LISTEN": f"127.0.0.1:{self.status_port}",
            **environment,
        }

    def compose(self, *arguments: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        command = ("compose", *self._files, *arguments)
        return self.engine.run(*command, cwd=self.tree, check=check, timeout=timeout, **self._environment)

    def up(self, *arguments: str) -> None:
        done = self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *arguments, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + self.compose("logs", "--tail", "20").stdout

    def sh(self, commands: str) -> None:
        """Run the commands in the tree, as a user would."""
        environment = {**self.engine.environment, **self._environment}
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=self.tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def down(self, *arguments: str) -> None:
        self.compose("down", "--timeout", "20", *arguments)

    def container(self, service: str) -> dict[str, Any]:
        return self.engine.inspect(self.compose("ps", "--all", "--quiet", service).stdout.strip())

    def services(self) -> set[str]:
        return set(self.compose("ps", "--services").stdout.split())

    def exec(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.compose("exec", "-T", service, *command, check=check)

    def rows(self) -> list[str]:
        """Ids of this test's rows, by queries: GDN answers with a thousand rows at most."""
        found: list[str] = []
        while True:
            query = f"FOR row IN {TABLE} LIMIT {len(found)}, 1000 RETURN row.id"
            asked = self.exec("bridge", "gdn-bridge", "query", query, check=False)
            page: list[str] = json.loads(asked.stdout) if asked.returncode == 0 else []
            found += page
            if len(page) < 1000:
                return [i for i in found if i.endswith(f"-{DEVICE}")]

    def wait_for_rows(self, expected: set[str], seconds: float = 60) -> None:
        wait_for(lambda: expected <= set(self.rows()), seconds=seconds, what=f"{len(expected)} rows")

    def readiness(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/readyz", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as exc:
            with exc:
                return dict(json.load(exc))
        except (OSError, ValueError):
            return {"ready": False, "books": {}}

    def wait_ready(self) -> None:
        wait_for(lambda: self.readiness()["ready"], seconds=60, what="the bridge's readiness")

    def devices(self, password: str = DEVICES_PASSWORD) -> Client:
        return Client(self.mqtt_port, "devices", password)

    def assert_books_balance(self) -> None:
        books = self.readiness()["books"]
        assert books["balanced"]
        assert books["dropped"] == books["dead_lettered"] == 0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_tree(tmp_path_factory.mktemp("compose") / "gdn-bridge")


@pytest.fixture(scope="module")
def images(docker_engine: DockerEngine, tree: Path) -> DockerEngine:
    """The engine, with both images built."""
    arguments = [word for argument in LABELS for word in ("--build-arg", f"{argument.upper()}={LABELS[argument]}")]
    for target, name in (("bridge", IMAGE), ("local", LOCAL_IMAGE)):
        docker_engine.run("build", "--quiet", *arguments, "--target", target, "--tag", name, ".", cwd=tree, timeout=240)
    return docker_engine


@pytest.fixture(scope="module")
def stack(images: DockerEngine, tree: Path) -> Iterator[Stack]:
    """The demonstration, started and ready."""
    stack = Stack(images, tree)
    try:
        stack.up()
        stack.wait_ready()
        yield stack
    finally:
        stack.down("--volumes")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A copy of the tree for another stack than the demonstration."""
    return copy_of_the_tree(tmp_path / "gdn-bridge")


# --- the engine of these tests --------------------------------------------------------------------------------------


def this_machines_network() -> str:
    commands = ("iptables -t filter -S", "iptables -t nat -S", "cat /proc/sys/net/ipv4/ip_forward", "ls /sys/class/net")
    return "".join(subprocess.run(c.split(), capture_output=True, text=True, check=True).stdout for c in commands)


def test_an_engine_whose_tests_are_killed_leaves_nothing_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Must be the first test in this file: an engine waits until another one has ended."""
    need_docker()
    before = this_machines_network()
    directory = tmp_path_factory.mktemp("killed")
    program = (
        "import sys, time, pathlib, tests.deploy.conftest as c; "
        "c.DockerEngine(pathlib.Path(sys.argv[1])).wait(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, directory], cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        assert this_machines_network() != before

        starter.kill()

    wait_for(lambda: not directory.exists(), what="the engine's directory to be gone")
    assert this_machines_network() == before
    assert not engine_runs()


# --- the image --------------------------------------------------------------------------------------------------


def test_the_image_is_small_and_adds_little_to_its_base(images: DockerEngine) -> None:
    size, base = images.inspect(IMAGE)["Size"], images.inspect(BASE)["Size"]

    assert size < 180 * MEGABYTE
    assert size - base < 45 * MEGABYTE


def test_the_image_has_labels_and_runs_with_a_numeric_user_id(images: DockerEngine) -> None:
    config = images.inspect(IMAGE)["Config"]

    assert config["User"] == f"{BRIDGE_UID}:{BRIDGE_UID}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "gdn-bridge", "healthcheck"]
    labels = {name: config["Labels"][f"org.opencontainers.image.{name}"] for name in ("title", *LABELS)}
    assert labels == {"title": "gdn-bridge", **LABELS}
    assert list(config["Volumes"]) == ["/var/lib/gdn-bridge"]


def test_the_image_has_the_decoders_and_neither_pip_nor_the_local_gdn(images: DockerEngine) -> None:
    program = (
        "import importlib.util as u; "
        "print([n for n in ('re2', 'google.protobuf', 'line_protocol_parser', 'zstandard') if not u.find_spec(n)], "
        "[n for n in ('pip', 'aiohttp', 'quickjs') if u.find_spec(n)])"
    )

    said = images.run("run", "--rm", "--entrypoint", "python", IMAGE, "-c", program).stdout

    assert said.strip() == "[] []"


def test_the_image_needs_no_capability_no_network_and_no_writable_root(images: DockerEngine, tree: Path) -> None:
    hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
    settings = ("--env", "BRIDGE_GDN__API_KEY=k", "--env", "GDN_BRIDGE_CONFIG=/c/bridge.toml")

    checked = images.run("run", "--rm", *hardened, *settings, "--volume", f"{tree}/config:/c:ro", IMAGE, "check")

    assert "no problems found" in checked.stdout


def test_the_same_sources_give_the_same_wheel(images: DockerEngine, tree: Path, tmp_path: Path) -> None:
    """The second build uses files with other dates and modes, and no cache."""
    other = copy_of_the_tree(tmp_path / "other")
    for path in (other / "bridge").rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    build = ("build", "--quiet", "--target", "wheel")

    images.run(*build, "--output", f"{tmp_path}/1", ".", cwd=tree, timeout=240)
    images.run(*build, "--no-cache", "--output", f"{tmp_path}/2", ".", cwd=other, timeout=240)

    one, two = ([*(tmp_path / n).glob("*.whl")] for n in ("1", "2"))
    assert [w.name for w in one] == [w.name for w in two] == [f"gdn_bridge-{bridge.__version__}-py3-none-any.whl"]
    assert hashlib.sha256(one[0].read_bytes()).digest() == hashlib.sha256(two[0].read_bytes()).digest()


# --- docker compose up ------------------------------------------------------------------------------------------


def test_without_any_settings_rows_come_out(stack: Stack) -> None:
    assert stack.services() == {"broker", "bridge", "gdn", "devices", "rows"}
    wait_for(
        lambda: re.search(r'\["\d+-(AD11|AD12|BK07|CF31)", [\d.]+\]', stack.compose("logs", "rows").stdout),
        seconds=45,
        what="rows in the log of the service that shows them",
    )
    stack.assert_books_balance()


def test_every_service_is_confined(stack: Stack) -> None:
    for service in sorted(stack.services()):
        container = stack.container(service)
        host = container["HostConfig"]

        assert container["Config"]["User"].partition(":")[0] in {BRIDGE_UID, "1883"}, service
        assert host["CapDrop"] == ["ALL"], service
        assert host["ReadonlyRootfs"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert 0 < host["PidsLimit"] <= 128, service
        assert 0 < host["Memory"] <= 768 * 1024 * 1024, service
        assert 0 < host["NanoCpus"] <= 1_000_000_000, service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service
        listening = [binding for bindings in host["PortBindings"].values() for binding in bindings]
        assert {binding["HostIp"] for binding in listening} <= {"127.0.0.1"}, service


def test_the_bridge_runs_without_capabilities_and_can_write_only_its_outbox(stack: Stack) -> None:
    status = dict(
        line.split(":", 1) for line in stack.exec("bridge", "cat", "/proc/1/status").stdout.splitlines() if ":" in line
    )
    written = (
        "for d in / /etc/gdn-bridge /opt/gdn-bridge /run/secrets /var/lib/gdn-bridge; do touch $d/x && echo $d; done"
    )

    writable = stack.exec("bridge", "sh", "-c", written, check=False).stdout.split()

    assert status["Uid"].split() == [BRIDGE_UID] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert writable == ["/var/lib/gdn-bridge"]


def test_each_service_sees_only_its_own_secrets(stack: Stack) -> None:
    seen = {s: stack.exec(s, "ls", "/run/secrets").stdout.split() for s in ("broker", "bridge", "devices", "rows")}

    assert seen == {
        "broker": ["devices_password", "mqtt__password"],
        "bridge": ["gdn__api_key", "mqtt__password"],
        "devices": ["devices_password"],
        "rows": ["gdn__api_key"],
    }


def test_the_broker_accepts_only_clients_with_the_password(stack: Stack) -> None:
    for username, password in ((None, None), ("devices", "wrong"), ("bridge", DEVICES_PASSWORD)):
        with Client(stack.mqtt_port, username, password) as stranger:
            assert not stranger.is_let_in(), username
    with stack.devices() as device:
        assert device.is_let_in()


def test_devices_dont_see_one_another(stack: Stack) -> None:
    bridge_password = (ROOT / "deploy/docker/demo/secrets/mqtt__password").read_text().strip()
    with stack.devices() as curious, Client(stack.mqtt_port, "bridge", bridge_password) as entitled:
        assert curious.is_let_in()
        assert entitled.is_let_in()
        curious.subscribe("#")
        entitled.subscribe("#")

        wait_for(lambda: len(entitled.received) >= 10, what="readings of the simulated devices")
        assert curious.received == []


def test_the_health_checks_are_passed(stack: Stack) -> None:
    assert {s: stack.container(s)["State"]["Health"]["Status"] for s in ("broker", "bridge", "gdn")} == {
        "broker": "healthy",
        "bridge": "healthy",
        "gdn": "healthy",
    }


def test_messages_that_wait_at_the_broker_survive_its_restart(stack: Stack) -> None:
    """With the bridge stopped, 3,000 messages wait, more than the broker keeps by default; then it is stopped."""
    stack.compose("stop", "bridge")
    with stack.devices() as device:
        expected = device.publish(range(3_000))
    stack.compose("stop", "broker")
    stack.compose("start", "broker", "bridge")

    stack.wait_ready()
    stack.wait_for_rows(expected)
    stack.assert_books_balance()


def test_without_its_broker_the_bridge_is_live_but_not_ready_and_comes_back_with_it(stack: Stack) -> None:
    stack.compose("stop", "broker")
    wait_for(lambda: not stack.readiness()["ready"], what="a bridge without its broker")
    live = stack.exec("bridge", "gdn-bridge", "healthcheck", check=False)
    ready = stack.exec("bridge", "gdn-bridge", "healthcheck", "--ready", check=False)
    stack.compose("start", "broker")
    stack.wait_ready()
    with stack.devices() as device:
        expected = device.publish(range(3_000, 3_200))

    stack.wait_for_rows(expected)
    assert (live.returncode, ready.returncode) == (0, 1)
    assert ready.stderr.startswith("gdn-bridge: mqtt: ")
    assert stack.container("bridge")["RestartCount"] == 0


def test_a_killed_bridge_is_started_again_and_loses_nothing(stack: Stack) -> None:
    restarts = stack.container("bridge")["RestartCount"]
    with stack.devices() as device:
        expected = device.publish(range(4_000, 5_000))
        stack.engine.kill(stack.container("bridge")["State"]["Pid"])
        expected |= device.publish(range(5_000, 6_000))

    wait_for(lambda: stack.container("bridge")["RestartCount"] == restarts + 1, what="the restart")
    stack.wait_ready()
    stack.wait_for_rows(expected)
    stack.assert_books_balance()


def test_the_bridge_stops_in_time_and_logs_its_books(stack: Stack) -> None:
    begun = time.monotonic()
    stack.compose("stop", "bridge")
    seconds = time.monotonic() - begun

    assert stack.container("bridge")["State"]["ExitCode"] == 0
    assert seconds < 10
    assert '"event":"daemon.stopped"' in stack.compose("logs", "--tail", "1", "bridge").stdout
    stack.compose("start", "bridge")
    stack.wait_ready()


def test_the_outbox_outlasts_the_containers(stack: Stack) -> None:
    """Rows that GDN doesn't have yet are there after `down`; only `down --volumes` deletes them."""
    stack.compose("stop", "gdn")
    with stack.devices() as device:
        expected = device.publish(range(6_000, 6_500))
    wait_for(lambda: stack.readiness()["books"].get("outbox", 0) >= len(expected), what="a filled outbox")

    stack.down()
    stack.up()

    stack.wait_ready()
    stack.wait_for_rows(expected)
    stack.assert_books_balance()


def test_the_commands_of_the_guide_work_on_the_demonstration(stack: Stack) -> None:
    *commands, pause, unpause, last = block("docker.md", "docker compose exec bridge").splitlines()
    assert last.startswith("docker compose down --volumes ")  # as the fixture does at its end

    stack.sh("\n".join(commands).replace("exec", "exec -T"))
    stack.sh(pause)
    with stack.devices() as device:
        expected = device.publish(range(7_000, 7_100))
    wait_for(lambda: stack.readiness()["books"].get("outbox", 0) >= len(expected), what="a filled outbox")
    stack.sh(unpause)

    stack.wait_for_rows(expected)
    stack.assert_books_balance()


def test_the_worker_is_recreated_after_a_restart_of_the_local_gdn(stack: Stack) -> None:
    stack.compose("restart", "gdn")
    asked = ("gdn-bridge", "query", f"RETURN LENGTH({TABLE})")
    wait_for(lambda: stack.exec("bridge", *asked, check=False).returncode == 0, seconds=60, what="the worker's table")

    with stack.devices() as device:
        stack.wait_for_rows(device.publish(range(8_000, 8_100)))


# --- the image alone --------------------------------------------------------------------------------------------


def test_the_image_runs_alone_as_the_guide_says(images: DockerEngine, fresh: Path) -> None:
    stack = Stack(images, fresh, BRIDGE_GDN__API_KEY="my.own.key", BUILDKIT_PROGRESS="quiet")
    try:
        stack.sh(block("docker.md", "docker build --tag gdn-bridge ."))

        asked = ("exec", "gdn-bridge", "gdn-bridge", "healthcheck")
        wait_for(lambda: images.run(*asked, check=False).returncode == 0, what="a live bridge")
        assert images.inspect("gdn-bridge")["HostConfig"]["ReadonlyRootfs"]
    finally:
        images.run("rm", "--force", "gdn-bridge", check=False)
        images.run("volume", "rm", "--force", "gdn-bridge", check=False)


# --- TLS and a real GDN -----------------------------------------------------------------------------------------


def test_with_the_tls_overlays_only_clients_with_a_certificate_are_accepted(images: DockerEngine, fresh: Path) -> None:
    made = subprocess.run(
        ["deploy/docker/make-ca.sh", "certificates", "broker.example"], cwd=fresh, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    files = fresh / "certificates"
    stack = Stack(
        images,
        fresh,
        "deploy/docker/compose.tls.yaml",
        "deploy/docker/compose.tls-demo.yaml",
        COMPOSE_PROJECT_NAME="gdn-bridge-tls",
    )
    known = ssl.create_default_context(cafile=str(files / "ca.pem"))
    known.load_cert_chain(files / "devices.pem", files / "devices.key")
    unknown = ssl.create_default_context(cafile=str(files / "ca.pem"))
    try:
        stack.up()
        stack.wait_ready()

        with Client(stack.mqtts_port, None, None, known) as device:
            stack.wait_for_rows(device.publish(range(100)))
        with Client(stack.mqtts_port, "devices", DEVICES_PASSWORD, unknown) as stranger:
            assert not stranger._answered.wait(3)
        with pytest.raises(ConnectionRefusedError):
            Client(stack.mqtt_port, "devices", DEVICES_PASSWORD)
        wait_for(
            lambda: re.search(r"acknowledged [1-9]", stack.compose("logs", "devices").stdout),
            what="simulated devices with a certificate",
        )
    finally:
        stack.down("--volumes")


def test_with_a_real_gdn_neither_devices_nor_local_gdn_are_started(images: DockerEngine, fresh: Path) -> None:
    made = subprocess.run(
        ["deploy/docker/make-secrets.sh", "secrets"], input=b"my.own.key\n", cwd=fresh, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    password = (fresh / "secrets" / "devices_password").read_text()
    (fresh / ".env").write_text(
        "BRIDGE_GDN__URL=http://far-gdn:8529\nBRIDGE_GDN__TENANT=mine\nSECRETS=./secrets\n"
        "COMPOSE_PROJECT_NAME=gdn-bridge-own\n"
    )
    stack = Stack(images, fresh)
    try:
        stack.up()
        images.run(
            *("run", "--detach", "--rm", "--name", "far-gdn", "--network", "gdn-bridge-own_default"),
            *("--network-alias", "far-gdn", "--network-alias", "api-far-gdn", LOCAL_IMAGE, "local-gdn"),
            *("--host", "0.0.0.0", "--port", "8529", "--host-name", "far-gdn"),
            *("--tenant", "mine", "--api-key", "my.own.key"),
        )

        stack.wait_ready()
        with stack.devices(password) as device:
            expected = device.publish(range(200))

        stack.wait_for_rows(expected)
        assert stack.services() == {"broker", "bridge"}
        with stack.devices() as stranger:  # with the demonstration's password
            assert not stranger.is_let_in()
    finally:
        images.run("rm", "--force", "far-gdn", check=False)
        stack.down("--volumes")


def test_a_missing_tenant_is_reported_at_once(images: DockerEngine, tree: Path) -> None:
    stack = Stack(images, tree, BRIDGE_GDN__URL="https://gdn.example")

    refused = stack.compose("config", check=False)

    assert refused.returncode != 0
    assert "set BRIDGE_GDN__TENANT in .env, too" in refused.stderr


def test_a_key_in_the_environment_is_enough_and_a_missing_key_is_reported(images: DockerEngine, tree: Path) -> None:
    gdn = {
        "BRIDGE_GDN__URL": "https://gdn.example",
        "BRIDGE_GDN__TENANT": "mine",
        "COMPOSE_PROJECT_NAME": "gdn-bridge-no",
    }
    check = ("run", "--rm", "--no-deps", "bridge", "check")
    without, with_key = Stack(images, tree, **gdn), Stack(images, tree, **gdn, BRIDGE_GDN__API_KEY="my.own.key")

    refused, taken = without.compose(*check, check=False), with_key.compose(*check, check=False)

    with_key.down("--volumes")
    assert refused.returncode == 78
    assert "gdn__api_key: must be the key alone" in refused.stderr
    assert taken.returncode == 0, taken.stderr
