"""
Receive windows that follow the bandwidth-delay product (RFC 9000 §4.2): one that holds the sender back grows, up to a
limit; one that a slow reader leaves full stays as it is.
"""

import math

import attrs

#: What windows begin with, in bytes, unless their limits are below.
STREAM_START = 256 << 10
SESSION_START = 8 << 20

#: Their limits unless set otherwise: 16 MiB carry 2.6 Gbit/s over 50 ms.
STREAM_LIMIT = 16 << 20
SESSION_LIMIT = 32 << 20

#: A window that is used up by half within this many round trips holds the sender back, and is doubled.
GROWTH_ROUND_TRIPS = 2

#: Seconds that a round trip counts for at the least: how long two busy processes take to answer each other. Measured by
#: the path's least time, not the present one, windows don't grow because of the queues that they make themselves; and a
#: keystroke waits behind what is in the window. With 0.5 ms it waits up to a quarter longer at the same speed; with
#: 0.2 ms a stream takes a quarter more CPU.
LEAST_ROUND_TRIP = 0.00035


@attrs.frozen
class Limits:
    """
    What this end grants the other.

    :ivar streamWindow: bytes that may wait unread on one stream, to begin with, and ``streamLimit`` at the most;
        ``sessionWindow`` and ``sessionLimit``: on all together, but for those whose reader is paused.
    :ivar streams: bidirectional streams that the peer may have open at a time.
    """

    streamWindow: int = STREAM_START
    sessionWindow: int = SESSION_START
    streamLimit: int = STREAM_LIMIT
    sessionLimit: int = SESSION_LIMIT
    streams: int = 10_000


class Window:
    """
    One receive window.

    :ivar size: bytes.
    """

    __slots__ = ("_consumed", "_grantedAt", "_limit", "size")

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self._limit = limit
        self._grantedAt = 0.0
        self._consumed = 0

    def onGranted(self, consumed: int, now: float, rtt: float, mayGrow: bool) -> None:
        """
        Half of it or more was consumed, `consumed` bytes in all, and is granted again; `rtt` is the path's least
        round-trip time, in seconds, infinite while that isn't known.
        """
        taken, elapsed = consumed - self._consumed, now - self._grantedAt
        holdsBack = GROWTH_ROUND_TRIPS * max(LEAST_ROUND_TRIP, rtt) if rtt < math.inf else 0.0
        # How long half a window takes, if it is all consumed at once as well.
        if mayGrow and elapsed * self.size / 2 < holdsBack * taken:
            self.size = max(self.size, min(2 * self.size, self._limit))
        self._consumed, self._grantedAt = consumed, now
