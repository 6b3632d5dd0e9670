"""Which routes get which elements of a message, and what is counted as filtered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import Mapper, Route, check
from bridge.mapping.formats import FormatOptions
from bridge.message import DeadLetter, MqttMessage, Rows
from bridge.path.arrivals import Slice
from bridge.streamql import input_streams, parse

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM nums (id string, v double);
CREATE STREAM texts (id string, v string);
CREATE STREAM whole (site string);
CREATE SINK STREAM output (v double);
"""
STREAMS = input_streams(parse(DEFINITION))
NUMBERS = Route("kep", "nums", each="values", when="type(v) == 'number'")
TEXTS = Route("kep", "texts", each="values", when="type(v) == 'string'")
WHOLE = Route("kep", "whole", when="site != null")
TAGS = [{"id": "T1", "v": 42}, {"id": "T2", "v": "ok"}, {"id": "T3", "v": True}]


def mapper(*routes: Route) -> Mapper:
    return Mapper(routes=routes, streams=STREAMS)


def message(payload: Any, topic: str = "kep") -> MqttMessage:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return MqttMessage(topic, data, 1, False, 1, 5)


def outcome(payload: Any, *routes: Route) -> tuple[list[tuple[str, Any]], int]:
    """(stream and row of each, elements filtered)"""
    mapped = mapper(*routes).map(message(payload))
    assert not isinstance(mapped, DeadLetter), mapped
    rows = [(row.stream, json.loads(row.payload)) for row in mapped]
    return rows, mapped.filtered if isinstance(mapped, Rows) else 0


T1, T2 = ("nums", {"id": "T1", "v": 42}), ("texts", {"id": "T2", "v": "ok"})


def with_match_all(route: Route) -> Route:
    return Route(route.topic, route.stream, each=route.each, when=route.when, match="all")


def test_elements_that_a_route_does_not_take_go_on_to_the_next_and_the_rest_is_filtered() -> None:
    assert outcome({"values": TAGS}, NUMBERS, TEXTS) == ([T1, T2], 1)


def test_elements_of_a_bare_array_are_routed_alike() -> None:
    routes = [Route("kep", route.stream, when=route.when) for route in (NUMBERS, TEXTS)]

    assert outcome(TAGS, *routes) == ([T1, T2], 1)


def test_elements_that_a_single_route_does_not_take_are_filtered() -> None:
    assert outcome({"values": TAGS}, NUMBERS) == ([T1], 2)


def test_an_element_that_a_route_has_taken_is_not_offered_to_later_ones() -> None:
    rest = Route("kep", "texts", each="values", fields={"v": "id"})

    rows, filtered = outcome({"values": TAGS}, NUMBERS, rest)

    assert ([row["id"] for _, row in rows], filtered) == (["T1", "T2", "T3"], 0)


def test_with_match_all_later_routes_get_the_taken_elements_too() -> None:
    again = Route("kep", "texts", each="values", fields={"v": "=again"}, when="v != null")

    rows, filtered = outcome({"values": TAGS}, with_match_all(NUMBERS), again)

    assert ([(stream, row["id"]) for stream, row in rows], filtered) == (
        [("nums", "T1"), ("texts", "T1"), ("texts", "T2"), ("texts", "T3")],
        0,
    )


def test_an_element_that_a_route_with_match_all_has_taken_is_not_filtered() -> None:
    assert outcome({"values": TAGS}, with_match_all(NUMBERS), TEXTS) == ([T1, T2], 1)


def test_once_all_elements_are_taken_later_routes_with_another_each_get_nothing() -> None:
    assert outcome({"site": "A", "values": TAGS[:2]}, NUMBERS, TEXTS, WHOLE) == ([T1, T2], 0)


def test_while_elements_are_left_a_route_with_another_each_sees_the_whole_message() -> None:
    site = ("whole", {"site": "A"})

    assert outcome({"site": "A", "values": TAGS}, NUMBERS, TEXTS, WHOLE) == ([T1, T2, site], 0)
    assert outcome({"values": TAGS}, NUMBERS, TEXTS, WHOLE) == ([T1, T2], 1)


