"""A data path that a test moves turn by turn, between a scripted broker and a scripted far end.

Everything between the two ends is real: links, pipeline, mapper, deliveries, the outbox on its file. Time is a number:
a turn that would wait adds the wait to it. ``events`` is the order of what could be seen from outside: before and after
every commit both ends read what was written to them so far.
"""

from __future__ import annotations

import json
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bridge.errors import MqttUnavailable, OutboxUnavailable
from bridge.gdn.producer import ProducerLink
from bridge.links.link import Link
from bridge.mapping import Mapper, Route
from bridge.mapping.row_formats import KEY_PREFIX, RowFormats
from bridge.message import DeadLetter, OutboxRecord
from bridge.mqtt.brokers import Brokers
from bridge.mqtt.link import MqttLink, MqttOptions
from bridge.mqtt.session import MqttSession, streams_with_sessions
from bridge.outbox import Bounds, Commit, DeadLetterClient, Outbox, Policy, Selection
from bridge.path.delivery import Delivery, RecordMemory
from bridge.path.inbox import Inbox
from bridge.path.intake import Intake, intake_name
from bridge.path.intakes import Intakes
from bridge.path.outdated_rows import OutdatedRows
from bridge.path.pipeline import Pipeline
from bridge.path.rate_limit import RateLimit
from bridge.path.sender import Sender
from bridge.path.sockets import Sockets
from bridge.streamql import InputStream, input_streams, parse
from bridge.timing import Backoff, Deadline
from tests.faults.mqtt_packets import PUBACK, Splitter, publish

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM readings (n long, text string);
CREATE STREAM others (n long);
CREATE SINK STREAM output (n long);
"""
STREAMS = input_streams(parse(DEFINITION))
READINGS = Route("d/{device}", "readings", fields={"text": "text"})
OTHERS = Route("o/{device}", "others")
CLIENT = "bridge"
WINDOW = 100
FIRST = 60_000
"""The number of the message that ``reach_steady_state`` sends."""

MOST_TURNS = 1000
"""More than any test needs: a data path that never gets there must fail a test, not keep it."""

CONNECT, DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, PINGREQ = 1, 14, 8, 10, 3, 12
QOS_2 = {5: "pubrec", 7: "pubcomp"}

Event = tuple[str, Any]


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = time.monotonic()  # links read the real clock when they are created

    def __call__(self) -> float:
        return self.now


class SteppedSockets(Sockets):
    """Never waits: what a wait would have taken is added to the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.before_wait: Callable[[], None] = lambda: None

    def wait(self, links: Sequence[Link], timeout: float) -> set[Link]:
        self.before_wait()
        ready = super().wait(links, 0)
        if not ready:
            self._clock.now += timeout
        return ready


class RecordingOutbox(Outbox):
    """The real outbox, which records its commits and can be made to fail."""

    failing = False
    on_commit: Callable[[str, Any], None]

    def commit(self, commit: Commit) -> list[OutboxRecord]:
        self.on_commit("commit begins", None)
        if self.failing:
            raise OutboxUnavailable("the disk is full")
        records = super().commit(commit)
        released = tuple(commit.released)
        self.on_commit("committed", ([json.loads(record.payload)["n"] for record in records], released))
        return records

    def number(self, stream: str, numbers: Sequence[tuple[int, int]]) -> None:
        if self.failing:
            raise OutboxUnavailable("the disk is full")
        super().number(stream, numbers)
        self.on_commit("numbered", [record_id for _, record_id in numbers])

    def save_values(self, **values: str) -> None:
        if self.failing:
            raise OutboxUnavailable("the disk is full")
        super().save_values(**values)

    def probe(self) -> None:
        if self.failing:
            raise OutboxUnavailable("the disk is full")
        super().probe()


