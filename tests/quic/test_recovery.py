"""Loss detection over runs of packets, against a model of single packets, and RFC 9002's rules one by one."""

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.flight import Flight, Segment
from socketwarp.quic.recovery import (
    GRANULARITY,
    INITIAL_RTT,
    MAX_PTO_EXPONENT,
    PACKET_THRESHOLD,
    TIME_THRESHOLD,
    Recovery,
    SinglePacket,
)

SIZE = 1200
#: Bytes of its stream in each packet.
DATA = 1160


def ranges(*numbers: int) -> RangeSet:
    """An ACK frame of these packet numbers."""
    found = RangeSet()
    for number in numbers:
        found.add(number)
    return found


class World:
    """A recovery with its three spaces; a packet's bytes in its stream begin at its number times `DATA`."""

    def __init__(self, isConfirmed: bool = True) -> None:
        self.probes = 0
        self.recovery = Recovery(SIZE, self.sendProbe)
        self.spaces = [QuicPacketSpace(), QuicPacketSpace(), QuicPacketSpace(is_application_data=True)]
        self.recovery.spaces = self.spaces
        self.recovery.handshake_confirmed = self.recovery.peer_completed_address_validation = isConfirmed
        self.space = self.spaces[2]
        self.acknowledged: list[int] = []
        self.lost: list[int] = []
        self.next = 0

    def sendProbe(self) -> None:
        self.probes += 1

    def segmentAcknowledged(self, segment: Segment) -> None:
        self.acknowledged += self.numbersOf(segment)

    def segmentLost(self, segment: Segment) -> None:
        self.lost += self.numbersOf(segment)

    @staticmethod
    def numbersOf(segment: Segment) -> range:
        return range(segment.offset // DATA, (segment.offset + len(segment.data)) // DATA)

    def fly(self, count: int, now: float) -> None:
        segment = Segment(self.next * DATA, bytes(count * DATA), False)
        self.recovery.onSent(Flight(self, self.next, segment, DATA, now, SIZE - DATA), self.space)
        self.next += count

    def large(self, now: float, count: int) -> None:
        """The same in datagrams of twice the size, which have as much more beside the data."""
        segment = Segment(self.next * DATA, bytes(count * DATA), False)
        self.recovery.onSent(Flight(self, self.next, segment, DATA, now, 2 * SIZE - DATA), self.space)
        self.next += count

    def packet(
        self, now: float, space: int = 2, isCrypto: bool = False, isAckEliciting: bool = True
    ) -> list[QuicDeliveryState]:
        """Send one packet of the ordinary path; what is heard of it."""
        heard: list[QuicDeliveryState] = []
        packet = QuicSentPacket(
            epoch=Epoch.ONE_RTT,
            in_flight=isAckEliciting,
            is_ack_eliciting=isAckEliciting,
            is_crypto_packet=isCrypto,
            packet_number=self.next,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            sent_bytes=SIZE if isAckEliciting else 0,
        )
        packet.delivery_handlers.append((lambda state, note: heard.append(state), ("a note",)))
        self.recovery.on_packet_sent(packet=packet, space=self.spaces[space])
        self.next += 1
        return heard

    def ack(self, now: float, *numbers: int, delay: float = 0.0, space: int = 2) -> None:
        self.recovery.on_ack_received(ack_rangeset=ranges(*numbers), ack_delay=delay, now=now, space=self.spaces[space])


class ModelTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("fly"), st.integers(1, 12)),
                st.tuples(st.just("packet"), st.just(0)),
                st.tuples(st.just("ack"), st.sets(st.integers(1, 30), min_size=1)),
                st.tuples(st.just("wait"), st.integers(1, 60)),
            ),
            max_size=40,
        )
    )
    def test_runsBehaveAsTheirPacketsWould(self, steps: list[tuple[str, int | set[int]]]) -> None:
        """Each packet acknowledged or lost once, by the same rules as if each were kept alone."""
        world, now = World(), 1.0
        sent: dict[int, float] = {}
        heard: dict[int, list[QuicDeliveryState]] = {}
        acknowledged, lost = set[int](), set[int]()
        for kind, what in steps:
            if kind == "fly":
                assert isinstance(what, int)
                sent.update(dict.fromkeys(range(world.next, world.next + what), now))
                world.fly(what, now)
            elif kind == "packet":
                number = world.next
                sent[number] = now
                heard[number] = world.packet(now)
            elif kind == "wait":
                assert isinstance(what, int)
                now += what / 1000
            else:
                assert isinstance(what, set)
                numbers = {world.next - each for each in what if each <= world.next}
                if not numbers:
                    continue
                now += 0.01
                world.ack(now, *numbers)
                new = {number for number in numbers if number in sent}
                acknowledged |= new
                for number in new:
                    del sent[number]
                if new:
                    recovery, largest = world.recovery, world.space.largest_acked_packet
                    delay = max(
                        TIME_THRESHOLD * max(recovery._rttLatest, recovery.smoothedRtt or INITIAL_RTT), GRANULARITY
                    )
                    gone = {
                        number
                        for number, when in sent.items()
                        if number <= largest - PACKET_THRESHOLD or (number <= largest and when + delay <= now)
                    }
                    lost |= gone
                    for number in gone:
                        del sent[number]
            self.compare(world, sent, heard, acknowledged, lost)

    def compare(
        self,
        world: World,
        sent: dict[int, float],
        heard: dict[int, list[QuicDeliveryState]],
        acknowledged: set[int],
        lost: set[int],
    ) -> None:
        theirs = [each for each in world.acknowledged] + [n for n, h in heard.items() if h == [QuicDeliveryState.ACKED]]
        self.assertEqual(sorted(acknowledged), sorted(theirs))
        theirs = [each for each in world.lost] + [n for n, h in heard.items() if h == [QuicDeliveryState.LOST]]
        self.assertEqual(sorted(lost), sorted(theirs))
        kept = [n for run in world.recovery._sent[world.space] for n in range(run.first, run.last + 1)]
        self.assertEqual(sorted(sent), kept)
        self.assertEqual(len(sent), world.space.ack_eliciting_in_flight)
        self.assertEqual(len(sent) * SIZE, world.recovery.bytes_in_flight)
        self.assertEqual(len(lost), world.recovery.lostPackets)


