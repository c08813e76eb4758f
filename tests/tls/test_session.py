"""The connector's end of a session as it is made, and both ends' signs of life."""

import socket
from itertools import chain, repeat

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, succeed

from socketwarp.errors import Code, LimitReached, SessionLost
from socketwarp.interfaces import ICredentials, ISession
from socketwarp.tls import calling, client, contexts, server
from socketwarp.tls.client import _indication, connect
from socketwarp.tls.frames import Kind, formatFrame
from socketwarp.tls.lane import HELD_LIMIT
from socketwarp.tls.serving import ServingSession
from socketwarp.tls.session import FAREWELL_SECONDS, SILENT_SECONDS, TlsSettings
from socketwarp.tls.transport import RECORD_SIZE, RECORDS_PER_READ

from ..carriers import Notes
from ..certs import world
from ..tcp.fakes import socketPair
from .rig import Rig
from .test_server import ServerCase


class ClientTests(ServerCase):
    def test_cancellingGivesUp(self) -> None:
        connecting = self.rig.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError, SessionLost)
        self.rig.wait(11)
        self.assertEqual(([], [], {}), (self.rig.sessions, self.rig.clock.getDelayedCalls(), self.server._arrivals))

    def test_aServerThatSaysNothingIsGivenUp(self) -> None:
        ours, remote = socketPair()
        self.addCleanup(remote.close)
        connecting = self.connectBy(ours)
        self.rig.wait(9.9)
        self.assertNoResult(connecting)
        self.rig.wait(0.2)
        self.assertIn("too long", str(self.failureResultOf(connecting, SessionLost).value))
        self.assertEqual([], self.rig.clock.getDelayedCalls())

    def test_aServerThatIsNoListenerIsNamedSo(self) -> None:
        ours, remote = socketPair()
        self.addCleanup(remote.close)
        connecting = self.connectBy(ours)
        remote.send(b"220 mail.example.net ESMTP\r\n")
        self.rig.run()
        self.assertIn("TLS", str(self.failureResultOf(connecting, SessionLost).value))

    def connectBy(self, connection: socket.socket) -> "Deferred[ISession]":
        return connect(
            self.rig.poll,
            self.rig.clock,
            lambda: succeed(connection),
            "localhost",
            world().checking("server"),
            self.settings,
        )

    def test_withoutATicketTheSessionIsOver(self) -> None:
        for ticket in (None, "", "xyz", "00" * 15):
            connecting = self.rig.connect()
            self.rig.run()
            client = self.successResultOf(connecting)
            client.admitted(ticket)
            self.assertFalse(client.isOpen)
            self.rig.wait(3)

    def test_aLaneThatCannotBeMadeIsTriedAgain(self) -> None:
        connecting = self.rig.connect()
        self.rig.run()
        client = self.successResultOf(connecting)
        assert isinstance(client, calling.CallingSession)
        self.rig.isDown = True
        client.admitted(self.rig.sessions[0].ticket)
        self.rig.wait(3.5)
        self.assertEqual({}, client.lanes)
        self.rig.isDown = False
        self.rig.wait(10)
        self.assertEqual(calling.SPARE_LANES, len(client.lanes))

    def test_aLaneThatIsRefusedIsAFailure(self) -> None:
        """Made at once again, it would be refused as often as a processor can."""
        self.rig.server._settings = TlsSettings(streamLimit=4)
        connecting = self.rig.connect()
        self.rig.run()
        client = self.successResultOf(connecting)
        client.admitted(self.rig.sessions[0].ticket)
        self.rig.wait(10)
        assert isinstance(self.rig.sessions[0], ServingSession)
        self.assertEqual(4, len(self.rig.sessions[0].lanes))
        self.assertLess(len(self.rig.dialled), 40)
        assert isinstance(client, calling.CallingSession)
        self.assertGreater(client._delay, calling.RETRY_SECONDS)

    def test_noMoreLanesAreMadeThanTheListenerTakes(self) -> None:
        self.rig.server._settings = TlsSettings(streamLimit=4)
        connecting = self.rig.connect()
        self.rig.run()
        client, session = self.successResultOf(connecting), self.rig.sessions[0]
        client.admitted(session.ticket, session.laneLimit)
        self.rig.wait(10)
        opened = [session.openStream() for _ in range(6)]
        self.rig.wait(10)
        self.assertEqual([True] * 4 + [False] * 2, [each.called for each in opened])
        self.assertEqual(1 + 4, len(self.rig.dialled))
        for each in opened:
            each.addErrback(lambda failure: failure.trap(SessionLost))

    def waiting(self) -> tuple[ServingSession, list[Deferred[socket.socket]]]:
        """A session whose lanes are never connected; what was asked for so far."""
        connecting = self.rig.connect()
        self.rig.run()
        client, session = self.successResultOf(connecting), self.rig.sessions[0]
        assert isinstance(client, calling.CallingSession) and isinstance(session, ServingSession)
        asked: list[Deferred[socket.socket]] = []

        def dial() -> Deferred[socket.socket]:
            asked.append(Deferred())
            return asked[-1]

        client._callListener.__self__._dial = dial  # type: ignore[attr-defined]  # a method, of who makes connections
        client.admitted(session.ticket)
        self.rig.run()
        return session, asked

    def test_fewLanesAreUnderWayAtATime(self) -> None:
        """However many visitors wait; one that fails is followed by no other before its pause is over."""
        session, asked = self.waiting()
        self.assertEqual(calling.SPARE_LANES, len(asked))
        for _ in range(100):
            session.openStream().addErrback(lambda failure: failure.trap(SessionLost))
        self.rig.run()
        self.assertEqual(calling.MAX_CALLS, len(asked))
        asked[0].errback(ConnectionRefusedError("nobody listens"))
        self.rig.run()
        self.assertEqual(calling.MAX_CALLS, len(asked))
        self.rig.wait(calling.RETRY_SECONDS)
        self.assertEqual(calling.MAX_CALLS + 1, len(asked))

    def test_thePausesGrowByChanceUntilAVisitorComes(self) -> None:
        chances = chain((0.0, 1.0, 0.5), repeat(1.0))
        self.patch(calling, "random", lambda: next(chances))
        connecting = self.rig.connect()
        self.rig.run()
        client, session = self.successResultOf(connecting), self.rig.sessions[0]
        self.rig.isDown = True
        client.admitted(session.ticket)
        self.rig.run()
        assert isinstance(client, calling.CallingSession)
        pauses = []
        for _ in range(3):
            assert client._pause is not None
            pauses.append(client._pause.getTime() - self.rig.clock.seconds())
            self.rig.wait(pauses[-1])
        self.assertEqual([0.5, 2.0, 3.0], pauses)
        self.rig.isDown = False
        self.rig.wait(8)
        self.successResultOf(session.openStream())
        self.rig.run()
        self.rig.isDown = True
        next(iter(client.lanes.values())).transport._fail("pulled out")
        self.rig.run()
        assert client._pause is not None
        self.assertEqual(calling.RETRY_SECONDS, client._pause.getTime() - self.rig.clock.seconds())

    def test_twoFailuresAreOnePause(self) -> None:
        """Eight lanes are tried at once; they don't each begin a row of their own."""
        connecting = self.rig.connect()
        self.rig.run()
        client = self.successResultOf(connecting)
        self.rig.isDown = True
        client.admitted(self.rig.sessions[0].ticket)
        self.rig.run()
        assert isinstance(client, calling.CallingSession)
        self.assertIsNotNone(client._pause)
        self.rig.wait(40)
        self.assertEqual(calling.MAX_RETRY_SECONDS, client._delay)
        client.close(0, "")
        self.failureResultOf(client.openStream(), SessionLost)
        self.rig.wait(3)
        self.rig.over()

    def test_aSessionWhoseListenerRefusesFurtherLanesIsOverOnceItIsSilent(self) -> None:
        """The listener has lost it, which the control connection doesn't hear: every answer is a refusal."""
        session, client = self.rig.pair()
        assert isinstance(session, ServingSession)
        ended = client.whenClosed()
        session._stopTimer()
        session.control.transport.pauseReading()
        self.rig.server._sessionEnded(session)
        for lane in tuple(session.lanes.values()):
            lane.transport.abort()
        self.rig.wait(3 * calling.RETRY_SECONDS + SILENT_SECONDS + self.rig.settings.keepAlive)
        self.assertTrue(client.isSilent)
        self.rig.wait(self.rig.settings.idleTimeout + self.rig.settings.keepAlive)
        self.assertIn("nothing was heard", str(self.successResultOf(ended)))
        session.close(0, "")

    def test_lanesUnderWayAreGivenUpWithTheirSession(self) -> None:
        connecting = self.rig.connect()
        self.rig.run()
        client = self.successResultOf(connecting)
        client.admitted(self.rig.sessions[0].ticket)  # their handshakes haven't gone on yet
        client.close(0, "")
        self.rig.wait(3)
        self.rig.over()

    def test_anAnswerThatIsNoAcceptanceEndsTheAttempt(self) -> None:
        self.patch(server, "formatFrame", lambda kind: formatFrame(Kind.FIN))
        connecting = self.rig.connect()
        self.rig.run()
        self.assertIn("protocol", str(self.failureResultOf(connecting, SessionLost).value))

    def test_aServerThatWasNotCheckedIsRefused(self) -> None:
        """Whatever OpenSSL was told: without our own check there is no session."""

        def unchecked(credentials: ICredentials) -> SSL.Context:
            context = contexts.clientContext(credentials)
            context.set_verify(SSL.VERIFY_NONE, contexts._letPass)
            return context

        self.patch(client, "clientContext", unchecked)
        connecting = self.rig.connect()
        self.rig.run()
        self.assertIn("not checked", str(self.failureResultOf(connecting, SessionLost).value))

    def test_aServerThatChoosesNoProtocolIsRefused(self) -> None:
        """By us, though it would have us."""
        self.patch(server, "checkClient", lambda connection, credentials: None)
        context = self.server._context
        self.patch(contexts, "_choose", lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
        self.server.credentials = self.server.credentials
        self.assertIsNot(context, self.server._context)
        connecting = self.rig.connect()
        self.rig.run()
        self.assertEqual(0x100 + 120, self.failureResultOf(connecting, SessionLost).value.errorCode)

    def test_names(self) -> None:
        for name, indicated in (("localhost", b"localhost"), ("bücher.example", b"xn--bcher-kva.example")):
            self.assertEqual(indicated, _indication(name))
        for address in ("192.0.2.1", "2001:db8::1"):
            self.assertIsNone(_indication(address))

    def test_aServerHearsWhichNameIsMeant(self) -> None:
        session, _ = self.rig.pair()
        assert isinstance(session, ServingSession)
        self.assertEqual(b"localhost", session.control.transport.connection.get_servername())

    def test_onlyTheControlStreamIsOpenedByAConnector(self) -> None:
        _, client = self.rig.pair()
        self.successResultOf(client.openStream())
        self.failureResultOf(client.openStream(), LimitReached)

    def test_stopEndsEverything(self) -> None:
        _, client = self.rig.pair()
        self.knock()
        stopped = self.server.stop()
        self.rig.run()
        self.successResultOf(stopped)
        closed: list[SessionLost] = []
        client.whenClosed().addCallback(closed.append)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), (closed[0].errorCode, str(closed[0])))
        self.assertTrue(self.isClosed(self.knock()))
        self.rig.wait(3)
        self.rig.over()


