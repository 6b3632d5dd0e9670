"""Report by exception: what is held back changes only with the commit."""

from __future__ import annotations

from collections.abc import Callable

from bridge.mapping import Route
from bridge.outbox import Bounds, DeadLetterClient, Selection
from bridge.path.inbox import Change
from tests.faults.mqtt_packets import publish
from tests.path.harness import Broker, DataPath

MakePath = Callable[..., DataPath]

EVERY = Route("d/{device}", "readings", fields={"text": "text"}, every=60.0)


def send(broker: Broker, *values: int, first: int, dup: bool = False) -> None:
    """Messages of one device; packet ids from ``first``."""
    for packet_id, value in enumerate(values, start=first):
        broker.send(publish("d/1", b'{"n": %d, "text": ""}' % value, packet_id, dup=dup))


def test_what_is_held_back_is_counted_as_unchanged_and_acknowledged_after_the_commit(make_path: MakePath) -> None:
    path = make_path(routes=(EVERY,))
    broker = path.connect_broker()
    send(broker, 5, first=1)
    path.turn()
    path.events.clear()

    send(broker, 5, 5, first=2)
    path.turn()

    books = path.outbox.books()
    assert path.events == [("commit begins", None), ("committed", ([], ())), ("puback", [2, 3])]
    assert path.stored == [5]
    assert (books.received, books.dropped, books.balanced) == (3, {"unchanged": 2}, True)


def test_after_a_failed_commit_the_redelivered_messages_are_stored_not_held_back(make_path: MakePath) -> None:
    path = make_path(routes=(EVERY,))
    broker = path.connect_broker()
    send(broker, 5, first=1)
    path.turn()

    path.outbox.failing = True
    send(broker, 7, 7, first=2)
    path.turn()
    assert path.pubacks == [1]

    path.outbox.failing = False
    path.turn(4)  # the outbox is left alone for a second, then tried
    again = path.connect_broker(session_present=True)
    send(again, 7, 7, first=2, dup=True)
    path.turn()

    books = path.outbox.books()
    assert path.pubacks == [1, 2, 3]
    assert path.stored == [5, 7]
    assert (books.received, books.dropped, books.balanced) == (3, {"unchanged": 1}, True)


def test_rows_that_a_full_outbox_rejected_hold_nothing_back(make_path: MakePath) -> None:
    path = make_path(policy="reject_new", bounds=Bounds(max_bytes=60), routes=(EVERY,))
    broker = path.connect_broker()
    path.turn(4)
    send(broker, 5, first=1)
    path.turn()

    for packet_id in (2, 3):
        send(broker, 7, first=packet_id)
        path.turn()

    books = path.outbox.books()
    assert path.stored == [5]
    assert (books.dropped, books.balanced) == ({"outbox_full": 2}, True)


def test_after_a_change_of_routes_the_next_row_is_sent(make_path: MakePath) -> None:
    path = make_path(routes=(EVERY,))
    broker = path.connect_broker()
    send(broker, 5, first=1)
    path.turn()

    path.inbox.change(Change(path.mapper(EVERY), ("readings",), {}, lambda: None))
    send(broker, 5, 5, first=2)
    path.turn()

    assert path.stored == [5, 5]


def test_a_replayed_dead_letter_is_not_held_back(make_path: MakePath) -> None:
    path = make_path(routes=(EVERY,))
    broker = path.connect_broker()
    broker.send(publish("d/1", b'{"n": 5}', 1))
    path.turn()
    fixed = Route("d/{device}", "readings", fields={"text": "=x"}, every=60.0)
    path.inbox.change(Change(path.mapper(fixed), ("readings",), {}, lambda: None))
    send(broker, 5, first=2)
    path.turn()

    with DeadLetterClient(path.outbox_path, may_mark=True) as client:
        client.mark(Selection(), "replay")
    path.turn_until(lambda: path.outbox.dead_letter_count == 0)

    assert path.stored == [5, 5]
    assert path.outbox.books().dropped == {}
