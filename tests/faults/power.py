"""Power losses: ``python -m tests.faults.power --seed S --points N [--case NAME …] [--keep DIR | --judge DIR]``.

Runs the daemon with a recorder (``power_recorder.c``, built with ``cc``) that notes, in order, what the daemon does to
the directory of its outbox and what it sends and receives. For points of that recording ``power_disk.py`` computes
states that a power loss could leave on disk. The bridge's own ``Outbox`` opens each, which is then checked:

* Every message that was PUBACKed before the point is a record, a dead letter, was receipted by the far end before the
  point, or was dropped and counted (``drop_oldest`` only, the oldest rows only).
* The books balance, and agree with the file and the receipts.
* The file is not damaged, unless it was from the start.
* A message that the bridge would skip as redelivered (deduplication) is stored.

Recordings differ from run to run, because timing does. From one recording the same seed rebuilds the same states:
``--keep`` saves recordings, ``--judge`` checks saved ones.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from structlog.testing import capture_logs

from bridge.errors import BridgeError
from bridge.message import DeadLetter, MqttMessage, Row
from bridge.mqtt.redelivery import RedeliveryFilter
from bridge.outbox import Commit, DeadLetterClient, Outbox, Selection
from tests.faults import mqtt_packets
from tests.faults.lab import (
    API_KEY,
    PASSWORD,
    ROOT,
    TENANT,
    USERNAME,
    Broker,
    Failed,
    FarEndProcess,
    pick_ports,
    wait_for,
)
from tests.faults.power_disk import (
    CONNECTED,
    DISK,
    NAMES,
    RECEIVED,
    SEND,
    SENT,
    SURVIVALS,
    SYNC_DONE,
    WRITE,
    Disk,
    Event,
    Incomplete,
    Survival,
    Tree,
    digest,
    read_log,
    snapshot,
    write_tree,
)

STREAM, OTHER_STREAM = "powerInput", "powerOther"

DEFINITION = f"""\
@App:name('power_worker')
@App:qlVersion("2")
CREATE STREAM {STREAM} (device string, n long, pad string);
CREATE STREAM {OTHER_STREAM} (device string, n long, pad string);
CREATE TABLE GLOBAL powerOutput (device string, n long, pad string);
INSERT INTO powerOutput SELECT device, n, pad FROM {STREAM};
INSERT INTO powerOutput SELECT device, n, pad FROM {OTHER_STREAM};
"""

READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], uri=True)
db.execute("SELECT count(*) FROM memory").fetchall()
print("read", flush=True)
sys.stdin.read()
"""

VARIANTS = 4
"""States for each point: one where nothing unsynced survives, the others random."""

BAD_SHARE = 10
"""One message in this many can't be mapped."""

NUMBER = re.compile(rb'"n":(\d+)|not a row (\d+) ')

SMALL, LARGE = 60, 8000
"""Maximum bytes of padding."""

BURST, PAUSE = 8, 0.01
"""Messages of a burst, and the seconds after it: slow enough that the daemon commits often."""

OLD = 200
"""Messages in the damaged outbox of the rescue."""
OLD_IN_FILE = 150
"""The number of them in the file; the others are only in its write-ahead log."""


def payload_of(n: int, pad: int) -> bytes:
    """The message with that number."""
    text = "x" * random.Random(n).randrange(pad)
    return f"not a row {n} {text}".encode() if n % BAD_SHARE == 0 else json.dumps({"n": n, "pad": text}).encode()


def number_of(payload: bytes) -> int:
    """The number of the message that a payload, a row or a dead letter comes from; -1: none of the test's."""
    found = NUMBER.search(payload.replace(b": ", b":")[:200])
    return int(found[1] or found[2]) if found else -1


# --- recording --------------------------------------------------------------------------------------------------


