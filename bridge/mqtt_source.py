"""The MQTT session: connect, subscribe, read messages by the batch, acknowledge them in order. The only paho.

paho keeps the protocol's rare parts (CONNECT, SUBSCRIBE, keepalive, DISCONNECT) but not the socket: it talks to a
``_PacketEnd``, which holds bytes. PUBLISH and PUBACK pass it by (``mqtt_publish``). One ``MqttLink`` is one
connection: a message is acknowledged on the link it came from or not at all, so no packet id can be mistaken for that
of a later connection.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge import mqtt_publish
from bridge.dial import Tls, open_socket
from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.link import Link
from bridge.message import MqttMessage

MAX_PACKET = 16 * 1024 * 1024
"""Bytes. Announced with MQTT 5 (3.1.2.11.4); a broker that sends more breaks the memory bound and is dropped."""

CONNECT_PATIENCE = 10.0
"""Seconds a broker has for its CONNACK and SUBACK."""


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
    """paho on a ``_PacketEnd``. ``_create_socket`` is private in paho 2.1 and 2.2: hence the bound below 3."""

    packet_end: _PacketEnd

    def _create_socket(self) -> Any:
        return self.packet_end


class MqttLink(Link):
    """One connection to the broker."""

    def __init__(
        self,
        *,
        sock: socket.socket,
        filters: Sequence[str],
        client_id: str,
        version: int,
        username: str | None,
        password: str | None,
        keepalive: int,
        session_expiry: int,
        receive_maximum: int,
    ) -> None:
        super().__init__(sock, failed="the connection to the broker failed", closed="the broker closed the connection")
        self.subscribed = False
        self.session_present: bool | None = None
        self.refused: list[str] = []
        """Filters that the broker refused or granted at QoS 0, with its reason."""
        self._filters = list(filters)
        self._version = version
        self._rest = bytearray()
        self._needed = 0
        self._opened_at = time.monotonic()
        self._misc_at = self._opened_at
        self._end = _PacketEnd(sock, self._outgoing)
        is_v5 = version == 5
        self._client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            clean_session=None if is_v5 else False,
            manual_ack=True,
        )
        client.packet_end = self._end
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
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

    # --- callbacks: paho runs them inside feed, in the owner's thread -------------------------------------

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self.error = f"the broker refused the connection: {reason}"
            return
        self.session_present = flags.session_present
        # Subscribing at every connect costs one packet and mends a session that the broker lost.
        if self._version == 5:
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self._client.subscribe([(f, options) for f in self._filters])
        else:
            self._client.subscribe([(f, 1) for f in self._filters])

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        self.refused = [
            f"{f} ({reason if reason.is_failure else 'granted at QoS 0: messages may be lost'})"
            for f, reason in zip(self._filters, reasons, strict=False)
            if reason.is_failure or reason.value == 0
        ]
        self.subscribed = True

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        who = "the broker closed the session" if flags.is_disconnect_packet_from_server else "disconnected"
        self.error = self.error or f"{who}: {reason}"

    # --- the pipeline's side ------------------------------------------------------------------------------

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
        self._rest += data[block.consumed :]
        self._needed = block.needed
        if block.other:
            self._feed(block.other)
        return block.messages

    def _feed(self, packets: bytes) -> None:
        self._end.incoming += packets
        while self._end.incoming and self.error is None:
            if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.error = self.error or "the broker sent a packet that can't be read"
        if self._client.want_write():  # what a callback queued
            self._client.loop_write()

    def ack(self, messages: Sequence[MqttMessage]) -> None:
        """Acknowledge messages of this link, given in arrival order. Only after they are durable."""
        self._outgoing += mqtt_publish.pubacks(messages)

    def tick(self, now: float) -> None:
        """Keepalive and patience; cheap, to be called each turn. ``now`` is monotonic seconds."""
        if now - self._misc_at >= 1.0:
            self._misc_at = now
            self._client.loop_misc()
        if not self.subscribed and now - self._opened_at > CONNECT_PATIENCE:
            self.error = self.error or "the broker did not answer CONNECT or SUBSCRIBE"

    def close(self) -> None:
        """Say goodbye (the broker keeps the session) as far as the socket takes it, and close."""
        if self.error is None:
            self._client.disconnect()
            self.flush()
        self.sock.close()


def dial(
    *,
    host: str,
    port: int,
    tls: Tls | None,
    connect_timeout: float,
    filters: Sequence[str],
    client_id: str,
    version: int,
    username: str | None,
    password: str | None,
    keepalive: int,
    session_expiry: int,
    receive_maximum: int,
) -> MqttLink:
    """A link whose CONNECT is written; CONNACK and SUBACK come through ``read``. Blocks.

    Raises:
        MqttUnavailable: the broker can't be reached.
    """
    try:
        sock = open_socket(host, port, tls=tls, timeout=connect_timeout)
    except OSError as exc:
        raise MqttUnavailable(f"the broker at {host}:{port} can't be reached: {exc}") from exc
    return MqttLink(
        sock=sock,
        filters=filters,
        client_id=client_id,
        version=version,
        username=username,
        password=password,
        keepalive=keepalive,
        session_expiry=session_expiry,
        receive_maximum=receive_maximum,
    )
