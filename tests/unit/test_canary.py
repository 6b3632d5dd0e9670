"""The canary against a far end and a data path that are scripts."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import GdnError, GdnRejected, GdnUnavailable
from bridge.message import DeadLetter, MqttMessage, Row
from bridge.path.canary_tracker import CanaryMessage, CanaryTracker
from bridge.watch.canary import Canary, CanaryTemplate
from bridge.watch.health import Health, HealthStatus

INTERVAL = 60.0
SONG = CanaryTemplate(
    "t/{marker}", '{"m":"{marker}"}', 'FOR d IN t FILTER d.m == "{marker}" RETURN 1', 'REMOVE "{marker}"'
)


class Far:
    """GDN as a script: the rows of each query, by its first word."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {"FOR": [1], "REMOVE": []}
        self.asked: list[str] = []

    def get_worker(self, name: str, *, check: bool = False) -> Any:
        raise AssertionError("the canary asks for no worker")

    def query(self, c8ql: str, *, max_rows: int = 1000, check: bool = False) -> list[Any]:
        assert check, "a check must not take the budget of reconnects"
        self.asked.append(c8ql)
        rows = self.rows[c8ql.split(maxsplit=1)[0]]
        if isinstance(rows, Exception):
            raise rows
        return list(rows)


class Flown:
    """The canary, the clock it goes by, and the flights that it launched."""

    def __init__(self, song: CanaryTemplate = SONG) -> None:
        self.far = Far()
        self.now = 1000.0
        self.flights: list[CanaryMessage] = []
        self.arrives = self.is_receipted = True
        markers = iter(f"canary-{n}" for n in range(1000))
        canary = Canary(
            rest=self.far,
            launch=self.launch,
            song=song,
            interval=INTERVAL,
            clock=lambda: self.now,
            new_marker=lambda: next(markers),
        )
        self.health = Health(checks=[canary], rng=lambda: 1.0, clock=lambda: self.now, wall_clock=lambda: self.now)

    def launch(self, flight: CanaryMessage) -> None:
        self.flights.append(flight)
        flight.published_at = self.now
        flight.arrived_at = self.now + 0.1 if self.arrives else None
        flight.receipted_at = self.now + 0.2 if self.arrives and self.is_receipted else None

    def fly(self, seconds: float) -> None:
        for _ in range(round(seconds * 8)):
            self.health.step()
            self.now += 0.125

    @property
    def state(self) -> str:
        return self.health.parts()[0].state

    @property
    def error(self) -> str:
        return self.health.parts()[0].error or ""


def test_each_round_is_marked_anew_measured_and_cleaned_up() -> None:
    flown = Flown()

    flown.fly(2 * INTERVAL)

    assert [(f.topic, f.payload) for f in flown.flights] == [
        ("t/canary-0", b'{"m":"canary-0"}'),
        ("t/canary-1", b'{"m":"canary-1"}'),
    ]
    assert flown.far.asked == [
        'FOR d IN t FILTER d.m == "canary-0" RETURN 1',
        'REMOVE "canary-0"',
        'FOR d IN t FILTER d.m == "canary-1" RETURN 1',
        'REMOVE "canary-1"',
    ]
    canary = flown.health.status.canary
    assert canary is not None
    assert canary.seconds["mqtt"] == pytest.approx(0.1)
    assert canary.seconds["receipt"] == pytest.approx(0.1)
    assert 0 <= canary.seconds["row"] <= 0.5
    assert (canary.rounds, canary.removed) == ({"found": 2, "lost": 0, "not_published": 0}, 2)
    assert flown.state == "connected"


def test_a_worker_that_begins_to_swallow_is_red_within_two_intervals() -> None:
    flown = Flown()
    flown.fly(3)
    assert flown.state == "connected"
    flown.far.rows["FOR"] = []

    flown.fly(INTERVAL)
    assert flown.state == "connected"
    flown.fly(INTERVAL - 3 + 1)

    assert flown.state == "failing"
    assert "GDN receipted the canary, but no row came out within 60 s" in flown.error
    assert 'FOR d IN t FILTER d.m == "canary-1" RETURN 1 gives none' in flown.error


