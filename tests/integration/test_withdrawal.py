"""A running connector's certificate is withdrawn: its session ends, its visitors are reset, both logs say why."""

from tests.certs import pem, writeFile

from .processes import OverTls, Process, ScepCase, TunnelCase, readToEnd, receive


class WithdrawalCase(TunnelCase):
    """
    A listener that verifies its connectors again within every second.

    :ivar visitor: has a connection to a target through the connector; ``target``: the other end of that.
    """

    def setUp(self) -> None:
        super().setUp()
        self.environment["SWL_RECHECK_SECONDS"] = "1"

    def startTraffic(self) -> None:
        self.startBoth()
        server = self.listen()
        self.visitor, self.target = self.pair(server, self.entrance(server))

    def assertGoesOn(self) -> None:
        """Bytes still go through the connection that was there before."""
        self.visitor.sendall(b"still there?")
        self.assertEqual(b"still there?", receive(self.target, 12))

    def assertIsCutOff(self, reason: str, connectorSays: str) -> None:
        """The session has ended for this reason, and the connections with it."""
        self.listener.waitFor("connector uid-1 lost", reason)
        self.connector.waitFor(connectorSays, reason)
        self.assertEqual(["reset", "reset"], [readToEnd(self.visitor), readToEnd(self.target)])

    def file(self, name: str, data: bytes) -> None:
        """Put a file into the place of another, as a whole."""
        writeFile(str(self.directory), name, data)


class ScepTests(WithdrawalCase, ScepCase):
    """The SCEP server has a word."""

    def startAnother(self) -> Process:
        """Start a connector with another uid, which the SCEP server knows."""
        self.tell("/admin/api/client/add", uid="uid-2")
        self.authority.issue("uid-2").writePair(str(self.directory), "second")
        self.settings |= {"client_cert_path": "second.crt", "client_key_path": "second.key"}
        return self.start("swconnector")

    def test_aRevokedConnectorIsCutOffAndComesBackWhenItMay(self) -> None:
        self.startTraffic()
        self.tell("/admin/api/client/revoke", uid="uid-1")
        self.assertIsCutOff("User Not Found", "the listener's verifier refuses our certificate")
        self.listener.waitFor("refused", "User Not Found")
        self.tell("/admin/api/client/add", uid="uid-1")
        self.listener.waitFor("connector uid-1 connected")

    def test_aFaultOfTheServerKeepsWhoIsThereAndRefusesWhoComes(self) -> None:
        self.startTraffic()
        self.tell("/fake/verify", behaviour="close")
        self.listener.waitFor("connector uid-1 keeps running unverified", "the SCEP server")
        self.assertIn('socketwarp_events_total{event="connector.unverified"}', self.call("GET", "/metrics")[1])
        newcomer = self.startAnother()
        self.listener.waitFor("refused", "the SCEP server")
        newcomer.waitFor("the SCEP server")
        self.assertGoesOn()
        self.tell("/fake/verify", behaviour="proper")
        self.listener.waitFor("connector uid-1 is verified again")
        self.assertGoesOn()
        self.assertEqual([], [line for line in self.listener.lines if "uid-1 lost" in line])

    def test_theGraceOfAFaultEnds(self) -> None:
        self.environment["SWL_RECHECK_GRACE_SECONDS"] = "0"
        self.startTraffic()
        self.tell("/fake/verify", behaviour="database")
        self.assertIsCutOff("Failed to get RCs", "the listener can't ask its verifier who we are")

    def test_ourRevocationListsCountBesideTheServer(self) -> None:
        self.file("list.crl", pem(self.authority.crl()))
        self.environment["SWL_CRL_PATHS"] = "list.crl"
        leaf = self.authority.issue("uid-1")
        leaf.write(str(self.directory), "client")
        self.startTraffic()
        self.file("list.crl", pem(self.authority.crl(leaf)))
        self.assertIsCutOff("certificate revoked", "the listener's verifier refuses our certificate")


class LocalTests(WithdrawalCase):
    """Files have."""

    def test_aNewRevocationListCutsItsConnectorsOff(self) -> None:
        self.file("list.crl", pem(self.authority.crl()))
        self.environment["SWL_CRL_PATHS"] = "list.crl"
        leaf = self.authority.issue("uid-1")
        leaf.write(str(self.directory), "client")
        self.startTraffic()
        self.file("list.crl", pem(self.authority.crl(leaf)))
        self.assertIsCutOff("certificate revoked", "the listener's verifier refuses our certificate")
        self.listener.waitFor("refused", "certificate revoked")
        self.connector.waitFor("our certificate has been revoked (TLS alert 44)")

    def test_aNewDenyCutsItsConnectorOff(self) -> None:
        self.file("access", b"allow uid-1\n")
        self.environment["SWL_ACCESS_PATH"] = "access"
        self.startTraffic()
        self.file("access", b"deny uid-1\n")
        self.assertIsCutOff("uid-1 is denied by the access file", "the listener's verifier refuses our certificate")
        self.file("access", b"deny uid-2\n")
        self.listener.waitFor("connector uid-1 connected")


class ScepOverTlsTests(OverTls, ScepTests):
    """The same over TLS."""


class LocalOverTlsTests(OverTls, LocalTests):
    """The same over TLS."""
