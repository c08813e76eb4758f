"""When reading a slow link may wait: what counts as bulk, and how slowly it must come."""

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.coalescing import BULK_BYTES, FAST, PIECE_BYTES, STEADY_SECONDS, Bulk, Pace


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
        self.pace = Pace()

    def test_theFirstReadSaysNothing(self) -> None:
        self.assertFalse(self.pace.isSlow(1500, 1000.0))

    def test_soManyBytesASecondAreSlow(self) -> None:
        self.pace.isSlow(1500, 1000.0)
        self.assertTrue(self.pace.isSlow(1500, 1000.001))
        self.assertTrue(self.pace.isSlow(int(FAST * 0.0009), 1000.002))
        self.assertFalse(self.pace.isSlow(int(FAST * 0.0011), 1000.003))
        self.assertFalse(self.pace.isSlow(1500, 1000.003))

    def test_whatComesNowAndThenIsNotSteady(self) -> None:
        for number in range(1, 10):
            self.assertFalse(self.pace.isSlow(1500, number * STEADY_SECONDS * 1.001))

    def test_readsThatBringNothingComeToAnEnd(self) -> None:
        """Or who waits for more after a read would look for it a thousand times a second."""
        self.pace.isSlow(1500, 1000.0)
        self.assertTrue(self.pace.isSlow(0, 1000.0 + STEADY_SECONDS / 2))
        self.assertFalse(self.pace.isSlow(0, 1000.0 + STEADY_SECONDS * 1.001))
