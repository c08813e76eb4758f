"""
The rules that a setting can hold: ranges of ports, and targets.

A list of rules is text, separated by commas or white space. A target rule is ``network[:ports]`` or
``pattern[:ports]``: a network is an address or CIDR (an IPv6 one with ports goes into brackets), a pattern is a host
name with ``*`` for any characters, ports are a number, a range ``8000-8999``, or ``*``. Without ports, all are meant.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import attrs

Network = IPv4Network | IPv6Network
#: More rules than anybody writes by hand; each is looked at for every connection.
MAXIMUM_RULES = 1000

_SEPARATOR = re.compile(r"[\s,]+")
_TARGET = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^\[\]:]+))(?::(?P<ports>[-\d*]+))?\Z")
_PATTERN = re.compile(r"[a-z0-9_*](?:[a-z0-9_.*-]*[a-z0-9_*])?\.?\Z")


@attrs.frozen
class PortRange:
    """Ports from `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, port: int) -> bool:
        return self.low <= port <= self.high

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low}-{self.high}"


ANY_PORT = PortRange(1, 65535)


@attrs.frozen
class TargetRule:
    """
    Targets that may be dialled: a network or a pattern of host names, and ports.

    :ivar host: a network, or a pattern in lower case without the final dot, ``*`` standing for any characters.
    :ivar origin: the setting that it comes from.
    """

    host: Network | str
    ports: PortRange = ANY_PORT
    origin: str = attrs.field(default="SWC_ALLOW_TARGETS", eq=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Network) else str(self.host)
        return f"{host}:{'*' if self.ports == ANY_PORT else self.ports}"


#: More listeners than anybody runs beside each other; each gets a session.
MAXIMUM_LISTENERS = 16
_LISTENER = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<plain>[\w.-]{1,253}))(?::(?P<port>\d{1,5}))?\Z")


@attrs.frozen
class ListenerName:
    """
    A listener by its name.

    :ivar host: a name or an IP address; ``port``: its QUIC (UDP) port, `None` for the usual one.
    """

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parseListeners(value: Any) -> tuple[ListenerName, ...]:  # Any: text, a list of it, or names
    """
    Read listeners' names, such as ``b.example.net,c.example.net:11443``.

    :raises ValueError: when one of them isn't, or there are too many.
    """
    names = value if isinstance(value, tuple) else tuple(_listener(word) for word in _words(value))
    if len(names) > MAXIMUM_LISTENERS:
        raise ValueError(f"more than {MAXIMUM_LISTENERS}")
    return names


def _listener(text: str) -> ListenerName:
    match = _LISTENER.match(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or port == 0 or (port or 0) > 65535:
        raise ValueError(f"{text!r} is no host or host:port; an IPv6 address goes into brackets")
    return ListenerName(match["bracketed"] or match["plain"], port)


def parsePortRanges(value: Any) -> tuple[PortRange, ...]:  # Any: text, a list of it, or ranges
    """
    Read ports and ranges, such as ``8080,18000-18999``.

    :raises ValueError: when one of them isn't.
    """
    return value if isinstance(value, tuple) else tuple(_portRange(word) for word in _words(value))


def parseTargetRules(value: Any) -> tuple[TargetRule, ...]:  # Any: text, a list of it, or rules
    """
    Read target rules; see the module's text for their form.

    :raises ValueError: when one of them isn't.
    """
    return value if isinstance(value, tuple) else tuple(_targetRule(word) for word in _words(value))


def _words(value: str | list[object]) -> list[str]:
    words = (
        [word for word in _SEPARATOR.split(value) if word] if isinstance(value, str) else [str(part) for part in value]
    )
    if len(words) > MAXIMUM_RULES:
        raise ValueError(f"more than {MAXIMUM_RULES}")
    return words


def _portRange(text: str) -> PortRange:
    low, dash, high = text.partition("-")
    if low.isdecimal() and (high.isdecimal() or not dash):
        ports = PortRange(int(low), int(high or low))
        if 1 <= ports.low <= ports.high <= 65535:
            return ports
    raise ValueError(f"{text!r} is no port or range of ports from 1 to 65535")


def _targetRule(text: str) -> TargetRule:
    match = _TARGET.match(text)
    if match is None:  # a bare IPv6 network has colons of its own
        return TargetRule(_network(text))
    ports = match["ports"]
    host = _network(match["bracketed"]) if match["bracketed"] else _host(match["plain"])
    return TargetRule(host, ANY_PORT if ports in (None, "*") else _portRange(ports))


def _host(text: str) -> Network | str:
    if "/" in text or text.replace(".", "").isdecimal():
        return _network(text)
    pattern = text.lower()
    if not _PATTERN.match(pattern) or (pattern != "*" and not any(letter.isalpha() for letter in pattern)):
        raise ValueError(f"{text!r} is no network or host pattern")
    return pattern.removesuffix(".")


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no network: write it like 10.0.0.0/8, with no bits set after the prefix"
        ) from None
