"""
What every carrier promises of sessions and streams (`ISession`, `IStream`): one suite, run for each of them.

A carrier's test module mixes `SessionPromises` and `StreamPromises` into test cases that know how to make the two ends,
and runs `AnyOrder` with hypothesis: streams that follow one another and run side by side, with every ending at any
time.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.errors import Code, SessionLost, StreamReset
from socketwarp.interfaces import ISession, IStream, IStreamReceiver, Piece


@attrs.frozen
class Ends:
    """
    A session's two ends.

    :ivar settle: lets happen what can happen without much time passing; ``wait``: the same, and so many seconds pass.
    :ivar cut: nothing that one end sends reaches the other any more.
    :ivar over: asserts that nothing is left of the session; ``release``: sees to it.
    """

    listener: ISession
    connector: ISession
    settle: Callable[[], None]
    wait: Callable[[float], None]
    cut: Callable[[], None]
    over: Callable[[], None]
    release: Callable[[], None] = lambda: None


@implementer(IStreamReceiver)
class Notes:
    """Notes what a stream delivers, and that it keeps to the rules."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.fin = False
        self.stopped: int | None = None
        self.lost: BaseException | None = None

    def piecesReceived(self, pieces: list[Piece]) -> None:
        assert pieces and all(len(piece) for piece in pieces), "empty pieces"
        assert not self.fin and self.lost is None, "bytes after the end"
        self.data += b"".join(pieces)

    def readConnectionLost(self) -> None:
        assert not self.fin and self.lost is None, "FIN after the end"
        self.fin = True

    def writeConnectionLost(self, errorCode: int) -> None:
        assert self.stopped is None and self.lost is None, "stopped after the end"
        self.stopped = errorCode

    def connectionLost(self, reason: Failure) -> None:
        assert self.lost is None, "lost twice"
        self.lost = reason.value


@implementer(IPushProducer)
class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object  # the promises are mixed into test cases, and aren't any themselves


class _Helpers(_Case):
    """What both kinds of promises need."""

    carrier: str

    def newEnds(self) -> Ends:
        """A session, the carrier's own."""
        raise NotImplementedError

    def makeEnds(self) -> Ends:
        """A session that is gone after the test."""
        ends = self.newEnds()
        self.addCleanup(ends.release)
        return ends

    def open(self, ends: Ends) -> tuple[IStream, IStream, Notes, Notes]:
        """A stream of the listener's, its other end, and their receivers."""
        accepted: list[IStream] = []
        ends.connector.acceptStreams(accepted.append)
        ours = self.successResultOf(ends.listener.openStream())
        ours.write(b"!")
        ends.settle()
        (theirs,) = accepted
        notes = Notes(), Notes()
        ours.start(notes[0])
        theirs.start(notes[1])
        ends.settle()
        self.assertEqual(b"!", notes[1].data)
        notes[1].data.clear()
        return ours, theirs, *notes

    def closedOf(self, session: ISession) -> list[SessionLost]:
        found: list[SessionLost] = []
        session.whenClosed().addCallback(found.append)
        return found


