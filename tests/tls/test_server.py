"""The server under strangers: what isn't TLS, what is slow, too many, and lanes that belong to nobody."""

import socket
from itertools import chain, repeat
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import Code, LimitReached, SessionLost
from socketwarp.interfaces import Address, ICredentials, ISession, IStream
from socketwarp.tcp.poll import READABLE
from socketwarp.tls import calling, client, contexts, server, serving
from socketwarp.tls.client import _indication, connect
from socketwarp.tls.contexts import ALPN, MAX_HANDSHAKE_CALLS, _watch
from socketwarp.tls.frames import Kind, formatAttach, formatFrame
from socketwarp.tls.lane import DRAIN_SECONDS, HELD_LIMIT, Lane
from socketwarp.tls.server import MAX_FROM_SOURCE, _sourceOf
from socketwarp.tls.serving import KEEP_SECONDS, KEPT_LANES, ServingSession
from socketwarp.tls.session import CONTROL_LIMIT, FAREWELL_SECONDS, TlsSettings
from socketwarp.tls.transport import RECORD_SIZE, RECORDS_PER_READ

from ..carriers import Notes
from ..certs import Issued, world
from ..tcp.fakes import socketPair
from .rig import Rig


def clientContext(issued: Issued) -> SSL.Context:
    """A client that isn't ours, with a certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([ALPN])
    context.use_certificate(issued.cert)
    context.use_privatekey(issued.key)  # type: ignore[arg-type]  # an EC key
    return context


class ServerCase(SynchronousTestCase):
    settings = TlsSettings()

    def setUp(self) -> None:
        self.rig = Rig(self.settings)
        self.addCleanup(self.rig.release)
        self.server = self.rig.server

    def knock(self, address: Address = ("192.0.2.7", 40000)) -> socket.socket:
        """A TCP connection that says nothing yet."""
        ours, remote = socketPair()
        remote.setblocking(False)
        self.addCleanup(remote.close)
        self.server.take(ours, address)
        return remote

    def isClosed(self, remote: socket.socket) -> bool:
        try:
            while remote.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class StrangerTests(ServerCase):
    def test_whatIsNotTlsEndsAtOnce(self) -> None:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(100)):
            remote = self.knock()
            remote.send(said)
            self.rig.run()
            self.assertTrue(self.isClosed(remote), said)
        self.assertEqual(({}, {}), (self.server._arrivals, self.server._sources))
        self.assertEqual([], self.rig.clock.getDelayedCalls())
        self.assertEqual([], self.rig.refused)

    def test_whoSaysNothingIsGoneAfterItsTime(self) -> None:
        remote = self.knock()
        self.rig.wait(9.9)
        self.assertFalse(self.isClosed(remote))
        self.rig.wait(0.2)
        self.assertTrue(self.isClosed(remote))
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_whoShakesHandsAndSaysNothingIsGoneAsWell(self) -> None:
        for said in (b"", formatFrame(Kind.SESSION)[:3]):
            stranger = self.rig.stranger(clientContext(world().authority.issue("swc-1")))
            self.rig.exchange(stranger, said)
            self.assertEqual(1, len(self.server._arrivals))
            self.rig.wait(10.1)
            self.assertEqual(({}, []), (self.server._arrivals, self.rig.sessions))

    def test_anotherFirstFrameIsRefused(self) -> None:
        for said in (formatFrame(Kind.OPEN, 1), formatFrame(Kind.PING, 1), b"\x11\0\0\1x"):
            reply = self.rig.strange(clientContext(world().authority.issue("swc-1")), said)
            self.assertEqual((Kind.CLOSE, Code.MALFORMED), (reply[0], int.from_bytes(reply[4:8])))
        self.rig.strange(clientContext(world().authority.issue("swc-1")), b"\xff" * 100)
        self.rig.wait(5)
        self.assertEqual(([], {}, []), (self.rig.sessions, self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_fewUnfinishedForEachSource(self) -> None:
        first = [self.knock() for _ in range(MAX_FROM_SOURCE)]
        self.assertTrue(self.isClosed(self.knock()))
        self.assertFalse(self.isClosed(self.knock(("192.0.2.8", 1))))
        self.assertFalse(self.isClosed(first[0]))
        first[0].close()
        self.rig.run()
        self.assertFalse(self.isClosed(self.knock()))

    def test_aSourceIsAnAddressOrTheNetworkOfASubscriber(self) -> None:
        self.assertEqual("192.0.2.7", _sourceOf(("192.0.2.7", 1)))
        self.assertEqual("2001:db8::/64", _sourceOf(("2001:db8::1:2:3:4", 1)))
        self.assertEqual(_sourceOf(("2001:db8::1", 1)), _sourceOf(("2001:db8::ffff:2", 1)))

    def test_whenTooManyAreUnfinishedTheOldestGiveWay(self) -> None:
        """Silent ones from many addresses must not keep a connector out."""
        self.patch(server, "MAX_ARRIVALS", 4)
        silent = [self.knock((f"192.0.2.{number}", 1)) for number in range(4)]
        session, _ = self.rig.pair()
        self.assertTrue(session.isOpen)
        self.assertEqual([True] * 4, [self.isClosed(each) for each in silent])

    def test_aDismissedConnectionCountsUntilItIsGone(self) -> None:
        stranger = self.rig.stranger(SSL.Context(SSL.TLS_CLIENT_METHOD))
        self.rig.exchange(stranger, b"")
        self.assertEqual(1, len(self.server._arrivals))
        self.rig.wait(2.1)
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))
        stranger = self.rig.stranger(SSL.Context(SSL.TLS_CLIENT_METHOD))
        self.rig.exchange(stranger, b"")
        stranger.sock_shutdown(socket.SHUT_RDWR)
        self.rig.run()
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_itSaysNowAndThenWhomItTurnsAway(self) -> None:
        told = self.enterLog()
        for _ in range(MAX_FROM_SOURCE + 50):
            self.knock()
        self.rig.wait(61)
        for _ in range(MAX_FROM_SOURCE + 1):
            self.knock()
        self.assertEqual([1, 50], [event["count"] for event in told if "turned away" in event["log_format"]])

    def enterLog(self) -> list[Any]:
        """What is logged from now on."""
        told: list[Any] = []
        observer: Any = told.append  # Any: what it is by its use
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return told

    def test_aConnectionThatBreaksInItsFirstMomentLeavesNothing(self) -> None:
        def broken(*about: object) -> None:
            raise OSError(107, "not connected")

        self.patch(server, "TlsTransport", broken)
        self.assertTrue(self.isClosed(self.knock()))
        self.assertEqual(({}, {}, []), (self.server._arrivals, self.server._sources, self.rig.clock.getDelayedCalls()))

    def test_whoSendsHandshakeMessagesWithoutEndIsCutOff(self) -> None:
        """OpenSSL would take key updates in one call for as long as they come; it asks whether it may go on."""
        session, client = self.rig.pair()
        assert isinstance(session, ServingSession)
        connection = session.control.transport.connection
        while connection.get_app_data().calls < MAX_HANDSHAKE_CALLS:
            _watch(connection, SSL.SSL_CB_EXIT, 1)
        self.rig.run()
        self.assertTrue(session.isOpen)
        _watch(connection, SSL.SSL_CB_EXIT, 1)  # in the middle of a read
        session.control.transport.ready(READABLE)
        self.rig.run()
        self.assertFalse(session.isOpen)
        self.assertFalse(client.isOpen)


class LaneTests(ServerCase):
    def attach(self, issued: Issued, ticket: bytes, number: int = 77) -> bytes:
        """What a stranger hears that wants to be a lane."""
        return self.rig.strange(clientContext(issued), formatAttach(ticket, number))

    def session(self) -> ServingSession:
        session, _ = self.rig.pair()
        assert isinstance(session, ServingSession)
        return session

    def test_aLaneNeedsTheTicketAndTheCertificateOfItsSession(self) -> None:
        mine, other = world().authority.issue("swc-1"), world().authority.issue("swc-2")
        stranger = self.rig.stranger(clientContext(mine))
        self.rig.exchange(stranger, formatFrame(Kind.SESSION))
        (session,) = self.rig.sessions
        assert isinstance(session, ServingSession)
        for issued, ticket in (
            (other, session.secret),
            (mine, bytes(16)),
            (world().authority.issue("swc-1"), session.secret),
        ):
            reply = self.attach(issued, ticket)
            self.assertEqual((Kind.CLOSE, Code.DENIED), (reply[0], int.from_bytes(reply[4:8])))
            self.assertEqual({}, session.lanes)
        reply = self.attach(mine, session.secret, 0)  # the control lane's number
        self.assertEqual((Kind.CLOSE, Code.LIMIT, {}), (reply[0], int.from_bytes(reply[4:8]), session.lanes))
        self.assertEqual(b"", self.attach(mine, session.secret))
        self.assertEqual([77], list(session.lanes))
        reply = self.attach(mine, session.secret)
        self.assertEqual((Kind.CLOSE, Code.LIMIT), (reply[0], int.from_bytes(reply[4:8])))
        self.assertTrue(session.isOpen)

    def test_theTicketIsOfNoUseOnceTheSessionIsOver(self) -> None:
        mine = world().authority.issue("swc-1")
        self.rig.exchange(self.rig.stranger(clientContext(mine)), formatFrame(Kind.SESSION))
        (session,) = self.rig.sessions
        assert isinstance(session, ServingSession)
        session.close(0, "")
        reply = self.attach(mine, session.secret)
        self.assertEqual(Code.DENIED, int.from_bytes(reply[4:8]))

    def test_tooManyLanesAreRefused(self) -> None:
        mine = world().authority.issue("swc-1")
        self.rig.exchange(self.rig.stranger(clientContext(mine)), formatFrame(Kind.SESSION))
        other = self.rig.sessions[-1]
        assert isinstance(other, ServingSession)
        other.settings = TlsSettings(streamLimit=1)
        self.assertEqual(b"", self.attach(mine, other.secret, 1))
        self.assertEqual(Code.LIMIT, int.from_bytes(self.attach(mine, other.secret, 2)[4:8]))

    def test_aLaneThatBreaksTakesItsStreamWithItAndNothingElse(self) -> None:
        session = self.session()
        streams = [self.successResultOf(session.openStream()) for _ in range(2)]
        self.rig.run()
        lane = next(lane for lane in session.lanes.values() if lane.stream is streams[0])
        lane.transport._fail("pulled out")
        self.rig.run()
        self.assertTrue(session.isOpen)
        self.assertEqual(2, session.statistics().streams)
        self.assertEqual(8, len(session._free))

    def test_aLaneWhoseTargetIsSlowToReadCarriesNobodyElse(self) -> None:
        """Both directions have been ended, but the last bytes wait for a reader that has paused."""
        listener, connector = self.rig.pair()
        accepted: list[tuple[IStream, Notes]] = []

        def accept(stream: IStream) -> None:
            accepted.append((stream, Notes()))
            stream.start(accepted[-1][1])

        connector.acceptStreams(accept)
        slow = self.successResultOf(listener.openStream())
        slow.start(Notes())
        slow.write(b"!")
        self.rig.run()
        theirs, notes = accepted[0]
        theirs.loseWriteConnection()
        theirs.pauseProducing()
        self.rig.run()
        slow.write(b"the last")
        slow.loseWriteConnection()
        self.rig.run()
        assert isinstance(listener, ServingSession)
        self.assertEqual((1, b"!"), (len(listener.lanes) - len(listener._free), notes.data))
        for _ in range(8):
            listener.openStream().addCallback(lambda stream: stream.write(b"?"))
        self.rig.run()
        self.assertEqual([b"?"] * 8, [bytes(each.data) for _, each in accepted[1:]])
        theirs.resumeProducing()
        self.rig.run()
        self.assertEqual(b"!the last", notes.data)
        self.assertTrue(notes.fin)

    def test_whatIsClosedHereIsNotMadeAnewThere(self) -> None:
        listener, connector = self.rig.pair()
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        for _ in range(400):
            listener.openStream()
        self.rig.run()
        self.rig.wait(200)
        before = len(self.rig.dialled)
        self.rig.wait(600)
        self.assertEqual(before, len(self.rig.dialled))

    def test_moreFreeLanesAreKeptReadyWhileMoreAreInUse(self) -> None:
        """Up to a limit; visitors who come all at once get as many as they are."""
        listener, connector = self.rig.pair()
        assert isinstance(listener, ServingSession)
        self.patch(calling, "MAX_SPARE", 20)
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        for busy, spare in ((8, 9), (64, 16), (200, 20)):
            while len(listener.lanes) - len(listener._free) < busy:
                listener.openStream()
                self.rig.run()
            self.assertEqual(spare, len(listener._free), busy)
        before = len(listener.lanes)
        opened = [listener.openStream() for _ in range(100)]
        self.rig.run()
        self.assertTrue(all(each.called for each in opened))
        self.assertEqual(before + 100, len(listener.lanes))

    def test_streamsAreNumberedAnewInTheEnd(self) -> None:
        session = self.session()
        session._streams = serving.STREAM_NUMBERS - 1
        numbers = [self.successResultOf(session.openStream()).streamId for _ in range(3)]
        self.assertEqual([serving.STREAM_NUMBERS, 1, 2], numbers)
        self.rig.run()
        self.assertTrue(session.isOpen)

    def test_aPeerThatDoesNotEndAStreamLosesTheLane(self) -> None:
        """Neither after ABORT nor after STOP may it take for ever, nor read the end of ours when it pleases."""
        for action in ("abort", "stopProducing", "reset"):
            listener, connector = self.rig.pair()
            assert isinstance(listener, ServingSession) and isinstance(connector, calling.CallingSession)
            streams: list[IStream] = []

            def accept(stream: IStream, streams: list[IStream] = streams) -> None:
                streams.append(stream)
                stream.start(Notes())

            connector.acceptStreams(accept)
            stream = self.successResultOf(listener.openStream())
            stream.start(Notes())
            stream.write(b"!")
            self.rig.run()
            lane = next(lane for lane in listener.lanes.values() if lane.stream is stream)
            theirs = next(each for each in connector.lanes.values() if each.number == lane.number)
            theirs.transport.pauseReading()
            connector.frameReceived = lambda lane, frame: None  # type: ignore[method-assign]  # deaf
            if action == "reset":
                while not lane.queued:
                    stream.write(bytes(100_000))
                theirs.send(Kind.RESET, 1)
            else:
                getattr(stream, action)(*([Code.ABORTED] if action == "abort" else []))
            self.rig.wait(DRAIN_SECONDS - 1)
            self.assertIn(lane.number, listener.lanes, action)
            self.rig.wait(2)
            self.assertNotIn(lane.number, listener.lanes, action)
            self.assertTrue(listener.isOpen)
            listener.close(0, "")
            self.rig.wait(3)

    def test_lanesThatNobodyNeedsAreClosed(self) -> None:
        session = self.session()
        streams = [session.openStream() for _ in range(40)]
        self.rig.run()
        for each in streams:
            self.successResultOf(each).abort(Code.ABORTED)
        self.rig.run()
        before = len(session.lanes)
        self.assertGreater(before, KEPT_LANES)
        self.rig.wait(KEEP_SECONDS - 5)
        self.assertEqual(before, len(session.lanes))
        self.rig.wait(10)
        self.assertEqual(KEPT_LANES, len(session.lanes))
        self.assertTrue(session.isOpen)
        self.rig.wait(300)
        self.assertEqual(KEPT_LANES, len(session.lanes))

    def test_theLaneThatBecameFreeLastIsTakenFirst(self) -> None:
        """So that those which aren't needed stay so."""
        session, connector = self.rig.pair()
        assert isinstance(session, ServingSession)
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        streams = [self.successResultOf(session.openStream()) for _ in range(3)]
        self.rig.run()
        lanes = [next(lane for lane in session.lanes.values() if lane.stream is stream) for stream in streams]
        for number in (0, 2, 1):
            streams[number].abort(Code.ABORTED)
            self.rig.run()
        again = self.successResultOf(session.openStream())
        self.assertIs(again, lanes[1].stream)

    def test_wantSaysHowManyLanesWouldDoFromTheBeginning(self) -> None:
        session = self.session()
        told: list[tuple[Kind, int]] = []
        session.tell = lambda kind, *numbers: told.append((kind, *numbers))  # type: ignore[method-assign]  # to see it
        for _ in range(8 + 2):
            session.openStream().addErrback(lambda failure: failure.trap(SessionLost))
        self.assertEqual([(Kind.WANT, 9), (Kind.WANT, 10)], told)

    def test_visitorsWaitForALaneAndAreBounded(self) -> None:
        session = self.session()
        self.rig.isDown = True
        opened = [session.openStream() for _ in range(8)]
        waiting = [session.openStream() for _ in range(serving.MAX_WAITING)]
        self.failureResultOf(session.openStream(), LimitReached)
        self.assertEqual([True] * 8, [each.called for each in opened])
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.rig.run()
        self.rig.isDown = False
        self.rig.wait(60)
        self.assertEqual(serving.MAX_WAITING - 1, sum(each.called for each in waiting[1:]))

    def test_aPeerThatDoesNotReadTheControlLaneIsGivenUp(self) -> None:
        session = self.session()
        self.rig.cut()
        while session.isOpen and session.control.queued <= 2 * CONTROL_LIMIT:
            session.tell(Kind.PING, 1)
        self.assertFalse(session.isOpen)
        self.assertLessEqual(session.control.queued, 2 * CONTROL_LIMIT)


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


