"""Links and anchors of all pages lead somewhere, and the pages read the same on the site as in the repository."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

PAGES = [
    *sorted(Path("docs").rglob("*.md")),
    *map(Path, ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LIST = re.compile(r"\s*([-*+]|\d+\.) ")


def prose(page: Path) -> str:
    """A page without its blocks and spans of code."""
    without_blocks = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", without_blocks)


def as_on_the_site(heading: str) -> str:
    """The anchor that Python-Markdown gives."""
    text = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def as_in_a_repository(heading: str) -> str:
    """The anchor that code hosts give."""
    return re.sub(r"[^\w\s-]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Those that are the same in both places and belong to one heading."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = [heading.replace("`", "") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    counted = Counter(as_on_the_site(heading) for heading in headings)
    return {
        slug
        for heading in headings
        if counted[slug := as_on_the_site(heading)] == 1 and slug == as_in_a_repository(heading)
    }


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve().relative_to(Path.cwd()) if path else page
        assert linked in PAGES, f"{target}: the site has no such page"
        assert not anchor or anchor in anchors(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lists_and_tables_follow_a_blank_line(page: Path) -> None:
    """Code hosts render them without, the site doesn't."""
    text = re.sub(r"^```.*?^```$", "```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    previous = ""
    for line in text.splitlines():
        begins_list = LIST.match(line) and not LIST.match(previous) and not previous.startswith(" ")
        begins_table = line.startswith("|") and not previous.startswith("|")
        assert not previous.strip() or not (begins_list or begins_table), line
        previous = line


def test_every_decision_has_a_number_of_its_own_which_its_title_begins_with() -> None:
    pages = sorted(page for page in Path("docs/decisions").glob("*.md") if page.name != "index.md")

    assert len({page.name[:4] for page in pages}) == len(pages)
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page


def test_every_page_is_in_the_navigation_or_in_the_index_of_decisions() -> None:
    navigation = Path("mkdocs.yml").read_text().split("\nnav:\n")[1]
    decisions = Path("docs/decisions/index.md").read_text()

    for page in sorted(Path("docs").rglob("*.md")):
        if page.parent.name == "decisions" and page.name != "index.md":
            assert decisions.count(f"]({page.name})") == 1, page
        else:
            assert navigation.count(f" {page.relative_to('docs')}\n") == 1, page


def test_a_commit_is_checked_by_the_commands_of_make_check() -> None:
    hooks = re.findall(r"entry: \.venv/bin/(.*)", Path(".pre-commit-config.yaml").read_text())
    check = Path("Makefile").read_text().split("\ncheck: ")[1].split("\n\n")[0]

    assert hooks == re.findall(r"\$\(BIN\)/(.*)", check)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_code_span_is_closed_on_its_line(page: Path) -> None:
    """A span over two lines breaks if the second begins like a quote or a list, and spans can't be nested."""
    for line in prose(page).splitlines():
        assert "`" not in line, line


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:bridge|tests|deploy|config|docs)/[\w./-]+)`", page.read_text()):
        assert Path(name).exists(), name


def test_the_design_names_every_room_and_every_module_beside_them() -> None:
    design = Path("docs/design.md").read_text()
    rooms = {f"{path.parent.name}/" for path in Path("bridge").glob("*/__init__.py")}
    modules = {path.name for path in Path("bridge").glob("*.py") if not path.name.startswith("__")}

    assert set(re.findall(r"^\| \d \| `(\w+/)` \|", design, re.MULTILINE)) == rooms
    assert modules <= set(re.findall(r"`(\w+\.py)`", design))
