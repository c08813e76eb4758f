"""CUBIC and pacing, as arithmetic."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.congestion import (
    BETA,
    BURST_DATAGRAMS,
    INITIAL_WINDOW,
    LOSS_SAMPLE,
    LOSS_TOLERANCE,
    MINIMUM_WINDOW,
    PACING_GAIN,
    PACING_RTT,
    SLOW_START_GAIN,
    C,
    Cubic,
    Pacer,
)

SIZE = 1200
RTT = 0.05


def send(cubic: Cubic, size: int) -> None:
    cubic.inFlight += size


def roundTrip(cubic: Cubic, now: float) -> None:
    """A whole window is sent, and acknowledged a round trip later."""
    size = cubic.window
    send(cubic, size)
    cubic.onAcknowledged(size, now, now + RTT, RTT)


class CubicTests(SynchronousTestCase):
    def test_slowStartDoublesTheWindowEachRoundTrip(self) -> None:
        cubic = Cubic(SIZE)
        for number in range(5):
            self.assertEqual(INITIAL_WINDOW * SIZE * 2**number, cubic.window)
            self.assertTrue(cubic.isInSlowStart)
            roundTrip(cubic, number * RTT)
        self.assertEqual(0, cubic.inFlight)

    def test_aLossReducesTheWindowTo70PercentOnceARoundTrip(self) -> None:
        cubic = Cubic(SIZE)
        cubic.window = 100 * SIZE
        send(cubic, 3 * SIZE)
        cubic.onLost(SIZE, 1.0, 1.1, True)
        self.assertEqual(70 * SIZE, cubic.window)
        self.assertFalse(cubic.isInSlowStart)
        cubic.onLost(SIZE, 1.05, 1.15, True)  # sent before the reduction
        self.assertEqual(70 * SIZE, cubic.window)
        cubic.onLost(SIZE, 1.12, 1.2, True)
        self.assertApproximates(49 * SIZE, cubic.window, 1)
        self.assertEqual(0, cubic.inFlight)

    def test_theWindowDoesNotGrowFromWhatWasSentBeforeTheReduction(self) -> None:
        cubic = Cubic(SIZE)
        cubic.window = 100 * SIZE
        send(cubic, 2 * SIZE)
        cubic.onLost(SIZE, 1.0, 1.1, True)
        cubic.onAcknowledged(SIZE, 1.05, 1.15, RTT)
        self.assertEqual((70 * SIZE, 0), (cubic.window, cubic.inFlight))

    def test_theWindowDoesNotGrowWhenTheApplicationIsTheLimit(self) -> None:
        """RFC 9002 §7.8."""
        cubic = Cubic(SIZE)
        cubic.isLimiting = False
        send(cubic, 5 * SIZE)
        cubic.onAcknowledged(5 * SIZE, 1.0, 1.1, RTT)
        self.assertEqual((INITIAL_WINDOW * SIZE, 0), (cubic.window, cubic.inFlight))

    def test_theWindowNeverFallsBelowTwoDatagrams(self) -> None:
        cubic = Cubic(SIZE)
        for number in range(30):
            cubic.onLost(0, number + 0.5, number + 1, True)
        self.assertEqual(MINIMUM_WINDOW * SIZE, cubic.window)

    def test_persistentCongestionLeavesTheMinimumAndStartsAnew(self) -> None:
        cubic = Cubic(SIZE)
        cubic.window = 100 * SIZE
        cubic.onLost(0, 1.0, 1.1, True)
        cubic.onPersistentCongestion()
        self.assertEqual(MINIMUM_WINDOW * SIZE, cubic.window)
        self.assertTrue(cubic.isInSlowStart)
        cubic.onAcknowledged(SIZE, 1.0, 1.2, RTT)
        self.assertEqual((MINIMUM_WINDOW + 1) * SIZE, cubic.window)

    def test_theWindowIsBackWhereItWasAfterTheCubicsTime(self) -> None:
        """RFC 9438 §4.2: K = cbrt((W_max - cwnd) / C) seconds."""
        cubic = Cubic(SIZE)
        cubic.window = 1000 * SIZE
        cubic.onLost(0, 1.0, 1.0, True)
        now = 1.0
        while now < 1 + math.cbrt(1000 * (1 - BETA) / C):
            now += RTT
            roundTrip(cubic, now)
        self.assertApproximates(1000 * SIZE, cubic.window, 10 * SIZE)

    def test_theCubicsTimeStandsStillWhileTheApplicationIsTheLimit(self) -> None:
        """RFC 9438 §5.8: after a pause of a minute the window goes on growing from where it was."""
        windows = []
        for pause in (0.0, 60.0):
            cubic, now = Cubic(SIZE), 1.0
            cubic.window = 1000 * SIZE
            cubic.onLost(0, now, now, True)
            for turn in range(20):
                if turn == 10:
                    cubic.onStopped(False, now)
                    cubic.onStopped(False, now + pause / 3)
                    now += pause
                    cubic.onStopped(True, now)
                    cubic.onStopped(True, now + RTT / 2)
                now += RTT
                roundTrip(cubic, now)
            windows.append(cubic.window)
        self.assertApproximates(windows[0], windows[1], 2)

    def test_itGrowsAtLeastAsRenoWouldOnShortPaths(self) -> None:
        """RFC 9438 §4.3, the Reno-friendly region."""
        cubic = Cubic(SIZE)
        cubic.window = 20 * SIZE
        cubic.onLost(0, 1.0, 1.0, True)
        window, now = cubic.window / SIZE, 1.0
        for _ in range(10):
            now += 0.001
            size = cubic.window
            send(cubic, size)
            cubic.onAcknowledged(size, now, now + 0.001, 0.001)
        self.assertGreaterEqual(cubic.window / SIZE, window + 10 * 0.5)

    def test_aSecondLossBelowTheFirstLeavesRoomForOthers(self) -> None:
        """Fast convergence, RFC 9438 §4.7: the plateau is lower than the window at the loss."""
        cubic = Cubic(SIZE)
        cubic.window = 100 * SIZE
        cubic.onLost(0, 1.0, 1.0, True)
        cubic.onLost(0, 1.5, 2.0, True)
        self.assertAlmostEqual(70 * (1 + BETA) / 2, cubic._maximum)

    def test_aNewPathBeginsAgain(self) -> None:
        cubic = Cubic(SIZE)
        send(cubic, SIZE)
        cubic.onLost(0, 1.0, 1.0, True)
        cubic.restart(1400)
        self.assertEqual((INITIAL_WINDOW * 1400, True, SIZE), (cubic.window, cubic.isInSlowStart, cubic.inFlight))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(("ack", "lost", "expired")), st.integers(1, 40)), max_size=80))
    def test_whateverHappensTheWindowGrowsByNoMoreThanWasAcknowledged(self, steps: list[tuple[str, int]]) -> None:
        cubic, now = Cubic(SIZE), 1.0
        for kind, count in steps:
            now += 0.01
            size, before = count * SIZE, cubic.window
            send(cubic, size)
            if kind == "ack":
                cubic.onAcknowledged(size, now - RTT, now, RTT)
                self.assertTrue(before <= cubic.window <= before + size + 1)
            elif kind == "lost":
                cubic.onLost(size, now - RTT, now, True)
                self.assertTrue(max(MINIMUM_WINDOW * SIZE, int(before * BETA)) <= cubic.window <= before)
            else:
                cubic.onExpired(size)
                self.assertEqual(before, cubic.window)
            self.assertEqual(0, cubic.inFlight)


class PacerTests(SynchronousTestCase):
    def test_shortPathsAreNotPaced(self) -> None:
        pacer, cubic = Pacer(), Cubic(SIZE)
        pacer.setRate(cubic, PACING_RTT * 0.9)
        pacer.onSent(10**9)
        self.assertEqual(math.inf, pacer.credit(1.0))
        self.assertEqual(1.0, pacer.nextTime(1.0))

    def test_aWindowIsSpreadOverTheRoundTrip(self) -> None:
        for threshold, gain in ((math.inf, SLOW_START_GAIN), (0, PACING_GAIN)):
            pacer, cubic = Pacer(), Cubic(SIZE)
            cubic.window, cubic.threshold = 1000 * SIZE, threshold
            pacer.setRate(cubic, RTT)
            now, sent = 10.0, 0.0
            pacer.onSent(int(pacer.credit(now)))
            for _ in range(1000):  # a second
                now += 0.001
                credit = int(pacer.credit(now))
                pacer.onSent(credit)
                sent += credit
            self.assertApproximates(gain * cubic.window / RTT, sent, sent / 100)

    def test_aBurstIsBoundedHoweverLongNothingWasSent(self) -> None:
        pacer, cubic = Pacer(), Cubic(SIZE)
        pacer.setRate(cubic, RTT)
        pacer.credit(0.0)
        self.assertEqual(BURST_DATAGRAMS * SIZE, pacer.credit(1000.0))

    def test_theNextTimeIsWhenHalfABurstMayGo(self) -> None:
        pacer, cubic = Pacer(), Cubic(SIZE)
        pacer.setRate(cubic, RTT)
        burst = pacer.credit(10.0)
        pacer.onSent(int(burst))
        when = pacer.nextTime(10.0)
        self.assertApproximates(burst / 2, pacer.credit(when), 1)
        self.assertGreaterEqual(pacer.nextTime(when), when + 0.001)


class ToleranceTests(SynchronousTestCase):
    """Losses that aren't congestion."""

    def test_aLossWithoutAQueueLeavesTheWindow(self) -> None:
        cubic = Cubic(SIZE)
        cubic.onLost(SIZE, 1.0, 1.1, False)
        self.assertTrue(cubic.isInSlowStart)
        self.assertEqual(Cubic(SIZE).window, cubic.window)

    def test_moreThanTheToleratedShareIsCongestionWithoutAQueue(self) -> None:
        cubic = Cubic(SIZE)
        cubic.inFlight = 2000 * SIZE
        before = cubic.window
        for number in range(int(LOSS_TOLERANCE * LOSS_SAMPLE) + 1):
            self.assertEqual(before, cubic.window)
            cubic.onLost(SIZE, 1.0 + number, 1.5 + number, False)
        self.assertEqual(int(before * BETA), cubic.window)

    def test_oldLossesAreForgotten(self) -> None:
        cubic = Cubic(SIZE)
        cubic.inFlight = 100_000 * SIZE
        cubic.isLimiting = False  # the window stands still
        for number in range(100):  # 1 %, for long
            cubic.onAcknowledged(99 * SIZE, float(number), number + 0.1, 0.1)
            cubic.onLost(SIZE, float(number), number + 0.1, False)
        self.assertEqual(Cubic(SIZE).window, cubic.window)
