"""Find each setting: flag before environment before file before default."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from ..errors import ConfigurationError
from ._fields import CommonSettings, Setting, settingsOf

S = TypeVar("S", bound=CommonSettings)
#: A settings file is some hundred bytes; this keeps a wrong path (a log, a device) from filling the memory.
MAXIMUM_FILE = 2**20
MASK = "********"
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}


@attrs.frozen
class Effective:
    """
    A setting as it is in effect.

    :ivar field: the attribute of the settings class; ``name``: what its source calls it.
    :ivar value: the value, made for reading; masked when it is a secret.
    :ivar source: ``flag``, ``environment``, ``default``, or the path of a file.
    """

    field: str
    name: str
    value: str
    source: str


@attrs.frozen
class _Found:
    """A setting's value, converted, and where it came from."""

    name: str
    value: object
    source: str


def load(kind: type[S], flags: Mapping[str, str | None], environment: Mapping[str, str]) -> S:
    """
    Read an end's settings.

    :param flags: the options of the plugin, `None` for those not given; ``config`` names the settings file.
    :raises errors.ConfigurationError: one line, naming the setting, the value and the remedy.
    """
    values: dict[str, Any] = {}  # Any: each is what its kind made it
    for name, found in _findAll(kind, flags, environment).items():
        values[name] = found.value
    return kind(**values)


def effective(
    kind: type[CommonSettings], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> list[Effective]:
    """Every setting with its value and source, for reading; fails as `load` does."""
    load(kind, flags, environment)
    settings = settingsOf(kind)
    return [
        Effective(field, found.name, _shown(settings[field], found.value), found.source)
        for field, found in _findAll(kind, flags, environment).items()
    ]


def _shown(setting: Setting, value: object) -> str:
    if value is None:
        return ""
    if setting.secret:
        return MASK
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def _findAll(
    kind: type[CommonSettings], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> dict[str, _Found]:
    settings = settingsOf(kind)
    path, held = _readFile(kind, flags, environment)
    if path is None and kind.defaultFile is not None:
        remedy = (
            f"{Path(kind.defaultFile).absolute()} doesn't exist: start in its directory, set {kind.prefix}_SETTINGS"
        )
    else:
        remedy = f"put it into {path}"
    known = {setting.key for setting in settings.values()}
    for key in held:
        if key not in known:
            names = ", ".join(sorted(known))
            raise ConfigurationError(f"{path}: {key!r} is no setting: remove it, or use one of {names}")
    return {
        field.name: _find(settings[field.name], field.default, flags, environment, path, held, remedy)
        for field in attrs.fields(kind)
    }


def _readFile(
    kind: type[CommonSettings], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> tuple[Path | None, Mapping[str, object]]:
    """The settings file's path and content; nothing when there is none and nobody named one."""
    variable = f"{kind.prefix}_SETTINGS"
    name, named = "--config", flags.get("config")
    if named is None:
        name, named = variable, environment.get(variable)
    if named is not None and not named.strip():
        raise ConfigurationError(f"{name}: {named!r} is empty: name a file, or leave it out")
    if named is None and kind.defaultFile is None:
        return None, {}
    path = Path(named or kind.defaultFile or "").absolute()
    try:
        with open(path, "rb") as file:
            data = file.read(MAXIMUM_FILE + 1)
    except FileNotFoundError:
        if named is None:
            return None, {}
        raise ConfigurationError(f"{name}: {named!r}: no such file: create it, or name another") from None
    except OSError as error:
        raise ConfigurationError(f"{name}: {str(path)!r} can't be read: {error.strerror}") from None
    return path, _parse(path, data)


def _parse(path: Path, data: bytes) -> Mapping[str, object]:
    """TOML when the file's name says so, else JSON."""
    if len(data) > MAXIMUM_FILE:
        raise ConfigurationError(f"{path}: more than {MAXIMUM_FILE} bytes: this is no settings file")
    language, read = ("TOML", tomllib.loads) if path.suffix == ".toml" else ("JSON", _readJson)
    try:
        held = read(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of JSON, TOML and UTF-8 alike
        raise ConfigurationError(f"{path}: not {language}: {error}: correct it there") from None
    if not isinstance(held, dict):
        raise ConfigurationError(f'{path}: must be one object of settings, such as {{"server_name": "host"}}')
    return held


def _readJson(text: str) -> object:
    """JSON whose objects have each key once; Python's would take the last."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        held: dict[str, object] = {}
        for key, value in pairs:
            if key in held:
                raise ValueError(f"{key!r} is there more than once")
            held[key] = value
        return held

    return json.loads(text, object_pairs_hook=unique)


def _find(
    setting: Setting,
    default: object,
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    path: Path | None,
    held: Mapping[str, object],
    remedy: str,
) -> _Found:
    flag = flags.get(setting.flag)
    if flag is not None:
        read = _fromSecretFile if setting.secret else _fromText
        return read(setting, f"--{setting.flag}", flag, "flag")
    given = [variable for variable in setting.variables if variable in environment]
    if len(given) > 1:
        raise ConfigurationError(f"{', '.join(given)}: both are set: leave one of them out")
    for variable in given:
        read = _fromText if variable == setting.environment else _fromSecretFile
        return read(setting, variable, environment[variable], "environment")
    if setting.key in held:
        return _fromFile(setting, path, held[setting.key])
    for fallback in setting.fallbacks:
        if environment.get(fallback, "").strip():
            return _fromText(setting, fallback, environment[fallback], "environment")
    if setting.defaultFrom is not None:
        default = setting.defaultFrom(environment)
    if default is attrs.NOTHING:
        raise ConfigurationError(
            f"{setting.key}: not set ({setting.help}): {remedy}, or set {setting.environment} or --{setting.flag}"
        )
    return _Found(setting.environment, setting.kind(default), "default")


def _fromText(setting: Setting, name: str, text: str, source: str) -> _Found:
    if not text.strip():
        raise ConfigurationError(f"{name}: {text!r} is empty: give {setting.kind.wants}, or leave it out")
    return _Found(name, _convert(setting, name, text), source)


def _fromSecretFile(setting: Setting, name: str, path: str, source: str) -> _Found:
    """The secret is the file's text, without the white space around it."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAXIMUM_FILE).decode().strip()
    except (OSError, ValueError) as error:
        if "://" in path:  # the secret itself, in the place of the file
            raise ConfigurationError(f"{name}: {MASK} is no file: put it into one, and name that") from None
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{name}: {path!r} can't be read: {reason}") from None
    if not text:
        raise ConfigurationError(f"{name}: {path!r} is empty: put {setting.kind.wants} into it")
    return _Found(name, _convert(setting, f"{name}: {path!r}", text), source)


def _fromFile(setting: Setting, path: Path | None, value: object) -> _Found:
    name = f"{path}: {setting.key}"
    if not setting.kind.isNative(value):
        types = " or ".join(_WORDS[type_] for type_ in setting.kind.native)
        raise ConfigurationError(f"{name}: {json.dumps(value, default=str)} must be {types}: {setting.kind.wants}")
    if value == "":
        raise ConfigurationError(f'{name}: "" is empty: give {setting.kind.wants}, or leave it out')
    return _Found(setting.key, _convert(setting, name, value), str(path))


def _convert(setting: Setting, name: str, value: object) -> object:
    try:
        return setting.kind(value)
    except ValueError as error:
        shown = MASK if setting.secret else repr(value)
        raise ConfigurationError(f"{name}: {shown} {error}") from None
