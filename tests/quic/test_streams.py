"""A connection's streams: limits both ways, credit on consumption only, cost by activity."""

from typing import Any

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.reassembly import MAX_GAPS
from socketwarp.quic.streams import QUANTUM, Streams, StreamState
from socketwarp.quic.windows import Limits

STREAM = QuicFrameType.STREAM_BASE
LIMITS = Limits(streamWindow=1000, sessionWindow=2500, streams=20)


class StreamsCase(SynchronousTestCase):
    """A server's streams: 0, 4, 8 are the client's, 1, 5, 9 ours."""

    def setUp(self) -> None:
        self.streams = Streams(False, LIMITS)
        self.streams.peerMaxData, self.streams.peerMaxStreams = 2000, 3
        self.streams.peerWindowOfOurs, self.streams.peerWindowOfTheirs = 600, 700

    def receive(self, streamId: int, offset: int, size: int, fin: bool = False) -> None:
        self.streams.onStream(STREAM, streamId, offset, bytes(size), fin)
        if (state := self.streams.states.get(streamId)) is not None:
            self.streams.pause(state, False)  # there is a reader

    def refused(self, code: QuicErrorCode, call: Any, *arguments: Any) -> None:
        error = self.assertRaises(QuicConnectionError, call, *arguments)
        self.assertEqual(code, error.error_code)

    def consume(self, state: StreamState) -> int:
        size = sum(map(len, state.receiving.take()))
        self.streams.onConsumed(state, size)
        return size


class ReceiveLimitTests(StreamsCase):
    """RFC 9000 §4.1, §4.6."""

    def test_aByteOverTheStreamsLimitIsRefused(self) -> None:
        self.receive(0, 0, 1000)
        self.refused(QuicErrorCode.FLOW_CONTROL_ERROR, self.receive, 0, 1000, 1)
        self.refused(QuicErrorCode.FLOW_CONTROL_ERROR, self.streams.onReset, 0, 0, 1001)

    def test_aByteOverTheConnectionsLimitIsRefused(self) -> None:
        for streamId in (0, 4):
            self.receive(streamId, 0, 1000)
        self.receive(8, 499, 1)  # offsets count, not bytes
        self.receive(8, 0, 499)
        self.refused(QuicErrorCode.FLOW_CONTROL_ERROR, self.receive, 8, 500, 1)
        self.refused(QuicErrorCode.FLOW_CONTROL_ERROR, self.streams.onReset, 12, 0, 1)

    def test_bytesThatComeAgainCountOnce(self) -> None:
        for _ in range(10):
            self.receive(0, 0, 1000)
        self.receive(4, 0, 1000)

    def test_oneStreamTooManyIsRefused(self) -> None:
        self.receive(19 * 4, 0, 1)
        self.assertEqual(20, len(self.streams.states))
        self.refused(QuicErrorCode.STREAM_LIMIT_ERROR, self.receive, 20 * 4, 0, 1)

    def test_openingAStreamOpensAllBelowIt(self) -> None:
        self.receive(8, 0, 1)
        self.assertEqual([0, 4, 8], list(self.streams.states))
        self.assertEqual([0, 4, 8], [state.streamId for state in self.streams.touched])

    def test_unidirectionalStreamsAreRefused(self) -> None:
        """The peer's are over the limit, which is 0; ours don't exist."""
        self.refused(QuicErrorCode.STREAM_LIMIT_ERROR, self.receive, 2, 0, 1)
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.receive, 3, 0, 1)
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.streams.onStopSending, 2, 0)
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.streams.onMaxStreamData, 2, 9)

    def test_aStreamOfOursThatWasNotOpenedIsRefused(self) -> None:
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.receive, 1, 0, 1)
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.streams.onStopSending, 1, 0)
        self.refused(QuicErrorCode.STREAM_STATE_ERROR, self.streams.onMaxStreamData, 5, 9)
        self.streams.open()
        self.receive(1, 0, 1)

    def test_framesOfStreamsThatAreOverAreDropped(self) -> None:
        self.receive(0, 0, 0, True)
        state = self.streams.states[0]
        self.streams.reset(state, 1)
        self.streams.onResetDelivered(state, True)
        self.assertEqual({}, self.streams.states)
        self.receive(0, 0, 5000)
        self.streams.onReset(0, 1, 5000)
        self.streams.onStopSending(0, 1)
        self.streams.onMaxStreamData(0, 10_000)
        ours = self.streams.open()
        ours.receiving.reset(0, 0)
        self.streams.reset(ours, 1)
        self.streams.onResetDelivered(ours, True)
        self.receive(1, 0, 5000)
        self.assertEqual({}, self.streams.states)

    def test_finalSizesAreHeldTo(self) -> None:
        self.receive(0, 0, 10, True)
        self.refused(QuicErrorCode.FINAL_SIZE_ERROR, self.receive, 0, 10, 1)
        self.refused(QuicErrorCode.FINAL_SIZE_ERROR, self.streams.onReset, 0, 0, 9)

    def test_tooManyGapsCloseTheConnection(self) -> None:
        streams = Streams(False, Limits(streamWindow=1 << 20))
        for number in range(MAX_GAPS):
            streams.onStream(STREAM, 0, 2 * number + 1, b"x", False)
        self.refused(QuicErrorCode.INTERNAL_ERROR, streams.onStream, STREAM, 0, 2 * MAX_GAPS + 1, b"x", False)


