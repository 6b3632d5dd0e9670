"""GDN's URLs: the REST base, REST paths, the producer's WebSocket URL. Pure.

Every part that comes from settings or from GDN is percent-encoded here and nowhere else, so a slash in a name can't
change the path.
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
"""Milliseconds after which the broker reports a send as failed; its default."""

MAX_PENDING = 1000
"""Maximum pending sends, above which the broker refuses further ones; its default."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


class Numbering(NamedTuple):
    """Lets a far end with deduplication drop what was sent before (docs/reliability.md, P8)."""

    producer_name: str
    """Unique per stream; a second connection with it is refused with 409."""
    initial_sequence_id: int
    """One less than the sequence number of the connection's first send. Older brokers answer 400 to it."""


@dataclass(frozen=True, slots=True)
class GdnAddress:
    """A GDN endpoint, normalised. ``host`` starts with ``api-`` if necessary and includes a non-default port."""

    host: str
    secure: bool

    @classmethod
    def parse(cls, url: str, *, prefixed: bool = True) -> GdnAddress:
        """Parse a configured URL, with or without scheme (default: https) and ``api-`` (gdn-api.md A.1).

        Args:
            url: as configured.
            prefixed: whether the host is GDN's, so that its API host starts with ``api-``.

        Raises:
            ValueError: it has user info, a path, a query, or no usable host. The message repeats only the host,
                since the other parts may be secret.
        """
        text = url.strip()
        scheme, separator, _ = text.partition("://")
        if not separator:
            text = f"https://{text}"
        elif scheme.lower() not in {"https", "http"}:
            raise ValueError(f"scheme {scheme!r} is not https or http; write it like {EXAMPLE}")
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise ValueError(f"user info before the host is not supported; write only the host, like {EXAMPLE}")
        host = _checked_host(parts.netloc)
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(f"something follows the host {host}; write only the host, like {EXAMPLE}")
        host = _without_default_port(host, parts.scheme)
        return cls(host=_with_prefix(host) if prefixed else host, secure=parts.scheme == "https")

    @property
    def base_url(self) -> str:
        """The REST base URL, without a trailing slash."""
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
        """The producer URL of a GDN stream (gdn-api.md C.1, C.4), without a one-time password.

        Args:
            tenant: its name in GDN, never the e-mail address.
            fabric: the fabric.
            scope: local or global stream.
            stream: the name without ``c8locals.``.
            host: use this host instead, from ``Datacenter.api_host``: a local stream exists in one region only.
            numbering: only with deduplication.

        Raises:
            ValueError: a name is empty or can't be part of a path, or ``host`` isn't a host.
        """
        place = scope.value
        namespace = f"c8{place}.{_named('fabric', fabric)}"
        topic = f"c8{place}s.{_named('stream', stream)}"
        return self._producer_url("/_ws", (_named("tenant", tenant), namespace, topic), host, numbering)

    def pulsar_producer_url(
        self, *, tenant: str, namespace: str, topic: str, numbering: Numbering | None = None
    ) -> str:
        """The producer URL of a topic of a plain Pulsar.

        Raises:
            ValueError: a name is empty or can't be part of a path.
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
            # Without a timeout the broker fails a send only together with all later ones, so numbers stay in step.
            parameters["sendTimeoutMillis"] = 0
            parameters["producerName"] = numbering.producer_name
            parameters["initialSequenceId"] = numbering.initial_sequence_id
        dialled = self.host if host is None else _checked_host(host)
        path = "/".join(encoded(part) for part in parts)
        query = urlencode(parameters, quote_via=quote)
        return f"{'wss' if self.secure else 'ws'}://{dialled}{prefix}/ws/v2/producer/persistent/{path}?{query}"


def fabric_path(fabric: str, *parts: str) -> str:
    """``/_fabric/{fabric}/_api/…`` with every part encoded (gdn-api.md A.1).

    Raises:
        ValueError: a part is empty, ``.`` or ``..``, which HTTP clients resolve away.
    """
    tail = "/".join(encoded(_named("path part", part)) for part in parts)
    return f"/_fabric/{encoded(_named('fabric', fabric))}/_api/{tail}"


def with_otp(url: str, otp: str) -> str:
    """``url`` with a one-time password as its last parameter (gdn-api.md A.4). A secret."""
    return f"{url}{'&' if '?' in url else '?'}otp={encoded(otp)}"


def api_host(*, api: str | None, url: str | None) -> str:
    """The API host of a region, from ``tags`` in ``/datacenter/local``: ``api``, else ``api-`` + ``url``.

    Raises:
        ValueError: neither has a host.
    """
    if api:
        return _checked_host(api)
    if url:
        return _with_prefix(_checked_host(url))
    raise ValueError("tags.api and tags.url have no host")


def encoded(part: str) -> str:
    """``part``, percent-encoded as one path part or parameter value."""
    return quote(part, safe="")


def _named(what: str, text: str) -> str:
    if text in {"", ".", ".."}:
        raise ValueError(f"the {what} is {text!r}, which can't be part of a URL; give its name")
    return text


def _checked_host(netloc: str) -> str:
    """``host``, ``host:port`` or ``[v6]:port``, in lower case."""
    lowered = netloc.lower()
    try:
        split = urlsplit(f"//{lowered}")
        name, port = split.hostname, split.port
    except ValueError as wrong:
        raise ValueError(f"the host or its port is malformed; write it like {EXAMPLE}") from wrong
    has_odd_port = lowered.endswith(":") or port == 0
    if not name or split.netloc != lowered or "@" in lowered or has_odd_port:
        raise ValueError(f"there is no usable host; write it like {EXAMPLE}")
    is_host_name = len(name) <= 253 and _HOST_NAME.fullmatch(name)
    if not is_host_name and not _is_ip(name):
        raise ValueError(f"the host {name[:80]!r} is not a host name; write it like {EXAMPLE}")
    return lowered


def _with_prefix(host: str) -> str:
    """``host`` with ``api-`` in front. An IP address, ``localhost`` or a single label isn't a GDN federation's host."""
    name = urlsplit(f"//{host}").hostname or ""
    is_federation = "." in name.rstrip(".") and not _is_ip(name) and not name.endswith(".localhost")
    return f"api-{host}" if is_federation and not name.startswith("api-") else host


def _without_default_port(host: str, scheme: str) -> str:
    return host.removesuffix(":443" if scheme == "https" else ":80") if not _is_ip(host) else host


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
