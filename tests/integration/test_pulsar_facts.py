"""The behaviour of a WebSocket producer that the bridge relies on, tested with a real Pulsar."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.conftest import wait_for
from tests.pulsar import Pulsar, token

pytestmark = [
    pytest.mark.integration,
    pytest.mark.pulsar,  # one broker for all tests, where xdist keeps groups together
    pytest.mark.timeout(600),  # the first run downloads it
]

DUPLICATE = base64.b64encode(b"\x08" + b"\xff" * 9 + b"\x01\x10" + b"\xff" * 9 + b"\x01\x30\x00").decode()
"""The messageId of a send that deduplication dropped: ledger -1, entry -1, batch index 0."""

MAX_TEXT = 1024 * 1024
IDLE_SECONDS = 2.0
MAX_PAYLOAD = 20_000
TOKEN_KEY = b"a key that is at least 32 bytes long"

names = count()


@pytest.fixture(scope="module")
def pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    broker = Pulsar(tmp_path_factory.mktemp("pulsar"))
    yield broker
    broker.end()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    """A Pulsar that requires tokens and has limits that a test can reach."""
    broker = Pulsar(
        tmp_path_factory.mktemp("strict"),
        token_key=TOKEN_KEY,
        webSocketSessionIdleTimeoutMillis=int(IDLE_SECONDS * 1000),
        maxMessageSize=MAX_PAYLOAD,
    )
    yield broker
    broker.end()


@pytest.fixture
def topic(pulsar: Pulsar) -> str:
    return f"{pulsar.create_namespace(f'n{next(names)}')}/topic"


@pytest.fixture
def deduplicated(pulsar: Pulsar) -> str:
    """A topic in a namespace with deduplication."""
    return f"{pulsar.create_namespace(f'n{next(names)}', deduplicates=True)}/topic"


class Producer:
    """One connection, used frame by frame."""

    def __init__(self, broker: Pulsar, topic: str, *, bearer: str | None = None, **parameters: Any) -> None:
        bearer = bearer if bearer is not None else broker.admin_token
        header = [f"Authorization: Bearer {bearer}"] if bearer else []
        self.ws = websocket.create_connection(broker.url(topic, **parameters), timeout=20, header=header)

    @property
    def sock(self) -> socket.socket:
        assert self.ws.sock is not None
        return self.ws.sock

    def close(self) -> None:
        self.ws.close()
        self.ws.shutdown()  # type: ignore[no-untyped-call]  # after a close from the other side the one above does nothing

    def ask(self, request: str | bytes) -> dict[str, Any]:
        self.ws.send(request)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        answer = json.loads(self.ws.recv())
        assert isinstance(answer, dict)
        return answer

    def send(self, payload: bytes, context: str = "1") -> dict[str, Any]:
        return self.ask(request(payload, context))

    def burst(self, payloads: Iterable[bytes]) -> None:
        """Send all without reading answers; the contexts count from 0."""
        texts = [request(payload, str(n)) for n, payload in enumerate(payloads)]
        frames = [websocket.ABNF.create_frame(text, websocket.ABNF.OPCODE_TEXT).format() for text in texts]
        self.sock.sendall(b"".join(frames))

    def send_all(self, payloads: list[bytes]) -> list[dict[str, Any]]:
        """The answers to a burst, in the order received."""
        sender = threading.Thread(target=self.burst, args=(payloads,))
        sender.start()
        answers = [self.answer() for _ in payloads]
        sender.join(20)
        return answers

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing arrives, not even a close."""
        self.ws.settimeout(seconds)
        try:
            self.ws.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return True
        else:
            return False
        finally:
            self.ws.settimeout(20)

    def cut(self, *, reset: bool) -> None:
        """Close TCP without a WebSocket close frame."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def request(payload: bytes, context: str) -> str:
    return json.dumps({"payload": base64.b64encode(payload).decode(), "context": context})


def upgrade_status(broker: Pulsar, topic: str, **parameters: Any) -> int:
    """The status of an upgrade."""
    try:
        Producer(broker, topic, **parameters).close()
    except websocket.WebSocketBadStatusException as exc:
        return int(exc.status_code)
    return 101


def connect_when_free(broker: Pulsar, topic: str, **parameters: Any) -> Producer:
    """A connection with a name that another may still hold."""

    def attempt() -> Producer | None:
        try:
            return Producer(broker, topic, **parameters)
        except websocket.WebSocketBadStatusException as exc:
            if exc.status_code != 409:
                raise
            return None

    connected = wait_for(attempt, seconds=10, what="a free producer name")
    assert isinstance(connected, Producer)
    return connected


def numbered(n: int) -> list[bytes]:
    return [b"%d" % i for i in range(n)]


# --- answers -------------------------------------------------------------------------------------------


def test_a_receipt_has_the_context_of_its_send(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        answer = producer.ask('{"payload":"aGVsbG8=","context":"1"}')

    assert answer["result"] == "ok"
    assert answer["context"] == "1"
    assert answer["messageId"] != DUPLICATE
    assert pulsar.read(topic) == [b"hello"]
    assert pulsar.topics(topic.rpartition("/")[0]) == [f"persistent://{topic}"]


@pytest.mark.parametrize("bad", ['"***"', '"_-8="', '"YWI\\n="', "null"])
def test_a_bad_payload_is_refused_alone_and_uses_up_no_number(pulsar: Pulsar, topic: str, bad: str) -> None:
    with closing(Producer(pulsar, topic, initialSequenceId=-1)) as producer:
        refusal = producer.ask(f'{{"payload":{bad},"context":"1"}}')
        receipt = producer.send(b"later", "2")

    assert (refusal["result"], refusal["context"]) == ("send-error:7", "1")
    assert (receipt["result"], receipt["context"]) == ("ok", "2")
    assert pulsar.read(topic) == [b"later"]
    assert pulsar.sequence_ids(topic) == [0]


def test_base64_without_padding_is_accepted(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        assert producer.ask('{"payload":"YQ","context":"1"}')["result"] == "ok"
    assert pulsar.read(topic) == [b"a"]


def test_invalid_json_is_refused_without_a_context(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        refusal = producer.ask("not JSON")
        assert producer.send(b"later")["result"] == "ok"
    assert refusal["result"] == "send-error:3"
    assert "context" not in refusal


def test_a_binary_frame_gets_no_answer(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        producer.ws.send_binary(request(b"x", "1").encode())
        assert producer.is_silent(0.5)
        assert producer.send(b"later", "2")["context"] == "2"


def test_a_send_that_the_broker_refuses_is_refused_alone_and_uses_up_no_number(strict: Pulsar) -> None:
    topic = f"{strict.create_namespace('too-large', deduplicates=True)}/topic"
    payloads = [b"0", b"x" * (MAX_PAYLOAD + 1), b"2", b"3"]
    with closing(Producer(strict, topic, initialSequenceId=-1, producerName="me")) as producer:
        answers = producer.send_all(payloads)

    results = {answer["context"]: answer["result"] for answer in answers}
    assert results == {"0": "ok", "1": "send-error:8", "2": "ok", "3": "ok"}
    assert strict.read(topic) == [b"0", b"2", b"3"]
    assert strict.sequence_ids(topic) == [0, 1, 2]


def test_beyond_max_pending_messages_a_send_is_refused_and_uses_up_no_number(pulsar: Pulsar, topic: str) -> None:
    payloads = numbered(1000)
    with closing(Producer(pulsar, topic, maxPendingMessages=1, initialSequenceId=-1)) as producer:
        answers = producer.send_all(payloads)
        after = producer.send(b"after")

    assert {answer["result"] for answer in answers} == {"ok", "send-error:8"}
    refusal = next(answer for answer in answers if answer["result"] == "send-error:8")
    assert "Producer send queue is full" in refusal["errorMsg"]
    assert after["result"] == "ok"
    taken = sorted(int(answer["context"]) for answer in answers if answer["result"] == "ok")
    stored = pulsar.read(topic)
    assert stored == [*(payloads[n] for n in taken), b"after"]
    assert pulsar.sequence_ids(topic) == list(range(len(stored)))


def test_without_max_pending_messages_no_limit_is_reached(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        answers = producer.send_all(numbered(3000))
    assert [answer["result"] for answer in answers] == ["ok"] * 3000
    assert pulsar.read(topic) == numbered(3000)


def test_a_send_that_timed_out_is_answered_like_a_refusal_but_may_be_stored(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic, sendTimeoutMillis=1, initialSequenceId=-1)) as producer:
        answers = producer.send_all(numbered(500))

    refused = [answer for answer in answers if answer["result"] == "send-error:8"]
    assert refused
    assert "TimeoutException" in refused[0]["errorMsg"]
    wait_for(lambda: pulsar.count(topic) == 500, seconds=10, what="what was refused, in the topic")
    assert pulsar.sequence_ids(topic) == list(range(500))


def test_a_send_timeout_of_zero_is_accepted(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic, sendTimeoutMillis=0)) as producer:
        assert producer.send(b"x")["result"] == "ok"


def test_text_up_to_a_mebibyte_is_accepted_and_more_ends_the_connection(pulsar: Pulsar, topic: str) -> None:
    empty = request(b"", "")
    spare = MAX_TEXT - len(empty)
    largest = request(b"x" * (spare // 4 * 3), "c" * (spare % 4))
    assert len(largest) == MAX_TEXT

    with closing(Producer(pulsar, topic)) as producer:
        assert producer.ask(largest)["result"] == "ok"
        # Only the header of a frame that is too long: if all of it is written, a reset may overtake the close reason.
        producer.sock.sendall(b"\x81\xff" + struct.pack("!Q", MAX_TEXT + 1) + b"mask" + b"x")
        opcode, data = producer.ws.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1009
        assert data[2:] == b"Text message size [1048577] exceeds maximum size [1048576]"


# --- sequence numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initial", "first"), [(None, 0), (-2, -1), (-1, 0), (0, 1), (1, 2), (41, 42), (2**40, 2**40 + 1)]
)
def test_the_first_send_has_the_number_after_the_initial_one(
    pulsar: Pulsar, topic: str, initial: int | None, first: int
) -> None:
    parameters: dict[str, Any] = {} if initial is None else {"initialSequenceId": initial}
    with closing(Producer(pulsar, topic, producerName="me", **parameters)) as producer:
        producer.send(b"first")
        producer.send(b"second")
    assert pulsar.sequence_ids(topic) == [first, first + 1]


def test_the_same_numbers_again_are_receipted_and_stored_once(pulsar: Pulsar, deduplicated: str) -> None:
    me: dict[str, Any] = {"producerName": "me", "initialSequenceId": -1}
    with closing(Producer(pulsar, deduplicated, **me)) as producer:
        stored = [producer.send(payload)["messageId"] for payload in numbered(3)]
    with closing(connect_when_free(pulsar, deduplicated, **me)) as producer:
        again = [producer.send(payload) for payload in numbered(5)]

    assert DUPLICATE not in stored
    assert [answer["result"] for answer in again] == ["ok"] * 5
    assert [answer["messageId"] == DUPLICATE for answer in again] == [True] * 3 + [False] * 2
    assert pulsar.read(deduplicated) == numbered(5)
    assert pulsar.sequence_ids(deduplicated) == list(range(5))


@pytest.mark.parametrize(("suffix", "stores_again"), [("", True), ("-partition-0", False)])
def test_numbers_are_compared_within_a_partition(
    pulsar: Pulsar, deduplicated: str, suffix: str, stores_again: bool
) -> None:
    """So what is sent again to a partitioned topic is stored again, and to one of its partitions it isn't.

    Each connection begins at a random partition: by chance at the one that has stored the numbers.
    """
    pulsar.create_topic(deduplicated, partitions=4)
    with closing(Producer(pulsar, deduplicated + suffix, producerName="me", initialSequenceId=-1)) as producer:
        for payload in numbered(10):
            producer.send(payload)

    def send_again() -> int:
        """Returns how many messages are stored then."""
        topic = deduplicated + suffix
        with closing(connect_when_free(pulsar, topic, producerName="me", initialSequenceId=4)) as producer:
            assert {producer.send(payload)["result"] for payload in numbered(10)[5:]} == {"ok"}
        return sum(pulsar.count(f"{deduplicated}-partition-{n}") for n in range(4))

    assert any(send_again() > 10 for _ in range(8)) == stores_again


def test_numbers_alone_make_a_duplicate_whatever_the_payload(pulsar: Pulsar, deduplicated: str) -> None:
    me: dict[str, Any] = {"producerName": "me", "initialSequenceId": -1}
    with closing(Producer(pulsar, deduplicated, **me)) as producer:
        producer.send(b"one")
    with closing(connect_when_free(pulsar, deduplicated, **me)) as producer:
        assert producer.send(b"another")["messageId"] == DUPLICATE
    assert pulsar.read(deduplicated) == [b"one"]


def test_without_an_initial_number_a_producer_continues_after_its_last(pulsar: Pulsar, deduplicated: str) -> None:
    with closing(Producer(pulsar, deduplicated, producerName="me", initialSequenceId=6)) as producer:
        producer.send(b"seventh")
    with closing(connect_when_free(pulsar, deduplicated, producerName="me")) as producer:
        producer.send(b"eighth")
    assert pulsar.sequence_ids(deduplicated) == [7, 8]


def test_numbers_may_leave_gaps(pulsar: Pulsar, deduplicated: str) -> None:
    for initial in (-1, 99):
        with closing(connect_when_free(pulsar, deduplicated, producerName="me", initialSequenceId=initial)) as producer:
            assert producer.send(b"x")["messageId"] != DUPLICATE
    assert pulsar.sequence_ids(deduplicated) == [0, 100]


def test_another_name_is_deduplicated_on_its_own(pulsar: Pulsar, deduplicated: str) -> None:
    for name in ("me", "another"):
        with closing(Producer(pulsar, deduplicated, producerName=name, initialSequenceId=-1)) as producer:
            assert producer.send(b"x")["messageId"] != DUPLICATE
    assert pulsar.sequence_ids(deduplicated) == [0, 0]


def test_without_deduplication_the_same_numbers_are_stored_twice(pulsar: Pulsar, topic: str) -> None:
    for _ in range(2):
        with closing(connect_when_free(pulsar, topic, producerName="me", initialSequenceId=-1)) as producer:
            producer.send(b"x")
    assert pulsar.sequence_ids(topic) == [0, 0]


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1])
def test_sends_under_way_when_the_connection_is_cut_are_stored_once(
    pulsar: Pulsar, deduplicated: str, pause: float
) -> None:
    me: dict[str, Any] = {"producerName": "me", "initialSequenceId": -1}
    payloads = numbered(1000)
    producer = Producer(pulsar, deduplicated, **me)
    producer.burst(payloads)
    time.sleep(pause)
    producer.cut(reset=True)

    with closing(connect_when_free(pulsar, deduplicated, **me)) as producer:
        assert {answer["result"] for answer in producer.send_all(payloads)} == {"ok"}
    assert pulsar.read(deduplicated) == payloads


def test_sends_under_way_when_the_broker_is_killed_are_stored_once(tmp_path: Path) -> None:
    broker = Pulsar(tmp_path)
    try:
        topic = f"{broker.create_namespace('n', deduplicates=True)}/topic"
        me: dict[str, Any] = {"producerName": "me", "initialSequenceId": -1}
        payloads = numbered(1000)
        with closing(Producer(broker, topic, **me)) as producer:
            producer.burst(payloads)
            receipted = [producer.answer()["context"] for _ in range(50)]
            broker.kill()
        broker.start()
        broker.wait_recovered(topic)
        assert broker.count(topic) >= len(receipted)

        with closing(Producer(broker, topic, **me)) as producer:
            answers = producer.send_all(payloads)
        assert {answer["result"] for answer in answers} == {"ok"}
        duplicates = Counter(answer["messageId"] == DUPLICATE for answer in answers)[True]
        assert duplicates >= len(receipted)
        assert broker.read(topic) == payloads
    finally:
        broker.end()


# --- the upgrade ---------------------------------------------------------------------------------------


def test_a_name_in_use_is_refused_and_its_holder_continues(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic, producerName="me")) as producer:
        assert upgrade_status(pulsar, topic, producerName="me") == 409
        assert upgrade_status(pulsar, topic, producerName="another") == 101
        assert producer.send(b"x")["result"] == "ok"


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
def test_a_name_is_free_soon_after_its_connection_was_cut(pulsar: Pulsar, topic: str, reset: bool) -> None:
    producer = Producer(pulsar, topic, producerName="me")
    producer.send(b"x")
    producer.cut(reset=reset)
    started = time.monotonic()
    connect_when_free(pulsar, topic, producerName="me").close()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"initialSequenceId": "x"},
        {"maxPendingMessages": -1},
        {"sendTimeoutMillis": "x"},
        {"sendTimeoutMillis": -1},
        {"messageRoutingMode": "x"},
        {"compressionType": "x"},
        {"hashingScheme": "x"},
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused(pulsar: Pulsar, topic: str, parameters: dict[str, Any]) -> None:
    assert upgrade_status(pulsar, topic, **parameters) == 400


def test_an_unknown_parameter_is_ignored(pulsar: Pulsar, topic: str) -> None:
    assert upgrade_status(pulsar, topic, nonsense=1) == 101


def test_a_missing_namespace_is_not_found_and_a_missing_topic_is_created(pulsar: Pulsar, topic: str) -> None:
    assert upgrade_status(pulsar, "public/missing/topic") == 404
    assert upgrade_status(pulsar, "missing/missing/topic") == 404
    assert upgrade_status(pulsar, topic) == 101
    assert pulsar.count(topic) == 0


def test_a_path_without_a_topic_is_a_server_error(pulsar: Pulsar) -> None:
    assert upgrade_status(pulsar, "public/default") == 500


def test_an_upgrade_needs_a_token(strict: Pulsar) -> None:
    namespace = strict.create_namespace("tokens")
    strict.call("POST", f"/namespaces/{namespace}/permissions/device", ["produce"])
    topic = f"{namespace}/topic"
    device = token(TOKEN_KEY, "device")

    assert upgrade_status(strict, topic, bearer=device) == 101
    assert upgrade_status(strict, topic, bearer="") == 401
    assert upgrade_status(strict, topic, bearer="nonsense") == 401
    assert upgrade_status(strict, topic, bearer=token(b"another key of 32 bytes and more", "device")) == 401
    assert upgrade_status(strict, topic, bearer=token(TOKEN_KEY, "another")) == 403
    assert upgrade_status(strict, topic, bearer="", token=device) == 101  # as a parameter of the URL


# --- idle ----------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_and_its_name_is_free(strict: Pulsar) -> None:
    topic = f"{strict.create_namespace('idle')}/topic"
    with closing(Producer(strict, topic, producerName="me")) as producer:
        producer.send(b"x")
        started = time.monotonic()
        opcode, data = producer.ws.recv_data(control_frame=True)
        assert IDLE_SECONDS * 0.9 < time.monotonic() - started < IDLE_SECONDS + 2
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1001
        assert b"Idle timeout expired" in data
        connect_when_free(strict, topic, producerName="me").close()


@pytest.mark.parametrize("kind", ["ping", "pong"])
def test_control_frames_keep_an_idle_connection_open(strict: Pulsar, kind: str) -> None:
    topic = f"{strict.create_namespace(f'kept-by-{kind}')}/topic"
    with closing(Producer(strict, topic)) as producer:
        ends = time.monotonic() + 2 * IDLE_SECONDS
        while time.monotonic() < ends:
            getattr(producer.ws, kind)()
            time.sleep(IDLE_SECONDS / 4)
        assert producer.send(b"x")["result"] == "ok"


def test_the_idle_time_is_five_minutes_unless_set(pulsar: Pulsar) -> None:
    settings = pulsar.call("GET", "/brokers/configuration/runtime")
    assert settings["webSocketSessionIdleTimeoutMillis"] == "300000"
    assert settings["webSocketMaxTextFrameSize"] == str(MAX_TEXT)
    assert settings["webSocketPingDurationSeconds"] == "-1"


# --- topics that go away -------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_namespace", [False, True], ids=["topic", "namespace"])
def test_an_unload_does_not_show_on_the_connection(pulsar: Pulsar, deduplicated: str, whole_namespace: bool) -> None:
    with closing(Producer(pulsar, deduplicated, producerName="me", initialSequenceId=-1)) as producer:
        producer.send(b"before")
        if whole_namespace:
            pulsar.call("PUT", f"/namespaces/{deduplicated.rpartition('/')[0]}/unload")
        else:
            pulsar.unload_topic(deduplicated)
        assert producer.is_silent(1)
        assert producer.send(b"after")["result"] == "ok"
    assert pulsar.read(deduplicated) == [b"before", b"after"]
    assert pulsar.sequence_ids(deduplicated) == [0, 1]


def test_sends_under_way_during_unloads_are_stored_once_and_in_order(pulsar: Pulsar, deduplicated: str) -> None:
    payloads = numbered(3000)
    with closing(Producer(pulsar, deduplicated, producerName="me", initialSequenceId=-1)) as producer:
        sender = threading.Thread(target=producer.burst, args=(payloads,))
        sender.start()
        answers = []
        for n in range(len(payloads)):
            if n % 1000 == 500:
                pulsar.unload_topic(deduplicated)
            answers.append(producer.answer())
        sender.join(20)
    assert {answer["result"] for answer in answers} == {"ok"}
    assert pulsar.read(deduplicated) == payloads


def test_a_deleted_topic_is_recreated_without_a_sign_on_the_connection(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        producer.send(b"lost")
        pulsar.delete_topic(topic)
        assert producer.is_silent(1)
        assert producer.send(b"kept")["result"] == "ok"
    assert pulsar.read(topic) == [b"kept"]


def test_in_a_deleted_namespace_sends_time_out_and_the_connection_stays(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic, sendTimeoutMillis=1000)) as producer:
        producer.send(b"lost")
        pulsar.delete_namespace(topic.rpartition("/")[0])
        assert producer.is_silent(1)
        refusal = producer.send(b"x")
        assert refusal["result"] == "send-error:8"
        assert "TimeoutException" in refusal["errorMsg"]
        assert producer.is_silent(1)
    assert upgrade_status(pulsar, topic) == 404


def test_with_a_send_timeout_of_zero_a_send_into_a_deleted_namespace_is_never_answered(
    pulsar: Pulsar, topic: str
) -> None:
    with closing(Producer(pulsar, topic, sendTimeoutMillis=0)) as producer:
        producer.send(b"lost")
        pulsar.delete_namespace(topic.rpartition("/")[0])
        producer.ws.send(request(b"x", "1"))
        assert producer.is_silent(5)


def test_a_terminated_topic_refuses_sends_and_then_upgrades(pulsar: Pulsar, topic: str) -> None:
    with closing(Producer(pulsar, topic)) as producer:
        producer.send(b"before")
        pulsar.terminate_topic(topic)
        assert producer.is_silent(1)
        for _ in range(2):
            refusal = producer.send(b"x")
            assert refusal["result"] == "send-error:8"
            assert "TopicTerminatedException" in refusal["errorMsg"]
    assert upgrade_status(pulsar, topic) == 503
    assert pulsar.read(topic) == [b"before"]


def test_stopping_the_broker_ends_the_connection(tmp_path: Path) -> None:
    broker = Pulsar(tmp_path)
    try:
        with closing(Producer(broker, "public/default/topic")) as producer:
            producer.send(b"x")
            broker.kill()
            with pytest.raises((OSError, websocket.WebSocketException, http.client.HTTPException)):
                producer.ws.recv()
    finally:
        broker.end()