def test_a_whole_message_that_no_condition_wants_is_not_filtered_if_its_parts_are_taken() -> None:
    assert outcome({"values": TAGS[:1]}, with_match_all(NUMBERS), WHOLE) == ([T1], 0)


def test_parts_that_no_route_takes_are_filtered_each_on_its_own() -> None:
    alarms = Route("kep", "texts", each="alarms", when="v == 'high'")
    payload = {"values": TAGS[:1], "alarms": [{"id": "A1", "v": "low"}, {"id": "A2", "v": "low"}]}

    assert outcome(payload, with_match_all(NUMBERS), alarms) == ([T1], 2)


def test_a_message_without_parts_that_no_route_takes_is_filtered_as_one() -> None:
    assert outcome({"x": 1}, WHOLE) == ([], 1)
    assert outcome({"x": 1}, WHOLE, Route("kep", "whole", when="x == `2`")) == ([], 1)


def test_routes_with_another_format_see_the_whole_message() -> None:
    raw = Route("kep", "whole", fields={"site": "payload"}, format=FormatOptions(name="raw"))

    rows, filtered = outcome({"values": TAGS}, NUMBERS, raw)

    assert [stream for stream, _ in rows] == ["nums", "whole"]
    assert filtered == 0


def test_a_slice_counts_filtered_elements_not_messages() -> None:
    used = Slice()

    used.fill([message({"values": TAGS}), message({"values": TAGS[:1]})], mapper(NUMBERS).map, 1)

    assert (len(used.rows), used.filtered) == (2, 2)


def test_row_ids_follow_on_across_routes() -> None:
    routes = [
        Route("kep", route.stream, each="values", when=route.when, fields={"id": "$id"}) for route in (NUMBERS, TEXTS)
    ]
    mapped = Mapper(routes=routes, streams=STREAMS, outbox_name="o").map(message({"values": TAGS}), 7)

    assert [json.loads(row.payload)["id"] for row in mapped] == ["o-7", "o-8"]  # type: ignore[union-attr]


@pytest.mark.parametrize("matches", [("first", "first"), ("all", "first"), ("first", "all"), ("all", "all")])
@given(values=st.lists(st.sampled_from([1, "x", None, True]), min_size=1, max_size=20))
def test_every_element_is_taken_or_filtered(matches: tuple[Any, Any], values: list[Any]) -> None:
    routes = [
        Route("kep", route.stream, each=route.each, when=route.when, match=match)
        for route, match in zip((NUMBERS, TEXTS), matches, strict=True)
    ]

    rows, filtered = outcome({"values": [{"id": "i", "v": value} for value in values]}, *routes)

    assert len(rows) + filtered == len(values)


# --- what a route can't read ------------------------------------------------------------------------------


def reason_and_route(payload: Any, *routes: Route) -> tuple[str, str | None]:
    mapped = mapper(*routes).map(message(payload))
    assert isinstance(mapped, DeadLetter), mapped
    return mapped.reason, mapped.route


SITE = Route("kep", "whole")
SCALAR = Route("kep", "whole", fields={"site": "value"}, format=FormatOptions(name="scalar"))


@pytest.mark.parametrize("payload", [b"", b" \n", []])
@pytest.mark.parametrize("routes", [(SITE,), (SITE, replace(SITE, topic="+")), (WHOLE, SITE)])
def test_an_empty_payload_is_filtered(payload: Any, routes: tuple[Route, ...]) -> None:
    assert outcome(payload, *routes) == ([], 1)


def test_an_empty_payload_is_a_dead_letter_where_a_route_says_so() -> None:
    assert reason_and_route(b"", replace(SITE, on_empty="dead_letter")) == ("empty", "kep")
    assert reason_and_route(b"", SITE, replace(SITE, on_empty="dead_letter", topic="+")) == ("empty", "+")


