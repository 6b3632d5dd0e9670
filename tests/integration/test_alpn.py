"""``mqtt.alpn`` with real TLS servers: one that selects a protocol, one that refuses any other."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from bridge.errors import MqttUnavailable
from bridge.links.tls import Tls
from bridge.local.broker import free_port
from bridge.mqtt.link import MqttLink, MqttOptions, dial
from tests.conftest import Process, is_listening, wait_for

pytestmark = pytest.mark.integration

AWS = "x-amzn-mqtt-ca"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


def connect(port: int, ca_file: Path, alpn: str | None) -> MqttLink:
    options = MqttOptions(client_id="c", version=5, keepalive=30, session_expiry=60, receive_maximum=10)
    return dial(
        host="localhost", port=port, tls=Tls(ca_file, alpn=alpn), connect_timeout=10, options=options, filters=["a"]
    )


@pytest.mark.parametrize(("alpn", "selected"), [(AWS, AWS), ("mqtt", "mqtt"), (None, None)])
def test_the_protocol_is_offered_and_the_server_selects_it(
    tmp_path: Path, authority: trustme.CA, alpn: str | None, selected: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "mqtt", AWS])
    seen: list[str | None] = []

    def serve() -> None:
        with context.wrap_socket(listening.accept()[0], server_side=True) as accepted:
            seen.append(accepted.selected_alpn_protocol())

    with socket.create_server(("localhost", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        connect(listening.getsockname()[1], tmp_path / "ca.pem", alpn).sock.close()
        server.join()

    assert seen == [selected]


def test_a_server_that_refuses_the_protocol_is_an_error_that_names_the_setting(
    tmp_path: Path, authority: trustme.CA
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    port = free_port()
    command = [openssl, "s_server", "-accept", str(port), "-cert", str(tmp_path / "server.pem"), "-alpn", AWS, "-quiet"]
    server = Process(command, tmp_path / "server.log")
    try:
        wait_for(lambda: is_listening(port), what="the server")
        with pytest.raises(MqttUnavailable, match=r"Check mqtt\.alpn$"):
            connect(port, tmp_path / "ca.pem", "mqtt")
    finally:
        server.end()
