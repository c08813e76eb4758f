"""
Many connections, and many datagrams of strangers: what they cost while they are there, and that they leave nothing
behind, as the kernel counts it.
"""

import json
import os
import random
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.pump import SERVER, datagramsOf, newClient

from .processes import ROOT, Address, Process, TunnelCase, receive

#: What an idle connection may cost both ends together, bytes.
IDLE_COST = 20 << 10
#: What may be left, bytes: free memory that the allocator keeps, whatever it was used for.
LEFTOVER = 3 << 20
#: Datagrams between two bytes of a visitor, and addresses that they come from.
PIECE, SOURCES = 500, 8
#: How datagrams begin: anyhow, with a short header, with a long one of draft 29, version 1, version negotiation, and
#: a version that nobody knows (RFC 9000 §17).
HEADS = (
    b"",
    b"\x40",
    b"\xc0\xff\x00\x00\x1d",
    b"\xc0\x00\x00\x00\x01\x08",
    b"\xc0\x00\x00\x00\x00",
    b"\xf0\xfa\xfa\xfa\xfa",
)


def resident(process: Process) -> int:
    """The memory that a process has, in bytes (proc_pid_status(5))."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def descriptors(process: Process) -> int:
    """How many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


class CrowdCase(TunnelCase):
    """
    A listener, a connector, and a target that says what it hears.

    :cvar carrier: the one that the connector uses.
    """

    carrier = "quic"

    def setUp(self) -> None:
        super().setUp()
        self.environment |= {"PYTHONPATH": str(ROOT), "SWC_CARRIER": self.carrier}
        target = self.run_("echo", sys.executable, "-m", "tests.echo")
        address = ("127.0.0.1", int(target.waitFor("echo at").split()[-1]))
        self.startBoth()
        self.port = self.openPort(address)
        self.ends = (self.listener, self.connector)

    def echoes(self, visitor: socket.socket) -> None:
        """A byte there and back."""
        visitor.sendall(b"c")
        self.assertEqual(b"c", receive(visitor, 1))

    def come(self, count: int) -> list[socket.socket]:
        """So many visitors, each of whom has had a byte back."""
        visitors = []
        for _ in range(count):
            visitors.append(self.visit(self.port))
            self.echoes(visitors[-1])
        return visitors

    def stayIdle(self, count: int, cost: int = IDLE_COST) -> None:
        """All of them are there and do nothing, and are heard afterwards."""
        self.pass_(100)
        before = [resident(process) for process in self.ends]
        visitors = self.come(count)
        held = sum(resident(process) for process in self.ends) - sum(before)
        self.assertLess(held / count, cost)
        self.assertEqual(count, json.loads(self.call("GET", "/v1/connections")[1])["total"])
        for visitor in visitors:
            self.echoes(visitor)

    def pass_(self, count: int) -> None:
        """So many visitors, one after the other."""
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", self.port)) as visitor:
                self.echoes(visitor)
                visitor.shutdown(socket.SHUT_WR)
                self.assertEqual(b"", visitor.recv(1))

    def leaveNothing(self, count: int, warmUp: int) -> None:
        """Memory and descriptors after some visitors are those after many more."""
        self.pass_(warmUp)
        before = [(resident(process), descriptors(process)) for process in self.ends]
        self.pass_(count)
        for process, (memory, files) in zip(self.ends, before, strict=True):
            self.assertLess(resident(process) - memory, LEFTOVER, process.name)
            self.assertLessEqual(descriptors(process), files + 1, process.name)

    def hearNoise(self, count: int, warmUp: int) -> None:
        """A visitor is carried while strangers send so many datagrams, which leave no memory and no word of a fault."""
        noise = Noise(random.Random(count), ("127.0.0.1", int(self.environment["SWL_PORT"])))
        self.addCleanup(noise.close)
        (visitor,) = self.come(1)
        before = 0
        for number in range(0, warmUp + count, PIECE):
            if not before and number >= warmUp:
                before = resident(self.listener)
            noise.send(PIECE)
            self.echoes(visitor)
        self.assertLess(resident(self.listener) - before, LEFTOVER)
        visitor.close()
        self.assertEqual([], [line for line in self.listener.lines if "Traceback" in line or "Unhandled" in line])
        self.assertEnds(self.connector, self.listener)


class Noise:
    """
    Datagrams of strangers: by chance alone, or what a client begins with, as it is or changed by chance.

    :ivar sources: addresses that they come from.
    """

    def __init__(self, chance: random.Random, listener: Address) -> None:
        self._chance = chance
        self._listener = listener
        self.sources = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOURCES)]
        for number, source in enumerate(self.sources, 1):
            source.bind((f"127.0.1.{number}", 0))
            source.setblocking(False)

    def close(self) -> None:
        """Be silent."""
        for source in self.sources:
            source.close()

    def send(self, count: int) -> None:
        """So many datagrams; what the kernel has no room for is lost, as on any network."""
        for datagram in self._datagrams(count):
            with suppress(OSError):
                self._chance.choice(self.sources).sendto(datagram, self._listener)

    def _datagrams(self, count: int) -> Iterator[bytes]:
        initials = [_initial() for _ in range(max(1, count // 50))]
        for _ in range(count):
            if self._chance.random() < 0.3:
                head = self._chance.choice(HEADS)
                yield head + self._chance.randbytes(self._chance.randrange(1450))
                continue
            changed = bytearray(self._chance.choice(initials))
            for _ in range(self._chance.randrange(4)):
                changed[self._chance.randrange(len(changed))] = self._chance.randrange(256)
            if self._chance.random() < 0.2:
                del changed[self._chance.randrange(1, len(changed)) :]
            yield bytes(changed)


def _initial() -> bytes:
    """A client's first datagram."""
    client = newClient()
    client.connect(SERVER, 0.0)
    return datagramsOf(client, 0.0)[0][0]