class Broker:
    """The other end of one connection, MQTT 3.1.1: grants all filters unless a test refuses one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._packets = Splitter()
        self.answers_pings = True
        self.answer = 0x01
        """To every filter: QoS 1; 0x80 refuses."""
        self.acknowledged: list[int] = []
        """All packet ids acknowledged, in order."""
        self.subscribed: list[str] = []
        self.exchanged: list[tuple[str, int]] = []
        """Packet ids of PUBRECs and PUBCOMPs, in order."""
        self.unsubscribed: list[str] = []
        self.published: list[str] = []
        """Topics that the bridge published to."""
        self.is_left = False
        """Whether the bridge sent DISCONNECT."""
        self.has_connect = False
        """Whether the bridge sent CONNECT."""
        sock.setblocking(False)

    def accept(self, *, session_present: bool = False) -> None:
        """Answer CONNECT."""
        self.read()
        self._sock.sendall(bytes((0x20, 2, session_present, 0)))

    def publish(self, *numbers: int, topic: str = "d/1", dup: bool = False, text: str = "", qos: int = 1) -> None:
        """Send messages; number and packet id are the same."""
        payloads = [(n, json.dumps({"n": n, "text": text}).encode()) for n in numbers]
        self.send(b"".join([publish(topic, payload, n, dup=dup, qos=qos) for n, payload in payloads]))

    def pubrel(self, *packet_ids: int) -> None:
        """Go on with QoS 2 exchanges."""
        self.send(b"".join([b"\x62\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids]))

    def send(self, packet: bytes) -> None:
        """Send bytes even if the socket is full: then it takes several turns."""
        self._sock.setblocking(True)
        self._sock.sendall(packet)
        self._sock.setblocking(False)

    def read(self) -> list[int]:
        """The packet ids acknowledged since the last call; answers the other packets."""
        acknowledged = []
        for head, body in self._packets.feed(_received(self._sock)):
            kind, packet_id = head >> 4, body[:2]
            if kind == PUBACK:
                acknowledged.append(int.from_bytes(packet_id, "big"))
                self.acknowledged.append(acknowledged[-1])
            elif kind in QOS_2:
                self.exchanged.append((QOS_2[kind], int.from_bytes(packet_id, "big")))
            elif kind == SUBSCRIBE:
                filters = list(_texts(body[2:], extra=1))
                self.subscribed += filters
                self._sock.sendall(bytes((0x90, 2 + len(filters))) + packet_id + bytes((self.answer,)) * len(filters))
            elif kind == UNSUBSCRIBE:
                self.unsubscribed += _texts(body[2:], extra=0)
                self._sock.sendall(b"\xb0\x02" + packet_id)
            elif kind == PUBLISH:
                self.published += list(_texts(body, extra=len(body)))
            elif kind == PINGREQ and self.answers_pings:
                with suppress(BrokenPipeError):  # the bridge may have left meanwhile
                    self._sock.sendall(b"\xd0\x00")
            elif kind == DISCONNECT:
                self.is_left = True
            elif kind == CONNECT:
                self.has_connect = True
        return acknowledged

    def close(self) -> None:
        """Close the connection without DISCONNECT or close frame."""
        self._sock.close()


class FarEnd:
    """The other end of one producer connection: collects sends, and receipts those that a test names."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._receipted = 0
        self.sent: list[tuple[int, int]] = []
        """(record id, number in its row) of every send, in order."""
        self.payloads: list[tuple[int, bytes]] = []
        """(record id, row) of every send, in order."""
        sock.setblocking(False)

    def read(self) -> list[int]:
        """The numbers sent since the last call."""
        self._rest += _received(self._sock)
        numbers = []
        for text in self._texts():
            request = json.loads(text)
            payload = b64decode(request["payload"])
            n = json.loads(payload)["n"]
            self.sent.append((int(request["context"]), n))
            self.payloads.append((int(request["context"]), payload))
            numbers.append(n)
        return numbers

    @property
    def numbers(self) -> list[int]:
        """Of all rows sent over this connection, in order."""
        self.read()
        return [n for _, n in self.sent]

    def receipt(self, *numbers: int, result: str = "ok") -> None:
        """Answer the sends of these rows; of all, if none is named."""
        self.read()
        for record_id, n in self.sent:
            if not numbers or n in numbers:
                self._answer({"result": result, "context": str(record_id), "errorMsg": "no" * (result != "ok")})

    def receipt_new(self) -> None:
        """Answer the sends that have come since the last call of this."""
        self.read()
        for record_id, _ in self.sent[self._receipted :]:
            self._answer({"result": "ok", "context": str(record_id)})
        self._receipted = len(self.sent)

    def answer(self, context: str, result: str = "ok") -> None:
        """Answer a context, even if no send had it."""
        self._answer({"result": result, "context": context})

    def break_protocol(self) -> None:
        """Send a binary message, which no producer endpoint does."""
        self._sock.sendall(b"\x82\x01x")

    def close(self) -> None:
        """Close the connection without DISCONNECT or close frame."""
        self._sock.close()

    def _answer(self, answer: dict[str, str]) -> None:
        text = json.dumps(answer).encode()
        assert len(text) < 126
        self._sock.sendall(bytes((0x81, len(text))) + text)

    def _texts(self) -> Iterator[bytes]:
        """The complete text frames received (RFC 6455, 5.2); all frames of a client are masked."""
        while len(self._rest) >= 6:
            size, at = self._rest[1] & 0x7F, 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, at = int.from_bytes(self._rest[2 : 2 + width], "big"), 2 + width
            end = at + 4 + size
            if len(self._rest) < end:
                return
            mask, data, opcode = self._rest[at : at + 4], self._rest[at + 4 : end], self._rest[0] & 0x0F
            self._rest = self._rest[end:]
            if opcode == 1:
                whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
                yield whole.to_bytes(size, "big")


