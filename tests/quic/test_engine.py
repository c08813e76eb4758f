"""Engines through the pump, with themselves and, in both roles, with plain aioquic."""

# ruff: noqa: B023  (what is defined in a loop here is called in that turn of it)

import random

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import ConnectionTerminated
from aioquic.tls import Epoch
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic import keys
from socketwarp.quic.engine import Engine
from socketwarp.quic.recovery import MAX_ACK_ONLY
from socketwarp.quic.windows import Limits

from ..pump import CLIENT, SERVER, Path, Pump, give, newClient, newServer, pair
from .apps import App, apps, calls, sealed, varint

SIDES = ("both", "client", "server")
PING = b"\x01"
DATA = random.Random(5).randbytes(1 << 20)


class EngineCase(SynchronousTestCase):
    def exchange(self, pump: Pump, size: int = len(DATA), seconds: float = 120) -> None:
        """`size` bytes in both directions at once over one stream, with FIN each way."""
        client, server = apps(pump)
        number = client.open()
        client.write(number, DATA[:1])
        self.assertTrue(pump.run(seconds, lambda: bool(server.received[number])))
        client.write(number, DATA[1:size])
        client.finish(number)
        server.write(number, DATA[-size:])
        server.finish(number)
        self.assertTrue(pump.run(seconds, lambda: number in server.ended and number in client.ended))
        self.assertEqual(DATA[:size], server.received[number])
        self.assertEqual(DATA[-size:], client.received[number])
        pump.run(1)

    def engines(self, pump: Pump) -> list[Engine]:
        return [each for each in (pump.client, pump.server) if isinstance(each, Engine)]


class TransferTests(EngineCase):
    def test_bytesArriveExactlyInBothDirections(self) -> None:
        for ours in SIDES:
            pump = pair(ours)
            self.exchange(pump)
            for each in self.engines(pump):
                self.assertEqual(({}, 0), (each.streams.states, each.recovery.bytes_in_flight))
                self.assertEqual(0, each.recovery.lostPackets)

    def test_bytesArriveExactlyThroughABadNetwork(self) -> None:
        """Loss, duplication and reordering by more than a round trip."""
        for ours in SIDES:
            for seed in range(3):
                path = Path(delay=0.01, loss=0.08, duplication=0.05, jitter=0.03, seed=seed, mtu=1500)
                self.exchange(pair(ours, path=path), 200_000)

    def test_tinyWindowsSlowATransferAndStopNone(self) -> None:
        for ours in SIDES:
            limits = Limits(streamWindow=2000, sessionWindow=3000)
            self.exchange(pair(ours, limits, max_data=3000, max_stream_data=2000), 100_000)

    def test_writesOfOneByteArriveAsOneStream(self) -> None:
        for ours in SIDES:
            pump = pair(ours, path=Path(loss=0.02, jitter=0.005, seed=2))
            client, server = apps(pump)
            number = client.open()
            for each in range(1500):
                client.write(number, DATA[each : each + 1])
                if each % 7 == 0:
                    pump.run(0.0005)
            client.finish(number)
            self.assertTrue(pump.run(30, lambda: number in server.ended))
            self.assertEqual(DATA[:1500], server.received[number])

    def test_streamsWithLittleToSayShareAPacket(self) -> None:
        """Thirty of them take two datagrams of 1,452 bytes and not thirty, and arrive whole though many are lost."""
        for ours in ("both", "client"):
            pump = pair(ours, path=Path(mtu=1500))
            client, server = apps(pump)
            pump.run(1)
            numbers = [client.open() for _ in range(30)]
            for each in numbers:
                client.write(each, DATA[:50])
                client.finish(each)
            engine = pump.client
            assert isinstance(engine, Engine)
            self.assertEqual(2, len(list(engine.transmit(pump.now))))  # which get lost
            self.assertTrue(pump.run(10, lambda: all(each in server.ended for each in numbers)))
            self.assertEqual({DATA[:50]}, {bytes(server.received[each]) for each in numbers})
            pump.run(1)
            self.assertEqual(0, engine.recovery.bytes_in_flight)

    def test_manyStreamsAtOnceAndOneAfterTheOther(self) -> None:
        for ours in SIDES:
            pump = pair(ours, path=Path(loss=0.01, seed=3))
            client, server = apps(pump)
            numbers = []
            for _ in range(4):
                batch = [client.open() for _ in range(60)]
                for number in batch:
                    client.write(number, DATA[number : number + 3000])
                    client.finish(number)
                self.assertTrue(pump.run(30, lambda: server.ended.issuperset(batch)))
                for number in batch:
                    server.write(number, DATA[-number - 2000 : -number - 1])
                    server.finish(number)
                self.assertTrue(pump.run(30, lambda: client.ended.issuperset(batch)))
                pump.run(0.5)
                numbers += batch
            for number in numbers:
                self.assertEqual(DATA[number : number + 3000], server.received[number])
                self.assertEqual(DATA[-number - 2000 : -number - 1], client.received[number])
            for each in self.engines(pump):
                self.assertEqual(({}, {}, {}), (each.streams.states, each.streams.due, each.streams._starved))

    def test_aSilentPathGoesOnByItself(self) -> None:
        """20 s without a packet, in mid-transfer; our own probes are no more than some seconds apart then."""
        for ours in SIDES:
            pump = pair(ours)
            client, server = apps(pump)
            number = client.open()
            client.write(number, DATA)
            client.finish(number)
            pump.run(5, lambda: len(server.received[number]) > 300_000)
            pump.path.loss = 1.0
            pump.run(20)
            pump.path.loss = 0.0
            self.assertTrue(pump.run(15 if ours == "server" else 4, lambda: number in server.ended), ours)
            self.assertEqual(DATA, server.received[number])

    def test_handshakesSurviveHeavyLoss(self) -> None:
        for seed in range(50):
            client = newClient()
            pump = Pump(client, newServer(client), Path(delay=0.02, loss=0.3, seed=seed))
            client.connect(("2001:db8::2", 11443), pump.now)
            self.assertTrue(pump.run(30, lambda: client._handshake_confirmed), seed)


