"""Notifications on a real socket, in the file system and in the abstract namespace."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from bridge.service import systemd
from bridge.service.systemd import ServiceManager

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("namespace", ["file system", "abstract"])
def test_a_datagram_arrives_and_a_full_queue_does_not_block_the_sender(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "SEND_TIMEOUT", 0.001)
    name = f"gdn-bridge-test-{time.monotonic_ns()}"
    bound, named = (f"\0{name}", f"@{name}") if namespace == "abstract" else (str(tmp_path / "n"),) * 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(bound)
        service = ServiceManager.from_environment({"NOTIFY_SOCKET": named})
        service.ready("connected")
        assert sock.recv(1000) == b"READY=1\nSTATUS=connected"

        begun = time.monotonic()
        for number in range(2000):  # more than any system queues
            service.status(str(number))

        assert time.monotonic() - begun < 30
