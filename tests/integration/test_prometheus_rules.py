"""The alerts and the dashboard: each alert fires when it should, and all metrics that they query exist.

The rules are tested with Prometheus' own ``promtool test rules``. Its test files are YAML, so JSON works, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.watch.metrics import DEFINITIONS

pytestmark = pytest.mark.integration

RULES = Path("deploy/prometheus/rules.yml")
DASHBOARD = Path("deploy/grafana/gdn-bridge.json")

NAME = re.compile(r"\bgdn_bridge_\w+")

BASE = 'instance="a:8080",job="gdn-bridge"'

# For each alert: series that make it fire as (name, values), the minute at which it must fire, and an earlier one at
# which it must not. In promtool's notation `a+bxn` is a, a+b, … with n steps of a minute each.
FIRING: dict[str, tuple[list[tuple[str, str]], int, int]] = {
    "GdnBridgeDown": ([("up{%s}", "1x5 0x20")], 10, 6),
    "GdnBridgeNotReady": ([("gdn_bridge_ready{%s}", "1x5 0x20")], 12, 8),
    "GdnBridgeHolding": ([("gdn_bridge_holding{%s}", "0x5 1x20")], 8, 5),
    "GdnBridgeOutboxFilling": ([("gdn_bridge_outbox_full_in_seconds{%s}", "1000000000x5 3600x20")], 18, 10),
    "GdnBridgeOldestRecordOld": (
        [
            ("gdn_bridge_outbox_oldest_seconds{%s}", "0+60x40"),
            ('gdn_bridge_rate_limited{stream="s",%s}', "1x20 0x20"),
            ('gdn_bridge_rate_limited{stream="other",%s}', "0x40"),
        ],
        28,
        18,
    ),
    "GdnBridgeStoreFailing": ([("gdn_bridge_outbox_failing{%s}", "0x5 1x20")], 8, 5),
    "GdnBridgeBooksUnbalanced": ([("gdn_bridge_books_balanced{%s}", "1x5 0x20")], 8, 5),
    "GdnBridgeUnknownLoss": ([("gdn_bridge_unknown_losses_total{%s}", "0x5 1x20")], 7, 5),
    "GdnBridgeDeadLettersLost": ([("gdn_bridge_dead_letters_lost_total{%s}", "0x5 1x20")], 7, 5),
    "GdnBridgeDeadLetters": ([('gdn_bridge_dead_lettered_total{reason="not_json",%s}', "0x5 1x20")], 7, 5),
    "GdnBridgeDrops": ([('gdn_bridge_dropped_total{reason="outbox_full",%s}', "7x5 9x20")], 7, 5),
    "GdnBridgeSessionLost": (
        [("gdn_bridge_sessions_lost_total{%s}", "0x5 1x20"), ("gdn_bridge_sessions_kept_total{%s}", "0x25")],
        7,
        5,
    ),
    "GdnBridgeBrokerDrops": ([("gdn_bridge_broker_dropped{%s}", "3x5 4x20")], 7, 5),
    "GdnBridgeSparkplugFull": ([("gdn_bridge_sparkplug_births_refused_total{%s}", "0x5 1x20")], 7, 5),
    "GdnBridgeWorkerInactive": ([("gdn_bridge_worker_active{%s}", "1x5 0x20")], 9, 6),
    "GdnBridgeCanaryLost": ([('gdn_bridge_canary_rounds_total{outcome="lost",%s}', "0x5 1x20")], 7, 5),
    "GdnBridgeCheckFailing": ([('gdn_bridge_part_connected{part="check rows come",%s}', "1x5 0x20")], 12, 8),
    "GdnBridgeRowsLost": ([("gdn_bridge_rows_lost_total{%s}", "2x5 3x20")], 7, 5),
    "GdnBridgeSlowAnswers": ([('gdn_bridge_check_seconds{check="query",%s}', "0.1x5 3x20")], 17, 10),
    "GdnBridgeRowsBehind": ([("gdn_bridge_rows_behind{%s}", "0x5 500+10x30")], 25, 10),
    "GdnBridgeSlowReceipts": (
        [
            ('gdn_bridge_receipt_seconds_bucket{stream="s",le="5.0",%s}', "0x30"),
            ('gdn_bridge_receipt_seconds_bucket{stream="s",le="10.0",%s}', "0+60x30"),
            ('gdn_bridge_receipt_seconds_bucket{stream="s",le="+Inf",%s}', "0+60x30"),
        ],
        15,
        5,
    ),
    "GdnBridgeFlapping": ([('gdn_bridge_link_failures_total{link="mqtt",cause="lost",%s}', "0+1x40")], 35, 5),
    "GdnBridgeCredentialsRefused": (
        [('gdn_bridge_link_failures_total{link="mqtt",cause="credentials",%s}', "0x5 1x20")],
        7,
        5,
    ),
    # promtool's clock starts at 0.
    "GdnBridgeCertificateEnds": (
        [('gdn_bridge_certificate_ends_timestamp_seconds{link="mqtt",certificate="own",%s}', "1210200x30")],
        15,
        5,
    ),
    "GdnBridgeRequestsNearLimit": ([("gdn_bridge_gdn_requests_last_day{%s}", "16000+100x20")], 5, 2),
}

NO_PROBLEM = {
    "up{%s}": "1x60",
    "gdn_bridge_ready{%s}": "1x60",
    "gdn_bridge_holding{%s}": "0x60",
    "gdn_bridge_outbox_full_in_seconds{%s}": "1000000000x60",
    "gdn_bridge_outbox_oldest_seconds{%s}": "2x60",
    "gdn_bridge_outbox_failing{%s}": "0x60",
    "gdn_bridge_books_balanced{%s}": "1x60",
    'gdn_bridge_dead_lettered_total{reason="not_json",%s}': "5x60",
    'gdn_bridge_dropped_total{reason="outbox_full",%s}': "5x60",
    'gdn_bridge_dropped_total{reason="filtered",%s}': "0+9x60",
    'gdn_bridge_dropped_total{reason="unchanged",%s}': "0+9x60",
    "gdn_bridge_sessions_lost_total{%s}": "1x20 2x40",
    "gdn_bridge_sessions_kept_total{%s}": "0x20 1x40",
    "gdn_bridge_broker_dropped{%s}": "8x60",
    "gdn_bridge_sparkplug_births_refused_total{%s}": "8x60",
    "gdn_bridge_worker_active{%s}": "1x60",
    'gdn_bridge_canary_rounds_total{outcome="lost",%s}': "3x60",
    'gdn_bridge_canary_rounds_total{outcome="found",%s}': "0+1x60",
    'gdn_bridge_part_connected{part="check rows come",%s}': "1x60",
    "gdn_bridge_rows_behind{%s}": "500-8x60",
    "gdn_bridge_rows_lost_total{%s}": "4x60",
    'gdn_bridge_check_seconds{check="query",%s}': "0.2x60",
    'gdn_bridge_receipt_seconds_bucket{stream="s",le="0.1",%s}': "0+60x60",
    'gdn_bridge_receipt_seconds_bucket{stream="s",le="+Inf",%s}': "0+60x60",
    'gdn_bridge_link_failures_total{link="mqtt",cause="lost",%s}': "4x60",
    'gdn_bridge_link_failures_total{link="mqtt",cause="credentials",%s}': "4x60",
    'gdn_bridge_certificate_ends_timestamp_seconds{link="mqtt",certificate="own",%s}': "2000000x60",
    "gdn_bridge_gdn_requests_last_day{%s}": "2880x60",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("Prometheus is not installed, and in CI it must be")
        pytest.skip("Prometheus is not installed")
    return program


def alerts_at(promtool: str, tmp_path: Path, series: list[tuple[str, str]], times: list[int]) -> dict[int, set[str]]:
    """The alerts that fire at each minute. promtool is given a test that expects none, and lists those that fire."""
    names = re.findall(r"^      - alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    found = {}
    for minute in times:
        checks = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for name in names]
        case = {
            "interval": "1m",
            "input_series": [{"series": name % BASE, "values": values} for name, values in series],
            "alert_rule_test": checks,
        }
        file = tmp_path / "test.yml"
        file.write_text(
            json.dumps({"rule_files": [str(RULES.resolve())], "evaluation_interval": "1m", "tests": [case]})
        )
        result = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
        output = result.stdout + result.stderr
        found[minute] = set(re.findall(r"alertname: (\w+)", output))
        assert (result.returncode == 0) == (not found[minute]), output
    return found


def test_promtool_accepts_the_rules(promtool: str) -> None:
    result = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(FIRING)} rules found" in result.stdout


@pytest.mark.parametrize("alert", FIRING)
def test_each_alert_fires_when_it_should_and_not_earlier(alert: str, promtool: str, tmp_path: Path) -> None:
    series, fires, silent = FIRING[alert]

    found = alerts_at(promtool, tmp_path, series, [silent, fires])

    assert alert not in found[silent]
    assert alert in found[fires]


def test_no_alert_fires_without_a_problem(promtool: str, tmp_path: Path) -> None:
    assert alerts_at(promtool, tmp_path, list(NO_PROBLEM.items()), [1, 30, 60]) == {1: set(), 30: set(), 60: set()}


def known_names() -> set[str]:
    names = set()
    for definition in DEFINITIONS:
        suffixes = ("_bucket", "_sum", "_count") if definition.type == "histogram" else ("",)
        names |= {f"{definition.full_name}{suffix}" for suffix in suffixes}
    return names


def expressions(tree: Any) -> Iterator[str]:
    """Every ``expr`` of a panel and ``query`` of a variable that queries a metric."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if isinstance(tree, dict):
        texts = (tree.get("expr"), tree.get("query"))
        yield from (text for text in texts if isinstance(text, str) and text != "prometheus")
    for each in inner:
        yield from expressions(each)


def test_the_rules_query_only_existing_metrics() -> None:
    asked = set(NAME.findall("\n".join(re.findall(r"^        expr: (.*)$", RULES.read_text(), re.MULTILINE))))

    assert asked
    assert asked <= known_names()


def test_every_alert_has_a_test() -> None:
    assert set(FIRING) == set(re.findall(r"alert: (\w+)", RULES.read_text()))


def test_the_dashboard_queries_only_existing_metrics() -> None:
    asked = [NAME.findall(expression) for expression in expressions(json.loads(DASHBOARD.read_text()))]

    assert len(asked) > 10
    assert all(names and set(names) <= known_names() for names in asked)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
