from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import LocalProtocolError
from bridge.gdn.protocol import ProducerProtocol, token_response
from bridge.message import OutboxRecord


def record(n: int) -> OutboxRecord:
    return OutboxRecord(n, "s", b'{"n":%d}' % n)


def ok(n: int | str) -> bytes:
    return json.dumps({"result": "ok", "messageId": "CAAQAw==", "context": str(n)}).encode()


def test_a_request_carries_the_payload_in_base64_and_the_record_id_as_context() -> None:
    (request,) = ProducerProtocol(window=10).send([record(7)], 0.0)

    decoded = json.loads(request)
    assert base64.b64decode(decoded["payload"], validate=True) == b'{"n":7}'
    assert decoded["context"] == "7"


def test_receipts_are_matched_by_context_not_by_order() -> None:
    protocol = ProducerProtocol(window=10)
    protocol.send([record(1), record(2), record(3)], 0.0)

    receipts = protocol.receive([ok(3), ok(1)])

    assert receipts.receipted == [3, 1]
    assert protocol.unreceipted() == [record(2)]


def test_a_window_that_was_emptied_has_all_its_room() -> None:
    protocol = ProducerProtocol(window=2)
    protocol.send([record(1), record(2)], 0.0)

    assert protocol.unreceipted() == [record(1), record(2)]

    assert protocol.room == 2
    assert protocol.unreceipted() == []


def test_the_window_is_never_exceeded() -> None:
    protocol = ProducerProtocol(window=2)
    protocol.send([record(1)], 0.0)

    assert protocol.room == 1
    with pytest.raises(LocalProtocolError):
        protocol.send([record(2), record(3)], 0.0)


def test_a_record_is_in_the_window_at_most_once() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)

    with pytest.raises(LocalProtocolError):
        protocol.send([record(1)], 0.0)


def test_a_refusal_returns_its_record_and_whether_it_is_permanent() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1), record(2)], 0.0)

    receipts = protocol.receive(
        [
            b'{"result":"send-error:7","errorMsg":"bad payload","context":"1"}',
            b'{"result":"send-error:8","context":"2"}',
        ]
    )

    assert [(r.record.id, r.is_permanent, r.error) for r in receipts.refused] == [
        (1, True, "bad payload"),
        (2, False, ""),
    ]
    assert protocol.unreceipted() == []


@pytest.mark.parametrize("context", ["", "99", "+1", "-1", "x", "１", "9" * 40, " 1"])
def test_a_repeated_receipt_or_a_foreign_context_changes_nothing(context: str) -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1), record(2)], 0.0)
    protocol.receive([ok(2)])

    receipts = protocol.receive([ok(2), ok(context)])

    assert (receipts.receipted, receipts.unknown) == ([], 2)
    assert protocol.unreceipted() == [record(1)]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"result":3}',
        b"[" * 10_000,
        b'{"result":"send-error:3"}',
    ],
)
def test_an_unreadable_answer_ends_the_connection(answer: bytes) -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)

    assert protocol.receive([answer]).broken

    assert protocol.unreceipted() == [record(1)]


@pytest.mark.parametrize("message", [b"{}", b'{"context":"1"}', b'{"type":"NEWS","news":{"a":[1]}}', b'{"type":7}'])
def test_a_message_that_is_no_answer_to_a_send_is_ignored_and_counted(message: bytes) -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)

    receipts = protocol.receive([message, ok(1)])

    assert (receipts.receipted, receipts.unknown, receipts.broken) == ([1], 1, None)
    assert not receipts.challenged


def test_a_request_for_a_new_token_is_recognised() -> None:
    """The message and the answer to it are those of PIP-292."""
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)
    data = {"challenge": {"authMethodName": "token", "authData": "token"}, "protocolVersion": 0}
    challenge = json.dumps({"type": "AUTH_CHALLENGE", "authChallenge": data}).encode()

    receipts = protocol.receive([challenge, ok(1)])

    assert (receipts.challenged, receipts.receipted, receipts.unknown, receipts.broken) == (True, [1], 0, None)
    answer = json.loads(token_response("a.b.c"))
    assert answer["type"] == "AUTH_RESPONSE"
    assert answer["authResponse"]["response"] == {"authMethodName": "token", "authData": "a.b.c"}


def test_receipts_before_an_unreadable_answer_count() -> None:
    """They left the window: without them their records would be neither released nor sent again."""
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1), record(2), record(3)], 0.0)
    answers = [b'{"result":"ok","context":"2"}', b'{"result":"send-error:8","context":"1"}', b"<html>"]

    receipts = protocol.receive([*answers, b'{"result":"ok","context":"3"}'])

    assert receipts.receipted == [2]
    assert [refusal.record for refusal in receipts.refused] == [record(1)]
    assert protocol.unreceipted() == [record(3)]


def test_a_refusal_that_names_no_record_ends_the_connection_with_what_gdn_said_in_bounds() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)
    answer = json.dumps({"result": "send-error:3", "errorMsg": "x" * 300}).encode()

    receipts = protocol.receive([answer, ok(1)])

    assert "send-error:3 '" + "x" * 200 + "'" in (receipts.broken or "")
    assert receipts.receipted == []
    assert protocol.unreceipted() == [record(1)]


def test_the_error_of_a_refusal_is_bounded() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)
    answer = json.dumps({"result": "send-error:8", "errorMsg": "x" * 600, "context": "1"}).encode()

    (refusal,) = protocol.receive([answer]).refused

    assert refusal.error == "x" * 500


def test_a_receipt_without_a_context_is_unknown() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 0.0)

    receipts = protocol.receive([b'{"result":"ok"}', ok(1)])

    assert (receipts.receipted, receipts.unknown, receipts.broken) == ([1], 1, None)


def test_the_highest_record_id_that_the_outbox_can_give_is_receipted() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(2**63 - 1)], 0.0)

    assert protocol.receive([ok(2**63 - 1)]).receipted == [2**63 - 1]


def test_receipts_say_how_many_records_were_sent_at_which_time() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1), record(2)], 1.0)
    protocol.send([record(3)], 2.0)

    assert protocol.receive([ok(1), ok(2), ok(3)]).sent == [(1.0, 2), (2.0, 1)]


@given(st.binary(max_size=60))
def test_no_answer_settles_a_record_that_it_does_not_name(answer: bytes) -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(10**15)], 0.0)

    assert protocol.receive([answer]).receipted == []


def test_the_oldest_send_time_follows_the_receipts() -> None:
    protocol = ProducerProtocol(window=5)
    protocol.send([record(1)], 1.0)
    protocol.send([record(2)], 2.0)

    assert protocol.oldest_sent_at == 1.0
    protocol.receive([ok(1)])
    assert protocol.oldest_sent_at == 2.0
    protocol.receive([ok(2)])
    assert protocol.oldest_sent_at is None
