"""
What aioquic 1.7.2 must go on doing under its private names, because `socketwarp.quic.engine` counts on it.

A test that fails after an upgrade says what in `engine` has to be looked at again before the new version can be pinned.
"""

import ast
import inspect
import re
from importlib.metadata import version
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import connection as module
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.crypto import CryptoContext, CryptoPair, derive_key_iv_hp
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.engine import Engine
from socketwarp.quic.recovery import Recovery

from ..pump import CLIENT, SERVER, START, Pump, newClient, newServer, pair


class VersionTests(SynchronousTestCase):
    def test_theVersionIsTheOneThatTheseTestsWereWrittenFor(self) -> None:
        """Every other test here describes that version; a new one needs this file read again."""
        self.assertEqual("1.7.2", version("aioquic"))


class GateTests(SynchronousTestCase):
    """Without these names nobody's certificate would be asked for, or one that is missing would do."""

    def handshake(self, **client: Any) -> tuple[Pump, list[tuple[bool, int]]]:
        """A plain client and a plain server that asks; whether it had a certificate, whenever the hook was called."""
        first = newClient(False, **client)
        server = newServer(first, False)
        calls: list[tuple[bool, int]] = []
        initialize = server._initialize

        def asking(peerCid: bytes) -> None:
            initialize(peerCid)
            context = server.tls
            context._request_client_certificate = True
            expectFinished = context._server_expect_finished

            def noted() -> None:
                calls.append((context._peer_certificate is not None, len(context._peer_certificate_chain)))
                expectFinished()

            context._server_expect_finished = noted  # type: ignore[method-assign]  # what the engine does

        server._initialize = asking  # type: ignore[method-assign,assignment]  # as a subclass would
        pump = Pump(first, server)
        pump.connect()
        return pump, calls

    def test_theServerAsksWhenTheFlagIsSetAfterInitialize(self) -> None:
        """If `_initialize` made its TLS context elsewhere, the flag would be set on a context that isn't used."""
        pump, _ = self.handshake()
        self.assertIsNotNone(pump.client.tls._certificate_request)
        self.assertIsNotNone(pump.server.tls._peer_certificate)

    def test_theServerDoesNotAskByItself(self) -> None:
        """The flag's default; if it became public, use the public way."""
        client = newClient(False)
        pump = Pump(client, newServer(client, False))
        pump.connect()
        self.assertIsNone(client.tls._certificate_request)
        self.assertIsNone(pump.server.tls._peer_certificate)

    def test_theHookIsLookedUpOnTheInstanceOnceAVerifiedCertificateIsThere(self) -> None:
        """The gate stands there: a call by class, or before the certificate is kept, would pass it by."""
        self.assertEqual([(True, 0)], self.handshake()[1])

    def test_theHookIsCalledAfterAnEmptyCertificateMessage(self) -> None:
        """aioquic lets such a client in; only the gate doesn't."""
        pump, calls = self.handshake(certificate=None, private_key=None)
        self.assertEqual([(False, 0)], calls)
        self.assertTrue(pump.server._handshake_complete)

    def test_theClientsCheckIsLookedUpOnTheInstance(self) -> None:
        """There the engine checks what aioquic doesn't know of a server: usages and revocation."""
        client = newClient(False)
        calls: list[str] = []
        initialize = client._initialize

        def watching(peerCid: bytes) -> None:
            initialize(peerCid)
            verified = client.tls._client_handle_certificate_verify

            def noted(buffer: Buffer) -> None:
                verified(buffer)
                assert client.tls._peer_certificate is not None
                calls.append(client.tls._peer_certificate.subject.rfc4514_string())

            client.tls._client_handle_certificate_verify = noted  # type: ignore[method-assign,assignment]  # as above

        client._initialize = watching  # type: ignore[method-assign,assignment]  # as above
        Pump(client, newServer(client, False)).connect()
        self.assertEqual(["CN=listener"], calls)

    def test_anAlertRaisedThereClosesWithItsNumber(self) -> None:
        """`PeerRefused` is a `tls.Alert` with a description: the close code is 0x100 and that number."""
        client = newClient(False)
        server = newServer(client, False)
        initialize = server._initialize

        def refusing(peerCid: bytes) -> None:
            initialize(peerCid)

            def refuse() -> None:
                alert = tls.Alert("no")
                alert.description = tls.AlertDescription(44)
                raise alert

            server.tls._server_expect_finished = refuse  # type: ignore[method-assign]  # as above

        server._initialize = refusing  # type: ignore[method-assign,assignment]  # as above
        Pump(client, server).connect()
        assert client._close_event is not None
        self.assertEqual(0x100 + 44, client._close_event.error_code)


