"""A Debian machine in a directory, booted with systemd-nspawn: its own init and files, this machine's network."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

from tests.conftest import wait_for
from tests.deploy.namespace import OWN, children

PACKAGES = "systemd,systemd-sysv,dbus,libnss-systemd,ca-certificates,python3"


def make_tree(directory: Path) -> Path:
    """Create the files of such a machine. Fetches about 60 MB of packages."""
    tree = directory / "tree"
    release = _release()
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", release, str(tree)]
    subprocess.run(command, check=True, timeout=300)
    tree.chmod(0o755)
    return tree


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


class Machine:
    """A booted machine. Changes in it are discarded when it stops.

    Args:
        tree: its files; they stay as they are.
        shared: a directory that it sees as /shared.
        log: file for its console.
    """

    def __init__(self, tree: Path, *, shared: Path, log: Path) -> None:
        self._init = ""
        self._console = log.open("wb")
        self._nspawn = subprocess.Popen(
            [
                *OWN,
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--volatile=overlay"),
                *(f"--directory={tree}", f"--bind-ro={shared}:/shared", f"--machine=gdn-bridge-{os.getpid()}"),
                "--console=passive",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
            start_new_session=True,
        )
        try:
            wait_for(self._has_booted, what="the machine to boot")
        except BaseException:
            self.end()
            raise

    def _has_booted(self) -> bool:
        assert self._nspawn.poll() is None, "systemd-nspawn ended"
        # Read each time: the first child only sets the machine up; the machine's init replaces it.
        self._init = "".join(str(child) for nspawn in children(self._nspawn.pid) for child in children(nspawn))
        return bool(self._init) and self.run("systemctl is-system-running", check=False) == "running"

    def run(self, command: str, *, check: bool = True, text: str | None = None, seconds: float = 60) -> str:
        """Run a shell command in the machine; returns its output, standard error included.

        Args:
            command: for sh.
            check: whether it must succeed.
            text: for its standard input.
            seconds: time limit.
        """
        done = subprocess.run(
            [*("nsenter", "-t", self._init, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"), "sh", "-c", command],
            input="" if text is None else text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def succeeds(self, command: str) -> bool:
        """Whether a shell command in the machine ends with 0."""
        return self.run(f"({command}) >/dev/null 2>&1 && echo yes || true") == "yes"

    def write(self, path: str, text: str) -> None:
        """Write a file in the machine; creates its directories."""
        quoted = shlex.quote(path)
        self.run(f"mkdir -p $(dirname {quoted}) && cat > {quoted}", text=text)

    def end(self) -> None:
        """Power off; kill it if that takes too long."""
        if self._init:
            self.run("systemctl poweroff", check=False)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            for nspawn in children(self._nspawn.pid):
                os.kill(nspawn, signal.SIGKILL)
            self._nspawn.wait(10)
        self._console.close()
