"""Time that passes evenly."""

from time import CLOCK_BOOTTIME

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import steady
from socketwarp.steady import keepSteady


class SteadyTests(SynchronousTestCase):
    """What the reactor counts while the system's clock is set."""

    def setUp(self) -> None:
        self.wall, self.passed = 1_800_000_000.0, 50.0
        self.patch(steady, "time", lambda: self.wall)
        self.patch(steady, "clock_gettime", self.seconds)

    def seconds(self, clock: int) -> float:
        """Since the computer was started, those in which it was suspended included."""
        self.assertEqual(CLOCK_BOOTTIME, clock)
        return self.passed

    def test_itBeginsWithPosixTimeAndPassesWhateverTheClockIsSetTo(self) -> None:
        reactor = Clock()
        keepSteady(reactor)
        for step in (3600.0, -7200.0):
            self.wall += step
            self.passed += 1.5
        self.assertEqual(1_800_000_003.0, reactor.seconds())

    def test_timersOfTwistedsReactorGoByIt(self) -> None:
        self.patch(ReactorBase, "installWaker", lambda reactor: None)
        reactor = ReactorBase()
        keepSteady(reactor)
        called: list[str] = []
        reactor.callLater(2.0, called.append, "due")
        self.wall -= 3600
        self.assertAlmostEqual(2.0, reactor.timeout() or 0.0)
        self.passed += 2.0
        reactor.runUntilCurrent()
        self.assertEqual(["due"], called)
