"""
A control stream as messages (``socketwarp/1``, see docs/protocol.rst): the same for both ends.

It parses what comes, formats what goes, answers pings, and keeps little: what the peer doesn't read makes us stop
answering it, never our memory grow.
"""

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import MalformedMessage, SessionLost, SocketwarpError
from .interfaces import IStream, IStreamReceiver, Piece
from .wire.messages import Message, MessageParser, Ping, Pong, formatMessage


@implementer(IStreamReceiver, IPushProducer)
class ControlStream:
    """One end of it. Made on a stream that has not been started yet."""

    def __init__(
        self,
        stream: IStream,
        received: Callable[[Message], None],
        broken: Callable[[SocketwarpError], None],
        pinged: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param received: is given each message but pings.
        :param broken: is called, at most once, when the stream ended or brought what is no message, though its session
            goes on: a session without its control stream is of no use.
        :param pinged: is called with each ping.
        """
        self._stream = stream
        self._received = received
        self._broken = broken
        self._pinged = pinged
        self._parser: MessageParser | None = MessageParser()
        self._isFull = False
        stream.registerProducer(self, True)
        stream.start(self)

    def send(self, message: Message) -> None:
        """Say something; dropped when the stream is over."""
        self._stream.write(formatMessage(message))

    # IStreamReceiver

    def piecesReceived(self, pieces: list[Piece]) -> None:
        """See `IStreamReceiver`."""
        if self._parser is None:
            return
        try:
            messages = self._parser.feed(pieces)
        except MalformedMessage as error:
            self._break(error)
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, Ping):
            self._pinged()
            if not self._isFull:
                self.send(Pong(message.number))
        elif self._parser is not None:
            self._received(message)

    def readConnectionLost(self) -> None:
        """See `IStreamReceiver`."""
        self._break(MalformedMessage("the other end finished the control stream"))

    def writeConnectionLost(self, errorCode: int) -> None:
        """See `IStreamReceiver`."""
        self._break(MalformedMessage("the other end doesn't read the control stream"))

    def connectionLost(self, reason: Failure) -> None:
        """See `IStreamReceiver`. The session's own end is told by the session."""
        if reason.check(SessionLost):
            self._parser = None
        elif not reason.check(ConnectionDone):
            self._break(MalformedMessage("the other end reset the control stream"))

    def _break(self, error: SocketwarpError) -> None:
        if self._parser is not None:
            self._parser = None
            self._broken(error)

    # IPushProducer, of pongs

    def pauseProducing(self) -> None:
        """The peer doesn't read."""
        self._isFull = True

    def resumeProducing(self) -> None:
        """It reads again."""
        self._isFull = False

    def stopProducing(self) -> None:
        """The stream is over; `connectionLost` says so, too."""
