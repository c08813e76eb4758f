"""Token buckets."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.throttle import QUIET_SECONDS, Bucket, Lines


class BucketTests(SynchronousTestCase):
    """So many at once, and so many a second."""

    @given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.1, 10), st.floats(1, 10))
    def test_neverMoreThanItSays(self, waits: list[float], rate: float, burst: float) -> None:
        bucket, now, taken = Bucket(rate, burst), 0.0, 0
        for wait in waits:
            now += wait
            taken += bucket.take(now)
        self.assertLessEqual(taken, burst + now * rate + 1e-6)

    def test_aClockThatGoesBackGivesNothing(self) -> None:
        bucket = Bucket(1, 1)
        self.assertEqual([True, False, False], [bucket.take(now) for now in (100, 50, 50.5)])


class LinesTests(SynchronousTestCase):
    """What is kept back is summed up once in a while."""

    def test_afterOneTooManyThereIsNoneForAWhile(self) -> None:
        lines = Lines(1, 2)
        self.assertEqual([0, 0, None, None], [lines.take(now) for now in (0, 0, 0, 2)])
        self.assertEqual([None, 3, 0], [lines.take(now) for now in (QUIET_SECONDS - 0.1, QUIET_SECONDS, QUIET_SECONDS)])

    def test_aClockThatGoesBackKeepsNothingBack(self) -> None:
        lines = Lines(1, 1)
        self.assertEqual([0, None], [lines.take(1000), lines.take(1000)])
        self.assertEqual([None, 2], [lines.take(0), lines.take(QUIET_SECONDS)])
