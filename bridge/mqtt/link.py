"""One connection to the broker: connect, subscribe, read messages in batches, acknowledge them in order.

The only module that imports paho. paho handles the protocol's rare packets (CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT)
but not the socket: it reads from and writes to a ``_PacketBuffer``. PUBLISH and its answers bypass it (``packets.py``).
A message is acknowledged on the link that it came from or not at all, so that no packet id can be mistaken for one of a
later connection.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.links.link import Link, LinkEnd
from bridge.links.tls import Tls, UnusableFile, open_socket
from bridge.links.websocket import UpgradeError, WebSocketStream, upgrade
from bridge.message import MqttMessage
from bridge.mqtt import grants, packets, refusals
from bridge.mqtt.grants import Limits
from bridge.mqtt.hosted import HostedBroker, hosted_broker
from bridge.mqtt.refusals import BrokerReason, Code
from bridge.mqtt.silence import ANSWER_TIMEOUT, MIN_RATE, Patience, Silence
from bridge.mqtt.subscriptions import DROPPED_TOPIC, RequestKind, SubscriptionRequest, Subscriptions

MAX_PACKET = 16 * 1024 * 1024
"""Bytes. Announced with MQTT 5 (3.1.2.11.4). A larger PUBLISH is read and discarded: a broker that sends one, with
3.1.1 or against the announcement, would otherwise redeliver it on each connection."""

MAX_OTHER = 128 * 1024
"""Bytes of packets other than PUBLISH in one read. No sensible packet comes near it, and paho takes seconds for the
properties of larger ones."""

MAX_ANSWER = 512
"""Bytes that each unanswered SUBSCRIBE and UNSUBSCRIBE adds to ``MAX_OTHER``: the answers to thousands of them come in
one read, and each may explain its reasons."""

MAX_DIGITS = 20
"""Digits of the broker's counter of dropped messages: a longer text isn't a counter, and slow to parse."""

KEEPALIVE_FACTOR = 1.5
"""Keepalive intervals without a byte from the broker after which the connection counts as dead."""

PING_ANSWER = 5.0
"""Seconds that an answer to a ping may take before the silence is reported."""

_CONNACK_3_1_1_VERSION_REFUSED = b"\x20\x02\x00\x01"
_PINGREQ = b"\xc0\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """What a connection asks of the broker, and how long the bridge waits for it."""

    client_id: str
    """Names the session at the broker."""
    version: int
    """Of the protocol, 5 or 4 (3.1.1)."""
    username: str | None = None
    """None: the CONNECT has no user name."""
    password: str | None = field(default=None, repr=False)
    keepalive: int
    """Seconds; an MQTT 5 broker may set another value."""
    session_expiry: int
    """Seconds that the broker is asked to keep the session (MQTT 5). 0: it ends with the connection, in both
    versions."""
    receive_maximum: int
    """Unacknowledged messages that the broker may have in flight (MQTT 5)."""
    watch_drops: bool = False
    """Whether to subscribe to Mosquitto's counter of dropped messages as well, for ``MqttLink.broker_dropped``."""
    silence_timeout: float = 0.0
    """Seconds without a message after which the subscriptions are requested again; 0: never."""
    qos: int = 1
    """Of the subscriptions, 1 or 2."""
    subscribe_on_connect: bool = True
    """Whether to subscribe as soon as the CONNACK has come; else the owner calls ``MqttLink.subscribe``."""

    @property
    def is_v5(self) -> bool:
        """Whether the protocol is MQTT 5."""
        return self.version == 5


def packet_id(n: int) -> int:
    """The packet id of a connection's request number ``n``, from 1: far from the ids of messages in flight.

    The broker chooses those, usually in a row from 1. Some brokers refuse a request whose id one of them has; the next
    id is far away from that row, too. 8192 and 65535 have no common divisor, so all ids are used.
    """
    return 65535 - 8192 * (n - 1) % 65535


class _PacketBuffer:
    """paho's socket: paho reads ``incoming``, and what it writes goes to ``outgoing``."""

    def __init__(self, sock: socket.socket, outgoing: bytearray) -> None:
        self._sock = sock
        self._outgoing = outgoing
        self.incoming = bytearray()

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError  # as a non-blocking socket does: paho returns to its caller
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data: bytes) -> int:
        self._outgoing += data
        return len(data)

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        pass

    def close(self) -> None:
        pass  # the link closes the socket


