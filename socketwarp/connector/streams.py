"""Each stream that the listener opens becomes a connection to a target, or is refused with the reason."""

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..bridge import Bridge, Totals
from ..errors import Code, LimitReached, SocketwarpError, TargetError, TargetTimedOut
from ..interfaces import IStream
from ..throttle import Bucket
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


class IncomingStreams:
    """
    Serves the streams of all sessions; the limit of dials under way holds for all of them together.

    :ivar isFull: every new stream is refused, because memory is used up.
    """

    _log = Logger()

    def __init__(self, targets: Targets, clock: IReactorTime, dialLimit: int) -> None:
        """
        :param dialLimit: streams that may be without their target at a time; more are refused.
        """
        self._targets = targets
        self._clock = clock
        self._dialLimit = dialLimit
        self._pending = 0
        self._running = 0
        self._waiters: list[Deferred[None]] = []
        self._isLeaving = False
        self.isFull = False
        self._lines = Bucket(*LINES)
        self._untold = 0

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
        if self.isFull or self._pending >= self._dialLimit:
            stream.abort(Code.LIMIT)
            reason = "memory is used up" if self.isFull else f"{self._dialLimit} dials are under way"
            if self._mayTell():
                self._tellRefused(conversation, LimitReached.code, reason)
            return
        self._pending += 1
        self._running += 1
        Deferred.fromCoroutine(self._carry(conversation, dialect, stream)).addCallback(self._over)

    def _mayTell(self) -> bool:
        """Whether there is room for one more line; says how many had none since."""
        if not self._lines.take(self._clock.seconds()):
            self._untold += 1
            return False
        if self._untold:
            tell(self._log, "events.suppressed", count=self._untold)
            self._untold = 0
        return True

    def _over(self, result: None) -> None:
        """A connection is gone, and perhaps it was the last one."""
        self._running -= 1
        if not self._running:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    async def _carry(self, conversation: Conversation, dialect: Dialect, stream: IStream) -> None:
        """One connection, from its preamble to its end."""
        began = self._clock.seconds()
        bridge = Bridge(self._clock)
        preamble = None
        try:
            preamble = await self._preamble(bridge, stream, dialect)
            await self._dial(bridge, stream, dialect, preamble)
        except TargetError as error:
            bridge.refuse(error, dialect.formatRefusal(error))
        except (SocketwarpError, CancelledError):
            pass  # the bridge has ended by itself, and says why
        except Exception:
            self._log.failure("session {session}: an unexpected error", session=conversation.session.sessionId)
            bridge.abort(SocketwarpError("an internal error of the connector"))
        finally:
            self._pending -= 1
        self._logEnd(conversation, preamble, await bridge.ended, self._clock.seconds() - began)

    async def _preamble(self, bridge: Bridge, stream: IStream, dialect: Dialect) -> Preamble:
        late = TargetTimedOut(f"no preamble within {PREAMBLE_TIMEOUT:g} s")
        timer = self._clock.callLater(PREAMBLE_TIMEOUT, bridge.abort, late)
        try:
            return await bridge.join(stream, dialect.preambleParser())
        finally:
            if timer.active():
                timer.cancel()

    async def _dial(self, bridge: Bridge, stream: IStream, dialect: Dialect, preamble: Preamble) -> None:
        """Give the bridge its TCP side; given up when the bridge ends first."""

        def connected(dialled: Dialled) -> Bridge:
            if answer := dialect.formatDialled(dialled if preamble.isTimed else Dialled(dialled.address)):
                stream.write(answer)
            return bridge

        dialling = self._targets.dial(preamble.host, preamble.port, connected)

        def ended(totals: Totals) -> Totals:
            dialling.cancel()
            return totals

        bridge.ended.addCallback(ended)
        await dialling

    def _logEnd(self, conversation: Conversation, preamble: Preamble | None, totals: Totals, seconds: float) -> None:
        if not self._mayTell():
            return
        reason = str(totals.error or totals.ending)
        if preamble is None:
            self._tellRefused(conversation, totals.ending, reason)
            return
        visitor = preamble.visitor
        tell(
            self._log,
            "connection.ended",
            connection=preamble.connectionId,
            peer=place(*visitor) if visitor else None,
            port=preamble.entryPort,
            uid=conversation.uid,
            session=conversation.session.sessionId,
            target=place(preamble.host, preamble.port),
            seconds=round(seconds, 3),
            bytesIn=totals.toTcp,
            bytesOut=totals.toStream,
            code=totals.ending,
            reason=reason,
        )

    def _tellRefused(self, conversation: Conversation, code: str, reason: str) -> None:
        name = conversation.session.sessionId
        tell(self._log, "stream.refused", uid=conversation.uid, session=name, code=code, reason=reason)
