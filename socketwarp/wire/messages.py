"""
The control stream of ``socketwarp/1``: messages of a 4-byte big-endian length and that many bytes of JSON, both ways.

A message is an object with a ``type``. Fields that we don't know are ignored; so are types, unless the message says
``"critical": true``.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import attrs

from ..errors import MalformedMessage
from ..interfaces import Piece
from .cutting import Cutter
from .documents import Document, clean, encode

#: Bytes of JSON in a message at most.
MESSAGE_LIMIT = 64 * 1024
#: Seconds that a message may speak of at most: a year.
SECONDS_LIMIT = 366 * 86400.0
#: Streams that a message may speak of at most (RFC 9000 §4.6 has 2**60; nobody has the memory).
STREAM_LIMIT = 1_000_000
#: The last second of the year 9999.
TIME_LIMIT = 253402300799
#: The largest number of a ping.
NUMBER_LIMIT = 2**53 - 1
#: A feature: pings are answered.
PING = "ping"
#: A feature of a connector that another one has superseded: it doesn't take a uid away from anybody.
YIELDS = "yields"
#: A feature of a connector: it ends a session itself once it has heard `Finished`.
FINISHES = "finishes"
_LENGTH = Struct("!I")


@attrs.frozen
class Hello:
    """
    The connector introduces itself: its first message.

    :ivar software: what it is; ``version``: which.
    :ivar instance: a random id of this running connector, the same after a reconnect.
    :ivar streamLimit: how many streams it takes at a time.
    :ivar features: what it can do besides.
    """

    software: str
    version: str
    instance: str
    streamLimit: int
    features: tuple[str, ...] = ()


@attrs.frozen
class Welcome:
    """
    The listener admits the connector: its first message.

    :ivar uid: as whom; ``session``: the session's id in the listener's logs.
    :ivar keepAlive: seconds between two signs of life that the listener wants.
    :ivar idle: seconds without any after which it takes the session for lost.
    :ivar features: what it can do besides.
    :ivar notAfter: the connector's certificate's end of life as the listener sees it, seconds since 1970 (UTC).
    :ivar ticket: a secret that the carrier wants to hear on further connections (`ISession.ticket`).
    :ivar lanes: how many of those there may be at a time (`ISession.laneLimit`).
    """

    uid: str
    session: str
    keepAlive: float
    idle: float
    features: tuple[str, ...] = ()
    notAfter: int | None = None
    ticket: str | None = attrs.field(default=None, repr=False)
    lanes: int | None = None


@attrs.frozen
class Refused:
    """
    The listener doesn't admit the connector: its only message, right before it closes the session.

    :ivar reason: an error's code, like ``verifier-refused``.
    :ivar text: what a person should know and do.
    :ivar retryAfter: seconds after which another attempt makes sense; `None`: never with this certificate.
    """

    reason: str
    text: str = attrs.field(converter=clean)
    retryAfter: float | None = None


@attrs.frozen
class Goaway:
    """
    No new streams; from either end.

    :ivar reason: an error's code or ``shutdown``, ``renewed``; ``superseded``: another session with this uid took over.
    :ivar seconds: how long the running streams may take to finish.
    :ivar text: what a person should know.
    """

    reason: str
    seconds: float
    text: str = attrs.field(default="", converter=clean)


@attrs.frozen
class Finished:
    """
    After a `Goaway`, from the listener: no visitor is left, so the connector ends the session when its targets have
    taken all that came for them. Only to one whose features name `FINISHES`; else the listener ends it now.
    """


@attrs.frozen
class Ping:
    """
    Are you there? Only to one whose features name `PING`.

    :ivar number: comes back with the answer.
    """

    number: int


@attrs.frozen
class Pong:
    """
    The answer to a `Ping`.

    :ivar number: the ping's.
    """

    number: int


Message = Hello | Welcome | Refused | Goaway | Finished | Ping | Pong


def _hello(document: Document) -> Hello:
    return Hello(
        document.word("software"),
        document.word("version"),
        document.word("instance"),
        document.integer("streamLimit", 1, STREAM_LIMIT),
        document.words("features"),
    )


def _welcome(document: Document) -> Welcome:
    return Welcome(
        document.text("uid"),
        document.word("session"),
        document.seconds("keepAlive", SECONDS_LIMIT),
        document.seconds("idle", SECONDS_LIMIT),
        document.words("features"),
        document.integer("notAfter", 0, TIME_LIMIT) if document.has("notAfter") else None,
        document.word("ticket") if document.has("ticket") else None,
        document.integer("lanes", 1, STREAM_LIMIT) if document.has("lanes") else None,
    )


def _refused(document: Document) -> Refused:
    retryAfter = document.seconds("retryAfter", SECONDS_LIMIT) if document.has("retryAfter") else None
    return Refused(document.word("reason"), document.text("text"), retryAfter)


def _goaway(document: Document) -> Goaway:
    return Goaway(document.word("reason"), document.seconds("seconds", SECONDS_LIMIT), document.text("text"))


_READERS: dict[str, Callable[[Document], Message]] = {
    "hello": _hello,
    "welcome": _welcome,
    "refused": _refused,
    "goaway": _goaway,
    "finished": lambda document: Finished(),
    "ping": lambda document: Ping(document.integer("number", 0, NUMBER_LIMIT)),
    "pong": lambda document: Pong(document.integer("number", 0, NUMBER_LIMIT)),
}


def formatMessage(message: Message) -> bytes:
    """
    A message with its length.

    :raises errors.MalformedMessage: when it would be too long.
    """
    # Any: attrs gives a dictionary of whatever the fields are.
    fields: dict[str, Any] = attrs.asdict(message)
    encoded = encode({"type": type(message).__name__.lower(), **fields})
    if len(encoded) > MESSAGE_LIMIT:
        raise MalformedMessage(f"a message has {len(encoded)} bytes; {MESSAGE_LIMIT} are allowed")
    return _LENGTH.pack(len(encoded)) + encoded


class MessageParser:
    """Takes messages off a control stream, for as long as it lasts."""

    def __init__(self) -> None:
        self._cutter = Cutter()
        self._size: int | None = None

    def feed(self, pieces: Sequence[Piece]) -> list[Message]:
        """
        The messages that are complete with the next pieces.

        :raises errors.MalformedMessage: for a length beyond `MESSAGE_LIMIT`, before anything of it is kept; for what
            isn't a message; for an unknown critical one. The parser is of no use afterwards.
        """
        messages: list[Message] = []
        rest = list(pieces)
        while (cut := self._cutter.cut(_LENGTH.size if self._size is None else self._size, rest)) is not None:
            encoded, rest = cut
            if self._size is None:
                self._size = self._checkedSize(encoded)
            else:
                self._size = None
                messages += self._read(Document(encoded, MalformedMessage))
        return messages

    def _checkedSize(self, encoded: bytes) -> int:
        size: int = _LENGTH.unpack(encoded)[0]
        if size > MESSAGE_LIMIT:
            raise MalformedMessage(f"a message has {size} bytes; {MESSAGE_LIMIT} are allowed")
        return size

    def _read(self, document: Document) -> list[Message]:
        kind = document.word("type")
        if kind in _READERS:
            return [_READERS[kind](document)]
        if document.isTrue("critical"):
            raise MalformedMessage(f"a critical message of the unknown type {kind!r}")
        return []
