"""An HTTP proxy on the way to GDN: a real one, which writes down what it is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import Bridge, LocalGdn, Mosquitto, Process, is_listening, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PASSWORD = "pa55-of-the-proxy"

MakeBridge = Callable[..., Bridge]


class Tinyproxy(Process):
    """Lets through whoever knows the password, to any port."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("tinyproxy", path="/usr/bin:/usr/sbin:/usr/local/bin")
        if program is None:
            pytest.skip("tinyproxy is not installed")
        self.port = free_port()
        config = directory / "tinyproxy.conf"
        config.write_text(
            f"Port {self.port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nLogLevel Connect\n"
            f"BasicAuth bridge {PASSWORD}\n"
        )
        super().__init__([program, "-d", "-c", str(config)], directory / "tinyproxy.log")
        wait_for(lambda: is_listening(self.port), what="the proxy")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Tinyproxy]:
    proxy = Tinyproxy(tmp_path)
    yield proxy
    proxy.end()


def test_requests_and_producer_go_through_the_proxy_with_tls_to_gdn(
    mosquitto: Mosquitto, proxy: Tinyproxy, secure_gdn: tuple[int, str], make_bridge: MakeBridge
) -> None:
    port, authority = secure_gdn
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=f"https://localhost:{port}",
        BRIDGE_GDN__CA_FILE=authority,
        BRIDGE_GDN__PROXY=f"http://bridge:{PASSWORD}@127.0.0.1:{proxy.port}",
    )
    process = bridge.start()
    bridge.wait_ready()
    publish_all(mosquitto.port, [("devices/AD11/rooms/200/telemetry", b'{"temperature": 18}')])
    query = "FOR d IN tutorialAppOutputTable RETURN d"
    wait_for(lambda: "200-AD11" in bridge.cli("query", query).stdout, what="the row")
    assert process.terminate() == 0

    asked = [line for line in proxy.text().splitlines() if f"CONNECT localhost:{port}" in line]
    assert len(asked) >= 2, "one for requests, one for the producer"
    assert PASSWORD not in process.text()


def test_plain_requests_go_through_the_proxy_too(
    mosquitto: Mosquitto, proxy: Tinyproxy, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    url = f"http://bridge:{PASSWORD}@127.0.0.1:{proxy.port}"
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_GDN__PROXY=url)

    answer = bridge.cli("query", "RETURN 1")

    assert (answer.returncode, answer.stdout.strip()) == (0, "[1]")
    assert "_fabric/_system/_api/cursor" in proxy.text()


@pytest.mark.parametrize("form", ["http://bridge:wrong@127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_proxy_that_refuses_the_password_is_named_and_the_setting_too(
    mosquitto: Mosquitto, proxy: Tinyproxy, secure_gdn: tuple[int, str], make_bridge: MakeBridge, form: str
) -> None:
    port, authority = secure_gdn
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=f"https://localhost:{port}",
        BRIDGE_GDN__CA_FILE=authority,
        BRIDGE_GDN__PROXY=form.format(proxy.port),
    )

    answer = bridge.cli("query", "RETURN 1")

    assert answer.returncode == 69
    assert f"the proxy 127.0.0.1:{proxy.port}" in answer.stderr
    assert "gdn.proxy" in answer.stderr
    assert "wrong" not in answer.stderr


def test_check_names_a_proxy_that_is_away(mosquitto: Mosquitto, make_bridge: MakeBridge) -> None:
    port = free_port()
    bridge = make_bridge(
        mqtt_port=mosquitto.port, gdn_url="https://gdn.test", BRIDGE_GDN__PROXY=f"http://127.0.0.1:{port}"
    )

    answer = bridge.cli("check", "--online")

    assert answer.returncode == 69
    assert f"the proxy 127.0.0.1:{port}" in answer.stdout
