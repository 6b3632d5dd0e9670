"""Dead letters on a real SQLite file: selected, marked, replayed and purged, by one process and by two."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from bridge.cli.dead_letter_view import export, parse_since
from bridge.cli.printing import content, table
from bridge.errors import ConfigError
from bridge.mapping import FormatOptions, Mapper, Route
from bridge.mapping.sparkplug_payload import message_class
from bridge.message import DeadLetter, MqttMessage, Row, Rows
from bridge.outbox import (
    Bounds,
    Commit,
    DeadLetterClient,
    Outbox,
    RefusedRecord,
    Selection,
    dead_letters,
    rescue,
    schema,
)
from bridge.path import arrivals
from bridge.path import replay as replaying
from bridge.path.replay import carry_out_requests
from bridge.streamql import InputStream, input_streams, parse

pytestmark = pytest.mark.integration

STREAM = "tutorialAppInputStream"
TOPIC = "devices/AD11/rooms/200/telemetry"
ROUTE = "devices/{deviceID}/rooms/{roomNo}/telemetry"
STREAMS = input_streams(parse(Path("config/worker.sql").read_text()))
EVERYTHING = Selection()


def mapping(**route: Any) -> Mapper:
    return Mapper(routes=[Route(topic=ROUTE, stream=STREAM, **route)], streams=STREAMS, outbox_name="x")


@pytest.fixture(autouse=True)
def slices_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not make smaller slices."""
    monkeypatch.setattr(arrivals, "SLICE_SECONDS", math.inf)
    monkeypatch.setattr(arrivals, "MEASURED_TOGETHER", 1)


def failing_on(payload: bytes, mapper: Mapper) -> Mapper:
    """The mapper with a bug: decoding this payload fails."""
    decode = mapper.compiled_routes[0].decode

    def buggy(message: MqttMessage) -> Any:
        if message.payload == payload:
            raise ZeroDivisionError
        return decode(message)

    mapper.compiled_routes[0] = mapper.compiled_routes[0]._replace(decode=buggy)
    return mapper


def dead_letter(payload: bytes = b'{"temp": 18}', reason: str = "missing_field", **other: Any) -> DeadLetter:
    known: dict[str, Any] = {
        "topic": TOPIC,
        "payload": payload,
        "qos": 1,
        "received_at": 5_000_000_000_000,
        "route": ROUTE,
        "reason": reason,
        "detail": "column temperature: there is no value for it",
    }
    return DeadLetter(**{**known, **other})


class Recorder:
    """A mapper that makes rows of everything and records its arguments."""

    streams = STREAMS

    def __init__(self, rows: int = 1, extras: bytes = b"") -> None:
        self.given: list[MqttMessage] = []
        self.ids: list[int] = []
        self._rows = rows
        self._extras = extras

    def map(self, message: MqttMessage, next_id: int = 0) -> list[Row]:
        self.given.append(message)
        self.ids.append(next_id)
        rows = [Row(STREAM, message.payload, self._extras)] * self._rows
        return rows or Rows(filtered=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out box?#.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    made = Outbox(path)
    made.open()
    yield made
    made.close()


def mark(
    path: Path, action: dead_letters.RequestedAction = "replay", selection: Selection = EVERYTHING, **limit: int
) -> list[int]:
    with DeadLetterClient(path, may_mark=True) as client:
        return client.mark(selection, action, **limit)


def kept(path: Path, selection: Selection = EVERYTHING) -> list[dead_letters.StoredDeadLetter]:
    with DeadLetterClient(path) as client:
        return list(client.dead_letters(selection))


def rows_of(outbox: Outbox) -> list[bytes]:
    return [r.payload for r in outbox.read(STREAM, after=0, limit=10_000, max_bytes=1 << 30)]


def replay(outbox: Outbox, by: Any, *, has_room: bool = True) -> replaying.ReplayOutcome:
    return carry_out_requests(outbox, by, streams=STREAMS, has_room=has_room)


# --- replay --------------------------------------------------------------------------------------------------


def test_a_dead_letter_that_can_be_mapped_now_becomes_rows_and_is_deleted(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(), dead_letter(b'[{"temp": 1}, {"temp": 2}]'), dead_letter()]))
    mark(path, limit=2)

    outcome = replay(outbox, mapping(fields={"temperature": "temp"}))

    assert [r.payload for r in outcome.records] == [
        b'{"deviceID":"AD11","roomNo":200,"temperature":%.1f}' % n for n in (18, 1, 2)
    ]
    assert rows_of(outbox) == [r.payload for r in outcome.records]
    assert (outcome.replayed, outcome.failed) == (2, 0)
    assert [found.id for found in kept(path)] == [3]
    assert outbox.dead_letter_count == 1
    books = outbox.books()
    assert (books.received, books.outbox, books.dead_lettered) == (6, 3, {"missing_field": 3})
    assert books.balanced
    assert outbox.counter("dead_letters_replayed") == 2
    assert not replay(outbox, mapping()).more


