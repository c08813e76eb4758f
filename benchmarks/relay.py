"""
A relay of IP packets between two TUN devices, which delays them and loses some.

Run as ``python -m benchmarks.relay DESCRIPTOR DESCRIPTOR LOSS``, with descriptors of the devices that it inherits.

Each direction has its own seeded generator, so the n-th packet of a direction meets the same fate in every run.
"""

import os
import random
import select
import sys
import time
from collections import deque
from contextlib import suppress

#: Seconds in each direction: 50 ms there and back.
DELAY = 0.025
SEED = 4
#: Bytes of a packet.
MTU = 1500
#: Packets that wait at most in each direction, and in each device for the relay: 12 MB, more than TCP's largest window
#: by Linux's defaults (tcp_rmem, 6 MB). What comes then is dropped.
LONGEST = 8000
#: Packets taken from a device before those that are due go out.
BATCH = 64
#: The relay goes before what it carries (nice(1)): a network doesn't wait until its ends have nothing to do.
NICE = -20


class Direction:
    """
    From one device to the other, later.

    :param loss: the share of the packets that is lost.
    """

    def __init__(self, incoming: int, outgoing: int, loss: float, seed: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._loss = loss
        self._fate = random.Random(seed)
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self, now: float) -> None:
        """Read what is there, and throw the dice for each packet."""
        due = now + DELAY
        with suppress(BlockingIOError):
            for _ in range(BATCH):
                packet = os.read(self._incoming, MTU)
                if self._fate.random() >= self._loss and len(self._waiting) < LONGEST:
                    self._waiting.append((due, packet))

    def give(self, now: float) -> float:
        """Write what is due; the seconds until the next."""
        while self._waiting and self._waiting[0][0] <= now:
            os.write(self._outgoing, self._waiting.popleft()[1])
        return self._waiting[0][0] - now if self._waiting else 60.0


def main() -> None:
    """Relay until killed."""
    closed, public, loss = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    os.nice(NICE)
    directions = {public: Direction(public, closed, loss, SEED), closed: Direction(closed, public, loss, SEED + 1)}
    wait = 60.0
    while True:
        for descriptor in select.select(directions, [], [], max(wait, 0))[0]:
            directions[descriptor].take(time.monotonic())
        now = time.monotonic()
        wait = min(each.give(now) for each in directions.values())


if __name__ == "__main__":
    main()
