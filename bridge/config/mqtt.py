"""The section ``[mqtt]``."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from bridge.config.values import BrokerAddress, Group, Text, broker_urls, checked_file, mqtt_endpoint, number_as_text
from bridge.links.tls import Tls, load_pair
from bridge.mapping.sparkplug import DEFAULT_MAX_BYTES


class MqttSettings(Group):
    """The broker that devices publish to."""

    url: str | list[str] = Field(
        description="Broker URL: `mqtt://host[:port]` (default port 1883) or `mqtts://host[:port]` (TLS, default port "
        "8883); `ws://host[:port][/path]` (default port 80) or `wss://host[:port][/path]` (TLS, default port 443) for "
        "MQTT over WebSocket, default path `/mqtt`. HTTP proxies are not used for the broker. User name and password "
        "have settings of their own. Or a list of up to 16 URLs (in the environment: "
        "separated by commas, or JSON): the bridge connects to the first broker that works, stays there, and tries the "
        "next one when it fails. All other settings apply to every broker. Each broker has a session of its own."
    )
    username: Text | None = Field(
        default=None, description="User name for the broker. Not set: connect without credentials."
    )
    password: SecretStr | None = Field(default=None, description="Password for `username`.")
    client_id: Text = Field(
        default="gdn-bridge",
        max_length=65535,
        description="Client ID, which names the session at the broker. Don't change it: a bridge with a new client ID "
        "doesn't receive what the broker kept for the old one. Two bridges with the same client ID "
        "disconnect each other in turn.",
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(number_as_text)] = Field(
        default="5",
        description="MQTT version. Use 3.1.1 only if the broker doesn't support 5, or docs/brokers.md advises it.",
    )
    qos: int = Field(
        default=1,
        ge=1,
        le=2,
        description="QoS of the subscriptions. 1: what the broker redelivers after a lost connection may be stored "
        "twice, unless `delivery.deduplicate` is on. 2: messages that were published at QoS 2 are stored once, for two "
        "more packets and a synced write each. The broker decides which of the two it sends; the bridge handles both.",
    )
    keepalive: int = Field(
        default=30,
        ge=5,
        le=65535,
        description="Keep-alive interval in seconds. A link that brings no byte, not even an answer to a ping, is "
        "reported after half of this interval plus 5 seconds, and dropped after 1.5 times the interval.",
    )
    session_expiry: int = Field(
        default=604800,
        ge=60,
        le=4294967295,
        description="Seconds that the broker keeps the session and its messages while the bridge is disconnected "
        "(MQTT 5; the broker may allow less). A longer outage loses the messages published during it. "
        "4294967295: never expires. With 3.1.1 the broker decides.",
    )
    receive_maximum: int = Field(
        default=1000,
        ge=1,
        le=65535,
        description="Maximum number of messages in flight to the bridge without an acknowledgement (MQTT 5). At this "
        "limit the broker waits; a small value slows down a distant broker.",
    )
    silence_timeout: float = Field(
        default=300,
        ge=0,
        le=86400,
        description="Seconds without any message after which the bridge subscribes again, and reconnects if the "
        "broker doesn't answer: a link can be alive and still have lost its subscriptions. Set it above "
        "the longest normal silence. 0: never.",
    )
    rebirth_requests: bool = Field(
        default=True,
        description="Whether to request births from Sparkplug edge nodes whose births are unknown. The request is an "
        "NCMD published at QoS 0, which the broker must allow. Turn it off if another host application "
        "does this.",
    )
    sparkplug_bytes: int = Field(
        default=DEFAULT_MAX_BYTES,
        ge=1_000_000,
        le=4_000_000_000,
        description="Maximum memory in bytes for what Sparkplug edge nodes and devices declared at their births: about "
        "1,000 for each, and 300 for each of their metrics. A birth beyond it is mapped, but not remembered: later "
        "messages that need it become dead letters.",
    )
    watch_drops: bool = Field(
        default=True,
        description="Whether to subscribe to `$SYS/broker/publish/messages/dropped`, where Mosquitto publishes how "
        "many messages it dropped, for the metrics. Harmless with a broker that doesn't have this topic "
        "or refuses the subscription.",
    )
    session_per_stream: bool = Field(
        default=False,
        description="Whether each stream has a session of its own, with the client ID `client_id-stream` and its share "
        "of the outbox (`outbox.shares`): a stream that GDN doesn't take then leaves the broker alone, and the "
        'others continue. Only with `outbox.full = "hold"`. docs/operating.md says what to expect.',
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the CA certificates to verify the broker with, for TLS URLs. Not set: the system's.",
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file with the bridge's client certificate, for brokers that require one."
    )
    key_file: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file with the private key of `cert_file`, without a passphrase.",
    )
    alpn: Text | None = Field(
        default=None,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Protocol name for ALPN (a TLS extension), for brokers that take several protocols on one port, "
        "such as `x-amzn-mqtt-ca` for AWS IoT Core on port 443. Only for `mqtts://`. Not set: no ALPN.",
    )
    connect_timeout: float = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds that a connection attempt may take, including TLS. After that it counts as failed and is "
        "retried later.",
    )

    @field_validator("url", mode="plain")
    @classmethod
    def _check_url(cls, url: object) -> list[str]:
        return broker_urls(url)

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if password is not None and info.data.get("username", "") is None:
            raise ValueError("is set, but mqtt.username isn't; a password needs a user name")
        return password

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        urls = info.data.get("url")
        if path is not None and urls is not None and not mqtt_endpoint(urls[0]).tls:
            raise ValueError("is for TLS, but mqtt.url is without; use mqtts:// or wss://, or remove this setting")
        if info.field_name == "key_file" and "cert_file" in info.data:
            if path is None and info.data["cert_file"] is not None:
                raise ValueError("is required with mqtt.cert_file")
            if path is not None and info.data["cert_file"] is None:
                raise ValueError("is set, but mqtt.cert_file isn't; a key needs its certificate")
        is_key = info.field_name == "key_file"
        checked = checked_file(path, pem="private key" if is_key else "certificate")
        if is_key and checked is not None and info.data.get("cert_file") is not None:
            try:
                load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), info.data["cert_file"], checked)
            except OSError as exc:
                raise ValueError(f"doesn't belong to mqtt.cert_file, or is damaged: {exc}") from None
        return checked

    @field_validator("alpn")
    @classmethod
    def _check_alpn(cls, alpn: str | None, info: ValidationInfo) -> str | None:
        urls = info.data.get("url")
        if alpn is not None and urls is not None and not any(_takes_alpn(mqtt_endpoint(url)) for url in urls):
            raise ValueError("is for mqtts://, which mqtt.url doesn't use; remove this setting")
        return alpn

    @property
    def brokers(self) -> list[BrokerAddress]:
        """In the order in which they are tried; all with TLS or all without."""
        return [mqtt_endpoint(url) for url in broker_urls(self.url)]

    @property
    def version(self) -> int:
        """The number of ``protocol`` on the wire: 5, or 4 for 3.1.1."""
        return 5 if self.protocol == "5" else 4

    def tls_files(self, broker: BrokerAddress) -> Tls | None:
        """The files for a TLS connection to the broker, and its ALPN; None: without TLS."""
        alpn = self.alpn if _takes_alpn(broker) else None
        return Tls(self.ca_file, self.cert_file, self.key_file, alpn) if broker.tls else None

    @property
    def tls(self) -> bool:
        """Whether the brokers' URLs are with TLS."""
        return self.brokers[0].tls


def _takes_alpn(broker: BrokerAddress) -> bool:
    return broker.tls and broker.path is None
