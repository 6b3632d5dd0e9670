"""Generates the reference of all settings, docs/settings.md."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.fields import FieldInfo

from bridge.config.routes import RouteSettings
from bridge.config.settings import Settings
from bridge.config.tree import Location, allowed, annotation_at, container, every_setting, variable

REGENERATE = "python -m bridge.config > docs/settings.md"

_INTRODUCTION = f"""\
# Settings

<!-- Generated: `{REGENERATE}` -->

Every setting is an environment variable and a key in a TOML file (`config/bridge.toml` shows all keys). If several
sources set it, the first in this list wins:

1. `--set KEY=VALUE` on the command line (`--set log.level=debug`),
2. environment variables,
3. secret files: first the file that a variable such as `BRIDGE_GDN__API_KEY_FILE` names (secrets only), then a file
   named `gdn__api_key` or `bridge_gdn__api_key` in `$CREDENTIALS_DIRECTORY` (systemd) or in `/run/secrets` (Docker,
   Podman). Line breaks at the end are removed,
4. the TOML file,
5. the default.

- An unknown `BRIDGE_` variable, an unknown key or an invalid value prevents the start: the bridge lists all problems,
  without secret values, and ends with exit code 78.
- An empty variable counts as not set.
- Relative paths in the TOML file are relative to the file's directory, all others to the working directory.
- One variable can set a list or a whole table, as JSON: `BRIDGE_WORKER__REGIONS='["gdn-us-west"]'`. A number in the
  name selects one element, counted from 0: `BRIDGE_ROUTES__0__TOPIC`. Routes in the environment replace those in the
  file.
"""


def reference() -> str:
    """The text of docs/settings.md."""
    sections = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        if not container(field.annotation):
            continue
        model = RouteSettings if name == "routes" else annotation_at((name,))
        heading = "[[routes]]" if name == "routes" else f"[{name}]"
        inside = [(loc, inner) for loc, inner in every_setting() if loc[0] == name]
        sections.append(f"## `{heading}`\n\n{' '.join((model.__doc__ or '').split())}\n\n{_table(inside)}")
    top = [(location, field) for location, field in every_setting() if len(location) == 1]
    sections.append(f"## Top level\n\nIn the file, these keys come before the first table.\n\n{_table(top)}")
    return "\n".join(sections)


def _table(fields: Sequence[tuple[Location, FieldInfo]]) -> str:
    rows = ["| variable | key | type | default | description |", "|---|---|---|---|---|"]
    for location, field in fields:
        article, _, rest = allowed(field.annotation, field.metadata).partition(" ")
        value = rest if article == "a" else f"{article} {rest}"
        cells = [
            f"`{variable(location)}`",
            f"`{location[-1]}`",
            value,
            _default(field),
            field.description or "",
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "not set"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:.10g}`" if isinstance(field.default, float) else f"`{field.default}`"
