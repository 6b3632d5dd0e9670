"""Reads the sources of settings: command line, environment, secret files, TOML file, state directory."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bridge.config.layers import Entry, Layer, Problems, with_base
from bridge.config.settings import Settings
from bridge.config.tree import (
    FILE_SUFFIX,
    PREFIX,
    Location,
    annotation_at,
    dotted,
    is_secret,
    resolve,
    suggest_key,
    suggest_variable,
    variable,
)
from bridge.errors import ConfigError


def environment(environ: Mapping[str, str], problems: Problems) -> Iterator[Entry]:
    """Variables that start with BRIDGE_."""
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(PREFIX) or _secret_file_target(name) is not None:
            continue
        location = resolve(name[len(PREFIX) :].split("__"))
        if location is None or variable(location) != name:
            problems.add(f"{name}: there is no such setting{suggest_variable(name)}")
        elif value:  # Docker Compose passes an unset variable on as an empty one
            yield Entry(name, location, value)


def _secret_file_target(name: str) -> Location | None:
    """The secret whose file a variable such as ``BRIDGE_GDN__API_KEY_FILE`` names; None for other variables."""
    if not (name.startswith(PREFIX) and name.endswith(FILE_SUFFIX)):
        return None
    location = resolve(name[len(PREFIX) : -len(FILE_SUFFIX)].split("__"))
    return location if location is not None and is_secret(annotation_at(location)) else None


def secret_files(environ: Mapping[str, str], directories: Sequence[Path], problems: Problems) -> Iterator[Entry]:
    """Files named by a variable, then those in $CREDENTIALS_DIRECTORY, then in ``directories``; the first one wins."""
    found: dict[Location, tuple[str, Path]] = {}
    for name, value in sorted(environ.items()):
        location = _secret_file_target(name)
        if location is not None and value:
            found[location] = (name, Path(value))
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    for directory in [*([Path(credentials)] if credentials else []), *directories]:
        try:
            paths = sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            problems.add(f"{directory}: the secrets directory can't be read: {exc.strerror}")
            continue
        for path in paths:
            location = _secret_location(path, problems)
            if location is not None:
                found.setdefault(location, (str(path), path))
    for location, (place, path) in found.items():
        text = _secret(path, place=place, location=location, problems=problems)
        if text is not None:
            yield Entry(place, location, text)


def _secret_location(path: Path, problems: Problems) -> Location | None:
    prefixed = path.name.upper().startswith(PREFIX)
    names = (path.name[len(PREFIX) :] if prefixed else path.name).split("__")
    if not prefixed and len(names) == 1:
        return None  # not ours: without the prefix, only group__name is
    location = resolve(names)
    if location is None and (prefixed or names[0].lower() in Settings.model_fields):
        problems.add(f"{path}: there is no such setting{suggest_variable(PREFIX + '__'.join(names).upper())}")
    return location


def _secret(path: Path, *, place: str, location: Location, problems: Problems) -> str | None:
    try:
        if path.exists() and not path.is_file():
            problems.add(f"{place}: is not a regular file", unset=location)
            return None
        text = path.read_bytes().decode().rstrip("\r\n")
    except OSError as exc:
        problems.add(f"{place}: the secret file can't be read: {exc.strerror}", unset=location)
    except ValueError:
        problems.add(f"{place}: the secret file is not UTF-8 text", unset=location)
    else:
        if text:
            return text
        problems.add(f"{place}: the secret file is empty", unset=location)
    return None


def command_line(overrides: Mapping[str, str], options: Mapping[str, str], problems: Problems) -> Iterator[Entry]:
    """``--set``: dotted keys and their values as text. ``options``: the options that gave some of them, by key."""
    for key, value in overrides.items():
        location = resolve(key.split("."))
        if location is None:
            problems.add(f"{key}, on the command line: there is no such setting{suggest_key(key)}")
        else:
            yield Entry(options.get(key, f"{key}, on the command line"), location, value)


def toml(file: Path) -> Layer:
    """The configuration file.

    Raises:
        ConfigError: the file can't be read or isn't valid TOML.
    """
    try:
        text = file.read_bytes().decode().replace("\r\n", "\n")
    except OSError as exc:
        raise ConfigError(f"{file}: the configuration file can't be read: {exc.strerror}") from None
    except ValueError:
        raise ConfigError(f"{file}: the configuration file is not UTF-8 text") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(_toml_problem(file, text, str(exc))) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: the configuration file has a number too long or a nesting too deep") from None
    lines = cache(lambda: _toml_lines(text))

    def locate(location: Location) -> str | None:
        line = next((n for end in range(len(location), 0, -1) if (n := lines().get(location[:end]))), 1)
        return f"{file}:{line}: {dotted(location)}"

    return Layer(with_base(tree, Settings, file.parent), locate)


def _toml_problem(file: Path, text: str, message: str) -> str:
    found = re.search(r" \(at line (\d+), column (\d+)\)| \(at end of document\)", message)
    rows = text.split("\n")
    # "at end of document" names no line: the end of the text is meant.
    line, column = (found[1], found[2]) if found and found[1] else (len(rows), len(rows[-1]) + 1)
    what = message[: found.start()] if found else message
    if what == "Invalid value":  # usually a string without quotes
        what += "; strings need quotes"
    return f"{file}:{line}:{column}: not TOML: {what}"


def _toml_lines(text: str) -> dict[Location, int]:
    """The line on which each key's statement begins.

    tomllib doesn't report positions, so this parses ever longer prefixes of the text: the lines that were added define
    the keys that are new. That is slow, but only error messages need it.
    """
    lines: dict[Location, int] = {}
    rows = text.split("\n")
    parsed = 0
    for number in range(1, len(rows) + 1):
        try:
            tree = tomllib.loads("\n".join(rows[:number]))
        except ValueError:  # within a statement of several lines
            continue
        for location in _locations(tree):
            lines.setdefault(location, parsed + 1)
        parsed = number
    return lines


def _locations(value: Any, above: Location = ()) -> Iterator[Location]:
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for key, element in inside:
        yield (*above, key)
        yield from _locations(element, (*above, key))


def state_directory(environ: Mapping[str, str]) -> Iterator[Entry]:
    """The outbox's path, if systemd provides a state directory."""
    directory = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # may list several, systemd.exec(5)
    if directory:
        yield Entry("STATE_DIRECTORY", ("outbox", "path"), str(Path(directory) / "outbox.db"))
