"""Merges the sources into checked settings, or reports all problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from bridge.config.layers import Layer, Problems, layer_of
from bridge.config.settings import Settings
from bridge.config.sources import command_line, environment, secret_files, state_directory, toml
from bridge.config.tree import (
    FILE_SUFFIX,
    Location,
    allowed,
    annotation_at,
    dotted,
    field_at,
    is_group,
    is_secret,
    suggest_setting,
    variable,
)
from bridge.config.values import TABLE_TAG, VALUE_TAG
from bridge.errors import ConfigError

SECRET_DIRECTORIES = (Path("/run/secrets"),)
"""Where Docker and Podman mount secrets. systemd uses $CREDENTIALS_DIRECTORY."""

OFFLINE: Mapping[Location, str] = {
    ("mqtt", "url"): "mqtt://broker.invalid",
    ("gdn", "url"): "https://gdn.invalid",
    ("gdn", "api_key"): "none",
    ("gdn", "password"): "none",
    ("gdn", "tenant"): "none",
}
"""Required settings that a command which connects to nothing can do without, and what stands for them then. Names in
``.invalid`` never resolve (RFC 6761, 6.4).
"""


class Loaded(NamedTuple):
    """Checked settings and where they come from."""

    settings: Settings
    place: Callable[[Location], str]
    """The place of a setting: its file and line, or its variable."""
    unset: Sequence[str]
    """Dotted names of required settings that have no value; only if loaded ``offline``."""


def load(
    *,
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    secret_directories: Sequence[Path] = SECRET_DIRECTORIES,
    offline: bool = False,
) -> Settings:
    """The settings. Sources in order of precedence: overrides, environment, secret files, TOML file, defaults.

    Args:
        config_file: the TOML file, or None.
        environ: environment variables. Each one that starts with BRIDGE_ must be a setting.
        overrides: dotted keys and their values as text, such as ``{"log.level": "debug"}``.
        options: the command line options that gave overrides, by key; problems name them: ``{"mqtt.url": "--broker"}``.
        secret_directories: searched after $CREDENTIALS_DIRECTORY.
        offline: for a command that connects to nothing: the settings in ``OFFLINE`` aren't required.

    Raises:
        ConfigError: lists every problem with its variable, or file and line; never shows a value.
    """
    return load_placed(
        config_file=config_file,
        environ=environ,
        overrides=overrides,
        options=options,
        secret_directories=secret_directories,
        offline=offline,
    ).settings


def load_placed(
    *,
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    secret_directories: Sequence[Path] = SECRET_DIRECTORIES,
    offline: bool = False,
) -> Loaded:
    """Like ``load``, with what else is known about the settings."""
    problems = Problems()
    layers = _layers(config_file, environ, overrides or {}, options or {}, secret_directories, problems)
    settings, errors = _merged(layers)
    unset = [loc for error in errors if error["type"] == "missing" and (loc := error["loc"]) in OFFLINE]
    if offline and unset:
        settings, errors = _merged([*layers, _stand_ins(unset)])
    # pydantic knows no files or variables: each error gets the place of its value.
    for error in errors:
        error["loc"] = tuple(step for step in error["loc"] if step not in (VALUE_TAG, TABLE_TAG))
        location = _known(error["loc"])
        if not (error["type"] == "missing" and problems.explains(location)):
            problems.add(_explained(error, location, layers, config_file))
    if settings is None or problems.texts:
        raise ConfigError(*dict.fromkeys(problems.texts))

    return Loaded(settings, _places(layers), tuple(map(dotted, unset)))


def places(
    *,
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    secret_directories: Sequence[Path] = SECRET_DIRECTORIES,
) -> Callable[[Location], str]:
    """The function that ``load_placed`` returns, for settings that were loaded before.

    Raises:
        ConfigError: the TOML file can't be read any more.
    """
    return _places(_layers(config_file, environ, overrides or {}, {}, secret_directories, Problems()))


def _layers(
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    options: Mapping[str, str],
    secret_directories: Sequence[Path],
    problems: Problems,
) -> list[Layer]:
    """The sources, by precedence.

    Raises:
        ConfigError: the TOML file can't be read.
    """
    here = Path()
    layers = [
        layer_of(command_line(overrides, options, problems), base=here, problems=problems),
        layer_of(environment(environ, problems), base=here, problems=problems),
        layer_of(secret_files(environ, secret_directories, problems), base=here, problems=problems),
    ]
    if config_file is not None:
        try:
            layers.append(toml(config_file))
        except ConfigError as exc:
            # Without the file's values, further checks would report false problems.
            raise ConfigError(*exc.problems, *problems.texts) from None
    layers.append(layer_of(state_directory(environ), base=here, problems=problems))
    # An absent group counts as empty, so that each required setting in it is reported.
    groups = [name for name, field in Settings.model_fields.items() if is_group(field.annotation)]
    layers.append(Layer({name: {} for name in groups}, lambda _location: None))
    return layers


def _stand_ins(locations: Sequence[Location]) -> Layer:
    tree: dict[str, Any] = {}
    for location in locations:
        tree.setdefault(str(location[0]), {})[location[1]] = OFFLINE[location]
    return Layer(tree, lambda _location: None)


def _places(layers: Sequence[Layer]) -> Callable[[Location], str]:
    return lambda location: _place(location, layers) or variable(location)


def _place(location: Location, layers: Sequence[Layer]) -> str | None:
    """The place of the value in use; None if no source sets it."""
    return next((found for layer in layers if (found := layer.place(location))), None)


def _merged(layers: Sequence[Layer]) -> tuple[Settings | None, list[ErrorDetails]]:
    class Merged(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **_others: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, layer.tree) for layer in layers)

    try:
        return Merged(), []
    except ValidationError as exc:
        return None, exc.errors(include_url=False, include_input=False)


def _known(location: Location) -> Location:
    """The part of an error's location that is a setting; pydantic appends steps of its own, such as union members."""
    for end in range(1, len(location) + 1):
        if annotation_at(location[:end]) is None:
            return location[: end - 1]
    return location


