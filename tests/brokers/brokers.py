"""Real brokers on loopback ports, each installed once from a registry, with the versions and checksums pinned here.

Each class says how to install, configure and start one. Without ``advised`` it has the broker's own settings; with it
those of the column "set" of ``docs/brokers.md``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bridge.local.broker import free_port
from tests.conftest import Process, is_listening, wait_for
from tests.installing import cache, key, run
from tests.java import QUICK_START, class_path, program, unavailable

HERE = Path(__file__).parent
START_SECONDS = 120.0


class Broker(Process):
    """A running broker.

    Args:
        directory: of the test; settings, data and log are kept in a folder of it.
        advised: whether to configure it as the page advises.
    """

    name: ClassVar[str]
    versions: ClassVar[tuple[int, ...]] = (4,)
    """Of the protocol that it speaks, the best first."""

    def __init__(self, directory: Path, *, advised: bool = False) -> None:
        self.directory = directory / f"{self.name}{'-advised' if advised else ''}"
        self.directory.mkdir()
        self.advised = advised
        self.port = free_port()
        self.environment: dict[str, str] = {}
        self.command = self.prepare()
        self.start()

    def prepare(self) -> list[str]:
        """Install and configure it; the command that runs it."""
        raise NotImplementedError

    def start(self) -> None:
        """Run it; again, after it was ended, with the same port and data."""
        super().__init__(self.command, self.directory / "broker.log", {**os.environ, **self.environment})
        try:
            wait_for(self._is_up, seconds=START_SECONDS, what=self.name)
        except BaseException:
            self.end()
            raise

    def _is_up(self) -> bool:
        assert self.is_running, f"{self.name} ended at its start:\n{self.text()[-3000:]}"
        return is_listening(self.port)

    def write(self, name: str, text: str) -> Path:
        """A file in the broker's directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Mosquitto(Broker):
    """Debian's."""

    name = "mosquitto"
    versions = (5, 4)

    def prepare(self) -> list[str]:
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "user root"]
        lines += ["persistence true", f"persistence_location {self.directory}/"]
        if self.advised:
            lines += ["max_queued_messages 0", "max_inflight_messages 1000", "autosave_interval 60"]
        configuration = self.write("mosquitto.conf", "\n".join(lines) + "\n")
        return [program("mosquitto"), "-c", str(configuration)]


class RabbitMq(Broker):
    """Debian's, with its MQTT plugin; a node of its own, with an epmd of its own."""

    name = "rabbitmq"
    _SERVERS = "rabbitmq_server-*/sbin/rabbitmq-server"  # Debian's wrapper in the path changes to a user of its own

    def prepare(self) -> list[str]:
        servers = sorted(Path("/usr/lib/rabbitmq/lib").glob(self._SERVERS))
        if not servers:
            unavailable("RabbitMQ can't be started: rabbitmq-server is not installed")
        lines = ["listeners.tcp = none", f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}", "mqtt.allow_anonymous = true"]
        lines += ["log.console = true"]
        if self.advised:
            lines += ["mqtt.prefetch = 1000", "mqtt.subscription_ttl = 604800000"]
        self.environment = {
            "HOME": str(self.directory),  # for the Erlang cookie
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.write("rabbitmq.conf", "\n".join(lines) + "\n")),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.write("enabled_plugins", "[rabbitmq_mqtt].\n")),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_NODENAME": f"broker{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(free_port()),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
        }
        return [str(servers[-1])]

    def end(self) -> None:
        super().end()
        epmd = shutil.which("epmd")
        if epmd is not None:  # a process of its own, which the node starts and leaves behind
            environment = {**os.environ, **self.environment}
            subprocess.run([epmd, "-kill"], env=environment, capture_output=True, timeout=20, check=False)


class _Java(Broker):
    """A broker of Maven Central, from the artifacts that the folder's ``pom.xml`` names."""

    def java(self, *arguments: str) -> list[str]:
        folder = HERE / self.name
        jars = class_path(folder / "pom.xml", sums=folder / "jars.sha256")
        return [program("java"), *QUICK_START, "-cp", jars, *arguments]

    def java_source(self, *arguments: str) -> list[str]:
        """By ``Start.java`` of the folder, which java compiles at the start: that needs a JDK."""
        program("javac")
        return self.java(str(HERE / self.name / "Start.java"), *arguments)


