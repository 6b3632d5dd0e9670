"""The order in which xdist workers get the tests: the slowest first, so that none runs alone at the end."""

from __future__ import annotations

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EACH_FAULT = "tests/faults/test_faults.py::test_each_fault_alone"
"""Its cases share nothing and take minutes: each is a unit of its own."""

SECONDS = {
    "tests/deploy/test_docker.py": 320,
    "tests/deploy/test_release.py": 180,
    "tests/brokers/test_brokers.py": 170,
    f"{EACH_FAULT}[producer]": 165,
    "tests/integration/test_pulsar_facts.py": 150,
    "tests/deploy/test_systemd.py": 140,
    f"{EACH_FAULT}[mqtt_link]": 135,
    "tests/e2e/test_lying_far_end.py": 105,
    "tests/e2e/test_dead_letters.py": 95,
    "tests/integration/test_pulsar.py": 90,
    f"{EACH_FAULT}[otp]": 85,
    f"{EACH_FAULT}[create]": 85,
    "tests/soak/test_soak.py": 80,
    f"{EACH_FAULT}[worker]": 80,
    f"{EACH_FAULT}[activate]": 75,
    "tests/e2e/test_drift.py": 75,
    "tests/e2e/test_bounds.py": 70,
    "tests/e2e/test_login.py": 70,
    f"{EACH_FAULT}[cursor]": 60,
    "tests/integration/test_local_gdn.py": 60,
    "tests/faults/test_power.py": 45,
    f"{EACH_FAULT}[upgrade]": 55,
    f"{EACH_FAULT}[datacenter]": 55,
    f"{EACH_FAULT}[gdn_link]": 50,
    "tests/e2e/test_redelivery.py": 50,
    "tests/faults/test_faults.py": 45,
    "tests/e2e/test_sessions.py": 40,
    "tests/integration/test_tutorial_programs.py": 35,
}
"""Units of work that take over half a minute. All others come after them, unit tests last."""

REST = {"faults": 30, "deploy": 30, "e2e": 20, "integration": 10, "path": 2, "unit": 1}


def unit_of(nodeid: str) -> str:
    """The unit that a test belongs to: its file, whose fixtures are shared, or the test itself."""
    file, _, name = nodeid.partition("::")
    if nodeid.startswith(EACH_FAULT):
        return f"{EACH_FAULT}[{name.rpartition('[')[2]}"
    return file


def seconds(unit: str) -> int:
    """Approximate duration of a unit on two cores."""
    folder = PurePath(unit).parts[1] if "/" in unit else ""
    return SECONDS.get(unit, REST.get(folder, 10))


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Like ``--dist loadfile``, by ``seconds`` instead of the number of tests."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(max(self.workqueue, key=seconds), last=False)
        super()._assign_work_unit(node)
