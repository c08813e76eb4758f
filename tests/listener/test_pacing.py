"""So many bytes a second for all visitors of a port together: kept, shared fairly, and no byte lost."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.bridge import Bridge
from socketwarp.errors import StreamReset
from socketwarp.interfaces import IStream, IStreamReceiver, ITcp, ITcpProtocol, Piece
from socketwarp.listener.pacing import QUANTUM, TICK_SECONDS, TURN_SECONDS, Flow, Pace, PacedStream, PacedTcp
from socketwarp.listener.wishes import PortSpec
from socketwarp.rules.policy import parsePolicy
from socketwarp.tcp.transport import BULK_READ, FIRST_READ
from tests.fake_tcp import FakeSocket
from tests.listener.rig import Rig, Target, targets

RATE = 100_000
PORT = 18080


class Source:
    """
    Something that is read while it isn't paused.

    :ivar sent: bytes that it has to give; ``took``: those that came out at the other end of its flow.
    """

    def __init__(self, pace: Pace, piece: int) -> None:
        self.piece = piece
        self.sent = self.took = 0
        self.paused = False
        self.flow = Flow(pace, self, self.deliver)  # type: ignore[arg-type]  # a producer by shape

    def deliver(self, pieces: list[Piece]) -> None:
        self.took += sum(map(len, pieces))

    def give(self) -> None:
        """Read once, unless paused."""
        if not self.paused:
            self.sent += self.piece
            self.flow.take([bytes(self.piece)])

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Recorder:
    """Notes which of its methods are called."""

    streamId = 0

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self._calls.append(name)


class PaceTests(SynchronousTestCase):
    """Sources that always have more."""

    def setUp(self) -> None:
        self.clock = Clock()

    def run_(self, sources: list[Source], seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            for each in sources:
                each.give()
            self.clock.advance(TICK_SECONDS)

    def test_theRateIsKeptAndReached(self) -> None:
        for rate in (100, 10_000, 1_000_000, 50_000_000):
            pace = Pace(self.clock, rate)
            sources = [Source(pace, 2**20) for _ in range(3)]
            self.run_(sources, 5)
            passed = sum(each.took for each in sources)
            self.assertLessEqual(passed, rate * 6)
            self.assertGreater(passed, rate * 5.5, rate)

    @given(
        st.floats(1, 1e6), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2**18), st.floats(0, 1)), max_size=30)
    )
    @settings(deadline=None)
    def test_neverMoreThanTheRate(self, rate: float, actions: list[tuple[int, int, float]]) -> None:
        clock = Clock()
        pace = Pace(clock, rate)
        sources = [Source(pace, 0) for _ in range(3)]
        for which, size, wait in actions:
            sources[which].piece = size
            sources[which].give()
            clock.advance(wait)
            passed = sum(each.took for each in sources)
            self.assertLessEqual(passed, max(rate, 1) + clock.seconds() * rate + 1e-3)
            for each in sources:
                self.assertEqual(each.paused, each.flow.size >= pace.quantum)
                self.assertEqual(each.sent - each.took, each.flow.size)

    def test_allHaveTheSameShare(self) -> None:
        """However large their pieces are."""
        pace = Pace(self.clock, RATE)
        sources = [Source(pace, size) for size in (BULK_READ, FIRST_READ, 20_000)]
        self.run_(sources, 2)  # what may pass at once has passed
        before = [each.took for each in sources]
        self.run_(sources, 20)
        shares = [each.took - was for each, was in zip(sources, before, strict=True)]
        self.assertLessEqual(max(shares) - min(shares), 2 * pace.quantum)

    def test_aKeystrokeWaitsForATurnOfEachOther(self) -> None:
        pace = Pace(self.clock, RATE)
        bulk = [Source(pace, BULK_READ) for _ in range(2)]
        self.run_(bulk, 2)
        typist = Source(pace, 1)
        typist.give()
        self.run_(bulk, 2 * TURN_SECONDS + 2 * TICK_SECONDS)
        self.assertEqual(1, typist.took)

    def test_turnsAreNeitherLongNorMany(self) -> None:
        for rate, quantum in ((1, 1), (1000, 100), (1_000_000, QUANTUM), (100_000_000, 100_000)):
            self.assertEqual(quantum, Pace(self.clock, rate).quantum, rate)

    def test_whoIsPausedKeepsNobodyWaiting(self) -> None:
        pace = Pace(self.clock, RATE)
        stuck, other = Source(pace, BULK_READ), Source(pace, BULK_READ)
        stuck.flow.pauseProducing()
        self.run_([stuck, other], 10)
        self.assertEqual((0, True), (stuck.took, stuck.paused))
        self.assertGreater(other.took, 10 * RATE)
        stuck.flow.resumeProducing()
        self.run_([other], 10)
        self.assertEqual(stuck.sent, stuck.took)

    def test_whoIsGoneLeavesNothing(self) -> None:
        pace = Pace(self.clock, RATE)
        sources = [Source(pace, BULK_READ) for _ in range(2)]
        self.run_(sources, 1)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        for each in sources:
            each.flow.stopProducing()
            each.flow.take([b"late"])
            each.flow.whenPassed(lambda: self.fail("nobody waits for that"))
        self.assertEqual(([], [0, 0]), (self.clock.getDelayedCalls(), [each.flow.size for each in sources]))


class StreamTests(SynchronousTestCase):
    """What a receiver hears of a stream that is paced, and the stream of it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[str] = []
        self.paced = self.make(self.calls)
        self.paced.start(Recorder(self.calls))  # type: ignore[arg-type]  # a receiver by shape

    def make(self, calls: list[str]) -> PacedStream:
        return PacedStream(Recorder(calls), Pace(self.clock, 10))  # type: ignore[arg-type]  # a stream by shape

    def test_theEndComesBehindTheBytes(self) -> None:
        self.paced.piecesReceived([b"x" * 15])
        self.paced.readConnectionLost()
        self.paced.connectionLost(Failure(ConnectionDone()))
        self.paced.pauseProducing()
        self.paced.resumeProducing()
        self.clock.pump([0.1] * 10)
        self.assertEqual(1, self.calls.count("pauseProducing"))
        self.calls.remove("pauseProducing")
        told = ["start", *["piecesReceived"] * 15, "readConnectionLost", "connectionLost"]
        self.assertEqual(told, self.calls)  # and it isn't resumed: it is over

    def test_aResetDoesNot(self) -> None:
        self.paced.piecesReceived([b"x" * 15])
        self.paced.connectionLost(Failure(StreamReset(1)))
        self.clock.pump([0.1] * 10)
        self.assertEqual("connectionLost", self.calls[-1])
        self.assertNotIn("readConnectionLost", self.calls)

    def test_anAbortBeforeTheStartIsOne(self) -> None:
        calls: list[str] = []
        self.make(calls).abort(1)
        self.assertEqual(["abort"], calls)

    def test_itIsAStreamAndAReceiver(self) -> None:
        verifyObject(IStream, self.paced)
        verifyObject(IStreamReceiver, self.paced)
        protocol = PacedTcp(Bridge(self.clock, lambda _: None), Pace(self.clock, 10))
        verifyObject(ITcpProtocol, protocol)
        self.assertTrue(ITcp.providedBy(protocol))