def test_a_message_whose_elements_of_one_route_are_empty_goes_on_to_the_next() -> None:
    alarms = replace(TEXTS, each="alarms")

    assert outcome({"values": [], "alarms": TAGS[1:2]}, NUMBERS, alarms) == ([T2], 0)


def test_an_absent_each_is_a_dead_letter_or_goes_on_to_the_next_route() -> None:
    payload = {"site": "A"}
    passing = replace(NUMBERS, on_absent="next")

    assert reason_and_route(payload, NUMBERS, WHOLE) == ("missing_field", "kep")
    assert outcome(payload, passing, WHOLE) == ([("whole", {"site": "A"})], 0)
    assert outcome({"x": 1}, passing) == ([], 1)


def test_a_column_without_a_value_is_a_dead_letter_whatever_on_absent_says() -> None:
    route = replace(NUMBERS, on_absent="next", when=None)

    assert reason_and_route({"values": [{"id": "T1"}]}, route, WHOLE) == ("missing_field", "kep")


@pytest.mark.parametrize("payload", [b"offline", b'"offline"'])
def test_what_a_route_cannot_read_goes_on_to_the_next(payload: bytes) -> None:
    passing = replace(WHOLE, on_unreadable="next")

    rows, filtered = outcome(payload, passing, SCALAR)

    assert (len(rows), filtered) == (1, 0)
    assert outcome({"site": "A"}, passing, SCALAR) == ([("whole", {"site": "A"})], 0)
    assert reason_and_route(payload, WHOLE, SCALAR)[0] in ("not_json", "not_an_object")


def test_a_route_without_condition_passes_on_what_it_cannot_read() -> None:
    passing = replace(SITE, on_unreadable="next")

    assert check([passing, SCALAR], STREAMS) == []
    assert outcome(b"offline", passing, SCALAR) == ([("whole", {"site": "offline"})], 0)


def test_what_no_route_can_read_is_a_dead_letter_of_the_last() -> None:
    first, last = replace(SITE, on_unreadable="next"), replace(WHOLE, on_unreadable="next", topic="+")

    assert reason_and_route(b"offline", first) == ("not_json", "kep")
    assert reason_and_route(b"offline", first, last) == ("not_json", "+")


def test_what_a_route_can_read_but_does_not_want_is_filtered_although_another_cannot_read_it() -> None:
    unwanted = replace(SCALAR, when="value != 'offline'")

    assert outcome(b"offline", replace(SITE, on_unreadable="next"), unwanted) == ([], 1)


def test_a_message_that_is_too_large_does_not_go_on() -> None:
    small = replace(SITE, on_unreadable="next", format=FormatOptions(max_payload=5))

    assert reason_and_route(b"offline", small, SCALAR) == ("too_large", "kep")


def test_check_refuses_on_absent_without_each() -> None:
    (problem,) = check([replace(SITE, on_absent="next")], STREAMS)

    assert str(problem) == "routes[0].on_absent: this route has no each that could be absent: remove it"


# --- members of an object ---------------------------------------------------------------------------------

MEMBERS = Route("kep", "nums", each="*", fields={"id": "$key", "v": "value"})


def test_each_member_of_an_object_becomes_a_row_with_its_name() -> None:
    rows, _ = outcome({"28-0000051e015b": 21.5, "28-0000051e0160": 20}, MEMBERS)

    assert [row for _, row in rows] == [{"id": "28-0000051e015b", "v": 21.5}, {"id": "28-0000051e0160", "v": 20}]


def test_names_of_nested_members_are_numbered_from_the_first() -> None:
    route = replace(MEMBERS, each="gateways.*.sensors.*", fields={"id": "{$key.1}/{$key.2}/{$key}", "v": "t"})
    payload = {"gateways": {"g1": {"sensors": {"s1": {"t": 1}, "s2": {"t": 2}}}, "g2": {"sensors": {"s1": {"t": 3}}}}}

    rows, _ = outcome(payload, route)

    assert [(row["id"], row["v"]) for _, row in rows] == [("g1/s1/s1", 1), ("g1/s2/s2", 2), ("g2/s1/s1", 3)]


