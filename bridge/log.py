"""The log: structlog, set up once, and with it whatever libraries say through ``logging``.

One event a line on one stream, JSON unless a person reads along. Registered secrets are taken out of every text,
exceptions included, in whatever coding they travel; what strangers sent can't forge a line or steer a terminal. Any
thread may log and register.
"""

from __future__ import annotations

import base64
import json
import logging
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

from bridge.text import escaped

OURS = "bridge"
REDACTED = "[redacted]"

MAX_LEARNT = 64
"""Secrets learnt at run time that are remembered. An OTP lives 10 s (gdn-api.md A.4) and each attempt brings one."""

SHORT = 4
"""Characters below which a secret counts only as a word of its own: within words it would black out the whole log."""

MAX_DEPTH = 4
"""Levels of nested values that are kept apart; deeper ones become text."""

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Redactor:
    """Takes secrets out of texts. Configured ones stay for good; of those learnt later the last ``max_learnt``."""

    def __init__(self, *, max_learnt: int = MAX_LEARNT) -> None:
        self._lock = threading.Lock()
        self._fixed: set[str] = set()
        self._learnt: deque[str] = deque(maxlen=max_learnt)
        self._pattern: re.Pattern[str] | None = None  # swapped whole, so readers need no lock

    def add(self, secrets: Iterable[str]) -> None:
        """Secrets that stay."""
        with self._lock:
            self._fixed.update(filter(None, secrets))
            self._pattern = self._compiled()

    def learn(self, secret: str) -> None:
        """A secret that came up at run time."""
        with self._lock:
            if secret and secret not in self._learnt:
                self._learnt.append(secret)
                self._pattern = self._compiled()

    def clean(self, text: str) -> str:
        """The text without any of the secrets."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(REDACTED, text)

    def _compiled(self) -> re.Pattern[str] | None:
        alternatives: dict[str, str] = {}
        for secret in (*self._fixed, *self._learnt):
            for form in _forms(secret):
                exact = re.escape(form)
                alternatives[form] = exact if len(form) >= SHORT else rf"(?<!\w){exact}(?!\w)"
        if not alternatives:
            return None
        # Longest first, else a secret that begins with another would leave its tail behind.
        return re.compile("|".join(alternatives[form] for form in sorted(alternatives, key=len, reverse=True)))


def _forms(secret: str) -> Iterator[str]:
    """The secret as it may stand in URLs, headers, JSON and reprs."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    for written in (repr(secret)[1:-1], repr(data)[2:-1]):
        yield written
        # Within a longer text the other quote may be the one that is escaped.
        yield written.replace("\\'", "'")
        yield written.replace("\\'", "'").replace("'", "\\'")
    for encoded in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield encoded
        yield re.sub("%..", lambda found: found[0].lower(), encoded)
    if len(secret) < SHORT:
        return  # a few characters of base64 match by chance
    # Inside a longer base64 text a secret begins at one of three offsets; the characters at its ends that also hold
    # bits of its neighbours are left out.
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data).decode()
        shared = (offset + len(data)) % 3
        core = encoded[(0, 2, 3)[offset] : -1 - (3 - shared) if shared else None]
        yield core
        yield core.replace("+", "-").replace("/", "_")


_redactor: Final = Redactor()  # one for the process, as logging and structlog are


def configure(
    *,
    level: str,
    format: str,  # noqa: A002 - the setting's own word
    stream: TextIO,
    secrets: Iterable[str] = (),
) -> None:
    """Set up the log of this process. May be called again, to log otherwise; secrets add up.

    Args:
        level: the least level of our own events: ``debug``, ``info``, ``warning`` or ``error``. Libraries speak from
            warning on.
        format: ``json``, ``console``, or ``auto``: console if ``stream`` is a terminal.
        stream: where lines go.
        secrets: values that must never be shown.
    """
    _redactor.add(secrets)
    terminal = stream.isatty()
    console = format == "console" or (format == "auto" and terminal)
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
                _cleaned,
                _console(colors=terminal) if console else _json,
            ],
        )
    )
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger(OURS).setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers made before this call must follow it
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module: ``get_logger(__name__)``. Speaks as ``configure`` says, whichever came first."""
    logger: FilteringBoundLogger = structlog.get_logger(name if f"{name}.".startswith(f"{OURS}.") else f"{OURS}.{name}")
    return logger


def redacted(text: str) -> str:
    """The text without any secret that is known: for what the far end said and others may read."""
    return _redactor.clean(text)


def register_secret(value: str) -> None:
    """Keep a secret that was learnt at run time, such as an OTP, out of the log from now on."""
    _redactor.learn(value)


def keep_secret(value: str) -> None:
    """Keep a secret out of the log for good: a configured one that was replaced at run time."""
    _redactor.add([value])


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines, and gives up on one that can't be written: the log must not stop the data path."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: logging would print the event's arguments, unredacted."""


def _cleaned(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
    """The event as plain values without secrets and control characters, its fixed members first."""
    fixed = {"timestamp": event_dict.pop("timestamp"), "level": event_dict.pop("level")}
    block = {key: event_dict.pop(key) for key in ("exception", "stack") if key in event_dict}
    first = {key: event_dict.pop(key) for key in ("event", "logger") if key in event_dict}
    cleaned = {_clean_text(str(key)): _clean(value, MAX_DEPTH) for key, value in {**first, **event_dict}.items()}
    return fixed | cleaned | {key: _clean_block(str(value)) for key, value in block.items()}


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
    return escaped(_redactor.clean(text))


def _clean_block(text: str) -> str:
    """A traceback keeps its lines, each indented: none can pass for a line of the log."""
    # Before the split: a secret may have a line break in it.
    return "\n".join(f"  {_clean_text(line)}" for line in _redactor.clean(text).split("\n"))


def _json(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> str:
    return msgspec.json.encode(event_dict).decode()


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
