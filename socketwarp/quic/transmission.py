"""
From a stream's segments to the bytes of one `sendmsg`: STREAM frames for packets of equal size (RFC 9000 §19.8).

A flight's packets have one size, because the heads of their STREAM frames have (`frames.BULK`), and their own headers.
"""

from typing import Any, NamedTuple, Protocol

from aioquic.buffer import encode_uint_var

from .flight import Segment
from .frames import BULK, FIN, LEN, OFFSET_BITS
from .protection import NUMBER_SIZE, TAG_SIZE

#: What one `sendmsg` with UDP_SEGMENT takes: segments (the kernel's UDP_MAX_SEGMENTS was 64 before 6.9) and bytes. Over
#: IPv4 a UDP payload may have 65,507, but a device takes 65,536 with all headers; what is longer is cut by the
#: kernel, and each datagram takes a call at the receiver (415 MB/s instead of 600, as measured).
SEGMENTS_PER_CALL = 64
BYTES_PER_CALL = 65_000

#: Bytes of `frameOf` that aren't data, at the most.
FRAME_HEAD = 1 + 8 + 8 + 2


class Transmission(NamedTuple):
    """
    Bytes for one `sendmsg`: ``pieces`` in order, to be cut every ``segmentSize`` bytes into datagrams, the last of
    which may be shorter.

    ``address`` is the socket address as it came from the socket module.
    """

    pieces: list[bytes]
    segmentSize: int
    address: Any  # whatever the address family's socket addresses are


class Sender(Protocol):
    """The UDP port that sessions send through."""

    def send(self, transmission: Transmission) -> None:
        """Send now; what the kernel doesn't take at once waits, or is lost as the network loses it."""

    @property
    def isBlocked(self) -> bool:
        """Whether something waits already: ask the session again later."""


def overheadOf(streamId: int | None, destination: bytes) -> int:
    """Bytes of a datagram that aren't stream data: packet header, frame header (`None`: without), tag."""
    packet = 1 + len(destination) + NUMBER_SIZE + TAG_SIZE
    return packet if streamId is None else packet + 1 + len(encode_uint_var(streamId)) + 8


def payloadsOf(streamId: int, segment: Segment, size: int) -> list[bytes]:
    """A segment as STREAM frames of `size` bytes, the last of which may be shorter, to be sealed."""
    offset, data, fin = segment
    head = bytes((BULK,)) + encode_uint_var(streamId)
    payloads = [
        b"".join((head, (offset + at | OFFSET_BITS).to_bytes(8), data[at : at + size]))
        for at in range(0, len(data) or 1, size)
    ]
    if fin:
        payloads[-1] = bytes((BULK | FIN,)) + payloads[-1][1:]
    return payloads


def frameOf(streamId: int, segment: Segment) -> bytes:
    """A segment as a STREAM frame that others may follow: it has a length, of 2 bytes."""
    offset, data, fin = segment
    head = bytes((BULK | LEN | fin,)) + encode_uint_var(streamId)
    return b"".join((head, (offset | OFFSET_BITS).to_bytes(8), (len(data) | 0x4000).to_bytes(2), data))
