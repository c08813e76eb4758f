"""
The reactor's time as it passes, whatever is done to the system's clock.

Twisted's reactor goes by the system's clock, which somebody may set: a computer that starts without knowing the time,
or whose hardware clock is in local time, is set right by hours. Back, and no timer is due for so long; forward, and
every session has been silent for too long.
"""

from time import CLOCK_BOOTTIME, clock_gettime, time
from typing import Any


def keepSteady(reactor: Any) -> None:  # Any: `seconds` is to be replaced, which no interface allows for
    """
    Have the reactor count seconds since the computer was started, beginning with POSIX time. Those count in which it
    was suspended, so that a session that the other end has given up meanwhile is known to be lost. What is said to
    others, or kept, as POSIX time is `time.time` itself.
    """
    began = time() - clock_gettime(CLOCK_BOOTTIME)
    reactor.seconds = lambda: began + clock_gettime(CLOCK_BOOTTIME)
