"""The soak, for a minute: see ``run``. ``make soak`` runs it longer."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.run import Soaked, soak

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SECONDS = 75.0
"""Longer than the interval of the checks, so that some run."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    if shutil.which("prometheus") is None:
        if os.environ.get("CI"):
            pytest.fail("Prometheus is not installed, and in CI it must be")
        pytest.skip("Prometheus is not installed")
    return soak(SECONDS, tmp_path_factory.mktemp("soak"))


def test_a_bridge_with_a_healthy_far_end_raises_no_alert_and_stays_within_the_free_tier(seen: Soaked) -> None:
    assert list(seen.faults()) == []


def test_the_figures_compared_with_the_free_tier_were_measured(seen: Soaked) -> None:
    assert seen.looks > 0.5 * SECONDS
    assert seen.requests_a_day > 0
    assert seen.scrapes > 10
    assert seen.published > 2000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"not_ready": {"query failing: why": 3}}, "/readyz was not 200 for 3 s: query failing: why"),
        ({"requests": [(0.0, 0), (30.0, 600)]}, "600 requests in a minute"),
        ({"requests": [(0.0, 0), (60.0, 15)]}, "21600 requests a day"),
        ({"memory": [0, 0, 9 << 20]}, "memory grew by 9437184 bytes"),
        ({"down": 1.0}, "1 of"),
        ({"rules": 0}, "no rule was evaluated"),
        ({"alerts": Counter({("GdnBridgeHolding", "pending"): 2})}, "GdnBridgeHolding was pending at 2 evaluations"),
        ({"missing": 1}, "1 none at all"),
        ({"rows": 1}, "messages became 1 rows"),
        ({"canaries_left": 2}, "2 canaries were left"),
        ({"books": {"balanced": False}}, "the books"),
        ({"exit_code": 1}, "exit code 1"),
    ],
)
def test_each_violation_is_reported(seen: Soaked, change: dict[str, Any], said: str) -> None:
    assert any(said in fault for fault in replace(seen, **change).faults())


@pytest.mark.parametrize("count", ["rows_behind", "rows_lost"])
def test_rows_that_the_bridge_itself_misses_are_a_violation(seen: Soaked, count: str) -> None:
    assert any(count in fault for fault in replace(seen, health={**seen.health, count: 1}).faults())
