"""The MQTT session: connect, subscribe, read messages by the batch, acknowledge them in order. The only paho.

paho keeps the protocol's rare parts (CONNECT, SUBSCRIBE, keepalive, DISCONNECT) but not the socket: it talks to a
``_PacketEnd``, which holds bytes. PUBLISH and PUBACK pass it by (``mqtt_publish``). One ``MqttLink`` is one
connection: a message is acknowledged on the link it came from or not at all, so no packet id can be mistaken for that
of a later connection.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.links.link import Link
from bridge.links.tls import Tls, open_socket
from bridge.message import MqttMessage
from bridge.mqtt import packets as mqtt_publish

MAX_PACKET = 16 * 1024 * 1024
"""Bytes. Announced with MQTT 5 (3.1.2.11.4); a broker that sends more breaks the memory bound and is dropped."""

MAX_OTHER = 128 * 1024
"""Bytes of other packets than PUBLISH in one read. None that makes sense comes near it, and paho takes seconds for the
properties of larger ones."""

CONNECT_PATIENCE = 10.0
"""Seconds a broker has for its CONNACK and SUBACK."""

DROPPED_TOPIC = "$SYS/broker/publish/messages/dropped"
"""Where Mosquitto counts the messages that it dropped since its start because a queue was full."""

# Retain Handling (MQTT 5, 3.8.3.1). Routes get retained messages with a new subscription only, not at each connect;
# the counter's last value is wanted each time.
_ROUTES = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
_COUNTER = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)

_SYS_FILTER = re.compile(r"(\$share/[^/]+/)?\$SYS/")

# How the error of a socket ends that the other side closed while we had something to read or to write.
_CLOSED_BY_PEER = (os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE))

# Reason codes (MQTT 5, 2.4). paho gives the return codes of a 3.1.1 CONNACK as these, too.
_UNSUPPORTED_VERSION = 0x84
_CLIENT_ID_NOT_VALID = 0x85
_BAD_CREDENTIALS = 0x86
_NOT_AUTHORIZED = 0x87
_UNAVAILABLE = frozenset({0x88, 0x89, 0x97, 0x9F})  # unavailable, busy, quota exceeded, connection rate exceeded
_KEEP_ALIVE_TIMEOUT = 0x8D
_TAKEN_OVER = 0x8E
_ELSEWHERE = frozenset({0x9C, 0x9D})  # use another server, server moved


class _PacketEnd:
    """What paho takes for its socket: packets for it on one side, what it writes on the other."""

    def __init__(self, sock: socket.socket, outgoing: bytearray) -> None:
        self._sock = sock
        self._outgoing = outgoing
        self.incoming = bytearray()

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
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
    """paho on a ``_PacketEnd``. ``_create_socket`` is private in paho 2.2: hence the bound below 3."""

    packet_end: _PacketEnd

    def _create_socket(self) -> Any:
        return self.packet_end


class MqttLink(Link):
    """One connection to the broker.

    Args:
        sock: connected; becomes non-blocking.
        filters: what is wanted, at QoS 1.
        known: filters that the broker's session is known to hold from earlier connections with this client id; empty
            if nothing is known.
        client_id: names the session at the broker.
        version: of the protocol, 5 or 4 (3.1.1).
        username: None logs in without.
        password: for ``username``.
        keepalive: seconds; an MQTT 5 broker may set another value.
        session_expiry: seconds that the broker is asked to keep the session (MQTT 5). 0: it ends with the connection,
            in both versions.
        receive_maximum: unacknowledged messages that the broker may have under way (MQTT 5).
        watch_drops: subscribe Mosquitto's counter of dropped messages as well, for ``broker_dropped``.
        silence_timeout: seconds without a message after which the subscriptions are asked for again; 0: never.
    """

    def __init__(
        self,
        *,
        sock: socket.socket,
        filters: Sequence[str],
        known: Sequence[str],
        client_id: str,
        version: int,
        username: str | None,
        password: str | None,
        keepalive: int,
        session_expiry: int,
        receive_maximum: int,
        watch_drops: bool,
        silence_timeout: float,
    ) -> None:
        super().__init__(sock, failed="the connection to the broker failed", closed="the broker closed the connection")
        self.asks_at_once = True
        """Whether the subscriptions are asked for with the CONNACK; else ``subscribe`` is waited for."""
        self.subscribed = False
        """Whether every wanted filter was answered, be it with a refusal."""
        self.session_present: bool | None = None
        """Whether the broker had kept the session; None before its CONNACK."""
        self.refused: list[str] = []
        """Wanted filters that the broker refused or granted at QoS 0, with its reason; as of the last SUBACK."""
        self.held: tuple[str, ...] = ()
        """Filters that the session holds now, sorted, for ``known`` of the next connection: those granted, and those
        no longer wanted until the broker has confirmed that they are gone. With 3.1.1 not those granted at QoS 0: they
        must be asked for again at the next connect, to be granted at QoS 1 or named in ``refused``."""
        self.broker_dropped: int | None = None
        """Messages that the broker dropped since its start because a queue was full; None while it hasn't said."""
        self.counter_unanswered = False
        """Whether the broker was asked for its counter and has not answered yet."""
        self.session_expiry: int | None = session_expiry if version == 5 else None
        """Seconds that the broker keeps the session; None where only the broker knows (3.1.1)."""
        self.note: str | None = None
        """What the broker grants less than was asked for, in a sentence; no error."""
        self.is_auth_error = False
        """Whether ``error`` is a refusal of the credentials: asking again soon is useless."""
        self.taken_over = False
        """Whether another client with this client id took the session over, and the broker said so (MQTT 5)."""
        self._filters = list(filters)
        self._known = list(dict.fromkeys(known))
        self._client_id = client_id
        self._version = version
        self._asked_expiry = session_expiry
        self._silence_timeout = silence_timeout
        self._wants_sys = any(_SYS_FILTER.match(f) for f in filters)
        # Where routes take the broker's own topics, a subscription of ours would bring them messages that they didn't
        # ask for.
        self._watches_drops = watch_drops and not self._wants_sys
        self._asked: dict[int, list[str]] = {}
        self._dismissed: dict[int, list[str]] = {}
        self._held: set[str] = set()
        self._complaints: dict[str, str] = {}
        self._rest = bytearray()
        self._needed = 0
        self._opened_at = time.monotonic()
        self._misc_at = self._opened_at
        self._heard = False
        self._heard_at = self._opened_at
        self._asked_at: float | None = None
        self._changed_at: float | None = None
        self._end = _PacketEnd(sock, self._outgoing)
        is_v5 = version == 5
        self._client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            clean_session=None if is_v5 else session_expiry == 0,
            manual_ack=True,
            reconnect_on_failure=False,  # else it answers a refused protocol version with a second CONNECT
        )
        client.packet_end = self._end
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        if username is not None:
            client.username_pw_set(username, password)
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's lack
            properties.SessionExpiryInterval = session_expiry
            properties.ReceiveMaximum = receive_maximum
            properties.MaximumPacketSize = MAX_PACKET
            client.connect("broker", 1, keepalive, clean_start=False, properties=properties)
        else:
            client.connect("broker", 1, keepalive)

    @property
    def closed_silently(self) -> bool:
        """Whether the broker closed a link that was subscribed, without a word. A 3.1.1 broker has no other way to
        say that another client with the same client id took the session over.
        """
        return self.subscribed and self.error is not None and self.error.endswith((self._closed, *_CLOSED_BY_PEER))

    # --- callbacks: paho runs them inside feed, in the owner's thread -------------------------------------

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self.session_present is not None:
            raise RemoteProtocolError("the broker sent a second CONNACK")
        if reason.is_failure:
            self.is_auth_error = reason.value in (_BAD_CREDENTIALS, _NOT_AUTHORIZED)
            self.error = self._refusal(reason, properties)
            return
        self.session_present = flags.session_present
        self._note_limits(properties)
        if self.session_present:
            self._held.update(self._known)
            expected = {*self._filters, *([DROPPED_TOPIC] if self._watches_drops else [])}
            if leftover := [f for f in self._known if f not in expected]:
                self._unsubscribe(leftover)
        self._refresh()
        if self.asks_at_once:
            self.subscribe()

    def subscribe(self) -> None:
        """Ask for the subscriptions; once, after the CONNACK. Done already if ``asks_at_once``."""
        self._opened_at = time.monotonic()
        missing = self._filters
        if self._version != 5:
            # 3.1.1 has no Retain Handling: each SUBSCRIBE brings all retained messages again.
            missing = [f for f in self._filters if f not in self._held]
        # With MQTT 5 subscribing at every connect costs one packet and mends a session that the broker lost.
        if missing:
            self._subscribe(missing, _ROUTES)
        else:
            self._all_answered()

    def want(self, filters: Sequence[str]) -> None:
        """Want these filters from now on. The new ones are subscribed first, then those that are gone unsubscribed:
        what both an old one and a new one take is not missed in between.
        """
        if list(filters) == self._filters:
            return
        asked = self.subscribed or bool(self._asked)
        new = [f for f in filters if f not in self._filters]
        kept = {*filters, *([DROPPED_TOPIC] if self._watches_drops else [])}
        gone = [f for f in dict.fromkeys([*self._held, *(self._filters if asked else ())]) if f not in kept]
        self._filters = list(filters)
        self._wants_sys = any(_SYS_FILTER.match(f) for f in filters)
        if asked and new:  # else ``subscribe`` is still to come
            self._subscribe(new, _ROUTES)
            self._changed_at = time.monotonic()
        if gone and self.session_present is not None:
            self._unsubscribe(gone)
        self._refresh()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        filters = self._asked.pop(mid, None)
        if filters is None:
            raise RemoteProtocolError(f"the broker sent a SUBACK for packet id {mid}, which no SUBSCRIBE has")
        for filter_, reason in zip_longest(filters, reasons[: len(filters)]):
            self._take_answer(filter_, reason)
        if not self._asked:
            self._changed_at = None
        self._refresh()
        if filters == [DROPPED_TOPIC] and self._watches_drops:
            self.counter_unanswered = False
        else:
            self._all_answered()

    def _on_unsubscribe(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        filters = self._dismissed.pop(mid, None)
        if filters is None:
            raise RemoteProtocolError(f"the broker sent an UNSUBACK for packet id {mid}, which no UNSUBSCRIBE has")
        if self._version == 5:
            filters = [f for f, reason in zip(filters, reasons, strict=False) if not reason.is_failure]
        self._held.difference_update(filters)
        self._refresh()

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if not flags.is_disconnect_packet_from_server:
            if reason.value == _KEEP_ALIVE_TIMEOUT:
                self.error = self.error or "the broker did not answer within the keepalive"
            return
        self.taken_over = reason.value == _TAKEN_OVER
        self.error = self.error or (
            f"another client with the client id {self._client_id!r} took the session over. Each bridge needs an "
            "mqtt.client_id of its own: stop the other client, or give one of them another"
            if self.taken_over
            else f"the broker closed the session: {_in_words(reason, properties)}"
        )

    def _all_answered(self) -> None:
        if self._watches_drops and not self.subscribed:
            # Last, and by itself: there are brokers that end the connection for it.
            self._subscribe([DROPPED_TOPIC], _COUNTER)
            self.counter_unanswered = True
        self.subscribed = self._heard = True

    # --- what the callbacks do ----------------------------------------------------------------------------

    def _subscribe(self, filters: list[str], options: SubscribeOptions) -> None:
        asked = [(f, options if self._version == 5 else options.QoS) for f in filters]
        _, mid = self._client.subscribe(asked)  # type: ignore[arg-type]  # a list of one kind or of the other
        if mid is not None:
            self._asked[mid] = filters

    def _unsubscribe(self, filters: list[str]) -> None:
        _, mid = self._client.unsubscribe(filters)
        if mid is not None:
            self._dismissed[mid] = filters

    def _take_answer(self, filter_: str, reason: ReasonCode | None) -> None:
        self._complaints.pop(filter_, None)
        self._held.add(filter_)
        if reason is None:
            self._complaints[filter_] = "not answered in the broker's SUBACK"
            self._held.discard(filter_)
        elif reason.is_failure:
            self._complaints[filter_] = str(reason)
            self._held.discard(filter_)
        elif reason.value == 0 and filter_ in self._filters:
            self._complaints[filter_] = "granted at QoS 0: messages may be lost"
            if self._version != 5:
                self._held.discard(filter_)

    def _refresh(self) -> None:
        self.held = tuple(sorted(self._held))
        self.refused = [f"{f} ({self._complaints[f]})" for f in self._filters if f in self._complaints]

    def _note_limits(self, properties: Any) -> None:
        granted = getattr(properties, "SessionExpiryInterval", None)
        if granted is None:
            return
        self.session_expiry = granted
        if granted < self._asked_expiry:
            self.note = (
                f"the broker keeps the session {granted} s, not {self._asked_expiry} s as mqtt.session_expiry asks: "
                "what is published in a longer outage is lost"
            )

    def _refusal(self, reason: ReasonCode, properties: Any) -> str:
        words = _in_words(reason, properties)
        if reason.value == _UNSUPPORTED_VERSION:
            spoken, other = ("5", "3.1.1") if self._version == 5 else ("3.1.1", "5")
            return f"the broker does not speak MQTT {spoken} ({words}). Set mqtt.protocol to {other}"
        if reason.value == _BAD_CREDENTIALS:
            return f"the broker refused the credentials: {words}. Check mqtt.username and mqtt.password"
        if reason.value == _NOT_AUTHORIZED:
            return (
                f"the broker refused the connection: {words}. Check mqtt.username, mqtt.password, and what the "
                f"broker's access rules say about this user and the client id {self._client_id!r}"
            )
        if reason.value == _CLIENT_ID_NOT_VALID:
            return f"the broker refused the client id {self._client_id!r}: {words}. Set another mqtt.client_id"
        if reason.value in _UNAVAILABLE:
            return f"the broker takes no connections now: {words}"
        if reason.value in _ELSEWHERE:
            server = getattr(properties, "ServerReference", None)
            where = f" It names {server!r}." if server else ""
            return f"the broker sends its clients to another one: {words}.{where} Set mqtt.url"
        return f"the broker refused the connection: {words}"

    # --- the pipeline's side ------------------------------------------------------------------------------

    def _receive(self) -> bytes:
        was_up = self.error is None
        data = super()._receive()
        if was_up and self.error is not None and self.session_present is None:
            self.error += " before it answered. If this port speaks TLS, write mqtts:// in mqtt.url"
        return data

    def read(self, received_at: int) -> list[MqttMessage]:
        """The messages of one read, in arrival order. ``error`` says if the link is over.

        Raises:
            RemoteProtocolError: the broker broke the protocol; drop the link.
        """
        data = self._receive()
        if not data:
            return []
        if self._rest:
            # An incomplete packet is only looked at again when it is whole: joining it to each read is quadratic.
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        block = mqtt_publish.split(data, version=self._version, received_at=received_at)
        if block.needed > MAX_PACKET:
            raise RemoteProtocolError(
                f"the broker sent a packet of {block.needed} bytes; {MAX_PACKET} is the most that is taken. "
                "Limit the message size in the broker."
            )
        if len(block.other) > MAX_OTHER or (
            block.needed > MAX_OTHER and data[block.consumed] & 0xF0 != mqtt_publish.PUBLISH
        ):
            raise RemoteProtocolError(f"the broker sent over {MAX_OTHER} bytes that are no messages")
        self._rest += data[block.consumed :]
        self._needed = block.needed
        if block.other:
            self._feed(block.other)
        messages = block.messages
        # To seek one byte in the whole block costs 1 ns a message; to look at each topic costs 70.
        if b"$" in data:
            messages = self._without_counter(messages)
        if messages:
            self._heard = True
        return messages

    def _without_counter(self, messages: Iterable[MqttMessage]) -> list[MqttMessage]:
        """The messages without the broker's own, unless a route takes those; the counter is read in passing.

        One at QoS 1 is of a filter that is no longer wanted: like all such, it goes on to be acknowledged in its turn.
        """
        kept = []
        for message in messages:
            if not message.topic.startswith("$SYS/"):
                kept.append(message)
                continue
            if message.topic == DROPPED_TOPIC and message.payload.isdigit() and len(message.payload) <= 20:
                self.broker_dropped = int(message.payload)
            if self._wants_sys or message.qos:
                kept.append(message)
        return kept

    def _feed(self, packets: bytes) -> None:
        if self._version != 5 and packets.startswith(b"\x20\x02\x00\x01"):
            # The one refusal that paho does not report.
            self.error = self._refusal(ReasonCode(PacketTypes.CONNACK, identifier=_UNSUPPORTED_VERSION), None)
            return
        self._end.incoming += packets
        try:
            while self._end.incoming and self.error is None:
                if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS and self.error is None:
                    raise RemoteProtocolError("the broker sent a packet that can't be read")
        except RemoteProtocolError:
            raise
        except Exception as exc:  # what paho raises for what it can't read differs from version to version
            raise RemoteProtocolError(f"the broker sent a packet that can't be read: {exc!r}") from exc
        if self._client.want_write():  # what a callback queued
            self._client.loop_write()

    def ack(self, messages: Sequence[MqttMessage]) -> None:
        """Acknowledge messages of this link, given in arrival order. Only after they are durable."""
        self._outgoing += mqtt_publish.pubacks(messages)

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message at QoS 0: it is lost if the link or the broker doesn't carry it, and nothing tells.

        Raises:
            ValueError: the topic is none to publish to.
        """
        self._client.publish(topic, payload, qos=0)

    def tick(self, now: float) -> None:
        """Keepalive, patience and silence; cheap, to be called each turn. ``now`` is monotonic seconds."""
        if now - self._misc_at >= 1.0:
            self._misc_at = now
            if self._client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.error = self.error or "the broker did not answer within the keepalive"
        if not self.subscribed:
            is_asked = self.session_present is None or bool(self._asked)
            if is_asked and now - self._opened_at > CONNECT_PATIENCE:
                self.error = self.error or "the broker did not answer CONNECT or SUBSCRIBE"
        elif self._changed_at is not None and now - self._changed_at > CONNECT_PATIENCE:
            self.error = self.error or "the broker did not answer SUBSCRIBE"
        elif self._heard:
            # Messages show as well as a SUBACK that the subscriptions live.
            self._heard, self._heard_at, self._asked_at = False, now, None
        elif self._asked_at is not None:
            if now - self._asked_at > CONNECT_PATIENCE:
                self.error = self.error or (
                    f"connected but deaf: no message came for {now - self._heard_at:.0f} s, and the broker did not "
                    "answer when it was asked for the subscriptions again"
                )
        elif self._silence_timeout and now - self._heard_at >= self._silence_timeout:
            self._asked_at = now
            # With 3.1.1 the price is that retained messages come again: it has no Retain Handling.
            self._subscribe(self._filters, _ROUTES)

    def close(self) -> None:
        """Say goodbye (the broker keeps the session) as far as the socket takes it, and close."""
        if self.error is None:
            self._client.disconnect()
            self.flush()
        self.sock.close()


def _in_words(reason: ReasonCode, properties: Any) -> str:
    """The reason's name, with the broker's own words (MQTT 5, Reason String) if it has some."""
    words = getattr(properties, "ReasonString", None)
    return f"{reason}, {words[:200]!r}" if words else str(reason)


def dial(
    *,
    host: str,
    port: int,
    tls: Tls | None,
    connect_timeout: float,
    filters: Sequence[str],
    known: Sequence[str],
    client_id: str,
    version: int,
    username: str | None,
    password: str | None,
    keepalive: int,
    session_expiry: int,
    receive_maximum: int,
    watch_drops: bool,
    silence_timeout: float,
) -> MqttLink:
    """A link whose CONNECT is written; CONNACK and SUBACK come through ``read``. Blocks.

    ``connect_timeout`` is in seconds; ``MqttLink`` tells the rest.

    Raises:
        MqttUnavailable: the broker can't be reached.
    """
    try:
        own_end = None if tls is None else tls.client_not_after()
        sock = open_socket(host, port, tls=tls, timeout=connect_timeout)
    except OSError as exc:
        raise MqttUnavailable(f"the broker at {host}:{port} can't be reached: {exc}") from exc
    link = MqttLink(
        sock=sock,
        filters=filters,
        known=known,
        client_id=client_id,
        version=version,
        username=username,
        password=password,
        keepalive=keepalive,
        session_expiry=session_expiry,
        receive_maximum=receive_maximum,
        watch_drops=watch_drops,
        silence_timeout=silence_timeout,
    )
    if own_end is not None:
        link.certificate_ends["own"] = own_end
    return link
