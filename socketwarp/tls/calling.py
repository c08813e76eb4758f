"""The connector's end of a session: how many lanes are kept ready for visitors, and how they are made."""

from collections.abc import Callable, Sequence
from random import random

from cryptography import x509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LimitReached, SessionLost
from ..interfaces import ISession, IStream
from .arrival import Arrival
from .frames import TICKET_SIZE, Frame, FrameParser, Kind, MalformedFrame, formatAttach
from .lane import Lane
from .session import CONTROL_STREAM, Session, TlsSettings
from .transport import TlsTransport

#: Free lanes kept ready, so that a visitor needn't wait for a handshake; more while more are in use.
SPARE_LANES = 8
#: With so many lanes in use, one more is kept ready.
LANES_PER_SPARE = 8
#: The most that are kept ready.
MAX_SPARE = 64
#: Lanes that may be under way at a time.
MAX_CALLS = 32
#: Seconds after which a lane that couldn't be made is tried again, doubled with each failure up to the second number,
#: until a visitor has come; up to half of it is taken off by chance, so that not all connectors come at once.
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 30.0


#: Makes one more connection to the listener, secured, to the right one. Fails with `errors.SessionLost`, or as dialling
#: does; can be cancelled.
Call = Callable[[], "Deferred[Arrival]"]


@implementer(ISession)
class CallingSession(Session):
    """See `ISession`. Lanes are made once the listener has admitted us, and said the ticket."""

    isCaller = True

    _log = Logger()

    def __init__(
        self,
        transport: TlsTransport,
        parser: FrameParser,
        chain: Sequence[x509.Certificate],
        clock: IReactorTime,
        settings: TlsSettings,
        call: Call,
    ) -> None:
        super().__init__(transport, parser, chain, clock, settings)
        self._callListener = call
        self._secret: bytes | None = None
        self._limit = settings.streamLimit
        self._calls: set[Deferred[None]] = set()
        self._free: set[Lane] = set()
        self._number = 0  # lanes made so far
        self._wanted = 0  # lanes that the listener would have liked to be made so far
        self._isOpened = False
        self._delay = RETRY_SECONDS
        self._pause: IDelayedCall | None = None

    @property
    def ticket(self) -> str | None:
        """See `ISession`: listeners have one."""
        return None

    @property
    def laneLimit(self) -> int | None:
        """See `ISession`: listeners have one."""
        return None

    def admitted(self, ticket: str | None, laneLimit: int | None = None) -> None:
        """See `ISession`."""
        try:
            secret = bytes.fromhex(ticket or "")
        except ValueError:
            secret = b""
        if len(secret) != TICKET_SIZE:
            self.broken("the listener gave no ticket for further connections")
            return
        self._secret = secret
        self._limit = min(self._limit, laneLimit or self._limit)
        self._grow()

    def openStream(self) -> "Deferred[IStream]":
        """See `ISession`: a connector opens the control stream, and no other."""
        if self._error is not None:
            return fail(self._error)
        if self._isOpened:
            return fail(LimitReached("a connector opens one stream and no other"))
        self._isOpened = True
        return succeed(self.control.begin(CONTROL_STREAM))

    # Lanes

    def streamOpened(self, lane: Lane, streamId: int) -> None:
        """OPEN: a visitor."""
        self._free.discard(lane)
        self._delay = RETRY_SECONDS
        self.accept(lane.begin(streamId))
        self._grow()

    def laneFreed(self, lane: Lane) -> None:
        """See `Lanes`."""
        if lane.number:
            self._free.add(lane)
        elif self.isOpen:
            self.broken("the control stream has ended")

    def laneMissed(self, lane: Lane, reason: str) -> None:
        """See `Session`: the listener closes those that it needs no more."""
        self._free.discard(lane)
        self._grow()

    def controlReceived(self, frame: Frame) -> None:
        """WANT."""
        if frame.kind is not Kind.WANT:
            raise MalformedFrame(f"{frame.kind.name} from a listener")
        self._wanted = max(self._wanted, frame.numbers[0])
        self._grow()

    def _grow(self) -> None:
        """Make as many lanes as are needed, a few at a time."""
        if self._secret is None or not self.isOpen or self._pause is not None:
            return
        busy = len(self.lanes) - len(self._free)
        spare = min(MAX_SPARE, SPARE_LANES + busy // LANES_PER_SPARE)
        missing = max(spare - len(self._free), self._wanted - self._number) - len(self._calls)
        room = min(MAX_CALLS, self._limit - len(self.lanes)) - len(self._calls)
        for _ in range(min(missing, room)):
            self._callOne()

    def _callOne(self) -> None:
        calling = self._callListener().addCallbacks(self._succeeded, self._failed)
        if not calling.called:
            self._calls.add(calling)
            calling.addCallback(self._over, calling)

    def _over(self, result: None, calling: Deferred[None]) -> None:
        self._calls.discard(calling)
        self._grow()

    def _succeeded(self, called: Arrival) -> None:
        if not self.isOpen or self._secret is None:
            called.transport.abort()
            return
        self._number += 1
        lane = Lane(self, self._number, called.transport, called.parser)
        self.lanes[lane.number] = lane
        self._free.add(lane)
        lane.transport.write(formatAttach(self._secret, lane.number))
        lane.transport.flush()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(SessionLost, OSError):
            self._log.failure("session {session}: an unexpected error", failure, session=self.sessionId)
        self._wait(failure.getErrorMessage())

    def laneRefused(self, lane: Lane, reason: str) -> None:
        """The listener says CLOSE to a lane, and why."""
        self._wait(reason)

    def _wait(self, why: str) -> None:
        """Make no more lanes for a while."""
        if not self.isOpen or self._pause is not None:
            return
        delay = self._delay * (1 + random()) / 2
        self._log.warn(
            "session {session} with {listener}: no further connection for visitors: {why}; again in {delay:.1f} s",
            session=self.sessionId,
            listener=self.peerAddress[0],
            why=why,
            delay=delay,
        )
        self._pause = self.clock.callLater(delay, self._resume)
        self._delay = min(MAX_RETRY_SECONDS, self._delay * 2)

    def _resume(self) -> None:
        self._pause = None
        self._grow()

    def ticked(self, now: float) -> None:
        """See `Session`: the listener closes what isn't needed."""

    def ended(self, error: SessionLost) -> None:
        """See `Session`."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._free.clear()
        for calling in tuple(self._calls):
            calling.cancel()
