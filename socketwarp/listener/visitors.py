"""
One visitor: from the moment a port accepts it until its bytes flow, and the record of its end.

The visitor's protocol is a `bridge.Bridge` from the start. It waits for its connector, at most the park time, then for
a stream, then the bridge carries it. What goes wrong on the way ends it with a real RST, never a clean empty answer.
"""

from collections.abc import Callable
from typing import TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..bridge import Bridge, Totals
from ..errors import ConnectorAway, LimitReached, SocketwarpError, TargetTimedOut
from ..interfaces import Address, IStream, ITcp, ITcpProtocol
from ..rules.policy import ANYTHING, Policy
from ..wire.dialect import DIALECTS, Dialect, Dialled
from ..wire.preamble import Preamble
from ..wire.proxy import formatProxyHeader
from .connectors import Connectors
from .events import Events, Field, showAddress
from .pacing import Pace, PacedStream, PacedTcp
from .roster import Connector
from .wishes import PortSpec

T = TypeVar("T")


@attrs.frozen
class Limits:
    """
    What visitors may use. A visitor at 20 kB, all of them are 1 GB.

    :ivar total: visitors at a time, of all ports together; ``perPort``: of each port.
    :ivar parkSeconds: how long a visitor waits for its connector to come back.
    :ivar openSeconds: how long it waits for a stream when the connector's stream limit is reached.
    :ivar answerSeconds: how long for the connector to say that it has dialled; longer than a connector may well take.
    """

    total: int = 50_000
    perPort: int = 20_000
    parkSeconds: float = 5.0
    openSeconds: float = 10.0
    answerSeconds: float = 60.0


class _VisitorBridge(Bridge):
    """A bridge whose TCP side has been accepted, though nobody has shown it yet."""

    def __init__(self, clock: IReactorTime, idle: float | None) -> None:
        super().__init__(clock, idle)
        self.arrived: Deferred[ITcp] = Deferred()

    def makeConnection(self, transport: ITransport) -> None:
        """The connection is there; `arrived` fires with it."""
        super().makeConnection(transport)
        self.arrived.callback(ITcp(transport))


