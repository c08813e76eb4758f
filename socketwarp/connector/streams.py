"""Each stream that the listener opens becomes a connection to a target, or is refused with the reason."""

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..bridge import Bridge
from ..deadlines import Deadlines
from ..errors import Code, LimitReached, SocketwarpError, TargetError, TargetTimedOut
from ..interfaces import IStream, Totals
from ..throttle import Lines
from ..wire.dialect import DIALECTS, Dialect, Dialled
from ..wire.preamble import Preamble
from .conversation import Conversation
from .events import tell
from .names import place
from .targets import Targets

#: Seconds within which a stream's preamble must be there: the listener sends it with the stream's first packet.
PREAMBLE_TIMEOUT = 10.0
#: Lines a second, and at once, about connections: visitors cause them. The listener tells as many.
LINES = (100.0, 1000.0)

#: One for all: as an attribute of the class, it would be made anew for each connection.
log = Logger(f"{__name__}.IncomingStreams")


class IncomingStreams:
    """
    Serves the streams of all sessions; the limit of dials under way holds for all of them together.

    :ivar isFull: every new stream is refused, because memory is used up.
    :ivar targets: where connections go; ``clock``: their time; ``preambles``: how long the first bytes may take.
    :ivar pending: streams that wait for their preamble or target.
    """

    def __init__(self, targets: Targets, clock: IReactorTime, dialLimit: int) -> None:
        """
        :param dialLimit: streams that may be without their target at a time; more are refused.
        """
        self.targets = targets
        self.clock = clock
        self._dialLimit = dialLimit
        self.preambles = Deadlines(clock, PREAMBLE_TIMEOUT)
        self.pending = 0
        self._running = 0
        self._waiters: list[Deferred[None]] = []
        self._isLeaving = False
        self.isFull = False
        self._lines = Lines(*LINES)

    def serve(self, conversation: Conversation) -> None:
        """Take the streams of its session from now on."""
        session = conversation.session
        session.acceptStreams(partial(self._opened, conversation, DIALECTS[session.protocol]))

    def leave(self) -> None:
        """Take no more streams of listeners that can't be told that we leave."""
        self._isLeaving = True

    def whenIdle(self) -> Deferred[None]:
        """Fires when no connection is left; at once if there is none."""
        if not self._running:
            return succeed(None)
        self._waiters.append(Deferred())
        return self._waiters[-1]

    def _opened(self, conversation: Conversation, dialect: Dialect, stream: IStream) -> None:
        """A stream: until its target is connected it counts as pending."""
        if self._isLeaving and not dialect.hasControl:
            stream.abort(Code.SHUTDOWN)
            return
        if self.isFull or self.pending >= self._dialLimit:
            stream.abort(Code.LIMIT)
            reason = "memory is used up" if self.isFull else f"{self._dialLimit} dials are under way"
            if self._mayTell():
                self._tellRefused(conversation, LimitReached.code, reason)
            return
        self.pending += 1
        self._running += 1
        conversation.streamBegan()
        Connection(self, conversation, dialect, stream).begin()

    def _mayTell(self) -> bool:
        """Whether there is room for one more line; says how many had none since."""
        untold = self._lines.take(self.clock.seconds())
        if untold:
            tell(log, "events.suppressed", count=untold)
        return untold is not None

    def ended(self, connection: "Connection", totals: Totals) -> None:
        """A connection is gone, and perhaps it was the last one."""
        self._tellEnd(connection, totals)
        self._running -= 1
        connection.conversation.streamEnded()
        if not self._running:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def _tellEnd(self, connection: "Connection", totals: Totals) -> None:
        if not self._mayTell():
            return
        preamble, conversation = connection.preamble, connection.conversation
        reason = str(totals.error or totals.ending)
        if preamble is None:
            self._tellRefused(conversation, totals.ending, reason)
            return
        visitor = preamble.visitor
        tell(
            log,
            "connection.ended",
            connection=preamble.connectionId,
            peer=place(*visitor) if visitor else None,
            port=preamble.entryPort,
            uid=conversation.uid,
            session=conversation.session.sessionId,
            target=place(preamble.host, preamble.port),
            seconds=round(self.clock.seconds() - connection.began, 3),
            bytes_in=totals.toTcp,
            bytes_out=totals.toStream,
            code=totals.ending,
            reason=reason,
        )

    def _tellRefused(self, conversation: Conversation, code: str, reason: str) -> None:
        name = conversation.session.sessionId
        tell(log, "stream.refused", uid=conversation.uid, session=name, code=code, reason=reason)


class Connection:
    """
    One stream, from its preamble to its end.

    Callbacks rather than a coroutine: most connections have nothing to wait for between preamble and target, and then
    it is a dozen calls.

    :ivar conversation: whose stream it is; ``began``: when it came, by the clock, in seconds.
    :ivar preamble: once it is there.
    """

    __slots__ = ("_bridge", "_dialect", "_dialling", "_streams", "began", "conversation", "preamble", "stream")

    def __init__(self, streams: IncomingStreams, conversation: Conversation, dialect: Dialect, stream: IStream) -> None:
        self.conversation = conversation
        self.stream = stream
        self.began = streams.clock.seconds()
        self.preamble: Preamble | None = None
        self._streams = streams
        self._dialect = dialect
        self._bridge = Bridge(streams.clock, self._ended)
        self._dialling: Deferred[None] | None = None

    def begin(self) -> None:
        """Hear the preamble, dial, carry."""
        self._streams.preambles.begin(self, self._late)
        self._bridge.join(self.stream, self._dialect.preambleParser(), self._asked)

    def _late(self) -> None:
        self._bridge.abort(TargetTimedOut(f"no preamble within {PREAMBLE_TIMEOUT:g} s"))

    def _asked(self, preamble: Preamble) -> None:
        """Dial; given up when the bridge ends first."""
        self._streams.preambles.end(self)
        self.preamble = preamble
        try:
            self._dialling = self._streams.targets.dial(preamble.host, preamble.port, self._connected)
        except Exception:
            self._failed(Failure())
        else:
            self._dialling.addCallbacks(self._settled, self._failed)

    def _connected(self, dialled: Dialled) -> Bridge:
        """The target is there: say so before its first bytes."""
        isTimed = self.preamble is not None and self.preamble.isTimed
        if answer := self._dialect.formatDialled(dialled if isTimed else Dialled(dialled.address)):
            self.stream.write(answer)
        return self._bridge

    def _settled(self, result: None) -> None:
        """It waits for nothing more."""
        self._streams.pending -= 1

    def _failed(self, failure: Failure) -> None:
        self._settled(None)
        error = failure.value
        if isinstance(error, TargetError):
            self._bridge.refuse(error, self._dialect.formatRefusal(error))
        elif not isinstance(error, SocketwarpError | CancelledError):  # with those the bridge has ended by itself
            log.failure("session {session}: an unexpected error", failure, session=self.conversation.session.sessionId)
            self._bridge.abort(SocketwarpError("an internal error of the connector"))

    def _ended(self, totals: Totals) -> None:
        if self.preamble is None:
            self._streams.preambles.end(self)
            self._settled(None)
        if self._dialling is not None:
            self._dialling.cancel()
        self._streams.ended(self, totals)
