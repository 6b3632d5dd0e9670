"""Dialling on real sockets: certificates about to expire, refused upgrades, closed ports."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from bridge.errors import GdnError, GdnUnavailable
from bridge.gdn import producer
from bridge.gdn.answers import RETRY_AFTER_CAP
from bridge.gdn.budget import Budget
from bridge.gdn.rest import GdnRest
from bridge.links.certificates import not_after
from bridge.links.tls import Tls, open_socket
from bridge.local.broker import free_port
from bridge.timing import Pace

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
SOON, LATER, PAST = NOW + timedelta(days=10), NOW + timedelta(days=300), NOW - timedelta(days=2)


@contextmanager
def served(answer: bytes | None = None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Listen, accept one connection (with TLS if a context is given), answer its first bytes; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        try:
            sock, _ = listener.accept()
            with sock, context.wrap_socket(sock, server_side=True) if context else sock as peer:
                peer.recv(4096)
                if answer is not None:
                    peer.sendall(answer)
        except OSError:
            return

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()
    thread.join(10)


# --- certificates --------------------------------------------------------------------------------------


def files(directory: Path, authority: trustme.CA, end: datetime) -> Tls:
    """The files of a client whose certificate expires at the given time."""
    issued = authority.issue_cert("bridge.test", not_before=NOW - timedelta(days=400), not_after=end)
    ca, cert, key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return Tls(ca, cert, key)


def server_context(authority: trustme.CA, end: datetime) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue_cert("localhost", not_before=NOW - timedelta(days=400), not_after=end)
    issued.configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (LATER, LATER, []),
        (SOON, LATER, [("certificate.expires", "file")]),
        (LATER, SOON, [("certificate.expires", "host")]),
        (SOON, SOON, [("certificate.expires", "file"), ("certificate.expires", "host")]),
        (PAST, LATER, [("certificate.expired", "file")]),
    ],
)
def test_each_connect_reports_a_certificate_that_expires_soon(
    tmp_path: Path, ours: datetime, theirs: datetime, expected: list[tuple[str, str]]
) -> None:
    authority = trustme.CA()
    tls = files(tmp_path, authority, ours)

    with served(context=server_context(authority, theirs)) as port, capture_logs() as logs:
        open_socket("localhost", port, tls=tls, timeout=10).close()

    logged = [(entry["event"], "file" if "file" in entry else "host") for entry in logs]
    assert logged == expected
    for entry in logs:
        assert entry.get("file", str(tls.cert_file)) == str(tls.cert_file)
        assert entry.get("host", "localhost") == "localhost"
        assert round(entry.get("days_left", 10.0)) == 10


def test_a_refusal_of_an_expired_client_certificate_names_its_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = files(tmp_path, authority, PAST)
    context = server_context(authority, LATER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with TLS 1.3 the refusal would come after the handshake

    with served(context=context) as port, pytest.raises(OSError, match="expired") as caught:
        open_socket("localhost", port, tls=tls, timeout=10)

    assert f"the client certificate {tls.cert_file} has expired" in str(caught.value)


def test_an_expired_certificate_of_the_peer_is_refused_as_such(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = files(tmp_path, authority, LATER)

    with (
        served(context=server_context(authority, PAST)) as port,
        pytest.raises(OSError, match="certificate has expired"),
    ):
        open_socket("localhost", port, tls=tls, timeout=10)


def test_a_peer_without_tls_gets_another_hint_than_an_untrusted_one() -> None:
    with served(b"HTTP/1.1 400 Bad Request\r\n") as port, pytest.raises(OSError, match="doesn't seem to speak TLS"):
        open_socket("localhost", port, tls=Tls(), timeout=10)
    with served() as port, pytest.raises(OSError, match="doesn't seem to speak TLS"):
        open_socket("localhost", port, tls=Tls(), timeout=10)
    with served(context=server_context(trustme.CA(), LATER)) as port, pytest.raises(OSError, match="set ca_file"):
        open_socket("localhost", port, tls=Tls(), timeout=10)


def test_a_peer_that_the_ca_file_does_not_know_is_refused_with_the_name_of_that_file(tmp_path: Path) -> None:
    tls = files(tmp_path, trustme.CA(), LATER)
    with served(context=server_context(trustme.CA(), LATER)) as port, pytest.raises(OSError, match="ca_file") as caught:
        open_socket("localhost", port, tls=tls, timeout=10)

    assert f"{tls.ca_file}, the file of ca_file, has no certificate of the authority" in str(caught.value)


def test_a_key_with_a_passphrase_is_an_error_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    tls = files(tmp_path, trustme.CA(), LATER)
    assert tls.key_file is not None
    key = tls.key_file.read_bytes()
    encrypt = ["openssl", "pkey", "-aes256", "-passout", "pass:hunter2", "-out", str(tls.key_file)]
    subprocess.run(encrypt, input=key, check=True)
    terminal, child_side = os.openpty()  # OpenSSL asks on the terminal

    paths = [str(path) for path in (tls.ca_file, tls.cert_file, tls.key_file)]
    script = f"from bridge.links.tls import Tls; from pathlib import Path; Tls(*map(Path, {paths!r})).context()"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        stdin=child_side,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        timeout=30,
        check=False,
        text=True,
    )
    os.close(terminal)
    os.close(child_side)

    assert ended.stderr.splitlines()[-1].startswith(f"bridge.links.tls.UnusableFile: cert_file {tls.cert_file} and")
    assert "the private key has a passphrase" in ended.stderr


def test_a_renewed_certificate_is_used_at_the_next_connect(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = files(tmp_path, authority, SOON)
    files(tmp_path, authority, LATER)

    with served(context=server_context(authority, LATER)) as port, capture_logs() as logs:
        open_socket("localhost", port, tls=tls, timeout=10).close()

    assert logs == []


@pytest.mark.parametrize("host", ["a..b", ".example", "x" * 70])
def test_an_invalid_host_name_raises_an_os_error(host: str) -> None:
    with pytest.raises(OSError):
        open_socket(host, free_port(), tls=None, timeout=1)


@pytest.mark.parametrize("key", [["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], ["ed25519"]])
def test_the_expiry_is_the_one_that_openssl_shows(key: list[str], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is not installed, and in CI it must be")
        pytest.skip("openssl is not installed")
    file, key_file = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    name = [
        "-days",
        "45",
        "-utf8",
        "-subj",
        "/C=DE/O=Zwölf/CN=bridge.test",
        "-addext",
        "subjectAltName=DNS:bridge.test",
    ]
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", *key, "-keyout", key_file, "-out", file, *name]
    subprocess.run(made, check=True, capture_output=True)
    shown = subprocess.run(
        ["openssl", "x509", "-in", file, "-noout", "-enddate"], check=True, capture_output=True, text=True
    )
    end = datetime.strptime(shown.stdout.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)

    assert not_after(Path(file).read_bytes()) == end.timestamp()


# --- upgrades ------------------------------------------------------------------------------------------


def refusal(status: int, *headers: str) -> GdnError:
    """The error of dialling a producer whose upgrade gets this answer."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Length: 0", *headers, "", ""]
    with served("\r\n".join(lines).encode()) as port, pytest.raises(GdnError) as caught:
        producer.dial(
            url=f"ws://127.0.0.1:{port}/_ws/ws/v2/producer/persistent/t/n/s?otp=s3cr3t",
            headers=[],
            tls=Tls(),
            connect_timeout=10,
            window=1,
            receipt_timeout=1,
            ping_interval=1,
        )
    assert "s3cr3t" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Pace.REFUSED),
        (401, Pace.CREDENTIALS),
        (403, Pace.CREDENTIALS),
        (404, Pace.MISSING),
        (409, Pace.NAME_TAKEN),
        (422, Pace.REFUSED),
        (429, Pace.LIMITED),
        (500, Pace.UNREACHABLE),
        (503, Pace.UNREACHABLE),
    ],
)
def test_the_pace_after_a_refused_upgrade_depends_on_its_status(status: int, expected: Pace) -> None:
    refused = refusal(status)

    assert refused.pace is expected
    assert f"HTTP {status}" in str(refused)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_parsed_as_seconds_and_as_a_date(status: int) -> None:
    assert refusal(status, "Retry-After: 7").retry_after == 7.0
    assert refusal(status, "Retry-After: 86400").retry_after == RETRY_AFTER_CAP
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    assert 50.0 <= (refusal(status, f"Retry-After: {in_a_minute}").retry_after or 0.0) <= 60.0


def test_a_refused_upgrade_without_retry_after_sets_no_wait() -> None:
    assert refusal(503).retry_after is None
    assert refusal(503, "Retry-After: soon").retry_after is None


def test_a_closed_port_does_not_cost_the_budget() -> None:
    budget = Budget(per_minute=10, per_day=100)
    rest = GdnRest(base_url=f"http://127.0.0.1:{free_port()}", fabric="_system", api_key="t.k.s", budget=budget)

    with pytest.raises(GdnUnavailable):
        rest.otp()

    assert budget.used == {"minute": 0, "day": 0}
