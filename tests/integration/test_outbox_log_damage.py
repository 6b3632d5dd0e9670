"""Damage to the outbox's write-ahead log, which SQLite treats as the end of the log, and missing content."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from bridge.message import DeadLetter, Row
from bridge.outbox import Commit, Outbox, wal

pytestmark = pytest.mark.integration

HEADER, FRAME = 32, 24 + 4096
COMMITS, ROWS, BAD = 25, 10, 2
"""Transactions, and what each stores."""
TOTAL = COMMITS * (ROWS + BAD)

Bytes = bytearray


def payload(n: int) -> bytes:
    return b"%d " % n + random.Random(n).randbytes(300)


def commit(n: int, dead_letters: int = BAD) -> Commit:
    return Commit(
        rows=[Row("s", payload(n * ROWS + k)) for k in range(ROWS)],
        dead_letters=[DeadLetter("t", payload(-n), 1, 123, None, "not_json", "") for _ in range(dead_letters)],
    )


def killed(path: Path, *, commits: int = COMMITS) -> Path:
    """An outbox as a SIGKILL leaves it, with commits that are in its log alone. Returns the log."""
    outbox = Outbox(path)
    outbox.open()
    for n in range(commits):
        outbox.commit(commit(n))
    log = Path(f"{path}-wal")
    content = log.read_bytes()
    outbox._disconnect_and_unlock()  # SQLite moves the log into the file and deletes it: as if that had not happened
    path.write_bytes(path.read_bytes()[:4096])
    log.write_bytes(content)
    return log


class Opened(NamedTuple):
    """What a start finds."""

    records: list[bytes]
    received: int
    dropped: int
    dead_letters: int
    unknown_losses: int
    balanced: bool
    lost: object
    """As ``outbox.rescued`` says; None: no rescue."""


def opened(path: Path) -> Opened:
    outbox = Outbox(path)
    with capture_logs() as logs:
        outbox.open()
    books = outbox.books()
    records = [record.payload for record in outbox.read("s", after=0, limit=10**6, max_bytes=1 << 30)]
    outbox.close()
    rescued = next((line for line in logs if line["event"] == "outbox.rescued"), None)
    return Opened(
        records,
        books.received,
        books.dropped.get("outbox_damaged", 0),
        outbox.dead_letter_count,
        books.unknown_losses,
        books.balanced,
        None if rescued is None else (rescued["lost"], rescued["dead_letters_lost"]),
    )


def kept(path: Path) -> dict[str, bytes]:
    """The files that a rescue has kept, by their suffix."""
    aside = [p for p in path.parent.iterdir() if ".damaged-" in p.name]
    return {p.name.partition(".damaged-")[2][16:]: p.read_bytes() for p in aside}


def flip(log: Path, at: int) -> None:
    content = Bytes(log.read_bytes())
    content[at] ^= 0x40
    log.write_bytes(content)


def in_frame(number: int, at: int) -> int:
    """The place of a byte of a frame; ``number`` counts from 0."""
    return HEADER + number * FRAME + at


@pytest.mark.parametrize(
    "at",
    [
        *(pytest.param(at, id=f"header {name}") for name, at in [("magic", 3), ("page size", 10), ("checksum", 25)]),
        pytest.param(17, id="header salt"),
        *(
            pytest.param(in_frame(90, at), id=name)
            for name, at in [("page", 3), ("commit", 7), ("salt", 9), ("checksum", 17), ("content", 2000)]
        ),
        pytest.param(in_frame(0, 600), id="first frame"),
    ],
)
def test_one_damaged_byte_in_the_log_loses_no_commit_without_counting_it(tmp_path: Path, at: int) -> None:
    path = tmp_path / "outbox.db"
    log = killed(path)
    flip(log, at)
    before = {"": path.read_bytes(), "-wal": log.read_bytes()}

    found = opened(path)

    assert found.lost is not None
    assert {suffix: kept(path).get(suffix) for suffix in before} == before, "the files are kept as they were"
    assert set(found.records) <= {payload(n) for n in range(COMMITS * ROWS)}
    if not found.unknown_losses:
        assert found.received == TOTAL
        assert found.balanced
        assert found.lost == (found.dropped, COMMITS * BAD - found.dead_letters)
        assert len(found.records) + found.dropped == COMMITS * ROWS
    assert len(found.records) > COMMITS * ROWS - 50, "SQLite alone would find half or none"
    assert not list(tmp_path.glob("*.rescue*"))


def test_damage_at_many_places_of_the_log_is_rescued_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    log = killed(path)
    for frame in range(3, 150, 12):
        flip(log, in_frame(frame, 1000))

    found = opened(path)

    assert found.lost is not None
    assert len(found.records) > COMMITS * ROWS // 2
    assert found.balanced == (found.unknown_losses == 0)


def last_transaction(log: Path) -> Sequence[int]:
    """The numbers of its frames."""
    content = log.read_bytes()
    heads = [struct.unpack_from(">2I", content, at) for at in range(HEADER, len(content), FRAME)]
    ends = [number for number, (_, size) in enumerate(heads) if size]
    return range(ends[-2] + 1, ends[-1] + 1)


def test_a_last_transaction_torn_by_a_power_loss_does_not_count_as_damage(tmp_path: Path) -> None:
    """It was not synced, so nothing in it was acknowledged: its frames may have survived in any part."""
    path = tmp_path / "outbox.db"
    log = killed(path)
    whole = log.read_bytes()
    frames = last_transaction(log)
    assert len(frames) > 2
    for torn in frames:
        content = Bytes(whole)
        at = in_frame(torn, 512 - 24)
        content[at : at + 512] = b"\xa5" * 512
        log.write_bytes(content)

        assert not wal.judge(log, path).is_damaged

    assert opened(path).lost is None
    assert opened(path).received == TOTAL - ROWS - BAD


def test_frames_of_an_earlier_generation_of_the_log_do_not_count_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    for n in range(COMMITS):
        outbox.commit(commit(n))
    assert outbox._db is not None
    outbox._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    outbox.commit(commit(COMMITS))
    log = Path(f"{path}-wal")

    verdict = wal.judge(log, path)

    assert verdict.frames < (log.stat().st_size - HEADER) // FRAME / 2
    assert not verdict.is_damaged
    outbox.close()


def test_frames_of_a_rolled_back_transaction_do_not_count_as_damage(tmp_path: Path) -> None:
    """SQLite writes a large one to the log before its commit; a smaller one then overwrites only its beginning."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(commit(0))
    db = outbox._db
    assert db is not None
    db.execute("PRAGMA cache_size = 10")
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO records (id, stream, payload) VALUES (?, 's', ?)", [(n, payload(n)) for n in range(50, 900)]
    )
    db.execute("ROLLBACK")
    outbox.commit(commit(1))
    log = Path(f"{path}-wal")

    verdict = wal.judge(log, path)

    assert verdict.frames < (log.stat().st_size - HEADER) // FRAME / 2
    assert not verdict.is_damaged
    outbox.close()


