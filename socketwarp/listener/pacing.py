"""
So many bytes a second for all visitors of a port together, whichever way they go.

Each direction of a visitor is a `Flow`. It takes what its source (the visitor's TCP connection, or the stream) has
read, and passes it on as fast as the port's `Pace` lets it; meanwhile the source isn't read, and who sends feels it by
TCP's and the stream's own flow control. What a flow holds is less than a turn and what one read has brought, no more.
Flows that hold something have their turns one after the other, a quantum each, so that a keystroke waits for a quantum
of each of the others and not for their files. An end (FIN) comes behind the bytes before it; a reset overtakes them.
"""

from collections import deque
from collections.abc import Callable

import attrs
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IStream, IStreamReceiver, ITcp, ITcpProtocol, Piece
from ..rules.policy import RateRule
from ..throttle import Bucket

#: Bytes of a flow's turn; less where the rate is so low that it would take longer than `TURN_SECONDS`, more where it
#: is so high that it would be over sooner than `SHORT_TURN_SECONDS`: at 1 GB/s pieces of 16 KiB cost 0.13 s for each
#: GB, and whole reads 0.01 s.
QUANTUM = 16 * 1024
TURN_SECONDS = 0.1
SHORT_TURN_SECONDS = 0.001
#: Seconds between two looks whether there is room again, at least: at high rates, several turns are had at a time.
TICK_SECONDS = 0.01


class Pace:
    """
    Who may pass bytes on, and when.

    :ivar quantum: bytes of a flow's turn, at the most.
    """

    def __init__(self, clock: IReactorTime, rate: float) -> None:
        """
        :param rate: bytes a second; a second's worth may pass at once after a pause.
        """
        self._clock = clock
        self._bucket = Bucket(rate, max(1.0, rate))
        self.quantum = max(1, min(max(QUANTUM, int(rate * SHORT_TURN_SECONDS)), int(rate * TURN_SECONDS)))
        self._waiting: dict[Flow, None] = {}  # a set that remembers the order
        self._later: IDelayedCall | None = None
        self._isRunning = False

    def want(self, flow: "Flow") -> None:
        """The flow holds something that can be passed on; perhaps it is, before this returns."""
        self._waiting[flow] = None
        if self._later is None:
            self._run()

    def forget(self, flow: "Flow") -> None:
        """It doesn't any more."""
        self._waiting.pop(flow, None)
        if not self._waiting and self._later is not None:
            self._later.cancel()
            self._later = None

    def _again(self) -> None:
        self._later = None
        self._run()

    def _run(self) -> None:
        if self._isRunning:  # who gets bytes may want to pass on others; its turn comes
            return
        self._isRunning = True
        try:
            while self._waiting:
                flow = next(iter(self._waiting))
                size, now = min(self.quantum, flow.size), self._clock.seconds()
                if not self._bucket.take(now, size):
                    wait = max(TICK_SECONDS, self._bucket.wait(now, size))
                    self._later = self._clock.callLater(wait, self._again)
                    return
                del self._waiting[flow]
                flow.passOn(size)
        finally:
            self._isRunning = False


@implementer(IPushProducer)
class Flow:
    """
    Bytes in one direction, from a source that is paused while as many are held as a turn passes on.

    :ivar size: bytes held.
    """

    def __init__(self, pace: Pace, source: IPushProducer, deliver: Callable[[list[Piece]], None]) -> None:
        """
        :param deliver: takes the bytes; who can't take more calls `pauseProducing`.
        """
        self.size = 0
        self._pace = pace
        self._source = source
        self._deliver = deliver
        self._held: deque[Piece] = deque()
        self._next: list[Callable[[], None]] = []
        self._isPaused = False  # by who takes the bytes
        self._isSourcePaused = False
        self._isSourceOver = False
        self._isOver = False

    def take(self, pieces: list[Piece]) -> None:
        """Bytes from the source."""
        if self._isOver:
            return
        self._held.extend(pieces)
        self.size += sum(map(len, pieces))
        self._go()

    def whenPassed(self, action: Callable[[], None]) -> None:
        """Call `action` behind all bytes that are held; at once when none are."""
        if self._isOver:
            return
        if self.size:
            self._next.append(action)
        else:
            action()

    def sourceEnded(self) -> None:
        """There is no source any more to be paused or resumed; what is held is passed on."""
        self._isSourceOver = True

    def passOn(self, size: int) -> None:
        """Some of the bytes, which there are."""
        self.size -= size
        pieces: list[Piece] = []
        while size:
            piece = self._held.popleft()
            if len(piece) > size:
                self._held.appendleft(memoryview(piece)[size:])
                piece = memoryview(piece)[:size]
            pieces.append(piece)
            size -= len(piece)
        self._deliver(pieces)
        if not self.size:
            following, self._next = self._next, []
            for action in following:
                action()
        self._go()

    def drop(self) -> None:
        """Nobody wants the bytes any more, nor what would have followed them."""
        self._isOver = True
        self._held.clear()
        self._next.clear()
        self.size = 0
        self._pace.forget(self)

    def _go(self) -> None:
        """Whatever has changed: wait for a turn, or don't, and let the source be read, or don't."""
        if self._isOver:
            return
        if self.size and not self._isPaused:
            self._pace.want(self)
        else:
            self._pace.forget(self)
        # With less than a turn's bytes the source is read again, or the next turn would be a small one.
        shallPause = self._isPaused or self.size >= self._pace.quantum
        if shallPause != self._isSourcePaused and not (self._isOver or self._isSourceOver):
            self._isSourcePaused = shallPause
            (self._source.pauseProducing if shallPause else self._source.resumeProducing)()

    # IPushProducer, for who takes the bytes.

    def pauseProducing(self) -> None:
        """No more for now."""
        self._isPaused = True
        self._go()

    def resumeProducing(self) -> None:
        """More."""
        self._isPaused = False
        self._go()

    def stopProducing(self) -> None:
        """Who took the bytes is gone."""
        self.drop()


