"""
How a process that moves bytes all day keeps its memory: the C library's heap, and Python's collector of cycles.

Flights are some 100 KB that come and go thousands of times a second. By its defaults glibc gives what is free at the
heap's top back to the system each time, and the next flight faults its pages in again.
"""

import ctypes
import gc
from contextlib import suppress

#: mallopt(3)'s names for both, from <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Bytes that may stay free at the top. One stream at 16,250-byte datagrams, two engines in memory, CPU for a GB: 2.13 s
#: by default, 1.37 s with 4 MiB, 1.27 s with 8 MiB, 1.26 s with 16 MiB.
KEPT_BYTES = 8 << 20
#: What is larger has pages of its own, new ones each time; a read of a busy connection must not be.
LARGE_BYTES = 1 << 20
#: New objects after which the youngest are looked through for cycles. Python's own number is 700, some two short
#: connections; a twentieth of their CPU.
COLLECT_AFTER = 10_000


def settle() -> None:
    """
    Call it when all that the process needs has been loaded: the collector never looks at that again. What it finds
    later than by its defaults is a few MB. Elsewhere than on glibc the heap stays as it is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
