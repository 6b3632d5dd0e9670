"""The verb ``demo``: runs broker, local GDN, simulated devices and bridge on this machine, then checks the books.

Bridge and local GDN run as separate processes, as in production; only the devices run in this one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge import signals
from bridge.local import child
from bridge.local.broker import Broker, free_port, start_broker
from bridge.local.devices import Devices
from bridge.streamql import parse

API_KEY = "demo.local.key"
TENANT = "demo"
START_SECONDS = 30.0
DRAIN_SECONDS = 30.0
SHOWN_ROWS = 10

WORKER = """@App:name('demo_worker')
@App:qlVersion("2")
CREATE FUNCTION roomOf[javascript] return string {
    return data[0] + '-' + data[1];
};
CREATE STREAM readings (deviceID string, roomNo int, temperature double);
CREATE TABLE GLOBAL temperatures (id string, temperature double);
INSERT INTO temperatures
SELECT roomOf(roomNo, deviceID) AS id, temperature
FROM readings;
"""
COLLECTION = "temperatures"
ROUTES = [{"topic": "devices/{deviceID}/rooms/{roomNo}/telemetry", "stream": "readings"}]


def run_demo(*, seconds: float, rate: float, as_json: bool) -> int:
    """Run the demonstration.

    Args:
        seconds: how long the devices publish.
        rate: messages per second.
        as_json: print only one JSON object to stdout.

    Returns:
        The exit code: 0 if every published reading is accounted for.

    Raises:
        RuntimeError: the demonstration was aborted.
    """
    console = Console(stderr=as_json, quiet=as_json)
    with tempfile.TemporaryDirectory(prefix="gdn-bridge-demo-") as name:
        demo = _Demo(Path(name), console)
        try:
            _abort_on_signals()
            result = demo.run(seconds=seconds, rate=rate)
        except (RuntimeError, OSError, KeyboardInterrupt) as exc:
            raise RuntimeError(f"the demonstration was aborted: {exc}") from exc
        finally:
            demo.stop()
    if as_json:
        print(json.dumps(result))
    else:
        _show(console, result, demo.rows)
    return 0 if result["balanced"] else 1


def _abort_on_signals() -> None:
    """The first signal that ends the demonstration becomes KeyboardInterrupt; later ones don't disturb the clean-up."""
    arrived = False

    def abort(number: int, _frame: object) -> None:
        nonlocal arrived
        if not arrived:
            arrived = True
            raise KeyboardInterrupt("interrupted" if number == signal.SIGINT else signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, abort)
    signals.unblock()


