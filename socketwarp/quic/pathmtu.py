"""
The largest datagram that a path carries (RFC 9000 §14.3, RFC 8899): found by probes, given up when a black hole
swallows it.

Pure state with time as a number; `transmit` sends the probes. A probe that is lost says nothing about congestion, and
waits for no probe time-out: it has a timer of its own.
"""

#: Bytes of UDP payload that every path of QUIC carries (RFC 9000 §14).
BASE = 1200

#: The largest datagram that we use: four of them are one UDP_SEGMENT call (`transmission.BYTES_PER_CALL`). Of the
#: largest one that aioquic could build, 16,383 bytes, only three fit.
MAXIMUM = 16_250

#: Sizes that paths are likely to have, all probed at once: Ethernet with IPv6 and IPv4 headers, jumbo frames with
#: each, loopback.
LIKELY = (1452, 1472, 8952, 8972, MAXIMUM)

#: RFC 8899 §5.1.2: probes of a size before it counts as too large.
MAX_PROBES = 3

#: Seconds after which larger sizes are tried again (RFC 8899 §5.1.1, PMTU_RAISE_TIMER), and after a black hole.
RAISE_SECONDS = 600.0
BLACK_HOLE_SECONDS = 60.0

#: Probe time-outs in a row, without an acknowledgement between them, that make a black hole.
BLACK_HOLE_TIMEOUTS = 3

#: Round trips in a row that make one as well: in each of them datagrams above `BASE` got lost, and no others, and none
#: of them arrived. Other streams' keystrokes, or acknowledgements, get through then and are acknowledged.
BLACK_HOLE_LOSSES = 3


class PathMtu:
    """
    The search on one path.

    :ivar size: bytes of UDP payload in use.
    :param limit: the peer's max_udp_payload_size (RFC 9000 §18.2).
    """

    def __init__(self, limit: int = MAXIMUM) -> None:
        self.size = BASE
        self._limit = min(limit, MAXIMUM)
        self._failures: dict[int, int] = {}
        self._outstanding: dict[int, float] = {}
        self._searchAt = 0.0

    def nextProbe(self, now: float) -> int | None:
        """The size of a probe to send now; call `onSent` with it, and ask again."""
        if now < self._searchAt:
            return None
        sizes = [size for size in LIKELY if self.size < size <= self._limit]
        for size in sizes:
            if size not in self._outstanding and self._failures.get(size, 0) < MAX_PROBES:
                return size
        if not self._outstanding:
            self._failures.clear()
            self._searchAt = now + RAISE_SECONDS if sizes else float("inf")
        return None

    def onSent(self, size: int, deadline: float) -> None:
        """A probe was sent; at `deadline` without an acknowledgement it counts as lost."""
        self._outstanding[size] = deadline

    def onAcknowledged(self, size: int) -> None:
        """The path carries `size`."""
        self._outstanding.pop(size, None)
        self.size = max(self.size, size)

    def onLost(self, size: int) -> None:
        """A probe got lost, or was too large."""
        if self._outstanding.pop(size, None) is not None:
            self._failures[size] = self._failures.get(size, 0) + 1

    def expire(self, now: float) -> None:
        """Count probes without an answer as lost."""
        for size in [size for size, deadline in self._outstanding.items() if deadline <= now]:
            self.onLost(size)

    def nextTime(self) -> float | None:
        """When `expire` is due."""
        return min(self._outstanding.values(), default=None)

    def onBlackHole(self, now: float) -> None:
        """Fall back to what every path carries, and search again later."""
        self.size = BASE
        self._outstanding.clear()
        self._failures.clear()
        self._searchAt = now + BLACK_HOLE_SECONDS


class Probe:
    """A probe packet in flight, see `flight.Sent`: outside of congestion control."""

    __slots__ = ("_pathMtu", "first", "largest", "last", "sentTime", "size")

    isAckEliciting = False
    isInFlight = False
    isCrypto = False

    def __init__(self, pathMtu: PathMtu, number: int, size: int, sentTime: float) -> None:
        self._pathMtu = pathMtu
        self.first = self.last = number
        self.size = self.largest = size
        self.sentTime = sentTime

    def split(self, packetNumber: int) -> "Probe":
        """See `flight.Sent`; a single packet is never split."""
        raise ValueError("a single packet can't be split")

    def onAcknowledged(self) -> None:
        """See `flight.Sent`."""
        self._pathMtu.onAcknowledged(self.size)

    def onLost(self) -> None:
        """See `flight.Sent`."""
        self._pathMtu.onLost(self.size)
