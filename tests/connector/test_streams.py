"""From a stream to a target: preamble, policy, dial, bridge; and everything that can go wrong on the way."""

from collections.abc import Sequence

from twisted.logger import LogEvent, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from socketwarp.connector.conversation import Conversation
from socketwarp.connector.policy import Policy
from socketwarp.connector.streams import LINES, PREAMBLE_TIMEOUT, IncomingStreams
from socketwarp.connector.targets import Targets
from socketwarp.errors import Code, SessionLost, StreamReset, TargetDenied
from socketwarp.interfaces import IStream, IStreamReceiver, Piece
from socketwarp.settings import parseTargetRules
from socketwarp.throttle import QUIET_SECONDS
from socketwarp.wire.dialect import DIALECTS, Dialled
from socketwarp.wire.messages import Finished, Hello, Welcome
from socketwarp.wire.preamble import Preamble, formatPreamble29
from tests.connector.fakes import TargetReactor
from tests.fake_tcp import KERNEL_BUFFER
from tests.fakes import FakeStream, sessionPair, settle
from tests.talker import Talker


@implementer(IStreamReceiver)
class Recorder:
    """What the listener's end of a stream hears."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[str] = []
        self.reason: BaseException | None = None

    def piecesReceived(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.data += piece

    def readConnectionLost(self) -> None:
        self.events.append("fin")

    def writeConnectionLost(self, errorCode: int) -> None:
        self.events.append("stop")

    def connectionLost(self, reason: Failure) -> None:
        self.events.append("over")
        self.reason = reason.value


class StreamTests(SynchronousTestCase):
    """The listener's end of a session is ours to play."""

    def setUp(self) -> None:
        self.reactor = TargetReactor()
        self.streams = self.serving()

    def serving(self, dialLimit: int = 10, rules: str = "", protocol: str = "hq-29") -> IncomingStreams:
        policy = Policy(parseTargetRules(rules) if rules else ())
        streams = IncomingStreams(Targets(policy, self.reactor, self.reactor.dial, 10.0), self.reactor, dialLimit)
        self.listener, self.connector = sessionPair(self.reactor, protocol)
        self.conversation = Conversation(self.connector, self.reactor)
        streams.serve(self.conversation)
        return streams

    def open(self, *pieces: bytes) -> tuple[FakeStream, Recorder]:
        """A new stream with the first bytes on it, and what comes back."""
        stream = self.successResultOf(self.listener.openStream())
        assert isinstance(stream, FakeStream)
        receiver = Recorder()
        IStream(stream).start(receiver)
        for piece in pieces:
            stream.write(piece)
            settle(self.reactor)
        settle(self.reactor)
        return stream, receiver

    def preamble(self, host: str = "10.0.0.1", port: int = 80) -> bytes:
        return formatPreamble29("3-17", host, port)

    def ended(self, events: Sequence[LogEvent]) -> LogEvent:
        """The one line at a connection's end."""
        [event] = [event for event in events if event.get("event") == "connection.ended"]
        return event

    def refusal(self, events: Sequence[LogEvent]) -> LogEvent:
        """The one line about a stream that became no connection."""
        [event] = [event for event in events if event.get("event") == "stream.refused"]
        return event


