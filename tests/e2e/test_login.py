"""Login with account and password instead of an API key; the tenant is not configured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, Process, wait_for
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


def test_a_wrong_password_is_reported_and_a_corrected_one_is_used_without_a_restart(
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


def test_check_names_the_account_of_the_login(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD=PASSWORD)

    shown = bridge.cli("check", "--online")
    assert shown.returncode == 0, shown.stdout
    assert "ok      login: accepted" in shown.stdout
    assert "ok      tenant: 'acme'" in shown.stdout


# --- tokens that expire ----------------------------------------------------------------------------------

Brief = Callable[[float], LocalGdn]


@pytest.fixture
def brief_gdn(tmp_path: Path) -> Iterator[Brief]:
    """Makes a GDN whose tokens are valid for the given number of seconds."""
    made: list[LocalGdn] = []

    def make(seconds: float) -> LocalGdn:
        made.append(LocalGdn(tmp_path, options=["--password", PASSWORD, "--token-seconds", f"{seconds:g}"]))
        return made[-1]

    yield make
    for far_end in made:
        far_end.end()


def start_with(bridge: Bridge, **constants: float) -> None:
    """Start it with other constants of ``bridge.gdn.login``: its defaults suit tokens that last hours."""
    changes = "; ".join(f"login.{name} = {value}" for name, value in constants.items())
    code = f"import sys; from bridge.gdn import login; from bridge.cli import main; {changes}; sys.exit(main(['run']))"
    bridge.process = Process([sys.executable, "-c", code], bridge.directory / "bridge.log", env=bridge.environment())


def stats(gdn: LocalGdn) -> dict[str, Any]:
    found: dict[str, Any] = gdn.call("GET", "/_local/stats")
    return found


def publish_until_logins(bridge: Bridge, mosquitto: Mosquitto, gdn: LocalGdn, logins: int) -> None:
    """Publish until that many logins were made. Nothing may fail meanwhile, and all rows must arrive."""
    published = 0
    deadline = time.monotonic() + 60
    while stats(gdn)["logins"] < logins:
        assert time.monotonic() < deadline, "no further login came"
        publish_all(mosquitto.port, [("devices/D/rooms/1/telemetry", b'{"temperature": 20.5}')])
        published += 1
        assert bridge.get("/readyz")[0] == 200
        time.sleep(0.2)
    wait_for(lambda: gdn.count() == published, what="the rows")


def test_a_token_is_renewed_before_it_expires_and_no_request_is_refused(
    mosquitto: Mosquitto, brief_gdn: Brief, make_bridge: MakeBridge
) -> None:
    gdn = brief_gdn(12)
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD=PASSWORD)
    begun = time.monotonic()
    start_with(bridge, SHORTEST=1.0)
    bridge.wait_ready()

    publish_until_logins(bridge, mosquitto, gdn, 3)

    assert stats(gdn)["unauthorized"] == 0
    assert stats(gdn)["logins"] <= 1 + (time.monotonic() - begun) / (0.75 * 12)


def test_a_token_refused_before_its_expiry_is_replaced_within_the_request(
    mosquitto: Mosquitto, brief_gdn: Brief, make_bridge: MakeBridge
) -> None:
    """GDN may revoke a token, or one of the clocks may be wrong."""
    gdn = brief_gdn(3)
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD=PASSWORD)
    begun = time.monotonic()
    start_with(bridge, FRESH=1.0)
    bridge.wait_ready()

    publish_until_logins(bridge, mosquitto, gdn, 4)

    found = stats(gdn)
    assert found["logins"] <= 1 + (time.monotonic() - begun) / 3
    assert found["unauthorized"] <= 2 * found["logins"]  # two threads may notice at the same time


def test_a_gdn_that_refuses_its_own_tokens_does_not_cause_repeated_logins(
    mosquitto: Mosquitto, brief_gdn: Brief, make_bridge: MakeBridge
) -> None:
    gdn = brief_gdn(1)
    bridge = with_password(mosquitto, gdn, make_bridge, BRIDGE_GDN__PASSWORD=PASSWORD)
    bridge.start()
    wait_for(lambda: "check gdn.email or gdn.username" in str(bridge.part("worker active")["error"]), what="the reason")

    until = time.monotonic() + 10
    while time.monotonic() < until:
        assert stats(gdn)["logins"] == 1
        time.sleep(0.5)
    assert stats(gdn)["unauthorized"] <= 12
