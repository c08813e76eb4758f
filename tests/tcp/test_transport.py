"""A TCP connection as a transport. The sockets are real, the polling is the test's."""

import gc
import socket
import sys

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.coalescing import BULK_BYTES, COALESCING_SECONDS
from socketwarp.interfaces import ITcp, ITcpProtocol, Piece
from socketwarp.tcp.poll import BROKEN, READABLE, WRITABLE, ISocketEvents
from socketwarp.tcp.transport import BULK_READ, FIRST_READ, HIGH_WATERMARK, PIECES_LIMIT, TcpTransport

from .fakes import Recorder, makePoll, reset, socketPair


@implementer(IPushProducer)
class Producer:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


class Connected(SynchronousTestCase):
    """Base: a transport, and the remote end of its connection."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        ours, self.remote = socketPair()
        self.addCleanup(self.remote.close)
        self.remote.settimeout(20)
        self.protocol = Recorder()
        self.ours = ours
        self.transport = TcpTransport(self.poll, ours, self.protocol)
        self.addCleanup(self.transport.abortConnection)

    def fill(self) -> int:
        """Write until the kernel takes no more; how much that was."""
        size = 0
        while not self.transport._queue:
            self.transport.writeSequence([bytes(100_000)])
            size += 100_000
        return size

    def remoteReads(self, size: int) -> bytes:
        """So many bytes, while the poll turns."""
        received = bytearray()
        while len(received) < size:
            received += self.remote.recv(size - len(received))
            self.poll.doRead()
        return bytes(received)


class ReadingTests(Connected):
    """From the remote end to the protocol."""

    def test_theyAreWhatTheySay(self) -> None:
        verifyObject(ITcp, self.transport)
        verifyObject(ISocketEvents, self.transport)
        verifyObject(ITcpProtocol, self.protocol)

    def test_bytesReachTheProtocol(self) -> None:
        self.remote.sendall(b"question")
        self.poll.doRead()
        self.assertEqual(b"question", self.protocol.received)

    def test_aWakeUpForNothingIsNothing(self) -> None:
        self.transport.ready(READABLE)
        self.assertEqual(["made"], self.protocol.told)

    def test_readsGrowWhileThereIsMoreThanTheyAskFor(self) -> None:
        self.remote.setblocking(False)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sent = 0
        while self.protocol.largest <= FIRST_READ:
            try:
                sent += self.remote.send(bytes(1 << 20))
            except BlockingIOError:
                self.poll.doRead()
        while len(self.protocol.received) < sent:
            self.poll.doRead()
        self.assertLessEqual(self.protocol.largest, BULK_READ)
        self.remote.send(b"little")
        self.poll.doRead()
        self.assertEqual(FIRST_READ, self.transport._readSize)

    def receive(self, size: int = 1400) -> int:
        """A piece comes, a tenth of a millisecond after the one before; the bytes that have been read by then."""
        self.remote.sendall(bytes(size))
        self.reactor.advance(0.0001)
        self.poll.doRead()
        return len(self.protocol.received)

    def receiveUntilItRests(self) -> int:
        """So much that it is bulk; the bytes sent, of which the last piece isn't read."""
        self.remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or pieces would wait for acknowledgements
        sent = 1400
        while self.receive() == sent:
            sent += 1400
            self.assertLess(sent, BULK_BYTES + 5 * 1400)
        return sent

    def test_bulkThatComesSlowlyIsReadInPortions(self) -> None:
        sent = self.receiveUntilItRests()
        self.assertGreater(sent, BULK_BYTES)
        self.assertEqual(sent - 1400, self.receive())
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(sent + 1400, len(self.protocol.received))
        self.assertEqual(sent + 1400, self.receive())

    def test_whatIsAnsweredIsReadAtOnce(self) -> None:
        for count in range(1, 2 * BULK_BYTES // 1400):
            self.assertEqual(count * 1400, self.receive())
            self.transport.writeSequence([b"answer"])

    def test_whoTakesNoMoreIsNotGivenWhatCameMeanwhile(self) -> None:
        sent = self.receiveUntilItRests()
        self.transport.pauseProducing()
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(sent - 1400, len(self.protocol.received))
        self.transport.resumeProducing()
        self.poll.doRead()
        self.assertEqual(sent, len(self.protocol.received))

    def test_aProtocolThatClosesDoesNotRest(self) -> None:
        self.receiveUntilItRests()
        self.protocol.dataReceived = lambda data: self.transport.loseConnection()  # type: ignore[method-assign]  # to close
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual((["made", "lost"], []), (self.protocol.told, self.flushLoggedErrors()))

    def test_aPausedConnectionIsNotRead(self) -> None:
        self.transport.pauseProducing()
        self.remote.sendall(b"question")
        self.poll.doRead()
        self.assertEqual(b"", self.protocol.received)
        self.transport.resumeProducing()
        self.poll.doRead()
        self.assertEqual(b"question", self.protocol.received)

    def test_theLastBytesAndFinAreToldTogether(self) -> None:
        """In one wake-up, so that they travel together."""
        self.remote.sendall(b"answer")
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.assertEqual((b"answer", ["made", "read ended"]), (self.protocol.received, self.protocol.told))

    def test_finWaitsForAReaderWhoPauses(self) -> None:

        def pause(data: bytes) -> None:
            self.transport.pauseProducing()

        self.protocol.dataReceived = pause  # type: ignore[method-assign]  # a reader who takes no more
        self.remote.sendall(b"answer")
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.assertEqual(["made"], self.protocol.told)
        self.transport.resumeProducing()
        self.poll.doRead()
        self.assertEqual(["made", "read ended"], self.protocol.told)

    def test_finIsToldOnceAndWritingGoesOn(self) -> None:
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.transport.resumeProducing()
        self.poll.doRead()
        self.assertEqual(["made", "read ended"], self.protocol.told)
        self.transport.writeSequence([b"answer"])
        self.assertEqual(b"answer", self.remote.recv(100))


class WritingTests(Connected):
    """From us to the remote end."""

    def test_piecesOfAnyKindGoAsTheyAreInOrder(self) -> None:
        pieces: list[Piece] = [b"one ", bytearray(b"two "), memoryview(b"and three")[4:]]
        self.transport.writeSequence(pieces)
        self.transport.writeSequence([])
        self.assertEqual(b"one two three", self.remote.recv(100))

    def test_morePiecesThanTheKernelTakesAtOnceGoToo(self) -> None:
        pieces = [bytes([number % 251]) for number in range(3 * PIECES_LIMIT)]
        self.transport.writeSequence(pieces)
        self.assertEqual(b"".join(pieces), self.remoteReads(len(pieces)))

    def test_whatTheKernelDoesNotTakeFollowsLaterUnchanged(self) -> None:
        size = self.fill()
        rest = [bytes([number]) * 1000 for number in range(200)]
        self.transport.writeSequence(rest)
        received = self.remoteReads(size + 200_000)
        self.assertEqual(bytes(size) + b"".join(rest), received)
        self.assertEqual([], self.transport._queue)

    def test_aProducerIsPausedAboveTheMarkAndResumedWhenAllIsGone(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        size = self.fill()
        for _ in range(2):
            self.transport.writeSequence([bytes(HIGH_WATERMARK + 1)])
        self.assertEqual(["pause"], producer.asked)
        self.remoteReads(size + 2 * HIGH_WATERMARK + 2)
        self.assertEqual(["pause", "resume"], producer.asked)

    def test_aProducerThatHasGoneIsNotAsked(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, producer, True)
        size = self.fill()
        self.transport.writeSequence([bytes(HIGH_WATERMARK)])
        self.transport.unregisterProducer()
        self.remoteReads(size + HIGH_WATERMARK)
        self.assertEqual(["pause"], producer.asked)

    def test_finFollowsAllBytesAndReadingGoesOn(self) -> None:
        size = self.fill()
        self.transport.loseWriteConnection()
        self.transport.writeSequence([b"too late"])
        self.assertNotIn("write ended", self.protocol.told)
        self.remoteReads(size)
        self.assertEqual(b"", self.remote.recv(1))
        self.remote.sendall(b"answer")
        self.poll.doRead()
        self.assertEqual(["made", "write ended"], self.protocol.told)
        self.assertEqual(b"answer", self.protocol.received)

    def test_theLastBytesWaitForFin(self) -> None:
        """They are one packet."""
        self.transport.writeSequence([b"answer"], isLast=True)
        self.remote.setblocking(False)
        self.assertRaises(BlockingIOError, self.remote.recv, 100)
        self.transport.loseWriteConnection()
        self.assertEqual((b"answer", b""), (self.remote.recv(100), self.remote.recv(1)))

    def test_finGoesAtOnceWhenNothingWaitsAndOnlyOnce(self) -> None:
        self.transport.loseWriteConnection()
        self.transport.loseWriteConnection()
        self.assertEqual(["made", "write ended"], self.protocol.told)
        self.assertEqual(b"", self.remote.recv(1))


class EndingTests(Connected):
    """Resets, errors, and closing."""

    def lostWith(self, kind: type[BaseException]) -> str:
        self.assertIsInstance(self.protocol.lost, kind)
        self.assertEqual(1, self.protocol.told.count("lost"))
        self.assertEqual([], self.reactor.readers)
        return str(self.protocol.lost)

    def test_closingAfterBothFinsIsClean(self) -> None:
        self.transport.loseWriteConnection()
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.lostWith(ConnectionDone)
        self.assertEqual(b"", self.remote.recv(1))

    def test_whenTheProcessDiesTheRemoteEndSeesAResetUntilFinHasBeenSent(self) -> None:
        """The kernel closes then what we have open, as this does."""
        self.transport.writeSequence([b"half an answer"])
        self.transport.loseConnection()
        self.assertEqual(b"half an answer", self.remote.recv(100))
        self.assertRaises(ConnectionResetError, self.remote.recv, 1)

    def test_whenTheProcessDiesAfterFinTheRemoteEndHasItAll(self) -> None:
        self.transport.writeSequence([b"answer"])
        self.transport.loseWriteConnection()
        self.transport.loseConnection()
        self.assertEqual(b"answer", self.remote.recv(100))
        self.assertEqual(b"", self.remote.recv(1))

    def test_abortingIsAResetWhateverWaits(self) -> None:
        self.fill()
        self.transport.abortConnection()
        self.transport.abortConnection()
        self.lostWith(ConnectionAborted)
        with self.assertRaises(ConnectionResetError):
            while True:
                self.remote.recv(1 << 20)

    def test_aConnectionThatIsGoneTakesNothing(self) -> None:
        self.transport.abortConnection()
        self.transport.writeSequence([b"too late"])
        self.transport.loseWriteConnection()
        self.transport.resumeProducing()
        self.transport.pauseProducing()
        self.transport.ready(READABLE | WRITABLE)
        self.assertEqual(["made", "lost"], self.protocol.told)

    def test_aResetIsALostConnectionWithItsReason(self) -> None:
        reset(self.remote)
        self.poll.doRead()
        self.assertIn("Connection reset by peer", self.lostWith(ConnectionLost))

    def test_bytesBeforeAResetAreDelivered(self) -> None:
        self.remote.sendall(b"last words")
        reset(self.remote)
        self.poll.doRead()
        self.poll.doRead()
        self.assertEqual(b"last words", self.protocol.received)
        self.lostWith(ConnectionLost)

    def test_aResetIsHeardOfWhilePaused(self) -> None:
        self.transport.pauseProducing()
        self.remote.sendall(b"unread")
        self.poll.doRead()
        reset(self.remote)
        self.poll.doRead()
        self.assertIn("Connection reset by peer", self.lostWith(ConnectionLost))

    def test_aResetIsHeardOfAfterFin(self) -> None:
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        reset(self.remote)
        self.poll.doRead()
        self.lostWith(ConnectionLost)

    def test_aResetIsHeardOfAfterBothFinsWhilePaused(self) -> None:
        self.transport.pauseProducing()
        self.remote.sendall(b"unread")
        self.remote.shutdown(socket.SHUT_WR)
        self.transport.loseWriteConnection()
        for _ in range(3):
            self.poll.doRead()
        self.assertEqual([], self.poll._epoll.poll(0), "an end that is told again and again")
        self.assertEqual(["made", "write ended"], self.protocol.told)

    def test_aResetThatWritingMeetsIsToldByThePollNotByWrite(self) -> None:
        self.transport.pauseProducing()
        self.poll.doRead()
        reset(self.remote)
        self.transport.writeSequence([b"one"])
        self.transport.writeSequence([b"two"])
        self.transport.loseWriteConnection()
        self.assertEqual(["made"], self.protocol.told)
        self.poll.doRead()
        self.lostWith(ConnectionLost)

    def test_aResetWithBytesQueuedIsTold(self) -> None:
        self.fill()
        self.transport.pauseProducing()
        reset(self.remote)
        self.poll.doRead()
        self.lostWith(ConnectionLost)

    def test_aBrokenPipeWhileFlushingIsTold(self) -> None:
        self.fill()
        self.ours.shutdown(socket.SHUT_WR)
        self.transport.ready(WRITABLE)
        self.assertIn("Broken pipe", self.lostWith(ConnectionLost))

    def test_finOnABrokenConnectionIsNoError(self) -> None:
        reset(self.remote)
        self.transport.loseWriteConnection()
        self.poll.doRead()
        self.lostWith(ConnectionLost)

    def test_aProtocolThatAbortsWhileItReadsIsNotAskedToFlush(self) -> None:
        self.fill()
        self.protocol.dataReceived = lambda data: self.transport.abortConnection()  # type: ignore[method-assign]  # to abort
        self.remote.sendall(b"something")
        self.transport.ready(READABLE | WRITABLE | BROKEN)
        self.lostWith(ConnectionAborted)

    def test_aProtocolThatFailsLosesItsConnectionOnly(self) -> None:
        def fails(data: bytes) -> None:
            raise ZeroDivisionError

        self.protocol.dataReceived = fails  # type: ignore[method-assign]  # to fail
        self.remote.sendall(b"something")
        self.poll.doRead()
        self.lostWith(ConnectionAborted)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class BeginningTests(SynchronousTestCase):
    """The protocol's start."""

    def test_aProtocolThatFailsAtItsStartLosesItsConnection(self) -> None:
        class Failing(Recorder):
            def makeConnection(self, transport: ITransport) -> None:
                raise ZeroDivisionError

        poll, reactor = makePoll()
        ours, remote = socketPair()
        self.addCleanup(remote.close)
        TcpTransport(poll, ours, Failing())
        self.assertRaises(ConnectionResetError, remote.recv, 1)
        self.assertEqual([], reactor.readers)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_anIdleConnectionIsSmall(self) -> None:
        ours, remote = socketPair()
        self.addCleanup(remote.close)
        transport = TcpTransport(makePoll()[0], ours, Recorder())
        self.addCleanup(transport.abortConnection)
        parts = [part for part in gc.get_referents(transport) if isinstance(part, list | int | socket.socket)]
        self.assertLess(sys.getsizeof(transport) + sum(map(sys.getsizeof, parts)), 1000)

    def test_stoppingTheProducerIsLeftToTheProtocol(self) -> None:
        ours, remote = socketPair()
        self.addCleanup(remote.close)
        protocol = Recorder()
        transport = TcpTransport(makePoll()[0], ours, protocol)
        transport.stopProducing()
        self.assertEqual(["made"], protocol.told)
        transport.failed(Failure(ZeroDivisionError()))
        self.assertIsInstance(protocol.lost, ConnectionAborted)
