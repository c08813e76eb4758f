"""Accepting pauses before the file descriptors run out."""

import os
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.errors import PortUnavailable
from socketwarp.interfaces import Address
from socketwarp.listener.descriptors import LOOK_SECONDS, Descriptors, LaneUsher, lowestFree
from socketwarp.listener.events import Events
from socketwarp.tcp.limit import NO_LIMIT
from socketwarp.tcp.port import IUsher, Port
from tests.listener.rig import checked
from tests.tcp.fakes import Recorder, makePoll


class Clients:
    """Each connection takes a descriptor."""

    def __init__(self, test: "DescriptorsTests") -> None:
        self._test = test

    def __call__(self, address: Address) -> Recorder:
        self._test.free += 1
        self._test.accepted.append(Recorder())
        return self._test.accepted[-1]


class DescriptorsTests(SynchronousTestCase):
    """100 descriptors, 25 of them in reserve; a played count of those in use."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.poll, _ = makePoll()
        self.events = checked(Events(self.clock.seconds))
        self.free = 10
        self.descriptors = Descriptors(self.clock, self.poll, self.events, 100, lambda descriptor: self.free)
        self.accepted: list[Recorder] = []
        self.clients = Clients(self)
        self.port = self.listen()

    def listen(self) -> Port:
        port = self.descriptors.listen(self.clients, "127.0.0.1", 0)
        assert isinstance(port, Port)
        self.addCleanup(port.stopListening)
        return port

    def isWatched(self, port: Port) -> bool:
        """Whether visitors are heard of."""
        self.visit(1, port)
        return bool(self.poll._epoll.poll(0))

    def visit(self, count: int, port: Port | None = None) -> None:
        for _ in range(count):
            visitor = socket.create_connection(("127.0.0.1", (port or self.port).getHost().port))
            self.addCleanup(visitor.close)

    def tearDown(self) -> None:
        for protocol in self.accepted:
            protocol.tcp.abortConnection()

    def told(self) -> list[str]:
        return [event.name for event in self.events.since(0)]

    def test_visitorsAreAccepted(self) -> None:
        self.visit(3)
        self.poll.doRead()
        self.assertEqual(3, len(self.accepted))

    def test_theReserveIsNotForVisitors(self) -> None:
        self.free = 73
        self.visit(4)
        for _ in range(5):
            self.poll.doRead()
        self.assertEqual(2, len(self.accepted))
        self.assertEqual(["port.paused"], self.told())

    def test_aPausedPortCostsNothing(self) -> None:
        self.free = 75
        self.visit(1)
        self.poll.doRead()
        self.assertFalse(self.isWatched(self.port))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))

    def test_acceptingGoesOnWhenSomeAreFree(self) -> None:
        self.free = 75
        self.visit(1)
        self.poll.doRead()
        self.clock.pump([LOOK_SECONDS] * 3)
        self.poll.doRead()
        self.assertEqual([], self.accepted)
        self.free = 74
        self.clock.advance(LOOK_SECONDS)
        self.poll.doRead()
        self.assertEqual(1, len(self.accepted))
        self.assertEqual(["port.paused", "port.resumed"], self.told())

    def test_allPortsPauseTogether(self) -> None:
        other = self.listen()
        self.free = 75
        self.visit(1)
        self.visit(1, other)
        self.poll.doRead()
        third = self.listen()
        self.assertEqual([False] * 3, [self.isWatched(port) for port in (self.port, other, third)])
        self.free = 10
        self.clock.advance(LOOK_SECONDS)
        self.poll.doRead()
        self.assertEqual(2 + 2 + 1, len(self.accepted))

    def test_portsWaitWhenSomethingElseHasRunOut(self) -> None:
        """Those that are opened meanwhile, too."""
        self.descriptors.hold("no more coffee")
        ports = (self.port, self.listen())
        self.assertEqual([False] * 2, [self.isWatched(port) for port in ports])
        self.assertEqual("no more coffee", self.events.since(0)[-1].fields["reason"])
        self.assertEqual("no more coffee", self.descriptors.pausedBy)
        self.descriptors.release()
        self.assertEqual("", self.descriptors.pausedBy)
        self.poll.doRead()
        self.assertEqual(2, len(self.accepted))
        self.assertEqual(["port.paused", "port.resumed"], self.told())

    def test_acceptingGoesOnWhenNothingIsMissingAnyMore(self) -> None:
        """Whichever comes back first."""
        for first, second in ((self.descriptors.release, self.freeSome), (self.freeSome, self.descriptors.release)):
            self.descriptors.hold("memory")
            self.descriptors.exhausted(OSError(24, "too many"))
            first()
            self.assertFalse(self.isWatched(self.port))
            self.assertIn(self.descriptors.pausedBy, ("memory", "too many"))
            second()
            self.assertTrue(self.isWatched(self.port))
            self.assertEqual("", self.descriptors.pausedBy)
        self.assertEqual(["port.paused", "port.paused", "port.resumed"] * 2, self.told())

    def freeSome(self) -> None:
        self.clock.advance(LOOK_SECONDS)

    def test_aBurstTakesNoMoreThanThereIsRoomFor(self) -> None:
        self.free = 10
        self.visit(40)
        self.poll.doRead()
        self.assertEqual(12, len(self.accepted))  # half the reserve at a time

    def test_aClosedPortIsForgotten(self) -> None:
        self.free = 75
        self.visit(1)
        self.poll.doRead()
        self.port.stopListening()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aTakenPortIsUnavailable(self) -> None:
        port = self.port.getHost().port
        error = self.assertRaises(PortUnavailable, self.descriptors.listen, self.clients, "127.0.0.1", port)
        self.assertEqual(f"port {port} can't be opened on 127.0.0.1: Address already in use", str(error))

    def test_itIsAnUsher(self) -> None:
        verifyObject(IUsher, self.descriptors)

    def test_aMachineAtItsEndPausesAllPorts(self) -> None:
        self.descriptors.exhausted(OSError(12, "no memory"))
        self.assertFalse(self.isWatched(self.port))
        self.assertIn("no memory", str(self.events.since(0)[-1].fields["reason"]))

    def test_visitorsWhomALaneIsOwedCountTwice(self) -> None:
        """Once in the kernel, and once more until they have their lane."""
        owed = 30
        self.descriptors.owed = lambda: owed
        self.free = 43
        self.visit(4)
        for _ in range(3):
            self.poll.doRead()
        self.assertEqual(2, len(self.accepted))
        self.clock.advance(LOOK_SECONDS)
        self.poll.doRead()
        self.assertEqual(2, len(self.accepted))
        owed = 0
        self.clock.advance(LOOK_SECONDS)
        self.poll.doRead()
        self.assertEqual(4, len(self.accepted))

    def test_whoIsOwedALaneIsNotAskedWhileThereAreEnough(self) -> None:
        """It takes the longer, the more sessions there are."""
        self.descriptors.owed = lambda: self.fail("asked")
        self.visit(3)
        self.poll.doRead()
        self.assertEqual(3, len(self.accepted))


class LaneTests(SynchronousTestCase):
    """The port of connectors, beside an entry port: 100 descriptors, 25 in reserve, and 6 of those not for lanes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.poll, _ = makePoll()
        self.free = 10
        self.descriptors = Descriptors(
            self.clock, self.poll, Events(self.clock.seconds), 100, lambda descriptor: self.free
        )
        self.entry = self.descriptors.listen(lambda address: Recorder(), "127.0.0.1", 0)
        self.addCleanup(self.entry.stopListening)
        self.lanes: list[socket.socket] = []
        port = self.descriptors.listenFor(self.take, "127.0.0.1", 0)
        assert isinstance(port, Port)
        self.port = port
        self.addCleanup(port.stopListening)

    def take(self, connection: socket.socket, address: Address) -> None:
        self.addCleanup(connection.close)
        self.lanes.append(connection)
        self.free += 1

    def arrive(self, count: int) -> None:
        """Lanes; then whatever is accepted is."""
        for _ in range(count):
            self.addCleanup(socket.create_connection(("127.0.0.1", self.port.getHost().port)).close)
        for _ in range(5):
            self.poll.doRead()

    def test_itIsAnUsher(self) -> None:
        verifyObject(IUsher, LaneUsher(self.clock, 100, lowestFree))

    def test_lanesComeInWhileVisitorsWaitOutside(self) -> None:
        """For want of memory, of descriptors, or of both."""
        self.descriptors.hold("memory")
        self.arrive(1)
        self.descriptors.exhausted(OSError(24, "too many"))
        self.arrive(1)
        self.descriptors.release()
        self.arrive(1)
        self.assertEqual(3, len(self.lanes))

    def test_lanesUseTheReserveButForALittle(self) -> None:
        """The API wants some, too. They come in again when there are more."""
        self.free = 92
        self.arrive(4)
        self.assertEqual(2, len(self.lanes))
        self.assertFalse(self.poll._epoll.poll(0))
        self.clock.pump([LOOK_SECONDS] * 3)
        self.arrive(0)
        self.assertEqual(2, len(self.lanes))
        self.free = 10
        self.clock.advance(LOOK_SECONDS)
        self.arrive(0)
        self.assertEqual((4, []), (len(self.lanes), self.clock.getDelayedCalls()))

    def test_withNoneLeftAtAllThePortWaits(self) -> None:
        """The entry ports don't wait with it: they hear of it themselves."""
        usher = self.port._usher
        usher.exhausted(OSError(24, "too many"))
        usher.exhausted(OSError(24, "too many"))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.arrive(1)
        self.assertEqual([], self.lanes)
        self.assertEqual("", self.descriptors.pausedBy)
        self.clock.advance(LOOK_SECONDS)
        self.arrive(0)
        self.assertEqual(1, len(self.lanes))

    def test_aClosedPortLooksNoMore(self) -> None:
        self.free = 94
        self.arrive(1)
        self.port.stopListening()
        self.assertEqual([], self.clock.getDelayedCalls())


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
