"""The log: one line per event, without secrets, and no way for untrusted text to forge lines."""

from __future__ import annotations

import base64
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge import log
from bridge.log import MAX_LEARNT, Redactor, configure, get_logger, keep_secret, register_secret

SECRET = 'p&ss w"ör\\d/+?'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test its own secrets, and restore logging afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("bridge")
    levels = root.level, ours.level
    monkeypatch.setattr(log, "_redactor", Redactor())
    yield
    logging.captureWarnings(False)
    for handler in root.handlers[:]:
        if isinstance(handler, log._Handler):
            root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def start(out: io.StringIO, *secrets: str, level: str = "info", style: str = "auto") -> None:
    configure(level=level, format=style, stream=out, secrets=secrets)
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, log._Handler)]  # without pytest's


def events(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line(out: io.StringIO) -> None:
    start(out)

    get_logger("bridge.outbox").info("outbox.opened", records=3, path=None)

    (event,) = events(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"level": "info", "event": "outbox.opened", "logger": "bridge.outbox", "records": 3, "path": None}


def test_a_terminal_gets_text() -> None:
    terminal = Terminal()
    start(terminal)

    get_logger("bridge.outbox").info("outbox.opened", records=3)

    assert "\x1b[" in terminal.getvalue()
    assert "outbox.opened" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize(("value", "has_colours"), [("1", False), ("", True)])
def test_no_color_turns_colours_off(monkeypatch: pytest.MonkeyPatch, value: str, has_colours: bool) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    terminal = Terminal()
    start(terminal)

    get_logger("bridge.x").warning("a.b")

    assert "a.b" in terminal.getvalue()
    assert ("\x1b[" in terminal.getvalue()) == has_colours


def test_a_terminal_gets_json_when_asked() -> None:
    terminal = Terminal()
    start(terminal, style="json")

    get_logger("bridge.x").info("a.b")

    assert events(terminal)[0]["event"] == "a.b"


def test_console_without_a_terminal_has_no_colours(out: io.StringIO) -> None:
    start(out, style="console")

    get_logger("bridge.x").info("a.b", topic="t")

    assert "a.b" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_events_below_the_level_are_left_out(out: io.StringIO) -> None:
    start(out, level="warning")
    logger = get_logger("bridge.x")

    logger.info("quiet")
    logger.warning("loud")

    assert [event["event"] for event in events(out)] == ["loud"]


@pytest.mark.parametrize(("level", "expected"), [("debug", ["careful"]), ("error", [])])
def test_events_of_libraries_are_logged_from_warning_up(out: io.StringIO, level: str, expected: list[str]) -> None:
    start(out, level=level)

    logging.getLogger("urllib3.connection").info("chatty")
    logging.getLogger("urllib3.connection").warning("%s", "careful")

    assert [event["event"] for event in events(out)] == expected


def test_a_logger_created_before_the_configuration_follows_it(out: io.StringIO) -> None:
    logger = get_logger("bridge.early")
    start(out)

    logger.info("late")

    assert events(out)[0]["logger"] == "bridge.early"


def test_every_logger_name_starts_with_bridge(out: io.StringIO) -> None:
    start(out)

    get_logger("__main__").info("a.b")

    assert events(out)[0]["logger"] == "bridge.__main__"


def test_a_second_configuration_replaces_the_first(out: io.StringIO) -> None:
    start(io.StringIO())
    start(out)

    get_logger("bridge.x").info("once")

    assert len(events(out)) == 1


def test_python_warnings_are_logged_and_redacted(out: io.StringIO) -> None:
    start(out, SECRET)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"old {SECRET}", DeprecationWarning, stacklevel=1)

    (event,) = events(out)
    assert event["logger"] == "py.warnings"
    assert "old [redacted]" in event["event"]


# --- secrets ---------------------------------------------------------------------------------------------


def raising(logger: Any) -> None:
    try:
        try:
            raise OSError(f"cause {SECRET}")
        except OSError as exc:
            raise ValueError(f"wss://host?otp={quote(SECRET, safe='')}") from exc
    except ValueError:
        logger.exception("link.failed")


WAYS: list[Callable[[Any], None]] = [
    lambda logger: logger.info(f"event {SECRET}"),
    lambda logger: logger.info("e", text=f"a {SECRET} b"),
    lambda logger: logger.info("e", **{SECRET: 1}),
    lambda logger: logger.info("e", nested={"a": [{SECRET: (SECRET, {SECRET})}]}),
    lambda logger: logger.info("e", deep=[[[[[[[[SECRET]]]]]]]]),
    lambda logger: logger.info("e", raw=SECRET.encode()),
    lambda logger: logger.info("e", raw=[[[[[[b"it's " + SECRET.encode()]]]]]]),
    lambda logger: logger.info("e", error=ValueError(SECRET)),
    lambda logger: logger.info("e", thing={"value": ValueError(SECRET)}),
    lambda logger: logger.info("e", url=f"wss://h/?otp={quote(SECRET, safe='')}&x"),
    lambda logger: logger.info("e", form=quote_plus(SECRET)),
    lambda logger: logger.info("e", url=quote(SECRET, safe="").lower()),
    lambda logger: logger.info("e", header=base64.b64encode(f"user:{SECRET}".encode()).decode()),
    lambda logger: logger.info("e", token=base64.urlsafe_b64encode(SECRET.encode()).decode()),
    lambda logger: logger.info("e", body=json.dumps({"otp": SECRET})),
    lambda logger: logger.info("e", body=json.dumps({"otp": SECRET}, ensure_ascii=False)),
    lambda logger: logger.info("e", body=repr({"otp": SECRET})),
    raising,
    lambda logger: logging.getLogger("urllib3").warning("to %s", SECRET),
    lambda logger: raising(logging.getLogger("paho")),
    lambda logger: logging.getLogger("aiohttp").warning("x", stack_info=True, extra={"key": SECRET}),
    lambda logger: logging.getLogger("aiohttp").warning("bad %d", SECRET),
]


