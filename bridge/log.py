"""The log: structlog for our own events and, through the same handler, ``logging`` for those of libraries.

One event per line on one stream, as JSON or, on a terminal, as text. Registered secrets are redacted in every text,
exceptions included, in all common encodings. Untrusted text can't forge a line or control a terminal. Any thread may
log and register secrets.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, TextIO
from urllib.parse import quote, quote_plus

import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from bridge.text import escape_unprintable

ROOT_LOGGER = "bridge"
REDACTED = "[redacted]"

MAX_LEARNT = 64
"""Secrets learnt at run time that are kept. Each attempt to connect uses a new OTP, valid for 10 s (gdn-api.md A.4)."""

MIN_SUBSTRING = 4
"""Minimum characters of a secret that is redacted within words, too. Shorter ones would garble the log."""

MAX_DEPTH = 4
"""Levels of nested values that keep their structure; deeper ones become text."""

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Redactor:
    """Redacts secrets. Configured secrets are kept permanently; of those learnt later, the last ``max_learnt``."""

    def __init__(self, *, max_learnt: int = MAX_LEARNT) -> None:
        self._lock = threading.Lock()
        self._fixed: set[str] = set()
        self._learnt: deque[str] = deque(maxlen=max_learnt)
        self._pattern: re.Pattern[str] | None = None  # replaced as a whole: readers need no lock

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these secrets from now on."""
        with self._lock:
            self._fixed.update(filter(None, secrets))
            self._pattern = self._compile()

    def learn(self, secret: str) -> None:
        """Redact a secret learnt at run time, until ``max_learnt`` later ones have replaced it."""
        with self._lock:
            if secret and secret not in self._learnt:
                self._learnt.append(secret)
                self._pattern = self._compile()

    def clean(self, text: str) -> str:
        """The text with all known secrets redacted."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(REDACTED, text)

    def _compile(self) -> re.Pattern[str] | None:
        alternatives: dict[str, str] = {}
        for secret in (*self._fixed, *self._learnt):
            for form in _encodings(secret):
                exact = re.escape(form)
                alternatives[form] = exact if len(form) >= MIN_SUBSTRING else rf"(?<!\w){exact}(?!\w)"
        if not alternatives:
            return None
        # Longest first: a secret that starts with another would otherwise be redacted only in part.
        return re.compile("|".join(alternatives[form] for form in sorted(alternatives, key=len, reverse=True)))


def _encodings(secret: str) -> Iterator[str]:
    """The secret as it may occur in URLs, headers, JSON and reprs."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    for representation in (repr(secret)[1:-1], repr(data)[2:-1]):
        yield representation
        # The repr of a longer text may use the other quote, and escape quotes differently.
        yield representation.replace("\\'", "'")
        yield representation.replace("\\'", "'").replace("'", "\\'")
    for encoded in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield encoded
        yield re.sub("%..", lambda found: found[0].lower(), encoded)
    if len(secret) < MIN_SUBSTRING:
        return  # so few characters of base64 match by chance
    # Within longer base64 text a secret starts at one of three offsets. Characters at either end that also encode bits
    # of adjacent bytes are left out.
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data).decode()
        remainder = (offset + len(data)) % 3
        core = encoded[(0, 2, 3)[offset] : remainder - 4 if remainder else None]
        yield core
        yield core.replace("+", "-").replace("/", "_")


_redactor: Final = Redactor()  # one per process, like logging and structlog


def configure(
    *,
    level: str,
    format: str,  # noqa: A002 - named like the setting
    stream: TextIO,
    secrets: Iterable[str] = (),
) -> None:
    """Set up the log of this process. A second call replaces level, format and stream; secrets are added.

    Args:
        level: the lowest level of our own events: ``debug``, ``info``, ``warning`` or ``error``. Events of libraries
            are logged from ``warning`` up.
        format: ``json``, ``console``, or ``auto``: ``console`` if ``stream`` is a terminal, otherwise ``json``.
        stream: written to; a terminal gets colours, unless $NO_COLOR is set (no-color.org).
        secrets: values that must never appear in the log.
    """
    _redactor.add(secrets)
    is_terminal = stream.isatty()
    use_console = format == "console" or (format == "auto" and is_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
    ]
    handler = _Handler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _clean_event,
                _console(colors=is_terminal and not os.environ.get("NO_COLOR")) if use_console else _json,
            ],
        )
    )
    root = logging.getLogger()
    for previous in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger(ROOT_LOGGER).setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # the settings must apply to existing loggers, too
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module: ``get_logger(__name__)``. It follows ``configure``, even if that is called later."""
    logger: FilteringBoundLogger = structlog.get_logger(
        name if f"{name}.".startswith(f"{ROOT_LOGGER}.") else f"{ROOT_LOGGER}.{name}"
    )
    return logger


def redacted(text: str) -> str:
    """The text with all known secrets redacted: for text of the far end that is shown outside the log."""
    return _redactor.clean(text)


def register_secret(value: str) -> None:
    """Redact a secret that was learnt at run time, such as an OTP. Only the last ``MAX_LEARNT`` of them are kept."""
    _redactor.learn(value)


def keep_secret(value: str) -> None:
    """Redact a secret permanently: a configured one that was changed at run time."""
    _redactor.add([value])


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines. A line that can't be written is dropped: the log must not stop the data path."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: the method of the base class would print the event's arguments unredacted."""


def _clean_event(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
    """The event as plain values, redacted and without control characters; the fixed keys first."""
    fixed = {"timestamp": event_dict.pop("timestamp"), "level": event_dict.pop("level")}
    blocks = {key: event_dict.pop(key) for key in ("exception", "stack") if key in event_dict}
    first = {key: event_dict.pop(key) for key in ("event", "logger") if key in event_dict}
    cleaned = {_clean_text(str(key)): _clean(value, MAX_DEPTH) for key, value in {**first, **event_dict}.items()}
    return fixed | cleaned | {key: _clean_block(str(value)) for key, value in blocks.items()}


def _clean(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return _clean_text(value)
    if depth and isinstance(value, dict):
        return {_clean_text(str(key)): _clean(element, depth - 1) for key, element in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_clean(element, depth - 1) for element in value]
    return _clean_text(str(value) if isinstance(value, BaseException) else repr(value))


def _clean_text(text: str) -> str:
    return escape_unprintable(_redactor.clean(text))


def _clean_block(text: str) -> str:
    """A traceback keeps its lines. They are indented, so that none looks like a line of the log."""
    # Redact before the split: a secret may contain a line break.
    return "\n".join(f"  {_clean_text(line)}" for line in _redactor.clean(text).split("\n"))


def _json(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> str:
    return msgspec.json.encode(event_dict).decode()


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
