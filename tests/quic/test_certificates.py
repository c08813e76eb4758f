"""Who gets in: the certificate matrix on real handshakes, and what the refused end hears."""

from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from aioquic.tls import AlertDescription, CipherSuite, Epoch
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.endpoint import TransportSettings, _engine
from socketwarp.quic.engine import Engine

from ..certs import MATRIX, Case, credentials, pem, world
from ..pump import PROTOCOLS, SERVER, Pump, configuration, fieldsOf, newClient, newServer

SETTINGS = TransportSettings()


def serverFor(client: QuicConnection, *protocols: str) -> Engine:
    """A server as the listener makes it, checking clients as the listener does."""
    return _engine(
        world().checking("client"),
        protocols or PROTOCOLS,
        SETTINGS,
        None,
        original_destination_connection_id=client.original_destination_connection_id,
    )


def eventsOf(pump: Pump, connection: QuicConnection, kind: type) -> list[Any]:
    return [event for event in pump.events[connection] if isinstance(event, kind)]


def run(client: QuicConnection, server: QuicConnection) -> Pump:
    """A handshake, and the closing period if it fails."""
    pump = Pump(client, server)
    pump.connect()
    pump.run(5)
    return pump


class MatrixTests(SynchronousTestCase):
    """`tests.certs.MATRIX`: each row is a peer, and the alert that it gets."""

    def handshake(self, case: Case) -> tuple[Pump, QuicConnection, QuicConnection]:
        """The checking end is an engine of ours with the credentials of a real one, the other is plain aioquic."""
        presented = case.make(world())
        if case.role == "client":
            peer = newClient(False, **{"certificate": None, "private_key": None, **fieldsOf(presented)})
            checking: QuicConnection = serverFor(peer)
            return run(peer, checking), checking, peer
        assert presented is not None
        checking = _engine(world().checking("server"), PROTOCOLS, SETTINGS, case.serverName)
        peer = QuicConnection(
            configuration=configuration(False, **fieldsOf(presented)),
            original_destination_connection_id=checking.original_destination_connection_id,
        )
        return run(checking, peer), checking, peer

    def check(self, case: Case) -> None:
        pump, checking, peer = self.handshake(case)
        if case.alert is None:
            self.assertTrue(checking._handshake_confirmed, case.name)
            self.assertTrue(peer._handshake_confirmed, case.name)
            return
        self.assertEqual([], eventsOf(pump, checking, HandshakeCompleted), case.name)
        self.assertFalse(peer._handshake_confirmed, case.name)
        (terminated,) = eventsOf(pump, peer, ConnectionTerminated)
        self.assertEqual(0x100 + case.alert, terminated.error_code, case.name)

    def test_everyClientOfTheMatrixGetsInOrHearsItsAlert(self) -> None:
        for case in MATRIX:
            if case.role == "client":
                self.check(case)

    def test_everyServerOfTheMatrixIsAcceptedOrHearsItsAlert(self) -> None:
        rows = [case for case in MATRIX if case.role == "server"]
        self.assertGreater(len(rows), 4)
        for case in rows:
            self.check(case)


class RefusalTests(SynchronousTestCase):
    def test_theReasonOfTheRefusalReachesTheClient(self) -> None:
        expired = next(case for case in MATRIX if case.name == "expired").make(world())
        client = newClient(True, **fieldsOf(expired))
        run(client, serverFor(client))
        event = client._close_event
        assert event is not None
        self.assertEqual(0x100 + 45, event.error_code)
        self.assertIn("expired", event.reason_phrase)

    def test_aClientOfOursIsNotConfirmedBeforeItHearsOfItsRefusal(self) -> None:
        """Its TLS is complete by then; a session made from that would be announced and lost again at once."""
        client = newClient(True, certificate=None, private_key=None)
        pump = run(client, serverFor(client))
        self.assertEqual(1, len(eventsOf(pump, client, HandshakeCompleted)))
        self.assertFalse(client._handshake_confirmed)

    def test_theRefusedClientsBytesAreNeverDelivered(self) -> None:
        """It may send 1-RTT packets with its last handshake message; the server hasn't the keys to read them."""
        client = newClient(False, certificate=None, private_key=None)
        server = serverFor(client)
        pump = Pump(client, server)
        client.connect(SERVER, pump.now)
        self.assertTrue(pump.run(1, lambda: client._handshake_complete))
        client.send_stream_data(0, b"let me in")
        pump.run(5)
        self.assertEqual({}, server.streams.states)
        self.assertFalse(server._cryptos[Epoch.ONE_RTT].recv.is_valid())

    def test_withoutACommonProtocolTheHandshakeFails(self) -> None:
        """no_application_protocol, RFC 9001 §8.1."""
        client = newClient(True, alpn_protocols=["h3"])
        pump = run(client, serverFor(client))
        (terminated,) = eventsOf(pump, client, ConnectionTerminated)
        self.assertEqual(0x100 + 120, terminated.error_code)

    def test_withoutAesGcmTheHandshakeFails(self) -> None:
        """ChaCha20's header protection can't be had by the batch, so that it isn't offered."""
        chacha = [CipherSuite.CHACHA20_POLY1305_SHA256]
        client = newClient(False, cipher_suites=chacha)
        ours = newClient()
        for one, other in ((client, newServer(client)), (ours, newServer(ours, False, cipher_suites=chacha))):
            run(one, other)
            assert one._close_event is not None
            self.assertEqual(0x100 + AlertDescription.handshake_failure, one._close_event.error_code)

    def test_theServerPrefersItsFirstProtocol(self) -> None:
        client = newClient(True, alpn_protocols=["hq-29", "socketwarp/1"])
        pump = run(client, serverFor(client, "socketwarp/1", "hq-29"))
        (completed,) = eventsOf(pump, pump.server, HandshakeCompleted)
        self.assertEqual("socketwarp/1", completed.alpn_protocol)

    def test_aClientChecksTheServerAgainstItsRootsBeforeItSaysWhoItIs(self) -> None:
        """A stranger's server learns nothing of the client's certificate."""
        authority = world().other
        client = _engine(credentials(authority.issue("swc-1"), authority), PROTOCOLS, SETTINGS, "localhost")
        server = serverFor(client)
        run(client, server)
        self.assertEqual([], server.peerChain)
        self.assertFalse(client.isConfirmed)

    def test_thePeersLeafIsTheOneThatTlsProved(self) -> None:
        """Not the last of what was sent: appending somebody else's certificate makes nobody them."""
        case = next(case for case in MATRIX if case.name == "right leaf with foreign chain appended")
        presented = case.make(world())
        assert presented is not None
        client = newClient(False, **fieldsOf(presented))
        server = serverFor(client)
        run(client, server)
        self.assertEqual(presented.chain, tuple(server.peerChain))
        self.assertEqual(pem(presented.cert), pem(server.peerChain[0]))
