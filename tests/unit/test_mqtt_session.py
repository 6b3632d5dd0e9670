"""What outlasts a connection to the broker, and what the end of a connection suggests."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from bridge.mqtt.session import BRIEF_LINK, BRIEF_LINKS, KEY, MAX_LEFT, Known, MqttSession
from bridge.timing import Pace


class Store:
    """The parts of the outbox that a session uses."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.counts: list[str] = []
        self.forgotten: list[str] = []
        self.seen = [(1, b"\0\1" + bytes(8))]

    def saved_value(self, key: str) -> str | None:
        return self.values.get(key) or None

    def save_values(self, **values: str) -> None:
        self.values |= values

    def count(self, name: str) -> None:
        self.counts.append(name)

    def qos_2_messages(self, _session: str) -> list[tuple[int, bytes]]:
        return []

    def seen_messages(self, _session: str) -> list[tuple[int, bytes]]:
        return self.seen

    def forget_session(self, session: str) -> None:
        self.forgotten.append(session)

    def forget_seen_messages(self) -> None:
        self.seen = []


@dataclass
class EndedLink:
    """A link that the broker closed without a reason, unless told otherwise."""

    held: tuple[str, ...] = ()
    qos: int = 1
    is_v5: bool = True
    session_present: bool = True
    subscribed: bool = True
    is_auth_error: bool = False
    taken_over: bool = False
    closed_silently: bool = True
    ended_by_counter: bool = False


def session(store: Store, *, broker: str = "broker:1883", deduplicates: bool = False) -> MqttSession:
    return MqttSession(client_id="c", broker=broker, outbox=store, deduplicates=deduplicates)  # type: ignore[arg-type]


def ended(of: MqttSession, link: EndedLink, *, lasted: float = 1.0) -> tuple[str, Pace | None]:
    return of.end(link, lasted=lasted, error="closed")  # type: ignore[arg-type]


def test_several_brief_links_in_a_row_suggest_another_client_with_the_same_id() -> None:
    one = session(Store())

    ends = [ended(one, EndedLink()) for _ in range(BRIEF_LINKS)]

    assert ends[:-1] == [("closed", None)] * (BRIEF_LINKS - 1)
    error, pace = ends[-1]
    assert "another client with the same client id" in error
    assert pace is Pace.BRIEF


@pytest.mark.parametrize(("link", "lasted"), [(EndedLink(), BRIEF_LINK), (EndedLink(closed_silently=False), 1.0)])
def test_a_link_that_lasts_or_ends_with_a_reason_breaks_the_row(link: EndedLink, lasted: float) -> None:
    one = session(Store())
    for _ in range(BRIEF_LINKS - 1):
        ended(one, EndedLink())

    ended(one, link, lasted=lasted)

    assert ended(one, EndedLink()) == ("closed", None)


def test_refused_credentials_and_a_known_take_over_have_their_own_pace() -> None:
    one = session(Store())

    assert ended(one, EndedLink(is_auth_error=True, closed_silently=False)) == ("closed", Pace.CREDENTIALS)
    assert ended(one, EndedLink(taken_over=True, closed_silently=False)) == ("closed", Pace.TAKEN_OVER)


@pytest.mark.parametrize(
    ("link", "asks_again"),
    [
        (EndedLink(ended_by_counter=True), False),
        (EndedLink(ended_by_counter=True, closed_silently=False), False),
        (EndedLink(), True),
    ],
)
def test_a_broker_that_closes_when_asked_for_its_counter_is_not_asked_again(link: EndedLink, asks_again: bool) -> None:
    one = session(Store())

    assert ended(one, link) == ("closed", None)

    assert one.watch_drops is asks_again


def test_without_deduplication_the_messages_seen_are_forgotten() -> None:
    store = Store()

    assert session(store, deduplicates=True).redelivery is not None
    assert store.seen
    assert session(store).redelivery is None
    assert store.seen == []


def test_the_end_of_a_link_is_passed_on_to_the_redelivery_filter() -> None:
    one = session(Store(), deduplicates=True)
    assert one.redelivery is not None
    one.redelivery.split([], session_present=False, now=0)
    one.redelivery.committed(one.redelivery.to_store([], [], may_lift=False), [], 0)
    assert one.redelivery.may_subscribe

    ended(one, EndedLink())

    assert not one.redelivery.may_subscribe


def test_filters_are_stored_when_they_change_and_only_for_this_session() -> None:
    store = Store()
    one = session(store)
    one.save_filters(EndedLink(held=("a", "b")))  # type: ignore[arg-type]
    assert json.loads(store.values[KEY]) == ["c at broker:1883", ["a", "b"], 1]
    assert session(store).known == Known(("a", "b"), 1)
    assert session(store, broker="another:1883").known == Known()

    store.values.clear()
    one.save_filters(EndedLink(held=("a", "b")))  # type: ignore[arg-type]
    assert store.values == {}, "nothing has changed"


def test_a_session_that_the_broker_lost_is_counted_if_it_held_filters() -> None:
    store = Store()
    one = session(store)
    one.begin(EndedLink(session_present=False))  # type: ignore[arg-type]
    assert store.counts == [], "the first connection has no session to lose"

    one.save_filters(EndedLink(held=("a",)))  # type: ignore[arg-type]
    one.begin(EndedLink(session_present=True))  # type: ignore[arg-type]
    assert store.counts == []
    one.begin(EndedLink(session_present=False))  # type: ignore[arg-type]
    assert store.counts == ["sessions_lost"]


def subscribed(of: MqttSession, *held: str, session_present: bool = True) -> list[tuple[object, object]]:
    """The switches that are logged when a link becomes subscribed."""
    link = EndedLink(held=held, session_present=session_present)
    with capture_logs() as logs:
        of.begin(link)  # type: ignore[arg-type]
        of.save_filters(link)  # type: ignore[arg-type]
    return [(entry["from"], entry["to"]) for entry in logs if entry["event"] == "mqtt.switched"]


def test_a_switch_to_another_broker_is_logged_also_over_a_restart() -> None:
    store = Store()
    a, b = session(store, broker="a"), session(store, broker="b")

    assert subscribed(a, "f", session_present=False) == []
    assert subscribed(a, "f") == []
    assert subscribed(b, "f", session_present=False) == [("c at a", "c at b")]
    assert subscribed(b, "f") == []
    assert subscribed(session(store, broker="a"), "f") == [("c at b", "c at a")]


def test_a_session_that_held_nothing_is_left_without_a_word() -> None:
    store = Store()

    assert subscribed(session(store, broker="a"), session_present=False) == []
    assert subscribed(session(store, broker="b"), "f", session_present=False) == []


def test_what_is_known_of_a_session_outlasts_the_use_of_another_broker() -> None:
    store = Store()
    subscribed(session(store, broker="a"), "f", session_present=False)
    subscribed(session(store, broker="b"), "f", "g", session_present=False)

    assert session(store, broker="a").known == Known(("f",), 1)
    assert session(store, broker="b").known == Known(("f", "g"), 1)
    assert store.counts == [], "a session at another broker is not a loss"

    subscribed(session(store, broker="a"), "f", session_present=False)
    assert store.counts == ["sessions_lost"], "the broker that was left no longer had it"


def test_only_the_latest_sessions_at_other_brokers_are_remembered() -> None:
    store = Store()
    for n in range(MAX_LEFT + 2):
        subscribed(session(store, broker=f"b{n}"), "f", session_present=False)

    assert store.forgotten == ["c at b0"]
    assert session(store, broker="b0").known == Known()
    assert session(store, broker="b1").known == Known(("f",), 1)