class Carrying(StreamTests):
    """What works."""

    def test_bytesReachTheTargetAndComeBack(self) -> None:
        """Those behind the preamble, too; and the ends in each direction on their own."""
        with capturedLogs() as events:
            stream, receiver = self.open(self.preamble() + b"early ", b"later")
            [dial] = self.reactor.dials
            self.assertEqual(dial.place, ("10.0.0.1", 80))
            target = dial.succeeds()
            settle(self.reactor)
            stream.loseWriteConnection()
            settle(self.reactor)
            target.remoteReads()
            self.assertEqual((bytes(target.received), target.sawFin), (b"early later", True))
            target.remoteSends(b"answer")
            target.remoteFinishes()
            settle(self.reactor)
        self.assertEqual((bytes(receiver.data), receiver.events[-2:]), (b"answer", ["fin", "over"]))
        event = self.ended(events)
        self.assertEqual(
            (event["connection"], event["target"], event["code"], event["bytes_in"], event["bytes_out"]),
            ("3-17", "10.0.0.1:80", "finished", 11, 6),
        )

    def test_aSessionThatIsFinishedEndsWithItsLastConnection(self) -> None:
        """When the target has taken all that came for it, and not when the listener has sent it."""
        self.streams = self.serving(protocol="socketwarp/1")
        talker = Talker(self.listener)
        self.conversation.open(Hello("socketwarp", "1.2", "a", 100))
        settle(self.reactor)
        talker.say(Welcome("uid-1", "9a41", 50.0, 60.0))
        stream, _ = self.open(
            DIALECTS["socketwarp/1"].formatPreamble(Preamble("3-17", "10.0.0.1", 80)), bytes(KERNEL_BUFFER + 1000)
        )
        target = self.reactor.dials[0].succeeds()
        stream.loseWriteConnection()
        target.remoteFinishes()
        settle(self.reactor)
        talker.say(Finished())
        settle(self.reactor)
        self.assertTrue(self.connector.isOpen)
        for _ in range(2):
            target.remoteReads()
            settle(self.reactor)
        self.assertEqual((KERNEL_BUFFER + 1000, True), (len(target.received), target.sawFin))
        self.assertEqual((Code.NO_ERROR, "its connections are over"), self.connector.closedWith)

    def test_thePreambleMayComeInPieces(self) -> None:
        """A stream has no records."""
        preamble = self.preamble("::1", 8080)
        self.open(preamble[:1], preamble[1:1000], preamble[1000:])
        self.assertEqual(self.reactor.dials[0].place, ("::1", 8080))

    def test_theEndIsLoggedWithItsDuration(self) -> None:
        """From the stream's beginning, in seconds."""
        with capturedLogs() as events:
            stream, _ = self.open(self.preamble())
            self.reactor.dials[0].succeeds()
            self.reactor.advance(5.0)
            stream.abort(Code.ABORTED)
            settle(self.reactor)
        event = self.ended(events)
        self.assertEqual((event["seconds"], event["code"]), (5.0, "stream-reset"))

    def test_theEndIsLoggedWithUidAndSession(self) -> None:
        """As the listener has named them; that of a stream that became no connection, too."""
        self.conversation.welcome = Welcome("uid-1", "9a41", 50.0, 60.0, ())
        for name, pieces in (("connection.ended", (self.preamble(),)), ("stream.refused", ())):
            with capturedLogs() as events:
                stream, _ = self.open(*pieces)
                stream.abort(Code.ABORTED)
                settle(self.reactor)
            (event,) = events
            self.assertEqual((name, "uid-1", "session-1"), tuple(event[each] for each in ("event", "uid", "session")))

    def test_linesThatVisitorsCauseAreSoManyAndNoMore(self) -> None:
        """And how many weren't told is."""
        count = int(LINES[1]) + 50
        with capturedLogs() as events:
            for _ in range(count):
                stream, _ = self.open(self.preamble())
                stream.abort(Code.ABORTED)
                settle(self.reactor)
            self.assertEqual(LINES[1], len([event for event in events if event.get("event") == "connection.ended"]))
            self.reactor.advance(QUIET_SECONDS)
            stream, _ = self.open(self.preamble())
            stream.abort(Code.ABORTED)
            settle(self.reactor)
        told = [(event["event"], event.get("count")) for event in events[-2:]]
        self.assertEqual([("events.suppressed", 50), ("connection.ended", None)], told)

    def test_whenIdle(self) -> None:
        """Fires when the last connection is gone."""
        self.successResultOf(self.streams.whenIdle())
        self.open(self.preamble())
        target = self.reactor.dials[0].succeeds()
        idle = self.streams.whenIdle()
        self.assertNoResult(idle)
        self.connector.lose(SessionLost("gone"))
        settle(self.reactor)
        self.successResultOf(idle)
        self.assertTrue(target.sawReset)