class LossTests(SynchronousTestCase):
    def test_threePacketsBehindIsLost(self) -> None:
        """RFC 9002 §6.1.1."""
        world = World()
        world.fly(10, 1.0)
        world.ack(1.1, 2)
        self.assertEqual([], world.lost)
        world.ack(1.1, 5)
        self.assertEqual([0, 1], world.lost)
        self.assertEqual(2, world.recovery.lostPackets)

    def test_aReorderedPacketIsLostOnlyWhenItsTimeIsUp(self) -> None:
        """RFC 9002 §6.1.2: 9/8 of the round-trip time."""
        world = World()
        world.fly(2, 1.0)
        world.ack(1.08, 1)
        self.assertEqual([], world.lost)
        self.assertApproximates(1.09, world.space.loss_time, 1e-9)
        self.assertEqual(world.space.loss_time, world.recovery.get_loss_detection_time(amplification_limited=True))
        world.recovery.on_loss_detection_timeout(now=1.09)
        self.assertEqual([0], world.lost)
        self.assertIsNone(world.space.loss_time)

    def test_aReductionNeedsBytesInFlight(self) -> None:
        """Lost ACKs say nothing of the path's room."""
        world = World()
        world.packet(1.0, isAckEliciting=False)
        world.fly(5, 1.0)
        window = world.recovery.congestion_window
        world.ack(1.1, 1, 2, 3, 4)
        self.assertGreater(world.recovery.congestion_window, window)
        self.assertEqual(1, world.recovery.lostPackets)

    def test_anAckOfWhatIsNotInFlightChangesNothing(self) -> None:
        world = World()
        world.fly(3, 1.0)
        world.ack(1.1, 2)
        rtt = world.recovery.smoothedRtt
        world.ack(9.0, 2)
        self.assertEqual(rtt, world.recovery.smoothedRtt)

    def test_anAckOfWhatWasNeverSentIsAViolation(self) -> None:
        """RFC 9000 §13.1; it would make a loss of everything that is sent from then on."""
        world = World()
        world.fly(3, 1.0)
        world.packet(1.0)
        world.ack(1.1, 3)
        error = self.assertRaises(QuicConnectionError, world.ack, 1.1, 4)
        self.assertEqual(QuicErrorCode.PROTOCOL_VIOLATION, error.error_code)

    def test_roundTripsThatOnlyLargeDatagramsDoNotOutlastAreCounted(self) -> None:
        """RFC 8899 §4.3; each of them once, however many losses it brings."""
        world = World()
        for number in range(1, 4):
            world.large(float(number), 8)
            world.fly(2, number + 0.01)
            world.ack(number + 0.1, world.next - 2)
            world.ack(number + 0.1, world.next - 1)
            self.assertEqual(number, world.recovery.swallowed)
        self.assertEqual(23, len(world.lost))
        world.large(5.0, 2)
        world.ack(5.1, world.next - 1)
        self.assertEqual(0, world.recovery.swallowed)

    def test_whereSmallDatagramsGetLostAsWellIsNoBlackHole(self) -> None:
        world = World()
        world.large(1.0, 4)
        world.fly(5, 1.0)
        world.ack(1.1, world.next - 1)
        self.assertEqual((6, 0), (len(world.lost), world.recovery.swallowed))

    def test_singlePacketsCantBeSplit(self) -> None:
        world = World()
        world.packet(1.0)
        (run,) = world.recovery._sent[world.space]
        assert isinstance(run, SinglePacket)
        self.assertRaises(ValueError, run.split, 0)


