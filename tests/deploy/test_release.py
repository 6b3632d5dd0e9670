"""A release: what ``make release`` builds, that the wheel runs on each Python, and the commands of docs/install.md."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge import __version__
from bridge.message import Row
from bridge.outbox import Commit, Outbox
from tests.conftest import ROOT, wait_for
from tests.deploy.conftest import block, find_python, missing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PYTHONS = ("3.11", "3.12", "3.13")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "GDN_BRIDGE_"))}


def run(command: list[object] | str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        ["sh", "-e", "-c", command] if isinstance(command, str) else [str(word) for word in command],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: a build writes docs/licences.md."""
    tree = tmp_path_factory.mktemp("release") / "tree"
    leave = shutil.ignore_patterns(".*", "dist", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=leave)
    return tree


@pytest.fixture(scope="module")
def dist(tree: Path) -> Path:
    """A release without the Debian package and the image, which other tests build."""
    bare = tree.parent / "bin"
    bare.mkdir()
    for name in ("dpkg-deb", "docker"):
        (bare / name).write_text("#!/bin/sh\nexit 1\n")
    script = (tree / "deploy/release/build.sh").read_text()
    assert "command -v dpkg-deb" in script
    (tree / "deploy/release/build.sh").write_text(script.replace("command -v dpkg-deb", "dpkg-deb --version"))
    for name in ("dpkg-deb", "docker"):
        (bare / name).chmod(0o755)
    path = f"{bare}:{os.environ['PATH']}"
    run([tree / "deploy/release/build.sh", Path(sys.executable).parent, "dist"], tree, PATH=path)
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"gdn_bridge-{__version__}-py3-none-any.whl"


