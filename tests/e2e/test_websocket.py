"""The daemon and its commands over ``wss://``, with a Mosquitto that takes MQTT over WebSocket with TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.publish as paho
import pytest
import trustme

from bridge.local.broker import free_port
from tests.conftest import Bridge, LocalGdn, Mosquitto, is_listening, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Mosquitto, int, Path]]:
    """A Mosquitto, its port for WebSocket with TLS, and the certificate of its authority."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "server", "key"))
    authority.cert_pem.write_to_path(str(ca))
    server.cert_chain_pems[0].write_to_path(str(cert))
    server.private_key_pem.write_to_path(str(key))
    port = free_port()
    broker = Mosquitto(
        tmp_path,
        "allow_anonymous true",
        f"listener {port} 127.0.0.1",
        "protocol websockets",
        "socket_domain ipv4",
        f"certfile {cert}",
        f"keyfile {key}",
        "user root",
    )
    wait_for(lambda: is_listening(port), what="the listener for WebSocket")
    yield broker, port, ca
    broker.end()


def test_messages_come_over_wss_and_the_session_outlasts_a_restart(
    secure: tuple[Mosquitto, int, Path], gdn: LocalGdn, make_bridge: Callable[..., Bridge]
) -> None:
    broker, port, ca = secure
    nowhere = free_port()
    bridge = make_bridge(
        mqtt_port=broker.port,
        gdn_url=gdn.url,
        BRIDGE_MQTT__URL=f"wss://localhost:{nowhere}/mqtt,wss://localhost:{port}/mqtt",
        BRIDGE_MQTT__CA_FILE=str(ca),
    )
    process = bridge.start()
    bridge.wait_ready()
    publish_all(broker.port, [(f"devices/A/rooms/{n}/telemetry", b'{"temperature":1}') for n in range(1000)], window=50)
    wait_for(lambda: gdn.count() == 1000, what="1000 rows")
    process.terminate()

    publish_all(broker.port, [("devices/B/rooms/1/telemetry", b'{"temperature":2}')])
    process = bridge.start()
    wait_for(lambda: gdn.count() == 1001, what="the row of the message that was published meanwhile")

    online = bridge.cli("check", "--online")
    assert online.returncode == 0, online.stdout + online.stderr
    assert f"ok      broker localhost:{port}: connected with TLS" in online.stdout
    assert "granted at QoS 1" in online.stdout
    assert bridge.cli("healthcheck").returncode == 0
    assert process.terminate() == 0


def test_init_takes_its_samples_over_websocket(tmp_path: Path, make_bridge: Callable[..., Bridge]) -> None:
    port = free_port()
    lines = ["allow_anonymous true", f"listener {port} 127.0.0.1", "protocol websockets", "socket_domain ipv4"]
    broker = Mosquitto(tmp_path, *lines)
    made = tmp_path / "made"
    try:
        wait_for(lambda: is_listening(port), what="the listener for WebSocket")
        paho.single("site/1/t", b'{"temperature":1.5}', retain=True, hostname="127.0.0.1", port=broker.port)
        bridge = make_bridge(mqtt_port=broker.port, gdn_url="http://127.0.0.1:1")
        url = f"ws://127.0.0.1:{port}/mqtt"
        ended = bridge.cli("init", str(made), "--from-topic", "site/+/t", "--broker", url, "--seconds", "1")
    finally:
        broker.end()

    assert ended.returncode == 0, ended.stderr
    assert f'url = "{url}"' in (made / "bridge.toml").read_text()
