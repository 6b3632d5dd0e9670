"""The Debian package and the systemd unit, in a booted machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import API_KEY, ROOT, TENANT, Bridge, LocalGdn, Mosquitto, wait_for
from tests.deploy.conftest import block, missing
from tests.deploy.machine import Machine, make_tree
from tests.e2e.test_daemon import distinct_rows, expected_rows, readings
from tests.publisher import publish_all

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

UNIT = "gdn-bridge.service"
ROUTE = '[[routes]]\ntopic = "devices/{deviceID}/rooms/{roomNo}/telemetry"\nstream = "tutorialAppInputStream"\n'


def _need_tools() -> None:
    tools = ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb", "setpriv", "/usr/bin/python3")
    wanted = [name for name in tools if shutil.which(name) is None]
    wanted += ["root"] if os.geteuid() else []
    if wanted:
        missing(f"booting a machine wants {', '.join(wanted)} (Debian: mmdebstrap, systemd-container, python3-venv)")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package of this tree as old.deb, and as new.deb with a later version number."""
    _need_tools()
    directory = tmp_path_factory.mktemp("packages")
    pip = Path(sys.executable).with_name("pip")
    quick = {**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    build = ROOT / "deploy" / "debian" / "build.sh"
    subprocess.run([build, pip, directory], check=True, timeout=300, env=quick)
    (built,) = directory.glob("*.deb")
    built.rename(directory / "old.deb")
    unpacked = directory / "unpacked"
    subprocess.run(["dpkg-deb", "-R", directory / "old.deb", unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+later", control.read_text()))
    subprocess.run(["dpkg-deb", "--build", unpacked, directory / "new.deb"], check=True, env=quick)
    shutil.rmtree(unpacked)
    return directory


@pytest.fixture(scope="session")
def machine(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine without the package."""
    directory = tmp_path_factory.mktemp("machine", numbered=True)
    tree = make_tree(directory)
    machine = Machine(tree, shared=packages, log=directory / "console.log")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    yield machine
    machine.end()
    shutil.rmtree(tree)


class Service:
    """The bridge as a service in the machine."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.mqtt_port, self.gdn_port = free_port(), free_port()
        self.bridge = Bridge(directory, mqtt_port=self.mqtt_port, gdn_url="")  # to query its status address
        self.began = machine.run("date +%s.%N")

    def configure(self, *, before: str = "", routes: str = ROUTE, definition: str = "worker.sql") -> None:
        """Write the settings file."""
        lines = [
            before,
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.mqtt_port}"',
            f'[gdn]\nurl = "http://127.0.0.1:{self.gdn_port}"\ntenant = "{TENANT}"',
            f'[worker]\ndefinition = "{definition}"\nsettle_time = 1',
            f'[status]\nlisten = "127.0.0.1:{self.bridge.status_port}"',
            "[health]\nquery_interval = 1\nworker_interval = 1",
            routes,
        ]
        self.machine.write("/etc/gdn-bridge/bridge.toml", "\n".join(lines) + "\n")

    def drop_in(self, text: str) -> None:
        """Change the unit as an operator would."""
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/test.conf", f"[Service]\n{text}\n")
        self.machine.run("systemctl daemon-reload")

    def does(self, verb: str) -> None:
        """A verb of systemctl that must succeed."""
        assert self.machine.succeeds(f"systemctl {verb} {UNIT}"), self.journal()

    def __getitem__(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.run(f"systemctl show --value -p {name} {UNIT}")

    def journal(self) -> str:
        """The journal of the unit since this test began."""
        return self.machine.run(f"journalctl --no-pager -o cat -u {UNIT} --since @{self.began}")

    def wait_status(self, pattern: str) -> None:
        """Wait until the start of systemd's status text matches."""
        last = ""

        def is_said() -> bool:
            nonlocal last
            last = self["StatusText"]
            return re.match(pattern, last) is not None

        try:
            wait_for(is_said)
        except pytest.fail.Exception:
            pytest.fail(f"the status never said {pattern!r}; last it said {last!r}; the journal:\n{self.journal()}")

    def broker(self, directory: Path) -> Mosquitto:
        return Mosquitto(directory, port=self.mqtt_port)

    def gdn(self, directory: Path) -> LocalGdn:
        return LocalGdn(directory, port=self.gdn_port)


@pytest.fixture
def service(machine: Machine, tmp_path: Path) -> Iterator[Service]:
    """The bridge freshly installed and configured, not started; broker and GDN can't be reached."""
    if not machine.succeeds("dpkg -s gdn-bridge | grep -qx 'Status: install ok installed'"):
        machine.run("dpkg --install /shared/old.deb", seconds=120)
    service = Service(machine, tmp_path)
    machine.write("/etc/gdn-bridge/credentials/gdn__api_key", API_KEY + "\n")
    service.configure()
    yield service
    machine.run(
        f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}; rm -rf /etc/systemd/system/{UNIT}.d "
        "/etc/default/gdn-bridge /var/lib/private/gdn-bridge /var/lib/gdn-bridge /etc/gdn-bridge/credentials/*; "
        "systemctl daemon-reload",
        check=False,
    )


@pytest.fixture
def broker(service: Service, tmp_path: Path) -> Iterator[Mosquitto]:
    broker = service.broker(tmp_path)
    yield broker
    broker.end()


@pytest.fixture
def gdn(service: Service, tmp_path: Path) -> Iterator[LocalGdn]:
    gdn = service.gdn(tmp_path)
    yield gdn
    gdn.end()


# --- the unit -------------------------------------------------------------------------------------------


def test_systemd_verifies_the_unit_and_rates_its_exposure_low(service: Service) -> None:
    assert service.machine.run(f"systemd-analyze verify {UNIT}") == ""

    said = service.machine.run(f"systemd-analyze security --no-pager --threshold=15 {UNIT}")

    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5


def test_the_service_is_ready_without_broker_and_gdn_and_its_status_names_them(
    service: Service, tmp_path: Path
) -> None:
    begun = time.monotonic()
    service.does("start")

    assert time.monotonic() - begun < 15
    assert service["ActiveState"] == "active"
    service.wait_status(r"not connected; no records waiting; .*mqtt: waiting \(the broker at 127.0.0.1")
    broker = service.broker(tmp_path)
    try:
        service.bridge.wait_subscribed()
        publish_all(broker.port, readings(3))
        service.wait_status(".*connected; 3 records waiting")
        gdn = service.gdn(tmp_path)
        try:
            service.wait_status("connected; no records waiting")
            assert distinct_rows(gdn) == expected_rows(3)
        finally:
            gdn.end()
    finally:
        broker.end()
    assert service["NRestarts"] == "0"


def test_the_process_has_no_capabilities_and_does_not_expose_the_secret(
    service: Service, broker: Mosquitto, gdn: LocalGdn
) -> None:
    service.does("start")
    service.wait_status("connected; no records waiting")
    pid = service["MainPID"]

    status = dict(
        line.split(":\t", 1) for line in service.machine.run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line
    )
    assert status["CapEff"] == "0000000000000000"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] not in {"0", "65534"}
    assert API_KEY not in service.machine.run(f"tr '\\0' '\\n' < /proc/{pid}/environ; cat /proc/{pid}/cmdline")
    assert API_KEY not in service.journal()
    assert service.machine.run("stat -c '%a %U' /etc/gdn-bridge/credentials") == "700 root"
    assert service.machine.run("stat -L -c %a /var/lib/gdn-bridge") == "700"


def test_a_missing_secret_is_named_and_the_service_is_not_restarted(service: Service, gdn: LocalGdn) -> None:
    service.machine.run("rm /etc/gdn-bridge/credentials/gdn__api_key")

    assert not service.machine.succeeds(f"systemctl start {UNIT}")

    assert (service["ActiveState"], service["ExecMainStatus"], service["NRestarts"]) == ("failed", "78", "0")
    assert "BRIDGE_GDN__API_KEY: is required and not set" in service.journal()
    service.machine.write("/etc/gdn-bridge/credentials/gdn__api_key", API_KEY)
    service.does("start")
    wait_for(lambda: service.bridge.part("worker")["state"] == "connected", what="GDN to take the key")


def test_with_a_missing_secrets_directory_the_service_is_not_restarted(service: Service) -> None:
    service.machine.run("mv /etc/gdn-bridge/credentials /etc/gdn-bridge/elsewhere")
    try:
        assert not service.machine.succeeds(f"systemctl start {UNIT}")

        assert "status=243/CREDENTIALS" in service.journal()
        assert (service["ActiveState"], service["NRestarts"]) == ("failed", "0")
    finally:
        service.machine.run("mv /etc/gdn-bridge/elsewhere /etc/gdn-bridge/credentials")


def test_warnings_of_check_are_in_the_journal_before_the_start(service: Service) -> None:
    service.machine.run("sed '$a CREATE STREAM unread (deviceID string);' /etc/gdn-bridge/worker.sql >/etc/unread.sql")
    unread = '[[routes]]\ntopic = "sensors/{deviceID}"\nstream = "unread"\n'
    service.configure(routes=ROUTE + unread, definition="/etc/unread.sql")

    service.does("start")

    checked, _, started = service.journal().partition("no errors found in the settings\n")
    assert "routes[1].stream: 'unread': no query of the worker reads it" in checked
    assert '"event":"daemon.started"' in started


def test_a_wrong_setting_is_in_the_journal_and_the_service_is_not_restarted(service: Service) -> None:
    service.configure(routes=ROUTE.replace("tutorialAppInputStream", "nowhere"))

    assert not service.machine.succeeds(f"systemctl start {UNIT}")

    assert (service["ActiveState"], service["ExecMainStatus"], service["NRestarts"]) == ("failed", "78", "0")
    assert service.journal().count("'nowhere': the worker reads no such stream") == 2, (
        "reported by check and by the bridge"
    )


def test_the_other_commands_of_the_guide_find_secrets_and_outbox(
    service: Service, broker: Mosquitto, gdn: LocalGdn
) -> None:
    (check,) = [line for line in block("systemd.md", "editor ").splitlines() if " check " in line]
    service.does("start")
    service.wait_status("connected; no records waiting")

    assert "no problems found" in service.machine.run(check)
    assert "active" in service.machine.run(block("systemd.md", "export CREDENTIALS_DIRECTORY"))


def test_variables_in_the_defaults_file_are_settings(service: Service) -> None:
    service.machine.write("/etc/default/gdn-bridge", "BRIDGE_LOG__LEVEL=loud\n")

    assert not service.machine.succeeds(f"systemctl start {UNIT}")

    assert "BRIDGE_LOG__LEVEL: must be debug, info, warning or error" in service.journal()


# --- running --------------------------------------------------------------------------------------------


def test_the_watchdog_of_systemd_restarts_a_process_that_does_not_answer(service: Service) -> None:
    service.drop_in("WatchdogSec=4\nTimeoutAbortSec=5\nRestartSec=1")
    service.does("start")
    pid = service["MainPID"]
    time.sleep(9)  # more than two intervals
    assert service["MainPID"] == pid, "a process that answers is not restarted"

    service.machine.run(f"kill -STOP {pid}")
    wait_for(lambda: service["NRestarts"] == "1" and service["ActiveState"] == "active", what="the restart")

    assert service["MainPID"] != pid
    journal = service.journal()
    assert "Watchdog timeout (limit 4s)!" in journal
    assert "most recent call first" in journal, "the stack of each thread is logged"


def test_a_killed_bridge_is_restarted_by_systemd_and_loses_nothing(
    service: Service, broker: Mosquitto, tmp_path: Path
) -> None:
    service.drop_in("RestartSec=1")
    service.does("start")
    service.bridge.wait_subscribed()
    publish_all(broker.port, readings(500))
    service.wait_status(".*connected; 500 records waiting")

    service.machine.run(f"kill -KILL {service['MainPID']}")
    wait_for(lambda: service["NRestarts"] == "1" and service["ActiveState"] == "active", what="the restart")

    gdn = service.gdn(tmp_path)
    try:
        wait_for(lambda: distinct_rows(gdn) == expected_rows(500), what="all rows")
    finally:
        gdn.end()


def test_a_stop_is_clean_and_quick(service: Service, broker: Mosquitto, gdn: LocalGdn) -> None:
    service.does("start")
    service.wait_status("connected; no records waiting")

    begun = time.monotonic()
    service.does("stop")

    assert time.monotonic() - begun < 5
    assert (service["ActiveState"], service["Result"], service["ExecMainStatus"]) == ("inactive", "success", "0")
    assert '"event":"daemon.stopped"' in service.journal()


def test_a_stop_may_take_as_long_as_the_settings_say(service: Service, broker: Mosquitto, gdn: LocalGdn) -> None:
    service.drop_in("TimeoutStopSec=3")
    service.configure(before="stop_timeout = 14")
    service.does("start")
    service.wait_status("connected; no records waiting")
    os.kill(gdn.pid, signal.SIGSTOP)
    try:
        publish_all(broker.port, readings(100))
        service.wait_status(".*connected; 100 records waiting")
        begun = time.monotonic()
        service.does("stop")
    finally:
        os.kill(gdn.pid, signal.SIGCONT)

    assert 4 < time.monotonic() - begun < 20, "it waited for receipts, longer than the unit alone would have let it"
    assert (service["Result"], service["ExecMainStatus"]) == ("success", "0")


# --- reloading ------------------------------------------------------------------------------------------


def test_a_reload_adds_a_route_in_the_same_process(service: Service, broker: Mosquitto, gdn: LocalGdn) -> None:
    service.does("start")
    service.wait_status("connected; no records waiting")
    pid = service["MainPID"]
    service.configure(routes=ROUTE.replace("devices/", "sensors/"))

    service.does("reload")
    wait_for(lambda: '"event":"daemon.reloaded"' in service.journal(), what="the reload")
    topics = [(topic.replace("devices/", "sensors/"), payload) for topic, payload in readings(5)]
    publish_all(broker.port, topics)
    wait_for(lambda: distinct_rows(gdn) == expected_rows(5), what="the rows by the new route")

    assert (service["MainPID"], service["ActiveState"], service["NRestarts"]) == (pid, "active", "0")
    assert service.journal().count('"event":"mqtt.subscribed"') == 1
    service.wait_status("connected; no records waiting")


def test_a_reload_of_wrong_settings_fails_and_changes_nothing_and_the_status_has_the_reason(
    service: Service, broker: Mosquitto, gdn: LocalGdn
) -> None:
    service.does("start")
    service.wait_status("connected; no records waiting")
    pid = service["MainPID"]
    service.configure(routes=ROUTE.replace("tutorialAppInputStream", "nowhere"))

    assert not service.machine.succeeds(f"systemctl reload {UNIT}")

    service.wait_status("the last reload was refused: ")
    assert "'nowhere': the worker reads no such stream" in service["StatusText"]
    assert (service["MainPID"], service["ActiveState"]) == (pid, "active")
    publish_all(broker.port, readings(5))
    wait_for(lambda: distinct_rows(gdn) == expected_rows(5), what="the rows by the old route")
    service.configure()
    service.does("reload")
    service.wait_status("connected; no records waiting")


# --- the package ----------------------------------------------------------------------------------------


def test_installing_asks_no_question_and_starts_nothing(service: Service) -> None:
    service.machine.run("dpkg --purge gdn-bridge")

    said = service.machine.run("apt-get install --yes /shared/old.deb", seconds=120)

    assert "Setting up gdn-bridge" in said
    assert (service["ActiveState"], service["UnitFileState"]) == ("inactive", "disabled")
    version = subprocess.run([sys.executable, "-m", "bridge", "--version"], capture_output=True, text=True, check=True)
    assert service.machine.run("gdn-bridge --version") == version.stdout.strip()
    assert "deadletter" in service.machine.run("zcat /usr/share/man/man1/gdn-bridge.1.gz")
    assert "deadletter" in service.machine.run("cat /usr/share/bash-completion/completions/gdn-bridge")
    assert "not set: gdn.api_key;" in service.machine.run(
        "gdn-bridge check --config /etc/gdn-bridge/bridge.toml", check=False
    ), "the settings that come with it are complete but for the key"


def test_an_upgrade_restarts_the_bridge_and_keeps_settings_and_a_full_outbox(
    service: Service, broker: Mosquitto, tmp_path: Path
) -> None:
    service.configure(before="[outbox]\nmax_bytes = 1048576\n")
    settings = service.machine.run("cat /etc/gdn-bridge/bridge.toml")
    service.does("enable --now")
    service.bridge.wait_subscribed()
    publish_all(broker.port, readings(20_000))
    wait_for(lambda: "outbox" in str(service.bridge.part("mqtt")["error"]), what="the outbox to be full")
    pid, stored = service["MainPID"], service.bridge.books()["outbox"]
    assert 1000 < stored < 20_000

    service.machine.run("apt-get install --yes /shared/new.deb", seconds=120)

    assert (service["ActiveState"], service["UnitFileState"]) == ("active", "enabled")
    assert service["MainPID"] != pid
    assert "+later" in service.machine.run("dpkg-query -W gdn-bridge")
    assert service.machine.run("cat /etc/gdn-bridge/bridge.toml") == settings
    wait_for(lambda: (service.bridge.books().get("outbox") or 0) >= stored, what="the outbox as it was")
    gdn = service.gdn(tmp_path)
    try:
        wait_for(lambda: distinct_rows(gdn) == expected_rows(20_000), seconds=120, what="all rows, the held ones too")
        wait_for(lambda: service.bridge.books()["outbox"] == 0, what="an empty outbox")
        assert service.bridge.books()["balanced"]
    finally:
        gdn.end()
    service.machine.run("systemctl disable gdn-bridge && dpkg --install /shared/old.deb", seconds=120)


def test_an_upgrade_of_a_stopped_bridge_does_not_start_it(service: Service) -> None:
    service.machine.run("dpkg --install /shared/new.deb", seconds=120)

    assert service["ActiveState"] == "inactive"


def test_removing_keeps_settings_secrets_and_outbox_and_purging_leaves_nothing(
    service: Service, broker: Mosquitto
) -> None:
    service.does("enable --now")
    service.bridge.wait_subscribed()
    publish_all(broker.port, readings(5))
    service.wait_status(".*connected; 5 records waiting")

    pid = service["MainPID"]
    service.machine.run("apt-get remove --yes gdn-bridge")
    assert not service.machine.succeeds(f"ls -d /proc/{pid} || ls -d /usr/lib/gdn-bridge || which gdn-bridge")
    assert service.machine.run("cat /etc/gdn-bridge/credentials/gdn__api_key") == API_KEY
    assert service.machine.succeeds("test -s /var/lib/gdn-bridge/outbox.db")

    service.machine.run("apt-get purge --yes gdn-bridge")
    left = service.machine.run(r"find / -xdev -iname '*gdn-bridge*' -not -path '/proc/*' -not -path '/run/systemd/*'")
    assert left == ""
    assert service["LoadState"] == "not-found"