@pytest.mark.parametrize(("seconds", "said"), [(10, None), (20, "the worker is late")])
def test_a_row_that_comes_out_late_is_said_to_and_the_canary_is_well(seconds: float, said: str | None) -> None:
    flown = Flown()
    flown.far.rows["FOR"] = []
    flown.fly(seconds)
    flown.far.rows["FOR"] = [1]

    flown.fly(INTERVAL - seconds - 1)

    assert flown.state == "connected"
    assert said in flown.error if said else not flown.error


def test_a_lost_round_costs_about_ten_requests() -> None:
    flown = Flown()
    flown.far.rows["FOR"] = []

    flown.fly(INTERVAL)

    assert len(flown.flights) == 1
    assert 5 <= len(flown.far.asked) <= 10


def test_a_row_that_comes_out_again_makes_it_green() -> None:
    flown = Flown()
    flown.far.rows["FOR"] = []
    flown.fly(INTERVAL + 1)
    assert flown.state == "failing"

    flown.far.rows["FOR"] = [1]
    flown.fly(INTERVAL)

    assert flown.state == "connected"


@pytest.mark.parametrize(
    ("arrives", "is_receipted", "sentence"),
    [
        (False, False, "the broker did not hand it over within 60 s"),
        (True, False, "GDN did not receipt it within 60 s"),
    ],
)
def test_a_message_that_stays_on_the_way_is_red_and_gdn_is_not_asked_for_it(
    arrives: bool, is_receipted: bool, sentence: str
) -> None:
    flown = Flown()
    flown.arrives, flown.is_receipted = arrives, is_receipted

    flown.fly(INTERVAL + 1)

    assert flown.state == "failing"
    assert sentence in flown.error
    assert flown.far.asked == []


def test_a_message_that_was_not_published_is_not_counted_as_lost() -> None:
    flown = Flown()

    def launch(flight: CanaryMessage) -> None:
        flight.trouble = "could not be published: the broker isn't connected"

    canary = Canary(rest=flown.far, launch=launch, song=SONG, interval=INTERVAL, clock=lambda: flown.now)
    canary.ask(HealthStatus())

    found = canary.ask(HealthStatus())

    assert found.error is not None
    assert "the broker isn't connected" in found.error
    assert found.known.canary is not None
    assert found.known.canary.rounds == {"found": 0, "lost": 0, "not_published": 1}


def test_a_canary_that_finds_no_broker_at_the_start_is_sent_again_soon() -> None:
    flown = Flown()
    launched = flown.launch

    def launch(flight: CanaryMessage) -> None:
        if flown.now < 1003.0:
            flight.trouble = "could not be published: the broker isn't connected"
        else:
            launched(flight)

    flown.health = Health(
        checks=[Canary(rest=flown.far, launch=launch, song=SONG, interval=INTERVAL, clock=lambda: flown.now)],
        rng=lambda: 1.0,
        clock=lambda: flown.now,
        wall_clock=lambda: flown.now,
    )
    flown.fly(2)
    assert "the broker isn't connected" in flown.error
    flown.fly(8)

    assert flown.state == "connected"


def test_a_gdn_that_can_not_be_asked_is_not_a_worker_that_swallows() -> None:
    flown = Flown()
    flown.far.rows["FOR"] = GdnUnavailable("GET /x: away")

    flown.fly(2 * INTERVAL)

    assert flown.state == "failing"
    assert flown.error == "GET /x: away"
    canary = flown.health.status.canary
    assert canary is None or canary.rounds["lost"] == 0
    flown.far.rows["FOR"] = [1]
    flown.fly(2 * INTERVAL)
    assert flown.state == "connected"


@pytest.mark.parametrize(
    ("failure", "removed"),
    [
        (GdnRejected("400", status=400), 0),
        (GdnUnavailable("no answer within 10 s"), 1),  # they may be gone: then no worker has lost them
    ],
)
def test_rows_that_can_not_be_cleaned_up_stay_and_the_canary_is_well(failure: GdnError, removed: int) -> None:
    flown = Flown()
    flown.far.rows["REMOVE"] = failure

    flown.fly(5)

    assert flown.state == "connected"
    canary = flown.health.status.canary
    assert canary is not None
    assert canary.removed == removed


