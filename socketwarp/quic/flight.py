"""
The sending part of a stream (RFC 9000 §2.2, §3.1), and runs of packets that carry it.

A stream's bytes wait as the memoryviews that were written; `SendBuffer.cut` takes a `Segment` of them for a whole run
of packets, which is a view where it lies in one of them. What was sent is kept as one `Flight`, however many packets it
took: an acknowledgement of the run drops it in one step, a loss hands its segment back to the stream.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..interfaces import Piece

#: Bytes that count as little: they go before streams in mid-transfer, and share a packet with other streams'.
SHORT = 1024


class Segment(NamedTuple):
    """A part of a stream, for one packet or several: its offset, bytes, and whether FIN follows them."""

    offset: int
    data: Piece
    fin: bool

    def packets(self, size: int) -> int:
        """How many packets it takes with `size` bytes in each."""
        return -(-len(self.data) // size) or 1

    def split(self, size: int) -> "tuple[Segment, Segment]":
        """Its first `size` bytes, and the rest."""
        offset, data, fin = self
        return Segment(offset, data[:size], False), Segment(offset + size, data[size:], fin)


class SendBuffer:
    """
    One stream's outgoing bytes.

    Every byte is in one place at a time: ``unsent`` (never sent), in a flight, or ``lost`` (to be sent again).

    :ivar limit: the peer's MAX_STREAM_DATA, an offset.
    :ivar sent: the highest offset sent, what flow control counts (RFC 9000 §4.1).
    :ivar unsentBytes: bytes in ``unsent``: what back-pressure to the writer goes by.
    :ivar unacknowledged: bytes in flight or lost.
    :ivar acknowledged: bytes that the peer has.
    """

    __slots__ = (
        "_finAcknowledged",
        "_finDue",
        "_lost",
        "_unsent",
        "acknowledged",
        "finWritten",
        "limit",
        "resetAcknowledged",
        "resetCode",
        "resetDue",
        "sent",
        "unacknowledged",
        "unsentBytes",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sent = 0
        self.unsentBytes = 0
        self.unacknowledged = 0
        self.acknowledged = 0
        self.finWritten = False
        self.resetCode: int | None = None
        self.resetDue = False
        self.resetAcknowledged = False
        self._finDue = False
        self._finAcknowledged = False
        self._lost: deque[Segment] | None = None  # a deque takes 600 bytes, and hardly any stream needs this one
        self._unsent: deque[memoryview] = deque()

    @property
    def isWritable(self) -> bool:
        """Whether `write` still has an effect."""
        return not self.finWritten and self.resetCode is None

    @property
    def isFinished(self) -> bool:
        """Whether the peer has everything, or knows of the reset ("Data Recvd", "Reset Recvd", RFC 9000 §3.1)."""
        if self.resetCode is not None:
            return self.resetAcknowledged
        return self._finAcknowledged and not self.unacknowledged and not self.unsentBytes

    def hasWork(self, credit: int) -> bool:
        """Whether `cut` would find something, with `credit` bytes left of the connection's limit."""
        return bool(self._lost or (self.unsentBytes and credit > 0 and self.sent < self.limit)) or (
            self._finDue and not self.unsentBytes
        )

    @property
    def isShort(self) -> bool:
        """Whether all that is to be sent is at most `SHORT` new bytes."""
        return self.unsentBytes <= SHORT and not self._lost

    def write(self, data: Piece) -> None:
        """Queue bytes; they must not change afterwards. Nothing happens after FIN or reset."""
        if data and self.isWritable:
            self._unsent.append(memoryview(data))
            self.unsentBytes += len(data)

    def finish(self) -> None:
        """Queue the FIN."""
        if self.isWritable:
            self.finWritten = self._finDue = True

    def reset(self, errorCode: int) -> bool:
        """Give up (RESET_STREAM); false when there is nothing left to reset."""
        if self.resetCode is not None or self.isFinished:
            return False
        self.resetCode = errorCode
        self.resetDue = True
        self._lost = None
        self._unsent.clear()
        self._finDue = False
        self.unsentBytes = self.unacknowledged = 0
        return True

    def cut(self, size: int, count: int, credit: int) -> Segment | None:
        """
        Take what `count` packets with `size` bytes each hold: of what was lost first, else of what is new as far as the
        stream's limit and the connection's `credit` (bytes) go.
        """
        most = size * count
        if self._lost:
            segment = self._lost.popleft()
            if len(segment.data) > most:
                segment, rest = segment.split(most)
                self._lost.appendleft(rest)
            return segment
        room = min(most, credit, self.limit - self.sent, self.unsentBytes)
        if room <= 0 and (self.unsentBytes or not self._finDue):
            return None
        segment = Segment(self.sent, self._take(room), self._finDue and room == self.unsentBytes)
        self.unsentBytes -= room
        self.sent += room
        self.unacknowledged += room
        self._finDue = self._finDue and not segment.fin
        return segment

    def _take(self, size: int) -> Piece:
        """Remove exactly `size` unsent bytes; a view when they lie in one piece, joined otherwise."""
        unsent = self._unsent
        parts: list[memoryview] = []
        while size:
            head = unsent[0]
            if len(head) > size:
                unsent[0] = head[size:]
                head = head[:size]
            else:
                unsent.popleft()
            parts.append(head)
            size -= len(head)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def onAcknowledged(self, segment: Segment) -> None:
        """The peer has this segment."""
        if self.resetCode is None:
            size = len(segment.data)
            self.unacknowledged -= size
            self.acknowledged += size
            self._finAcknowledged = self._finAcknowledged or segment.fin

    def onLost(self, segment: Segment) -> None:
        """This segment must be sent again."""
        if self.resetCode is None:
            if self._lost is None:
                self._lost = deque()
            self._lost.append(segment)


