"""A session's timer, which is set anew with every turn and hardly ever fires: to put it off costs nothing."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """Calls `fired` at a time that may be changed as often as one likes; it may come early, and is set anew then."""

    __slots__ = ("_at", "_call", "_clock", "_fired")

    def __init__(self, clock: IReactorTime, fired: Callable[[], None]) -> None:
        self._clock = clock
        self._fired = fired
        self._call: IDelayedCall | None = None
        self._at = 0.0

    def set(self, when: float, now: float) -> None:
        """Fire at `when`, or before it if that was said already; both by the clock, in seconds."""
        if self._call is None:
            self._call = self._clock.callLater(when - now, self._fire)
        elif when < self._at:
            self._call.reset(when - now)
        else:
            return
        self._at = when

    def cancel(self) -> None:
        """Don't fire."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def end(self) -> None:
        """Never fire again, and forget whom to tell, who holds this."""
        self.cancel()
        self._fired = _nobody

    def _fire(self) -> None:
        self._call = None
        self._fired()


def _nobody() -> None:
    """Whom a timer tells that has ended."""