class LifeTests(SynchronousTestCase):
    """States, timers and paths."""

    def test_aServerHasNoTimerBeforeItsFirstDatagram(self) -> None:
        """`nextTimer` asks `_close_at`, because `get_timer` and `handle_timer` fail without it."""
        server = newServer(newClient(False), False)
        self.assertIsNone(server._close_at)
        self.assertRaises(TypeError, server.handle_timer, START)
        self.assertRaises(IndexError, server.datagrams_to_send, START)

    def test_theCloseTimeIsGoneAfterTheEnd(self) -> None:
        """`nextTimer` says that nothing is due any more."""
        pump = pair("client")
        pump.server.close(5, reason_phrase="bye")
        pump.run(60)
        self.assertIsNone(pump.client._close_at)
        self.assertIn(pump.client._state, module.END_STATES)

    def test_theCloseIsPendingUntilItWasSent(self) -> None:
        """`_isControlDue` and `_receiveBatch` go by `_close_pending`, `isClosing` by `_close_event`."""
        server = pair("client").server
        self.assertFalse(server._close_pending)
        self.assertIsNone(server._close_event)
        server.close(5)
        self.assertTrue(server._close_pending)
        self.assertEqual(5, server._close_event.error_code)  # type: ignore[union-attr]  # it is there
        server.datagrams_to_send(START + 1)
        self.assertFalse(server._close_pending)
        self.assertIn(server._state, module.END_STATES)

    def test_theHandshakeIsConfirmedOnTheClientByHandshakeDone(self) -> None:
        """Flights, and `isConfirmed`, wait for `_handshake_confirmed`: the server has accepted the certificate then."""
        client = newClient(False)
        server = newServer(client, False)
        pump = Pump(client, server)
        client.connect(SERVER, pump.now)
        completed = pump.run(10, lambda: client._handshake_complete)
        self.assertTrue(completed)
        self.assertFalse(client._handshake_confirmed)
        self.assertTrue(pump.run(10, lambda: client._handshake_confirmed))

    def test_theFirstPathIsTheCurrentOne(self) -> None:
        """Flights go to `_network_paths[0]`, and only when it is validated."""
        pump = pair("client")
        path = pump.server._network_paths[0]
        self.assertEqual((CLIENT, True), (path.addr, path.is_validated))
        self.assertEqual(SERVER, pump.client._network_paths[0].addr)
        for name in (
            "bytes_sent",
            "bytes_received",
            "remote_challenges",
            "local_challenge_sent",
            "validation_deadline",
        ):
            self.assertTrue(hasattr(path, name), name)

    def test_connectionIdsOfOursAreMarkedWhenTheyWereSent(self) -> None:
        """`_isControlDue` asks the ordinary path to send those that weren't."""
        server = pair("client").server
        self.assertGreater(len(server._host_cids), 1)
        self.assertTrue(all(each.was_sent for each in server._host_cids))
        self.assertEqual(server.host_cid, server._host_cids[0].cid)

    def test_thingsToSendAreKeptUnderTheNamesThatTheEngineLooksAt(self) -> None:
        """What `_isControlDue` forgets would wait until something else is sent."""
        client = pair("server").client
        for name in ("_ping_pending", "_probe_pending", "_handshake_done_pending", "_retire_connection_ids"):
            self.assertFalse(getattr(client, name), name)
        client.send_ping(0)
        self.assertEqual([0], client._ping_pending)
        client._send_probe()
        self.assertIs(True, client._probe_pending)

    def test_allThatTheOrdinaryPathSendsIsWrittenByTheEngineOrNotUsed(self) -> None:
        """`_write_application` is replaced: a frame that aioquic learns to send there has to be sent by ours too."""
        written = set(re.findall(r"self\.(_write_\w+)\(", inspect.getsource(QuicConnection._write_application)))
        ours = set(re.findall(r"self\.(_write_\w+)\(", inspect.getsource(Engine)))
        notUsed = {"_write_crypto_frame", "_write_datagram_frame"}  # no tickets are issued; no DATAGRAM frames
        byControl = {
            "_write_connection_limits",
            "_write_reset_stream_frame",
            "_write_stop_sending_frame",
            "_write_stream_frame",
            "_write_stream_limits",
            "_write_streams_blocked_frame",
        }
        self.assertEqual(set(), written - ours - notUsed - byControl)


