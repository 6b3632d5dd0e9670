"""A real Apache Pulsar for tests: one process with its WebSocket service, from the artifacts that `pom.xml` pins."""

from __future__ import annotations

import base64
import hmac
import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import websocket

from bridge.local.broker import free_port
from tests import java
from tests.conftest import Process, wait_for

POM = Path(__file__).with_name("pom.xml")
START_SECONDS = 90

_LOG4J = """\
<Configuration>
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %c{1} %m%n%throwable"/></Console>
  </Appenders>
  <Loggers><Root level="info"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


def token(key: bytes, role: str) -> str:
    """A token that a broker with this key takes for the role: a JWT, HS256."""

    def encode(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    signed = encode(b'{"alg":"HS256"}') + b"." + encode(json.dumps({"sub": role}).encode())
    return (signed + b"." + encode(hmac.digest(key, signed, "sha256"))).decode()


class Pulsar(Process):
    """A standalone Pulsar on loopback ports, with its data in a directory of the test.

    Args:
        directory: for settings, data and log.
        token_key: at least 32 bytes; with it the broker wants tokens signed with it, see `token`.
        settings: of the broker, beyond or instead of the ones below.
    """

    def __init__(self, directory: Path, *, token_key: bytes | None = None, **settings: str | int) -> None:
        program = java.program("java")
        jars = java.class_path(POM)
        self.port = free_port()
        self.admin_token = token(token_key, "admin") if token_key else None
        own: dict[str, str | int] = {
            "clusterName": "standalone",
            "brokerServicePort": free_port(),
            "webServicePort": self.port,
            "webSocketServiceEnabled": "true",
            # Broker and bookie on the loopback interface only.
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "listeningInterface": "lo",
            "allowLoopback": "true",
            # There is one bookie.
            "managedLedgerDefaultEnsembleSize": 1,
            "managedLedgerDefaultWriteQuorum": 1,
            "managedLedgerDefaultAckQuorum": 1,
            "dbStorage_writeCacheMaxSizeMb": 16,
            "dbStorage_readAheadCacheMaxSizeMb": 16,
            "managedLedgerCacheSizeMB": 16,
            # Nothing to balance, and its start wants to know the speed of a network card.
            "loadBalancerEnabled": "false",
            # Each namespace would get a topic of its own for them.
            "systemTopicEnabled": "false",
            "topicLevelPoliciesEnabled": "false",
            # What was stored must stay readable after an unload, without a subscription.
            "defaultRetentionTimeInMinutes": -1,
            "defaultRetentionSizeInMB": -1,
            "brokerDeleteInactiveTopicsEnabled": "false",
            "forceDeleteNamespaceAllowed": "true",
            # The pools are sized for a server otherwise.
            "numIOThreads": 2,
            "numHttpServerThreads": 16,
        }
        if token_key:
            own |= {
                "authenticationEnabled": "true",
                "authenticationProviders": "org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
                "tokenSecretKey": f"data:;base64,{base64.b64encode(token_key).decode()}",
                "authorizationEnabled": "true",
                "superUserRoles": "admin",
                "brokerClientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.AuthenticationToken",
                "brokerClientAuthenticationParameters": f"token:{self.admin_token}",
            }
        configuration = directory / "pulsar.conf"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in (own | settings).items()))
        (directory / "log4j2.xml").write_text(_LOG4J)
        scratch = directory / "tmp"  # native libraries are unpacked there at each start
        scratch.mkdir(exist_ok=True)
        self._command = [
            *(program, *java.QUICK_START, "-XX:MaxDirectMemorySize=512m"),
            *("--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/sun.net=ALL-UNNAMED"),
            f"-Djava.io.tmpdir={scratch}",
            f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}",
            *("-cp", jars, "org.apache.pulsar.PulsarStandaloneStarter", "--config", str(configuration)),
            *("--metadata-dir", str(directory / "metadata"), "--bookkeeper-dir", str(directory / "ledgers")),
            *("--no-functions-worker", "--no-stream-storage"),
        ]
        self._log = directory / "pulsar.log"
        self.start()

    def start(self) -> None:
        """Run it; again, after it was ended, on the same ports with what was stored."""
        started = time.monotonic()
        super().__init__(self._command, self._log)
        try:
            wait_for(self._is_ready, seconds=START_SECONDS, what="Pulsar")
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.monotonic() - started

    def end(self) -> None:
        """At once. An orderly end takes 7 s; what was receipted is on disk either way."""
        if self.is_running:
            self.kill()

    def _is_ready(self) -> bool:
        if not self.is_running:
            pytest.fail(f"Pulsar ended at its start:\n{self.text()[-3000:]}")
        try:
            return "public/default" in self.call("GET", "/namespaces/public")
        except (OSError, ValueError):
            return False

    def headers(self) -> dict[str, str]:
        """Of whom may do everything."""
        return {"Authorization": f"Bearer {self.admin_token}"} if self.admin_token else {}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the admin REST API, below /admin/v2."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/admin/v2{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json", **self.headers()},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                exc.add_note(exc.read().decode(errors="replace")[:1000])
            raise
        return json.loads(text) if text else None

    def create_namespace(self, name: str, *, deduplicates: bool = False) -> str:
        """A namespace of the tenant `public`; its full name."""
        namespace = f"public/{name}"
        self.call("PUT", f"/namespaces/{namespace}")
        if deduplicates:
            self.call("POST", f"/namespaces/{namespace}/deduplication", True)
        return namespace

    def delete_namespace(self, namespace: str) -> None:
        self.call("DELETE", f"/namespaces/{namespace}?force=true")

    def topics(self, namespace: str) -> list[str]:
        return sorted(self.call("GET", f"/persistent/{namespace}"))

    def create_topic(self, topic: str, partitions: int | None = None) -> None:
        """A topic of one partition, or, with a number, of several."""
        self.call("PUT", f"/persistent/{topic}{'' if partitions is None else '/partitions'}", partitions)

    def delete_topic(self, topic: str) -> None:
        """Also with producers on it."""
        self.call("DELETE", f"/persistent/{topic}?force=true")

    def unload_topic(self, topic: str) -> None:
        self.call("PUT", f"/persistent/{topic}/unload")

    def terminate_topic(self, topic: str) -> None:
        self.call("POST", f"/persistent/{topic}/terminate")

    def url(self, topic: str, kind: str = "producer", **parameters: object) -> str:
        """Of a WebSocket endpoint, for a topic as `tenant/namespace/name`."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"ws://127.0.0.1:{self.port}/ws/v2/{kind}/persistent/{quote(topic)}{query}"

    def count(self, topic: str) -> int:
        """How many messages are stored. Right for topics whose producers don't batch, and WebSocket producers don't."""
        return int(self.call("GET", f"/persistent/{topic}/internalStats")["numberOfEntries"])

    def wait_recovered(self, topic: str) -> None:
        """After a kill and a start: until the topic can be loaded.

        The admin API answers before the broker can recover ledgers. A topic that is asked for in between is answered
        with 500 ("Error while recovering ledger", "LastConfirmedEntry is null"), for 6 s on a loaded machine.
        """

        def is_loaded() -> bool:
            try:
                self.count(topic)
            except urllib.error.HTTPError as exc:
                if exc.code != 500:
                    raise
                return False
            return True

        wait_for(is_loaded, seconds=START_SECONDS, what=f"the topic; the broker's last words: {self.text()[-2000:]}")

    def read(self, topic: str, *, seconds: float = 20.0) -> list[bytes]:
        """The payloads of all that is stored now, from the earliest on."""
        count = self.count(topic)
        payloads: list[bytes] = []
        header = [f"{name}: {value}" for name, value in self.headers().items()]
        url = self.url(topic, "reader", messageId="earliest")
        with closing(websocket.create_connection(url, timeout=seconds, header=header)) as reader:
            while len(payloads) < count:
                message = json.loads(reader.recv())
                payloads.append(base64.b64decode(message["payload"]))
                reader.send(json.dumps({"messageId": message["messageId"]}))  # else it stops at its queue's size
        return payloads

    def sequence_ids(self, topic: str) -> list[int]:
        """The sequence number of each stored message, in order."""
        stats = self.call("GET", f"/persistent/{topic}/internalStats")
        entries = {ledger["ledgerId"]: ledger["entries"] for ledger in stats["ledgers"]}
        current = int(stats["lastConfirmedEntry"].split(":")[0])
        entries[current] = stats["currentLedgerEntries"] or entries.get(current, 0)
        found = []
        for ledger in sorted(entries):
            for entry in range(entries[ledger]):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{self.port}/admin/v2/persistent/{topic}/ledger/{ledger}/entry/{entry}",
                    headers=self.headers(),
                )
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found.append(int(answer.headers["X-Pulsar-sequence-id"]))
        return found