class CreditTests(StreamsCase):
    def test_whatMerelyArrivedGivesNoCredit(self) -> None:
        self.receive(0, 0, 1000)
        self.assertEqual((1000, {}, False), (self.streams.states[0].granted, self.streams.due, self.streams.maxDataDue))

    def test_whatWasConsumedGivesCreditInStepsOfHalfAWindow(self) -> None:
        self.receive(0, 0, 499)
        state = self.streams.states[0]
        self.consume(state)
        self.assertFalse(state.grantDue)
        self.receive(0, 499, 1)
        self.consume(state)
        self.assertTrue(state.grantDue)
        self.assertEqual(1500, self.streams.grantStreamData(state, 1.0, 0.0))
        self.receive(0, 500, 1000)
        self.refused(QuicErrorCode.FLOW_CONTROL_ERROR, self.receive, 0, 1500, 1)

    def test_theConnectionsCreditFollowsAllStreams(self) -> None:
        for streamId in (0, 4):
            self.receive(streamId, 0, 0)
        for streamId in (0, 4):
            self.receive(streamId, 0, 625)
            self.assertFalse(self.streams.maxDataDue)
            self.consume(self.streams.states[streamId])
        self.assertTrue(self.streams.maxDataDue)
        self.assertEqual(1250 + 2500, self.streams.grantData(1.0, 0.0))
        self.assertFalse(self.streams.maxDataDue)
        self.assertEqual(1250, self.streams.bytesDelivered)

    def test_noStreamCreditIsGivenWhenTheFinalSizeIsKnown(self) -> None:
        self.receive(0, 0, 900, True)
        self.consume(self.streams.states[0])
        self.assertEqual({}, self.streams.due)

    def test_aResetStreamsBytesAreCreditedToTheConnection(self) -> None:
        self.receive(0, 0, 100)
        self.streams.onReset(0, 5, 1000)
        state = self.streams.states[0]
        self.assertEqual(([], 1000, 5), (state.receiving.pieces, self.streams._consumed, state.receiving.resetCode))
        self.streams.onReset(0, 5, 1000)
        self.assertEqual(1000, self.streams._consumed)

    def test_aStoppedStreamsBytesAreCreditedToTheConnection(self) -> None:
        self.receive(0, 0, 100)
        self.receive(0, 200, 100)
        state = self.streams.states[0]
        self.streams.stop(state, 9)
        self.assertEqual((9, 300), (state.stopDue, self.streams._consumed))
        self.receive(0, 300, 700)
        self.assertEqual(1000, self.streams._consumed)
        self.assertFalse(state.grantDue)
        self.streams.stop(state, 10)
        self.assertEqual(9, state.stopDue)

    def test_aStoppedStreamIsOverWhenItsEndHasCome(self) -> None:
        self.receive(0, 0, 100)
        state = self.streams.states[0]
        self.streams.stop(state, 9)
        self.streams.reset(state, 9)
        self.streams.onResetDelivered(state, True)
        self.assertIn(0, self.streams.states)
        self.streams.onReset(0, 9, 500)
        self.assertEqual(({}, 500), (self.streams.states, self.streams._consumed))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("rcgGsx"), st.integers(1, 400)), max_size=60))
    def test_thePeerNeverHasMoreThanTheWindowsUnread(self, steps: list[tuple[int, str, int]]) -> None:
        """An honest peer sends up to its limits; what waits unread is bounded, and nothing honest is refused."""
        self.setUp()
        streams, sent, toldStream, toldAll = self.streams, dict[int, int](), dict[int, int](), LIMITS.sessionWindow
        ended = set[int]()
        for index, step, size in steps:
            number = index * 4
            state = streams.states.get(number)
            if step == "r" and number not in ended:
                before = sent.get(number, 0)
                size = min(size, toldStream.get(number, LIMITS.streamWindow) - before, toldAll - sum(sent.values()))
                sent[number] = before + size
                self.receive(number, before, size)
            elif state is not None and step == "c":
                self.consume(state)
            elif state is not None and step == "g":
                toldStream[number] = streams.grantStreamData(state, 1.0, 0.0)
            elif step == "G":
                toldAll = streams.grantData(1.0, 0.0)
            elif state is not None and step == "s":
                streams.stop(state, 1)
            elif state is not None and step == "x" and number not in ended:
                ended.add(number)
                streams.onReset(number, 1, sent.get(number, 0))
            unread = {each: sum(map(len, one.receiving.pieces)) for each, one in streams.states.items()}
            self.assertTrue(all(size <= LIMITS.streamWindow for size in unread.values()))
            self.assertTrue(sum(unread.values()) <= LIMITS.sessionWindow)
            self.assertEqual(sum(sent.values()), streams._received)
            self.assertEqual(streams._received - sum(unread.values()), streams._consumed)


