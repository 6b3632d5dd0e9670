"""Writes the manual page and the shell completions, generated from the argument parser: ``manual.py DIRECTORY``.

Needs the dependency group ``manual``, and SOURCE_DATE_EPOCH for a reproducible page.
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
"""File name by shell, as is its convention."""

MORE = rf"""
.SH EXIT STATUS
.TP
0
success
.TP
1
failure at run time; not ready, not live; an example differs; a message became a dead letter
.TP
2
wrong usage; for \fBworker plan\fR: changes are needed
.TP
69
broker, GDN or bridge can't be reached or refused
.TP
78
settings or files are wrong
.SH ENVIRONMENT
.TP
{CONFIG_VARIABLE}
the TOML file with the settings, for all verbs
.TP
BRIDGE_\fIGROUP\fR__\fIKEY\fR
a setting, such as BRIDGE_GDN__URL; with _FILE after the name of a secret, a file that holds it
.TP
CREDENTIALS_DIRECTORY
a directory of secrets, one file each, named like the setting: gdn__api_key
.TP
STATE_DIRECTORY
the directory of the outbox, if no setting names another
"""


def manual_page(moment: datetime) -> str:
    """The manual page for section 1, in troff."""
    parser = _parser()
    page = str(Manpage(parser))
    title = f'.TH GDN\\-BRIDGE "1" "{moment:%Y-%m-%d}" "gdn\\-bridge {__version__}" "User Commands"'
    page = re.sub(r"\A\.TH .*", lambda _: title, page)
    page = re.sub(r"(?m)\A(.*\n\.SH NAME\n).*", lambda found: f"{found[1]}gdn\\-bridge \\- {parser.description}", page)
    page = f"{page.rstrip()}\n{MORE.lstrip()}"
    # Not every troff reads UTF-8.
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in page)


def completion(shell: str) -> str:
    """The script with which the shell completes verbs, options and files."""
    parser = _parser()
    for action in _actions(parser):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads this attribute
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The actions of the parser and of all its subparsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _actions(subparser)
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
