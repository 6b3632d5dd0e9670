"""Hosted brokers that are recognised by their host names: their limits, and what it may mean when they close without a
reason. Pure; from the vendors' documents (docs/brokers.md), not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedBroker:
    """One vendor's broker."""

    name: str
    host: re.Pattern[str]
    """Of its host names, in lower case."""
    max_subscriptions: int | None = None
    """Of one connection."""
    max_qos: int = 2
    has_sys: bool = True
    """Whether a client may ask for ``$SYS`` topics."""
    alpn_on_443: str | None = None
    """The protocol that MQTT on port 443 needs in ALPN."""
    closes_unanswered: str = ""
    """Why it may close before the CONNACK, with the place ``{client_id}``."""
    closes_later: str = ""
    """Why it may close after the CONNACK, with the place ``{client_id}``."""

    def closing_advice(self, *, client_id: str, is_connected: bool) -> str:
        """What to check when it closes without a reason: a sentence without its full stop; empty if nothing is known.

        Args:
            client_id: of the bridge.
            is_connected: whether the CONNACK had come.
        """
        text = self.closes_later if is_connected else self.closes_unanswered
        return text.format(client_id=repr(client_id))

    def remarks(
        self, *, port: int, subscriptions: int, qos: int, is_websocket: bool, alpn: str | None
    ) -> Iterator[str]:
        """In what the settings don't fit this broker: sentences.

        Args:
            port: in the URL.
            subscriptions: how many topic filters the routes need.
            qos: ``mqtt.qos``.
            is_websocket: whether the URL is for MQTT over WebSocket.
            alpn: ``mqtt.alpn``.
        """
        if self.max_subscriptions is not None and subscriptions > self.max_subscriptions:
            yield (
                f"{self.name} allows {self.max_subscriptions} subscriptions a connection, and the routes need "
                f"{subscriptions}. Use wildcards in the routes' topics, or raise the limit with the vendor"
            )
        if qos > self.max_qos:
            yield f"{self.name} doesn't support QoS 2. Set mqtt.qos = 1"
        if port == 443 and not is_websocket and self.alpn_on_443 is not None and alpn is None:
            yield f'{self.name} takes MQTT on port 443 only with ALPN. Set mqtt.alpn = "{self.alpn_on_443}"'


HOSTED = (
    HostedBroker(
        name="AWS IoT Core",
        host=re.compile(r"(.+\.)?iot(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"),
        max_subscriptions=50,
        max_qos=1,
        has_sys=False,
        alpn_on_443="x-amzn-mqtt-ca",
        closes_unanswered="AWS IoT Core closes without a CONNACK if the policy of the certificate doesn't allow "
        "iot:Connect for the client id {client_id}: many policies allow only the thing's name, so set mqtt.client_id "
        "to it. Attach the policy to the certificate, which must be active",
        closes_later="AWS IoT Core also closes if the policy doesn't allow iot:Subscribe or iot:Receive for a route's "
        "topic, at more than 50 subscriptions, and when another connection uses the client id {client_id}",
    ),
    HostedBroker(
        name="Azure Event Grid",
        host=re.compile(r".+\.ts\.eventgrid\.azure\.net"),
        max_qos=1,
        closes_unanswered="Azure Event Grid requires mqtt.username to be the client's authentication name, and a "
        "client id ({client_id}) that no other session of the namespace has",
    ),
    HostedBroker(
        name="EMQX Serverless",
        host=re.compile(r".+\.emqxsl\.(com|cn)"),
        max_subscriptions=10,
    ),
)
"""In no order: a host name fits one of them."""


def hosted_broker(host: str) -> HostedBroker | None:
    """The hosted broker with this host name; None: any other broker."""
    name = host.lower().rstrip(".")
    return next((broker for broker in HOSTED if broker.host.fullmatch(name)), None)
