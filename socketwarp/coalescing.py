"""
Reading a slow link in portions, as network cards coalesce their interrupts. Pure: time comes in as a number, in
seconds.

A link that brings one packet at a time costs a wake-up for each. So while a bulk transfer comes in steadily, but
slowly, what reads it waits for `COALESCING_SECONDS` and takes a dozen packets at once. What people and programs wait
for isn't bulk: small pieces, short answers, and on a TCP connection whatever is answered before more of it comes.
"""

import math

#: How long reading waits. Reactors' timers have a resolution of 1 ms, so it is up to twice as long.
COALESCING_SECONDS = 0.001
#: Seconds from one read to the next, at the most, for bytes to come steadily.
STEADY_SECONDS = 0.004
#: Slow reads in a row, from which on the next one waits.
SLOW_READS = 3
#: Bytes a second from which on reads bring enough by themselves, and the kernel might run out of room while nobody
#: reads: in 2 ms it is 80 KB.
FAST = 40e6
#: A bulk transfer comes in pieces of so many bytes at the least (packets have 1,200), and is one after so many.
PIECE_BYTES, BULK_BYTES = 1000, 64 << 10


class Bulk:
    """
    Tells a bulk transfer from what somebody waits for, by the sizes of what comes.

    :ivar size: bytes that count for it.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int) -> bool:
        """
        A piece of `size` bytes has come, or one that ends something: 0. Whether most of what came lately was bulk; a
        few small pieces among it don't matter.
        """
        self.size = min(self.size + size, 4 * BULK_BYTES) if size >= PIECE_BYTES else self.size // 2
        return self.isOne

    @property
    def isOne(self) -> bool:
        """Whether there is a bulk transfer."""
        return self.size >= BULK_BYTES


class Pace:
    """How reads follow one another."""

    __slots__ = ("_at", "_slow")

    def __init__(self) -> None:
        self._at = -math.inf
        self._slow = 0  # reads in a row

    def isSlow(self, size: int, now: float) -> bool:
        """
        A read has brought `size` bytes, or nothing whole. Whether they come steadily, and so slowly that the next read
        may wait. One slow read alone comes after any pause of a sender that is fast.
        """
        elapsed = now - self._at
        if size:
            self._at = now
        self._slow = self._slow + 1 if elapsed < STEADY_SECONDS and size < FAST * elapsed else 0
        return self._slow >= SLOW_READS
