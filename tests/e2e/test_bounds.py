"""The outbox at its bounds, on a full disk, locked, damaged: the daemon as a process, a real broker, a real file."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge.local.broker import free_port
from tests.conftest import Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.e2e.test_daemon import distinct_rows, expected_rows, readings, wait_delivered
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]
COUNT = 12_000
"""More than the bound and one full read of 256 KiB: on a busy machine messages wait in the socket."""
SMALL = str(1 << 20)


def outbox(bridge: Bridge) -> dict[str, Any]:
    return dict(bridge.readiness().get("outbox") or {})


def away() -> str:
    """A GDN that can't be reached."""
    return f"http://127.0.0.1:{free_port()}"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def padded(count: int) -> list[tuple[str, bytes]]:
    """Messages whose rows take some 190 bytes each in the outbox: 12,000 are well over 2 MiB."""
    return [(topic.replace("AD11", "A" * 60), payload) for topic, payload in readings(count)]


def padded_rows(gdn: LocalGdn) -> set[int]:
    return {int(row.partition("-")[0]) for row in distinct_rows(gdn)}


def test_a_full_outbox_leaves_messages_with_the_broker_until_it_has_room(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    url = away()
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_OUTBOX__MAX_BYTES=SMALL)
    bridge.start()
    bridge.wait_subscribed()

    publish_all(mosquitto.port, padded(COUNT))
    wait_for(lambda: outbox(bridge).get("holding"), what="the hold")

    assert "outbox.max_bytes" in outbox(bridge)["holding"]
    assert bridge.part("mqtt")["state"] == "waiting"
    assert "the outbox is full" in bridge.part("mqtt")["error"]
    assert "gdn_bridge_holding 1.0" in bridge.get("/metrics")[1]
    # One read may exceed the bound.
    assert int(SMALL) <= outbox(bridge)["bytes"] < 2 * int(SMALL)
    assert bridge.books()["received"] < COUNT

    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        # Distinct: messages acknowledged while the bridge was leaving may be redelivered.
        wait_for(lambda: len(padded_rows(gdn)) >= COUNT, seconds=90, what="all rows")

        assert padded_rows(gdn) == set(range(COUNT))
        wait_for(lambda: bridge.books()["outbox"] == 0, what="an empty outbox")
        assert bridge.books()["dropped"] == 0
        assert bridge.books()["balanced"]
        # The last receipts empty the outbox; the hold ends in the turn after them.
        wait_for(lambda: outbox(bridge)["holding"] is None, what="the hold to end")
    finally:
        gdn.end()


def test_with_drop_oldest_the_newest_rows_arrive_and_every_drop_is_counted(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    url = away()
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_OUTBOX__MAX_BYTES=SMALL, BRIDGE_OUTBOX__FULL="drop_oldest"
    )
    bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, padded(COUNT))
    wait_for(lambda: bridge.books().get("received") == COUNT, what="all messages received")
    wait_for(lambda: outbox(bridge)["bytes"] < int(SMALL), what="rows dropped to make room")
    dropped = bridge.books()["dropped"]
    assert dropped > 0

    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        wait_for(lambda: bridge.books()["outbox"] == 0, seconds=90, what="an empty outbox")
        wait_for(lambda: gdn.count() == COUNT - dropped, what="the rows")

        assert padded_rows(gdn) == set(range(dropped, COUNT))
        assert bridge.books()["balanced"]
        assert f'gdn_bridge_dropped_total{{reason="outbox_full"}} {dropped}.0' in bridge.get("/metrics")[1]
    finally:
        gdn.end()


def test_with_reject_new_the_oldest_rows_arrive_and_every_rejection_is_counted(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    url = away()
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_OUTBOX__MAX_BYTES=SMALL, BRIDGE_OUTBOX__FULL="reject_new"
    )
    bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, padded(COUNT))
    wait_for(lambda: bridge.books().get("received") == COUNT, what="all messages received")
    dropped = bridge.books()["dropped"]
    assert dropped > 0

    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        wait_for(lambda: bridge.books()["outbox"] == 0, seconds=90, what="an empty outbox")

        # A row comes out later than its receipt.
        wait_for(lambda: len(padded_rows(gdn)) >= COUNT - dropped, what="the rows")
        assert padded_rows(gdn) == set(range(COUNT - dropped))
        assert bridge.books()["balanced"]
    finally:
        gdn.end()


