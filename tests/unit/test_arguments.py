"""Arguments of the command line: their bounds, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from bridge.cli import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1", "x", "", "8e3", "9" * 5000])
def test_a_wrong_port_of_the_local_gdn_is_answered_with_the_range(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "argument --port: must be a whole number from 0 to 65535" in refusal(capsys, "local-gdn", f"--port={port}")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "1e9999"])
@pytest.mark.parametrize(
    ("verb", "option", "least"),
    [
        (("demo",), "--seconds", "0.1"),
        (("demo",), "--rate", "0.1"),
        (("devices",), "--rate", "0.1"),
        (("local-gdn", "--port", "1"), "--token-seconds", "1"),
        (("init",), "--seconds", "0.1"),
    ],
)
def test_a_number_out_of_bounds_is_answered_with_the_bounds(
    verb: tuple[str, ...], option: str, least: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"argument {option}: must be a number from {least} to " in refusal(capsys, *verb, f"{option}={value}")


def test_the_number_of_a_dead_letter_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a whole number from 1 to" in refusal(capsys, "deadletter", "show", "0")


def test_purging_everything_by_mistake_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deadletter", "purge"]) == 2

    assert "use --all" in capsys.readouterr().err