def leaks(text: str) -> list[str]:
    """The encodings of the secret that occur in the text, found by characteristic pieces."""
    pieces = [
        'w"ör',
        'w\\"ör',
        "w\\u00f6r",
        "ss w",
        "\\xc3\\xb6r",
        "%26ss",
        "%22%c3%b6",
        "w%22",
        "cCZzcy",
        "c3Mgdy",
        "zIHci",
        "MgdyL",
        "yB3Is",
    ]
    return [piece for piece in pieces if piece.lower() in text.lower()]


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_redacted_however_it_is_logged(
    way: Callable[[Any], None], style: str, out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    start(out, SECRET, style=style)

    way(get_logger("bridge.x"))

    captured = capsys.readouterr()
    assert leaks(out.getvalue() + captured.out + captured.err) == []


def test_only_the_secret_is_redacted(out: io.StringIO) -> None:
    start(out, SECRET)

    raising(get_logger("bridge.x"))

    (event,) = events(out)
    assert "ValueError: wss://host?otp=[redacted]" in event["exception"]
    assert "OSError: cause [redacted]" in event["exception"]


def test_a_secret_learnt_later_is_redacted_from_then_on(out: io.StringIO) -> None:
    start(out)

    register_secret("otp-12345")
    get_logger("bridge.x").info("e", url="wss://h?otp=otp-12345")

    assert events(out)[0]["url"] == "wss://h?otp=[redacted]"


def test_a_permanent_secret_outlasts_any_number_of_learnt_ones(out: io.StringIO) -> None:
    start(out)

    keep_secret("the-new-key")
    for number in range(MAX_LEARNT + 1):
        register_secret(f"otp-number-{number}")
    get_logger("bridge.x").info("e", key="the-new-key")

    assert events(out)[0]["key"] == "[redacted]"


def test_learnt_secrets_are_bounded_and_configured_ones_stay() -> None:
    redactor = Redactor(max_learnt=2)
    redactor.add(["fixed-secret"])
    for number in range(3):
        redactor.learn(f"otp-number-{number}")

    text = redactor.clean("fixed-secret otp-number-0 otp-number-1 otp-number-2")

    assert text == "[redacted] otp-number-0 [redacted] [redacted]"


def test_a_short_secret_is_redacted_as_a_word_only() -> None:
    redactor = Redactor()
    redactor.add(["a", ""])

    assert redactor.clean("a bad password=a") == "[redacted] bad password=[redacted]"


def test_the_longer_of_two_secrets_is_redacted_first() -> None:
    redactor = Redactor()
    redactor.add(["secret", "secret-with-tail"])

    assert redactor.clean("secret-with-tail secret") == "[redacted] [redacted]"


@given(secret=st.text(min_size=4, max_size=40), before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_a_secret_within_base64_is_redacted(secret: str, before: bytes, after: bytes) -> None:
    redactor = Redactor()
    redactor.add([secret])
    data = secret.encode()

    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + data + after).decode()
        assert "[redacted]" in redactor.clean(text)


@given(secret=st.text(min_size=4, max_size=40), text=st.text())
def test_a_secret_is_redacted_in_any_text(secret: str, text: str) -> None:
    redactor = Redactor()
    redactor.add([secret])

    cleaned = redactor.clean(f"{text}{secret}{text}")

    assert secret not in cleaned.replace("[redacted]", "\0")


# --- untrusted text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["json", "console"])
def test_untrusted_text_cannot_forge_a_line_or_control_a_terminal(style: str, out: io.StringIO) -> None:
    start(out, style=style)
    foreign = "a\n{}\r\x1b[2J\x07\u202e\u2028\x85\x00\ud800z"

    get_logger("bridge.x").warning("mqtt.odd", topic=foreign, **{"k\n": 1})
    logging.getLogger("paho").warning("%s", foreign)

    lines = out.getvalue().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[2J" in out.getvalue()


def test_untrusted_text_in_a_traceback_is_indented(out: io.StringIO) -> None:
    start(out, style="console")

    try:
        raise ValueError("bad\n2026-01-01 [info] forged\x1b[2J")
    except ValueError:
        get_logger("bridge.x").exception("e")

    assert "\n  2026-01-01 [info] forged\\x1b[2J" in out.getvalue()


@given(st.text())
def test_any_text_becomes_one_json_line(text: str) -> None:
    out = io.StringIO()
    start(out, level="info")

    get_logger("bridge.x").info("e", text=text)

    (event,) = events(out)
    assert event["text"].isprintable()
    assert event["text"] == text or not text.isprintable()


def test_unusual_values_can_be_logged(out: io.StringIO) -> None:
    start(out)
    loop: list[Any] = []
    loop.append(loop)

    get_logger("bridge.x").info("e", big=2**70, nan=float("nan"), loop=loop, raw=b"\xff", flag=True)

    (event,) = events(out)
    assert (event["big"], event["nan"], event["raw"], event["flag"]) == (str(2**70), None, "b'\\xff'", True)


def test_a_broken_stream_raises_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    start(out, SECRET)
    out.close()

    get_logger("bridge.x").error("e", text=SECRET)

    assert capsys.readouterr().err == ""