class Sent(Protocol):
    """A run of sent packets with consecutive numbers, as `recovery` keeps it."""

    first: int
    last: int
    sentTime: float
    size: int
    isAckEliciting: bool
    isInFlight: bool
    isCrypto: bool

    @property
    def largest(self) -> int:
        """Bytes of the largest of its datagrams."""

    def split(self, packetNumber: int) -> "Sent":
        """Keep the packets up to and including `packetNumber`; return the rest as another run."""

    def onAcknowledged(self) -> None:
        """The peer has all of it."""

    def onLost(self) -> None:
        """All of it is to be sent again."""


class Streaming(Protocol):
    """What a flight belongs to: a stream's state, see `streams`."""

    def segmentAcknowledged(self, segment: Segment) -> None:
        """The peer has this segment."""

    def segmentLost(self, segment: Segment) -> None:
        """This segment must be sent again."""


class Bundle:
    """
    One packet that carries a little of several streams: a segment of each.

    :ivar size: bytes on the wire (UDP payload).
    """

    __slots__ = ("_parts", "first", "largest", "last", "sentTime", "size")

    isAckEliciting = True
    isInFlight = True
    isCrypto = False

    def __init__(self, parts: Sequence[tuple[Streaming, Segment]], number: int, sentTime: float, size: int) -> None:
        self._parts = parts
        self.first = self.last = number
        self.sentTime = sentTime
        self.size = self.largest = size

    def split(self, packetNumber: int) -> "Bundle":
        """See `Sent`; a single packet is never split."""
        raise ValueError("a single packet can't be split")

    def onAcknowledged(self) -> None:
        """See `Sent.onAcknowledged`."""
        for stream, segment in self._parts:
            stream.segmentAcknowledged(segment)

    def onLost(self) -> None:
        """See `Sent.onLost`."""
        for stream, segment in self._parts:
            stream.segmentLost(segment)


class Flight:
    """
    A run of packets that carry one stream's segment, ``packetSize`` bytes of it each, and nothing else.

    :ivar size: bytes on the wire, all packets together (UDP payload); ``overhead`` is each packet's share beside data.
    """

    __slots__ = ("first", "last", "overhead", "packetSize", "segment", "sentTime", "size", "stream")

    isAckEliciting = True
    isInFlight = True
    isCrypto = False

    def __init__(
        self, stream: Streaming, first: int, segment: Segment, packetSize: int, sentTime: float, overhead: int
    ) -> None:
        count = segment.packets(packetSize)
        self.stream = stream
        self.first = first
        self.last = first + count - 1
        self.segment = segment
        self.packetSize = packetSize
        self.sentTime = sentTime
        self.size = len(segment.data) + count * overhead
        self.overhead = overhead

    @property
    def largest(self) -> int:
        """See `Sent`."""
        return min(self.packetSize, len(self.segment.data)) + self.overhead

    def split(self, packetNumber: int) -> "Flight":
        """See `Sent.split`."""
        self.segment, rest = self.segment.split((packetNumber - self.first + 1) * self.packetSize)
        other = Flight(self.stream, packetNumber + 1, rest, self.packetSize, self.sentTime, self.overhead)
        self.last = packetNumber
        self.size -= other.size
        return other

    def onAcknowledged(self) -> None:
        """See `Sent.onAcknowledged`."""
        self.stream.segmentAcknowledged(self.segment)

    def onLost(self) -> None:
        """See `Sent.onLost`."""
        self.stream.segmentLost(self.segment)