class _Client(paho.Client):
    """paho on a ``_PacketBuffer``. What it overrides is private in paho 2.2: hence the bound below 3."""

    packet_buffer: _PacketBuffer
    _requests = 0

    def _mid_generate(self) -> int:
        self._requests += 1
        return packet_id(self._requests)

    def _create_socket(self) -> Any:
        return self.packet_buffer


class MqttLink(Link):
    """One connection to the broker.

    Args:
        sock: connected; becomes non-blocking.
        options: of the connection.
        filters: to subscribe.
        known: filters that the broker's session held at the end of the last connection with this client id; empty if
            nothing is known.
        known_qos: the QoS at which ``known`` were requested.
        client_not_after: see ``Link``.
        stream: see ``Link``; for MQTT over WebSocket.
        hosted: the vendor, if it is a hosted broker.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        sock: socket.socket,
        options: MqttOptions,
        filters: Sequence[str],
        known: Sequence[str],
        known_qos: int = 1,
        client_not_after: float | None = None,
        stream: WebSocketStream | None = None,
        hosted: HostedBroker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            sock,
            failed="the connection to the broker failed",
            closed="the broker closed the connection",
            client_not_after=client_not_after,
            stream=stream,
        )
        self.session_present: bool | None = None
        """Whether the broker had kept the session; None before its CONNACK."""
        self.has_redelivered = False
        """Whether a redelivered message showed that the broker had kept the session, although its CONNACK denied it."""
        self.broker_dropped: int | None = None
        """Messages that the broker has dropped since its start because a queue was full; None if it hasn't said."""
        self.pings_answered = 0
        """Of the PINGREQs sent, in order."""
        self._pings = 0  # PINGREQs sent
        self._connection_notes: list[str] = []
        self._options = options
        self._hosted = hosted
        self._subscriptions = Subscriptions(
            filters,
            known=known,
            version=options.version,
            watch_drops=options.watch_drops and (hosted is None or hosted.has_sys),
            same_qos=known_qos == options.qos,
        )
        self._pubrels: list[int] = []
        self._silence = Silence(options.silence_timeout)
        self._rest = bytearray()  # an incomplete packet
        self._needed = 0  # its length
        self._oversized: packets.Oversized | None = None  # a PUBLISH over MAX_PACKET, while it arrives
        self._arrived = 0  # bytes since the last tick
        self._clock = clock
        self._begun_at: float | None = None  # when the CONNECT could first be written
        self._heard_at = self._pinged_at = 0.0
        self._keepalive = options.keepalive
        self._suback = Patience(ANSWER_TIMEOUT)
        self._buffer = _PacketBuffer(sock, self._outgoing)
        self._client = self._connect()

    def _connect(self) -> _Client:
        """paho, with its CONNECT written to the buffer."""
        options, is_v5 = self._options, self._options.is_v5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            clean_session=None if is_v5 else options.session_expiry == 0,
            manual_ack=True,
            reconnect_on_failure=False,  # else it answers a refused protocol version with a second CONNECT
        )
        client.packet_buffer = self._buffer  # in place of a socket: connect's host and port are ignored
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        if options.username is not None:
            client.username_pw_set(options.username, options.password)
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
            properties.SessionExpiryInterval = options.session_expiry
            properties.ReceiveMaximum = options.receive_maximum
            properties.MaximumPacketSize = MAX_PACKET
            client.connect("broker", 1, options.keepalive, clean_start=False, properties=properties)
        else:
            client.connect("broker", 1, options.keepalive)
        return client

    # --- state --------------------------------------------------------------------------------------------

    @property
    def is_v5(self) -> bool:
        """Whether the protocol is MQTT 5."""
        return self._options.is_v5

    @property
    def subscribed(self) -> bool:
        """Whether every wanted filter was answered, granted or refused."""
        return self._subscriptions.is_answered

    @property
    def awaits_subscribe(self) -> bool:
        """Whether ``subscribe`` is still to be called."""
        return not self._subscriptions.is_requested

    @property
    def held(self) -> tuple[str, ...]:
        """Filters that the session holds now: see ``Results``."""
        return self._subscriptions.results.held

    @property
    def refused(self) -> Mapping[str, str]:
        """Wanted filters that are refused or granted at QoS 0, each with the reason: see ``Results``."""
        return self._subscriptions.results.refused

    @property
    def downgraded(self) -> frozenset[str]:
        """Those of ``refused`` that the broker granted at QoS 0."""
        return self._subscriptions.results.downgraded

    @property
    def granted(self) -> Mapping[str, int]:
        """Wanted filters that the broker granted on this connection, each with its QoS: see ``Results``."""
        return self._subscriptions.results.granted

    @property
    def qos(self) -> int:
        """The QoS at which the subscriptions are requested."""
        return self._options.qos

    @property
    def advice(self) -> Mapping[str, str]:
        """What to do about each of ``refused``."""
        return self._subscriptions.results.advice

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the broker grants less than was asked for, as sentences; not errors."""
        notes = [*self._connection_notes, *grants.of_filters(self.held, is_v5=self.is_v5)]
        lower = [f for f, qos in self.granted.items() if 0 < qos < self.qos]
        if lower:
            notes.append(
                f"the broker grants QoS 1, not 2 as mqtt.qos asks, for {len(lower)} of {len(self.granted)} "
                "subscriptions: what it redelivers may be stored twice"
            )
        return tuple(notes)

    @property
    def ended_by_counter(self) -> bool:
        """Whether the broker ended the link, with a reason or without, instead of answering the request for its counter
        of dropped messages.
        """
        is_ended_by_peer = self.end in {LinkEnd.CLOSED_BY_PEER, LinkEnd.DISCONNECTED, LinkEnd.FAILED}
        return is_ended_by_peer and self._subscriptions.counter_unanswered

    @property
    def is_auth_error(self) -> bool:
        """Whether the broker refused the credentials."""
        return self.end is LinkEnd.REFUSED_CREDENTIALS

    @property
    def taken_over(self) -> bool:
        """Whether another client with this client id took the session over, and the broker said so (MQTT 5)."""
        return self.end is LinkEnd.TAKEN_OVER

    @property
    def closed_silently(self) -> bool:
        """Whether the broker closed a subscribed link without a reason. A 3.1.1 broker has no other way to say that
        another client with the same client id took the session over.
        """
        return self.subscribed and self.end is LinkEnd.CLOSED_BY_PEER

    # --- callbacks: paho runs them inside _feed, in the owner's thread ------------------------------------

    def _on_connect(self, _client: Any, _data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if self.session_present is not None:
            raise RemoteProtocolError("the broker sent a second CONNACK")
        if code.is_failure:
            self._refused(_reason(code, properties))
            return
        self.session_present = flags.session_present
        self._connection_notes = grants.of_connection(_limits(properties), session_expiry=self._options.session_expiry)
        self._keepalive = getattr(properties, "ServerKeepAlive", self._keepalive)  # 3.2.2.3.14
        self._send(self._subscriptions.connected(session_present=flags.session_present))
        if self._options.subscribe_on_connect:
            self.subscribe()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        self._send(self._subscriptions.take_suback(mid, [_reason(code) for code in codes]))
        if not self._subscriptions.has_unanswered:
            self._suback.stop()
        elif self._suback.is_waiting:
            self._suback.start(self._clock())  # for the next one: a broker that answers one by one is not late
        self._silence.heard()

    def _on_unsubscribe(self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        self._send(self._subscriptions.take_unsuback(mid, [_reason(code) for code in codes]))

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.fail(*refusals.disconnected(_reason(code, properties), client_id=self._options.client_id))

    def _refused(self, reason: BrokerReason) -> None:
        options = self._options
        self.fail(*refusals.connect_refused(reason, client_id=options.client_id, version=options.version))

    # --- subscriptions ------------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """Request the subscriptions; once, after the CONNACK, unless ``subscribe_on_connect`` has done it."""
        self._send(self._subscriptions.request())
        self._await_suback()

    def want(self, filters: Sequence[str]) -> None:
        """Replace the wanted filters: new ones are subscribed, then old ones unsubscribed."""
        requests = self._subscriptions.change(filters)
        self._send(requests)
        if any(request.kind is RequestKind.SUBSCRIBE for request in requests):
            self._await_suback()

    def _await_suback(self) -> None:
        if self._subscriptions.has_unanswered:
            self._suback.start(self._clock())

    def _send(self, requests: Iterable[SubscriptionRequest]) -> None:
        for request in requests:
            if request.kind is RequestKind.UNSUBSCRIBE:
                _, mid = self._client.unsubscribe(request.filters)
            else:
                options = self._subscribe_options(request.kind)
                topics = [(f, options if self._options.is_v5 else options.QoS) for f in request.filters]
                _, mid = self._client.subscribe(topics)  # type: ignore[arg-type]  # a list of one kind or the other
            if mid is not None:
                self._subscriptions.sent(mid, request)

    def _subscribe_options(self, kind: RequestKind) -> SubscribeOptions:
        # Retain Handling (3.8.3.1): the counter's last value is wanted each time. Routes get retained messages with a
        # new subscription only, not at each connect.
        if kind is RequestKind.SUBSCRIBE_COUNTER:
            return SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
        return SubscribeOptions(qos=self.qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)

    # --- messages -----------------------------------------------------------------------------------------

    def read(self, received_at: int) -> list[MqttMessage]:
        """The messages of one read, in arrival order. ``end`` shows whether the link is over.

        Args:
            received_at: nanoseconds since the epoch.

        Raises:
            RemoteProtocolError: the broker broke the protocol; drop the link.
        """
        data = self._receive()
        self._arrived += len(data)
        if self._oversized is not None:
            return self._read_past(data, received_at)
        return self._split(data, received_at) if data else []

    def _read_past(self, data: bytes, received_at: int) -> list[MqttMessage]:
        """The message of the packet over the limit once it is complete, and those that follow it."""
        assert self._oversized is not None
        rest = self._oversized.feed(data)
        if not self._oversized.is_complete:
            return []
        message = self._oversized.message(version=self._options.version, received_at=received_at)
        self._oversized = None
        self._silence.heard()
        return [message, *self._split(rest, received_at)]

    def _split(self, data: bytes, received_at: int) -> list[MqttMessage]:
        if self._rest:
            # An incomplete packet is parsed again only when it is whole: joining it to each read would be quadratic.
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        if self.session_present is None and data[0] >> 4 != PacketTypes.CONNACK:
            raise RemoteProtocolError(
                f"the answer to CONNECT is not MQTT, it begins with {data[:16]!r}: check the port in mqtt.url"
            )
        block = packets.split(data, version=self._options.version, received_at=received_at)
        self._check_bounds(block, data)
        self._pubrels += block.pubrels
        self.pings_answered = min(self.pings_answered + block.pingresps, self._pings)
        if block.needed > MAX_PACKET:
            self._oversized = packets.Oversized(block.needed)
            self._oversized.feed(data[block.consumed :])
        else:
            self._rest += data[block.consumed :]
            self._needed = block.needed
        if block.other:
            self._feed(block.other)
        messages = block.messages
        # Searching all bytes costs a few ns a message; looking at each topic costs 70.
        if b"$SYS/" in data:
            messages = self._without_counter(messages)
        if messages:
            self._silence.heard()
            if self.session_present is False and not self.has_redelivered:
                self.has_redelivered = any(message.dup and message.qos for message in messages)
        return messages

    def _check_bounds(self, block: packets.Block, data: bytes) -> None:
        is_rest_other = block.needed > 0 and data[block.consumed] & 0xF0 != packets.PUBLISH
        limit = MAX_OTHER + MAX_ANSWER * self._subscriptions.pending
        if len(block.other) > limit or (is_rest_other and block.needed > MAX_OTHER):
            raise RemoteProtocolError(f"the broker sent over {limit} bytes of packets other than PUBLISH")

    def _without_counter(self, messages: Iterable[MqttMessage]) -> list[MqttMessage]:
        """Read the broker's counter of dropped messages; returns the messages to process.

        Messages of the broker's own topics are left out, unless a route wants such topics or they have QoS 1. At QoS 1
        they come for a filter that is no longer wanted, and have to be acknowledged in their turn.
        """
        passed = []
        for message in messages:
            if not message.topic.startswith("$SYS/"):
                passed.append(message)
                continue
            is_number = message.payload.isdigit() and len(message.payload) <= MAX_DIGITS
            if message.topic == DROPPED_TOPIC and is_number:
                self.broker_dropped = int(message.payload)
            if self._subscriptions.includes_sys or message.qos:
                passed.append(message)
        return passed

    def _feed(self, data: bytes) -> None:
        """Have paho handle these packets."""
        if not self._options.is_v5 and data.startswith(_CONNACK_3_1_1_VERSION_REFUSED):
            # The one refusal that paho does not report.
            self._refused(_reason(ReasonCode(PacketTypes.CONNACK, identifier=Code.UNSUPPORTED_PROTOCOL_VERSION)))
            return
        self._buffer.incoming += data
        try:
            while self._buffer.incoming and self.end is None:
                if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS and self.end is None:
                    raise RemoteProtocolError("the broker sent a packet that can't be read")
        except RemoteProtocolError:
            raise
        except Exception as exc:  # which class paho raises for a malformed packet differs between versions
            raise RemoteProtocolError(f"the broker sent a packet that can't be read: {exc!r}") from exc
        if self._client.want_write():  # what a callback queued
            self._client.loop_write()

    def ack(self, messages: Sequence[MqttMessage]) -> int:
        """Acknowledge messages of this link, in arrival order. Only after they are durable.

        Returns:
            How many PUBACKs and PUBRECs that takes.
        """
        written = packets.acknowledgements(messages)
        self._outgoing += written
        return len(written) // packets.ACKNOWLEDGEMENT_BYTES

    def take_pubrels(self) -> list[int]:
        """The packet ids of the PUBRELs that have come since the last call, in order."""
        pubrels, self._pubrels = self._pubrels, []
        return pubrels

    def complete(self, packet_ids: Sequence[int]) -> None:
        """Answer PUBRELs with PUBCOMPs. Only after the messages' packet ids are no longer on disk."""
        self._outgoing += packets.pubcomps(packet_ids)

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message at QoS 0: it may be lost unnoticed.

        Raises:
            ValueError: the topic is not valid for publishing.
        """
        self._client.publish(topic, payload, qos=0)

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Check keepalive, timeouts and silence; cheap, to be called each turn. ``now`` is monotonic seconds."""
        if self._begun_at is None:
            self._begun_at = self._heard_at = self._pinged_at = now
        arrived, self._arrived = self._arrived, 0
        if arrived:
            self._progress(arrived, now)
        error = self._overdue(now, self._begun_at)
        if error is not None:
            if self.has_unread:  # the answer may have arrived, and the owner has not read it
                self._progress(math.inf, now)
            else:
                self.fail(error, LinkEnd.TIMED_OUT)
            return
        if self._is_ping_due(now):
            self.ping(now)
        if self._is_quiet and self._silence.is_probe_due(now):
            self._send(self._subscriptions.repeat())

    def ping(self, now: float) -> int:
        """Send a PINGREQ, which also serves as keepalive. ``now`` is monotonic seconds.

        Returns:
            Its number on this link: its PINGRESP has come when ``pings_answered`` has reached it.
        """
        self._pinged_at = now
        self._pings += 1
        self._outgoing += _PINGREQ
        return self._pings

    def unheard_for(self, now: float) -> float | None:
        """Seconds since the broker's last byte, if it owes the answer to a ping; None: it answers."""
        awaits_answer = self._pinged_at > self._heard_at and now - self._pinged_at >= PING_ANSWER
        return now - self._heard_at if awaits_answer and not self.has_unread else None

    def _is_ping_due(self, now: float) -> bool:
        if not self._keepalive or self.session_present is None:
            return False
        if now - self._pinged_at >= self._keepalive:
            return True
        # Earlier if nothing comes, so that a dead link shows before it counts as lost.
        is_unanswered = self._pinged_at > self._heard_at
        return not is_unanswered and now - self._heard_at >= self._keepalive / 2

    def _progress(self, arrived: float, now: float) -> None:
        self._heard_at = now
        self._suback.progress(arrived, now)
        self._silence.progress(arrived, now)

    @property
    def _is_quiet(self) -> bool:
        """Whether all requests are answered, so that only messages are expected."""
        return self.subscribed and not self._suback.is_waiting

    def _overdue(self, now: float, begun_at: float) -> str | None:
        """The error, if the broker has been silent for too long."""
        if self.session_present is None:
            # Bytes don't extend this time: nothing but the CONNACK may come.
            is_late = now - begun_at > ANSWER_TIMEOUT
            return f"the broker did not answer CONNECT within {ANSWER_TIMEOUT:g} s" if is_late else None
        if self._keepalive and now - self._heard_at > KEEPALIVE_FACTOR * self._keepalive:
            return f"nothing came from the broker for {now - self._heard_at:.0f} s, not even answers to pings"
        if self._suback.is_over(now):
            return (
                f"the broker did not answer SUBSCRIBE, and sent less than {MIN_RATE:g} bytes a second for "
                f"{self._suback.waited(now):.0f} s"
            )
        silent_for = self._silence.unanswered_for(now)
        if self._is_quiet and silent_for is not None:
            return (
                f"connected, but no message came for {silent_for:.0f} s, and the broker did not answer when the "
                "subscriptions were requested again"
            )
        return None

    # --- the end ------------------------------------------------------------------------------------------

    def fail(self, error: str, end: LinkEnd) -> None:
        """See ``Link``. Adds what may be the reason if the broker gives none."""
        if self.session_present is None and end in {LinkEnd.FAILED, LinkEnd.CLOSED_BY_PEER}:
            error += " before it answered"
            if self._stream is not None:
                error += ". Check that the path in mqtt.url is the broker's for MQTT"
            elif not isinstance(self.sock, ssl.SSLSocket):
                error += ". If this port speaks TLS, write mqtts:// in mqtt.url"
            elif "own" not in self.certificate_ends:
                error += ". If the broker requires a client certificate, set mqtt.cert_file and mqtt.key_file"
            else:
                error += ". Perhaps the broker doesn't trust the authority that issued mqtt.cert_file"
        is_connected = self.session_present is not None
        is_silent = end is LinkEnd.CLOSED_BY_PEER or (end is LinkEnd.FAILED and not is_connected)
        if self._hosted is not None and is_silent:
            advice = self._hosted.closing_advice(client_id=self._options.client_id, is_connected=is_connected)
            error += f". {advice}" if advice else ""
        super().fail(error, end)

    def close(self) -> None:
        """Send DISCONNECT, as far as the socket takes it, and close. The broker keeps the session."""
        # Before the CONNACK nothing is sent: a CONNECT that still waits might begin a session unknown to us.
        if self.end is None and self.session_present is not None:
            self._client.disconnect()
            if self._stream is not None:
                self._stream.close(self._outgoing)
            self.flush()
        self.sock.close()


