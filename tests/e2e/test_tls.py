"""TLS on both sides: a broker that requires a client certificate and a password, a GDN with its own authority."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from bridge.local.broker import free_port
from tests.conftest import Bridge, Mosquitto, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PASSWORD = "pa55-of-the-bridge"


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("bridge.test")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "server", "server_key", "client", "client_key")}
    authority.cert_pem.write_to_path(files["ca"])
    for name, issued in (("server", server), ("client", client)):
        issued.private_key_pem.write_to_path(files[f"{name}_key"])
        for blob in issued.cert_chain_pems:
            blob.write_to_path(files[name], append=True)
    # Mosquitto drops root's rights before it reads these.
    tmp_path.chmod(0o755)
    for file in files.values():
        Path(file).chmod(0o644)
    return files


@pytest.fixture
def broker(tmp_path: Path, certificates: dict[str, str]) -> Iterator[Mosquitto]:
    users = tmp_path / "users"
    users.touch()
    tool = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([tool, "-b", str(users), "bridge", PASSWORD], check=True, capture_output=True)
    users.chmod(0o644)
    broker = Mosquitto(
        tmp_path,
        "allow_anonymous false",
        f"password_file {users}",
        f"cafile {certificates['ca']}",
        f"certfile {certificates['server']}",
        f"keyfile {certificates['server_key']}",
        "require_certificate true",
        "user root",
    )
    yield broker
    broker.end()


def test_certificates_password_and_certificate_authorities_are_used_and_verified(
    broker: Mosquitto,
    secure_gdn: tuple[int, str],
    certificates: dict[str, str],
    make_bridge: Callable[..., Bridge],
) -> None:
    port, authority = secure_gdn
    bridge = make_bridge(
        mqtt_port=broker.port,
        gdn_url=f"https://localhost:{port}",
        BRIDGE_MQTT__URL=f"mqtts://localhost:{broker.port}",
        BRIDGE_MQTT__USERNAME="bridge",
        BRIDGE_MQTT__PASSWORD=PASSWORD,
        BRIDGE_MQTT__CA_FILE=certificates["ca"],
        BRIDGE_MQTT__CERT_FILE=certificates["client"],
        BRIDGE_MQTT__KEY_FILE=certificates["client_key"],
        BRIDGE_GDN__CA_FILE=authority,
    )
    process = bridge.start()
    bridge.wait_ready()

    files = ["--cafile", certificates["ca"], "--cert", certificates["client"], "--key", certificates["client_key"]]
    login = ["-h", "localhost", "-p", str(broker.port), "-u", "bridge", "-P", PASSWORD]
    reading = ["-q", "1", "-t", "devices/AD11/rooms/200/telemetry", "-m", '{"temperature": 18}']
    subprocess.run(["mosquitto_pub", *login, *files, *reading], check=True, timeout=20)

    query = "FOR d IN tutorialAppOutputTable RETURN d"
    wait_for(lambda: "200-AD11" in bridge.cli("query", query).stdout, what="the row")
    assert PASSWORD not in process.text()
    metrics = bridge.get("/metrics")[1]
    for link, certificate in (("mqtt", "own"), ("mqtt", "peer"), ("producer tutorialAppInputStream", "peer")):
        labels = f'{{certificate="{certificate}",link="{link}"}}'
        assert f"gdn_bridge_certificate_ends_timestamp_seconds{labels} " in metrics


def test_a_broker_certificate_from_another_authority_is_refused_with_the_reason(
    broker: Mosquitto, make_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(str(foreign))
    bridge = make_bridge(
        mqtt_port=broker.port,
        gdn_url=f"http://127.0.0.1:{free_port()}",
        BRIDGE_MQTT__URL=f"mqtts://localhost:{broker.port}",
        BRIDGE_MQTT__CA_FILE=str(foreign),
    )
    bridge.start()

    error = wait_for(lambda: bridge.part("mqtt")["error"], what="the refusal")
    assert "CERTIFICATE_VERIFY_FAILED" in error


def test_a_broker_that_requires_a_client_certificate_is_answered_with_the_setting(
    broker: Mosquitto, certificates: dict[str, str], make_bridge: Callable[..., Bridge]
) -> None:
    bridge = make_bridge(
        mqtt_port=broker.port,
        gdn_url=f"http://127.0.0.1:{free_port()}",
        BRIDGE_MQTT__URL=f"mqtts://localhost:{broker.port}",
        BRIDGE_MQTT__CA_FILE=certificates["ca"],
    )

    said = bridge.cli("check", "--online").stdout

    assert "If the broker requires a client certificate, set mqtt.cert_file and mqtt.key_file" in said
    assert "write mqtts://" not in said