class LifeTests(ServerCase):
    """Signs of life, and what doesn't count as one."""

    def pair(self) -> tuple[ServingSession, calling.CallingSession]:
        listener, connector = self.rig.pair()
        assert isinstance(listener, ServingSession) and isinstance(connector, calling.CallingSession)
        return listener, connector

    def test_pingsComeInTimeForAShortIdleTime(self) -> None:
        self.rig = Rig(TlsSettings(idleTimeout=6.0, keepAlive=60.0))
        self.addCleanup(self.rig.release)
        listener, connector = self.pair()
        self.rig.wait(60)
        self.assertTrue(listener.isOpen and connector.isOpen)

    def test_whoSendsBytesIsNotSilentThoughNoAnswerComes(self) -> None:
        listener, connector = self.pair()
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        stream = self.successResultOf(listener.openStream())
        stream.start(Notes())
        self.rig.run()
        connector.tell = lambda kind, *numbers: None  # type: ignore[method-assign]  # it answers nothing
        self.rig.wait(10)
        self.assertTrue(listener.isSilent)
        ours = next(each.stream for each in connector.lanes.values() if each.stream is not None)
        ours.write(b"here I am")
        self.rig.run()
        self.assertFalse(listener.isSilent)

    def test_aControlStreamThatNobodyReadsIsHeldWithinALimit(self) -> None:
        """And then read on."""
        listener, connector = self.pair()
        stream = self.successResultOf(connector.openStream())
        stream.start(Notes())
        for _ in range(30):
            stream.write(bytes(100_000))
            self.rig.run()
        self.assertLess(listener.control.held, HELD_LIMIT + RECORD_SIZE * RECORDS_PER_READ)
        notes = Notes()
        listener.acceptStreams(lambda stream: stream.start(notes))
        self.rig.run()
        self.assertEqual(3_000_000, len(notes.data))

    def test_onlyTheAnswerToTheLastQuestionCounts(self) -> None:
        listener, connector = self.pair()
        self.rig.wait(1)
        before = listener.statistics().rtt
        connector.tell = lambda kind, *numbers: None  # type: ignore[method-assign]  # it answers nothing
        self.rig.wait(10)
        for number in (listener._pings - 1, listener._pings + 1):
            listener.control.received([formatFrame(Kind.PONG, number)])
        self.assertEqual(before, listener.statistics().rtt)
        listener.control.received([formatFrame(Kind.PONG, listener._pings)])
        self.assertNotEqual(before, listener.statistics().rtt)

    def test_whatIsSaidOfALaneThatIsGoneIsForgotten(self) -> None:
        listener, connector = self.pair()
        for kind in (Kind.STOP, Kind.ABORT):
            connector.tell(kind, 999, 1, Code.ABORTED)
        self.rig.run()
        self.assertTrue(listener.isOpen)

    def test_aPeerThatDoesNotTakeTheLastWordsIsLeftAfterAMoment(self) -> None:
        listener, _ = self.pair()
        gone: list[SessionLost] = []
        listener.whenClosed().addCallback(gone.append)
        self.rig.cut()
        listener.close(Code.SHUTDOWN, "bye")
        self.rig.wait(FAREWELL_SECONDS - 0.5)
        self.assertEqual([], gone)
        self.rig.wait(1)
        self.assertEqual("bye", str(gone[0]))