class _Demo:
    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._broker: Broker | None = None
        self._devices: Devices | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cleaner: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._gdn = f"http://127.0.0.1:{free_port()}"
        self._status = f"http://127.0.0.1:{free_port()}"
        self.rows: list[dict[str, Any]] = []

    def run(self, *, seconds: float, rate: float) -> dict[str, Any]:
        # Removes the directory if this process can't: it ends when this end of the pipe is closed.
        self._cleaner = subprocess.Popen(  # noqa: S603 - this program itself
            child.cleaner(str(self._directory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._broker = broker = start_broker(self._directory)
        self._console.print(f"{broker.name} on port {broker.port}; local GDN at {self._gdn}")
        self._start("local-gdn", "--port", self._gdn.rpartition(":")[2], "--api-key", API_KEY, "--tenant", TENANT)
        bridge = self._start("run", environment=self._settings(broker))
        self._wait("the bridge", bridge, lambda: self._readiness()["ready"])
        self._console.print(f"the bridge is ready; its status page is at {self._status}\n")

        self._devices = devices = Devices(port=broker.port, rate=rate)
        watching = threading.Thread(target=self._watch, args=(devices,), daemon=True)
        watching.start()
        devices.publish_for(seconds)
        published = devices.acknowledged
        self._drain(len(published))
        self._ended.set()
        watching.join()

        self.rows = self._query(f"FOR d IN {COLLECTION} RETURN d")
        found = {row["id"] for row in self.rows}
        books = self._readiness()["books"]
        return {
            "published": len(published),
            **{part: books[part] for part in ("received", "delivered", "outbox", "dead_lettered", "dropped")},
            "rows": len(self.rows),
            "balanced": bool(
                books["balanced"] and published <= found and len(self.rows) >= books["delivered"] >= len(published) > 0
            ),
        }

    def stop(self) -> None:
        self._ended.set()
        if self._devices is not None:
            self._devices.stop()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._broker is not None:
            self._broker.stop()
        if self._cleaner is not None:
            self._cleaner.communicate(timeout=15)

    def _settings(self, broker: Broker) -> dict[str, str]:
        definition = self._directory / "worker.sql"
        definition.write_text(WORKER)
        return {
            "BRIDGE_MQTT__URL": f"mqtt://127.0.0.1:{broker.port}",
            "BRIDGE_MQTT__PROTOCOL": broker.protocol,
            "BRIDGE_MQTT__CLIENT_ID": "gdn-bridge-demo",
            "BRIDGE_GDN__URL": self._gdn,
            "BRIDGE_GDN__API_KEY": API_KEY,
            "BRIDGE_GDN__TENANT": TENANT,
            "BRIDGE_WORKER__DEFINITION": str(definition),
            "BRIDGE_WORKER__SETTLE_TIME": "1",
            "BRIDGE_HEALTH__QUERY_INTERVAL": "2",
            "BRIDGE_ROUTES": json.dumps(ROUTES),
            "BRIDGE_OUTBOX__PATH": str(self._directory / "outbox.db"),
            "BRIDGE_STATUS__LISTEN": self._status.removeprefix("http://"),
            "BRIDGE_LOG__LEVEL": "warning",
        }

    def _start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        log = self._directory / f"{arguments[0]}.log"
        # The user's own settings must not affect the demonstration.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
        with log.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 - this program itself
                child.command(sys.executable, "-m", "bridge", *arguments),
                env={**inherited, **(environment or {})},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._processes.append(process)
        return process

    def _wait(self, what: str, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if condition():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.1)
        logs = "\n".join(
            f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in self._directory.glob("*.log")
        )
        raise RuntimeError(f"{what} did not become ready.\n{logs}")

    def _watch(self, devices: Devices) -> None:
        while not self._ended.wait(1.0):
            try:
                books = self._readiness()["books"]
            except OSError:  # the bridge has ended, which is reported elsewhere
                return
            self._console.print(
                f"published {len(devices.acknowledged):>6}   received {books['received']:>6}   "
                f"delivered {books['delivered']:>6}   in the outbox {books['outbox']:>4}"
            )

    def _drain(self, published: int) -> None:
        """Wait until everything published is delivered and its rows exist, or the time is up."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            books = self._readiness()["books"]
            if books["outbox"] == 0 and books["delivered"] >= published:
                (rows,) = self._query(f"RETURN LENGTH({COLLECTION})")
                if rows >= books["delivered"]:
                    return
            time.sleep(0.1)

    def _readiness(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self._status}/readyz", timeout=5) as answer:  # noqa: S310 - our own address
                body = answer.read()
        except urllib.error.HTTPError as exc:  # 503: not ready, with the same body
            body = exc.read()
        return json.loads(body)  # type: ignore[no-any-return]

    def _query(self, query: str) -> list[Any]:
        """All rows of a query, from the local GDN directly rather than through the bridge."""
        path = "/_fabric/_system/_api/cursor"
        answer = self._call("POST", path, {"query": query, "batchSize": 1000})
        rows = list(answer["result"])
        while answer["hasMore"]:
            answer = self._call("PUT", f"{path}/{answer['id']}", None)
            rows += answer["result"]
        return rows

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own address
            self._gdn + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"apikey {API_KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)  # type: ignore[no-any-return]


def _show(console: Console, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"collection {COLLECTION}: {result['rows']} rows, the last {len(rows[-SHOWN_ROWS:])}")
    columns = [column.name for column in parse(WORKER).tables[COLLECTION].attributes or ()]
    for column in columns:
        table.add_column(column)
    for row in rows[-SHOWN_ROWS:]:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)
    console.print(
        f"received {result['received']} = delivered {result['delivered']} + outbox {result['outbox']} "
        f"+ dead-lettered {result['dead_lettered']} + dropped {result['dropped']}"
    )
    if result["balanced"]:
        console.print(f"all {result['published']} published readings are rows in the collection; the books balance")
    else:
        console.print("[bold red]the books don't balance, or rows are missing[/]")
