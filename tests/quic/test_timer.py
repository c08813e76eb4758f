"""A timer that is set often and fires rarely."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.timer import Timer


class TimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fired: list[float] = []
        self.timer = Timer(self.clock, lambda: self.fired.append(self.clock.seconds()))

    def test_itIsBroughtForwardAtOnce(self) -> None:
        self.timer.set(5.0, 0.0)
        self.timer.set(2.0, 0.0)
        self.clock.pump([1.0] * 6)
        self.assertEqual([2.0], self.fired)

    def test_puttingItOffIsLeftToWhoeverIsCalledEarly(self) -> None:
        self.timer.set(2.0, 0.0)
        [call] = self.clock.getDelayedCalls()
        self.timer.set(5.0, 0.0)
        self.assertEqual([call], self.clock.getDelayedCalls())
        self.clock.advance(2.0)
        self.assertEqual([2.0], self.fired)
        self.timer.set(5.0, 2.0)
        self.clock.advance(3.0)
        self.assertEqual([2.0, 5.0], self.fired)

    def test_cancelledItDoesNotFireAndCanBeSetAgain(self) -> None:
        self.timer.cancel()
        self.timer.set(1.0, 0.0)
        self.timer.cancel()
        self.clock.advance(2.0)
        self.assertEqual([], self.fired)
        self.timer.set(3.0, 2.0)
        self.clock.advance(1.0)
        self.assertEqual([3.0], self.fired)