def test_a_replayed_message_is_the_received_one(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(qos=0, retain=True, properties=b"\x26\0\1a\0\1b", received_at=123)]))
    mark(path)
    by = Recorder()

    replay(outbox, by)

    properties = b"\x26\0\1a\0\1b"
    assert by.given == [MqttMessage(TOPIC, b'{"temp": 18}', 0, True, 0, 123, properties=properties, is_replay=True)]


def test_the_mapper_gets_the_ids_that_the_rows_will_have(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(rows=[Row(STREAM, b"{}")] * 4, dead_letters=[dead_letter(), dead_letter()]))
    mark(path)
    by = Recorder(rows=3)

    outcome = replay(outbox, by)

    assert by.ids == [5, 8]
    assert [r.id for r in outcome.records] == [5, 6, 7, 8, 9, 10]


def test_a_dead_letter_that_fails_again_stays_with_the_new_reason_and_is_not_retried(
    outbox: Outbox, path: Path
) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(b'{"temp": "hot"}', mapping="old")]))
    size = outbox._dead_letter_usage
    mark(path)

    outcome = replay(outbox, mapping(fields={"temperature": "temp"}))

    assert (outcome.records, outcome.replayed, outcome.failed) == ([], 0, 1)
    (found,) = kept(path)
    assert (found.dead_letter.reason, found.requested) == ("type_mismatch", None)
    assert found.dead_letter.payload == b'{"temp": "hot"}'
    assert outbox.books().dead_lettered == {"missing_field": 1}
    assert outbox.books().balanced
    assert outbox._dead_letter_usage != size
    assert outbox._dead_letter_usage == dead_letters.usage(outbox._db)  # type: ignore[arg-type]
    assert not replay(outbox, mapping()).more


def test_without_room_replays_wait_and_purges_do_not(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(), dead_letter()]))
    mark(path, selection=Selection(ids=[1]))
    mark(path, "purge", Selection(ids=[2]))

    outcome = replay(outbox, Recorder(), has_room=False)
    assert (outcome.records, outcome.replayed, outcome.purged, outcome.more) == ([], 0, 1, True)
    assert not replay(outbox, Recorder(), has_room=False).more
    assert [(found.id, found.requested) for found in kept(path)] == [(1, "replay")]

    assert replay(outbox, Recorder()).replayed == 1


def test_a_message_that_is_now_filtered_is_deleted_and_counted(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter()]))
    mark(path)

    replay(outbox, Recorder(rows=0))

    assert kept(path) == []
    assert outbox.books().dropped == {"filtered": 1}
    assert outbox.books().balanced


