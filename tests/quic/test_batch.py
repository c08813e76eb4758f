"""What one `recvmsg` brings: datagrams, and whom they are for."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.batch import Batch

CID, OTHER = b"c0ffee01", b"c0ffee02"


def batch(datagrams: list[bytes]) -> Batch:
    return Batch(memoryview(b"".join(datagrams)), len(datagrams[0]))


class BatchTests(SynchronousTestCase):
    @given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 40))
    def test_itIsTheDatagramsAgain(self, size: int, count: int, last: int) -> None:
        datagrams = [bytes((index,)) * size for index in range(count)]
        datagrams[-1] = datagrams[-1][:last]
        found = batch(datagrams)
        self.assertEqual(datagrams, [bytes(each) for each in found.split()])
        self.assertEqual(datagrams[1:], [bytes(each) for each in found.split(size)])
        self.assertEqual(count == 1, found.isSingle)

    def test_theDestinationIsTheOneOfAllOfThem(self) -> None:
        self.assertEqual(CID, batch([b"\x40" + CID + b"some", b"\x7f" + CID + b"more", b"\x41" + CID]).destination(8))
        for strange in (
            [b"\x40" + CID + b"some", b"\x40" + OTHER + b"more"],
            [b"\x40" + CID + b"some", b"\x40" + CID + b"more", b"\x40" + OTHER],
            [b"\x40" + CID + b"some", b"\xc0" + CID + b"more"],  # a long header
            [b"\x40" + CID + b"some", b"\x00" + CID + b"more"],  # none of QUIC's
            [b"\x40" + CID + b"some", b"\x40" + CID[:7]],
            [b"\x40" + CID[:7], b"\x40" + CID[:7]],
        ):
            self.assertIsNone(batch(strange).destination(8), strange)
