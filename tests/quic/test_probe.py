"""A look at a server's certificate, over a socket in memory."""

import socket
from collections.abc import Sequence
from unittest import mock

from aioquic._buffer import Buffer
from aioquic.quic.packet import pull_quic_header
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import CertificateRejected, SessionLost
from socketwarp.quic import probe as module
from socketwarp.quic.batch import Batch
from socketwarp.quic.endpoint import TransportSettings, _engine
from socketwarp.quic.engine import Engine
from socketwarp.quic.probe import probe

from ..certs import credentials, pem, world
from ..pump import CLIENT, PROTOCOLS, SERVER


class _Wire:
    """A UDP socket and the server at its other end; time passes while nothing comes."""

    def __init__(self, protocols: Sequence[str] = PROTOCOLS, isSilent: bool = False) -> None:
        self.now = 0.0
        self.server: Engine | None = None
        self._protocols = protocols
        self._isSilent = isSilent
        self._waiting: list[bytes] = []

    def __enter__(self) -> "_Wire":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, address: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def send(self, data: bytes) -> None:
        if self._isSilent:
            return
        if self.server is None:
            header = pull_quic_header(Buffer(data=data), host_cid_length=8)
            own = credentials(world().authority.server(), world().authority)
            self.server = _engine(
                own,
                self._protocols,
                TransportSettings(),
                None,
                original_destination_connection_id=header.destination_cid,
            )
        self.server.receive(Batch(memoryview(data), len(data)), CLIENT, self.now)
        self._waiting += [b"".join(each.pieces) for each in self.server.transmit(self.now)]

    def recv(self, size: int) -> bytes:
        if self._waiting:
            return self._waiting.pop(0)
        self.now += 0.05
        raise TimeoutError


class ProbeTests(SynchronousTestCase):
    def look(self, wire: _Wire, name: str = "localhost", roots: bytes | None = None) -> None:
        trusted = world().checking("server")

        def check(chain: Sequence[x509.Certificate]) -> None:
            trusted.checkPeer(chain, "server", name)

        with (
            mock.patch.object(socket, "socket", lambda *_: wire),
            mock.patch.object(module, "monotonic", lambda: wire.now),
        ):
            probe(socket.AF_INET, SERVER, name, PROTOCOLS, trusted.roots if roots is None else roots, check)

    def test_aGoodCertificateIsNoError(self) -> None:
        wire = _Wire()
        self.look(wire)
        assert wire.server is not None
        self.assertTrue(wire.server.isClosing, "the server is told that this was all")
        self.assertEqual([], wire.server.peerChain, "and learns nothing of us")

    def test_aCertificateThatWeWouldRefuseIsTheReason(self) -> None:
        error = self.assertRaises(CertificateRejected, self.look, _Wire(), "other.example")
        self.assertIn("other.example", str(error))

    def test_aServerWithoutOurProtocolEndsTheHandshake(self) -> None:
        self.assertRaises(SessionLost, self.look, _Wire(["h3"]))

    def test_whatOnlyTlsRefusesIsAnErrorToo(self) -> None:
        self.assertRaises(SessionLost, self.look, _Wire(), roots=pem(world().other.cert))

    def test_aSilentServerIsGivenUpAfterAWhile(self) -> None:
        wire = _Wire(isSilent=True)
        self.assertRaises(TimeoutError, self.look, wire)
        self.assertEqual(module.PROBE_SECONDS, round(wire.now))
