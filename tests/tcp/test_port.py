"""Ports accept."""

import errno
import os
import socket
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.interfaces import Address
from socketwarp.tcp.poll import READABLE, ISocketEvents
from socketwarp.tcp.port import ACCEPT_LIMIT, IUsher, Port, bind, freeForBoth, serve

from .fakes import Recorder, makePoll


@implementer(IUsher)
class Usher:
    """Lets in as many as it was told."""

    def __init__(self) -> None:
        self.places = 1000
        self.errors: list[OSError] = []
        self.closedPorts: list[Port] = []

    def room(self, descriptor: int) -> int:
        return self.places

    def exhausted(self, error: OSError) -> None:
        self.errors.append(error)

    def closed(self, port: Port) -> None:
        self.closedPorts.append(port)


class Visitors:
    """Notes who comes."""

    def __init__(self) -> None:
        self.failures = 0
        self.protocols: list[Recorder] = []
        self.addresses: list[Address] = []

    def __call__(self, address: Address) -> Recorder:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError
        self.addresses.append(address)
        self.protocols.append(Recorder())
        return self.protocols[-1]


class PortTests(SynchronousTestCase):
    """A port on loopback; the test is the poll."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.usher = Usher()
        self.visitors = Visitors()
        self.port = self.listen("127.0.0.1")
        self.addCleanup(self.abortAll)

    def listen(self, address: str) -> Port:
        listening = bind(address, 0)
        port = Port(self.poll, listening, serve(self.poll, listening, self.visitors), self.usher)
        self.addCleanup(port.stopListening)
        return port

    def abortAll(self) -> None:
        for protocol in self.visitors.protocols:
            protocol.tcp.abortConnection()

    def visit(self, port: Port | None = None) -> socket.socket:
        place = (port or self.port).getHost()
        visitor = socket.create_connection((place.host, place.port))
        self.addCleanup(visitor.close)
        return visitor

    def test_itIsWhatItSays(self) -> None:
        verifyObject(IListeningPort, self.port)
        verifyObject(ISocketEvents, self.port)
        verifyObject(IUsher, self.usher)
        self.assertGreater(self.port.fileno(), 0)

    def test_visitorsAreAcceptedWithTheirAddressesAndServed(self) -> None:
        visitor = self.visit()
        self.poll.doRead()
        self.assertEqual([visitor.getsockname()], self.visitors.addresses)
        visitor.sendall(b"question")
        self.poll.doRead()
        self.assertEqual(b"question", self.visitors.protocols[0].received)

    def test_whatAVisitorHasSentAlreadyIsReadAtOnce(self) -> None:
        self.visit().sendall(b"question")
        self.poll.doRead()
        self.assertEqual(b"question", self.visitors.protocols[0].received)

    def test_addressesArePlain(self) -> None:
        for bound, visited in (("::1", "::1"), ("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")):
            port = self.listen(bound)
            visitor = socket.create_connection((visited, port.getHost().port))
            self.addCleanup(visitor.close)
            self.poll.doRead()
            self.assertEqual(visitor.getsockname()[:2], self.visitors.addresses[-1])
            tcp = self.visitors.protocols[-1].tcp
            self.assertEqual((visited, port.getHost().port), tcp.localAddress())
            tcp.abortConnection()
            self.assertEqual(("", 0), tcp.localAddress())

    def test_nothingWaitsForFullPackets(self) -> None:
        self.visit()
        self.poll.doRead()
        connection = self.visitors.protocols[0].tcp._socket  # type: ignore[attr-defined]  # the transport's
        self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertFalse(connection.getblocking())

    def test_whenTheProcessDiesVisitorsSeeAReset(self) -> None:
        """The kernel closes then what we have open, as this does."""
        visitor = self.visit()
        self.poll.doRead()
        self.visitors.protocols[0].tcp.loseConnection()
        self.assertRaises(ConnectionResetError, visitor.recv, 1)

    def test_onlyAsManyAsThereIsRoomForComeInAtATime(self) -> None:
        for _ in range(3):
            self.visit()
        for places, here in ((0, 0), (2, 2), (1, 3)):
            self.usher.places = places
            self.poll.doRead()
            self.assertEqual(here, len(self.visitors.protocols))

    def test_aBurstLeavesOthersTheirTurn(self) -> None:
        for _ in range(ACCEPT_LIMIT + 1):
            self.visit()
        self.poll.doRead()
        self.assertEqual(ACCEPT_LIMIT, len(self.visitors.protocols))
        self.poll.doRead()
        self.assertEqual(ACCEPT_LIMIT + 1, len(self.visitors.protocols))

    def test_aPausedPortLetsVisitorsWait(self) -> None:
        self.port.pause()
        self.visit()
        self.poll.doRead()
        self.assertEqual([], self.visitors.protocols)
        self.port.startListening()
        self.poll.doRead()
        self.assertEqual(1, len(self.visitors.protocols))

    def test_aClosedPortIsToldOfOnceAndRefuses(self) -> None:
        place = self.port.getHost()
        self.successResultOf(self.port.stopListening())
        self.successResultOf(self.port.stopListening())
        self.port.ready(READABLE)
        self.assertEqual([self.port], self.usher.closedPorts)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, (place.host, place.port))
        self.assertEqual([], self.reactor.readers)

    def test_aTakenPortCanNotBeBound(self) -> None:
        error = self.assertRaises(OSError, bind, "127.0.0.1", self.port.getHost().port)
        self.assertEqual(errno.EADDRINUSE, error.errno)

    def test_aVisitorWhoseProtocolCanNotBeMadeKeepsNobodyOut(self) -> None:
        self.visitors.failures = 1
        self.visit()
        self.poll.doRead()
        self.visit()
        self.poll.doRead()
        self.assertEqual(1, len(self.visitors.protocols))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def accepting(self, *results: int) -> None:
        """Wake a port up whose socket answers with these errors, and then with none."""

        errors = [*results, errno.EAGAIN]

        class Listening(socket.socket):
            def accept(self) -> tuple[socket.socket, object]:
                error = errors.pop(0)
                raise OSError(error, os.strerror(error))

        listening = Listening()
        port = Port(self.poll, listening, serve(self.poll, listening, self.visitors), self.usher)
        self.addCleanup(port.stopListening)
        port.ready(READABLE)
        self.left = len(errors)

    def test_aConnectionThatHasFailedMeanwhileKeepsNobodyOut(self) -> None:
        self.accepting(errno.ECONNABORTED, errno.EPERM, errno.EHOSTUNREACH)
        self.assertEqual((0, []), (self.left, self.usher.errors))

    def test_aMachineAtItsEndIsToldOfAndNotAskedFurther(self) -> None:
        for error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.accepting(error, errno.EMFILE)
            self.assertEqual((2, error), (self.left, self.usher.errors[-1].errno))


class FreeNumberTests(SynchronousTestCase):
    def test_itIsFreeForTcpAndUdp(self) -> None:
        for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            number = freeForBoth(address)
            with bind(address, number) as listening, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind((address, number))
                self.assertEqual(number, listening.getsockname()[1])

    def test_oneThatUdpHasIsPassedOver(self) -> None:
        """The first one's number is somebody's, of the second nobody has anything."""
        numbers = []

        class Sockets(socket.socket):
            def bind(self, address: Any) -> None:  # Any: as a socket's
                if self.type == socket.SOCK_DGRAM:
                    numbers.append(address[1])
                    if len(numbers) == 1:
                        raise OSError(98, "in use")
                super().bind(address)

        self.patch(socket, "socket", Sockets)
        found = freeForBoth("127.0.0.1")
        self.assertEqual((2, found), (len(numbers), numbers[-1]))

    def test_anAddressOfNobodyIsAnError(self) -> None:
        self.assertRaises(OSError, freeForBoth, "192.0.2.1")
