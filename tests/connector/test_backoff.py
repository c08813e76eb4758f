"""Pauses between attempts."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    """Exponential, capped, with full jitter."""

    def test_doublesUpToTheCap(self) -> None:
        """And stays there, however often it fails."""
        backoff = Backoff(1.0, 60.0, lambda: 1.0)
        self.assertEqual([backoff.next() for _ in range(9)], [1, 2, 4, 8, 16, 32, 60, 60, 60])
        for _ in range(2000):
            backoff.next()
        self.assertEqual(backoff.next(), 60.0)

    def test_resetBeginsAgain(self) -> None:
        """After a session that held."""
        backoff = Backoff(1.0, 60.0, lambda: 1.0)
        backoff.next()
        backoff.next()
        backoff.reset()
        self.assertEqual(backoff.next(), 1.0)

    def test_aPauseWithALimitDoesNotMakeThoseAfterItLonger(self) -> None:
        """Than twice the limit, that is; and one that was long already is still long afterwards."""
        backoff = Backoff(1.0, 60.0, lambda: 1.0)
        self.assertEqual([backoff.next(2.0) for _ in range(5)], [1, 2, 2, 2, 2])
        self.assertEqual([backoff.next() for _ in range(4)], [2, 4, 8, 16])
        self.assertEqual([backoff.next(2.0), backoff.next()], [2, 32])

    def test_theLongestHasNoJitter(self) -> None:
        """One who was superseded stays away for all of it, and longer pauses follow."""
        backoff = Backoff(1.0, 60.0, lambda: 0.5)
        self.assertEqual(backoff.longest(), 60.0)
        self.assertEqual(backoff.next(), 30.0)

    @given(st.lists(st.floats(0, 1, exclude_max=True), max_size=50))
    def test_jitterIsFull(self, numbers: list[float]) -> None:
        """Each pause is the random part of its bound."""
        drawn = iter(numbers)
        backoff = Backoff(1.0, 60.0, lambda: next(drawn))
        for failures, number in enumerate(numbers):
            self.assertEqual(backoff.next(), number * min(60.0, 2.0**failures))
