"""The soak: a bridge with a healthy far end raises no alert and stays within the limits of the free tier.

``python -m tests.soak.run --minutes M`` runs a Mosquitto, a local GDN, devices at a steady rate with one burst, the
daemon with its default intervals, three checks and a canary, and a Prometheus with the shipped rules. It prints
figures and violations; exit code 1 if there is any.

Requests are counted at the far end, from readiness on: a start costs its requests only once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.local.devices import Devices
from tests.conftest import CANARY, TABLE, Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all
from tests.soak.prometheus import Prometheus

PER_MINUTE, PER_DAY = 500, 20_000
"""Requests that GDN's free tier allows (gdn-api.md A.6)."""

RATE = 5.0
"""Messages per second."""

BURST = 2000
"""Messages of one burst at full speed, when a quarter of the time has passed."""

GROWTH = 8 << 20
"""Bytes that memory may grow by after the first third. Each message has a topic of its own: 10,000 are remembered."""

SETTINGS = {
    **CANARY,
    "BRIDGE_HEALTH__CHECKS": json.dumps(
        [
            {"name": "rows come", "query": f"RETURN LENGTH({TABLE})", "changes_within": 600},
            {"name": "some rows", "query": f"RETURN LENGTH({TABLE})", "min": 1},
            {"name": "no frost", "query": f"FOR d IN {TABLE} FILTER d.temperature < -40 RETURN d.id", "rows": 0},
        ]
    ),
}


