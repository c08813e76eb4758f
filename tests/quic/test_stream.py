"""One stream as a transport: what `tests.carriers` doesn't ask of every carrier, such as windows and marks."""

from twisted.internet.error import ConnectionDone

from socketwarp.errors import Code, SessionLost, StreamReset
from socketwarp.quic import stream
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.quic.stream import HIGH_WATERMARK, LOW_WATERMARK, Stream

from ..carriers import Producer
from .net import NetworkCase, Notes

WINDOW = 100_000


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
    def test_stopProducingTellsTheWriterAndLeavesTheOtherDirection(self) -> None:
        ours, theirs = self.both()
        producer = Producer()
        self.theirs.registerProducer(producer, True)
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

    def test_whoStartsALostStreamIsToldInTheNextTurn(self) -> None:
        self.session.close(Code.SHUTDOWN, "bye")
        notes = Notes(self.ours)
        self.assertEqual([], notes.calls)
        self.clock.advance(0)
        self.assertIsInstance(notes.lost, SessionLost)

    def test_aResetThatComesBeforeTheStartIsToldThoughTheSessionIsGone(self) -> None:
        """By then the session has forgotten the stream."""
        self.ours.abort(Code.REFUSED)
        self.network.run(1)
        self.assertEqual(0, self.client.statistics().streams)
        self.session.close(Code.NO_ERROR, "bye")
        self.network.run(5)
        notes = Notes(self.theirs)
        self.network.run(1)
        self.assertIsInstance(notes.lost, StreamReset)

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

    def test_aReaderThatIsPausedByTheFirstBytesIsGivenNoMore(self) -> None:
        """However much waits: what it is given is in no window and no budget any more."""
        self.patch(stream, "DELIVERY", WINDOW // 4)
        self.theirs.pauseProducing()
        notes = Notes(self.theirs, lambda data: self.theirs.pauseProducing())
        self.ours.write(bytes(WINDOW))
        self.ours.loseWriteConnection()
        self.network.run(1)
        self.theirs.resumeProducing()
        self.network.run(1)
        self.assertTrue(WINDOW // 4 <= len(notes.data) < WINDOW // 2, len(notes.data))
        self.assertApproximates(WINDOW - len(notes.data), self.client.statistics().buffered, 2)
        notes.onPieces = lambda data: None
        self.theirs.resumeProducing()
        self.network.run(1)
        self.assertEqual((WINDOW + 1, ["fin"]), (len(notes.data), notes.calls))

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
        stream.registerProducer(producer, True)
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

    def test_aStreamThatHasEndedSinceItSentIsLeftAlone(self) -> None:
        """What another's producer did when it was resumed may have ended this one, before its own is."""
        producer = self.register(self.ours)
        self.ours.write(bytes(HIGH_WATERMARK))
        self.ours.abort(Code.ABORTED)
        self.ours.drained()
        self.assertEqual(["pause"], producer.calls)

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

    def test_whileMemoryIsShortAProducerWaitsUntilTheLastByteHasLeft(self) -> None:
        """What the peer's window doesn't take yet is memory, too, though it is less than the low mark."""
        _, theirs = self.both()
        self.theirs.pauseProducing()
        self.session.saveMemory(True)
        producer = self.register(self.ours)
        self.ours.write(bytes(WINDOW + LOW_WATERMARK // 2))
        self.network.run(5)
        self.assertEqual((["pause"], b""), (producer.calls, theirs.data))
        self.theirs.resumeProducing()
        self.network.run(5)
        self.assertEqual((["pause", "resume"], WINDOW + LOW_WATERMARK // 2), (producer.calls, len(theirs.data)))

    def test_whatIsHeldIsCounted(self) -> None:
        """Not yet sent, in flight, or not yet delivered."""
        self.both()
        self.theirs.pauseProducing()
        self.ours.write(bytes(3 * WINDOW))
        self.network.run(1)
        sent, got = self.session.statistics(), self.client.statistics()
        self.assertApproximates(2 * WINDOW, sent.buffered, 2)
        self.assertApproximates(WINDOW, got.buffered, 2)
