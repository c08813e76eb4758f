"""The search for the path MTU: as a state, and on paths that carry this and no more."""

# ruff: noqa: B023  (what is defined in a loop here is called in that turn of it)

from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicTransportParameters
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic import engine as engines
from socketwarp.quic.engine import Engine
from socketwarp.quic.pathmtu import (
    BASE,
    BLACK_HOLE_SECONDS,
    LIKELY,
    MAX_PROBES,
    MAXIMUM,
    RAISE_SECONDS,
    PathMtu,
    Probe,
)

from ..pump import Path, pair
from .apps import apps


class SearchTests(SynchronousTestCase):
    def sendAll(self, search: PathMtu, now: float) -> list[int]:
        sizes = []
        while (size := search.nextProbe(now)) is not None:
            search.onSent(size, now + 1)
            sizes.append(size)
        return sizes

    def test_allLikelySizesAreProbedAtOnce(self) -> None:
        search = PathMtu()
        self.assertEqual(list(LIKELY), self.sendAll(search, 1.0))
        self.assertEqual((BASE, 2.0), (search.size, search.nextTime()))

    def test_theLargestThatArrivesIsUsed(self) -> None:
        search = PathMtu()
        self.sendAll(search, 1.0)
        search.onAcknowledged(8972)
        search.onAcknowledged(1452)
        self.assertEqual(8972, search.size)

    def test_thePeersLimitIsKept(self) -> None:
        self.assertEqual([1452], self.sendAll(PathMtu(1460), 1.0))
        self.assertEqual([], self.sendAll(PathMtu(BASE), 1.0))

    def test_aSizeIsTriedThreeTimesAndThenAgainMuchLater(self) -> None:
        search, now = PathMtu(1460), 1.0
        for _ in range(MAX_PROBES):
            self.assertEqual([1452], self.sendAll(search, now))
            now += 1
            search.expire(now)
        self.assertEqual([], self.sendAll(search, now))
        self.assertEqual([], self.sendAll(search, now + RAISE_SECONDS - 1))
        self.assertEqual([1452], self.sendAll(search, now + RAISE_SECONDS))

    def test_nothingIsSearchedWhenTheLargestIsInUse(self) -> None:
        search = PathMtu()
        for size in self.sendAll(search, 1.0):
            search.onAcknowledged(size)
        self.assertEqual([], self.sendAll(search, 1.0))
        self.assertEqual([], self.sendAll(search, 1e9))
        self.assertIsNone(search.nextTime())

    def test_aLossThatIsHeardTwiceCountsOnce(self) -> None:
        search = PathMtu(1460)
        self.sendAll(search, 1.0)
        search.onLost(1452)
        search.onLost(1452)
        self.assertEqual(1, search._failures[1452])

    def test_aBlackHoleFallsBackAndWaits(self) -> None:
        search = PathMtu()
        self.sendAll(search, 1.0)
        search.onAcknowledged(8972)
        search.onBlackHole(5.0)
        self.assertEqual((BASE, None), (search.size, search.nextTime()))
        self.assertEqual([], self.sendAll(search, 5.0 + BLACK_HOLE_SECONDS - 1))
        self.assertEqual(list(LIKELY), self.sendAll(search, 5.0 + BLACK_HOLE_SECONDS))

    def test_aProbeTellsTheSearchAndIsOutsideOfCongestionControl(self) -> None:
        search = PathMtu()
        self.sendAll(search, 1.0)
        Probe(search, 1, 1472, 1.0).onAcknowledged()
        Probe(search, 2, 8952, 1.0).onLost()
        self.assertEqual((1472, {8952: 1}), (search.size, search._failures))
        self.assertEqual((False, False), (Probe.isInFlight, Probe.isAckEliciting))
        self.assertRaises(ValueError, Probe(search, 3, 8972, 1.0).split, 3)