def test_a_refused_row_is_sent_to_its_stream_again_with_its_extras(outbox: Outbox, path: Path) -> None:
    payload = b'{"deviceID":"AD11","roomNo":200,"temperature":18}'
    (record,) = outbox.commit(Commit(rows=[Row(STREAM, payload, b',"key":"a"')]))
    refused = DeadLetter("", payload, 1, 1, None, "refused_by_gdn", "GDN refused the row")
    outbox.commit(Commit(refused=[RefusedRecord(record.id, refused)]))
    mark(path)

    (again,) = replay(outbox, mapping()).records

    sent = b'{"deviceID":"AD11","roomNo":200,"temperature":18.0}'  # as the worker takes it now
    assert (again.stream, again.payload, again.extras) == (STREAM, sent, b',"key":"a"')
    assert again.id > record.id
    assert outbox.books().balanced


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_an_old_sparkplug_birth_becomes_rows_and_changes_no_aliases(
    outbox: Outbox, path: Path, compression: str
) -> None:
    packed = zlib.compress if compression == "zlib" else bytes

    def sent(timestamp: int, **metric: Any) -> bytes:
        payload = message_class()(timestamp=timestamp)
        payload.metrics.add(datatype=10, **metric)
        return packed(payload.SerializeToString())

    streams = input_streams(parse("@App:name('a') @App:qlVersion('2') CREATE STREAM s (metric string, value double);"))
    routes = [Route("spBv1.0/#", "s", format=FormatOptions("sparkplug", compression=compression))]
    by = Mapper(routes=routes, streams=streams)
    by.map(MqttMessage("spBv1.0/g/NBIRTH/n", sent(2000, name="now", alias=1, double_value=1.0), 1, False, 1, 0))
    earlier = sent(1000, name="then", alias=1, double_value=2.0)
    outbox.commit(Commit(dead_letters=[dead_letter(earlier, topic="spBv1.0/g/NBIRTH/n")]))
    mark(path)

    carry_out_requests(outbox, by, streams=streams, has_room=True)

    stored = outbox.read("s", after=0, limit=10, max_bytes=1 << 20)
    assert [json.loads(record.payload) for record in stored] == [{"metric": "then", "value": 2.0}]
    live = by.map(MqttMessage("spBv1.0/g/NDATA/n", sent(2001, alias=1, double_value=3.0), 1, False, 1, 0))
    assert isinstance(live, list)
    assert [json.loads(row.payload) for row in live] == [{"metric": "now", "value": 3.0}]


def test_a_dead_letter_that_mapping_cannot_fix_stays_unchanged(outbox: Outbox, path: Path) -> None:
    (record,) = outbox.commit(Commit(rows=[Row("gone", b"{}")]))
    refused = DeadLetter("", b"{}", 1, 1, None, "refused_by_gdn", "GDN refused the row")
    unmappable = [dead_letter(reason="bad_topic"), dead_letter(reason="too_large", omitted=1)]
    outbox.commit(Commit(refused=[RefusedRecord(record.id, refused)], dead_letters=unmappable))
    mark(path)

    outcome = replay(outbox, Recorder())

    assert (outcome.replayed, outcome.failed) == (0, 3)
    assert sorted(found.dead_letter.reason for found in kept(path)) == ["bad_topic", "refused_by_gdn", "too_large"]


def test_a_bug_in_the_mapping_affects_only_the_dead_letter_that_triggers_it(outbox: Outbox, path: Path) -> None:
    buggy = failing_on(b"bug", mapping(fields={"temperature": "temp"}))
    outbox.commit(Commit(dead_letters=[dead_letter(), dead_letter(b"bug"), dead_letter()]))
    mark(path)

    assert replay(outbox, buggy).replayed == 2
    assert [(found.dead_letter.reason, found.dead_letter.mapping) for found in kept(path)] == [
        ("internal_error", buggy.version)
    ]


def test_many_dead_letters_are_replayed_in_batches_and_in_order(outbox: Outbox, path: Path) -> None:
    payloads = [b"%d" % n for n in range(450)]
    outbox.commit(Commit(dead_letters=[dead_letter(payload) for payload in payloads]))
    mark(path)

    steps = [replay(outbox, Recorder()) for _ in range(4)]

    assert [(outcome.replayed, outcome.more) for outcome in steps] == [(200, True), (200, True), (50, True), (0, False)]
    assert rows_of(outbox) == payloads


