"""Where things are at GDN: the REST base, REST paths, the producer's WebSocket URL. Pure text work.

Every part that comes from settings or from GDN is percent-encoded here and nowhere else, so a slash in a
name can't leave its place in a path.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from bridge.streamql.syntax import StreamScope

EXAMPLE = "https://api-play.paas.macrometa.io"

SEND_TIMEOUT_MS = 30_000
"""Milliseconds after which the broker reports a send as failed: its own default."""

MAX_PENDING = 1000
"""Sends that the broker keeps open before it refuses more: its own default."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


class Numbering(NamedTuple):
    """What lets a broker with deduplication drop what was sent before (design.md P8)."""

    producer_name: str
    """Unique per stream; a second connection with it is refused with 409."""
    initial_sequence_id: int
    """The number before that of the connection's first send. Older brokers answer 400 to it."""


@dataclass(frozen=True, slots=True)
class GdnAddress:
    """One GDN endpoint, normalised. ``host`` carries ``api-`` where it is due, and an unusual port."""

    host: str
    secure: bool

    @classmethod
    def parse(cls, url: str, *, prefixed: bool = True) -> GdnAddress:
        """The address in a configured URL: with or without scheme (https then) and ``api-`` (gdn-api.md A.1).

        Args:
            url: As a person wrote it.
            prefixed: Whether the host is a GDN's, whose API hosts begin with ``api-``.

        Raises:
            ValueError: it holds user info, a path, a query, or no usable host. The text never repeats more of
                the URL than its host, since what doesn't belong there may be a secret.
        """
        text = url.strip()
        scheme, separator, _ = text.partition("://")
        if not separator:
            text = f"https://{text}"
        elif scheme.lower() not in {"https", "http"}:
            raise ValueError(f"scheme {scheme!r} is not https or http; write it like {EXAMPLE}")
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise ValueError(f"user info before the host is not taken; write only the host, like {EXAMPLE}")
        host = _checked_host(parts.netloc)
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(f"something follows the host {host}; write only the host, like {EXAMPLE}")
        host = _without_usual_port(host, parts.scheme)
        return cls(host=_with_prefix(host) if prefixed else host, secure=parts.scheme == "https")

    @property
    def base_url(self) -> str:
        """The REST base, without a slash at its end."""
        return f"{'https' if self.secure else 'http'}://{self.host}"

    def producer_url(
        self,
        *,
        tenant: str,
        fabric: str,
        scope: StreamScope,
        stream: str,
        host: str | None = None,
        numbering: Numbering | None = None,
    ) -> str:
        """The URL to dial for a stream of GDN (gdn-api.md C.1, C.4), without an OTP.

        Args:
            tenant: As GDN calls it, never the e-mail address.
            fabric: The fabric.
            scope: Local or global stream.
            stream: The bare name, without ``c8locals.``.
            host: Dial this host instead, as ``Datacenter.api_host`` gives it; local streams live in one region.
            numbering: With deduplication.

        Raises:
            ValueError: a name is empty or can't stand in a path, or ``host`` isn't one.
        """
        place = scope.value
        namespace = f"c8{place}.{_named('fabric', fabric)}"
        topic = f"c8{place}s.{_named('stream', stream)}"
        return self._producer_url("/_ws", (_named("tenant", tenant), namespace, topic), host, numbering)

    def pulsar_producer_url(
        self, *, tenant: str, namespace: str, topic: str, numbering: Numbering | None = None
    ) -> str:
        """The URL to dial for a topic of a plain Pulsar.

        Raises:
            ValueError: a name is empty or can't stand in a path.
        """
        parts = (_named("tenant", tenant), _named("namespace", namespace), _named("topic", topic))
        return self._producer_url("", parts, None, numbering)

    def _producer_url(
        self, prefix: str, parts: tuple[str, str, str], host: str | None, numbering: Numbering | None
    ) -> str:
        parameters: dict[str, str | int] = {
            "sendTimeoutMillis": SEND_TIMEOUT_MS,
            "maxPendingMessages": MAX_PENDING,
            "batchingEnabled": "false",
        }
        if numbering is not None:
            # Without a time-out the broker's end fails a send only together with all behind it: numbers stay in step.
            parameters["sendTimeoutMillis"] = 0
            parameters["producerName"] = numbering.producer_name
            parameters["initialSequenceId"] = numbering.initial_sequence_id
        there = self.host if host is None else _checked_host(host)
        path = "/".join(encoded(part) for part in parts)
        query = urlencode(parameters, quote_via=quote)
        return f"{'wss' if self.secure else 'ws'}://{there}{prefix}/ws/v2/producer/persistent/{path}?{query}"


def fabric_path(fabric: str, *parts: str) -> str:
    """``/_fabric/{fabric}/_api/…`` with every part encoded (gdn-api.md A.1).

    Raises:
        ValueError: a part is empty, ``.`` or ``..``: an HTTP client would resolve it away.
    """
    tail = "/".join(encoded(_named("path part", part)) for part in parts)
    return f"/_fabric/{encoded(_named('fabric', fabric))}/_api/{tail}"


def with_otp(url: str, otp: str) -> str:
    """``url`` with the one-time password as its last parameter (gdn-api.md A.4). The result is a secret."""
    return f"{url}{'&' if '?' in url else '?'}otp={encoded(otp)}"


def api_host(*, api: str | None, url: str | None) -> str:
    """The host to dial in a region, out of ``tags`` of ``/datacenter/local``: ``api``, else ``api-`` + ``url``.

    Raises:
        ValueError: neither holds a host.
    """
    if api:
        return _checked_host(api)
    if url:
        return _with_prefix(_checked_host(url))
    raise ValueError("there is no host in tags.api or tags.url")


def encoded(part: str) -> str:
    """``part`` as one path part or one parameter value."""
    return quote(part, safe="")


def _named(what: str, text: str) -> str:
    if text in {"", ".", ".."}:
        raise ValueError(f"the {what} is {text!r}, which can't stand in a URL; give its name")
    return text


def _checked_host(netloc: str) -> str:
    """``host``, ``host:port`` or ``[v6]:port``, in lower case."""
    lowered = netloc.lower()
    try:
        split = urlsplit(f"//{lowered}")
        name, port = split.hostname, split.port
    except ValueError as wrong:
        raise ValueError(f"the host or its port is malformed; write it like {EXAMPLE}") from wrong
    if not name or split.netloc != lowered or "@" in lowered or lowered.endswith(":") or port == 0:
        raise ValueError(f"there is no usable host; write it like {EXAMPLE}")
    if not _is_ip(name) and (len(name) > 253 or not _HOST_NAME.fullmatch(name)):
        raise ValueError(f"the host {name[:80]!r} is not a host name; write it like {EXAMPLE}")
    return lowered


def _with_prefix(host: str) -> str:
    """``api-`` in front, once. Addresses, ``localhost`` and names of one label are no GDN federations: left alone."""
    name = urlsplit(f"//{host}").hostname or ""
    if name.startswith("api-") or "." not in name.rstrip(".") or _is_ip(name) or name.endswith(".localhost"):
        return host
    return f"api-{host}"


def _without_usual_port(host: str, scheme: str) -> str:
    return host.removesuffix(":443" if scheme == "https" else ":80") if not _is_ip(host) else host


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
