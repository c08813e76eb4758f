"""Either end goes away and comes back; the other one waits for it."""

from signal import SIGKILL

from .processes import TunnelCase, readToEnd


class RestartTests(TunnelCase):
    """A visitor before and a visitor after."""

    def setUp(self) -> None:
        super().setUp()
        self.startBoth()
        self.server = self.listen()
        self.port = self.entrance(self.server)
        self.assertEcho(self.server, self.port)

    def test_afterARestartOfTheListenerItsPortsAreOpenAndTheConnectorIsBack(self) -> None:
        self.assertEqual(0, self.listener.end())
        self.connector.waitFor("the listener stops", "next attempt")
        self.startListener()
        self.listener.waitFor("connector uid-1 connected")
        self.assertEqual(1, self.call("GET", "/list")[1].count(f'"port": {self.port}'))
        self.assertEcho(self.server, self.port)

    def test_anEndWithoutWarningIsAResetForWhomItServed(self) -> None:
        visitor, target = self.pair(self.server, self.port)
        self.connector.end(SIGKILL)
        self.assertEqual("reset", readToEnd(target))
        self.listener.end(SIGKILL)
        self.assertEqual("reset", readToEnd(visitor))

    def test_afterAnEndWithoutWarningTheListenersPortsAreOpenAndTheConnectorIsBack(self) -> None:
        """With the default keep-alive; a stateless reset (RFC 9000 §10.3) tells the connector, and no time-out."""
        self.listener.end(SIGKILL)
        self.startListener()
        self.connector.waitFor("was restarted and doesn't know this session", "next attempt")
        self.listener.waitFor("connector uid-1 connected")
        self.assertEcho(self.server, self.port)

    def test_afterARestartOfTheConnectorVisitorsAreCarriedAgain(self) -> None:
        self.assertEqual(0, self.connector.end())
        self.listener.waitFor("connector uid-1 lost", "the connector is stopping")
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected")
        self.assertEcho(self.server, self.port)

    def test_aConnectorThatVanishedIsReplacedByItsSuccessorAtOnce(self) -> None:
        visitor, _ = self.pair(self.server, self.port)
        self.connector.end(SIGKILL)
        self.startConnector()
        self.listener.waitFor("connector uid-1", "gives way")
        self.listener.waitFor("connector uid-1 connected")
        self.assertEqual("reset", readToEnd(visitor))
        self.assertEcho(self.server, self.port)

    def test_aConnectorThatCrashesAgainAndAgainIsBackEachTime(self) -> None:
        for _ in range(8):
            self.connector.end(SIGKILL)
            self.startConnector()
            self.listener.waitFor("connector uid-1 connected")
            self.assertEcho(self.server, self.port)
            self.assertFalse([line for line in self.connector.lines if "next attempt" in line])


class OrderTests(TunnelCase):
    """Who comes first."""

    def test_aConnectorWaitsForAListenerThatIsNotThereYet(self) -> None:
        self.startListener()
        self.assertEqual(0, self.listener.end())
        self.environment["SWC_HANDSHAKE_SECONDS"] = "1"
        self.startConnector()
        self.connector.waitFor("next attempt")
        self.startListener()
        self.listener.waitFor("connector uid-1 connected")
        server = self.listen()
        self.assertEcho(server, self.entrance(server))