class EndingTests(EngineCase):
    def opened(self, pump: Pump) -> tuple[App, App, int]:
        client, server = apps(pump)
        number = client.open()
        client.write(number, b"hello")
        pump.run(5, lambda: bool(server.received[number]))
        return client, server, number

    def test_aResetIsHeardWithItsCodeAndTheOtherDirectionGoesOn(self) -> None:
        for ours in SIDES:
            pump = pair(ours, path=Path(loss=0.1, seed=4))
            client, server, number = self.opened(pump)
            client.reset(number, 7)
            server.write(number, DATA[:5000])
            server.finish(number)
            self.assertTrue(pump.run(20, lambda: number in client.ended and number in server.resets))
            self.assertEqual((7, DATA[:5000]), (server.resets[number], client.received[number]))
            other = server.open()
            server.write(other, b"x")
            pump.run(5)
            server.reset(other, 8)
            self.assertTrue(pump.run(20, lambda: other in client.resets))
            self.assertEqual(8, client.resets[other])

    def test_stopSendingIsHeardAndAnsweredWithAResetOfItsCode(self) -> None:
        for ours in SIDES:
            pump = pair(ours, path=Path(loss=0.1, seed=5))
            client, server, number = self.opened(pump)
            server.stop(number, 9)
            self.assertTrue(pump.run(20, lambda: number in client.stops and number in server.resets))
            self.assertEqual((9, 9), (client.stops[number], server.resets[number]))
            server.write(number, b"bye")
            server.finish(number)
            client.stop(number, 10)
            pump.run(5)
            for each in self.engines(pump):
                self.assertEqual({}, each.streams.states)

    def test_theCloseReasonReachesThePeer(self) -> None:
        for ours in SIDES:
            for closing in ("client", "server"):
                pump = pair(ours)
                one, other = (pump.client, pump.server) if closing == "client" else (pump.server, pump.client)
                one.close(0x55, reason_phrase="had enough")
                pump.run(10)
                event = next(each for each in pump.events[other] if isinstance(each, ConnectionTerminated))
                self.assertEqual((0x55, "had enough"), (event.error_code, event.reason_phrase))
                if isinstance(other, Engine):
                    self.assertEqual((True, True), (other.isClosedByPeer, other.isClosing))
                if isinstance(one, Engine):
                    self.assertEqual((False, None), (one.isClosedByPeer, one.nextTimer()))
                    self.assertEqual([], list(one.transmit(pump.now)))

    def test_silenceEndsBothAfterTheIdleTime(self) -> None:
        for ours in SIDES:
            pump = pair(ours, idle_timeout=20.0)
            pump.path.loss = 1.0
            pump.run(21)
            for connection in (pump.client, pump.server):
                reasons = [
                    each.reason_phrase for each in pump.events[connection] if isinstance(each, ConnectionTerminated)
                ]
                self.assertEqual(["Idle timeout"], reasons)

    def test_aServerThatHasHeardNothingHasNothingToDo(self) -> None:
        server = newServer(newClient())
        assert isinstance(server, Engine)
        self.assertEqual((None, []), (server.nextTimer(), list(server.transmit(1.0))))
        self.assertEqual((False, False), (server.isRefusal, server.isConfirmed))