class PortTests(SynchronousTestCase):
    """Visitors of a port that has a rate."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.lobby.policy = parsePolicy(f"[[rate]]\nbytes_per_second = {RATE}")
        self.seen = targets(self.rig.connected())
        self.successResultOf(self.rig.ports.desire(PortSpec(PORT, "uid-1", "x", 80)))

    def visit(self) -> tuple[FakeSocket, Target]:
        visitor = self.rig.visit(PORT)
        self.rig.settle()
        return visitor, self.seen[-1]

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.rig.reactor.advance(0.1)
            self.rig.settle()

    def test_bothDirectionsCountTogether(self) -> None:
        visitor, target = self.visit()
        visitor.remoteSends(bytes(10 * RATE))
        target.stream.write(bytes(10 * RATE))
        self.rig.settle()
        for second in (1, 2, 3):
            visitor.remoteReads()
            passed = len(target.payload) + len(visitor.received)
            self.assertLessEqual(abs(passed - second * RATE), 2 * RATE * TURN_SECONDS, second)
            self.wait(1)
            visitor.remoteReads()
        self.assertGreater(min(len(target.payload), len(visitor.received)), RATE)

    def test_whatMustWaitIsNotRead(self) -> None:
        """But for one read: the visitor's own TCP holds it back, and the target's stream does."""
        visitor, target = self.visit()
        visitor.remoteSends(bytes(50 * RATE))
        target.stream.write(bytes(50 * RATE))
        self.rig.settle()
        self.assertGreater(visitor.unread, 50 * RATE - RATE - FIRST_READ - BULK_READ)
        self.assertGreater(target.stream.buffered, 0)

    def test_everyByteArrivesAndThenTheEnd(self) -> None:
        visitor, target = self.visit()
        there, back = bytes(range(256)) * 1000, bytes(range(255, -1, -1)) * 1000
        visitor.remoteSends(there)
        visitor.remoteFinishes()
        target.stream.write(back)
        target.stream.loseWriteConnection()
        self.rig.settle()
        self.assertFalse(target.ended)
        self.wait(1)
        visitor.remoteReads()
        self.assertGreater(len(visitor.received), 0, "held back for FIN, which has come")
        for _ in range(5):
            self.wait(1)
            visitor.remoteReads()
        self.rig.settle()
        self.assertEqual((there, True), (target.payload, target.ended))
        self.assertEqual((back, True), (bytes(visitor.received), visitor.sawFin))
        (ended,) = self.rig.told("visitor.ended")
        self.assertEqual(("finished", len(there), len(back)), (ended["code"], ended["bytes_in"], ended["bytes_out"]))
        self.assertEqual("session-1", ended["session"])
        self.assertEqual(0, self.rig.lobby.count)

    def test_aResetOvertakesThem(self) -> None:
        visitor, target = self.visit()
        visitor.remoteSends(bytes(5 * RATE))
        self.rig.settle()
        visitor.remoteResets()
        self.rig.settle()
        self.assertIsNotNone(target.lost)
        visitor, target = self.visit()
        target.stream.write(bytes(5 * RATE))
        self.rig.settle()
        target.stream.abort(1)
        self.rig.settle()
        self.assertTrue(visitor.sawReset)
        self.assertEqual(0, self.rig.lobby.count)

    def test_closingThePortEndsThem(self) -> None:
        visitor, target = self.visit()
        visitor.remoteSends(bytes(5 * RATE))
        target.stream.write(bytes(5 * RATE))
        self.rig.settle()
        closing = self.rig.ports.withdraw(PORT)
        self.rig.settle()
        self.wait(0.1)
        self.assertEqual(1, self.successResultOf(closing))
        self.assertTrue(visitor.sawReset)
        self.assertIsNotNone(target.lost)

    def test_visitorsShareIt(self) -> None:
        pairs = [self.visit() for _ in range(4)]
        for visitor, _ in pairs:
            visitor.remoteSends(bytes(20 * RATE))
        self.wait(2)  # what may pass at once has passed
        before = [len(target.payload) for _, target in pairs]
        self.wait(20)
        amounts = [len(target.payload) - was for (_, target), was in zip(pairs, before, strict=True)]
        self.assertLess(max(amounts) - min(amounts), 2 * QUANTUM)
        self.assertLessEqual(abs(sum(amounts) - 20 * RATE), RATE / 10)

    def test_anotherPortHasItsOwn(self) -> None:
        self.successResultOf(self.rig.ports.desire(PortSpec(PORT + 1, "uid-1", "x", 80)))
        first, one = self.visit()
        second = self.rig.visit(PORT + 1)
        self.rig.settle()
        first.remoteSends(bytes(5 * RATE))
        second.remoteSends(bytes(5 * RATE))
        self.rig.settle()
        for target in (one, self.seen[-1]):
            self.assertGreater(len(target.payload), 0.9 * RATE)

    def test_aNewRuleCountsForTheNextVisitor(self) -> None:
        first, one = self.visit()
        self.rig.lobby.policy = parsePolicy("")
        second, two = self.visit()
        for visitor in (first, second):
            visitor.remoteSends(bytes(5 * RATE))
        self.rig.settle()
        self.assertLess(len(one.payload), 1.5 * RATE)
        self.assertEqual(5 * RATE, len(two.payload))

    def test_whoWaitsForAConnectorIsPacedToo(self) -> None:
        self.rig.connectors.dismiss("uid-1")
        self.rig.settle()
        visitor = self.rig.visit(PORT)
        visitor.remoteSends(b"early")
        visitor.remoteFinishes()
        self.rig.settle()
        seen = targets(self.rig.connected(name="session-2"))
        self.rig.settle()
        self.assertEqual((b"early", True), (seen[0].payload, seen[0].ended))