@functools.cache
def recorder() -> Path:
    """The recorder, built for this machine.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: install gcc and libc6-dev")
    directory = tempfile.mkdtemp(prefix="power-")
    atexit.register(shutil.rmtree, directory)
    built = Path(directory) / "recorder.so"
    source = Path(__file__).with_name("power_recorder.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", built, source, "-lpthread"], check=True)
    return built


class Lab:
    """A Mosquitto and a far end, shared by all cases."""

    def __init__(self, directory: Path) -> None:
        self.mqtt_port, self.gdn_port, control, self.status_port = pick_ports(4)
        self.broker = Broker(directory / "broker", self.mqtt_port)
        self.broker.start()
        public = f"127.0.0.1:{self.gdn_port}"
        self.far_end = FarEndProcess(directory, port=self.gdn_port, control=control, public=public, seed=0, down=True)

    def publish(self, topic: str, numbers: Sequence[int], *, pad: int = SMALL) -> None:
        """Publish messages at QoS 1, in bursts, and wait until the broker has them."""
        acked, waiting = mqtt_packets.Splitter(), 0
        with socket.create_connection(("127.0.0.1", self.mqtt_port), timeout=10) as sock:
            sock.sendall(mqtt_packets.connect("power-publisher", username=USERNAME, password=PASSWORD))
            sock.recv(4)
            for first in range(0, len(numbers), BURST):
                burst = numbers[first : first + BURST]
                sock.sendall(b"".join(mqtt_packets.publish(topic, payload_of(n, pad), n) for n in burst))
                waiting += len(burst)
                while waiting:
                    waiting -= len(acked.feed(sock.recv(4096)))
                time.sleep(PAUSE)
            sock.sendall(mqtt_packets.disconnect())

    def end(self) -> None:
        self.far_end.end()
        self.broker.end()


@dataclass(frozen=True)
class Recording:
    """The recorded actions of the daemon in one case."""

    case: str
    root: str
    """The recorded directory."""
    outbox: str
    """Below the root."""
    ports: tuple[int, int]
    """Ports of broker and far end."""
    session: str
    """The client id of the bridge."""
    inodes: dict[str, int]
    """Inodes at the start, as ``Disk`` takes them."""
    content: Tree
    """At the start."""
    events: list[Event]

    @property
    def was_damaged(self) -> bool:
        """Whether the outbox was damaged from the start."""
        return self.case.startswith("rescue")

    def save(self, directory: Path) -> None:
        """Save it in an empty directory."""
        members = {k: v for k, v in vars(self).items() if k not in ("content", "events")}
        (directory / "recording.json").write_text(json.dumps(members))
        (directory / "start").mkdir()
        write_tree(self.content, directory / "start")
        with (directory / "events").open("wb") as file:
            for kind, *numbers, data in self.events:
                file.write(struct.pack("<cQQqqI", kind.encode(), *numbers, len(data)) + data)

    @classmethod
    def load(cls, directory: Path) -> Recording:
        """Load what ``save`` saved."""
        members = json.loads((directory / "recording.json").read_text())
        _, content = snapshot(directory / "start")
        head, events, at = struct.Struct("<cQQqqI"), [], 0
        saved = (directory / "events").read_bytes()
        while at < len(saved):
            kind, process, number, a, b, size = head.unpack_from(saved, at)
            at += head.size + size
            events.append(Event(kind.decode(), process, number, a, b, saved[at - size : at]))
        return cls(**{**members, "ports": tuple(members["ports"])}, content=content, events=events)


class Daemon:
    """The daemon of one case, as one recorded process after another.

    Args:
        directory: empty, for all files of the run.
        fault: one of ``faulty.py``, or ``sqlite_directory``: the recorder skips all syncs of directories, SQLite's too.
        outbox: below the recorded directory.
        settings: by variable.
    """

    def __init__(
        self, case: str, lab: Lab, directory: Path, *, fault: str, outbox: str = "outbox.db", **settings: str
    ) -> None:
        self.case, self.lab = case, lab
        self.topic = f"power/{directory.name}"
        self.root = directory / "disk"
        self.root.mkdir()
        self.outbox = outbox
        self._fault = fault
        self._log = directory / "bridge.log"
        self.config = directory / "bridge.toml"
        (directory / "worker.sql").write_text(DEFINITION)
        self.write_routes(**{STREAM: self.topic})
        self._client = f"{directory.name}-{os.getpid()}"
        self._settings = {
            "BRIDGE_MQTT__URL": f"mqtt://127.0.0.1:{lab.mqtt_port}",
            "BRIDGE_MQTT__CLIENT_ID": self._client,
            "BRIDGE_MQTT__USERNAME": USERNAME,
            "BRIDGE_MQTT__PASSWORD": PASSWORD,
            "BRIDGE_GDN__URL": f"http://127.0.0.1:{lab.gdn_port}",
            "BRIDGE_GDN__API_KEY": API_KEY,
            "BRIDGE_GDN__TENANT": TENANT,
            "BRIDGE_GDN__REQUESTS_PER_MINUTE": "0",
            "BRIDGE_GDN__REQUESTS_PER_DAY": "0",
            "BRIDGE_WORKER__DEFINITION": str(directory / "worker.sql"),
            "BRIDGE_WORKER__SETTLE_TIME": "0",
            "BRIDGE_OUTBOX__PATH": str(self.root / outbox),
            "BRIDGE_STATUS__LISTEN": f"127.0.0.1:{lab.status_port}",
            "BRIDGE_STOP_TIMEOUT": "3",
            **settings,
        }
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start: tuple[dict[str, int], Tree] | None = None

    def write_routes(self, **topics: str) -> None:
        """Routes by stream, into the file that SIGHUP reads again."""
        tables = [f'[[routes]]\ntopic = "{topic}/{{device}}"\nstream = "{name}"\n' for name, topic in topics.items()]
        self.config.write_text("\n".join(tables))

    def start(self) -> None:
        """Start it, and wait until it has subscribed."""
        if self._start is None:
            self._start = snapshot(self.root)
        log = self.root.parent / f"events-{len(self._logs)}"
        self._logs.append(log)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
        record = {
            "LD_PRELOAD": str(recorder()),
            "RECORD_LOG": str(log),
            "RECORD_ROOT": str(self.root),
            "RECORD_PORTS": f"{self.lab.mqtt_port},{self.lab.gdn_port}",
        }
        fault = self._fault
        if fault == "sqlite_directory":
            record["RECORD_NO_DIRECTORY_SYNC"], fault = "yes", "none"
        command = [sys.executable, "-m", "tests.faults.faulty", fault, "run", "--config", str(self.config)]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**inherited, **self._settings, **record}, cwd=ROOT
            )
        wait_for(self._is_subscribed, seconds=30, what=f"the subscription ({self._log})")

    def _is_subscribed(self) -> bool:
        parts = self.status().get("parts", [])
        return any(part["name"] == "mqtt" and part["state"] == "connected" for part in parts)

    def status(self) -> dict[str, Any]:
        """The JSON of /readyz; empty while it doesn't answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.lab.status_port}/readyz", timeout=2) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as exc:
            with exc:
                return dict(json.load(exc))
        except OSError:
            return {}

    def wait_received(self, count: int, *, delivered: bool = False) -> None:
        """Wait until the books show that many messages received and all of them delivered."""

        def done() -> bool:
            books = self.status().get("books") or {"received": 0}
            return books["received"] >= count and not (delivered and books["outbox"])

        wait_for(done, seconds=40, what=f"{count} messages ({self._log})")

    def wait_holding(self) -> None:
        """Wait for the hold."""
        wait_for(lambda: (self.status().get("outbox") or {}).get("holding"), seconds=20, what=f"a hold ({self._log})")

    def reload(self) -> None:
        """SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill it like SIGKILL, at its next entry in the recording."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)
        if self._process.wait(20) != -signal.SIGKILL:
            raise Failed(f"the daemon ended by itself ({self._log})")

    def stop(self) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        if self._process.wait(20):
            raise Failed(f"the daemon ended with an error ({self._log})")

    def end(self) -> None:
        """End all processes that are left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def recording(self) -> Recording:
        """The recording of all processes.

        Raises:
            Incomplete: replaying the recording gives something else than is on disk.
        """
        assert self._start is not None
        inodes, content = self._start
        recording = Recording(
            case=self.case,
            root=str(self.root),
            outbox=self.outbox,
            ports=(self.lab.mqtt_port, self.lab.gdn_port),
            session=f"{self._client} at 127.0.0.1:{self.lab.mqtt_port}",
            inodes=inodes,
            content=content,
            events=[event for n, log in enumerate(self._logs) for event in read_log(log, n)],
        )
        check_complete(recording, self.root)
        return recording