class PacketTests(SynchronousTestCase):
    """Spaces, keys and frames."""

    def test_receivedPacketsIsAskedAndToldByNumber(self) -> None:
        """`ReceivedNumbers` stands in for it: it has `in` and `add` and nothing else."""
        source = inspect.getsource(module)
        uses = set(re.findall(r"space\.received_packets(\.\w+)?", source))
        self.assertEqual({"", ".add"}, uses)
        self.assertIn("if packet_number in space.received_packets", source)

    def test_aSpaceKeepsWhatTheEngineAndItsRecoveryKeepThere(self) -> None:
        """Named as in `_receivePacket` and `Recovery`."""
        space = QuicPacketSpace(is_application_data=True)
        self.assertEqual((None, 0, -1, None), (
            space.ack_at, space.expected_packet_number, space.largest_received_packet, space.largest_received_time
        ))  # fmt: skip
        self.assertEqual((0, 0, None, True), (
            space.ack_eliciting_in_flight, space.largest_acked_packet, space.loss_time, space.is_application_data
        ))  # fmt: skip
        space.ack_queue.add(3)
        space.ack_queue.shift()
        self.assertEqual(0, len(space.ack_queue))

    def test_theOneRttKeysAreDerivedFromTheSecretInTheContext(self) -> None:
        """`_keysOf` derives them again; both sides must come to the same."""
        pump = pair("client")
        theirs = pump.server._cryptos[Epoch.ONE_RTT].recv
        ours = pump.client._cryptos[Epoch.ONE_RTT].send
        self.assertEqual(
            (theirs.secret, theirs.cipher_suite, theirs.version), (ours.secret, ours.cipher_suite, ours.version)
        )
        assert ours.secret is not None and ours.cipher_suite is not None and ours.version is not None
        key, iv, hp = derive_key_iv_hp(cipher_suite=ours.cipher_suite, secret=ours.secret, version=ours.version)
        self.assertEqual((32, 12, 32) if len(ours.secret) == 48 else (16, 12, 16), (len(key), len(iv), len(hp)))

    def test_aKeyUpdateMakesANewSecretAndTurnsThePhaseInBothDirections(self) -> None:
        """`_keysOf` sees by the secret that keys have changed, and takes the phase from the context."""
        cryptos = pair("client").server._cryptos[Epoch.ONE_RTT]
        before = cryptos.send.secret, cryptos.recv.secret
        cryptos.update_key()
        self.assertTrue(cryptos._update_key_requested)
        self.assertIs(before[0], cryptos.send.secret)
        cryptos._update_key("local_update")
        self.assertFalse(cryptos._update_key_requested)
        self.assertEqual((1, 1), (cryptos.send.key_phase, cryptos.recv.key_phase))
        self.assertNotEqual(before, (cryptos.send.secret, cryptos.recv.secret))
        self.assertIsInstance(cryptos, CryptoPair)
        self.assertIsInstance(cryptos.send, CryptoContext)

    def test_aKeyUpdateRequestedWhenConfirmedIsPendingAtOnce(self) -> None:
        """`transmit` asks for one, and the next packet is the first under the new keys."""
        server = pair("client").server
        server.request_key_update()
        self.assertTrue(server._cryptos[Epoch.ONE_RTT]._update_key_requested)

    def test_payloadReceivedSaysWhetherThePacketAsksForAnAck(self) -> None:
        """The first of the two it returns; frames' faults come out as `QuicConnectionError`."""
        server = pair("client").server
        context = QuicReceiveContext(
            Epoch.ONE_RTT,
            server.host_cid,
            server._network_paths[0],
            None,
            START + 1,
            server._version,
        )
        self.assertEqual((True, False), server._payload_received(context, bytes([QuicFrameType.PING])))
        self.assertEqual((False, True), server._payload_received(context, bytes(4)))
        for plain in (b"", b"\x21", b"\x08", b"\x40"):
            self.assertRaises(QuicConnectionError, server._payload_received, context, plain)

    def test_frameHandlersAreTheOverriddenMethods(self) -> None:
        """The table is made in the constructor from bound methods; by class, aioquic would keep streams of its own."""
        engine = pair("client").client
        table: dict[int, Any] = engine._QuicConnection__frame_handlers  # type: ignore[attr-defined]  # mangled
        overridden = {
            0x04: "reset_stream", 0x05: "stop_sending", 0x10: "max_data", 0x11: "max_stream_data",
            0x12: "max_streams_bidi", 0x15: "stream_data_blocked", 0x1C: "connection_close", 0x1D: "connection_close",
            **dict.fromkeys(range(0x08, 0x10), "stream"),
        }  # fmt: skip
        for frameType, name in overridden.items():
            self.assertIs(getattr(Engine, f"_handle_{name}_frame"), table[frameType][0].__func__, name)

    def test_deliveriesAreToldWithTheirArguments(self) -> None:
        """`SinglePacket` calls each handler with the state first."""
        self.assertEqual(["ACKED", "LOST"], [each.name for each in QuicDeliveryState])
        client = pair("server").client
        client.send_ping(7)
        client.datagrams_to_send(START + 1)
        packet = max(client._loss.spaces[2].sent_packets.values(), key=lambda each: each.packet_number)
        self.assertEqual([(client._on_ping_delivery, ((7,),))], packet.delivery_handlers)

    def test_transportParametersAreKeptUnderTheNamesThatTheEngineTakesThemFrom(self) -> None:
        """What the peer grants at the beginning."""
        pump = pair("client")
        streams = pump.client.streams  # type: ignore[attr-defined]  # an Engine
        server = pump.server
        self.assertEqual(
            (
                server._local_max_data.value,
                server._local_max_streams_bidi.value,
                server._local_max_stream_data_bidi_remote,
                server._local_max_stream_data_bidi_local,
            ),
            (streams.peerMaxData, streams.peerMaxStreams, streams.peerWindowOfOurs, streams.peerWindowOfTheirs),
        )

    def test_limitsSetAfterConstructionAreWhatThePeerIsTold(self) -> None:
        """They are read when TLS begins; later, the peer would believe aioquic's 128 streams."""
        pump = pair("client")
        engine: Any = pump.client
        server = pump.server
        limits = engine.streams.limits
        self.assertEqual(
            (limits.sessionWindow, limits.streams, 0, limits.streamWindow, limits.streamWindow),
            (
                server._remote_max_data,
                server._remote_max_streams_bidi,
                server._remote_max_streams_uni,
                server._remote_max_stream_data_bidi_local,
                server._remote_max_stream_data_bidi_remote,
            ),
        )


