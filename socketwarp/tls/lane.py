"""One lane: a TLS connection of a session, the frames on it, and the stream that it carries at the moment."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import SessionLost
from ..interfaces import Piece
from .frames import DATA_LIMIT, Event, Frame, FrameParser, Kind, MalformedFrame, dataHeader, formatFrame
from .stream import Stream
from .transport import RECORD_SIZE, TlsTransport

#: Seconds that the peer may take to end its direction of a stream, once asked to, and to read the end of ours; then the
#: lane is given up.
DRAIN_SECONDS = 30.0
#: Bytes of the control stream that may wait for its receiver before the control lane isn't read any more.
HELD_LIMIT = 2**17


class Lanes(Protocol):
    """What a lane needs of its session."""

    clock: IReactorTime
    isCaller: bool
    isMemoryShort: bool

    def heard(self, size: int) -> None:
        """Bytes have come."""

    def delivered(self, size: int) -> None:
        """Bytes of a stream have been given to its receiver."""

    def sent(self, size: int) -> None:
        """Bytes of a stream were handed over for sending."""

    def streamOpened(self, lane: "Lane", streamId: int) -> None:
        """OPEN."""

    def frameReceived(self, lane: "Lane", frame: Frame) -> None:
        """A frame that isn't about the lane's stream."""

    def tell(self, kind: Kind, *numbers: int) -> None:
        """Send a frame on the control lane."""

    def laneFreed(self, lane: "Lane") -> None:
        """The lane's stream is over; it may carry another."""

    def laneLost(self, lane: "Lane", reason: str) -> None:
        """The lane is gone."""

    def broken(self, reason: str) -> None:
        """The peer has violated the protocol."""


