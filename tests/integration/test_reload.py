"""Changed files of running processes are used from then on, and nobody who is connected notices; broken ones aren't."""

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from signal import SIGHUP

from tests.certs import Authority, Issued, keyPem, pem, writeFile

from .processes import PATIENCE, Process, TunnelCase, receive

#: Sent while files change: piece by piece, so that there is traffic before, during and after it.
BLOCK = os.urandom(1 << 20)


class ReloadCase(TunnelCase):
    """A listener and the connector ``uid-1``, and perhaps a second connector."""

    def setUp(self) -> None:
        super().setUp()
        self.other = Authority("Other CA")

    def file(self, name: str, data: bytes) -> None:
        """Put a file into the place of another, as a whole."""
        writeFile(str(self.directory), name, data)

    def startSecond(self, issued: Issued | None = None, ca: Authority | None = None) -> Process:
        """Start a connector of the uid ``uid-2``, that trusts listeners of the authority `ca`."""
        issued = issued or self.authority.issue("uid-2")
        issued.writePair(str(self.directory), "second")
        self.file("second-ca.crt", pem((ca or self.authority).cert))
        self.settings |= {
            "client_cert_path": "second.crt",
            "client_key_path": "second.key",
            "ca_cert_path": "second-ca.crt",
        }
        return self.start("swconnector")

    def replacePair(self, issued: Issued) -> None:
        """Put the listener's new certificate and key into the places of the old ones."""
        issued.writePair(str(self.directory), "server")

    def exchange(self, source: socket.socket, sink: socket.socket, number: int) -> None:
        """A block goes from one to the other."""
        block = number.to_bytes(8, "big") + BLOCK[8:]
        with ThreadPoolExecutor(1) as threads:
            sent: Future[None] = threads.submit(source.sendall, block)
            self.assertEqual(block, receive(sink, len(block)))
            sent.result(PATIENCE)


class ListenerTests(ReloadCase):
    """The listener's files."""

    def test_aNewCertificateIsForNewSessionsAndTheOldOnesGoOn(self) -> None:
        self.startBoth()
        server = self.listen()
        port = self.entrance(server)
        visitor, target = self.pair(server, port)
        for number in range(4):
            self.exchange(visitor, target, number)
            self.exchange(target, visitor, number)
            if number == 1:
                self.replacePair(self.other.server())
                self.listener.send(SIGHUP)
                self.listener.waitFor("changed files are in force", "server.crt")
                self.startSecond(ca=self.other)
                self.listener.waitFor("connector uid-2 connected")
        self.assertEcho(server, port)
        self.assertEqual([], [line for line in self.listener.lines if "uid-1 lost" in line])

    def test_changesAreFoundWithoutASignal(self) -> None:
        self.environment["SWL_POLL_SECONDS"] = "0.2"
        self.startListener()
        self.replacePair(self.other.server())
        self.listener.waitFor("changed files are in force", "server.crt")
        self.startSecond(ca=self.other)
        self.listener.waitFor("connector uid-2 connected")

    def test_aBrokenFileChangesNothingAndIsReportedOnce(self) -> None:
        self.environment["SWL_POLL_SECONDS"] = "0.05"
        self.startListener()
        self.file("server.crt", pem(self.other.server().cert)[:-40])
        complaint = self.listener.waitFor("changed files can't be used, the old ones stay in force")
        for part in ("SWL_CERT_PATH", "server.crt", "block 1 (CERTIFICATE) is damaged"):
            self.assertIn(part, complaint)
        self.startSecond()
        self.listener.waitFor("connector uid-2 connected")  # with the certificate that was there before
        self.replacePair(self.authority.server())
        self.listener.waitFor("changed files are in force")
        complaints = [line for line in self.listener.lines if "is damaged" in line]
        self.assertEqual([complaint], complaints)

    def test_aCertificateWaitsForItsKey(self) -> None:
        self.startListener()
        fresh = self.other.server()
        self.file("server.crt", pem(*fresh.chain))
        self.listener.send(SIGHUP)
        self.listener.waitFor("the old ones stay in force", "this private key belongs to no certificate")
        self.startSecond()
        self.listener.waitFor("connector uid-2 connected")
        self.file("server.key", keyPem(fresh.key))
        self.listener.send(SIGHUP)
        self.listener.waitFor("changed files are in force")

    def test_aNewCaIsTrustedFromThenOn(self) -> None:
        self.startListener()
        second = self.startSecond(self.other.issue("uid-2"))
        second.waitFor("our certificate isn't signed by a CA that is trusted there (TLS alert 48)")
        self.file("ca.crt", pem(self.authority.cert, self.other.cert))
        self.listener.send(SIGHUP)
        self.listener.waitFor("connector uid-2 connected")

    def test_aSignalWithoutChangesChangesNothing(self) -> None:
        self.startBoth()
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        for end in (self.listener, self.connector):
            end.send(SIGHUP)
            end.waitFor("told to look at its files (SIGHUP)")
        self.exchange(visitor, target, 0)
        self.exchange(target, visitor, 0)
        self.assertEqual([], [line for line in self.listener.lines if "lost" in line or "in force" in line])
        for connection in (visitor, target):
            connection.close()
        self.assertEnds(self.connector, self.listener)