class RecoveryTests(SynchronousTestCase):
    def test_ourRecoveryHasAllThatIsAskedOfIt(self) -> None:
        """`_loss` is replaced as a whole: what `connection` uses of it must be there, or is in code that we replace."""
        replaced = {"_write_application"}
        used: set[str] = set()
        tree = ast.parse(inspect.getsource(QuicConnection))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and function.name not in replaced:
                used |= {
                    node.attr
                    for node in ast.walk(function)
                    if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Attribute)
                    and node.value.attr == "_loss"
                }
        self.assertIn("get_probe_timeout", used)
        recovery = Recovery(1200, lambda: None)
        self.assertEqual(set(), {name for name in used if not hasattr(recovery, name)})

    def test_itIsCalledWithTheArgumentsThatOursTakes(self) -> None:
        """By keyword, as aioquic's own."""
        for name in (
            "discard_space",
            "get_loss_detection_time",
            "get_probe_timeout",
            "on_ack_received",
            "on_loss_detection_timeout",
            "on_packet_sent",
            "reschedule_data",
        ):
            theirs = inspect.signature(getattr(QuicPacketRecovery, name)).parameters
            ours = inspect.signature(getattr(Recovery, name)).parameters
            self.assertEqual(
                {each: (one.kind, one.default) for each, one in theirs.items()},
                {each: (one.kind, one.default) for each, one in ours.items()},
                name,
            )

    def test_itIsBoundToTheSpacesWhenTheyAreMade(self) -> None:
        """`_initialize` sets ``spaces`` once; ours makes its queues then."""
        client: Any = pair("client").client
        self.assertEqual(list(client._spaces.values()), client.recovery.spaces)
        self.assertIs(client._loss, client.recovery)