def _limits(properties: Any) -> Limits:
    """Of a CONNACK; with 3.1.1 it has none."""
    return Limits(
        session_expiry=getattr(properties, "SessionExpiryInterval", None),
        maximum_qos=getattr(properties, "MaximumQoS", None),
        retain_available=bool(getattr(properties, "RetainAvailable", 1)),
    )


def _reason(code: ReasonCode, properties: Any = None) -> BrokerReason:
    explanation, server = (getattr(properties, name, None) for name in ("ReasonString", "ServerReference"))
    return BrokerReason(code.value, str(code), explanation, server)


def dial(
    *,
    host: str,
    port: int,
    path: str | None = None,
    tls: Tls | None,
    connect_timeout: float,
    options: MqttOptions,
    filters: Sequence[str],
    known: Sequence[str] = (),
    known_qos: int = 1,
) -> MqttLink:
    """A link whose CONNECT is queued; CONNACK and SUBACK come through ``read``. Blocks.

    Args:
        host: of the broker.
        port: of the broker.
        path: of the URL for MQTT over WebSocket; None: plain MQTT.
        tls: None connects without TLS.
        connect_timeout: seconds.
        options: see ``MqttLink``.
        filters: see ``MqttLink``.
        known: see ``MqttLink``.
        known_qos: see ``MqttLink``.

    Raises:
        MqttUnavailable: the broker can't be reached.
    """
    try:
        client_not_after = None if tls is None else tls.client_not_after()
        sock = open_socket(host, port, tls=tls, timeout=connect_timeout)
    except UnusableFile as exc:
        raise MqttUnavailable(str(exc)) from exc
    except ssl.SSLError as exc:
        is_alpn = tls is not None and tls.alpn is not None and not isinstance(exc, ssl.SSLCertVerificationError)
        advice = ". Check mqtt.alpn" if is_alpn else ""
        raise MqttUnavailable(f"the broker at {host}:{port} can't be used: {exc}{advice}") from exc
    except OSError as exc:
        advice = "Check mqtt.url, and that the broker listens there"
        raise MqttUnavailable(f"the broker at {host}:{port} can't be reached: {exc}. {advice}") from exc
    if path is not None:
        _upgrade(sock, host=host, port=port, path=path, secure=tls is not None, timeout=connect_timeout)
    return MqttLink(
        sock=sock,
        options=options,
        filters=filters,
        known=known,
        known_qos=known_qos,
        client_not_after=client_not_after,
        stream=None if path is None else WebSocketStream(),
        hosted=hosted_broker(host),
    )


def _upgrade(sock: socket.socket, *, host: str, port: int, path: str, secure: bool, timeout: float) -> None:
    shown_host = f"[{host}]" if ":" in host else host
    url = f"{'wss' if secure else 'ws'}://{shown_host}:{port}{path}"
    try:
        upgrade(sock, url, subprotocols=["mqtt"], timeout=timeout)
    except UpgradeError as exc:
        advice = "Check port and path in mqtt.url, and that the broker takes MQTT over WebSocket there"
        raise MqttUnavailable(f"the broker at {url} did not upgrade to WebSocket: {exc}. {advice}") from exc
