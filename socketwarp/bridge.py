"""
One TCP connection and one stream, joined: two flows that end on their own, with back-pressure, half-close and abort.

A `Bridge` is the TCP connection's protocol; `Bridge.join` gives it the stream. Either may come first: on the listener
the visitor's TCP connection does, on the connector the stream. What one side sends too early waits, a little of it, and
then that side is paused until the other is there. What each ending becomes is in docs/protocol.rst. Back-pressure is
Twisted's: each side is the other's push producer.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import (
    ConnectionIdle,
    ConnectionReset,
    MalformedPreamble,
    ReaderStalled,
    SessionLost,
    SocketwarpError,
    StreamReset,
)
from .interfaces import IStream, IStreamReceiver, ITcp, ITcpProtocol, Piece, Totals
from .watches import IdleWatch
from .wire.cutting import Parser

#: Seconds that the last bytes may take to a TCP reader once both directions of the stream have ended; then it is reset.
#: At a stream window of 1 MiB that is a reader of 9 kB/s; a slower one costs memory that nobody waits for any more.
LINGER = 120.0
#: Seconds for which bytes that nobody wants are still read and dropped, after all that we had was delivered. Closing at
#: once would answer them with RST, which may destroy the delivered bytes on their last metres (RFC 1122 §4.2.2.13).
DISCARD = 5.0
#: Seconds that the peer has to reset a stream whose dial was refused.
REFUSAL = 5.0

T = TypeVar("T")
_log = Logger()


@implementer(ITcpProtocol)
class Bridge:
    """
    A TCP connection's protocol that carries it over a stream.

    :ivar isOver: both sides are gone.
    """

    def __init__(self, clock: IReactorTime, over: Callable[[Totals], None], idle: float | None = None) -> None:
        """
        :param over: called once both sides are gone; what it raises is logged.
        :param idle: seconds without a byte in either direction after which the bridge ends; `None` for no limit.
        """
        self.isOver = False
        self._over = over
        self._clock = clock
        self._idle = idle
        self._idleWatch: IdleWatch | None = None
        self._deadline: IDelayedCall | None = None
        self._tcp: ITcp | None = None
        self._stream: IStream | None = None
        self._receiver = _Receiver(self)
        self._error: SocketwarpError | None = None
        self._toStream = 0
        self._early: list[bytes] = []
        self._discarding = False  # nobody wants what TCP still sends
        self._tcpAtEnd = False  # FIN has come from TCP
        self._tcpShut = False  # our FIN to TCP has gone, after all bytes
        self._tcpOver = False
        self._streamShut = False  # the stream takes no more: our FIN, or the peer's STOP_SENDING
        self._streamOver = False

    # For the owner.

    def join(self, stream: IStream, parser: Parser[T], parsed: Callable[[T], None]) -> None:
        """
        Carry the TCP connection over `stream`, which has not been started yet.

        :param parser: takes what the peer says before the bytes for TCP (`wire.cutting.Immediate`: nothing). What it
            raises ends both sides.
        :param parsed: called with its result, unless the bridge ends before that; what it raises ends both sides.
        """
        if self._error is not None:
            stream.abort(self._error.streamCode)
            return
        self._stream = stream
        self._startToStream()
        self._receiver.begin(stream, parser, parsed)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes so far: from TCP to the stream, and from the stream to TCP."""
        return self._toStream, self._receiver.count

    def finish(self) -> None:
        """Act as if TCP's FIN had come: its bytes so far are carried, what it still sends is read and dropped."""
        self._discarding = True
        self._readTcp()
        self._endToStream()

    def refuse(self, error: SocketwarpError, answer: bytes) -> None:
        """
        End a joined bridge that has no TCP side and gets none: tell the peer `answer` and let it reset the
        stream. Without an answer, or after `REFUSAL` seconds, the reset comes from here.
        """
        if self._error is not None or self._stream is None or not answer:
            self.abort(error)
            return
        self._error = error
        self._stream.write(answer)
        self._stream.loseWriteConnection()
        self._streamShut = True
        self._setDeadline(REFUSAL, self.abort, error)

    def abort(self, error: SocketwarpError) -> None:
        """End both sides at once: RST for TCP, reset with the error's code for the stream. The first error counts."""
        self._error = self._error or error
        if self._tcp is not None:
            self._tcp.abortConnection()
        if self._stream is not None and not self._streamOver:
            self._streamOver = True
            self._stream.abort(self._error.streamCode)
        self._receiver.stop()
        self._checkEnded()

    # From TCP.

    def connectionMade(self) -> None:
        """Nothing: see `makeConnection`."""

    def makeConnection(self, transport: ITransport) -> None:
        """The TCP side is there."""
        tcp = cast(ITcp, transport)
        if self._error is not None:
            tcp.abortConnection()
            return
        self._tcp = tcp
        self._startToStream()
        self.startToTcp()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from TCP."""
        if self._discarding:
            return
        self._toStream += len(data)
        if self._stream is not None:
            self._stream.write(data)
        else:
            self._early.append(data)
            if self._tcp is not None:
                self._tcp.pauseProducing()

    def readConnectionLost(self) -> None:
        """FIN from TCP."""
        self._tcpAtEnd = True
        self._endToStream()
        self._closeTcp()

    def writeConnectionLost(self) -> None:
        """Our FIN to TCP has gone out, and all bytes before it."""
        self._tcpShut = True
        if self._discarding and not self._tcpAtEnd:
            self._setDeadline(DISCARD, self.readConnectionLost)  # as if FIN had come
        self._closeTcp()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The TCP connection is gone."""
        self._tcpOver = True
        self._clearDeadline()
        if not (self._tcpAtEnd and self._tcpShut):
            self.abort(ConnectionReset(f"the TCP connection broke: {reason.getErrorMessage()}"))
        self._checkEnded()

    # TCP to stream.

    def _startToStream(self) -> None:
        """Both sides are there, or not yet: let TCP's bytes flow."""
        if self._tcp is None or self._stream is None:
            return
        self._tcp.resumeProducing()
        if self._idle is not None:
            self._idleWatch = IdleWatch(self._clock, self._idle, lambda: sum(self.carried), self._isIdle)
        if self._streamShut:
            return
        self._stream.registerProducer(self._tcp, True)
        if self._early:
            early, self._early = self._early, []
            self._stream.writeSequence(early)
        if self._tcpAtEnd or self._discarding:
            self._endToStream()

    def _endToStream(self) -> None:
        """FIN on the stream, if it is there and hasn't got one."""
        if self._tcp is None or self._stream is None or self._streamShut:
            return
        self._streamShut = True
        self._stream.unregisterProducer()
        self._stream.loseWriteConnection()
        self.lingerIfDone()

    def streamStopped(self, errorCode: int) -> None:
        """
        The peer doesn't want TCP's bytes. Code 0 is the original's, which reads no more once its own TCP side has sent
        FIN: that is no abort, and what it still sends counts.
        """
        if errorCode:
            self.abort(StreamReset(errorCode))
        elif not self._streamShut:
            self._streamShut = self._discarding = True
            if self._tcp is not None and self._stream is not None:
                self._stream.unregisterProducer()
            self._readTcp()
            self.lingerIfDone()

    def _readTcp(self) -> None:
        if self._tcp is not None:
            self._tcp.resumeProducing()

    def startToTcp(self) -> None:
        """Let the stream's bytes flow to TCP, or wait for it."""
        self._receiver.flow(self._tcp)

    # Endings.

    def lingerIfDone(self) -> None:
        """Both directions of the stream have ended, or not yet: TCP's reader may not take forever for the rest."""
        if self._streamShut and self._receiver.atEnd and not self._tcpShut:
            stalled = ReaderStalled(f"the last bytes were not taken within {LINGER:.0f} s")
            self._setDeadline(LINGER, self.abort, stalled)

    def streamLost(self, reason: Failure) -> None:
        """The stream is over."""
        self._streamOver = True
        error = reason.value
        if not isinstance(error, ConnectionDone):
            self.abort(error if isinstance(error, SocketwarpError) else SessionLost(reason.getErrorMessage()))
        self._checkEnded()

    def _closeTcp(self) -> None:
        """It stays open until somebody closes it, even when it has ended both ways."""
        if self._tcpAtEnd and self._tcpShut and self._tcp is not None:
            self._tcp.loseConnection()

    def _checkEnded(self) -> None:
        tcpGone = self._tcpOver or (self._tcp is None and self._error is not None)
        streamGone = self._streamOver or (self._stream is None and self._error is not None)
        if tcpGone and streamGone and not self.isOver:
            self.isOver = True
            self._clearDeadline()
            if self._idleWatch is not None:
                self._idleWatch.stop()
            self._tcp = self._stream = None
            self._receiver.release()
            over, self._over = self._over, _nobody
            try:
                over(Totals(self._toStream, self._receiver.count, self._error))
            except Exception:
                _log.failure("what follows a connection's end failed")

    # Time.

    def _setDeadline(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        self._clearDeadline()
        self._deadline = self._clock.callLater(seconds, action, *arguments)

    def _clearDeadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _isIdle(self) -> None:
        self.abort(ConnectionIdle(f"no byte passed for {self._idle:g} s"))


@implementer(IStreamReceiver)
class _Receiver:
    """
    A bridge's face towards its stream: stream to TCP.

    :ivar count: bytes given to TCP.
    :ivar atEnd: the stream's FIN has come.
    """

    def __init__(self, bridge: Bridge) -> None:
        self.count = 0
        self.atEnd = False
        self._bridge: Bridge | None = bridge  # until it is over
        self._stream: IStream | None = None
        self._tcp: ITcp | None = None  # set once bytes may flow
        self._early: list[Piece] = []
        # Any: the parser's result only passes through here; begin() ties the types together.
        self._parser: Parser[Any] | None = None
        self._parsed: Callable[[Any], None] = _nobody
        self._paused = False  # by us, because TCP isn't there

    def begin(self, stream: IStream, parser: Parser[T], parsed: Callable[[T], None]) -> None:
        """Give `parser` the stream's first bytes; see `Bridge.join`."""
        self._stream, self._parser, self._parsed = stream, parser, parsed
        self._parse(parser, [])  # a parser of nothing has its result now
        stream.start(self)

    def flow(self, tcp: ITcp | None) -> None:
        """Let bytes flow to TCP if the parser is done. Until TCP is there the stream is paused."""
        if self._stream is None or self._parser is not None or self._tcp is not None:
            return
        if tcp is None:
            self._paused = True
            self._stream.pauseProducing()
            return
        self._tcp = tcp
        tcp.registerProducer(self._stream, True)
        early, self._early = self._early, []
        if early:
            self.piecesReceived(early)
        if self.atEnd:
            self._shut(tcp)
        elif self._paused:
            self._stream.resumeProducing()

    def stop(self) -> None:
        """The bridge has ended: forget what waits."""
        self._early.clear()
        self._stream = self._parser = None
        self._parsed = _nobody

    def release(self) -> None:
        """The bridge is over: hear nothing more, and leave no cycle for the collector, which is slower."""
        self._tcp = self._stream = self._bridge = None

    def piecesReceived(self, pieces: list[Piece]) -> None:
        """Bytes from the stream."""
        if self._tcp is not None:
            self.count += sum(map(len, pieces))
            self._tcp.writeSequence(pieces, self._stream is not None and self._stream.isEnding)
        elif self._parser is not None:
            self._parse(self._parser, pieces)
        else:
            self._early += pieces

    def _parse(self, parser: Parser[Any], pieces: list[Piece]) -> None:
        bridge = self._bridge
        assert bridge is not None  # else there is no parser any more
        try:
            taken = parser.feed(pieces)
        except SocketwarpError as error:
            bridge.abort(error)
            return
        if taken is not None:
            result, self._early = taken
            parsed, self._parser, self._parsed = self._parsed, None, _nobody
            try:
                parsed(result)  # which may bring the TCP side
            except Exception:
                _log.failure("what follows a preamble or an answer failed")
                bridge.abort(SocketwarpError("a fault of ours; the log says more"))
            bridge.startToTcp()

    def readConnectionLost(self) -> None:
        """The stream's FIN: TCP's, after all bytes."""
        self.atEnd = True
        if self._bridge is not None and self._parser is not None:
            self._bridge.abort(MalformedPreamble("the stream ended before its preamble or answer was complete"))
        elif self._tcp is not None:
            self._shut(self._tcp)

    def _shut(self, tcp: ITcp) -> None:
        tcp.unregisterProducer()
        tcp.loseWriteConnection()
        if self._bridge is not None:
            self._bridge.lingerIfDone()

    def writeConnectionLost(self, errorCode: int) -> None:
        """The peer reads no more."""
        if self._bridge is not None:
            self._bridge.streamStopped(errorCode)

    def connectionLost(self, reason: Failure) -> None:
        """The stream is over."""
        if self._bridge is not None:
            self._bridge.streamLost(reason)


def _nobody(result: object) -> None:
    """Whom a bridge tells that is over, or whose parser is."""
