"""The oracle: decides from all observations whether anything was lost, changed, reordered, duplicated or leaked.

``judge`` is a pure function of the ``Evidence``; ``read_journal`` and ``read_outbox`` read the parts of it that are on
disk. No code of ``bridge/`` is used.

What must hold (``Verdict.problems`` is empty then):

1. **Nothing lost.** For each message that the broker PUBACKed to the publisher, and each that the bridge PUBACKed to
   the broker: each of its rows was receipted by the far end, or is a dead letter with ``refused_by_gdn`` after the far
   end has answered it with ``send-error:7``. If it can't be mapped (poison), it is a dead letter with the expected
   reason. Only what ``tests/faults/__init__.py`` excuses may be missing, nothing that the bridge PUBACKed.
2. **Nothing changed.** Every payload that arrived is byte for byte an expected row of some message. Every dead
   letter is a published message, complete, with its topic, that had to become one.
3. **Order** (docs/design.md, promise 2). On one connection the contexts of the sends increase; one answered with
   ``send-error:8`` may be sent again later. Over the whole run, the first arrivals of a device's rows are in the order
   of publishing, except for rows that were ever answered with an error. This holds across cuts, resends and kills: a
   resend starts at the oldest record without receipt, so a first arrival never overtakes another.
4. **No duplicate without a cause.** A row has at most as many contexts (records) as its message was delivered to
   the bridge; a context arrives again only over another connection, or over the same after ``send-error:8``; a context
   always has the same payload. A message has at most as many dead letters as it was delivered.
5. **The books balance** in each reading of /readyz, never decrease, never show more delivered than was receipted by
   then, and agree at the end with the database and the observations: ``received`` is between the number of records
   that the bridge PUBACKed and that of records delivered to it; ``delivered`` is the number of contexts receipted,
   except for those that were refused as well.
6. **Memory**: no process used more than ``MEMORY_LIMIT``.
7. **Secrets**: none, in any encoding, in any text that the daemon wrote.
8. **PUBACKs** on the broker's link are in the order of the messages, and only for messages of that connection.
9. **Reconnects**: a producer connection ended only where a fault or the daemon's end explains it.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from tests.faults.messages import Message, MessageId, compose, row_of
from tests.faults.publisher import Published

MEMORY_LIMIT = 150 * 1024 * 1024

REFUSED = "refused_by_gdn"

EXPLAINED_WITHIN = 6.0
"""Seconds after a fault in which it counts as the cause of a connection's end: timeouts and a back-off."""

SHOWN = 12
"""The number of offending ids that are reported with their history, for each kind of problem."""


class Arrival(NamedTuple):
    """A send that the far end read."""

    number: int
    at: float
    connection: int
    context: str | None
    payload: bytes
    fate: str
    """``ok``: stored. ``8``, ``7``: answered with that error. ``void``: discarded."""


class DeadLetter(NamedTuple):
    """A row of the outbox's table."""

    topic: str
    qos: int
    payload: bytes
    reason: str


class Sample(NamedTuple):
    """A reading of the books."""

    at: float
    books: dict[str, Any]


@dataclass
class Journal:
    """The far end's journal."""

    arrivals: list[Arrival] = field(default_factory=list)
    receipted: dict[int, float] = field(default_factory=dict)
    """Numbers of arrivals whose correct receipt was written, with the time of the first."""
    opened: dict[int, float] = field(default_factory=dict)
    ended: dict[int, tuple[float, str]] = field(default_factory=dict)
    otps: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    """All observations of a run."""

    seed: int
    published: Mapping[MessageId, Published]
    handed: Mapping[MessageId, int]
    """How often the broker delivered each message to the bridge."""
    acked: Mapping[MessageId, int]
    """How often the bridge PUBACKed each message."""
    journal: Journal
    dead_letters: list[DeadLetter]
    outbox_left: int
    """Records in the database at the end."""
    samples: list[Sample]
    final_books: dict[str, Any]
    """The last reading, when the daemon was idle."""
    wire_problems: list[str] = field(default_factory=list)
    """Errors on the broker's link."""
    uncertain: list[tuple[float, float]] = field(default_factory=list)
    """Times when the broker was killed unannounced: from its last save to its death."""
    disturbed: list[tuple[float, float]] = field(default_factory=list)
    """Times when a fault was active or the daemon was ending."""
    deaths: list[tuple[float, float]] = field(default_factory=list)
    """Times from a signal to the daemon until its end."""
    peaks: list[int] = field(default_factory=list)
    """Bytes."""
    texts: list[tuple[str, Iterable[str]]] = field(default_factory=list)
    """Texts of the daemon, by place; split so that no secret crosses a boundary."""
    secrets: dict[str, str] = field(default_factory=dict)
    """By name."""


