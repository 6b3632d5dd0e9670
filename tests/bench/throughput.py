"""The durable daemon compared with the tutorial's program, on the same Mosquitto and the same acker, in turns.

Prints messages per second, CPU per message, lost and duplicate rows, and the ratios of each round: the bridge to the
tutorial's program, and with deduplication to without. Absolute figures depend on the machine; the ratios don't. Each
message has its own topic, the worst case for a mapping that caches topics.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, Bridge, Mosquitto, wait_for

ROUNDS = 3
COUNT = 20_000
SECONDS = 90.0


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = Mosquitto(directory)
        definition = str(ROOT / "config" / "worker.sql")
        self.acker = subprocess.Popen([sys.executable, "-m", "tests.bench.acker", definition], stdout=subprocess.PIPE)
        assert self.acker.stdout is not None
        self.port = int(self.acker.stdout.readline())

    def end(self) -> None:
        self.acker.kill()
        self.acker.wait()
        assert self.acker.stdout is not None
        self.acker.stdout.close()
        self.broker.end()

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)

    def daemon(self, name: str, *, deduplicate: bool = False) -> float:
        directory = self.directory / name
        directory.mkdir()
        bridge = Bridge(directory, mqtt_port=self.broker.port, gdn_url=f"http://127.0.0.1:{self.port}")
        bridge.settings["BRIDGE_MQTT__CLIENT_ID"] = name
        bridge.settings["BRIDGE_DELIVERY__DEDUPLICATE"] = str(deduplicate).lower()
        process = bridge.start()
        try:
            bridge.wait_ready()
            return self.measure("with deduplication" if deduplicate else "the daemon", process.pid)
        finally:
            process.end()

    def tutorial(self) -> float:
        command = [sys.executable, "-m", "tests.bench.tutorial_way", str(self.broker.port), str(self.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                return self.measure("the tutorial's way", process.pid)
            finally:
                process.kill()

    def measure(self, name: str, pid: int) -> float:
        """Messages per second, from the first publish to the last receipt."""
        self.ask("/reset")
        cpu = _cpu_seconds(pid)
        command = [sys.executable, "-m", "tests.bench.publish", str(self.broker.port), str(COUNT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as publisher:
            assert publisher.stdout is not None
            start = float(publisher.stdout.readline())
            publisher.wait(SECONDS)
        wait_for(lambda: self.ask("/counts")["unique"] >= COUNT, seconds=SECONDS, what="all rows")
        counts = self.ask("/counts")
        time.sleep(0.2)  # the last releases are part of the work
        spent = (_cpu_seconds(pid) - cpu) / COUNT
        rate: float = COUNT / (counts["last_at"] - start)
        print(
            f"{name:20} {rate:8.0f} msg/s   {spent * 1e6:6.1f} µs CPU/msg   missing {COUNT - counts['unique']}   "
            f"doubled {counts['frames'] - counts['unique']}",
            flush=True,
        )
        return rate


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gdn-bridge-bench-", dir=".") as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)  # Mosquitto reads its configuration as another user
        bench = Bench(directory)
        try:
            ratios, shares = [], []
            for number in range(ROUNDS):
                rate = bench.daemon(f"bench-{number}")
                ratios.append(rate / bench.tutorial())
                shares.append(bench.daemon(f"bench-once-{number}", deduplicate=True) / rate)
                print(f"ratio {ratios[-1]:.1f}, with deduplication {shares[-1]:.2f} of the rate\n", flush=True)
            print(f"median ratio: {statistics.median(ratios):.1f}, deduplication: {statistics.median(shares):.2f}")
        finally:
            bench.end()


if __name__ == "__main__":
    main()
