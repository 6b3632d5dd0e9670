"""A release's manual page and completions, generated from the command line's parser."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from bridge import __version__


@pytest.fixture(scope="module")
def manual() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manual", Path("deploy/release/manual.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERBS = ("run", "init", "check", "explain", "test", "healthcheck", "status", "worker", "query", "deadletter", "demo")


def test_the_page_has_every_verb_the_version_and_the_exit_codes(manual: ModuleType) -> None:
    page = manual.manual_page(datetime(2026, 11, 25, tzinfo=UTC)).replace("\\-", "-")

    assert page.startswith(f'.TH GDN-BRIDGE "1" "2026-11-25" "gdn-bridge {__version__}"')
    for verb in VERBS:
        assert f"COMMAND \\fI\\,'gdn-bridge {verb}'" in page, verb
    assert "\n69\n" in page


def test_the_page_is_the_same_each_time(manual: ModuleType) -> None:
    moment = datetime(2026, 11, 25, tzinfo=UTC)

    assert manual.manual_page(moment) == manual.manual_page(moment)


def test_the_page_is_valid_troff(manual: ModuleType, tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    page = tmp_path / "gdn-bridge.1"
    page.write_text(manual.manual_page(datetime(2026, 11, 25, tzinfo=UTC)))

    done = subprocess.run([groff, "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=True)

    assert done.stderr == ""


def test_bash_completes_verbs_and_options(manual: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "gdn-bridge.bash"
    script.write_text(manual.completion("bash"))

    def completed(*words: str) -> set[str]:
        asked = (
            f"source {script}; COMP_WORDS=(gdn-bridge {' '.join(words)} ''); COMP_CWORD={len(words) + 1}; "
            "_shtab_gdn_bridge gdn-bridge '' gdn-bridge; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        return set(subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split())

    assert set(VERBS) <= completed()
    assert {"status", "plan", "apply", "validate", "delete"} <= completed("worker")


def test_zsh_has_every_verb(manual: ModuleType) -> None:
    script = manual.completion("zsh")

    assert script.startswith("#compdef gdn-bridge")
    for verb in VERBS:
        assert f"    {verb}:'" in script, verb
