"""Types and checks that several sections use. Error messages say what was expected and never repeat the value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from bridge.links.certificates import ENCRYPTED_KEY

MAX_PEM = 4 << 20
"""Bytes of a file that are searched for a certificate or key; a system's bundle of authorities has 200 KB."""

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""By the scheme of a broker's URL."""

DEFAULT_PATH = "/mqtt"
"""Of a URL for MQTT over WebSocket: the usual one."""

_PATH = re.compile(r"/[!-~]*")

SHOWN_SUFFIXES = frozenset({".sql", ".siddhi", ".txt", ".pem", ".crt", ".cer", ".cert", ".key"})
"""A path is named in a message only if it has one of these suffixes: other values may be misplaced secrets."""


class Group(BaseModel):
    """A section of the settings, or a table inside one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("contains an unprintable character; was it copied with a line break?")
    return text


def number_as_text(value: object) -> object:
    """``protocol = 5`` means ``"5"``."""
    return str(value) if type(value) is int else value


def lower(value: object) -> object:
    """``INFO`` means ``info``."""
    return value.lower() if isinstance(value, str) else value


_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)\s*")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def duration(value: object) -> object:
    """Text such as ``10s`` in seconds; anything else as it is."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) * _SECONDS[found[2]] if found else value


Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_printable)]

VALUE_TAG, TABLE_TAG = "<value>", "<table>"
"""Tags that pydantic adds to an error's location where a setting may be a value or a table."""

PORTS = "a port is a number from 1 to 65535"
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
KEY = re.compile(r"[!-~]+")
"""A key that is safe in an Authorization header."""


def _endpoint(text: str, advice: str) -> tuple[str, int | None]:
    """Host and port of ``//host[:port]``.

    Raises:
        ValueError: the text is anything else. The message is ``advice`` and doesn't repeat the text.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # its message repeats the netloc
        raise ValueError(advice) from None
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(advice)
    if host is None or not _HOST.fullmatch(host):
        raise ValueError(advice)
    return host, port


class BrokerAddress(NamedTuple):
    """Where a broker listens."""

    tls: bool
    host: str
    """Name or address; an IPv6 address without brackets."""
    port: int
    path: str | None = None
    """For MQTT over WebSocket; None: plain MQTT."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def mqtt_endpoint(url: str) -> BrokerAddress:
    """The address in a broker's URL; the port is the scheme's default if the URL has none.

    Raises:
        ValueError: it isn't a broker's URL.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise ValueError(
            "must start with mqtt:// or mqtts:// (TLS), such as mqtts://broker.example.com, or with ws:// or wss:// "
            "for MQTT over WebSocket"
        )
    if "@" in rest:
        raise ValueError("must not contain a user or password; put them in mqtt.username and mqtt.password")
    path = None
    if scheme in {"ws", "wss"}:
        rest, slash, tail = rest.partition("/")
        path = slash + tail or DEFAULT_PATH
        if not _PATH.fullmatch(path) or "?" in path or "#" in path:
            raise ValueError(
                f"must be {scheme}://host[:port][/path], without a query; the default path is {DEFAULT_PATH}"
            )
    host, port = _endpoint(f"//{rest}", f"must be {scheme}://host or {scheme}://host:port; {PORTS}")
    if port == 0:
        raise ValueError(f"must not have port 0; {PORTS}")
    return BrokerAddress(scheme in {"mqtts", "wss"}, host, port or DEFAULT_PORTS[scheme], path)


MAX_BROKERS = 16
"""More are a mistake: a round of attempts at all of them would take minutes."""


def broker_urls(value: object) -> list[str]:
    """The URLs of one or several brokers: one text, several with commas between them, a list, or a list as JSON.

    Raises:
        ValueError: it is anything else, or the brokers can't be used together.
    """
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
        raise ValueError("must be a broker's URL or a list of them")
    if not 1 <= len(value) <= MAX_BROKERS:
        raise ValueError(f"must name at least one broker and at most {MAX_BROKERS}")
    addresses = [mqtt_endpoint(url) for url in value]
    if len({address.tls for address in addresses}) > 1:
        raise ValueError(
            "mixes URLs with TLS (mqtts://, wss://) and without (mqtt://, ws://); the settings for TLS are for all "
            "brokers, so use one of the two"
        )
    if len({(address.host, address.port) for address in addresses}) < len(addresses):
        raise ValueError("names a broker twice")
    return value


def _listed(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [url.strip() for url in text.split(",")]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be a broker's URL or a list of them; a list that begins with [ is JSON") from None


def listen_endpoint(text: str) -> tuple[str, int]:
    """Host and port of an address to listen on.

    Raises:
        ValueError: it isn't ``host:port``.
    """
    advice = "must be host:port, with a port from 0 to 65535, such as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080"
    host, port = _endpoint(f"//{text}", advice)
    if port is None:
        raise ValueError(advice)
    return host, port


def checked_file(path: Path | None, *, pem: str | None = None) -> Path | None:
    """The path, if the file can be read.

    Args:
        path: the file.
        pem: what the file must have in PEM format: ``certificate`` or ``private key``.

    Raises:
        ValueError: it can't be read, or has no such thing.
    """
    if path is None:
        return None
    shown = f"{path} " if path.suffix in SHOWN_SUFFIXES and str(path).isprintable() else ""
    where = "a relative path in the TOML file is relative to the file's directory, any other to the working directory"
    try:
        with path.open("rb") as file:
            content = file.read(1 if pem is None else MAX_PEM)
    except OSError as exc:
        raise ValueError(f"{shown}can't be read: {exc.strerror}; {where}") from None
    except ValueError:
        raise ValueError("is not a path") from None
    if pem is not None and not re.search(rb"-----BEGIN [A-Z0-9 ]*" + pem.upper().encode(), content):
        raise ValueError(f"{shown}has no {pem} in PEM format (text with -----BEGIN {pem.upper()}-----)")
    if pem == "private key" and b"ENCRYPTED" in content:
        raise ValueError(ENCRYPTED_KEY)
    return path
