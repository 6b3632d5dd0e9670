"""A short connection to the broker with a temporary client id, which leaves no session behind."""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.errors import MqttUnavailable, RemoteProtocolError
from bridge.mqtt.link import MqttLink, MqttOptions, dial
from bridge.timing import Deadline

if TYPE_CHECKING:
    from bridge.config.mqtt import MqttSettings
    from bridge.config.values import BrokerAddress
    from bridge.message import MqttMessage

RECEIVE_MAXIMUM = 100
"""Messages in flight without an acknowledgement, at most (MQTT 5, 3.1.2.11.3)."""

MAX_WAIT = 0.5
"""Seconds that one wait for the socket may take: keepalive and timeouts are checked between waits."""


@contextmanager
def temporary_link(
    mqtt: MqttSettings, filters: Sequence[str], brokers: Sequence[BrokerAddress] = (), client_id: str | None = None
) -> Iterator[MqttLink]:
    """A link that subscribes to ``filters``; it is closed at the end and leaves no session behind.

    Args:
        mqtt: the settings.
        filters: topic filters.
        brokers: the first that can be reached is used; none: those of the settings.
        client_id: of this link; None: a temporary one.

    Raises:
        MqttUnavailable: no broker can be reached.
    """
    client_id = client_id or f"gdn-bridge-visit-{secrets.token_hex(4)}"
    link = _dial(mqtt, filters, brokers or mqtt.brokers, client_id)
    try:
        yield link
    finally:
        link.close()


def _dial(mqtt: MqttSettings, filters: Sequence[str], brokers: Sequence[BrokerAddress], client_id: str) -> MqttLink:
    options = MqttOptions(
        client_id=client_id,
        version=mqtt.version,
        username=mqtt.username,
        password=None if mqtt.password is None else mqtt.password.get_secret_value(),
        keepalive=mqtt.keepalive,
        session_expiry=0,
        receive_maximum=RECEIVE_MAXIMUM,
        qos=mqtt.qos,
    )
    errors = []
    for broker in brokers:
        try:
            return dial(
                host=broker.host,
                port=broker.port,
                path=broker.path,
                tls=mqtt.tls_files(broker),
                connect_timeout=mqtt.connect_timeout,
                options=options,
                filters=filters,
            )
        except MqttUnavailable as exc:
            errors.append(str(exc))
    raise MqttUnavailable("; ".join(errors))


def receive(link: MqttLink, deadline: Deadline) -> list[MqttMessage]:
    """Wait for messages, up to ``MAX_WAIT``, and acknowledge them at once: this client stores nothing.

    Raises:
        MqttUnavailable: the link has ended.
    """
    link.flush()
    if not link.has_buffered:
        select.select([link.sock], [link.sock] if link.wants_write else [], [], min(MAX_WAIT, deadline.left()))
    try:
        messages = link.read(time.time_ns())
    except RemoteProtocolError as exc:
        raise MqttUnavailable(str(exc)) from exc
    link.ack(messages)
    link.complete(link.take_pubrels())
    link.tick(time.monotonic())
    link.flush()
    if link.error is not None:
        raise MqttUnavailable(link.error)
    return messages
