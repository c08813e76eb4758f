"""The connector as a whole, with a carrier in memory."""

import os

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.connector import service
from socketwarp.errors import Code, ConfigurationError, SessionLost
from socketwarp.interfaces import Address, ICredentials, ISession, IStream
from socketwarp.memory import LOOK_SECONDS
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.settings import ConnectorSettings, ListenerName
from socketwarp.wire.messages import Goaway, Hello, Welcome
from socketwarp.wire.preamble import Preamble, formatPreamble29
from socketwarp.wire.streams import formatPreamble1
from tests.certs import Authority, Paths
from tests.connector.fakes import TargetReactor
from tests.fake_tcp import FakeSocket
from tests.fakes import FakeSession, sessionPair, settle
from tests.talker import Talker


class ConnectorTests(SynchronousTestCase):
    """Made of settings, run, stopped."""

    def setUp(self) -> None:
        self.reactor = TargetReactor()
        self.calls: list[tuple[Address, str, ICredentials, list[str], TransportSettings]] = []
        self.attempts: list[Deferred[ISession]] = []
        self.patch(service, "connect", self.connect)
        self.patch(service, "Poll", lambda reactor: reactor)
        self.patch(service, "dial", lambda poll, clock, *arguments: self.reactor.dial(*arguments))
        self.others: tuple[ListenerName, ...] = ()
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
            drainSeconds=20.0,
            serverNames=self.others,
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
        self.assertEqual(protocols, ["socketwarp/1", "hq-29"])
        expected = TransportSettings(
            idleTimeout=31.0,
            keepAlive=7.0,
            handshakeTimeout=3.0,
            streamWindow=20_000,
            sessionWindow=30_000,
            streamLimit=40,
        )
        self.assertEqual(transport, expected)

    def visitor(self, listener: FakeSession, preamble: bytes) -> tuple[IStream, FakeSocket]:
        """The stream of one who has reached a target, and the target."""
        stream = self.successResultOf(listener.openStream())
        stream.write(preamble)
        settle(self.reactor)
        target = self.reactor.dials[-1].succeeds()
        settle(self.reactor)
        return stream, target

    def test_visitorsReachTheirTargets(self) -> None:
        """And stopping ends session and connections before its Deferred fires, when it has waited long enough."""
        connector = self.start()
        listener, session = sessionPair(self.reactor)
        self.attempts[0].callback(session)
        _, target = self.visitor(listener, formatPreamble29("1-1", "10.0.0.1", 80))
        stopped = connector.stopService()
        self.reactor.advance(19.9)
        settle(self.reactor)
        self.assertIsNone(session.closedWith)
        late = self.successResultOf(listener.openStream())
        late.write(formatPreamble29("1-2", "10.0.0.1", 80))
        settle(self.reactor)
        self.assertEqual(1, len(self.reactor.dials))
        self.assertNoResult(stopped)
        self.reactor.advance(0.1)
        self.assertEqual(session.closedWith, (Code.SHUTDOWN, "the connector is stopping"))
        settle(self.reactor)
        self.successResultOf(stopped)
        self.assertTrue(target.sawReset)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_streamsAreRefusedWhileMemoryIsUsedUp(self) -> None:
        """And served when there is some again."""
        self.addCleanup(self.start().stopService)
        listener, session = sessionPair(self.reactor)
        self.attempts[0].callback(session)
        refused = self.successResultOf(listener.openStream())
        refused.write(formatPreamble29("1-1", "10.0.0.1", 80))
        session.buffered = 2**30
        with capturedLogs() as events:
            self.reactor.advance(LOOK_SECONDS)
        self.assertIn(2**30, [event.get("limit") for event in events if event["log_level"] is LogLevel.warn])
        settle(self.reactor)
        count = len(self.reactor.dials)
        late = self.successResultOf(listener.openStream())
        late.write(formatPreamble29("1-2", "10.0.0.1", 80))
        settle(self.reactor)
        self.assertEqual(count, len(self.reactor.dials))
        session.buffered = 0
        self.reactor.advance(LOOK_SECONDS)
        self.visitor(listener, formatPreamble29("1-3", "10.0.0.1", 80))
        self.assertEqual(count + 1, len(self.reactor.dials))

    def test_stoppingLetsConnectionsFinish(self) -> None:
        """The listener is told, opens no more streams, and ends the session when the last one is over."""
        connector = self.start()
        listener, session = sessionPair(self.reactor, "socketwarp/1")
        listening = Talker(listener)
        self.attempts[0].callback(session)
        settle(self.reactor)
        [hello] = listening.heard(Hello)
        self.assertEqual(("socketwarp", 40, ("ping",)), (hello.software, hello.streamLimit, hello.features))
        listening.say(Welcome("uid-1", "9a41", 50.0, 60.0))
        _, target = self.visitor(listener, formatPreamble1(Preamble("1-1", "10.0.0.1", 80)))
        stopped = connector.stopService()
        settle(self.reactor)
        self.assertEqual("shutdown", listening.heard(Goaway)[0].reason)
        self.reactor.advance(10)
        # What was on its way when the listener heard it still gets through.
        _, other = self.visitor(listener, formatPreamble1(Preamble("1-2", "10.0.0.1", 80)))
        for each in (target, other):
            each.remoteSends(b"all of it")
            each.remoteFinishes()
        settle(self.reactor)
        self.assertFalse(target.sawReset or other.sawReset)
        listener.close(Code.NO_ERROR, "all streams are over")
        settle(self.reactor)
        self.reactor.advance(20)
        settle(self.reactor)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_withoutConnectionsStoppingIsQuick(self) -> None:
        """Also when the listener doesn't answer."""
        connector = self.start()
        session = sessionPair(self.reactor, "socketwarp/1")[1]
        self.attempts[0].callback(session)
        stopped = connector.stopService()
        for _ in range(2):
            self.reactor.advance(service.FAREWELL_SECONDS)
            settle(self.reactor)
        self.successResultOf(stopped)

    def test_eachListenerHasASessionOfItsOwn(self) -> None:
        """At the same time, under its own name; one that is lost is sought again, and the other stays."""
        self.others = (ListenerName("127.0.0.2"), ListenerName("127.0.0.3", 11444))
        self.addCleanup(self.start().stopService)
        self.assertEqual(
            [
                (("127.0.0.1", 11443), "127.0.0.1"),
                (("127.0.0.2", 11443), "127.0.0.2"),
                (("127.0.0.3", 11444), "127.0.0.3"),
            ],
            [call[:2] for call in self.calls],
        )
        sessions = [sessionPair(self.reactor)[1] for _ in self.attempts]
        for attempt, session in zip(list(self.attempts), sessions, strict=True):
            attempt.callback(session)
        sessions[1].lose(SessionLost("gone"))
        self.reactor.advance(60)
        self.assertEqual(("127.0.0.2", 11443), self.calls[-1][0])
        self.assertEqual([True, False, True], [session.isOpen for session in sessions])

    def test_aNewCertificateIsUsedAtOnce(self) -> None:
        """Beside the session with the old one."""
        self.addCleanup(self.start().stopService)
        listener, session = sessionPair(self.reactor, "socketwarp/1")
        listening = Talker(listener)
        self.attempts[0].callback(session)
        settle(self.reactor)
        listening.say(Welcome("uid-1", "9a41", 50.0, 60.0))
        settle(self.reactor)
        renewed = Authority().issue("uid-1")
        renewed.write(os.path.dirname(self.paths.cert))
        self.reactor.advance(6.0)
        self.assertEqual(2, len(self.calls))
        self.assertEqual(self.calls[-1][2].chain[0], renewed.cert)
        self.assertTrue(session.isOpen)

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
