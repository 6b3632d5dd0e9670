"""The canary with a scripted far end and a scripted data path."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import GdnError, GdnRejected, GdnUnavailable
from bridge.message import DeadLetter, MqttMessage, OutboxRecord, Row, Rows
from bridge.path.canary_tracker import CanaryMessage, CanaryTracker
from bridge.watch.canary import Canary, CanaryTemplate
from bridge.watch.health import Health, HealthStatus

INTERVAL = 60.0
TEMPLATE = CanaryTemplate(
    "t/{marker}", '{"m":"{marker}"}', 'FOR d IN t FILTER d.m == "{marker}" RETURN 1', 'REMOVE "{marker}"'
)


class Far:
    """A scripted GDN: the rows of each query, by its first word."""

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


class World:
    """The canary, its clock, and the messages that it published."""

    def __init__(self, template: CanaryTemplate = TEMPLATE) -> None:
        self.far = Far()
        self.now = 1000.0
        self.messages: list[CanaryMessage] = []
        self.arrives = self.is_receipted = True
        self.is_rate_limited = False
        markers = iter(f"canary-{n}" for n in range(1000))
        canary = Canary(
            gdn=self.far,
            publish=self.publish,
            template=template,
            interval=INTERVAL,
            is_rate_limited=lambda: self.is_rate_limited,
            clock=lambda: self.now,
            new_marker=lambda: next(markers),
        )
        self.health = Health(checks=[canary], rng=lambda: 1.0, clock=lambda: self.now, wall_clock=lambda: self.now)

    def publish(self, canary_message: CanaryMessage) -> None:
        self.messages.append(canary_message)
        canary_message.published_at = self.now
        canary_message.arrived_at = self.now + 0.1 if self.arrives else None
        canary_message.receipted_at = self.now + 0.2 if self.arrives and self.is_receipted else None

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 8)):
            self.health.step()
            self.now += 0.125

    @property
    def state(self) -> str:
        return self.health.parts()[0].state

    @property
    def error(self) -> str:
        return self.health.parts()[0].error or ""


def test_each_round_has_a_new_marker_is_measured_and_cleaned_up() -> None:
    world = World()

    world.run(2 * INTERVAL)

    assert [(f.topic, f.payload) for f in world.messages] == [
        ("t/canary-0", b'{"m":"canary-0"}'),
        ("t/canary-1", b'{"m":"canary-1"}'),
    ]
    assert world.far.asked == [
        'FOR d IN t FILTER d.m == "canary-0" RETURN 1',
        'REMOVE "canary-0"',
        'FOR d IN t FILTER d.m == "canary-1" RETURN 1',
        'REMOVE "canary-1"',
    ]
    canary = world.health.status.canary
    assert canary is not None
    assert canary.seconds["mqtt"] == pytest.approx(0.1)
    assert canary.seconds["receipt"] == pytest.approx(0.1)
    assert 0 <= canary.seconds["row"] <= 0.5
    assert (canary.rounds, canary.removed) == ({"found": 2, "lost": 0, "not_published": 0}, 2)
    assert world.state == "connected"


def test_a_worker_that_begins_to_drop_rows_is_failing_within_two_intervals() -> None:
    world = World()
    world.run(3)
    assert world.state == "connected"
    world.far.rows["FOR"] = []

    world.run(INTERVAL)
    assert world.state == "connected"
    world.run(INTERVAL - 3 + 1)

    assert world.state == "failing"
    assert "GDN receipted the canary, but no row came out within 60 s" in world.error
    assert 'FOR d IN t FILTER d.m == "canary-1" RETURN 1 returns none' in world.error


@pytest.mark.parametrize(("seconds", "note"), [(10, None), (20, "the worker is slow")])
def test_a_row_that_comes_out_late_is_reported_and_the_canary_passes(seconds: float, note: str | None) -> None:
    world = World()
    world.far.rows["FOR"] = []
    world.run(seconds)
    world.far.rows["FOR"] = [1]

    world.run(INTERVAL - seconds - 1)

    assert world.state == "connected"
    assert note in world.error if note else not world.error


def test_a_lost_round_costs_about_ten_requests() -> None:
    world = World()
    world.far.rows["FOR"] = []

    world.run(INTERVAL)

    assert len(world.messages) == 1
    assert 5 <= len(world.far.asked) <= 10


def test_the_check_recovers_with_the_next_row_that_comes_out() -> None:
    world = World()
    world.far.rows["FOR"] = []
    world.run(INTERVAL + 1)
    assert world.state == "failing"

    world.far.rows["FOR"] = [1]
    world.run(INTERVAL)

    assert world.state == "connected"


def test_a_canary_that_the_limit_of_the_rate_holds_back_is_no_failure_and_not_counted() -> None:
    world = World()
    world.is_receipted, world.is_rate_limited = False, True

    world.run(2 * INTERVAL + 3)

    assert world.state == "connected"
    assert "delivery.max_rate_rows" in world.error
    assert len(world.messages) == 3
    canary = world.health.status.canary
    assert canary is not None
    assert canary.rounds == {"found": 0, "lost": 0, "not_published": 0}

    world.is_rate_limited = False
    world.run(INTERVAL)
    assert "GDN did not receipt it" in world.error


@pytest.mark.parametrize(
    ("arrives", "is_receipted", "sentence"),
    [
        (False, False, "the broker did not deliver it within 60 s"),
        (True, False, "GDN did not receipt it within 60 s"),
    ],
)
def test_a_message_that_gets_stuck_fails_the_check_and_gdn_is_not_asked_for_it(
    arrives: bool, is_receipted: bool, sentence: str
) -> None:
    world = World()
    world.arrives, world.is_receipted = arrives, is_receipted

    world.run(INTERVAL + 1)

    assert world.state == "failing"
    assert sentence in world.error
    assert world.far.asked == []


def test_a_message_that_was_not_published_is_not_counted_as_lost() -> None:
    world = World()

    def publish(canary_message: CanaryMessage) -> None:
        canary_message.trouble = "could not be published: the broker isn't connected"

    canary = Canary(gdn=world.far, publish=publish, template=TEMPLATE, interval=INTERVAL, clock=lambda: world.now)
    canary.run(HealthStatus())

    found = canary.run(HealthStatus())

    assert found.error is not None
    assert "the broker isn't connected" in found.error
    assert found.status.canary is not None
    assert found.status.canary.rounds == {"found": 0, "lost": 0, "not_published": 1}


def test_a_canary_that_could_not_be_published_is_sent_again_soon() -> None:
    world = World()
    published = world.publish

    def publish(canary_message: CanaryMessage) -> None:
        if world.now < 1003.0:
            canary_message.trouble = "could not be published: the broker isn't connected"
        else:
            published(canary_message)

    world.health = Health(
        checks=[Canary(gdn=world.far, publish=publish, template=TEMPLATE, interval=INTERVAL, clock=lambda: world.now)],
        rng=lambda: 1.0,
        clock=lambda: world.now,
        wall_clock=lambda: world.now,
    )
    world.run(2)
    assert "the broker isn't connected" in world.error
    world.run(8)

    assert world.state == "connected"


def test_a_gdn_that_can_not_be_asked_is_not_reported_as_a_worker_that_drops_rows() -> None:
    world = World()
    world.far.rows["FOR"] = GdnUnavailable("GET /x: away")

    world.run(2 * INTERVAL)

    assert world.state == "failing"
    assert world.error == "GET /x: away"
    canary = world.health.status.canary
    assert canary is None or canary.rounds["lost"] == 0
    world.far.rows["FOR"] = [1]
    world.run(2 * INTERVAL)
    assert world.state == "connected"


@pytest.mark.parametrize(
    ("failure", "removed"),
    [
        (GdnRejected("400", status=400), 0),
        (GdnUnavailable("no answer within 10 s"), 1),  # they may be gone, and then the worker has not lost them
    ],
)
def test_rows_that_can_not_be_removed_stay_and_the_canary_passes(failure: GdnError, removed: int) -> None:
    world = World()
    world.far.rows["REMOVE"] = failure

    world.run(5)

    assert world.state == "connected"
    canary = world.health.status.canary
    assert canary is not None
    assert canary.removed == removed


def test_a_canary_that_came_out_proves_what_was_receipted_before_it_was_sent() -> None:
    world = World()
    receipted = iter([7, 9])
    canary = Canary(
        gdn=world.far,
        publish=world.publish,
        template=TEMPLATE,
        interval=INTERVAL,
        receipted=lambda: next(receipted),
        clock=lambda: world.now,
    )
    canary.run(HealthStatus())
    world.now += 1

    result = canary.run(HealthStatus())
    found = result.status.canary

    assert found is not None
    assert (found.found_sent_at, found.due_rows) == (1000.0, 7 + 1)
    assert result.triggers == "query"  # rows that come in later would hide lost ones


def test_without_a_cleaning_query_none_is_asked() -> None:
    world = World(CanaryTemplate(TEMPLATE.topic, TEMPLATE.payload, TEMPLATE.query))

    world.run(5)

    assert world.far.asked == ['FOR d IN t FILTER d.m == "canary-0" RETURN 1']


def test_the_first_round_is_neither_passed_nor_failed_until_it_ends() -> None:
    world = World()
    world.is_receipted = False

    world.run(5)

    assert world.state == "starting"


# --- in the data path -------------------------------------------------------------------------------------


def message(canary_message: CanaryMessage, payload: bytes | None = None) -> MqttMessage:
    return MqttMessage(canary_message.topic, canary_message.payload if payload is None else payload, 0, False, 0, 0)


@pytest.fixture
def canary_message() -> CanaryMessage:
    return CanaryMessage("t/canary-1", b"{}", "canary-1")


def published_tracker(canary_message: CanaryMessage) -> CanaryTracker:
    tracker = CanaryTracker()
    tracker.publish([canary_message], lambda _topic, _payload: None, 5.0)
    return tracker


def test_a_canary_is_tracked_to_the_receipt_of_its_last_row(canary_message: CanaryMessage) -> None:
    published: list[tuple[str, bytes]] = []
    tracker = CanaryTracker()
    assert not tracker.is_expecting
    tracker.publish([canary_message], lambda topic, payload: published.append((topic, payload)), 5.0)
    assert published == [("t/canary-1", b"{}")]
    assert tracker.is_expecting

    tracker.see(message(canary_message, payload=b"other"), [Row("s", b"{}")], 6, 6.0)
    assert tracker.is_expecting
    tracker.see(message(canary_message), [Row("s", b"{}"), Row("s", b"{}")], 7, 6.0)
    assert not tracker.is_expecting
    assert not tracker.is_awaiting
    tracker.stored([OutboxRecord(n, "s", b"{}") for n in (6, 7, 8)])
    tracker.receipted([1, 7], 8.0)
    assert canary_message.receipted_at is None
    tracker.receipted([8], 9.0)

    assert (canary_message.published_at, canary_message.arrived_at, canary_message.receipted_at) == (5.0, 6.0, 9.0)
    assert not tracker.is_awaiting


def test_record_ids_of_rows_that_were_not_stored_are_not_awaited(canary_message: CanaryMessage) -> None:
    tracker = published_tracker(canary_message)
    tracker.see(message(canary_message), [Row("s", b"{}")], 7, 6.0)
    tracker.not_stored("the disk is full")
    tracker.stored([])
    tracker.receipted([7], 9.0)

    assert canary_message.receipted_at is None
    assert canary_message.trouble == "was not stored: the disk is full"


def test_a_commit_that_fails_later_does_not_affect_stored_rows(canary_message: CanaryMessage) -> None:
    tracker = published_tracker(canary_message)
    tracker.see(message(canary_message), [Row("s", b"{}")], 7, 6.0)
    tracker.stored([OutboxRecord(7, "s", b"{}")])
    tracker.not_stored("the disk is full")

    assert canary_message.trouble is None
    assert tracker.is_awaiting


def test_a_dead_letter_or_no_route_is_reported_as_trouble(canary_message: CanaryMessage) -> None:
    dead_letter = DeadLetter.of(message(canary_message), route=None, reason="no_route", detail="none")
    published_tracker(canary_message).see(message(canary_message), dead_letter, 7, 6.0)
    assert canary_message.trouble == "became a dead letter: no_route: none"

    other = CanaryMessage("t/canary-2", b"{}", "canary-2")
    published_tracker(other).see(message(other), Rows(filtered=1), 7, 6.0)
    assert other.trouble == "was filtered: no route's `when` was true for it"

    held_back = CanaryMessage("t/canary-3", b"{}", "canary-3")
    published_tracker(held_back).see(message(held_back), Rows(unchanged=1), 7, 6.0)
    assert held_back.trouble is not None
    assert held_back.trouble.startswith("was held back: its route has `every`")


def test_receipts_of_an_earlier_canary_mean_nothing_to_the_next(canary_message: CanaryMessage) -> None:
    tracker = published_tracker(canary_message)
    tracker.see(message(canary_message), [Row("s", b"{}")], 7, 6.0)
    tracker.stored([OutboxRecord(7, "s", b"{}")])
    following = CanaryMessage("t/canary-2", b"{}", "canary-2")
    tracker.publish([following], lambda _topic, _payload: None, 7.0)

    tracker.receipted([7], 8.0)

    assert following.receipted_at is None
    assert not tracker.is_awaiting


def test_without_a_broker_nothing_is_published_and_nothing_expected(canary_message: CanaryMessage) -> None:
    tracker = CanaryTracker()
    tracker.publish([canary_message], None, 5.0)

    assert not tracker.is_expecting
    assert canary_message.published_at is None
    assert "isn't connected" in (canary_message.trouble or "")


def test_a_topic_that_can_not_be_published_to_is_reported(canary_message: CanaryMessage) -> None:
    def refuse(_topic: str, _payload: bytes) -> None:
        raise ValueError("Publish topic cannot contain wildcards.")

    tracker = CanaryTracker()
    tracker.publish([canary_message], refuse, 5.0)

    assert "wildcards" in (canary_message.trouble or "")
    assert not tracker.is_expecting
