"""The connector as a whole, with a carrier in memory."""

import os

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.connector import service
from socketwarp.errors import Code, ConfigurationError
from socketwarp.interfaces import Address, ICredentials, ISession
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.settings import ConnectorSettings
from socketwarp.wire.preamble import formatPreamble29
from tests.certs import Authority, Paths
from tests.connector.fakes import TargetReactor
from tests.fakes import sessionPair, settle


class ConnectorTests(SynchronousTestCase):
    """Made of settings, run, stopped."""

    def setUp(self) -> None:
        self.reactor = TargetReactor()
        self.calls: list[tuple[Address, str, ICredentials, list[str], TransportSettings]] = []
        self.attempts: list[Deferred[ISession]] = []
        self.patch(service, "connect", self.connect)
        os.mkdir(directory := self.mktemp())
        self.paths = Authority().issue("uid-1").write(directory)

    def connect(
        self,
        reactor: object,
        address: Address,
        serverName: str,
        credentials: ICredentials,
        protocols: list[str],
        settings: TransportSettings,
    ) -> Deferred[ISession]:
        self.calls.append((address, serverName, credentials, protocols, settings))
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def settings(self, paths: Paths) -> ConnectorSettings:
        return ConnectorSettings(
            certPath=paths.cert,  # type: ignore[arg-type]  # the field's converter takes text
            keyPath=paths.key,  # type: ignore[arg-type]  # as above
            caPath=paths.ca,  # type: ignore[arg-type]  # as above
            serverName="127.0.0.1",
            idleTimeout=31.0,
            keepAlive=7.0,
            handshakeTimeout=3.0,
            streamWindow=20_000,
            sessionWindow=30_000,
            streamLimit=40,
        )

    def start(self) -> IService:
        connector = service.makeConnector(self.settings(self.paths), self.reactor)
        verifyObject(IService, connector)
        connector.startService()
        return connector

    def test_settingsReachTheTransport(self) -> None:
        """All of them, with the name that the listener's certificate must carry."""
        self.addCleanup(self.start().stopService)
        [(address, serverName, credentials, protocols, transport)] = self.calls
        self.assertEqual((address, serverName), (("127.0.0.1", 11443), "127.0.0.1"))
        verifyObject(ICredentials, credentials)
        self.assertEqual(protocols, ["hq-29"])
        expected = TransportSettings(
            idleTimeout=31.0,
            keepAlive=7.0,
            handshakeTimeout=3.0,
            streamWindow=20_000,
            sessionWindow=30_000,
            streamLimit=40,
        )
        self.assertEqual(transport, expected)

    def test_visitorsReachTheirTargets(self) -> None:
        """And stopping ends session and connections before its Deferred fires."""
        connector = self.start()
        listener, session = sessionPair(self.reactor)
        self.attempts[0].callback(session)
        stream = self.successResultOf(listener.openStream())
        stream.write(formatPreamble29("1-1", "10.0.0.1", 80))
        settle(self.reactor)
        target = self.reactor.dials[0].succeeds()
        stopped = connector.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(session.closedWith, (Code.SHUTDOWN, "the connector is stopping"))
        settle(self.reactor)
        self.successResultOf(stopped)
        self.assertTrue(target.sawReset)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_aNewCertificateIsUsedForTheNextSession(self) -> None:
        """Without a restart."""
        self.addCleanup(self.start().stopService)
        renewed = Authority().issue("uid-1")
        renewed.write(os.path.dirname(self.paths.cert))
        self.reactor.advance(6.0)
        self.attempts[0].errback(OSError("lost"))
        self.reactor.advance(60.0)
        self.assertEqual(self.calls[-1][2].chain[0], renewed.cert)

    def test_filesAreCheckedBeforeAnythingIsOpened(self) -> None:
        """A key that isn't the certificate's."""
        os.mkdir(directory := self.mktemp())
        other = Authority().issue("uid-2").write(directory)
        wrong = Paths(self.paths.cert, other.key, self.paths.ca)
        with self.assertRaises(ConfigurationError) as caught:
            service.makeConnector(self.settings(wrong), self.reactor)
        self.assertIn("client_key_path", str(caught.exception))
        self.assertEqual(self.calls, [])
