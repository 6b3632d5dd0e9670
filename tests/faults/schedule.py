"""The schedule of faults: all classes, in a seeded random order, each class once before any is repeated.

Pure. A class whose fault did not happen, by the counters, is scheduled again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

POINTS = ("after_receive", "in_commit", "before_puback", "after_send", "before_release")
"""Where the daemon can be made to kill itself (``killable``)."""

REST_STEPS = ("worker", "create", "activate", "otp", "datacenter", "cursor")
REST_STATUSES = (401, 403, 404, 409, 429, 500, 503)
UPGRADE_STATUSES = (400, 401, 403, 404, 409, 429, 500, 503, 504)


@dataclass(frozen=True)
class Fault:
    """A class of fault and how it is injected.

    ``target`` injects it: ``far_end`` (an armed step), ``state`` (of the far end), ``mqtt`` or ``gdn`` (a proxy),
    ``broker``, ``bridge`` or ``publisher``.
    """

    name: str
    group: str
    target: str
    spec: dict[str, Any]
    counter: str
    """The counter that must increase."""
    live: bool = False
    """Whether it affects established links; else a new process is started during it."""
    prepare: dict[str, Any] = field(default_factory=dict)
    """The state of the far end in which the bridge reaches the step."""
    quiet: bool = False
    """Publishing pauses."""
    slow: bool = False
    """Whether the daemon then waits 15 s or more (refused credentials): alone in its round, which ends with a kill."""

    def __hash__(self) -> int:
        return hash(self.name)


def _rest(step: str, statuses: tuple[int, ...]) -> Iterator[Fault]:
    prepare = {"create": {"worker": "missing"}, "activate": {"worker": "inactive"}}.get(step, {})
    group = "upgrade" if step == "upgrade" else "rest"

    def fault(kind: str, name: str, **spec: Any) -> Fault:
        slow = spec.get("status") in (401, 403)
        return Fault(
            f"{step}.{name}", group, "far_end", {"step": step, "kind": kind, **spec}, f"{step}.{name}",
            prepare=prepare, slow=slow,
        )  # fmt: skip

    for status in statuses:
        asked = {"retry_after": 1} if status in (429, 503) else {}
        yield fault("status", f"status.{status}", status=status, times=2, **asked)
    yield fault("html", "html", times=2)
    yield fault("slow", "slow", seconds=2.5, times=1)
    yield fault("cut", "cut", times=2)
    yield fault("reset", "reset", times=2)
    if step == "upgrade":
        yield fault("accept", "accept", times=2)
    else:
        yield fault("shape", "shape", times=2)


def _producer(kind: str, name: str | None = None, *, live: bool = True, quiet: bool = False, **spec: Any) -> Fault:
    counter = f"producer.{kind}.{spec['code']}" if kind == "close" else f"producer.{kind}"
    spec = {"step": "producer", "kind": kind, **spec}
    return Fault(f"producer.{name or kind}", "producer", "far_end", spec, counter, live=live, quiet=quiet)


def _proxy(link: str) -> Iterator[Fault]:
    def fault(name: str, counter: str | None = None, **spec: Any) -> Fault:
        spec["do"] = name.partition(".")[0]
        return Fault(f"{link}.{name}", f"{link} link", link, spec, f"{link}.{counter or name}", live=True)

    yield fault("cut")
    yield fault("close")
    yield fault("half_open.to_client", "half_open_to_client", directions=["to_client"])
    yield fault("half_open.to_server", "half_open_to_server", directions=["to_server"])
    yield fault("half_open.both", "half_open_to_server", directions=["to_client", "to_server"])
    yield fault("stall.short", "stall", seconds=0.8)
    yield fault("stall.long", "stall", seconds=3.0)
    yield fault("latency", seconds=0.15)
    yield fault("bandwidth", rate=20_000)
    yield fault("cut_after.to_client", "cut_after", direction="to_client")
    yield fault("cut_after.to_server", "cut_after", direction="to_server")
    yield fault("refuse", seconds=1.5)
    yield fault("unlisten", seconds=1.5)


def _state(name: str, counter: str, **spec: Any) -> Fault:
    return Fault(f"far_end.{name}", "far end", "state", spec, counter, live=True)


FAULTS: tuple[Fault, ...] = (
    *(fault for step in REST_STEPS for fault in _rest(step, REST_STATUSES)),
    *_rest("upgrade", UPGRADE_STATUSES),
    Fault("otp.expired", "upgrade", "far_end", {"step": "otp", "kind": "expired"}, "otp.expired", slow=True),
    Fault("otp.spent", "upgrade", "far_end", {"step": "otp", "kind": "spent"}, "otp.spent", slow=True),
    _producer("lost", "lost", share=0.3),
    _producer("lost", "lost_then_closed", share=0.5, close_after=20),
    _producer("late", "late.short", seconds=0.7),
    _producer("late", "late.long", seconds=2.6),
    _producer("shuffled"),
    _producer("twice", share=0.5),
    _producer("unknown_context", share=0.2),
    _producer("no_context", share=0.2),
    _producer("fragmented"),
    _producer("not_json", share=0.05),
    _producer("error8", "error8", share=0.2),
    _producer("error7", "error7", share=0.1),
    *(_producer("close", f"close.{code}", code=code, sends=30) for code in (1000, 1001, 1011)),
    _producer("reset", "reset", sends=30),
    _producer("truncated", sends=30),
    _producer("idle_close", seconds=0.4, quiet=True),
    _producer("stall", "stall.short", seconds=1.0),
    _producer("stall", "stall.long", seconds=4.0),
    _producer("half_open"),
    *_proxy("mqtt"),
    *_proxy("gdn"),
    _state("down", "gdn.upstream_refused", listening=False),
    _state("flapping", "down", flaps=3),
    _state("stream_deleted", "stream.missing", stream=False),
    _state("worker_off", "worker.shown_inactive", worker="inactive"),
    Fault("broker.restart", "broker", "broker", {"do": "restart"}, "broker.restart", live=True),
    Fault("broker.kill_saved", "broker", "broker", {"do": "kill_saved"}, "broker.kill_saved", live=True),
    Fault("broker.kill_session_lost", "broker", "broker", {"do": "lose"}, "broker.kill_session_lost", live=True),
    Fault("broker.kill_unannounced", "broker", "broker", {"do": "unannounced"}, "broker.kill_unannounced", live=True),
    Fault("bridge.sigstop", "signals", "bridge", {"seconds": 2.0}, "bridge.sigstop", live=True),
    Fault("publisher.burst", "signals", "publisher", {"rate": 1500, "seconds": 1.0}, "publisher.burst", live=True),
)
"""All classes."""

ENDINGS = ("point", "point", "point", "point", "random", "sigterm", "recover", "recover")
"""How rounds end, by weight. ``recover``: all faults end, and the same process must deliver everything."""


class Ending(NamedTuple):
    """How a round ends."""

    how: str
    """A point of ``killable``, ``random``, ``sigterm`` or ``recover``."""
    passes: int
    """How often the point is passed first."""
    delay: float
    """Seconds from the start of the commit, or from the start of a process that is killed at random."""


class Round(NamedTuple):
    """Some simultaneous faults and how the process ends."""

    faults: tuple[Fault, ...]
    ending: Ending


def _goes_alone(fault: Fault) -> bool:
    return fault.group == "broker" or fault.slow


class Schedule:
    """Produces rounds. The same seed gives the same rounds, except for faults that had to be scheduled again.

    Args:
        seed: of all random choices.
        first: names of faults that come before the others, one per round; most of these rounds end in recovery.
    """

    def __init__(self, seed: int, *, first: Sequence[str] = ()) -> None:
        self._rng = random.Random(f"faults/{seed}")
        self._quick_rng = random.Random(f"kills/{seed}")
        self._decks: dict[str, list[Fault]] = {}
        groups = list(dict.fromkeys(fault.group for fault in FAULTS))
        self._groups = groups
        self._next_groups: list[str] = []
        self._points: list[str] = []
        self._first = [next(fault for fault in FAULTS if fault.name == name) for name in first]

    def quick(self) -> Round:
        """A round with a kill and no other fault."""
        return Round((), self._kill(self._quick_rng))

    def mixed(self) -> Round:
        """One to three faults of different groups; a broker's alone, and a slow one."""
        rng = self._rng
        count = rng.choice((1, 1, 2, 2, 3))
        first = bool(self._first)
        if first:
            count, faults = 1, [self._first.pop(0)]
        else:
            faults = [self._deal(self._next_group())]
        while len(faults) < count and not _goes_alone(faults[0]):
            fault = self._deal(self._next_group())
            if _goes_alone(fault) or fault.group in {f.group for f in faults}:
                self.put_back(fault)
                break
            faults.append(fault)
        how = rng.choice(ENDINGS)
        if faults[0].group == "broker":
            how = rng.choice(("recover", "random"))
        if first:
            how = rng.choice(("recover", "recover", "point"))
        if any(fault.slow for fault in faults) and how == "recover":
            how = "random"
        return Round(tuple(faults), self._kill(rng) if how == "point" else Ending(how, 0, rng.uniform(0.1, 1.0)))

    def put_back(self, fault: Fault) -> None:
        """The fault did not happen: schedule it again soon."""
        self._decks.setdefault(fault.group, []).append(fault)

    def put_back_point(self, point: str) -> None:
        """The daemon did not reach this point."""
        self._points.append(point)

    def _kill(self, rng: random.Random) -> Ending:
        if rng.random() < 0.3:
            return Ending("random", 0, rng.uniform(0.05, 2.0))
        if not self._points:
            self._points = list(POINTS)
            rng.shuffle(self._points)
        point = self._points.pop()
        delay = rng.choice((0.0, rng.uniform(0.00001, 0.003)))
        return Ending(point, rng.randint(1, 25), delay)

    def _next_group(self) -> str:
        if not self._next_groups:
            # Groups come evenly, large ones with more weight.
            self._next_groups = [*self._groups, "rest", "producer", "upgrade"]
            self._rng.shuffle(self._next_groups)
        return self._next_groups.pop()

    def _deal(self, group: str) -> Fault:
        deck = self._decks.setdefault(group, [])
        if not deck:
            deck.extend(fault for fault in FAULTS if fault.group == group)
            self._rng.shuffle(deck)
        return deck.pop()
