"""Lanes: whose they are, how many there are, which is taken, and what breaks them."""

from twisted.internet.defer import CancelledError

from socketwarp.errors import Code, LimitReached, SessionLost
from socketwarp.interfaces import IStream
from socketwarp.tcp.poll import READABLE
from socketwarp.tls import calling, serving
from socketwarp.tls.frames import HEADER_SIZE, Kind, formatAttach, formatFrame
from socketwarp.tls.lane import DRAIN_SECONDS, Lane
from socketwarp.tls.serving import KEEP_SECONDS, KEPT_LANES, ServingSession
from socketwarp.tls.session import CONTROL_LIMIT, TlsSettings
from socketwarp.tls.transport import RECORD_SIZE

from ..carriers import Notes, Producer
from ..certs import Issued, world
from .rig import Rig
from .test_server import ServerCase, clientContext


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
        self.patch(calling, "MAX_SPARE", 17)
        connector.acceptStreams(lambda stream: stream.start(Notes()))
        for busy, spare in ((8, 9), (64, 16), (80, 17)):
            while len(listener.lanes) - len(listener._free) < busy:
                listener.openStream()
                self.rig.run()
            self.assertEqual(spare, len(listener._free), busy)
        before = len(listener.lanes)
        opened = [listener.openStream() for _ in range(50)]
        self.rig.run()
        self.assertTrue(all(each.called for each in opened))
        self.assertEqual(before + 50, len(listener.lanes))

    def test_whenMemoryIsShortAWriterIsPausedAsSoonAsAnythingWaits(self) -> None:
        self.rig = Rig(buffer=4096)
        self.addCleanup(self.rig.release)
        listener, connector = self.rig.pair()
        assert isinstance(listener, ServingSession)
        connector.acceptStreams(lambda stream: None)
        for isShort, calls in ((False, []), (True, ["pause"])):
            stream, producer = self.successResultOf(listener.openStream()), Producer()
            (lane,) = (lane for lane in listener.lanes.values() if lane.stream is stream)
            self.rig.run()
            while not lane.queued:
                stream.write(bytes(1000))
            listener.saveMemory(isShort)
            stream.registerProducer(producer, True)
            stream.write(b"x")
            self.assertEqual(calls, producer.calls)

    def test_whoWasPausedIsResumedOnceWhatWaitedIsSent(self) -> None:
        """Though the kernel has taken it at once."""
        listener, connector = self.rig.pair()
        connector.acceptStreams(lambda stream: None)
        listener.saveMemory(True)
        stream, producer = self.successResultOf(listener.openStream()), Producer()
        stream.registerProducer(producer, True)
        stream.write(b"x")
        self.assertEqual(["pause"], producer.calls)
        self.rig.run()
        self.assertEqual(["pause", "resume"], producer.calls)

    def test_whatIsWrittenInOneWakeUpWaitsForItsEnd(self) -> None:
        """A stream's last bytes and its end are one record, and nobody asks the kernel whether it takes more."""
        session = self.session()
        stream = self.successResultOf(session.openStream())
        (lane,) = (lane for lane in session.lanes.values() if lane.stream is stream)
        self.rig.run()
        stream.write(b"answer")
        stream.loseWriteConnection()
        lane.transport.resumeReading()
        self.assertEqual((HEADER_SIZE + len(b"answer") + HEADER_SIZE, READABLE), (lane.queued, lane.transport._events))
        self.rig.run()
        self.assertEqual(0, lane.queued)

    def test_aRecordsWorthDoesNotWait(self) -> None:
        session = self.session()
        stream = self.successResultOf(session.openStream())
        (lane,) = (lane for lane in session.lanes.values() if lane.stream is stream)
        stream.write(bytes(RECORD_SIZE))
        self.assertEqual(0, lane.queued)

    def test_whatWaitsOfAStreamThatIsGivenUpIsDropped(self) -> None:
        """But for the frame that is half sent: the peer would read for nothing."""
        self.rig = Rig(buffer=4096)
        self.addCleanup(self.rig.release)
        session = self.session()
        stream = self.successResultOf(session.openStream())
        (lane,) = (lane for lane in session.lanes.values() if lane.stream is stream)
        self.rig.run()
        for _ in range(50):
            stream.write(bytes(10_000))
        self.assertGreater(lane.queued, 300_000)
        stream.abort(Code.ABORTED)
        self.assertLess(lane.queued, 2 * RECORD_SIZE)

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
        self.patch(serving, "MAX_WAITING", 100)
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
