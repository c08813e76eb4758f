"""
What both ends of a session have in common: the control lane, signs of life, figures, its end (`ISession`).

`serving` and `calling` are the listener's and the connector's ends.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from os import urandom

import attrs
from cryptography import x509
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..errors import Code, SessionLost
from ..interfaces import Address, IStream, SessionStatistics
from ..wire.documents import clean
from .contexts import ALPN
from .frames import Event, Frame, FrameParser, Kind, MalformedFrame, formatClose, formatFrame
from .lane import Lane
from .transport import TlsTransport

#: Bytes that may wait on a control lane whose other end doesn't read; then there is no talking with it.
CONTROL_LIMIT = 2**20
#: Streams of the peer that may wait for `acceptStreams`.
MAX_UNACCEPTED = 100
#: Seconds that the last frame, which says why, may take to arrive.
FAREWELL_SECONDS = 2.0
#: Seconds after which a peer that owes an answer counts as silent.
SILENT_SECONDS = 2.0
#: PING is sent after this share of the idle time-out at the latest.
KEEP_ALIVE_SHARE = 1 / 3
#: Weight of a new sample in the smoothed round-trip time (RFC 9002 §5.3).
_RTT_WEIGHT = 1 / 8
#: The stream that the control lane carries from its beginning.
CONTROL_STREAM = 0


@attrs.frozen
class TlsSettings:
    """
    How this carrier is spoken.

    :ivar idleTimeout: seconds of silence after which a session is given up; ``keepAlive``: seconds between PINGs at
        the most.
    :ivar handshakeTimeout: seconds, from the TCP connection to the first frame.
    :ivar streamLimit: streams at a time in a session, each of which takes a lane.
    """

    idleTimeout: float = 60.0
    keepAlive: float = 4.0
    handshakeTimeout: float = 10.0
    streamLimit: int = 10_000


class Session(ABC):
    """
    See `ISession`; the ends implement it.

    :ivar control: the control lane.
    :ivar lanes: the data lanes, by number.
    """

    _log = Logger()

    carrier = "tls"
    #: Whether it is the connector's end.
    isCaller: bool
    protocol = ALPN.decode()

    def __init__(
        self,
        transport: TlsTransport,
        parser: FrameParser,
        chain: Sequence[x509.Certificate],
        clock: IReactorTime,
        settings: TlsSettings,
    ) -> None:
        """
        :param transport: of the control lane, secured and checked.
        :param parser: has parsed what came on it before.
        :param chain: what the peer's TLS has shown.
        """
        self.sessionId = urandom(4).hex()
        self.peerChain = chain
        self.isOpen = True
        self.isMemoryShort = False
        self.clock = clock
        self.settings = settings
        self.lanes: dict[int, Lane] = {}
        self.control = Lane(self, 0, transport, parser)
        self._address = transport.peerAddress
        self._handler: Callable[[IStream], None] | None = None
        self._unaccepted: deque[IStream] = deque()
        self._closed: list[Deferred[SessionLost]] = []
        self._error: SessionLost | None = None
        self._isGone = False
        self._bytesIn = self._bytesOut = 0
        self._rtt: float | None = None
        self._heardAt = clock.seconds()
        self._pings = 0
        self._askedAt: float | None = None  # a PING that isn't answered
        self._keepAlive = min(settings.keepAlive, settings.idleTimeout * KEEP_ALIVE_SHARE)
        self._timer: IDelayedCall | None = clock.callLater(0, self._tick)

    def begin(self, events: list[Event]) -> None:
        """Take what came with the first frame."""
        self.control.take(events)

    # ISession

    @property
    def peerLeaf(self) -> x509.Certificate:
        """See `ISession`."""
        return self.peerChain[0]

    @property
    def peerAddress(self) -> Address:
        """See `ISession`."""
        return self._address

    @property
    def isSilent(self) -> bool:
        """See `ISession`: a PING goes unanswered, and nothing else has come since."""
        asked = self._askedAt
        return asked is not None and self._heardAt <= asked and self.clock.seconds() > asked + SILENT_SECONDS

    @abstractmethod
    def openStream(self) -> "Deferred[IStream]":
        """See `ISession`."""

    def acceptStreams(self, handler: Callable[[IStream], None]) -> None:
        """See `ISession`."""
        self._handler = handler
        while self._unaccepted:
            handler(self._unaccepted.popleft())

    def close(self, errorCode: int, reason: str) -> None:
        """See `ISession`."""
        if not self.isOpen:
            return
        transport = self.control.transport
        transport.write(formatClose(errorCode, reason))
        transport.flush()
        self._lose(SessionLost(reason, errorCode))
        transport.close()
        self._timer = self.clock.callLater(FAREWELL_SECONDS, self._giveUp)

    def _giveUp(self) -> None:
        self._timer = None
        self.control.transport.abort()
        self._gone()

    def whenClosed(self) -> "Deferred[SessionLost]":
        """See `ISession`."""
        if self._isGone and self._error is not None:
            return succeed(self._error)
        waiting: Deferred[SessionLost] = Deferred()
        self._closed.append(waiting)
        return waiting

    def saveMemory(self, isShort: bool) -> None:
        """See `ISession`."""
        self.isMemoryShort = isShort

    def statistics(self) -> SessionStatistics:
        """See `ISession`; the kernel's buffers aren't counted."""
        lanes = self.lanes.values()
        return SessionStatistics(
            bytesIn=self._bytesIn,
            bytesOut=self._bytesOut,
            rtt=self._rtt,
            streams=sum(1 for lane in (self.control, *lanes) if lane.stream is not None),
            buffered=sum(lane.queued + lane.held for lane in (self.control, *lanes)),
        )

    # For the lanes, see `lane.Lanes`

    def heard(self, size: int) -> None:
        """Bytes have come."""
        self._heardAt = self.clock.seconds()

    def delivered(self, size: int) -> None:
        """Bytes of a stream have been given to its receiver."""
        self._bytesIn += size

    def sent(self, size: int) -> None:
        """Bytes of a stream were handed over for sending."""
        self._bytesOut += size

    def tell(self, kind: Kind, *numbers: int) -> None:
        """Send a frame on the control lane."""
        if not self.isOpen:
            return
        if self.control.queued > CONTROL_LIMIT:
            self.close(Code.LIMIT, "the other end doesn't read")
            return
        self.control.transport.write(formatFrame(kind, *numbers))
        self.control.transport.flush()

    def streamOpened(self, lane: Lane, streamId: int) -> None:
        """OPEN has come, which only a listener sends."""
        raise MalformedFrame("a stream is opened by the wrong end")

    def accept(self, stream: IStream) -> None:
        """Give a stream of the peer's to who wants them."""
        if self._handler is not None:
            self._handler(stream)
        elif len(self._unaccepted) < MAX_UNACCEPTED:
            self._unaccepted.append(stream)
        else:
            stream.abort(Code.LIMIT)

    def frameReceived(self, lane: Lane, frame: Frame) -> None:
        """A frame that isn't about the lane's stream."""
        if frame.kind is Kind.CLOSE:
            self._closedByPeer(lane, frame)
            return
        if lane is not self.control:
            raise MalformedFrame(f"{frame.kind.name} on a data lane")
        match frame.kind:
            case Kind.PING:
                self.tell(Kind.PONG, *frame.numbers)
            case Kind.PONG:
                self._answered(*frame.numbers)
            case Kind.STOP | Kind.ABORT:
                number, streamId, errorCode = frame.numbers
                if number in self.lanes:
                    self.lanes[number].noticed(frame.kind, streamId, errorCode)
            case _:
                self.controlReceived(frame)

    def controlReceived(self, frame: Frame) -> None:
        """A frame on the control lane that only one of the ends understands."""
        raise MalformedFrame(f"{frame.kind.name} from the wrong end, or at the wrong time")

    def broken(self, reason: str) -> None:
        """The peer has violated the protocol."""
        self.close(Code.MALFORMED, reason)

    @abstractmethod
    def laneFreed(self, lane: Lane) -> None:
        """The lane's stream is over; it may carry another."""

    def laneLost(self, lane: Lane, reason: str) -> None:
        """The lane is gone."""
        if lane is self.control:
            self._lose(SessionLost(f"the control connection broke: {reason}"))
            self._gone()
        elif self.lanes.get(lane.number) is lane:
            del self.lanes[lane.number]
            if self.isOpen:
                self.laneMissed(lane, reason)

    @abstractmethod
    def laneMissed(self, lane: Lane, reason: str) -> None:
        """A data lane is gone, though the session isn't."""

    @abstractmethod
    def laneRefused(self, lane: Lane, reason: str) -> None:
        """The other end doesn't want a data lane."""

    # Signs of life

    def _tick(self) -> None:
        now = self.clock.seconds()
        if now - self._heardAt > self.settings.idleTimeout:
            self._timer = None
            self._lose(SessionLost("nothing was heard from the other end for too long"))
            self.control.transport.abort()
            self._gone()
            return
        self._timer = self.clock.callLater(self._keepAlive, self._tick)
        if self._askedAt is None:
            self._askedAt = now
            self._pings = (self._pings + 1) % 2**32
            self.tell(Kind.PING, self._pings)
        self.ticked(now)

    @abstractmethod
    def ticked(self, now: float) -> None:
        """Some time has passed: what is to be done now and then."""

    def _answered(self, number: int) -> None:
        if number == self._pings and self._askedAt is not None:
            sample = self.clock.seconds() - self._askedAt
            self._askedAt = None
            self._rtt = sample if self._rtt is None else self._rtt + _RTT_WEIGHT * (sample - self._rtt)

    # The end

    def _closedByPeer(self, lane: Lane, frame: Frame) -> None:
        reason = clean(frame.data.decode(errors="replace"))
        error = SessionLost(reason or f"closed with code {frame.numbers[0]:#x}", frame.numbers[0], True)
        if lane is not self.control:
            lane.transport.abort()
            self.laneRefused(lane, str(error))
            lane.lost(str(error))
            return
        self._lose(error)
        self.control.transport.abort()
        self._gone()

    def _lose(self, error: SessionLost) -> None:
        """End everything that stands on this session; the peer may still have to be told."""
        if not self.isOpen:
            return
        self.isOpen = False
        self._error = error
        self._stopTimer()
        self.ended(error)
        lanes, self.lanes = self.lanes, {}
        for lane in (*lanes.values(), self.control):
            with self._log.failuresHandled("a stream's end failed"):
                lane.end(error)

    @abstractmethod
    def ended(self, error: SessionLost) -> None:
        """The session is over: give up what waits for it."""

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _gone(self) -> None:
        if self._isGone:
            return
        self._isGone = True
        self._stopTimer()
        closed, self._closed = self._closed, []
        for each in closed:
            assert self._error is not None
            each.callback(self._error)
