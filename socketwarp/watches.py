"""What a bridge would not hear of by itself: silence."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Silence is looked for so many times in its time, so it is found at most a quarter late.
IDLE_CHECKS = 4


class IdleWatch:
    """Finds out that a count has stood still for a time; nothing is noted when it moves."""

    def __init__(self, clock: IReactorTime, limit: float, count: Callable[[], int], idle: Callable[[], None]) -> None:
        """
        :param limit: seconds.
        :param count: what should move.
        :param idle: called once, when it hasn't.
        """
        self._clock = clock
        self._limit = limit
        self._count = count
        self._idle = idle
        self._seen = count()
        self._quiet = 0
        self._timer = self._later()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer.active():
            self._timer.cancel()

    def _later(self) -> IDelayedCall:
        return self._clock.callLater(self._limit / IDLE_CHECKS, self._check)

    def _check(self) -> None:
        count = self._count()
        self._quiet = self._quiet + 1 if count == self._seen else 0
        self._seen = count
        if self._quiet == IDLE_CHECKS:
            self._idle()
        else:
            self._timer = self._later()
