"""The quick parser of STREAM frames, against aioquic's buffer."""

from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.frames import FIN, LEN, MAX_OFFSET, OFF, checkOffset, isBulk, isStream, parseBulk, parseStream


class BulkTests(SynchronousTestCase):
    def test_onlyStreamFramesWithoutALengthAreBulk(self) -> None:
        self.assertEqual([0x08, 0x09, 0x0C, 0x0D], [each for each in range(256) if isBulk(each)])
        self.assertEqual((0x0F, 0x08), (0x08 | OFF | LEN | FIN, 0x0F & ~(OFF | LEN | FIN)))

    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from((0x08, 0x09, 0x0C, 0x0D)), st.binary(max_size=24))
    @example(0x0C, b"\xc0" + bytes(7) + b"\xff" * 8 + b"x")
    def test_itReadsWhatAioquicsBufferReads(self, frameType: int, rest: bytes) -> None:
        plain = bytes((frameType,)) + rest
        buffer = Buffer(data=plain)
        try:
            buffer.pull_uint8()
            streamId = buffer.pull_uint_var()
            offset = buffer.pull_uint_var() if frameType & OFF else 0
        except BufferReadError:
            error = self.assertRaises(QuicConnectionError, parseBulk, plain)
            self.assertEqual(QuicErrorCode.FRAME_ENCODING_ERROR, error.error_code)
            return
        if offset + len(plain) - buffer.tell() > MAX_OFFSET:
            self.assertRaises(QuicConnectionError, parseBulk, plain)
        else:
            self.assertEqual((streamId, offset, buffer.tell()), parseBulk(plain))

    def test_theLastOffsetIsTheLast(self) -> None:
        checkOffset(0x0C, MAX_OFFSET - 1, 1)
        error = self.assertRaises(QuicConnectionError, checkOffset, 0x0C, MAX_OFFSET, 1)
        self.assertEqual(QuicErrorCode.FRAME_ENCODING_ERROR, error.error_code)


class StreamTests(SynchronousTestCase):
    def test_streamFramesAreKnownByTheirType(self) -> None:
        self.assertEqual(list(range(0x08, 0x10)), [each for each in range(256) if isStream(each)])

    @settings(max_examples=400, deadline=None)
    @given(st.integers(0x08, 0x0F), st.binary(max_size=5), st.binary(max_size=32))
    @example(0x0E, b"", b"\x04\x00\x40\x01x")
    @example(0x0E, b"", b"\x04\x00\x40\x02x")
    @example(0x0C, b"", b"\xc0" + bytes(7) + b"\xff" * 8 + b"x")
    def test_theyAreReadAsAioquicsBufferReadsThem(self, frameType: int, before: bytes, rest: bytes) -> None:
        plain = before + bytes((frameType,)) + rest
        buffer = Buffer(data=plain[len(before) :])
        try:
            buffer.pull_uint8()
            streamId = buffer.pull_uint_var()
            offset = buffer.pull_uint_var() if frameType & OFF else 0
            length = buffer.pull_uint_var() if frameType & LEN else buffer.capacity - buffer.tell()
            start = buffer.tell()
            buffer.pull_bytes(length)
        except BufferReadError:
            error = self.assertRaises(QuicConnectionError, parseStream, plain, len(before))
            self.assertEqual(QuicErrorCode.FRAME_ENCODING_ERROR, error.error_code)
            return
        if offset + length > MAX_OFFSET:
            self.assertRaises(QuicConnectionError, parseStream, plain, len(before))
        else:
            where = len(before) + start
            self.assertEqual((streamId, offset, where, where + length), parseStream(plain, len(before)))