class HiveMq(_Java):
    """The community edition, embedded."""

    name = "hivemq"
    versions = (5, 4)

    def prepare(self) -> list[str]:
        queue = "<mqtt><queued-messages><max-queue-size>1000000</max-queue-size></queued-messages></mqtt>"
        self.write(
            "conf/config.xml",
            f"""<?xml version="1.0"?>
<hivemq>
  <listeners>
    <tcp-listener><port>{self.port}</port><bind-address>127.0.0.1</bind-address></tcp-listener>
  </listeners>
  {queue if self.advised else ""}
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
""",
        )
        return self.java_source(str(self.directory))


class Artemis(_Java):
    """Embedded."""

    name = "artemis"
    versions = (5, 4)

    def prepare(self) -> list[str]:
        folders = "\n".join(
            f"<{kind}-directory>{self.directory}/{kind}</{kind}-directory>"
            for kind in ("paging", "bindings", "journal", "large-messages")
        )
        configuration = self.write(
            "broker.xml",
            f"""<configuration xmlns="urn:activemq"><core xmlns="urn:activemq:core">
<security-enabled>false</security-enabled>
<journal-type>NIO</journal-type>
{folders}
<acceptors><acceptor name="mqtt">tcp://127.0.0.1:{self.port}?protocols=MQTT</acceptor></acceptors>
</core></configuration>
""",
        )
        return self.java_source(f"file:{configuration}")


class ActiveMq(_Java):
    """ActiveMQ Classic, by its console."""

    name = "activemq"

    def prepare(self) -> list[str]:
        options = f"persistent=true&useJmx=false&dataDirectory={self.directory / 'data'}"
        main = "org.apache.activemq.console.Main"
        return self.java(main, "start", f"broker:(mqtt://127.0.0.1:{self.port})?{options}")


class Moquette(_Java):
    """By its own main class."""

    name = "moquette"

    def prepare(self) -> list[str]:
        (self.directory / "data").mkdir()
        lines = ["host 127.0.0.1", f"port {self.port}", "allow_anonymous true", "telemetry_enabled false"]
        lines += ["persistence_enabled true", f"data_path {self.directory / 'data'}/"]
        if self.advised:
            lines += ["netty.mqtt.message_size 16777216", "immediate_buffer_flush true"]
        self.write("config/moquette.conf", "\n".join(lines) + "\n")
        return self.java(f"-Dmoquette.path={self.directory}", "io.moquette.broker.Server")


class _Go(Broker):
    """A program of ``go/``, whose modules ``go.mod`` and ``go.sum`` pin."""

    def built(self) -> str:
        go = program("go")
        source = HERE / "go"
        with cache("brokers-go") as directory:
            files = [source / "go.mod", source / "go.sum", source / self.name / "main.go"]
            built = directory / f"{self.name}-{key(*files)}"
            if not built.exists():
                run([go, "build", "-o", built, f"./{self.name}"], of=self.name, directory=source)
            return str(built)


class Nats(_Go):
    """The NATS server, with JetStream."""

    name = "nats"

    def prepare(self) -> list[str]:
        limits = ", ack_wait: 10s" if self.advised else ""
        configuration = self.write(
            "nats.conf",
            f"""listen: "127.0.0.1:{free_port()}"
server_name: nats
max_payload: {"8MB" if self.advised else "1MB"}
jetstream {{ store_dir: "{self.directory / "jetstream"}" }}
mqtt {{ listen: "127.0.0.1:{self.port}"{limits} }}
""",
        )
        return [self.built(), str(configuration)]


class Mochi(_Go):
    """The library, in a program with its defaults."""

    name = "mochi"
    versions = (5, 4)

    def prepare(self) -> list[str]:
        return [self.built(), f"127.0.0.1:{self.port}", *(["65535"] if self.advised else [])]


class Aedes(Broker):
    """The library, in a program with its defaults."""

    name = "aedes"

    def prepare(self) -> list[str]:
        node, npm = program("node"), program("npm")
        files = [HERE / "aedes" / name for name in ("package.json", "package-lock.json", "broker.js")]
        with cache("brokers-aedes") as directory:
            installed = directory / f"aedes-{key(*files)}"
            if not (installed / "installed").exists():
                installed.mkdir(exist_ok=True)
                for file in files:
                    shutil.copy(file, installed)
                run([npm, "ci", "--silent", "--no-audit", "--no-fund"], of="aedes", directory=installed)
                (installed / "installed").touch()
        return [node, str(installed / "broker.js"), str(self.port)]


ALL: dict[str, type[Broker]] = {
    broker.name: broker for broker in (Mosquitto, RabbitMq, HiveMq, Artemis, ActiveMq, Nats, Mochi, Aedes, Moquette)
}
IN_CI = ("rabbitmq", "hivemq", "nats")
