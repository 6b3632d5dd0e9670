from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnRejected
from bridge.gdn.region import Region
from bridge.gdn.rest import Datacenter, WorkerState

HOSTS = {"fra": "api-fra.example", "ams": "api-ams.example", "sin": "api-sin.example"}


class Far:
    def __init__(self, local: str) -> None:
        self.local = local
        self.runs_in: tuple[str, ...] | None = (local,)
        self.asked: list[str] = []

    def local_datacenter(self) -> Datacenter:
        self.asked.append("local")
        return Datacenter(self.local, HOSTS[self.local])

    def datacenter(self, name: str) -> Datacenter:
        self.asked.append(name)
        if name not in HOSTS:
            raise GdnRejected("Datacenter does not exist", status=404)
        return Datacenter(name, HOSTS[name])

    def get_worker(self, name: str) -> WorkerState | None:
        self.asked.append(name)
        return None if self.runs_in is None else WorkerState(name, "", self.runs_in, True)


def region(far: Far, wanted: list[str]) -> Region:
    return Region(rest=far, wanted=wanted, worker_name="w")


@pytest.mark.parametrize("wanted", [["*"], ["ams", "fra"]])
def test_the_region_that_answers_is_dialled_if_the_worker_runs_there(wanted: list[str]) -> None:
    far = Far("fra")

    assert region(far, wanted).host() == "api-fra.example"
    assert far.asked == ["local"]


def test_without_configured_regions_the_worker_keeps_its_region() -> None:
    far = Far("fra")
    dialled = region(far, [])
    assert dialled.host() == "api-fra.example"
    far.local = "sin"

    assert dialled.host() == "api-fra.example"
    far.runs_in = ("fra", "sin")
    assert dialled.host() == "api-sin.example"


@pytest.mark.parametrize("runs_in", [None, ()])
def test_a_worker_without_regions_makes_no_difference(runs_in: tuple[str, ...] | None) -> None:
    far = Far("fra")
    far.runs_in = runs_in

    assert region(far, []).host() == "api-fra.example"


def test_if_another_region_answers_one_of_the_workers_is_dialled() -> None:
    far = Far("fra")

    assert region(far, ["ams", "sin"]).host() == "api-ams.example"


def test_an_unknown_region_is_logged_and_prevents_no_connection() -> None:
    dialled = region(Far("fra"), ["nowhere"])

    with capture_logs() as logs:
        assert dialled.host() == "api-fra.example"
    assert [(entry["event"], entry["region"]) for entry in logs] == [("gdn.region_unknown", "nowhere")]


def test_a_change_of_the_region_is_logged_once() -> None:
    far = Far("fra")
    dialled = region(far, ["*"])

    with capture_logs() as logs:
        dialled.host()
        dialled.host()
        far.local = "sin"
        assert dialled.host() == "api-sin.example"
        dialled.host()
    assert [(entry["event"], entry["before"], entry["now"]) for entry in logs] == [("gdn.region_changed", "fra", "sin")]
