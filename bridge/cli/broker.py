"""A visit to the broker by a throw-away client: it looks, and leaves no session behind."""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.links.tls import Tls
from bridge.mqtt import link as mqtt_source
from bridge.timing import Deadline

if TYPE_CHECKING:
    from bridge.config.mqtt import MqttSettings
    from bridge.message import MqttMessage

RECEIVE_MAXIMUM = 100
"""Messages that the broker may send ahead of our PUBACKs (MQTT 5)."""

TURN = 0.5
"""Seconds that a wait for the socket takes at most: keepalive and patience are looked after in between."""


@contextmanager
def visit(mqtt: MqttSettings, filters: Sequence[str]) -> Iterator[mqtt_source.MqttLink]:
    """A link that asks for ``filters``, under a client id of its own; closed at the end.

    Raises:
        MqttUnavailable: the broker can't be reached.
    """
    link = mqtt_source.dial(
        host=mqtt.host,
        port=mqtt.port,
        tls=Tls(mqtt.ca_file, mqtt.cert_file, mqtt.key_file) if mqtt.tls else None,
        connect_timeout=mqtt.connect_timeout,
        filters=filters,
        known=(),
        client_id=f"gdn-bridge-visit-{secrets.token_hex(4)}",
        version=5 if mqtt.protocol == "5" else 4,
        username=mqtt.username,
        password=None if mqtt.password is None else mqtt.password.get_secret_value(),
        keepalive=mqtt.keepalive,
        session_expiry=0,
        receive_maximum=RECEIVE_MAXIMUM,
        watch_drops=False,
        silence_timeout=0,
    )
    try:
        yield link
    finally:
        link.close()


def turn(link: mqtt_source.MqttLink, deadline: Deadline) -> list[MqttMessage]:
    """What comes in a while, acknowledged at once: this client keeps nothing.

    Raises:
        MqttUnavailable: the link is over.
    """
    link.flush()
    if not link.has_buffered:
        select.select([link.sock], [link.sock] if link.wants_write else [], [], min(TURN, deadline.left()))
    try:
        messages = link.read(time.time_ns())
    except RemoteProtocolError as exc:
        raise MqttUnavailable(str(exc)) from exc
    link.ack(messages)
    link.tick(time.monotonic())
    link.flush()
    if link.error is not None:
        raise MqttUnavailable(link.error)
    return messages
