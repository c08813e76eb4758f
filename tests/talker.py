"""Who speaks on a control stream (``socketwarp/1``), for tests of the other end."""

from typing import TypeVar

from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.interfaces import IStream, IStreamReceiver, Piece
from socketwarp.wire.messages import Message, MessageParser, Ping, Pong, formatMessage
from tests.fakes import FakeSession

M = TypeVar("M", bound=Message)


@implementer(IStreamReceiver)
class Talker:
    """
    One end of a control stream: what it hears there, and what it says.

    :ivar messages: what it has heard, but pings.
    :ivar isMute: it answers no pings.
    :ivar pings: how many it has heard.
    """

    def __init__(self, session: FakeSession, opens: bool = False) -> None:
        """:param opens: the stream is opened from here, as a connector does; else it waits for one."""
        self.messages: list[Message] = []
        self.isMute = False
        self.pings = 0
        self._stream: IStream | None = None
        self._parser = MessageParser()
        if opens:
            session.openStream().addCallback(self._accept)
        else:
            session.acceptStreams(self._accept)

    @property
    def stream(self) -> IStream:
        """The control stream."""
        assert self._stream is not None, "there is none"
        return self._stream

    def _accept(self, stream: IStream) -> None:
        self._stream = stream
        stream.start(self)

    def say(self, message: Message) -> None:
        """A message to the other end, if there is a control stream."""
        if self._stream is not None:
            self._stream.write(formatMessage(message))

    def heard(self, kind: type[M]) -> list[M]:
        """The messages of that kind."""
        return [message for message in self.messages if isinstance(message, kind)]

    def piecesReceived(self, pieces: list[Piece]) -> None:
        for message in self._parser.feed(pieces):
            if not isinstance(message, Ping):
                self.messages.append(message)
                continue
            self.pings += 1
            if not self.isMute:
                self.say(Pong(message.number))

    def readConnectionLost(self) -> None:
        """The other end has finished it."""

    def writeConnectionLost(self, errorCode: int) -> None:
        """The other end doesn't listen."""

    def connectionLost(self, reason: Failure) -> None:
        self._stream = None
