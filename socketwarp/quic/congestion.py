"""
CUBIC congestion control (RFC 9438) that tells congestion from a path that loses a little anyway, with slow start (RFC
9002 §7.3.1), window validation (§7.8) and pacing (§7.7).

Pure arithmetic over bytes and seconds; knows no packets.
"""

import math

#: RFC 9438 §5: the cubic's scale, and the window after a loss as a share of the one before.
C = 0.4
BETA = 0.7

#: RFC 9002 §7.2: windows in datagrams, at the start and at the least, and bytes that cap the one at the start.
INITIAL_WINDOW = 10
MINIMUM_WINDOW = 2
INITIAL_WINDOW_BYTES = 14_720

#: A loss makes the window smaller only when something else says congestion: a queue (`recovery` knows the round-trip
#: times), or more than this share of what was sent getting lost, over at least `LOSS_SAMPLE` datagrams. The share is
#: three times the 1 % that radio links are built for. Measured over 50 ms and 1 % loss: see docs/performance.rst.
LOSS_TOLERANCE = 0.03
LOSS_SAMPLE = 256

#: Pacing (RFC 9002 §7.7) begins at this smoothed round-trip time, in seconds. Below it the reactor's timers, with a
#: millisecond's resolution, would hold packets back for longer than the path does.
PACING_RTT = 0.004

#: The pacing rate as a multiple of window / round-trip time, and in slow start, where the window doubles in each.
PACING_GAIN = 1.25
SLOW_START_GAIN = 2.0

#: A paced burst, in seconds at the pacing rate, and in datagrams at the least.
BURST_SECONDS = 0.002
BURST_DATAGRAMS = 10


class Cubic:
    """
    The congestion window of one path.

    :ivar window: bytes that may be in flight.
    :ivar inFlight: bytes that are.
    :ivar isLimiting: whether the window, not the application or flow control, kept the sender from sending more when it
        stopped last; only then does an acknowledgement make the window grow (RFC 9002 §7.8).
    """

    def __init__(self, datagramSize: int) -> None:
        self.inFlight = 0
        self.isLimiting = True
        self._sampled = 0.0
        self._sampledLost = 0.0
        self._freeSince = 0.0
        self.restart(datagramSize)

    def restart(self, datagramSize: int) -> None:
        """Begin again, on a new path (RFC 9000 §9.4)."""
        self.window = 0
        self.setDatagramSize(datagramSize)
        self.threshold = math.inf
        self._recoveryStart = -math.inf
        self._epochStart: float | None = None
        self._maximum = 0.0
        self._estimate = 0.0

    def setDatagramSize(self, datagramSize: int) -> None:
        """The path MTU is another; the window is at least what a new connection would begin with (§7.2)."""
        self.datagramSize = datagramSize
        initial = min(INITIAL_WINDOW * datagramSize, max(INITIAL_WINDOW_BYTES, MINIMUM_WINDOW * datagramSize))
        self.window = max(self.window, initial)

    @property
    def isInSlowStart(self) -> bool:
        """Whether the window grows with each byte acknowledged."""
        return self.window < self.threshold

    def onStopped(self, isLimiting: bool, now: float) -> None:
        """
        The sender has stopped, because of this window or not. While it isn't the limit, the cubic's time stands still
        (RFC 9438 §5.8), or the window would jump after each pause of the application.
        """
        if isLimiting == self.isLimiting:
            return
        self.isLimiting = isLimiting
        if not isLimiting:
            self._freeSince = now
        elif self._epochStart is not None:
            self._epochStart += now - self._freeSince

    def onAcknowledged(self, size: int, sentTime: float, now: float, rtt: float) -> None:
        """`size` bytes, the last of them sent at `sentTime`, have been acknowledged."""
        self.inFlight -= size
        self._sample(size, 0)
        if not self.isLimiting or sentTime <= self._recoveryStart:
            return
        if self.isInSlowStart:
            self.window += size
        else:
            self._grow(size, now, rtt)

    def _grow(self, size: int, now: float, rtt: float) -> None:
        """Congestion avoidance, RFC 9438 §4.2 to 4.5, with windows in datagrams as there."""
        window = self.window / self.datagramSize
        if self._epochStart is None:
            self._epochStart = now
            self._maximum = max(self._maximum, window)
            self._k = math.cbrt((self._maximum - window) / C)
            self._estimate = window
        target = C * (now - self._epochStart + rtt - self._k) ** 3 + self._maximum
        target = min(max(target, window), 1.5 * window)
        acknowledged = size / self.datagramSize
        alpha = 3 * (1 - BETA) / (1 + BETA) if self._estimate < self._maximum else 1.0
        self._estimate += alpha * acknowledged / window
        window += (target - window) * acknowledged / window
        self.window = int(max(window, self._estimate) * self.datagramSize)

    def _sample(self, size: int, lost: int) -> None:
        """Count bytes whose fate is known, the latest more than those long ago."""
        self._sampled += size
        self._sampledLost += lost
        if self._sampled > 2 * LOSS_SAMPLE * self.datagramSize:
            self._sampled /= 2
            self._sampledLost /= 2

    @property
    def _losesMuch(self) -> bool:
        expected = max(self._sampled, LOSS_SAMPLE * self.datagramSize)
        return self._sampledLost > LOSS_TOLERANCE * expected

    def onLost(self, size: int, sentTime: float, now: float, isQueueing: bool) -> None:
        """
        `size` bytes were lost, the last of them sent at `sentTime`: one reduction for each round trip (§7.3.2), if this
        is congestion. `isQueueing`: round-trip times say that a queue has built up.
        """
        self.inFlight -= size
        self._sample(size, size)
        if sentTime <= self._recoveryStart or not (isQueueing or self._losesMuch):
            return
        self._recoveryStart = now
        self._epochStart = None
        window = self.window / self.datagramSize
        # Fast convergence, RFC 9438 §4.7: leave room to flows that come later.
        self._maximum = window * (1 + BETA) / 2 if window < self._maximum else window
        self.window = max(int(self.window * BETA), MINIMUM_WINDOW * self.datagramSize)
        self.threshold = self.window

    def onPersistentCongestion(self) -> None:
        """Everything sent for longer than three probe time-outs was lost (RFC 9002 §7.6.2)."""
        self.window = MINIMUM_WINDOW * self.datagramSize
        self._recoveryStart = -math.inf
        self._epochStart = None

    def onExpired(self, size: int) -> None:
        """`size` bytes left the flight with nothing learnt of the path."""
        self.inFlight -= size


class Pacer:
    """Spreads a window over the round-trip time: a token bucket, in bytes."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._burst = 0.0
        self._tokens = 0.0
        self._time = 0.0

    def setRate(self, congestion: Cubic, rtt: float) -> None:
        """Follow the window and the smoothed round-trip time; below `PACING_RTT` don't pace."""
        if rtt < PACING_RTT:
            self._rate = 0.0
            return
        gain = SLOW_START_GAIN if congestion.isInSlowStart else PACING_GAIN
        self._rate = gain * congestion.window / rtt
        self._burst = max(BURST_DATAGRAMS * congestion.datagramSize, self._rate * BURST_SECONDS)

    def credit(self, now: float) -> float:
        """Bytes that may be sent at `now`."""
        if not self._rate:
            return math.inf
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._time))
        self._time = now
        return self._tokens

    def onSent(self, size: int) -> None:
        """`size` bytes were sent."""
        if self._rate:
            self._tokens -= size

    def nextTime(self, now: float) -> float:
        """When half a burst may be sent."""
        return now + max(0.001, (self._burst / 2 - self._tokens) / self._rate) if self._rate else now
