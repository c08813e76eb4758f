"""
One visitor: from the moment a port accepts it until its bytes flow, and the record of its end.

The visitor's protocol is a `bridge.Bridge` from the start. It waits for its connector, at most the park time, then for
a stream, then the bridge carries it. What goes wrong on the way ends it with a real RST, never a clean empty answer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..bridge import Bridge
from ..deadlines import Deadlines
from ..errors import ConnectorAway, LimitReached, SocketwarpError, TargetTimedOut
from ..interfaces import Address, IStream, ITcp, ITcpProtocol, Totals
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
    :ivar answerSeconds: how long for the connector to say that it has dialled, longer than a connector may well take;
        and how long for one that is silent to be heard of again, or to come by another session.
    """

    total: int = 50_000
    perPort: int = 20_000
    parkSeconds: float = 5.0
    openSeconds: float = 10.0
    answerSeconds: float = 60.0


class _VisitorBridge(Bridge):
    """A bridge whose TCP side has been accepted, though nobody has shown it yet."""

    def __init__(self, clock: IReactorTime, over: Callable[[Totals], None], idle: float | None) -> None:
        super().__init__(clock, over, idle)
        self._arrived: Callable[[], None] | None = None

    @property
    def tcp(self) -> ITcp | None:
        """The TCP side, from when it is there to the bridge's end."""
        return self._tcp

    def whenArrived(self, call: Callable[[], None]) -> None:
        """Call when the connection is there; at once if it is."""
        if self.tcp is not None:
            call()
        else:
            self._arrived = call

    def makeConnection(self, transport: ITransport) -> None:
        """The connection is there."""
        super().makeConnection(transport)
        arrived, self._arrived = self._arrived, None
        if arrived is not None and self.tcp is not None:
            arrived()


@attrs.define(eq=False)
class Visitor:
    """
    One connection to an entry port.

    :ivar connectionId: names it in events, and in the preamble.
    :ivar since: when it came, POSIX seconds.
    :ivar bridge: carries it.
    """

    connectionId: str
    address: Address
    spec: PortSpec
    _clock: IReactorTime
    _connectors: Connectors
    _events: Events
    _limits: Limits
    _answers: Deadlines
    _left: Callable[["Visitor"], None]  # called when it is gone
    _policy: Policy = ANYTHING
    _pace: Pace | None = None
    since: float = attrs.field(init=False)
    _began: float = attrs.field(init=False)
    # Any: a connector or a stream; it is only ever given up.
    _coming: Deferred[Any] | None = attrs.field(default=None, init=False)
    _connector: Connector | None = attrs.field(default=None, init=False)
    _joined: bool = attrs.field(default=False, init=False)
    bridge: _VisitorBridge = attrs.field(init=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self.since, self._began = self._events.now(), self._clock.seconds()
        self.bridge = _VisitorBridge(self._clock, self._over, self.spec.limits.idleSeconds)

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
        if not self.bridge.isOver:
            self.bridge.whenArrived(self._arrived)

    def _arrived(self) -> None:
        connector = self._connectors.find(self.spec.uid)
        if connector is None:
            seconds = self._limits.parkSeconds
            away = f"no connector of {self.spec.uid} came within {seconds:g} s"
            self._await(self._connectors.whenConnected(self.spec.uid), self._open, seconds, ConnectorAway, away)
            return
        if connector.session.isSilent:
            # On its session nobody may ever hear of this one, whom a newer session can carry in a moment.
            seconds = self._limits.answerSeconds
            silent = f"nothing was heard of the connector of {self.spec.uid} within {seconds:g} s"
            self._await(self._connectors.whenHeard(self.spec.uid), self._open, seconds, ConnectorAway, silent)
            return
        try:
            self._open(connector)
        except Exception:
            self._failed(Failure())

    def _await(
        self,
        waiting: Deferred[T],
        then: Callable[[T], None],
        seconds: float,
        late: type[SocketwarpError],
        text: str,
    ) -> None:
        """Go on with what comes of it, and fail with `late` when it takes longer."""
        self._coming = waiting
        if not waiting.called:  # most often there is nothing to wait for
            waiting.addTimeout(seconds, self._clock, lambda result, seconds: Failure(late(text)))
        waiting.addCallback(then).addErrback(self._failed)

    def _open(self, connector: Connector) -> None:
        self._policy.checkPort(self.spec, connector.identity.attributes)
        self._connector = connector
        connector.visitors += 1
        session = connector.session
        # Whatever is wrong with the wish shows before there is a stream to be ended.
        dialect = DIALECTS[session.protocol]
        preamble = dialect.formatPreamble(self._preamble()) + self._proxyHeader()
        seconds = self._limits.openSeconds
        full = f"the connector of {self.spec.uid} took no further stream within {seconds:g} s"
        self._await(session.openStream(), partial(self._join, dialect, preamble), seconds, LimitReached, full)

    def _join(self, dialect: Dialect, preamble: bytes, stream: IStream) -> None:
        stream.write(preamble)
        if self._pace is not None:
            stream = PacedStream(stream, self._pace)
        self._answers.begin(self, self._late)
        self.bridge.join(stream, dialect.answerParser(), self._connected)

    def _late(self) -> None:
        seconds = self._answers.seconds
        self.refuse(
            TargetTimedOut(f"the connector of {self.spec.uid} didn't say within {seconds:g} s whether it dialled")
        )

    def _connected(self, dialled: Dialled) -> None:
        self._joined = True
        self._answers.end(self)
        self._events.emit("visitor.connected", dialled=dialled.address or None, **self._who())

    def _preamble(self) -> Preamble:
        return Preamble(self.connectionId, self.spec.dialHost, self.spec.targetPort, self.address, self.spec.port)

    def _proxyHeader(self) -> bytes:
        """The first of the visitor's bytes, if its target wants to know where it comes from."""
        version, tcp = self.spec.options.proxyProtocol, self.bridge.tcp
        return b"" if version is None or tcp is None else formatProxyHeader(version, self.address, tcp.localAddress())

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
        self._tellEnd(totals)
        self._left(self)

    def _tellEnd(self, totals: Totals) -> None:
        if not self._joined:
            self._answers.end(self)
            self._events.emit("visitor.refused", code=totals.ending, reason=str(totals.error), **self._who())
            return
        self._events.emit(
            "visitor.ended",
            seconds=round(self._clock.seconds() - self._began, 3),
            bytes_in=totals.toStream,
            bytes_out=totals.toTcp,
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
