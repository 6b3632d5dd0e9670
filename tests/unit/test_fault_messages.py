"""The messages of the fault runs: what their oracle expects is what the mapper makes."""

from __future__ import annotations

from bridge.mapping import Mapper, Route
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql import input_streams, parse
from tests.faults.messages import DEFINITION, DEVICES, ROUTE, MessageId, compose


def test_the_fault_runs_expect_the_rows_and_reasons_that_the_mapper_makes() -> None:
    route = Route(ROUTE["topic"], ROUTE["stream"], on_empty="dead_letter")
    mapper = Mapper(routes=[route], streams=input_streams(parse(DEFINITION)))

    for n in range(500):
        message = compose(1, MessageId(n % len(DEVICES), n))
        mapped = mapper.map(MqttMessage(message.topic, message.payload, 1, False, 1, 0))
        if isinstance(mapped, DeadLetter):
            assert mapped.reason == message.reason
        else:
            assert (tuple(row.payload for row in mapped), None) == (message.rows, message.reason)
