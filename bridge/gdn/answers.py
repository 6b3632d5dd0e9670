"""What an answer of GDN means: its JSON, its own words, how long to wait, and which error a refusal is.

What a far end wrote is foreign text: bounded, escaped, and only repeated where it is GDN's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.text import escape_unprintable
from bridge.timing import Pace

RETRY_AFTER_CAP = 300.0
"""Seconds: a wrong or daily Retry-After must not keep the bridge silent for hours."""
TEXT_LIMIT = 300
"""Characters of a foreign text that go into a message."""
MAX_DEPTH = 100
"""Levels of JSON in an answer: what goes deeper could be read, and then not be written or compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response; ``place`` is its request's method and path."""

    place: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any] | None:
        """The JSON object in the body; None also where there is none, or one that only a hostile far end writes."""
        try:
            decoded = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return decoded if isinstance(decoded, dict) and _is_plain(decoded) else None

    @property
    def described(self) -> str:
        """A body that isn't GDN's, without repeating it."""
        if not self.body:
            return "an empty body"
        return f"{len(self.body)} bytes of {safe(self.headers.get('Content-Type') or 'no stated type')}"


def refusal(answer: Answer, *, fabric: str, logs_in: bool, now: float, redacted: Callable[[str], str]) -> GdnError:
    """The error for a status that isn't 2xx. The status decides; bodies vary (gdn-api.md A.6).

    Args:
        answer: GDN's, or a gateway's in its place.
        fabric: The one that the request was about.
        logs_in: Whether the request was made with a password's token, not with an API key.
        now: Seconds since the epoch.
        redacted: Takes the secrets out of a message.
    """
    status, body = answer.status, answer.json
    said = f", {answer.described}" if body is None else _said(body)
    request_id = answer.headers.get("x-gdn-requestid")
    trace = f" (request {safe(request_id)})" if request_id else ""

    def message(hint: str = "") -> str:
        return redacted(f"{answer.place}: {status}{said}{trace}{hint}")

    if status == 401:
        what = "gdn.email or gdn.username, gdn.password" if logs_in else "the API key"
        return GdnAuthError(message(f"; check {what} and that it belongs to this tenant's GDN"))
    if status == 403:
        return GdnAuthError(
            message(f"; grant {'the user' if logs_in else 'the API key'} {_right(answer.place, fabric)}")
        )
    if 300 <= status < 400:
        return GdnUnavailable(message(f"; a redirect to {_target(answer)}, not followed: check the GDN URL"))
    if status == 429 or status >= 500:
        retry_after = seconds_to_wait(answer.headers.get("Retry-After"), now=now)
        pace = Pace.LIMITED if status == 429 else Pace.UNREACHABLE
        return GdnUnavailable(message(), pace=pace, retry_after=retry_after)
    if answer.body and body is None:
        # Some gateway or proxy speaks in GDN's place: its 404 says nothing about a worker.
        return GdnUnavailable(message("; that isn't GDN's answer: check the GDN URL"))
    return GdnRejected(message(), status=status)


def seconds_to_wait(value: str | None, *, now: float) -> float | None:
    """Seconds from a Retry-After of either form (RFC 9110, 10.2.3), from 0 to the cap; None if it says nothing."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_CAP)
    try:
        moment = parsedate_to_datetime(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, at - now), RETRY_AFTER_CAP)


def safe(text: str) -> str:
    """A foreign text fit for a log line: control and other unprintable characters escaped, and cut."""
    shown = escape_unprintable(text[:TEXT_LIMIT])
    return shown[:TEXT_LIMIT] + ("…" if len(text) > TEXT_LIMIT or len(shown) > TEXT_LIMIT else "")


def _is_plain(value: object) -> bool:
    """Whether there are no numbers too large to reckon with, and no more than ``MAX_DEPTH`` levels."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, int) and not -(2**63) <= item < 2**64:
                return False
        if not deeper:
            return True
        level = deeper
    return False


def _said(body: Mapping[str, Any]) -> str:
    """GDN's own words: ``errorMessage``, or ``message`` from the apid service (gdn-api.md A.6)."""
    said = ""
    if isinstance(number := body.get("errorNum"), int):
        said += f", errorNum {number}"
    words = body.get("errorMessage") or body.get("message")
    if isinstance(words, str):
        said += f", {safe(words)}"
    return said


def _right(place: str, fabric: str) -> str:
    """The right that a request needs (gdn-api.md A.2; for stream workers GDN documents none)."""
    if "/streamapps" in place:
        return f"the right to administrate the fabric {fabric}, which stream workers need"
    if "/cursor" in place:
        return (
            f"access to the fabric {fabric}, and to the collections in the query (read-only, or read-write to remove)"
        )
    return f"access to this fabric ({fabric}) and its streams"


def _target(answer: Answer) -> str:
    location = answer.headers.get("Location", "")
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return safe(host) if host else "the same host"
