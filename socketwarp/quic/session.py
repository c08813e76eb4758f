"""
One QUIC connection under the reactor: its timers, what came in to its streams, keep-alive, its end (`ISession`).

What streams write within a reactor turn goes out together at the end of the turn; what arrives is answered when all the
datagrams of one wake-up have been taken.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from os import urandom
from typing import Any, Protocol

from aioquic.quic.events import ConnectionIdIssued, ConnectionIdRetired, ConnectionTerminated, HandshakeCompleted
from cryptography import x509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import Code, LimitReached, SessionLost
from ..interfaces import Address, ISession, IStream, SessionStatistics, plainAddress
from .batch import Batch
from .engine import Engine
from .stream import Stream
from .streams import StreamState
from .timer import Timer
from .transmission import Sender, Transmission

#: Callers of `openStream` that may wait for the peer to allow more streams.
MAX_WAITING = 1000
#: Streams of the peer that may wait for `acceptStreams`.
MAX_UNACCEPTED = 100
#: Bytes of a CONNECTION_CLOSE reason that we send.
MAX_REASON = 500
#: PING is sent when nothing was heard for this share of the idle time-out, or for the keep-alive time of the settings.
KEEP_ALIVE_SHARE = 1 / 3
#: Probe time-outs in a row, and seconds, after which a peer that owes an answer counts as silent.
SILENT_TIMEOUTS, SILENT_SECONDS = 2, 1.0
#: Seconds by which a call may come early: less than this remains by rounding, and is no reason for another call.
CLOCK_ERROR = 0.001
#: Seconds between looks at the clock while the socket is full: what is due then can't be sent.
BLOCKED_DELAY = 0.05

#: Smoothed round-trip time, in seconds, from which on bulk may be read in portions (`coalescing`).
COALESCING_RTT = 0.008

#: Has something called at the end of what the reactor is doing.
Soon = Callable[[Callable[[], None]], object]


class Routes(Protocol):
    """Who delivers datagrams to sessions by connection id."""

    def addRoute(self, connectionId: bytes, session: "Session") -> None:
        """From now on deliver what is for `connectionId` to `session`."""

    def removeRoute(self, connectionId: bytes) -> None:
        """No more."""

    def sessionEnded(self, session: "Session") -> None:
        """The session is gone; so are its routes."""


@implementer(ISession)
class Session:
    """See `ISession`. Made by `endpoint`, which gives it datagrams (`receive`) and turns (`turn`)."""

    carrier = "quic"
    ticket = laneLimit = None  # everything is on one connection

    def __init__(
        self,
        engine: Engine,
        sender: Sender,
        routes: Routes,
        clock: IReactorTime,
        keepAlive: float,
        handshakeTimeout: float,
        onEstablished: Callable[["Session"], None],
        soon: Soon | None = None,
    ) -> None:
        """:param soon: when what streams have written is sent; in the next iteration of the reactor, unless given."""
        self.sessionId = urandom(4).hex()
        self.protocol = ""
        self.isOpen = True
        self.isEstablished = False
        self.streams = engine.streams
        self._recovery = engine.recovery
        self._engine = engine
        self._sender = sender
        self._routes = routes
        self._clock = clock
        self._keepAlive = keepAlive
        self._onEstablished = onEstablished
        self._handler: Callable[[IStream], None] | None = None
        self._unaccepted: deque[Stream] = deque()
        self._waiting: deque[Deferred[IStream]] = deque()
        self._closed: list[Deferred[SessionLost]] = []
        self._error: SessionLost | None = None
        self._isGone = False
        self._soon = soon or partial(clock.callLater, 0)
        self._isInTurn = False
        self._isTurnDue = False
        self._mayContinue = False
        self._timer = Timer(clock, self._timerFired)
        self._closing: list[Transmission] = []
        self._afterClose = 0
        self._lastHeard = clock.seconds()
        self._alive = Timer(clock, self._ping)
        self._alive.set(self._lastHeard + handshakeTimeout, self._lastHeard)

    # ISession

    @property
    def peerLeaf(self) -> x509.Certificate:
        """See `ISession`."""
        return self.peerChain[0]

    @property
    def peerChain(self) -> Sequence[x509.Certificate]:
        """See `ISession`."""
        return self._engine.peerChain

    @property
    def peerAddress(self) -> Address:
        """See `ISession`."""
        return plainAddress(self._engine.get_peer_address() or ("::", 0))

    @property
    def isSilent(self) -> bool:
        """See `ISession`: probes go unanswered, and nothing else has come for `SILENT_SECONDS`."""
        isLate = self._clock.seconds() > self._lastHeard + SILENT_SECONDS
        return isLate and self._recovery.timeouts >= SILENT_TIMEOUTS

    def mayCoalesce(self) -> bool:
        """Whether what comes next may wait for a moment: bulk came just now, over a path that takes much longer."""
        isBulk, self.streams.isBulk = self.streams.isBulk, False
        return isBulk and (self._recovery.smoothedRtt or 0.0) >= COALESCING_RTT

    def openStream(self) -> "Deferred[IStream]":
        """See `ISession`."""
        if self._error is not None:
            return fail(self._error)
        if self.streams.canOpen:
            return succeed(Stream(self, self.streams.open()))
        if len(self._waiting) >= MAX_WAITING:
            return fail(LimitReached(f"{MAX_WAITING} visitors wait for the connector to allow another stream already"))
        waiting: Deferred[IStream] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self.streams.blockedDue = True
        self.schedule()
        return waiting

    def acceptStreams(self, handler: Callable[[IStream], None]) -> None:
        """See `ISession`."""
        self._handler = handler
        while self._unaccepted:
            handler(self._unaccepted.popleft())

    def close(self, errorCode: int, reason: str) -> None:
        """See `ISession`."""
        if self.isOpen:
            text = reason.encode()[:MAX_REASON].decode(errors="ignore")
            self._engine.close(error_code=errorCode, reason_phrase=text)
            self._send()
            self._lose(SessionLost(reason, errorCode))
            self._setTimer()

    def abandon(self, reason: str) -> None:
        """Close, and be gone at once: for a session whose socket goes with it, which nothing late can reach (§10.2)."""
        self.close(Code.NO_ERROR, reason)
        self._gone()

    def whenClosed(self) -> "Deferred[SessionLost]":
        """See `ISession`."""
        if self._isGone and self._error is not None:
            return succeed(self._error)
        waiting: Deferred[SessionLost] = Deferred()
        self._closed.append(waiting)
        return waiting

    def statistics(self) -> SessionStatistics:
        """See `ISession`."""
        recovery, streams = self._recovery, self.streams
        return SessionStatistics(
            streams.bytesDelivered,
            streams.bytesAcknowledged,
            recovery.smoothedRtt,
            recovery.lostPackets,
            0 if self._isGone else self._engine.datagramSize,
            len(streams.states),
            streams.buffered,
        )

    def admitted(self, ticket: str | None, laneLimit: int | None = None) -> None:
        """See `ISession`: nothing changes by that."""

    def saveMemory(self, isShort: bool) -> None:
        """See `ISession`."""
        self.streams.isMemoryShort = isShort

    # From the endpoint

    def receive(self, batch: Batch, address: Any) -> None:
        """Take datagrams for this session from a socket address; `turn` must follow in the same reactor turn."""
        if self._closing:  # RFC 9000 §10.2.1: say it again, ever more rarely, to a peer that missed it
            self._afterClose += 1
            if self._afterClose & (self._afterClose - 1) == 0:
                for transmission in self._closing:
                    self._sender.send(transmission)
        elif self.isOpen and self._engine.receive(batch, address, now := self._clock.seconds()):
            self._lastHeard = now

    def turn(self) -> None:
        """Deliver what has come in and send what is due."""
        self._isTurnDue = False
        if self._isGone or self._isInTurn:
            return
        self._isInTurn = True
        try:
            self._handleEvents()
            self._deliver()
            self._send()
            self._deliver()
        finally:
            self._isInTurn = False
        if self._engine.isClosing:
            self._engineClosed()
        if not self._isGone:
            self._setTimer()
            if self.streams.touched or (self.streams.sendable and self._mayContinue):
                self.schedule()

    def schedule(self) -> None:
        """See `stream.Turns`."""
        if not (self._isTurnDue or self._isInTurn or self._isGone):
            self._isTurnDue = True
            self._soon(self._dueTurn)

    def later(self, call: Callable[[Failure], None], reason: Failure) -> None:
        """See `stream.Turns`."""
        self._clock.callLater(0, call, reason)

    def _dueTurn(self) -> None:
        if self._isTurnDue:  # else something else has brought a turn
            self.turn()

    # A turn's steps

    def _handleEvents(self) -> None:
        while (event := self._engine.next_event()) is not None:
            match event:
                case ConnectionIdIssued():
                    self._routes.addRoute(event.connection_id, self)
                case ConnectionIdRetired():
                    self._routes.removeRoute(event.connection_id)
                case HandshakeCompleted():
                    self.protocol = event.alpn_protocol or ""
                case ConnectionTerminated():
                    self._terminated(event)
        if not self.isEstablished and self._engine.isConfirmed and self.isOpen:
            self._established()
        if self._waiting and self.streams.canOpen:
            self._serveWaiting()

    def _established(self) -> None:
        self.isEstablished = True
        self._alive.cancel()
        self._keepAlive = min(self._keepAlive, self._engine.idleTimeout * KEEP_ALIVE_SHARE)
        self._alive.set(self._lastHeard + self._keepAlive, self._clock.seconds())
        self._onEstablished(self)

    def _deliver(self) -> None:
        touched = self.streams.touched
        while touched:
            for state in list(touched):
                del touched[state]
                if state.owner is None:
                    self._accept(state)
                else:
                    self._streamOf(state).update()

    @staticmethod
    def _streamOf(state: StreamState) -> Stream:
        assert isinstance(state.owner, Stream)
        return state.owner

    def _accept(self, state: StreamState) -> None:
        stream = Stream(self, state)
        if self._handler is not None:
            self._handler(stream)
        elif len(self._unaccepted) < MAX_UNACCEPTED:
            self._unaccepted.append(stream)
        else:
            stream.abort(Code.LIMIT)

    def _send(self) -> None:
        """One round of sending."""
        self._mayContinue = False
        if self._sender.isBlocked:
            return  # the port calls `turn` when it takes more
        for transmission in self._engine.transmit(self._clock.seconds()):
            self._mayContinue = True
            self._sender.send(transmission)
            if self._engine.isClosing:
                self._closing.append(transmission)
        served = self.streams.served
        while served:
            state, _ = served.popitem()
            self._streamOf(state).drained()

    def _serveWaiting(self) -> None:
        while self._waiting and self.streams.canOpen:
            self._waiting.popleft().callback(Stream(self, self.streams.open()))
        self.streams.blockedDue = bool(self._waiting)

    # Time

    def _setTimer(self) -> None:
        when = self._engine.nextTimer()
        if when is None:
            self._timer.cancel()
            return
        now = self._clock.seconds()
        self._timer.set(max(when, now + BLOCKED_DELAY if self._sender.isBlocked else now), now)

    def _timerFired(self) -> None:
        self._engine.onTimer(self._clock.seconds())
        self.turn()

    def _ping(self) -> None:
        """Nothing was heard for the keep-alive time, or it was and this is put off; or the handshake took too long."""
        if not self.isEstablished:
            self._lose(SessionLost("the handshake took too long"))
            self._gone()
            return
        now = self._clock.seconds()
        due = self._lastHeard + self._keepAlive
        if due > now + CLOCK_ERROR:
            self._alive.set(due, now)
            return
        self._alive.set(now + self._keepAlive, now)
        self._engine.send_ping(0)
        self.turn()

    # The end

    def _engineClosed(self) -> None:
        """The engine closes for a reason of its own, or the peer's."""
        if self.isOpen:
            event = self._engine.closeReason
            if event is not None:
                self._lose(self._errorOf(event))
        if self._engine.isClosedByPeer:
            self._gone()  # RFC 9000 §10.2.2: nothing of ours is sent any more, so nobody needs the draining state

    def _terminated(self, event: ConnectionTerminated) -> None:
        self._lose(self._errorOf(event))
        self._gone()

    def _errorOf(self, event: ConnectionTerminated) -> SessionLost:
        if self._engine.isClosedByPeer:
            return SessionLost(event.reason_phrase or f"closed with code {event.error_code:#x}", event.error_code, True)
        if event.reason_phrase == "Idle timeout":
            return SessionLost("nothing was heard from the other end for too long")
        return SessionLost(event.reason_phrase or f"closed with code {event.error_code:#x}", event.error_code)

    def _lose(self, error: SessionLost) -> None:
        """End everything that stands on this session; the engine may still have to tell the peer."""
        if not self.isOpen:
            return
        self.isOpen = False
        self._error = error
        self._alive.cancel()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(error)
        for state in list(self.streams.states.values()):
            if isinstance(state.owner, Stream):
                state.owner.sessionLost(error)

    def _gone(self) -> None:
        if self._isGone:
            return
        self._isGone = True
        self._timer.end()
        self._alive.end()
        self._engine.release()
        self._routes.sessionEnded(self)
        closed, self._closed = self._closed, []
        for each in closed:
            assert self._error is not None
            each.callback(self._error)
