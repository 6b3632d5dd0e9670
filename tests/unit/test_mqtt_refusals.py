"""What each reason code of the broker means for the link, and that the sentence says what to do."""

from __future__ import annotations

import pytest

from bridge.links.link import LinkEnd
from bridge.mqtt.refusals import BrokerReason, Code, connect_refused, disconnected, subscription_advice


@pytest.mark.parametrize(
    ("code", "end", "says"),
    [
        (0x80, LinkEnd.REFUSED, "the broker refused the connection: name"),
        (Code.CLIENT_IDENTIFIER_NOT_VALID, LinkEnd.REFUSED, "Set another mqtt.client_id"),
        (Code.BAD_USER_NAME_OR_PASSWORD, LinkEnd.REFUSED_CREDENTIALS, "Check mqtt.username and mqtt.password"),
        (Code.NOT_AUTHORIZED, LinkEnd.REFUSED_CREDENTIALS, "the client id 'c'"),
        (Code.SERVER_UNAVAILABLE, LinkEnd.REFUSED, "accepts no connections now: name"),
        (Code.SERVER_BUSY, LinkEnd.REFUSED, "accepts no connections now: name"),
        (Code.QUOTA_EXCEEDED, LinkEnd.REFUSED, "accepts no connections now: name"),
        (Code.CONNECTION_RATE_EXCEEDED, LinkEnd.REFUSED, "accepts no connections now: name"),
        (Code.USE_ANOTHER_SERVER, LinkEnd.REFUSED, "name. Set mqtt.url"),
        (Code.SERVER_MOVED, LinkEnd.REFUSED, "name. Set mqtt.url"),
    ],
)
def test_a_refused_connection_has_an_end_and_advice(code: int, end: LinkEnd, says: str) -> None:
    error, found = connect_refused(BrokerReason(code, "name"), client_id="c", version=5)

    assert found is end
    assert says in error


@pytest.mark.parametrize(("version", "ours", "other"), [(5, "MQTT 5", "3.1.1"), (4, "MQTT 3.1.1", "5")])
def test_a_refused_version_names_the_other_one(version: int, ours: str, other: str) -> None:
    reason = BrokerReason(Code.UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version")

    error, end = connect_refused(reason, client_id="c", version=version)

    assert error == (f"the broker doesn't support {ours} (Unsupported protocol version). Set mqtt.protocol to {other}")
    assert end is LinkEnd.REFUSED


def test_the_server_that_a_broker_names_is_quoted() -> None:
    reason = BrokerReason(Code.SERVER_MOVED, "Server moved", server="mqtt.example:1884")

    error, _ = connect_refused(reason, client_id="c", version=5)

    assert error.endswith("Server moved. It names 'mqtt.example:1884'. Set mqtt.url")


def test_a_take_over_and_other_disconnects_end_differently() -> None:
    taken, end = disconnected(BrokerReason(Code.SESSION_TAKEN_OVER, "Session taken over"), client_id="c")
    shut, other = disconnected(BrokerReason(0x8B, "Server shutting down", explanation="back at noon"), client_id="c")

    assert end is LinkEnd.TAKEN_OVER
    assert "client id 'c'" in taken
    assert other is LinkEnd.DISCONNECTED
    assert shut == "the broker closed the session: Server shutting down, 'back at noon'"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (None, "name"),
        ("", "name"),
        ("two\nlines", "name, 'two\\nlines'"),
        ("\x1b[2J", "name, '\\x1b[2J'"),
        ("x" * 201, f"name, '{'x' * 200}'"),
    ],
)
def test_the_brokers_words_are_quoted_in_one_short_line(words: str | None, shown: str) -> None:
    assert str(BrokerReason(0x80, "name", words)) == shown


@pytest.mark.parametrize(("code", "is_failure"), [(0, False), (1, False), (0x7F, False), (0x80, True), (0xFF, True)])
def test_failures_start_at_0x80(code: int, is_failure: bool) -> None:
    assert BrokerReason(code, "name").is_failure is is_failure


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0, "raise its maximum QoS"),
        (Code.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "shared subscriptions"),
        (Code.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED, "wildcard subscriptions"),
        (Code.TOPIC_FILTER_INVALID, "topic of the route"),
        (Code.QUOTA_EXCEEDED, "limit of subscriptions"),
        (None, "incomplete"),
    ],
)
def test_a_missing_capability_is_not_reported_as_an_access_rule(code: int | None, says: str) -> None:
    advice = subscription_advice(code)

    assert says in advice
    assert "access rules" not in advice


@pytest.mark.parametrize("code", [0x80, 0x83, Code.NOT_AUTHORIZED])
def test_another_refused_filter_points_to_the_access_rules(code: int) -> None:
    assert "access rules" in subscription_advice(code)
