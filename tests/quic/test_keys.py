"""Key updates (RFC 9001 §6): whose turn it is, and what the peer may do."""

# ruff: noqa: B023  (what is defined in a loop here is called in that turn of it)

from typing import Any

from aioquic.quic.crypto import CryptoContext
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion, QuicTransportParameters
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.tls import CipherSuite, Epoch
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic import engine as engines
from socketwarp.quic import keys
from socketwarp.quic.engine import Engine
from socketwarp.quic.keys import Keyring

from ..pump import CLIENT, SERVER, START, Path, Pump, datagramsOf, give, newClient, newServer, pair
from .apps import apps, calls, sealed, varint

PING = b"\x01"


class AgeTests(SynchronousTestCase):
    """§6.1, §6.6."""

    def setUp(self) -> None:
        self.patch(keys, "KEY_UPDATE_PACKETS", 100)
        self.space = QuicPacketSpace()
        self.context = CryptoContext()
        self.update(b"1" * 32)
        self.keyring = Keyring(self.context)

    def update(self, secret: bytes) -> None:
        suite, version = CipherSuite.AES_128_GCM_SHA256, QuicProtocolVersion.VERSION_1
        self.context.setup(cipher_suite=suite, secret=secret, version=version)

    def isWorn(self, number: int) -> bool:
        return self.keyring.isWorn(number, self.space)

    def test_keysAreWornAfterSoManyPackets(self) -> None:
        self.space.largest_acked_packet = 50
        self.assertEqual([False, False, True], [self.isWorn(number) for number in (7, 106, 107)])

    def test_keysThatThePeerHasUpdatedAreNew(self) -> None:
        self.space.largest_acked_packet = 100
        self.assertFalse(self.isWorn(0))
        self.update(b"2" * 32)
        self.assertEqual([False, False, True], [self.isWorn(number) for number in (90, 189, 190)])

    def test_untilThePeerHasAcknowledgedOneOfTheirPacketsTheyStay(self) -> None:
        self.space.largest_acked_packet = 6
        self.assertEqual([False, False], [self.isWorn(number) for number in (7, 500)])
        self.space.largest_acked_packet = 7
        self.assertTrue(self.isWorn(500))


