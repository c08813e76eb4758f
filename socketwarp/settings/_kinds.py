"""
Kinds of values: each reads a setting from text (flag, environment) or from what a file may hold.

A kind is an attrs converter: it takes text or the finished value, and raises `ValueError` whose text completes the
sentence "SWL_PORT: 'x' …" with the remedy.
"""

import math
import os
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

import attrs

from ._proxy import parseExempt, parseProxy
from ._rules import parseListeners, parsePortRanges, parseTargetRules

T = TypeVar("T")
W = TypeVar("W", bound=str)
_WHOLE = re.compile("[0-9]{1,20}")
_YES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@attrs.frozen
class Kind(Generic[T]):
    """
    How one kind of value is read.

    :ivar wants: what the user has to give, in words.
    :ivar native: the types that a file (JSON, TOML) may hold for it.
    :ivar parse: makes the value from text or a native value; any `ValueError` means that it isn't one.
    """

    wants: str
    native: tuple[type, ...]
    parse: Callable[[Any], T]  # Any: text, a native type, or a finished value

    def __call__(self, value: object) -> T:
        """
        Read `value`.

        :raises ValueError: when it isn't of this kind; says what to give instead.
        """
        try:
            return self.parse(value)
        except ValueError as error:
            detail = f" ({error})" if type(error) is ValueError and str(error) else ""
            raise ValueError(f"is not {self.wants}{detail}") from None

    def isNative(self, value: object) -> bool:
        """Whether a file may hold `value` for this kind. A JSON ``true`` is no number, though Python says so."""
        return isinstance(value, self.native) and (bool in self.native or not isinstance(value, bool))


def wholeNumber(wants: str, low: int, high: int, none: int | None = None) -> Kind[int]:
    """A whole number from `low` to `high`, or the one that says that there is no limit."""

    def parse(value: Any) -> int:  # Any: see Kind.parse
        if not _WHOLE.fullmatch(str(value)) or not (low <= int(value) <= high or int(value) == none):
            raise ValueError
        return int(value)

    return Kind(wants, (int,), parse)


def _duration(value: Any) -> float:  # Any: see Kind.parse
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError from None  # Python's own words help nobody who sets a setting
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _seconds(value: Any) -> float:  # Any: see Kind.parse
    number = _duration(value)
    if number == 0:
        raise ValueError
    return number


def _address(value: Any) -> str:  # Any: see Kind.parse
    try:
        return str(ip_address(str(value)))
    except ValueError:
        raise ValueError from None


def _path(value: Any) -> Path:  # Any: see Kind.parse
    if "\0" in str(value) or not str(value):
        raise ValueError
    return Path(value).absolute()


def _paths(value: Any) -> tuple[Path, ...]:  # Any: see Kind.parse
    parts = value.split(os.pathsep) if isinstance(value, str) else value
    return tuple(_path(part) for part in parts)


def _host(value: Any) -> str:  # Any: see Kind.parse
    name = str(value).strip("[]")
    if not name or len(name) > 253 or any(character in name for character in "/@ \t\r\n\0") or not name.isprintable():
        raise ValueError
    return name


def _url(value: Any) -> str:  # Any: see Kind.parse
    parts = urlsplit(str(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    if parts.username is not None:
        raise ValueError("a password doesn't belong in a URL")
    return str(value)


def _truth(value: Any) -> bool:  # Any: see Kind.parse
    try:
        return _YES[str(value).lower()]
    except KeyError:
        raise ValueError from None


def _uidSource(value: Any) -> str:  # Any: see Kind.parse
    kind, _, affix = str(value).partition(":")
    if str(value) != "cn" and not (kind in ("uri", "dns") and affix):
        raise ValueError
    return str(value)


def _tlsPort(value: Any) -> int | Literal["same", "off"]:  # Any: see Kind.parse
    match str(value).lower():
        case "same":
            return "same"
        case "off":
            return "off"
    return PORT.parse(value)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same, or `None` for a setting that is left out."""
    return Kind(kind.wants, kind.native, lambda value: None if value is None else kind.parse(value))


def _words(value: Any) -> tuple[str, ...]:  # Any: see Kind.parse
    parts = value.split(",") if isinstance(value, str) else value
    words = tuple(str(part).strip() for part in parts)
    if any(not word or not word.isprintable() for word in words):
        raise ValueError
    return words


def choice(*words: W) -> Kind[W]:
    """One of `words`, which are in lower case, given in any case."""

    def parse(value: Any) -> W:  # Any: see Kind.parse
        for word in words:
            if word == str(value).lower():
                return word
        raise ValueError

    return Kind("one of " + ", ".join(words), (str,), parse)


#: 0 means any free port, which only makes sense where somebody can ask for it afterwards (tests).
PORT = wholeNumber("a port number from 0 to 65535", 0, 65535)
#: A port of its own, the number that another setting gives, or none.
TLS_PORT: Kind[int | Literal["same", "off"]] = Kind("a port number from 0 to 65535, same, or off", (int, str), _tlsPort)
OPTIONAL_PORT = optional(wholeNumber("a port number from 1 to 65535", 1, 65535))
SECONDS = Kind("a number of seconds greater than 0", (int, float), _seconds)
SECONDS_OR_NONE = Kind("a number of seconds, 0 or more", (int, float), _duration)
ADDRESS = Kind("an IP address of this host, such as 127.0.0.1, 0.0.0.0 or ::", (str,), _address)
HOST = Kind("a host name or IP address, without a port", (str,), _host)
URL = Kind("a http or https URL", (str,), _url)
TRUTH = Kind("1 (yes) or 0 (no)", (bool,), _truth)
#: Absolute, so that a change of the working directory (twistd's --rundir) can't change what is meant.
PATH = Kind("a path", (str,), _path)
OPTIONAL_PATH = optional(PATH)
PATHS = Kind("a list of paths, separated by colons", (str, list), _paths)
#: Read by `identity.names.uidSource`, which this room may not import.
UID_SOURCE = Kind("cn, uri:PREFIX or dns:SUFFIX", (str,), _uidSource)
PORTS = Kind("a list of ports and ranges, such as 8080,18000-18999", (str, list), parsePortRanges)
#: Words without commas, which a uid in a certificate has never been seen with.
WORDS = Kind("a list of names, separated by commas", (str, list), _words)
LISTENERS = Kind(
    "a list of listeners, such as b.example.net or b.example.net:11443 or [2001:db8::1]:11443",
    (str, list),
    parseListeners,
)
TARGETS = Kind(
    "a list of targets, such as 10.0.0.0/8:22, [2001:db8::/32]:443 or *.example.net:8000-8999",
    (str, list),
    parseTargetRules,
)
PROXY = optional(Kind("an HTTP proxy, such as http://proxy.example.net:3128", (str,), parseProxy))
#: What NO_PROXY has; other programs take anything there, too.
EXEMPT = Kind("a list of names and networks, such as .example.net,10.0.0.0/8", (str, list), parseExempt)
