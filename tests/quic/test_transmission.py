"""From segments to what one `sendmsg` takes."""

from typing import Any

from aioquic._buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.flight import Segment
from socketwarp.quic.protection import Keys
from socketwarp.quic.transmission import overheadOf, payloadsOf, transmissionsOf

ADDRESS = ("192.0.2.1", 4433)


class PayloadTests(SynchronousTestCase):
    @given(st.integers(0, (1 << 62) - 1), st.integers(0, (1 << 62) - 100), st.binary(max_size=50), st.booleans())
    def test_aSegmentBecomesAStreamFrameToTheEndOfThePacket(
        self, streamId: int, offset: int, data: bytes, fin: bool
    ) -> None:
        (payload,) = payloadsOf(streamId, [Segment(offset, memoryview(data), fin)])
        buffer = Buffer(data=payload)
        self.assertEqual(0x0C | fin, buffer.pull_uint8())
        self.assertEqual((streamId, offset), (buffer.pull_uint_var(), buffer.pull_uint_var()))
        self.assertEqual(data, payload[buffer.tell() :])

    @given(st.sampled_from((0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30)), st.integers(0, 20), st.integers(0, 99))
    def test_theOverheadIsWhatAPacketHasBesideItsData(self, streamId: int, cidSize: int, size: int) -> None:
        cid, keys = bytes(cidSize), Keys(bytes(16), bytes(12), bytes(16), 0)
        pieces = keys.seal(False, cid, 0, payloadsOf(streamId, [Segment(1 << 40, bytes(size), True)]))
        self.assertEqual(overheadOf(streamId, cid) + size, sum(map(len, pieces)))


class TransmissionTests(SynchronousTestCase):
    def cut(self, *sizes: int) -> list[Any]:
        pieces: list[Any] = [part for index, size in enumerate(sizes) for part in (bytes([index]), bytes(size - 1))]
        return [(size, [len(part) for part in run]) for run, size, to in transmissionsOf(pieces, sizes, ADDRESS)]

    def test_packetsOfOneSizeAreOneRunAndTheLastMayBeShorter(self) -> None:
        self.assertEqual([(5, [1, 4, 1, 4, 1, 2])], self.cut(5, 5, 3))

    def test_aLargerOrAFurtherShorterOneBeginsAnotherRun(self) -> None:
        self.assertEqual([(5, [1, 4, 1, 2]), (3, [1, 2]), (7, [1, 6, 1, 1])], self.cut(5, 3, 3, 7, 2))

    @given(st.lists(st.integers(2, 6), min_size=1, max_size=20))
    def test_cuttingARunBySizeGivesThePacketsAgain(self, sizes: list[int]) -> None:
        pieces: list[Any] = [part for index, size in enumerate(sizes) for part in (bytes([index]), bytes(size - 1))]
        packets = []
        for run, size, address in transmissionsOf(pieces, sizes, ADDRESS):
            data = b"".join(run)
            packets += [data[i : i + size] for i in range(0, len(data), size)]
            self.assertEqual(ADDRESS, address)
        self.assertEqual([bytes([index]).ljust(size, b"\0") for index, size in enumerate(sizes)], packets)
