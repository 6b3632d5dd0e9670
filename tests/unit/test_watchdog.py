from __future__ import annotations

import threading
from collections.abc import Callable

from bridge.service.watchdog import ForcedExit, Watchdog, stack_of


class Worker:
    """The beat of a thread, set by the test."""

    def __init__(self) -> None:
        self.beat: int | None = 0

    def __call__(self) -> int | None:
        return self.beat


def watching(**workers: Worker) -> Watchdog:
    watchdog = Watchdog(tick=1.0)
    for name, worker in workers.items():
        watchdog.watch(name, limit=3.0, beat=worker)
    return watchdog


def test_a_thread_without_a_beat_within_its_limit_is_stuck() -> None:
    watchdog = watching(a=Worker())

    assert [watchdog.tick() for _ in range(5)] == [[], [], [], [], ["a"]]


def test_a_thread_that_beats_within_its_limit_is_never_stuck() -> None:
    worker = Worker()
    watchdog = watching(a=worker)

    for number in range(100):
        assert watchdog.tick() == []
        if number % 3 == 0:
            worker.beat = number


def test_an_idle_thread_is_never_stuck_and_gets_its_full_limit_afterwards() -> None:
    worker = Worker()
    watchdog = watching(a=worker)
    for _ in range(4):
        watchdog.tick()

    worker.beat = None
    assert [watchdog.tick() for _ in range(100)] == [[]] * 100
    worker.beat = 0
    assert [watchdog.tick() for _ in range(5)] == [[], [], [], [], ["a"]]


def test_threads_are_watched_separately() -> None:
    quick, slow = Worker(), Worker()
    watchdog = watching(quick=quick, slow=slow)
    found: list[str] = []
    for number in range(10):
        quick.beat = number
        found += watchdog.tick()

    assert set(found) == {"slow"}


def test_a_limit_is_in_seconds_whatever_the_tick() -> None:
    watchdog = Watchdog(tick=0.5)
    watchdog.watch("a", limit=3.0, beat=Worker())

    assert [bool(watchdog.tick()) for _ in range(8)] == [False] * 7 + [True]


def test_a_pause_of_the_whole_process_is_one_tick_however_long() -> None:
    """The watchdog has no clock: any time may pass between two ticks."""
    worker = Worker()
    watchdog = watching(a=worker)
    watchdog.tick()

    assert watchdog.tick() == []
    worker.beat = 1
    assert watchdog.tick() == []


def test_the_stack_of_a_stuck_thread_shows_where_it_is() -> None:
    reached, release = threading.Event(), threading.Event()

    def stuck_in_here() -> None:
        reached.set()
        release.wait(10)

    thread = threading.Thread(target=stuck_in_here, name="stuck")
    thread.start()
    assert reached.wait(10)
    stack = stack_of("stuck")
    release.set()
    thread.join()

    assert "stuck_in_here" in stack
    assert __file__ in stack


def test_a_thread_that_is_gone_has_no_stack() -> None:
    assert stack_of("nobody") == ""


# --- forced exit ---------------------------------------------------------------------------------------


class End:
    """Records the exit instead of exiting."""

    def __init__(self, report: Callable[[], object] = lambda: None) -> None:
        self.codes: list[int] = []
        self.reports = 0
        self.ended = threading.Event()
        self._report = report
        self.forced_exit = ForcedExit(seconds=0.003, report=self.report, tick=0.001, end=self.end)

    def report(self) -> None:
        self.reports += 1
        self._report()

    def end(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()


def test_a_shutdown_that_hangs_is_reported_and_the_process_exits() -> None:
    end = End()

    end.forced_exit.arm()
    end.forced_exit.arm()

    assert end.ended.wait(10)
    assert (end.codes, end.reports) == ([1], 1)


def test_a_log_that_hangs_does_not_delay_the_exit() -> None:
    never = threading.Event()
    end = End(lambda: never.wait(10))

    end.forced_exit.arm()

    assert end.ended.wait(10)
    never.set()
    assert end.codes == [1]


def test_no_exit_is_forced_after_disarm() -> None:
    end = End()

    end.forced_exit.disarm()
    end.forced_exit.arm()
    end.forced_exit.disarm()

    for thread in threading.enumerate():
        if thread.name == "forced exit":
            thread.join(10)
    assert end.codes == []