class KeyUpdateTests(EngineCase):
    def test_eitherSideMayUpdateKeysInMidTransfer(self) -> None:
        for ours in SIDES:
            for updating in ("client", "server"):
                pump = pair(ours, path=Path(loss=0.02, jitter=0.003, seed=6, mtu=1500))
                client, server = apps(pump)
                number = client.open()
                client.write(number, DATA)
                client.finish(number)
                for size in (200_000, 400_000, 600_000):
                    pump.run(20, lambda: len(server.received[number]) > size)
                    if number not in server.received or not server.received[number]:
                        self.fail("nothing came")
                    (pump.client if updating == "client" else pump.server).request_key_update()
                    server.write(number, b"so that this side has something to say in the new phase")
                    pump.run(0.2)
                self.assertTrue(pump.run(30, lambda: number in server.ended), (ours, updating))
                self.assertEqual(DATA, server.received[number])
                phases = {each._cryptos[Epoch.ONE_RTT].send.key_phase for each in (pump.client, pump.server)}
                self.assertEqual({1}, phases)

    def test_keysAreUpdatedBeforeTheyAreWornOut(self) -> None:
        """RFC 9001 §6.6; the limit is made small here."""
        self.patch(keys, "KEY_UPDATE_PACKETS", 50)
        for ours in ("client", "server"):
            pump = pair(ours, path=Path(mtu=1200))
            crypto = (pump.client if ours == "client" else pump.server)._cryptos[Epoch.ONE_RTT]
            updates = spied(crypto)
            self.exchange(pump)
            self.assertGreaterEqual(len(updates), 3, ours)
            self.assertEqual({"local_update"}, set(updates), ours)

    def test_packetsThatAnUpdateOvertakesAreReadAllTheSame(self) -> None:
        """RFC 9001 §6.5: those under the keys before may come for a while."""
        pump = pair("server")
        client, server = apps(pump)
        late = sealed(pump.client, b"\x0c" + varint(0, 0) + b"late")
        pump.client.request_key_update()
        pump.client.send_ping(0)
        pump.run(1)
        self.assertEqual(1, pump.server._cryptos[Epoch.ONE_RTT].recv.key_phase)
        give(pump.server, [late], CLIENT, pump.now)
        server.read()
        self.assertEqual(b"late", server.received[0])
        del client

    def test_theLimitIsHalfOfWhatAesGcmIsGoodFor(self) -> None:
        """2^23 packets are (RFC 9001 §6.6), and we promise an update before 2^22."""
        self.assertLess(keys.KEY_UPDATE_PACKETS, 1 << 22)


def spied(keys: CryptoPair) -> list[str]:
    """What makes these keys change, from now on."""
    updates: list[str] = []
    update = keys._update_key

    def updated(trigger: str) -> None:
        updates.append(trigger)
        update(trigger)

    keys._update_key = updated  # type: ignore[method-assign]  # a spy
    return updates


