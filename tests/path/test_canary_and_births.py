"""A canary on its way through the data path, and what Sparkplug nodes declare at their birth."""

from __future__ import annotations

import json
from collections.abc import Callable

from bridge.mapping import FormatOptions, Route
from bridge.mapping.sparkplug_payload import message_class
from bridge.outbox import Bounds
from bridge.path.canary_tracker import CanaryMessage
from tests.faults.mqtt_packets import publish
from tests.path.harness import DataPath

MakePath = Callable[..., DataPath]


def canary(n: int = 7, topic: str = "d/canary") -> CanaryMessage:
    return CanaryMessage(topic, json.dumps({"n": n, "text": "canary"}).encode(), str(n))


def test_a_canary_is_published_and_followed_to_the_receipt_of_its_row(path: DataPath) -> None:
    broker, far_end = path.reach_steady_state()
    sent = canary()

    path.inbox.publish_canary(sent)
    path.turn()
    assert broker.published == ["d/canary"]
    assert (sent.published_at, sent.arrived_at) == (path.clock.now, None)

    broker.send(publish(sent.topic, sent.payload, 1))
    path.turn()
    assert sent.arrived_at is not None
    assert sent.receipted_at is None

    far_end.receipt()
    path.turn()
    assert sent.receipted_at is not None
    assert sent.trouble is None


def test_a_canary_that_could_not_be_stored_reports_it_and_its_ids_are_not_tracked(path: DataPath) -> None:
    broker, _ = path.reach_steady_state()
    sent = canary()
    path.inbox.publish_canary(sent)
    path.turn()

    path.outbox.failing = True
    broker.send(publish(sent.topic, sent.payload, 1))
    path.turn()
    assert sent.trouble == "was not stored: the disk is full"

    path.outbox.failing = False
    path.turn(4)
    path.connect_broker(session_present=True).publish(2)
    path.turn()
    path.far_ends["readings"].receipt()
    path.turn(2)
    assert sent.receipted_at is None


def test_a_canary_that_a_full_outbox_rejects_reports_it(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=50))
    broker = path.connect_broker()
    broker.publish(1, 2)
    path.turn()
    sent = canary()
    path.inbox.publish_canary(sent)
    path.turn()

    broker.send(publish(sent.topic, sent.payload, 3))
    path.turn()

    assert sent.trouble == "was not stored: the outbox is full"


def test_without_a_broker_a_canary_is_not_published(path: DataPath) -> None:
    sent = canary()

    path.inbox.publish_canary(sent)
    path.turn()

    assert sent.trouble == "could not be published: the broker isn't connected"


def birth() -> bytes:
    payload = message_class()()
    payload.timestamp = 1000
    payload.seq = 0
    for name, value in (("bdSeq", 1), ("n", 5)):
        metric = payload.metrics.add()
        metric.name, metric.timestamp, metric.datatype, metric.long_value = name, 1000, 4, value
        metric.alias = value
    return bytes(payload.SerializeToString())


def test_births_are_on_disk_before_their_messages_are_acknowledged(make_path: MakePath) -> None:
    sparkplug = Route(
        "spBv1.0/#", "readings", format=FormatOptions("sparkplug"), fields={"n": "value", "text": "metric"}
    )
    path = make_path(routes=(sparkplug,))
    broker = path.connect_broker()
    path.events.clear()
    save_values = path.outbox.save_values

    def recording(**values: str) -> None:
        save_values(**values)
        path.events.append(("remembered", len(values)))

    path.outbox.save_values = recording  # type: ignore[method-assign]
    broker.send(publish("spBv1.0/g/NBIRTH/n", birth(), 1))
    path.turn()

    names = [name for name, _ in path.events]
    assert "puback" in names
    assert names.index("remembered") < names.index("puback")


def test_a_rebirth_is_requested_from_a_node_whose_birth_is_unknown(make_path: MakePath) -> None:
    sparkplug = Route(
        "spBv1.0/#", "readings", format=FormatOptions("sparkplug"), fields={"n": "value", "text": "metric"}
    )
    path = make_path(routes=(sparkplug,))
    broker = path.connect_broker()
    payload = message_class()()
    payload.timestamp, payload.seq = 1000, 5
    metric = payload.metrics.add()
    metric.alias, metric.datatype, metric.long_value = 9, 4, 1

    broker.send(publish("spBv1.0/g/NDATA/n", bytes(payload.SerializeToString()), 1))
    path.turn(3)

    assert broker.published == ["spBv1.0/g/NCMD/n"]
