"""Mapping in sessions of single streams: together they do what one session does."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import Mapper, Route, check
from bridge.mapping.topics import FilterTree
from bridge.message import DeadLetter, MqttMessage, Rows
from bridge.streamql import parse
from bridge.streamql.streams import input_streams

STREAMS = input_streams(
    parse(
        "@App:name('w') @App:qlVersion(\"2\")\n"
        "CREATE STREAM a (n long, id string);\nCREATE STREAM b (n long, id string);\n"
        "CREATE STREAM c (n long, id string);\nCREATE SINK STREAM out (n long);\n"
    )
)

routes = st.lists(
    st.builds(
        lambda topic, stream, match, when: Route(topic, stream, match=match, when=when, fields={"id": "$id"}),
        st.sampled_from(["d/#", "d/+", "d/1", "d/{x}", "e/#", "#"]),
        st.sampled_from("abc"),
        st.sampled_from(["first", "all"]),
        st.sampled_from([None, "n > `5`", "n <= `5`", "n == `3`"]),
    ),
    min_size=1,
    max_size=6,
).filter(lambda made: not check(made, STREAMS))
payloads = st.one_of(
    st.integers(0, 9).map(lambda n: json.dumps({"n": n}).encode()),
    st.lists(st.integers(0, 9), max_size=3).map(lambda ns: json.dumps([{"n": n} for n in ns]).encode()),
    st.sampled_from([b"{", b'{"n": "x"}', b"{}"]),
)
messages = st.lists(st.tuples(st.sampled_from(["d/1", "d/2", "e/1", "f"]), payloads), max_size=5)


def receives(mapper: Mapper, topic: str) -> bool:
    """Whether the broker delivers the topic to a session with the mapper's filters."""
    tree = FilterTree()
    for number, filter_ in enumerate(mapper.filters):
        tree.add(filter_.split("/"), number)
    return bool(tree.covering(topic.split("/")))


@given(routes, messages)
def test_all_sessions_together_make_each_row_and_keep_each_dead_letter_once(
    routes: list[Route], messages: list[tuple[str, bytes]]
) -> None:
    whole = Mapper(routes=routes, streams=STREAMS, outbox_name="o")
    sessions = [whole.of_stream(stream) for stream in dict.fromkeys(route.stream for route in routes)]
    next_id = 1
    for topic, payload in messages:
        message = MqttMessage(topic, payload, 1, False, 1, 5)
        if not receives(whole, topic):
            continue
        expected = whole.map(message)
        found = []
        for session in sessions:
            if receives(session, topic):
                mapped = session.map_own(message, next_id)
                found.append(mapped)
                if isinstance(mapped, list):
                    made_ids = [json.loads(row.payload)["id"] for row in mapped]
                    assert made_ids == [f"o-{next_id + n}" for n in range(len(mapped))], "those of the records"
                    next_id += len(mapped)
        own = [mapped for mapped in found if mapped is not None]
        if isinstance(expected, DeadLetter):
            assert own == [expected]
        else:
            filtered = [mapped.filtered for mapped in own if isinstance(mapped, Rows) and mapped.filtered]
            assert filtered == ([expected.filtered] if isinstance(expected, Rows) else []), "counted once"
            made = [(row.stream, json.loads(row.payload)["n"]) for rows in own for row in rows]  # type: ignore[union-attr]
            assert Counter(made) == Counter((row.stream, json.loads(row.payload)["n"]) for row in expected)
    counted = sum((Counter(session.rows_made()) for session in sessions), Counter())
    assert counted == Counter(whole.rows_made())


def test_a_topic_that_no_route_matches_is_kept_by_the_session_that_gets_it() -> None:
    whole = Mapper(routes=[Route("d/1", "a"), Route("e/1", "b")], streams=STREAMS)

    mapped = whole.of_stream("b").map_own(MqttMessage("left/over", b"{}", 1, False, 1, 5))

    assert isinstance(mapped, DeadLetter)
    assert mapped.reason == "no_route"


def test_a_message_that_no_route_of_the_stream_matches_any_more_is_kept_whole() -> None:
    """It came for an earlier subscription, perhaps to this session alone."""
    whole = Mapper(routes=[Route("d/{x}", "b", fields={"id": "$id"})], streams=STREAMS, outbox_name="o")

    rows = whole.of_stream("a").map_own(MqttMessage("d/1", b'{"n": 7}', 1, False, 1, 5), 1)

    assert isinstance(rows, list)
    assert [row.stream for row in rows] == ["b"]
    assert isinstance(whole.of_stream("a").map_own(MqttMessage("e/1", b"{}", 1, False, 1, 5), 1), DeadLetter)