@attrs.define(eq=False)
class Visitor:
    """
    One connection to an entry port.

    :ivar connectionId: names it in events, and in the preamble.
    :ivar bridge: carries it.
    :ivar ended: fires, never fails, when it is gone.
    """

    connectionId: str
    address: Address
    spec: PortSpec
    _clock: IReactorTime
    _connectors: Connectors
    _events: Events
    _limits: Limits
    _policy: Policy = ANYTHING
    _pace: Pace | None = None
    _since: float = attrs.field(init=False)
    _coming: Deferred[None] | None = attrs.field(default=None, init=False)
    _connector: Connector | None = attrs.field(default=None, init=False)
    _joined: bool = attrs.field(default=False, init=False)
    bridge: _VisitorBridge = attrs.field(init=False)
    ended: Deferred[None] = attrs.field(init=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._since = self._clock.seconds()
        self.bridge = _VisitorBridge(self._clock, self.spec.limits.idleSeconds)
        self.ended = self.bridge.ended.addCallback(self._over)

    @property
    def since(self) -> float:
        """When it came, POSIX seconds."""
        return self._since

    @property
    def sessionId(self) -> str | None:
        """The session that carries it, or will in a moment; `None` while it waits for one."""
        return None if self._connector is None else self._connector.session.sessionId

    @property
    def protocol(self) -> ITcpProtocol:
        """What its TCP connection is to have as its protocol; ask once."""
        return self.bridge if self._pace is None else PacedTcp(self.bridge, self._pace)

    def carry(self) -> None:
        """Find the session, open a stream, join it to the visitor."""
        if not self.bridge.ended.called:
            self._coming = self.bridge.arrived.addCallback(self._arrived).addErrback(self._failed)

    def _arrived(self, tcp: ITcp) -> Deferred[None]:
        return self._findConnector().addCallback(self._open, tcp)

    def _findConnector(self) -> Deferred[Connector]:
        seconds = self._limits.parkSeconds
        away = ConnectorAway(f"no connector of {self.spec.uid} came within {seconds:g} s")
        return self._within(seconds, self._connectors.whenConnected(self.spec.uid), away)

    def _open(self, connector: Connector, tcp: ITcp) -> Deferred[None]:
        self._policy.checkPort(self.spec, connector.identity.attributes)
        self._connector = connector
        connector.visitors += 1
        session = connector.session
        seconds = self._limits.openSeconds
        full = LimitReached(f"the connector of {self.spec.uid} took no further stream within {seconds:g} s")
        # Whatever is wrong with the wish shows before there is a stream to be ended.
        dialect = DIALECTS[session.protocol]
        preamble = dialect.formatPreamble(self._preamble()) + self._proxyHeader(tcp)
        opened = self._within(seconds, session.openStream(), full)
        return opened.addCallback(self._join, dialect, preamble)

    def _join(self, stream: IStream, dialect: Dialect, preamble: bytes) -> Deferred[None]:
        stream.write(preamble)
        seconds = self._limits.answerSeconds
        late = TargetTimedOut(f"the connector of {self.spec.uid} didn't say within {seconds:g} s whether it dialled")
        if self._pace is not None:
            stream = PacedStream(stream, self._pace)
        answered = self._within(seconds, self.bridge.join(stream, dialect.answerParser()), late)
        return answered.addCallback(self._connected)

    def _within(self, seconds: float, waiting: Deferred[T], error: SocketwarpError) -> Deferred[T]:
        """Have it fail with the error when it takes longer; no timer for what is there already."""
        return waiting if waiting.called else waiting.addTimeout(seconds, self._clock, _inTime(error))

    def _connected(self, dialled: Dialled) -> None:
        self._joined = True
        self._events.emit("visitor.connected", dialled=dialled.address or None, **self._who())

    def _preamble(self) -> Preamble:
        return Preamble(self.connectionId, self.spec.dialHost, self.spec.targetPort, self.address, self.spec.port)

    def _proxyHeader(self, tcp: ITcp) -> bytes:
        """The first of the visitor's bytes, if its target wants to know where it comes from."""
        version = self.spec.options.proxyProtocol
        return b"" if version is None else formatProxyHeader(version, self.address, tcp.localAddress())

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if not isinstance(error, SocketwarpError):
            self._log.failure("{connection} failed", failure, connection=self.connectionId)
            error = SocketwarpError("a fault of the listener; its log says more")
        self.bridge.abort(error)

    def refuse(self, error: SocketwarpError) -> None:
        """End it with RST, whatever it is doing."""
        self.bridge.abort(error)

    def _over(self, totals: Totals) -> None:
        # A visitor that goes away gives up what it waits for.
        if self._coming is not None:
            self._coming.cancel()
        if self._connector is not None:
            self._connectors.left(self._connector)
        if not self._joined:
            self._events.emit("visitor.refused", code=totals.ending, reason=str(totals.error), **self._who())
            return
        self._events.emit(
            "visitor.ended",
            seconds=round(self._clock.seconds() - self._since, 3),
            bytesIn=totals.toStream,
            bytesOut=totals.toTcp,
            code=totals.ending,
            reason=totals.ending if totals.error is None else str(totals.error),
            **self._who(),
        )

    def _who(self) -> dict[str, Field]:
        return {
            "connection": self.connectionId,
            "peer": showAddress(self.address),
            "port": self.spec.port,
            "uid": self.spec.uid,
            "session": self.sessionId,
        }


def _inTime(error: SocketwarpError) -> Callable[[object, float], Failure]:
    """What `Deferred.addTimeout` answers when it was too late: the error, unless somebody else cancelled."""

    def late(result: object, seconds: float) -> Failure:
        return Failure(error)

    return late
