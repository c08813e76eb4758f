"""Sessions on a network in memory: opening and ending streams and themselves, keep-alive, turns."""

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from socketwarp.coalescing import BULK_BYTES
from socketwarp.errors import Code, LimitReached, SessionLost
from socketwarp.interfaces import ISession, SessionStatistics, plainAddress
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.quic.session import COALESCING_RTT, MAX_UNACCEPTED, MAX_WAITING, Session
from socketwarp.quic.stream import Stream

from . import net
from .net import NetworkCase, Notes


class SessionTests(NetworkCase):
    def test_itIsASession(self) -> None:
        for session in self.connect():
            verifyObject(ISession, session)
            self.assertEqual(("quic", "hq-29", True), (session.carrier, session.protocol, session.isOpen))

    def test_eachKnowsThePeersLeafAndAddress(self) -> None:
        client, server = self.connect()
        self.assertEqual("CN=swc-1", server.peerLeaf.subject.rfc4514_string())
        self.assertEqual("CN=listener", client.peerLeaf.subject.rfc4514_string())
        self.assertEqual((("192.0.2.1", 11443), "192.0.2.2"), (client.peerAddress, server.peerAddress[0]))

    def test_addressesReadAsWhatTheyAre(self) -> None:
        for address, plain in (
            (("::ffff:192.0.2.7", 5, 0, 0), ("192.0.2.7", 5)),
            (("2001:db8::1", 5, 0, 0), ("2001:db8::1", 5)),
            (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5)),
            (("192.0.2.7", 5), ("192.0.2.7", 5)),
        ):
            self.assertEqual(plain, plainAddress(address))

    def test_theStatisticsCountBytesAndStreams(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        Notes(theirs)
        ours.write(bytes(50_000))
        self.network.run(1)
        sent, got = server.statistics(), client.statistics()
        self.assertEqual((50_001, 50_001, 1, 1), (sent.bytesOut, got.bytesIn, sent.streams, got.streams))
        self.assertEqual((0, 0), (sent.bytesIn, got.bytesOut))
        self.assertApproximates(0.003, sent.rtt, 0.002)
        self.assertGreaterEqual(sent.pathMtu, 1200)
        self.assertIsInstance(sent, SessionStatistics)


class OpenTests(NetworkCase):
    settings = TransportSettings(streamLimit=4)

    def test_openStreamWaitsForThePeersLimit(self) -> None:
        client, server = self.connect()
        accepted: list[Notes] = []
        client.acceptStreams(lambda stream: accepted.append(Notes(stream)))
        streams = [self.successResultOf(server.openStream()) for _ in range(4)]
        waiting = [server.openStream() for _ in range(3)]
        self.network.run(1)
        self.assertEqual([False] * 3, [each.called for each in waiting])
        for stream in streams[:2]:
            Notes(stream)
            stream.loseWriteConnection()
        self.network.run(1)
        for notes in accepted[:2]:
            notes.stream.loseWriteConnection()
        self.network.run(1)
        self.assertEqual([True, True, False], [each.called for each in waiting])
        self.successResultOf(waiting[0])
        waiting[2].cancel()
        self.failureResultOf(waiting[2], CancelledError)
        self.assertEqual(0, len(server._waiting))

    def test_whoeverWaitsHearsOfTheEndOfTheSession(self) -> None:
        client, server = self.connect()
        streams = [self.successResultOf(server.openStream()) for _ in range(4)]
        waiting = server.openStream()
        client.close(Code.SHUTDOWN, "enough")
        self.network.run(1)
        self.assertEqual(("enough", 9, True), self.about(self.failureResultOf(waiting, SessionLost).value))
        self.assertEqual(("enough", 9, True), self.about(self.failureResultOf(server.openStream(), SessionLost).value))
        del streams

    def about(self, error: SessionLost) -> tuple[str, int | None, bool]:
        return str(error), error.errorCode, error.fromPeer

    def test_noMoreThanSoManyMayWait(self) -> None:
        _, server = self.connect()
        for _ in range(4):
            server.openStream()
        waiting = [server.openStream() for _ in range(MAX_WAITING)]
        self.failureResultOf(server.openStream(), LimitReached)
        for each in waiting:
            each.addErrback(lambda failure: None)
        server.close(0, "")


class AcceptTests(NetworkCase):
    def test_streamsWaitForAHandlerUpToALimit(self) -> None:
        client, server = self.connect()
        notes = []
        for _ in range(MAX_UNACCEPTED + 2):
            stream = self.successResultOf(server.openStream())
            notes.append(Notes(stream))
            stream.write(b"x")
        self.network.run(1)
        codes = [each.lost.errorCode for each in notes if each.lost]
        self.assertEqual([Code.LIMIT] * 2, codes)
        accepted: list[Notes] = []
        client.acceptStreams(lambda stream: accepted.append(Notes(stream)))
        self.network.run(1)
        self.assertEqual([b"x"] * MAX_UNACCEPTED, [bytes(each.data) for each in accepted])


class CloseTests(NetworkCase):
    def test_theReasonReachesThePeerAndAllStreams(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        notes = Notes(ours), Notes(theirs)
        closed = self.closedOf(client), self.closedOf(server)
        server.close(Code.SUPERSEDED, "another one came")
        server.close(Code.LIMIT, "twice")
        self.assertEqual((False, True), (server.isOpen, client.isOpen))
        self.network.run(5)
        for error in (closed[0][0], notes[1].lost):
            self.assertEqual(("another one came", 10, True), (str(error), error.errorCode, error.fromPeer))
        for error in (closed[1][0], notes[0].lost):
            self.assertEqual(("another one came", 10, False), (str(error), error.errorCode, error.fromPeer))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(1, len(self.closedOf(server)))

    def test_aLongReasonIsCutBetweenCharacters(self) -> None:
        client, server = self.connect()
        closed = self.closedOf(client)
        server.close(Code.LIMIT, "ü" * 400)
        self.network.run(5)
        self.assertEqual("ü" * 250, str(closed[0]))

    def test_aCloseIsRepeatedEverMoreRarelyToAPeerThatMissedIt(self) -> None:
        """RFC 9000 §10.2.1: of whatever it came, and when the socket was full at first."""

        def violate(session: Session) -> None:
            session._engine.close(7, 0x08, "no")
            session.turn()

        def wait(session: Session) -> None:
            self.port.isBlocked = True
            session.close(Code.SHUTDOWN, "bye")
            self.port.unblock()

        for close in (lambda session: session.close(Code.SHUTDOWN, "bye"), violate, wait):
            client, server = self.connect()
            ours, theirs = self.open(client, server)
            Notes(ours)
            self.network.passes = lambda port, datagram: port is not self.port
            close(server)
            before = self.port.sent
            for _ in range(16):
                theirs.write(b"are you there?")
                self.clock.advance(0)
                self.clock.advance(0.001)
            size = sum(len(piece) for each in server._closing for piece in each.pieces)
            self.assertGreater(size, 0)
            self.assertEqual(5 * size, self.port.sent - before)  # for the 1st, 2nd, 4th, 8th and 16th datagram
            self.network.passes = lambda port, datagram: True
            self.network.run(30)
            self.assertFalse(client.isOpen)

    def test_aPeerThatOwesAnAnswerCountsAsSilentUntilItIsHeard(self) -> None:
        client, server = self.connect()
        ours, _ = self.open(client, server)
        self.network.run(5)
        self.assertFalse(server.isSilent)
        self.network.passes = lambda port, datagram: False
        ours.write(b"anybody there?")
        self.network.run(0.01)
        self.assertFalse(server.isSilent)
        self.network.run(2)
        self.assertTrue(server.isSilent)
        self.network.passes = lambda port, datagram: True
        self.network.run(5)
        self.assertFalse(server.isSilent)

    def test_whatSomebodyElseSendsIsNotHeard(self) -> None:
        """Or anybody could hide that the peer is gone, and keep back the PINGs that keep a session."""
        client, server = self.connect()
        ours, _ = self.open(client, server)
        self.network.run(1)
        heard = client._lastHeard, server._lastHeard
        self.network.passes = lambda port, datagram: False
        ours.write(b"anybody there?")
        for _ in range(30):
            self.network.run(0.1)
            for port in list(self.network.ports.values()):
                session = server if port is self.port else client
                forged = b"\x40" + session._engine.host_cid + bytes(40)
                for source in (session._engine.pathAddress, ("192.0.2.99", 9)):
                    self.network.carry(forged, source, port.address)
        self.assertEqual(heard, (client._lastHeard, server._lastHeard))
        self.assertTrue(server.isSilent)
        self.network.passes = lambda port, datagram: True
        self.network.run(5)
        self.assertTrue(client._lastHeard > heard[0] and server._lastHeard > heard[1])

    def test_silenceEndsASession(self) -> None:
        client, server = self.connect()
        ours, _ = self.open(client, server)
        notes = Notes(ours)
        closed = self.closedOf(client), self.closedOf(server)
        self.network.passes = lambda port, datagram: False
        self.network.run(70)  # a PING after 4 s begins the 60 s anew (RFC 9000 §10.1)
        for found in closed:
            self.assertIsNone(found[0].errorCode)
            self.assertIn("nothing was heard", str(found[0]))
        self.assertIsInstance(notes.lost, SessionLost)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aCloseWaitsForABlockedSocket(self) -> None:
        client, server = self.connect()
        closed = self.closedOf(client)
        self.port.isBlocked = True
        server.close(Code.SHUTDOWN, "bye")
        self.network.run(0.1)
        self.assertEqual([], closed)
        self.port.unblock()
        self.network.run(5)
        self.assertEqual("bye", str(closed[0]))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aViolationIsToldAsWhatItIs(self) -> None:
        client, server = self.connect()
        closed = self.closedOf(client), self.closedOf(server)
        server._engine.close(7, 0x08, "")
        server.turn()
        self.network.run(5)
        self.assertEqual((7, True), (closed[0][0].errorCode, closed[0][0].fromPeer))
        self.assertEqual(
            ("closed with code 0x7", 7, False), (str(closed[1][0]), closed[1][0].errorCode, closed[1][0].fromPeer)
        )


class TurnTests(NetworkCase):
    def test_aBlockedSocketIsNoBusyLoop(self) -> None:
        """The port says when it takes more; until then nothing is to be tried again and again."""
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        notes = Notes(theirs)
        self.port.isBlocked = True
        ours.write(bytes(3_000_000))
        calls = [0]
        transmit = server.turn

        def turn() -> None:
            calls[0] += 1
            transmit()

        server.turn = turn  # type: ignore[method-assign]  # a spy
        for _ in range(1000):
            self.clock.advance(0.00001)
        self.assertLess(calls[0], 20)
        self.port.unblock()
        self.network.run(5)
        self.assertEqual(3_000_001, len(notes.data))

    def test_aSilentSessionPings(self) -> None:
        client, server = self.connect()
        self.network.run(1)
        self.network.log.clear()
        self.network.run(12.5)
        self.assertTrue(2 <= sum(1 for source, _, _ in self.network.log if source[0] == "192.0.2.2") <= 12)
        self.network.run(600)
        self.assertEqual((True, True), (client.isOpen, server.isOpen))

    def test_pingsFollowThePeersIdleTime(self) -> None:
        """A third of the shorter of the two, whatever the settings say."""
        client, server = self.connect(TransportSettings(keepAlive=1000, idleTimeout=9))
        self.assertEqual(3, client._keepAlive)
        self.network.run(60)
        self.assertEqual((True, True), (client.isOpen, server.isOpen))
        del server

    def mayWait(self, stream: Stream, size: int) -> tuple[bool, bool]:
        """What the client's and the server's end say while so many bytes are on their way."""
        ports = [next(each for each in self.network.ports.values() if each is not self.port), self.port]
        for port in ports:
            port.mayWait = False
        stream.write(bytes(size))
        self.network.run(1)
        return ports[0].mayWait, ports[1].mayWait

    def test_bulkOverALongPathMayBeReadInLargerPortions(self) -> None:
        """By the end that gets it: who sends it doesn't wait for acknowledgements, though bulk has come before."""
        self.patch(net, "DELAY", COALESCING_RTT / 2 + 0.001)
        ours, theirs = self.open(*self.connect())
        Notes(ours)
        Notes(theirs)
        self.assertEqual((False, False), self.mayWait(ours, BULK_BYTES // 2))
        self.assertEqual((True, False), self.mayWait(ours, 4 * BULK_BYTES))
        self.assertEqual((False, True), self.mayWait(theirs, 4 * BULK_BYTES))
        self.assertEqual([True, True, False], [self.mayWait(ours, 1)[0] for _ in range(3)])

    def test_manyEndsOfStreamsAreNoBulk(self) -> None:
        """A short answer that is large enough for packets of its own is waited for all the same."""
        self.patch(net, "DELAY", COALESCING_RTT / 2 + 0.001)
        client, server = self.connect()
        taken: list[Notes] = []
        client.acceptStreams(lambda stream: taken.append(Notes(stream)))
        for _ in range(BULK_BYTES // 1000):
            ours = self.successResultOf(server.openStream())
            assert isinstance(ours, Stream)
            waits = self.mayWait(ours, 2000)
            ours.loseWriteConnection()
            self.network.run(0.1)
            self.assertEqual((False, False), waits)

    def test_overAShortPathNothingWaits(self) -> None:
        ours, theirs = self.open(*self.connect())
        Notes(theirs)
        self.assertEqual((False, False), self.mayWait(ours, 10 * BULK_BYTES))

    def test_writesOfOneTurnShareADatagram(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        Notes(theirs)
        self.network.run(1)
        self.network.log.clear()
        for each in b"a keystroke":
            ours.write(bytes((each,)))
        self.clock.advance(0)
        self.assertEqual(1, len(self.network.log))