class SessionPromises(_Helpers):
    """Sessions begin, say who is there, and end."""

    def test_bothEndsAreSessions(self) -> None:
        ends = self.makeEnds()
        for session in (ends.listener, ends.connector):
            verifyObject(ISession, session)
            self.assertEqual((self.carrier, True), (session.carrier, session.isOpen))

    def test_eachKnowsThePeersLeaf(self) -> None:
        ends = self.makeEnds()
        for session, subject in ((ends.listener, "CN=swc-1"), (ends.connector, "CN=listener")):
            self.assertEqual(subject, session.peerLeaf.subject.rfc4514_string())
            self.assertEqual(session.peerLeaf, session.peerChain[0])
            self.assertTrue(session.peerAddress[1])

    def test_theReasonOfACloseReachesThePeerAndAllStreams(self) -> None:
        ends = self.makeEnds()
        *_, ours, theirs = self.open(ends)
        closed = self.closedOf(ends.listener), self.closedOf(ends.connector)
        ends.listener.close(Code.SUPERSEDED, "another one came")
        ends.listener.close(Code.LIMIT, "twice")
        self.assertFalse(ends.listener.isOpen)
        ends.wait(5)
        for error, fromPeer in (
            (closed[0][0], False),
            (closed[1][0], True),
            (ours.lost, False),
            (theirs.lost, True),
        ):
            assert isinstance(error, SessionLost)
            self.assertEqual(
                ("another one came", Code.SUPERSEDED, fromPeer), (str(error), error.errorCode, error.fromPeer)
            )
        self.assertEqual(1, len(self.closedOf(ends.listener)))
        ends.over()

    def test_theConnectorMayCloseAsWell(self) -> None:
        ends = self.makeEnds()
        closed = self.closedOf(ends.listener)
        ends.connector.close(Code.SHUTDOWN, "enough")
        ends.wait(5)
        self.assertEqual(("enough", 9, True), (str(closed[0]), closed[0].errorCode, closed[0].fromPeer))
        ends.over()

    def test_aLongReasonIsCutBetweenCharacters(self) -> None:
        ends = self.makeEnds()
        closed = self.closedOf(ends.connector)
        ends.listener.close(Code.LIMIT, "ü" * 400)
        ends.wait(5)
        self.assertEqual("ü" * 250, str(closed[0]))

    def test_silenceEndsASession(self) -> None:
        ends = self.makeEnds()
        *_, ours, theirs = self.open(ends)
        closed = self.closedOf(ends.listener), self.closedOf(ends.connector)
        self.assertFalse(ends.listener.isSilent)
        ends.cut()
        ends.wait(15)
        self.assertTrue(ends.listener.isSilent)
        ends.wait(60)
        for found in closed:
            self.assertIsNone(found[0].errorCode)
            self.assertIn("nothing was heard", str(found[0]))
        self.assertIsInstance(ours.lost, SessionLost)
        self.assertIsInstance(theirs.lost, SessionLost)
        ends.over()

    def test_aQuietSessionLives(self) -> None:
        ends = self.makeEnds()
        ends.wait(300)
        self.assertTrue(ends.listener.isOpen and ends.connector.isOpen)
        self.assertFalse(ends.listener.isSilent or ends.connector.isSilent)
        self.assertIsNotNone(ends.listener.statistics().rtt)

    def test_nothingIsOpenedOnASessionThatIsOver(self) -> None:
        ends = self.makeEnds()
        ends.listener.close(Code.SHUTDOWN, "bye")
        self.failureResultOf(ends.listener.openStream(), SessionLost)
        ends.wait(5)

    def test_theStatisticsCount(self) -> None:
        ends = self.makeEnds()
        before = ends.listener.statistics(), ends.connector.statistics()
        ours, _, _, notes = self.open(ends)
        ours.write(bytes(50_000))
        ends.settle()
        self.assertEqual(50_000, len(notes.data))
        after = ends.listener.statistics(), ends.connector.statistics()
        self.assertEqual(50_001, after[0].bytesOut - before[0].bytesOut)
        self.assertEqual(50_001, after[1].bytesIn - before[1].bytesIn)
        self.assertEqual((1, 0), (after[0].streams - before[0].streams, after[0].buffered))

    def test_theConnectorsFirstStreamIsTheControlStream(self) -> None:
        ends = self.makeEnds()
        accepted: list[IStream] = []
        ends.listener.acceptStreams(accepted.append)
        stream = self.successResultOf(ends.connector.openStream())
        here, there = Notes(), Notes()
        stream.start(here)
        stream.write(b"hello")
        ends.settle()
        (other,) = accepted
        other.start(there)
        other.write(b"welcome")
        ends.settle()
        self.assertEqual((b"welcome", b"hello"), (here.data, there.data))

    def test_streamsWaitForAHandlerUpToALimit(self) -> None:
        ends = self.makeEnds()
        streams = []
        for _ in range(102):
            opening = ends.listener.openStream()
            ends.settle()
            stream, notes = self.successResultOf(opening), Notes()
            stream.start(notes)
            stream.write(b"x")
            ends.settle()
            streams.append(notes)
        codes = [each.lost.errorCode for each in streams if isinstance(each.lost, StreamReset)]
        self.assertEqual([Code.LIMIT] * 2, codes)
        accepted: list[Notes] = []

        def accept(stream: IStream) -> None:
            accepted.append(Notes())
            stream.start(accepted[-1])

        ends.connector.acceptStreams(accept)
        ends.settle()
        self.assertEqual([b"x"] * 100, [bytes(each.data) for each in accepted])


