"""The dialler, played through in one thread: where it would wait, the next step of a script happens."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import GdnAuthError, GdnUnavailable, MqttUnavailable
from bridge.links.dialer import Dialer
from bridge.links.tls import EXPIRY_NOTICE, warn_of_expiry
from bridge.timing import Pace

Step = Callable[[], object]


class Link:
    """What is dialled."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def time_passes() -> None:
    """A step: the wait runs out."""


class Stage(threading.Condition):
    """Plays the next steps instead of waiting, and ends the play when there are none."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = deque(steps)
        self.now = 1000.0
        self.waits: list[float | None] = []
        self.dialer: Dialer[Any]

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        if not predicate():
            self.waits.append(timeout)
        while not predicate():
            step = self.steps.popleft() if self.steps else self.dialer.request_stop
            if step is time_passes:
                assert timeout is not None, "this wait has no end"
                self.now += timeout
                break
            step()
        return predicate()


class Play:
    """A dialler on a stage. ``answers`` are what attempts give or raise; when none is left the play ends."""

    def __init__(self, *answers: object, rng: Callable[[], float] = lambda: 1.0) -> None:
        self.answers = deque(answers)
        self.taken: list[Link] = []
        self.states: list[str] = []
        self.stage = Stage()
        self.dialer: Dialer[Link] = Dialer(
            name="part",
            connect=self.connect,
            hand_over=self.taken.append,
            rng=rng,
            clock=lambda: self.stage.now,
            wall_clock=lambda: self.stage.now,
            wake=self.stage,
        )
        self.stage.dialer = self.dialer

    def connect(self) -> Link:
        self.states.append(self.dialer.status.state)
        answer = self.answers.popleft() if self.answers else self.dialer.request_stop
        if callable(answer):
            answer = answer() or Link()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Link)
        return answer

    def run(self, *steps: Step) -> None:
        self.stage.steps.extend(steps)
        self.dialer.run()

        assert not self.stage.steps, "the play ended early"

    # --- steps ---

    def up(self) -> None:
        self.dialer.up()

    def later(self, seconds: float) -> Step:
        def step() -> None:
            self.stage.now += seconds

        return step

    def lost(self, error: str = "gone", **how: Any) -> Step:
        return lambda: self.dialer.lost(error, **how)

    def shows(self, state: str, since: float, error: str | None = None, next_attempt_at: float | None = None) -> Step:
        def step() -> None:
            status = self.dialer.status
            found = (status.state, status.since, status.error, status.next_attempt_at)

            assert found == (state, since, error, next_attempt_at)

        return step


# --- back-off ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (GdnUnavailable("503"), 0.5),
        (GdnUnavailable("503", retry_after=40), 40.0),
        (GdnUnavailable("429", pace=Pace.LIMITED), 20.0),
        (GdnUnavailable("404", pace=Pace.MISSING), 2.0),
        (GdnAuthError("401"), 5.0),
        (MqttUnavailable("refused"), 0.5),
        (OSError("odd"), 0.5),
    ],
)
def test_an_attempt_that_fails_is_made_again_at_the_pace_of_its_failure(failure: Exception, expected: float) -> None:
    play = Play(failure, Link())

    play.run(
        play.shows("waiting", 1000.0, str(failure), 1000.0 + expected),
        time_passes,
        play.shows("connecting", 1000.0 + expected, str(failure)),
    )

    assert play.stage.waits[0] == expected
    assert len(play.taken) == 1


def test_a_link_that_held_is_dialled_again_at_once() -> None:
    play = Play(Link(), Link())

    play.run(play.up, play.later(10.0), play.lost())

    assert play.dialer.attempts == 2
    assert play.stage.waits == [None, None]


def test_a_link_that_did_not_hold_is_not_dialled_again_at_once() -> None:
    play = Play(Link(), Link(), Link())

    play.run(play.up, play.later(9.0), play.lost(), time_passes, play.up, play.lost())

    assert play.stage.waits == [None, 0.5, None, 1.0]


def test_after_a_loss_that_leads_to_another_peer_the_next_attempt_is_made_at_once() -> None:
    play = Play(Link(), Link())

    play.run(lambda: play.dialer.lost("refused", pace=Pace.CREDENTIALS, at_once=True))

    assert len(play.taken) == 2
    assert play.stage.waits == [None, None]


def test_a_link_that_was_never_up_did_not_hold_however_long_it_stood() -> None:
    play = Play(Link(), Link())

    play.run(play.later(100.0), play.lost())

    assert play.stage.waits == [None, 0.5]


def test_how_long_the_link_before_it_held_is_of_no_account() -> None:
    play = Play(Link(), Link(), Link())

    play.run(play.up, play.later(20.0), play.lost(), play.later(100.0), play.lost())

    assert play.stage.waits == [None, None, 0.5]


def test_a_loss_with_a_pace_is_waited_for_however_long_the_link_had_held() -> None:
    play = Play(Link(), Link())

    play.run(play.up, play.later(1000.0), play.lost("taken over", pace=Pace.TAKEN_OVER))

    assert play.stage.waits == [None, 20.0]


def test_two_bridges_that_take_each_other_over_do_it_ever_more_seldom() -> None:
    play = Play(*[Link() for _ in range(5)])
    turn = (play.up, play.later(30.0), play.lost("taken over", pace=Pace.TAKEN_OVER), time_passes)

    play.run(*turn * 5)

    assert [wait for wait in play.stage.waits if wait] == [20.0, 20.0, 40.0, 80.0, 120.0]


def test_a_take_over_of_long_ago_is_forgotten() -> None:
    play = Play(*[Link() for _ in range(4)])
    turn = (play.up, play.later(121.0), play.lost("taken over", pace=Pace.TAKEN_OVER), time_passes)

    play.run(*turn * 4)

    assert [wait for wait in play.stage.waits if wait] == [20.0] * 4


def test_the_back_off_starts_again_from_its_base_once_a_link_has_held() -> None:
    play = Play(OSError("1"), OSError("2"), Link(), OSError("3"))

    play.run(time_passes, time_passes, play.up, play.later(10.0), play.lost(), time_passes)

    assert [wait for wait in play.stage.waits if wait] == [0.5, 1.0, 0.5]


# --- status --------------------------------------------------------------------------------------------


def test_since_stays_while_a_state_lasts() -> None:
    play = Play(Link())

    play.run(
        play.up,
        play.later(3.0),
        play.up,
        play.shows("connected", 1000.0),
        lambda: play.dialer.failing("refused"),
        play.later(2.0),
        lambda: play.dialer.failing("refused again"),
        play.shows("failing", 1003.0, "refused again"),
        play.lost("gone"),
        play.shows("waiting", 1005.0, "gone", 1005.5),
        play.later(0.1),
        play.shows("waiting", 1005.0, "gone", 1005.5),
    )


def test_only_an_attempt_beats() -> None:
    beats: list[int | None] = []
    play: Play = Play(lambda: beats.append(play.dialer.beat), OSError("no"), lambda: beats.append(play.dialer.beat))

    def look() -> None:
        beats.append(play.dialer.beat)

    look()
    play.run(look, play.lost(), look, time_passes, look, time_passes, look)

    assert beats == [None, 1, None, None, None, 3, None]


# --- holding -------------------------------------------------------------------------------------------


def test_nothing_is_dialled_while_it_is_held_and_the_status_says_why() -> None:
    play = Play(Link())
    play.dialer.hold("the outbox is full")

    play.run(play.later(5.0), play.shows("waiting", 1000.0, "the outbox is full"), play.dialer.resume)

    assert play.dialer.attempts == 1
    assert play.states == ["connecting"]
    assert play.stage.waits[0] is None


def test_a_link_that_is_lost_while_it_is_held_is_not_dialled_again() -> None:
    play = Play(Link(), Link())

    play.run(
        play.up,
        play.later(20.0),
        lambda: play.dialer.hold("full"),
        play.shows("connected", 1000.0),
        play.lost("full: left the broker"),
        play.shows("waiting", 1020.0, "full"),
        play.later(5.0),
        lambda: play.dialer.hold("fuller"),
        play.shows("waiting", 1020.0, "fuller"),
        play.dialer.resume,
        play.shows("connecting", 1025.0, "full: left the broker"),
    )

    assert play.dialer.attempts == 2


def test_holding_does_not_shorten_a_back_off() -> None:
    play = Play(GdnAuthError("401"), Link())

    play.run(
        lambda: play.dialer.hold("full"),
        play.shows("waiting", 1000.0, "full"),
        play.later(2.0),
        play.dialer.resume,
        play.shows("waiting", 1000.0, "401", 1005.0),
        time_passes,
    )

    assert play.dialer.attempts == 2


def test_a_back_off_that_ends_while_it_is_held_is_followed_by_no_attempt() -> None:
    play = Play(OSError("no"), Link())

    play.run(lambda: play.dialer.hold("full"), time_passes, play.later(60.0), play.shows("waiting", 1000.0, "full"))

    assert play.dialer.attempts == 1


def test_a_link_that_connects_while_it_is_held_is_closed() -> None:
    unwanted, wanted = Link(), Link()

    def meanwhile() -> Link:
        play.dialer.hold("full")
        return unwanted

    play = Play(meanwhile, wanted)
    play.run(play.shows("waiting", 1000.0, "full"), play.dialer.resume)

    assert unwanted.is_closed
    assert play.taken == [wanted]
    assert not wanted.is_closed


def test_an_attempt_that_was_held_and_resumed_meanwhile_counts() -> None:
    def meanwhile() -> None:
        play.dialer.hold("full")
        play.dialer.resume()

    play = Play(meanwhile)
    play.run()

    assert len(play.taken) == 1


def test_resuming_what_is_not_held_changes_nothing() -> None:
    play = Play(OSError("no"))

    play.run(play.dialer.resume, play.shows("waiting", 1000.0, "no", 1000.5))

    assert play.dialer.attempts == 1


# --- stopping ------------------------------------------------------------------------------------------


def test_a_stop_ends_every_wait() -> None:
    held, backing_off, linked = Play(), Play(OSError("no")), Play(Link())
    held.dialer.hold("full")

    for play in (held, backing_off, linked):
        play.run(play.dialer.request_stop)
        play.dialer.request_stop()

    assert [play.dialer.attempts for play in (held, backing_off, linked)] == [0, 1, 1]


def test_a_stop_before_the_start_is_not_lost() -> None:
    play = Play(Link())
    play.dialer.request_stop()

    play.run()

    assert play.dialer.attempts == 0


def test_a_link_that_connects_after_the_stop_is_closed() -> None:
    link = Link()

    def meanwhile() -> Link:
        play.dialer.request_stop()
        return link

    play = Play(meanwhile)
    play.run()

    assert link.is_closed
    assert play.taken == []


# --- between real threads ------------------------------------------------------------------------------


class Watched(threading.Condition):
    """Says when the dialling thread has gone to sleep: until then nobody else gets the lock."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.sleeps.release()
        return super().wait(timeout)


