"""Each broker does what ``docs/brokers.md`` says. ``expected.toml`` has the cells of its tables.

Three brokers start and are measured at the same time: most of it is waiting. CI runs three of them; the others have the
marker ``brokers``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.brokers import behaviours
from tests.brokers.behaviours import SAME_LINK
from tests.brokers.brokers import ALL, IN_CI, Broker
from tests.brokers.page import BY_DAEMON, EXPECTED
from tests.conftest import TABLE, Bridge, LocalGdn, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MakeBridge = Callable[..., Bridge]
Measured = Future[dict[str, str]]

AT_ONCE = 3
"""Brokers that start, or are measured, at the same time."""

COUNT = 900
"""Messages of the test with the daemon: below every default queue limit."""

STALLED = 15.0
"""Seconds without a row after which no more will come, beside those that the broker takes to send messages again."""

measured_names = [pytest.param(n, marks=[] if n in IN_CI else pytest.mark.brokers) for n in ALL]
advised_names = [pytest.param(n, marks=pytest.mark.brokers) for n in ALL if EXPECTED[n]["advised"]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Broker]]:
    """Starts a broker, which is ended after the last test."""
    started: list[Broker] = []
    directory = tmp_path_factory.mktemp("brokers")

    def start(name: str, *, advised: bool = False) -> Broker:
        started.append(ALL[name](directory, advised=advised))
        return started[-1]

    yield start
    for broker in started:
        broker.end()


@pytest.fixture(scope="module")
def running(start: Callable[..., Broker], request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Broker]]]:
    """The brokers of this run, by name, as they start."""
    tests = [item for item in request.session.items if item.path == request.path]
    params = [test.callspec.params for test in tests if isinstance(test, pytest.Function) and hasattr(test, "callspec")]
    names = dict.fromkeys(str(each["name"]) for each in params)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(start, name) for name in names}


@pytest.fixture(scope="module")
def cells(running: dict[str, Future[Broker]]) -> Iterator[dict[str, Measured]]:
    """What was measured of each."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(_measure, broker) for name, broker in running.items()}


def _measure(broker: Future[Broker]) -> dict[str, str]:
    return behaviours.measure(broker.result())


@pytest.mark.parametrize("name", measured_names)
def test_the_broker_does_what_the_page_says(cells: dict[str, Measured], name: str) -> None:
    expected = {column: text for column, text in EXPECTED[name]["cells"].items() if column != BY_DAEMON}
    assert cells[name].result() == expected


@pytest.mark.parametrize("name", measured_names)
def test_nothing_is_lost_by_a_kill_and_stored_twice_is_what_the_page_says(
    running: dict[str, Future[Broker]], gdn: LocalGdn, make_bridge: MakeBridge, name: str
) -> None:
    """The daemon is killed after a commit, before its PUBACKs; what the broker sends again must be recognised."""
    broker = running[name].result()
    messages = [(f"devices/{n}/rooms/1/telemetry", b'{"temperature": 21}') for n in range(COUNT)]
    bridge = make_bridge(
        mqtt_port=broker.port,
        gdn_url=gdn.url,
        BRIDGE_MQTT__PROTOCOL="5" if broker.versions[0] == 5 else "3.1.1",
        BRIDGE_DELIVERY__DEDUPLICATE="true",
    )
    bridge.start()
    bridge.wait_ready()
    assert bridge.process is not None
    bridge.process.terminate()
    publish_all(broker.port, messages)
    note = bridge.directory / "kill"
    killed = Process(
        [sys.executable, "-m", "tests.faults.killable", "run"],
        bridge.directory / "killed.log",
        env=bridge.environment() | {"FAULT_POINT": "before_puback", "FAULT_COUNT": "1", "FAULT_NOTE": os.fspath(note)},
    )
    wait_for(note.exists, what="the kill")
    killed.kill()
    bridge.start()

    def ids() -> list[str]:
        return [str(row) for row in gdn.query(f"FOR d IN {TABLE} RETURN d.id")]

    wait = STALLED + (SAME_LINK if "after 30 s" in EXPECTED[name]["cells"]["redelivery"] else 0)
    assert wait_all(ids, wait), "a message is lost, or the broker waits for a PUBACK"
    if EXPECTED[name]["cells"]["session present"] == "no":
        assert "mqtt.session_kept" in bridge.process.text(), "the loss that the bridge reported is withdrawn"
    wait_for(lambda: bridge.books().get("outbox") == 0, what="an empty outbox")
    stored = "possible" if len(ids()) > COUNT else "none"
    expected = EXPECTED[name]["cells"][BY_DAEMON]
    assert stored == expected or (stored, expected) == ("none", "possible"), "it depends on times, too"


def wait_all(ids: Callable[[], list[str]], wait: float) -> bool:
    """Wait for a row of every message; False: no more have come for ``wait`` seconds."""
    seen, heard = 0, time.monotonic()
    while (count := len(set(ids()))) < COUNT and time.monotonic() - heard < wait:
        if count > seen:
            seen, heard = count, time.monotonic()
        time.sleep(0.2)
    return count == COUNT


@pytest.mark.parametrize("name", advised_names)
def test_what_the_page_advises_has_the_effect_that_it_says(start: Callable[..., Broker], name: str) -> None:
    advised = EXPECTED[name]["advised"]
    broker = start(name, advised=True)
    version = 4 if advised.get("protocol") == "3.1.1" else broker.versions[0]
    assert behaviours.measure_some(broker, version, list(advised["cells"])) == advised["cells"]


def test_ci_runs_three_brokers_over_both_protocols() -> None:
    assert {ALL[name].versions[0] for name in IN_CI} == {4, 5}
