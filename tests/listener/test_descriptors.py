"""Accepting pauses before the file descriptors run out."""

import os
import resource
import socket
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import PortUnavailable
from socketwarp.listener.descriptors import LOOK_SECONDS, NO_LIMIT, Descriptors, EntrySocket, lowestFree, raiseLimit
from socketwarp.listener.events import Events


class PolledReactor(Clock):
    """A clock that remembers what waits for bytes; the test is the poll."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []  # Any: descriptors of Twisted's

    def addReader(self, reader: Any) -> None:  # Any: as above
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:  # Any: as above
        if reader in self.readers:
            self.readers.remove(reader)

    removeWriter = removeReader

    def poll(self) -> None:
        for reader in [each for each in self.readers if isinstance(each, EntrySocket)]:
            reader.doRead()


class Counting(Factory):
    """Each connection takes a descriptor."""

    def __init__(self, test: "DescriptorsTests") -> None:
        self._test = test

    def buildProtocol(self, address: IAddress | None) -> Protocol:
        self._test.free += 1
        self._test.accepted.append(Protocol())
        return self._test.accepted[-1]


class DescriptorsTests(SynchronousTestCase):
    """100 descriptors, 25 of them in reserve; a played count of those in use."""

    def setUp(self) -> None:
        self.reactor = PolledReactor()
        self.events = Events(self.reactor.seconds)
        self.free = 10
        self.descriptors = Descriptors(self.reactor, self.events, 100, lambda descriptor: self.free)
        self.accepted: list[Protocol] = []
        self.factory = Counting(self)
        self.port = self.listen()

    def listen(self) -> Any:  # Any: an EntrySocket, as IListeningPort
        port: Any = self.descriptors.listen(self.factory, "127.0.0.1", 0)  # Any: as above
        self.addCleanup(self.close, port)
        return port

    def close(self, port: Any) -> None:  # Any: as above
        if port.connected:
            port.connectionLost(Failure(ConnectionError()))

    def visit(self, count: int) -> None:
        for _ in range(count):
            visitor = socket.create_connection((self.port.getHost().host, self.port.getHost().port))
            self.addCleanup(visitor.close)

    def tearDown(self) -> None:
        for protocol in self.accepted:
            cast(Server, protocol.transport).connectionLost(Failure(ConnectionError()))

    def told(self) -> list[str]:
        return [event.name for event in self.events.since(0)]

    def test_visitorsAreAccepted(self) -> None:
        self.visit(3)
        self.reactor.poll()
        self.assertEqual(3, len(self.accepted))

    def test_theReserveIsNotForVisitors(self) -> None:
        self.free = 73
        self.visit(4)
        for _ in range(5):
            self.reactor.poll()
        self.assertEqual(2, len(self.accepted))
        self.assertEqual(["port.paused"], self.told())
        self.assertEqual([], self.reactor.readers[2:])

    def test_aPausedPortCostsNothing(self) -> None:
        self.free = 75
        self.reactor.poll()
        self.assertNotIn(self.port, self.reactor.readers)
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))

    def test_acceptingGoesOnWhenSomeAreFree(self) -> None:
        self.free = 75
        self.visit(1)
        self.reactor.poll()
        self.reactor.pump([LOOK_SECONDS] * 3)
        self.reactor.poll()
        self.assertEqual([], self.accepted)
        self.free = 74
        self.reactor.advance(LOOK_SECONDS)
        self.reactor.poll()
        self.assertEqual(1, len(self.accepted))
        self.assertEqual(["port.paused", "port.resumed"], self.told())

    def test_allPortsPauseTogether(self) -> None:
        other = self.listen()
        self.free = 75
        self.port.doRead()
        other.doRead()
        third = self.listen()
        self.assertEqual([], [each for each in self.reactor.readers if each in (self.port, other, third)])
        self.free = 10
        self.reactor.advance(LOOK_SECONDS)
        self.assertEqual({self.port, other, third}, set(self.reactor.readers))

    def test_aBurstTakesNoMoreThanThereIsRoomFor(self) -> None:
        self.free = 10
        self.visit(40)
        self.reactor.poll()
        self.assertEqual(12, len(self.accepted))  # half the reserve at a time

    def test_aClosedPortIsForgotten(self) -> None:
        self.free = 75
        self.reactor.poll()
        self.close(self.port)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_aTakenPortIsUnavailable(self) -> None:
        port = self.port.getHost().port
        error = self.assertRaises(PortUnavailable, self.descriptors.listen, self.factory, "127.0.0.1", port)
        self.assertIn(f"port {port} can't be opened on 127.0.0.1", str(error))

    def test_itIsAListeningPort(self) -> None:
        self.assertIsInstance(self.port.getHost(), IPv4Address)


class ProcessTests(SynchronousTestCase):
    """What the process is asked."""

    def test_theLowestFreeNumberIsTheNextOne(self) -> None:
        expected = lowestFree(0)
        descriptor = os.dup(0)
        self.addCleanup(os.close, descriptor)
        self.assertEqual(expected, descriptor)
        self.assertGreater(lowestFree(0), descriptor)

    def test_withNoneLeftItIsPastEveryLimit(self) -> None:
        self.assertEqual(NO_LIMIT, lowestFree(-1))

    def test_theProcessGetsAllItMayHave(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, limits[1]), limits[1]))
        self.assertEqual(limits[1], raiseLimit())
        self.assertEqual((limits[1], limits[1]), resource.getrlimit(resource.RLIMIT_NOFILE))
