"""One TLS connection: whole frames are sent or taken back, small ones share a record, and its end is told once."""

import socket

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.coalescing import BULK_BYTES, COALESCING_SECONDS, STEADY_SECONDS
from socketwarp.tcp.poll import ISocketEvents
from socketwarp.tls.contexts import Conduct, Examination, clientContext, serverContext
from socketwarp.tls.transport import RECORD_SIZE, RECORDS_PER_READ, TlsTransport, describe

from ..certs import world
from ..tcp.fakes import makePoll, socketPair
from .rig import narrowPair


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.told: list[str] = []

    def secured(self) -> None:
        self.told.append("secured")

    def received(self, chunks: list[bytes]) -> None:
        self.chunks += chunks

    def drained(self) -> None:
        self.told.append("drained")

    def lost(self, reason: str) -> None:
        self.told.append(reason)


class TransportCase(SynchronousTestCase):
    """`ours`, a server's, and `theirs`, a client's."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.make(*socketPair())

    def make(self, server: socket.socket, client: socket.socket) -> None:
        client.setblocking(False)
        self.sockets = server, client
        self.near, self.far = Owner(), Owner()
        self.ours = TlsTransport(self.poll, server, serverContext(world().checking("client")), Conduct())
        examination = Examination(world().checking("server"), "localhost")
        self.theirs = TlsTransport(self.poll, client, clientContext(world().checking("server")), examination)
        self.ours.owner, self.theirs.owner = self.near, self.far
        self.theirs.start(isServer=False)
        self.ours.start(isServer=True)
        self.turn()
        self.assertEqual((["secured"], ["secured"]), (self.near.told, self.far.told))
        self.addCleanup(self.ours.abort)
        self.addCleanup(self.theirs.abort)

    def turn(self, times: int = 50) -> None:
        for _ in range(times):
            self.poll.doRead()

    def send(self, transport: TlsTransport, header: bytes, *pieces: bytes) -> None:
        transport.write(header, pieces)
        transport.flush()


class CarryingTests(TransportCase):
    def test_itHearsOfItsSocket(self) -> None:
        verifyObject(ISocketEvents, self.ours)
        self.assertEqual("127.0.0.1", self.ours.peerAddress[0])

    def test_itsSocketSendsAtOnceAndAsksAPeerThatIsSilent(self) -> None:
        """A lane that waits for visitors must be one that works: docs/protocol.rst has the seconds."""
        for each in self.sockets:
            options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            self.assertEqual([1, 15, 5, 3], [each.getsockopt(socket.IPPROTO_TCP, option) for option in options])
            self.assertEqual(1, each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_framesArriveInOrderWhateverTheirSizes(self) -> None:
        expected = b""
        for size in (0, 1, RECORD_SIZE - 4, RECORD_SIZE, RECORD_SIZE + 1, 300_000):
            self.send(self.ours, b"head", bytes(size), b"tail")
            expected += b"head" + bytes(size) + b"tail"
        self.turn()
        self.assertEqual(expected, b"".join(self.far.chunks))
        self.assertEqual(0, self.ours.queued)

    def test_smallFramesShareARecord(self) -> None:
        for number in range(100):
            self.ours.write(b"%3d" % number)
        self.ours.flush()
        self.turn()
        self.assertEqual(1, len(self.far.chunks))

    def test_aLargeFramesHeaderSharesARecordWithItsBytes(self) -> None:
        self.send(self.ours, b"head", bytes(RECORD_SIZE * 2 - 4))
        self.turn()
        self.assertEqual([RECORD_SIZE] * 2, [len(chunk) for chunk in self.far.chunks])

    def test_whatIsPausedWaitsInTheKernel(self) -> None:
        self.theirs.pauseReading()
        self.send(self.ours, b"later")
        self.turn()
        self.assertEqual([], self.far.chunks)
        self.theirs.resumeReading()
        self.turn()
        self.assertEqual([b"later"], self.far.chunks)

    def receive(self, size: int = 1400) -> int:
        """A record comes, a tenth of a millisecond after the one before; the bytes that have been read by then."""
        self.send(self.ours, bytes(size))
        self.reactor.advance(0.0001)
        self.turn(1)
        return sum(map(len, self.far.chunks))

    def receiveUntilItRests(self) -> int:
        """So much that it is bulk; the bytes sent, of which the last record isn't read."""
        sent = 1400
        while self.receive() == sent:
            sent += 1400
            self.assertLess(sent, BULK_BYTES + 5 * 1400)
        return sent

    def test_bulkThatComesSlowlyIsReadInPortions(self) -> None:
        sent = self.receiveUntilItRests()
        self.assertGreater(sent, BULK_BYTES)
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(sent, sum(map(len, self.far.chunks)))

    def test_whatIsAnsweredIsReadAtOnce(self) -> None:
        for count in range(1, 2 * BULK_BYTES // 1400):
            self.send(self.theirs, b"answer")
            self.assertEqual(count * 1400, self.receive())

    def test_aRecordInManyPiecesIsReadInPortionsToo(self) -> None:
        """Reads that find no whole record neither end a bulk transfer nor keep it going for ever."""
        self.receiveUntilItRests()
        self.reactor.advance(COALESCING_SECONDS)
        calls = 0
        while self.reactor.getDelayedCalls():
            self.reactor.advance(COALESCING_SECONDS)
            calls += 1
        self.assertTrue(1 < calls <= STEADY_SECONDS / COALESCING_SECONDS + 1, calls)

    def test_anOwnerThatClosesDoesNotRest(self) -> None:
        self.receiveUntilItRests()
        self.far.received = lambda chunks: self.theirs.abort()  # type: ignore[method-assign]  # to close
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual(([], []), (self.reactor.getDelayedCalls(), self.flushLoggedErrors()))

    def test_othersHaveTheirTurnAfterSomeRecords(self) -> None:
        sizes: list[int] = []
        self.near.received = lambda chunks: sizes.append(len(chunks))  # type: ignore[method-assign]  # to count them
        self.ours.pauseReading()
        self.send(self.theirs, b"", bytes(RECORD_SIZE * RECORDS_PER_READ))
        self.send(self.theirs, b"more")
        self.ours.resumeReading()
        self.turn()
        self.assertEqual([RECORDS_PER_READ, 1], sizes)

    def test_oneThatIsFullTellsWhenItIsDrained(self) -> None:
        self.theirs.pauseReading()
        while not self.ours.queued:
            self.send(self.ours, b"head", bytes(100_000))
        self.turn()
        self.assertNotIn("drained", self.near.told)
        self.theirs.resumeReading()
        self.turn()
        self.assertEqual(["secured", "drained"], self.near.told)


class NarrowCase(TransportCase):
    """A connection that takes little at a time, so that a frame is stuck in its middle."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.make(*narrowPair(4096))
        self.theirs.pauseReading()

    def received(self) -> bytes:
        self.theirs.resumeReading()
        self.turn(500)
        return b"".join(self.far.chunks)


class Spy:
    """An OpenSSL connection that notes what it is to send; in `given`, with what it has taken of it."""

    def __init__(self, connection: SSL.Connection) -> None:
        self.given: list[tuple[bytes, int | None]] = []
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def send(self, data: bytes) -> int:
        self.given.append((bytes(data), None))
        taken = self._connection.send(data)
        self.given[-1] = bytes(data), taken
        return taken


class RefusalTests(NarrowCase):
    def fill(self) -> Spy:
        """Write until OpenSSL has a record that the kernel doesn't take."""
        spy = Spy(self.ours.connection)
        self.ours.connection = spy  # type: ignore[assignment]  # it sees to the rest
        while not self.ours.queued:
            self.send(self.ours, b"x" * 3000)
        return spy

    def test_whatWasRefusedIsOfferedAgainAsItWas(self) -> None:
        """SSL_write(3): with the same bytes, and no more. What comes afterwards isn't joined to it."""
        spy = self.fill()
        self.send(self.ours, b"y" * 100)
        refused = spy.given[-1]
        self.assertEqual((b"x" * 3000, None), refused)
        del spy.given[:]
        self.received()
        self.assertEqual([(b"x" * 3000, 3000), (b"y" * 100, 100)], [each for each in spy.given if each[1]])

    def test_afterwardsSmallFramesShareARecordAgain(self) -> None:
        spy = self.fill()
        self.received()
        del spy.given[:]
        for _ in range(10):
            self.ours.write(b"y" * 100)
        self.ours.flush()
        self.assertEqual([(b"y" * 1000, 1000)], spy.given)


class TakeBackTests(NarrowCase):
    """A frame is stuck in its middle."""

    def test_theFrameThatHasBegunIsFinishedAndNoOther(self) -> None:
        first, second = b"1" * 100_000, b"2" * 100_000
        self.send(self.ours, b"", first)
        self.send(self.ours, b"", second)
        self.assertGreater(self.ours.queued, len(second))
        self.ours.takeBack()
        self.assertLessEqual(self.ours.queued, len(first))
        self.send(self.ours, b"end")
        self.assertEqual(first + b"end", self.received())

    def test_allIsTakenBackThatHasNotBegun(self) -> None:
        """Though a frame was half sent before."""
        self.send(self.ours, b"", bytes(100_000))
        self.assertEqual(bytes(100_000), self.received())
        self.far.chunks.clear()
        self.ours.write(b"never")
        self.ours.takeBack()
        self.assertEqual(0, self.ours.queued)
        self.send(self.ours, b"sent")
        self.assertEqual(b"sent", self.received())

    def test_atAnyMomentWholeFramesArrive(self) -> None:
        """Frames of one letter each: none of them may lack a byte."""
        sizes = (1, 3_000, RECORD_SIZE, RECORD_SIZE + 1, 50_000)
        for turns in range(12):
            self.make(*narrowPair(4096))
            for number in range(20):
                self.send(self.ours, b"", bytes((65 + number,)) * sizes[(number + turns) % len(sizes)])
            self.turn(turns)
            self.ours.takeBack()
            self.send(self.ours, b"!")
            got = self.received()
            for number in range(20):
                self.assertIn(got.count(65 + number), (0, sizes[(number + turns) % len(sizes)]))
            self.assertEqual(b"!", got[-1:])


class EndingTests(TransportCase):
    def test_closeFollowsWhatWasWritten(self) -> None:
        self.ours.write(b"last words")
        self.ours.close()
        self.ours.close()
        self.ours.write(b"too late")
        self.turn()
        self.assertEqual([b"last words"], self.far.chunks)
        self.assertEqual(["secured", "the other side closed the connection"], self.far.told)

    def test_whatStillComesIsDropped(self) -> None:
        self.ours.close()
        self.theirs.pauseReading()
        self.send(self.theirs, b"did you hear?")
        self.turn()
        self.assertEqual([], self.near.chunks)
        self.theirs.abort()
        self.turn()
        self.assertFalse(self.ours.isThere)

    def test_abortIsAResetAndTellsTheOtherSideAlone(self) -> None:
        self.ours.abort()
        self.ours.abort()
        self.turn()
        self.assertEqual(["secured"], self.near.told)
        self.assertEqual(2, len(self.far.told))
        self.assertIn("reset", self.far.told[1].lower())
        self.assertEqual(("", 0), self.ours.peerAddress)

    def test_aResetIsHeardWhileNothingIsRead(self) -> None:
        self.theirs.pauseReading()
        self.turn()
        self.ours.abort()
        self.turn()
        self.assertEqual(2, len(self.far.told))

    def test_writingToABrokenConnectionTellsLaterAndOnce(self) -> None:
        self.theirs.pauseReading()
        self.ours.abort()
        for _ in range(3):
            self.send(self.theirs, b"", bytes(100_000))
        self.assertEqual(["secured"], self.far.told)
        self.turn()
        self.assertEqual(2, len(self.far.told))
        self.send(self.theirs, b"x")

    def test_anInternalErrorEndsTheConnection(self) -> None:
        def received(chunks: list[bytes]) -> None:
            raise RuntimeError("a mistake")

        self.near.received = received  # type: ignore[method-assign]  # a mistake
        self.send(self.theirs, b"x")
        self.turn()
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual(["secured", "an internal error"], self.near.told)

    def test_garbageInAnEncryptedConnection(self) -> None:
        self.sockets[1].send(b"this is no record")
        self.turn()
        self.assertEqual(2, len(self.near.told))
        self.assertIn("TLS", self.near.told[1])

    def test_errorsInWords(self) -> None:
        self.assertEqual("TLS failed", describe(SSL.Error()))
        self.assertEqual("TLS: bad thing", describe(SSL.Error([("lib", "", "bad thing")])))
        self.assertEqual("the other side closed the connection", describe(SSL.SysCallError(-1, "Unexpected EOF")))
        self.assertEqual("Broken pipe", describe(SSL.SysCallError(32, "Broken pipe")))