class OpenTests(StreamsCase):
    def test_streamsAreOpenedUpToThePeersLimit(self) -> None:
        self.assertEqual([1, 5, 9], [self.streams.open().streamId for _ in range(3) if self.streams.canOpen])
        self.assertFalse(self.streams.canOpen)
        self.streams.peerMaxStreams = 4
        self.assertTrue(self.streams.canOpen)

    def end(self, number: int) -> None:
        """One of the peer's streams ends in both directions."""
        self.receive(number * 4, 0, 0, True)
        state = self.streams.states[number * 4]
        state.sending.finish()
        self.streams.queue(state)
        segment = self.streams.cut(self.streams.sendable.popleft(), 1000, 64)
        self.assertIn(number * 4, self.streams.states)
        assert segment is not None
        state.segmentAcknowledged(segment)
        self.assertNotIn(number * 4, self.streams.states)

    def test_theLimitIsGivenBackWhenBothDirectionsHaveEnded(self) -> None:
        for number in range(7):
            self.assertFalse(self.streams.maxStreamsDue)
            self.end(number)
        self.assertTrue(self.streams.maxStreamsDue)
        self.assertEqual(27, self.streams.grantStreams())
        self.receive(26 * 4, 0, 0)
        self.refused(QuicErrorCode.STREAM_LIMIT_ERROR, self.receive, 27 * 4, 0, 0)

    def test_besideStreamsThatStayTheLastPlacesAreGivenBackOneByOne(self) -> None:
        self.receive(19 * 4, 0, 0)
        for number in range(4):
            self.end(number)
            self.assertTrue(self.streams.maxStreamsDue)
            self.assertEqual(21 + number, self.streams.grantStreams())
            self.receive((20 + number) * 4, 0, 0)
            self.assertFalse(self.streams.maxStreamsDue)

    def test_whatEndedWhileThereWereManyPlacesIsGivenBackWhenTheyAreTaken(self) -> None:
        self.end(0)
        self.receive(16 * 4, 0, 0)
        self.assertFalse(self.streams.maxStreamsDue)
        self.receive(17 * 4, 0, 0)
        self.assertTrue(self.streams.maxStreamsDue, "one is over, and two are left")

    def test_tenThousandStreamsAreInNoQueueWhileIdle(self) -> None:
        streams = Streams(False, Limits())
        streams.onStream(STREAM, 9999 * 4, 0, b"", False)
        streams.touched.clear()
        self.assertEqual((10_000, 0, {}), (len(streams.states), len(streams.sendable), streams.due))
        streams.peerMaxStreams = 10_000
        while streams.canOpen:
            streams.open()
        self.assertEqual((20_000, 0), (len(streams.states), len(streams.sendable)))


