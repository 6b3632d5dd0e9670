"""Checks the code against the statements of docs/security.md on files, TLS and the release."""

from __future__ import annotations

import os
import re
import sqlite3
import ssl
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests import Session

import bridge
from bridge.config import Settings
from bridge.gdn.rest import GdnRest
from bridge.links.tls import Tls
from bridge.message import Row
from bridge.outbox import Commit, Outbox

SOURCES = sorted(Path("bridge").rglob("*.py"))
DOCUMENT = Path("docs/security.md").read_text()


@pytest.fixture
def permissive() -> Iterator[None]:
    """A umask of 0, so that each file has exactly the mode it is created with."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in directory.iterdir()}


def test_only_the_owner_can_access_the_outbox_and_the_files_beside_it(permissive: None, tmp_path: Path) -> None:
    directory = tmp_path / "state"
    outbox = Outbox(directory / "outbox.db")
    outbox.open()
    outbox.commit(Commit(rows=[Row("s", b"{}")]))

    found = modes(directory)
    outbox.close()

    assert set(found) == {"outbox.db", *(f"outbox.db{suffix}" for suffix in ("-wal", "-shm", ".lock", ".reserve"))}
    assert set(found.values()) == {"0o600"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_only_the_owner_can_access_a_rescued_and_a_damaged_outbox(permissive: None, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(rows=[Row("s", b"{}")]))
    outbox.close()
    path.write_bytes(b"rubbish " * 1000)

    outbox.open()
    outbox.commit(Commit(rows=[Row("s", b"{}")]))
    found = modes(tmp_path)
    outbox.close()

    assert any(".damaged-" in name for name in found)
    assert set(found.values()) == {"0o600"}


def test_a_copy_made_while_the_bridge_ran_gets_a_new_name_even_in_place_of_the_original(tmp_path: Path) -> None:
    """Its ids and sequence numbers must not be used again: a far end that deduplicates would drop new rows."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    name = outbox.name
    connection = sqlite3.connect(path)
    connection.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
    connection.close()
    outbox.commit(Commit(rows=[Row("s", b"{}")]))
    outbox.close()

    path.write_bytes((tmp_path / "copy.db").read_bytes())
    outbox.open()

    assert outbox.name != name
    outbox.close()


def test_every_tls_context_verifies_certificate_and_host_name() -> None:
    context = Tls().context()

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("ca_file", [None, "/ours.pem"])
def test_every_rest_session_verifies(ca_file: str | None) -> None:
    made: list[Session] = []

    def factory() -> Session:
        made.append(Session())
        return made[0]

    rest = GdnRest(
        base_url="https://127.0.0.1:1", fabric="f", api_key="a.b.c", ca_file=ca_file, session_factory=factory
    )
    rest._session()

    assert made[0].verify == (ca_file or True)
    assert not made[0].trust_env


def test_no_setting_switches_verification_off() -> None:
    names = {f"{group}.{name}" for group, field in Settings.model_fields.items() for name in _fields(field.annotation)}

    assert not [name for name in names if re.search("verif|insecure|trust|hostname|check_host", name)]


def _fields(annotation: object) -> list[str]:
    return list(getattr(annotation, "model_fields", {}))


@pytest.mark.parametrize(
    "word", ["CERT_NONE", "CERT_OPTIONAL", "check_hostname", "_create_unverified", "verify=False", "sslopt", "pickle"]
)
def test_no_source_weakens_tls_or_executes_what_it_reads(word: str) -> None:
    assert not [str(path) for path in SOURCES if word in path.read_text()]


def test_the_version_is_in_one_module_only() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())

    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "bridge/__init__.py"
    assert [str(path) for path in SOURCES if f'"{bridge.__version__}"' in path.read_text()] == ["bridge/__init__.py"]
    # The image's label can't read the module: a default other than the present version fails here.
    (label,) = re.findall(r"^ARG VERSION=(.*)$", Path("Dockerfile").read_text(), re.MULTILINE)
    assert label in {"", bridge.__version__}


def test_the_licence_list_has_every_locked_package_in_its_version() -> None:
    locked = re.findall(r"^([\w.-]+)==(\S+)", Path("deploy/docker/requirements.lock").read_text(), re.MULTILINE)
    listed = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", Path("docs/licences.md").read_text(), re.MULTILINE)
    here = {(re.sub("[-_.]+", "-", name).lower(), version) for name, version, _ in listed if version != "version"}

    assert here == {(re.sub("[-_.]+", "-", name).lower(), version) for name, version in locked}
    assert "not stated" not in {licence for _, _, licence in listed}


def test_the_bounds_in_the_document_are_those_in_the_code() -> None:
    from bridge.gdn.answers import MAX_DEPTH
    from bridge.gdn.bounds import ANSWER_BYTES
    from bridge.gdn.client import ANSWER_LIMIT
    from bridge.gdn.rest import CURSOR_LIMIT
    from bridge.links.frames import MAX_MESSAGE
    from bridge.links.link import UNREAD_BYTES
    from bridge.links.websocket import UPGRADE_BYTES
    from bridge.mqtt.link import MAX_OTHER, MAX_PACKET
    from bridge.mqtt.packets import KEPT_BYTES
    from bridge.watch.status_server import CONNECTION_SECONDS, MAX_LOCAL, MAX_REMOTE

    kib, mib = 1024, 1024 * 1024
    for statement in (
        f"{MAX_PACKET // mib} MiB a message",
        f"the first {KEPT_BYTES // kib} KiB are kept",
        f"{MAX_OTHER // kib} KiB of anything else",
        f"{ANSWER_BYTES // mib} MiB on the wire",
        f"{ANSWER_LIMIT // kib} KiB of body",
        f"{CURSOR_LIMIT // mib} MiB of rows",
        f"{MAX_DEPTH} levels",
        f"{UPGRADE_BYTES // kib} KiB of upgrade",
        f"{MAX_MESSAGE // kib} KiB a receipt",
        f"{UNREAD_BYTES // mib} MiB of output that the peer has not read",
        f"{MAX_REMOTE} connections from other machines and {MAX_LOCAL} from this one",
        f"{CONNECTION_SECONDS:g} seconds each",
    ):
        assert statement in DOCUMENT, statement
