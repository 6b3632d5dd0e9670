"""The section ``[mqtt]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from bridge.config.values import Group, Text, checked_file, mqtt_endpoint, number_as_text


class MqttSettings(Group):
    """The broker that devices publish to."""

    url: str = Field(
        description="The broker: `mqtt://host[:port]` (port 1883) or `mqtts://host[:port]` (TLS, port 8883). "
        "Without user and password: those have settings of their own."
    )
    username: Text | None = Field(default=None, description="User name for the broker. Not set: log in without.")
    password: SecretStr | None = Field(default=None, description="Password for `username`.")
    client_id: Text = Field(
        default="gdn-bridge",
        max_length=65535,
        description="Name of the session at the broker. Keep it: under another name the bridge gets none of "
        "what the broker kept. Two bridges with the same name throw each other out.",
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(number_as_text)] = Field(
        default="5", description="MQTT version. 3.1.1 only for a broker that doesn't speak 5."
    )
    keepalive: int = Field(
        default=30,
        ge=5,
        le=65535,
        description="Seconds between signs of life. A link that died without a word is noticed after at most "
        "one and a half of them.",
    )
    session_expiry: int = Field(
        default=604800,
        ge=60,
        le=4294967295,
        description="Seconds that the broker keeps the session, and messages for it, while the bridge is "
        "away (MQTT 5; the broker may allow less). An outage that lasts longer loses what was "
        "published in it. 4294967295: for ever. With 3.1.1 the broker alone decides.",
    )
    receive_maximum: int = Field(
        default=1000,
        ge=1,
        le=65535,
        description="Messages that the broker may have under way to the bridge, unacknowledged (MQTT 5). At "
        "the bound it waits for acknowledgements; a small one slows a broker that is far away.",
    )
    silence_timeout: float = Field(
        default=300,
        ge=0,
        le=86400,
        description="Seconds without any message after which the bridge asks the broker for its subscriptions "
        "again, and makes a new connection if no answer comes: a link that lives and says nothing may have lost "
        "them. Give more than the longest silence that is normal. 0: never.",
    )
    rebirth_requests: bool = Field(
        default=True,
        description="Whether Sparkplug nodes are asked for their births where those are unknown: an NCMD is "
        "published at QoS 0, which the broker must allow. Switch it off where another host does it.",
    )
    watch_drops: bool = Field(
        default=True,
        description="Whether to read `$SYS/broker/publish/messages/dropped`, where Mosquitto tells how many "
        "messages it dropped, for the metrics. A broker that has no such topic or refuses it is left in peace.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that may vouch for the broker, with `mqtts://`. Not set: "
        "the system's.",
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file with the bridge's own certificate, for brokers that ask for one."
    )
    key_file: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file with the key of `cert_file`, without passphrase.",
    )
    connect_timeout: float = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds that a connection attempt may take, TLS included. After them it is given up and "
        "made again later.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        mqtt_endpoint(url)
        return url

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if password is not None and info.data.get("username", "") is None:
            raise ValueError("is set, but mqtt.username isn't; a broker takes a password only with a user name")
        return password

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("url")
        if path is not None and url is not None and not mqtt_endpoint(url)[0]:
            raise ValueError("is for TLS, but mqtt.url starts with mqtt://; write mqtts:// or take this out")
        if info.field_name == "key_file" and "cert_file" in info.data:
            if path is None and info.data["cert_file"] is not None:
                raise ValueError("is required with mqtt.cert_file")
            if path is not None and info.data["cert_file"] is None:
                raise ValueError("is set, but mqtt.cert_file isn't; a key is of no use without its certificate")
        return checked_file(path)

    @property
    def tls(self) -> bool:
        """Whether the URL asks for TLS."""
        return mqtt_endpoint(self.url)[0]

    @property
    def host(self) -> str:
        """The broker's name or address; an IPv6 address without brackets."""
        return mqtt_endpoint(self.url)[1]

    @property
    def port(self) -> int:
        """The broker's port, the scheme's own if the URL names none."""
        return mqtt_endpoint(self.url)[2]