def test_a_backlog_is_sent_at_the_limited_rate_and_the_limit_is_named_as_the_cause(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    url, count, rate = away(), 3000, 20
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_DELIVERY__MAX_RATE_ROWS=str(rate))
    bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(count))
    wait_for(lambda: bridge.books().get("outbox") == count, what="the backlog")
    assert outbox(bridge)["rate_limited"] == [], "GDN is away"

    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        wait_for(lambda: outbox(bridge)["rate_limited"] == ["tutorialAppInputStream"], what="the limit")
        begun, before = time.monotonic(), bridge.books()["delivered"]
        assert "delivery.max_rate_rows" in bridge.cli("status").stdout
        assert 'gdn_bridge_rate_limited{stream="tutorialAppInputStream"} 1.0' in bridge.get("/metrics")[1]
        wait_for(lambda: bridge.books()["delivered"] >= before + 2 * rate, what="two seconds' rows")

        delivered = bridge.books()["delivered"] - before
        # A row that was sent before `begun` counts as delivered only once its receipt is committed.
        assert delivered <= rate * (time.monotonic() - begun + 0.25) + rate, "after a burst of a second"
    finally:
        gdn.end()


def test_rows_that_wait_too_long_are_dropped_as_expired(mosquitto: Mosquitto, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url=away(), BRIDGE_OUTBOX__MAX_AGE="2", BRIDGE_OUTBOX__FULL="drop_oldest"
    )
    bridge.start()
    bridge.wait_subscribed()

    publish_all(mosquitto.port, readings(50))
    wait_for(lambda: bridge.books().get("dropped") == 50, what="the rows to expire")

    assert 'gdn_bridge_dropped_total{reason="expired"} 50.0' in bridge.get("/metrics")[1]
    assert bridge.books()["balanced"]


@pytest.mark.parametrize(("count", "small_disk"), [(120_000, 24 << 10), (8_000, 2 << 10)], indirect=["small_disk"])
def test_on_a_full_disk_the_bridge_holds_still_delivers_and_resumes(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path, small_disk: Path, count: int
) -> None:
    url = away()
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_OUTBOX__PATH=str(small_disk / "outbox.db"))
    process = bridge.start()
    bridge.wait_subscribed()
    has_whole_reserve = count == 120_000
    assert has_whole_reserve == (bridge.part("outbox")["error"] is None)
    assert has_whole_reserve or "the reserve has 1048576 of 8388608 bytes" in bridge.part("outbox")["error"]

    publish_all(mosquitto.port, padded(count))
    wait_for(lambda: outbox(bridge).get("holding"), seconds=60, what="the hold")
    wait_for(lambda: bridge.part("outbox")["state"] == "failing", what="the error")
    assert "disk" in bridge.part("outbox")["error"]

    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        wait_for(lambda: gdn.count() >= count and len(padded_rows(gdn)) >= count, seconds=120, what="all rows")

        assert padded_rows(gdn) == set(range(count))
        wait_for(lambda: bridge.books()["outbox"] == 0, what="an empty outbox")
        assert bridge.books()["dropped"] == 0
        assert bridge.books()["balanced"]
        assert bridge.peak_memory() < 150 << 20
        assert process.is_running, "a full disk is a state, not a crash"
    finally:
        gdn.end()