def test_what_a_canary_that_came_out_proves_is_of_the_moment_when_it_was_sent() -> None:
    flown = Flown()
    receipted = iter([7, 9])
    canary = Canary(
        rest=flown.far,
        launch=flown.launch,
        song=SONG,
        interval=INTERVAL,
        receipted=lambda: next(receipted),
        clock=lambda: flown.now,
    )
    canary.ask(HealthStatus())
    flown.now += 1

    finding = canary.ask(HealthStatus())
    found = finding.known.canary

    assert found is not None
    assert (found.found_from, found.found_after) == (1000.0, 7 + 1)
    assert finding.then == "query"  # rows that come in later would hide those that are lost


def test_without_a_cleaning_query_none_is_asked() -> None:
    flown = Flown(CanaryTemplate(SONG.topic, SONG.payload, SONG.query))

    flown.fly(5)

    assert flown.far.asked == ['FOR d IN t FILTER d.m == "canary-0" RETURN 1']


def test_a_first_round_under_way_is_neither_red_nor_green() -> None:
    flown = Flown()
    flown.is_receipted = False

    flown.fly(5)

    assert flown.state == "starting"


# --- in the data path -------------------------------------------------------------------------------------


def message(flight: CanaryMessage, payload: bytes | None = None) -> MqttMessage:
    return MqttMessage(flight.topic, flight.payload if payload is None else payload, 0, False, 0, 0)


@pytest.fixture
def flight() -> CanaryMessage:
    return CanaryMessage("t/canary-1", b"{}", "canary-1")


def departed(flight: CanaryMessage) -> CanaryTracker:
    tower = CanaryTracker()
    tower.publish([flight], lambda _topic, _payload: None, 5.0)
    return tower


def test_a_flight_is_followed_to_the_receipt_of_its_last_row(flight: CanaryMessage) -> None:
    published: list[tuple[str, bytes]] = []
    tower = CanaryTracker()
    assert not tower.is_expecting
    tower.publish([flight], lambda topic, payload: published.append((topic, payload)), 5.0)
    assert published == [("t/canary-1", b"{}")]
    assert tower.is_expecting

    tower.see(message(flight, payload=b"other"), [Row("s", b"{}")], 6, 6.0)
    assert tower.is_expecting
    tower.see(message(flight), [Row("s", b"{}"), Row("s", b"{}")], 7, 6.0)
    assert not tower.is_expecting
    assert not tower.is_awaiting
    tower.stored()
    tower.receipted([1, 7], 8.0)
    assert flight.receipted_at is None
    tower.receipted([8], 9.0)

    assert (flight.published_at, flight.arrived_at, flight.receipted_at) == (5.0, 6.0, 9.0)
    assert not tower.is_awaiting


def test_record_ids_of_rows_that_were_not_stored_belong_to_others(flight: CanaryMessage) -> None:
    tower = departed(flight)
    tower.see(message(flight), [Row("s", b"{}")], 7, 6.0)
    tower.not_stored("the disk is full")
    tower.stored()
    tower.receipted([7], 9.0)

    assert flight.receipted_at is None
    assert flight.trouble == "was not stored: the disk is full"


def test_a_store_that_fails_later_does_not_concern_what_is_stored(flight: CanaryMessage) -> None:
    tower = departed(flight)
    tower.see(message(flight), [Row("s", b"{}")], 7, 6.0)
    tower.stored()
    tower.not_stored("the disk is full")

    assert flight.trouble is None
    assert tower.is_awaiting


def test_what_a_route_makes_of_it_is_told(flight: CanaryMessage) -> None:
    letter = DeadLetter.of(message(flight), route=None, reason="no_route", detail="none")
    departed(flight).see(message(flight), letter, 7, 6.0)
    assert flight.trouble == "became a dead letter: no_route: none"

    other = CanaryMessage("t/canary-2", b"{}", "canary-2")
    departed(other).see(message(other), [], 7, 6.0)
    assert other.trouble == "was taken by no route"


def test_without_a_broker_nothing_is_published_and_nothing_looked_for(flight: CanaryMessage) -> None:
    tower = CanaryTracker()
    tower.publish([flight], None, 5.0)

    assert not tower.is_expecting
    assert flight.published_at is None
    assert "isn't connected" in (flight.trouble or "")


def test_a_topic_that_can_not_be_published_to_is_said(flight: CanaryMessage) -> None:
    def refuse(_topic: str, _payload: bytes) -> None:
        raise ValueError("Publish topic cannot contain wildcards.")

    tower = CanaryTracker()
    tower.publish([flight], refuse, 5.0)

    assert "wildcards" in (flight.trouble or "")
    assert not tower.is_expecting
