from __future__ import annotations

import threading
from collections.abc import Callable

from bridge.service.watchdog import LastResort, Watchdog, stack_of


class Worker:
    """A thread's sign of life, set by hand."""

    def __init__(self) -> None:
        self.beat: int | None = 0

    def __call__(self) -> int | None:
        return self.beat


def watching(**workers: Worker) -> Watchdog:
    watchdog = Watchdog(tick=1.0)
    for name, worker in workers.items():
        watchdog.watch(name, limit=3.0, beat=worker)
    return watchdog


def test_a_beat_that_stands_still_beyond_its_limit_is_found() -> None:
    watchdog = watching(a=Worker())

    assert [watchdog.tick() for _ in range(5)] == [[], [], [], [], ["a"]]


def test_a_thread_that_beats_within_its_limit_is_never_found() -> None:
    worker = Worker()
    watchdog = watching(a=worker)

    for number in range(100):
        assert watchdog.tick() == []
        if number % 3 == 0:
            worker.beat = number


def test_a_thread_with_nothing_to_do_is_never_found_and_starts_anew() -> None:
    worker = Worker()
    watchdog = watching(a=worker)
    for _ in range(4):
        watchdog.tick()

    worker.beat = None
    assert [watchdog.tick() for _ in range(100)] == [[]] * 100
    worker.beat = 0
    assert [watchdog.tick() for _ in range(5)] == [[], [], [], [], ["a"]]


def test_threads_are_told_apart() -> None:
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
    """There is no clock to see it by: between two ticks any time may have passed."""
    worker = Worker()
    watchdog = watching(a=worker)
    watchdog.tick()

    assert watchdog.tick() == []
    worker.beat = 1
    assert watchdog.tick() == []


def test_a_stuck_threads_stack_says_where_it_is() -> None:
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


# --- the last resort -----------------------------------------------------------------------------------


class End:
    """How it ends, in place of the process's end."""

    def __init__(self, say: Callable[[], object] = lambda: None) -> None:
        self.codes: list[int] = []
        self.said = 0
        self.ended = threading.Event()
        self._say = say
        self.last_resort = LastResort(seconds=0.003, say=self.say, tick=0.001, end=self.end)

    def say(self) -> None:
        self.said += 1
        self._say()

    def end(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()


def test_an_end_that_does_not_come_is_made_with_a_last_word() -> None:
    end = End()

    end.last_resort.arm()
    end.last_resort.arm()

    assert end.ended.wait(10)
    assert (end.codes, end.said) == ([1], 1)


def test_a_log_that_hangs_does_not_hold_up_the_end() -> None:
    never = threading.Event()
    end = End(lambda: never.wait(10))

    end.last_resort.arm()

    assert end.ended.wait(10)
    never.set()
    assert end.codes == [1]


def test_an_end_that_came_is_left_alone() -> None:
    end = End()

    end.last_resort.disarm()
    end.last_resort.arm()
    end.last_resort.disarm()

    for thread in threading.enumerate():
        if thread.name == "last resort":
            thread.join(10)
    assert end.codes == []
