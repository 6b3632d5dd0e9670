"""A slow link to a real Mosquitto, which sends a session's backlog before it answers SUBSCRIBE."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from bridge.mqtt.link import MqttLink, MqttOptions, dial
from tests.conftest import Mosquitto
from tests.integration.test_mqtt_link import publish, run

pytestmark = pytest.mark.integration

PATIENCE = 1.0
"""Seconds, in place of ``ANSWER_TIMEOUT``; each backlog below takes three times as long."""


@contextmanager
def throttled(port: int, rate: int) -> Iterator[int]:
    """The port of a proxy in front of ``port`` that passes on at most ``rate`` bytes a second to its one client."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as broker:
            upstream = threading.Thread(target=pump, args=(client, broker, 65536, 0.0))
            upstream.start()
            pump(broker, client, rate // 50, 1 / 50)
            client.shutdown(socket.SHUT_RDWR)
            upstream.join()

    def pump(source: socket.socket, target: socket.socket, size: int, pause: float) -> None:
        source.settimeout(0.1)
        while not stop.wait(pause):
            try:
                data = source.recv(size)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            target.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        listener.close()


def connected(port: int, version: int) -> MqttLink:
    options = MqttOptions(client_id="b", version=version, keepalive=30, session_expiry=600, receive_maximum=100)
    return dial(host="127.0.0.1", port=port, tls=None, connect_timeout=5, options=options, filters=["a/+"], known=[])


@pytest.mark.parametrize(("version", "rate", "count", "size"), [(4, 100_000, 15, 20_000), (5, 40_000, 1, 120_000)])
def test_a_backlog_that_takes_longer_than_the_answer_timeout_arrives(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, version: int, rate: int, count: int, size: int
) -> None:
    with closing(connected(mosquitto.port, version)) as first:
        run(first, lambda _: first.subscribed)
    publish(mosquitto.port, *[("a/1", "x" * size)] * count)
    for module in ("link", "silence"):
        monkeypatch.setattr(f"bridge.mqtt.{module}.ANSWER_TIMEOUT", PATIENCE)

    with throttled(mosquitto.port, rate) as port, closing(connected(port, version)) as link:
        begin = time.monotonic()
        messages = run(link, lambda messages: len(messages) == count and link.subscribed)

    assert time.monotonic() - begin > 2 * PATIENCE, "else this test proves nothing"
    assert [len(message.payload) for message in messages] == [size] * count
