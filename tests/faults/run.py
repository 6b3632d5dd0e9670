"""A fault run: ``python -m tests.faults.run --seed S --minutes M [--kills K] [--json FILE]``.

Injects the faults of the schedule for that long, ends all faults, waits until everything is delivered, and has the
oracle judge. Exit code 0 only if there are no problems and every chosen class of fault has happened; else it keeps its
directory and prints where it is. Run from the directory that holds ``tests/``; ``bridge`` is imported from there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.faults.far_end import OTP_MARK
from tests.faults.lab import (
    API_KEY,
    PASSWORD,
    Bridge,
    Broker,
    Failed,
    FarEndProcess,
    LoopThread,
    is_listening,
    pick_ports,
    wait_for,
)
from tests.faults.messages import DEVICES, MessageId
from tests.faults.oracle import Evidence, Sample, Verdict, judge, pieces, read_journal, read_outbox
from tests.faults.proxy import Proxy
from tests.faults.publisher import Published, Publisher
from tests.faults.schedule import FAULTS, POINTS, Ending, Fault, Round, Schedule
from tests.faults.tap import Tap

RATE = 150.0
"""Messages per second."""

PATIENCE = 7.0
"""Seconds for the faults of a round to happen, and for a point to be reached."""

RECOVERY = 60.0
"""Seconds in which the daemon must recover by itself, once all faults have ended: its back-offs go up to 30."""

SETTLING = 120.0
"""Seconds at the end for everything under way to arrive."""

SAMPLE_EVERY = 0.7

Windows = list[tuple[float, float]]


class Run:
    """One run.

    Args:
        directory: for all files of the run.
        kills: the minimum number of kills, spread evenly.
        first: names of faults that come before the others.
        each: faults that come first, one after the other, each alone; the same process must recover, unless that would
            take too long.
    """

    def __init__(
        self,
        *,
        seed: int,
        seconds: float,
        kills: int,
        directory: Path,
        rate: float = RATE,
        first: Sequence[str] = (),
        each: Sequence[Fault] = (),
    ) -> None:
        self._each = each
        self._seed = seed
        self._seconds = seconds
        self._kills_wanted = kills
        self._directory = directory
        self._schedule = Schedule(seed, first=first)
        ports = pick_ports(6)
        broker_port, far_port, control, mqtt_port, gdn_port, status_port = ports
        self.known: dict[bytes, MessageId] = {}
        self.tap = Tap(self.known)
        self.loop = LoopThread()
        self.broker = Broker(directory / "broker", broker_port)
        self.mqtt = Proxy(port=mqtt_port, upstream=broker_port, observer=self.tap.connection)
        self.gdn = Proxy(port=gdn_port, upstream=far_port)
        self._far_end_ports = far_port, control
        self.far_end: FarEndProcess | None = None
        protocol = ("5", "3.1.1")[seed % 2]
        window = (20, 100, 500)[seed % 3]
        self.bridge = Bridge(
            directory,
            mqtt_port=mqtt_port,
            gdn_port=gdn_port,
            status_port=status_port,
            settings={"BRIDGE_MQTT__PROTOCOL": protocol, "BRIDGE_DELIVERY__WINDOW": str(window)},
            rng=random.Random(f"points/{seed}"),
        )
        self.publishers = [
            Publisher(
                port=broker_port,
                username="bridge",
                password=PASSWORD,
                seed=seed,
                devices=range(at, len(DEVICES), 2),
                rate=rate / 2,
                known=self.known,
                journal=directory / "published.jsonl",
            )
            for at in range(2)
        ]
        self._publishing: list[Future[None]] = []
        self._rate = rate
        self.own_counts: Counter[str] = Counter()
        self.dealt: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.uncertain: Windows = []
        self.disturbed: Windows = []
        self.samples: list[Sample] = []
        self.problems: list[str] = []
        self._enough = threading.Event()
        self._reading = threading.Lock()
        self._sampler = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._status_log = directory / "status.log"
        self._begun = 0.0

    # --- the run ------------------------------------------------------------------------------------------

    def execute(self) -> Verdict:
        """Run everything."""
        try:
            self._start()
            self._break_things()
            self._finish()
            return self._judge()
        finally:
            self._end()

    def _start(self) -> None:
        self.broker.start()
        for proxy in (self.mqtt, self.gdn):
            self.loop.call(proxy.start())
        far_port, control = self._far_end_ports
        # At first the far end is down: the bridge must start, subscribe and store without it.
        self.far_end = FarEndProcess(
            self._directory,
            port=far_port,
            control=control,
            public=f"127.0.0.1:{self.gdn.port}",
            seed=self._seed,
            down=True,
        )
        self._begun = time.monotonic()
        self.bridge.start()
        wait_for(lambda: self.tap.subscriptions, seconds=20, what="the first subscription")
        for publisher in self.publishers:
            self._publishing.append(self.loop.spawn(publisher.run()))
        self._sampler.start()
        wait_for(lambda: sum(self.tap.acked.values()) > 100, seconds=20, what="storing while the far end is down")
        self.own_counts["down at the start"] += 1
        self._command("state", listening=True)
        self.disturbed.append((self._begun, time.monotonic()))

    def _break_things(self) -> None:
        for fault in self._each:
            self._play(Round((fault,), Ending("random" if fault.slow else "recover", 0, 0.2)))
        self._seconds += time.monotonic() - self._begun if self._each else 0.0
        while (elapsed := time.monotonic() - self._begun) < self._seconds:
            behind = self._kills() < self._kills_wanted * (elapsed + 2) / self._seconds
            self._play(self._schedule.quick() if behind else self._schedule.mixed())
        # Faults for which there was no time follow now, within bounds.
        ends = self._begun + self._seconds * 1.3 + 20
        while self._kills() < self._kills_wanted and time.monotonic() < ends:
            self._play(self._schedule.quick())
        for point in POINTS if self._kills_wanted >= len(POINTS) else ():
            while not self.bridge.kills[point] and time.monotonic() < ends:
                self._play(Round((), Ending(point, 1, 0.0)))
        while (missed := self._missed()) and time.monotonic() < ends:
            for name in missed:
                fault = next(fault for fault in FAULTS if fault.name == name)
                self._play(Round((fault,), Ending("random", 0, 0.0)))

    def _missed(self) -> list[str]:
        """Faults that were chosen and did not happen."""
        return sorted(name for name in self.dealt if not self.happened[name])

    def _kills(self) -> int:
        return sum(n for how, n in self.bridge.kills.items() if how == "random" or how in POINTS)

    def _finish(self) -> None:
        """End all faults and let everything arrive, without a restart of the daemon."""
        self._heal()
        self._be_running()
        self._pause(True)

        def settled() -> bool:
            quiet = time.monotonic() - self.tap.last_at > 1.5
            return self._watch() and quiet and self._drained() and self._outbox() == 0

        try:
            wait_for(settled, seconds=SETTLING, what="the end: everything PUBACKed by the bridge, the outbox empty")
        except Failed as exc:
            self.problems.append(str(exc))  # the oracle reports what is missing

    def _judge(self) -> Verdict:
        final = wait_for(lambda: self.bridge.readiness().get("books"), seconds=10, what="the last reading of the books")
        if not self._sampler.is_alive():
            self.problems.append("the sampler died: the books were not watched")
        self._enough.set()
        self.bridge.terminate()
        journal = read_journal(self.far_end.journal) if self.far_end else read_journal(self._directory / "none")
        dead_letters, left = read_outbox(self.bridge.outbox)
        published: dict[MessageId, Published] = {}
        for publisher in self.publishers:
            published |= publisher.published
        self._keep_what_was_seen(published)
        verdict = judge(
            Evidence(
                seed=self._seed,
                published=published,
                handed=self.tap.handed,
                acked=self.tap.acked,
                journal=journal,
                dead_letters=dead_letters,
                outbox_left=left,
                samples=self.samples,
                final_books=final,
                wire_problems=self.tap.problems,
                uncertain=self.uncertain,
                disturbed=self.disturbed,
                deaths=[(death.asked, death.at) for death in self.bridge.deaths],
                peaks=list(self.bridge.peaks.values()),
                texts=[("the log", pieces(self.bridge.log)), ("the status server", pieces(self._status_log))],
                secrets={
                    "the API key": API_KEY,
                    "the API key's last part": API_KEY.rpartition(".")[2],
                    "the MQTT password": PASSWORD,
                    "a one-time password": OTP_MARK,
                },
            )
        )
        verdict.problems += self.problems + self.bridge.problems
        counts = self._counts()
        for name in ("unauthorized", "otp.reused", "otp.unknown", "upgrade.wrong_path", "malformed_send"):
            if counts[name]:
                verdict.problems.append(f"the far end saw {name} {counts[name]}x")
        if missed := self._missed():
            verdict.problems.append(f"faults that were dealt and never happened: {', '.join(missed)}")
        verdict.figures = {
            "seconds": round(time.monotonic() - self._begun),
            "kills": self._kills(),
            "ends by how": dict(sorted(self.bridge.kills.items())),
            **verdict.figures,
            "one-time passwords": len(journal.otps),
            "classes of faults": f"{len(self.happened)} of {len(self.dealt)} dealt happened",
            "faults": {name: self.happened[name] for name in sorted(self.dealt)},
            "counters": dict(sorted(counts.items())),
        }
        return verdict

    def _keep_what_was_seen(self, published: dict[MessageId, Published]) -> None:
        """Write to the directory what is not on disk yet, for the analysis of a failure."""
        seen = {
            "messages": [[str(i), *p, self.tap.handed[i], self.tap.acked[i]] for i, p in published.items()],
            "uncertain": self.uncertain,
            "disturbed": self.disturbed,
            "deaths": self.bridge.deaths,
        }
        (self._directory / "seen.json").write_text(json.dumps(seen))

    def _end(self) -> None:
        self._enough.set()
        for publisher in self.publishers:
            publisher.stop()
        self.bridge.end()
        if self.far_end is not None:
            self.far_end.end()
        self.broker.end()
        for proxy in (self.mqtt, self.gdn):
            self.loop.call(proxy.stop())
        self.loop.stop()

    # --- a round ------------------------------------------------------------------------------------------

    def _play(self, planned: Round) -> None:
        self._trace(f"{', '.join(fault.name for fault in planned.faults) or 'no fault'}; end: {planned.ending}")
        if planned.faults and planned.faults[0].group == "broker":
            self._break_broker(planned.faults[0])
            if planned.ending.how == "recover":
                self._recover()
            else:
                self.bridge.kill()
            return
        self._check_parts()
        ending = planned.ending
        point = ending.how if ending.how in POINTS else None
        begun = time.monotonic()
        self._strike(planned.faults, ending, point)
        if point is None:
            # Leave time for the effects of the faults: timeouts, commits, resends.
            life_ends = time.monotonic() + ending.delay
            while time.monotonic() < life_ends and self.bridge.is_running:
                time.sleep(0.03)
        elif self.bridge.is_running:
            self._schedule.put_back_point(point)
        if ending.how != "recover":
            self._end_process(ending.how)
        if planned.faults:
            self._heal()
            self.disturbed.append((begun, time.monotonic()))
        if ending.how == "recover":
            self._recover()
            self.disturbed.append((begun, time.monotonic()))

    def _strike(self, faults: Sequence[Fault], ending: Ending, point: str | None) -> None:
        """Inject the faults into a process that ends at ``point``, and wait until both have happened."""
        if point is not None or (faults and not all(fault.live for fault in faults)):
            # Faults during a start need one.
            self.bridge.kill()
        waiting = {fault: self._arm(fault) for fault in faults if fault.target in ("far_end", "state")}
        point_reached = self.bridge.kills[point] if point else 0
        if not self.bridge.is_running:
            self.bridge.start(point, count=ending.passes, delay=ending.delay)
        waiting |= {fault: self._arm(fault) for fault in faults if fault not in waiting}
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.03)
            if not self.bridge.is_running:
                if not waiting:
                    break
                self.bridge.start()  # the faults haven't happened yet: continue without a point
            self._note_what_happened(waiting)
            if not waiting and (point is None or self.bridge.kills[point] > point_reached):
                break
        for fault in waiting:
            self._trace(f"  did not happen: {fault.name}")
            self._schedule.put_back(fault)

    def _note_what_happened(self, waiting: dict[Fault, int]) -> None:
        """Remove from ``waiting`` the faults that have happened, by their counters before."""
        counts = self._counts()
        for fault, before in list(waiting.items()):
            if counts[fault.counter] > before:
                del waiting[fault]
                self.happened[fault.name] += 1
                self._take_sample()  # error texts quote the far end and are soon replaced

    def _end_process(self, how: str) -> None:
        if how == "sigterm":
            self.bridge.terminate()
        else:
            self.bridge.kill(anywhere=how == "random")

    def _recover(self) -> None:
        """All faults have ended: the daemon must recover by itself and deliver everything."""
        self._be_running()
        try:
            wait_for(lambda: self._watch() and self.bridge.readiness().get("ready"), seconds=RECOVERY, what="readiness")
            self._pause(True)
            wait_for(lambda: self._watch() and self._outbox() == 0, seconds=RECOVERY, what="an empty outbox")
            self.own_counts["recovered"] += 1
        except Failed as exc:
            parts = [p for p in self.bridge.readiness().get("parts", ()) if p["state"] != "connected"]
            self.problems.append(f"after everything was healed: {exc}; not connected: {parts}")
        self._pause(False)

    def _arm(self, fault: Fault) -> int:
        """Inject the fault; returns its counter's value before."""
        self.dealt[fault.name] += 1
        if fault.quiet:
            self._pause(True)
        if fault.prepare:
            self._command("state", **fault.prepare)
        before = self._counts()[fault.counter]
        spec = dict(fault.spec)
        match fault.target:
            case "far_end":
                self._command("arm", **spec)
            case "state":
                self._arm_state(**spec)
            case "mqtt" | "gdn":
                self._arm_proxy(self.mqtt if fault.target == "mqtt" else self.gdn, spec)
            case "bridge":
                self._halt(spec["seconds"])
            case "publisher":
                self._burst(spec["rate"], spec["seconds"])
        return before

    def _arm_state(self, *, flaps: int = 0, **state: Any) -> None:
        for _ in range(flaps):
            self._command("state", listening=False)
            time.sleep(0.4)
            self._command("state", listening=True)
            time.sleep(0.4)
        if state:
            self._command("state", **state)

    def _halt(self, seconds: float) -> None:
        if not self.bridge.is_running:
            self.bridge.start()
            time.sleep(1.0)
        self.bridge.stop_running()
        time.sleep(seconds)
        self.bridge.go_on()
        self.own_counts["bridge.sigstop"] += 1

    def _burst(self, rate: float, seconds: float) -> None:
        for publisher in self.publishers:
            publisher.rate = rate / 2
        time.sleep(seconds)
        for publisher in self.publishers:
            publisher.rate = self._rate / 2
        self.own_counts["publisher.burst"] += 1

    def _arm_proxy(self, proxy: Proxy, spec: dict[str, Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._watch() and not proxy.live:
            if time.monotonic() > deadline:
                return  # the daemon waits for something else; the fault counts as not happened
            time.sleep(0.03)
        if spec["do"] in ("refuse", "unlisten"):
            self._turn_away(proxy, spec)
        else:
            self._disturb(proxy, spec)

    def _disturb(self, proxy: Proxy, spec: dict[str, Any]) -> None:
        """Inject a fault of a proxy."""
        call = self.loop.call
        match spec["do"]:
            case "cut":
                call(proxy.cut())
            case "close":
                call(proxy.close())
            case "half_open":
                call(proxy.half_open(*spec["directions"]))
            case "stall":
                call(proxy.stall(spec["seconds"]))
            case "latency":
                proxy.latency = spec["seconds"]
            case "bandwidth":
                proxy.bandwidth = spec["rate"]
            case "cut_after":
                call(proxy.cut_after(self._seed % 7 * 13 + 37, spec["direction"]))

    def _turn_away(self, proxy: Proxy, spec: dict[str, Any]) -> None:
        """Refuse all connections for some seconds."""
        call = self.loop.call
        if spec["do"] == "refuse":
            proxy.refusing = True
            call(proxy.cut())
            time.sleep(spec["seconds"])
            proxy.refusing = False
        else:
            call(proxy.unlisten())
            call(proxy.cut())
            time.sleep(spec["seconds"])
            if is_listening(proxy.port):
                raise Failed("the proxy still listens")
            call(proxy.start())

    # --- the broker ---------------------------------------------------------------------------------------

    def _break_broker(self, fault: Fault) -> None:
        """``tests/faults/__init__.py`` says what each excuses."""
        self.dealt[fault.name] += 1
        begun = time.monotonic()
        self._be_running()
        match fault.spec["do"]:
            case "restart":
                self.broker.stop()
            case "kill_saved":
                self._pause(True)
                self.broker.save()
                self.broker.kill()
            case "lose":
                self._pause(True)
                try:
                    drained = lambda: self._watch() and self._drained()  # noqa: E731
                    wait_for(drained, seconds=RECOVERY, what="the bridge to drain the broker")
                except Failed as exc:
                    self.problems.append(str(exc))
                    self._pause(False)
                    return
                self.broker.kill(forget=True)
            case "unannounced":
                since = time.monotonic()
                self.broker.save()
                time.sleep(0.05 * (self._seed % 5))
                self.broker.kill()
                # PUBACKs that the broker had sent may be read a moment later.
                gone = lambda: not any(publisher.is_connected for publisher in self.publishers)  # noqa: E731
                wait_for(gone, seconds=10, what="the publishers to notice")
                self.uncertain.append((since, time.monotonic()))
        subscriptions = self.tap.subscriptions
        self.broker.start()
        self.own_counts[fault.counter] += 1
        self.happened[fault.name] += 1
        if fault.spec["do"] == "lose":
            # Before the bridge has subscribed, the broker would keep nothing for it.
            wait_for(
                lambda: self._watch() and self.tap.subscriptions > subscriptions,
                seconds=RECOVERY,
                what="a subscription",
            )
        self._pause(False)
        self.disturbed.append((begun, time.monotonic()))

    def _outbox(self) -> int | None:
        """Records in the outbox by the daemon's status; None while it doesn't answer."""
        books = self.bridge.readiness().get("books")
        return int(books["outbox"]) if books else None

    def _drained(self) -> bool:
        """Whether the bridge has PUBACKed everything that the broker had for it."""
        for publisher in self.publishers:
            if not publisher.is_idle:
                return False
            for message_id, published in publisher.published.items():
                if self.tap.acked[message_id]:
                    continue
                at = published.acked_at
                if at is None or not any(start <= at <= end for start, end in self.uncertain):
                    return False
        return True

    # --- helpers -------------------------------------------------------------------------------------------

    def _watch(self) -> bool:
        """Always true; starts the daemon again if it died."""
        if not self.bridge.is_running:
            self.bridge.start()
        self._check_parts()
        return True

    def _be_running(self) -> None:
        if not self.bridge.is_running:
            self.bridge.start()

    def _trace(self, text: str) -> None:
        """Log an action with its time, for the analysis of a failure."""
        with (self._directory / "rounds.log").open("a") as out:
            out.write(f"{time.monotonic():.3f} ({time.monotonic() - self._begun:.1f}) {text}\n")

    def _check_parts(self) -> None:
        if not self.broker.is_running:
            raise Failed("the broker ended by itself")
        for publishing in self._publishing:
            if publishing.done():
                raise Failed(f"a publisher ended: {publishing.exception()!r}")

    def _pause(self, paused: bool) -> None:
        for publisher in self.publishers:
            publisher.paused = paused
        if paused:
            wait_for(lambda: all(p.is_idle for p in self.publishers), seconds=15, what="all PUBACKs to the publishers")

    def _heal(self) -> None:
        self._command("heal")
        for proxy in (self.mqtt, self.gdn):
            self.loop.call(proxy.mend())
        self._pause(False)

    def _command(self, verb: str, **members: Any) -> Any:
        assert self.far_end is not None
        return self.far_end.do(verb, **members)

    def _counts(self) -> Counter[str]:
        counts = Counter(self._command("counts"))
        for name, proxy in (("mqtt", self.mqtt), ("gdn", self.gdn)):
            counts.update({f"{name}.{what}": n for what, n in proxy.counts.items()})
        counts.update(self.own_counts)
        return counts

    def _sample(self) -> None:
        """The sampler's thread: reads the status repeatedly."""
        while not self._enough.wait(SAMPLE_EVERY):
            self._take_sample()

    def _take_sample(self) -> None:
        """Read the books, and keep every text of the status server."""
        with self._reading, self._status_log.open("a") as out:
            readiness = self.bridge.readiness()
            if "books" in readiness:
                self.samples.append(Sample(time.monotonic(), readiness["books"]))
                for text in (json.dumps(readiness), self.bridge.get("/"), self.bridge.get("/metrics")):
                    out.write(text + "\n")


def report(verdict: Verdict, *, seed: int) -> str:
    """The verdict as text."""
    lines = [f"fault run, seed {seed}: {'everything holds' if verdict.holds else 'FAILED'}"]
    for name, value in verdict.figures.items():
        if isinstance(value, dict):
            lines.append(f"  {name}:")
            lines += [f"    {key:<34} {value[key]}" for key in value]
        else:
            lines.append(f"  {name:<36} {value}")
    lines += [f"PROBLEM {problem}" for problem in verdict.problems]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 0 if there are no problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs of the daemon, at least")
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second")
    parser.add_argument("--json", type=Path, help="write problems and figures there")
    parser.add_argument("--keep", action="store_true", help="keep the directory on success too")
    arguments = parser.parse_args(argv)
    # A signal that ends the run must also end the processes it started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="gdn-bridge-faults-"))
    run = Run(
        seed=arguments.seed,
        seconds=arguments.minutes * 60,
        kills=arguments.kills,
        directory=directory,
        rate=arguments.rate,
    )
    try:
        verdict = run.execute()
    except Failed as exc:
        verdict = Verdict([*run.problems, *run.bridge.problems, f"the run ended early: {exc}"])
    print(report(verdict, seed=arguments.seed))
    if arguments.json:
        found = {"seed": arguments.seed, "holds": verdict.holds, **vars(verdict)}
        arguments.json.write_text(json.dumps(found, indent=1, default=str) + "\n")
    if verdict.holds and not arguments.keep:
        shutil.rmtree(directory)
    else:
        print(f"kept: {directory}")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
