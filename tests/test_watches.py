"""What a bridge would not hear of by itself."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.watches import IDLE_CHECKS, IdleWatch


class IdleWatchTests(SynchronousTestCase):
    """A count that stands still."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.count = 0
        self.idle: list[float] = []
        self.watch = IdleWatch(self.clock, 100, lambda: self.count, lambda: self.idle.append(self.clock.seconds()))

    def pass_(self, times: int) -> None:
        for _ in range(times):
            self.clock.advance(100 / IDLE_CHECKS)

    def test_aCountThatNeverMovesIsIdleAfterTheLimitOnce(self) -> None:
        self.pass_(20)
        self.assertEqual([100.0], self.idle)
        self.watch.stop()

    def test_aCountThatMovesIsNotIdle(self) -> None:
        for _ in range(10):
            self.count += 1
            self.pass_(IDLE_CHECKS)
        self.assertEqual([], self.idle)

    def test_aStoppedWatchLeavesNoTimer(self) -> None:
        self.watch.stop()
        self.watch.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
