"""
A process's budget of memory: what its sessions hold is added up, and before it is too much, something is done about it.

First sessions are told to save memory, which slows down what is read; when that isn't enough, no more visitors are let
in. Both last until a good deal is free again, so that they don't come and go every second.
"""

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .interfaces import ISession

#: Seconds between two looks. In one, a gigabit link brings 125 MB: an eighth of the budget that is the default.
LOOK_SECONDS = 1.0
#: Bytes that a stream costs besides those that it holds: what an idle connection may take, both ends together.
STREAM_BYTES = 20_000
#: Shares of the budget: sessions save memory from the first on, until less than the second is held.
SHORT, EASED = 0.75, 0.60
#: The same for letting nobody in.
FULL, ROOM = 1.0, 0.90


@attrs.define(eq=False)
class MemoryBudget:
    """
    Watches what sessions hold. There is a timer only while there are sessions.

    :ivar limit: bytes that the sessions may hold together; 0: as much as they like.
    """

    _clock: IReactorTime
    limit: int
    _full: Callable[[bool], None]  # told that it is used up, and that there is room again
    _sessions: set[ISession] = attrs.field(factory=set, init=False)
    _isShort: bool = attrs.field(default=False, init=False)
    _isFull: bool = attrs.field(default=False, init=False)
    _timer: IDelayedCall | None = attrs.field(default=None, init=False)

    _log = Logger()

    def watch(self, session: ISession) -> None:
        """Count a session in, from now to its end."""
        if not self.limit:
            return
        self._sessions.add(session)
        session.whenClosed().addCallback(lambda _: self._gone(session))
        if self._isShort:
            session.saveMemory(True)
        if self._timer is None:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)

    def _gone(self, session: ISession) -> None:
        self._sessions.discard(session)
        if not self._sessions and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._judge(0)

    def _look(self) -> None:
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
        figures = [session.statistics() for session in self._sessions]
        self._judge(sum(each.buffered + STREAM_BYTES * each.streams for each in figures))

    def _judge(self, held: int) -> None:
        isShort = held >= self.limit * (EASED if self._isShort else SHORT)
        isFull = held >= self.limit * (ROOM if self._isFull else FULL)
        if isShort != self._isShort:
            self._isShort = isShort
            self._log.info(
                "connections hold {held} bytes of memory, of {limit} that they may: they are {pace}",
                held=held,
                limit=self.limit,
                pace="slowed down" if isShort else "slowed down no more",
            )
            for session in self._sessions:
                session.saveMemory(isShort)
        if isFull != self._isFull:
            self._isFull = isFull
            self._full(isFull)
