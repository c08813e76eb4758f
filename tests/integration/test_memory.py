"""
A reader that takes nothing costs windows, not what waits for it; handshakes that nobody finishes cost nothing for long.
Memory is what the kernel counts.
"""

import os
import re
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from OpenSSL import SSL

from .processes import PATIENCE, OverTls, Process, TunnelCase, readToEnd

MUCH = 256 << 20
#: What both ends are told that windows may be, in bytes.
WINDOW = 1 << 20
PIECE = bytes(1 << 20)
#: What an end may hold beyond its windows: buffers of the code that runs for the first time, and free memory that the
#: allocator keeps in arenas of 1 MiB and blocks below 128 KiB (mallopt(3), M_MMAP_THRESHOLD).
ALLOCATOR = 3 << 20
#: Seconds without room in a socket until its writer counts as stopped. Too short a time makes the test weaker, not red.
STILL = 2.0


def descriptors(process: Process) -> int:
    """How many the process has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def peak(process: Process) -> int:
    """The most memory that the process has had since `forget`, in bytes (proc_pid_status(5))."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def forget(process: Process) -> int:
    """Let the peak be what it has now; that (proc_pid_clear_refs(5))."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return peak(process)


class SlowReaderTests(TunnelCase):
    """256 MiB for one who doesn't read them."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("SWL_STREAM_WINDOW", "SWC_STREAM_WINDOW", "SWL_SESSION_WINDOW", "SWC_SESSION_WINDOW"):
            self.environment[name] = str(WINDOW)
        self.startBoth()
        self.server = self.listen()
        self.visitor, self.target = self.pair(self.server, self.entrance(self.server))

    def fill(self, source: socket.socket) -> int:
        """Send until nothing more is taken; how much was."""
        source.setblocking(False)
        sent = 0
        while sent < MUCH and select.select([], [source], [], STILL)[1]:
            sent += source.send(PIECE[: MUCH - sent])
        source.settimeout(PATIENCE)
        return sent

    def finish(self, source: socket.socket, sent: int) -> None:
        """Send the rest, and FIN."""
        while sent < MUCH:
            source.sendall(PIECE[: MUCH - sent])
            sent += len(PIECE[: MUCH - sent])
        source.shutdown(socket.SHUT_WR)

    def costsWindows(self, source: socket.socket, sink: socket.socket) -> None:
        before = {process: forget(process) for process in (self.listener, self.connector)}
        sent = self.fill(source)
        self.assertLess(sent, MUCH)
        with ThreadPoolExecutor(1) as threads:
            finished = threads.submit(self.finish, source, sent)
            received = 0
            while piece := sink.recv(1 << 16):
                received += len(piece)
            finished.result(PATIENCE)
        self.assertEqual(MUCH, received)
        for process, resident in before.items():
            self.assertLess(peak(process) - resident, 2 * WINDOW + ALLOCATOR, process.name)

    def test_aTargetThatDoesNotReadCostsEitherEndTwoWindows(self) -> None:
        self.costsWindows(self.visitor, self.target)

    def test_aVisitorThatDoesNotReadCostsEitherEndTwoWindows(self) -> None:
        self.costsWindows(self.target, self.visitor)

    def test_visitorsAreServedWhileOthersReadNothing(self) -> None:
        """Each of them fills a window that begins with a quarter of the session's."""
        for _ in range(5):
            visitor, _ = self.pair(self.server, self.entrance(self.server))
            self.fill(visitor)
        visitor, target = self.pair(self.server, self.entrance(self.server))
        for source, sink in ((visitor, target), (target, visitor)):
            source.sendall(b"still served")
            self.assertEqual(b"still served", sink.recv(1 << 16))


class SlowReaderOverTlsTests(OverTls, SlowReaderTests):
    """The same over TLS, where the windows are the kernel's, and an end holds less than one."""


class AbandonedTests(TunnelCase):
    """Handshakes over TLS that are begun, and answered, and then nothing."""

    #: At a time; fewer than one source may have.
    MANY = 100

    def abandon(self) -> None:
        """Begin some; return when the listener has given them up."""
        address = ("127.0.0.1", int(str(self.settings["service_port"])))
        connections = [socket.create_connection(address, PATIENCE) for _ in range(self.MANY)]
        for each in connections:
            client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
            client.set_connect_state()
            self.assertRaises(SSL.WantReadError, client.do_handshake)
            each.sendall(client.bio_read(1 << 16))
        for each in connections:
            self.assertTrue(each.recv(1 << 16), "the listener's half")
            readToEnd(each)
            each.close()

    def test_theyLeaveNeitherMemoryNorDescriptors(self) -> None:
        self.environment["SWL_HANDSHAKE_SECONDS"] = "1"
        self.startListener()
        self.abandon()
        before, opened = forget(self.listener), descriptors(self.listener)
        for _ in range(4):
            self.abandon()
        self.assertLess(forget(self.listener) - before, ALLOCATOR)
        self.assertEqual(opened, descriptors(self.listener))
        self.assertEnds(self.listener)
