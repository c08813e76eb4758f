"""
The one frame that bulk data comes in, written and read without a builder or a parser: STREAM to the end of its packet
(RFC 9000 §19.8).
"""

from collections.abc import Sequence

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from ..interfaces import Piece

#: The OFF, LEN and FIN bits.
OFF, LEN, FIN = 0x04, 0x02, 0x01

#: How bulk data is sent: with an offset, which takes 8 bytes however small it is, and without a length.
BULK = QuicFrameType.STREAM_BASE | OFF

#: The length bits of such an offset, an integer of 8 bytes (RFC 9000 §16).
OFFSET_BITS = 0xC0 << 56

#: Offsets end here (RFC 9000 §4.5).
MAX_OFFSET = (1 << 62) - 1


def violation(errorCode: QuicErrorCode, frameType: int, reason: str) -> QuicConnectionError:
    """The error that closes the connection (RFC 9000 §11.1)."""
    return QuicConnectionError(error_code=errorCode, frame_type=frameType, reason_phrase=reason)


def parseRun(plains: Sequence[bytes]) -> tuple[int, int, int, list[Piece], int, bool] | None:
    """
    Packets of one size, each with a frame of type `BULK` that goes on where the one before ends: the last one's frame
    type, the stream id, the offset of the first byte, each one's data, the bytes of all, and whether FIN follows.
    `None` when they are something else.

    :raises QuicConnectionError: see `parseBulk`.
    """
    if not plains[0] or plains[0][0] & ~FIN != BULK:
        return None
    streamId, offset, position = parseBulk(plains[0])
    size, frameType = len(plains[0]) - position, plains[-1][0]
    if not size:
        return None  # ends of streams, each of another
    head = plains[0][: position - 8]
    total = size * len(plains)
    heads = [head + (each | OFFSET_BITS).to_bytes(8) for each in range(offset, offset + total, size)]
    if fin := frameType == BULK | FIN:
        heads[-1] = bytes((frameType,)) + heads[-1][1:]
    if heads != [each[:position] for each in plains]:
        return None
    return frameType, streamId, offset, [memoryview(each)[position:] for each in plains], total, fin


def isBulk(frameType: int) -> bool:
    """Whether this is a STREAM frame without a length, so that nothing follows it."""
    return frameType & 0xFA == QuicFrameType.STREAM_BASE


def parseBulk(plain: bytes) -> tuple[int, int, int]:
    """
    The stream id, offset, and position of the data in a packet whose first frame `isBulk`.

    :raises QuicConnectionError: FRAME_ENCODING_ERROR.
    """
    try:
        first = plain[1]
        size = 1 << (first >> 6)
        position = 1 + size
        streamId = first if size == 1 else int.from_bytes(plain[1:position]) & ((1 << 8 * size - 2) - 1)
        offset = 0
        if plain[0] & OFF:
            size = 1 << (plain[position] >> 6)
            end = position + size
            offset = int.from_bytes(plain[position:end]) & ((1 << 8 * size - 2) - 1)
            position = end
    except IndexError:
        position = len(plain) + 1
    if position > len(plain):
        raise violation(QuicErrorCode.FRAME_ENCODING_ERROR, plain[0], "truncated STREAM frame")
    checkOffset(plain[0], offset, len(plain) - position)
    return streamId, offset, position


def isStream(frameType: int) -> bool:
    """Whether this is a STREAM frame."""
    return frameType & 0xF8 == QuicFrameType.STREAM_BASE


def parseStream(plain: bytes, position: int) -> tuple[int, int, int, int]:
    """
    The stream id, offset, and position and end of the data, of the STREAM frame at `position` of a packet.

    :raises QuicConnectionError: FRAME_ENCODING_ERROR.
    """
    frameType = plain[position]
    try:
        streamId, position = _integer(plain, position + 1)
        offset, position = _integer(plain, position) if frameType & OFF else (0, position)
        length, position = _integer(plain, position) if frameType & LEN else (len(plain) - position, position)
    except IndexError:
        position, length = len(plain), 1
    if position + length > len(plain):
        raise violation(QuicErrorCode.FRAME_ENCODING_ERROR, frameType, "truncated STREAM frame")
    checkOffset(frameType, offset, length)
    return streamId, offset, position, position + length


def _integer(plain: bytes, position: int) -> tuple[int, int]:
    """
    A variable-length integer (RFC 9000 §16), and the position behind it.

    :raises IndexError: the packet ends before.
    """
    first = plain[position]
    if first < 0x40:
        return first, position + 1
    size = 1 << (first >> 6)
    end = position + size
    plain[end - 1]
    return int.from_bytes(plain[position:end]) & ((1 << 8 * size - 2) - 1), end


def checkOffset(frameType: int, offset: int, length: int) -> None:
    """
    :raises QuicConnectionError: the frame's data would end beyond 2**62 - 1.
    """
    if offset + length > MAX_OFFSET:
        raise violation(QuicErrorCode.FRAME_ENCODING_ERROR, frameType, "STREAM data beyond 2**62 - 1")