class SpinTests(SynchronousTestCase):
    def test_aServerReflectsTheBitAndAClientInvertsIt(self) -> None:
        """RFC 9000 §17.4."""
        for ours, source in (("server", CLIENT), ("client", SERVER)):
            pump = pair(ours)
            end, peer = (pump.server, pump.client) if ours == "server" else (pump.client, pump.server)
            assert isinstance(end, Engine)
            for spin in (True, False, True):
                give(end, [sealed(peer, PING, 0x40 | spin << 5)], source, pump.now)
                self.assertEqual(spin == (ours == "server"), end.spin)

    def test_aForgedPacketInABatchLeavesTheBit(self) -> None:
        pump = pair("server")
        assert isinstance(pump.server, Engine)
        good = [sealed(pump.client, PING, 0x60) for _ in range(2)]
        give(pump.server, [good[0], b"\x40" + good[1][1:-1] + b"?"], CLIENT, pump.now)
        self.assertTrue(pump.server.spin)


class MigrationTests(EngineCase):
    def test_aClientWhoseAddressChangesLosesNoByte(self) -> None:
        """A NAT forgets: another port, then another address, in mid-transfer in both directions."""
        for ours in SIDES:
            for path in (Path(), Path(delay=0.02, loss=0.03, jitter=0.01, seed=7)):
                pump = pair(ours, path=path)
                client, server = apps(pump)
                number = client.open()
                client.write(number, DATA[:100])
                pump.run(5, lambda: bool(server.received[number]))
                client.write(number, DATA[100:])
                server.write(number, DATA[::-1])
                client.finish(number)
                server.finish(number)
                for address in ((CLIENT[0], 50000), ("2001:db8::77", 50001)):
                    pump.run(5, lambda: len(server.received[number]) > 150_000 * (address[1] - 49_999))
                    pump.clientAddress = address
                self.assertTrue(pump.run(60, lambda: number in server.ended and number in client.ended), ours)
                self.assertEqual((DATA, DATA[::-1]), (server.received[number], client.received[number]))
                pump.client.send_ping(0)
                pump.run(2)
                self.assertEqual(pump.clientAddress, pump.server.get_peer_address())
                self.assertIsNone(pump.client._close_event)

    def test_aClientThatMovesWhileOnlyReceivingIsFound(self) -> None:
        """Its next packet, an ACK or a probe, comes from the new address."""
        pump = pair("server")
        client, server = apps(pump)
        number = client.open()
        client.write(number, b"go")
        pump.run(5, lambda: bool(server.received[number]))
        server.write(number, DATA)
        server.finish(number)
        pump.run(5, lambda: len(client.received[number]) > 100_000)
        pump.clientAddress = ("2001:db8::99", 1234)
        pump.client.send_ping(0)
        self.assertTrue(pump.run(30, lambda: number in client.ended))
        self.assertEqual(DATA, client.received[number])

    def test_onAnotherPathTheSenderBeginsAgain(self) -> None:
        """RFC 9000 §9.4: window, round-trip time, path MTU; but not when a NAT only has another port for the client."""
        for host, isAnother in (("2001:db8::77", True), (CLIENT[0], False)):
            pump = pair("server", path=Path(mtu=9000))
            client, server = apps(pump)
            pump.run(1)
            number = client.open()
            client.write(number, b"go")
            pump.run(1)
            server.write(number, DATA)
            pump.run(5)
            ours = pump.server
            assert isinstance(ours, Engine)
            window, least = ours.recovery.congestion_window, ours.recovery.minimumRtt
            self.assertGreater(ours.datagramSize, 1500)
            pump.clientAddress, pump.path.delay, pump.path.mtu = (host, 50_000), 0.05, 1300 if isAnother else 9000
            pump.client.send_ping(0)
            pump.run(0.5)
            self.assertEqual(pump.clientAddress, ours.get_peer_address())
            self.assertEqual(isAnother, ours.recovery.congestion_window < window / 2)
            server.write(number, DATA)
            self.assertTrue(pump.run(10, lambda: len(client.received[number]) == 2 * len(DATA)))
            self.assertEqual(isAnother, ours.datagramSize == 1200)
            self.assertEqual(isAnother, ours.recovery.minimumRtt > 10 * least)
            self.assertEqual(0, ours.recovery.swallowed)

    def test_aClientThatHasMovedMeasuresItsNewPath(self) -> None:
        """It learns of it by the server's PATH_CHALLENGE; what it knows of the old path would mislead it."""
        pump = pair("both")
        engine = pump.client
        assert isinstance(engine, Engine)
        pump.run(1)
        least = engine.recovery.minimumRtt
        pump.clientAddress, pump.path.delay = ("2001:db8::77", 50_000), 0.05
        for _ in range(2):
            engine.send_ping(0)
            pump.run(1)
        self.assertTrue(least < 0.01 < 0.1 <= engine.recovery.minimumRtt < 1, engine.recovery.minimumRtt)

    def test_anUnvalidatedAddressGetsNoFlights(self) -> None:
        """RFC 9000 §9.3: somebody who sends a client's packet from a victim's address gets at most three times it."""
        pump = pair("server")
        client, server = apps(pump)
        number = client.open()
        client.write(number, b"go")
        pump.run(5, lambda: bool(server.received[number]))
        sent = {"victim": 0}
        pump.client.send_ping(0)
        stolen = [data for data, _ in pump.client.datagrams_to_send(pump.now)]
        ours = pump.server
        assert isinstance(ours, Engine)
        give(ours, stolen, ("2001:db8::dead", 9), pump.now)
        server.write(number, DATA)
        for step in range(200):
            for pieces, _, address in ours.transmit(pump.now + step / 100):
                sent["victim"] += sum(map(len, pieces)) if address == ("2001:db8::dead", 9) else 0
            timer = ours.nextTimer()
            if timer is not None and timer <= pump.now + step / 100:
                ours.onTimer(pump.now + step / 100)
        self.assertLessEqual(sent["victim"], 3 * sum(map(len, stolen)))

    def test_anUnvalidatedAddressIsProbedThoughNoStreamMayUseIt(self) -> None:
        """
        RFC 9002 §6.2.4: when the challenge got lost, a probe finds the client; its acknowledgement says that the
        challenge has to be sent again. Stream data, which else makes the better probe, has to wait.
        """
        pump = pair("server", path=Path(mtu=1200))
        client, server = apps(pump)
        number = client.open()
        client.write(number, b"go")
        pump.run(5, lambda: bool(server.received[number]))
        ours = pump.server
        assert isinstance(ours, Engine)
        pump.clientAddress = ("2001:db8::77", 50_000)
        server.write(number, DATA)
        pump.run(5, lambda: ours.recovery.bytes_in_flight > 10_000)  # to where the client was
        self.assertTrue(ours.streams.sendable)
        give(ours, [sealed(pump.client, PING + bytes(1100))], pump.clientAddress, pump.now)
        self.assertTrue(list(ours.transmit(pump.now)))  # the challenge, which gets lost
        self.assertTrue(pump.run(0.5, lambda: ours._network_paths[0].is_validated))
        self.assertTrue(pump.run(30, lambda: len(client.received[number]) == len(DATA)))

    def test_afterAMigrationTheOrdinaryPathIsAskedNoMoreThanBefore(self) -> None:
        """The path that was left stays known for ever, and has nothing to say."""
        counts = []
        for address in (CLIENT, (CLIENT[0], 50_000)):
            pump = pair("server", path=Path(mtu=1500))
            client, server = apps(pump)
            pump.clientAddress = address
            number = client.open()
            client.write(number, b"go")
            pump.run(5)
            ours = pump.server
            assert isinstance(ours, Engine)
            self.assertEqual((address, 2 - (address == CLIENT)), (ours.pathAddress, len(ours._network_paths)))
            asked = calls(ours, "datagrams_to_send")
            server.write(number, DATA)
            self.assertTrue(pump.run(30, lambda: len(client.received[number]) == len(DATA)))
            counts.append(len(asked))
        self.assertLess(max(counts), 3)

    def test_whenThePeerUsesAnotherOfOurIdsPacketsAreOpenedByTheBatchAllTheSame(self) -> None:
        """As a server does that has found its client elsewhere (RFC 9000 §9.5), in mid-transfer."""
        for ours in ("server", "client"):
            pump = pair(ours, path=Path(mtu=1500, jitter=0.0005))
            engine, peer = (pump.server, pump.client) if ours == "server" else (pump.client, pump.server)
            assert isinstance(engine, Engine)
            client, server = apps(pump)
            sender, reader = (client, server) if ours == "server" else (server, client)
            number = sender.open()
            sender.write(number, DATA)
            self.assertTrue(pump.run(30, lambda: len(reader.received[number]) > 300_000))
            before = engine.host_cid
            peer.change_connection_id()
            pump.run(0.1)
            ordinary = calls(engine, "receive_datagram")
            self.assertTrue(pump.run(30, lambda: len(reader.received[number]) == len(DATA)))
            self.assertEqual(DATA, reader.received[number])
            self.assertNotEqual(before, engine.host_cid)
            self.assertEqual([], ordinary, ours)


