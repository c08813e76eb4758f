"""When reading a slow link may wait: what counts as bulk, and how slowly it must come."""

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.coalescing import BULK_BYTES, FAST, PIECE_BYTES, SLOW_READS, STEADY_SECONDS, Bulk, Pace


class BulkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bulk = Bulk()

    def test_itTakesSoManyBytes(self) -> None:
        self.assertFalse(self.bulk.add(BULK_BYTES - 1))
        self.assertTrue(self.bulk.add(PIECE_BYTES))
        self.assertTrue(self.bulk.isOne)

    def test_smallPiecesNeverBecomeBulk(self) -> None:
        for _ in range(BULK_BYTES):
            self.assertFalse(self.bulk.add(PIECE_BYTES - 1))

    def test_aFewSmallPiecesAmongItDoNotMatter(self) -> None:
        self.bulk.add(100 * BULK_BYTES)
        self.assertEqual([True, True, False], [self.bulk.add(1) for _ in range(3)])

    def test_endsInShortSuccessionAreNoBulk(self) -> None:
        """Short answers, each with packets of its own."""
        for _ in range(1000):
            self.bulk.add(2 * PIECE_BYTES)
            self.bulk.add(0)
        self.assertFalse(self.bulk.isOne)


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pace, self.now = Pace(), 1000.0

    def read(self, size: int = 1500, elapsed: float = 0.001) -> bool:
        self.now += elapsed
        return self.pace.isSlow(size, self.now)

    def test_aFewSlowReadsInARowAreNeeded(self) -> None:
        """The first says nothing, since nobody knows how long it took."""
        self.assertEqual([False] * SLOW_READS + [True] * 3, [self.read() for _ in range(SLOW_READS + 3)])

    def slow(self) -> None:
        for _ in range(SLOW_READS + 1):
            self.read()

    def test_soManyBytesASecondAreSlow(self) -> None:
        self.slow()
        self.assertTrue(self.read(int(FAST * 0.0009)))
        self.assertFalse(self.read(int(FAST * 0.0011)))

    def test_aPauseOfAFastSenderIsNotSlow(self) -> None:
        """Its first bytes after that come alone, and what follows at once."""
        for _ in range(10):
            self.assertFalse(self.read(elapsed=STEADY_SECONDS / 2))
            self.assertFalse(self.read(60_000, elapsed=0.0001))

    def test_whatComesNowAndThenIsNotSteady(self) -> None:
        for _ in range(10):
            self.assertFalse(self.read(elapsed=STEADY_SECONDS * 1.001))

    def test_readsThatBringNothingComeToAnEnd(self) -> None:
        """Or who waits for more after a read would look for it a thousand times a second."""
        self.slow()
        self.assertTrue(self.read(0, STEADY_SECONDS * 0.6))
        self.assertFalse(self.read(0, STEADY_SECONDS * 0.6))
