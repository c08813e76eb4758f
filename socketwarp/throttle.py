"""Token buckets: so many at once, and so many a second. Pure: time comes in as a number, in seconds."""

import attrs


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