class ViolationTests(ServerCase):
    """An authenticated peer that breaks the rules loses its session, and nobody else notices."""

    def busy(self) -> tuple[ServingSession, calling.CallingSession, tuple[Lane, Lane]]:
        """A session, and both ends of a lane with a stream on it."""
        listener, connector = self.rig.pair()
        assert isinstance(listener, ServingSession) and isinstance(connector, calling.CallingSession)
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        self.successResultOf(listener.openStream()).start(Notes())
        self.rig.run()
        (lane,) = (lane for lane in listener.lanes.values() if lane.stream is not None)
        return listener, connector, (lane, connector.lanes[lane.number])

    def test_inTheMiddleOfAStreamALaneIsNeitherFreedNorOpened(self) -> None:
        """By either end, and a listener never frees one."""
        for breaking in (0, 1):
            for frame in (formatFrame(Kind.FREE), formatFrame(Kind.OPEN, 99)):
                *sessions, lanes = self.busy()
                lanes[breaking].transport.write(frame)
                lanes[breaking].transport.flush()
                self.rig.wait(3)
                self.assertEqual([False, False], [each.isOpen for each in sessions], (breaking, frame))

    def test_aListenerNeverFreesALane(self) -> None:
        listener, connector, (lane, _) = self.busy()
        stream, theirs = lane.stream, connector.lanes[lane.number].stream
        assert stream is not None and theirs is not None
        stream.loseWriteConnection()
        theirs.loseWriteConnection()
        self.rig.run()
        self.assertIn(lane, listener._free)
        lane.transport.write(formatFrame(Kind.FREE))
        lane.transport.flush()
        self.rig.wait(3)
        self.assertFalse(connector.isOpen)

    def test_eachViolationEndsTheSession(self) -> None:
        onControl = [
            formatFrame(Kind.SESSION),
            formatFrame(Kind.ACCEPTED),
            formatFrame(Kind.OPEN, 1),
            formatFrame(Kind.WANT, 1),
            formatAttach(bytes(16), 1),
            formatFrame(Kind.FIN) + b"\x11\0\0\1x",
            b"\x7f\0\0\0",
        ]
        onData = [
            b"\x11\0\0\1x",
            formatFrame(Kind.FIN),
            formatFrame(Kind.RESET, 1),
            formatFrame(Kind.OPEN, 5),
            formatFrame(Kind.PING, 5),
            formatFrame(Kind.FREE),
            b"\x7f\0\0\0",
        ]
        for lane, frames in ((0, onControl), (1, onData)):
            for frame in frames:
                listener, client = self.rig.pair()
                assert isinstance(client, calling.CallingSession)
                control = client.openStream()
                del control
                listener.acceptStreams(lambda stream: stream.start(Notes()))
                transport = client.control.transport if not lane else client.lanes[1].transport
                transport.write(frame)
                transport.flush()
                closed: list[SessionLost] = []
                client.whenClosed().addCallback(closed.append)
                self.rig.wait(3)
                self.assertFalse(listener.isOpen, frame)
                self.assertEqual((Code.MALFORMED, True), (closed[0].errorCode, closed[0].fromPeer), frame)
        self.rig.over()