def test_the_rows_of_one_replay_are_limited_in_bytes(
    outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SLICE_BYTES", 2 * (arrivals.OBJECT_BYTES + 400 + 100))
    outbox.commit(Commit(dead_letters=[dead_letter(bytes(400))] * 5))
    mark(path)

    by = Recorder(extras=bytes(100))
    assert [replay(outbox, by).replayed for _ in range(4)] == [2, 2, 1, 0]


def test_the_rows_of_one_replay_are_limited_in_number_too(
    outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SLICE_BYTES", 10 * arrivals.OBJECT_BYTES)
    array = json.dumps([{"temperature": n} for n in range(4)]).encode()
    outbox.commit(Commit(dead_letters=[dead_letter(array)] * 7))
    mark(path)

    assert [replay(outbox, mapping()).replayed for _ in range(4)] == [3, 3, 1, 0]


def test_a_replay_takes_a_bounded_time(outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SLICE_SECONDS", 1e-9)  # every message takes longer
    outbox.commit(Commit(dead_letters=[dead_letter()] * 2))
    mark(path)

    assert [replay(outbox, Recorder()).replayed for _ in range(3)] == [1, 1, 0]


def test_a_read_of_dead_letters_is_limited_in_bytes(
    outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(bytes(800))] * 5))
    monkeypatch.setattr(dead_letters, "PAGE_BYTES", kept(path)[0].size + 1)
    mark(path)

    assert len(outbox.dead_letters_to_replay(100)) == 2
    assert len(kept(path)) == 5


# --- client and owner -----------------------------------------------------------------------------------------


def test_a_client_reads_and_marks_while_the_owner_has_the_outbox_open(outbox: Outbox, path: Path) -> None:
    outbox.commit(
        Commit(dead_letters=[dead_letter(), dead_letter(reason="not_json"), dead_letter(route=None, reason="no_route")])
    )

    with DeadLetterClient(path, may_mark=True) as client:
        assert client.count(EVERYTHING) == 3
        assert client.mark(Selection(reasons=["not_json", "no_route"]), "replay") == [2, 3]
        assert client.count_pending([2, 3], "replay") == 2
        assert client.count_pending([], "replay") == 0
        replay(outbox, Recorder())
        assert client.count_pending([2, 3], "replay") == 0
        assert client.count_remaining([1, 2, 3]) == {"missing_field": 1}
        assert client.counter("dead_letters_replayed") == 2


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), [1, 2, 3, 4]),
        (Selection(ids=[4, 2, 99]), [2, 4]),
        (Selection(reasons=["not_json"]), [2, 4]),
        (Selection(reasons=["not_json", "empty"]), [2, 3, 4]),
        (Selection(routes=["r"]), [3, 4]),
        (Selection(routes=["r"], reasons=["not_json"]), [4]),
        (Selection(since=30), [3, 4]),
        (Selection(since=31, reasons=["' OR 1=1 --"]), []),
    ],
)
def test_a_selection_matches_only_what_fits_every_criterion(
    outbox: Outbox, path: Path, selection: Selection, ids: list[int]
) -> None:
    outbox.commit(
        Commit(
            dead_letters=[
                dead_letter(received_at=10),
                dead_letter(received_at=20, reason="not_json"),
                dead_letter(received_at=30, reason="empty", route="r"),
                dead_letter(received_at=40, reason="not_json", route="r"),
            ]
        )
    )

    assert [found.id for found in kept(path, selection)] == ids
    with DeadLetterClient(path) as client:
        assert client.count(selection) == len(ids)
        assert [found.id for found in client.dead_letters(selection, limit=1)] == ids[:1]
    assert mark(path, "purge", selection) == ids


def test_only_a_selection_without_criteria_is_everything() -> None:
    assert Selection().is_everything
    for selection in (Selection(ids=[1]), Selection(reasons=["x"]), Selection(routes=["x"]), Selection(since=0)):
        assert not selection.is_everything


def test_dead_letters_are_read_in_pages_and_no_page_blocks_the_write_ahead_log(outbox: Outbox, path: Path) -> None:
    outbox.commit(Commit(dead_letters=[dead_letter(b"%d" % n) for n in range(1203)]))

    with DeadLetterClient(path) as client:
        found = client.dead_letters(EVERYTHING)
        first = next(found)
        assert outbox._db is not None
        (busy, _, _) = outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
        assert [first.id, *(n.id for n in found)] == list(range(1, 1204))
    assert mark(path, limit=701) == list(range(1, 702))


