"""The quick parser of STREAM frames, against aioquic's buffer."""

from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.flight import Segment
from socketwarp.quic.frames import (
    FIN,
    LEN,
    MAX_OFFSET,
    OFF,
    checkOffset,
    isBulk,
    isStream,
    parseBulk,
    parseRun,
    parseStream,
)
from socketwarp.quic.transmission import payloadsOf


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


class RunTests(SynchronousTestCase):
    """Frames that follow one another in packets of one size, as `transmission.payloadsOf` makes them."""

    @given(
        st.integers(0, (1 << 62) - 1),
        st.integers(0, (1 << 61)),
        st.integers(1, 30),
        st.integers(1, 20),
        st.booleans(),
    )
    def test_whatIsMadeIsRead(self, streamId: int, offset: int, size: int, count: int, fin: bool) -> None:
        data = bytes(range(256)) * 3
        data = data[: size * count]
        count = len(data) // size
        data = data[: size * count]
        plains = payloadsOf(streamId, Segment(offset, memoryview(data), fin), size)
        run = parseRun(plains)
        assert run is not None
        frameType, foundId, foundOffset, pieces, total, ends = run
        self.assertEqual((0x0C | fin, streamId, offset, len(data), fin), (frameType, foundId, foundOffset, total, ends))
        self.assertEqual([data[at : at + size] for at in range(0, len(data), size)], pieces)

    def test_anythingElseIsNone(self) -> None:
        good = payloadsOf(4, Segment(1000, memoryview(bytes(40)), False), 10)
        self.assertIsNotNone(parseRun(good))
        for strange in (
            [good[0], *good[2:]],  # a gap
            good[::-1],
            [*good[:2], *payloadsOf(8, Segment(1020, memoryview(bytes(20)), False), 10)],  # another stream
            [good[0], bytes((good[1][0] | 0x01,)) + good[1][1:], *good[2:]],  # FIN in the middle
            [*good[:3], bytes((good[3][0] | 0x02,)) + good[3][1:]],  # a length
            [b"\x08" + each[1:] for each in good],  # no offset
            [each[:10] for each in good],  # no data
            [payloadsOf(each, Segment(1, memoryview(b""), True), 10)[0] for each in (4, 8, 12)],  # ends of streams
            [b"\x01" * 20] * 4,  # PING
            [b""] * 4,
        ):
            self.assertIsNone(parseRun(strange), strange)
        shorter = [b"\x0c\x04" + bytes((0x40, at)) + bytes(10) for at in range(0, 40, 10)]  # offsets of two bytes
        self.assertIsNone(parseRun(shorter))

    @given(
        st.lists(st.tuples(st.sampled_from((0x0C, 0x0D, 0x08, 0x0E, 0x01)), st.integers(0, 3)), min_size=1), st.data()
    )
    def test_whatIsReadIsWhatEachPacketSays(self, kinds: list[tuple[int, int]], data: st.DataObject) -> None:
        """Packets of one size, whatever they have in them: what isn't read as a run is read one by one."""
        size = data.draw(st.integers(0, 3))
        plains = [bytes((kind, 4)) + (0xC0 << 56 | step * size).to_bytes(8) + bytes(size) for kind, step in kinds]
        run = parseRun(plains)
        if run is not None:
            each = [parseBulk(plain) for plain in plains]
            self.assertEqual({4}, {streamId for streamId, _, _ in each})
            self.assertEqual([run[2] + at * size for at in range(len(plains))], [offset for _, offset, _ in each])
            self.assertEqual([plain[position:] for plain, (_, _, position) in zip(plains, each, strict=True)], run[3])
            self.assertEqual([0x0C] * (len(plains) - 1) + [run[0]], [plain[0] for plain in plains])

    def test_aTruncatedFrameIsAnError(self) -> None:
        self.assertRaises(QuicConnectionError, parseRun, [b"\x0c\x04\xc0"] * 2)
