"""
What comes first on a stream of ``socketwarp/1``, each way: a 2-byte big-endian length, and that many bytes of JSON.

The listener says where the stream should go and for whom; the connector answers that it has dialled, or why not.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from struct import Struct
from typing import Generic, NamedTuple, TypeVar

from ..errors import (
    LimitReached,
    MalformedPreamble,
    SocketwarpError,
    TargetDenied,
    TargetError,
    TargetRefused,
    TargetTimedOut,
    TargetUnreachable,
    TargetUnresolved,
)
from ..interfaces import Piece
from .cutting import Cutter
from .documents import Document, clean, encode
from .preamble import Preamble

#: Bytes of JSON at most.
DOCUMENT_LIMIT = 4096
#: Seconds that a step of dialling can have taken: a day.
LONGEST_STEP = 86400.0
_LENGTH = Struct("!H")
#: What a connector may refuse with, by code.
REFUSALS: dict[str, type[SocketwarpError]] = {
    refusal.code: refusal
    for refusal in (TargetDenied, TargetUnresolved, TargetRefused, TargetUnreachable, TargetTimedOut, LimitReached)
}

T = TypeVar("T")


class Dialled(NamedTuple):
    """
    The connector's good news: it has a connection to the target.

    :ivar address: what was dialled, ``address:port``; empty when the dialect doesn't say.
    :ivar resolveSeconds: how long the target's name took; ``connectSeconds``: and then, until the connection was made;
        `None` when it isn't said.
    """

    address: str = ""
    resolveSeconds: float | None = None
    connectSeconds: float | None = None


def _frame(document: dict[str, object]) -> bytes:
    return _framed(encode(document))


def _framed(encoded: bytes) -> bytes:
    if len(encoded) > DOCUMENT_LIMIT:
        raise MalformedPreamble(f"the preamble or answer has {len(encoded)} bytes; {DOCUMENT_LIMIT} are allowed")
    return _LENGTH.pack(len(encoded)) + encoded


def formatPreamble1(preamble: Preamble) -> bytes:
    """
    The listener's first bytes.

    :raises errors.MalformedPreamble: when they would be too many.
    """
    # Written as what it is, with each visitor: an encoder that has to look at everything takes 7 µs.
    text = f'{{"id":{_quoted(preamble.connectionId)},"host":{_quoted(preamble.host)},"port":{preamble.port}'
    if preamble.visitor is not None:
        text += f',"visitor":{_quoted(preamble.visitor[0])},"visitorPort":{preamble.visitor[1]}'
    if preamble.entryPort is not None:
        text += f',"entryPort":{preamble.entryPort}'
    return _framed(f'{text},"timed":true}}'.encode() if preamble.isTimed else f"{text}}}".encode())


def parsePreamble1(encoded: bytes) -> Preamble:
    """Read a preamble. :raises errors.MalformedPreamble: when it isn't one."""
    document = Document(encoded, MalformedPreamble)
    visitor = (document.word("visitor"), document.integer("visitorPort", 1, 65535)) if document.has("visitor") else None
    entryPort = document.integer("entryPort", 1, 65535) if document.has("entryPort") else None
    port = document.integer("port", 1, 65535)
    return Preamble(
        document.word("id"), document.word("host"), port, visitor, entryPort, isTimed=document.isTrue("timed")
    )


@lru_cache(256)
def formatDialled1(dialled: Dialled) -> bytes:
    """The connector's first bytes when it has a connection to the target; remembered, as targets are few."""
    return _frame(
        {
            "ok": True,
            "dialled": dialled.address,
            "resolveSeconds": dialled.resolveSeconds,
            "connectSeconds": dialled.connectSeconds,
        }
    )


def formatRefusal1(error: SocketwarpError) -> bytes:
    """The connector's only bytes when it has none. An error that isn't among `REFUSALS` counts as ``unreachable``."""
    code = error.code if error.code in REFUSALS else TargetUnreachable.code
    return _frame({"error": code, "text": clean(str(error))})


@lru_cache(256)
def parseAnswer1(encoded: bytes) -> Dialled:
    """
    Read the connector's answer; what is said of a target is remembered, as targets are few.

    :raises errors.TargetError: or `errors.LimitReached`, as `REFUSALS` says: when it is a refusal. A code of a later
        version of the protocol is a plain `errors.TargetError`.
    :raises errors.MalformedPreamble: when it is no answer.
    """
    document = Document(encoded, MalformedPreamble)
    if document.has("error"):
        raise REFUSALS.get(document.word("error"), TargetError)(document.text("text"))
    if not document.isTrue("ok"):
        raise MalformedPreamble("the connector's answer says neither ok nor error")
    took = [
        document.seconds(name, LONGEST_STEP) if document.has(name) else None
        for name in ("resolveSeconds", "connectSeconds")
    ]
    return Dialled(document.text("dialled"), *took)


class DocumentParser(Generic[T]):
    """Takes one JSON document off the front of a stream and has it read (see `cutting.Parser`)."""

    def __init__(self, read: Callable[[bytes], T]) -> None:
        self._read = read
        self._cutter = Cutter()
        self._size: int | None = None

    def feed(self, pieces: Sequence[Piece]) -> tuple[T, list[Piece]] | None:
        """
        Take the next pieces; see `cutting.Parser.feed`.

        :raises errors.MalformedPreamble: for a length beyond `DOCUMENT_LIMIT`, before anything of it is kept; besides
            what `read` raises.
        """
        if not pieces:
            return None
        if self._size is None:
            head = self._cutter.cut(_LENGTH.size, pieces)
            if head is None:
                return None
            self._size, pieces = _LENGTH.unpack(head[0])[0], head[1]
            if self._size > DOCUMENT_LIMIT:
                raise MalformedPreamble(f"the preamble or answer has {self._size} bytes; {DOCUMENT_LIMIT} are allowed")
        body = self._cutter.cut(self._size, pieces)
        return None if body is None else (self._read(body[0]), body[1])
