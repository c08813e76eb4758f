"""
Flights: runs of packets full of one stream's data, and path MTU probes (RFC 9000 §12, §14.3).

The congestion window, the pacer and the path MTU say how much; `streams` says whose turn it is.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from aioquic.quic.packet import QuicFrameType
from aioquic.quic.recovery import QuicPacketSpace

from .flight import SHORT, Bundle, Flight, Segment
from .pathmtu import BASE, BLACK_HOLE_LOSSES, BLACK_HOLE_TIMEOUTS, MAXIMUM, PathMtu, Probe
from .protection import Keys
from .recovery import Recovery
from .streams import Streams, StreamState
from .transmission import (
    BYTES_PER_CALL,
    FRAME_HEAD,
    SEGMENTS_PER_CALL,
    Transmission,
    frameOf,
    overheadOf,
    payloadsOf,
)

#: Flights in one call of `Transmitter.transmit`; more would keep other connections, and small writes, waiting.
FLIGHTS_PER_TURN = 8

#: Probe time-outs that a path MTU probe has to be acknowledged.
PROBE_TIMEOUTS = 3


class Connection(Protocol):
    """What the transmitter needs of `engine.Engine`."""

    streams: Streams
    recovery: Recovery

    @property
    def pathAddress(self) -> Any:  # Any: a socket address of whatever family
        """The peer's socket address on the current path."""

    @property
    def oneRtt(self) -> QuicPacketSpace:
        """The packet number space of application data."""

    @property
    def peerConnectionId(self) -> bytes:
        """The connection id that we send to."""

    @property
    def spin(self) -> bool:
        """The latency spin bit (RFC 9000 §17.4)."""

    def sendKeys(self) -> Keys:
        """The keys in use, updated when it is time."""

    @property
    def numbersLeft(self) -> int:
        """How many packet numbers flights may take until more packets are acknowledged."""

    def takeNumbers(self, count: int) -> int:
        """The first of `count` packet numbers, which are used up by that."""

    def onSent(self, size: int, now: float) -> None:
        """Packets that ask for an acknowledgement, `size` bytes together, were sent on the current path."""


