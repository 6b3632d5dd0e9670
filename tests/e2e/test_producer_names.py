"""Deduplication with far ends that refuse it: 400 for a first sequence number, 409 for a name that is still taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from tests.bench.acker import Acker
from tests.conftest import ROOT, Bridge, Mosquitto, wait_for
from tests.e2e.test_daemon import readings
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Reluctant(Acker):
    """Refuses upgrades with a sequence number: each with ``status``, or only the first ``times``."""

    def __init__(self, status: bytes, times: int | None = None) -> None:
        super().__init__((ROOT / "config" / "worker.sql").read_text())
        self.status = status
        self.left = times
        self.upgrades: list[bytes] = []

    def requests(self, sock: socket.socket) -> None:
        head = self.buffers[sock]
        if b"\r\n\r\n" in head and b"/v2/producer/" in head:
            self.upgrades.append(head.split(b" ", 2)[1])
            if b"initialSequenceId=" in head and self.left != 0:
                self.left = None if self.left is None else self.left - 1
                self.buffers[sock] = b""
                sock.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status)
                return
        super().requests(sock)


@pytest.fixture
def serve() -> Callable[..., Reluctant]:
    def make(status: bytes, times: int | None = None) -> Reluctant:
        far_end = Reluctant(status, times)
        threading.Thread(target=far_end.serve, daemon=True).start()
        return far_end

    return make


def test_a_far_end_that_refuses_sequence_numbers_gets_rows_at_least_once_and_one_warning_is_logged(
    mosquitto: Mosquitto, make_bridge: Callable[..., Bridge], serve: Callable[..., Reluctant]
) -> None:
    far_end = serve(b"400 Bad Request")
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url=f"http://127.0.0.1:{far_end.port}", BRIDGE_DELIVERY__DEDUPLICATE="true"
    )
    process = bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings(500))
    wait_for(lambda: bridge.books().get("delivered") == 500, what="the deliveries")

    assert len(far_end.payloads) == 500
    assert process.text().count('"producer.no_deduplication"') == 1
    assert b"producerName=gdn-bridge-" in far_end.upgrades[0]
    assert b"producerName" not in far_end.upgrades[1]


def test_a_pulsar_that_does_not_tell_its_partitions_gets_rows_and_a_warning_is_logged(
    mosquitto: Mosquitto, make_bridge: Callable[..., Bridge], serve: Callable[..., Reluctant]
) -> None:
    far_end = serve(b"400 Bad Request", times=0)
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=f"http://127.0.0.1:{far_end.port}",
        BRIDGE_GDN__KIND="pulsar",
        BRIDGE_DELIVERY__DEDUPLICATE="true",
    )
    process = bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings(20))
    wait_for(lambda: bridge.books().get("delivered") == 20, what="the deliveries")

    assert process.text().count('"producer.partitions_unknown"') == 1
    assert "/tutorialAppInputStream/partitions: 201, " in process.text()


def test_the_bridge_waits_for_a_producer_name_that_the_old_connection_still_holds(
    mosquitto: Mosquitto, make_bridge: Callable[..., Bridge], serve: Callable[..., Reluctant]
) -> None:
    far_end = serve(b"409 Conflict", times=3)
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url=f"http://127.0.0.1:{far_end.port}", BRIDGE_DELIVERY__DEDUPLICATE="true"
    )
    process = bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(500))
    wait_for(lambda: bridge.books().get("outbox") == 0 and bridge.books()["received"] >= 500, what="the deliveries")

    assert len(far_end.payloads) == 500
    assert len(far_end.upgrades) == 4
    assert len({upgrade.partition(b"&otp=")[0] for upgrade in far_end.upgrades}) == 1, "the same name and number"
    assert "HTTP 409" in process.text()
