from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnAuthError, GdnUnavailable
from bridge.gdn.provisioner import REMEMBER_PATIENCE, STEADY_AFTER, WATCH_TURN, OnDrift, Provisioner
from bridge.gdn.rest import WorkerState
from bridge.streamql import input_streams, parse
from bridge.timing import Pace

WORKER = parse(Path("config/worker.sql").read_text())


class Crash(Exception):
    """The process crashes here."""


class Stop(threading.Event):
    """Records the waits instead of waiting. While the worker is watched, runs ``script``."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__()
        self._events = events
        self.script: list[Callable[[], object]] = []
        self.waits: Callable[[], object] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        self.waits()
        if timeout == WATCH_TURN:
            if self.script:
                self.script.pop(0)()
            else:
                self.set()
        else:
            self._events.append(("waits", timeout))
        return self.is_set()


class Durable(threading.Event):
    """The event of an outbox that stores at once, or of one that fails."""

    def __init__(self, events: list[Any], *, takes: bool) -> None:
        super().__init__()
        self._events = events
        self._takes = takes

    def wait(self, timeout: float | None = None) -> bool:
        self._events.append(("remembered" if self._takes else "not remembered", timeout))
        return self._takes


class World:
    """GDN, the outbox and the clock; ``events`` has everything that happens, in order."""

    def __init__(self, *, exists: bool = True, active: bool = True) -> None:
        self.events: list[Any] = []
        self.exists = exists
        self.active = active
        self.failures: dict[str, list[Exception]] = {}
        self.memory: dict[str, str] = {}
        self.takes = True
        self.ready = threading.Event()
        self.stop = Stop(self.events)
        self.now = 1000.0
        self.definition = WORKER.text
        self.on_drift: OnDrift = "report"
        self.failed: list[str] = []

    def _call(self, name: str) -> None:
        self.events.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    def get_worker(self, name: str, *, check: bool = False) -> WorkerState | None:
        self._call("get")
        return self.state()

    def state(self) -> WorkerState | None:
        return WorkerState(WORKER.name, self.definition, (), self.active) if self.exists else None

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        self._call("create")
        self.exists, self.active, self.definition = True, False, definition
        return WorkerState(WORKER.name, definition, (), False)

    def update_worker(self, name: str, definition: str, regions: Sequence[str]) -> WorkerState:
        self._call("update")
        self.definition = definition
        return WorkerState(WORKER.name, definition, (), False)

    def set_active(self, name: str, active: bool) -> None:
        self.active = active
        self._call("activate" if active else "deactivate")

    def remember(self, key: str, value: str) -> threading.Event:
        self.events.append((key, value))
        if self.takes:
            self.memory[key] = value
        return Durable(self.events, takes=self.takes)

    def provision(self) -> Provisioner:
        """The provisioner of a process that starts now."""
        rest: Any = self
        return Provisioner(
            rest=rest,
            worker=WORKER,
            streams=input_streams(WORKER),
            used=lambda: ["tutorialAppInputStream"],
            regions=[],
            settle_time=12.5,
            on_drift=self.on_drift,
            was_activating=self.memory.get("activating") == "1",
            remember=self.remember,
            refresh=lambda: self._call("refresh"),
            ready=self.ready,
            fail=self.failed.append,
            stop=self.stop,
            rng=lambda: 1.0,
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
        )


def test_a_worker_that_is_active_is_ready_at_once() -> None:
    world = World()
    provision = world.provision()

    provision.ensure()

    assert world.events == ["refresh", "get"]
    assert world.ready.is_set()
    assert provision.status.state == "connected"


def test_health_checks_start_once_the_worker_has_settled_or_an_attempt_has_failed() -> None:
    settled, failed = World(exists=False, active=False), World()
    seen: list[bool] = []
    failed.failures["get"] = [GdnUnavailable("away")]
    for world in (settled, failed):
        provision = world.provision()
        tried = provision.tried
        world.stop.waits = partial(lambda tried: seen.append(tried.is_set()), tried)
        provision.ensure()
        assert tried.is_set()

    assert seen == [False, True], "not while it settles, but while the next attempt is waited for"


@pytest.mark.parametrize("exists", [True, False])
def test_an_activation_is_stored_before_any_change_and_deleted_once_the_worker_has_settled(exists: bool) -> None:
    world = World(exists=exists, active=False)

    world.provision().ensure()

    assert world.events == [
        *("refresh", "get", ("activating", "1"), ("remembered", REMEMBER_PATIENCE)),
        *(() if exists else ("create",)),
        *("activate", "get", ("waits", 12.5), ("activating", "")),
    ]
    assert world.ready.is_set()


@pytest.mark.parametrize("moment", ["create", "activate"])
def test_after_a_crash_during_the_activation_an_active_worker_still_has_to_settle(moment: str) -> None:
    world = World(exists=False)
    world.active = False
    world.failures = {moment: [Crash()]}
    with pytest.raises(Crash):
        world.provision().ensure()
    assert not world.ready.is_set()
    world.exists = world.active = True
    world.events.clear()

    world.provision().ensure()

    assert world.events == ["refresh", "get", ("waits", 12.5), ("activating", "")]
    assert world.memory == {"activating": ""}


def test_a_restart_after_the_worker_has_settled_does_not_wait() -> None:
    world = World(active=False)
    world.provision().ensure()
    world.events.clear()

    world.provision().ensure()

    assert world.events == ["refresh", "get"]


def test_after_a_stop_before_the_worker_has_settled_the_next_start_waits() -> None:
    world = World(active=False)
    provision = world.provision()

    def activate(name: str, active: bool) -> None:
        world.active = True
        world.stop.set()

    world.set_active = activate  # type: ignore[method-assign]
    provision.ensure()

    assert not world.ready.is_set()
    assert provision.status.state == "connecting"
    assert world.memory == {"activating": "1"}


def test_an_outbox_that_fails_delays_the_activation_only_briefly() -> None:
    world = World(active=False)
    world.takes = False

    with capture_logs() as logs:
        world.provision().ensure()

    assert ("not remembered", REMEMBER_PATIENCE) in world.events
    assert "worker.activation_not_remembered" in [entry["event"] for entry in logs]
    assert world.ready.is_set()


def test_after_a_lost_answer_to_an_activation_the_worker_has_to_settle() -> None:
    world = World(active=False)
    world.failures = {"activate": [GdnUnavailable("the answer was lost")]}

    world.provision().ensure()

    assert world.events[-2:] == [("waits", 12.5), ("activating", "")]
    assert world.ready.is_set()


def test_an_outage_before_anything_changed_needs_no_settling() -> None:
    world = World()
    world.failures = {"get": [GdnUnavailable("away"), GdnUnavailable("away")]}

    world.provision().ensure()

    assert world.events == ["refresh", "get", ("waits", 0.5), "refresh", "get", ("waits", 1.0), "refresh", "get"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (GdnUnavailable("503"), 0.5),
        (GdnUnavailable("503", retry_after=44), 44.0),
        (GdnUnavailable("429", pace=Pace.LIMITED), 20.0),
        (GdnAuthError("401"), 5.0),
    ],
)
def test_a_failure_is_shown_and_retried_at_its_pace(failure: Exception, expected: float) -> None:
    world = World()
    world.failures = {"get": [failure]}
    provision = world.provision()
    shown: list[Any] = []

    def wait(timeout: float | None = None) -> bool:
        status = provision.status
        shown.append((status.state, status.error, status.next_attempt_at, timeout, provision.beat))
        return False

    world.stop.wait = wait  # type: ignore[method-assign]
    provision.ensure()

    assert shown == [("waiting", str(failure), 1000.0 + expected, expected, None)]


def test_waiting_keeps_its_start_time_however_many_attempts_fail() -> None:
    world = World()
    world.failures = {"get": [GdnUnavailable(f"{n}") for n in range(3)]}
    provision = world.provision()
    since: list[float] = []

    def wait(timeout: float | None = None) -> bool:
        since.append(provision.status.since)
        world.now += 7.0
        return False

    world.stop.wait = wait  # type: ignore[method-assign]
    provision.ensure()

    assert since == [1000.0] * 3


def test_the_watchdog_sees_a_beat_only_during_an_attempt() -> None:
    world = World()
    provision = world.provision()
    beats: list[int | None] = [provision.beat]
    original = world.get_worker

    def get_worker(name: str, *, check: bool = False) -> WorkerState | None:
        beats.append(provision.beat)
        return original(name)

    world.get_worker = get_worker  # type: ignore[method-assign]
    provision.ensure()

    assert [*beats, provision.beat] == [None, 1, None]


def test_a_stop_before_the_start_takes_effect() -> None:
    world = World()
    world.stop.set()

    world.provision().ensure()

    assert world.events == []
    assert not world.ready.is_set()


# --- while the bridge runs --------------------------------------------------------------------------------

REMEMBERED = [("activating", "1"), ("remembered", REMEMBER_PATIENCE)]
SETTLED = [("waits", 12.5), ("activating", "")]
LOSING = WORKER.text.replace("(deviceID string", "(more int, deviceID string")
HARMLESS = WORKER.text + "-- a remark\n"


def watched(world: World, *script: Callable[[Provisioner], object]) -> Provisioner:
    """Provisioning with a ready worker until the script ends; ``events`` starts there."""
    provision = world.provision()

    def begin() -> None:
        assert world.ready.is_set()
        world.events.clear()

    world.stop.script = [begin, *(partial(step, provision) for step in script)]
    provision.run()
    return provision


def found(world: World, **changes: Any) -> Callable[[Provisioner], None]:
    """A health check finds this state."""

    def find(provision: Provisioner) -> None:
        vars(world).update(changes)
        provision.saw(world.state())

    return find


def test_an_unchanged_worker_is_ignored() -> None:
    world = World()

    provision = watched(world, found(world), found(world))

    assert world.events == []
    assert world.ready.is_set()
    assert provision.status.error is None


def test_nothing_is_sent_to_a_deactivated_worker_until_it_is_active_again_and_has_settled() -> None:
    world = World()
    held: list[bool] = []

    def deactivated(provision: Provisioner) -> None:
        found(world, active=False)(provision)
        held.append(world.ready.is_set())

    provision = watched(world, deactivated, found(world))

    assert held == [False]
    assert world.events == [
        *(*REMEMBERED, ("waits", 5.0), "refresh", "get"),
        *("activate", "get", *SETTLED),
    ]
    assert world.ready.is_set()
    assert provision.status.state == "connected"


def test_after_a_crash_with_the_worker_deactivated_the_next_start_waits_even_if_another_client_activated_it() -> None:
    world = World()
    world.failures = {"refresh": []}

    def crash(timeout: float | None = None) -> bool:
        raise Crash

    def find(provision: Provisioner) -> None:
        world.failures["refresh"] = [Crash()]
        found(world, active=False)(provision)

    with pytest.raises(Crash):
        watched(world, find)
    world.active = True
    world.events.clear()

    world.provision().ensure()

    assert world.events == ["refresh", "get", *SETTLED]


def test_a_worker_that_is_deactivated_repeatedly_is_activated_with_growing_back_off() -> None:
    world = World()

    watched(world, *[found(world, active=False)] * 7)

    waits = [event[1] for event in world.events if event[0] == "waits" and event[1] != 12.5]
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0]


def test_after_a_long_active_time_the_back_off_starts_again() -> None:
    world = World()

    def later(provision: Provisioner) -> None:
        world.now += STEADY_AFTER
        found(world, active=False)(provision)

    watched(world, found(world, active=False), found(world, active=False), later)

    waits = [event[1] for event in world.events if event[0] == "waits" and event[1] != 12.5]
    assert waits == [5.0, 10.0, 5.0]


def test_each_deactivation_is_logged_and_counted() -> None:
    world = World()
    shown: list[Any] = []
    wait = world.stop.wait

    def look(timeout: float | None = None) -> bool:
        if timeout not in (WATCH_TURN, 12.5):
            shown.append((provision.status.state, provision.status.next_attempt_at, provision.status.error))
        return wait(timeout)

    world.stop.wait = look  # type: ignore[method-assign]
    provision = world.provision()
    world.stop.script = [lambda: found(world, active=False)(provision)] * 2
    with capture_logs() as logs:
        provision.run()

    assert [(state, at) for state, at, _ in shown] == [("waiting", 1005.0), ("waiting", 1010.0)]
    assert "deactivated (2 times since the start)" in shown[1][2]
    assert [entry["times"] for entry in logs if entry["event"] == "worker.switched_off"] == [1, 2]


def test_a_health_check_during_an_attempt_does_not_hold_the_sending() -> None:
    world = World()
    provision = world.provision()
    get_worker = world.get_worker

    def get(name: str, *, check: bool = False) -> WorkerState | None:
        provision.saw(None)
        return get_worker(name)

    world.get_worker = get  # type: ignore[method-assign]
    provision.run()

    assert world.events == ["refresh", "get"]
    assert world.ready.is_set()


def test_with_apply_a_deleted_worker_is_created_again() -> None:
    world = World()
    world.on_drift = "apply"

    watched(world, found(world, exists=False))

    assert world.events == [*REMEMBERED, ("waits", 5.0), "refresh", "get", "create", "activate", "get", *SETTLED]
    assert world.ready.is_set()


def test_with_report_nothing_is_sent_until_a_deleted_worker_exists_again() -> None:
    world = World()
    provision = world.provision()
    shown: list[Any] = []

    def come_back(timeout: float | None = None) -> bool:
        if timeout == 2.0:
            shown.append((world.ready.is_set(), provision.status.state, provision.status.error))
            world.exists = True
        return Stop.wait(world.stop, timeout)

    world.stop.wait = come_back  # type: ignore[method-assign]
    world.stop.script = [lambda: found(world, exists=False)(provision)]
    provision.run()

    ((ready, state, error),) = shown
    assert (ready, state) == (False, "waiting")
    assert "was deleted while the bridge ran" in error
    assert "create" not in world.events
    assert world.events[-4:] == ["refresh", "get", *SETTLED]  # it has to settle, even if another client created it
    assert world.ready.is_set()


@pytest.mark.parametrize("change", [{"exists": False}, {"definition": HARMLESS}])
def test_with_fail_drift_ends_the_bridge(change: dict[str, Any]) -> None:
    world = World()
    world.on_drift = "fail"

    provision = watched(world, found(world, **change))

    assert len(world.failed) == 1
    assert WORKER.name in world.failed[0]
    assert provision.status.state == "failing"
    assert not {"create", "update", "activate"} & set(map(str, world.events))


def test_with_fail_drift_at_the_start_ends_the_bridge_before_it_sends() -> None:
    world = World()
    world.on_drift, world.definition = "fail", HARMLESS

    world.provision().run()

    assert len(world.failed) == 1
    assert not world.ready.is_set()


def test_a_missing_worker_at_the_start_is_no_drift() -> None:
    world = World(exists=False)
    world.on_drift = "fail"

    world.provision().ensure()

    assert world.ready.is_set()


def test_with_apply_another_definition_is_replaced_while_nothing_is_sent() -> None:
    world = World()
    world.on_drift = "apply"
    ready: list[bool] = []
    set_active = world.set_active

    def look(name: str, active: bool) -> None:
        ready.append(world.ready.is_set())
        set_active(name, active)

    world.set_active = look  # type: ignore[method-assign]
    watched(world, found(world, definition=LOSING))

    assert ready == [False, False]
    assert world.events == [
        *("refresh", "get", *REMEMBERED),
        *("deactivate", "update", "activate", "get", *SETTLED),
    ]
    assert world.definition == WORKER.text
    assert world.ready.is_set()


def test_another_definition_that_accepts_the_rows_is_reported_and_rows_are_sent() -> None:
    world = World()

    provision = watched(world, found(world, definition=HARMLESS), found(world))

    assert world.events == ["refresh", "get"]
    assert world.ready.is_set()
    assert provision.status.state == "connected"
    assert "drift" in (provision.status.error or "")


def test_nothing_is_sent_to_another_definition_that_would_lose_the_rows_until_it_is_fixed() -> None:
    world = World()
    shown: list[Any] = []

    provision = watched(
        world,
        found(world, definition=LOSING),
        lambda p: shown.append((world.ready.is_set(), p.status.state, p.status.error)),
        found(world, definition=WORKER.text),
    )

    ((ready, state, error),) = shown
    assert (ready, state) == (False, "failing")
    assert "drops rows of tutorialAppInputStream: they lack the column more int" in error
    assert world.ready.is_set()
    assert (provision.status.state, provision.status.error) == ("connected", None)
