"""The kernel's news of the network."""

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.connector import network
from socketwarp.connector.network import SETTLE, NetworkWatch
from tests.connector.fakes import TargetReactor


class FakeNetlink:
    """A netlink socket: `news` are read, and then there is nothing more."""

    def __init__(self, *_: object) -> None:
        self.news: list[bytes | OSError] = []
        self.groups = 0
        self.closed = False

    def bind(self, address: tuple[int, int]) -> None:
        self.groups = address[1]

    def recv(self, size: int) -> bytes:
        if not self.news:
            raise BlockingIOError
        said = self.news.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


class NetworkTests(SynchronousTestCase):
    """On a played kernel."""

    def setUp(self) -> None:
        self.netlink = FakeNetlink()
        self.changes: list[None] = []
        self.clock = Clock()
        self.reactor = TargetReactor()
        reactor: Any = self.reactor  # Any: it plays what the watch uses
        self.watch = NetworkWatch(reactor, self.clock, lambda: self.changes.append(None))

    def start(self, make: Callable[..., object]) -> None:
        self.patch(socket, "socket", make)
        self.watch.start()

    def test_isAReader(self) -> None:
        verifyObject(IReadDescriptor, self.watch)
        self.assertEqual((-1, "network"), (self.watch.fileno(), self.watch.logPrefix()))

    def test_whatChangesTogetherIsToldOnce(self) -> None:
        self.start(lambda *_: self.netlink)
        self.assertEqual((network._GROUPS, 7), (self.netlink.groups, self.watch.fileno()))
        self.netlink.news = [b"link", b"address"]
        self.watch.doRead()
        self.clock.advance(SETTLE / 2)
        self.netlink.news = [b"route", OSError(errno.ENOBUFS, "more than fits")]
        self.watch.doRead()
        self.assertEqual([], self.changes)
        self.clock.advance(SETTLE / 2)
        self.assertEqual([None], self.changes)
        self.watch.doRead()
        self.clock.advance(SETTLE)
        self.assertEqual([None, None], self.changes)

    def test_stoppingLeavesNothing(self) -> None:
        self.start(lambda *_: self.netlink)
        self.watch.doRead()
        self.watch.connectionLost(Failure(OSError()))
        self.watch.stop()
        self.assertTrue(self.netlink.closed)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aSystemThatDoesNotTellIsNoError(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EAFNOSUPPORT, "no such family")

        self.start(refuse)
        self.assertEqual(-1, self.watch.fileno())