class DataPath:
    """One data path and its two ends.

    Args:
        directory: for the outbox.
        bounds: of the outbox.
        policy: when it is full.
        deduplicates: whether sequence numbers and the fence are used.
        routes: of the mapper.
        qos: of the subscriptions.
        worker_is_attached: whether rows may be sent.
        max_rows: a second and stream; None: no limit.
        streams: of the worker.
        brokers: their names.
        session_per_stream: whether each stream has a session of its own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bounds: Bounds | None = None,
        policy: Policy = "hold",
        deduplicates: bool = False,
        routes: Sequence[Route] = (READINGS, OTHERS),
        qos: int = 1,
        worker_is_attached: bool = True,
        max_rows: float | None = None,
        streams: Mapping[str, InputStream] = STREAMS,
        brokers: Sequence[str] = ("broker",),
        session_per_stream: bool = False,
    ) -> None:
        self.clock = Clock()
        self.streams = streams
        self.events: list[Event] = []
        self.releases: list[tuple[float, tuple[int, ...]]] = []
        """The time of each commit, and the record ids that it released."""
        self.qos = qos
        self.worker_is_attached = worker_is_attached
        self.deduplicates = deduplicates
        self._max_rows = max_rows
        mapper = self.mapper(*routes)
        self.memory = RecordMemory()
        self.far_ends: dict[str, FarEnd] = {}
        self._sockets: list[socket.socket] = []
        self.outbox_path = directory / "outbox.db"
        self.outbox = RecordingOutbox(self.outbox_path, bounds, clock=self.clock)
        self.outbox.on_commit = self._note
        self.outbox.open()
        self.stepped = SteppedSockets(self.clock)
        self.inbox = Inbox(self.stepped.wake)
        self.unreachable: set[str] = set()
        """Of ``brokers``."""
        self.ends: dict[str | None, Broker] = {}
        """The latest connection of each session, by stream; None: that of all streams."""
        self._broker_names = brokers
        self._brokers: dict[str | None, Brokers] = {}
        used: list[str | None] = [*dict.fromkeys([route.stream for route in routes])] if session_per_stream else [None]
        intakes = [self._make_intake(stream, mapper) for stream in used]
        unused = [s for s in (None, *streams_with_sessions(self.outbox)) if s not in used]
        self.intake = intakes[0]
        self.intakes = Intakes(
            intakes,
            mapper,
            retiring=[self._make_intake(stream, mapper) for stream in unused if self._is_known(stream)],
            make=(lambda stream: self._make_intake(stream, mapper)) if session_per_stream else None,
        )
        names = dict.fromkeys([route.stream for route in routes] + self.outbox.streams())
        self.formats = RowFormats(streams, self.outbox.saved_values(KEY_PREFIX))
        self.pipeline = Pipeline(
            mapper=mapper,
            outbox=self.outbox,
            intakes=self.intakes,
            senders={stream: self.make_sender(stream) for stream in names},
            make_sender=self.make_sender,
            inbox=self.inbox,
            sockets=self.stepped,
            policy=policy,
            may_send=lambda: self.worker_is_attached,
            clock=self.clock,
        )

    def _session(self, stream: str | None, broker: str) -> MqttSession:
        client_id = CLIENT if stream is None else f"{CLIENT}-{stream}"
        return MqttSession(
            client_id=client_id, broker=broker, outbox=self.outbox, deduplicates=self.deduplicates, stream=stream
        )

    def _is_known(self, stream: str | None) -> bool:
        return bool(self._session(stream, self._broker_names[0]).known.filters)

    def _make_intake(self, stream: str | None, mapper: Mapper) -> Intake:
        self._brokers[stream] = Brokers([self._session(stream, broker) for broker in self._broker_names])
        filters = mapper.filters if stream is None else mapper.of_stream(stream).filters
        return Intake(
            self._brokers[stream],
            filters=filters,
            connect=_no_dialling,
            hand_over=_no_dialling,
            stream=stream,
            clock=self.clock,
        )

    def intake_of(self, stream: str | None) -> Intake:
        """The intake of a stream's session; None: of the session of all streams."""
        return next(intake for intake in self.intakes.active if intake.stream == stream)

    def mapper(self, *routes: Route) -> Mapper:
        """A mapper for these routes."""
        return Mapper(routes=routes, streams=self.streams, outbox_name="o")

    @property
    def brokers(self) -> Brokers:
        """Of the session of all streams."""
        return self._brokers[None]

    @property
    def broker(self) -> Broker | None:
        """The latest connection of the session of all streams."""
        return self.ends.get(None)

    def dial_broker(self, stream: str | None = None) -> Broker:
        """A connection to the broker whose turn it is, which has not answered it yet."""
        link = self._brokers[stream].dial(lambda session: self._connect(session, stream))
        self.inbox.hand_over_mqtt(intake_name(stream), link)
        self.turn()
        return self.ends[stream]

    def _connect(self, session: MqttSession, stream: str | None) -> MqttLink:
        if session.broker in self.unreachable:
            raise MqttUnavailable(f"{session.broker} can't be reached")
        ours, theirs = self._pair()
        options = MqttOptions(
            client_id=CLIENT,
            version=4,
            keepalive=60,
            session_expiry=3600,
            receive_maximum=100,
            subscribe_on_connect=False,
            qos=self.qos,
        )
        link = MqttLink(
            sock=ours,
            options=options,
            filters=self.intake_of(stream).filters,
            known=session.known.filters,
            known_qos=session.known.qos,
            clock=self.clock,
        )
        self.ends[stream] = Broker(theirs)
        return link

    def connect_broker(self, stream: str | None = None, *, session_present: bool = False) -> Broker:
        """A connection to the broker that is subscribed."""
        broker = self.dial_broker(stream)
        broker.accept(session_present=session_present)
        for _ in range(3):
            self.turn()
            broker.read()
        return broker

    def connect_far_end(self, stream: str = "readings") -> FarEnd:
        """A producer on the stream."""
        ours, theirs = self._pair()
        link = ProducerLink(
            sock=ours,
            window=WINDOW,
            receipt_timeout=30,
            ping_interval=20,
            deduplicates=self.deduplicates,
            clock=self.clock,
        )
        self.far_ends[stream] = far_end = FarEnd(theirs)
        self.inbox.hand_over_producer(stream, link)
        self.turn()
        return far_end

    def reach_steady_state(self) -> tuple[Broker, FarEnd]:
        """Both ends, after a first message has passed every step: records now stay in memory after their commit."""
        broker, far_end = self.connect_broker(), self.connect_far_end()
        broker.publish(FIRST)
        self.turn()
        far_end.receipt()
        self.turn(3)
        assert self.stored == []
        far_end.sent.clear()
        self.events.clear()
        return broker, far_end

    def turn(self, times: int = 1) -> None:
        """Run turns of the data path; then both ends read what was written to them."""
        for _ in range(times):
            self.pipeline.turn()
            self._read_ends()

    def turn_until(self, is_done: Callable[[], bool]) -> None:
        """Turns until then; fails if that takes too many."""
        for _ in range(MOST_TURNS):
            if is_done():
                return
            self.turn()
        raise AssertionError(f"not within {MOST_TURNS} turns")

    def stop(self, *, seconds: float, before_wait: Callable[[], None] = lambda: None) -> None:
        """Ask for a stop within ``seconds`` and run until the end. ``before_wait``: called before each wait."""
        self.stepped.before_wait = before_wait
        self.inbox.request_stop(Deadline(seconds, clock=self.clock))
        self.pipeline.run()
        self._read_ends()

    def close(self) -> None:
        """End; the outbox file stays."""
        self.outbox.close()
        self.stepped.close()
        for sock in self._sockets:
            sock.close()

    @property
    def pubacks(self) -> list[int]:
        """All packet ids acknowledged, in order."""
        return [packet_id for name, what in self.events if name == "puback" for packet_id in what]

    @property
    def stored(self) -> list[int]:
        """The numbers of the rows in the outbox, in order."""
        found = [
            record
            for stream in self.outbox.streams()
            for record in self.outbox.read(stream, after=0, limit=100_000, max_bytes=1 << 30)
        ]
        return [json.loads(record.payload)["n"] for record in found]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """In the outbox, oldest first."""
        with DeadLetterClient(self.outbox_path) as client:
            return [stored.dead_letter for stored in client.dead_letters(Selection())]

    def delivery(self, stream: str = "readings") -> Delivery:
        """The stream's records."""
        return self.pipeline.senders[stream].delivery

    def make_sender(self, stream: str) -> Sender:
        """A sender for the stream's records in the outbox."""
        changes = self.formats.changes([stream], self.outbox.next_id)
        self.outbox.save_values(**changes)
        self.formats.apply(changes)
        delivery = Delivery(
            stream=stream,
            read=lambda **limits: self.outbox.read(stream, **limits),
            memory=self.memory,
            convert=OutdatedRows(stream, self.formats, wall_clock=lambda: 7).convert,
            deduplicates=self.deduplicates,
            backoff=Backoff(base=1, cap=10, rng=lambda: 1.0),
        )
        if self.deduplicates:
            delivery.resume(*self.outbox.numbered(stream))
        limit = None if self._max_rows is None else RateLimit(rows=self._max_rows)
        return Sender(delivery, connect=_no_dialling, hand_over=_no_dialling, limit=limit)

    def _note(self, name: str, what: Any) -> None:
        self._read_ends()
        if name == "committed":
            self.releases.append((self.clock.now, what[1]))
        self.events.append((name, what))

    def _read_ends(self) -> None:
        for end in self.ends.values():
            if acknowledged := end.read():
                self.events.append(("puback", acknowledged))
            self.events += end.exchanged
            end.exchanged = []
        for far_end in self.far_ends.values():
            if sent := far_end.read():
                self.events.append(("sent", sent))

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        self._sockets += pair
        return pair


@contextmanager
def opened(directory: Path, **options: Any) -> Iterator[Any]:
    """A ``DataPath``, closed at the end."""
    path = DataPath(directory, **options)
    try:
        yield path
    finally:
        path.close()


def _no_dialling(*_: Any) -> Any:
    raise AssertionError("tests hand over their links themselves")


def _received(sock: socket.socket) -> bytes:
    """All bytes received."""
    parts = []
    while True:
        try:
            data = sock.recv(1 << 20)
        except (BlockingIOError, ConnectionError, OSError):
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def _texts(body: bytes, *, extra: int) -> Iterator[str]:
    """The length-prefixed texts of a packet, each followed by ``extra`` bytes."""
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        yield body[at + 2 : at + 2 + size].decode()
        at += 2 + size + extra
