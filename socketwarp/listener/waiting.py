"""Visitors that wait for a connector to come, or to come back."""

from collections.abc import Callable
from functools import partial

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from ..errors import LimitReached, SocketwarpError
from .roster import Connector

#: Visitors, over all uids, that may wait at a time.
WAITING_LIMIT = 4096
#: Seconds between looks, while somebody waits for a silent connector, whether it has been heard of again.
LISTEN_SECONDS = 0.25


@attrs.define(eq=False)
class WaitingRoom:
    """Who waits for which uid, in the order in which they came."""

    # A dictionary is a set that remembers the order.
    _waiting: dict[str, dict[Deferred[Connector], None]] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)
    _isListening: bool = attrs.field(default=False, init=False)

    def wait(self, uid: str) -> Deferred[Connector]:
        """
        Wait for a connector; without end, so put a time-out on it. Cancelling gives the place up.

        Fails with `errors.LimitReached` when too many wait already.
        """
        if self._count >= WAITING_LIMIT:
            return fail(LimitReached(f"{WAITING_LIMIT} visitors wait for their connectors already"))
        d: Deferred[Connector] = Deferred(partial(self._giveUp, uid))
        self._waiting.setdefault(uid, {})[d] = None
        self._count += 1
        return d

    def _giveUp(self, uid: str, d: Deferred[Connector]) -> None:
        waiting = self._waiting[uid]
        del waiting[d]
        self._count -= 1
        if not waiting:
            del self._waiting[uid]

    def serve(self, connector: Connector) -> None:
        """A connector is there: it gets all who wait for it."""
        waiting = self._waiting.pop(connector.uid, {})
        self._count -= len(waiting)
        for d in waiting:
            d.callback(connector)

    def listen(self, clock: IReactorTime, audible: Callable[[str], Connector | None]) -> None:
        """Look for one that has been heard of again (`audible`, by uid) now and then, as long as somebody waits."""
        if not self._isListening:
            self._isListening = True
            clock.callLater(LISTEN_SECONDS, self._look, clock, audible)

    def _look(self, clock: IReactorTime, audible: Callable[[str], Connector | None]) -> None:
        self._isListening = False
        for uid in tuple(self._waiting):
            connector = audible(uid)
            if connector is not None:
                self.serve(connector)
        if self._waiting:
            self.listen(clock, audible)

    def disappoint(self, error: SocketwarpError) -> None:
        """Nobody will come any more: all who wait fail with the error."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for each in waiting.values():
            for d in each:
                d.errback(error)
