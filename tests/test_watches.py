"""What a bridge would not hear of by itself."""

import os
import socket

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.watches import IDLE_CHECKS, Hangups, IdleWatch, IHangups

from .fake_tcp import FakeReactor


class ReaderList:
    """As much of a reactor as `Hangups` needs: it knows who wants to read."""

    def __init__(self) -> None:
        self.readers: list[object] = []
        self.addReader = self.readers.append
        self.removeReader = self.readers.remove


class HangupsTests(SynchronousTestCase):
    """RST on sockets that nobody reads. The sockets are real, because the kernel does the work."""

    def setUp(self) -> None:
        self.reactor = ReaderList()
        self.hangups = Hangups(self.reactor)  # type: ignore[arg-type]  # as much of one as is needed
        self.addCleanup(self.hangups.close)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.remote = socket.create_connection(server.getsockname())
            self.ours, _ = server.accept()
        self.addCleanup(self.remote.close)
        self.addCleanup(self.ours.close)
        self.resets: list[str] = []

    def watch(self) -> None:
        self.hangups.watch(self.ours.fileno(), lambda: self.resets.append("reset"))

    def remoteResets(self) -> None:
        self.remote.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.remote.close()

    def test_theyAreWhatTheySay(self) -> None:
        verifyObject(IHangups, self.hangups)
        verifyObject(IReadDescriptor, self.hangups)
        verifyObject(IHangups, FakeReactor())
        self.assertEqual([self.hangups], self.reactor.readers)
        self.assertGreater(self.hangups.fileno(), 0)
        self.assertEqual("hangups", self.hangups.logPrefix())
        self.hangups.connectionLost(Failure(CONNECTION_DONE))

    def test_rstIsToldOnce(self) -> None:
        self.watch()
        self.watch()
        self.remoteResets()
        self.hangups.doRead()
        self.hangups.doRead()
        self.assertEqual(["reset"], self.resets)

    def test_bytesAndFinAreNotRst(self) -> None:
        self.watch()
        self.remote.sendall(b"something")
        self.remote.shutdown(socket.SHUT_WR)
        self.hangups.doRead()
        self.assertEqual([], self.resets)

    def test_anOrderlyEndOfBothDirectionsIsNotRst(self) -> None:
        self.watch()
        self.remote.shutdown(socket.SHUT_WR)
        self.ours.shutdown(socket.SHUT_WR)
        self.hangups.doRead()
        self.assertEqual([], self.resets)

    def test_whatIsForgottenIsNotTold(self) -> None:
        self.watch()
        self.hangups.forget(self.ours.fileno())
        self.hangups.forget(self.ours.fileno())
        self.remoteResets()
        self.hangups.doRead()
        self.assertEqual([], self.resets)

    def test_aSocketMayBeForgottenAfterItWasClosedAndItsNumberUsedAgain(self) -> None:
        fd = self.ours.fileno()
        self.watch()
        self.ours.close()
        self.hangups.forget(fd)
        os.dup2(self.remote.fileno(), fd)
        self.addCleanup(os.close, fd)
        self.hangups.watch(fd, lambda: self.resets.append("the new one"))
        self.hangups.doRead()
        self.hangups.forget(fd)
        self.assertEqual([], self.resets)

    def test_oneMayForgetAnotherThatFailedAtTheSameTime(self) -> None:
        other = socket.socket()
        self.addCleanup(other.close)
        with socket.create_server(("127.0.0.1", 0)) as server:
            other.connect(server.getsockname())
            otherRemote, _ = server.accept()
        both = {self.ours.fileno(), other.fileno()}

        def reset() -> None:
            self.resets.append("reset")
            for fd in both:
                self.hangups.forget(fd)

        for fd in both:
            self.hangups.watch(fd, reset)
        self.remoteResets()
        otherRemote.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        otherRemote.close()
        self.hangups.doRead()
        self.assertEqual(["reset"], self.resets)

    def test_closedOnesDoNothing(self) -> None:
        self.watch()
        self.hangups.close()
        self.hangups.forget(self.ours.fileno())
        self.watch()
        self.assertEqual([], self.reactor.readers)
        self.reactor.readers.append(self.hangups)  # for the clean-up


class IdleWatchTests(SynchronousTestCase):
    """A count that stands still."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.count = 0
        self.idle: list[float] = []
        self.watch = IdleWatch(self.clock, 100, lambda: self.count, lambda: self.idle.append(self.clock.seconds()))

    def pass_(self, times: int) -> None:
        for _ in range(times):
            self.clock.advance(100 / IDLE_CHECKS)

    def test_aCountThatNeverMovesIsIdleAfterTheLimitOnce(self) -> None:
        self.pass_(20)
        self.assertEqual([100.0], self.idle)
        self.watch.stop()

    def test_aCountThatMovesIsNotIdle(self) -> None:
        for _ in range(10):
            self.count += 1
            self.pass_(IDLE_CHECKS)
        self.assertEqual([], self.idle)

    def test_aStoppedWatchLeavesNoTimer(self) -> None:
        self.watch.stop()
        self.watch.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