class StreamPromises(_Helpers):
    """docs/protocol.rst's table of endings, back-pressure, and that nothing has an effect afterwards."""

    def test_bothEndsAreStreams(self) -> None:
        ours, theirs, *_ = self.open(self.makeEnds())
        for stream in (ours, theirs):
            verifyObject(IStream, stream)
        self.assertEqual(ours.streamId, theirs.streamId)

    def test_finEndsOneDirectionOnly(self) -> None:
        ends = self.makeEnds()
        before = ends.listener.statistics().streams, ends.connector.statistics().streams
        ours, theirs, here, there = self.open(ends)
        ours.write(b"question")
        ours.loseWriteConnection()
        ours.loseWriteConnection()
        ours.write(b"too late")
        ends.settle()
        self.assertEqual((b"question", True, False), (there.data, there.fin, here.fin))
        theirs.writeSequence([b"ans", bytearray(b"we"), memoryview(b"r")])
        theirs.loseWriteConnection()
        ends.settle()
        self.assertEqual((b"answer", True), (here.data, here.fin))
        for notes in (here, there):
            self.assertIsInstance(notes.lost, ConnectionDone)
        self.assertEqual(before, (ends.listener.statistics().streams, ends.connector.statistics().streams))

    def test_theLastBytesAreKnownWhenTheyComeWithFin(self) -> None:
        """And none before them, nor while they wait."""
        ends = self.makeEnds()
        ours, theirs, here, _ = self.open(ends)
        ending: list[bool] = []

        def note(pieces: list[Piece]) -> None:
            ending.append(ours.isEnding)
            ours.pauseProducing()

        here.piecesReceived = note  # type: ignore[method-assign]  # it only looks
        theirs.write(b"first")
        ends.settle()
        theirs.write(b"last")
        theirs.loseWriteConnection()
        ends.settle()
        ending.append(ours.isEnding)
        ours.resumeProducing()
        ends.settle()
        self.assertEqual([False, False, True], ending)

    def test_theOtherEndMayFinishFirst(self) -> None:
        ends = self.makeEnds()
        ours, theirs, here, there = self.open(ends)
        theirs.write(b"greeting")
        theirs.loseWriteConnection()
        ends.settle()
        self.assertEqual((b"greeting", True, None), (here.data, here.fin, here.lost))
        ours.write(b"thanks")
        ours.loseWriteConnection()
        ends.settle()
        self.assertEqual((b"thanks", True), (there.data, there.fin))
        for notes in (here, there):
            self.assertIsInstance(notes.lost, ConnectionDone)

    def test_abortIsAResetAtTheOtherEnd(self) -> None:
        for aborting in (0, 1):
            ends = self.makeEnds()
            before = ends.listener.statistics().streams
            ours, theirs, here, there = self.open(ends)
            stream, mine, notes = ((ours, here, there), (theirs, there, here))[aborting]
            stream.write(bytes(300_000))
            stream.abort(Code.REFUSED)
            stream.abort(Code.LIMIT)
            ends.settle()
            assert isinstance(notes.lost, StreamReset)
            self.assertEqual((Code.REFUSED, False, None), (notes.lost.errorCode, notes.fin, mine.lost))
            self.assertEqual(before, ends.listener.statistics().streams)

    def test_abortOfAnIdleStreamIsNoCleanEnd(self) -> None:
        """All bytes have come, and no FIN."""
        ends = self.makeEnds()
        ours, _, _, there = self.open(ends)
        ours.write(b"some")
        ends.settle()
        ours.abort(Code.ABORTED)
        ends.settle()
        self.assertEqual((b"some", False), (there.data, there.fin))
        self.assertIsInstance(there.lost, StreamReset)

    def test_abortAfterFinIsHeardAsWell(self) -> None:
        ends = self.makeEnds()
        ours, theirs, _, there = self.open(ends)
        ours.loseWriteConnection()
        ends.settle()
        ours.abort(Code.ABORTED)
        ends.settle()
        self.assertTrue(there.fin)
        self.assertTrue(there.stopped == Code.ABORTED or isinstance(there.lost, StreamReset))
        theirs.loseWriteConnection()
        theirs.abort(Code.ABORTED)
        ends.settle()

    def test_aStreamMayBeGivenUpInTheMomentOfItsOpening(self) -> None:
        ends = self.makeEnds()
        accepted: list[tuple[IStream, Notes]] = []

        def accept(stream: IStream) -> None:
            accepted.append((stream, Notes()))
            stream.start(accepted[-1][1])

        ends.connector.acceptStreams(accept)
        for said in (b"", b"!", bytes(100_000)):
            ours = self.successResultOf(ends.listener.openStream())
            ours.write(said)
            ours.abort(Code.REFUSED)
            ends.settle()
        for _, notes in accepted:
            self.assertIsInstance(notes.lost, StreamReset)
        ends.wait(100)
        self.assertTrue(ends.listener.isOpen and ends.connector.isOpen)
        self.open(ends)

    def test_abortOvertakesWhatAReaderLeavesUnread(self) -> None:
        """The other side's TCP may not take a byte for hours: its end must not wait for that."""
        ends = self.makeEnds()
        ours, theirs, here, there = self.open(ends)
        theirs.pauseProducing()
        ours.write(bytes(3_000_000))
        ends.settle()
        ours.abort(Code.ABORTED)
        ends.settle()
        self.assertIsInstance(there.lost, StreamReset)
        self.assertEqual(0, len(there.data))
        self.assertIsNone(here.lost)

    def test_stopProducingTellsTheWriterAndLeavesTheOtherDirection(self) -> None:
        ends = self.makeEnds()
        ours, theirs, here, there = self.open(ends)
        theirs.write(bytes(10_000))
        ours.stopProducing()
        ours.stopProducing()
        ends.settle()
        self.assertEqual(Code.ABORTED, there.stopped)
        self.assertEqual((None, None), (here.lost, there.lost))
        ends.wait(100)  # and for as long as it likes
        ours.write(b"still here")
        ours.loseWriteConnection()
        ends.settle()
        self.assertEqual((b"still here", True), (there.data, there.fin))
        self.assertIsInstance(there.lost, ConnectionDone)
        self.assertIsInstance(here.lost, ConnectionDone)
        self.assertFalse(here.fin)

    def test_aReaderMayStopBeforeItsStreamHasArrived(self) -> None:
        ends = self.makeEnds()
        accepted: list[tuple[IStream, Notes]] = []

        def accept(stream: IStream) -> None:
            accepted.append((stream, Notes()))
            stream.start(accepted[-1][1])

        ends.connector.acceptStreams(accept)
        ours, here = self.successResultOf(ends.listener.openStream()), Notes()
        ours.start(here)
        ours.write(b"!")
        ours.stopProducing()
        ends.settle()
        ((theirs, there),) = accepted
        self.assertEqual((b"!", Code.ABORTED), (there.data, there.stopped))
        theirs.write(b"for nobody")
        ours.loseWriteConnection()
        ends.settle()
        self.assertEqual((b"", True), (here.data, there.fin))

    def test_afterTheEndNothingHasAnEffect(self) -> None:
        ends = self.makeEnds()
        ours, theirs, here, there = self.open(ends)
        ours.loseWriteConnection()
        theirs.loseWriteConnection()
        ends.settle()
        for stream in (ours, theirs):
            stream.write(b"x")
            stream.loseWriteConnection()
            stream.abort(1)
            stream.stopProducing()
            stream.pauseProducing()
            stream.resumeProducing()
            producer = Producer()
            stream.registerProducer(producer, True)
            self.assertEqual(["stop"], producer.calls)
        ends.settle()
        self.assertEqual((b"", b""), (here.data, there.data))
        self.assertTrue(ends.listener.isOpen and ends.connector.isOpen)

    def test_aPausedReaderHoldsTheWriterUpAndNobodyElse(self) -> None:
        ends = self.makeEnds()
        ours, theirs, _, there = self.open(ends)
        producer = Producer()
        ours.registerProducer(producer, True)
        theirs.pauseProducing()
        written = 0
        while not producer.calls and written < 100_000_000:
            ours.write(bytes(100_000))
            written += 100_000
            ends.settle()
        self.assertEqual((["pause"], 0), (producer.calls, len(there.data)))
        self.assertLess(written, 40_000_000)
        other, _, _, otherThere = self.open2(ends)
        other.write(b"not held up")
        ends.settle()
        self.assertEqual(b"not held up", otherThere.data)
        theirs.resumeProducing()
        ends.settle()
        self.assertEqual((["pause", "resume"], written), (producer.calls, len(there.data)))

    def open2(self, ends: Ends) -> tuple[IStream, IStream, Notes, Notes]:
        """Another stream beside the first."""
        return self.open(ends)

    def test_aProducerIsRegisteredOnce(self) -> None:
        ours, *_ = self.open(self.makeEnds())
        producer = Producer()
        ours.registerProducer(producer, True)
        self.assertRaises(RuntimeError, ours.registerProducer, Producer(), True)
        ours.unregisterProducer()
        self.assertRaises(ValueError, ours.registerProducer, Producer(), False)
        ours.write(bytes(50_000_000))
        self.assertEqual([], producer.calls)

    def test_whenMemoryIsShortAWriterIsPausedAtOnce(self) -> None:
        ends = self.makeEnds()
        ours, theirs, _, there = self.open(ends)
        theirs.pauseProducing()
        ours.write(bytes(40_000_000))
        ends.settle()
        ends.listener.saveMemory(True)
        producer = Producer()
        ours.registerProducer(producer, True)
        ours.write(b"x")
        self.assertEqual(["pause"], producer.calls)
        theirs.resumeProducing()
        ends.settle()
        self.assertEqual(40_000_001, len(there.data))

    def test_startingLateLosesNothing(self) -> None:
        ends = self.makeEnds()
        accepted: list[IStream] = []
        ends.connector.acceptStreams(accepted.append)
        ours = self.successResultOf(ends.listener.openStream())
        ours.writeSequence([b"a" * 100_000, b"b"])
        ours.loseWriteConnection()
        ends.settle()
        notes = Notes()
        accepted[0].start(notes)
        self.assertEqual(b"", notes.data)
        ends.settle()
        self.assertEqual((b"a" * 100_000 + b"b", True), (notes.data, notes.fin))

    def test_startingAfterTheEndTellsOfIt(self) -> None:
        ends = self.makeEnds()
        ours = self.successResultOf(ends.listener.openStream())
        ends.connector.acceptStreams(lambda stream: stream.abort(Code.LIMIT))
        ours.write(b"!")
        ends.settle()
        notes = Notes()
        ours.start(notes)
        self.assertIsNone(notes.lost)
        ends.settle()
        assert isinstance(notes.lost, StreamReset)
        self.assertEqual(Code.LIMIT, notes.lost.errorCode)

    def test_manyShortStreamsOneAfterTheOther(self) -> None:
        ends = self.makeEnds()
        before = ends.listener.statistics().streams, ends.connector.statistics().streams
        there: list[tuple[IStream, Notes]] = []

        def accept(stream: IStream) -> None:
            there.append((stream, Notes()))
            stream.start(there[-1][1])

        ends.connector.acceptStreams(accept)
        for number in range(200):
            ours, notes = self.successResultOf(ends.listener.openStream()), Notes()
            ours.start(notes)
            ours.write(b"%d" % number)
            ours.loseWriteConnection()
            ends.settle()
            theirs, said = there[-1]
            self.assertEqual(b"%d" % number, said.data)
            theirs.write(b"ok")
            theirs.loseWriteConnection()
            ends.settle()
            self.assertEqual(b"ok", notes.data)
            self.assertIsInstance(notes.lost, ConnectionDone)
        self.assertEqual(before, (ends.listener.statistics().streams, ends.connector.statistics().streams))

    def test_manyStreamsAtATime(self) -> None:
        ends = self.makeEnds()
        there: list[Notes] = []

        def accept(stream: IStream) -> None:
            there.append(Notes())
            stream.start(there[-1])

        ends.connector.acceptStreams(accept)
        opening: list[Deferred[IStream]] = [ends.listener.openStream() for _ in range(150)]
        for each in opening:
            each.addCallback(lambda stream: stream.write(b"!"))
        ends.settle()
        self.assertEqual([b"!"] * 150, [bytes(each.data) for each in there])


