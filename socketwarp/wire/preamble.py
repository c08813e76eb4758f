"""
What the listener says about a stream before the visitor's bytes, and the form that the original gives it (``hq-29``).

The original's header is 1,024 bytes: ``{id}|{host}:{port}`` in UTF-8, then NUL bytes up to the end.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

import attrs

from ..errors import MalformedPreamble
from ..interfaces import Address, Piece
from .cutting import Cutter

#: Bytes of the original's header, padding included.
HEADER_SIZE = 1024
#: Characters of a host name (RFC 1035 §2.3.4 gives 255 bytes on the wire, which are 253 in text).
HOST_LIMIT = 253
#: Characters of a connection id. The original's are like ``3-17``; they must fit the header with the longest host.
ID_LIMIT = 128


def checkText(text: str, limit: int, what: str) -> str:
    """
    `text`, if it is 1 to `limit` printable characters without spaces.

    :raises errors.MalformedPreamble: naming `what`; the text itself isn't repeated, because logs would carry it.
    """
    if not 0 < len(text) <= limit:
        raise MalformedPreamble(f"the {what} has {len(text)} characters; 1 to {limit} are allowed")
    if not text.isprintable() or " " in text:
        raise MalformedPreamble(f"the {what} has characters that don't belong there")
    return text


@lru_cache(1024)
def checkHost(host: str) -> str:
    """
    `host`, if it can be one: an IP address (IPv6 without brackets) or something like a name. Nothing is resolved.
    Remembered, as targets are few and visitors many.

    :raises errors.MalformedPreamble: otherwise.
    """
    checkText(host, HOST_LIMIT, "host")
    if ":" in host:
        try:
            IPv6Address(host)
        except AddressValueError:
            raise MalformedPreamble("the host has colons but isn't an IPv6 address") from None
    elif any(character in host for character in "[]|/"):
        raise MalformedPreamble("the host has characters that don't belong there")
    return host


def checkPort(port: int) -> int:
    """
    `port`, if it is a TCP port, 1 to 65535.

    :raises errors.MalformedPreamble: otherwise.
    """
    if not 0 < port < 65536:
        raise MalformedPreamble("the port is not between 1 and 65535")
    return port


@attrs.frozen
class Preamble:
    """
    What the listener says about a stream.

    :ivar connectionId: names the visitor's connection in both ends' logs; opaque, without ``|``.
    :ivar host: the target: a name or an IP address, IPv6 without brackets.
    :ivar port: the target's port, 1 to 65535.
    :ivar visitor: the visitor's address; `None` from the original, which doesn't say.
    :ivar entryPort: the port the visitor came to; `None` from the original.
    :ivar isTimed: the answer shall say how long the steps took.
    :raises errors.MalformedPreamble: when one of them can't be right.
    """

    connectionId: str = attrs.field()
    host: str = attrs.field()
    port: int = attrs.field()
    visitor: Address | None = None
    entryPort: int | None = None
    isTimed: bool = False

    def __attrs_post_init__(self) -> None:
        if "|" in checkText(self.connectionId, ID_LIMIT, "connection id"):
            raise MalformedPreamble("the connection id has characters that don't belong there")
        checkHost(self.host)
        checkPort(self.port)
        if self.visitor is not None:
            checkHost(self.visitor[0])
            checkPort(self.visitor[1])
        if self.entryPort is not None:
            checkPort(self.entryPort)


def formatPreamble29(connectionId: str, host: str, port: int) -> bytes:
    """
    The original's header, `HEADER_SIZE` bytes; an IPv6 host is put in brackets.

    :raises errors.MalformedPreamble: when id, host or port can't be right, or don't fit.
    """
    preamble = Preamble(connectionId, host, port)
    place = f"[{host}]" if ":" in host else host
    encoded = f"{preamble.connectionId}|{place}:{port}".encode()
    if len(encoded) > HEADER_SIZE:
        raise MalformedPreamble(f"the preamble has {len(encoded)} bytes; {HEADER_SIZE} are allowed")
    return encoded.ljust(HEADER_SIZE, b"\0")


def parsePreamble29(header: bytes) -> Preamble:
    """
    Read the original's header; ``[::1]:80`` and ``::1:80`` both mean port 80 of ``::1``.

    :raises errors.MalformedPreamble: when it isn't one.
    """
    try:
        parts = header.rstrip(b"\0").decode().split("|")
    except UnicodeDecodeError:
        raise MalformedPreamble("the preamble isn't UTF-8") from None
    if len(parts) != 2:
        raise MalformedPreamble(f"the preamble has {len(parts)} parts between '|'; 2 are needed")
    host, colon, port = parts[1].rpartition(":")
    if not colon:
        raise MalformedPreamble("the target has no port")
    return Preamble(parts[0], _unbracketed(host), _decimalPort(port))


def _unbracketed(host: str) -> str:
    if not host.startswith("["):
        return host
    if not (host.endswith("]") and ":" in host):
        raise MalformedPreamble("the host has brackets but isn't an IPv6 address")
    return host[1:-1]


def _decimalPort(text: str) -> int:
    # int() alone would take "+80", "8_0", " 80" and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise MalformedPreamble("the target's port isn't a number")
    return int(text)


class Preamble29Parser:
    """Takes the original's header off the front of a stream (see `cutting.Parser`)."""

    def __init__(self) -> None:
        self._cutter = Cutter()

    def feed(self, pieces: Sequence[Piece]) -> tuple[Preamble, list[Piece]] | None:
        """
        Take the next pieces; see `cutting.Parser.feed`.

        :raises errors.MalformedPreamble: when the header is complete and isn't one.
        """
        cut = self._cutter.cut(HEADER_SIZE, pieces)
        return None if cut is None else (parsePreamble29(cut[0]), cut[1])
