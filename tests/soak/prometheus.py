"""A real Prometheus beside the bridge, with the shipped rules."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from bridge.local.broker import free_port
from tests.conftest import ROOT, Process, is_listening, wait_for

SECONDS = 2
"""Seconds between two scrapes, and between two evaluations of the rules."""


class Prometheus(Process):
    """A Prometheus on a loopback port.

    Args:
        directory: for its configuration, data and log.
        program: its path.
        target: ``host:port`` to scrape.
    """

    def __init__(self, directory: Path, program: str, target: str) -> None:
        self.port = free_port()
        configuration = directory / "prometheus.yml"
        times = {"scrape_interval": f"{SECONDS}s", "evaluation_interval": f"{SECONDS}s"}
        job = {"job_name": "gdn-bridge", "static_configs": [{"targets": [target]}]}
        rules = [str(ROOT / "deploy" / "prometheus" / "rules.yml")]
        # JSON is YAML, too.
        configuration.write_text(json.dumps({"global": times, "rule_files": rules, "scrape_configs": [job]}))
        command = [
            *(program, f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'prometheus'}"),
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        super().__init__(command, directory / "prometheus.log")
        wait_for(lambda: is_listening(self.port), what="Prometheus")

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that a query gives now."""
        found = self._get(f"query?query={urllib.parse.quote(query)}")["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def rules(self) -> int:
        """The number of rules that were evaluated without an error."""
        return sum(rule["health"] == "ok" for group in self._get("rules")["groups"] for rule in group["rules"])

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
        return found