@attrs.define(eq=False)
class _End:
    """
    One end of a stream, as it should be.

    :ivar said: what was written here; ``hasFinished``: and FIN; ``hasAborted``: or given up; ``hasStopped``: no more is
        wanted here.
    """

    stream: IStream
    notes: Notes
    said: bytearray = attrs.field(factory=bytearray)
    isPaused: bool = False
    hasFinished: bool = False
    hasAborted: bool = False
    hasStopped: bool = False


class AnyOrder(RuleBasedStateMachine):
    """
    Streams are opened, written to, finished, given up and paused at both ends, in any order.

    Each byte says which stream and which end it is of, so that one that strays is seen.
    """

    makeEnds: Callable[[], Ends]
    #: How many streams at a time.
    most = 6

    def __init__(self) -> None:
        super().__init__()
        self.ends = type(self).makeEnds()
        self.pairs: list[tuple[_End, _End]] = []
        self.opened = 0
        self.arrived: dict[int, _End] = {}
        self.ends.connector.acceptStreams(self._accept)

    def _accept(self, stream: IStream) -> None:
        self.arrived[stream.streamId] = end = _End(stream, Notes())
        stream.start(end.notes)

    @precondition(lambda self: len(self.pairs) < self.most)
    @rule(size=st.sampled_from((1, 100, 40_000)))
    def open(self, size: int) -> None:
        opening = self.ends.listener.openStream()
        self.ends.settle()
        opened: list[IStream] = []
        opening.addCallback(opened.append)
        (stream,) = opened
        ours = _End(stream, Notes())
        stream.start(ours.notes)
        self.opened += 1
        self._write(ours, 2 * self.opened, size)
        self.ends.settle()
        self.pairs.append((ours, self.arrived.pop(stream.streamId)))

    def _write(self, end: _End, mark: int, size: int) -> None:
        data = bytes((mark % 256,)) * size
        end.stream.write(data)
        if not end.hasFinished and not end.hasAborted and end.notes.lost is None and end.notes.stopped is None:
            end.said += data

    def _draw(self, data: st.DataObject) -> tuple[_End, _End, int]:
        index = data.draw(st.integers(0, len(self.pairs) - 1))
        which = data.draw(st.integers(0, 1))
        return self.pairs[index][which], self.pairs[index][1 - which], which

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), size=st.sampled_from((1, 5_000, 200_000, 700_000)), settles=st.booleans())
    def write(self, data: st.DataObject, size: int, settles: bool) -> None:
        end, _, which = self._draw(data)
        self._write(end, end.stream.streamId * 2 + which, size)
        if settles:
            self.ends.settle()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), settles=st.booleans())
    def finish(self, data: st.DataObject, settles: bool) -> None:
        end, *_ = self._draw(data)
        end.stream.loseWriteConnection()
        end.hasFinished = True
        if settles:
            self.ends.settle()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), settles=st.booleans())
    def abort(self, data: st.DataObject, settles: bool) -> None:
        end, *_ = self._draw(data)
        if end.notes.lost is None:
            end.hasAborted = True
        end.stream.abort(Code.REFUSED)
        if settles:
            self.ends.settle()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), settles=st.booleans())
    def stop(self, data: st.DataObject, settles: bool) -> None:
        end, *_ = self._draw(data)
        end.stream.stopProducing()
        end.hasStopped = True
        if settles:
            self.ends.settle()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        end, *_ = self._draw(data)
        end.stream.pauseProducing()
        end.isPaused = True

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), settles=st.booleans())
    def resume(self, data: st.DataObject, settles: bool) -> None:
        end, *_ = self._draw(data)
        end.stream.resumeProducing()
        end.isPaused = False
        if settles:
            self.ends.settle()

    @rule()
    def settle(self) -> None:
        self.ends.settle()
        self.pairs = [pair for pair in self.pairs if not all(map(self._isOver, pair))]

    @staticmethod
    def _isOver(end: _End) -> bool:
        return end.notes.lost is not None or end.hasAborted

    @invariant()
    def whatArrivesIsWhatWasSaidAndNothingElse(self) -> None:
        for pair in self.pairs:
            for end, other in (pair, pair[::-1]):
                said, heard = other.said, end.notes.data
                assert said[: len(heard)] == heard, "strange bytes"
                if end.notes.fin:
                    assert other.hasFinished and len(heard) == len(said), "FIN before the last byte"
                if isinstance(end.notes.lost, StreamReset):
                    assert other.hasAborted, "a reset that nobody sent"
                assert not isinstance(end.notes.lost, SessionLost), end.notes.lost

    def teardown(self) -> None:
        """In the end everybody has heard everything, and the session is as it was."""
        try:
            self.checkEnd()
        finally:
            self.ends.release()

    def checkEnd(self) -> None:
        """See `teardown`."""
        for pair in self.pairs:
            for end in pair:
                end.stream.resumeProducing()
                end.stream.loseWriteConnection()
                end.hasFinished = True
        self.ends.settle()
        self.whatArrivesIsWhatWasSaidAndNothingElse()
        for pair in self.pairs:
            for end, other in (pair, pair[::-1]):
                if end.hasAborted:
                    continue
                if other.hasAborted:
                    assert isinstance(end.notes.lost, StreamReset | ConnectionDone), end.notes.lost
                elif end.hasStopped or other.hasStopped:
                    assert isinstance(end.notes.lost, ConnectionDone), end.notes.lost
                else:
                    assert end.notes.fin and isinstance(end.notes.lost, ConnectionDone), (end.notes.fin, end.notes.lost)
        assert self.ends.listener.isOpen and self.ends.connector.isOpen
        assert self.ends.listener.statistics().streams <= 1
        self.ends.listener.close(0, "")
        self.ends.wait(10)
        self.ends.over()


def runAnyOrder(makeEnds: Callable[[], Ends], examples: int) -> None:
    """Run `AnyOrder` over a carrier's ends."""

    class Machine(AnyOrder):
        pass

    Machine.makeEnds = staticmethod(makeEnds)
    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))
