"""The connector as a whole, with a carrier in memory."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.connector import service
from socketwarp.connector.carriers import HEAD_START, TRIAL_CAP
from socketwarp.connector.conversation import REHEARSAL_SECONDS
from socketwarp.errors import Code, ConfigurationError, SessionLost
from socketwarp.interfaces import Address, ICredentials, ISession, IStream
from socketwarp.memory import LOOK_SECONDS
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.settings import ConnectorSettings, ListenerName
from socketwarp.tls import client as tls
from socketwarp.tls.session import TlsSettings
from socketwarp.wire.messages import Goaway, Hello, Welcome
from socketwarp.wire.preamble import Preamble, formatPreamble29
from socketwarp.wire.streams import formatPreamble1
from tests.certs import Authority, Paths
from tests.connector.fakes import TargetReactor
from tests.fake_tcp import FakeSocket
from tests.fakes import FakeSession, sessionPair, settle
from tests.talker import Talker

#: Seconds, the setting's default.
TRIAL_BASE = 60.0


class ConnectorTests(SynchronousTestCase):
    """Made of settings, run, stopped."""

    def setUp(self) -> None:
        self.reactor = TargetReactor()
        self.calls: list[tuple[Address, str, ICredentials, list[str], TransportSettings]] = []
        self.attempts: list[Deferred[ISession]] = []
        self.patch(service, "connect", self.connect)
        self.tlsCalls: list[tuple[str, ICredentials, TlsSettings]] = []
        self.tlsAttempts: list[Deferred[ISession]] = []
        self.sockets: list[tuple[object, ...]] = []
        self.patch(tls, "connect", self.connectTls)
        self.patch(service, "dialSocket", lambda poll, clock, *arguments: self.sockets.append(arguments))
        self.patch(service, "dialThrough", lambda poll, clock, *arguments: self.sockets.append(arguments))
        self.patch(service, "Poll", lambda reactor: SimpleNamespace(soon=None))
        self.patch(service, "dial", lambda poll, clock, *arguments: self.reactor.dial(*arguments))
        self.others: tuple[ListenerName, ...] = ()
        self.changes: dict[str, object] = {}
        os.mkdir(directory := self.mktemp())
        self.state = Path(directory).absolute() / "state"
        self.paths = Authority().issue("uid-1").write(directory)

    def connect(
        self,
        reactor: object,
        address: Address,
        serverName: str,
        credentials: ICredentials,
        protocols: list[str],
        settings: TransportSettings,
        soon: None,
    ) -> Deferred[ISession]:
        self.calls.append((address, serverName, credentials, protocols, settings))
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def connectTls(
        self,
        poll: object,
        clock: object,
        dial: Callable[[], object],
        serverName: str,
        credentials: ICredentials,
        settings: TlsSettings,
    ) -> Deferred[ISession]:
        dial()
        self.tlsCalls.append((serverName, credentials, settings))
        self.tlsAttempts.append(Deferred())
        return self.tlsAttempts[-1]

    def settings(self, paths: Paths) -> ConnectorSettings:
        given: dict[str, object] = dict(
            certPath=paths.cert,
            keyPath=paths.key,
            caPath=paths.ca,
            serverName="127.0.0.1",
            idleTimeout=31.0,
            keepAlive=7.0,
            handshakeTimeout=3.0,
            streamWindow=20_000,
            sessionWindow=30_000,
            streamLimit=40,
            drainSeconds=20.0,
            serverNames=self.others,
            stateDir=self.state,
        )
        return ConnectorSettings(**(given | self.changes))  # type: ignore[arg-type]  # converters take text, too

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

    def test_lanesLeaveDescriptorsForTheTargets(self) -> None:
        """As many as the process may have, which it sees to, and fewer than the setting says if need be."""
        for limit, lanes in ((100_000, 40), (104, 20), (10, 1)):
            self.patch(service, "raiseLimit", lambda limit=limit: limit)
            self.changes["carrier"] = "tls"
            self.addCleanup(self.start().stopService)
            self.assertEqual(lanes, self.tlsCalls[-1][2].streamLimit)

    def test_listenersShareTheDescriptorsForLanes(self) -> None:
        self.patch(service, "raiseLimit", lambda: 104)
        self.changes |= {"carrier": "tls", "serverNames": (ListenerName("b.example.net", None),)}
        self.addCleanup(self.start().stopService)
        self.assertEqual(10, self.tlsCalls[-1][2].streamLimit)

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
        self.assertEqual(("socketwarp", 40, ("ping", "finishes")), (hello.software, hello.streamLimit, hello.features))
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
        self.tlsAttempts[0].errback(OSError("lost"))
        self.reactor.advance(60.0)
        self.assertEqual(self.calls[-1][2].chain[0], renewed.cert)

    # -- carriers

    def welcomed(self, attempt: Deferred[ISession], carrier: str) -> tuple[Talker, FakeSession]:
        """The attempt gives a session, in which the listener admits us; its end of the control stream, and ours."""
        listener, session = sessionPair(self.reactor, "socketwarp/1")
        session.carrier = listener.carrier = carrier
        talker = Talker(listener)
        attempt.callback(session)
        settle(self.reactor)
        if talker.heard(Hello):
            talker.say(Welcome("uid-1", "9a41", 50.0, 60.0))
            settle(self.reactor)
        return talker, session

    def byTls(self) -> tuple[Talker, FakeSession]:
        """QUIC isn't answered, and TLS is."""
        self.reactor.advance(HEAD_START)
        return self.welcomed(self.tlsAttempts[-1], "tls")

    def rehearse(self) -> tuple[Talker, FakeSession]:
        """QUIC is tried again, and holds."""
        self.reactor.advance(TRIAL_BASE)
        talker, session = self.welcomed(self.attempts[-1], "quic")
        for _ in range(REHEARSAL_SECONDS):
            self.reactor.advance(1.0)
            settle(self.reactor)
        return talker, session

    def test_withoutAnAnswerByQuicItIsTls(self) -> None:
        """With the same name and certificate, to the same port; the log says so."""
        self.addCleanup(self.start().stopService)
        self.reactor.advance(HEAD_START - 0.1)
        self.assertEqual(([], []), (self.tlsCalls, self.sockets))
        self.reactor.advance(0.1)
        [(serverName, credentials, transport)] = self.tlsCalls
        self.assertEqual(("127.0.0.1", self.calls[0][2]), (serverName, credentials))
        self.assertEqual([(("127.0.0.1", 11443), 3.0)], self.sockets)
        expected = TlsSettings(idleTimeout=31.0, keepAlive=7.0, handshakeTimeout=3.0, streamLimit=40)
        self.assertEqual(expected, transport)
        with capturedLogs() as events:
            session = self.welcomed(self.tlsAttempts[0], "tls")[1]
        [event] = [event for event in events if "carrier" in event]
        self.assertEqual(("tls", "socketwarp/1"), (event["carrier"], event["protocol"]))
        self.visitor(session.other, formatPreamble1(Preamble("1-1", "10.0.0.1", 80)))

    def test_quicThatComesBackIsChangedOverToWithoutDroppingAnybody(self) -> None:
        """The session by TLS gets a goaway once the other one is admitted, and finishes its streams."""
        self.addCleanup(self.start().stopService)
        talker, older = self.byTls()
        _, target = self.visitor(older.other, formatPreamble1(Preamble("1-1", "10.0.0.1", 80)))
        other, newer = self.rehearse()
        self.assertEqual(([], 1), (talker.heard(Goaway), len(other.heard(Hello))))
        self.assertEqual(talker.heard(Hello)[0].instance, other.heard(Hello)[0].instance)
        other.say(Welcome("uid-1", "9a42", 50.0, 60.0))
        settle(self.reactor)
        self.assertEqual("renewed", talker.heard(Goaway)[0].reason)
        self.assertEqual((True, True, False), (older.isOpen, newer.isOpen, target.sawReset))
        self.visitor(newer.other, formatPreamble1(Preamble("1-2", "10.0.0.1", 80)))

    def test_whatWorkedIsTriedFirstAtTheNextStart(self) -> None:
        connector = self.start()
        self.byTls()
        stopped = connector.stopService()
        for _ in range(5):
            self.reactor.advance(10)
            settle(self.reactor)
        self.successResultOf(stopped)
        self.calls.clear()
        self.tlsCalls.clear()
        self.addCleanup(self.start().stopService)
        self.assertEqual((0, 1), (len(self.calls), len(self.tlsCalls)))

    def test_stoppingEndsARehearsal(self) -> None:
        """And waits for the end of its session."""
        self.changes = {"drainSeconds": 0.0}
        connector = self.start()
        self.byTls()
        self.reactor.advance(TRIAL_BASE)
        _, session = self.welcomed(self.attempts[-1], "quic")
        stopped = connector.stopService()
        self.assertNoResult(stopped)
        self.assertFalse(session.isOpen)
        settle(self.reactor)
        self.successResultOf(stopped)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_theNetworkHasChanged(self) -> None:
        """Carriers and links hear of it."""
        connector = self.start()
        self.addCleanup(connector.stopService)
        self.byTls()
        for _ in range(4):
            self.reactor.advance(2000)
            self.attempts[-1].errback(SessionLost("no answer"))
            settle(self.reactor)
        self.reactor.advance(TRIAL_BASE)
        count = len(self.attempts)
        connector._wake()  # type: ignore[attr-defined]  # as the network's watch does
        self.reactor.advance(0)
        self.assertEqual(count + 1, len(self.attempts))

    def test_oneCarrierAlone(self) -> None:
        """Is all that is tried, however long it isn't answered, and after it has failed."""
        for carrier, attempts, others in (
            ("quic", self.attempts, self.tlsAttempts),
            ("tls", self.tlsAttempts, self.attempts),
        ):
            self.changes = {"carrier": carrier, "tlsPort": 443}
            del attempts[:], others[:]
            connector = self.start()
            self.reactor.advance(2 * HEAD_START)
            attempts[-1].errback(SessionLost("no answer"))
            self.reactor.advance(60)
            self.assertEqual((2, 0), (len(attempts), len(others)))
            _, session = self.welcomed(attempts[-1], carrier)
            self.reactor.advance(2 * TRIAL_CAP)
            self.assertEqual((2, 0, True), (len(attempts), len(others), session.isOpen))
            connector.stopService()
        self.assertEqual({(("127.0.0.1", 443), 3.0)}, set(self.sockets))

    def test_throughAProxy(self) -> None:
        """It is what is resolved and connected to; the listener's name is the proxy's to resolve."""
        self.changes = {"proxy": "http://me:x@proxy:3128", "tlsPort": 443, "serverName": "tunnel.example.net"}
        self.reactor.nameResolver.table["proxy"] = ["192.0.2.9"]
        with capturedLogs() as events:
            self.addCleanup(self.start().stopService)
        self.assertEqual([("192.0.2.9", 3128), ("tunnel.example.net", 443), "me:x", 3.0], list(self.sockets[0]))
        self.assertEqual([("proxy", 3128, "TCP")], self.reactor.nameResolver.asked)
        self.assertEqual(("tunnel.example.net", []), (self.tlsCalls[0][0], self.calls))
        [event] = [event for event in events if "proxy" in event]
        self.assertEqual("http://proxy:3128", event["proxy"])

    def test_filesAreCheckedBeforeAnythingIsOpened(self) -> None:
        """A key that isn't the certificate's."""
        os.mkdir(directory := self.mktemp())
        other = Authority().issue("uid-2").write(directory)
        wrong = Paths(self.paths.cert, other.key, self.paths.ca)
        with self.assertRaises(ConfigurationError) as caught:
            service.makeConnector(self.settings(wrong), self.reactor)
        self.assertIn("client_key_path", str(caught.exception))
        self.assertEqual(self.calls, [])
