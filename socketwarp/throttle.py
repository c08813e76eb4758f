"""Token buckets: so many at once, and so many a second. Pure: time comes in as a number, in seconds."""

import attrs

#: Seconds without a line once there have been too many; then comes how many there were, once in that time. With a
#: bucket alone that would be said between any two lines.
QUIET_SECONDS = 10.0


@attrs.define
class Bucket:
    """
    Lets `burst` things through at once, and `rate` of them a second after that.

    :ivar rate: things a second.
    """

    rate: float
    burst: float
    _level: float = attrs.field(init=False)
    _last: float | None = attrs.field(default=None, init=False)

    @_level.default
    def _full(self) -> float:
        return self.burst

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Let one through, or as much as `amount`; whether there was room. The time may stand still or go back."""
        self._fill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def wait(self, now: float, amount: float) -> float:
        """How long until there is room for `amount`, which is at most `burst`; seconds, 0 when there is."""
        self._fill(now)
        return max(0.0, amount - self._level) / self.rate

    def _fill(self, now: float) -> None:
        if self._last is not None and now > self._last:
            level = self._level + (now - self._last) * self.rate
            self._level = level if level < self.burst else self.burst
        self._last = now


@attrs.define
class Lines:
    """
    Lets as many lines of one kind through as `Bucket` does; after one too many, none for `QUIET_SECONDS`.

    :ivar rate: lines a second.
    """

    rate: float
    burst: float
    _bucket: Bucket = attrs.field(init=False)
    _untold: int = attrs.field(default=0, init=False)
    _quietSince: float = attrs.field(default=0.0, init=False)

    @_bucket.default
    def _makeBucket(self) -> Bucket:
        return Bucket(self.rate, self.burst)

    def take(self, now: float) -> int | None:
        """How many were kept back before this one, which may go; `None` if it may not. The time may go back."""
        isQuiet = self._untold and 0 <= now - self._quietSince < QUIET_SECONDS
        if isQuiet or not self._bucket.take(now):
            self._quietSince = self._quietSince if isQuiet else now
            self._untold += 1
            return None
        untold, self._untold = self._untold, 0
        return untold
