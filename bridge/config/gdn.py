"""The section ``[gdn]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from bridge.config.values import KEY, Group, Text, checked_file, lower
from bridge.gdn.address import GdnAddress
from bridge.gdn.proxy import Proxies


class GdnSettings(Group):
    """The GDN account that receives the rows."""

    kind: Annotated[Literal["gdn", "pulsar"], BeforeValidator(lower)] = Field(
        default="gdn",
        description="`pulsar`: a plain Apache Pulsar with its WebSocket service instead of a GDN. Rows go to the "
        "topic with the stream's name; there is no worker to create or check.",
    )
    url: str = Field(
        description="URL of the federation or region: `https://host` or just the host, with or without `api-` in "
        "front. Use `http://` only for a GDN on this machine: it sends the API key unencrypted. With "
        '`gdn.kind = "pulsar"`: the URL of its web service, such as `http://pulsar:8080`.'
    )
    email: Text | None = Field(
        default=None, description="E-mail address of an account that logs in with `password` instead of an API key."
    )
    username: Text | None = Field(
        default=None,
        description="User name, instead of `email`; requires `tenant`. Users with limited rights log in with it.",
    )
    password: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Password for `email` or `username`. GDN issues a token for it that is valid for 12 hours; the "
        "bridge renews the token in time. An API key is better for a daemon: its rights can be limited, "
        "and it can be revoked on its own.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="The API key as GDN showed it, without a prefix. It needs the rights to administer the fabric (to "
        "manage the worker) and to write to the streams. Don't put it in the TOML file: use a secret "
        'file. With `gdn.kind = "pulsar"`: the token, if Pulsar requires one.',
    )
    tenant: Text | None = Field(
        default=None,
        validate_default=True,
        description="The tenant's name, as GDN's account page shows it; not the account's e-mail address. Not set: "
        "the bridge asks GDN for it, at the cost of one more request per connection. Required with "
        '`username` and with `gdn.kind = "pulsar"`.',
    )
    fabric: Text = Field(
        default="_system",
        description='The fabric that holds the worker, streams and collections. With `gdn.kind = "pulsar"`: the '
        "namespace.",
    )
    authentication: Literal["otp", "header"] = Field(
        default="otp",
        description="How a producer logs in. `otp`: with a one-time password, at the cost of one more request per "
        "connection. `header`: with the API key in the header of the WebSocket request.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the CA certificates to verify GDN with. Not set: the usual public ones.",
    )
    proxy: SecretStr | None = Field(
        default=None,
        description="HTTP proxy for all connections to GDN, as `http://host:port` or `http://user:password@host:port`. "
        "Not set: the one that the usual variables name (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`). `none`: no proxy.",
    )
    request_timeout: float = Field(
        default=30,
        ge=1,
        le=600,
        description="Seconds that a request may take. GDN takes 3 seconds or more to activate a worker. A request "
        "that takes longer counts as failed and is retried later.",
    )
    requests_per_minute: int = Field(
        default=400,
        ge=0,
        le=1_000_000,
        description="Maximum number of requests in any 60 seconds; further requests wait. At least 10, or 0 for no "
        "limit. GDN's free tier allows an account 500 a minute. Health checks may use at most half, so "
        "that they can't delay a reconnect.",
    )
    requests_per_day: int = Field(
        default=18_000,
        ge=0,
        le=100_000_000,
        description="Maximum number of requests in any 24 hours; further requests wait. At least 100, or 0 for no "
        "limit. GDN's free tier allows an account 20,000 a day. Counted from the start of the bridge; "
        "health checks may use at most half.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            GdnAddress.parse(url)
        except ValueError:  # its message repeats the host, which may be a secret here
            raise ValueError(
                "must be https://host or host, without user, path or query, such as "
                "https://api-play.paas.macrometa.io; a port is a number from 1 to 65535"
            ) from None
        return url

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        names = [name for name in ("email", "username") if info.data.get(name) is not None]
        if password is None and names:
            raise PydanticCustomError("missing", "Field required")
        if password is not None:
            if info.data.get("kind") == "pulsar":
                raise ValueError("works only with a GDN; for a plain Pulsar, put the token in gdn.api_key")
            if len(names) != 1:
                raise ValueError("requires either gdn.email, or gdn.username and gdn.tenant")
        return password

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is None:
            if info.data.get("kind") != "pulsar" and info.data.get("password", "") is None:
                raise PydanticCustomError("missing", "Field required")
            return None
        if info.data.get("password") is not None:
            raise ValueError("is set together with gdn.password; remove one of them")
        if not KEY.fullmatch(key.get_secret_value()):
            raise ValueError("must be the key alone: printable ASCII without spaces, and without `apikey` in front")
        return key

    @field_validator("requests_per_minute", "requests_per_day")
    @classmethod
    def _check_requests(cls, requests: int, info: ValidationInfo) -> int:
        least = 10 if info.field_name == "requests_per_minute" else 100
        if 0 < requests < least:
            raise ValueError(f"must be at least {least}, or 0 for no limit; with less, the bridge couldn't connect")
        return requests

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is not None:
            Proxies.of(proxy.get_secret_value())
        return proxy

    @property
    def proxies(self) -> Proxies:
        """The proxies of connections to GDN, of ``proxy`` or of the environment."""
        return Proxies.of(None if self.proxy is None else self.proxy.get_secret_value())

    @field_validator("tenant", "fabric")
    @classmethod
    def _check_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None:
            if info.data.get("kind") == "pulsar" or info.data.get("username") is not None:
                raise PydanticCustomError("missing", "Field required")
            return None
        if "/" in name or " " in name:
            raise ValueError("must be the name alone, without slash or space")
        return name

    @field_validator("ca_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("url", "").lower().startswith("http://"):
            raise ValueError("is for TLS, but gdn.url starts with http://; use https:// or remove this setting")
        return checked_file(path, pem="certificate")
