"""
A relay of UDP datagrams that delays, loses and drops what is too large.

Run as ``python -m benchmarks.relay PORT LISTENER_PORT``.

What comes from the listener's port goes to the latest sender of the others. Each direction has its own seeded
generator, so the n-th datagram of a direction meets the same fate in every run.
"""

import random
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress

#: Seconds in each direction: 50 ms there and back.
DELAY = 0.025
#: Share of the datagrams lost in each direction.
LOSS = 0.01
SEED = 4
MTU = 1500
#: IPv4's and UDP's headers (RFC 791, RFC 768).
HEADERS = 28
#: Datagrams that wait at most in each direction: 1 s of 10 MB/s, at 1,452 bytes. What comes then is dropped.
LONGEST = 7000
#: Bytes asked of the kernel for each socket.
BUFFER = 8 * 1024 * 1024
#: Datagrams taken from a socket before those that are due go out.
BATCH = 64
HOST = "127.0.0.1"


class Direction:
    """From one socket to another, later."""

    def __init__(self, incoming: socket.socket, outgoing: socket.socket, seed: int) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.to: tuple[str, int] | None = None
        self.sender: tuple[str, int] | None = None
        self._fate = random.Random(seed)
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Receive what is there, and throw the dice for each datagram."""
        due = time.monotonic() + DELAY
        for _ in range(BATCH):
            try:
                datagram, self.sender = self.incoming.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for what was sent before
            lost = self._fate.random() < LOSS
            if not lost and len(datagram) + HEADERS <= MTU and len(self._waiting) < LONGEST:
                self._waiting.append((due, datagram))

    def give(self, now: float) -> float:
        """Send what is due; the seconds until the next."""
        while self._waiting and self._waiting[0][0] <= now:
            datagram = self._waiting.popleft()[1]
            if self.to:
                with suppress(OSError):  # its receiver has gone, or has no room: one more that is lost
                    self.outgoing.sendto(datagram, self.to)
        return self._waiting[0][0] - now if self._waiting else 60.0


def udp(port: int) -> socket.socket:
    """A socket with large buffers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option, forced in ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)  # SO_RCVBUFFORCE, SO_SNDBUFFORCE: socket(7)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    sock.setblocking(False)
    sock.bind((HOST, port))
    return sock


def main() -> None:
    """Relay until killed."""
    port, listener = map(int, sys.argv[1:3])
    front, back = udp(port), udp(0)
    inwards, outwards = Direction(front, back, SEED), Direction(back, front, SEED + 1)
    inwards.to = (HOST, listener)
    directions = {front: inwards, back: outwards}
    wait = 60.0
    while True:
        for sock in select.select([front, back], [], [], max(wait, 0))[0]:
            directions[sock].take()
        outwards.to = inwards.sender
        now = time.monotonic()
        wait = min(each.give(now) for each in directions.values())


if __name__ == "__main__":
    main()
