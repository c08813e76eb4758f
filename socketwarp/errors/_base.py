"""What every failure has, the codes and exit statuses, and the failures that belong to no room."""

from enum import IntEnum
from typing import ClassVar

EX_FAILED = 1
EX_USAGE = 2
EX_UNAVAILABLE = 69
EX_NOPERM = 77
EX_CONFIG = 78


class Code(IntEnum):
    """
    Application error codes of streams and of the connection (RFC 9000 §20.2), the same on both.

    0 is what a peer sends that knows no codes (the original implementation does), so it never means an abort.
    docs/protocol.rst lists them; a number, once given, keeps its meaning.
    """

    NO_ERROR = 0x00
    #: A TCP side was reset, or the stream was given up.
    ABORTED = 0x01
    #: A preamble or control message was not what the protocol says.
    MALFORMED = 0x02
    #: The target, uid or certificate is not allowed.
    DENIED = 0x03
    #: The target's name has no address.
    UNRESOLVED = 0x04
    #: The target answered with RST.
    REFUSED = 0x05
    #: The target can't be reached.
    UNREACHABLE = 0x06
    #: Something took longer than its limit.
    TIMED_OUT = 0x07
    #: A limit of connections, streams or memory was reached.
    LIMIT = 0x08
    #: The process stops, or the port was closed.
    SHUTDOWN = 0x09
    #: Another session with this uid took over.
    SUPERSEDED = 0x0A
    #: The verifier can't say who this is.
    VERIFIER_FAULT = 0x0B
    #: A fault of ours.
    INTERNAL = 0x0C


class SocketwarpError(Exception):
    """The root of what this module defines; ``str()`` of one is a sentence for a person."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    streamCode: ClassVar[Code] = Code.INTERNAL
    exitCode: ClassVar[int] = EX_FAILED

    @property
    def originalText(self) -> str:
        """What the original's calls are answered with, whose users' scripts compare some of it."""
        return str(self)


class ConfigurationError(SocketwarpError):
    """A setting, or a file that a setting names, can't be used: the text names setting, value and remedy."""

    code = "configuration"
    exitCode = EX_CONFIG


class AddressUnavailable(SocketwarpError):
    """An address or port of ours can't be bound."""

    code = "address-unavailable"
    exitCode = EX_UNAVAILABLE


class LimitReached(SocketwarpError):
    """A limit of streams, connections or memory was reached; nothing was opened."""

    code = "limit"
    status = 503
    streamCode = Code.LIMIT
