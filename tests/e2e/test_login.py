"""An account with a password in an API key's place, and a tenant that nobody wrote down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]

PASSWORD = "correct horse"


@pytest.fixture
def gdn(tmp_path: Path) -> Iterator[LocalGdn]:
    far_end = LocalGdn(tmp_path, options=["--password", PASSWORD])
    yield far_end
    far_end.end()


def with_password(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, **settings: str) -> Bridge:
    """A bridge that has neither an API key nor a tenant."""
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, **settings)
    del bridge.settings["BRIDGE_GDN__API_KEY"]
    if "BRIDGE_GDN__USERNAME" not in settings:
        bridge.settings["BRIDGE_GDN__EMAIL"] = "root@acme.example"
        del bridge.settings["BRIDGE_GDN__TENANT"]
    return bridge


@pytest.mark.parametrize("authentication", ["otp", "header"])
@pytest.mark.parametrize("by", ["email", "username"])
def test_rows_arrive_with_one_login_for_all_requests(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, authentication: str, by: str
) -> None:
    user = {"BRIDGE_GDN__USERNAME": "root"} if by == "username" else {}
    bridge = with_password(
        mosquitto,
        gdn,
        make_bridge,
        BRIDGE_GDN__PASSWORD=PASSWORD,
        BRIDGE_GDN__AUTHENTICATION=authentication,
        **user,
    )
    process = bridge.start()
    bridge.wait_ready()
    publish_all(mosquitto.port, [("devices/D/rooms/1/telemetry", b'{"temperature": 20.5}')] * 20)
    wait_for(lambda: gdn.count() == 20, what="the rows")

    assert gdn.call("GET", "/_local/stats")["logins"] == 1
    assert PASSWORD not in process.text()
    assert "bearer" not in process.text()


def test_a_wrong_password_is_named_and_the_right_one_is_used_without_a_restart(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong battery")
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD_FILE=str(secret))
    process = bridge.start()
    wait_for(lambda: "Wrong credentials" in str(bridge.part("worker")["error"]), what="the reason")
    assert "wrong battery" not in process.text() + bridge.get("/readyz")[1]

    secret.write_text(PASSWORD)

    wait_for(lambda: bridge.readiness()["ready"], seconds=60, what="readiness")


def test_check_says_whose_the_login_is(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD=PASSWORD)

    shown = bridge.cli("check", "--online")
    assert shown.returncode == 0, shown.stdout
    assert "ok      login: taken" in shown.stdout
    assert "ok      tenant: 'acme'" in shown.stdout
