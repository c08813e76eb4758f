"""Whose turn it is, and what the others cost: on whole connections, by bytes, by virtual time and by calls made."""

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from aioquic.quic.connection import QuicConnection
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic import engine as engines
from socketwarp.quic.engine import Engine
from socketwarp.quic.protection import MOST_AHEAD, NUMBER_SIZE
from socketwarp.quic.receive import ACK_BYTES, ACK_DELAY, FEW_BYTES_DELAY
from socketwarp.quic.streams import StreamState
from socketwarp.quic.transmission import BYTES_PER_CALL, Transmission
from socketwarp.quic.transmit import FLIGHTS_PER_TURN
from socketwarp.quic.windows import SESSION_START, STREAM_START, Limits

from ..pump import CLIENT, Path, Pump, give, pair
from .apps import App, apps, sealed, varint
from .net import NetworkCase, Notes

#: Nothing but the congestion window limits the sender.
WIDE = Limits(streamWindow=1 << 27, sessionWindow=1 << 28)


def datagrams(transmissions: Iterable[Transmission]) -> Iterator[bytes]:
    """One by one."""
    for pieces, size, _ in transmissions:
        data = b"".join(pieces)
        yield from (data[start : start + size] for start in range(0, len(data), size))


class TurnTests(SynchronousTestCase):
    """A bulk transfer with all the window that it can use."""

    def setUp(self) -> None:
        self.pump: Pump = pair("both", WIDE)
        self.pump.run(1)
        assert isinstance(self.pump.client, Engine)
        self.engine: Engine = self.pump.client
        client, self.server = apps(self.pump)
        self.client: App = client
        self.bulk, self.keystrokes = client.open(), client.open()
        self.client.write(self.keystrokes, b"first")
        self.pump.run(1)
        self.engine.recovery.congestion.window = 1 << 28
        self.client.write(self.bulk, bytes(1 << 24))

    def test_whatOneCallSendsIsBounded(self) -> None:
        """Other connections, and what is written meanwhile, wait no longer than that takes."""
        size = sum(len(each) for each in datagrams(self.engine.transmit(self.pump.now)))
        self.assertTrue(FLIGHTS_PER_TURN * BYTES_PER_CALL // 2 < size <= FLIGHTS_PER_TURN * BYTES_PER_CALL, size)
        self.assertLessEqual(size, 1 << 19)

    def test_aKeystrokeIsInTheNextDatagram(self) -> None:
        """Whatever of the bulk transfer waits already."""
        list(self.engine.transmit(self.pump.now))
        self.client.write(self.keystrokes, b"k")
        first, *_ = datagrams(self.engine.transmit(self.pump.now))
        give(self.pump.server, [first], CLIENT, self.pump.now)
        self.server.read()
        self.assertEqual((b"firstk", b""), (self.server.received[self.keystrokes], self.server.received[self.bulk]))


class ValidationTests(SynchronousTestCase):
    """RFC 9002 §7.8: a window that isn't used says nothing about the path."""

    def window(self, size: int, pause: float, first: int = 0) -> int:
        """Of a client that writes so many bytes, pauses for so many seconds, and again, 10 s long; `first` before."""
        pump = pair("both", WIDE, path=Path(delay=0.01, mtu=1500))
        client, server = apps(pump)
        pump.run(1)
        number = client.open()
        client.write(number, bytes(first))
        pump.run(1)
        written = first
        for _ in range(round(10 / pause)):
            client.write(number, bytes(size))
            written += size
            pump.run(pause)
        pump.run(1)
        self.assertEqual(written, len(server.received[number]))
        assert isinstance(pump.client, Engine)
        return pump.client.recovery.congestion_window

    def test_theWindowStaysWhileTheApplicationIsTheLimit(self) -> None:
        self.assertLess(self.window(2000, 0.05), 20_000)

    def test_itGrowsWhileItIsTheLimit(self) -> None:
        self.assertGreater(self.window(200_000, 0.05), 100_000)
        self.assertGreater(self.window(200_000, 0.05, 1), 100_000)


class PacingTests(SynchronousTestCase):
    """RFC 9002 §7.7, on a path of 50 ms with a window of 1 MB: 20 MB/s."""

    WINDOW, RTT = 1_000_000, 0.05

    def setUp(self) -> None:
        pump = pair("both", WIDE, path=Path(delay=self.RTT / 2, mtu=1500))
        pump.run(1)
        assert isinstance(pump.client, Engine)
        congestion = pump.client.recovery.congestion
        congestion.window = congestion.threshold = self.WINDOW
        client, self.server = apps(pump)
        self.pump, self.number, self.client = pump, client.open(), client
        self.bursts: dict[float, int] = {}
        pump.tap = self.sent
        client.write(self.number, bytes(1 << 26))

    def sent(self, sender: QuicConnection, datagram: bytes) -> None:
        if sender is self.pump.client:
            self.bursts[self.pump.now] = self.bursts.get(self.pump.now, 0) + len(datagram)

    def test_aWindowIsSpreadOverTheRoundTripAndUsedUp(self) -> None:
        """No tenth of it leaves at once, and what a pause holds back leaves when that is over."""
        self.pump.run(1)
        self.assertLess(max(self.bursts.values()), self.WINDOW / 10)
        self.assertGreater(len(self.server.received[self.number]), 0.8 * self.WINDOW / self.RTT)


class AcknowledgementTests(SynchronousTestCase):
    """RFC 9000 §13.2: when the receiver answers."""

    def delay(self, sizes: list[int], skipped: int = 0) -> float | None:
        """Seconds until the acknowledgement is due of packets of so many bytes, before which others got lost."""
        pump = pair("server", WIDE)
        client, server = pump.client, pump.server
        assert isinstance(server, Engine)
        client._packet_number += skipped
        offset, packets = 0, []
        for size in sizes:
            packets.append(sealed(client, b"\x0c" + varint(0, offset) + bytes(size)))
            offset += size
        server.oneRtt.ack_at = None
        give(server, packets, CLIENT, pump.now)
        return None if server.oneRtt.ack_at is None else server.oneRtt.ack_at - pump.now

    def test_itWaitsLongerForLittle(self) -> None:
        self.assertAlmostEqual(FEW_BYTES_DELAY, self.delay([1]) or 0.0)
        self.assertAlmostEqual(ACK_DELAY, self.delay([1000] * 10) or 0.0)

    def test_itLeavesAtOnceAfterMuchAndWhenSomethingIsMissing(self) -> None:
        self.assertEqual(0.0, self.delay([1000] * (ACK_BYTES // 1000)))
        self.assertEqual(0.0, self.delay([1], skipped=1))


class NumberTests(SynchronousTestCase):
    def test_flightsGoNoFurtherThanTheirNumbersCanBeTold(self) -> None:
        """RFC 9000 §17.1: twice as far as the largest one acknowledged; probes do, and so an outage ends."""
        self.patch(engines, "MOST_AHEAD", 300)
        pump = pair("both", WIDE, path=Path(mtu=1200))
        client, server = apps(pump)
        engine = pump.client
        assert isinstance(engine, Engine)
        pump.run(1)
        engine.recovery.congestion.window = 10_000_000
        pump.path.loss = 1.0
        number = client.open()
        client.write(number, bytes(2_000_000))
        pump.run(0.001)
        ahead = engine._packet_number - engine.oneRtt.largest_acked_packet
        self.assertEqual(300, ahead)
        self.assertFalse(engine.recovery.congestion.isLimiting)
        pump.run(1)
        self.assertTrue(300 < engine._packet_number - engine.oneRtt.largest_acked_packet < 330)
        pump.path.loss = 0.0
        self.assertTrue(pump.run(30, lambda: len(server.received[number]) == 2_000_000))

    def test_theyAreToldHalfAsFarAsTwoBytesReach(self) -> None:
        self.assertLess(MOST_AHEAD, (1 << 8 * NUMBER_SIZE - 1) - 500)


class ProbeTests(SynchronousTestCase):
    def test_aProbeLeavesThoughTheWindowIsFull(self) -> None:
        """RFC 9002 §7.5: it may have shrunk below what is in flight, all of which is lost."""
        pump = pair("both")
        client, _ = apps(pump)
        client.write(client.open(), bytes(200_000))
        engine = pump.client
        assert isinstance(engine, Engine)
        self.assertTrue(list(engine.transmit(pump.now)))
        self.assertEqual([], list(engine.transmit(pump.now)))
        engine.recovery.congestion.window = 2 * engine.datagramSize
        timer = engine.nextTimer()
        assert timer is not None
        engine.onTimer(timer)
        self.assertEqual(1, engine.recovery.timeouts)
        self.assertTrue(list(engine.transmit(timer)))


class Unseen(dict[int, StreamState]):
    """Streams that nobody goes through; each is found by its number."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("somebody looks at all streams")

    __iter__ = keys = values = items = _refuse


def callsOf(action: Callable[[], object]) -> int:
    """How many functions are called by it."""
    count = 0

    def called(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


class CrowdTests(NetworkCase):
    """A transfer beside streams that do nothing, or can't."""

    SIZE = 2_000_000
    DATA = bytes(SIZE)

    def transfer(self, idle: int = 0, stalled: int = 0, streams: int = 1) -> tuple[float, int]:
        """Seconds of the network's time, and calls, for `SIZE` bytes each on so many streams."""
        client, server = self.connect()
        for number in range(idle + stalled):
            ours, theirs = self.open(server, client) if number % 2 else self.open(client, server)
            if number >= idle:
                theirs.pauseProducing()
            Notes(theirs)
            if number >= idle:
                ours.write(self.DATA)
        pairs = [self.open(client, server) for _ in range(streams)]
        notes = [Notes(theirs) for _, theirs in pairs]
        self.network.run(5)
        for session in (client, server):
            session.streams.states = Unseen(session.streams.states)
        begun = self.clock.seconds()
        for ours, _ in pairs:
            ours.write(self.DATA)

        def finish() -> None:
            self.assertTrue(self.network.run(30, lambda: all(len(each.data) == self.SIZE + 1 for each in notes)))

        calls = callsOf(finish)
        return self.clock.seconds() - begun, calls

    def test_fiveThousandIdleStreamsCostABusyOneNoWork(self) -> None:
        """Nor time: at most a fifth more of each is allowed for."""
        (alone, calls), (beside, callsBeside) = self.transfer(), self.transfer(idle=5000)
        self.assertLess(callsBeside, 1.2 * calls)
        self.assertLess(beside, 1.2 * alone)

    def test_besideStalledStreamsTheOthersKeepFourFifthsOfTheirSpeed(self) -> None:
        """Beside one, and beside so many that their windows have more than the session's."""
        alone, _ = self.transfer(streams=4)
        for stalled in (1, SESSION_START // STREAM_START + 8):
            beside, _ = self.transfer(stalled=stalled, streams=4)
            self.assertLess(0.8 * beside, alone, stalled)
