"""
From a stream's segments to the bytes of one `sendmsg`: STREAM frames for packets of equal size (RFC 9000 §19.8).

The frame has an 8-byte offset and no length, so its header, and the packet's, have a fixed size for a given stream.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicFrameType

from ..interfaces import Piece
from .flight import Segment
from .protection import NUMBER_SIZE, TAG_SIZE

#: What one `sendmsg` with UDP_SEGMENT takes: segments (the kernel's UDP_MAX_SEGMENTS was 64 before 6.9) and bytes. Over
#: IPv4 a UDP payload may have 65,507, but a device takes 65,536 with all headers; what is longer is cut by the
#: kernel, and each datagram takes a call at the receiver (415 MB/s instead of 600, as measured).
SEGMENTS_PER_CALL = 64
BYTES_PER_CALL = 65_000

STREAM_OFFSET = QuicFrameType.STREAM_BASE | 4
LENGTH = 2
FIN = 1
#: Bytes of `frameOf` that aren't data, at the most.
FRAME_HEAD = 1 + 8 + 8 + 2


class Transmission(NamedTuple):
    """
    Bytes for one `sendmsg`: ``pieces`` in order, to be cut every ``segmentSize`` bytes into datagrams, the last of
    which may be shorter.

    ``address`` is the socket address as it came from the socket module.
    """

    pieces: list[Piece]
    segmentSize: int
    address: Any  # whatever the address family's socket addresses are


def overheadOf(streamId: int | None, destination: bytes) -> int:
    """Bytes of a datagram that aren't stream data: packet header, frame header (`None`: without), tag."""
    packet = 1 + len(destination) + NUMBER_SIZE + TAG_SIZE
    return packet if streamId is None else packet + 1 + len(encode_uint_var(streamId)) + 8


def payloadsOf(streamId: int, segments: Sequence[Segment]) -> list[bytes]:
    """Each segment as a STREAM frame, to be sealed."""
    number = encode_uint_var(streamId)
    heads = (bytes((STREAM_OFFSET,)) + number, bytes((STREAM_OFFSET | FIN,)) + number)
    return [b"".join((heads[fin], (offset | 0xC0 << 56).to_bytes(8), data)) for offset, data, fin in segments]


def frameOf(streamId: int, segment: Segment) -> bytes:
    """A segment as a STREAM frame that others may follow: it has a length, of 2 bytes."""
    offset, data, fin = segment
    head = bytes((STREAM_OFFSET | LENGTH | fin,)) + encode_uint_var(streamId)
    return b"".join((head, (offset | 0xC0 << 56).to_bytes(8), (len(data) | 0x4000).to_bytes(2), data))


def transmissionsOf(pieces: list[Piece], sizes: Sequence[int], address: Any) -> Iterator[Transmission]:
    """
    Cut sealed packets (header, payload, header, … in `pieces`; `sizes` in bytes for each packet) into runs that
    UDP_SEGMENT can take: all of one size, but for a shorter last one.
    """
    start = 0
    # Most often they are one run, and that is seen at once.
    for index in range(1, len(sizes) if sizes.count(sizes[0]) < len(sizes) - (sizes[-1] < sizes[0]) else 1):
        if sizes[index - 1] < sizes[start] or sizes[index] > sizes[start]:
            yield Transmission(pieces[2 * start : 2 * index], sizes[start], address)
            start = index
    yield Transmission(pieces[2 * start :], sizes[start], address)
