"""Messages of a kilobyte that become 8 MiB of rows each, beside a device of another route, in 256 MB of memory."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.bench.acker import Acker
from tests.conftest import Bridge, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM attacked (n long, place string);
CREATE STREAM readings (n long);
CREATE TABLE kept (n long);
INSERT INTO kept SELECT n FROM readings;
"""
ATTACK_TOPIC = "a/" + "x" * 760
MESSAGES = 40
ROWS = 9_990
LIMIT = 256_000_000
CGROUPS = Path("/sys/fs/cgroup")


class NotedRows(Counter[bytes]):
    """Notes when each short row came; keeps no long one."""

    def __init__(self, came_at: dict[int, float]) -> None:
        super().__init__()
        self._came_at = came_at

    def __setitem__(self, payload: bytes, n: int) -> None:
        if len(payload) < 100:
            row = json.loads(b64decode(payload))
            self._came_at.setdefault(row["n"], time.monotonic())


@pytest.fixture
def limited() -> Iterator[Path]:
    """A cgroup that kills what takes more than ``LIMIT`` bytes; a process joins it by its ``cgroup.procs``."""
    is_v1 = (CGROUPS / "memory").is_dir()
    group = (CGROUPS / "memory" if is_v1 else CGROUPS) / f"gdn-bridge-test-{os.getpid()}"
    try:
        if not is_v1:
            (CGROUPS / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(LIMIT))
    except OSError as exc:
        pytest.skip(f"limiting memory needs root and the cgroup controller memory: {exc}")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), what="the end of the limited process")
    group.rmdir()


@pytest.mark.parametrize(
    ("version", "compression"), [("5", "gzip"), ("3.1.1", "none")], ids=["mqtt 5, gzip", "mqtt 3.1.1, plain"]
)
def test_messages_with_many_rows_cost_neither_memory_nor_the_other_devices_time(
    limited: Path, mosquitto: Mosquitto, tmp_path: Path, version: str, compression: str
) -> None:
    came_at: dict[int, float] = {}
    far_end = Acker(DEFINITION)
    far_end.payloads = NotedRows(came_at)
    threading.Thread(target=far_end.serve, daemon=True).start()
    definition = tmp_path / "worker.sql"
    definition.write_text(DEFINITION)
    payload = json.dumps([{"n": 1}] * ROWS, separators=(",", ":")).encode()
    bridge = Bridge(
        tmp_path,
        mqtt_port=mosquitto.port,
        gdn_url=f"http://127.0.0.1:{far_end.port}",
        BRIDGE_MQTT__PROTOCOL=version,
        BRIDGE_WORKER__DEFINITION=str(definition),
        BRIDGE_ROUTES=json.dumps(
            [
                {"topic": "a/{place}", "stream": "attacked", "compression": compression},
                {"topic": "r/{device}", "stream": "readings"},
            ]
        ),
    )
    process = bridge.start()
    (limited / "cgroup.procs").write_text(str(process.pid))
    try:
        bridge.wait_ready()
        attack = [(ATTACK_TOPIC, gzip.compress(payload) if compression == "gzip" else payload)] * MESSAGES
        sent_at: dict[int, float] = {}
        ended = threading.Event()

        def publish_readings() -> None:
            for n in count():
                if ended.wait(0.1):
                    return
                sent_at[n] = time.monotonic()
                publish_all(mosquitto.port, [("r/1", json.dumps({"n": n}).encode())])

        device = threading.Thread(target=publish_readings)
        device.start()
        begun = time.monotonic()
        publish_all(mosquitto.port, attack)
        wait_for(
            lambda: not process.is_running or bridge.books().get("received", 0) >= MESSAGES * ROWS,
            seconds=150,
            what="the attack to be stored",
        )
        ended.set()
        of_one_message = (time.monotonic() - begun) / MESSAGES
        device.join()
        assert process.is_running, "it was killed for its memory"
        wait_for(lambda: came_at.keys() >= sent_at.keys(), what="the readings")
        late = max(came_at[n] - at for n, at in sent_at.items())
        print(
            f"{len(sent_at)} readings, at most {late:.2f} s late; {of_one_message:.2f} s for each message of the attack"
        )
        assert len(sent_at) > 10
        # On a machine that is busy with other tests a message of the attack takes longer.
        assert late < max(1.0, 6 * of_one_message)
        print(f"peak {bridge.peak_memory() / 1e6:.0f} MB")
        assert bridge.peak_memory() < 150_000_000
        assert bridge.books()["balanced"]
    finally:
        process.end()