class RoundTripTests(SynchronousTestCase):
    """RFC 9002 §5."""

    def test_theFirstSampleCounts(self) -> None:
        world = World()
        world.fly(1, 1.0)
        world.ack(1.08, 0)
        self.assertApproximates(0.08, world.recovery.smoothedRtt, 1e-9)
        self.assertApproximates(0.08 + 4 * 0.04 + 0.025, world.recovery.get_probe_timeout(), 1e-9)
        self.assertApproximates(0.24, world.recovery.get_probe_timeout(include_max_ack_delay=False), 1e-9)

    def test_laterSamplesAreSmoothedAndLessThePeersDelay(self) -> None:
        world = World()
        world.fly(1, 1.0)
        world.ack(1.08, 0)
        world.fly(1, 2.0)
        world.ack(2.18, 1, delay=0.02)
        self.assertApproximates(7 / 8 * 0.08 + 0.16 / 8, world.recovery.smoothedRtt, 1e-9)

    def test_thePeersDelayIsCappedAndNeverGoesBelowTheMinimum(self) -> None:
        world = World()
        world.fly(1, 1.0)
        world.ack(1.08, 0)
        world.fly(1, 2.0)
        world.ack(2.09, 1, delay=5.0)  # 0.09 - 0.025 < 0.08
        self.assertApproximates(7 / 8 * 0.08 + 0.09 / 8, world.recovery.smoothedRtt, 1e-9)

    def test_onlyAnAckOfTheLargestMakesASample(self) -> None:
        world = World()
        world.packet(1.0)
        world.packet(1.0, isAckEliciting=False)
        world.ack(1.5, 1)
        self.assertIsNone(world.recovery.smoothedRtt)

    def test_thePeersDelayIsNoReasonToCallAPacketLostSooner(self) -> None:
        """§6.1.2 goes by the latest round trip as it was, §A.7."""
        world = World()
        world.fly(1, 1.0)
        world.ack(1.01, 0)
        world.fly(2, 2.0)
        world.ack(2.035, 2, delay=0.025)  # 1 is one behind, and overtaken
        self.assertEqual([], world.lost)
        self.assertApproximates(2.0 + TIME_THRESHOLD * 0.035, world.space.loss_time, 1e-9)

    def test_withoutASampleTheProbeTimeoutIsTwiceTheInitial(self) -> None:
        self.assertEqual(2 * INITIAL_RTT, World().recovery.get_probe_timeout())


