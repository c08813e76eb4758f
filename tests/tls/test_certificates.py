"""Who gets in: the certificate matrix on real handshakes, and what the refused end hears."""

from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import SessionLost
from socketwarp.identity.certificates import Credentials
from socketwarp.tls import contexts
from socketwarp.tls.contexts import ALPN, clientContext

from ..certs import MATRIX, Case, Issued, credentials, world
from .rig import Rig


def presenting(issued: Issued) -> Credentials:
    """Shows `issued`, and trusts the world's root."""
    return credentials(issued, world().authority)


class MatrixTests(SynchronousTestCase):
    """`tests.certs.MATRIX`: each row is a peer, and the alert that it gets: as a TLS alert, or in its place."""

    def attempt(self, case: Case) -> tuple[Rig, object]:
        presented = case.make(world())
        if case.role == "client":
            rig = Rig()
            if presented is None:
                return rig, self.withoutCertificate(rig)
            connecting = rig.connect(presenting(presented))
        else:
            assert presented is not None
            rig = Rig(own=presenting(presented))
            connecting = rig.connect(serverName=case.serverName or "")
        rig.run()
        results: list[object] = []
        connecting.addBoth(results.append)
        return rig, results[0]

    def withoutCertificate(self, rig: Rig) -> object:
        """What a client hears that shows nothing; ours always shows something."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([ALPN])
        reply = rig.strange(context, b"\1\0\0\0")
        self.assertEqual(0x25, reply[0])
        return SessionLost("", int.from_bytes(reply[4:8]), True)

    def test_everyRowGetsInOrHearsItsAlert(self) -> None:
        for case in MATRIX:
            rig, result = self.attempt(case)
            self.addCleanup(rig.release)
            if case.alert is None:
                self.assertEqual(1, len(rig.sessions), case.name)
                continue
            self.assertEqual([], rig.sessions, case.name)
            error = result.value if isinstance(result, Failure) else result
            assert isinstance(error, SessionLost), case.name
            self.assertEqual(0x100 + case.alert, error.errorCode, case.name)
            self.assertEqual(case.role == "client", error.fromPeer, case.name)
            if case.role == "client":
                (refused,) = rig.refused
                self.assertEqual(0x100 + case.alert, refused[1].errorCode, case.name)
            rig.wait(3)
            self.assertEqual([], list(rig.server._arrivals), case.name)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = Rig()
        self.addCleanup(self.rig.release)

    def watchServer(self) -> list[object]:
        """What the server's OpenSSL asks about certificates that it is shown."""
        asked: list[object] = []

        def letPass(*about: object) -> bool:
            asked.append(about)
            return True

        self.patch(contexts, "_letPass", letPass)
        self.rig.server.credentials = self.rig.server.credentials
        return asked

    def test_theReasonReachesTheClient(self) -> None:
        connecting = self.rig.connect(presenting(world().revoked))
        self.rig.run()
        error = self.failureResultOf(connecting, SessionLost).value
        self.assertIn("revoked", str(error))

    def test_aServerThatIsRefusedHearsOfIt(self) -> None:
        """An alert that says as much as OpenSSL lets us say."""
        connecting = self.rig.connect(credentials(world().other.issue("swc-1"), world().other))
        self.rig.run()
        self.assertEqual(0x100 + 48, self.failureResultOf(connecting, SessionLost).value.errorCode)
        ((address, error),) = self.rig.refused
        self.assertIn("unknown ca", str(error))
        self.assertTrue(error.fromPeer)
        self.assertEqual("127.0.0.1", address[0])

    def test_aStrangersServerLearnsNothingOfTheClient(self) -> None:
        seen = self.watchServer()
        connecting = self.rig.connect(credentials(world().other.issue("swc-1"), world().other))
        self.rig.run()
        self.failureResultOf(connecting, SessionLost)
        self.assertEqual([], seen)
        self.rig.connect()
        self.rig.run()
        self.assertNotEqual([], seen)

    def test_thePeersLeafIsTheOneThatTlsProved(self) -> None:
        case = next(case for case in MATRIX if case.name == "right leaf with foreign chain appended")
        presented = case.make(world())
        assert presented is not None
        self.rig.connect(presenting(presented))
        self.rig.run()
        self.assertEqual(list(presented.chain), list(self.rig.sessions[0].peerChain))

    def test_withoutOurProtocolThereIsNoSession(self) -> None:
        for protocols in ([b"h2", b"http/1.1"], []):
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            if protocols:
                context.set_alpn_protos(protocols)
            reply = self.rig.strange(context, b"")
            self.assertEqual((0x25, 0x100 + 120), (reply[0], int.from_bytes(reply[4:8])))
        self.assertEqual([], self.rig.sessions)

    def test_tls12IsRefused(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        self.assertIn("protocol version", self.rig.strange(context, b"").decode())

    def test_nothingIsResumed(self) -> None:
        """Neither the session of another connection, nor early data with it."""
        checks = self.watchServer()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([ALPN])
        issued = world().authority.issue("swc-1")
        context.use_certificate(issued.cert)
        context.use_privatekey(issued.key)  # type: ignore[arg-type]  # an EC key
        first = self.rig.stranger(context)
        self.rig.exchange(first, b"\1\0\0\0")
        checks.clear()
        session = first.get_session()
        assert session is not None
        again = self.rig.stranger(context)
        again.set_session(session)
        self.rig.exchange(again, b"\1\0\0\0")
        self.assertNotEqual([], checks, "the certificate was not asked for again")
        self.assertEqual(2, len(self.rig.sessions))

    def test_nothingIsCachedOrRenegotiatedAndIdleBuffersAreGivenBack(self) -> None:
        """What OpenSSL was told: a cache would be memory for each stranger, buffers 33 kB for each end of a lane."""
        for context in (contexts.serverContext(world().checking("client")), clientContext(world().checking("server"))):
            self.assertEqual(SSL.SESS_CACHE_OFF, context.get_session_cache_mode())
            wanted = SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION
            self.assertEqual(wanted, context.set_options(0) & wanted)
            self.assertTrue(context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)

    def test_newCredentialsCountForNewConnections(self) -> None:
        self.rig.connect()
        self.rig.run()
        self.rig.server.credentials = credentials(world().other.server(), world().other)
        connecting = self.rig.connect()
        self.rig.run()
        self.assertEqual(0x100 + 48, self.failureResultOf(connecting, SessionLost).value.errorCode)
        self.assertEqual((1, True), (len(self.rig.sessions), self.rig.sessions[0].isOpen))