class DiscoveryTests(SynchronousTestCase):
    """On real connections through the pump."""

    def discovered(self, mtu: int, ours: str = "both") -> tuple[Any, Engine]:
        pump = pair(ours, path=Path(mtu=mtu))
        engine = pump.client if ours != "server" else pump.server
        assert isinstance(engine, Engine)
        pump.run(5)
        return pump, engine

    def test_whatThePathCarriesIsFound(self) -> None:
        for mtu, size in ((1200, 1200), (1460, 1452), (1500, 1472), (9000, 8972), (65535, MAXIMUM)):
            pump, _ = self.discovered(mtu)
            self.assertEqual([size, size], [each.datagramSize for each in (pump.client, pump.server)], mtu)

    def test_nothingLargerThanThePeerTakesIsSent(self) -> None:
        """Plain aioquic says how much it takes (max_udp_payload_size)."""
        for ours in ("client", "server"):
            pump, engine = self.discovered(65535, ours)
            largest = [0]
            pump.tap = lambda sender, datagram: largest.append(len(datagram)) if sender is engine else None
            client, server = apps(pump)
            number = client.open()
            client.write(number, bytes(100_000))
            pump.run(5, lambda: len(server.received[number]) == 100_000)
            server.write(number, bytes(100_000))
            pump.run(5, lambda: len(client.received[number]) == 100_000)
            self.assertLessEqual(max(largest), engine._transmitter.maximum)
            self.assertGreaterEqual(max(largest), BASE)

    def test_aPeerThatTakesLittleIsNotEvenProbedBeyondThat(self) -> None:
        """max_udp_payload_size, RFC 9000 §18.2; and one that says nothing takes everything."""
        for limit, size in ((1460, 1452), (1200, BASE), (None, MAXIMUM)):

            def pull(buffer: Buffer) -> Any:
                return QuicTransportParameters(max_udp_payload_size=limit)

            self.patch(engines, "pull_quic_transport_parameters", pull)
            pump = pair("both")
            pump.run(1)
            engine = pump.client
            assert isinstance(engine, Engine)
            self.assertEqual((size, limit or MAXIMUM), (engine.datagramSize, engine._transmitter.maximum))

    def test_aProbeThatIsLostIsNoLossOfThePath(self) -> None:
        pump, engine = self.discovered(1200)
        self.assertGreaterEqual(engine.recovery.congestion_window, 10 * 1200)
        self.assertEqual(0, engine.recovery.bytes_in_flight)
        del pump

    def test_aPathThatShrinksInMidTransferLosesNoByte(self) -> None:
        """A black hole: no ICMP says so, larger packets just vanish."""
        for ours in ("both", "client"):
            pump, engine = self.discovered(9000, ours)
            self.assertGreater(engine.datagramSize, 8000)
            client, server = apps(pump)
            number = client.open()
            data = bytes(range(256)) * 8192
            client.write(number, data)
            client.finish(number)
            pump.run(10, lambda: len(server.received[number]) > 300_000)
            self.assertNotIn(number, server.ended)
            pump.path.mtu = 1300
            self.assertTrue(pump.run(40, lambda: number in server.ended), ours)
            self.assertEqual(data, server.received[number])
            self.assertEqual(BASE, engine.datagramSize)
            pump.path.mtu = 65535
            client.write(client.open(), b"x")
            pump.run(BLACK_HOLE_SECONDS - 20)
            server.write(server.open(), b"x")
            pump.run(30)
            self.assertEqual(BASE, engine.datagramSize)

    def test_keystrokesThatGetThroughHideNoBlackHole(self) -> None:
        """They are acknowledged, so that there are never three probe time-outs in a row."""
        for ours in ("both", "client"):
            pump, engine = self.discovered(9000, ours)
            client, server = apps(pump)
            number, keystrokes = client.open(), client.open()
            written = 0
            for _ in range(100):
                client.write(number, bytes(5000))
                written += 5000
                for _ in range(5):
                    client.write(keystrokes, b"k")
                    pump.run(0.005)
                if written == 100_000:
                    self.assertGreater(engine.datagramSize, 8000)
                    pump.path.mtu = 1300
            self.assertEqual((BASE, 500), (engine.datagramSize, len(server.received[keystrokes])), ours)
            self.assertGreater(len(server.received[number]), written - 20_000, ours)
