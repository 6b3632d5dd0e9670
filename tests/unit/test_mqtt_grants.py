"""What a broker grants less is named with the right advice, and nothing is named that it grants."""

from __future__ import annotations

import pytest

from bridge.mqtt.grants import Limits, of_connection, of_filters


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(session_expiry=60), "keeps the session 60 s, not 3600 s"),
        (Limits(maximum_qos=0), "Raise its maximum QoS"),
        (Limits(retain_available=False), "no retained messages"),
    ],
)
def test_each_limit_is_named_with_what_follows_from_it(limits: Limits, says: str) -> None:
    (note,) = of_connection(limits, session_expiry=3600)

    assert says in note
    assert "access rules" not in note


@pytest.mark.parametrize("limits", [Limits(), Limits(session_expiry=3600, maximum_qos=1)])
def test_a_broker_that_grants_what_is_asked_for_is_not_noted(limits: Limits) -> None:
    assert of_connection(limits, session_expiry=3600) == []


def test_a_shared_subscription_over_3_1_1_may_bring_nothing() -> None:
    filters = ["a/+", "$share/g/a/+"]

    (note,) = of_filters(filters, is_v5=False)

    assert note.startswith("$share/g/a/+: ")
    assert of_filters(filters, is_v5=True) == of_filters(["a/+"], is_v5=False) == []
