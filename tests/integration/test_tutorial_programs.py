"""The tutorial's programs, with third-party clients, against the local GDN."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import API_KEY, ROOT, TENANT, LocalGdn

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

PROGRAMS = Path(__file__).parent / "tutorial"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package ``ws`` is installed."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        if os.environ.get("CI"):
            pytest.fail("Node.js is not installed, and in CI it must be")
        pytest.skip("Node.js is not installed")
    directory = tmp_path_factory.mktemp("node")
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "ws@8"], cwd=directory, check=True, timeout=120
    )
    return directory / "node_modules"


def run(command: list[str], gdn: LocalGdn, **environment: str) -> str:
    ended = subprocess.run(
        command,
        env={
            **os.environ,
            "GDN_URL": gdn.url,
            "GDN_KEY": API_KEY,
            "GDN_TENANT": TENANT,
            "GDN_DEFINITION": str(ROOT / "config" / "worker.sql"),
            "GDN_PAUSE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_python_program_sees_its_rows(gdn: LocalGdn) -> None:
    printed = run([sys.executable, str(PROGRAMS / "tutorial.py")], gdn)

    assert printed.count("published") == 2
    assert "'id': '200-AD11'" in printed
    assert "'id': '201-AD11'" in printed


def test_the_javascript_program_sees_its_rows(tmp_path: Path, node_modules: Path) -> None:
    gdn = LocalGdn(tmp_path, host_name="gdn.test")
    try:
        command = ["node", "--require", str(PROGRAMS / "resolve.js"), str(PROGRAMS / "tutorial.js")]
        printed = run(command, gdn, NODE_PATH=str(node_modules))
    finally:
        gdn.end()

    assert printed.count("published") == 2
    assert "id: '200-AD11'" in printed
    assert "id: '201-AD11'" in printed
