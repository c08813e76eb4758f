"""
What two ends speak on a stream, chosen by the session's ALPN, so that nobody else needs to know which one it is.

`DIALECTS` has them by ALPN, the preferred one first.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from ..errors import SocketwarpError
from .cutting import Immediate, Parser
from .preamble import Preamble, Preamble29Parser, formatPreamble29
from .streams import (
    Dialled,
    DocumentParser,
    formatDialled1,
    formatPreamble1,
    formatRefusal1,
    parseAnswer1,
    parsePreamble1,
)

__all__ = ["DIALECTS", "Dialect", "Dialled", "Hq29", "Socketwarp1"]


class Dialect(Protocol):
    """How the two ends introduce a stream. Stateless; parsers are made one for each stream."""

    @property
    def alpn(self) -> str:
        """The ALPN that stands for it."""

    @property
    def hasControl(self) -> bool:
        """Whether the connector opens a control stream, its first, for `messages`."""

    def formatPreamble(self, preamble: Preamble) -> bytes:
        """What the listener sends before the visitor's bytes."""

    def preambleParser(self) -> Parser[Preamble]:
        """A connector's parser of that; raises `errors.MalformedPreamble`."""

    def formatDialled(self, dialled: Dialled) -> bytes:
        """What the connector sends before the target's bytes; may be empty."""

    def formatRefusal(self, error: SocketwarpError) -> bytes:
        """What the connector sends instead, before it ends the stream; may be empty."""

    def answerParser(self) -> Parser[Dialled]:
        """
        A listener's parser of the connector's answer. It raises the `errors.TargetError` (or `errors.LimitReached`) of
        a refusal, and `errors.MalformedPreamble`.
        """


class Hq29:
    """The original's dialect: a header of 1,024 bytes, no answer, no control stream."""

    alpn = "hq-29"
    hasControl = False

    def formatPreamble(self, preamble: Preamble) -> bytes:
        """The header; it has no place for the visitor's address."""
        return formatPreamble29(preamble.connectionId, preamble.host, preamble.port)

    def preambleParser(self) -> Parser[Preamble]:
        """A parser of the header."""
        return Preamble29Parser()

    def formatDialled(self, dialled: Dialled) -> bytes:
        """Nothing: the target's bytes are the answer."""
        return b""

    def formatRefusal(self, error: SocketwarpError) -> bytes:
        """Nothing: the stream's reset is the answer."""
        return b""

    def answerParser(self) -> Parser[Dialled]:
        """A parser of nothing."""
        return Immediate(Dialled())


class Socketwarp1:
    """Our own: a preamble with the visitor's address, an answer, a control stream."""

    alpn = "socketwarp/1"
    hasControl = True

    def formatPreamble(self, preamble: Preamble) -> bytes:
        """All of it."""
        return formatPreamble1(preamble)

    def preambleParser(self) -> Parser[Preamble]:
        """A parser of that."""
        return DocumentParser(parsePreamble1)

    def formatDialled(self, dialled: Dialled) -> bytes:
        """That all is well, and what was dialled."""
        return formatDialled1(dialled)

    def formatRefusal(self, error: SocketwarpError) -> bytes:
        """The error's code and text."""
        return formatRefusal1(error)

    def answerParser(self) -> Parser[Dialled]:
        """A parser of either."""
        return DocumentParser(parseAnswer1)


DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.alpn: dialect for dialect in (Socketwarp1(), Hq29())})
