from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.log import keep_secret
from bridge.parts import PartStatus
from bridge.service.systemd import ServiceManager, status_text


class Manager:
    """A service manager: what it has received, its clock, and whether it reads."""

    def __init__(self, watchdog: float | None = None) -> None:
        self.received: list[str] = []
        self.reads = True
        self.now = 0.0
        self.client = ServiceManager(address="/run/notify", watchdog=watchdog, clock=lambda: self.now, send=self._take)

    def _take(self, data: bytes, address: str) -> None:
        assert address == "/run/notify"
        if not self.reads:
            raise TimeoutError("timed out")
        self.received.append(data.decode())


def test_ready_and_the_status_are_one_datagram() -> None:
    manager = Manager()

    manager.client.ready("connected")

    assert manager.received == ["READY=1\nSTATUS=connected"]


def test_a_stop_is_sent_with_its_reason_and_the_time_it_may_take() -> None:
    manager = Manager()

    manager.client.stopping("stopping: SIGTERM", within=15.0)

    assert manager.received == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=stopping: SIGTERM"]


def test_a_reload_is_sent_with_the_time_it_began() -> None:
    manager = Manager()
    before = time.monotonic_ns() // 1000

    manager.client.reloading()

    assignments = dict(line.split("=", 1) for line in manager.received[0].splitlines())
    assert (assignments["RELOADING"], assignments["STATUS"]) == ("1", "reloading")
    assert before <= int(assignments["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_a_status_is_sent_only_when_it_changes() -> None:
    manager = Manager()
    manager.client.ready("connected")

    for status in ("connected", "1 record waiting", "1 record waiting", "connected"):
        manager.client.status(status)

    assert manager.received[1:] == ["STATUS=1 record waiting", "STATUS=connected"]


def test_a_status_that_could_not_be_sent_is_sent_again() -> None:
    manager = Manager()

    manager.reads = False
    manager.client.status("connected")
    manager.reads = True
    manager.client.status("connected")

    assert manager.received == ["STATUS=connected"]


@pytest.mark.parametrize("stranger", ["\nMAINPID=1\nSTOPPING=1", "\r\0\x1b[2J\x85\u2028\u202e", "\ud800"])
def test_a_status_never_holds_a_second_assignment(stranger: str) -> None:
    manager = Manager()

    manager.client.ready(f"refused{stranger}")

    (datagram,) = manager.received
    first, second = datagram.split("\n")
    assert first == "READY=1"
    assert second.startswith("STATUS=refused")
    assert second.isprintable()


def test_the_longest_status_fits_into_the_datagram_that_systemd_reads() -> None:
    manager = Manager()

    manager.client.stopping("\N{GRINNING FACE}" * 5000, within=86_400)

    assert 1000 < len(manager.received[0].encode()) <= 4096


def test_no_secret_is_in_a_status() -> None:
    manager = Manager()
    keep_secret("notify-s3cr3t")

    manager.client.status("refused: notify-s3cr3t")

    assert manager.received == ["STATUS=refused: [redacted]"]


def test_pings_are_sent_at_half_the_interval() -> None:
    manager = Manager(watchdog=10.0)

    for second in range(21):
        manager.now = float(second)
        manager.client.ping(beat=manager.now)

    assert manager.received == ["WATCHDOG=1"] * 5  # at 0, 5, 10, 15, 20


def test_no_ping_is_sent_while_the_beat_does_not_change() -> None:
    manager = Manager(watchdog=10.0)
    manager.client.ping(beat=7.0)

    for second in range(1, 100):
        manager.now = float(second)
        manager.client.ping(beat=7.0)
    assert manager.received == ["WATCHDOG=1"]
    manager.client.ping(beat=8.0)
    assert manager.received == ["WATCHDOG=1"] * 2


def test_without_a_watchdog_no_ping_is_sent() -> None:
    manager = Manager()

    manager.client.ping(beat=1.0)

    assert manager.received == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "90000000"}, 45.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "42"}, 45.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_only_a_watchdog_for_this_process_gets_pings(environ: dict[str, str], expected: float | None) -> None:
    assert ServiceManager.from_environment(environ, pid=42)._ping_interval == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/run/systemd/notify", "/run/systemd/notify"),
        ("@abstract", "\0abstract"),
        ("", None),
        ("@", None),
        ("vsock:2:1234", None),
        ("relative", None),
    ],
)
def test_paths_and_names_in_the_abstract_namespace_are_addresses(address: str, expected: str | None) -> None:
    assert ServiceManager.from_environment({"NOTIFY_SOCKET": address})._address == expected


def test_without_a_manager_nothing_is_sent() -> None:
    sent: list[bytes] = []
    nobody = ServiceManager(address=None, watchdog=10.0, send=lambda data, _address: sent.append(data))

    nobody.ready("connected")
    nobody.ping(1.0)

    assert sent == []


def test_a_missing_manager_does_not_stop_the_daemon(tmp_path: Path) -> None:
    with capture_logs() as logs:
        ServiceManager.from_environment({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("connected")

    assert [entry["log_level"] for entry in logs] == ["warning"]


def part(name: str, state: str, error: str | None = None) -> PartStatus:
    return PartStatus(name, state, 0.0, error, None)  # type: ignore[arg-type]


def test_the_status_text_names_the_parts_that_are_not_connected_and_why() -> None:
    parts = [part("outbox", "connected"), part("mqtt", "waiting", "refused"), part("worker", "starting")]

    text = status_text(parts, waiting=12)

    assert text == "not connected; 12 records waiting; mqtt: waiting (refused); worker: starting"


def test_the_status_text_of_a_bridge_that_works_is_short() -> None:
    parts = [part("outbox", "connected"), part("mqtt", "connected")]

    assert status_text(parts, waiting=0) == "connected; no records waiting"
    assert status_text(parts, waiting=1) == "connected; 1 record waiting"


def test_a_refused_reload_comes_first_in_the_status_text() -> None:
    text = status_text([part("mqtt", "connected")], waiting=0, refused="routes[0]: no such stream")

    assert text == "the last reload was refused: routes[0]: no such stream; connected; no records waiting"
