"""The HTTP proxy on the way to a listener, and the listeners that are reached without it."""

import re
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

#: What a URL without a port means (RFC 9110 §4.2.1).
_USUAL_PORT = 80
#: Names and networks that NO_PROXY may have; the rest is left out.
_MAXIMUM_EXEMPT = 1000
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


@attrs.frozen
class Proxy:
    """
    An HTTP proxy.

    :ivar host: its name or IP address; ``port``: its TCP port.
    :ivar credentials: ``user:password`` for it; `None`: none are shown.
    """

    host: str
    port: int
    credentials: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parseProxy(value: Any) -> Proxy:  # Any: text, or a proxy
    """
    Read a proxy's URL, such as ``http://user:password@proxy.example.net:3128``, user and password percent-encoded.

    :raises ValueError: when it isn't one; says nothing of a password.
    """
    if isinstance(value, Proxy):
        return value
    try:
        parts = urlsplit(str(value))
        port = _USUAL_PORT if parts.port is None else parts.port
    except ValueError:
        raise ValueError("host or port can't be read") from None
    if parts.scheme != "http":
        raise ValueError("the scheme has to be http: what goes through the proxy is encrypted in any case")
    if not parts.hostname or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("nothing but user, password, host and port")
    return Proxy(parts.hostname, port, _credentials(parts.username, parts.password))


def _credentials(user: str | None, password: str | None) -> str | None:
    if not user:
        if password:
            raise ValueError("a password without a user")
        return None
    if any(_BROKEN_ESCAPE.search(part) for part in (user, password or "")):
        raise ValueError("a percent sign in user or password is written %25")
    user, password = unquote(user, errors="strict"), unquote(password or "", errors="strict")
    if ":" in user or not (user + password).isprintable():
        raise ValueError("a user has no colon, and neither user nor password control characters")
    return f"{user}:{password}"


def parseExempt(value: Any) -> tuple[str, ...]:  # Any: text, a list of it, or words
    """Read what is reached without the proxy, such as ``.example.net,10.0.0.0/8``. Nothing is an error in it."""
    words = re.split(r"[\s,]+", value) if isinstance(value, str) else value
    return tuple(str(word) for word in words if word)[:_MAXIMUM_EXEMPT]


def isExempt(exempt: tuple[str, ...], host: str, port: int) -> bool:
    """
    Whether a listener is reached without the proxy. As other programs have NO_PROXY: a name is meant with all names
    below it, with or without a leading dot; ``*`` is everything; a network is written as CIDR; each may have a port.
    """
    return any(_matches(word.lower(), host.lower().rstrip("."), port) for word in exempt)


def _matches(word: str, host: str, port: int) -> bool:
    if word == "*":
        return True
    try:
        return ip_address(host) in ip_network(word.strip("[]"), strict=False)
    except ValueError:
        pass  # a name, or a port behind it
    name, colon, digits = word.rpartition(":")
    if colon and digits.isdecimal():
        if int(digits) != port:
            return False
        word = name.strip("[]")
    word = word.removeprefix("*").strip(".")
    return bool(word) and (host == word or host.endswith(f".{word}"))
