"""The order in which brokers are tried."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from bridge.errors import MqttUnavailable
from bridge.mqtt.brokers import Brokers
from bridge.mqtt.session import MqttSession
from bridge.timing import Pace


class Site:
    """Brokers of which some can't be reached."""

    def __init__(self, *names: str) -> None:
        sessions = [SimpleNamespace(broker=name, qos_2=SimpleNamespace(skipped=1), redelivery=None) for name in names]
        self.brokers = Brokers(sessions)  # type: ignore[arg-type]
        self.down: set[str] = set()
        self.tried: list[str] = []

    def connect(self, session: MqttSession) -> object:
        self.tried.append(session.broker)
        if session.broker in self.down:
            raise MqttUnavailable(f"{session.broker} is down")
        return object()

    def dial(self) -> list[str]:
        """The brokers that are tried until one is reached."""
        self.tried = []
        self.brokers.dial(self.connect)  # type: ignore[arg-type]
        return self.tried


def test_the_next_broker_is_tried_if_one_cannot_be_reached_and_the_one_that_works_is_kept() -> None:
    site = Site("a", "b", "c")
    site.down = {"a", "b"}
    with capture_logs() as logs:
        assert site.dial() == ["a", "b", "c"]
    assert [(entry["event"], entry["error"], entry["next"]) for entry in logs] == [
        ("mqtt.next_broker", "a is down", "b"),
        ("mqtt.next_broker", "b is down", "c"),
    ]

    site.brokers.subscribed()
    site.down = {"c"}

    assert site.dial() == ["c", "a"], "the session of the one that worked holds messages"


def test_a_round_that_fails_ends_with_the_errors_of_all_and_the_next_begins_with_the_same_broker() -> None:
    site = Site("a", "b")
    site.down = {"a", "b"}

    for _ in range(2):
        with pytest.raises(MqttUnavailable, match=r"^a is down; b is down$"):
            site.dial()
        assert site.tried == ["a", "b"]


def test_a_link_that_ends_before_it_is_subscribed_counts_like_a_broker_that_cannot_be_reached() -> None:
    site = Site("a", "b")
    site.dial()

    assert site.brokers.failed("bad password", Pace.CREDENTIALS) == ("a: bad password", Pace.CREDENTIALS, True)
    assert site.dial() == ["b"]
    assert site.brokers.failed("closed", None) == ("a: bad password; b: closed", Pace.CREDENTIALS, False)


def test_a_round_with_refused_credentials_is_repeated_no_sooner_because_another_broker_is_down() -> None:
    site = Site("a", "b")
    site.down = {"b"}
    site.dial()
    site.brokers.failed("bad password", Pace.CREDENTIALS)

    with pytest.raises(MqttUnavailable) as raised:
        site.dial()

    assert raised.value.pace is Pace.CREDENTIALS


def test_a_single_broker_is_not_named_in_each_error() -> None:
    site = Site("a")
    site.dial()

    with capture_logs() as logs:
        assert site.brokers.failed("closed", None) == ("closed", None, False)

    assert logs == []
    assert site.dial() == ["a"]


def test_skipped_messages_are_counted_for_all_brokers() -> None:
    assert Site("a", "b").brokers.skipped == 2
