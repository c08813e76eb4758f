"""
In-memory sessions and streams that behave as `socketwarp.interfaces` says, for tests of what stands on them.

Nothing arrives while it is being sent: each action asks the clock for a turn (``callLater(0, …)``), and the turn
carries what there is, as far as windows allow. `settle` gives a `Clock` turns until all is quiet; a real reactor needs
no help.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IProducer, IPushProducer, IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.errors import Code, LimitReached, SessionLost, StreamReset
from socketwarp.interfaces import Address, ISession, IStream, IStreamReceiver, Piece, SessionStatistics

#: Bytes that may wait undelivered at the receiving end of a stream.
WINDOW = 1 << 20
#: Bytes buffered at the sending end above which the producer is paused, and those at which it goes on.
HIGH_WATER = 256 << 10
LOW_WATER = 64 << 10
#: Streams that may wait for the peer's limit to rise.
WAITING_LIMIT = 1000


def settle(clock: Clock) -> None:
    """Run what is due now, and what becomes due by that, without time passing."""
    while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
        clock.advance(0)


@cache
def leafCertificate(commonName: str = "uid-1") -> x509.Certificate:
    """A self-signed certificate; one for each name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, commonName)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return (
        builder.not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )


class _Flow:
    """One direction of a stream: the sender's buffer, the receiver's window, and what is said about its end."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.buffered: deque[Piece] = deque()
        self.bufferedSize = 0
        self.waiting: list[Piece] = []
        self.waitingSize = 0
        self.finQueued = False
        self.finArrived = False
        self.finDelivered = False
        self.resetCode: int | None = None
        self.stopCode: int | None = None
        self.closed = False  # nothing more is sent: stopped or reset

    def carry(self) -> None:
        """Move what the window allows from the sender to the receiver."""
        while self.buffered and self.waitingSize < self.window:
            piece = self.buffered.popleft()
            room = self.window - self.waitingSize
            if len(piece) > room:
                self.buffered.appendleft(memoryview(piece)[room:])
                piece = memoryview(piece)[:room]
            self.waiting.append(piece)
            self.waitingSize += len(piece)
            self.bufferedSize -= len(piece)
        if self.finQueued and not self.buffered and not self.closed:
            self.finArrived = True

    def drop(self) -> None:
        """Forget everything that has not been delivered; send no more."""
        self.closed = True
        self.buffered.clear()
        self.waiting.clear()
        self.bufferedSize = self.waitingSize = 0


@implementer(IStream)
class FakeStream:
    """
    One end of a stream.

    :ivar other: the other end.
    :ivar receiver: what `start` was given.
    :ivar abortCode: what `abort` was called with; `None` before.
    :ivar over: whether the receiver gets no more calls.
    :ivar resetFirst: which of an abort's two frames the peer hears of first.
    :ivar finWhilePaused: whether FIN is told while the receiver has paused us, if no bytes wait before it.
    """

    other: "FakeStream"

    def __init__(self, session: "FakeSession", streamId: int, outgoing: _Flow, incoming: _Flow) -> None:
        self.streamId = streamId
        self.session = session
        self.receiver: IStreamReceiver | None = None
        self.abortCode: int | None = None
        self.over = False
        self.resetFirst = False
        self.finWhilePaused = True
        self.paused = False
        self.producer: IProducer | None = None
        self._producerPaused = False
        self._out = outgoing
        self._in = incoming
        self._stopTold = False
        self._ended: Exception | None = None  # not by us

    # IStream and IPushProducer

    @property
    def isEnding(self) -> bool:
        return self._in.finArrived and not self._in.waiting

    def start(self, receiver: IStreamReceiver) -> None:
        assert self.receiver is None, "started twice"
        self.receiver = receiver
        if self._ended is not None:
            self.session.soon(receiver.connectionLost, Failure(self._ended))
        self.session.turn()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.session.turn()

    def stopProducing(self) -> None:
        """What consumes our bytes is gone."""
        self.abort(Code.ABORTED)

    def abort(self, errorCode: int) -> None:
        if self.over:
            return
        self.abortCode = errorCode
        self.over = True
        if not self._out.finArrived:
            self._out.drop()
            self._out.resetCode = errorCode
        if not self._in.finArrived:
            self._in.drop()
            self._in.stopCode = errorCode
        self._forget()

    # IConsumer and ITransport's ways of writing

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert streaming, "streams have push producers only"
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        if self.over:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self._producerPaused = False

    def write(self, data: Piece) -> None:
        self.writeSequence([data])

    def writeSequence(self, pieces: Sequence[Piece]) -> None:
        if self.over or self._out.closed or self._out.finQueued:
            return
        self._out.buffered.extend(piece for piece in pieces if piece)
        self._out.bufferedSize += sum(map(len, pieces))
        self._pressBack()
        self.session.turn()

    def loseWriteConnection(self) -> None:
        if not (self.over or self._out.closed):
            self._out.finQueued = True
            self.session.turn()

    # for tests

    @property
    def buffered(self) -> int:
        """Bytes that were written and are not at the other end."""
        return self._out.bufferedSize

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not delivered."""
        return self._in.waitingSize

    def stopReading(self, errorCode: int = 0) -> None:
        """Send STOP_SENDING alone, as the original does when its own side has ended."""
        if not self._in.finArrived:
            self._in.drop()
            self._in.stopCode = errorCode
            self.session.turn()

    def lose(self, reason: SessionLost) -> None:
        """The session is gone."""
        if not self.over:
            self._end(reason)

    def _pressBack(self) -> None:
        producer = self.producer
        if not IPushProducer.providedBy(producer):
            return
        if self._out.bufferedSize > HIGH_WATER and not self._producerPaused:
            self._producerPaused = True
            producer.pauseProducing()
        elif self._out.bufferedSize <= LOW_WATER and self._producerPaused:
            self._producerPaused = False
            producer.resumeProducing()

    def deliver(self) -> None:
        """What has arrived, as far as the receiver lets it."""
        self._out.carry()
        self._pressBack()
        self._in.carry()
        for told in (self._hearReset, self._hearStop) if self.other.resetFirst else (self._hearStop, self._hearReset):
            told()
        self._hearBytes()
        self._hearFin()
        self._out.carry()
        allHeard = self._in.finDelivered or self._in.stopCode is not None
        if not self.over and allHeard and (self._out.finArrived or self._out.closed):
            self._end(ConnectionDone())

    def _hearReset(self) -> None:
        if self.receiver is not None and not self.over and self._in.resetCode is not None:
            self._out.drop()
            self._end(StreamReset(self._in.resetCode))

    def _hearStop(self) -> None:
        if self.receiver is None or self.over or self._out.stopCode is None or self._stopTold:
            return
        self._stopTold = True
        self.receiver.writeConnectionLost(self._out.stopCode)

    def _hearBytes(self) -> None:
        if self.receiver is None or self.over or self.paused or not self._in.waiting:
            return
        pieces, self._in.waiting = self._in.waiting, []
        self.receiver.piecesReceived(pieces)
        self._in.waitingSize = sum(map(len, self._in.waiting))
        self.session.turn()

    def _hearFin(self) -> None:
        if self.receiver is None or self.over or self._in.waiting or (self.paused and not self.finWhilePaused):
            return
        if self._in.finArrived and not self._in.finDelivered:
            self._in.finDelivered = True
            self.receiver.readConnectionLost()
            self.session.turn()

    def _end(self, reason: Exception) -> None:
        self.over = True
        self._ended = reason
        self._forget()
        if self.receiver is not None:
            self.receiver.connectionLost(Failure(reason))

    def _forget(self) -> None:
        self.session.forget(self)
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()


