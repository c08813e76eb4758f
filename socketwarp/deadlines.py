"""Time limits of one length, for many things at a time, by one call of the reactor instead of one for each of them."""

from collections.abc import Callable, Hashable
from itertools import islice, takewhile

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadlines:
    """
    Calls what has not ended within a time.

    All have the same time, so they are due in the order in which they began: a dict is queue enough.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._due: dict[Hashable, tuple[float, Callable[[], object]]] = {}
        self._call: IDelayedCall | None = None

    def begin(self, key: Hashable, late: Callable[[], object]) -> None:
        """Call `late` when the time is over, unless `end` is called with the same key before; once for each key."""
        self._due[key] = (self._clock.seconds() + self.seconds, late)
        if self._call is None:
            self._call = self._clock.callLater(self.seconds, self._look)

    def end(self, key: Hashable) -> None:
        """It has ended in time, or isn't among those that may be late."""
        self._due.pop(key, None)

    def stop(self) -> None:
        """Call nobody any more."""
        self._due.clear()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        now = self._clock.seconds()
        late = list(takewhile(lambda item: item[1][0] <= now, self._due.items()))
        following = next(islice(self._due.values(), len(late), None), None)
        if following is not None:
            self._call = self._clock.callLater(following[0] - now, self._look)
        for key, due in late:
            if self._due.get(key) is due:  # else it ended meanwhile, because another one was late
                del self._due[key]
                due[1]()
