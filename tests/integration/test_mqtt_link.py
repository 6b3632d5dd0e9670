"""The MQTT link with a real Mosquitto: what a session keeps, and what a broker does of its own accord."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.publish as paho
import pytest

from bridge.message import MqttMessage
from bridge.mqtt.link import MAX_PACKET, MqttLink, MqttOptions, dial
from bridge.mqtt.packets import KEPT_BYTES
from bridge.mqtt.subscriptions import DROPPED_TOPIC
from tests.conftest import Mosquitto, wait_for

pytestmark = pytest.mark.integration

both_versions = pytest.mark.parametrize("version", [4, 5])

Connect = Callable[..., MqttLink]


@pytest.fixture
def connect(mosquitto: Mosquitto) -> Iterator[Connect]:
    """Dials links, and closes those that the test left open."""
    links: list[MqttLink] = []

    def connect(
        *filters: str, port: int = mosquitto.port, known: tuple[str, ...] = (), known_qos: int = 1, **changed: Any
    ) -> MqttLink:
        options = replace(
            MqttOptions(client_id="bridge", version=5, keepalive=30, session_expiry=3600, receive_maximum=100),
            **changed,
        )
        link = dial(
            host="127.0.0.1",
            port=port,
            tls=None,
            connect_timeout=5,
            options=options,
            filters=filters,
            known=known,
            known_qos=known_qos,
        )
        links.append(link)
        return link

    yield connect
    for link in links:
        link.sock.close()


def run(link: MqttLink, until: Callable[[list[MqttMessage]], Any], *, seconds: float = 20) -> list[MqttMessage]:
    """Read and acknowledge until ``until`` is true for the messages received; returns them."""
    messages: list[MqttMessage] = []
    deadline = time.monotonic() + seconds
    while not until(messages):
        if time.monotonic() > deadline:
            pytest.fail(f"timed out; the link's error is {link.error!r}")
        if link.error is not None:
            pytest.fail(link.error)
        select.select([link.sock], [link.sock] if link.wants_write else [], [], 0.05)
        came = link.read(time.time_ns())
        link.ack(came)
        link.complete(link.take_pubrels())
        link.tick(time.monotonic())
        link.flush()
        messages += came
    return messages


def publish(port: int, *messages: tuple[str, str], retain: bool = False, qos: int = 1) -> None:
    """Publish and wait until the broker has acknowledged everything."""
    paho.multiple(
        [{"topic": topic, "payload": payload, "qos": qos, "retain": retain} for topic, payload in messages],
        hostname="127.0.0.1",
        port=port,
    )


def subscribed(link: MqttLink) -> MqttLink:
    run(link, lambda _: link.subscribed)
    return link


def test_the_subscription_outlasts_the_connection(connect: Connect, mosquitto: Mosquitto) -> None:
    subscribed(connect("a/+")).close()
    publish(mosquitto.port, ("a/1", "while away"))

    link = connect("a/+", known=("a/+",))

    assert [m.payload for m in run(link, len)] == [b"while away"]
    assert link.session_present is True


@both_versions
def test_retained_messages_come_with_the_first_subscription_and_not_at_each_connect(
    connect: Connect, mosquitto: Mosquitto, version: int
) -> None:
    publish(mosquitto.port, ("a/1", "retained"), retain=True)
    first = connect("a/+", version=version)
    assert [m.payload for m in run(first, len)] == [b"retained"]
    subscribed(first).close()

    again = subscribed(connect("a/+", version=version, known=first.held))
    publish(mosquitto.port, ("a/2", "live"))

    assert [m.payload for m in run(again, len)] == [b"live"]


@both_versions
def test_a_new_filter_gets_its_retained_messages_and_the_known_ones_do_not_again(
    connect: Connect, mosquitto: Mosquitto, version: int
) -> None:
    publish(mosquitto.port, ("a/1", "known"), ("b/1", "new"), retain=True)
    first = connect("a/+", version=version)
    run(first, lambda messages: messages and first.subscribed)
    first.close()

    again = connect("a/+", "b/+", version=version, known=first.held)
    messages = run(again, len)
    publish(mosquitto.port, ("a/2", "live"))
    messages += run(again, len)

    assert [m.payload for m in messages] == [b"new", b"live"]


@both_versions
def test_ten_thousand_filters_are_subscribed_and_unsubscribed_in_seconds(connect: Connect, version: int) -> None:
    filters = tuple(f"site/{n % 100}/device-{n}/+" for n in range(10_000))
    began = time.monotonic()
    first = subscribed(connect(*filters, version=version))
    assert (len(first.granted), first.refused) == (10_000, {})
    first.close()

    again = connect("other", version=version, known=first.held)
    run(again, lambda _: again.held == ("other",))

    assert time.monotonic() - began < 15  # about 2 s


@both_versions
def test_a_removed_subscription_is_unsubscribed_at_the_reconnect(
    connect: Connect, mosquitto: Mosquitto, version: int
) -> None:
    old = subscribed(connect("a/+", "b/+", version=version))
    assert old.held == ("a/+", "b/+")
    old.close()

    link = connect("a/+", version=version, known=old.held)
    run(link, lambda _: link.subscribed and link.held == ("a/+",))
    publish(mosquitto.port, ("b/1", "leftover"), ("a/1", "wanted"))

    assert [m.payload for m in run(link, len)] == [b"wanted"]


def test_a_repeated_subscribe_is_answered_without_retained_messages(connect: Connect, mosquitto: Mosquitto) -> None:
    publish(mosquitto.port, ("a/1", "retained"), retain=True)
    link = connect("a/+", silence_timeout=3600, keepalive=7200)
    run(link, lambda messages: messages and link.subscribed)
    now = time.monotonic()
    link.tick(now)
    link.tick(now + 3600)

    publish(mosquitto.port, ("a/2", "live"))

    assert [m.payload for m in run(link, len)] == [b"live"]
    assert link.error is None


@both_versions
def test_a_take_over_is_reported_as_such_or_as_a_close_without_a_reason(connect: Connect, version: int) -> None:
    """With MQTT 5 Mosquitto 2.0.11 closes without a reason, too; other versions send 0x8E."""
    link = subscribed(connect("a/+", version=version))
    subscribed(connect("a/+", version=version))

    run(link, lambda _: link.error)

    assert link.taken_over != link.closed_silently


@both_versions
def test_messages_that_the_broker_dropped_are_counted(connect: Connect, tmp_path: Path, version: int) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    broker = Mosquitto(directory, "allow_anonymous true", "sys_interval 1", "max_queued_messages 2")
    try:
        subscribed(connect("d", client_id="sleeper", port=broker.port)).close()
        publish(broker.port, *[("d", str(n)) for n in range(10)])

        link = connect("a", port=broker.port, version=version, watch_drops=True)
        messages = run(link, lambda _: link.subscribed and link.broker_dropped)

        assert link.broker_dropped == 8
        assert messages == []
        assert link.held == (DROPPED_TOPIC, "a")
    finally:
        broker.end()


@pytest.mark.parametrize(("version", "reason"), [(4, "Unspecified error"), (5, "Not authorized")])
def test_a_refused_subscription_is_named_and_the_others_work(
    connect: Connect, strict_broker: Mosquitto, version: int, reason: str
) -> None:
    link = subscribed(connect("ok/+", "no/+", port=strict_broker.port, version=version, watch_drops=True))
    publish(strict_broker.port, ("no/1", "hidden"), ("ok/1", "seen"))

    assert link.refused == {"no/+": reason}
    assert [m.payload for m in run(link, len)] == [b"seen"]
    assert link.held == ("ok/+",)


@both_versions
def test_a_missing_password_is_reported(connect: Connect, tmp_path: Path, version: int) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    broker = Mosquitto(directory, "allow_anonymous false")
    try:
        link = connect("a", port=broker.port, version=version)
        run(link, lambda _: link.error)

        assert "mqtt.username" in (link.error or "")
        assert link.is_auth_error
    finally:
        broker.end()


@both_versions
def test_a_link_can_publish_and_still_acknowledges_its_messages(
    connect: Connect, mosquitto: Mosquitto, version: int
) -> None:
    listener = subscribed(connect("commands/#", client_id="device", version=version))
    link = subscribed(connect("a/+", version=version))

    link.publish("commands/1", b"\x00rebirth\xff")
    publish(mosquitto.port, ("a/1", "reading"))
    own = run(link, len)
    link.publish("commands/2", b"")
    link.close()

    heard = run(listener, lambda messages: len(messages) == 2)
    assert [(m.topic, m.payload, m.qos, m.retain) for m in heard] == [
        ("commands/1", b"\x00rebirth\xff", 0, False),
        ("commands/2", b"", 0, False),
    ]
    assert [m.payload for m in own] == [b"reading"]
    assert run(subscribed(connect("a/+", version=version, known=("a/+",))), lambda _: True) == []


def test_an_invalid_topic_to_publish_to_is_refused_and_the_link_stays(connect: Connect) -> None:
    link = subscribed(connect("a/+"))

    with pytest.raises(ValueError, match="topic"):
        link.publish("a/+", b"")
    link.publish("a/1", b"still here")

    assert [m.payload for m in run(link, len)] == [b"still here"]


@both_versions
def test_qos_2_is_granted_and_each_message_comes_once(connect: Connect, mosquitto: Mosquitto, version: int) -> None:
    link = subscribed(connect("a/+", version=version, qos=2))
    assert link.granted == {"a/+": 2}
    publish(mosquitto.port, *[("a/1", str(n)) for n in range(50)], qos=2)

    messages = run(link, lambda messages: len(messages) == 50)
    publish(mosquitto.port, ("a/2", "lower"))
    messages += run(link, len)
    link.close()
    publish(mosquitto.port, ("a/3", "later"), qos=2)

    assert [(m.qos, m.payload) for m in messages] == [(2, b"%d" % n) for n in range(50)] + [(1, b"lower")]
    assert [m.topic for m in run(connect("a/+", version=version, qos=2, known=("a/+",), known_qos=2), len)] == ["a/3"]


@both_versions
def test_a_qos_2_message_without_pubrec_comes_again_and_one_with_it_does_not(
    connect: Connect, mosquitto: Mosquitto, version: int
) -> None:
    subscribed(connect("a/+", version=version, qos=2)).close()
    publish(mosquitto.port, ("a/1", "recorded"), ("a/1", "not recorded"), qos=2)
    again = {"version": version, "qos": 2, "known": ("a/+",), "known_qos": 2}
    link = connect("a/+", **again)
    first = read_only(link, 2)
    link.ack(first[:1])
    link.flush()
    wait_for(lambda: link.read(0) == [] and link.take_pubrels() == [first[0].packet_id], what="the PUBREL")
    link.sock.close()

    link = connect("a/+", **again)
    (redelivered,) = read_only(link, 1)

    assert (redelivered.payload, redelivered.packet_id, redelivered.dup) == (b"not recorded", first[1].packet_id, True)
    wait_for(lambda: link.read(0) == [] and link.take_pubrels() == [first[0].packet_id], what="the PUBREL again")


def read_only(link: MqttLink, count: int) -> list[MqttMessage]:
    """So many messages, without acknowledging any."""
    messages: list[MqttMessage] = []

    def came() -> bool:
        link.flush()
        messages.extend(link.read(0))
        return len(messages) >= count

    wait_for(came, what="messages")
    return messages


def test_with_3_1_1_a_message_over_the_limit_is_delivered_once_and_does_not_block_later_ones(
    connect: Connect, mosquitto: Mosquitto
) -> None:
    subscribed(connect("a/+", version=4)).close()
    publish(mosquitto.port, ("a/1", "before"), ("a/2", "ab" * (MAX_PACKET // 2)), ("a/3", "behind"))

    link = connect("a/+", version=4, known=("a/+",))
    messages = run(link, lambda messages: len(messages) == 3)
    link.close()
    publish(mosquitto.port, ("a/4", "later"))

    assert [(m.topic, len(m.payload) + m.omitted) for m in messages] == [("a/1", 6), ("a/2", MAX_PACKET), ("a/3", 6)]
    assert messages[1].payload.startswith(b"abab")
    assert len(messages[1].payload) < KEPT_BYTES
    assert [m.topic for m in run(connect("a/+", version=4, known=("a/+",)), len)] == ["a/4"]


def test_publishing_on_an_ended_link_does_nothing(connect: Connect) -> None:
    link = subscribed(connect("a/+"))
    link.close()

    link.publish("a/1", b"too late")