@implementer(ISession)
class FakeSession:
    """
    One end of a session; `sessionPair` makes both.

    :ivar other: the other end.
    :ivar streams: those that are not over, by number.
    :ivar streamLimit: how many streams this end may open at a time; `grant` raises it.
    :ivar closedWith: code and reason given to `close`; `None` before.
    :ivar isSilent: as `ISession` says; ``buffered``: what `statistics` says.
    :ivar isMemoryShort: what `saveMemory` was told; ``admittedWith``: what `admitted` was.
    """

    other: "FakeSession"

    def __init__(self, clock: IReactorTime, sessionId: str, protocol: str, window: int) -> None:
        self.sessionId = sessionId
        self.carrier = "quic"
        self.protocol = protocol
        self.peerLeaf = leafCertificate()
        self.peerChain: Sequence[x509.Certificate] = [self.peerLeaf]
        self.peerAddress: Address = ("192.0.2.1", 40000)
        self.isOpen = True
        self.streams: dict[int, FakeStream] = {}
        self.streamLimit = 100
        self.closedWith: tuple[int, str] | None = None
        self.buffered = 0
        self.isSilent = False
        self.isMemoryShort = False
        self.ticket: str | None = None
        self.laneLimit: int | None = None
        self.admittedWith: list[tuple[str | None, int | None]] = []
        self._clock = clock
        self._window = window
        self._nextId = 0
        self._waiting: deque[Deferred[IStream]] = deque()
        self._handler: Callable[[IStream], None] | None = None
        self._unaccepted: list[FakeStream] = []
        self._turn: IDelayedCall | None = None
        self._lost: SessionLost | None = None
        self._closed: list[Deferred[SessionLost]] = []

    def openStream(self) -> Deferred[IStream]:
        if not self.isOpen:
            return fail(self._lost or SessionLost("the session is closing"))
        if len(self.streams) < self.streamLimit:
            return succeed(self._open())
        if len(self._waiting) >= WAITING_LIMIT:
            return fail(LimitReached("too many streams wait"))
        waiting: Deferred[IStream] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def acceptStreams(self, handler: Callable[[IStream], None]) -> None:
        self._handler = handler
        waiting, self._unaccepted = self._unaccepted, []
        for stream in waiting:
            handler(stream)

    def close(self, errorCode: int, reason: str) -> None:
        if not self.isOpen:
            return
        self.isOpen = False
        self.closedWith = (errorCode, reason)
        self._clock.callLater(0, self.lose, SessionLost(f"closed: {reason}", errorCode))
        self._clock.callLater(0, self.other.lose, SessionLost(f"the peer closed: {reason}", errorCode, fromPeer=True))

    def whenClosed(self) -> Deferred[SessionLost]:
        if self._lost is not None:
            return succeed(self._lost)
        closed: Deferred[SessionLost] = Deferred()
        self._closed.append(closed)
        return closed

    def admitted(self, ticket: str | None, laneLimit: int | None = None) -> None:
        self.admittedWith.append((ticket, laneLimit))

    def saveMemory(self, isShort: bool) -> None:
        self.isMemoryShort = isShort

    def statistics(self) -> SessionStatistics:
        return SessionStatistics(streams=len(self.streams), buffered=self.buffered)

    # for tests

    def grant(self, limit: int) -> None:
        """The peer allows so many streams at a time."""
        self.streamLimit = limit
        while self._waiting and len(self.streams) < self.streamLimit:
            self._waiting.popleft().callback(self._open())

    def lose(self, reason: SessionLost) -> None:
        """This end finds that the session is gone; the other end isn't told."""
        if self._lost is not None:
            return
        self.isOpen = False
        self._lost = reason
        for stream in list(self.streams.values()):
            stream.lose(reason)
        for waiting in list(self._waiting):
            waiting.errback(reason)
        self._waiting.clear()
        closed, self._closed = self._closed, []
        for told in closed:
            told.callback(reason)

    def forget(self, stream: FakeStream) -> None:
        """A stream is over; another may take its place."""
        self.streams.pop(stream.streamId, None)
        self.turn()
        if self.isOpen:
            self.grant(self.streamLimit)

    def soon(self, action: Callable[..., object], *arguments: object) -> None:
        """Do it at the clock's next turn."""
        self._clock.callLater(0, action, *arguments)

    def turn(self) -> None:
        """Something is to be carried: at the clock's next turn."""
        if self._turn is None and self._lost is None:
            self._turn = self._clock.callLater(0, self._carry)

    def _carry(self) -> None:
        self._turn = None
        for end in (self, self.other):
            for stream in list(end.streams.values()):
                stream.deliver()

    def _open(self) -> FakeStream:
        number, self._nextId = self._nextId, self._nextId + 4
        there, here = _Flow(self._window), _Flow(self._window)
        ours, theirs = FakeStream(self, number, there, here), FakeStream(self.other, number, here, there)
        ours.other, theirs.other = theirs, ours
        self.streams[number] = ours
        self.other.arrive(theirs)
        return ours

    def arrive(self, stream: FakeStream) -> None:
        """The peer opened a stream."""
        self.streams[stream.streamId] = stream
        if self._handler is None:
            self._unaccepted.append(stream)
        else:
            self._clock.callLater(0, self._handler, stream)


def sessionPair(clock: IReactorTime, protocol: str = "hq-29", window: int = WINDOW) -> tuple[FakeSession, FakeSession]:
    """The two ends of a session, the listener's (server) first. Their stream numbers are odd and even as in QUIC."""
    listener, connector = (
        FakeSession(clock, "session-1", protocol, window),
        FakeSession(clock, "session-1", protocol, window),
    )
    listener.other, connector.other = connector, listener
    listener._nextId = 1
    return listener, connector


def streamPair(clock: IReactorTime, window: int = WINDOW) -> tuple[FakeStream, FakeStream]:
    """The two ends of a stream, the listener's first; neither is started."""
    listener, connector = sessionPair(clock, window=window)
    return listener._open(), connector._unaccepted.pop()
