"""How long to wait between attempts."""

from collections.abc import Callable
from math import inf

import attrs

#: After so many failures the pause has long reached its cap; counting on would only make 2**failures large.
_MOST_FAILURES = 30


@attrs.define
class Backoff:
    """
    Exponential back-off with full jitter: a random part of a pause that doubles up to its cap, so that many
    connectors that lost a listener together don't come back together (AWS Architecture Blog, "Exponential Backoff And
    Jitter", 2015).

    :ivar base: the first pause before the jitter, seconds; ``cap``: the longest, seconds.
    :ivar random: a number in [0, 1).
    """

    base: float
    cap: float
    random: Callable[[], float]
    _failures: int = attrs.field(default=0, init=False)

    def next(self, most: float = inf) -> float:
        """
        The pause after one more failure, seconds.

        :param most: the longest that it may be; those that follow don't grow beyond it on this failure's account.
        """
        longest = min(self.cap, self.base * (1 << self._failures))
        if longest < most:
            self._failures = min(self._failures + 1, _MOST_FAILURES)
        return self.random() * min(longest, most)

    def longest(self) -> float:
        """The longest pause, without jitter, seconds: for one who is not to come back soon."""
        self._failures = _MOST_FAILURES
        return self.cap

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0