def test_a_star_is_every_element_of_an_array_and_its_name_the_index() -> None:
    route = replace(MEMBERS, each="*.v.*", fields={"id": "{$key.1}-{$key}", "v": "value"})

    rows, _ = outcome([{"v": [1, 2]}, {"v": [3]}, {"x": 1}], route)

    assert [(row["id"], row["v"]) for _, row in rows] == [("0-0", 1), ("0-1", 2), ("1-0", 3)]


def test_a_name_that_spells_a_number_fits_a_number_column() -> None:
    assert outcome({"7": "a"}, Route("kep", "nums", each="*", fields={"id": "value", "v": "$key"}))[0] == [
        ("nums", {"id": "a", "v": 7})
    ]


def test_members_that_a_condition_is_not_true_for_go_on_with_their_names() -> None:
    numbers = replace(MEMBERS, when="type(value) == 'number'")
    texts = replace(MEMBERS, stream="texts")

    assert outcome({"a": 1, "b": "x", "c": 2}, numbers, texts) == (
        [("nums", {"id": "a", "v": 1}), ("nums", {"id": "c", "v": 2}), ("texts", {"id": "b", "v": "x"})],
        0,
    )


def test_a_star_in_quotes_is_a_member_of_that_name() -> None:
    assert outcome({"*": {"id": "a", "v": 1}}, Route("kep", "nums", each='"*"'))[0] == [("nums", {"id": "a", "v": 1})]


@pytest.mark.parametrize(
    ("payload", "reason"), [({"x": 1}, "missing_field"), ({"a": 5}, "missing_field"), ({"a": {}}, "empty")]
)
def test_no_members_have_a_reason(payload: Any, reason: str) -> None:
    route = replace(MEMBERS, each="a.*", on_empty="dead_letter")

    assert reason_and_route(payload, route) == (reason, "kep")


def test_too_many_nested_members_are_refused() -> None:
    payload = {str(n): dict.fromkeys(map(str, range(200)), 1) for n in range(100)}

    assert reason_and_route(payload, replace(MEMBERS, each="*.*"))[0] == "too_large"


def test_a_dead_letter_names_the_element_by_its_place_in_the_payload() -> None:
    mapped = mapper(replace(MEMBERS, when="value != `1`")).map(message({"a": 1, "b": 2, "c": "x"}))

    assert isinstance(mapped, DeadLetter)
    assert mapped.detail.startswith("element 2, column v: ")


@pytest.mark.parametrize(
    ("each", "source", "problem"),
    [
        (None, "$key", "$key is not the name of a member: each has 0 steps *"),
        ("a", "{$key}-x", "$key is not the name of a member: each has 0 steps *"),
        ("*", "$key.2", "$key.2 is not the name of a member: each has 1 steps *"),
        ("*", "$key.x", "$key.x: after $key stands the number of a * in each"),
        ("*", "$keys", "unknown metadata $keys"),
    ],
)
def test_check_refuses_names_that_each_does_not_give(each: str | None, source: str, problem: str) -> None:
    found = check([replace(MEMBERS, each=each, fields={"id": source, "v": "value"})], STREAMS)

    assert any(problem in str(one) for one in found)


PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "*", "0"]), inner),
    max_leaves=20,
)


@given(
    payload=PAYLOADS,
    each=st.sampled_from(["*", "*.*", "a.*", "*.a", "*.0.*"]),
    on=st.sampled_from(["next", "dead_letter"]),
)
def test_every_payload_has_an_outcome_that_is_accounted_for(payload: Any, each: str, on: Any) -> None:
    route = Route("kep", "texts", each=each, fields={"id": "$key", "v": "=x"}, when="a != `1`", on_absent=on)

    mapped = mapper(route).map(message(payload))

    if isinstance(mapped, DeadLetter):
        assert mapped.reason == "missing_field"
    elif isinstance(mapped, Rows):
        assert mapped.filtered
    else:
        assert mapped