class PathTests(SynchronousTestCase):
    """RFC 9000 §9.4: what was sent on another path leaves the flight, and tells nothing of this one."""

    def setUp(self) -> None:
        self.world = World()
        self.world.fly(1, 1.0)
        self.world.ack(1.01, 0)
        self.world.recovery.swallowed = 2
        self.world.large(2.0, 20)
        self.world.recovery.restart(SIZE, 2.1)
        self.window = self.world.recovery.congestion_window

    def test_anAcknowledgementOfItIsNoSampleAndLeavesTheWindow(self) -> None:
        self.world.ack(2.2, *range(1, 21))
        recovery = self.world.recovery
        self.assertEqual((list(range(21)), 0), (self.world.acknowledged, recovery.bytes_in_flight))
        self.assertEqual((self.window, None), (recovery.congestion_window, recovery.smoothedRtt))

    def test_itsLossIsNoCongestionAndNoBlackHole(self) -> None:
        self.world.fly(8, 2.1)
        recovery = self.world.recovery
        recovery.congestion._sampledLost = 1e9  # a loss would be congestion
        self.world.ack(2.2, 21)
        self.assertEqual(list(range(1, 21)), self.world.lost)
        self.assertEqual((0, 7 * SIZE), (recovery.swallowed, recovery.bytes_in_flight))
        self.assertEqual(self.window + SIZE, recovery.congestion_window)

    def test_whatIsLostTogetherWithItAndWasSentOnThisPathCounts(self) -> None:
        self.world.fly(8, 2.1)
        self.world.recovery.congestion._sampledLost = 1e9
        self.world.ack(2.2, 25)
        self.assertEqual(list(range(1, 23)), self.world.lost)
        self.assertLess(self.world.recovery.congestion_window, self.window)

    def test_thePathsOwnPacketsCountFromItsFirstMomentOn(self) -> None:
        self.world.fly(4, 2.1)
        self.world.ack(2.2, *range(1, 25))
        self.assertEqual(self.window + 4 * SIZE, self.world.recovery.congestion_window)
        self.assertApproximates(0.1, self.world.recovery.smoothedRtt, 1e-9)


class AckOnlyTests(SynchronousTestCase):
    def test_packetsInARowThatAskForNothingAreCounted(self) -> None:
        world = World()
        for _ in range(3):
            world.packet(1.0, isAckEliciting=False)
        self.assertEqual(3, world.recovery.ackOnly)
        world.fly(2, 1.0)
        self.assertEqual(0, world.recovery.ackOnly)


class ProbeTests(SynchronousTestCase):
    """RFC 9002 §6.2."""

    def timer(self, world: World) -> float | None:
        return world.recovery.get_loss_detection_time(amplification_limited=False)

    def test_theTimerRunsFromTheLastPacketAndBacksOff(self) -> None:
        world = World()
        self.assertIsNone(self.timer(world))
        world.fly(1, 1.0)
        timeout = world.recovery.get_probe_timeout()
        self.assertApproximates(1.0 + timeout, self.timer(world), 1e-9)
        for count in range(1, 10):
            world.recovery.on_loss_detection_timeout(now=2.0)
            self.assertEqual(count, world.probes)
            world.fly(1, 2.0)
            backOff = 2 ** min(count, MAX_PTO_EXPONENT)
            self.assertApproximates(2.0 + timeout * backOff, self.timer(world), 1e-9)
        world.ack(2.5, world.next - 1)
        self.assertEqual(0, world.recovery._ptoCount)

    def test_aProbeMaySendBeyondTheWindowAndIsNoLossOfThePath(self) -> None:
        world = World()
        world.fly(30, 1.0)
        window = world.recovery.congestion_window
        world.recovery.on_loss_detection_timeout(now=2.0)
        self.assertEqual([0], world.lost)
        self.assertEqual((window, 2), (world.recovery.congestion_window, world.recovery.probes))
        self.assertEqual(29 * SIZE, world.recovery.bytes_in_flight)

    def test_theOldestThatAsksForAnAnswerIsSentAgain(self) -> None:
        world = World()
        world.packet(1.0, isAckEliciting=False)
        heard = world.packet(1.0)
        world.fly(3, 1.0)
        world.recovery.on_loss_detection_timeout(now=2.0)
        self.assertEqual(([QuicDeliveryState.LOST], []), (heard, world.lost))
        world.recovery.on_loss_detection_timeout(now=3.0)
        self.assertEqual([2], world.lost)

    def test_handshakeDataGoesFirst(self) -> None:
        world = World(isConfirmed=False)
        crypto = [world.packet(1.0, space, isCrypto=True) for space in (0, 1)]
        world.fly(1, 1.0)
        world.recovery.on_loss_detection_timeout(now=2.0)
        self.assertEqual([[QuicDeliveryState.LOST]] * 2, crypto)
        self.assertEqual(([], SIZE), (world.lost, world.recovery.bytes_in_flight))

    def test_dataIsNotProbedBeforeTheHandshakeIsConfirmed(self) -> None:
        """RFC 9002 §6.2.1: and its packets don't set the timer."""
        world = World(isConfirmed=False)
        world.recovery.peer_completed_address_validation = True
        world.fly(1, 1.0)
        self.assertIsNone(self.timer(world))
        world.recovery.on_loss_detection_timeout(now=2.0)
        self.assertEqual([], world.lost)
        self.assertEqual(1, world.probes)

    def test_whenOnlyHandshakeDataIsWantedNothingElseIsProbed(self) -> None:
        """RFC 9002 §6.2.3."""
        world = World()
        world.fly(1, 1.0)
        world.recovery.reschedule_data(now=2.0, speed_up_handshake=True)
        self.assertEqual(([], 1), (world.lost, world.probes))

    def test_aClientProbesUntilTheServerCanAnswer(self) -> None:
        """RFC 9002 §6.2.2.1: nothing in flight, and the server may be held back by the amplification limit."""
        world = World(isConfirmed=False)
        self.assertEqual(0.2, self.timer(world))
        self.assertIsNone(world.recovery.get_loss_detection_time(amplification_limited=True))

    def test_theBackOffStaysUntilTheServerHasValidatedTheClient(self) -> None:
        world = World(isConfirmed=False)
        world.packet(1.0, 0)
        world.recovery.on_loss_detection_timeout(now=2.0)
        world.packet(2.0, 0)
        world.ack(2.1, 1, space=0)
        self.assertEqual(1, world.recovery._ptoCount)

    def test_aDiscardedSpaceLeavesTheFlight(self) -> None:
        world = World()
        world.packet(1.0, 0)
        world.packet(1.0, 0, isAckEliciting=False)
        world.fly(2, 1.0)
        world.recovery._ptoCount = 3
        world.recovery.discard_space(world.spaces[0])
        self.assertEqual(2 * SIZE, world.recovery.bytes_in_flight)
        self.assertEqual(
            (0, 0, None), (world.recovery._ptoCount, world.spaces[0].ack_eliciting_in_flight, world.spaces[0].ack_at)
        )


