"""Interprets GDN's answers: their JSON, error numbers and messages, how long to wait, and which error to raise.

Text from a far end is escaped and truncated, and repeated only if it is GDN's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import IntEnum, unique
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.text import escape_unprintable
from bridge.timing import Pace

RETRY_AFTER_CAP = 300.0
"""Seconds. A wrong Retry-After, or one for a daily limit, must not keep the bridge idle for hours."""
TEXT_LIMIT = 300
"""Longest text from a far end in a message, in characters."""
MAX_DEPTH = 100
"""Deepest JSON in an answer. Deeper values can be decoded, but encoding or comparing them would fail."""

_WRAPPED_NUMBER = re.compile(r"\bError: ([0-9]{1,6})\b")
_FABRIC_NOT_FOUND = "database not found"


@unique
class ErrorNumber(IntEnum):
    """GDN's error numbers that the bridge acts on (gdn-api.md A.6)."""

    FABRIC_NOT_FOUND = 1228


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response. ``place``: method and path of the request."""

    place: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any] | None:
        """The JSON object in the body; None: there is none, or one that only a hostile far end sends."""
        try:
            decoded = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return decoded if isinstance(decoded, dict) and _is_plain(decoded) else None

    @property
    def described(self) -> str:
        """Describes a body that isn't GDN's, without repeating it."""
        if not self.body:
            return "an empty body"
        return f"{len(self.body)} bytes of {safe(self.headers.get('Content-Type') or 'no stated type')}"


def refusal(answer: Answer, *, fabric: str, logs_in: bool, now: float, redacted: Callable[[str], str]) -> GdnError:
    """The error for a status other than 2xx. The status decides, since bodies vary (gdn-api.md A.6).

    Args:
        answer: from GDN, or from a gateway in front of it.
        fabric: the fabric of the request.
        logs_in: whether the request used a token from a login, not an API key.
        now: seconds since the epoch.
        redacted: removes secrets from a message.
    """
    status, body = answer.status, answer.json
    said = f", {answer.described}" if body is None else _quoted(body)
    number = None if body is None else _error_number(body, status)
    request_id = answer.headers.get("x-gdn-requestid")
    trace = f" (request {safe(request_id)})" if request_id else ""

    def message(hint: str = "") -> str:
        return redacted(f"{answer.place}: {status}{said}{trace}{hint}")

    if status == HTTPStatus.UNAUTHORIZED:
        what = "gdn.email or gdn.username, gdn.password" if logs_in else "the API key"
        hint = f"; check {what} and that it belongs to this tenant's GDN"
        return GdnAuthError(message(hint), status=status, error_number=number)
    if status == HTTPStatus.FORBIDDEN:
        hint = f"; grant {'the user' if logs_in else 'the API key'} {_right(answer.place, fabric)}"
        return GdnAuthError(message(hint), status=status, error_number=number)
    if 300 <= status < 400:
        hint = f"; a redirect to {_target(answer)}, not followed: check the GDN URL"
        return GdnUnavailable(message(hint), status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        retry_after = seconds_to_wait(answer.headers.get("Retry-After"), now=now)
        pace = Pace.LIMITED if status == HTTPStatus.TOO_MANY_REQUESTS else Pace.UNREACHABLE
        return GdnUnavailable(message(), pace=pace, retry_after=retry_after, status=status, error_number=number)
    if answer.body and body is None:
        # From a gateway or proxy in front of GDN: its 404 says nothing about a worker.
        return GdnUnavailable(message("; that isn't GDN's answer: check the GDN URL"), status=status)
    return GdnRejected(message(), status=status, error_number=number)


def seconds_to_wait(value: str | None, *, now: float) -> float | None:
    """Seconds in a Retry-After of either form (RFC 9110, 10.2.3), from 0 to the cap; None: missing or unreadable."""
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
    """A far end's text made safe for a log line: unprintable characters escaped, and truncated."""
    shown = escape_unprintable(text[:TEXT_LIMIT])
    return shown[:TEXT_LIMIT] + ("…" if len(text) > TEXT_LIMIT or len(shown) > TEXT_LIMIT else "")


def _is_plain(value: object) -> bool:
    """Whether every integer fits in 64 bits and there are at most ``MAX_DEPTH`` levels."""
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


def _quoted(body: Mapping[str, Any]) -> str:
    """GDN's error number and message, for the error's text."""
    quoted = ""
    if isinstance(number := body.get("errorNum"), int):
        quoted += f", errorNum {number}"
    if text := _message(body):
        quoted += f", {safe(text)}"
    return quoted


def _message(body: Mapping[str, Any]) -> str:
    """``errorMessage``, or ``message`` from the apid service (gdn-api.md A.6)."""
    text = body.get("errorMessage") or body.get("message")
    return text if isinstance(text, str) else ""


def _error_number(body: Mapping[str, Any], status: int) -> int | None:
    """GDN's error number.

    ``streamapps`` wraps another service's error: its ``errorNum`` repeats the HTTP status, and the number is only in
    the text, ``Response: 404, Error: 1228 - database not found`` (gdn-api.md A.6).
    """
    text = _message(body)
    if _FABRIC_NOT_FOUND in text:
        return ErrorNumber.FABRIC_NOT_FOUND
    number = body.get("errorNum")
    if number == status and (wrapped := _WRAPPED_NUMBER.search(text)):
        return int(wrapped[1])
    return number if isinstance(number, int) else None


def _right(place: str, fabric: str) -> str:
    """The right that a request needs (gdn-api.md A.2; for stream workers GDN documents none)."""
    if "/streamapps" in place:
        return f"the right to administer the fabric {fabric}, which stream workers need"
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