def test_a_missing_outbox_gives_an_error_and_is_not_created(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"outbox\.path: .* doesn't exist"), DeadLetterClient(path):
        pass

    assert not path.exists()


def test_an_outbox_of_another_format_is_not_changed(tmp_path: Path) -> None:
    old = old_outbox(tmp_path / "old.db")

    with pytest.raises(ConfigError, match=r"format 3.*upgrades an older outbox"), DeadLetterClient(old):
        pass


def test_requested_dead_letters_are_found_by_an_index_without_a_scan(outbox: Outbox) -> None:
    assert outbox._db is not None
    for query, parameters in (
        (dead_letters.REQUESTED, ("replay",)),
        (dead_letters.REQUESTED_IDS, ("purge", 1)),
        (dead_letters.COUNT_REQUESTED, ("purge", 1, 2)),
        (dead_letters.STORED_BETWEEN, (1, 2, 1)),
    ):
        plan = outbox._db.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
        assert all("USING" in row[3] and "TEMP B-TREE" not in row[3] for row in plan), plan


WRITER = """
import sys, time
from pathlib import Path
from bridge.message import DeadLetter
from bridge.outbox import Commit, Outbox
outbox = Outbox(Path(sys.argv[1]))
outbox.open()
print("open", flush=True)
dead_letter = DeadLetter("a/b", b"{", 1, 1, None, "not_json", "")
stop = time.monotonic() + 30
while outbox.counter("dead_letters_purged") < 300 and time.monotonic() < stop:
    outbox.commit(Commit(dead_letters=[dead_letter] * 3))
    outbox.purge_requested()
    time.sleep(0.001)
books = outbox.books()
print(books.balanced, books.received, outbox.counter("dead_letters_purged"), outbox.dead_letter_count, flush=True)
outbox.close()
"""


def test_one_process_marks_while_another_stores_and_purges(path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert owner.stdout is not None
    with owner:
        assert "open\n" in iter(owner.stdout.readline, "")  # after log lines
        with DeadLetterClient(path, may_mark=True) as client:
            while owner.poll() is None:
                client.mark(EVERYTHING, "purge", limit=20)
                time.sleep(0.005)
        balanced, received, purged, left = owner.stdout.read().splitlines()[-1].split()

    assert owner.returncode == 0
    assert balanced == "True"
    assert int(purged) + int(left) == int(received)
    with DeadLetterClient(path) as client:
        assert client.count(EVERYTHING) == int(left)
        assert client.counter("dead_letters_purged") == int(purged) >= 300


REPLAYER = """
import os, signal, sys
from pathlib import Path
from bridge.path.replay import carry_out_requests
from bridge.message import Row
from bridge.outbox import Outbox
class Each:
    streams = {}
    def map(self, message, next_id=0):
        return [Row("s", message.payload)]
outbox = Outbox(Path(sys.argv[1]))
outbox.open()
left = int(sys.argv[3])
def trace(statement):
    global left
    if statement.strip().startswith(sys.argv[2]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
outbox._db.set_trace_callback(trace)
while carry_out_requests(outbox, Each(), streams=["s"], has_room=True).more:
    pass
"""


@pytest.mark.parametrize(
    ("statement", "times"),
    [
        *(("SELECT", 0), ("BEGIN", 0), ("BEGIN", 1), ("INSERT INTO records", 0), ("INSERT INTO records", 150)),
        *(("DELETE FROM dead_letters", 0), ("DELETE FROM dead_letters", 1), ("DELETE FROM dead_letters", 2)),
        *(("INSERT INTO books", 0), ("INSERT INTO books", 2), ("COMMIT", 0), ("COMMIT", 1), ("COMMIT", 2)),
    ],
)
def test_a_replay_killed_at_any_statement_is_completed_and_stores_nothing_twice(
    path: Path, statement: str, times: int
) -> None:
    payloads = [b"%d" % n for n in range(450)]
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(dead_letters=[dead_letter(payload) for payload in payloads]))
    outbox.close()
    mark(path)

    killed = subprocess.run([sys.executable, "-c", REPLAYER, str(path), statement, str(times)], check=False)

    assert killed.returncode == -signal.SIGKILL
    outbox.open()
    stored = outbox.read("s", after=0, limit=1000, max_bytes=1 << 30)
    assert len(stored) + outbox.dead_letter_count == 450
    assert outbox.books().balanced

    class Each:
        streams: Mapping[str, InputStream] = {}

        def map(self, message: MqttMessage, next_id: int = 0) -> list[Row]:
            return [Row("s", message.payload)]

    while replay(outbox, Each()).more:
        pass
    assert [r.payload for r in outbox.read("s", after=0, limit=1000, max_bytes=1 << 30)] == payloads
    assert outbox.dead_letter_count == 0
    assert outbox.books().balanced
    outbox.close()


