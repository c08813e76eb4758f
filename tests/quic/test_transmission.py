"""From segments to what one `sendmsg` takes."""

from aioquic._buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.flight import Segment
from socketwarp.quic.protection import Keys
from socketwarp.quic.transmission import overheadOf, payloadsOf


class PayloadTests(SynchronousTestCase):
    @given(
        st.integers(0, (1 << 62) - 1),
        st.integers(0, (1 << 62) - 100),
        st.binary(max_size=50),
        st.booleans(),
        st.integers(1, 60),
    )
    def test_aSegmentBecomesStreamFramesToTheEndOfTheirPackets(
        self, streamId: int, offset: int, data: bytes, fin: bool, size: int
    ) -> None:
        payloads = payloadsOf(streamId, Segment(offset, memoryview(data), fin), size)
        found = b""
        for index, payload in enumerate(payloads):
            buffer = Buffer(data=payload)
            self.assertEqual(0x0C | (fin and index == len(payloads) - 1), buffer.pull_uint8())
            self.assertEqual((streamId, offset + len(found)), (buffer.pull_uint_var(), buffer.pull_uint_var()))
            self.assertTrue(len(payload) - buffer.tell() == size or index == len(payloads) - 1)
            found += payload[buffer.tell() :]
        self.assertEqual(data, found)

    @given(st.sampled_from((0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30)), st.integers(0, 20), st.integers(0, 99))
    def test_theOverheadIsWhatAPacketHasBesideItsData(self, streamId: int, cidSize: int, size: int) -> None:
        cid, keys = bytes(cidSize), Keys(bytes(16), bytes(12), bytes(16), 0)
        pieces = keys.seal(False, cid, 0, payloadsOf(streamId, Segment(1 << 40, bytes(size), True), 100))
        self.assertEqual(overheadOf(streamId, cid) + size, sum(map(len, pieces)))
