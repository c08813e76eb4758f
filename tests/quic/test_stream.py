"""One stream as a transport: back-pressure both ways, half-close, abort, and what its receiver is told."""

from twisted.internet.error import ConnectionDone
from zope.interface.verify import verifyObject

from socketwarp.errors import Code, SessionLost, StreamReset
from socketwarp.interfaces import IStream
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.quic.stream import HIGH_WATERMARK, LOW_WATERMARK, Stream

from .net import NetworkCase, Notes

WINDOW = 100_000


class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class StreamCase(NetworkCase):
    """`ours` is a stream that the server has opened, `theirs` the client's end of it."""

    settings = TransportSettings(streamWindow=WINDOW, sessionWindow=2 * WINDOW)

    def setUp(self) -> None:
        super().setUp()
        self.client, self.session = self.connect()
        self.ours, self.theirs = self.open(self.client, self.session)

    def both(self) -> tuple[Notes, Notes]:
        """Receivers for both ends."""
        notes = Notes(self.ours), Notes(self.theirs)
        self.network.run(0.1)
        notes[1].data.clear()
        return notes


class EndingTests(StreamCase):
    def test_itIsAStream(self) -> None:
        for stream in (self.ours, self.theirs):
            verifyObject(IStream, stream)
        self.assertEqual((1, 1), (self.ours.streamId, self.theirs.streamId))

    def test_finEndsOneDirectionOnly(self) -> None:
        ours, theirs = self.both()
        self.ours.write(b"question")
        self.ours.loseWriteConnection()
        self.ours.loseWriteConnection()
        self.ours.write(b"too late")
        self.network.run(1)
        self.assertEqual((b"question", ["fin"], []), (theirs.data, theirs.calls, ours.calls))
        self.theirs.writeSequence([b"ans", bytearray(b"we"), memoryview(b"r")])
        self.theirs.loseWriteConnection()
        self.network.run(1)
        self.assertEqual(b"answer", ours.data)
        for notes in (ours, theirs):
            self.assertEqual("fin", notes.calls[0])
            self.assertEqual(2, len(notes.calls))
            self.assertIsInstance(notes.lost, ConnectionDone)
        self.assertEqual((0, 0), (self.session.statistics().streams, self.client.statistics().streams))

    def test_afterTheEndNothingHasAnEffect(self) -> None:
        _, theirs = self.both()
        for stream in (self.ours, self.theirs):
            stream.loseWriteConnection()
        self.network.run(1)
        for stream in (self.ours, self.theirs):
            stream.write(b"x")
            stream.loseWriteConnection()
            stream.abort(1)
            stream.stopProducing()
            stream.pauseProducing()
            stream.resumeProducing()
            producer = Producer()
            stream.registerProducer(producer, True)  # type: ignore[arg-type]  # it has the methods
            self.assertEqual(["stop"], producer.calls)
        self.network.run(1)
        self.assertEqual(2, len(theirs.calls))

    def test_abortIsAResetAtTheOtherEnd(self) -> None:
        ours, theirs = self.both()
        self.ours.write(bytes(WINDOW * 3))
        self.ours.abort(Code.REFUSED)
        self.ours.abort(Code.LIMIT)
        self.network.run(1)
        self.assertEqual([], ours.calls)
        self.assertIsInstance(theirs.lost, StreamReset)
        self.assertEqual(Code.REFUSED, theirs.lost.errorCode)
        self.assertEqual((0, 0), (self.session.statistics().streams, self.client.statistics().streams))

    def test_abortOfAnIdleStreamIsNoCleanEnd(self) -> None:
        """All bytes have come, and no FIN."""
        _, theirs = self.both()
        self.ours.write(b"some")
        self.network.run(1)
        self.ours.abort(Code.ABORTED)
        self.network.run(1)
        self.assertEqual((b"some", None), (theirs.data, next((each for each in theirs.calls if each == "fin"), None)))
        self.assertIsInstance(theirs.lost, StreamReset)

    def test_stopProducingTellsTheWriterAndLeavesTheOtherDirection(self) -> None:
        ours, theirs = self.both()
        producer = Producer()
        self.theirs.registerProducer(producer, True)  # type: ignore[arg-type]  # it has the methods
        self.theirs.write(bytes(3 * HIGH_WATERMARK))
        self.assertEqual(["pause"], producer.calls)
        self.ours.stopProducing()
        self.ours.stopProducing()
        self.network.run(1)
        self.assertEqual([("stopped", Code.ABORTED)], theirs.calls)
        self.assertEqual(["pause", "resume"], producer.calls)
        self.assertEqual(b"", ours.data)
        self.ours.write(b"still here")
        self.ours.loseWriteConnection()
        self.network.run(1)
        self.assertEqual(b"still here", theirs.data)
        self.assertIsInstance(theirs.lost, ConnectionDone)
        self.assertIsInstance(ours.lost, ConnectionDone)

    def test_theEndOfTheSessionIsTheEndOfTheStream(self) -> None:
        ours, theirs = self.both()
        self.session.close(Code.SHUTDOWN, "bye")
        self.network.run(1)
        for notes in (ours, theirs):
            self.assertIsInstance(notes.lost, SessionLost)

    def test_whoStartsALostStreamIsToldInTheNextTurn(self) -> None:
        self.session.close(Code.SHUTDOWN, "bye")
        notes = Notes(self.ours)
        self.assertEqual([], notes.calls)
        self.clock.advance(0)
        self.assertIsInstance(notes.lost, SessionLost)

    def test_aReceiverMayAbortFromWithin(self) -> None:
        notes = Notes(self.theirs, lambda data: self.theirs.abort(Code.MALFORMED))
        ours = Notes(self.ours)
        self.ours.write(b"nonsense")
        self.ours.loseWriteConnection()
        self.network.run(1)
        self.assertEqual([], notes.calls)
        self.assertIsInstance(ours.lost, StreamReset)

    def test_aReceiverMayCloseTheSessionFromWithin(self) -> None:
        notes = Notes(self.theirs, lambda data: self.client.close(Code.MALFORMED, "nonsense"))
        self.ours.write(b"x")
        self.network.run(5)
        self.assertIsInstance(notes.lost, SessionLost)
        self.assertEqual([], self.clock.getDelayedCalls())


