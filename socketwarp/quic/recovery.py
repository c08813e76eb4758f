"""
Loss detection and round-trip times (RFC 9002), over runs of packets instead of packets.

`Recovery` stands in for aioquic's own, so the names of the methods that aioquic calls, and of their arguments, are
its; the state of a packet number space stays in its `QuicPacketSpace`. Runs are kept in the order of their packet
numbers; an acknowledgement costs as much as there are runs below the largest number acknowledged, however many
packets they hold.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace

from .congestion import Cubic, Pacer
from .flight import Sent
from .pathmtu import BASE

#: RFC 9002 §6.1.1, §6.1.2 and §7.6.1.
PACKET_THRESHOLD = 3
TIME_THRESHOLD = 9 / 8
GRANULARITY = 0.001
PERSISTENT_CONGESTION_THRESHOLD = 3

#: A queue: the smoothed round-trip time exceeds the least by this share of it, and by these seconds. CoDel (RFC 8289)
#: begins to drop at 5 ms of queue.
QUEUE_SHARE = 0.125
QUEUE_SECONDS = 0.003

#: RFC 9002 §6.2.2: the first probe time-out's base, in seconds. Lower than the RFC's 333 ms (SHOULD), as aioquic's.
INITIAL_RTT = 0.1

#: ACK-only packets in a row, after which one has PING with it: nobody acknowledges them, and each is remembered until a
#: later packet is acknowledged (RFC 9000 §13.2.4).
MAX_ACK_ONLY = 100

#: Probes back off to this exponent: at most 2**6 probe time-outs apart, so that a path silent for 20 s is soon found.
MAX_PTO_EXPONENT = 6


class SinglePacket:
    """A packet of the ordinary path as a run of one, see `flight.Sent`."""

    __slots__ = ("first", "isAckEliciting", "isCrypto", "isInFlight", "largest", "last", "packet", "sentTime", "size")

    def __init__(self, packet: QuicSentPacket) -> None:
        self.packet = packet
        self.isAckEliciting = packet.is_ack_eliciting
        self.isInFlight = packet.in_flight
        self.isCrypto = packet.is_crypto_packet
        self.first = self.last = packet.packet_number
        self.sentTime = packet.sent_time or 0.0
        self.size = self.largest = packet.sent_bytes

    def split(self, packetNumber: int) -> Sent:
        raise ValueError("a single packet can't be split")

    def onAcknowledged(self) -> None:
        for handler, arguments in self.packet.delivery_handlers:
            handler(QuicDeliveryState.ACKED, *arguments)

    def onLost(self) -> None:
        for handler, arguments in self.packet.delivery_handlers:
            handler(QuicDeliveryState.LOST, *arguments)


class Recovery:
    """
    What was sent on a connection and has not been acknowledged.

    :ivar lostPackets: packets declared lost so far, for statistics.
    :ivar minimumRtt: the least round-trip time seen, seconds; infinite before the first sample.
    :ivar swallowed: round trips in a row in which nothing but datagrams above `BASE` got lost, and none of them arrived
        (RFC 8899 §4.3): smaller ones may get through all the time, so that no probe time-out tells of it.
    :ivar ackOnly: packets in a row, up to the latest, that ask for no acknowledgement.
    :ivar probes: packets that may be sent beyond the congestion window because a probe time-out fired (§6.2.4).
    """

    def __init__(self, datagramSize: int, sendProbe: Callable[[], None]) -> None:
        self.handshake_confirmed = False
        self.peer_completed_address_validation = False
        self.max_ack_delay = 0.025
        self.congestion = Cubic(datagramSize)
        self.pacer = Pacer()
        self.lostPackets = 0
        self.swallowed = 0
        self.probes = 0
        self.ackOnly = 0
        self.smoothedRtt: float | None = None
        self._sendProbe = sendProbe
        self._spaces: list[QuicPacketSpace] = []
        self._live: list[QuicPacketSpace] = []
        self._sent: dict[QuicPacketSpace, deque[Sent]] = {}
        self._rttVariance = 0.0
        self._rttLatest = 0.0
        self.minimumRtt = math.inf
        self._firstSampleTime = 0.0
        self._ptoCount = 0
        self._swallowedAt = -math.inf
        self._lastAckElicitingTime = 0.0
        self._pathSince = -math.inf
        self._nextNumber = 0

    @property
    def spaces(self) -> list[QuicPacketSpace]:
        """The packet number spaces: Initial, Handshake, application data."""
        return self._spaces

    @spaces.setter
    def spaces(self, spaces: list[QuicPacketSpace]) -> None:
        self._spaces = spaces
        self._live = list(spaces)
        self._sent = {space: deque() for space in spaces}

    @property
    def congestion_window(self) -> int:
        return self.congestion.window

    @property
    def bytes_in_flight(self) -> int:
        return self.congestion.inFlight

    def setDatagramSize(self, size: int) -> None:
        """The path MTU is another."""
        self.congestion.setDatagramSize(size)
        self.pacer.setRate(self.congestion, self.smoothedRtt or INITIAL_RTT)

    def restart(self, datagramSize: int, now: float) -> None:
        """The path is another one since `now`; what was sent before tells nothing of it (RFC 9000 §9.4)."""
        self.congestion.restart(datagramSize)
        self._pathSince = now
        self.swallowed = 0
        self.smoothedRtt = None
        self.forgetLeastRtt()
        self.pacer.setRate(self.congestion, INITIAL_RTT)

    def forgetLeastRtt(self) -> None:
        """The path may be longer now: the least round-trip time is the next sample's (RFC 9002 §5.2)."""
        self.minimumRtt = math.inf

    @property
    def timeouts(self) -> int:
        """Probe time-outs in a row."""
        return self._ptoCount

    def discard_space(self, space: QuicPacketSpace) -> None:
        """Forget a space whose keys are gone (RFC 9002 §6.4)."""
        for run in self._sent[space]:
            if run.isInFlight:
                self.congestion.onExpired(run.size)
        self._sent[space].clear()
        space.ack_at = space.loss_time = None
        space.ack_eliciting_in_flight = 0
        if space in self._live:
            self._live.remove(space)
        self._ptoCount = 0

    def get_probe_timeout(self, *, include_max_ack_delay: bool = True) -> float:
        """The probe time-out in seconds, without back-off (RFC 9002 §6.2.1)."""
        if self.smoothedRtt is None:
            return 2 * INITIAL_RTT
        timeout = self.smoothedRtt + max(4 * self._rttVariance, GRANULARITY)
        return timeout + self.max_ack_delay if include_max_ack_delay else timeout

    def get_loss_detection_time(self, *, amplification_limited: bool) -> float | None:
        """When the loss detection timer fires, if it is set (RFC 9002 §A.8)."""
        lossTime: float | None = None
        isInFlight = False
        for space in self._live:
            if space.loss_time is not None and (lossTime is None or space.loss_time < lossTime):
                lossTime = space.loss_time
            if self.handshake_confirmed or not space.is_application_data:
                isInFlight = isInFlight or space.ack_eliciting_in_flight > 0
        if lossTime is not None or amplification_limited:
            return lossTime
        if isInFlight or not self.peer_completed_address_validation:
            timeout = self.get_probe_timeout(include_max_ack_delay=self.handshake_confirmed)
            return self._lastAckElicitingTime + timeout * 2.0 ** min(self._ptoCount, MAX_PTO_EXPONENT)
        return None

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """A packet of the ordinary path was sent."""
        self.onSent(SinglePacket(packet), space)

    def onSent(self, run: Sent, space: QuicPacketSpace) -> None:
        """A run of packets was sent."""
        self._sent[space].append(run)
        self._nextNumber = run.last + 1
        self.ackOnly += 1
        if run.isAckEliciting:
            self.ackOnly = 0
            space.ack_eliciting_in_flight += run.last - run.first + 1
            if self.handshake_confirmed or not space.is_application_data:
                self._lastAckElicitingTime = run.sentTime
        if run.isInFlight:
            self.congestion.inFlight += run.size
            self.pacer.onSent(run.size)

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """
        An ACK frame came (RFC 9002 §A.7).

        :raises QuicConnectionError: PROTOCOL_VIOLATION, for packets that were never sent (RFC 9000 §13.1).
        """
        largest = ack_rangeset.bounds().stop - 1
        if largest >= self._nextNumber:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.ACK, "never sent")
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        acknowledged, below = self._match(self._sent[space], ack_rangeset, largest)
        self._sent[space].extendleft(reversed(below))
        if not acknowledged:
            return
        newest = acknowledged[-1]
        isAckEliciting = False
        size = 0
        for run in acknowledged:
            if run.isAckEliciting:
                isAckEliciting = True
                space.ack_eliciting_in_flight -= run.last - run.first + 1
            if run.sentTime < self._pathSince:
                self.congestion.onExpired(run.size if run.isInFlight else 0)
            else:
                if run.isInFlight:
                    size += run.size
                if run.largest > BASE:
                    self.swallowed = 0
            run.onAcknowledged()
        if newest.last == largest and isAckEliciting and newest.sentTime >= self._pathSince:
            self._sample(now - newest.sentTime, min(ack_delay, self.max_ack_delay), now)
        self.congestion.onAcknowledged(size, newest.sentTime, now, self.smoothedRtt or INITIAL_RTT)
        self._detectLoss(space, now)
        if self.peer_completed_address_validation:
            self._ptoCount = 0
        self.pacer.setRate(self.congestion, self.smoothedRtt or INITIAL_RTT)

    @staticmethod
    def _match(sent: deque[Sent], ranges: Iterable[range], largest: int) -> tuple[list[Sent], list[Sent]]:
        """Take the runs up to `largest` out of `sent`: those in `ranges`, and those that are not, cut where needed."""
        acknowledged: list[Sent] = []
        kept: list[Sent] = []
        ascending = iter(ranges)
        current = next(ascending, None)
        while sent and sent[0].first <= largest:
            run = sent[0]
            while current is not None and current.stop <= run.first:
                current = next(ascending, None)
            if current is None or current.start > run.last:
                kept.append(sent.popleft())
            elif current.start > run.first:
                sent[0] = run.split(current.start - 1)
                kept.append(run)
            elif current.stop <= run.last:
                sent[0] = run.split(current.stop - 1)
                acknowledged.append(run)
            else:
                acknowledged.append(sent.popleft())
        return acknowledged, kept

    def _sample(self, latest: float, ackDelay: float, now: float) -> None:
        """RFC 9002 §5: a round-trip time sample, in seconds."""
        self.minimumRtt = min(self.minimumRtt, latest)
        self._rttLatest = latest
        adjusted = latest - ackDelay if latest - ackDelay >= self.minimumRtt else latest
        if self.smoothedRtt is None:
            self._firstSampleTime = now
            self.smoothedRtt = latest
            self._rttVariance = latest / 2
        else:
            self._rttVariance = 3 / 4 * self._rttVariance + 1 / 4 * abs(self.smoothedRtt - adjusted)
            self.smoothedRtt = 7 / 8 * self.smoothedRtt + 1 / 8 * adjusted

    @property
    def _isQueueing(self) -> bool:
        """Whether the round-trip time is above the path's own by more than jitter explains."""
        if self.smoothedRtt is None:
            return False
        return self.smoothedRtt - self.minimumRtt > max(self.minimumRtt * QUEUE_SHARE, QUEUE_SECONDS)

    def _detectLoss(self, space: QuicPacketSpace, now: float) -> None:
        """RFC 9002 §6.1: what is three packets or 9/8 round trips behind an acknowledged one is lost."""
        rtt = max(self._rttLatest, self.smoothedRtt) if self.smoothedRtt is not None else INITIAL_RTT
        delay = max(TIME_THRESHOLD * rtt, GRANULARITY)
        largest = space.largest_acked_packet
        sent = self._sent[space]
        space.loss_time = None
        lost: list[Sent] = []
        kept: list[Sent] = []
        while sent and sent[0].first <= largest:
            run = sent[0]
            if run.last <= largest - PACKET_THRESHOLD or (run.last <= largest and run.sentTime + delay <= now):
                lost.append(sent.popleft())
            elif run.first <= largest - PACKET_THRESHOLD:
                sent[0] = run.split(largest - PACKET_THRESHOLD)
                lost.append(run)
            else:
                if space.loss_time is None:
                    space.loss_time = run.sentTime + delay
                kept.append(sent.popleft())
        sent.extendleft(reversed(kept))
        if lost:
            self._onLost(lost, space, now)

    def _onLost(self, lost: list[Sent], space: QuicPacketSpace, now: float) -> None:
        if lost[0].sentTime < self._pathSince:
            earlier = [run for run in lost if run.sentTime < self._pathSince]
            self.congestion.onExpired(self._drop(earlier, space))
            lost = lost[len(earlier) :]
        size = self._drop(lost, space)
        if size:
            self._countSwallowed(lost, now)
            self.congestion.onLost(size, lost[-1].sentTime, now, self._isQueueing)
            if self._isPersistentCongestion(lost):
                self.congestion.onPersistentCongestion()
                self.forgetLeastRtt()
            self.pacer.setRate(self.congestion, self.smoothedRtt or INITIAL_RTT)

    def _countSwallowed(self, lost: list[Sent], now: float) -> None:
        """Once for each round trip: what was sent before the last count was sent by the same size."""
        if lost[-1].sentTime > self._swallowedAt and all([run.largest > BASE for run in lost if run.isInFlight]):
            self.swallowed += 1
            self._swallowedAt = now

    def _drop(self, lost: Iterable[Sent], space: QuicPacketSpace) -> int:
        """Have the runs sent again; the bytes that were in flight."""
        size = 0
        for run in lost:
            count = run.last - run.first + 1
            self.lostPackets += count
            if run.isAckEliciting:
                space.ack_eliciting_in_flight -= count
            if run.isInFlight:
                size += run.size
            run.onLost()
        return size

    def _isPersistentCongestion(self, lost: list[Sent]) -> bool:
        """RFC 9002 §7.6.2, over consecutive packet numbers sent after the first sample."""
        duration = self.get_probe_timeout() * PERSISTENT_CONGESTION_THRESHOLD
        start: float | None = None
        previous: int | None = None
        for run in lost:
            if previous is not None and run.first != previous + 1:
                start = None
            previous = run.last
            if run.isAckEliciting and self.smoothedRtt is not None and run.sentTime > self._firstSampleTime:
                if start is None:
                    start = run.sentTime
                elif run.sentTime - start > duration:
                    return True
        return False

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """The loss detection timer fired (RFC 9002 §A.9)."""
        overdue = [space for space in self._spaces if space.loss_time is not None]
        if overdue:
            self._detectLoss(min(overdue, key=lambda space: space.loss_time or 0.0), now)
        else:
            self._ptoCount += 1
            self.reschedule_data(now=now)

    def reschedule_data(self, *, now: float, speed_up_handshake: bool = False) -> None:
        """
        Prepare probes (RFC 9002 §6.2.4): all handshake data in flight, or else the oldest packet that asks for an
        answer, is sent again without being counted as a loss of the path. With `speed_up_handshake` only handshake
        data (§6.2.3).
        """
        crypto = {space: [run for run in sent if run.isCrypto] for space, sent in self._sent.items()}
        if any(crypto.values()):
            for space, runs in crypto.items():
                for run in runs:
                    self._sent[space].remove(run)
                self.congestion.onExpired(self._drop(runs, space))
        elif not speed_up_handshake:
            self._probeOldest()
        self.probes = 2
        self._sendProbe()

    def rescheduleAll(self, space: QuicPacketSpace) -> None:
        """Have everything in flight sent again, in packets of another size: a black hole has swallowed them."""
        sent, self._sent[space] = self._sent[space], deque()
        self.congestion.onExpired(self._drop(sent, space))

    def _probeOldest(self) -> None:
        for space, sent in self._sent.items():
            if space.is_application_data and not self.handshake_confirmed:
                continue
            for index, run in enumerate(sent):
                if run.isAckEliciting:
                    if run.last > run.first:
                        sent.insert(index + 1, run.split(run.first))
                    del sent[index]
                    self.congestion.onExpired(self._drop([run], space))
                    return
