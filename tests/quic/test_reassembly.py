"""The receiving part of a stream: any frames that an honest peer may send give its exact bytes."""

import random
import tracemalloc
from collections.abc import Sequence

from aioquic.quic.stream import FinalSizeError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.reassembly import JOINED_PIECE, MAX_GAPS, SMALL_PIECE, Reassembly, TooManyGaps, append, trim

DATA = random.Random(1).randbytes(6000)

frames = st.lists(
    st.tuples(st.integers(0, 1200), st.integers(0, 700)).map(
        lambda pair: (pair[0] * 5, min(pair[0] * 5 + pair[1], 6000))
    ),
    max_size=60,
)


def taken(receiving: Reassembly) -> bytes:
    return b"".join(receiving.take())


class OrderTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(frames, st.randoms(use_true_random=False), st.booleans())
    def test_anySegmentationOverlapDuplicationAndOrderGivesTheExactBytes(
        self, some: list[tuple[int, int]], chance: random.Random, isTakenAtOnce: bool
    ) -> None:
        """Some frames of any kind, then all bytes in pieces of a fixed size, shuffled together."""
        size = chance.choice((1, 7, 100, 511, 512, 1200))
        step = 997 if size == 1 else size
        length = 6000 if size > 1 else 1000
        frames = [
            *[(a, b) for a, b in some if b <= length],
            *((at, min(at + step, length)) for at in range(0, length, step)),
        ]
        chance.shuffle(frames)
        receiving, got = Reassembly(), b""
        for start, stop in frames:
            receiving.receive(start, DATA[start:stop], stop == length and chance.random() < 0.5)
            if isTakenAtOnce:
                got += taken(receiving)
                self.assertEqual(len(got), receiving.offset)
        receiving.receive(length, b"", True)
        self.assertTrue(receiving.isFinished)
        self.assertEqual(DATA[:length], got + taken(receiving))
        self.assertEqual(length, receiving.highest)

    @settings(max_examples=150, deadline=None)
    @given(frames)
    def test_itHoldsExactlyWhatAModelHolds(self, frames: list[tuple[int, int]]) -> None:
        """The model: a set of the offsets that have come."""
        receiving, model = Reassembly(), set[int]()
        for start, stop in frames:
            receiving.receive(start, memoryview(DATA)[start:stop], False)
            model.update(range(start, stop))
            contiguous = next(offset for offset in range(6001) if offset not in model)
            self.assertEqual(contiguous, receiving.offset)
            held = sum(run.stop - run.start for run in receiving._runs)
            self.assertEqual(len(model) - contiguous, held)
            for run in receiving._runs:
                self.assertEqual(DATA[run.start : run.stop], b"".join(run.pieces))
        self.assertEqual(DATA[: receiving.offset], taken(receiving))

    def test_emptyFramesMakeNoPieces(self) -> None:
        """A FIN may come in a packet of its own, and a receiver is promised pieces that aren't empty."""
        receiving = Reassembly()
        receiving.receiveRun(0, [DATA[:2000], b"", DATA[2000:4000], b""], 4000, True)
        self.assertEqual([DATA[:2000], DATA[2000:4000]], receiving.take())
        self.assertTrue(receiving.isFinished)
        receiving = Reassembly()
        receiving.receiveRun(0, [b""], 0, False)
        self.assertEqual([], receiving.take())

    def test_aRunIsTakenAsItsFramesWouldBe(self) -> None:
        """In order, behind a gap, overlapping, and of small pieces."""
        for start, size in ((100, 600), (100, 10), (0, 40), (700, 600), (50, 600)):
            whole, single = Reassembly(), Reassembly()
            for each in (whole, single):
                each.receive(0, DATA[:100], False)
            pieces: list[bytes | bytearray | memoryview] = [
                DATA[at : at + size] for at in range(start, start + 3 * size, size)
            ]
            whole.receiveRun(start, pieces, 3 * size, True)
            for index, piece in enumerate(pieces):
                single.receive(start + index * size, piece, index == 2)
            self.assertEqual(taken(single), taken(whole))
            self.assertEqual(
                (single.offset, single.highest, single.finalSize), (whole.offset, whole.highest, whole.finalSize)
            )

    def test_isInOrderUntilAGapAFinOrAStop(self) -> None:
        for spoil in (
            lambda each: each.receive(5, b"x", False),
            lambda each: each.receive(0, b"x", True),
            lambda each: each.stop(),
        ):
            receiving = Reassembly()
            self.assertTrue(receiving.isInOrder)
            spoil(receiving)
            self.assertFalse(receiving.isInOrder)


