"""TCP and a stream, joined: the two directions, and every ending."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.bridge import DISCARD, LINGER, REFUSAL, Bridge
from socketwarp.errors import (
    Code,
    ConnectionIdle,
    PortUnavailable,
    SessionLost,
    StreamReset,
    TargetRefused,
)
from socketwarp.interfaces import ISession, IStream, IStreamReceiver, ITcpProtocol, Piece, Totals
from socketwarp.wire.cutting import Immediate
from socketwarp.wire.preamble import Preamble, Preamble29Parser, formatPreamble29

from .fake_tcp import KERNEL_BUFFER, FakeReactor, FakeSocket, connect
from .fakes import HIGH_WATER, FakeStream, sessionPair, settle, streamPair

#: More than all buffers and windows on the way.
MUCH = 5_000_000


def pattern(start: int, size: int) -> bytes:
    """Bytes that show where in a flow they belong."""
    return b"".join(number.to_bytes(4, "big") for number in range(start // 4, (start + size) // 4 + 1))[
        start % 4 : start % 4 + size
    ]


class Tunnel:
    """A visitor and a target, joined by two bridges and a stream. Everything moves in `settle`."""

    def __init__(self, window: int = 200_000, idle: float | None = None) -> None:
        self.reactor = FakeReactor()
        self.stream, self.farStream = streamPair(self.reactor, window)
        self.makeBridges(idle)

    def makeBridges(self, idle: float | None = None) -> None:
        self.near = Bridge(self.reactor, lambda totals: self.over(self.near, totals), idle)
        self.far = Bridge(self.reactor, lambda totals: self.over(self.far, totals), idle)
        self.totals: dict[Bridge, Totals] = {}
        self.parsed: list[Any] = []  # Any: whatever the parser makes

    def over(self, bridge: Bridge, totals: Totals) -> None:
        assert bridge not in self.totals, "told twice"
        self.totals[bridge] = totals

    def joined(self) -> "Tunnel":
        """With both TCP connections and the stream."""
        self.visitor = connect(self.reactor, self.near)
        self.target = connect(self.reactor, self.far)
        self.near.join(self.stream, Immediate(None), self.parsed.append)
        self.far.join(self.farStream, Immediate(None), self.parsed.append)
        self.settle()
        return self

    def settle(self) -> None:
        settle(self.reactor)

    def pump(self) -> None:
        """Both readers read until nothing more comes."""
        before = -1
        while before != (before := len(self.visitor.received) + len(self.target.received)):
            self.settle()
            self.visitor.remoteReads()
            self.target.remoteReads()
        self.settle()

    def leftovers(self) -> list[Any]:
        """Timers, now that both bridges are over."""
        return list(self.reactor.getDelayedCalls())

    def ending(self, bridge: Bridge) -> str:
        return self.totals[bridge].ending


class FaultTests(SynchronousTestCase):
    """What a bridge's owner does wrong is logged, and reaches neither the session nor the reactor."""

    def test_whoIsToldOfTheEndMayFail(self) -> None:
        tunnel = Tunnel()
        tunnel.over = lambda bridge, totals: 1 // 0  # type: ignore[method-assign,assignment]  # a fault
        tunnel.joined()
        tunnel.near.abort(ConnectionIdle("enough"))
        tunnel.settle()
        self.assertEqual((True, True), (tunnel.near.isOver, tunnel.far.isOver))
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_whoIsToldOfTheAnswerMayFail(self) -> None:
        tunnel = Tunnel()
        tunnel.visitor = connect(tunnel.reactor, tunnel.near)
        tunnel.near.join(tunnel.stream, Immediate(None), lambda result: 1 // 0)  # type: ignore[arg-type]  # a fault
        tunnel.settle()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual("internal", tunnel.ending(tunnel.near))


class InterfaceTests(SynchronousTestCase):
    """What the classes say they are."""

    def test_theBridgeIsAHalfCloseableProtocolAndTheOthersWhatTheyServeAs(self) -> None:
        bridge = Bridge(FakeReactor(), lambda _: None)
        verifyObject(ITcpProtocol, bridge)
        verifyObject(IStreamReceiver, bridge._receiver)

    def test_theFakesAreWhatTheyStandFor(self) -> None:
        session, _ = sessionPair(FakeReactor())
        stream, _ = streamPair(FakeReactor())
        verifyObject(ISession, session)
        verifyObject(IStream, stream)


class FlowTests(SynchronousTestCase):
    """Bytes, and back-pressure."""

    def test_bytesGoBothWays(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteSends(b"question")
        tunnel.target.remoteSends(b"answer")
        tunnel.pump()
        self.assertEqual((b"question", b"answer"), (tunnel.target.received, tunnel.visitor.received))

    def test_muchDataArrivesUnchanged(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteSends(pattern(0, MUCH))
        tunnel.pump()
        self.assertEqual(pattern(0, MUCH), tunnel.target.received)

    def test_aSlowReaderCostsTheWatermarksAndOneWindow(self) -> None:
        tunnel = Tunnel(window=200_000).joined()
        tunnel.visitor.remoteSends(bytes(MUCH))
        tunnel.settle()
        unread = len(tunnel.visitor._in)
        held = MUCH - unread - KERNEL_BUFFER
        self.assertLess(held, HIGH_WATER + 2 * 200_000 + 2 * 65536)
        self.assertGreater(tunnel.stream.buffered, 0)

    def test_aPausedVisitorIsReadAgainWhenTheTargetReads(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteSends(bytes(MUCH))
        tunnel.settle()
        unread = len(tunnel.visitor._in)
        for _ in range(10):
            tunnel.target.remoteReads()
            tunnel.settle()
        self.assertLess(len(tunnel.visitor._in), unread)


class JoinTests(SynchronousTestCase):
    """One side is there before the other."""

    def test_whatAVisitorSendsBeforeTheStreamIsThereIsCarried(self) -> None:
        tunnel = Tunnel()
        visitor, target = connect(tunnel.reactor, tunnel.near), connect(tunnel.reactor, tunnel.far)
        visitor.remoteSends(pattern(0, 500_000))
        visitor.remoteFinishes()
        tunnel.settle()
        self.assertGreater(len(visitor._in), 400_000, "an early visitor is paused")
        tunnel.near.join(tunnel.stream, Immediate(None), tunnel.parsed.append)
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.visitor, tunnel.target = visitor, target
        tunnel.pump()
        self.assertEqual((pattern(0, 500_000), True), (target.received, target.sawFin))

    def test_anAnswerThatComesWithItsEndLeavesWithIt(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.target.remoteSends(b"answer")
        tunnel.target.remoteFinishes()
        tunnel.settle()
        self.assertEqual(1, tunnel.visitor.packets)
        tunnel.visitor.remoteReads()
        self.assertEqual((b"answer", True), (tunnel.visitor.received, tunnel.visitor.sawFin))

    def test_aFinBeforeTheStreamIsThereIsCarried(self) -> None:
        tunnel = Tunnel()
        tunnel.visitor, tunnel.target = connect(tunnel.reactor, tunnel.near), connect(tunnel.reactor, tunnel.far)
        tunnel.visitor.remoteFinishes()
        tunnel.settle()
        tunnel.near.join(tunnel.stream, Immediate(None), tunnel.parsed.append)
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.target.remoteSends(b"late answer")
        tunnel.pump()
        self.assertTrue(tunnel.target.sawFin)
        self.assertEqual(b"late answer", tunnel.visitor.received)

    def test_aVisitorWhoGoesBeforeTheStreamIsThereEndsTheBridge(self) -> None:
        for early in (b"", b"something"):
            tunnel = Tunnel()
            visitor = connect(tunnel.reactor, tunnel.near)
            visitor.remoteSends(early)
            tunnel.settle()
            visitor.remoteResets()
            tunnel.settle()
            self.assertEqual("tcp-reset", tunnel.ending(tunnel.near))
            tunnel.near.join(tunnel.stream, Immediate(None), tunnel.parsed.append)
            self.assertEqual((Code.ABORTED, []), (tunnel.stream.abortCode, tunnel.parsed))

    def test_theStreamMayComeFirst(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Preamble29Parser(), tunnel.parsed.append)
        self.assertEqual([], tunnel.parsed)
        tunnel.visitor = connect(tunnel.reactor, tunnel.near)
        tunnel.stream.write(formatPreamble29("1-1", "target", 80))
        tunnel.near.join(tunnel.stream, Immediate(None), tunnel.parsed.append)
        self.assertEqual([None], tunnel.parsed)
        tunnel.visitor.remoteSends(pattern(0, 1_000_000))
        tunnel.visitor.remoteFinishes()
        tunnel.settle()
        self.assertEqual([None, Preamble("1-1", "target", 80)], tunnel.parsed)
        self.assertGreater(len(tunnel.visitor._in), 100_000, "a stream without TCP is paused")
        tunnel.target = connect(tunnel.reactor, tunnel.far)
        tunnel.pump()
        self.assertEqual((pattern(0, 1_000_000), True), (tunnel.target.received, tunnel.target.sawFin))

    def test_tcpMayComeWhileThePreambleIsToldOf(self) -> None:
        """As a target within one host does."""
        tunnel = Tunnel()
        targets: list[FakeSocket] = []
        tunnel.far.join(
            tunnel.farStream, Preamble29Parser(), lambda _: targets.append(connect(tunnel.reactor, tunnel.far))
        )
        tunnel.stream.start(Swallower())
        tunnel.stream.write(formatPreamble29("1-1", "target", 80) + b"question")
        tunnel.settle()
        (target,) = targets
        target.remoteReads()
        self.assertEqual(b"question", target.received)

    def test_aFinOfTheStreamThatComesBeforeTcpIsPassedOn(self) -> None:
        for whilePaused in (True, False):
            tunnel = Tunnel()
            tunnel.farStream.finWhilePaused = whilePaused
            tunnel.far.join(tunnel.farStream, Preamble29Parser(), tunnel.parsed.append)
            tunnel.stream.start(Swallower())
            tunnel.stream.write(formatPreamble29("1-1", "target", 80) + b"all there is")
            tunnel.settle()
            tunnel.stream.loseWriteConnection()
            tunnel.settle()
            target = connect(tunnel.reactor, tunnel.far)
            tunnel.settle()
            target.remoteReads()
            self.assertEqual((b"all there is", True), (target.received, target.sawFin))

    def test_whatFollowsThePreambleInPiecesWaitsForTcp(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Preamble29Parser(), tunnel.parsed.append)
        header = formatPreamble29("1-1", "target", 80)
        tunnel.farStream.pauseProducing = lambda: None  # type: ignore[method-assign]  # a late delivery, under way already
        for piece in (header[:500], header[500:] + b"one", b" two"):
            tunnel.stream.write(piece)
            tunnel.settle()
        self.assertEqual([Preamble("1-1", "target", 80)], tunnel.parsed)
        target = connect(tunnel.reactor, tunnel.far)
        tunnel.settle()
        target.remoteReads()
        self.assertEqual(b"one two", target.received)

    def test_anAnswerIsTakenOffBeforeTheVisitorSeesAnything(self) -> None:
        tunnel = Tunnel()
        tunnel.visitor = connect(tunnel.reactor, tunnel.near)
        tunnel.near.join(tunnel.stream, Preamble29Parser(), tunnel.parsed.append)
        tunnel.farStream.start(Swallower())
        tunnel.farStream.write(formatPreamble29("1-1", "target", 80) + b"hello")
        tunnel.settle()
        tunnel.visitor.remoteReads()
        self.assertEqual([Preamble("1-1", "target", 80)], tunnel.parsed)
        self.assertEqual(b"hello", tunnel.visitor.received)

    def test_aMalformedPreambleResetsTheStream(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Preamble29Parser(), tunnel.parsed.append)
        tunnel.stream.write(b"x" * 1024)
        tunnel.settle()
        self.assertEqual((Code.MALFORMED, []), (tunnel.farStream.abortCode, tunnel.parsed))
        self.assertEqual("malformed-preamble", tunnel.ending(tunnel.far))

    def test_aStreamThatEndsWithinItsPreambleIsMalformed(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Preamble29Parser(), tunnel.parsed.append)
        tunnel.stream.write(b"1-1|tar")
        tunnel.stream.loseWriteConnection()
        tunnel.settle()
        self.assertEqual((Code.MALFORMED, []), (tunnel.farStream.abortCode, tunnel.parsed))
        self.assertEqual("malformed-preamble", tunnel.ending(tunnel.far))

    def test_aStreamResetWhileTheTargetIsDialledResetsTheTargetOnArrival(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.stream.abort(Code.ABORTED)
        tunnel.settle()
        self.assertEqual("stream-reset", tunnel.ending(tunnel.far))
        target = connect(tunnel.reactor, tunnel.far)
        tunnel.settle()
        self.assertTrue(target.sawReset)

    def test_aPeerThatStopsReadingWithCodeZeroWhileTheTargetIsDialledStillHasItsBytesDelivered(self) -> None:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.stream.write(b"all there is")
        tunnel.stream.loseWriteConnection()
        tunnel.stream.stopReading(0)
        tunnel.settle()
        target = connect(tunnel.reactor, tunnel.far)
        target.remoteSends(b"nobody wants this")
        tunnel.settle()
        target.remoteReads()
        self.assertEqual((b"all there is", True), (target.received, target.sawFin))


@implementer(IStreamReceiver)
class Swallower:
    """A receiver that does nothing."""

    def piecesReceived(self, pieces: list[Piece]) -> None: ...

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self, errorCode: int) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


class EndingTests(SynchronousTestCase):
    """The table of endings, in both directions."""

    def both(self, check: Callable[[Tunnel, FakeSocket, FakeSocket, Bridge, Bridge], None]) -> None:
        """Once as from the visitor's side, once as from the target's."""
        tunnel = Tunnel().joined()
        check(tunnel, tunnel.visitor, tunnel.target, tunnel.near, tunnel.far)
        tunnel = Tunnel().joined()
        check(tunnel, tunnel.target, tunnel.visitor, tunnel.far, tunnel.near)

    def test_finIsPassedOnAfterAllBytesAndTheOtherDirectionGoesOn(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *_: object) -> None:
            one.remoteSends(pattern(0, MUCH))
            one.remoteFinishes()
            tunnel.settle()
            other.remoteReads(10)
            self.assertFalse(other.sawFin)
            tunnel.pump()
            self.assertEqual((pattern(0, MUCH), True), (other.received, other.sawFin))
            other.remoteSends(b"the answer that comes after FIN")
            tunnel.pump()
            self.assertEqual((b"the answer that comes after FIN", False), (one.received, one.sawFin))

        self.both(check)

    def test_finFromBothSidesEndsEverythingCleanly(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *bridges: Bridge) -> None:
            one.remoteFinishes()
            tunnel.pump()
            other.remoteSends(b"bye")
            other.remoteFinishes()
            tunnel.pump()
            for remote in (one, other):
                self.assertEqual((True, False, True), (remote.sawFin, remote.sawReset, remote.closed))
            self.assertEqual(["finished", "finished"], [tunnel.ending(bridge) for bridge in bridges])
            self.assertEqual([], tunnel.reactor.getDelayedCalls())
            self.assertEqual((Totals(0, 3, None), Totals(3, 0, None)), tuple(tunnel.totals[b] for b in bridges))

        self.both(check)

    def test_rstIsPassedOnAsRst(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *bridges: Bridge) -> None:
            one.remoteResets()
            tunnel.settle()
            self.assertEqual((True, False), (other.sawReset, other.sawFin))
            self.assertEqual(["tcp-reset", "stream-reset"], [tunnel.ending(bridge) for bridge in bridges])

        self.both(check)

    def test_rstAfterFinIsPassedOnAsRst(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *_: object) -> None:
            one.remoteFinishes()
            tunnel.pump()
            one.remoteResets()
            tunnel.settle()
            self.assertTrue(other.sawReset)

        self.both(check)

    def test_rstOfAConnectionThatIsPausedIsPassedOnAsRst(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *_: object) -> None:
            one.remoteSends(bytes(MUCH))
            tunnel.settle()
            one.remoteResets()
            tunnel.settle()
            self.assertTrue(other.sawReset)

        self.both(check)

    def test_rstFromOneWhoDoesNotReadIsPassedOnAsRst(self) -> None:
        def check(tunnel: Tunnel, one: FakeSocket, other: FakeSocket, *_: object) -> None:
            other.remoteSends(bytes(MUCH))
            tunnel.settle()
            one.remoteResets()
            tunnel.settle()
            self.assertTrue(other.sawReset)

        self.both(check)

    def test_aLostSessionResetsBothTcpSidesWithTheReason(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteSends(bytes(MUCH))
        tunnel.settle()
        reason = SessionLost("the path is gone")
        tunnel.stream.lose(reason)
        tunnel.farStream.lose(reason)
        tunnel.settle()
        self.assertEqual((True, True), (tunnel.visitor.sawReset, tunnel.target.sawReset))
        self.assertEqual([reason, reason], [totals.error for totals in tunnel.totals.values()])

    def test_anUnknownLossOfAStreamCountsAsALostSession(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.stream._end(ValueError("something else"))
        tunnel.settle()
        self.assertEqual("session-lost", tunnel.ending(tunnel.near))

    def test_aSessionLostBeforeTheLastBytesAreAcknowledgedIsNoCleanEnd(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.target.remoteFinishes()
        tunnel.pump()
        tunnel.farStream.pauseProducing()
        tunnel.visitor.remoteSends(bytes(300_000))
        tunnel.visitor.remoteFinishes()
        tunnel.settle()
        self.assertTrue(tunnel.visitor.closed)
        tunnel.stream.lose(SessionLost("gone"))
        self.assertEqual("session-lost", tunnel.ending(tunnel.near))

    def test_stopSendingWithACodeResetsTcp(self) -> None:
        for code in (Code.ABORTED, 77):
            tunnel = Tunnel().joined()
            tunnel.stream.stopReading(code)
            tunnel.settle()
            self.assertTrue(tunnel.target.sawReset)
            error = tunnel.totals[tunnel.far].error
            assert isinstance(error, StreamReset)
            self.assertEqual(code, error.errorCode)

    def test_theFirstErrorCounts(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.near.abort(PortUnavailable("first"))
        tunnel.near.abort(PortUnavailable("second"))
        tunnel.settle()
        self.assertEqual("first", str(tunnel.totals[tunnel.near].error))

    def test_anOwnersAbortResetsBothSidesWithTheErrorsCode(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.near.abort(TargetRefused("refused"))
        tunnel.settle()
        self.assertEqual(Code.REFUSED, tunnel.stream.abortCode)
        self.assertEqual((True, True), (tunnel.visitor.sawReset, tunnel.target.sawReset))

    def test_whicheverFrameOfAResetComesFirstTcpIsReset(self) -> None:
        for first in (True, False):
            tunnel = Tunnel().joined()
            tunnel.stream.resetFirst = first
            tunnel.visitor.remoteResets()
            tunnel.settle()
            self.assertEqual((True, "stream-reset"), (tunnel.target.sawReset, tunnel.ending(tunnel.far)))

    def test_aBridgeWithoutEitherSideEndsWhenItIsAborted(self) -> None:
        tunnel = Tunnel()
        tunnel.near.abort(PortUnavailable("closed"))
        self.assertEqual("port-unavailable", tunnel.ending(tunnel.near))


class OriginalPeerTests(SynchronousTestCase):
    """The original ends both directions of a stream at the first FIN of its TCP side, with code 0."""

    def setUp(self) -> None:
        self.tunnel = Tunnel().joined()

    def originalEnds(self, last: bytes = b"") -> None:
        """As the original does when its target has sent `last` and FIN."""
        self.tunnel.farStream.write(last)
        self.tunnel.farStream.loseWriteConnection()
        self.tunnel.farStream.stopReading(0)
        self.tunnel.settle()

    def test_whatItSentIsDeliveredAndThenTheVisitorGetsFinNotRst(self) -> None:
        self.originalEnds(pattern(0, 500_000))
        self.tunnel.pump()
        visitor = self.tunnel.visitor
        self.assertEqual((pattern(0, 500_000), True, False), (visitor.received, visitor.sawFin, visitor.sawReset))

    def test_whatTheVisitorStillSendsIsReadAndDroppedForAWhile(self) -> None:
        self.originalEnds(b"answer")
        visitor = self.tunnel.visitor
        visitor.remoteSends(bytes(MUCH))
        self.tunnel.pump()
        self.assertEqual(0, len(visitor._in))
        self.tunnel.reactor.advance(DISCARD)
        self.tunnel.settle()
        self.assertEqual((True, False, b"answer"), (visitor.closed, visitor.sawReset, visitor.received))
        self.assertEqual("finished", self.tunnel.ending(self.tunnel.near))

    def test_aVisitorThatFinishesTooIsClosedAtOnce(self) -> None:
        self.originalEnds(b"answer")
        self.tunnel.visitor.remoteFinishes()
        self.tunnel.pump()
        self.assertTrue(self.tunnel.visitor.closed)
        self.assertEqual("finished", self.tunnel.ending(self.tunnel.near))

    def test_aVisitorThatWasPausedIsReadAgainSoThatItsFinIsNoticed(self) -> None:
        self.tunnel.farStream.pauseProducing()
        self.tunnel.visitor.remoteSends(bytes(MUCH))
        self.tunnel.settle()
        self.originalEnds()
        self.assertEqual(0, len(self.tunnel.visitor._in))

    def test_stoppingAfterOurFinChangesNothing(self) -> None:
        self.tunnel.farStream.pauseProducing()
        self.tunnel.visitor.remoteSends(bytes(250_000))
        self.tunnel.visitor.remoteFinishes()
        self.tunnel.settle()
        self.originalEnds(b"answer")
        self.tunnel.pump()
        self.assertEqual(b"answer", self.tunnel.visitor.received)
        self.assertEqual("finished", self.tunnel.ending(self.tunnel.near))


class LimitTests(SynchronousTestCase):
    """Nothing waits for ever."""

    def test_aReaderThatNeverTakesTheLastBytesIsReset(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteFinishes()
        for _ in range(2):
            tunnel.target.remoteSends(bytes(60_000))
            tunnel.settle()
        tunnel.target.remoteFinishes()
        tunnel.settle()
        self.assertNotIn(tunnel.near, tunnel.totals)
        tunnel.reactor.advance(LINGER)
        tunnel.settle()
        self.assertTrue(tunnel.visitor.sawReset)
        self.assertEqual("stalled", tunnel.ending(tunnel.near))

    def test_aReaderThatIsDoneInTimeIsNotReset(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteFinishes()
        tunnel.target.remoteSends(bytes(150_000))
        tunnel.target.remoteFinishes()
        tunnel.settle()
        tunnel.reactor.advance(LINGER - 1)
        tunnel.pump()
        tunnel.reactor.advance(LINGER)
        self.assertEqual("finished", tunnel.ending(tunnel.near))

    def test_aSlowReaderWhoseOtherDirectionGoesOnHasAllTheTime(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.target.remoteSends(bytes(300_000))
        tunnel.target.remoteFinishes()
        tunnel.settle()
        tunnel.reactor.advance(10 * LINGER)
        tunnel.settle()
        self.assertFalse(tunnel.visitor.sawReset)

    def test_anIdleBridgeEndsBetweenOneAndOneAndAQuarterOfItsTime(self) -> None:
        tunnel = Tunnel(idle=100).joined()
        tunnel.reactor.advance(20)
        tunnel.visitor.remoteSends(b"something")
        tunnel.settle()
        tunnel.reactor.pump([25] * 4)
        tunnel.settle()
        self.assertEqual({}, tunnel.totals)
        tunnel.reactor.advance(25)
        tunnel.settle()
        error = tunnel.totals[tunnel.near].error
        self.assertIsInstance(error, ConnectionIdle)
        self.assertEqual((True, True), (tunnel.visitor.sawReset, tunnel.target.sawReset))

    def test_aBusyBridgeDoesNotEnd(self) -> None:
        tunnel = Tunnel(idle=100).joined()
        for _ in range(20):
            tunnel.reactor.advance(50)
            tunnel.target.remoteSends(b"something")
            tunnel.pump()
        self.assertEqual({}, tunnel.totals)

    def test_noTimerIsLeftBehind(self) -> None:
        tunnel = Tunnel(idle=100).joined()
        tunnel.visitor.remoteResets()
        tunnel.settle()
        self.assertEqual([], tunnel.reactor.getDelayedCalls())


class OwnerTests(SynchronousTestCase):
    """`Bridge.finish` and `Bridge.refuse`."""

    def test_finishSendsFinAfterTheBytesInFlightAndTheAnswerStillComes(self) -> None:
        tunnel = Tunnel().joined()
        tunnel.visitor.remoteSends(b"question")
        tunnel.settle()
        tunnel.near.finish()
        tunnel.visitor.remoteSends(b"too late")
        tunnel.pump()
        self.assertEqual((b"question", True), (tunnel.target.received, tunnel.target.sawFin))
        tunnel.target.remoteSends(b"answer")
        tunnel.target.remoteFinishes()
        tunnel.pump()
        self.assertEqual((b"answer", True), (tunnel.visitor.received, tunnel.visitor.sawFin))
        tunnel.reactor.advance(DISCARD)
        tunnel.settle()
        self.assertEqual(["finished"] * 2, [totals.ending for totals in tunnel.totals.values()])

    def test_finishBeforeTheStreamIsThereCarriesWhatCame(self) -> None:
        tunnel = Tunnel()
        tunnel.visitor, tunnel.target = connect(tunnel.reactor, tunnel.near), connect(tunnel.reactor, tunnel.far)
        tunnel.visitor.remoteSends(b"question")
        tunnel.settle()
        tunnel.near.finish()
        tunnel.near.join(tunnel.stream, Immediate(None), tunnel.parsed.append)
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.pump()
        self.assertEqual((b"question", True), (tunnel.target.received, tunnel.target.sawFin))

    def refused(self, answer: bytes) -> tuple[Tunnel, FakeStream]:
        tunnel = Tunnel()
        tunnel.far.join(tunnel.farStream, Immediate(None), tunnel.parsed.append)
        tunnel.far.refuse(TargetRefused("refused"), answer)
        tunnel.settle()
        return tunnel, tunnel.farStream

    def test_aRefusalWithoutAnAnswerResetsTheStreamAtOnce(self) -> None:
        tunnel, stream = self.refused(b"")
        self.assertEqual(Code.REFUSED, stream.abortCode)
        self.assertEqual("refused", tunnel.ending(tunnel.far))

    def test_aRefusalsAnswerIsHeardAndThePeerResetsTheStream(self) -> None:
        tunnel, stream = self.refused(formatPreamble29("1-1", "answer", 1))
        visitor = connect(tunnel.reactor, tunnel.near)
        heard: list[Preamble] = []

        def hear(answer: Preamble) -> None:
            heard.append(answer)
            tunnel.near.abort(TargetRefused("as the answer says"))

        tunnel.near.join(tunnel.stream, Preamble29Parser(), hear)
        tunnel.settle()
        self.assertEqual([Preamble("1-1", "answer", 1)], heard)
        self.assertTrue(visitor.sawReset)
        self.assertIsNone(stream.abortCode)
        self.assertEqual("refused", tunnel.ending(tunnel.far))

    def test_aPeerThatDoesNotResetARefusedStreamIsNotWaitedForLong(self) -> None:
        tunnel, stream = self.refused(b"an answer")
        self.assertIsNone(stream.abortCode)
        tunnel.reactor.advance(REFUSAL)
        self.assertEqual(Code.REFUSED, stream.abortCode)
        self.assertEqual("refused", tunnel.ending(tunnel.far))


class AnyOrder(RuleBasedStateMachine):
    """
    Two bridges, a stream, a visitor, a target: whatever happens in whatever order, no byte is lost, invented or moved,
    no end looks cleaner than it is, and in the end nothing is left.
    """

    @initialize(window=st.sampled_from([3_000, 50_000, 200_000]), resetFirst=st.booleans(), fin=st.booleans())
    def begin(self, window: int, resetFirst: bool, fin: bool) -> None:
        self.tunnel = Tunnel(window)
        self.tunnel.stream.finWhilePaused = self.tunnel.farStream.finWhilePaused = fin
        self.tunnel.stream.resetFirst = self.tunnel.farStream.resetFirst = resetFirst
        self.tunnel.visitor = connect(self.tunnel.reactor, self.tunnel.near)
        self.sent = {"visitor": 0, "target": 0}
        self.finished: set[str] = set()
        self.broken = False
        self.nearJoined = self.farJoined = self.dialled = False

    def remote(self, name: str) -> Any:  # Any: a FakeSocket, if there is one already
        return getattr(self.tunnel, name, None)

    def live(self, name: str) -> bool:
        return self.remote(name) is not None and name not in self.finished and not self.broken

    @precondition(lambda self: not self.nearJoined)
    @rule()
    def join(self) -> None:
        self.nearJoined = True
        self.tunnel.near.join(self.tunnel.stream, Immediate(None), self.tunnel.parsed.append)

    @precondition(lambda self: not self.farJoined)
    @rule()
    def accept(self) -> None:
        self.farJoined = True
        self.tunnel.far.join(self.tunnel.farStream, Immediate(None), self.tunnel.parsed.append)

    @precondition(lambda self: self.farJoined and not self.dialled)
    @rule()
    def dialled_(self) -> None:
        self.dialled = True
        self.tunnel.target = connect(self.tunnel.reactor, self.tunnel.far)

    @rule(name=st.sampled_from(["visitor", "target"]), size=st.sampled_from([1, 3, 4_000, 70_000, 400_000]))
    def send(self, name: str, size: int) -> None:
        if self.live(name):
            self.remote(name).remoteSends(pattern(self.sent[name], size))
            self.sent[name] += size

    @rule(name=st.sampled_from(["visitor", "target"]))
    def finish(self, name: str) -> None:
        if self.live(name):
            self.remote(name).remoteFinishes()
            self.finished.add(name)

    @rule(name=st.sampled_from(["visitor", "target"]), size=st.sampled_from([1, 1_000, 100_000, 1 << 30]))
    def read(self, name: str, size: int) -> None:
        if self.remote(name) is not None:
            self.remote(name).remoteReads(size)

    @rule(turns=st.sampled_from([1, 2, 50]))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.tunnel.reactor.advance(0)

    @rule(name=st.sampled_from(["visitor", "target"]))
    def reset(self, name: str) -> None:
        remote = self.remote(name)
        if remote is not None and not remote.closed:
            remote.remoteResets()
            self.broken = True

    @rule()
    def loseSession(self) -> None:
        for stream in (self.tunnel.stream, self.tunnel.farStream):
            if not stream.over:
                stream.lose(SessionLost("gone"))
        self.broken = True

    @rule(near=st.booleans())
    def abort(self, near: bool) -> None:
        bridge = self.tunnel.near if near else self.tunnel.far
        if not bridge.isOver:
            bridge.abort(PortUnavailable("closed"))
            self.broken = True

    @invariant()
    def whatArrivesIsWhatWasSent(self) -> None:
        if not hasattr(self, "tunnel"):
            return
        for one, other in (("visitor", "target"), ("target", "visitor")):
            if self.remote(other) is None:
                continue
            got = self.remote(other).received
            assert pattern(0, len(got)) == got
            assert len(got) <= self.sent[one]
            if self.remote(other).sawFin:
                assert one in self.finished, "a FIN that nobody sent"
                assert len(got) == self.sent[one], "a FIN before all bytes"

    def teardown(self) -> None:
        if not hasattr(self, "tunnel"):
            return
        if not self.nearJoined:
            self.join()
        if not self.farJoined:
            self.accept()
        if not self.dialled:
            self.dialled_()
        self.tunnel.pump()
        self.whatArrivesIsWhatWasSent()
        if not self.broken:
            assert len(self.tunnel.target.received) == self.sent["visitor"]
            assert len(self.tunnel.visitor.received) == self.sent["target"]
            assert not (self.tunnel.visitor.sawReset or self.tunnel.target.sawReset)
            assert self.tunnel.target.sawFin == ("visitor" in self.finished)
            assert self.tunnel.visitor.sawFin == ("target" in self.finished)
        if self.broken or len(self.finished) == 2:
            for remote in (self.tunnel.visitor, self.tunnel.target):
                assert remote.closed, "a TCP connection is left"
                clean = remote.sawFin and not remote.sawReset
                assert clean or self.broken
            assert len(self.tunnel.totals) == 2, "a bridge has not ended"
            assert self.tunnel.leftovers() == []
        if not self.broken and len(self.finished) == 2:
            assert {totals.ending for totals in self.tunnel.totals.values()} == {"finished"}


class AnyOrderTests(SynchronousTestCase):
    """`AnyOrder`, as a test."""

    def test_inAnyOrderNothingIsLostInventedOrLeft(self) -> None:
        run_state_machine_as_test(AnyOrder, settings=settings(max_examples=300, stateful_step_count=40, deadline=None))