def check_complete(recording: Recording, root: Path) -> None:
    """Check that replaying the recording gives the current content of the directory.

    Raises:
        Incomplete: it doesn't.
    """
    disk = Disk(recording.root, recording.inodes, recording.content)
    for event in recording.events:
        disk.apply(event)
    replayed = disk.after_crash("everything", "everything", random.Random(0))
    _, real = snapshot(root)
    wrong = sorted(path for path in replayed.keys() | real.keys() if replayed.get(path, 0) != real.get(path, 0))
    if wrong:
        raise Incomplete(f"the recording of {recording.case} leads to other content of {wrong}")


# --- cases ------------------------------------------------------------------------------------------------------


def first_start(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """Neither file nor directory exists; the far end is down."""
    daemon = Daemon("first_start", lab, directory, fault=fault, outbox="var/bridge/outbox.db")
    with ending(daemon):
        lab.far_end.do("state", listening=False)
        daemon.start()
        for wave in range(5):
            lab.publish(f"{daemon.topic}/d", range(30 * wave + 1, 30 * wave + 31))
        daemon.wait_received(150)
        daemon.stop()
    return daemon.recording()


def normal(lab: Lab, directory: Path, fault: str = "none", **settings: str) -> Recording:
    """Delivery, checkpoints, SIGKILL, a second start, a clean end."""
    daemon = Daemon(directory.name, lab, directory, fault=fault, **settings)
    with ending(daemon):
        lab.far_end.do("state", listening=True)
        daemon.start()
        lab.publish(f"{daemon.topic}/d", range(1, 201), pad=LARGE)
        lab.publish(f"{daemon.topic}/d", range(201, 301))
        daemon.kill()
        daemon.start()
        lab.publish(f"{daemon.topic}/d", range(301, 501), pad=LARGE)
        daemon.wait_received(500, delivered=True)
        daemon.stop()
    return daemon.recording()


def deduplication(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """As ``normal``, with deduplication."""
    return normal(lab, directory, fault, BRIDGE_DELIVERY__DEDUPLICATE="true")


def holding(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """The outbox fills to its bound, the hold begins, the far end comes up, the hold ends."""
    daemon = Daemon("holding", lab, directory, fault=fault, BRIDGE_OUTBOX__MAX_BYTES=str(1 << 20))
    with ending(daemon):
        lab.far_end.do("state", listening=False)
        daemon.start()
        lab.publish(f"{daemon.topic}/d", range(1, 401), pad=LARGE)
        daemon.wait_holding()
        lab.far_end.do("state", listening=True)
        daemon.wait_received(400, delivered=True)
        daemon.stop()
    return daemon.recording()


def drop_oldest(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """The outbox fills to its bound, and the oldest rows are dropped."""
    settings = {"BRIDGE_OUTBOX__MAX_BYTES": str(1 << 20), "BRIDGE_OUTBOX__FULL": "drop_oldest"}
    daemon = Daemon("drop_oldest", lab, directory, fault=fault, **settings)
    with ending(daemon):
        lab.far_end.do("state", listening=False)
        daemon.start()
        lab.publish(f"{daemon.topic}/d", range(1, 501), pad=LARGE)
        daemon.wait_received(500)
        daemon.stop()
    return daemon.recording()


def rescue(lab: Lab, directory: Path, fault: str = "none", *, is_read: bool = False) -> Recording:
    """The daemon starts with a damaged file, rescues it and continues; the far end is down."""
    daemon = Daemon(directory.name, lab, directory, fault=fault)
    path = daemon.root / daemon.outbox
    make_damaged(path, directory)
    with ending(daemon), reading(path) if is_read else contextlib.nullcontext():
        lab.far_end.do("state", listening=False)
        daemon.start()
        for wave in range(3):
            lab.publish(f"{daemon.topic}/d", range(OLD + 30 * wave + 1, OLD + 30 * wave + 31))
        daemon.wait_received(OLD + 90)
        daemon.stop()
    return daemon.recording()


def rescue_while_read(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """As ``rescue``, while another process reads the file: the write-ahead log stays when the daemon closes it."""
    return rescue(lab, directory, fault, is_read=True)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Keep the file open, as ``gdn-bridge deadletter`` or a backup does."""
    # In another process: closing any handle of a file releases all POSIX locks that the process has on it.
    command = [sys.executable, "-c", READ, f"file:{path}?mode=ro"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def make_damaged(path: Path, directory: Path) -> None:
    """An outbox as a killed bridge leaves it, with garbage within the file and rows in its write-ahead log."""
    whole = directory / "whole"
    whole.mkdir()
    outbox = Outbox(whole / path.name)
    outbox.open()
    for first in range(1, OLD + 1, 10):
        numbers = range(first, first + 10)
        outbox.commit(
            Commit(
                rows=[Row(STREAM, payload_of(n, LARGE)) for n in numbers if n % BAD_SHARE],
                dead_letters=[
                    DeadLetter("power/d", payload_of(n, LARGE), 1, 1, None, "not_json", "")
                    for n in numbers
                    if n % BAD_SHARE == 0
                ],
            )
        )
        if numbers[-1] == OLD_IN_FILE:
            with contextlib.closing(sqlite3.connect(whole / path.name)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for suffix in ("", "-wal", ".lock"):
        shutil.copy(f"{whole / path.name}{suffix}", f"{path}{suffix}")
    outbox.close()
    with path.open("r+b") as file:
        middle = path.stat().st_size // 2 // 4096 * 4096
        file.seek(middle)
        file.write(bytes(range(256)) * 16 * 4)  # four pages


def reload(lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """SIGHUP adds a route to another stream."""
    daemon = Daemon("reload", lab, directory, fault=fault)
    with ending(daemon):
        lab.far_end.do("state", listening=True)
        daemon.start()
        lab.publish(f"{daemon.topic}/d", range(1, 151))
        daemon.write_routes(**{STREAM: daemon.topic, OTHER_STREAM: f"{daemon.topic}/other"})
        daemon.reload()
        lab.publish(f"{daemon.topic}/d", range(151, 201))
        daemon.wait_received(200)
        # Before the new subscription the broker drops these.
        probes = iter(range(1000, 2000))

        def is_routed() -> bool:
            lab.publish(f"{daemon.topic}/other/d", [next(probes)])
            return bool(daemon.status()["books"]["received"] > 200)

        wait_for(is_routed, seconds=20, what="the other route")
        lab.publish(f"{daemon.topic}/other/d", range(201, 301))
        daemon.wait_received(301, delivered=True)
        daemon.stop()
    return daemon.recording()


CASES: dict[str, Callable[..., Recording]] = {
    "first_start": first_start,
    "normal": normal,
    "holding": holding,
    "drop_oldest": drop_oldest,
    "rescue": rescue,
    "rescue_while_read": rescue_while_read,
    "reload": reload,
    "deduplication": deduplication,
}


@contextlib.contextmanager
def ending(daemon: Daemon) -> Iterator[None]:
    """End all processes that are left."""
    try:
        yield
    finally:
        daemon.end()


def record(case: str, lab: Lab, directory: Path, fault: str = "none") -> Recording:
    """Record a case in a new directory."""
    target = directory / case
    target.mkdir()
    return CASES[case](lab, target, fault)


# --- the messages so far ----------------------------------------------------------------------------------------


@dataclass
class Known:
    """The state of the messages by the events so far."""

    unacked: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """Topic and payload of the messages without PUBACK on the last connection, by packet id."""
    acked: set[int] = field(default_factory=set)
    """PUBACKed messages."""
    receipted: set[int] = field(default_factory=set)
    """Messages whose row was receipted."""
    receipts: int = 0


class Reader:
    """Follows the events; ``known`` is the state after the last one."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.known = Known()
        self._links: dict[tuple[int, int], MqttReader | ProducerReader] = {}
        self._sent = {(e.process, e.object, e.a): e.b for e in recording.events if e.kind == SENT}

    def follow(self, event: Event) -> bool:
        """Take the next event; returns whether it was a PUBACK."""
        key = event.process, event.object
        if event.kind == CONNECTED:
            broker, _ = self._recording.ports
            self._links[key] = (MqttReader if event.a == broker else ProducerReader)(self.known)
        elif event.kind == RECEIVED:
            self._links[key].received(event.data)
        elif event.kind == SEND:
            # Without an end, the process was killed during the call: the peer may have all of it.
            sent = self._sent.get((*key, event.a), len(event.data))
            before = len(self.known.acked)
            self._links[key].sent(event.data[: max(0, sent)])
            return len(self.known.acked) > before
        return False


class MqttReader:
    """A connection to the broker."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._in, self._out = mqtt_packets.Splitter(), mqtt_packets.Splitter()
        self._version = 4
        self._unacked: dict[int, tuple[str, bytes]] = {}
        known.unacked = self._unacked  # an older connection is over

    def received(self, data: bytes) -> None:
        for head, body in self._in.feed(data):
            if head >> 4 == mqtt_packets.PUBLISH:
                topic, payload, packet_id, _ = mqtt_packets.read_publish(head, body, version=self._version)
                if packet_id:
                    self._unacked[packet_id] = topic, payload

    def sent(self, data: bytes) -> None:
        for head, body in self._out.feed(data):
            if head >> 4 == mqtt_packets.CONNECT:
                self._version = body[6]
            elif head >> 4 == mqtt_packets.PUBACK:
                _, payload = self._unacked.pop(int.from_bytes(body[:2], "big"))
                self._known.acked.add(number_of(payload))


class ProducerReader:
    """A connection to the far end; ignored unless it is a producer's."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._is_producer = False
        self._in, self._out = bytearray(), bytearray()
        self._rows: dict[str, bytes] = {}

    def sent(self, data: bytes) -> None:
        self._out += data
        if not self._is_producer and b"\r\n\r\n" in self._out:
            self._is_producer = self._out.startswith(b"GET /_ws/")
            head = self._out.index(b"\r\n\r\n") + 4 if self._is_producer else len(self._out)
            del self._out[:head]
        if self._is_producer:
            for text in _texts(self._out):
                send = json.loads(text)
                self._rows[send["context"]] = base64.b64decode(send["payload"])

    def received(self, data: bytes) -> None:
        self._in += data
        if not self._is_producer:
            self._in.clear()
            return
        if self._in.startswith(b"HTTP/"):
            end = self._in.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._in[: end + 4]
        for text in _texts(self._in):
            answer = json.loads(text)
            if answer["result"] == "ok":
                self._known.receipted.add(number_of(self._rows[answer["context"]]))
                self._known.receipts += 1


def _texts(buffer: bytearray) -> list[bytes]:
    """Remove the complete WebSocket texts from the start of the buffer and return them."""
    texts = []
    at = 0
    while len(buffer) - at >= 2:
        masked, size, start = buffer[at + 1] & 0x80, buffer[at + 1] & 0x7F, at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < start + width:
                break
            size, start = int.from_bytes(buffer[start : start + width], "big"), start + width
        stop = start + (4 if masked else 0) + size
        if stop > len(buffer):
            break
        text = bytes(buffer[stop - size : stop])
        if masked:
            mask = (bytes(buffer[start : start + 4]) * (size // 4 + 1))[:size]
            text = (int.from_bytes(text, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
        if buffer[at] & 0x0F == 1:
            texts.append(text)
        at = stop
    del buffer[:at]
    return texts


# --- states -----------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """A state of the disk that a power loss could leave."""

    point: int
    """The event after which it happens."""
    names: Survival
    data: Survival
    tree: Tree


def choose_points(recording: Recording, *, seed: int, points: int) -> list[int]:
    """Numbers of events: if possible a third changes of names, a third PUBACKs, a third other changes of the disk."""
    reader = Reader(recording)
    acks = [n for n, event in enumerate(recording.events) if reader.follow(event)]
    names = [n for n, event in enumerate(recording.events) if event.kind in NAMES]
    rest = [n for n, event in enumerate(recording.events) if event.kind in DISK and event.kind not in NAMES]
    rng = random.Random(f"{seed}/{recording.case}/points")
    chosen: list[int] = []
    for left, kind in ((3, names), (2, acks), (1, rest)):
        chosen += rng.sample(kind, min(len(kind), (points - len(chosen)) // left))
    return sorted(chosen)


def rebuild(recording: Recording, *, seed: int, points: int) -> Iterator[tuple[State, Known, Disk]]:
    """States in the order of their points, each with the state of the messages at its point."""
    chosen = iter(choose_points(recording, seed=seed, points=points))
    disk = Disk(recording.root, recording.inodes, recording.content)
    reader = Reader(recording)
    point = next(chosen, None)
    for n, event in enumerate(recording.events):
        disk.apply(event)
        reader.follow(event)
        if n != point:
            continue
        for variant in range(VARIANTS):
            rng = random.Random(f"{seed}/{recording.case}/{n}/{variant}")
            names, data = (rng.choice(SURVIVALS), rng.choice(SURVIVALS)) if variant else ("nothing", "nothing")
            yield State(n, names, data, disk.after_crash(names, data, rng)), reader.known, disk
        point = next(chosen, None)


# --- judging ----------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The content of a state after the bridge has opened it."""

    error: str | None
    name: str
    rows: tuple[int, ...]
    """Numbers, in the order of the records' ids in each stream."""
    dead: frozenset[int]
    received: int
    delivered: int
    outbox: int
    dead_lettered: int
    dropped: Counter[str]
    balanced: bool
    was_rescued: bool
    seen_messages: tuple[tuple[int, bytes], ...]


class Reopened(Outbox):
    """Opens a state in another directory as if the file still had its inode, so that it doesn't count as a copy."""

    inode = 0

    def _inode(self) -> int:
        return self.inode


@dataclass
class Tally:
    """The verdict on one case."""

    case: str
    points: int = 0
    states: int = 0
    opened: int = 0
    """The number of distinct states."""
    acked: int = 0
    events: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    """States by the name of the outbox: a copy or a rescued one may get a new name."""
    saved: int = 0
    """Messages in a damaged outbox that a rescue saves."""
    violations: list[str] = field(default_factory=list)


def judge(recording: Recording, *, seed: int, points: int, enough: int = 20) -> Tally:
    """Check states of the recording; stops after ``enough`` violations."""
    with capture_logs():
        return _judge(recording, seed=seed, points=points, enough=enough)


def _judge(recording: Recording, *, seed: int, points: int, enough: int) -> Tally:
    tally = Tally(recording.case, events=Counter(event.kind for event in recording.events))
    seen: dict[bytes, Found] = {}
    saved: frozenset[int] = frozenset()
    if recording.was_damaged:
        first = open_state(recording.content, recording, recording.inodes[recording.outbox])
        saved = first.dead | set(first.rows)
        tally.saved = len(saved)
    last = -1
    for state, known, disk in rebuild(recording, seed=seed, points=points):
        key = digest(state.tree)
        if key not in seen:
            inode = 0
            if recording.outbox in state.tree:
                with contextlib.suppress(KeyError, StopIteration):
                    inode = disk.inode(recording.outbox)
            seen[key] = open_state(state.tree, recording, inode)
        found = seen[key]
        tally.points += state.point != last
        last = state.point
        tally.states += 1
        tally.acked = len(known.acked)
        tally.names[found.name] += 1
        where = f"{recording.case}, after event {state.point}, names: {state.names}, data: {state.data}"
        tally.violations += [f"{where}: {problem}" for problem in problems(found, known, recording, saved)]
        if len(tally.violations) >= enough:
            break
    tally.opened = len(seen)
    return tally


def open_state(tree: Tree, recording: Recording, inode: int) -> Found:
    """Open a state as the bridge does when it starts, and read all that is in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        root = Path(directory)
        write_tree(tree, root)
        path = root / recording.outbox
        before = set(root.rglob("*.damaged-*"))
        outbox = Reopened(path)
        outbox.inode = inode
        try:
            outbox.open()
        except (BridgeError, sqlite3.Error, OSError) as exc:
            return Found(repr(exc), "", (), frozenset(), 0, 0, 0, 0, Counter(), False, False, ())
        try:
            return _read(outbox, path, was_rescued=set(root.rglob("*.damaged-*")) != before)
        finally:
            outbox.close()


def _read(outbox: Outbox, path: Path, *, was_rescued: bool) -> Found:
    rows: list[int] = []
    for stream in outbox.streams():
        records = [record for record, _ in outbox.numbered(stream)[0]]
        after = 0
        while page := outbox.read(stream, after=after, limit=1000, max_bytes=1 << 24):
            records += page
            after = page[-1].id
        rows += [number_of(record.payload) for record in sorted(records, key=lambda record: record.id)]
    with DeadLetterClient(path) as client:
        dead = frozenset(number_of(stored.dead_letter.payload) for stored in client.dead_letters(Selection()))
    books = outbox.books()
    return Found(
        None,
        outbox.name,
        tuple(rows),
        dead,
        books.received,
        books.delivered,
        books.outbox,
        sum(books.dead_lettered.values()),
        Counter(books.dropped),
        books.balanced,
        was_rescued,
        tuple(outbox.seen_messages()),
    )


def problems(found: Found, known: Known, recording: Recording, saved: frozenset[int]) -> list[str]:
    """The violations in a state. ``saved``: the messages in a damaged outbox that a rescue saves."""
    if found.error is not None:
        return [f"the bridge can't start: {found.error}"]
    wrong = []
    there = found.dead | set(found.rows)
    lost = (known.acked | saved) - there - known.receipted
    if recording.case == "drop_oldest":
        # The oldest rows may be dropped, each counted.
        dropped = {n for n in lost if n < min(found.rows, default=0) and n % BAD_SHARE}
        lost -= dropped if len(dropped) <= found.dropped["outbox_full"] else set()
    if lost:
        wrong.append(f"{len(lost)} messages that were PUBACKed are lost: {sorted(lost)[:10]}")
    if not found.balanced:
        wrong.append("the books don't balance")
    if found.outbox != len(found.rows) or found.dead_lettered < len(found.dead):
        wrong.append(f"the books say {found.outbox} records, {found.dead_lettered} dead letters")
    if found.delivered > known.receipts:
        wrong.append(f"the books say {found.delivered} delivered, the far end receipted {known.receipts}")
    if found.was_rescued and not recording.was_damaged:
        wrong.append("the file counts as damaged")
    if found.seen_messages:
        skipped = _skipped(found, known, recording) - there - known.receipted
        if skipped:
            wrong.append(f"messages that are lost would be skipped as redelivered: {sorted(skipped)[:10]}")
    return wrong


def _skipped(found: Found, known: Known, recording: Recording) -> set[int]:
    """The messages that the bridge would recognise as stored if the broker redelivered them."""
    redelivery = RedeliveryFilter(session=recording.session, batches=found.seen_messages)
    unacked = [
        MqttMessage(topic, payload, 1, False, packet_id, 0, dup=True)
        for packet_id, (topic, payload) in known.unacked.items()
    ]
    arrived, new = redelivery.split(unacked, session_present=True, now=0.0)
    kept = {id(message) for message in new}
    return {number_of(message.payload) for message in arrived if id(message) not in kept}


# --- the command ------------------------------------------------------------------------------------------------


def report(tallies: Sequence[Tally]) -> str:
    """A table, and the violations."""
    lines = [
        f"{'case':14}{'writes':>8}{'syncs':>8}{'names':>8}{'PUBACKed':>10}{'points':>8}{'states':>8}{'different':>10}"
        f"{'violations':>12}"
    ]
    for tally in tallies:
        names = sum(tally.events[kind] for kind in NAMES)
        lines.append(
            f"{tally.case:14}{tally.events[WRITE]:8}{tally.events[SYNC_DONE]:8}{names:8}{tally.acked:10}"
            f"{tally.points:8}{tally.states:8}{tally.opened:10}{len(tally.violations):12}"
        )
    lines.append(
        f"{sum(t.states for t in tallies)} states at {sum(t.points for t in tallies)} points, "
        f"{sum(len(t.violations) for t in tallies)} violations"
    )
    return "\n".join([*lines, *(violation for tally in tallies for violation in tally.violations)])


def main(argv: Sequence[str] | None = None) -> int:
    """Record and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=1000, help="over all cases")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    parser.add_argument("--fault", default="none", help="of the daemon: see faulty.py")
    parser.add_argument("--keep", type=Path, help="save the recordings here")
    parser.add_argument("--judge", type=Path, help="judge the recordings that were saved here")
    arguments = parser.parse_args(argv)
    cases = arguments.case or list(CASES)
    tallies = []
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        lab = None
        for case in cases:
            begun = time.monotonic()
            if arguments.judge:
                recording = Recording.load(arguments.judge / case)
            else:
                if lab is None:
                    lab = Lab(Path(made))
                    stack.callback(lab.end)
                recording = record(case, lab, Path(made), arguments.fault)
            if arguments.keep:
                (arguments.keep / case).mkdir(parents=True)
                recording.save(arguments.keep / case)
            print(f"{case}: recorded in {time.monotonic() - begun:.1f} s", file=sys.stderr)
            begun = time.monotonic()
            tallies.append(judge(recording, seed=arguments.seed, points=-(-arguments.points // len(cases))))
            print(f"{case}: judged in {time.monotonic() - begun:.1f} s", file=sys.stderr)
    print(report(tallies))
    return 1 if any(tally.violations for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