class MemoryTests(SynchronousTestCase):
    def test_moreThanTheBoundOfGapsIsRefused(self) -> None:
        receiving = Reassembly()
        for number in range(MAX_GAPS):
            receiving.receive(2 * number + 1, b"x", False)
        self.assertRaises(TooManyGaps, receiving.receive, 2 * MAX_GAPS + 1, b"x", False)
        receiving.receive(2, b"y", False)  # fills one
        receiving.receive(2 * MAX_GAPS + 1, b"x", False)

    def test_oneByteFramesInOrderCostLittleMoreThanTheirBytes(self) -> None:
        self.assertLess(self.memoryOf(range(50_000)), 100_000)

    def test_oneByteFramesBehindAGapCostLittleMoreThanTheirBytes(self) -> None:
        self.assertLess(self.memoryOf(range(1, 50_001)), 100_000)

    def test_twoByteFramesBackwardsCostLittleMoreThanTheirBytes(self) -> None:
        """Each stands before all the others; none makes another gap."""
        self.assertLess(self.memoryOf(range(20_000, 0, -1), 2), 60_000)

    def test_gapsMadeAndFilledCostLittleMoreThanTheirBytes(self) -> None:
        """There is never more than one gap."""
        self.assertLess(self.memoryOf([each ^ 1 for each in range(20_000)], 2), 100_000)

    def test_framesOfWhichLittleIsNewKeepLittle(self) -> None:
        """A view of 512 bytes would keep all of its packet's 16,000."""
        receiving, start = Reassembly(), 0
        tracemalloc.start()
        try:
            for stop in range(16_000, 216_000, 512):
                receiving.receive(start, memoryview(bytes(stop - start)), False)
                start = stop - 15_488
            self.assertLess(tracemalloc.get_traced_memory()[0], 400_000)
        finally:
            tracemalloc.stop()

    def memoryOf(self, offsets: Sequence[int], size: int = 1) -> int:
        """What remains allocated after frames of `size` bytes at these multiples of it, each in a packet of its own."""
        receiving = Reassembly()
        tracemalloc.start()
        try:
            for offset in offsets:
                receiving.receive(offset * size, memoryview(bytes(size + 4))[4:], False)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    def test_largePiecesAreKeptAsTheyCame(self) -> None:
        piece = memoryview(DATA)[:SMALL_PIECE]
        receiving = Reassembly()
        receiving.receive(0, piece, False)
        receiving.receive(SMALL_PIECE, piece, False)
        self.assertEqual([piece, piece], receiving.take())
        self.assertEqual([], receiving.take())

    def test_joinedPiecesStopGrowing(self) -> None:
        pieces: list[bytes | bytearray | memoryview] = []
        for _ in range(3 * JOINED_PIECE):
            append(pieces, b"x")
        self.assertEqual([JOINED_PIECE] * 3, [len(piece) for piece in pieces])

    def test_trimTakesBytesFromTheFront(self) -> None:
        pieces: list[bytes | bytearray | memoryview] = [b"abc", b"def"]
        self.assertEqual(
            [[b"abc", b"def"], [b"c", b"def"], [b"def"], [b"f"], [], []],
            [trim(pieces, count) for count in (0, 2, 3, 5, 6, 9)],
        )


class FinalSizeTests(SynchronousTestCase):
    """RFC 9000 §4.5."""

    def test_dataBeyondTheFinalSizeIsRefused(self) -> None:
        receiving = Reassembly()
        receiving.receive(10, b"", True)
        self.assertRaises(FinalSizeError, receiving.receive, 9, b"xy", False)

    def test_anotherFinalSizeIsRefused(self) -> None:
        receiving = Reassembly()
        receiving.receive(10, b"", True)
        receiving.receive(10, b"", True)
        self.assertRaises(FinalSizeError, receiving.receive, 9, b"", True)
        self.assertRaises(FinalSizeError, receiving.reset, 11, 0)
        receiving.reset(10, 7)
        self.assertEqual(7, receiving.resetCode)

    def test_aFinalSizeBelowWhatHasComeIsRefused(self) -> None:
        receiving = Reassembly()
        receiving.receive(0, b"x" * 10, False)
        self.assertRaises(FinalSizeError, receiving.receive, 0, b"x" * 9, True)
        self.assertRaises(FinalSizeError, receiving.reset, 9, 0)
        self.assertIsNone(receiving.finalSize)

    def test_theFinalSizeHoldsAfterAResetToo(self) -> None:
        receiving = Reassembly()
        receiving.reset(10, 0)
        self.assertRaises(FinalSizeError, receiving.receive, 10, b"x", False)
        self.assertRaises(FinalSizeError, receiving.reset, 12, 0)

    def test_aResetAfterTheLastByteChangesNothing(self) -> None:
        """RFC 9000 §3.2: "Data Recvd"; the bytes are there to be read."""
        receiving = Reassembly()
        receiving.receive(0, b"all", True)
        receiving.reset(3, 7)
        self.assertIsNone(receiving.resetCode)
        self.assertEqual(b"all", taken(receiving))

    def test_aResetRightAfterAllBytesIsStillAReset(self) -> None:
        """No FIN has come: whoever sent so much would have sent more."""
        receiving = Reassembly()
        receiving.receive(0, b"some", False)
        receiving.reset(4, 7)
        self.assertEqual((7, True), (receiving.resetCode, receiving.isFinished))

    def test_whatComesAfterAResetIsDropped(self) -> None:
        receiving = Reassembly()
        receiving.receive(5, b"later", False)
        receiving.reset(10, 7)
        receiving.receive(0, b"first", False)
        self.assertEqual((b"", 0, []), (taken(receiving), receiving.offset, receiving._runs))
        self.assertTrue(receiving.isFinished)

    def test_afterAStopNothingIsKeptAndTheEndIsStillSeen(self) -> None:
        receiving = Reassembly()
        receiving.receive(0, b"some", False)
        receiving.receive(10, b"more", False)
        receiving.stop()
        self.assertEqual(([], 14, []), (receiving.take(), receiving.offset, receiving._runs))
        receiving.receive(20, b"late", True)
        self.assertEqual(([], 24), (receiving.take(), receiving.offset))
        self.assertTrue(receiving.isFinished)
