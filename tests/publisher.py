"""A publisher that is not the bottleneck: packets are encoded beforehand, PUBACKs are counted in batches."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable


def _string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(head: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([head]) + length + body


def publish_all(port: int, messages: Iterable[tuple[str, bytes]], *, seconds: float = 60.0, window: int = 500) -> float:
    """Publish at QoS 1 over MQTT 3.1.1 at full speed; returns the seconds it took until the last PUBACK.

    Raises:
        TimeoutError: the broker did not acknowledge everything in time.
    """
    packets = [
        _packet(0x32, _string(topic) + (n % 65535 + 1).to_bytes(2, "big") + payload)
        for n, (topic, payload) in enumerate(messages)
    ]
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    room = threading.Semaphore(window)
    acknowledged = 0
    done = threading.Event()

    def count() -> None:
        nonlocal acknowledged
        rest = b""
        while acknowledged < len(packets):
            try:
                data = sock.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            data = rest + data
            whole = len(data) // 4 * 4  # every PUBACK is four bytes
            rest = data[whole:]
            acknowledged += whole // 4
            room.release(whole // 4)
        done.set()

    with sock:
        client = _string(f"publisher-{time.monotonic_ns()}")
        sock.sendall(_packet(0x10, _string("MQTT") + b"\x04\x02\x00\x3c" + client))
        assert sock.recv(4) == b"\x20\x02\x00\x00"
        start = time.monotonic()
        threading.Thread(target=count, daemon=True).start()
        block = 50
        for at in range(0, len(packets), block):
            part = packets[at : at + block]
            for _ in part:
                if not room.acquire(timeout=seconds):
                    raise TimeoutError(f"only {acknowledged} of {len(packets)} messages were acknowledged")
            sock.sendall(b"".join(part))
        if packets and not done.wait(seconds):
            raise TimeoutError(f"only {acknowledged} of {len(packets)} messages were acknowledged")
        return time.monotonic() - start