def _explained(error: ErrorDetails, location: Location, layers: Sequence[Layer], config_file: Path | None) -> str:
    if error["type"] == "extra_forbidden":
        location = (*location, error["loc"][len(location)])
    place = _place(location, layers)
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such setting{suggest_setting(location)}"
    if error["type"] == "missing":
        return _missing(location, layers, config_file)
    if error["type"] == "value_error":
        what = str(error["ctx"]["error"])
    elif location == ("routes",) and error["type"] == "too_short":
        what = "must contain at least one route"
    elif error["type"] == "string_too_short":
        what = "must not be empty"
    elif error["type"] == "string_too_long":
        what = f"must have at most {error['ctx']['max_length']} characters"
    else:
        field = field_at(location)
        what = f"must be {allowed(annotation_at(location), () if field is None else field.metadata)}"
    return f"{place or variable(location)}: {what}"


def _missing(location: Location, layers: Sequence[Layer], config_file: Path | None) -> str:
    holder = _place(location[:-1], layers)
    if location[0] == "routes" and len(location) > 1 and holder is not None:
        return f"{holder}: {location[-1]} is required and not set"
    file = "the configuration file that --config names" if config_file is None else str(config_file)
    if location == ("routes",):
        return f"{variable(location)}: at least one route is required; add [[routes]] with topic and stream to {file}"
    ways = [f"set the variable, or {dotted(location)} in {file}"]
    if is_secret(annotation_at(location)):
        ways = ["set the variable", f"set {variable(location)}{FILE_SUFFIX} to the path of a file that contains it"]
        ways.append(f"or provide a secret file named {'__'.join(map(str, location))}")
    return f"{variable(location)}: is required and not set; {', '.join(ways)}"
