"""The certificate matrix on real processes: who is refused never has a session, and both logs say why."""

import contextlib
import socket
from signal import SIGHUP
from time import monotonic

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated

from tests.certs import MATRIX, Case, pem, world, writeFile

from .processes import PATIENCE, Address, TunnelCase

#: TLS alerts in QUIC (RFC 9001 §4.8), and one of them (RFC 8446 §6.2).
CRYPTO_ERROR = 0x100
CERTIFICATE_REQUIRED = 116


def comeWithoutCertificate(address: Address, roots: bytes) -> tuple[int, str]:
    """Begin a handshake as a client that has no certificate; code and reason with which the listener ends it."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["hq-29"], server_name="localhost", cadata=roots)
    client = QuicConnection(configuration=configuration)
    client.connect(address, monotonic())
    deadline = monotonic() + PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(address)
        udp.settimeout(0.05)
        while monotonic() < deadline:
            for datagram, _ in client.datagrams_to_send(monotonic()):
                udp.send(datagram)
            with contextlib.suppress(TimeoutError):
                client.receive_datagram(udp.recv(65536), address, monotonic())
            while event := client.next_event():
                if isinstance(event, ConnectionTerminated):
                    return event.error_code, event.reason_phrase
            if (timer := client.get_timer()) is not None and timer <= monotonic():
                client.handle_timer(monotonic())
    raise AssertionError("the listener didn't end the handshake")


class MatrixTests(TunnelCase):
    """Two ends that trust one root and have its revocation lists; a refused connector comes only once."""

    def setUp(self) -> None:
        super().setUp()
        self.world = world()
        self.world.authority.server().write(str(self.directory), "server")
        self.world.authority.issue("uid-1").writePair(str(self.directory), "client")
        writeFile(str(self.directory), "ca.crt", pem(*self.world.roots))
        writeFile(str(self.directory), "lists.crl", pem(*self.world.crls))
        self.environment |= {
            "SWL_ADDRS": "::",
            "SWL_CRL_PATHS": "lists.crl",
            "SWC_CRL_PATHS": "lists.crl",
            "SWC_BACKOFF_BASE_SECONDS": "60",
            "SWC_BACKOFF_CAP_SECONDS": "60",
        }

    def rows(self, role: str) -> list[Case]:
        """The rows about what a peer of that role presents; of those that present something."""
        return [case for case in MATRIX if case.role == role and case.make(self.world) is not None]

    def present(self, case: Case, name: str) -> None:
        """Put what the row says into the place of an end's certificate and key."""
        issued = case.make(self.world)
        assert issued is not None
        issued.writePair(str(self.directory), name)

    def test_whatConnectorsPresent(self) -> None:
        self.startListener()
        for case in self.rows("client"):
            self.present(case, "client")
            self.startConnector()
            if case.alert is not None:
                self.listener.waitFor("refused: TLS refused it: ")
                self.connector.waitFor("the listener refused us: our certificate", f"(TLS alert {case.alert}): ")
            elif case.uid is None:
                reason = self.listener.waitFor("refused: certificate ").partition("refused: ")[2].rpartition(" (")[0]
                self.connector.waitFor(reason)
            else:
                self.listener.waitFor(f"connector {case.uid} connected from")
                self.connector.waitFor("connected to")
            self.assertEnds(self.connector)
        admitted = [case for case in self.rows("client") if case.uid is not None]
        self.assertEqual(len(admitted), sum("connected from" in line for line in self.listener.lines))

    def test_noCertificateAtAll(self) -> None:
        self.startListener()
        address = ("127.0.0.1", int(self.environment["SWL_PORT"]))
        code, reason = comeWithoutCertificate(address, pem(self.world.authority.cert))
        self.assertEqual((CRYPTO_ERROR + CERTIFICATE_REQUIRED, "the client sent no certificate"), (code, reason))
        self.listener.waitFor("refused: TLS refused it: the client sent no certificate")

    def test_whatListenersPresent(self) -> None:
        self.startListener()
        for case in self.rows("server"):
            self.present(case, "server")
            self.listener.send(SIGHUP)
            self.listener.waitFor("changed files are in force")
            self.settings["server_name"] = case.serverName
            self.startConnector()
            if case.alert is None:
                self.connector.waitFor("connected to")
            else:
                self.connector.waitFor("we refused the listener: its certificate", f"(TLS alert {case.alert}): ")
                self.listener.waitFor("refused: it ended the handshake: ")
            self.assertEnds(self.connector)
