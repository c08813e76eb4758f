"""What systemd hears, on a socket like its own."""

import os
import socket
from pathlib import Path
from secrets import token_hex

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.notify import ServiceManager


class ServiceManagerTests(SynchronousTestCase):
    """A real datagram socket, and a clock of our own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(self.socket.close)
        self.path = str(Path(self.mktemp()))
        self.socket.bind(self.path)

    def manager(self, **environment: str) -> ServiceManager:
        return ServiceManager({"NOTIFY_SOCKET": self.path, **environment}, self.clock)

    def heard(self) -> list[str]:
        """The notifications since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(100).decode())
            except BlockingIOError:
                return found

    def test_readyAndStoppingAreOneDatagramEach(self) -> None:
        manager = self.manager()
        manager.ready()
        self.assertEqual(["READY=1"], self.heard())
        manager.stopping()
        self.assertEqual(["STOPPING=1"], self.heard())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_anAbstractSocketIsReached(self) -> None:
        name = f"socketwarp-{token_hex(8)}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(self.socket.close)
        self.socket.bind(f"\0{name}")
        self.manager(NOTIFY_SOCKET=f"@{name}").ready()
        self.assertEqual(["READY=1"], self.heard())

    def test_theWatchdogIsToldTwiceInItsTimeUntilAllIsOver(self) -> None:
        manager = self.manager(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        manager.ready()
        self.assertEqual(["READY=1", "WATCHDOG=1"], self.heard())
        self.clock.advance(1.4)
        self.assertEqual([], self.heard())
        self.clock.advance(0.1)
        self.assertEqual(["WATCHDOG=1"], self.heard())
        manager.stopping()
        self.clock.advance(1.5)
        self.assertEqual(["STOPPING=1", "WATCHDOG=1"], self.heard())
        manager.stopped()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aWatchdogOfAnotherProcessIsNotOurs(self) -> None:
        self.manager(WATCHDOG_USEC="3000000", WATCHDOG_PID="1").ready()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_withoutAManagerNothingIsSent(self) -> None:
        manager = ServiceManager({}, self.clock)
        manager.ready()
        manager.stopping()
        manager.stopped()
        self.assertEqual([], self.heard())

    def test_aManagerWhoHasGoneStopsNobody(self) -> None:
        os.unlink(self.path)
        self.manager(WATCHDOG_USEC="2000000").ready()
        self.clock.advance(1.0)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
