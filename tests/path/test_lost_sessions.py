"""A session that the broker says it no longer had: reported, and withdrawn if redelivered messages prove it wrong."""

from __future__ import annotations

from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.path.harness import Broker, DataPath


def reported(logs: list[EventDict]) -> list[str]:
    return [entry["event"] for entry in logs if entry["event"].startswith("mqtt.session_")]


def counted(path: DataPath) -> tuple[int, int]:
    path.turn()
    traffic = path.pipeline.snapshot.traffic
    return traffic.sessions_lost, traffic.sessions_kept


def reconnected(path: DataPath) -> Broker:
    """The second connection, whose CONNACK says that there is no session."""
    path.connect_broker().close()
    path.turn()
    return path.connect_broker(session_present=False)


def test_a_loss_is_withdrawn_when_redelivered_messages_come(path: DataPath) -> None:
    with capture_logs() as logs:
        broker = reconnected(path)
        assert counted(path) == (1, 0)
        broker.publish(1, 2, dup=True)
        path.turn()

        assert counted(path) == (1, 1)
    assert reported(logs) == ["mqtt.session_lost", "mqtt.session_kept"]
    assert path.stored == [1, 2]


def test_new_messages_withdraw_no_loss(path: DataPath) -> None:
    with capture_logs() as logs:
        broker = reconnected(path)
        broker.publish(1, 2)
        path.turn()

        assert counted(path) == (1, 0)
    assert reported(logs) == ["mqtt.session_lost"]


def test_redelivered_messages_that_came_before_the_suback_withdraw_it_too(path: DataPath) -> None:
    path.connect_broker().close()
    path.turn()
    broker = path.dial_broker()
    broker.accept(session_present=False)
    broker.publish(1, dup=True)
    for _ in range(3):
        path.turn()
        broker.read()

    assert counted(path) == (1, 1)


def test_each_connection_withdraws_its_own_loss_only(path: DataPath) -> None:
    reconnected(path).close()
    path.turn()
    broker = path.connect_broker(session_present=False)
    broker.publish(1, dup=True)
    path.turn()

    assert counted(path) == (2, 1)
