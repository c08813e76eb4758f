"""A stream's outgoing bytes: each in one place at a time, whatever is cut, lost, acknowledged or split, and when."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.flight import Flight, Segment, SendBuffer
from socketwarp.quic.streams import Streams
from socketwarp.quic.windows import Limits

SEED = bytes(range(251))


def content(start: int, size: int) -> bytes:
    """The stream's bytes from `start` on: no two places near each other look alike."""
    return (SEED * (size // 251 + 2))[start % 251 :][:size]


def cut(buffer: SendBuffer, size: int, count: int) -> Segment:
    """What there is to cut."""
    segment = buffer.cut(size, count, 1 << 20)
    assert segment is not None
    return segment


class SendBufferMachine(RuleBasedStateMachine):
    """Writer, network and peer of one stream; `flights` are on their way, `arrived` are the peer's bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer(500)
        self.flights: list[Flight] = []
        self.arrived = bytearray(100_000)
        self.acknowledged: set[int] = set()
        self.written = 0
        self.finSize: int | None = None
        self.wasReset = False
        self.nextNumber = 0

    # What a flight tells of its segment, as a stream's state would.

    def segmentAcknowledged(self, segment: Segment) -> None:
        self.buffer.onAcknowledged(segment)
        offset, data, fin = segment
        places = set(range(offset, offset + len(data)))
        assert not places & self.acknowledged, "acknowledged twice"
        self.acknowledged |= places
        assert bytes(data) == content(offset, len(data))
        if fin:
            self.finSize = offset + len(data)

    def segmentLost(self, segment: Segment) -> None:
        self.buffer.onLost(segment)

    @precondition(lambda self: self.written < 5000)
    @rule(size=st.integers(0, 300), kind=st.sampled_from([bytes, bytearray, memoryview]))
    def write(self, size: int, kind: type) -> None:
        was = self.buffer.isWritable
        self.buffer.write(kind(content(self.written, size)))
        if was:
            self.written += size

    @rule()
    def finish(self) -> None:
        self.buffer.finish()
        assert not self.buffer.isWritable

    @rule(more=st.integers(0, 400))
    def raiseLimit(self, more: int) -> None:
        self.buffer.limit += more

    @rule(size=st.integers(1, 120), count=st.integers(1, 8), credit=st.integers(0, 500))
    def cut(self, size: int, count: int, credit: int) -> None:
        had = self.buffer.hasWork(credit)
        before = self.buffer.sent
        segment = self.buffer.cut(size, count, credit)
        assert had == (segment is not None)
        assert self.buffer.sent - before <= credit
        if segment is not None:
            assert 1 <= segment.packets(size) <= count
            flight = Flight(self, self.nextNumber, segment, size, 0.0, 20)
            assert flight.size == len(segment.data) + 20 * segment.packets(size)
            self.flights.append(flight)
            self.nextNumber = flight.last + 1

    @precondition(lambda self: self.flights)
    @rule(chance=st.randoms(use_true_random=False))
    def split(self, chance: object) -> None:
        flight = chance.choice(self.flights)  # type: ignore[attr-defined]  # a random.Random
        if flight.last > flight.first:
            size, last = flight.size, flight.last
            rest = flight.split(chance.randint(flight.first, flight.last - 1))  # type: ignore[attr-defined]  # as above
            assert (flight.last + 1, last, size) == (rest.first, rest.last, flight.size + rest.size)
            for part in (flight, rest):
                assert part.size == len(part.segment.data) + 20 * (part.last - part.first + 1)
            self.flights.append(rest)

    @precondition(lambda self: self.flights)
    @rule(chance=st.randoms(use_true_random=False))
    def acknowledge(self, chance: object) -> None:
        self.flights.pop(chance.randrange(len(self.flights))).onAcknowledged()  # type: ignore[attr-defined]  # as above

    @precondition(lambda self: self.flights)
    @rule(chance=st.randoms(use_true_random=False))
    def lose(self, chance: object) -> None:
        self.flights.pop(chance.randrange(len(self.flights))).onLost()  # type: ignore[attr-defined]  # as above

    @precondition(lambda self: self.written > 2000)
    @rule()
    def reset(self) -> None:
        finished = self.buffer.isFinished
        assert self.buffer.reset(7) == (not finished and not self.wasReset)
        self.wasReset = self.wasReset or not finished

    @invariant()
    def everyByteIsInOnePlace(self) -> None:
        buffer = self.buffer
        if self.wasReset:
            assert (buffer.unsentBytes, buffer.unacknowledged) == (0, 0)
            assert not buffer.hasWork(10_000)
            assert not buffer.isFinished
            return
        inFlight = sum(len(flight.segment.data) for flight in self.flights)
        lost = sum(len(segment.data) for segment in buffer._lost or ())
        assert buffer.unacknowledged == inFlight + lost
        assert buffer.acknowledged == len(self.acknowledged)
        assert buffer.sent == buffer.acknowledged + buffer.unacknowledged
        assert self.written == buffer.sent + buffer.unsentBytes
        assert buffer.unsentBytes == sum(map(len, buffer._unsent))
        assert buffer.sent <= buffer.limit

    @invariant()
    def itIsFinishedWhenThePeerHasAllOfItAndTheFin(self) -> None:
        if not self.wasReset:
            everything = self.finSize is not None and len(self.acknowledged) == self.written
            assert self.buffer.isFinished == everything
            assert self.finSize in (None, self.written)

    def teardown(self) -> None:
        """Whatever has happened: a network that works from now on brings it to its end."""
        if self.wasReset:
            return
        self.buffer.finish()
        self.buffer.limit = 1 << 20
        for flight in self.flights:
            flight.onLost()
        self.flights.clear()
        while self.buffer.hasWork(100):
            self.cut(100, 64, 100)
            self.flights.pop().onAcknowledged()
        assert self.buffer.isFinished


class SendBufferTests(SynchronousTestCase):
    def test_everyByteIsInOnePlaceWhateverHappens(self) -> None:
        run_state_machine_as_test(
            SendBufferMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )

    def test_aSegmentInOnePieceIsAViewOfWhatWasWritten(self) -> None:
        """Nothing is copied on the way to the packet."""
        buffer = SendBuffer(1 << 20)
        data = bytes(10_000)
        buffer.write(data)
        segment = buffer.cut(1000, 8, 1 << 20)
        assert segment is not None and isinstance(segment.data, memoryview)
        self.assertEqual((8000, 8), (len(segment.data), segment.packets(1000)))
        self.assertIs(data, segment.data.obj)

    def test_manySmallWritesShareAPacket(self) -> None:
        buffer = SendBuffer(1 << 20)
        for each in b"hello":
            buffer.write(bytes((each,)))
        self.assertEqual(Segment(0, b"hello", False), buffer.cut(1000, 64, 1 << 20))

    def test_theFinGoesWithTheLastBytes(self) -> None:
        buffer = SendBuffer(1 << 20)
        buffer.write(b"end")
        buffer.finish()
        self.assertEqual(Segment(0, b"end", True), buffer.cut(1000, 64, 1 << 20))
        self.assertFalse(buffer.hasWork(1 << 20))

    def test_theFinGoesAloneWhenTheBytesHaveGone(self) -> None:
        """It needs no credit."""
        buffer = SendBuffer(3)
        buffer.write(b"end")
        buffer.cut(1000, 64, 3)
        buffer.finish()
        self.assertEqual(Segment(3, b"", True), buffer.cut(1000, 64, 0))

    def test_theFinWaitsForTheLastByteToGo(self) -> None:
        buffer = SendBuffer(2)
        buffer.write(b"end")
        buffer.finish()
        self.assertEqual(Segment(0, b"en", False), buffer.cut(1000, 64, 100))
        self.assertFalse(buffer.hasWork(100))
        buffer.limit = 3
        self.assertEqual(Segment(2, b"d", True), buffer.cut(1000, 64, 100))

    def test_whatWasLostIsCutSmallerWhenThePathHasShrunk(self) -> None:
        buffer = SendBuffer(1 << 20)
        buffer.write(content(0, 250))
        buffer.finish()
        buffer.onLost(cut(buffer, 250, 1))
        self.assertEqual(Segment(0, content(0, 200), False), buffer.cut(100, 2, 0))
        self.assertEqual(Segment(200, content(200, 50), True), buffer.cut(100, 2, 0))

    def test_whatIsLostGoesBeforeWhatIsNew(self) -> None:
        buffer = SendBuffer(1 << 20)
        buffer.write(b"oldnew")
        buffer.onLost(cut(buffer, 3, 1))
        self.assertEqual([b"old", b"new"], [bytes(cut(buffer, 3, 64).data) for _ in range(2)])

    def test_aResetDropsEverythingAndIsOverWhenThePeerKnows(self) -> None:
        buffer = SendBuffer(1 << 20)
        buffer.write(b"x" * 100)
        flight = cut(buffer, 50, 1)
        self.assertTrue(buffer.reset(9))
        self.assertFalse(buffer.reset(10))
        self.assertEqual(9, buffer.resetCode)
        buffer.onLost(flight)
        buffer.onAcknowledged(flight)
        buffer.finish()
        buffer.write(b"y")
        self.assertIsNone(buffer.cut(50, 64, 1 << 20))
        self.assertFalse(buffer.isFinished)
        buffer.resetAcknowledged = True
        self.assertTrue(buffer.isFinished)

    def test_whatIsFinishedIsNotReset(self) -> None:
        buffer = SendBuffer(10)
        buffer.finish()
        buffer.onAcknowledged(cut(buffer, 10, 1))
        self.assertFalse(buffer.reset(9))


class FlightTests(SynchronousTestCase):
    def test_itsLargestDatagramIsTheFirst(self) -> None:
        """The last may be short, and is alone when the others are split off."""
        streams = Streams(False, Limits())
        streams.peerMaxStreams = 1
        flight = Flight(streams.open(), 0, Segment(0, bytes(2500), False), 1000, 1.0, 40)
        self.assertEqual(1040, flight.largest)
        self.assertEqual(540, flight.split(1).largest)
