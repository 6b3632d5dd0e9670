"""``gdn-bridge explain`` and ``gdn-bridge test``, for people who write routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli import main

SETTINGS = """
[mqtt]
url = "mqtt://127.0.0.1"
client_id = "b1"
[gdn]
url = "https://gdn.example"
api_key = "t.k.s"
tenant = "t"
[worker]
definition = "worker.sql"

[[routes]]
topic = "rooms/{room}"
stream = "readings"
when = "t != null"
fields = { t = { source = "t", scale = 0.1 }, who = "$client" }
key = "{room}"
"""
WORKER = """@App:name('w') @App:qlVersion("2")
CREATE STREAM readings (room int, t double, who string);
CREATE STREAM kept (x string);
INSERT INTO kept SELECT * FROM readings;
"""
EXAMPLE = """
[[routes.test]]
topic = "rooms/7"
payload = { t = 215 }
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, settings: str = SETTINGS) -> tuple[int, str, str]:
        (tmp_path / "worker.sql").write_text(WORKER)
        (tmp_path / "bridge.toml").write_text(settings)
        exit_code = main([arguments[0], "--config", str(tmp_path / "bridge.toml"), *arguments[1:]])
        told = capsys.readouterr()
        return exit_code, told.out, told.err

    return run


def test_explain_prints_each_step_and_the_row(run: Run) -> None:
    exit_code, out, _ = run("explain", "rooms/7", '{"t": 215, "x": "\\u001b[2J"}')

    assert exit_code == 0
    for line in (
        "routes[0] rooms/{room}: matches, room = '7'",
        'decoded as json: {"t":215,"x":"\\u001b[2J"}',
        "when t != null: true for 1 of 1",
        "room <- the topic: 7",
        't <- "t", scale 0.1: 21.5',
        'who <- "$client": "b1"',
        'row for readings: {"room":7,"t":21.5,"who":"b1"}, with "key":"7"',
    ):
        assert line in out


@pytest.mark.parametrize(
    ("topic", "payload", "exit_code", "line"),
    [
        ("other", "{}", 1, "dead letter, no_route: no route matches this topic"),
        ("rooms/7", "{", 1, "dead letter, not_json: "),
        ("rooms/7", "{}", 0, "no row: no route's condition (when) is true for it"),
        ("rooms/x", '{"t": 1}', 1, "dead letter, type_mismatch: column room"),
    ],
)
def test_explain_says_why_there_is_no_row(run: Run, topic: str, payload: str, exit_code: int, line: str) -> None:
    found, out, _ = run("explain", topic, payload)

    assert found == exit_code
    assert line in out


def test_explain_names_the_elements_that_no_route_takes(run: Run) -> None:
    elements = [{"t": 1}, *({"x": n} for n in range(22))]

    exit_code, out, _ = run("explain", "rooms/7", json.dumps(elements))

    assert exit_code == 0
    assert 'no row for element {"x":19}: no route\'s condition (when) is true for it' in out
    assert '{"x":20}: no route' not in out
    assert "2 more of these; 22 elements counted as dropped, filtered" in out
    assert json.loads(run("explain", "rooms/7", json.dumps(elements), "--json")[1])["filtered"] == 22


def test_explain_names_members_that_no_route_takes_and_says_what_is_held_back(run: Run) -> None:
    members = SETTINGS.replace('when = "t != null"', 'when = "t != null"\neach = "*"\nevery = "10s"')

    exit_code, out, _ = run("explain", "rooms/7", '{"a": {"t": 1}, "b": {"x": 2}}', settings=members)

    assert exit_code == 0
    assert "every 10s: held back within this time unless one changes: room, t, who" in out
    assert "no row for each *, element 'b' {\"x\":2}: no route's condition (when) is true for it" in out
    assert "1 element counted as dropped, filtered" in out


def test_explain_says_why_a_message_goes_on_to_the_next_route(run: Run) -> None:
    passing = SETTINGS.replace('when = "t != null"', 'when = "t != null"\non_unreadable = "next"')

    exit_code, out, _ = run("explain", "rooms/7", "offline", settings=passing)

    assert exit_code == 1
    assert "goes on to the next route: " in out
    assert "dead letter, not_json: " in out


def test_explain_shows_what_earlier_routes_have_taken(run: Run) -> None:
    second = """
[[routes]]
topic = "rooms/{room}"
stream = "readings"
fields = { t = "x", who = "=second" }
"""
    exit_code, out, _ = run("explain", "rooms/7", '[{"t": 1}, {"x": 2}]', settings=SETTINGS + second)

    assert exit_code == 0
    assert "1 of them taken by earlier routes" in out
    assert 'row for readings: {"room":7,"t":2.0,"who":"second"}' in out


def test_explain_takes_files_and_prints_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b'[{"t": 1}, {"t": 2}]')

    exit_code, out, _ = run("explain", "rooms/7", f"@{tmp_path / 'payload'}", "--json")

    assert exit_code == 0
    assert [row["row"]["t"] for row in json.loads(out)["rows"]] == [0.1, 0.2]
    assert run("explain", "rooms/7", "@missing")[0] == 78


def test_examples_with_the_expected_result_pass(run: Run) -> None:
    exit_code, out, _ = run(
        "test",
        settings=f'{SETTINGS}{EXAMPLE}expect = {{ room = 7, t = 21.5, who = "b1" }}\n{EXAMPLE}expect = [{{ room = 7, '
        f't = 21.5, who = "b1" }}]\n[[routes.test]]\ntopic = "x"\npayload = ""\nexpect = "no_route"\n',
    )

    assert (exit_code, out) == (0, "3 of 3 examples pass\n")


@pytest.mark.parametrize(
    "expect",
    ['{ room = 7, t = 21.5, who = "b2" }', "{ room = 7, t = 21.5 }", "[]", '"type_mismatch"', "true"],
)
def test_an_example_with_another_result_fails_with_a_diff_and_its_place(run: Run, expect: str, tmp_path: Path) -> None:
    exit_code, out, _ = run("test", settings=f"{SETTINGS}{EXAMPLE}expect = {expect}\n")

    assert exit_code == 1
    assert f"FAILED {tmp_path / 'bridge.toml'}:19: routes[0].test[0]" in out
    assert "--- expected" in out
    assert "0 of 1 examples" in out


def test_examples_distinguish_1_from_true(run: Run) -> None:
    settings = SETTINGS.replace('"$client"', '"=x"').replace("scale = 0.1", "scale = 1")

    assert (
        run(
            "test",
            settings=f'{settings}\n[[routes.test]]\ntopic = "rooms/1"\npayload = {{t = 1}}\n'
            'expect = { room = true, t = 1, who = "x" }\n',
        )[0]
        == 1
    )


def test_without_examples_the_command_explains_how_to_write_them(run: Run) -> None:
    exit_code, out, _ = run("test")

    assert exit_code == 0
    assert "[[routes.test]]" in out


def test_a_payload_that_isnt_base64_is_reported_with_its_place(run: Run) -> None:
    exit_code, _, err = run(
        "test", settings=f'{SETTINGS}{EXAMPLE}encoding = "base64"\nexpect = []\n'.replace("{ t = 215 }", '"?"')
    )

    assert exit_code == 78
    assert "routes[0].test[0]: payload is not base64" in err
