"""Ownership of the file at ``outbox.path``: kills while the seal is renewed, copies, files of other programs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.message import Row, SeenMessages
from bridge.outbox import Commit, Outbox

pytestmark = pytest.mark.integration

RENEWAL = """
import os, signal, sys
from pathlib import Path
from bridge.outbox import Outbox
from bridge.outbox.owned_database import OwnedDatabase

path, left = Path(sys.argv[1]), int(sys.argv[2])

def stepping(function):
    def wrapped(*arguments, **named):
        step()
        result = function(*arguments, **named)
        step()
        return result
    return wrapped

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

OwnedDatabase._save_values = stepping(OwnedDatabase._save_values)
os.pwrite = stepping(os.pwrite)
outbox = Outbox(path)
outbox.open()
outbox.close()
"""
"""Opens and closes an outbox, and kills itself at a step of a renewal of its seal."""

STEPS = 4
"""Before and after the commit of the new seal, before and after it is written into the lock file. A start and a stop
have one renewal each.
"""


def killed_at(step: int, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RENEWAL, str(path), str(step)], check=False)
    assert done.returncode == -signal.SIGKILL


def used_outbox(path: Path) -> str:
    """An outbox that holds something; returns its name."""
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(rows=[Row("s", b"{}")], seen=SeenMessages(1, b"a" * 20, 1)))
    outbox.close()
    return outbox.name


@pytest.mark.parametrize("step", range(1, 2 * STEPS + 1))
def test_a_kill_at_any_step_of_the_seals_renewal_keeps_the_name_and_the_seen_messages(
    tmp_path: Path, step: int
) -> None:
    path = tmp_path / "outbox.db"
    name = used_outbox(path)

    killed_at(step, path)
    killed_at(min(step, STEPS), path)  # a second one, in a renewal that follows one that was cut short

    outbox = Outbox(path)
    with capture_logs() as logs:
        outbox.open()
    assert (name, [(1, b"a" * 20)]) == (outbox.name, outbox.seen_messages())
    assert [line["event"] for line in logs if line["log_level"] != "info"] == []
    outbox.close()


def test_a_copy_that_was_made_before_a_kill_in_the_renewal_is_still_detected(tmp_path: Path) -> None:
    """Accepting two seals must not accept a copy from before the last start: its ids were given out since."""
    path = tmp_path / "outbox.db"
    name = used_outbox(path)
    copy = path.read_bytes()
    killed_at(2 * STEPS, path)
    for beside in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        beside.unlink(missing_ok=True)

    path.write_bytes(copy)  # in place: the same inode
    outbox = Outbox(path)
    outbox.open()

    assert outbox.name != name
    assert outbox.seen_messages() == []
    outbox.close()
