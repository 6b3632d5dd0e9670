"""The processes of a fault run: Mosquitto, the far end, the daemon; and the loop that publishers and proxies run on.

Everything listens on loopback, lives in one directory, and is ended by process id.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.faults.messages import DEFINITION, ROUTE
from tests.faults.schedule import POINTS

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

API_KEY = "acme.faultskey.k3y+with/odd=chars&more%"
"""Differs from its quoted and base64 forms, so that a leak in each form can be found."""
TENANT = "acme"
USERNAME = "bridge"
PASSWORD = "p4ss+word/with=odd&chars%"

STOP_TIMEOUT = 3.0
STATUS_SECONDS = 2.0

POINT_SECONDS = 0.6
"""Seconds for the daemon to reach the point where it is killed."""


class Failed(Exception):
    """The run can't continue: a part of the lab, or the daemon, doesn't work."""


def wait_for(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Wait for a true value of the condition and return it.

    Raises:
        Failed: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.03)
    raise Failed(f"{what}: not within {seconds:g} s")


def is_listening(port: int) -> bool:
    """Whether the port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.3).close()
    except OSError:
        return False
    return True


def pick_ports(count: int) -> list[int]:
    """Free ports below the range for outgoing connections: they stay free while nothing listens on them."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(min(20_000, first - 2000), first)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class LoopThread:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], seconds: float = 10.0) -> T:
        """Run it there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Cancel all tasks and end the loop."""

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Broker:
    """A Mosquitto with unlimited queues, a user, and a state file that is written on SIGUSR1 and SIGTERM only."""

    def __init__(self, directory: Path, port: int) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise FileNotFoundError("Mosquitto is not installed")
        directory.mkdir()
        self.port = port
        self._directory = directory
        self._saved = directory / "mosquitto.db"
        salt = os.urandom(12)
        digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 101)
        encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
        (directory / "passwords").write_text(f"{USERNAME}:$7$101${encoded[0]}${encoded[1]}\n")
        configuration = directory / "mosquitto.conf"
        configuration.write_text(
            f"user {getpass.getuser()}\n"
            f"listener {port} 127.0.0.1\n"
            "allow_anonymous false\n"
            f"password_file {directory}/passwords\n"
            "max_queued_messages 0\n"
            "max_inflight_messages 1000\n"
            "persistence true\n"
            f"persistence_location {directory}/\n"
            "autosave_interval 0\n"
            "log_type error\nlog_type warning\nlog_type notice\n"
        )
        self._command = [program, "-c", str(configuration)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, from the state file if there is one."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(lambda: is_listening(self.port), seconds=10, what="Mosquitto's start")

    def save(self) -> None:
        """Have it write its state, and wait until it has."""
        before = self._saved.stat().st_mtime_ns if self._saved.exists() else 0
        self._signal(signal.SIGUSR1)
        wait_for(
            lambda: self._saved.exists() and self._saved.stat().st_mtime_ns != before,
            seconds=10,
            what="Mosquitto's state file",
        )

    def stop(self) -> None:
        """SIGTERM: it writes its state."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(20)

    def kill(self, *, forget: bool = False) -> None:
        """SIGKILL; with ``forget`` also delete its state file."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        if forget:
            self._saved.unlink(missing_ok=True)

    def end(self) -> None:
        """End it, in whatever state it is."""
        if self.is_running:
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class FarEndProcess:
    """``far_end.py`` as a process, and its control connection."""

    def __init__(self, directory: Path, *, port: int, control: int, public: str, seed: int, down: bool) -> None:
        self.journal = directory / "far_end.jsonl"
        command = [sys.executable, "-m", "tests.faults.far_end", "--port", str(port), "--control", str(control)]
        command += ["--public", public, "--journal", str(self.journal), "--seed", str(seed)]
        environ = {**os.environ, "FAULTS_API_KEY": API_KEY, "FAULTS_TENANT": TENANT}
        with (directory / "far_end.log").open("ab") as log:
            self._process = subprocess.Popen(command + ["--down"] * down, stdout=log, stderr=log, env=environ, cwd=ROOT)
        wait_for(lambda: is_listening(control), seconds=10, what="the far end's start")
        self._sock = socket.create_connection(("127.0.0.1", control), timeout=10)
        self._answers = self._sock.makefile("rb")

    def do(self, verb: str, **members: Any) -> Any:
        """One command, and its answer."""
        self._sock.sendall(json.dumps({"do": verb, **members}).encode() + b"\n")
        answer = self._answers.readline()
        if not answer:
            raise Failed("the far end's process is gone")
        return json.loads(answer)

    def end(self) -> None:
        self._answers.close()
        self._sock.close()
        self._process.kill()
        self._process.wait(10)


class Death(NamedTuple):
    """How a daemon process ended."""

    asked: float
    """Time of the signal; without a signal, of the end."""
    at: float
    """Time of the end."""
    how: str
    """A point of ``killable``, ``random``, ``sigterm``, or the error."""
    seconds: float
    """Seconds that the process ran."""


class Bridge:
    """The daemon under test, as one process after another.

    Args:
        settings: in addition to this run's ports, by variable.
        rng: chooses the points where processes without a given one are killed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mqtt_port: int,
        gdn_port: int,
        status_port: int,
        settings: dict[str, str],
        rng: random.Random,
    ) -> None:
        definition = directory / "worker.sql"
        definition.write_text(DEFINITION)
        self.outbox = directory / "outbox.db"
        self.log = directory / "bridge.log"
        self._note = directory / "points"
        self._status_port = status_port
        self._settings = {
            "BRIDGE_MQTT__URL": f"mqtt://127.0.0.1:{mqtt_port}",
            "BRIDGE_MQTT__USERNAME": USERNAME,
            "BRIDGE_MQTT__PASSWORD": PASSWORD,
            "BRIDGE_MQTT__KEEPALIVE": "5",
            "BRIDGE_MQTT__CONNECT_TIMEOUT": "2",
            "BRIDGE_GDN__URL": f"http://127.0.0.1:{gdn_port}",
            "BRIDGE_GDN__API_KEY": API_KEY,
            "BRIDGE_GDN__TENANT": TENANT,
            "BRIDGE_GDN__REQUEST_TIMEOUT": "2",
            "BRIDGE_GDN__REQUESTS_PER_MINUTE": "0",
            "BRIDGE_GDN__REQUESTS_PER_DAY": "0",
            "BRIDGE_WORKER__DEFINITION": str(definition),
            "BRIDGE_WORKER__SETTLE_TIME": "0",
            "BRIDGE_ROUTES": json.dumps([ROUTE]),
            "BRIDGE_OUTBOX__PATH": str(self.outbox),
            "BRIDGE_DELIVERY__RECEIPT_TIMEOUT": "2",
            "BRIDGE_DELIVERY__PING_INTERVAL": "1",
            "BRIDGE_HEALTH__QUERY_INTERVAL": "1",
            "BRIDGE_HEALTH__WORKER_INTERVAL": "1",
            "BRIDGE_STATUS__LISTEN": f"127.0.0.1:{status_port}",
            "BRIDGE_STOP_TIMEOUT": f"{STOP_TIMEOUT:g}",
            "BRIDGE_LOG__LEVEL": "debug",
            "BRIDGE_LOG__FORMAT": "json",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._killed = False
        self._rng = rng
        self._points: list[str] = []
        self._waiting_point = False
        self._runs = 0
        self._log_at = 0
        self.deaths: list[Death] = []
        self.peaks: dict[int, int] = {}
        """Peak memory in bytes, by number of the process."""
        self.problems: list[str] = []

    @property
    def kills(self) -> Counter[str]:
        """The number of deaths by cause."""
        return Counter(death.how for death in self.deaths)

    def start(self, point: str | None = None, *, count: int = 1, delay: float = 0.0) -> None:
        """Start a process that kills itself at the given point or, with ``kill``, at a random one."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BRIDGE_", "FAULT_"))}
        environ = {**inherited, **self._settings, "FAULT_NOTE": str(self._note)}
        self._waiting_point = point is None
        if point is None:
            if not self._points:
                self._points = [*POINTS, "in_commit"]  # before the commit, and within it
                self._rng.shuffle(self._points)
            point = self._points.pop()
            delay = self._rng.choice((0.0, self._rng.uniform(0.00001, 0.003)))
            count = 1
            environ["FAULT_WAIT"] = "yes"
        environ.update(FAULT_POINT=point, FAULT_COUNT=str(count), FAULT_DELAY=f"{delay:.6f}")
        self._killed = False
        self._runs += 1
        self._started_at = time.monotonic()
        with self.log.open("ab") as log:
            self._log_at = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.killable", "run"], stdout=log, stderr=log, env=environ, cwd=ROOT
            )

    @property
    def is_running(self) -> bool:
        """Whether the process is running. Also samples its memory, and records its death."""
        process = self._process
        if process is None:
            return False
        code = process.poll()
        if code is None:
            self._look_at_memory(process.pid)
            return True
        self._process = None
        self._note_death(process.pid, code)
        return False

    def kill(self, *, anywhere: bool = False) -> None:
        """SIGKILL, at its point if it reaches it soon; with ``anywhere`` at once."""
        if (
            self.is_running
            and self._process is not None
            and not anywhere
            and self._waiting_point
            and self._had_started()
        ):
            self._process.send_signal(signal.SIGUSR2)
            deadline = time.monotonic() + POINT_SECONDS
            while self.is_running and time.monotonic() < deadline:
                time.sleep(0.01)
        if self.is_running and self._process is not None:
            self._killed = True
            self._process.kill()
            self._process.wait(10)
            assert not self.is_running

    def terminate(self) -> float:
        """SIGTERM; fails unless it ends in time and with exit code 0. Returns the seconds it took."""
        process = self._process
        if not self.is_running or process is None:
            return 0.0
        begun = time.monotonic()
        process.terminate()
        try:
            code = process.wait(STOP_TIMEOUT + 5)
        except subprocess.TimeoutExpired:
            self.problems.append(f"SIGTERM: the daemon still ran {STOP_TIMEOUT + 5:g} s later")
            self.kill()
            return time.monotonic() - begun
        took = time.monotonic() - begun
        self._process = None
        now = time.monotonic()
        self.deaths.append(Death(begun, now, "sigterm", now - self._started_at))
        # A process that is still starting has no signal handler yet.
        if code != 0 and not (code == -signal.SIGTERM and not self._had_started()):
            self.problems.append(f"SIGTERM: the daemon ended with {code}")
        if took > STOP_TIMEOUT + 1:
            self.problems.append(f"SIGTERM: stopping took {took:.1f} s with a stop_timeout of {STOP_TIMEOUT:g} s")
        return took

    def _had_started(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._log_at)
            return b'"daemon.started"' in log.read()

    def stop_running(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> str:
        """The text of the status server; empty while it doesn't answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._status_port}{path}", timeout=STATUS_SECONDS
            ) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            with contextlib.suppress(OSError, http.client.HTTPException), exc:
                return exc.read().decode()
        except (OSError, http.client.HTTPException):  # it was killed during its answer
            pass
        return ""

    def readiness(self) -> dict[str, Any]:
        """The JSON of /readyz; an empty object while it doesn't answer."""
        try:
            answer = json.loads(self.get("/readyz") or "{}")
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def end(self) -> None:
        """End it, in whatever state it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def _look_at_memory(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peaks[self._runs] = int(line.split()[1]) * 1024

    def _note_death(self, pid: int, code: int) -> None:
        how = f"ended by itself with {code}"
        if code == -signal.SIGKILL:
            noted = self._note.read_text().splitlines() if self._note.exists() else []
            for line in noted:
                point, noted_pid, peak = line.split()
                if int(noted_pid) == pid:
                    how = point
                    self.peaks[self._runs] = int(peak) * 1024
            if self._killed:
                how = "random"
            self._note.unlink(missing_ok=True)
        now = time.monotonic()
        self.deaths.append(Death(now, now, how, now - self._started_at))
        if how.startswith("ended"):
            tail = self.log.read_text(errors="replace").splitlines()[-3:]
            self.problems.append(f"the daemon {how}; its last lines: {tail}")
