"""The end of the data path, and what other threads ask of it while it runs."""

from __future__ import annotations

from collections.abc import Callable

from bridge.errors import OutboxUnavailable
from bridge.mapping import Route
from bridge.path.inbox import Change
from tests.path.harness import OTHERS, READINGS, DataPath

MakePath = Callable[..., DataPath]


def test_a_stop_waits_for_receipts_and_releases_their_records(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2, 3)
    path.turn()
    waits = 0

    def answer_at_the_third_wait() -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            far_end.receipt()

    producer = path.pipeline.senders["readings"].link
    assert producer is not None
    path.stop(seconds=10, before_wait=answer_at_the_third_wait)

    assert broker.is_left
    assert producer.sock.fileno() == -1, "it is closed"
    assert path.stored == []
    assert path.pipeline.snapshot.books.delivered == 3


def test_a_stop_without_receipts_takes_half_its_time_and_keeps_the_records(path: DataPath) -> None:
    broker = path.connect_broker()
    path.connect_far_end()
    broker.publish(1, 2, 3)
    path.turn()
    begin = path.clock.now

    path.stop(seconds=10)

    assert 4.9 <= path.clock.now - begin <= 5.6
    assert path.stored == [1, 2, 3]
    assert path.pipeline.snapshot.books.balanced


def test_a_stop_reads_and_acknowledges_no_further_messages(path: DataPath) -> None:
    broker = path.connect_broker()
    broker.publish(1)

    path.stop(seconds=1)

    assert path.pubacks == []
    assert path.stored == []


def test_a_stop_releases_at_once_what_was_receipted_before_it(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1)
    path.turn()
    far_end.receipt()
    path.turn()
    assert path.delivery().outcomes().released == (1,)

    path.stop(seconds=10)

    assert path.stored == []


def test_a_stop_releases_what_it_can_even_if_the_outbox_has_just_failed(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1)
    path.turn()
    path.outbox.failing = True
    far_end.receipt()
    path.turn(2)
    assert path.pipeline.outbox_status.state == "failing"

    path.outbox.failing = False
    path.stop(seconds=10)

    assert path.stored == []


def test_a_change_of_routes_takes_effect_on_the_same_link(make_path: MakePath) -> None:
    path = make_path(routes=(READINGS,))
    broker = path.connect_broker()
    link, done = path.intake.link, []
    new = Route("n/{device}", "readings")

    path.inbox.change(Change(path.mapper(new, OTHERS), ("readings", "others"), {}, lambda: done.append(True)))
    path.turn(3)
    broker.publish(1, topic="n/1")
    broker.publish(2, topic="o/1")
    path.turn()

    assert done == [True]
    assert path.intake.link is link
    assert (broker.subscribed, broker.unsubscribed) == (["d/+", "n/+", "o/+"], ["d/+"])
    assert list(path.pipeline.senders) == ["readings", "others"]
    assert sorted(path.stored) == [1, 2]


def test_a_subscription_that_is_refused_after_a_change_is_reported_until_it_is_no_longer_wanted(
    make_path: MakePath,
) -> None:
    path = make_path(routes=(READINGS,))
    broker = path.connect_broker()
    assert path.intake.dialer.status.state == "connected"

    broker.answer = 0x80
    path.inbox.change(Change(path.mapper(READINGS, OTHERS), ("readings", "others"), {}, lambda: None))
    path.turn(3)
    status = path.intake.dialer.status
    assert (status.state, status.error) == (
        "failing",
        "the broker refused a subscription: o/+ (Unspecified error). "
        "Check the broker's access rules for this user and client id",
    )

    path.inbox.change(Change(path.mapper(READINGS), ("readings",), {}, lambda: None))
    path.turn(3)
    assert (path.intake.dialer.status.state, path.intake.dialer.status.error) == ("connected", None)


