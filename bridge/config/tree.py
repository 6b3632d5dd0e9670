"""The settings as a tree: names of settings, look-up by name, allowed values, and suggestions for typos."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from bridge.config.routes import Change, FieldSetting, FieldTable, RouteSettings
from bridge.config.settings import Settings
from bridge.mapping.fields import Scalar

_SOURCES = (FieldSetting, FieldSetting | None)

PREFIX = "BRIDGE_"
FILE_SUFFIX = "_FILE"

Location = tuple[str | int, ...]
"""The path to a setting: ``("routes", 0, "topic")``."""


def is_group(annotation: Any) -> bool:
    """Whether the type is a section or table with settings of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def container(annotation: Any) -> str | None:
    """What to call a setting that is a table or list, in TOML and in JSON; None for any other."""
    annotation = annotation if annotation in _SOURCES else _unwrapped(annotation)
    if is_group(annotation) or get_origin(annotation) is dict:
        return "table (in JSON: an object)"
    return "list" if get_origin(annotation) is list else None


def _unwrapped(annotation: Any) -> Any:
    """The type without ``| None``; of a column's source, the table."""
    if annotation in _SOURCES:
        return FieldTable
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if len(options) == 1 and type(None) in get_args(annotation) else annotation


def step(annotation: Any, key: str | int) -> Any:
    """The type of a table's key or a list's element; None if there is none."""
    annotation = _unwrapped(annotation)
    if is_group(annotation):
        field = annotation.model_fields.get(key)
        return None if field is None else field.annotation
    if get_origin(annotation) is list and isinstance(key, int):
        return get_args(annotation)[0]
    if get_origin(annotation) is dict and isinstance(key, str) and key:
        return get_args(annotation)[1]
    return None


def annotation_at(location: Location) -> Any:
    """The type at ``location``; None if there is no such setting."""
    annotation: Any = Settings
    for key in location:
        annotation = step(annotation, key)
    return annotation


def field_at(location: Location) -> FieldInfo | None:
    """The field at ``location``; None for an element of a list or a dict."""
    group = _unwrapped(annotation_at(location[:-1]))
    return group.model_fields.get(location[-1]) if is_group(group) else None


def resolve(names: Sequence[str]) -> Location | None:
    """The location for the parts of a variable's name; None if there is no such setting."""
    location: Location = ()
    for name in names:
        annotation = annotation_at(location)
        key: str | int = name
        if is_group(annotation):
            key = name.lower()
        elif get_origin(annotation) is list:
            if not re.fullmatch("[0-9]{1,2}", name):
                return None
            key = int(name)
        location = (*location, key)
        if step(annotation, key) is None:
            return None
    return location


def every_setting() -> Iterator[tuple[Location, FieldInfo]]:
    """Every setting in the model's order; a route's settings under index 0."""
    for name, field in Settings.model_fields.items():
        if name == "routes":
            yield from ((("routes", 0, key), inner) for key, inner in RouteSettings.model_fields.items())
        elif is_group(field.annotation):
            yield from (((name, key), inner) for key, inner in step(Settings, name).model_fields.items())
        else:
            yield (name,), field


def variable(location: Location) -> str:
    """The environment variable of a setting. Only names that the operator chooses, such as columns, keep their case."""
    names = []
    for depth, key in enumerate(location):
        is_chosen = get_origin(_unwrapped(annotation_at(location[:depth]))) is dict
        names.append(str(key) if is_chosen else str(key).upper())
    return PREFIX + "__".join(names)


def dotted(location: Location) -> str:
    """``routes[0].topic``"""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location).removeprefix(".")


def is_secret(annotation: Any) -> bool:
    """Whether values of the type are secret."""
    return SecretStr in (annotation, *get_args(annotation))


def is_path(annotation: Any) -> bool:
    """Whether values of the type are paths."""
    return Path in (annotation, *get_args(annotation))


def allowed(annotation: Any, metadata: Sequence[object] = ()) -> str:
    """The values of a type, with an article: "a whole number from 1 to 1000"."""
    if annotation in _SOURCES:
        return "a string, a number, true or false, or a table with source"
    if annotation == Change:
        return "a number from 0, or a table of such numbers by column"
    if annotation in (Scalar, Scalar | None):
        return "a string, a number, true or false"
    inner = _unwrapped(annotation)
    if get_origin(inner) in (list, dict):
        return _allowed_container(inner)
    if get_origin(inner) is Literal:
        *others, last = get_args(inner)
        return ", ".join(map(str, others)) + f" or {last}"
    if inner in (int, float):
        number = f"a {'whole ' if inner is int else ''}number"
        low = next((m.ge for m in metadata if isinstance(m, Ge)), None)
        high = next((m.le for m in metadata if isinstance(m, Le)), None)
        return number if low is None or high is None else f"{number} from {low} to {high}"
    return "a table" if is_group(inner) else _NAMES.get(inner, "a string")


_NAMES = {Any: "any value", Path: "a path", bool: "true or false", SecretStr: "a string, secret"}


def _allowed_container(annotation: Any) -> str:
    *_, element = get_args(annotation)
    if get_origin(annotation) is dict:
        if element is float:
            return "a table of numbers"
        return "a table of strings, numbers and booleans" + (", or of tables" if element == FieldSetting else "")
    if element is RouteSettings:
        return "a list of routes, each under [[routes]]"
    return "a list of tables" if is_group(element) else "a list of strings"


def suggest_variable(name: str) -> str:
    """The end of a message about an unknown variable: the setting that was probably meant."""
    number = re.search("__([0-9]{1,2})(?:__|$)", name)
    known = {(*loc[:1], int(number[1]), *loc[2:]) if number and len(loc) == 3 else loc for loc, _ in every_setting()}
    names = [variable(loc)[len(PREFIX) :] for loc in known] + ["ROUTES"]
    secrets = [f"{variable(loc)[len(PREFIX) :]}{FILE_SUFFIX}" for loc in known if is_secret(annotation_at(loc))]
    return _suggestion(name[len(PREFIX) :].upper(), sorted(names + secrets), PREFIX)


def suggest_key(key: str) -> str:
    """The end of a message about an unknown dotted key."""
    number = re.search(r"\[[0-9]+\]", key)
    keys = [dotted(location).replace("[0]", number[0] if number else "[0]") for location, _ in every_setting()]
    return _suggestion(key, [*keys, "routes"], "")


def suggest_setting(location: Location) -> str:
    """The end of a message about an unknown setting: first those of the same table, then all."""
    group = _unwrapped(annotation_at(location[:-1]))
    siblings = list(group.model_fields) if is_group(group) else []
    close = difflib.get_close_matches(str(location[-1]), siblings, n=1, cutoff=0.7)
    if close:
        return f"; did you mean {dotted((*location[:-1], close[0]))}?"
    return suggest_key(dotted(location))


def _suggestion(name: str, known: Sequence[str], prefix: str) -> str:
    last = re.split(r"__|\.", name)[-1]
    # First the same setting in another group, then a typo.
    namesakes = [other for other in known if re.split(r"__|\.", other)[-1] == last]
    close = difflib.get_close_matches(name, namesakes, n=1, cutoff=0)
    close += difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {prefix}{close[0]}?" if close else "; docs/settings.md lists all settings"
