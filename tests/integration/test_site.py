"""The documentation as a site: it builds without a warning and loads nothing from other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.reasons import Reason
from tests.conftest import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return directory


def pages(site: Path) -> Iterator[tuple[Path, str]]:
    for page in site.rglob("*.html"):
        yield page.relative_to(site), page.read_text()


def test_every_document_is_a_page(site: Path) -> None:
    expected = {page.relative_to("docs").with_suffix(".html") for page in Path("docs").rglob("*.md")}
    roots = {
        Path(name) for name in ("index.html", "changelog.html", "contributing.html", "report-a-vulnerability.html")
    }

    assert expected | roots <= {page for page, _ in pages(site)}


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for page, text in pages(site):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*?\ssrc=\"?([^\s\">]+)", text)
        loaded += re.findall(
            r"<link(?=[^>]*\brel=\"?(?:stylesheet|preload|icon|shortcut))[^>]*?\shref=\"?([^\s\">]+)", text
        )
        assert loaded, page
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text()), sheet


def test_links_between_the_root_and_docs_are_adapted(site: Path) -> None:
    assert 'href="install.html"' in (site / "index.html").read_text()
    assert 'href="changelog.html"' in (site / "install.html").read_text()


def test_tables_and_lists_are_rendered(site: Path) -> None:
    text = (site / "mapping.html").read_text()

    assert all(f"<td><code>{reason.value}</code></td>" in text for reason in Reason)
    assert not re.search(r"<p>\s*(\||- )", "".join(text for _, text in pages(site)))
