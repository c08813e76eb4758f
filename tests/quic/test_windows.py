"""Receive windows that grow, and whose bytes count against the session."""

import math

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.windows import STREAM_LIMIT, Window

from .test_streams import STREAM, StreamsCase


class WindowTests(SynchronousTestCase):
    def test_aWindowThatHoldsTheSenderBackGrowsUnlessMemoryIsShort(self) -> None:
        for isShort, expected in ((False, 2000), (True, 1000)):
            window = Window(1000, 1 << 20)
            window.onGranted(500, 10.0, 0.1, not isShort)
            window.onGranted(1000, 10.1, 0.1, not isShort)
            self.assertEqual(expected, window.size)
            window.onGranted(2000, 20.0, 0.1, not isShort)
            self.assertEqual(expected, window.size)

    def test_aWindowThatIsConsumedAtOnceIsLookedAtByTheHalf(self) -> None:
        """All of it in three round trips holds the sender back, half of it in three doesn't."""
        for taken, expected in ((500, 1000), (1000, 2000)):
            window = Window(1000, 1 << 20)
            window.onGranted(500, 10.0, 0.1, True)
            window.onGranted(500 + taken, 10.3, 0.1, True)
            self.assertEqual(expected, window.size)

    def test_itDoesNotGrowWhileTheRoundTripIsUnknown(self) -> None:
        window = Window(1000, 1 << 20)
        window.onGranted(500, 10.0, 0.1, True)
        window.onGranted(1000, 10.1, math.inf, True)
        self.assertEqual(1000, window.size)

    def test_aWindowGrowsToItsMaximumAndNeverShrinks(self) -> None:
        window = Window(STREAM_LIMIT - 1, STREAM_LIMIT)
        window.onGranted(STREAM_LIMIT, 0.01, 1.0, True)
        self.assertEqual(STREAM_LIMIT, window.size)
        large = Window(2 * STREAM_LIMIT, STREAM_LIMIT)
        large.onGranted(STREAM_LIMIT, 0.01, 1.0, True)
        self.assertEqual(2 * STREAM_LIMIT, large.size)


class PausedTests(StreamsCase):
    """Readers who don't read cost their own windows, not those of others."""

    def test_whatWaitsForAPausedReaderIsNotCountedAgainstTheSession(self) -> None:
        for streamId in (0, 4, 8, 12):
            self.receive(streamId, 0, 500)
            self.streams.pause(self.streams.states[streamId], True)
        self.assertTrue(self.streams.maxDataDue)
        self.assertEqual(2500 + 2000, self.streams.grantData(1.0, 0.0))

    def test_whatComesForAPausedReaderIsNotEither(self) -> None:
        self.receive(0, 0, 1)
        self.streams.pause(self.streams.states[0], True)
        self.streams.onStream(STREAM, 0, 0, bytes(1000), False)
        self.streams.onStream(STREAM | 4, 4, 0, bytes(1000), False)  # nobody reads this one yet
        self.assertEqual(2500 + 2000, self.streams.grantData(1.0, 0.0))

    def test_aReaderThatGoesOnIsCountedAgainButNothingIsTakenBack(self) -> None:
        self.receive(0, 0, 1000)
        state = self.streams.states[0]
        self.streams.pause(state, True)
        self.assertEqual(3500, self.streams.grantData(1.0, 0.0))
        self.streams.pause(state, False)
        self.assertEqual(3500, self.streams.grantData(2.0, 0.0))
        self.consume(state)
        self.assertEqual(3500, self.streams.grantData(3.0, 0.0))
        self.assertEqual(0, self.streams._held)

    def test_whenMemoryIsShortItIsCounted(self) -> None:
        self.receive(0, 0, 1000)
        self.streams.isMemoryShort = True
        self.streams.pause(self.streams.states[0], True)
        self.assertEqual(2500, self.streams.grantData(1.0, 0.0))

    def test_aResetStreamHoldsNothing(self) -> None:
        self.receive(0, 0, 1000)
        self.streams.pause(self.streams.states[0], True)
        self.streams.onReset(0, 1, 1000)
        self.assertEqual((0, 1000), (self.streams._held, self.streams._consumed))
