"""TOML files that operators write, read strictly into records: what isn't understood is an error with its place."""

import tomllib
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, NewType, TypeVar, get_args, get_origin

import cattrs

from ..errors import ConfigurationError
from ..settings import ANY_PORT, PortRange, parsePortRanges, parseTargetRules

#: Bytes of such a file, far beyond what anybody writes by hand.
FILE_LIMIT = 2**20
#: More rules, or tokens, than anybody writes by hand.
ITEM_LIMIT = 1000

T = TypeVar("T")
Network = IPv4Network | IPv6Network
#: A network, or a pattern of host names; see `settings.TargetRule`.
TargetHost = NewType("TargetHost", Any)  # type: ignore[valid-newtype]  # a union can't be one
#: An IP address, written as `ipaddress` writes it: there is one way only.
AddressText = NewType("AddressText", str)


def loadToml(setting: str, path: Path, read: Callable[[str], T]) -> T:
    """
    Read a file.

    :param setting: its name, for errors.
    :param read: makes something of its text, or raises `ValueError`.
    :raises errors.ConfigurationError: naming the setting, the file, and what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {str(path)!r} can't be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"{setting}: {str(path)!r} has more than {FILE_LIMIT} bytes: is it the right file?")
    try:
        return read(data.decode())
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {str(path)!r}: {error}") from None


def parseToml(text: str, shape: type[T]) -> T:
    """
    Make a record of a text.

    :raises ValueError: saying everything that is wrong with it.
    """
    held = tomllib.loads(text)
    try:
        return _converter.structure(held, shape)
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(cattrs.transform_error(error, format_exception=_explain))) from None


def _explain(error: BaseException, _: type | None) -> str:
    match error:
        case KeyError():
            return "a required field is missing"
        case TypeError():
            return "a table is needed"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown: {', '.join(sorted(error.extra_fields))}"
        case _:
            return str(error)


def _text(value: object, _: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a printable text is needed")
    return value


def _number(value: Any, _: object) -> float:  # Any: whatever TOML holds
    if type(value) not in (int, float) or not 0 < value < 1e15:
        raise ValueError("a number above 0 is needed")
    return float(value)


def _portRange(value: object, _: object) -> PortRange:
    ranges = parsePortRanges(_text(value, None))
    if len(ranges) != 1:
        raise ValueError("a port, or a range of ports such as 18000-18099, is needed")
    return ranges[0]


def _network(value: object, _: object) -> Network:
    return ip_network(_text(value, None))


def _address(value: object, _: object) -> AddressText:
    return AddressText(str(ip_address(_text(value, None))))


def _targetHost(value: object, _: object) -> Network | str:
    rules = parseTargetRules(_text(value, None))
    if len(rules) != 1 or rules[0].ports != ANY_PORT:
        raise ValueError("a network or a pattern of host names is needed, without ports")
    return rules[0].host


def _list(value: object, kind: Any) -> tuple[object, ...]:  # Any: a tuple's type
    """An empty list is refused: who writes one means nothing at all, and would get everything."""
    if not isinstance(value, list) or not 0 < len(value) <= ITEM_LIMIT:
        raise ValueError(f"a list of 1 to {ITEM_LIMIT} is needed; leave it out to mean all")
    held: list[object] = _converter.structure(value, list[get_args(kind)[0]])  # type: ignore[arg-type, misc]  # made as it runs
    return tuple(held)


def _isTuple(kind: Any) -> bool:  # Any: a type, or a form of typing's
    return get_origin(kind) is tuple


_converter = cattrs.Converter(forbid_extra_keys=True)
for _kind, _hook in (
    (str, _text),
    (float, _number),
    (PortRange, _portRange),
    (AddressText, _address),
    (TargetHost, _targetHost),
):
    _converter.register_structure_hook(_kind, _hook)
_converter.register_structure_hook_func(lambda kind: kind == Network, _network)
_converter.register_structure_hook_func(_isTuple, _list)
