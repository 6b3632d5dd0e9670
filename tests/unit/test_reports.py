"""Report by exception: which rows are held back, and what the state is after commits, rollbacks and evictions."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import FieldSpec, Mapper, Route, check
from bridge.mapping.reports import MAX_BYTES, MESSAGE, REPORTS, Reports, compile_report
from bridge.message import DeadLetter, MqttMessage, Rows
from bridge.streamql import input_streams, parse

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM readings (device string, t double, n long, state string, ts long);
CREATE STREAM others (t double);
CREATE SINK STREAM output (v double);
"""
STREAMS = input_streams(parse(DEFINITION))
SECOND = 10**9
ROUTE = Route(
    "d/{device}",
    "readings",
    fields={
        "n": FieldSpec("n", default=0),
        "state": FieldSpec("state", default=""),
        "ts": "$received_at",
    },
    every=10,
    change=0.1,
)


def mapper(route: Route = ROUTE) -> Mapper:
    return Mapper(routes=[route], streams=STREAMS)


def message(at: float, payload: Any, topic: str = "d/1", **changes: Any) -> MqttMessage:
    # From 2027 on, when clocks are set.
    return MqttMessage(topic, json.dumps(payload).encode(), 1, False, 1, int((1.8e9 + at) * SECOND), **changes)


def sent(mapped: object) -> int:
    """How many rows; the rest is held back."""
    assert isinstance(mapped, list), mapped
    return len(mapped)


def outcomes(route: Route, *steps: tuple[float, Any]) -> list[int]:
    """Of messages that are each committed, how many rows were sent."""
    used = mapper(route)
    found = []
    for at, payload in steps:
        found.append(sent(used.map(message(at, payload))))
        used.committed(())
    return found


def test_a_value_that_did_not_change_by_more_than_change_is_held_back_within_every() -> None:
    assert outcomes(ROUTE, (0, {"t": 21.5}), (1, {"t": 21.6}), (9.9, {"t": 21.4}), (10, {"t": 21.5})) == [1, 0, 0, 1]
    assert outcomes(ROUTE, (0, {"t": 21.5}), (1, {"t": 21.61})) == [1, 1]


def test_values_are_compared_with_the_last_row_sent_so_that_a_drift_is_seen() -> None:
    assert outcomes(ROUTE, *((n, {"t": 20 + n * 0.06}) for n in range(5))) == [1, 0, 1, 0, 1]


def test_what_is_held_back_is_counted_as_unchanged() -> None:
    used = mapper()
    used.map(message(0, {"t": 1}))

    held = used.map(message(1, [{"t": 1}, {"t": 5}, {"t": 5}]))

    assert isinstance(held, Rows)
    assert (len(held), held.unchanged, held.filtered) == (1, 2, 0)


def test_without_change_every_other_value_is_sent() -> None:
    route = replace(ROUTE, change=0.0)

    assert outcomes(route, (0, {"t": 1.0}), (1, {"t": 1.0}), (2, {"t": 1.0000001})) == [1, 0, 1]


@pytest.mark.parametrize("other", [{"t": 1, "state": "off"}, {"t": 1, "n": 1}, {"t": 1, "state": "x" * 100_000}])
def test_a_change_of_any_column_sends_the_row(other: dict[str, Any]) -> None:
    first = {"t": 1, "state": "on"}

    assert outcomes(ROUTE, (0, first), (1, first), (2, other), (3, other), (4, first)) == [1, 0, 1, 0, 1]


def test_a_table_names_the_columns_that_are_compared() -> None:
    route = replace(ROUTE, fields={**ROUTE.fields, "ts": "ts"}, change={"t": 1.0, "state": 0.0})
    steps = [
        (0, {"t": 1, "ts": 1}),
        (1, {"t": 2, "ts": 2, "n": 9}),
        (2, {"t": 2.1, "ts": 3}),
        (3, {"t": 2.1, "ts": 3, "state": "x"}),
    ]

    assert outcomes(route, *steps) == [1, 0, 1, 1]


def test_each_topic_is_a_device_unless_the_route_names_it() -> None:
    used = mapper()
    named = mapper(replace(ROUTE, device="id", fields={**ROUTE.fields, "device": "=x"}))

    assert [sent(used.map(message(0, {"t": 1}, topic))) for topic in ("d/1", "d/2", "d/1")] == [1, 1, 0]
    assert [sent(named.map(message(0, {"t": 1, "id": i}, f"d/{n}"))) for n, i in enumerate(["a", "b", "a"])] == [
        1,
        1,
        0,
    ]


def test_a_row_without_its_device_is_sent() -> None:
    used = mapper(replace(ROUTE, device="id", fields={**ROUTE.fields, "device": "=x"}))

    assert [sent(used.map(message(n, {"t": 1}))) for n in range(2)] == [1, 1]


def test_each_member_is_a_device() -> None:
    used = mapper(replace(ROUTE, each="*"))

    first = used.map(message(0, {"a": {"t": 1}, "b": {"t": 1}}))
    second = used.map(message(1, {"a": {"t": 1}, "b": {"t": 2}}))

    assert (sent(first), sent(second)) == (2, 1)


def test_row_ids_have_no_gap_where_rows_are_held_back() -> None:
    route = replace(ROUTE, fields={**ROUTE.fields, "state": "$id"})
    mapped = Mapper(routes=[route], streams=STREAMS, outbox_name="o").map(message(0, [{"t": 1}, {"t": 1}, {"t": 2}]), 7)

    assert isinstance(mapped, list)
    assert [json.loads(row.payload)["state"] for row in mapped] == ["o-7", "o-8"]