def test_an_outbox_locked_by_another_program_delays_messages_and_loses_none(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    blocker = sqlite3.connect(bridge.settings["BRIDGE_OUTBOX__PATH"], isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    publish_all(mosquitto.port, readings(500))
    wait_for(lambda: "locked" in (bridge.part("outbox")["error"] or ""), what="the lock to be noticed")
    assert bridge.books()["received"] == 0
    blocker.execute("ROLLBACK")
    blocker.close()
    wait_delivered(bridge, gdn, 500)

    assert distinct_rows(gdn) == expected_rows(500)
    assert process.is_running


def test_a_start_waits_for_a_locked_outbox(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    path = bridge.settings["BRIDGE_OUTBOX__PATH"]
    bridge.start()
    bridge.wait_ready()
    assert bridge.process is not None
    bridge.process.kill()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    process = bridge.start()
    wait_for(lambda: process.text().count("outbox.unavailable"), what="the lock to be noticed")
    blocker.execute("ROLLBACK")
    blocker.close()

    bridge.wait_ready()


LOCKED_ONCE_OPEN = """
import sqlite3, sys, threading
from bridge import cli
from bridge.outbox import Outbox

original = Outbox.open

def open_and_lock(self):
    original(self)
    other = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(3, other.close).start()

Outbox.open = open_and_lock
sys.exit(cli.main(["run"]))
"""


def test_an_outbox_that_is_locked_once_it_is_open_is_waited_for_at_the_start(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    log = bridge.directory / "locked.log"
    bridge.process = Process([sys.executable, "-c", LOCKED_ONCE_OPEN], log, env=bridge.environment())

    bridge.wait_ready()

    assert "outbox.unavailable" in bridge.process.text()


def test_damage_that_is_found_only_after_the_outbox_was_opened_is_rescued(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    """In a table that isn't read when the outbox is opened, of a file that was closed cleanly and so isn't checked."""
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=away())
    bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(100))
    wait_for(lambda: bridge.books().get("outbox") == 100, what="the records")
    assert bridge.process is not None
    bridge.process.terminate()
    path = Path(bridge.settings["BRIDGE_OUTBOX__PATH"])
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'handed_over'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    bridge.settings["BRIDGE_GDN__URL"] = gdn.url

    process = bridge.start()
    wait_delivered(bridge, gdn, 100)

    assert "outbox.rescued" in process.text()
    assert bridge.books()["balanced"]


def test_sigterm_stops_a_bridge_that_waits_for_its_outbox(mosquitto: Mosquitto, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=away())
    path = bridge.settings["BRIDGE_OUTBOX__PATH"]
    sqlite3.connect(path).close()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("PRAGMA journal_mode = WAL")
    blocker.execute("BEGIN IMMEDIATE")
    process = bridge.start()
    wait_for(lambda: "outbox.unavailable" in process.text(), what="the lock to be noticed")

    begun = time.monotonic()
    assert process.terminate() == 0
    assert time.monotonic() - begun < 3
    blocker.close()


def test_a_damaged_outbox_is_rescued_at_the_next_start_and_the_loss_is_logged(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    url = away()
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=url)
    process = bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(5000))
    wait_for(lambda: bridge.books().get("outbox") == 5000, what="the records")
    process.kill()
    path = Path(bridge.settings["BRIDGE_OUTBOX__PATH"])
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("r+b") as file:
        file.seek(30 * 4096)
        file.write(b"\xff" * 3 * 4096)

    again = bridge.start()
    bridge.wait_subscribed()
    books = bridge.books()
    (line,) = [json.loads(line) for line in again.text().splitlines() if '"outbox.rescued"' in line]
    gdn = LocalGdn(tmp_path, port_of(url))
    try:
        assert 0 < books["dropped"] < 500
        assert books["balanced"]
        assert line["lost"] == books["dropped"]
        assert Path(line["kept_at"]).exists()
        wait_delivered(bridge, gdn, 5000 - books["dropped"])
        assert distinct_rows(gdn) <= expected_rows(5000)
        assert len(distinct_rows(gdn)) == 5000 - books["dropped"]
    finally:
        gdn.end()


def test_a_loss_whose_size_is_unknown_shows_in_log_readiness_status_and_metrics(
    mosquitto: Mosquitto, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=away())
    process = bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(100))
    wait_for(lambda: bridge.books().get("outbox") == 100, what="the records")
    process.kill()
    path = Path(bridge.settings["BRIDGE_OUTBOX__PATH"])
    path.write_bytes(b"")
    Path(f"{path}-wal").unlink()

    again = bridge.start()
    bridge.wait_subscribed()

    (line,) = [json.loads(line) for line in again.text().splitlines() if '"outbox.rescued"' in line]
    assert line["lost"].startswith("unknown")
    part, books = bridge.part("outbox"), bridge.books()
    assert part["state"] == "connected"
    assert "how many is unknown" in part["error"]
    assert (books["unknown_losses"], books["balanced"]) == (1, False)
    metrics = bridge.get("/metrics")[1]
    assert "gdn_bridge_unknown_losses_total 1.0" in metrics
    assert "gdn_bridge_books_balanced 0.0" in metrics
    assert "gdn_bridge_outbox_failing 0.0" in metrics
    shown = bridge.cli("status")
    assert "records were lost, how many is unknown" in shown.stdout


def test_replacing_the_outbox_file_while_the_daemon_runs_stops_it(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    path = Path(bridge.settings["BRIDGE_OUTBOX__PATH"])
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").rename(f"{path}{suffix}.moved")
    path.write_bytes(b"")

    assert process.wait(10) == 1
    assert "was moved, deleted or replaced" in process.text()
    publish_all(mosquitto.port, readings(10))
    bridge.start()
    wait_delivered(bridge, gdn, 10)
