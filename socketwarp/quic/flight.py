"""
The sending part of a stream (RFC 9000 §2.2, §3.1), and runs of packets that carry it.

A stream's bytes wait as the memoryviews that were written; `SendBuffer.cut` makes segments of them, one for each
packet, without copying. What was sent is kept as one `Flight` for a whole run of packet numbers: an acknowledgement
of the run drops it in one step, a loss hands its segments back to the stream.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..interfaces import Piece

#: Bytes that count as little: they go before streams in mid-transfer, and share a packet with other streams'.
SHORT = 1024


class Segment(NamedTuple):
    """What one packet carries of a stream: the STREAM frame's offset, bytes, and FIN."""

    offset: int
    data: Piece
    fin: bool


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

    def cut(self, size: int, count: int, credit: int) -> list[Segment]:
        """
        Take up to `count` segments of at most `size` bytes: what was lost first, then new bytes as far as the stream's
        limit and the connection's `credit` (bytes) go.
        """
        segments: list[Segment] = []
        lost = self._lost
        while lost and len(segments) < count:
            segment = lost.popleft()
            if len(segment.data) > size:  # the path MTU has shrunk since
                lost.appendleft(Segment(segment.offset + size, segment.data[size:], segment.fin))
                segment = Segment(segment.offset, segment.data[:size], False)
            segments.append(segment)
        room = min(credit, self.limit - self.sent, self.unsentBytes)
        if room > size and (whole := min(room - 1, len(self._unsent[0])) // size) > 1:
            room -= self._cutWhole(size, min(whole, count - len(segments)), segments)
        while room > 0 and len(segments) < count:
            data = self._take(min(size, room))
            room -= len(data)
            last = self._finDue and not self.unsentBytes
            segments.append(Segment(self.sent, data, last))
            self.sent += len(data)
            self.unacknowledged += len(data)
            self._finDue = self._finDue and not last
        if self._finDue and not self.unsentBytes and len(segments) < count:
            self._finDue = False
            segments.append(Segment(self.sent, b"", True))
        return segments

    def _cutWhole(self, size: int, count: int, segments: list[Segment]) -> int:
        """Cut `count` segments of `size` bytes that lie in the first piece, and aren't all there is; their bytes."""
        head, sent, total = self._unsent[0], self.sent, size * count
        segments += [Segment(sent + at, head[at : at + size], False) for at in range(0, total, size)]
        self._unsent[0] = head[total:]
        if total == len(head):
            self._unsent.popleft()
        self.sent += total
        self.unacknowledged += total
        self.unsentBytes -= total
        return total

    def _take(self, size: int) -> Piece:
        """Remove exactly `size` unsent bytes; a view when they lie in one piece, joined otherwise."""
        self.unsentBytes -= size
        unsent = self._unsent
        head = unsent[0]
        if len(head) > size:
            unsent[0] = head[size:]
            return head[:size]
        parts = []
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

    def onAcknowledged(self, segments: Sequence[Segment]) -> None:
        """The peer has these segments."""
        if self.resetCode is None:
            size = sum([len(segment.data) for segment in segments])
            self.unacknowledged -= size
            self.acknowledged += size
            self._finAcknowledged = self._finAcknowledged or segments[-1].fin or any(s.fin for s in segments)

    def onLost(self, segments: Sequence[Segment]) -> None:
        """These segments must be sent again."""
        if self.resetCode is None:
            if self._lost is None:
                self._lost = deque()
            self._lost.extend(segments)


class Sent(Protocol):
    """A run of sent packets with consecutive numbers, as `recovery` keeps it."""

    first: int
    last: int
    sentTime: float
    size: int
    isAckEliciting: bool
    isInFlight: bool
    isCrypto: bool

    def split(self, packetNumber: int) -> "Sent":
        """Keep the packets up to and including `packetNumber`; return the rest as another run."""

    def onAcknowledged(self) -> None:
        """The peer has all of it."""

    def onLost(self) -> None:
        """All of it is to be sent again."""


class Streaming(Protocol):
    """What a flight belongs to: a stream's state, in `engine`."""

    def segmentsAcknowledged(self, segments: Sequence[Segment]) -> None:
        """The peer has these segments."""

    def segmentsLost(self, segments: Sequence[Segment]) -> None:
        """These segments must be sent again."""


class Bundle:
    """
    One packet that carries a little of several streams: a segment of each.

    :ivar size: bytes on the wire (UDP payload).
    """

    __slots__ = ("_parts", "first", "last", "sentTime", "size")

    isAckEliciting = True
    isInFlight = True
    isCrypto = False

    def __init__(
        self, parts: Sequence[tuple[Streaming, Sequence[Segment]]], number: int, sentTime: float, size: int
    ) -> None:
        self._parts = parts
        self.first = self.last = number
        self.sentTime = sentTime
        self.size = size

    def split(self, packetNumber: int) -> "Bundle":
        """See `Sent`; a single packet is never split."""
        raise ValueError("a single packet can't be split")

    def onAcknowledged(self) -> None:
        """See `Sent.onAcknowledged`."""
        for stream, segments in self._parts:
            stream.segmentsAcknowledged(segments)

    def onLost(self) -> None:
        """See `Sent.onLost`."""
        for stream, segments in self._parts:
            stream.segmentsLost(segments)


class Flight:
    """
    A run of packets that carry one stream's segments, one each, and nothing else.

    :ivar size: bytes on the wire, all packets together (UDP payload); ``overhead`` is each packet's share beside data.
    """

    __slots__ = ("first", "last", "overhead", "segments", "sentTime", "size", "stream")

    isAckEliciting = True
    isInFlight = True
    isCrypto = False

    def __init__(
        self, stream: Streaming, first: int, segments: list[Segment], sentTime: float, size: int, overhead: int
    ) -> None:
        self.stream = stream
        self.first = first
        self.last = first + len(segments) - 1
        self.segments = segments
        self.sentTime = sentTime
        self.size = size
        self.overhead = overhead

    def split(self, packetNumber: int) -> "Flight":
        """See `Sent.split`."""
        keep = packetNumber - self.first + 1
        rest = self.segments[keep:]
        size = sum([len(segment.data) + self.overhead for segment in rest])
        other = Flight(self.stream, packetNumber + 1, rest, self.sentTime, size, self.overhead)
        del self.segments[keep:]
        self.last = packetNumber
        self.size -= size
        return other

    def onAcknowledged(self) -> None:
        """See `Sent.onAcknowledged`."""
        self.stream.segmentsAcknowledged(self.segments)

    def onLost(self) -> None:
        """See `Sent.onLost`."""
        self.stream.segmentsLost(self.segments)
