"""The recipes of docs/devices.md: their examples give the documented rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.cli import main

GUIDE = Path("docs/devices.md").read_text()
RECIPES = re.findall(r"^## (.*?)\n.*?```sql\n(.*?)```.*?```toml\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE)

SETTINGS = """
[mqtt]
url = "mqtt://127.0.0.1"
[gdn]
url = "https://gdn.example"
api_key = "t.k.s"
tenant = "t"
[worker]
definition = "worker.sql"
"""


def test_every_heading_is_a_recipe() -> None:
    assert len(RECIPES) == GUIDE.count("\n## ") >= 12


@pytest.mark.parametrize(("definition", "routes"), [recipe[1:] for recipe in RECIPES], ids=[r[0] for r in RECIPES])
def test_a_recipe_gives_its_documented_rows(
    definition: str,
    routes: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (stream,) = re.findall(r"STREAM (\w+)", definition)
    reading = f"INSERT INTO kept SELECT * FROM {stream};"
    (tmp_path / "worker.sql").write_text(
        f"@App:name('w') @App:qlVersion('2')\n{definition}\nCREATE STREAM kept (x string);\n{reading}\n"
    )
    (tmp_path / "bridge.toml").write_text(SETTINGS + routes)
    for name in ("BRIDGE_MQTT__URL", "BRIDGE_GDN__URL"):
        monkeypatch.delenv(name, raising=False)

    exit_code = main(["test", "--config", str(tmp_path / "bridge.toml")])

    output = capsys.readouterr()
    assert exit_code == 0, output
    assert re.search(r"^([1-9]\d*) of \1 examples", output.out, re.MULTILINE)