class Running:
    """A dialler in a thread of its own, whose links come as fast as they are wanted."""

    def __init__(self, connect: Callable[[], Link] = Link, **more: Any) -> None:
        self.wake = Watched()
        self.links = threading.Semaphore(0)
        self.dialer: Dialer[Link] = Dialer(
            name="part",
            connect=connect,
            hand_over=lambda _link: self.links.release(),
            rng=lambda: 0.0,
            wake=self.wake,
            **more,
        )
        self.thread = threading.Thread(target=self.dialer.run, daemon=True)

    def ends(self) -> bool:
        self.dialer.request_stop()
        self.thread.join(10)
        return not self.thread.is_alive()


def test_nothing_is_dialled_before_the_gate_opens() -> None:
    running = Running(gate=threading.Event())
    running.thread.start()

    assert running.ends()
    assert running.dialer.attempts == 0


def test_a_sleeping_dialler_hears_resume_lost_and_stop() -> None:
    running = Running()
    running.dialer.hold("full")
    running.thread.start()

    assert running.wake.sleeps.acquire(timeout=10), "held"
    running.dialer.resume()
    assert running.links.acquire(timeout=10), "resume was not heard"
    assert running.wake.sleeps.acquire(timeout=10), "linked"
    running.dialer.lost("gone")
    assert running.links.acquire(timeout=10), "the loss was not heard"
    assert running.wake.sleeps.acquire(timeout=10)
    assert running.ends()


