"""The listener's end of a session: which lane carries the next visitor, and which ones are no longer needed."""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from os import urandom

from cryptography import x509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..errors import LimitReached, SessionLost
from ..interfaces import ISession, IStream
from .frames import TICKET_SIZE, FrameParser, Kind
from .lane import Lane
from .session import CONTROL_STREAM, Session, TlsSettings
from .transport import TlsTransport

#: Callers of `openStream` that may wait for a lane.
MAX_WAITING = 1000
#: Free lanes that are kept however long nobody needs them, and one more for so many that are in use: twice as many as a
#: connector keeps ready by itself, so that what is closed here isn't made anew there.
KEPT_LANES, LANES_PER_KEPT = 16, 4
#: Streams are numbered from 1 to this, and anew.
STREAM_NUMBERS = 2**32 - 1
#: Seconds for which any other free lane is kept.
KEEP_SECONDS = 60.0


def digestOf(ticket: bytes) -> bytes:
    """What a ticket is looked up by, so that the time a look-up takes says nothing about it."""
    return sha256(ticket).digest()


@implementer(ISession)
class ServingSession(Session):
    """
    See `ISession`. Streams take the lane that became free last, so that those which aren't needed stay so.

    :ivar secret: what proves that a lane belongs to this session, besides the same certificate.
    """

    isCaller = False

    def __init__(
        self,
        transport: TlsTransport,
        parser: FrameParser,
        chain: Sequence[x509.Certificate],
        clock: IReactorTime,
        settings: TlsSettings,
        onEnded: Callable[["ServingSession"], None],
    ) -> None:
        """
        :param onEnded: called when the session takes no more lanes.
        """
        super().__init__(transport, parser, chain, clock, settings)
        self.secret = urandom(TICKET_SIZE)
        self._onEnded = onEnded
        self._free: list[Lane] = []
        self._waiting: deque[Deferred[IStream]] = deque()
        self._streams = self._attached = 0
        self.accept(self.control.begin(CONTROL_STREAM))

    @property
    def ticket(self) -> str | None:
        """See `ISession`."""
        return self.secret.hex()

    @property
    def laneLimit(self) -> int | None:
        """See `ISession`."""
        return self.settings.streamLimit

    @property
    def waiting(self) -> int:
        """Callers of `openStream` who wait for a lane."""
        return len(self._waiting)

    def admitted(self, ticket: str | None, laneLimit: int | None = None) -> None:
        """See `ISession`: connectors hear that."""

    def openStream(self) -> "Deferred[IStream]":
        """See `ISession`: at once when a lane is free."""
        if self._error is not None:
            return fail(self._error)
        if self._free:
            return succeed(self._open(self._free.pop()))
        if len(self._waiting) >= MAX_WAITING:
            return fail(LimitReached(f"{MAX_WAITING} visitors wait for the connector's next connection already"))
        waiting: Deferred[IStream] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self.tell(Kind.WANT, self._attached + len(self._waiting))
        return waiting

    def _open(self, lane: Lane) -> IStream:
        self._streams = self._streams % STREAM_NUMBERS + 1
        return lane.open(self._streams)

    # Lanes

    def attach(self, lane: Lane) -> bool:
        """Take another lane; false when its number is taken, or there are as many as there may be."""
        if lane.number in self.lanes or not lane.number or len(self.lanes) >= self.settings.streamLimit:
            return False
        self.lanes[lane.number] = lane
        self._attached += 1
        self.laneFreed(lane)
        return True

    def laneFreed(self, lane: Lane) -> None:
        """See `Lanes`."""
        if not self.isOpen or not lane.number:
            if self.isOpen:
                self.broken("the control stream has ended")
            return
        if self._waiting:
            self._waiting.popleft().callback(self._open(lane))
        else:
            self._free.append(lane)

    def laneMissed(self, lane: Lane, reason: str) -> None:
        """See `Session`."""
        if lane in self._free:
            self._free.remove(lane)

    def laneRefused(self, lane: Lane, reason: str) -> None:
        """See `Session`: the connector makes another when it can."""

    def ticked(self, now: float) -> None:
        """Close free lanes that nobody has needed for long: the first in the list are the longest free."""
        kept = KEPT_LANES + (len(self.lanes) - len(self._free)) // LANES_PER_KEPT
        surplus = self._free[: max(0, len(self._free) - kept)]
        for lane in surplus:
            if now - lane.freedAt < KEEP_SECONDS:
                break
            self._free.remove(lane)
            del self.lanes[lane.number]
            lane.transport.abort()

    def ended(self, error: SessionLost) -> None:
        """See `Session`."""
        self._onEnded(self)
        self._free.clear()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(error)