class PersistentCongestionTests(SynchronousTestCase):
    """RFC 9002 §7.6."""

    def setUp(self) -> None:
        self.world = World()
        self.world.fly(1, 1.0)
        self.world.ack(1.1, 0)
        self.duration = 3 * self.world.recovery.get_probe_timeout()

    def loseSpan(self, span: float) -> int:
        """Two packets sent so far apart are lost; the window then."""
        self.world.recovery.congestion.window = 100 * SIZE
        self.world.fly(1, 2.0)
        self.world.fly(1, 2.0 + span)
        self.world.fly(4, 2.1 + span)
        self.world.ack(2.2 + span, 6)
        return self.world.recovery.congestion_window

    def test_losingAllForThreeProbeTimeoutsLeavesTheMinimum(self) -> None:
        self.assertEqual(2 * SIZE, self.loseSpan(2 * self.duration))

    def test_theLeastRoundTripIsMeasuredAnewThen(self) -> None:
        """RFC 9002 §5.2: the path may have changed, and be longer."""
        self.loseSpan(2 * self.duration)
        self.world.fly(1, 50.0)
        self.world.ack(50.7, self.world.next - 1)
        self.assertAlmostEqual(0.7, self.world.recovery.minimumRtt)

    def test_losingLessIsAnOrdinaryLossWhichWithoutAQueueIsTolerated(self) -> None:
        self.assertEqual(101 * SIZE, self.loseSpan(self.duration / 2))

    def test_anAcknowledgedPacketBetweenThemBreaksTheSpan(self) -> None:
        world = self.world
        world.recovery.congestion.window = 100 * SIZE
        world.fly(3, 2.0)
        world.ack(2.05, 2, 3)
        world.fly(5, 2.0 + 2 * self.duration)
        world.recovery.congestion.window = 100 * SIZE
        world.ack(2.1 + 2 * self.duration, 7)
        self.assertEqual([1, 4], world.lost)
        self.assertEqual(int(70.7 * SIZE), world.recovery.congestion_window)

    def test_withoutASampleThereIsNone(self) -> None:
        world = World()
        world.recovery.congestion.window = 100 * SIZE
        world.packet(1.0)
        world.packet(9.0)
        for _ in range(3):
            world.packet(9.0, isAckEliciting=False)
        world.ack(9.1, 4)
        self.assertEqual(100 * SIZE, world.recovery.congestion_window)