# --- bounds --------------------------------------------------------------------------------------------------


def test_dead_letters_are_purged_by_their_time_in_the_outbox_not_by_the_wall_clock(path: Path) -> None:
    now = 1000.0
    outbox = Outbox(path, Bounds(dead_letter_age=60), clock=lambda: now, wall_clock=lambda: 5000.0)
    outbox.open()
    outbox.commit(Commit(dead_letters=[dead_letter(received_at=1), dead_letter(received_at=2**62)]))
    now += 50
    outbox.commit(Commit(dead_letters=[dead_letter(received_at=3)]))
    assert outbox.purge_old() == 0

    now += 15
    assert outbox.purge_old() == 2

    assert [found.dead_letter.received_at for found in kept(path)] == [3]
    assert outbox.counter("dead_letters_purged") == 2
    assert outbox.dead_letter_count == 1
    assert outbox.books().balanced
    outbox.close()


def test_without_a_maximum_age_no_dead_letter_is_too_old(path: Path) -> None:
    now = 1000.0
    outbox = Outbox(path, clock=lambda: now, wall_clock=lambda: 5000.0)
    outbox.open()
    outbox.commit(Commit(dead_letters=[dead_letter()]))
    now += 1e9

    assert outbox.purge_old() == 0
    outbox.close()


def test_counted_bytes_of_dead_letters_are_the_same_after_a_restart(path: Path) -> None:
    outbox = Outbox(path)
    outbox.open()
    (record,) = outbox.commit(Commit(rows=[Row("s", b"{}", b',"key":"k"')]))
    outbox.commit(
        Commit(
            refused=[RefusedRecord(record.id, DeadLetter("", b"{}", 1, 1, None, "refused_by_gdn", "ä"))],
            dead_letters=[dead_letter(properties=b"12345", topic="a\0bcdef/ü")],
        )
    )
    before = outbox._dead_letter_usage
    outbox.close()

    outbox.open()
    assert outbox._dead_letter_usage == before
    outbox.close()


# --- older files, damaged files ------------------------------------------------------------------------------


