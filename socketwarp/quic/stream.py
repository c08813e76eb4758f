"""One QUIC stream as a Twisted transport: consumer, push producer, half-close, abort (`IStream`)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..consumer import Consumer
from ..errors import Code, SessionLost, StreamReset
from ..interfaces import IStream, IStreamReceiver, Piece
from .streams import Streams, StreamState

#: Bytes waiting to be sent for the first time at which the producer is paused, and those at which it is resumed. What
#: is in flight doesn't count: the peer's window and the congestion window bound it. 256 KiB is four flights of 64
#: KiB.
HIGH_WATERMARK = 256 * 1024
LOW_WATERMARK = 128 * 1024
#: Bytes delivered at a time: a reader that is paused by the first of them has no more, however much waits for it. What
#: it has counts as consumed, so the peer sends as much again, and the memory of its queue is nobody's (`memory`).
DELIVERY = 1 << 20


class Turns(Protocol):
    """What a stream needs of its session."""

    streams: Streams

    def schedule(self) -> None:
        """Have what is due sent at the end of this reactor turn."""

    def later(self, call: Callable[[Failure], None], reason: Failure) -> None:
        """Call in the next reactor turn."""


@implementer(IStream)
class Stream(Consumer):
    """See `IStream`. Made by a `session.Session`, which calls `update` and `sessionLost`."""

    def __init__(self, session: Turns, state: StreamState) -> None:
        super().__init__()
        self.streamId = state.streamId
        self._session = session
        self._state = state
        self._receiver: IStreamReceiver | None = None
        self._lost: Failure | None = None
        self._isPaused = False
        self._isReadEnded = False
        self._isWriteStopped = False
        state.owner = self

    # IConsumer, and what a transport has besides

    def writeSequence(self, pieces: Sequence[Piece]) -> None:
        """See `IStream`."""
        if self._isOver:
            return
        sending = self._state.sending
        for piece in pieces:
            sending.write(piece)
        self._queue()
        high = 1 if self._session.streams.isMemoryShort else HIGH_WATERMARK
        if sending.unsentBytes >= high:
            self._pauseProducer()

    def loseWriteConnection(self) -> None:
        """See `IStream`."""
        if not self._isOver:
            self._state.sending.finish()
            self._queue()

    def abort(self, errorCode: int) -> None:
        """See `IStream`."""
        if self._isOver:
            return
        streams = self._session.streams
        streams.reset(self._state, errorCode)
        streams.stop(self._state, errorCode)
        self._end()
        self._session.schedule()

    def _queue(self) -> None:
        self._session.streams.queue(self._state)
        self._session.schedule()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Deliver nothing; the peer may send until its window is full."""
        self._isPaused = True
        if not self._isOver:
            self._session.streams.pause(self._state, True)

    def resumeProducing(self) -> None:
        """Go on."""
        if self._isPaused and not self._isOver:
            self._isPaused = False
            self._session.streams.pause(self._state, False)
            self._session.streams.touched[self._state] = None
            self._session.schedule()

    def stopProducing(self) -> None:
        """Want no more bytes (STOP_SENDING); the other direction goes on."""
        if not self._isOver and not self._isReadEnded:
            self._isReadEnded = True
            self._session.streams.stop(self._state, Code.ABORTED)
            self._session.streams.touched[self._state] = None  # it may be over by that
            self._session.schedule()

    # From the session

    @property
    def isEnding(self) -> bool:
        """See `IStream`."""
        if self._isOver:
            return False
        receiving = self._state.receiving
        return receiving.isFinished and not receiving.pieces

    def start(self, receiver: IStreamReceiver) -> None:
        """See `IStream`."""
        if self._lost is not None:
            self._session.later(receiver.connectionLost, self._lost)
            return
        if self._isOver:
            return
        self._receiver = receiver
        state = self._state
        self._session.streams.pause(state, self._isPaused)
        if state.receiving.highest or state.receiving.finalSize is not None or state.stopCode is not None:
            self._session.streams.touched[state] = None  # something has come already
            self._session.schedule()

    def update(self) -> None:
        """Something has come in: deliver it."""
        if self._isOver:
            return
        receiver, state = self._receiver, self._state
        receiving = state.receiving
        if receiver is None:
            if receiving.resetCode is not None:  # it may be forgotten before anybody starts it
                self._endByReset(receiving.resetCode)
            return
        if receiving.pieces and not self._isPaused and not self._isReadEnded:
            size = sum([len(piece) for piece in receiving.pieces])
            pieces = receiving.take()
            if size > DELIVERY:
                pieces, size = self._cut(pieces)
            receiver.piecesReceived(pieces)
            self._session.streams.onConsumed(state, size)
        if self._isOver:
            return  # by what the receiver did
        if state.stopCode is not None and not self._isWriteStopped:
            self._isWriteStopped = True
            self._dropProducer()
            receiver.writeConnectionLost(state.stopCode)
        if receiving.resetCode is not None and not self._isReadEnded and not self._isOver:
            self._endByReset(receiving.resetCode)
        elif receiving.isFinished and not receiving.pieces and not self._isReadEnded and not self._isOver:
            self._isReadEnded = True
            receiver.readConnectionLost()
        if self._isReadEnded and not self._isOver and state.sending.isFinished:
            self._fail(connectionDone)

    def _cut(self, pieces: list[Piece]) -> tuple[list[Piece], int]:
        """Those that are delivered at once, and their bytes; the rest waits for its turn, which may be the next one."""
        size = count = 0
        while size < DELIVERY:
            size += len(pieces[count])
            count += 1
        self._state.receiving.pieces = pieces[count:]
        self._session.streams.touched[self._state] = None
        return pieces[:count], size

    @property
    def _lowWatermark(self) -> int:
        return 0 if self._session.streams.isMemoryShort else LOW_WATERMARK

    def drained(self) -> None:
        """Bytes were sent: resume the producer when few are left."""
        if self._isOver:
            return  # since it had its turn
        if self._isProducerPaused and self._state.sending.unsentBytes <= self._lowWatermark:
            self._resumeProducer()

    def sessionLost(self, error: SessionLost) -> None:
        """The session has ended."""
        if not self._isOver:
            self._fail(Failure(error))

    def _endByReset(self, errorCode: int) -> None:
        """The peer has given its part up; so do we."""
        self._session.streams.reset(self._state, Code.ABORTED)
        self._fail(Failure(StreamReset(errorCode)))

    def _fail(self, reason: Failure) -> None:
        self._lost = reason
        receiver = self._receiver
        self._end()
        if receiver is not None:
            receiver.connectionLost(reason)

    def _end(self) -> None:
        self._isOver = True
        self._producer = self._receiver = None
        del self._state  # which has this stream as its owner: no cycle is left for the collector