class Transmitter:
    """
    Sends one connection's stream data.

    :ivar size: bytes of UDP payload in use. The ordinary path keeps to 1,200: it fills packets with PATH_CHALLENGE and
        PATH_RESPONSE up to its size, and these must arrive on a new path that may be narrower.
    :ivar maximum: the peer's max_udp_payload_size, bytes.
    :ivar nextTime: when pacing allows more, if that is what holds the sender back.
    """

    def __init__(self, connection: Connection) -> None:
        self.maximum = MAXIMUM
        self.nextTime: float | None = None
        self._connection = connection
        self._path: Any = None
        self._search = PathMtu()
        self.size = BASE

    def transmit(self, now: float) -> Iterator[Transmission]:
        """What is to be sent at `now`, each as soon as it is made; call it on a validated path only."""
        connection = self._connection
        if connection.pathAddress != self._path:
            self._onPathChanged(now)
        if connection.recovery.swallowed >= BLACK_HOLE_LOSSES:
            self._leaveBlackHole(now)
        yield from self._probe(now)
        self.nextTime = None
        if connection.streams.sendable:
            yield from self._transmitFlights(now)

    def searchTime(self) -> float | None:
        """When `onTimer` is due."""
        return self._search.nextTime()

    def onTimer(self, now: float) -> None:
        """Time has passed: probes that are lost, and black holes (RFC 8899 §4.3)."""
        self._search.expire(now)
        if self._connection.recovery.timeouts == BLACK_HOLE_TIMEOUTS:
            self._leaveBlackHole(now)

    def _leaveBlackHole(self, now: float) -> None:
        """Send what was swallowed again, in datagrams that every path carries."""
        if self.size > BASE:
            self._search.onBlackHole(now)
            self._useSize()
            self._connection.recovery.rescheduleAll(self._connection.oneRtt)

    def _onPathChanged(self, now: float) -> None:
        """Begin on a new path as on an unknown one (RFC 9000 §9.4), unless only the port is another."""
        last, self._path = self._path, self._connection.pathAddress
        if last is None or last[0] != self._path[0]:
            self._search = PathMtu(self.maximum)
            self._useSize()
            if last is not None:
                self._connection.recovery.restart(self.size, now)

    def _useSize(self) -> None:
        self.size = self._search.size
        self._connection.recovery.setDatagramSize(self.size)

    def _probe(self, now: float) -> Iterator[Transmission]:
        connection, search = self._connection, self._search
        if search.size > self.size:
            self._useSize()
        while (size := search.nextProbe(now)) is not None:
            cid = connection.peerConnectionId
            payload = bytes((QuicFrameType.PING,)).ljust(size - overheadOf(None, cid), b"\0")
            number = connection.takeNumbers(1)
            pieces = connection.sendKeys().seal(connection.spin, cid, number, [payload])
            connection.recovery.onSent(Probe(search, number, size, now), connection.oneRtt)
            search.onSent(size, now + PROBE_TIMEOUTS * connection.recovery.get_probe_timeout())
            yield Transmission(pieces, size, self._path)

    def _transmitFlights(self, now: float) -> Iterator[Transmission]:
        connection = self._connection
        recovery, streams = connection.recovery, connection.streams
        congestion, pacer = recovery.congestion, recovery.pacer
        size = self.size
        for _ in range(FLIGHTS_PER_TURN):
            if not streams.sendable:
                congestion.onStopped(False, now)
                return
            room = max(congestion.window - congestion.inFlight, recovery.probes * size)
            most = recovery.probes or connection.numbersLeft
            if room < size or most <= 0:
                congestion.onStopped(room < size, now)
                return
            paced = pacer.credit(now)
            if paced < size:
                self.nextTime = pacer.nextTime(now)
                return
            count = int(min(SEGMENTS_PER_CALL, BYTES_PER_CALL // size, most, min(room, paced) // size))
            recovery.probes = 0
            if len(streams.sendable) > 1 and streams.sendable[0].sending.isShort:
                yield from self._bundle(now)
            else:
                yield from self._flight(streams.sendable.popleft(), count, now)

    def _bundle(self, now: float) -> Iterator[Transmission]:
        """Seal one datagram for the streams at the head of the queue that have little to send, as many as it holds."""
        connection = self._connection
        streams, cid = connection.streams, connection.peerConnectionId
        overhead = overheadOf(None, cid)
        room = self.size - overhead - FRAME_HEAD
        parts: list[tuple[StreamState, Segment]] = []
        frames: list[bytes] = []
        while streams.sendable:
            state = streams.sendable[0]
            if not state.sending.isShort or state.sending.unsentBytes > room:
                break
            streams.sendable.popleft()
            if (segment := streams.cut(state, SHORT, 1)) is not None:
                parts.append((state, segment))
                frames.append(frameOf(state.streamId, segment))
                room -= len(frames[-1])
        if parts:
            number, total = connection.takeNumbers(1), sum(map(len, frames)) + overhead
            pieces = connection.sendKeys().seal(connection.spin, cid, number, [b"".join(frames)])
            connection.recovery.onSent(Bundle(parts, number, now, total), connection.oneRtt)
            connection.onSent(total, now)
            yield Transmission(pieces, total, self._path)

    def _flight(self, state: StreamState, count: int, now: float) -> Iterator[Transmission]:
        """Seal up to `count` datagrams of one stream, and note them as one run."""
        connection = self._connection
        cid = connection.peerConnectionId
        overhead = overheadOf(state.streamId, cid)
        size = self.size - overhead
        segment = connection.streams.cut(state, size, count)
        if segment is None:
            return
        keys, payloads = connection.sendKeys(), payloadsOf(state.streamId, segment, size)
        number = connection.takeNumbers(len(payloads))
        pieces = keys.seal(connection.spin, cid, number, payloads)
        flight = Flight(state, number, segment, size, now, overhead)
        connection.recovery.onSent(flight, connection.oneRtt)
        connection.onSent(flight.size, now)
        yield Transmission(pieces, self.size, self._path)