@dataclass
class Verdict:
    """What the oracle found."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def judge(evidence: Evidence) -> Verdict:
    """Judge a run."""
    return _Case(evidence).verdict()


class _Case:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.found = Verdict()
        self.messages: dict[MessageId, Message] = {}
        self.by_row: dict[tuple[MessageId, int], list[Arrival]] = defaultdict(list)
        ids = set(evidence.published) | {i for i in evidence.handed if i.n > 0}
        for message_id in ids:
            self.messages[message_id] = compose(evidence.seed, message_id)

    def verdict(self) -> Verdict:
        """Every check, in the order of the module's list."""
        self._payloads()
        dead = self._dead_letters()
        self._losses(dead)
        self._order()
        self._duplicates()
        self._books()
        self._memory()
        self._secrets()
        self._report("on the broker's link", self.evidence.wire_problems)
        self._reconnects()
        return self.found

    def _report(self, title: str, offenders: list[str]) -> None:
        if offenders:
            more = f"\n    … and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
            told = "".join(f"\n    {offender}" for offender in offenders[:SHOWN])
            self.found.problems.append(f"{title}: {len(offenders)}{told}{more}")

    def _history(self, message_id: MessageId) -> str:
        """The history of one message, as text."""
        evidence, steps = self.evidence, []
        published = evidence.published.get(message_id)
        if published is not None:
            steps.append(f"published {published.sends}x, PUBACKed at {published.acked_at}")
        steps.append(f"handed over {evidence.handed.get(message_id, 0)}x")
        steps.append(f"PUBACKed by the bridge {evidence.acked.get(message_id, 0)}x")
        message = self.messages.get(message_id)
        for part in range(len(message.rows) if message else 0):
            for a in self.by_row.get((message_id, part), ()):
                receipted = " receipted" if a.number in evidence.journal.receipted else ""
                where = f"context {a.context} on connection {a.connection} at {a.at}"
                steps.append(f"part {part} as {where}: {a.fate}{receipted}")
        if message is not None and message.reason:
            steps.append(f"must be a dead letter: {message.reason}")
        return f"{message_id}: " + "; ".join(steps)

    # --- 2: nothing changed -------------------------------------------------------------------------------

    def _payloads(self) -> None:
        strange = []
        for arrival in self.evidence.journal.arrivals:
            found = row_of(arrival.payload)
            message = self.messages.get(found[0]) if found else None
            if found is None or message is None or not 0 <= found[1] < len(message.rows):
                strange.append(f"no message makes this row: {arrival.payload[:200]!r}, {arrival.connection=}")
                continue
            self.by_row[found].append(arrival)
            expected = message.rows[found[1]]
            if arrival.payload != expected:
                strange.append(f"{found[0]} part {found[1]}: {arrival.payload!r} where {expected!r} is right")
        self._report("wrong payloads", strange)

    def _dead_letters(self) -> Counter[tuple[MessageId, int | None]]:
        """The number of dead letters of each message, or of each part that was refused."""
        poison = {(m.topic, m.payload): i for i, m in self.messages.items() if m.reason is not None}
        dead: Counter[tuple[MessageId, int | None]] = Counter()
        wrong = []
        for letter in self.evidence.dead_letters:
            if letter.reason == REFUSED:
                found = row_of(letter.payload)
                if found is None or not any(a.fate == "7" and a.payload == letter.payload for a in self.by_row[found]):
                    wrong.append(f"refused_by_gdn, but the far end refused no such row: {letter.payload[:200]!r}")
                else:
                    dead[found] += 1
                continue
            message_id = poison.get((letter.topic, letter.payload))
            if message_id is None:
                wrong.append(f"{letter.reason}: no poison that was published: {letter.topic} {letter.payload[:200]!r}")
                continue
            dead[message_id, None] += 1
            expected = self.messages[message_id].reason
            if letter.reason != expected or letter.qos != 1:
                wrong.append(f"{message_id}: {letter.reason}, QoS {letter.qos}, where {expected}, QoS 1 is right")
        self._report("wrong dead letters", wrong)
        handed = self.evidence.handed
        self._report(
            "more dead letters than the message was handed over, or its records refused",
            [
                f"{n}x in the dead letters: {self._history(message_id)}"
                for (message_id, part), n in dead.items()
                if n > (handed.get(message_id, 0) if part is None else self._refusals(message_id, part))
            ],
        )
        self.found.figures["dead letters"] = dict(Counter(letter.reason for letter in self.evidence.dead_letters))
        return dead

    def _refusals(self, message_id: MessageId, part: int) -> int:
        return len({arrival.context for arrival in self.by_row[message_id, part] if arrival.fate == "7"})

    # --- 1: nothing lost ----------------------------------------------------------------------------------

    def _losses(self, dead: Counter[tuple[MessageId, int | None]]) -> None:
        evidence = self.evidence
        receipted = evidence.journal.receipted
        lost, undelivered, excused = [], [], 0
        pubacked = delivered = 0
        for message_id, message in self.messages.items():
            published = evidence.published.get(message_id)
            acked_at = published.acked_at if published is not None else None
            by_bridge = evidence.acked.get(message_id, 0) > 0
            pubacked += acked_at is not None
            if acked_at is None and not by_bridge:
                continue
            if message.reason is not None:
                settled = dead[message_id, None] > 0
            else:
                settled = all(
                    dead[message_id, part] > 0 or any(a.number in receipted for a in self.by_row[message_id, part])
                    for part in range(len(message.rows))
                )
            if settled:
                delivered += message.reason is None
            elif by_bridge:
                lost.append(self._history(message_id))
            elif acked_at is not None and any(start <= acked_at <= end for start, end in evidence.uncertain):
                excused += 1
            else:
                undelivered.append(self._history(message_id))
        self._report("LOST: the bridge PUBACKed it, and it neither arrived nor is a dead letter", lost)
        self._report("missing: PUBACKed by the broker, and never PUBACKed by the bridge", undelivered)
        if evidence.outbox_left:
            self.found.problems.append(f"{evidence.outbox_left} records are left in the outbox")
        in_question = sum(
            1
            for p in evidence.published.values()
            if p.acked_at is not None and any(start <= p.acked_at <= end for start, end in evidence.uncertain)
        )
        self.found.figures |= {
            "published": len(evidence.published),
            "PUBACKed": pubacked,
            "messages arrived": delivered,
            "excused: the broker lost them": excused,
            "published while that was possible": in_question,
        }

    # --- 3: order -----------------------------------------------------------------------------------------

    def _order(self) -> None:
        last: dict[int, int] = {}
        refused: dict[int, set[str | None]] = defaultdict(set)
        disordered, contextless = [], 0
        for arrival in self.evidence.journal.arrivals:
            connection, context = arrival.connection, arrival.context
            if context is None or not context.isdecimal():
                contextless += 1
                continue
            if context in refused[connection]:
                refused[connection].discard(context)
            elif int(context) <= last.get(connection, 0):
                disordered.append(
                    f"context {context} after {last[connection]} on connection {connection}: {arrival.payload[:100]!r}"
                )
            else:
                last[connection] = int(context)
            if arrival.fate == "8":
                refused[connection].add(context)
        self._report("sends out of order on their connection", disordered)
        if contextless:
            self.found.problems.append(f"{contextless} sends without a context")
        refused_once = {
            key for key, arrivals in self.by_row.items() if any(arrival.fate in ("7", "8") for arrival in arrivals)
        }
        newest: dict[int, tuple[int, int]] = {}
        seen: set[tuple[MessageId, int]] = set()
        overtaken = []
        for arrival in self.evidence.journal.arrivals:
            found = row_of(arrival.payload)
            if arrival.fate != "ok" or found is None or found in seen or found in refused_once:
                continue
            seen.add(found)
            message_id, part = found
            place = (message_id.n, part)
            if place < newest.get(message_id.device, (0, 0)):
                overtaken.append(f"after number {newest[message_id.device]}: {self._history(message_id)}")
            else:
                newest[message_id.device] = place
        self._report("rows stored first in another order than they were published", overtaken)

    # --- 4: duplicates ------------------------------------------------------------------------------------

    def _duplicates(self) -> None:
        evidence = self.evidence
        payloads: dict[str, bytes] = {}
        last: dict[str, Arrival] = {}
        reused, repeated = [], []
        causes: Counter[str] = Counter()
        for arrival in evidence.journal.arrivals:
            context = arrival.context
            if context is None:
                continue
            if payloads.setdefault(context, arrival.payload) != arrival.payload:
                reused.append(f"context {context}: {payloads[context][:100]!r}, then {arrival.payload[:100]!r}")
            before = last.get(context)
            last[context] = arrival
            if before is None:
                continue
            if before.connection == arrival.connection and before.fate != "8":
                repeated.append(f"context {context}, {arrival.connection=}: {arrival.payload[:100]!r}")
            if before.fate == "ok" and arrival.fate == "ok":
                killed = any(before.at < over < arrival.at for _, over in evidence.deaths)
                causes["sent again after the daemon's end" if killed else "sent again after a lost link"] += 1
        self._report("a context that carried two payloads", reused)
        self._report("sent again on the same connection without send-error:8", repeated)
        doubled = []
        for (message_id, _), arrivals in self.by_row.items():
            records = len({arrival.context for arrival in arrivals})
            if records < 2:
                continue
            if records > evidence.handed.get(message_id, 0):
                doubled.append(f"{records} records: {self._history(message_id)}")
            published = evidence.published.get(message_id)
            twice = published is not None and published.sends > 1
            causes["published again" if twice else "handed over again by the broker"] += records - 1
        self._report("more records than the message was handed over", doubled)
        self.found.figures["duplicates"] = dict(causes)

    # --- 5: the books -------------------------------------------------------------------------------------

    def _books(self) -> None:
        evidence = self.evidence
        wrong = []
        previous: dict[str, Any] = {}
        for sample in [*evidence.samples, Sample(0.0, evidence.final_books)]:
            books = sample.books
            accounted = books["delivered"] + books["outbox"] + books["dead_lettered"] + books["dropped"]
            if accounted != books["received"] or books["balanced"] is not True:
                wrong.append(f"at {sample.at}: {books}")
            growing = ("received", "delivered", "dead_lettered", "dropped")
            if any(books[name] < previous.get(name, 0) for name in growing):
                wrong.append(f"at {sample.at}: {books} is less than before: {previous}")
            previous = books
        self._report("books that don't balance", wrong)
        first_receipts: dict[str | None, float] = {}
        for arrival in evidence.journal.arrivals:
            at = evidence.journal.receipted.get(arrival.number)
            if at is not None:
                first_receipts[arrival.context] = min(at, first_receipts.get(arrival.context, at))
        times = sorted(first_receipts.values())
        self._report(
            "records released before they were receipted",
            [
                f"at {at}: {books['delivered']} delivered, {n} receipted"
                for at, books in evidence.samples
                if books["delivered"] > (n := bisect_right(times, at))
            ],
        )
        final = evidence.final_books
        rows = {i: len(m.rows) or 1 for i, m in self.messages.items()}
        least = sum(n * rows[i] for i, n in evidence.acked.items() if i in rows)
        most = sum(n * rows[i] for i, n in evidence.handed.items() if i in rows)
        receipted = {a.context for a in evidence.journal.arrivals if a.number in evidence.journal.receipted}
        refused = {a.context for a in evidence.journal.arrivals if a.fate == "7"}
        for what, holds in {
            f"dead letters: {final['dead_lettered']} in the books, {len(evidence.dead_letters)} in the database": (
                final["dead_lettered"] == len(evidence.dead_letters)
            ),
            f"outbox: {final['outbox']} in the books, {evidence.outbox_left} in the database": (
                final["outbox"] == evidence.outbox_left
            ),
            f"received: {final['received']}, but {least} were PUBACKed and {most} handed over": (
                least <= final["received"] <= most
            ),
            f"delivered: {final['delivered']}, but {len(receipted)} records were receipted, {len(refused)} refused": (
                len(receipted - refused) <= final["delivered"] <= len(receipted)
            ),
            f"dropped: {final['dropped']}": final["dropped"] == 0,
        }.items():
            if not holds:
                self.found.problems.append(f"the books at the end: {what}")
        self.found.figures["readings of the books"] = len(evidence.samples)
        self.found.figures["books"] = final

    # --- 6, 7, 9 ------------------------------------------------------------------------------------------

    def _memory(self) -> None:
        peak = max(self.evidence.peaks, default=0)
        self.found.figures["peak memory (MB)"] = round(peak / 1024 / 1024, 1)
        if peak > MEMORY_LIMIT:
            self.found.problems.append(f"memory: a process had {peak} bytes, {MEMORY_LIMIT} is the limit")

    def _secrets(self) -> None:
        forms = {form: name for name, secret in self.evidence.secrets.items() for form in codings(secret)}
        if not forms:
            return
        pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
        leaks: dict[tuple[str, str], list[str]] = defaultdict(list)
        for place, pieces in self.evidence.texts:
            for piece in pieces:
                for match in pattern.finditer(piece):
                    around = piece[max(0, match.start() - 150) : match.end() + 60]
                    leaks[forms[match[0]], place].append(around)
        for (name, place), found in leaks.items():
            self.found.problems.append(f"SECRET: {name} stands {len(found)}x in {place}, first: …{found[0]}…")

    def _reconnects(self) -> None:
        evidence = self.evidence
        unexplained = []
        for connection, (at, why) in evidence.journal.ended.items():
            windows = [*evidence.disturbed, *evidence.deaths]
            if not any(start - 0.5 <= at <= end + EXPLAINED_WITHIN for start, end in windows):
                unexplained.append(f"connection {connection} at {at}: {why}")
        self._report("producer connections that ended although nothing was broken", unexplained)
        self.found.figures["producer connections"] = len(evidence.journal.opened)