class ReadTests(StreamCase):
    def test_aPausedReaderStopsThePeerAtItsWindow(self) -> None:
        ours, theirs = self.both()
        del ours
        self.theirs.pauseProducing()
        self.ours.write(bytes(5 * WINDOW))
        self.network.run(5)
        self.assertEqual(0, len(theirs.data))
        self.assertTrue(WINDOW - 1 <= self.ours._state.sending.sent <= WINDOW + 1)
        self.theirs.resumeProducing()
        self.theirs.resumeProducing()
        self.network.run(5)
        self.assertEqual(5 * WINDOW, len(theirs.data))

    def test_whatComesBeforeTheStartWaits(self) -> None:
        self.ours.write(b"early")
        self.ours.loseWriteConnection()
        self.network.run(1)
        notes = Notes(self.theirs)
        self.network.run(1)
        self.assertEqual((b"!early", ["fin"]), (notes.data, notes.calls))

    def test_aReaderThatPausesWithinADeliveryGetsNoOtherBytes(self) -> None:
        notes = Notes(self.theirs, lambda data: self.theirs.pauseProducing())
        self.network.run(0.1)
        self.assertEqual(b"!", notes.data)
        self.ours.write(b"more")
        self.network.run(1)
        self.assertEqual(b"!", notes.data)
        self.theirs.resumeProducing()
        self.network.run(1)
        self.assertEqual(b"!more", notes.data)

    def test_oneStalledStreamLeavesTheOthersTheSession(self) -> None:
        self.theirs.pauseProducing()
        Notes(self.theirs)
        self.ours.write(bytes(2 * WINDOW))
        self.network.run(2)
        other, end = self.open(self.client, self.session)
        notes = Notes(end)
        other.write(bytes(10 * WINDOW))
        self.network.run(5)
        self.assertEqual(10 * WINDOW + 1, len(notes.data))


class WriteTests(StreamCase):
    def register(self, stream: Stream) -> Producer:
        producer = Producer()
        stream.registerProducer(producer, True)  # type: ignore[arg-type]  # it has the methods
        return producer

    def test_aProducerIsPausedAtTheHighMarkAndResumedAtTheLowOne(self) -> None:
        _, theirs = self.both()
        producer = self.register(self.ours)
        self.ours.write(bytes(HIGH_WATERMARK - 1))
        self.assertEqual([], producer.calls)
        self.ours.write(b"x")
        self.ours.write(b"x")
        self.assertEqual(["pause"], producer.calls)
        self.network.run(5)
        self.assertEqual(["pause", "resume"], producer.calls)
        self.assertEqual(HIGH_WATERMARK + 1, len(theirs.data))

    def test_theProducerWaitsWhileThePeerDoesNotRead(self) -> None:
        self.theirs.pauseProducing()
        Notes(self.theirs)
        producer = self.register(self.ours)
        self.ours.write(bytes(WINDOW + LOW_WATERMARK + HIGH_WATERMARK))
        self.network.run(5)
        self.assertEqual(["pause"], producer.calls)

    def test_whileMemoryIsShortAProducerWaitsForEachByte(self) -> None:
        _, theirs = self.both()
        self.session.saveMemory(True)
        producer = self.register(self.ours)
        self.ours.write(b"x")
        self.assertEqual(["pause"], producer.calls)
        self.network.run(1)
        self.assertEqual((["pause", "resume"], b"x"), (producer.calls, theirs.data))
        self.session.saveMemory(False)
        self.ours.write(b"y")
        self.assertEqual(["pause", "resume"], producer.calls)

    def test_whatIsHeldIsCounted(self) -> None:
        """Not yet sent, in flight, or not yet delivered."""
        self.both()
        self.theirs.pauseProducing()
        self.ours.write(bytes(3 * WINDOW))
        self.network.run(1)
        sent, got = self.session.statistics(), self.client.statistics()
        self.assertApproximates(2 * WINDOW, sent.buffered, 2)
        self.assertApproximates(WINDOW, got.buffered, 2)

    def test_onlyOnePushProducerIsTaken(self) -> None:
        producer = self.register(self.ours)
        self.assertRaises(RuntimeError, self.register, self.ours)
        self.ours.unregisterProducer()
        self.assertRaises(ValueError, self.ours.registerProducer, producer, False)
        self.ours.write(bytes(2 * HIGH_WATERMARK))
        self.assertEqual([], producer.calls)
