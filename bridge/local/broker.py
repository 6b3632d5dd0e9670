"""An MQTT broker for demonstrations: Mosquitto if it is installed, else the embedded one (iotcore)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

from bridge.local import child

START_SECONDS = 10.0


class Broker(Protocol):
    """A running broker on the loopback interface."""

    name: str
    port: int
    protocol: str
    """The MQTT version that clients should use: ``5`` or ``3.1.1``."""

    def stop(self) -> None:
        """Stop the broker."""


def start_broker(directory: Path) -> Broker:
    """A broker on a free port, ready for clients. Its configuration is written to ``directory``.

    Raises:
        RuntimeError: the broker did not start.
    """
    mosquitto = shutil.which("mosquitto", path=_system_path())
    return Mosquitto(mosquitto, directory) if mosquitto else Embedded()


def _system_path() -> str:
    """PATH with /usr/sbin, where Debian installs servers and which an ordinary user's PATH lacks."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


def free_port() -> int:
    """A loopback port that is currently free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Mosquitto:
    """A Mosquitto process without a limit on queued messages."""

    protocol = "5"

    def __init__(self, program: str, directory: Path) -> None:
        self.name = "Mosquitto"
        self.port = free_port()
        configuration = directory / "mosquitto.conf"
        # By default Mosquitto drops messages beyond 1,000 queued ones; 0 is no limit.
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            "max_inflight_messages 1000\nlog_type error\n"
            # As root it would switch to another user, and the kernel would clear its parent-death signal (prctl(2)).
            f"{'user root' if os.geteuid() == 0 else ''}\n"
        )
        self._process = subprocess.Popen(  # noqa: S603 - found on PATH
            child.command(program, "-c", str(configuration)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
                return
            except OSError:
                time.sleep(0.02)
        self._process.kill()
        _, error = self._process.communicate()
        raise RuntimeError(f"Mosquitto did not start: {error.decode(errors='replace').strip()}")

    def stop(self) -> None:
        """Stop the broker."""
        self._process.terminate()
        self._process.communicate(timeout=10)


class Embedded:
    """The embedded broker. It speaks MQTT 3.1.1 and loses its sessions when it stops."""

    protocol = "3.1.1"

    def __init__(self) -> None:
        from iotcore import Broker as IotcoreBroker  # noqa: PLC0415 - not needed with Mosquitto

        self.name = "the embedded broker"
        self.port = free_port()
        self._broker = IotcoreBroker(port=self.port, listen="127.0.0.1")
        self._broker.start()

    def stop(self) -> None:
        """Stop the broker."""
        self._broker.stop()
