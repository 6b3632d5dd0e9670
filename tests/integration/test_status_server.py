"""The status server on a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.books import Books, OutboxStatus, Requests, Snapshot, Traffic
from bridge.cli import main
from bridge.errors import ConfigError
from bridge.log import register_secret
from bridge.parts import PartStatus
from bridge.watch import status_server
from bridge.watch.health import CheckTimes, HealthStatus, TableStatus
from bridge.watch.status_server import StatusServer
from tests.conftest import wait_for

pytestmark = pytest.mark.integration


class State:
    live = True
    parts: Sequence[PartStatus] = (PartStatus("mqtt", "connected", 0.0, None, None),)
    books = Books(received=10, delivered=5, outbox=3, dead_lettered={"not_json": 2})
    health = HealthStatus(True, (42,), rows_behind=3)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def server(state: State) -> Iterator[StatusServer]:
    server = StatusServer(
        host="127.0.0.1",
        port=0,
        live=lambda: state.live,
        parts=lambda: state.parts,
        snapshot=lambda: Snapshot(
            state.books,
            Traffic(
                window_used={"s": 0, "elsewhere": 0},
                mqtt_messages=11,
                reconnects={"mqtt": 2},
                sessions_lost=1,
                broker_dropped=7,
                broker_notes=("keeps no session",),
                route_notes=("rooms: never evaluated",),
            ),
            OutboxStatus(bytes=300, oldest_age=2.5, dead_letters=2, holding="the outbox is <full>"),
        ),
        health=lambda: state.health,
        requests=lambda: Requests(last_minute=3, last_day=40, checks=30, others=10, one_time_passwords=4),
    )
    server.start()
    yield server
    server.stop()


def get(server: StatusServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_readiness_names_the_parts_and_their_errors(server: StatusServer, state: State) -> None:
    status, body = get(server, "/readyz")
    assert status == 200
    assert json.loads(body)["books"]["balanced"] is True

    state.parts = [PartStatus("mqtt", "waiting", 5.0, "the broker is away", 6.5)]
    status, body = get(server, "/readyz")
    (part,) = json.loads(body)["parts"]
    assert status == 503
    assert part == {
        "name": "mqtt",
        "state": "waiting",
        "since": "1970-01-01T00:00:05.000+00:00",
        "error": "the broker is away",
        "next_attempt": "1970-01-01T00:00:06.500+00:00",
    }


def test_a_secret_repeated_by_the_far_end_is_redacted(server: StatusServer, state: State) -> None:
    register_secret("s3cr3t-otp")
    state.parts = [PartStatus("producer", "waiting", 5.0, "GDN closed: bad s3cr3t-otp", None)]

    for path in ("/", "/readyz", "/metrics"):
        assert "s3cr3t-otp" not in get(server, path)[1]


def test_liveness_follows_the_data_path(server: StatusServer, state: State) -> None:
    assert get(server, "/livez")[0] == 200
    state.live = False
    assert get(server, "/livez")[0] == 503


def test_metrics_include_the_books(server: StatusServer) -> None:
    _, body = get(server, "/metrics")

    for line in (
        "gdn_bridge_received_total 10.0",
        "gdn_bridge_delivered_total 5.0",
        'gdn_bridge_dead_lettered_total{reason="not_json"} 2.0',
        "gdn_bridge_outbox_records 3.0",
        'gdn_bridge_reconnects_total{link="mqtt"} 2.0',
        'gdn_bridge_part_connected{part="mqtt"} 1.0',
        "gdn_bridge_worker_active 1.0",
        "gdn_bridge_query_result 42.0",
    ):
        assert line in body.splitlines()


def test_the_page_escapes_untrusted_text(server: StatusServer, state: State) -> None:
    state.parts = [PartStatus("mqtt", "waiting", 5.0, "<script>alert(1)</script> \x1b[2J \u202e", None)]

    status, body = get(server, "/")
    assert status == 200
    assert "<script>" not in body
    assert "&lt;script&gt;" in body
    assert "\\x1b[2J \\u202e" in body
    assert not {"\x1b", "\u202e"} & set(body)


def test_unknown_paths_and_head_requests_are_answered(server: StatusServer) -> None:
    assert get(server, "/nothing")[0] == 404
    assert get(server, "/livez", "HEAD") == (200, "")


def test_silent_clients_do_not_block_others(server: StatusServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    try:
        assert get(server, "/livez")[0] == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_port_in_use_is_a_configuration_error(server: StatusServer) -> None:
    arguments: dict[str, Any] = dict.fromkeys(("live", "parts", "snapshot", "health", "requests"))
    second = StatusServer(host="127.0.0.1", port=server.port, **arguments)

    with pytest.raises(ConfigError, match=r"status\.listen: can't listen on"):
        second.start()


def test_a_connection_has_a_longest_lifetime(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "CONNECTION_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
        slow.sendall(b"G")

        assert slow.recv(1) == b""
        assert get(server, "/livez")[0] == 200


@contextmanager
def dripping(address: str, port: int, clients: int) -> Iterator[None]:
    """Clients at this address that send a byte ten times a second, and connect again when they are dropped."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(address, 0)) as sock:
                    while not stop.wait(0.1):
                        sock.sendall(b"x")
            except OSError:
                continue

    threads = [threading.Thread(target=drip) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_probes_are_answered_while_many_clients_drip(server: StatusServer) -> None:
    with dripping("127.0.0.1", server.port, 48):
        wait_for(lambda: threading.active_count() > 48 + status_server.MAX_LOCAL, what="a full server")

        assert [get(server, "/livez")[0] for _ in range(12)] == [200] * 12
        assert [get(server, "/readyz")[0] for _ in range(3)] == [200] * 3


def test_clients_elsewhere_do_not_take_the_places_of_loopback(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 127.0.0.2 stands for another machine.
    monkeypatch.setattr(status_server, "_is_loopback", lambda address: address == "127.0.0.1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as probe:
        probe.sendall(b"GET /livez HTTP/1.0\r\n")
        with dripping("127.0.0.2", server.port, 48):
            wait_for(lambda: threading.active_count() > 48 + status_server.MAX_REMOTE, what="a full server")
            assert get(server, "/livez")[0] == 200
            probe.sendall(b"\r\n")

            assert probe.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *(
            (name, 200)
            for name in ("localhost", "localhost:80", "LOCALHOST.", "127.0.0.1:8080", "127.1.2.3", "[::1]:9")
        ),
        *(
            (name, 421)
            for name in ("attacker.example", "attacker.example:8080", "192.168.0.1", "localhost.evil.example")
        ),
        *((name, 421) for name in ("", "[", "127.0.0.1.evil.example")),
    ],
)
def test_a_server_on_loopback_answers_only_under_the_names_of_loopback(
    server: StatusServer, host: str, code: int
) -> None:
    answered, body = get(server, "/readyz", Host=host)

    assert answered == code
    assert ("books" in body) == (code == 200)


def test_a_client_without_host_header_is_answered(server: StatusServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /livez HTTP/1.0\r\n\r\n")

        assert sock.recv(12) == b"HTTP/1.0 200"


def test_lone_surrogates_do_not_break_the_page(server: StatusServer, state: State) -> None:
    state.parts = [PartStatus("mqtt", "waiting", 5.0, "topic \udcff", None)]

    assert get(server, "/")[0] == 200
    assert get(server, "/readyz")[0] == 503


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_server_listens_on_an_ipv6_address() -> None:
    arguments: dict[str, Any] = dict.fromkeys(("parts", "snapshot", "health", "requests"))
    server = StatusServer(host="::1", port=0, live=lambda: True, **arguments)
    try:
        server.start()
    except ConfigError:
        pytest.skip("no IPv6 loopback here")
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/livez", timeout=5) as answer:
            assert answer.status == 200
    finally:
        server.stop()


# --- gdn-bridge status ----------------------------------------------------------------------------------


def status(server: StatusServer, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["status", "--url", f"http://127.0.0.1:{server.port}", *arguments])
    return code, "".join(capsys.readouterr())


def test_status_prints_the_status_as_text(
    server: StatusServer, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = status(server, capsys)
    assert code == 0
    assert "is ready" in text
    assert "10 received = 5 delivered + 3 in the outbox + 2 dead-lettered + 0 dropped\n" in text
    assert "holding, disconnected from the broker: the outbox is <full>" in text
    assert "broker   7 messages dropped since its start, of any client\n         keeps no session\n" in text
    assert "routes   rooms: never evaluated\n" in text
    assert "the worker is active, the health query returned 42, 3 rows behind" in text

    state.parts = [PartStatus("mqtt", "waiting", 5.0, "the broker is \x1b[31maway", 6.5)]
    state.books = Books(received=10)
    code, text = status(server, capsys)
    assert code == 1
    assert "is not ready" in text
    assert "mqtt: the broker is \ufffd[31maway. Next attempt at 1970-01-01 00:00:06 UTC." in text
    assert "they do not balance" in text


@pytest.mark.parametrize(
    ("asked", "answered", "when"),
    [
        (None, None, "not asked yet"),
        (20, None, "not answered yet"),
        (200, 199, "answered 3 min ago"),
        (250, 249, "not asked for 4 min"),
        (20, 7300, "not answered for 2 h"),
    ],
)
def test_status_says_which_query_ran_and_when_it_was_last_answered(
    server: StatusServer,
    state: State,
    capsys: pytest.CaptureFixture[str],
    asked: float | None,
    answered: float | None,
    when: str,
) -> None:
    now = time.monotonic()
    times = CheckTimes(
        "RETURN\n LENGTH(`t`)",
        170.0,
        None if asked is None else now - asked,
        None if answered is None else now - answered,
    )
    state.health = HealthStatus(True, (42,), times={"query": times, "check x": times})

    text = status(server, capsys)[1]

    assert f"query    RETURN LENGTH(`t`): {when}\n" in text
    assert (f"check x: {when}\n" in text) is not when.startswith("answered")


def test_status_names_tables_that_lack_rows_and_streams_that_nothing_watches(
    server: StatusServer, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.health = HealthStatus(
        rows_behind=5,
        rows_lost=1,
        tables=(TableStatus("t", ("s",), 0, 0), TableStatus("u", ("r",), 5, 1)),
        watched=frozenset({"s", "r"}),
    )

    text = status(server, capsys)[1]
    health = json.loads(get(server, "/readyz")[1])["health"]

    assert "u: 5 rows behind, 1 lost\n" in text
    assert "t: 0 rows" not in text
    assert "the rows of elsewhere come out" in text
    assert health["unwatched_streams"] == ["elsewhere"]
    assert health["tables"][1] == {"table": "u", "streams": ["r"], "rows_behind": 5, "rows_lost": 1}


def test_status_prints_the_json_of_readyz(server: StatusServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = status(server, capsys, "--json")

    assert code == 0
    assert json.loads(text) == json.loads(get(server, "/readyz")[1])


def test_status_exits_with_69_without_a_bridge_at_the_address(
    server: StatusServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "readiness", lambda: {"ready": True})
    code, text = status(server, capsys)
    assert code == 69
    assert "isn't that of this version of the bridge. Check that this is the address" in text

    server.stop()
    code, text = status(server, capsys)
    assert code == 69
    assert "refused. Is the bridge running, and listening there?" in text


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://127.0.0.1:99999", "127.0.0.1:8080", "http://["])
def test_an_invalid_url_of_the_status_server_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url]) == 2

    assert capsys.readouterr().err.startswith(
        "gdn-bridge: --url: must be http://host:port, with a port from 1 to 65535"
    )