def test_a_change_of_routes_that_the_outbox_prevents_is_made_later(make_path: MakePath) -> None:
    path = make_path(routes=(READINGS,), deduplicates=True)
    path.connect_broker()
    done: list[bool] = []
    numbered = path.outbox.numbered

    def fails_once(stream: str) -> object:
        path.outbox.numbered = numbered  # type: ignore[method-assign]
        raise OutboxUnavailable("locked")

    path.outbox.numbered = fails_once  # type: ignore[method-assign,assignment]
    path.inbox.change(Change(path.mapper(READINGS, OTHERS), ("readings", "others"), {}, lambda: done.append(True)))
    path.turn()
    assert (done, list(path.pipeline.senders)) == ([], ["readings"])

    path.turn(4)
    assert (done, list(path.pipeline.senders)) == ([True], ["readings", "others"])


def test_wake_ups_that_nobody_takes_do_not_block(path: DataPath) -> None:
    for _ in range(2000):
        path.stepped.wake()

    begin = path.clock.now
    path.turn(3)

    assert path.clock.now > begin, "they are taken, and a turn waits again"


def test_a_saved_text_is_durable_when_its_event_is_set(path: DataPath) -> None:
    path.outbox.failing = True
    is_durable = path.inbox.remember("key", "value")
    path.turn(2)
    assert not is_durable.is_set()

    path.outbox.failing = False
    path.turn(4)
    assert is_durable.is_set()
    assert path.outbox.saved_value("key") == "value"


def test_the_later_of_two_changes_wins_even_if_the_outbox_delays_the_first(make_path: MakePath) -> None:
    path = make_path(routes=(READINGS,), deduplicates=True)
    numbered, done = path.outbox.numbered, []

    def fails_once(stream: str) -> object:
        path.outbox.numbered = numbered  # type: ignore[method-assign]
        raise OutboxUnavailable("locked")

    path.outbox.numbered = fails_once  # type: ignore[method-assign,assignment]
    first, second = path.mapper(READINGS, OTHERS), path.mapper(READINGS)
    path.inbox.change(Change(first, ("readings", "others"), {}, lambda: done.append("first")))
    path.inbox.change(Change(second, ("readings",), {}, lambda: done.append("second")))
    path.turn(5)

    assert done == ["first", "second"]
    assert path.pipeline.mapper is second


def test_the_later_of_two_texts_with_one_key_wins_even_if_the_outbox_delays_the_first(path: DataPath) -> None:
    path.outbox.failing = True
    path.inbox.remember("activating", "")
    path.inbox.remember("activating", "1")
    path.turn(2)

    path.outbox.failing = False
    path.turn(4)
    assert path.outbox.saved_value("activating") == "1"


def test_the_snapshot_is_of_the_last_turn(path: DataPath) -> None:
    broker, far_end = path.connect_broker(), path.connect_far_end()
    broker.publish(1, 2)
    path.turn()

    assert path.intake.link is not None
    assert path.pipeline.snapshot.traffic.certificate_ends["mqtt"] is path.intake.link.certificate_ends
    snapshot = path.pipeline.snapshot
    assert path.pipeline.heartbeat == path.clock.now
    assert (snapshot.books.received, snapshot.books.outbox) == (2, 2)
    assert (snapshot.traffic.mqtt_messages, snapshot.traffic.acked, snapshot.traffic.sends) == (2, 2, 2)
    assert snapshot.traffic.window_used == {"readings": 2, "others": 0}
    assert far_end.numbers == [1, 2]


def test_a_session_that_the_broker_lost_is_subscribed_even_if_the_first_link_ends_before_its_suback(
    path: DataPath,
) -> None:
    """The next link finds a session, which the first has begun: with 3.1.1 nothing else shows that it has nothing."""
    path.connect_broker()
    path.turn()
    assert path.brokers.session.known.filters == ("d/+", "o/+")
    assert path.broker is not None
    path.broker.close()
    path.turn()
    broker = path.dial_broker()
    broker.accept(session_present=False)
    path.pipeline.turn()
    broker.close()
    path.turn(2)

    assert path.connect_broker(session_present=True).subscribed == ["d/+", "o/+"]
    assert path.outbox.counter("sessions_lost") == 1