class Lane:
    """
    A lane.

    :ivar number: unique in its session; 0 is the control lane.
    :ivar stream: what it carries; `None` when it is free.
    :ivar freedAt: since when, seconds of the session's clock.
    """

    __slots__ = ("_drainCall", "_events", "_isAwaited", "_isFlushDue", "_isFree", "_isOpening", "_isProceeding",
                 "_notices", "_parser", "_session", "freedAt", "number", "stream", "transport")  # fmt: skip

    def __init__(self, session: Lanes, number: int, transport: TlsTransport, parser: FrameParser) -> None:
        """
        :param transport: secured; the lane is its owner from now on.
        :param parser: has parsed what came before.
        """
        self.number = number
        self.stream: Stream | None = None
        self.freedAt = session.clock.seconds()
        self.transport = transport
        self._session = session
        self._parser = parser
        self._events: deque[Event] = deque()
        self._isProceeding = False
        self._isFlushDue = False
        self._isOpening = False  # the stream's OPEN is to be flushed
        self._isFree = True  # FREE has been said since the last OPEN
        self._isAwaited = False  # the other end must end its direction of the stream now
        self._notices: dict[Kind, tuple[int, int]] = {}  # of a stream that hasn't come yet: its number, the error code
        self._drainCall: IDelayedCall | None = None
        transport.owner = self

    # Streams

    def begin(self, streamId: int) -> Stream:
        """Carry a new stream."""
        self.stream = Stream(self, streamId)
        self._isFree = self._isAwaited = False
        return self.stream

    def open(self, streamId: int) -> Stream:
        """Open a stream to the peer."""
        stream = self.begin(streamId)
        self._isOpening = True
        self.send(Kind.OPEN, streamId)
        return stream

    def noticed(self, kind: Kind, streamId: int, errorCode: int) -> None:
        """STOP or ABORT has come for a stream that is here, was here, or is on its way."""
        stream = self.stream
        if stream is not None and stream.streamId == streamId:
            if kind is Kind.STOP:
                stream.stopped(errorCode)
            else:
                stream.aborted(errorCode)
                self._isAwaited = True
                self._drain()
                self.proceed()
            self.settle()
        else:
            self._notices[kind] = streamId, errorCode

    # For the stream, see `stream.Carrier`

    @property
    def queued(self) -> int:
        """Bytes that wait for the kernel."""
        return self.transport.queued

    @property
    def isMemoryShort(self) -> bool:
        """See `ISession.saveMemory`."""
        return self._session.isMemoryShort

    @property
    def isEnding(self) -> bool:
        """Whether FIN is what comes next."""
        following = self._events[0] if self._events else None
        return isinstance(following, Frame) and following.kind is Kind.FIN

    def send(self, kind: Kind, *numbers: int) -> None:
        """Send a frame; with the last one of a stream, FREE."""
        frame = formatFrame(kind, *numbers)
        if self._owesFree and kind is not Kind.OPEN:
            self._isFree = True
            frame += formatFrame(Kind.FREE)
        self.transport.write(frame)
        if kind is Kind.RESET:
            self._drain()
        self._push()

    @property
    def _owesFree(self) -> bool:
        """Whether we are to say FREE once our own direction has ended."""
        stream = self.stream
        return bool(
            self._session.isCaller and self.number and not self._isFree and stream is not None and stream.isRead
        )

    def sendData(self, pieces: Sequence[Piece]) -> None:
        """Send non-empty pieces as DATA."""
        size = sum(map(len, pieces))
        self._session.sent(size)
        if size <= DATA_LIMIT:
            self.transport.write(dataHeader(size), pieces)
        else:
            for piece in pieces:
                for at in range(0, len(piece), DATA_LIMIT):
                    part = memoryview(piece)[at : at + DATA_LIMIT]
                    self.transport.write(dataHeader(len(part)), [part])
        self._push()

    def _push(self) -> None:
        """
        Send what waits: at once if it is a record, else when all sockets have been told what has happened. A stream's
        beginning is several writes (OPEN, the preamble, the first bytes), and so is its end.
        """
        if self.transport.queued >= RECORD_SIZE:
            self.transport.flush()
        elif not self._isFlushDue:
            self._isFlushDue = True
            self.later(self._flush)

    def _flush(self) -> None:
        self._isFlushDue = self._isOpening = False
        self.transport.flush()
        if not self.transport.queued:
            self.drained()

    def takeBack(self) -> None:
        """Forget the frames that wait and haven't begun to be sent, but for the one that opens the stream."""
        if not self._isOpening:
            self.transport.takeBack()

    def tell(self, kind: Kind, errorCode: int) -> None:
        """Say STOP or ABORT of the stream on the control lane."""
        if self.stream is not None:
            self._session.tell(kind, self.number, self.stream.streamId, errorCode)
            self._isAwaited = True
            self._drain()

    def later(self, call: Callable[[], None]) -> None:
        """Call when all that has happened to sockets by now has been told."""
        self.transport.soon(call)

    def started(self) -> None:
        """Somebody takes what comes now."""
        if not self._isProceeding:
            self.later(self.proceed)

    def _drain(self) -> None:
        if self._drainCall is None:
            self._drainCall = self._session.clock.callLater(DRAIN_SECONDS, self._drained)

    def _drained(self) -> None:
        """Has the other end done what it must, when its stream was given up?"""
        self._drainCall = None
        stream = self.stream
        if stream is not None and ((self._isAwaited and not stream.isRead) or (stream.isWritten and self.queued)):
            self.transport.abort()
            self.lost("the other end didn't finish a stream that was given up")

    # From the transport

    def secured(self) -> None:
        """See `transport.Owner`: it was before it became a lane."""

    def received(self, chunks: list[bytes]) -> None:
        """See `transport.Owner`. A data lane's CLOSE isn't the session's: perhaps the other end has lost that."""
        events = self._parse(chunks)
        last = events[-1] if events and self.number else None
        if not isinstance(last, Frame) or last.kind is not Kind.CLOSE:
            self._session.heard(sum(map(len, chunks)))
        self.take(events)

    def _parse(self, chunks: list[bytes]) -> list[Event]:
        try:
            return self._parser.feed(chunks)
        except MalformedFrame as error:
            self._session.broken(str(error))
            return []

    def take(self, events: list[Event]) -> None:
        """What has come. On the control lane, what is about the session doesn't wait for the stream's receiver."""
        if self.number:
            self._events += events
            self.proceed()
            return
        for event in events:
            if isinstance(event, Frame) and event.kind not in (Kind.FIN, Kind.RESET):
                self._guard(self._take, event)
            else:
                self._events.append(event)
                self.proceed()

    def _guard(self, action: Callable[[Event], None], event: Event) -> None:
        try:
            action(event)
        except MalformedFrame as error:
            self._events.clear()
            self._session.broken(str(error))

    @property
    def held(self) -> int:
        """Bytes that have come and wait for the stream's receiver."""
        return sum(len(piece) for event in self._events if isinstance(event, list) for piece in event)

    def proceed(self) -> None:
        """Give the stream what has come, as far as it takes it, and read on when nothing is left."""
        if self._isProceeding or not self.transport.isThere:
            return
        self._isProceeding = True
        try:
            while self._events and not self._isHolding:
                self._guard(self._take, self._events.popleft())
        finally:
            self._isProceeding = False
        if self._isHolding and (self.number or self.held > HELD_LIMIT):
            self.transport.pauseReading()
        else:
            self.transport.resumeReading()
        self.settle()

    @property
    def _isHolding(self) -> bool:
        return self.stream is not None and self.stream.isHolding

    def _take(self, event: Event) -> None:
        if isinstance(event, list):
            self._session.delivered(sum(map(len, event)))
            self._readable().piecesReceived(event)
        elif event.kind is Kind.FIN:
            self._readable().finReceived()
            self.settle()
        elif event.kind is Kind.RESET:
            self._readable().resetReceived(*event.numbers)
            self.settle()
        elif event.kind is Kind.OPEN:
            self._opened(*event.numbers)
        elif event.kind is Kind.FREE:
            self._freed()
        else:
            self._session.frameReceived(self, event)

    def _readable(self) -> Stream:
        if self.stream is None or self.stream.isRead:
            raise MalformedFrame("bytes, or the end, of a stream that isn't there")
        return self.stream

    def _opened(self, streamId: int) -> None:
        if self.stream is not None or not self.number:
            raise MalformedFrame("a stream is opened where there is one already")
        self._session.streamOpened(self, streamId)
        notices, self._notices = self._notices, {}
        for kind, (about, errorCode) in notices.items():
            if about == streamId:
                self.noticed(kind, about, errorCode)

    def _freed(self) -> None:
        """FREE: what was sent has been read, and not only by the kernel."""
        self.settle()
        if self._isFree or self.stream is not None:
            raise MalformedFrame("a lane is free that wasn't, or that can't be")
        self._isFree = True
        self.freedAt = self._session.clock.seconds()
        self._session.laneFreed(self)

    def drained(self) -> None:
        """See `transport.Owner`."""
        if self.stream is not None:
            self.stream.drained()
        self.settle()

    def settle(self) -> None:
        """Once both directions of the stream have ended, and all of ours has gone, the stream is over."""
        stream = self.stream
        if stream is None or not (stream.isWritten and stream.isRead):
            return
        if self._owesFree:
            self._isFree = True
            self.transport.write(formatFrame(Kind.FREE))
            self.transport.flush()
        if self.transport.queued:
            return
        self.stream = None
        self._stopDraining()
        stream.finished()
        if self._isFree or not self.number:
            self._session.laneFreed(self)

    def _stopDraining(self) -> None:
        if self._drainCall is not None:
            self._drainCall.cancel()
            self._drainCall = None

    def lost(self, reason: str) -> None:
        """See `transport.Owner`."""
        self._stopDraining()
        self._events.clear()
        if not self.number:
            self._session.laneLost(self, reason)  # which tells the stream, and says what is lost
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.laneLost(reason)
        if self.number:
            self._session.laneLost(self, reason)

    def end(self, error: SessionLost) -> None:
        """The session is over, and so is the lane."""
        self._stopDraining()
        self._events.clear()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.sessionLost(error)
        if self.number:
            self.transport.abort()
