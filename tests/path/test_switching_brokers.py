"""Several brokers: what is remembered of each one's session, so that no message is mistaken for another broker's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.path.harness import Broker, DataPath

MakePath = Callable[..., DataPath]

BROKERS = ("a", "b")


def switch(path: DataPath, *, down: str, session_present: bool) -> Broker:
    """End the link and make this broker unreachable; the link to the other one is subscribed."""
    assert path.broker is not None
    path.broker.close()
    path.turn(2)
    path.unreachable = {down}
    return path.connect_broker(session_present=session_present)


@pytest.mark.parametrize(("deduplicates", "qos"), [(True, 1), (False, 2), (True, 2)])
def test_messages_of_another_broker_with_equal_packet_ids_and_content_are_stored(
    make_path: MakePath, deduplicates: bool, qos: int
) -> None:
    path = make_path(deduplicates=deduplicates, brokers=BROKERS)
    path.connect_broker().publish(1, 2, qos=qos)
    path.turn()

    # The session at b is one of an earlier run, and b sends its messages again: they are not those of a.
    switch(path, down="a", session_present=True).publish(1, 2, qos=qos, dup=True)
    path.turn()
    path.clock.now += 60  # the bridge waits for no fence of a
    path.turn(2)

    assert path.stored == [1, 2, 1, 2]
    assert path.intake.skipped == 0
    assert path.intake.broker == "b"


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(("deduplicates", "qos"), [(True, 1), (False, 2), (True, 2)])
def test_after_the_return_to_a_broker_its_redelivered_messages_are_recognised(
    make_path: MakePath, deduplicates: bool, qos: int, restarts: bool
) -> None:
    path = make_path(deduplicates=deduplicates, brokers=BROKERS)
    path.connect_broker().publish(1, 2, qos=qos)
    path.turn()
    switch(path, down="a", session_present=False).publish(2, 3, qos=qos)
    path.turn()
    stored = path.stored
    if restarts:
        path.outbox._disconnect_and_unlock()  # the process ends without a word
        path = make_path(deduplicates=deduplicates, brokers=BROKERS)
        again = path.connect_broker(session_present=True)
    else:
        again = switch(path, down="b", session_present=True)

    again.publish(*([1, 2] if qos == 2 else [2]), qos=qos, dup=True)
    again.publish(4, qos=qos)
    path.turn(2)

    assert path.intake.broker == "a"
    assert path.stored == [*stored, 4]


def test_a_broker_that_refuses_is_followed_by_the_next_and_a_broker_that_is_left_is_not(make_path: MakePath) -> None:
    path = make_path(brokers=BROKERS)
    refusing = path.dial_broker()
    refusing.send(b"\x20\x02\x00\x05")  # not authorized
    path.turn(2)

    path.connect_broker()
    assert path.intake.broker == "b"
    assert path.pipeline.snapshot.traffic.broker == "b"

    path.intake.hold("full")
    path.intake.resume()
    path.connect_broker(session_present=True)
    assert path.intake.broker == "b"
