"""One stream on its lane, as a Twisted transport: consumer, push producer, half-close, abort (`IStream`)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..consumer import Consumer
from ..errors import Code, SessionLost, StreamReset
from ..interfaces import IStream, IStreamReceiver, Piece
from .frames import Kind

#: Bytes waiting for the kernel at which the producer is paused: one read of a TCP side. It is resumed when none wait.
HIGH_WATERMARK = 256 * 1024


class Carrier(Protocol):
    """What a stream needs of its lane."""

    @property
    def queued(self) -> int:
        """Bytes that wait for the kernel."""

    @property
    def isMemoryShort(self) -> bool:
        """See `ISession.saveMemory`."""

    @property
    def isEnding(self) -> bool:
        """Whether FIN is what comes next."""

    def send(self, kind: Kind, *numbers: int) -> None:
        """Send a frame."""

    def sendData(self, pieces: Sequence[Piece]) -> None:
        """Send non-empty pieces as DATA."""

    def takeBack(self) -> None:
        """Forget the frames that wait and haven't begun to be sent."""

    def tell(self, kind: Kind, errorCode: int) -> None:
        """Say STOP or ABORT of the stream on the control lane, past all that waits on this one."""

    def proceed(self) -> None:
        """Give the stream what has come, and read on."""

    def started(self) -> None:
        """Somebody takes what comes now; what has come follows a little later."""

    def settle(self) -> None:
        """The stream has perhaps ended on this lane."""

    def later(self, call: Callable[[], None]) -> None:
        """Call when all that has happened to sockets by now has been told."""


@implementer(IStream)
class Stream(Consumer):
    """
    See `IStream`. Made by a `lane.Lane`, which calls what is under *From the lane*.

    :ivar isWritten: our end of it has been said: FIN or RESET. ``isRead``: the peer's has come. A lane is free again
        once both have, whatever the receiver knows by then.
    """

    __slots__ = ("_isPaused", "_isReadEnded", "_isWriteStopped", "_lane", "_lost", "_receiver", "isRead", "isWritten",
                 "streamId")  # fmt: skip

    def __init__(self, lane: Carrier, streamId: int) -> None:
        super().__init__()
        self.streamId = streamId
        self.isWritten = False
        self.isRead = False
        self._lane = lane
        self._receiver: IStreamReceiver | None = None
        self._lost: Failure | None = None
        self._isPaused = False
        self._isReadEnded = False  # the receiver has had FIN, or wants no more
        self._isWriteStopped = False

    # IConsumer, and what a transport has besides

    def writeSequence(self, pieces: Sequence[Piece]) -> None:
        """See `IStream`."""
        if self._isOver or self.isWritten:
            return
        present = [piece for piece in pieces if piece]
        if not present:
            return
        self._lane.sendData(present)
        high = 1 if self._lane.isMemoryShort else HIGH_WATERMARK
        if self._producer is not None and self._lane.queued >= high:
            self._pauseProducer()

    def loseWriteConnection(self) -> None:
        """See `IStream`."""
        if not self._isOver and not self.isWritten:
            self.isWritten = True
            self._lane.send(Kind.FIN)
            if self.isRead:
                self._lane.later(self._lane.settle)

    def abort(self, errorCode: int) -> None:
        """See `IStream`."""
        if self._isOver:
            return
        self._end()
        self._reset(errorCode)
        self._lane.tell(Kind.ABORT, errorCode)
        self._lane.later(self._lane.proceed)

    def _reset(self, errorCode: int) -> None:
        """End our direction on the lane, if that hasn't been said."""
        if not self.isWritten:
            self.isWritten = True
            self._lane.takeBack()
            self._lane.send(Kind.RESET, errorCode)

    # IPushProducer

    def pauseProducing(self) -> None:
        """Deliver nothing; what the peer sends waits in the kernel, and then with the peer."""
        self._isPaused = True

    def resumeProducing(self) -> None:
        """Go on."""
        if self._isPaused:
            self._isPaused = False
            self._lane.proceed()

    def stopProducing(self) -> None:
        """Want no more bytes; the other direction goes on."""
        if not self._isOver and not self._isReadEnded:
            self._isReadEnded = True
            self._lane.tell(Kind.STOP, Code.ABORTED)
            self._lane.later(self._lane.proceed)

    # From the lane

    @property
    def isEnding(self) -> bool:
        """See `IStream`."""
        return self._lane.isEnding

    @property
    def isHolding(self) -> bool:
        """Whether what comes must wait: nobody takes it yet, or for now."""
        return not self._isOver and not self._isReadEnded and (self._receiver is None or self._isPaused)

    def start(self, receiver: IStreamReceiver) -> None:
        """See `IStream`."""
        if self._lost is not None:
            lost = self._lost
            self._lane.later(lambda: receiver.connectionLost(lost))
            return
        self._receiver = receiver
        self._lane.started()

    def piecesReceived(self, pieces: list[Piece]) -> None:
        """DATA, while not `isHolding`."""
        if not self._isOver and not self._isReadEnded and self._receiver is not None:
            self._receiver.piecesReceived(pieces)

    def finReceived(self) -> None:
        """FIN."""
        self.isRead = True
        if not self._isOver and not self._isReadEnded and self._receiver is not None:
            self._isReadEnded = True
            self._receiver.readConnectionLost()

    def resetReceived(self, errorCode: int) -> None:
        """RESET: the peer's direction has ended on this lane; ours ends too, unless this answers our STOP."""
        self.isRead = True
        if not self._isReadEnded:
            self.aborted(errorCode)

    def aborted(self, errorCode: int) -> None:
        """ABORT: the peer has given the stream up; its RESET may still be on its way."""
        self._reset(Code.ABORTED)
        self._fail(Failure(StreamReset(errorCode)))

    def stopped(self, errorCode: int) -> None:
        """STOP."""
        self._reset(errorCode)
        if not self._isOver and not self._isWriteStopped and self._receiver is not None:
            self._isWriteStopped = True
            self._dropProducer()
            self._receiver.writeConnectionLost(errorCode)

    def drained(self) -> None:
        """Nothing waits for the kernel any more."""
        self._resumeProducer()

    def finished(self) -> None:
        """Both directions have ended on the lane, and all of ours has gone."""
        self._fail(connectionDone)

    def sessionLost(self, error: SessionLost) -> None:
        """The session has ended."""
        self._fail(Failure(error))

    def laneLost(self, reason: str) -> None:
        """The lane is gone, in the middle of the stream."""
        self._fail(Failure(StreamReset(Code.ABORTED, f"the stream's connection broke: {reason}")))

    def _fail(self, reason: Failure) -> None:
        if self._isOver:
            return
        self._lost = reason
        receiver = self._receiver
        self._end()
        if receiver is not None:
            receiver.connectionLost(reason)

    def _end(self) -> None:
        self._isOver = True
        self._producer = self._receiver = None