def codings(secret: str) -> set[str]:
    """The forms of a secret in a text: itself, quoted, escaped, in base64 at each offset, in hex."""
    data = secret.encode()
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), html.escape(secret)}
    forms |= {json.dumps(secret)[1:-1], data.hex()}
    for offset in range(3):
        # Without the characters at both ends, which depend on the neighbouring bytes.
        core = base64.b64encode(bytes(offset) + data).decode().rstrip("=")[(0, 2, 3)[offset] : -1]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= 6}


# --- reading what is on disk ------------------------------------------------------------------------------


def read_journal(path: Path) -> Journal:
    """The far end's journal."""
    journal = Journal()
    with path.open() as lines:
        for line in lines:
            note = json.loads(line)
            match note["e"]:
                case "got":
                    payload = note["p"].encode()
                    journal.arrivals.append(Arrival(note["i"], note["t"], note["c"], note["x"], payload, note["f"]))
                case "receipt":
                    journal.receipted.setdefault(note["i"], note["t"])
                case "otp":
                    journal.otps.append(note["v"])
                case "open":
                    journal.opened[note["c"]] = note["t"]
                case "end":
                    journal.ended[note["c"]] = (note["t"], note["why"])
    return journal


def read_outbox(path: Path) -> tuple[list[DeadLetter], int]:
    """The dead letters, and how many records are left."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        letters = database.execute("SELECT topic, qos, payload, reason FROM dead_letters ORDER BY id").fetchall()
        (left,) = database.execute("SELECT count(*) FROM records").fetchone()
    finally:
        database.close()
    return [DeadLetter(topic, qos, bytes(payload), reason) for topic, qos, payload, reason in letters], left


def pieces(path: Path) -> Iterator[str]:
    """A file's lines."""
    with path.open(errors="replace") as lines:
        yield from lines