def test_a_clock_that_was_set_back_holds_nothing_back() -> None:
    assert outcomes(ROUTE, (100, {"t": 1}), (99, {"t": 1})) == [1, 1]


def test_after_a_rollback_the_same_messages_give_the_same_rows() -> None:
    used = mapper()
    used.map(message(0, {"t": 1}))
    used.committed(())
    batch = [message(1, {"t": 1}), message(2, {"t": 5}), message(3, {"t": 5})]

    first = [sent(used.map(one)) for one in batch]
    used.rolled_back()
    again = [sent(used.map(one)) for one in batch]

    assert first == again == [0, 1, 0]


def test_after_a_rollback_of_a_change_the_old_value_is_the_last() -> None:
    used = mapper()
    used.map(message(0, {"t": 1}))
    used.committed(())
    used.map(message(1, {"t": 5}))
    used.rolled_back()

    assert sent(used.map(message(2, {"t": 1}))) == 0
    assert sent(used.map(message(3, {"t": 5}))) == 1


def test_rows_that_the_outbox_rejected_hold_nothing_back() -> None:
    used = mapper()
    used.map(message(0, {"t": 1}))
    used.committed({"readings"})

    assert sent(used.map(message(1, {"t": 1}))) == 1


def test_rows_of_a_message_that_became_a_dead_letter_hold_nothing_back() -> None:
    used = mapper()
    used.map(message(0, {"t": 1}))

    assert isinstance(used.map(message(1, [{"t": 5}, {"t": 6}, {"t": "bad"}])), DeadLetter)
    used.committed(())

    assert sent(used.map(message(2, {"t": 1}))) == 0
    assert sent(used.map(message(3, {"t": 6}))) == 1


def test_a_row_that_does_not_fit_is_a_dead_letter_and_never_held_back() -> None:
    used = mapper(replace(ROUTE, change={"t": 0.1}))
    used.map(message(0, {"t": 1}))

    assert isinstance(used.map(message(1, {"t": 1, "n": "bad"})), DeadLetter)


def test_replays_of_dead_letters_are_neither_held_back_nor_remembered() -> None:
    used = mapper()

    assert sent(used.map(message(0, {"t": 1}, is_replay=True))) == 1
    assert sent(used.map(message(1, {"t": 1}))) == 1
    assert sent(used.map(message(2, {"t": 1}, is_replay=True))) == 1


def test_the_longest_unsent_devices_are_forgotten_beyond_the_bound() -> None:
    reports = Reports(max_bytes=2000)
    report = compile_report(0, ROUTE, STREAMS["readings"].attributes or (), frozenset({"device"}))
    assert report is not None

    for n in range(100):
        values = {"device": str(n), "t": 1.0, "n": 0, "state": ""}
        report({MESSAGE: message(n, {}, f"d/{n}"), REPORTS: reports, "device": str(n)}, {}, values)
        reports.committed(())
        assert reports.bytes <= 2000

    assert reports.last((0, "d/99", ())) is not None
    assert reports.last((0, "d/0", ())) is None
    assert MAX_BYTES > 2000


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.integers(-1, 12)), min_size=1, max_size=5),
            st.sampled_from(["stored", "failed", "rejected"]),
        ),
        max_size=12,
    )
)
def test_only_what_equals_the_last_stored_row_of_its_device_is_held_back(steps: Any) -> None:
    """Against a model: what the outbox stored, and the rows of the batch in progress."""
    used = mapper(replace(ROUTE, change=0.2))
    stored: dict[str, tuple[int, Decimal]] = {}
    now = 0
    for batch, outcome in steps:
        pending = dict(stored)
        for device, tenths, seconds in batch:
            now += seconds
            value = Decimal(tenths) / 10
            last = pending.get(device)
            is_same = last is not None and 0 <= now - last[0] < 10 and abs(value - last[1]) <= Decimal("0.2")

            rows = sent(used.map(message(now, {"t": float(value)}, f"d/{device}")))

            assert rows == (0 if is_same else 1)
            if not is_same:
                pending[device] = (now, value)
        if outcome == "stored":
            stored = pending
            used.committed(())
        elif outcome == "rejected":
            used.committed({"readings"})
        else:
            used.rolled_back()


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (replace(ROUTE, every=None), 'routes[0].change: change needs every, such as every = "10s"'),
        (replace(ROUTE, every=None, change=0.0, device="id"), "routes[0].device: device needs every"),
        (replace(ROUTE, change={"tt": 0.1}), "stream readings has no such column; did you mean 't'?"),
        (replace(ROUTE, device="{x"), "routes[0].device: unmatched brace"),
        (replace(ROUTE, change={}), "routes[0].every: there is no column to compare"),
    ],
)
def test_check_names_what_is_wrong(route: Route, problem: str) -> None:
    assert any(problem in str(found) for found in check([route], STREAMS))


def test_each_session_of_a_stream_remembers_its_own_rows_and_counts_its_own_elements() -> None:
    other = replace(ROUTE, stream="others", fields={"t": "t"}, when="t < `5`")
    whole = Mapper(routes=[replace(ROUTE, match="all", when="t < `5`"), other], streams=STREAMS)
    first, second = whole.of_stream("readings"), whole.of_stream("others")
    batch = [message(0, [{"t": 1}, {"t": 9}]), message(1, [{"t": 1}, {"t": 9}])]

    for session, filtered in ((first, 1), (second, 0)):
        begin, again = (session.map_own(one) for one in batch)

        assert isinstance(begin, list)
        assert [row.stream for row in begin] == ["readings" if session is first else "others"]
        assert isinstance(again, Rows)
        assert (len(again), again.unchanged, again.filtered) == (0, 1, filtered)
        session.committed(())