class IdleTests(EngineCase):
    """RFC 9000 §10.1."""

    def test_theIdleTimeBeginsAnewWithWhatIsHeardAndWithTheFirstThatAsksForAnAnswerAfterIt(self) -> None:
        """The next ones don't count: who hears nothing must not go on because it speaks."""

        def close(engine: Engine) -> float:
            assert engine._close_at is not None
            return engine._close_at

        for isFlight in (True, False):
            pump = pair("server", idle_timeout=10.0)
            client, server = apps(pump)
            engine = pump.server
            assert isinstance(engine, Engine)
            number = client.open()
            client.write(number, b"go")
            pump.run(1)
            give(engine, [sealed(pump.client, PING)], CLIENT, pump.now + 1)
            self.assertEqual(pump.now + 11, close(engine))
            for after in (3, 4, 5):
                if isFlight:
                    server.write(number, b"anybody there?")
                else:
                    engine.send_ping(0)
                self.assertTrue(list(engine.transmit(pump.now + after)))
                self.assertEqual(pump.now + 3 + 10, close(engine))
            give(engine, [sealed(pump.client, PING)], CLIENT, pump.now + 6)
            self.assertEqual(pump.now + 16, close(engine))
            engine.onTimer(pump.now + 16)
            assert engine.closeReason is not None
            self.assertEqual("Idle timeout", engine.closeReason.reason_phrase)

    def test_anAcknowledgementAloneChangesNothing(self) -> None:
        pump = pair("server", idle_timeout=10.0)
        pump.run(1)
        engine = pump.server
        assert isinstance(engine, Engine)
        give(engine, [sealed(pump.client, PING)], CLIENT, pump.now + 1)
        self.assertTrue(list(engine.transmit(pump.now + 2)))
        self.assertEqual(pump.now + 11, engine._close_at)


class AcknowledgementTests(EngineCase):
    def test_whoOnlyAcknowledgesRemembersSoMuchAndNoMore(self) -> None:
        """RFC 9000 §13.2.4: one ACK in so many asks for an answer."""
        pump = pair("server")
        client, server = apps(pump)
        number = client.open()
        engine = pump.server
        assert isinstance(engine, Engine)
        for count in range(3 * MAX_ACK_ONLY):
            client.write(number, b".")
            pump.run(0.02)
            self.assertEqual(count + 1, len(server.received[number]))
            self.assertLessEqual(len(engine.recovery._sent[engine.oneRtt]), MAX_ACK_ONLY + 1)

    def test_whatWasNeverSentCantBeAcknowledged(self) -> None:
        for ours, address in (("server", CLIENT), ("client", SERVER)):
            pump = pair(ours)
            engine, peer = (pump.server, pump.client) if ours == "server" else (pump.client, pump.server)
            assert isinstance(engine, Engine)
            for number, code in ((engine._packet_number - 1, None), (engine._packet_number, 0x0A)):
                give(engine, [sealed(peer, b"\x02" + varint(number, 0, 0, 0))], address, pump.now)
                self.assertEqual(code, engine.closeReason and engine.closeReason.error_code)
