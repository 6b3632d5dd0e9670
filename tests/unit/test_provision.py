from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnAuthError, GdnUnavailable
from bridge.gdn.rest import WorkerState
from bridge.provision import REMEMBER_PATIENCE, Provision
from bridge.streamql import parse
from bridge.timing import Pace

WORKER = parse(Path("config/worker.sql").read_text())


class Crash(Exception):
    """The process ends here."""


class Stop(threading.Event):
    """Nobody waits: what would be waited is written down."""

    def __init__(self, told: list[Any]) -> None:
        super().__init__()
        self._told = told

    def wait(self, timeout: float | None = None) -> bool:
        self._told.append(("waits", timeout))
        return self.is_set()


class Durable(threading.Event):
    """Of a store that keeps at once, or of one that doesn't."""

    def __init__(self, told: list[Any], *, takes: bool) -> None:
        super().__init__()
        self._told = told
        self._takes = takes

    def wait(self, timeout: float | None = None) -> bool:
        self._told.append(("remembered" if self._takes else "not remembered", timeout))
        return self._takes


class World:
    """GDN, the store and the clock, and all that happens there in its order."""

    def __init__(self, *, exists: bool = True, active: bool = True) -> None:
        self.told: list[Any] = []
        self.exists = exists
        self.active = active
        self.failures: dict[str, list[Exception]] = {}
        self.memory: dict[str, str] = {}
        self.takes = True
        self.ready = threading.Event()
        self.stop = Stop(self.told)
        self.now = 1000.0

    def _call(self, name: str) -> None:
        self.told.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    def get_worker(self, name: str, *, check: bool = False) -> WorkerState | None:
        self._call("get")
        return WorkerState(name, WORKER.text, (), self.active) if self.exists else None

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        self._call("create")
        self.exists = True
        return WorkerState(WORKER.name, definition, (), False)

    def set_active(self, name: str, active: bool) -> None:
        self.active = True
        self._call("activate")

    def remember(self, key: str, value: str) -> threading.Event:
        self.told.append((key, value))
        if self.takes:
            self.memory[key] = value
        return Durable(self.told, takes=self.takes)

    def provision(self) -> Provision:
        """Of a process that starts now."""
        rest: Any = self
        return Provision(
            rest=rest,
            worker=WORKER,
            regions=[],
            settle_time=10.0,
            was_activating=self.memory.get("activating") == "1",
            remember=self.remember,
            refresh=lambda: self._call("refresh"),
            ready=self.ready,
            stop=self.stop,
            rng=lambda: 1.0,
            wall_clock=lambda: self.now,
        )


def test_a_worker_that_is_active_is_ready_at_once() -> None:
    world = World()
    provision = world.provision()

    provision.run()

    assert world.told == ["refresh", "get"]
    assert world.ready.is_set()
    assert provision.status.state == "connected"


@pytest.mark.parametrize("exists", [True, False])
def test_an_activation_is_remembered_before_anything_changes_and_forgotten_once_it_has_settled(exists: bool) -> None:
    world = World(exists=exists, active=False)

    world.provision().run()

    assert world.told == [
        *("refresh", "get", ("activating", "1"), ("remembered", REMEMBER_PATIENCE)),
        *(() if exists else ("create",)),
        *("activate", "get", ("waits", 10.0), ("activating", "")),
    ]
    assert world.ready.is_set()


@pytest.mark.parametrize("moment", ["create", "activate"])
def test_after_a_crash_while_it_was_activated_an_active_worker_settles_all_the_same(moment: str) -> None:
    world = World(exists=False)
    world.active = False
    world.failures = {moment: [Crash()]}  # type: ignore[dict-item]
    with pytest.raises(Crash):
        world.provision().run()
    assert not world.ready.is_set()
    world.exists = world.active = True
    world.told.clear()

    world.provision().run()

    assert world.told == ["refresh", "get", ("waits", 10.0), ("activating", "")]
    assert world.memory == {"activating": ""}


def test_a_start_after_it_has_settled_does_not_wait_again() -> None:
    world = World(active=False)
    world.provision().run()
    world.told.clear()

    world.provision().run()

    assert world.told == ["refresh", "get"]


def test_a_stop_before_it_has_settled_leaves_the_wait_to_the_next_start() -> None:
    world = World(active=False)
    provision = world.provision()

    def activate(name: str, active: bool) -> None:
        world.active = True
        world.stop.set()

    world.set_active = activate  # type: ignore[method-assign]
    provision.run()

    assert not world.ready.is_set()
    assert provision.status.state == "connecting"
    assert world.memory == {"activating": "1"}


def test_a_store_that_does_not_keep_it_is_not_waited_for_long() -> None:
    world = World(active=False)
    world.takes = False

    with capture_logs() as logs:
        world.provision().run()

    assert ("not remembered", REMEMBER_PATIENCE) in world.told
    assert "worker.activation_not_remembered" in [entry["event"] for entry in logs]
    assert world.ready.is_set()


def test_an_activation_whose_answer_was_lost_settles() -> None:
    world = World(active=False)
    world.failures = {"activate": [GdnUnavailable("the answer was lost")]}

    world.provision().run()

    assert world.told[-2:] == [("waits", 10.0), ("activating", "")]
    assert world.ready.is_set()


def test_an_outage_before_anything_changed_needs_no_settling() -> None:
    world = World()
    world.failures = {"get": [GdnUnavailable("away"), GdnUnavailable("away")]}

    world.provision().run()

    assert world.told == ["refresh", "get", ("waits", 0.5), "refresh", "get", ("waits", 1.0), "refresh", "get"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (GdnUnavailable("503"), 0.5),
        (GdnUnavailable("503", retry_after=44), 44.0),
        (GdnUnavailable("429", pace=Pace.LIMITED), 20.0),
        (GdnAuthError("401"), 30.0),
    ],
)
def test_a_failure_is_waited_out_at_its_pace_and_shown(failure: Exception, expected: float) -> None:
    world = World()
    world.failures = {"get": [failure]}
    provision = world.provision()
    shown: list[Any] = []

    def wait(timeout: float | None = None) -> bool:
        status = provision.status
        shown.append((status.state, status.error, status.next_attempt_at, timeout, provision.beat))
        return False

    world.stop.wait = wait  # type: ignore[method-assign]
    provision.run()

    assert shown == [("waiting", str(failure), 1000.0 + expected, expected, None)]


def test_waiting_began_when_it_began_however_many_attempts_fail() -> None:
    world = World()
    world.failures = {"get": [GdnUnavailable(f"{n}") for n in range(3)]}
    provision = world.provision()
    since: list[float] = []

    def wait(timeout: float | None = None) -> bool:
        since.append(provision.status.since)
        world.now += 7.0
        return False

    world.stop.wait = wait  # type: ignore[method-assign]
    provision.run()

    assert since == [1000.0] * 3


def test_only_an_attempt_beats() -> None:
    world = World()
    provision = world.provision()
    beats: list[int | None] = [provision.beat]
    original = world.get_worker

    def get_worker(name: str, *, check: bool = False) -> WorkerState | None:
        beats.append(provision.beat)
        return original(name)

    world.get_worker = get_worker  # type: ignore[method-assign]
    provision.run()

    assert [*beats, provision.beat] == [None, 1, None]


def test_a_stop_before_the_start_is_not_lost() -> None:
    world = World()
    world.stop.set()

    world.provision().run()

    assert world.told == []
    assert not world.ready.is_set()