@dataclass
class Soaked:
    """The measurements of a run."""

    not_ready: dict[str, int] = field(default_factory=dict)
    """Seconds in which /readyz wasn't 200, by its text."""
    looks: int = 0
    requests: list[tuple[float, int]] = field(default_factory=list)
    """Points in time, with the number of requests that the far end had received until then."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the bridge at each sample."""
    scrapes: float = 0
    down: float = 0
    """Scrapes that failed."""
    rules: int = 0
    """Rules that Prometheus evaluated."""
    alerts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Evaluations at which an alert was ``pending`` or ``firing``."""
    missing: int = 0
    """Acknowledged messages without a row."""
    rows: int = 0
    published: int = 0
    canaries_left: int = 0
    health: dict[str, Any] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)
    exit_code: int = -1

    @property
    def requests_a_day(self) -> float:
        """Requests per day, extrapolated from the run."""
        (began, first), (ended, last) = self.requests[0], self.requests[-1]
        return (last - first) / (ended - began) * 86400

    @property
    def requests_a_minute(self) -> int:
        """The maximum in any 60 seconds."""
        most = at = 0
        for moment, count in self.requests:
            while moment - self.requests[at][0] > 60:
                at += 1
            most = max(most, count - self.requests[at][1])
        return most

    @property
    def growth(self) -> int:
        """Growth of resident memory in bytes, from the end of the first third."""
        return self.memory[-1] - self.memory[len(self.memory) // 3 - 1]

    def figures(self) -> Iterator[str]:
        """The figures as text."""
        yield f"readiness    {self.looks} looks, {sum(self.not_ready.values())} of them not ready"
        made, most = self.requests[-1][1] - self.requests[0][1], self.requests_a_minute
        yield f"requests     {made} in all, at most {most} in a minute, {self.requests_a_day:.0f} a day"
        thirds = [self.memory[len(self.memory) * third // 3 - 1] / 2**20 for third in (1, 2, 3)]
        yield f"memory       {', '.join(f'{size:.1f}' for size in thirds)} MiB after each third"
        yield f"Prometheus   {self.scrapes:.0f} scrapes, {self.rules} rules; alerts: {dict(self.alerts) or 'none'}"
        yield f"rows         {self.published} published, {self.rows} in the table"
        yield f"health       {json.dumps(self.health)}"
        yield f"books        {json.dumps(self.books)}"

    def faults(self) -> Iterator[str]:
        """The violations, one sentence each."""
        yield from self._faults_while_it_ran()
        yield from self._faults_of_prometheus()
        yield from self._faults_at_the_end()

    def _faults_while_it_ran(self) -> Iterator[str]:
        for said, seconds in self.not_ready.items():
            yield f"/readyz was not 200 for {seconds} s: {said}"
        if self.requests_a_minute >= PER_MINUTE:
            yield f"{self.requests_a_minute} requests in a minute; {PER_MINUTE} are allowed"
        if self.requests_a_day >= PER_DAY:
            yield f"{self.requests_a_day:.0f} requests a day; {PER_DAY} are allowed"
        if self.growth > GROWTH:
            yield f"memory grew by {self.growth} bytes; {GROWTH} may be"

    def _faults_of_prometheus(self) -> Iterator[str]:
        if not self.scrapes or self.down:
            yield f"{self.down:.0f} of {self.scrapes:.0f} scrapes failed"
        if not self.rules:
            yield "no rule was evaluated"
        for (alert, state), times in self.alerts.items():
            yield f"{alert} was {state} at {times} evaluations"

    def _faults_at_the_end(self) -> Iterator[str]:
        if self.missing or self.rows != self.published:
            yield f"{self.published} messages became {self.rows} rows, {self.missing} none at all"
        if self.canaries_left:
            yield f"{self.canaries_left} canaries were left in the table"
        if self.health["rows_behind"] or self.health["rows_lost"] or self.health["canary"]["rounds"]["lost"]:
            yield f"the bridge's own view of its far end: {json.dumps(self.health)}"
        if not self.books["balanced"] or self.books["outbox"] or self.books["dead_lettered"]:
            yield f"the books: {json.dumps(self.books)}"
        if self.exit_code:
            yield f"the bridge ended with exit code {self.exit_code}"


def soak(seconds: float, directory: Path) -> Soaked:
    """Run for that long after readiness; returns the measurements."""
    program = shutil.which("prometheus")
    if program is None:
        raise FileNotFoundError("the program prometheus is not installed")
    with ExitStack() as running:

        def ended(process: Any) -> Any:
            running.callback(process.end)
            return process

        broker = ended(Mosquitto(directory))
        gdn = ended(LocalGdn(directory))
        bridge = Bridge(directory, mqtt_port=broker.port, gdn_url=gdn.url, **SETTINGS)
        bridge.use_shipped_intervals()
        process = ended(bridge.start())
        bridge.wait_subscribed()
        # One row from the start: a check expects it.
        devices = Devices(port=broker.port, rate=RATE)
        running.callback(devices.stop)
        devices.publish_for(1)
        wait_for(lambda: bridge.readiness()["ready"], seconds=120, what="readiness")
        prometheus = ended(Prometheus(directory, program, f"127.0.0.1:{bridge.status_port}"))
        seen = Soaked()
        steady = threading.Thread(target=devices.publish_for, args=(seconds,))
        steady.start()
        burst = [(f"devices/burst/rooms/{n}/telemetry", b'{"temperature": 21.5}') for n in range(BURST)]
        _watch(seen, seconds, bridge, process, gdn, burst=lambda: publish_all(broker.port, burst))
        steady.join()
        published = devices.acknowledged | {f"{n}-burst" for n in range(BURST)}
        seen.published = len(published)
        wait_for(lambda: bridge.books().get("outbox") == 0, what="an empty outbox")
        wait_for(lambda: gdn.call("GET", "/_local/stats")["waiting"] == 0, what="all rows processed")
        wait_for(
            lambda: bridge.readiness()["health"]["rows_behind"] == 0, seconds=150, what="a count without rows behind"
        )
        _judge(seen, published, bridge, gdn, prometheus)
        seen.exit_code = process.terminate()
        return seen


def _watch(
    seen: Soaked, seconds: float, bridge: Bridge, process: Process, gdn: LocalGdn, burst: Callable[[], object]
) -> None:
    begun = time.monotonic()
    is_burst_due = True
    while (elapsed := time.monotonic() - begun) < seconds:
        status, body = bridge.get("/readyz")
        seen.looks += 1
        if status != 200:
            parts = json.loads(body)["parts"] if status else []
            said = "; ".join(f"{p['name']} {p['state']}: {p['error']}" for p in parts if p["state"] != "connected")
            seen.not_ready[said or body] = seen.not_ready.get(said or body, 0) + 1
        seen.requests.append((time.monotonic(), gdn.call("GET", "/_local/stats")["requests"]))
        seen.memory.append(_resident(process.pid))
        if is_burst_due and elapsed > seconds / 4:
            is_burst_due = False
            burst()
        time.sleep(max(0.0, seen.looks - (time.monotonic() - begun)))


def _judge(seen: Soaked, published: set[str], bridge: Bridge, gdn: LocalGdn, prometheus: Prometheus) -> None:
    """Record what is there at the end."""
    for _ in range(20):
        ids = gdn.query(f"FOR d IN {TABLE} RETURN d.id")
        seen.canaries_left = sum("-canary-" in id_ for id_ in ids)
        if not seen.canaries_left:
            break
        time.sleep(0.5)  # one may be under way
    seen.rows = len(ids) - seen.canaries_left
    seen.missing = len(published - set(ids))
    readiness = bridge.readiness()
    seen.health, seen.books = readiness["health"], readiness["books"]
    ((_, seen.scrapes),) = prometheus.ask("count_over_time(up[1d])")
    seen.down = seen.scrapes - prometheus.ask("sum_over_time(up[1d])")[0][1]
    seen.rules = prometheus.rules()
    for labels, times in prometheus.ask("count_over_time(ALERTS[1d])"):
        seen.alerts[labels["alertname"], labels["alertstate"]] += int(times)


def _resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gdn-bridge-soak-") as directory:
        seen = soak(60 * asked.minutes, Path(directory))
    print("\n".join(seen.figures()))
    faults = list(seen.faults())
    print("\n".join(f"DOES NOT HOLD: {fault}" for fault in faults) or "all holds")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