class Refusing(StreamTests):
    """The stream is reset with a code that says why; the session lives on."""

    def refused(self, receiver: Recorder, code: Code) -> None:
        """The listener's end saw the reset, so its visitor will."""
        self.assertIsInstance(receiver.reason, StreamReset)
        assert isinstance(receiver.reason, StreamReset)
        self.assertEqual(receiver.reason.errorCode, code)
        self.assertTrue(self.connector.isOpen)

    def test_aMalformedPreamble(self) -> None:
        """Another stream of the same session works afterwards."""
        with capturedLogs() as events:
            _, receiver = self.open(b"x" * 1024)
        self.refused(receiver, Code.MALFORMED)
        self.assertEqual(self.refusal(events)["code"], "malformed-preamble")
        self.assertEqual(self.streams.pending, 0)
        self.open(self.preamble())
        self.assertEqual(len(self.reactor.dials), 1)

    def test_aPreambleThatDoesNotCome(self) -> None:
        """Is waited for only so long."""
        _, receiver = self.open(b"3-17|")
        self.reactor.advance(PREAMBLE_TIMEOUT)
        settle(self.reactor)
        self.refused(receiver, Code.TIMED_OUT)

    def test_thePreamblesTimeIsNotTheConnections(self) -> None:
        """Once it has come, the connection may last."""
        _, receiver = self.open(self.preamble())
        self.reactor.dials[0].succeeds()
        self.reactor.advance(PREAMBLE_TIMEOUT * 10)
        settle(self.reactor)
        self.assertIsNone(receiver.reason)

    def test_aDeniedTarget(self) -> None:
        """Is never dialled."""
        with capturedLogs() as events:
            _, receiver = self.open(self.preamble("169.254.169.254"))
        self.refused(receiver, Code.DENIED)
        self.assertEqual(self.reactor.dials, [])
        event = self.ended(events)
        self.assertEqual(event["code"], "denied")
        self.assertIn("169.254.169.254:80 is refused", event["reason"])

    def test_rulesHold(self) -> None:
        """Each stream is authorised where it is used."""
        self.serving(rules="192.0.2.0/24")
        _, receiver = self.open(self.preamble())
        self.refused(receiver, Code.DENIED)

    def test_aTargetThatRefuses(self) -> None:
        """Or that can't be found."""
        _, receiver = self.open(self.preamble())
        self.reactor.dials[0].fails(ConnectionRefusedError())
        settle(self.reactor)
        self.refused(receiver, Code.REFUSED)
        _, receiver = self.open(self.preamble("unknown"))
        self.refused(receiver, Code.UNRESOLVED)

    def test_aVisitorWhoLeavesWhileItsTargetIsDialled(self) -> None:
        """Leaves no dial behind."""
        stream, _ = self.open(self.preamble())
        stream.abort(Code.ABORTED)
        settle(self.reactor)
        self.assertTrue(self.reactor.dials[0].stopped)
        self.successResultOf(self.streams.whenIdle())

    def test_tooManyDials(self) -> None:
        """What is above the limit is refused at once; a dial that is done makes room."""
        self.serving(dialLimit=2)
        self.open(self.preamble())
        self.open()
        _, receiver = self.open(self.preamble())
        self.refused(receiver, Code.LIMIT)
        self.reactor.dials[0].succeeds()
        self.open(self.preamble())
        self.assertEqual(len(self.reactor.dials), 2)

    def test_noMoreMemory(self) -> None:
        """Refuses what is new, and lets go on what is there."""
        _, running = self.open(self.preamble())
        self.reactor.dials[0].succeeds()
        self.streams.isFull = True
        _, receiver = self.open(self.preamble())
        self.refused(receiver, Code.LIMIT)
        self.assertIsNone(running.reason)
        self.streams.isFull = False
        self.open(self.preamble())
        self.assertEqual(len(self.reactor.dials), 2)

    def test_aFaultOfOurs(self) -> None:
        """Ends that connection, and no other."""

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError

        self.patch(self.reactor, "dial", fail)
        self.serving()
        _, receiver = self.open(self.preamble())
        self.refused(receiver, Code.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Answering(StreamTests):
    """In a dialect that has answers."""

    def setUp(self) -> None:
        super().setUp()
        self.dialect = DIALECTS["socketwarp/1"]
        self.serving(protocol=self.dialect.alpn)

    def preamble(self, host: str = "10.0.0.1", port: int = 80) -> bytes:
        return self.dialect.formatPreamble(Preamble("3-17", host, port, ("192.0.2.1", 4000), 8080))

    def test_theAnswerComesBeforeTheTargetsBytes(self) -> None:
        """And names the address that was dialled."""
        self.reactor.nameResolver.table["db.example.net"] = ["10.0.0.7"]
        _, receiver = self.open(self.preamble("db.example.net"))
        self.assertEqual(bytes(receiver.data), b"")
        self.reactor.dials[0].succeeds().remoteSends(b"banner")
        settle(self.reactor)
        parsed = self.dialect.answerParser().feed([bytes(receiver.data)])
        assert parsed is not None
        self.assertEqual((parsed[0], b"".join(parsed[1])), (Dialled("10.0.0.7:80"), b"banner"))

    def test_theAnswerSaysHowLongItTookIfThatIsAsked(self) -> None:
        for isTimed, took in ((True, (0.0, 0.5)), (False, (None, None))):
            _, receiver = self.open(self.dialect.formatPreamble(Preamble("probe-1", "10.0.0.1", 80, isTimed=isTimed)))
            self.reactor.advance(0.5)
            self.reactor.dials[-1].succeeds()
            settle(self.reactor)
            parsed = self.dialect.answerParser().feed([bytes(receiver.data)])
            assert parsed is not None
            self.assertEqual(Dialled("10.0.0.1:80", *took), parsed[0])

    def test_theAnswerOfARefusalSaysWhy(self) -> None:
        """In words, before the stream ends."""
        _, receiver = self.open(self.preamble("169.254.169.254"))
        with self.assertRaises(TargetDenied) as caught:
            self.dialect.answerParser().feed([bytes(receiver.data)])
        self.assertIn("169.254.169.254:80 is refused", str(caught.exception))