class OrderTests(SynchronousTestCase):
    """§6.4, §6.5: what comes late under the old keys, and what can't be late."""

    def ends(self, ours: str) -> tuple[Pump, Engine, Any, Any]:  # Any: what sends to ours, and its address
        pump = pair(ours)
        engine, peer, address = (
            (pump.server, pump.client, CLIENT) if ours == "server" else (pump.client, pump.server, SERVER)
        )
        assert isinstance(engine, Engine)
        return pump, engine, peer, address

    def test_oldKeysForALaterPacketThanNewOnesAreAnError(self) -> None:
        for ours in ("server", "client"):
            for isBatch in (False, True):
                pump, engine, peer, address = self.ends(ours)
                old = sealed(peer, PING, number=peer._packet_number + 2)
                peer._cryptos[Epoch.ONE_RTT]._update_key("local_update")
                new = sealed(peer, PING)
                for each in [[new, old]] if isBatch else [[new], [old]]:
                    self.assertIsNone(engine.closeReason)
                    give(engine, each, address, pump.now)
                assert engine.closeReason is not None
                self.assertEqual(QuicErrorCode.KEY_UPDATE_ERROR, engine.closeReason.error_code)
                pump.run(0.1)
                self.assertEqual(QuicErrorCode.KEY_UPDATE_ERROR, peer._close_event.error_code)

    def test_theSameAfterAnUpdateOfOurs(self) -> None:
        pump, engine, peer, address = self.ends("server")
        engine.request_key_update()
        engine.send_ping(0)
        old = sealed(peer, PING, number=peer._packet_number + 50)
        pump.run(1)
        self.assertIsNone(engine.closeReason)
        give(engine, [old], address, pump.now)
        assert engine.closeReason is not None
        self.assertEqual(QuicErrorCode.KEY_UPDATE_ERROR, engine.closeReason.error_code)

    def test_untilThePeerHasUsedTheNewKeysItMayUseTheOldOnes(self) -> None:
        pump, engine, peer, address = self.ends("server")
        engine._cryptos[Epoch.ONE_RTT]._update_key("local_update")
        for number in (5, 3, 4):
            give(engine, [sealed(peer, PING, number=peer._packet_number + number)], address, pump.now)
        peer._packet_number += 6
        self.assertIsNone(engine.closeReason)
        self.assertEqual(peer._packet_number, engine.oneRtt.largest_received_packet + 1)

    def test_earlierPacketsUnderTheOldKeysAreLateAndNoError(self) -> None:
        for isBatch in (False, True):
            pump, engine, peer, address = self.ends("server")
            old = [sealed(peer, PING) for _ in range(3)]
            peer._cryptos[Epoch.ONE_RTT]._update_key("local_update")
            new = [sealed(peer, PING) for _ in range(3)]
            mixed = [new[1], old[0], new[0], old[2], new[2], old[1]]
            for each in [mixed] if isBatch else [[datagram] for datagram in mixed]:
                give(engine, each, address, pump.now)
            self.assertIsNone(engine.closeReason)
            self.assertEqual({peer._packet_number}, {each.stop for each in engine.oneRtt.ack_queue})

    def test_aClientThatMovesBeforeItHasHeardOfAnUpdateIsFound(self) -> None:
        """It can't hear of it where it is now before the server has opened something under the old keys from there."""
        for ours in ("server", "both"):
            pump = pair(ours)
            pump.clientAddress = ("2001:db8::77", 50_000)
            pump.server.request_key_update()
            pump.server.send_ping(0)
            pump.run(0.01)
            self.assertEqual(1, pump.server._cryptos[Epoch.ONE_RTT].recv.key_phase)
            pump.client.send_ping(0)
            self.assertTrue(pump.run(2, lambda: pump.clientAddress == pump.server.get_peer_address()))
            self.assertTrue(pump.run(2, lambda: pump.server._network_paths[0].is_validated))
            self.assertEqual(1, pump.client._cryptos[Epoch.ONE_RTT].recv.key_phase)

    def test_whatAnUpdateHasOvertakenIsReadOnAnotherPathToo(self) -> None:
        pump, engine, peer, _ = self.ends("server")
        old = sealed(peer, b"\x0c" + varint(0, 0) + b"late")
        peer._cryptos[Epoch.ONE_RTT]._update_key("local_update")
        for datagram in (sealed(peer, PING), old):
            give(engine, [datagram], ("2001:db8::77", 50_000), pump.now)
        self.assertEqual([b"late"], engine.streams.states[0].receiving.pieces)
        later = sealed(peer, PING, number=peer._packet_number + 9)
        peer._cryptos[Epoch.ONE_RTT]._update_key("local_update")
        for datagram in (sealed(peer, PING), later):
            self.assertIsNone(engine.closeReason)
            give(engine, [datagram], ("2001:db8::77", 50_000), pump.now)
        assert engine.closeReason is not None
        self.assertEqual(QuicErrorCode.KEY_UPDATE_ERROR, engine.closeReason.error_code)

    def test_anUpdateBeforeTheFirstFlightLeavesTheHeaderKeys(self) -> None:
        """They are those of the first secret (§6), also where nothing was sealed or opened by the batch before."""

        def pull(buffer: object) -> QuicTransportParameters:
            return QuicTransportParameters(max_udp_payload_size=1200)

        self.patch(engines, "pull_quic_transport_parameters", pull)  # so no probe of the path MTU goes first
        for ours in ("server", "client"):
            pump = pair(ours, path=Path())
            engine, peer = (pump.server, pump.client) if ours == "server" else (pump.client, pump.server)
            assert isinstance(engine, Engine)
            peer.request_key_update()
            client, server = apps(pump)
            number = client.open()
            ordinary = calls(engine, "receive_datagram")
            client.write(number, bytes(20_000))
            self.assertTrue(pump.run(5, lambda: len(server.received[number]) == 20_000), ours)
            server.write(number, bytes(20_000))
            self.assertTrue(pump.run(5, lambda: len(client.received[number]) == 20_000), ours)
            self.assertEqual(1, engine._cryptos[Epoch.ONE_RTT].send.key_phase)
            self.assertLess(len(ordinary), 5)

    def test_anUpdateThatComesBeforeHandshakeDoneDoesAsWell(self) -> None:
        client = newClient()
        pump = Pump(client, newServer(client, False))
        client.connect(SERVER, pump.now)
        self.assertTrue(pump.run(5, lambda: pump.server._handshake_confirmed))
        self.assertFalse(client._handshake_confirmed)
        pump._flight.clear()  # HANDSHAKE_DONE is lost, and comes again under the next keys
        pump.server.request_key_update()
        self.assertTrue(pump.run(5, lambda: client._handshake_confirmed))
        self.assertEqual(1, client._cryptos[Epoch.ONE_RTT].recv.key_phase)
        first, second = apps(pump)
        number = second.open()
        ordinary = calls(client, "receive_datagram")
        second.write(number, bytes(20_000))
        self.assertTrue(pump.run(5, lambda: len(first.received[number]) == 20_000))
        self.assertEqual([], ordinary)

    def test_whatIsTooShortForASampleIsDroppedAndSpoilsNothing(self) -> None:
        pump, engine, peer, address = self.ends("server")
        old = sealed(peer, b"\x0c" + varint(0, 0) + b"late")
        peer._cryptos[Epoch.ONE_RTT]._update_key("local_update")
        give(engine, [sealed(peer, PING)], address, pump.now)
        for size in range(21):
            give(engine, [b"\x40" + engine.host_cid + bytes(size)], address, pump.now)
        give(engine, [old], address, pump.now)
        self.assertEqual([b"late"], engine.streams.states[0].receiving.pieces)

    def test_packetsThatComeBeforeTheirKeysAreDropped(self) -> None:
        client = newClient()
        client.connect(SERVER, START)
        server = newServer(client)
        for engine, address in ((client, SERVER), (server, CLIENT)):
            give(server, [data for data, _ in datagramsOf(client, START)], CLIENT, START)
            give(engine, [b"\x40" + engine.host_cid + bytes(40)], address, START)
            self.assertIsNone(engine._close_event)