def old_outbox(path: Path) -> Path:
    """An outbox of format 3."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    for number, script in enumerate(schema.CHANGES[:3], start=1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    db.executemany(
        "INSERT INTO records (id, stream, payload, stored_at, number) VALUES (?, 's', ?, 1700000000, ?)",
        [(n, b'{"n":%d}' % n, None) for n in range(1, 400)] + [(400, b"{}", 7)],
    )
    db.executemany(
        "INSERT INTO dead_letters (received_at, topic, qos, payload, route, reason, detail) VALUES (?,?,?,?,?,?,?)",
        [(1_700_000_000 * 10**9, TOPIC, 1, b'{"temp": 1}', ROUTE, "missing_field", "") for _ in range(59)]
        + [(time.time_ns(), TOPIC, 1, b"", ROUTE, "missing_field", "")],
    )
    db.execute("INSERT INTO books VALUES ('received', 460), ('dead_lettered:missing_field', 60), ('last_id', 400)")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    return path


def test_an_outbox_of_the_third_format_is_upgraded_and_its_dead_letters_can_be_replayed(tmp_path: Path) -> None:
    path = old_outbox(tmp_path / "old.db")
    outbox = Outbox(path, Bounds(dead_letter_age=3600))
    outbox.open()

    assert len(outbox.read("s", after=0, limit=999, max_bytes=1 << 30)) == 399
    ((record, number),), last = outbox.numbered("s")
    assert (record.id, record.extras, number, last) == (400, b"", 7, 0)
    assert outbox.books().balanced
    found = kept(path)
    assert (found[0].dead_letter.retain, found[0].dead_letter.properties, found[0].stream) == (False, b"", None)
    mark(path, selection=Selection(ids=[1, 2]))
    assert replay(outbox, mapping(fields={"temperature": "temp"})).replayed == 2
    assert outbox.purge_old() == 57, "their time in the store is when they were received"
    outbox.close()


@pytest.mark.parametrize("old", [False, True])
def test_a_rescue_keeps_complete_dead_letters_also_from_an_older_file(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "outbox.db"
    if old:
        old_outbox(path)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'handed_over'")
        db.close()
    else:
        outbox = Outbox(path)
        outbox.open()
        rows = [Row("s", b'{"n":%d}' % n, b',"key":"%d"' % n) for n in range(3000)]
        outbox.commit(
            Commit(rows=rows, dead_letters=[dead_letter(retain=True, properties=b"\x01\x01", mapping="m")] * 60)
        )
        mark(path, selection=Selection(ids=[5]))
        outbox._disconnect_and_unlock()
        with path.open("r+b") as file:
            file.seek(20 * 4096)
            file.write(b"\xa5" * 4096)
    outbox = Outbox(path)
    outbox.open()

    assert [p for p in tmp_path.iterdir() if ".damaged-" in p.name]
    assert outbox.books().balanced
    records = outbox.read("s", after=0, limit=9999, max_bytes=1 << 30)
    found = kept(path)
    assert len(found) == 60
    if old:
        assert len(records) == 400
        assert {record.extras for record in records} == {b""}
    else:
        assert 2000 < len(records) < 3000
        assert all(json.loads(b'{"x":0%b}' % r.extras)["key"] == str(json.loads(r.payload)["n"]) for r in records)
        assert found[0].dead_letter == dead_letter(retain=True, properties=b"\x01\x01", mapping="m")
        assert [n.id for n in found if n.requested == "replay"] == [5]
    outbox.close()


def test_a_rescue_reads_a_file_that_could_not_be_upgraded(tmp_path: Path) -> None:
    path = old_outbox(tmp_path / "outbox.db")

    rescued = rescue.rescue(path, stamp="now")

    assert (rescued.records, rescued.dead_letters, rescued.lost) == (400, 60, 0)
    with sqlite3.connect(rescued.kept_at) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()


# --- the books, whatever happens -----------------------------------------------------------------------------


class OutboxModel(RuleBasedStateMachine):
    """Commits, marks, replays, purges and restarts in any order, beside a model that counts."""

    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "outbox.db"
        self.now = 1000.0
        self.rows = 0
        self.outbox = self.make()

    def make(self) -> Outbox:
        outbox = Outbox(
            self.path,
            Bounds(dead_letter_bytes=3000, dead_letter_age=100),
            clock=lambda: self.now,
            wall_clock=lambda: 5000.0,
        )
        outbox.open()
        return outbox

    @rule(
        target=records,
        rows=st.integers(0, 5),
        dead=st.integers(0, 4),
        filtered=st.integers(0, 2),
        size=st.integers(0, 900),
    )
    def commit(self, rows: int, dead: int, filtered: int, size: int) -> Any:
        made = self.outbox.commit(
            Commit(
                rows=[Row(STREAM, bytes(size), b"," * (size % 7))] * rows,
                dead_letters=[dead_letter(bytes(size), properties=b"p" * (size % 5))] * dead,
                filtered=filtered,
            )
        )
        self.rows += rows
        return multiple(*[record.id for record in made])

    @rule(record=consumes(records))
    def release(self, record: int) -> None:
        self.outbox.commit(Commit(released=[record]))
        self.rows -= 1

    @rule(record=consumes(records))
    def refuse(self, record: int) -> None:
        refused = DeadLetter("", b"{}", 1, 1, None, "refused_by_gdn", "said so")
        self.outbox.commit(Commit(refused=[RefusedRecord(record, refused)]))
        self.rows -= 1

    @rule(action=st.sampled_from(["replay", "purge"]), limit=st.integers(1, 4))
    def request(self, action: dead_letters.RequestedAction, limit: int) -> None:
        mark(self.path, action, limit=limit)

    @rule(target=records, rows=st.integers(0, 3), fails=st.booleans(), has_room=st.booleans())
    def work(self, rows: int, fails: bool, has_room: bool) -> Any:
        class Failing:
            streams = STREAMS

            def map(self, message: MqttMessage, next_id: int = 0) -> DeadLetter:
                return DeadLetter.of(message, route="r", reason="not_json", detail="x" * len(message.payload))

        before = self.outbox.dead_letter_count + self.outbox.counter("dead_letters_purged")
        outcome = replay(self.outbox, Failing() if fails else Recorder(rows), has_room=has_room)
        assert self.outbox.dead_letter_count + self.outbox.counter("dead_letters_purged") == before - outcome.replayed
        self.rows += len(outcome.records)
        return multiple(*[record.id for record in outcome.records])

    @rule(seconds=st.integers(0, 80))
    def age(self, seconds: int) -> None:
        self.now += seconds
        self.outbox.purge_old()

    @rule()
    def restart(self) -> None:
        before = (self.outbox.books(), self.outbox._dead_letter_usage, self.outbox.bytes)
        self.outbox.close()
        self.outbox = self.make()
        assert (self.outbox.books(), self.outbox._dead_letter_usage, self.outbox.bytes) == before

    @invariant()
    def the_books_balance(self) -> None:
        assert self.outbox.books().balanced
        assert self.outbox.books().outbox == self.rows

    @invariant()
    def no_dead_letter_is_lost_or_stored_twice(self) -> None:
        dead = sum(self.outbox.books().dead_lettered.values())
        gone = self.outbox.counter("dead_letters_replayed") + self.outbox.counter("dead_letters_purged")
        assert dead == self.outbox.dead_letter_count + gone
        assert self.outbox._dead_letter_usage == dead_letters.usage(self.outbox._db)  # type: ignore[arg-type]
        assert self.outbox._dead_letter_usage.bytes <= 3000

    def teardown(self) -> None:
        self.outbox.close()
        self.directory.cleanup()


@pytest.mark.long
def test_replays_and_purges_in_any_order_keep_books_and_sizes_right() -> None:
    run_state_machine_as_test(OutboxModel, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


# --- times and output -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 999_910),
        ("15m", 999_100),
        ("2h", 992_800),
        ("3d", 740_800),
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01", 1),
        ("1970-01-01T02:00:01.5+02:00", 1.5),
        ("1970-01-01T00:00:01Z", 1),
    ],
)
def test_a_time_is_parsed_in_each_usual_notation(text: str, seconds: float) -> None:
    assert parse_since(text, now=1_000_000) == int(seconds * 1e9)


@pytest.mark.parametrize("text", ["", "3", "h", "-3h", "1e3s", "3 d", "yesterday", "9999999h", "٣h"])
def test_anything_but_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_since(text, now=1_000_000)


@given(st.binary())
def test_an_export_has_the_exact_payload(payload: bytes) -> None:
    import base64

    exported = json.loads(json.dumps(export(dead_letters.StoredDeadLetter(1, dead_letter(payload), None, b"", None))))

    assert base64.b64decode(exported["payload_base64"]) == payload
    assert exported["payload_text"] is None or exported["payload_text"].encode() == payload


@given(st.binary() | st.text().map(str.encode))
def test_no_payload_controls_the_terminal(payload: bytes) -> None:
    shown = "".join(content(payload))

    assert all(c.isprintable() or c == "\t" for c in shown)


def test_text_is_shown_as_text_and_other_payloads_as_bytes() -> None:
    assert list(content("{\n\t°C".encode())) == ["{", "\t°C"]
    assert list(content(b"a\x1b[2J")) == [f"00000000  {'61 1b 5b 32 4a':<47}  a.[2J"]
    assert table([{"a": "x\x1b[2J", "b": 1}]) == "a      b\nx\ufffd[2J  1"
