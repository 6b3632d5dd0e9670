"""Ownership of the file at ``outbox.path``: kills while the seal is renewed, copies, files of other programs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.errors import ConfigError
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


def test_only_a_new_file_is_logged_as_created_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ([str(tmp_path / "outbox.db")], []):
        with capture_logs() as logs:
            outbox = Outbox(Path("outbox.db"))
            outbox.open()
            outbox.close()
        assert [entry["path"] for entry in logs if entry["event"] == "outbox.created"] == expected


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


# --- files of others ------------------------------------------------------------------------------------------


def database(path: Path, *, uses_log: bool = False) -> None:
    """The database of another program, also with tables named like ours."""
    db = sqlite3.connect(path)
    if uses_log:
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE books (title)")
    db.execute("CREATE TABLE readers (name)")
    db.commit()
    if uses_log:  # as if its program had been killed: the tables are in the log alone
        log = Path(f"{path}-wal").read_bytes()
        db.close()
        path.write_bytes(path.read_bytes()[:4096])
        Path(f"{path}-wal").write_bytes(log)
    db.close()


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("outbox.db", b"notes of somebody"),
        ("outbox.db", b"-- a worker\nCREATE STREAM s (a int);\n" * 500),
        ("outbox.db", b"\0" * 70_000),
        ("outbox.db.lock", b'[[package]]\nname = "a"\n'),
        ("outbox.db.reserve", b"wine"),
        ("outbox.db.rescue", b"a plan"),
        ("outbox.db-wal", b"a wall"),
        ("outbox.db-shm", b"noise!"),
    ],
)
def test_a_file_of_somebody_else_is_left_alone_and_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=rf"outbox.path: .*/{name} exists and (is|was) not"):
        Outbox(tmp_path / "outbox.db").open()

    assert files(tmp_path) == {name: content}


@pytest.mark.parametrize("uses_log", [False, True])
def test_the_database_of_another_program_is_left_alone(tmp_path: Path, uses_log: bool) -> None:
    path = tmp_path / "library.db"
    database(path, uses_log=uses_log)
    before = files(tmp_path)

    with pytest.raises(ConfigError, match="is not an outbox of gdn-bridge"):
        Outbox(path).open()

    after = files(tmp_path)
    assert after["library.db"][:100] == before["library.db"][:100]
    with closing(sqlite3.connect(path)) as db:
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_master")} == {"books", "readers"}


def test_what_is_not_a_regular_file_is_left_alone(tmp_path: Path) -> None:
    """Such as /dev/null: a rescue would rename it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(ConfigError, match="pipe is not a regular file"):
        Outbox(pipe).open()

    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    "left",
    [
        {"outbox.db": b""},
        {"outbox.db": bytes(4096), "outbox.db.lock": b""},
        {"outbox.db": bytes(4096), "outbox.db.lock": bytes(16), "outbox.db.reserve": bytes(1 << 20)},
        {"outbox.db.lock": b""},
    ],
    ids=", ".join,
)
def test_what_a_power_loss_leaves_of_a_first_start_is_used(tmp_path: Path, left: dict[str, bytes]) -> None:
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)

    name = used_outbox(tmp_path / "outbox.db")

    outbox = Outbox(tmp_path / "outbox.db")
    outbox.open()
    assert (name, 0) == (outbox.name, outbox.books().unknown_losses)
    outbox.close()


def test_an_outbox_behind_a_link_is_rescued_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "outbox.db", tmp_path / "link.db"
    link.symlink_to(path)
    used_outbox(link)
    path.write_bytes(b"rubbish")

    outbox = Outbox(link)
    outbox.open()
    outbox.close()

    assert link.is_symlink()
    assert [p.read_bytes() for p in path.parent.iterdir() if ".damaged-" in p.name] == [b"rubbish"]