@pytest.mark.parametrize("remove", [lambda path: os.truncate(path, 0), Path.unlink], ids=["emptied", "deleted"])
def test_an_emptied_or_deleted_outbox_file_is_read_from_its_log(tmp_path: Path, remove: Callable[[Path], None]) -> None:
    """SQLite deletes the log of an empty file."""
    path = tmp_path / "outbox.db"
    log = killed(path)
    content = log.read_bytes()
    remove(path)

    found = opened(path)

    assert found.lost == (0, 0)
    assert found.balanced
    assert sorted(found.records) == sorted(payload(n) for n in range(COMMITS * ROWS))
    assert found.dead_letters == COMMITS * BAD
    assert kept(path)["-wal"] == content


@pytest.mark.parametrize("is_there", [False, True], ids=["no file", "an empty database"])
def test_an_outbox_without_its_content_is_an_unknown_loss(tmp_path: Path, is_there: bool) -> None:
    path = tmp_path / "outbox.db"
    killed(path).unlink()
    path.unlink()
    if is_there:
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        db.close()

    found = opened(path)

    assert found.lost == ("unknown: the latest books could not be read",) * 2
    assert (found.unknown_losses, found.balanced) == (1, False)
    assert "" in kept(path)
    again = opened(path)
    assert (again.unknown_losses, again.balanced, again.lost) == (1, False, None), "it is kept in the books"


def test_a_loss_is_unknown_if_the_latest_books_are_lost(tmp_path: Path) -> None:
    """Their page is damaged in the last transaction that wrote it; one that didn't follows."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    for n in range(COMMITS):
        outbox.commit(commit(n))
    assert outbox._db is not None
    (books,) = outbox._db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'books'").fetchone()
    log = Path(f"{path}-wal")
    written = log.stat().st_size
    outbox.save_values(note="x")
    content = Bytes(log.read_bytes())
    outbox._disconnect_and_unlock()
    path.write_bytes(path.read_bytes()[:4096])
    (*_, at) = [at for at in range(HEADER, written, FRAME) if struct.unpack_from(">I", content, at) == (books,)]
    content[at + 1000] ^= 1
    log.write_bytes(content)

    found = opened(path)

    assert (found.unknown_losses, found.balanced) == (1, False)
    assert len(found.records) == COMMITS * ROWS, "all rows are there, but the bridge can't know"


def test_lost_dead_letters_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(commit(0, dead_letters=200))
    outbox.purge_old()
    assert outbox._db is not None
    (page,) = outbox._db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'dead_letters'").fetchone()
    outbox._disconnect_and_unlock()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)

    found = opened(path)

    assert found.lost == (0, 200)
    assert found.dead_letters == 0
    assert opened(path).lost is None


def test_a_second_rescue_in_the_same_second_keeps_the_files_of_the_first(tmp_path: Path) -> None:
    """As with a clock that is set only after the start, which repeats its times."""
    path = tmp_path / "outbox.db"
    for _ in range(2):
        outbox = Outbox(path, clock=lambda: 0.0, wall_clock=lambda: 1.0)
        outbox.open()
        outbox.close()
        os.truncate(path, 5000)
        outbox.open()
        outbox.close()

    assert len([p for p in tmp_path.iterdir() if ".damaged-" in p.name and p.stat().st_size == 5000]) == 2


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("renames", range(4))
def test_a_rescue_of_a_damaged_log_that_is_killed_between_its_renames_loses_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    path = tmp_path / "outbox.db"
    flip(killed(path), in_frame(90, 2000))
    left = renames
    rename = Path.replace

    def replacing(self: Path, target: str | Path) -> Path:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replacing)
        with suppress(Killed):
            opened(path)

    found = opened(path)
    assert len(found.records) + found.dropped == COMMITS * ROWS
    assert found.received == TOTAL
    assert not list(tmp_path.glob("*.rescue*"))
