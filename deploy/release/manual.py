"""Writes the manual page and the shells' completions from the command line's own description: ``manual.py DIRECTORY``.

Wants the dependency group ``manual``, and SOURCE_DATE_EPOCH for a page that is the same each time.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from bridge import __version__
from bridge.cli import CONFIG_VARIABLE, _parser

COMPLETIONS = {"bash": "gdn-bridge.bash", "zsh": "_gdn-bridge"}
"""Of each shell, and the file's name by its convention."""

MORE = rf"""
.SH EXIT STATUS
.TP
0
done
.TP
1
failed while running; not ready, not live; an example differs; a message became a dead letter
.TP
2
wrong usage; of \fBworker plan\fR: there is something to do
.TP
69
broker, GDN or bridge could not be reached, or refused
.TP
78
settings or files are wrong
.SH ENVIRONMENT
.TP
{CONFIG_VARIABLE}
the TOML file with settings, for every verb
.TP
BRIDGE_\fIGROUP\fR__\fIKEY\fR
a setting, such as BRIDGE_GDN__URL; with _FILE behind a secret's name, a file that holds it
.TP
CREDENTIALS_DIRECTORY
a directory of secrets, one file each, named as the setting: gdn__api_key
.TP
STATE_DIRECTORY
where the outbox is if no setting says so
"""


def manual_page(moment: datetime) -> str:
    """The page for section 1, in troff."""
    parser = _parser()
    page = str(Manpage(parser))
    title = f'.TH GDN\\-BRIDGE "1" "{moment:%Y-%m-%d}" "gdn\\-bridge {__version__}" "User Commands"'
    page = re.sub(r"\A\.TH .*", lambda _: title, page)
    page = re.sub(r"(?m)\A(.*\n\.SH NAME\n).*", lambda found: f"{found[1]}gdn\\-bridge \\- {parser.description}", page)
    page = f"{page.rstrip()}\n{MORE.lstrip()}"
    # Not every troff reads UTF-8.
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in page)


def completion(shell: str) -> str:
    """The script that makes the shell complete verbs, options and files."""
    parser = _parser()
    for action in _actions(parser):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's way to be told
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of the parser and all below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def main() -> None:
    """Write the files."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    moment = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.now(UTC).timestamp()), UTC)
    (directory / "gdn-bridge.1").write_text(manual_page(moment), encoding="utf-8")
    for shell, name in COMPLETIONS.items():
        (directory / name).write_text(completion(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