def test_a_release_has_all_its_files_and_their_checksums(dist: Path, wheel: Path) -> None:
    lines = [line.split("  ") for line in (dist / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}

    assert set(sums) == {
        *(wheel.name, f"gdn_bridge-{__version__}.tar.gz", f"gdn-bridge-{__version__}.cdx.json"),
        *("gdn-bridge.1", "gdn-bridge.bash", "_gdn-bridge"),
    }
    for name, expected in sums.items():
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == expected


def test_the_wheel_holds_the_package_and_the_sdist_what_builds_it(dist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        tops = {name.split("/")[0] for name in packed.namelist()}
    with tarfile.open(dist / f"gdn_bridge-{__version__}.tar.gz") as packed_sources:
        sources = {name.split("/", 1)[1] for name in packed_sources.getnames() if "/" in name}

    assert tops == {"bridge", f"gdn_bridge-{__version__}.dist-info"}
    builds = {"pyproject.toml", "Makefile", "Dockerfile", "compose.yaml", "mkdocs.yml", "deploy/release/build.sh"}
    assert {"bridge/py.typed", "docs/install.md", *builds} <= sources


def test_a_package_index_accepts_the_metadata_of_wheel_and_sdist(dist: Path, wheel: Path) -> None:
    checked = run([sys.executable, "-m", "twine", "check", "--strict", wheel, *dist.glob("*.tar.gz")], dist)

    assert checked.count("PASSED") == 2


def test_the_sbom_names_every_locked_package_and_no_path_on_this_machine(dist: Path) -> None:
    text = (dist / f"gdn-bridge-{__version__}.cdx.json").read_text()
    listed = {(part["name"], part["version"]) for part in json.loads(text)["components"]}
    locked = re.findall(r"^([\w.-]+)==(\S+)", Path("deploy/docker/requirements.lock").read_text(), re.MULTILINE)

    def plain(pairs: object) -> set[tuple[str, str]]:
        return {(re.sub("[-_.]+", "-", name).lower(), version) for name, version in pairs}  # type: ignore[attr-defined]

    assert plain(locked) <= plain(listed)
    assert json.loads(text)["bomFormat"] == "CycloneDX"
    assert str(dist.parent) not in text
    assert "/tmp/" not in text


def test_the_licence_list_is_up_to_date(dist: Path, tree: Path) -> None:
    assert (tree / "docs/licences.md").read_text() == Path("docs/licences.md").read_text()


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_runs_the_demonstration_in_an_empty_environment(version: str, wheel: Path, tmp_path: Path) -> None:
    run([find_python(version), "-m", "venv", tmp_path / "venv"], tmp_path)
    run([tmp_path / "venv/bin/pip", "install", "--quiet", f"{wheel}[local]"], tmp_path)

    out = run([tmp_path / "venv/bin/gdn-bridge", "demo", "--seconds", "2", "--json"], tmp_path)

    told = json.loads(out)
    assert told["published"] > 0
    assert told["published"] == told["received"] == told["delivered"] == told["rows"]


# --- docs/install.md ------------------------------------------------------------------------------------


def test_the_commands_of_the_guide_install_with_pip(wheel: Path, tmp_path: Path) -> None:
    shutil.copy(wheel, tmp_path)
    home = tmp_path / "opt"

    def followed(start: str, **environment: str) -> str:
        return run(block("install.md", start).replace("/opt/gdn-bridge", str(home)), tmp_path, **environment)

    first = followed("python3 -m venv")
    demonstrated = followed('/opt/gdn-bridge/bin/pip install "')
    shutil.copytree(ROOT / "config", tmp_path, dirs_exist_ok=True)
    upgraded = followed(
        "/opt/gdn-bridge/bin/pip install --upgrade",
        BRIDGE_GDN__API_KEY="acme.key.secret",
        BRIDGE_GDN__URL="https://gdn.example",
        BRIDGE_GDN__TENANT="acme",
    )

    assert f"gdn-bridge {__version__}" in first
    assert "the books balance" in demonstrated
    assert "no problems found" in upgraded


def test_the_commands_of_the_guide_install_with_pipx(wheel: Path, tmp_path: Path) -> None:
    shutil.copy(wheel, tmp_path)
    run([sys.executable, "-m", "venv", tmp_path / "tools"], tmp_path)
    run([tmp_path / "tools/bin/pip", "install", "--quiet", "pipx"], tmp_path)
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    install, path = block("install.md", "pipx install"), f"{tmp_path}/tools/bin:{os.environ['PATH']}"

    for command in (install, install.replace("pipx install", "pipx install --force")):
        run(command, tmp_path, PATH=path, **places)
        assert run([tmp_path / "bin/gdn-bridge", "--version"], tmp_path).strip() == f"gdn-bridge {__version__}"


def test_the_checksum_commands_of_the_guide_detect_a_changed_file(wheel: Path, dist: Path, tmp_path: Path) -> None:
    shutil.copy(dist / "SHA256SUMS", tmp_path)
    downloaded = Path(shutil.copy(wheel, tmp_path))
    assert run(block("install.md", "sha256sum"), tmp_path) == f"{wheel.name}: OK\n"

    with downloaded.open("ab") as file:
        file.write(b"\0")

    again = subprocess.run(
        ["sh", "-c", block("install.md", "sha256sum")], cwd=tmp_path, capture_output=True, check=False
    )
    assert again.returncode == 1


@pytest.fixture(scope="module")
def share(dist: Path) -> Path:
    """A directory in place of /usr/local/share, with the files that the guide installs."""
    share = dist.parent.parent / "share"
    run(block("install.md", "install -D").replace("/usr/local/share", str(share)), dist)
    return share


def test_man_shows_the_installed_page_without_warnings(share: Path, tmp_path: Path) -> None:
    if shutil.which("man") is None:
        missing("the program man is not installed")

    shown = subprocess.run(
        ["man", "--warnings", "--locale=C.UTF-8", "gdn-bridge"],
        env={**ENVIRONMENT, "MANPATH": str(share / "man"), "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stderr == ""
    assert "gdn-bridge deadletter replay" in shown.stdout


SHELLS = {
    "bash": ("bash --norc --noprofile -i", "source /usr/share/bash-completion/bash_completion"),
    "zsh": ("zsh -f -i", "fpath=({share}/zsh/site-functions $fpath); autoload -U compinit; compinit -u -d {tmp}/dump"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_on_tab_with_the_installed_script(shell: str, share: Path, tmp_path: Path) -> None:
    command, set_up = SHELLS[shell]
    if shutil.which(shell) is None or not Path("/usr/share/bash-completion/bash_completion").is_file():
        missing(f"{shell} with its completions is not installed")
    environment = {**ENVIRONMENT, "TERM": "dumb", "HOME": str(tmp_path), "XDG_DATA_DIRS": f"{share}:/usr/share"}
    terminal, its_side = pty.openpty()
    with subprocess.Popen(
        command.split(), stdin=its_side, stdout=its_side, stderr=its_side, env=environment, start_new_session=True
    ) as process:
        os.write(terminal, f"{set_up.format(share=share, tmp=tmp_path)}\ngdn-bridge worker pl\t".encode())
        shown = b""

        def completed() -> bool:
            nonlocal shown
            if select.select([terminal], [], [], 0)[0]:
                shown += os.read(terminal, 4096)
            return b"gdn-bridge worker plan " in shown

        try:
            wait_for(completed, what=f"{shell}'s completion")
        finally:
            process.kill()
            os.close(its_side)
            os.close(terminal)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "state" / "outbox.db")
    outbox.open()
    with closing(outbox):
        yield outbox


def there(text: str, tmp_path: Path) -> str:
    (tmp_path / "backups").mkdir(exist_ok=True)
    places = {"/var/lib/gdn-bridge": tmp_path / "state", "/var/backups": tmp_path / "backups"}
    for said, meant in places.items():
        text = text.replace(said, str(meant))
    return text


@pytest.mark.parametrize("way", ["(umask 077; sqlite3", "(umask 077; python3", "cp -p"])
def test_a_restored_backup_sends_its_waiting_rows_under_a_new_producer_name(
    way: str, outbox: Outbox, tmp_path: Path
) -> None:
    if "sqlite3 /" in block("install.md", way) and shutil.which("sqlite3") is None:
        missing("the program sqlite3 is not installed")
    stored = outbox.commit(Commit(rows=[Row("s", b"%d" % number) for number in range(3)]))
    name = outbox.name
    if way == "cp -p":
        outbox.close()
    run(there(block("install.md", way), tmp_path), tmp_path)
    if way == "cp -p":
        outbox.open()
    outbox.commit(Commit(rows=[Row("s", b"later")], released=[record.id for record in stored]))
    outbox.close()

    run(there(block("install.md", "rm -f"), tmp_path), tmp_path)
    outbox.open()

    assert [r.payload for r in outbox.read("s", after=0, limit=10, max_bytes=1000)] == [b"0", b"1", b"2"]
    assert outbox.name != name
    assert outbox.books().balanced
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backups").iterdir()} == {0o600}
