"""The UDP port on loopback sockets, read by hand: batches, offload or not, full sockets."""

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.coalescing import COALESCING_SECONDS, SLOW_READS, STEADY_SECONDS
from socketwarp.errors import AddressUnavailable
from socketwarp.quic import datagrams
from socketwarp.quic.batch import Batch
from socketwarp.quic.datagrams import MAX_WAITING, DatagramPort, bind
from socketwarp.quic.transmission import Transmission


class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)


class Handler:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.batches: list[int] = []
        self.addresses: list[Any] = []
        self.calls: list[str] = []
        self.onBatch = self.onTurn = lambda: None
        self.mayCoalesce = False

    def batchReceived(self, batch: Batch, address: Any) -> None:
        received = batch.split()
        self.got += [bytes(each) for each in received]
        self.batches.append(len(received))
        self.addresses.append(address)
        self.onBatch()

    def turnEnded(self) -> bool:
        self.calls.append("turn")
        self.onTurn()
        return self.mayCoalesce

    def writable(self) -> None:
        self.calls.append("writable")


class Full:
    """A socket whose calls fail as they are told to, before they work."""

    def __init__(self, real: socket.socket, *errors: int, segments: bool = True) -> None:
        self.real, self.errors, self.segments = real, list(errors), segments
        self.sent: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # Any: whatever a socket has
        return getattr(self.real, name)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if option in (datagrams.UDP_SEGMENT, datagrams.UDP_GRO) and not self.segments:
            raise OSError(errno.ENOPROTOOPT, "no such option")
        self.real.setsockopt(level, option, value)

    def _fail(self) -> None:
        if self.errors:
            number = self.errors.pop(0)
            if number:
                raise OSError(number, "as told")

    def sendmsg(self, pieces: Any, control: Any, flags: int, address: Any) -> None:
        self._fail()
        self.real.sendmsg(pieces, control, flags, address)

    def sendto(self, data: Any, address: Any) -> None:
        self._fail()
        self.sent.append(bytes(data))
        self.real.sendto(data, address)

    def recvmsg_into(self, *arguments: Any) -> Any:
        self._fail()
        return self.real.recvmsg_into(*arguments)


class PortCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.handler = Reactor(), Handler()
        self.sockets: list[Full] = []
        self.port = self.newPort(self.handler)
        self.other = self.newPort(Handler())

    def failing(self, *errors: int, segments: bool = True) -> Callable[[socket.socket], Full]:
        def wrap(real: socket.socket) -> Full:
            self.sockets.append(Full(real, *errors, segments=segments))
            return self.sockets[-1]

        return wrap

    def newPort(self, handler: Handler, wrap: Any = lambda real: real) -> DatagramPort:
        port = DatagramPort(self.reactor, handler, wrap(bind("127.0.0.1", 0, 1 << 16)))
        self.addCleanup(port.close)
        return port

    def transmission(self, count: int, size: int = 100, last: int = 100) -> Transmission:
        """As flights are made: header, payload, header, payload."""
        pieces = [part for each in self.expected(count, size, last) for part in (each[:1], each[1:])]
        return Transmission(pieces, size, self.port.address)

    def expected(self, count: int, size: int = 100, last: int = 100) -> list[bytes]:
        return [bytes([index]).ljust(size if index < count - 1 else last, b"\0") for index in range(count)]