class ConnectorTests(ReloadCase):
    """The connector's files."""

    def test_aNewCertificateIsShownWhileTheVisitorsOfTheOldSessionStay(self) -> None:
        self.startBoth()
        server = self.listen()
        port = self.entrance(server)
        visitor, target = self.pair(server, port)
        for number in range(4):
            self.exchange(visitor, target, number)
            self.exchange(target, visitor, number)
            if number == 1:
                self.authority.issue("uid-1").writePair(str(self.directory), "client")
                self.connector.send(SIGHUP)
                self.listener.waitFor("connector uid-1 connected")
        self.assertEcho(server, port)
        ends = [line for line in self.listener.lines if "lost" in line or "closed" in line or "refused" in line]
        self.assertEqual([], ends)

    def test_aBrokenFileChangesNothing(self) -> None:
        self.environment["SWC_POLL_SECONDS"] = "0.05"
        self.startBoth()
        self.file("client.key", b"nonsense")
        self.connector.waitFor("the old ones stay in force", "client_key_path", "not PEM")
        server = self.listen()
        self.assertEcho(server, self.entrance(server))
        self.assertEqual([], [line for line in self.listener.lines if "uid-1 lost" in line])

    def test_aCertificateWaitsForItsKey(self) -> None:
        self.startBoth()
        fresh = self.authority.issue("uid-1")
        self.file("client.crt", pem(*fresh.chain))
        self.connector.send(SIGHUP)
        self.connector.waitFor("the old ones stay in force", "this private key belongs to no certificate")
        self.file("client.key", keyPem(fresh.key))
        self.connector.send(SIGHUP)
        self.connector.waitFor("changed files are in force", "client.crt")

    def test_aNewCaIsTrustedFromThenOn(self) -> None:
        self.startListener()
        second = self.startSecond(ca=self.other)
        second.waitFor("we refused the listener: its certificate isn't signed by a CA that is trusted there")
        self.file("second-ca.crt", pem(self.authority.cert))
        second.send(SIGHUP)
        self.listener.waitFor("connector uid-2 connected")

    def test_aRevokedListenerIsRefusedFromThenOn(self) -> None:
        self.file("list.crl", pem(self.authority.crl()))
        self.environment["SWC_CRL_PATHS"] = "list.crl"
        fresh = self.authority.server()
        self.replacePair(fresh)
        self.startBoth()
        self.file("list.crl", pem(self.authority.crl(fresh)))
        self.connector.send(SIGHUP)
        self.connector.waitFor("changed files are in force", "list.crl")
        self.listener.end()
        self.startListener()
        self.connector.waitFor("we refused the listener: its certificate has been revoked (TLS alert 44)")
        self.listener.waitFor("refused", "certificate revoked")
