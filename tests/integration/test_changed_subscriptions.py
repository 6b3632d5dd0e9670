"""A link whose filters change while it is connected, packet by packet."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from bridge.mqtt.silence import ANSWER_TIMEOUT
from bridge.mqtt.subscriptions import DROPPED_TOPIC
from tests.integration.test_links import (
    Pair,
    both_versions,
    connack,
    connected,
    mqtt,
    receive,
    sent,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


@both_versions
def test_new_filters_are_subscribed_before_removed_ones_are_unsubscribed(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1))

    link.want(["b", "new", "newer/#"])

    assert sent(link, pair[1]) == subscribe(version, 2, "new", "newer/#") + unsubscribe(version, 3, "a/+")
    assert list(link.held) == ["a/+", "b"]
    receive(link, pair[1], suback(version, 2, 1, 1), unsuback(version, 3, 0))
    assert link.held == ("b", "new", "newer/#")
    assert (link.refused, link.error) == ({}, None)


@both_versions
def test_the_same_filters_send_nothing(pair: Pair, version: int) -> None:
    link = connected(pair, version, suback(version, 1, 1, 1))

    link.want(["a/+", "b"])

    assert sent(link, pair[1]) == b""


@both_versions
def test_filters_that_change_before_the_connack_are_subscribed_after_it(pair: Pair, version: int) -> None:
    link = mqtt(pair[0], version, known=("b", "a/+"))
    link.want(["b", "new"])
    sent(link, pair[1])

    receive(link, pair[1], connack(version, session=True))

    wanted = ("b", "new") if version == 5 else ("new",)
    assert sent(link, pair[1]) == unsubscribe(version, 1, "a/+") + subscribe(version, 2, *wanted)


def test_filters_that_change_before_the_subscribe_is_sent_are_part_of_it(pair: Pair) -> None:
    link = mqtt(pair[0], 5, known=("b", "a/+"), subscribe_on_connect=False)
    receive(link, pair[1], connack(5, session=True))
    sent(link, pair[1])

    link.want(["b", "new"])
    assert sent(link, pair[1]) == unsubscribe(5, 1, "a/+")
    link.subscribe()
    assert sent(link, pair[1]) == subscribe(5, 2, "b", "new")


def test_a_filter_removed_before_its_suback_is_unsubscribed(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1))
    link.want(["a/+", "b", "brief"])
    sent(link, pair[1])

    link.want(["a/+", "b"])

    assert sent(link, pair[1]) == unsubscribe(5, 3, "brief")
    receive(link, pair[1], suback(5, 2, 1), unsuback(5, 3, 0))
    assert link.held == ("a/+", "b")


def test_a_new_filter_that_the_broker_refuses_is_named_and_the_others_stay(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1))
    link.want(["a/+", "b", "forbidden"])

    receive(link, pair[1], suback(5, 2, 0x87))

    assert link.refused == {"forbidden": "Not authorized"}
    assert link.held == ("a/+", "b")
    link.want(["a/+", "b"])
    assert link.refused == {}


def test_a_link_ends_if_the_broker_does_not_answer_a_changed_subscription(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1))
    link.tick(time.monotonic() + ANSWER_TIMEOUT + 1)
    assert link.error is None, "nothing is asked"

    link.want(["a/+", "b", "new"])
    link.tick(time.monotonic() + ANSWER_TIMEOUT - 1)
    assert link.error is None
    link.tick(time.monotonic() + ANSWER_TIMEOUT + 1)
    assert "the broker did not answer SUBSCRIBE" in (link.error or "")


def test_the_brokers_counter_stays_subscribed(pair: Pair) -> None:
    link = connected(pair, 5, suback(5, 1, 1, 1), watch_drops=True)
    receive(link, pair[1], suback(5, 2, 0))
    assert DROPPED_TOPIC in link.held

    link.want(["b"])

    assert sent(link, pair[1]) == unsubscribe(5, 3, "a/+")