class PortTests(PortCase):
    def test_itIsADescriptor(self) -> None:
        verifyObject(IReadWriteDescriptor, self.port)
        self.assertIn(self.port, self.reactor.readers)
        self.assertGreater(self.port.fileno(), 0)
        self.assertEqual(
            ("DatagramPort", "127.0.0.1", False), (self.port.logPrefix(), self.port.address[0], self.port.isBlocked)
        )

    def test_aTransmissionArrivesAsItsDatagrams(self) -> None:
        self.other.send(self.transmission(20, last=37))
        self.port.doRead()
        self.assertEqual(self.expected(20, last=37), self.handler.got)
        self.assertEqual(["turn"], self.handler.calls)

    def test_aSingleDatagramMayBeInOneOrTwoPieces(self) -> None:
        self.other.send(Transmission([b"one"], 3, self.port.address))
        self.other.send(Transmission([b"t", b"wo"], 1200, self.port.address))
        self.port.doRead()
        self.assertEqual([b"one", b"two"], self.handler.got)

    def test_withoutOffloadEachDatagramGoesAndComesAlone(self) -> None:
        sender = self.newPort(Handler(), self.failing(segments=False))
        receiver = self.newPort(self.handler, self.failing(segments=False))
        sender.send(self.transmission(5)._replace(address=receiver.address))
        receiver.doRead()
        self.assertEqual(self.expected(5), self.handler.got)
        self.assertEqual(5, len(self.sockets[0].sent))

    def test_offloadThatTheKernelRefusesIsSwitchedOffForGood(self) -> None:
        for number in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP):
            self.handler.got.clear()
            sender = self.newPort(Handler(), self.failing(number))
            for _ in range(2):
                sender.send(self.transmission(3))
            self.port.doRead()
            self.assertEqual(self.expected(3) * 2, self.handler.got)
            self.assertEqual((6, False), (len(self.sockets[-1].sent), sender._hasSegmentation))

    def test_whatThePathDoesNotTakeIsLostAndNothingElse(self) -> None:
        for segments in (True, False):
            self.handler.got.clear()
            sender = self.newPort(Handler(), self.failing(errno.EMSGSIZE, segments=segments))
            sender.send(self.transmission(3))
            sender.send(self.transmission(1))
            self.port.doRead()
            self.assertEqual(b"\0".ljust(100, b"\0"), self.handler.got[-1])
            self.assertEqual(1 if segments else 3, len(self.handler.got))
            self.assertFalse(sender.isBlocked)

    def test_aFullSocketKeepsWhatWaitsInOrderAndSaysWhenItGoesOn(self) -> None:
        for segments in (True, False):
            handler = Handler()
            self.handler.got.clear()
            sender = self.newPort(handler, self.failing(errno.EAGAIN, errno.EAGAIN, segments=segments))
            for last in (10, 20, 30):
                sender.send(self.transmission(3, last=last))
            self.assertTrue(sender.isBlocked)
            self.assertIn(sender, self.reactor.writers)
            sender.doWrite()
            self.assertEqual([], handler.calls)
            sender.doWrite()
            self.assertEqual(["writable"], handler.calls)
            self.assertNotIn(sender, self.reactor.writers)
            self.port.doRead()
            self.assertEqual([each for last in (10, 20, 30) for each in self.expected(3, last=last)], self.handler.got)

    def test_beyondALimitWhatWouldWaitIsDropped(self) -> None:
        sender = self.newPort(Handler(), self.failing(errno.EAGAIN))
        for _ in range(MAX_WAITING + 10):
            sender.send(self.transmission(1))
        self.assertEqual(MAX_WAITING, len(sender._waiting))

    def test_errorsOfEarlierDatagramsAreReadOver(self) -> None:
        """An ICMP message is reported by the next call, whatever that is."""
        receiver = self.newPort(self.handler, self.failing(errno.ECONNREFUSED, 0))
        self.other.send(self.transmission(1)._replace(address=receiver.address))
        receiver.doRead()
        self.assertEqual((1, ["turn"]), (len(self.handler.got), self.handler.calls))

    def test_anEmptyDatagramIsNone(self) -> None:
        self.other._socket.sendto(b"", self.port.address)
        self.port.doRead()
        self.assertEqual([], self.handler.got)

    def test_aHandlerMayCloseThePort(self) -> None:
        for _ in range(3):
            self.other._socket.sendto(b"x", self.port.address)
        self.handler.onBatch = self.port.close
        self.port.doRead()
        self.assertEqual(([], 1), (self.handler.calls, len(self.handler.batches)))
        self.assertNotIn(self.port, self.reactor.readers)

    def test_datagramsOfOneSizeAreGathered(self) -> None:
        """Where they come one by one they make one batch, as those do that the kernel has joined."""
        for size in (5, 5, 5, 7, 7, 3, 7):
            self.other._socket.sendto(b"x" * size, self.port.address)
        self.port.doRead()
        self.assertEqual([3, 2, 1, 1], self.handler.batches)
        self.assertEqual([5, 5, 5, 7, 7, 3, 7], [len(each) for each in self.handler.got])

    def test_whatIsGatheredComesFromOneAddress(self) -> None:
        third = self.newPort(Handler())
        for sender in (self.other, third, third, self.other):
            sender._socket.sendto(b"x", self.port.address)
        self.port.doRead()
        addresses = [self.other.address, third.address, self.other.address]
        self.assertEqual(([1, 2, 1], addresses), (self.handler.batches, self.handler.addresses))

    def test_aShorterLastDatagramEndsABatch(self) -> None:
        self.other.send(self.transmission(3, last=50))
        self.other.send(self.transmission(3))
        self.port.doRead()
        self.assertEqual(self.expected(3, last=50) + self.expected(3), self.handler.got)

    def test_noMoreIsGatheredThanTheBufferHasRoomFor(self) -> None:
        """Whatever was gathered before, there is room for the largest that may come."""
        sizes = [1200] * (datagrams.GATHERED_BYTES // 1200 - 1) + [7, 60_000, 1200]
        large = self.newPort(self.handler, lambda real: bind("127.0.0.1", 0, 1 << 20))
        for size in sizes:
            self.other._socket.sendto(b"x" * size, large.address)
        large.doRead()
        self.assertEqual(sizes, [len(each) for each in self.handler.got])

    def test_aTurnReadsSoManyAndLeavesTheRest(self) -> None:
        for _ in range(datagrams.READS_PER_TURN + 3):
            self.other._socket.sendto(b"x", self.port.address)
        self.port.doRead()
        self.assertEqual(datagrams.READS_PER_TURN, len(self.handler.got))

    def test_aTurnReadsSoMuchAndLeavesTheRest(self) -> None:
        self.patch(datagrams, "BYTES_PER_TURN", 100_000)
        large = self.newPort(self.handler, lambda real: bind("127.0.0.1", 0, 1 << 20))
        for _ in range(3):
            self.other._socket.sendto(bytes(60_000), large.address)
        large.doRead()
        self.assertEqual(2, len(self.handler.got))

    def receive(self, count: int = 1) -> int:
        """
        Datagrams come, a tenth of a millisecond after those before, and the reactor sees to it, if it reads; how many
        have been given to the handler.
        """
        for _ in range(count):
            self.other._socket.sendto(b"x" * 100, self.port.address)
        self.reactor.advance(0.0001)
        if self.port in self.reactor.readers:
            self.port.doRead()
        return len(self.handler.got)

    def receiveUntilItRests(self) -> int:
        """One after the other; how many have been given to the handler."""
        for count in range(1, SLOW_READS + 2):
            self.assertEqual(count, self.receive())
        self.assertNotIn(self.port, self.reactor.readers)
        return count

    def test_aSteadyTransferIsReadInLargerPortions(self) -> None:
        self.handler.mayCoalesce = True
        count = self.receiveUntilItRests()
        self.assertEqual(count, self.receive(10))
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(count + 10, len(self.handler.got))
        self.assertEqual(count + 10, self.receive())
        while self.reactor.getDelayedCalls():
            self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(count + 11, len(self.handler.got))
        self.assertIn(self.port, self.reactor.readers)

    def test_whatIsFastOrComesNowAndThenDoesNotWait(self) -> None:
        self.handler.mayCoalesce = True
        for count in range(1, 10):
            self.assertEqual(count, self.receive())
            self.reactor.advance(STEADY_SECONDS)
        for count in range(1, 10):
            self.assertEqual(9 + count * 50, self.receive(50))

    def test_nothingWaitsUnlessTheHandlerAgrees(self) -> None:
        for count in range(1, 10):
            self.assertEqual(count, self.receive())

    def test_aHandlerMayCloseThePortAtTheEndOfATurn(self) -> None:
        """As the last datagram of a transfer may end a session."""
        self.handler.mayCoalesce = True
        for _ in range(SLOW_READS):
            self.receive()
        self.handler.onTurn = self.port.close
        self.receive()
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_aPortThatIsClosedMeanwhileStaysClosed(self) -> None:
        self.handler.mayCoalesce = True
        self.receiveUntilItRests()
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        self.port.close()
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assertNotIn(self.port, self.reactor.readers)

    def test_aDescriptorThatFailsIsLogged(self) -> None:
        told: list[dict[str, Any]] = []
        self.patch(datagrams.log, "error", lambda text, **fields: told.append(fields))
        self.port.connectionLost(Failure(OSError("gone")))
        self.assertEqual([{"reason": "gone"}], told)


class BindTests(SynchronousTestCase):
    def test_aDualStackSocketTakesBothFamilies(self) -> None:
        bound = bind("::", 0)
        self.addCleanup(bound.close)
        self.assertEqual(0, bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        self.assertEqual(
            (datagrams.IP_PMTUDISC_PROBE, datagrams.IPV6_PMTUDISC_PROBE),
            (
                bound.getsockopt(socket.IPPROTO_IP, datagrams.IP_MTU_DISCOVER),
                bound.getsockopt(socket.IPPROTO_IPV6, datagrams.IPV6_MTU_DISCOVER),
            ),
        )
        self.assertFalse(bound.getblocking())

    def test_anOccupiedPortIsNamed(self) -> None:
        bound = bind("127.0.0.1", 0)
        self.addCleanup(bound.close)
        port = bound.getsockname()[1]
        error = self.assertRaises(AddressUnavailable, bind, "127.0.0.1", port)
        self.assertIn(f"UDP 127.0.0.1 port {port} can't be bound: Address already in use", str(error))

    def test_withoutASocketTheReasonIsNamed(self) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", refuse)
        error = self.assertRaises(AddressUnavailable, bind, "::", 0)
        self.assertEqual("no UDP socket for ::: Too many open files", str(error))

    def test_theKernelGivesLessThanAskedForAndThatIsLogged(self) -> None:
        told: list[dict[str, Any]] = []
        self.patch(datagrams.log, "warn", lambda text, **fields: told.append(fields))
        self.patch(datagrams, "_enable", lambda *arguments: False)
        bind("127.0.0.1", 0, 1 << 30).close()
        self.assertEqual([1 << 30] * 2, [each["size"] for each in told])