def test_a_dialler_that_backs_off_for_long_hears_the_stop() -> None:
    def refuse() -> Link:
        raise GdnUnavailable("not today", retry_after=3600.0)

    running = Running(refuse)
    running.thread.start()

    assert running.wake.sleeps.acquire(timeout=10)
    running.dialer.resume()
    assert running.ends()
    assert running.dialer.attempts == 1


def test_no_wake_up_is_lost_however_soon_it_comes() -> None:
    """Each link is lost, and dialling held and resumed, the moment it comes."""
    running = Running()
    running.thread.start()

    for number in range(300):
        assert running.links.acquire(timeout=10), f"no link in round {number}"
        if number % 3 == 0:
            running.dialer.hold("full")
        running.dialer.lost("gone")
        if number % 3 == 0:
            running.dialer.resume()

    assert running.ends()
    assert running.dialer.attempts >= 300


# --- certificates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (EXPIRY_NOTICE + 1, None),
        (86400.0 * 3, {"event": "certificate.expires", "log_level": "warning", "days_left": 3.0}),
        (0.0, {"event": "certificate.expired", "log_level": "error", "days_ago": 0.0}),
        (-86400.0 * 2, {"event": "certificate.expired", "log_level": "error", "days_ago": 2.0}),
    ],
)
def test_a_certificate_speaks_up_thirty_days_before_its_end(left: float, expected: dict[str, object] | None) -> None:
    with capture_logs() as logs:
        warn_of_expiry(5000.0 + left, 5000.0, file="bridge.pem")

    assert [{k: v for k, v in entry.items() if k != "hint"} for entry in logs] == (
        [] if expected is None else [{"file": "bridge.pem", **expected}]
    )


def test_a_certificate_whose_end_is_not_known_says_nothing() -> None:
    with capture_logs() as logs:
        warn_of_expiry(None, 5000.0, host="broker")

    assert logs == []
