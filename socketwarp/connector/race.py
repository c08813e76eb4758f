"""Several ways to a session, each begun a little after the one before, until one of them gives it (RFC 8305)."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Code, SocketwarpError
from ..interfaces import ISession
from .events import tell
from .refusals import explain

W = TypeVar("W")
#: Seconds after which a way that failed is gone again, if it is worth it: a listener that is restarted refuses TCP, and
#: is back in a few; visitors wait for its connectors for 5 (SWL_PARK_SECONDS).
REPEAT_SECONDS = 1.0


def _never(way: object, error: BaseException) -> bool:
    return False


class Race(Generic[W]):
    """
    One race.

    The first session wins, and the others are given up before they have said anything: a listener asks who somebody is
    only after hello. One that speaks nothing but hq-29 can't tell two sessions of one connector from two connectors;
    but it is the original, and refuses the second.
    """

    _log = Logger(namespace="socketwarp.connector.attempt")

    def __init__(
        self,
        ways: Sequence[W],
        stagger: float,
        clock: IReactorTime,
        connect: Callable[[W], Deferred[ISession]],
        name: Callable[[W], str],
        decides: Callable[[W, BaseException], bool] = _never,
        repeats: Callable[[W, BaseException], bool] = _never,
    ) -> None:
        """
        :param ways: at least one, in the order in which they are begun.
        :param stagger: seconds after which the next is begun beside those that haven't answered; one that fails is
            followed at once.
        :param connect: goes one way; fails with `errors.SocketwarpError` or `OSError`.
        :param name: a way, for the log.
        :param decides: whether a failure on one way is everybody's.
        :param repeats: whether a way that failed is gone again after `REPEAT_SECONDS`, beside those that still run, and
            not once none does; true of one way at most.
        """
        self._ways = list(ways)
        self._stagger = stagger
        self._clock = clock
        self._connect = connect
        self._name = name
        self._decides = decides
        self._repeats = repeats
        self._running: list[Deferred[None]] = []
        self._call: IDelayedCall | None = None
        self._repeat: IDelayedCall | None = None
        self._won: Deferred[tuple[W, ISession]] = Deferred(lambda _: self._giveUp())

    def run(self) -> Deferred[tuple[W, ISession]]:
        """Fires with the winner; fails with the reason of the last that failed. Cancelling gives all up."""
        self._next()
        return self._won

    def _next(self) -> None:
        self._call = None
        way = self._ways.pop(0)
        if self._ways:
            self._call = self._clock.callLater(self._stagger, self._next)
        self._go(way)

    def _go(self, way: W) -> None:
        connecting = maybeDeferred(self._connect, way)
        entry: Deferred[None] = connecting.addCallback(self._succeeded, way)
        self._running.append(entry)
        entry.addErrback(self._failed, way, entry)

    def _succeeded(self, session: ISession, way: W) -> None:
        if self._won.called:
            session.close(Code.NO_ERROR, "another way was faster")
            return
        won = self._won
        self._stopTimers()
        won.callback((way, session))
        self._giveUp()

    def _failed(self, failure: Failure, way: W, entry: Deferred[None]) -> None:
        self._running.remove(entry)
        if self._won.called:
            return
        error = failure.value
        if not isinstance(error, SocketwarpError | OSError) or self._decides(way, error):
            self._won.errback(failure)
            self._giveUp()
            return
        if self._ways:
            tell(self._log, "attempt.failed", way=self._name(way), reason=explain(error))
            if self._call is not None:
                self._call.cancel()
            self._next()
        elif not self._running:
            self._stopTimers()
            self._won.errback(failure)
        if self._running and not self._won.called and self._repeats(way, error):
            self._repeat = self._clock.callLater(REPEAT_SECONDS, self._goAgain, way)

    def _goAgain(self, way: W) -> None:
        self._repeat = None
        self._go(way)

    def _giveUp(self) -> None:
        self._stopTimers()
        for entry in tuple(self._running):
            entry.cancel()

    def _stopTimers(self) -> None:
        for call in (self._call, self._repeat):
            if call is not None:
                call.cancel()
        self._call = self._repeat = None
