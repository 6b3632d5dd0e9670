"""Which filters are requested, held and refused, for each answer that a broker may give. No socket, no paho."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RemoteProtocolError
from bridge.mqtt.refusals import BrokerReason
from bridge.mqtt.subscriptions import (
    DROPPED_TOPIC,
    MAX_FILTERS,
    MAX_REPEATED,
    RequestKind,
    SubscriptionRequest,
    Subscriptions,
)

SUBSCRIBE, COUNTER, UNSUBSCRIBE = RequestKind.SUBSCRIBE, RequestKind.SUBSCRIBE_COUNTER, RequestKind.UNSUBSCRIBE

QOS_0 = BrokerReason(0, "Granted QoS 0")
QOS_1 = BrokerReason(1, "Granted QoS 1")
DENIED = BrokerReason(0x87, "Not authorized")
IN_USE = BrokerReason(0x91, "Packet identifier in use")
SUCCESS = BrokerReason(0, "Success")
NEVER_THERE = BrokerReason(0x11, "No subscription found")

both_versions = pytest.mark.parametrize("version", [4, 5])


def subscriptions(
    *wanted: str, version: int = 5, known: tuple[str, ...] = (), watch_drops: bool = False
) -> Subscriptions:
    return Subscriptions(wanted or ("a", "b"), known=known, version=version, watch_drops=watch_drops)


def subscribed(*reasons: BrokerReason, version: int = 5, watch_drops: bool = False) -> Subscriptions:
    """For ``a`` and ``b``, on a new session; both granted unless there are other reasons."""
    made = subscriptions(version=version, watch_drops=watch_drops)
    made.connected(session_present=False)
    (request,) = made.request()
    made.sent(1, request)
    for counter in made.take_suback(1, reasons or (QOS_1, QOS_1)):
        made.sent(2, counter)
    return made


@both_versions
def test_a_counter_that_the_broker_never_answers_is_not_waited_for(version: int) -> None:
    """Else each reload after it would cost the link, for want of an answer that has come."""
    made = subscribed(version=version, watch_drops=True)
    assert made.counter_unanswered
    assert not made.has_unanswered

    (request,) = made.change(["a", "b", "c"])
    made.sent(3, request)
    assert made.has_unanswered

    assert made.take_suback(3, (QOS_1,)) == []
    assert not made.has_unanswered
    assert made.counter_unanswered


@both_versions
def test_nothing_is_requested_before_the_connack(version: int) -> None:
    made = subscriptions(version=version, known=("a", "old"))

    assert made.change(["b", "c"]) == []


@both_versions
def test_a_new_session_is_asked_for_everything(version: int) -> None:
    made = subscriptions(version=version, known=("a", "old"))

    assert made.connected(session_present=False) == []
    assert not made.is_requested
    assert made.request() == [SubscriptionRequest(SUBSCRIBE, ["a", "b"])]
    assert (made.is_requested, made.is_answered, made.results.held) == (True, False, ())


@pytest.mark.parametrize(("version", "asked"), [(5, ["a", "b"]), (4, ["b"])])
def test_a_kept_session_is_cleaned_up_and_with_3_1_1_asked_only_for_what_is_new(version: int, asked: list[str]) -> None:
    made = subscriptions(version=version, known=("old", "a", "older", "old"))

    assert made.connected(session_present=True) == [SubscriptionRequest(UNSUBSCRIBE, ["old", "older"])]
    assert made.results.held == ("a", "old", "older")
    assert made.request() == [SubscriptionRequest(SUBSCRIBE, asked)]


def test_3_1_1_a_filter_that_comes_back_while_it_is_being_unsubscribed_is_asked_for_again() -> None:
    """With deduplication the first SUBSCRIBE waits for the fence: a reload may come between the two."""
    made = subscriptions("a", version=4, known=("a", "b"))
    (leaving,) = made.connected(session_present=True)
    made.sent(1, leaving)

    made.change(["a", "b"])

    assert made.request() == [SubscriptionRequest(SUBSCRIBE, ["b"])]
    made.take_unsuback(1, [])
    assert made.results.held == ("a",)


def test_3_1_1_with_nothing_new_is_answered_at_once() -> None:
    made = subscriptions(version=4, known=("a", "b"), watch_drops=True)
    made.connected(session_present=True)

    assert made.request() == [SubscriptionRequest(COUNTER, [DROPPED_TOPIC])]
    assert made.is_answered


@both_versions
def test_granted_filters_are_held(version: int) -> None:
    made = subscribed(version=version)

    assert (made.is_answered, made.results.held, made.results.refused, made.results.downgraded) == (
        True,
        ("a", "b"),
        {},
        frozenset(),
    )


@both_versions
def test_each_filter_that_is_not_granted_has_its_reason(version: int) -> None:
    made = subscribed(DENIED, version=version)

    assert made.is_answered
    assert made.results.held == ()
    assert made.results.refused == {"a": "Not authorized", "b": "not answered in the broker's SUBACK"}
    assert made.results.downgraded == frozenset()


@pytest.mark.parametrize(("version", "held"), [(5, ("a", "b")), (4, ("a",))])
def test_a_filter_granted_at_qos_0_is_named_and_3_1_1_requests_it_again(version: int, held: tuple[str, ...]) -> None:
    made = subscribed(QOS_1, QOS_0, version=version)

    assert made.results.held == held
    assert made.results.refused == {"b": "granted at QoS 0: messages may be lost"}
    assert made.results.downgraded == {"b"}


def test_a_later_answer_replaces_the_earlier_one() -> None:
    made = subscribed(QOS_0, DENIED)
    (again,) = made.repeat()
    made.sent(9, again)

    assert made.take_suback(9, (DENIED, QOS_1)) == []
    assert (made.results.held, made.results.refused, made.results.downgraded) == (
        ("b",),
        {"a": "Not authorized"},
        frozenset(),
    )


@both_versions
def test_more_reasons_than_filters_are_ignored(version: int) -> None:
    assert subscribed(QOS_1, QOS_1, DENIED, version=version).results.held == ("a", "b")


# --- the counter ----------------------------------------------------------------------------------------


@both_versions
def test_the_counter_is_requested_once_and_after_all_others(version: int) -> None:
    made = subscribed(version=version, watch_drops=True)
    assert made.counter_unanswered

    assert made.take_suback(2, (QOS_0,)) == []
    assert not made.counter_unanswered
    assert (made.results.held, made.results.refused, made.results.downgraded) == (
        (DROPPED_TOPIC, "a", "b"),
        {},
        frozenset(),
    )
    (again,) = made.repeat()
    made.sent(3, again)
    assert made.take_suback(3, (QOS_1, QOS_1)) == []


def test_the_counter_is_kept_when_filters_change() -> None:
    made = subscribed(watch_drops=True)
    made.take_suback(2, (QOS_0,))

    assert made.change(["b"]) == [SubscriptionRequest(UNSUBSCRIBE, ["a"])]


@pytest.mark.parametrize("filter_", ["$SYS/#", "$share/g/$SYS/+/x"])
def test_the_counter_is_not_requested_beside_a_route_for_the_brokers_own_topics(filter_: str) -> None:
    made = subscriptions("b", filter_, version=4, known=("b", filter_), watch_drops=True)
    made.connected(session_present=True)

    assert made.includes_sys
    assert made.request() == []


@pytest.mark.parametrize("filter_", ["a/$SYS/#", "$SYS", "#", "$share/$SYS/a"])
def test_filters_that_do_not_match_the_brokers_own_topics(filter_: str) -> None:
    assert not subscriptions(filter_).includes_sys


# --- changes --------------------------------------------------------------------------------------------


@both_versions
def test_new_filters_are_subscribed_before_old_ones_are_unsubscribed(version: int) -> None:
    made = subscribed(version=version)

    assert made.change(["b", "c"]) == [SubscriptionRequest(SUBSCRIBE, ["c"]), SubscriptionRequest(UNSUBSCRIBE, ["a"])]
    assert made.results.held == ("a", "b")


def test_the_same_filters_are_no_change() -> None:
    assert subscribed().change(["a", "b"]) == []


def test_a_change_before_the_connack_is_requested_with_the_first_subscribe() -> None:
    made = subscriptions(known=("a",))

    assert made.change(["b", "c"]) == []
    assert made.connected(session_present=True) == [SubscriptionRequest(UNSUBSCRIBE, ["a"])]
    assert made.request() == [SubscriptionRequest(SUBSCRIBE, ["b", "c"])]


def test_a_filter_that_goes_before_its_suback_is_unsubscribed() -> None:
    made = subscriptions()
    made.connected(session_present=False)
    (request,) = made.request()
    made.sent(1, request)

    assert made.change(["b"]) == [SubscriptionRequest(UNSUBSCRIBE, ["a"])]


def test_a_refused_filter_that_is_no_longer_wanted_is_not_named() -> None:
    made = subscribed(DENIED, QOS_0)

    made.change(["b"])
    assert list(made.results.refused) == ["b"]
    made.change(["c"])
    assert (made.results.refused, made.results.downgraded) == ({}, frozenset())


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "reasons", "held"),
    [
        (5, (SUCCESS, NEVER_THERE), ("c",)),
        (5, (DENIED, SUCCESS), ("a", "c")),
        (5, (SUCCESS,), ("b", "c")),
        (4, (), ("c",)),
    ],
)
def test_a_filter_is_held_until_the_broker_confirms_that_it_is_gone(
    version: int, reasons: tuple[BrokerReason, ...], held: tuple[str, ...]
) -> None:
    made = subscriptions("c", version=version, known=("a", "b", "c"))
    (gone,) = made.connected(session_present=True)
    made.sent(1, gone)

    made.take_unsuback(1, reasons)

    assert made.results.held == held


@both_versions
def test_the_cost_of_filters_grows_with_their_number_and_not_with_its_square(version: int) -> None:
    def cpu_seconds(count: int) -> float:
        filters = [f"site{n}/t" for n in range(count)]
        began = time.process_time()
        made = subscriptions(*filters, version=version, known=tuple(filters[::2]))
        made.connected(session_present=True)
        for packet_id, request in enumerate(made.request(), start=1):
            made.sent(packet_id, request)
        for packet_id in range(1, made.pending + 1):
            made.take_suback(packet_id, [QOS_0] * MAX_FILTERS)
        assert made.is_answered
        made.change([f"new{n}/t" for n in range(count)])
        return time.process_time() - began

    few, many = (min(cpu_seconds(count) for _ in range(3)) for count in (400, 6_400))  # other processes disturb

    assert many < 70 * few  # 16 times the filters: 256 times the time if each were compared with all


def test_an_answer_to_no_request_breaks_the_protocol() -> None:
    made = subscribed()
    (gone,) = made.change(["b"])
    made.sent(2, gone)

    with pytest.raises(RemoteProtocolError, match="SUBACK for packet id 2"):
        made.take_suback(2, (QOS_1,))
    with pytest.raises(RemoteProtocolError, match="UNSUBACK for packet id 1"):
        made.take_unsuback(1, (SUCCESS,))
    made.take_unsuback(2, (SUCCESS,))
    with pytest.raises(RemoteProtocolError, match="UNSUBACK for packet id 2"):
        made.take_unsuback(2, (SUCCESS,))


NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(st.sampled_from([4, 5]), st.booleans(), st.data())
def test_once_all_is_answered_what_the_session_holds_is_known(
    version: int, watch_drops: bool, data: st.DataObject
) -> None:
    """A broker that grants all it is asked for, one answer at a time, while the filters change."""
    filters = st.lists(NAMES, min_size=1, unique=True)
    wanted = data.draw(filters)
    known = data.draw(st.lists(NAMES, unique=True))
    made = Subscriptions(wanted, known=known, version=version, watch_drops=watch_drops)
    session: set[str] = set(known)
    pending: list[tuple[int, SubscriptionRequest]] = []

    def send(requests: list[SubscriptionRequest]) -> None:
        for request in requests:
            number = len(sent) + 1
            sent.append(request)
            made.sent(number, request)
            pending.append((number, request))

    def answer() -> None:
        number, request = pending.pop(0)
        if request.kind is UNSUBSCRIBE:
            session.difference_update(request.filters)
            made.take_unsuback(number, [SUCCESS] * len(request.filters))
        else:
            session.update(request.filters)
            granted = QOS_0 if request.kind is COUNTER else QOS_1
            send(made.take_suback(number, [granted] * len(request.filters)))

    sent: list[SubscriptionRequest] = []
    send(made.connected(session_present=True))
    send(made.request())
    for _ in range(data.draw(st.integers(0, 4))):
        if bool(pending) and data.draw(st.booleans()):
            answer()
        wanted = data.draw(filters)
        send(made.change(wanted))
    while pending:
        answer()

    assert made.is_answered
    assert session == set(made.results.held) == {*wanted, *([DROPPED_TOPIC] if watch_drops else [])}
    assert made.results.refused == {}


# --- many filters ---------------------------------------------------------------------------------------


TWENTY = tuple(f"f{n:02}" for n in range(20))
EIGHT, NEXT_EIGHT, REST = list(TWENTY[:8]), list(TWENTY[8:16]), list(TWENTY[16:])


def in_packets(kind: RequestKind) -> list[SubscriptionRequest]:
    return [SubscriptionRequest(kind, filters) for filters in (EIGHT, NEXT_EIGHT, REST)]


@both_versions
def test_no_packet_has_more_than_8_filters(version: int) -> None:
    """AWS IoT Core closes the connection at 9, each time."""
    made = subscriptions("other", version=version, known=TWENTY)
    assert made.connected(session_present=True) == in_packets(UNSUBSCRIBE)

    made = subscriptions(*TWENTY, version=version)
    made.connected(session_present=False)
    assert made.request() == in_packets(SUBSCRIBE) == made.repeat()

    made = subscribed(version=version)
    assert made.change([*TWENTY, "a", "b"]) == in_packets(SUBSCRIBE)


@both_versions
def test_filters_in_several_packets_are_answered_once_each_packet_is_and_in_any_order(version: int) -> None:
    made = subscriptions(*TWENTY, version=version, watch_drops=True)
    made.connected(session_present=False)
    for packet_id, request in enumerate(made.request(), start=1):
        made.sent(packet_id, request)

    assert made.take_suback(2, [DENIED] + [QOS_1] * 7) == []
    assert made.take_suback(1, [QOS_1] * 8) == []
    assert (made.is_answered, made.has_unanswered, made.pending) == (False, True, 1)

    assert made.take_suback(3, [QOS_1] * 4) == [SubscriptionRequest(COUNTER, [DROPPED_TOPIC])]
    assert made.is_answered
    assert made.results.held == tuple(f for f in TWENTY if f != "f08")
    assert list(made.results.refused) == ["f08"]


def test_each_of_many_requests_may_find_its_packet_id_in_use() -> None:
    """A thousand packet ids of messages in flight: among a thousand requests some have one of them."""
    made = subscriptions(*[f"f{n}" for n in range(20 * MAX_FILTERS)])
    made.connected(session_present=False)
    pending = made.request()
    for packet_id, request in enumerate(pending, start=1):
        made.sent(packet_id, request)
        (again,) = made.take_suback(packet_id, [IN_USE] * MAX_FILTERS)
        made.sent(100 + packet_id, again)
    for packet_id in range(101, 121):
        made.take_suback(packet_id, [QOS_1] * MAX_FILTERS)

    assert made.is_answered
    assert made.results.refused == {}


# --- packet ids in use ----------------------------------------------------------------------------------------


def test_filters_whose_packet_id_is_in_use_are_requested_again_and_not_named_as_refused() -> None:
    made = subscriptions("a", "b", "c")
    made.connected(session_present=False)
    (request,) = made.request()
    made.sent(1, request)

    again = made.take_suback(1, (IN_USE, QOS_1, DENIED))

    assert again == [SubscriptionRequest(SUBSCRIBE, ["a"], repeats=1)]
    assert not made.is_answered
    assert list(made.results.refused) == ["c"]
    made.sent(2, again[0])
    assert made.take_suback(2, (QOS_1,)) == []
    assert made.is_answered
    assert (made.results.held, list(made.results.refused)) == (("a", "b"), ["c"])


def test_the_counter_is_requested_again_too() -> None:
    made = subscribed(watch_drops=True)

    assert made.take_suback(2, (IN_USE,)) == [SubscriptionRequest(COUNTER, [DROPPED_TOPIC], repeats=1)]


def test_a_filter_that_is_no_longer_wanted_is_not_requested_again() -> None:
    made = subscriptions()
    made.connected(session_present=False)
    made.sent(1, made.request()[0])
    made.change(["a"])

    assert made.take_suback(1, (IN_USE, IN_USE)) == [SubscriptionRequest(SUBSCRIBE, ["a"], repeats=1)]


def test_an_unsubscribe_is_made_again_unless_the_filter_is_wanted_again() -> None:
    made = subscriptions(known=("old", "older"))
    (request,) = made.connected(session_present=True)
    made.sent(1, request)
    made.change(["a", "b", "older"])

    assert made.take_unsuback(1, (IN_USE, IN_USE)) == [SubscriptionRequest(UNSUBSCRIBE, ["old"], repeats=1)]


def test_a_broker_that_finds_every_packet_id_in_use_has_refused_the_filter() -> None:
    made = subscriptions("a")
    made.connected(session_present=False)
    requests = made.request()
    for packet_id in range(1, MAX_REPEATED + 2):
        made.sent(packet_id, requests[0])
        requests = made.take_suback(packet_id, (IN_USE,))

    assert requests == []
    assert made.is_answered
    assert made.results.refused == {"a": "Packet identifier in use"}


@both_versions
def test_a_session_that_is_left_is_unsubscribed_from_everything_and_asked_for_nothing(version: int) -> None:
    made = subscribed(version=version, watch_drops=True)
    made.take_suback(2, (QOS_0,))

    (request,) = made.change([])

    assert request.kind is UNSUBSCRIBE
    assert set(request.filters) == {"a", "b", DROPPED_TOPIC}
    assert made.repeat() == []


def test_a_session_that_was_never_asked_for_anything_is_unsubscribed_from_what_it_held_last() -> None:
    made = subscriptions(known=("a", "b"))
    made.connected(session_present=False)  # some brokers say so although they have it

    assert made.change([]) == [SubscriptionRequest(UNSUBSCRIBE, ["a", "b"])]