class SendTests(StreamsCase):
    def write(self, state: StreamState, size: int) -> None:
        state.sending.write(bytes(size))
        self.streams.queue(state)

    def cut(self) -> int:
        """Serve the first in the queue; bytes."""
        segment = self.streams.cut(self.streams.sendable.popleft(), 100, 2)
        return 0 if segment is None else len(segment.data)

    def test_aStreamsLimitIsKeptAndRaised(self) -> None:
        state = self.streams.open()
        self.write(state, 1000)
        while self.streams.sendable:
            self.cut()
        self.assertEqual(600, state.sending.sent)
        self.streams.onMaxStreamData(1, 500)
        self.assertFalse(self.streams.sendable)
        self.streams.onMaxStreamData(1, 650)
        self.assertEqual(50, self.cut())

    def test_theConnectionsLimitIsKeptAndItsEndIsHeardByAllThatStarve(self) -> None:
        self.streams.peerMaxData = 300
        first, second, third = (self.streams.open() for _ in range(3))
        self.write(first, 1000)
        while self.streams.sendable:
            self.cut()
        self.assertEqual(300, self.streams.dataSent)
        self.write(second, 10)
        self.write(third, 10)
        self.assertFalse(self.streams.sendable)
        self.streams.onMaxData(300)
        self.assertFalse(self.streams.sendable)
        self.streams.onMaxData(315)
        sent = 0
        while self.streams.sendable:
            sent += self.cut()
        self.assertEqual((15, 315), (sent, self.streams.dataSent))

    def test_whatIsLostNeedsNoCreditAgain(self) -> None:
        state = self.streams.open()
        self.write(state, 200)
        segment = self.streams.cut(self.streams.sendable.popleft(), 200, 1)
        self.streams.peerMaxData = self.streams.dataSent
        assert segment is not None
        state.segmentLost(segment)
        self.assertEqual((200, 200), (self.cut(), self.streams.dataSent))

    def test_streamsAreServedInTurn(self) -> None:
        self.streams.peerWindowOfOurs = 10_000
        states = [self.streams.open() for _ in range(3)]
        for state in states:
            self.write(state, 5000)
        order = []
        for _ in range(6):
            order.append(self.streams.sendable[0])
            self.cut()
        self.assertEqual(states * 2, order)

    def test_aStreamWithLittleToSayGoesFirst(self) -> None:
        bulk, keystroke = self.streams.open(), self.streams.open()
        self.write(bulk, 5000)
        self.write(keystroke, 1)
        self.assertEqual([keystroke, bulk], list(self.streams.sendable))
        self.write(keystroke, 1)
        self.assertEqual(2, len(self.streams.sendable))

    def test_manyWithLittleToSayDoNotStopAnybody(self) -> None:
        """Each has something more to say whenever it has been served; all get as much, by bytes."""
        self.streams.peerMaxData = self.streams.peerWindowOfOurs = 10_000_000
        bulk, *short = (self.streams.open() for _ in range(6))
        self.write(bulk, 1_000_000)
        for _ in range(1000):
            for each in short:
                if not each.isQueued:
                    self.write(each, 400)
            self.streams.cut(self.streams.sendable.popleft(), 400, 50)
        sent = [each.sending.sent for each in (bulk, *short)]
        self.assertLessEqual(max(sent) - min(sent), 2 * QUANTUM)

    def test_stopSendingResetsOurPartWithThePeersCode(self) -> None:
        state = self.streams.open()
        self.write(state, 100)
        self.streams.onStopSending(1, 77)
        self.streams.onStopSending(1, 78)
        self.assertEqual((77, 77, True), (state.stopCode, state.sending.resetCode, state.sending.resetDue))
        self.assertIn(state, self.streams.due)

    def test_aLostResetIsDueAgain(self) -> None:
        state = self.streams.open()
        self.streams.reset(state, 5)
        state.sending.resetDue = False
        self.streams.due.clear()
        self.streams.onResetDelivered(state, False)
        self.assertTrue(state.sending.resetDue)
        self.assertIn(state, self.streams.due)


class MemoryTests(SynchronousTestCase):
    """What is held, and what happens when it is too much."""

    def test_whatIsHeldIsCountedUntilItIsSentAcknowledgedOrDelivered(self) -> None:
        streams = Streams(False, Limits())
        streams.peerMaxData = streams.peerWindowOfOurs = 1 << 20
        streams.peerMaxStreams = 1
        state = streams.open()
        state.sending.write(bytes(3000))
        streams.queue(state)
        self.assertEqual(3000, streams.buffered)
        streams.sendable.popleft()
        segment = streams.cut(state, 1000, 1)
        self.assertEqual(3000, streams.buffered)
        assert segment is not None
        state.segmentAcknowledged(segment)
        self.assertEqual(2000, streams.buffered)
        streams.onStream(0x0C, state.streamId, 0, bytes(500), False)
        self.assertEqual(2500, streams.buffered)
        streams.onConsumed(state, 500)
        self.assertEqual(2000, streams.buffered)