@implementer(ITcpProtocol)
class PacedTcp(proxyForInterface(ITcp, "_tcp")):  # type: ignore[misc]  # a class that is made as it runs
    """Between a TCP connection and its protocol, each of which takes it for the other: what comes from TCP is paced."""

    _tcp: ITcp
    _flow: Flow

    def __init__(self, protocol: ITcpProtocol, pace: Pace) -> None:
        self._protocol = protocol
        self._pace = pace

    # To the connection, a protocol.

    def makeConnection(self, transport: ITransport) -> None:
        """It is there."""
        self._tcp = ITcp(transport)
        self._flow = Flow(self._pace, self._tcp, self._received)
        self._protocol.makeConnection(self)

    def connectionMade(self) -> None:
        """Nothing: see `makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes from TCP."""
        self._flow.take([data])

    def _received(self, pieces: list[Piece]) -> None:
        self._protocol.dataReceived(b"".join(pieces))

    def readConnectionLost(self) -> None:
        """FIN from TCP."""
        self._flow.whenPassed(self._protocol.readConnectionLost)

    def writeConnectionLost(self) -> None:
        """Our FIN has gone out."""
        self._protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._flow.drop()
        self._protocol.connectionLost(reason)

    # To the protocol, a connection.

    def pauseProducing(self) -> None:
        """See `ITcp`."""
        self._flow.pauseProducing()

    def resumeProducing(self) -> None:
        """See `ITcp`."""
        self._flow.resumeProducing()


@implementer(IStreamReceiver)
class PacedStream(proxyForInterface(IStream, "_stream")):  # type: ignore[misc]  # a class that is made as it runs
    """Between a stream and its receiver, each of which takes it for the other: what comes from the stream is paced."""

    isEnding = False  # what is paced isn't held back for FIN besides
    _receiver: IStreamReceiver

    def __init__(self, stream: IStream, pace: Pace) -> None:
        self._stream = stream
        self._flow = Flow(pace, stream, self._received)

    # To the receiver, a stream.

    def start(self, receiver: IStreamReceiver) -> None:
        """See `IStream`."""
        self._receiver = receiver
        self._stream.start(self)

    def pauseProducing(self) -> None:
        """See `IStream`."""
        self._flow.pauseProducing()

    def resumeProducing(self) -> None:
        """See `IStream`."""
        self._flow.resumeProducing()

    def abort(self, errorCode: int) -> None:
        """See `IStream`."""
        self._flow.drop()
        self._stream.abort(errorCode)

    # To the stream, a receiver.

    def piecesReceived(self, pieces: list[Piece]) -> None:
        """Bytes from the stream."""
        self._flow.take(pieces)

    def _received(self, pieces: list[Piece]) -> None:
        self._receiver.piecesReceived(pieces)

    def readConnectionLost(self) -> None:
        """The stream's FIN."""
        self._flow.whenPassed(self._receiver.readConnectionLost)

    def writeConnectionLost(self, errorCode: int) -> None:
        """The peer reads no more."""
        self._receiver.writeConnectionLost(errorCode)

    def connectionLost(self, reason: Failure) -> None:
        """The stream is over: in order, behind its bytes, or not."""
        if reason.check(ConnectionDone):
            self._flow.sourceEnded()
            self._flow.whenPassed(lambda: self._receiver.connectionLost(reason))
        else:
            self._flow.drop()
            self._receiver.connectionLost(reason)


@attrs.define(eq=False)
class PortRate:
    """
    A ``[[rate]]`` rule at work on one port.

    :ivar rule: which.
    :ivar pace: of its visitors' bytes; `None`: as many as they like.
    """

    rule: RateRule
    _clock: IReactorTime
    _connections: Bucket | None = attrs.field(init=False)
    pace: Pace | None = attrs.field(init=False)

    @_connections.default
    def _makeConnections(self) -> Bucket | None:
        rate = self.rule.connections_per_second
        return None if rate is None else Bucket(rate, self.rule.atOnce)

    @pace.default
    def _makePace(self) -> Pace | None:
        rate = self.rule.bytes_per_second
        return None if rate is None else Pace(self._clock, rate)

    def letIn(self) -> bool:
        """Count a visitor; whether it may come in."""
        return self._connections is None or self._connections.take(self._clock.seconds())
