"""What is said about the broker in the status: what it grants less, and that it drops messages."""

from __future__ import annotations

from collections.abc import Callable

from structlog.testing import capture_logs

from bridge.mapping import Route
from bridge.mqtt.subscriptions import DROPPED_TOPIC
from bridge.path.intake import DROPS_LOGGED_EVERY
from tests.path.harness import Broker, DataPath

MakePath = Callable[..., DataPath]


def notes(path: DataPath) -> tuple[str, ...]:
    path.turn()
    return path.pipeline.snapshot.traffic.broker_notes


def report_dropped(broker: Broker, count: int) -> None:
    """The broker's counter, at QoS 0."""
    topic, payload = DROPPED_TOPIC.encode(), str(count).encode()
    body = len(topic).to_bytes(2, "big") + topic + payload
    broker.send(bytes((0x30, len(body))) + body)


def test_a_rise_of_the_brokers_drop_counter_is_noted_and_logged(path: DataPath) -> None:
    broker = path.connect_broker()
    with capture_logs() as logs:
        report_dropped(broker, 7)
        assert notes(path) == (), "what it dropped before is not news"
        report_dropped(broker, 10)
        (note,) = notes(path)
        report_dropped(broker, 11)
        path.turn()
        path.clock.now += DROPS_LOGGED_EVERY
        report_dropped(broker, 12)
        path.turn()

    assert "has dropped 3 messages" in note
    assert [entry["dropped"] for entry in logs if entry["event"] == "mqtt.broker_drops"] == [3, 5]


def test_drops_while_the_bridge_was_away_are_noted_and_a_restarted_broker_counts_anew(path: DataPath) -> None:
    broker = path.connect_broker()
    report_dropped(broker, 5)
    path.turn()
    broker.close()
    path.turn()
    broker = path.connect_broker(session_present=True)
    report_dropped(broker, 9)
    (note,) = notes(path)
    assert "has dropped 4 messages" in note

    report_dropped(broker, 0)
    path.turn()
    report_dropped(broker, 1)
    (note,) = notes(path)
    assert "has dropped 5 messages" in note


def test_a_shared_subscription_over_3_1_1_is_noted_while_ready(make_path: MakePath) -> None:
    path = make_path(routes=[Route("$share/g/d/{device}", "readings")])
    path.connect_broker()

    (note,) = notes(path)

    assert note.startswith("$share/g/d/+: over MQTT 3.1.1 most brokers")
    assert path.intake.dialer.status.state == "connected"


def test_the_counters_of_two_brokers_are_not_compared(make_path: MakePath) -> None:
    path = make_path(brokers=("a", "b"))
    broker = path.connect_broker()
    report_dropped(broker, 5)
    path.turn()
    broker.close()
    path.turn(2)
    path.unreachable = {"a"}
    broker = path.connect_broker()
    report_dropped(broker, 9)
    assert notes(path) == (), "what it dropped before is not news"

    broker.close()
    path.turn(2)
    path.unreachable = {"b"}
    report_dropped(path.connect_broker(session_present=True), 6)

    (note,) = notes(path)
    assert "has dropped 1 messages" in note
