"""A Docker engine that ends with its starter: ``python -m tests.deploy.engine DIRECTORY``, standard input a pipe.

When the pipe closes, because it was closed or because its other end was killed, the engine and its containers are ended
and its changes to this machine's network and its directory are undone. A second engine waits until that is done.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.deploy.namespace import OWN, children

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = ("filter", "nat")


def main() -> None:
    """Run the engine until standard input closes or the engine ends; its output goes to standard output."""
    directory = Path(sys.argv[1])
    with Path(tempfile.gettempdir(), "gdn-bridge-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engine_runs():
            sys.exit("this machine runs a Docker engine, and a second one would get in its way")
        forwarding, rules, bridges = FORWARDING.read_text(), [_rules(table) for table in TABLES], _bridges()
        engine = subprocess.Popen(
            [
                *OWN,
                *("dockerd", "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
                *("--pidfile", f"{directory}/pid", "--host", f"unix://{directory}/docker.sock"),
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            while engine.poll() is None and not select.select([sys.stdin], [], [], 0.5)[0]:
                pass
        finally:
            for pid in children(engine.pid):
                os.kill(pid, signal.SIGKILL)
            engine.wait(30)
            for text in rules:
                subprocess.run(["iptables-restore"], input=text, text=True, check=False)
            for name in _bridges() - bridges:
                subprocess.run(["ip", "link", "delete", name], check=False)
            FORWARDING.write_text(forwarding)
            shutil.rmtree(directory, ignore_errors=True)


def engine_runs() -> bool:
    """Whether any Docker engine runs on this machine: a second one would share its firewall."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended meanwhile
            if name.read_text().strip() == "dockerd":
                return True
    return False


def _rules(table: str) -> str:
    """A table of the firewall, for iptables-restore. Listing it first creates a missing one."""
    subprocess.run(["iptables", "--table", table, "--list-rules"], stdout=subprocess.DEVNULL, check=True)
    return subprocess.run(["iptables-save", "--table", table], capture_output=True, text=True, check=True).stdout


def _bridges() -> set[str]:
    return {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}


if __name__ == "__main__":
    main()
