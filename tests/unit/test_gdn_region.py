from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnRejected
from bridge.gdn.region import Region
from bridge.gdn.rest import Datacenter

HOSTS = {"fra": "api-fra.example", "ams": "api-ams.example", "sin": "api-sin.example"}


class Far:
    def __init__(self, local: str) -> None:
        self.local = local
        self.asked: list[str] = []

    def local_datacenter(self) -> Datacenter:
        self.asked.append("local")
        return Datacenter(self.local, HOSTS[self.local])

    def datacenter(self, name: str) -> Datacenter:
        self.asked.append(name)
        if name not in HOSTS:
            raise GdnRejected("Datacenter does not exist", status=404)
        return Datacenter(name, HOSTS[name])


@pytest.mark.parametrize("wanted", [[], ["*"], ["ams", "fra"]])
def test_the_region_that_answers_is_dialled_where_the_worker_runs_there(wanted: list[str]) -> None:
    far = Far("fra")

    assert Region(rest=far, wanted=wanted).host() == "api-fra.example"
    assert far.asked == ["local"]


def test_a_region_of_the_workers_is_dialled_where_another_one_answers() -> None:
    far = Far("fra")

    assert Region(rest=far, wanted=["ams", "sin"]).host() == "api-ams.example"


def test_a_region_that_gdn_does_not_know_is_said_and_costs_no_connection() -> None:
    region = Region(rest=Far("fra"), wanted=["nowhere"])

    with capture_logs() as logs:
        assert region.host() == "api-fra.example"
    assert [(entry["event"], entry["region"]) for entry in logs] == [("gdn.region_unknown", "nowhere")]


def test_a_change_of_the_region_is_said_once() -> None:
    far = Far("fra")
    region = Region(rest=far, wanted=[])

    with capture_logs() as logs:
        region.host()
        region.host()
        far.local = "sin"
        assert region.host() == "api-sin.example"
        region.host()
    assert [(entry["event"], entry["before"], entry["now"]) for entry in logs] == [("gdn.region_changed", "fra", "sin")]
