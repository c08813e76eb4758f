"""What listener and connector say to each other on the control stream, and what becomes of it."""

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from socketwarp.errors import Code, HelloMissing, NoSuchSession, SessionLost, VerifierFault, VerifierRefused
from socketwarp.interfaces import Identity, IStreamReceiver, Piece
from socketwarp.listener.connectors import FAREWELL_SECONDS, RENEWED_SECONDS, RETRY_SECONDS, Connectors, Terms
from socketwarp.listener.greeting import HELLO_SECONDS, Channel
from socketwarp.listener.roster import FREE_TAKEOVERS, LEAVING_LIMIT, SILENCE
from socketwarp.listener.visitors import Limits
from socketwarp.listener.wishes import PortSpec
from socketwarp.wire.messages import (
    FINISHES,
    PING,
    YIELDS,
    Finished,
    Goaway,
    Hello,
    Message,
    Ping,
    Pong,
    Refused,
    Welcome,
)
from socketwarp.wire.preamble import Preamble
from socketwarp.wire.streams import Dialled, DocumentParser, formatDialled1, formatRefusal1, parsePreamble1
from tests.fake_tcp import FakeSocket
from tests.fakes import FakeSession, FakeStream, leafCertificate, sessionPair
from tests.listener.rig import Rig
from tests.talker import Talker


class TalkingRig(Rig):
    """A listener's insides, and connectors that talk."""

    def __init__(self, *sharedUids: str, answerSeconds: float = 60.0) -> None:
        super().__init__(Limits(answerSeconds=answerSeconds))
        terms = Terms(7.0, 21.0, frozenset(sharedUids))
        self.connectors = Connectors(self.reactor, self.verifier, self.events, self.denials, terms=terms)
        self.ports = self.makePorts()

    def comes(self, name: str) -> tuple[FakeSession, Talker]:
        """A session that says nothing yet."""
        session, there = sessionPair(self.reactor, "socketwarp/1")
        session.sessionId = name
        session.peerLeaf = leafCertificate("uid-1")
        talker = Talker(there, opens=True)
        self.connectors.admit(session)
        self.settle()
        return session, talker

    def introduced(self, name: str, instance: str = "a", *features: str) -> tuple[FakeSession, Talker]:
        """A session that has said hello, and waits for the verifier."""
        session, talker = self.comes(name)
        talker.say(Hello("socketwarp", "1.2", instance, 100, features))
        self.settle()
        return session, talker

    def welcomed(
        self, name: str = "older", instance: str = "a", uid: str = "uid-1", features: tuple[str, ...] = ()
    ) -> tuple[FakeSession, Talker]:
        """A session that has been admitted."""
        session, talker = self.introduced(name, instance, *features)
        if not self.verifier.automatic:
            self.verifier.answer(uid)
        self.settle()
        return session, talker


class ChannelTests(SynchronousTestCase):
    """Who speaks first, and what."""

    def setUp(self) -> None:
        self.rig = TalkingRig()
        self.session, self.there = sessionPair(self.rig.reactor, "socketwarp/1")
        self.channel = Channel(self.session)
        self.opened = self.channel.open(self.rig.reactor)

    def say(self, *messages: Message) -> None:
        talker = Talker(self.there, opens=True)
        for message in messages:
            talker.say(message)
        self.rig.settle()

    def test_aConnectorIntroducesItself(self) -> None:
        hello = Hello("socketwarp", "1.2", "a", 100)
        self.say(hello)
        self.assertIs(self.channel, self.successResultOf(self.opened))
        self.assertEqual((hello, True), (self.channel.hello, self.channel.isThere))
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_itMustDoSoInTime(self) -> None:
        self.say()
        self.rig.reactor.advance(HELLO_SECONDS - 0.1)
        self.assertNoResult(self.opened)
        self.rig.reactor.advance(0.1)
        self.failureResultOf(self.opened, HelloMissing)

    def test_whoComesTooLateIsNotHeard(self) -> None:
        self.rig.reactor.advance(HELLO_SECONDS)
        self.failureResultOf(self.opened, HelloMissing)
        self.say(Hello("socketwarp", "1.2", "a", 100))
        self.assertTrue(self.session.isOpen)

    def test_whatIsNoHelloEndsTheSession(self) -> None:
        self.say(Pong(1))
        self.assertEqual((Code.MALFORMED, "the connector's first message is no hello"), self.session.closedWith)

    def test_helloIsSaidOnce(self) -> None:
        hello = Hello("socketwarp", "1.2", "a", 100)
        self.say(hello, hello)
        self.assertEqual((Code.MALFORMED, "the connector said hello twice"), self.session.closedWith)

    def test_aBrokenControlStreamEndsTheSession(self) -> None:
        talker = Talker(self.there, opens=True)
        talker.stream.write(b"\0\0\0\1x")
        self.rig.settle()
        assert self.session.closedWith is not None
        self.assertEqual(Code.MALFORMED, self.session.closedWith[0])

    def test_otherStreamsOfAConnectorAreReset(self) -> None:
        self.say(Hello("socketwarp", "1.2", "a", 100))
        second = self.successResultOf(self.there.openStream())
        assert isinstance(second, FakeStream)
        self.rig.settle()
        self.assertEqual(Code.MALFORMED, second.other.abortCode)
        self.assertTrue(self.session.isOpen)

    def test_whoCannotTalkIsNotWaitedFor(self) -> None:
        channel = Channel(sessionPair(self.rig.reactor, "hq-29")[0])
        self.successResultOf(channel.open(self.rig.reactor))
        channel.say(Goaway("shutdown", 1.0))
        self.assertEqual((None, False), (channel.hello, channel.isThere))

    def test_theWaitingCanBeGivenUp(self) -> None:
        self.opened.cancel()
        self.failureResultOf(self.opened, CancelledError)
        self.assertEqual([], self.rig.reactor.getDelayedCalls())


class AdmissionTests(SynchronousTestCase):
    """Hello, then the verifier, then welcome or refused."""

    def setUp(self) -> None:
        self.rig = TalkingRig()

    def test_theVerifierIsAskedOnlyAfterHello(self) -> None:
        self.rig.comes("silent")
        self.assertEqual([], self.rig.verifier.asked)
        self.rig.introduced("talking")
        self.assertEqual(1, len(self.rig.verifier.asked))

    def test_whoGoesBeforeHelloIsNoFaultOfOurs(self) -> None:
        session, _ = self.rig.comes("silent")
        session.lose(SessionLost("the other end closed it"))
        self.rig.settle()
        self.assertEqual([], self.flushLoggedErrors())
        self.assertIsNone(session.closedWith)
        self.assertEqual([], self.rig.told("connector.refused"))

    def test_theWelcomeHasTheSessionsTicket(self) -> None:
        session, talker = self.rig.comes("newcomer")
        session.ticket, session.laneLimit = "00ff" * 8, 7
        talker.say(Hello("socketwarp", "1.2", "a", 100))
        self.rig.settle()
        self.rig.verifier.answer("uid-1")
        self.rig.settle()
        [welcome] = talker.heard(Welcome)
        self.assertEqual(("00ff" * 8, 7), (welcome.ticket, welcome.lanes))
        self.assertNotIn("00ff", repr(welcome))

    def test_theAdmittedAreWelcomed(self) -> None:
        session, talker = self.rig.welcomed()
        notAfter = int(session.peerLeaf.not_valid_after_utc.timestamp())
        self.assertEqual([Welcome("uid-1", "older", 7.0, 21.0, ("ping",), notAfter)], talker.messages)
        self.assertEqual("socketwarp/1.2", self.rig.told("connector.connected")[0]["software"])

    def refusal(self, error: Exception) -> tuple[FakeSession, Refused]:
        session, talker = self.rig.introduced("newcomer")
        self.rig.verifier.fail(error)
        self.rig.settle()
        [refused] = talker.heard(Refused)
        return session, refused

    def test_theRefusedAreToldWhyBeforeTheEnd(self) -> None:
        session, refused = self.refusal(VerifierRefused("Certificate is revoked"))
        self.assertEqual(Refused("verifier-refused", "Certificate is revoked", None), refused)
        self.assertIsNone(session.closedWith)
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.assertEqual((Code.DENIED, "Certificate is revoked"), session.closedWith)

    def test_aFaultPasses(self) -> None:
        _, refused = self.refusal(VerifierFault("no answer within 5 s"))
        self.assertEqual(Refused("verifier-fault", "no answer within 5 s", RETRY_SECONDS), refused)

    def test_theRefusedMayEndItThemselves(self) -> None:
        session, _ = self.refusal(VerifierRefused("no"))
        session.other.close(Code.NO_ERROR, "understood")
        self.rig.settle()
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_withoutHelloThereIsNoAdmission(self) -> None:
        session, talker = self.rig.comes("silent")
        self.rig.reactor.advance(HELLO_SECONDS)
        self.rig.settle()
        self.assertEqual(["no-hello"], [each.reason for each in talker.heard(Refused)])
        self.assertEqual("no-hello", self.rig.told("connector.refused")[0]["code"])
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.assertEqual((Code.TIMED_OUT, "no hello within 5 s"), session.closedWith)


class SuccessionTests(SynchronousTestCase):
    """The same uid again."""

    def setUp(self) -> None:
        self.rig = TalkingRig(answerSeconds=2 * RENEWED_SECONDS)
        self.older, self.talker = self.rig.welcomed()
        self.successResultOf(self.rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))

    def current(self) -> object:
        return self.rig.connectors.current("uid-1").session

    def visit(self) -> FakeSocket:
        visitor = self.rig.visit(18080)
        self.rig.settle()
        return visitor

    def test_anotherInstanceTakesOver(self) -> None:
        """The older connector hears why; its visitors are reset, and new ones are carried by the newcomer at once."""
        visitor = self.visit()
        newcomer, _ = self.rig.welcomed("newcomer", "b")
        self.assertIs(newcomer, self.current())
        [goaway] = self.talker.heard(Goaway)
        self.assertEqual(("superseded", 0.0), (goaway.reason, goaway.seconds))
        self.assertIn("took over", goaway.text)
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.rig.settle()
        self.assertEqual((Code.SUPERSEDED, goaway.text), self.older.closedWith)
        self.assertTrue(visitor.sawReset)
        self.assertEqual("newcomer", self.rig.told("connector.superseded")[0]["newcomer"])

    def test_theSameInstanceRenewsItself(self) -> None:
        """Visitors finish where they are, and then the old session ends; new ones go to the new session."""
        visitor = self.visit()
        newer, _ = self.rig.welcomed("newer", "a")
        self.assertIs(newer, self.current())
        self.assertEqual(["renewed"], [each.reason for each in self.talker.heard(Goaway)])
        self.rig.reactor.advance(50)
        self.rig.settle()
        self.assertIsNone(self.older.closedWith)
        self.assertFalse(visitor.sawReset)
        visitor.remoteResets()
        self.rig.settle()
        self.rig.reactor.advance(FAREWELL_SECONDS)
        assert self.older.closedWith is not None
        self.assertEqual(Code.NO_ERROR, self.older.closedWith[0])
        self.assertEqual([], self.rig.told("connector.superseded"))
        self.assertEqual("newer", self.rig.told("connector.renewed")[0]["newcomer"])

    def test_aRenewedSessionDoesNotLastForEver(self) -> None:
        self.visit()
        self.rig.welcomed("newer", "a")
        self.rig.verifier.automatic = True
        for _ in range(26):
            self.rig.reactor.advance(RENEWED_SECONDS / 25)
            self.rig.settle()
        self.assertFalse(self.older.isOpen)

    def test_thereIsALimitToOldSessions(self) -> None:
        for number in range(LEAVING_LIMIT + 1):
            self.visit()
            self.rig.welcomed(f"newer-{number}", "a")
        assert self.older.closedWith is not None
        self.assertEqual(Code.LIMIT, self.older.closedWith[0])

    def test_whoWasSupersededDoesNotTakeItBack(self) -> None:
        _, talker = self.rig.introduced("newcomer", "b", YIELDS)
        self.rig.verifier.answer("uid-1")
        self.rig.settle()
        [refused] = talker.heard(Refused)
        self.assertEqual(("superseded", 60.0), (refused.reason, refused.retryAfter))
        self.assertIs(self.older, self.current())

    def test_twoThatFightForAUidAreSlowedDownAndNamed(self) -> None:
        for number in range(FREE_TAKEOVERS + 2):
            _, talker = self.rig.welcomed(f"newcomer-{number}", "ab"[number % 2 - 1])
        [refused] = talker.heard(Refused)
        self.assertEqual(("superseded", 1.0), (refused.reason, refused.retryAfter))
        self.assertIn("fight for it", str(self.rig.told("connector.refused")[0]["reason"]))

    def test_whoGoesAwayGetsNoMoreVisitors(self) -> None:
        """Those who are there finish; new ones wait for somebody else."""
        visitor = self.visit()
        self.talker.say(Goaway("shutdown", 30.0, "the connector is stopping"))
        self.rig.settle()
        self.assertRaises(NoSuchSession, self.rig.connectors.current, "uid-1")
        self.assertEqual(1, self.rig.told("connector.leaving")[0]["visitors"])
        late = self.visit()
        successor, _ = self.rig.welcomed("successor", "b")
        self.assertEqual(2, len(successor.streams))
        self.assertFalse(late.sawReset)
        self.assertTrue(self.older.isOpen)
        visitor.remoteResets()
        self.rig.settle()
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.assertEqual((Code.NO_ERROR, "the connector is stopping"), self.older.closedWith)
        self.assertTrue(successor.isOpen)

    def test_whoGoesAwayWithoutVisitorsIsLetGo(self) -> None:
        self.talker.say(Goaway("shutdown", 30.0))
        self.talker.say(Goaway("shutdown", 30.0))
        self.rig.settle()
        self.assertEqual((Code.NO_ERROR, "shutdown"), self.older.closedWith)
        self.assertEqual(1, len(self.rig.told("connector.leaving")))

    def test_whoEndsItselfIsToldThatNobodyIsLeft(self) -> None:
        """Its targets may be slow to take the last bytes."""
        older, talker = self.rig.welcomed("finisher", "d", features=(FINISHES,))
        visitor = self.visit()
        self.rig.welcomed("newer", "d")
        self.assertEqual([], talker.heard(Finished))
        visitor.remoteResets()
        self.rig.settle()
        self.assertEqual([Finished()], talker.heard(Finished))
        self.rig.reactor.advance(FAREWELL_SECONDS * 3)
        self.assertTrue(older.isOpen)

    def test_whoGoesAwayItselfIsToldSoToo(self) -> None:
        older, talker = self.rig.welcomed("finisher", "d", features=(FINISHES,))
        talker.say(Goaway("shutdown", 30.0))
        self.rig.settle()
        self.assertEqual(([Finished()], True), (talker.heard(Finished), older.isOpen))
        self.rig.reactor.advance(30 + FAREWELL_SECONDS)
        self.assertFalse(older.isOpen)

    def test_aStopWaitsForNobodyLongerThanItSays(self) -> None:
        """Not for a renewed session, which had a day before, and whose connector was told that nobody is left."""
        older, talker = self.rig.welcomed("finisher", "d", features=(FINISHES,))
        self.rig.welcomed("newer", "d", features=(FINISHES,))
        self.assertEqual([Finished()], talker.heard(Finished))
        self.rig.connectors.drain("the listener stops", 5.0)
        gone = self.rig.connectors.whenGone()
        self.rig.reactor.advance(5.0)
        self.rig.settle()
        self.assertTrue(older.isOpen)
        self.assertNoResult(gone)
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.rig.settle()
        self.assertIsNone(self.successResultOf(gone))
        self.assertEqual((Code.SHUTDOWN, "the listener stops, and 5 s are over"), older.closedWith)

    def test_whoIsSilentIsNotWaitedFor(self) -> None:
        older, talker = self.rig.welcomed("finisher", "d", features=(FINISHES, PING))
        self.rig.reactor.advance(SILENCE + 1)
        self.rig.welcomed("newer", "d")
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.assertEqual(([], False), (talker.heard(Finished), older.isOpen))

    def test_whoTakesTooLongIsEnded(self) -> None:
        visitor = self.visit()
        self.talker.say(Goaway("shutdown", 30.0))
        self.rig.settle()
        self.rig.reactor.advance(30 + FAREWELL_SECONDS)
        self.rig.settle()
        self.assertFalse(self.older.isOpen)
        self.assertTrue(visitor.sawReset)

    def test_aListenerThatStopsSaysSoAndLetsVisitorsFinish(self) -> None:
        idle, its = self.rig.welcomed("idle", "c", "uid-2")
        self.visit()
        self.rig.connectors.drain("the listener stops", 30.0)
        self.rig.settle()
        for talker in (self.talker, its):
            self.assertEqual([Goaway("shutdown", 30.0, "the listener stops")], talker.heard(Goaway))
        self.rig.reactor.advance(FAREWELL_SECONDS)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), idle.closedWith)
        self.assertIsNone(self.older.closedWith)
        late, _ = self.rig.comes("late")
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), late.closedWith)


class SharedTests(SynchronousTestCase):
    """Several connectors for one uid."""

    def test_visitorsAreSpreadAndFindTheOtherWhenOneIsLost(self) -> None:
        rig = TalkingRig("uid-1")
        first, _ = rig.welcomed("first", "a")
        second, _ = rig.welcomed("second", "b")
        self.successResultOf(rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))
        visitors = [rig.visit(18080) for _ in range(10)]
        rig.settle()
        self.assertEqual([6, 6], [len(session.streams) for session in (first, second)])
        first.other.close(Code.SHUTDOWN, "gone")
        rig.settle()
        self.assertEqual(5, sum(visitor.sawReset for visitor in visitors))
        rig.visit(18080)
        rig.settle()
        self.assertEqual(7, len(second.streams))

    def test_whoFallsSilentGetsNoMoreVisitors(self) -> None:
        """As long as another one can be heard; both are when they ask whether we are there."""
        rig = TalkingRig("uid-1")
        rig.verifier.automatic = True
        (silent, _), (heard, talker) = (rig.welcomed(name, name, features=("ping",)) for name in ("silent", "heard"))
        self.successResultOf(rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))
        for number in range(3):
            rig.reactor.advance(10)
            talker.say(Ping(number))
            rig.settle()
        for _ in range(4):
            rig.visit(18080)
        rig.settle()
        self.assertEqual([1, 5], [len(session.streams) for session in (silent, heard)])

    def test_theVerifierCanSaySo(self) -> None:
        terms = Terms()
        leaf = leafCertificate("uid-1")
        self.assertFalse(terms.areShared(Identity("uid-1", leaf)))
        self.assertTrue(terms.areShared(Identity("uid-1", leaf, {"shared": True})))
        self.assertFalse(terms.areShared(Identity("uid-1", leaf, {"shared": "yes"})))


class DialTests(SynchronousTestCase):
    """The connector says whether it has dialled."""

    def setUp(self) -> None:
        self.rig = TalkingRig()
        self.session, _ = self.rig.welcomed()
        self.successResultOf(self.rig.ports.desire(PortSpec(18080, "uid-1", "db.internal", 5432)))
        self.there: list[FakeStream] = []
        self.session.other.acceptStreams(self.there.append)  # type: ignore[arg-type]  # FakeStreams they are
        self.visitor = self.rig.visit(18080)
        self.visitor.remoteSends(b"hello")
        self.rig.settle()
        [self.stream] = self.there
        self.receiver = Received()
        self.stream.start(self.receiver)
        self.rig.settle()

    def test_thePreambleNamesTheVisitorAndItsBytesFollowAtOnce(self) -> None:
        parsed = DocumentParser(parsePreamble1).feed([bytes(self.receiver.received)])
        assert parsed is not None
        preamble, rest = parsed
        self.assertEqual(Preamble("1-1", "db.internal", 5432, ("198.51.100.7", 50000), 18080), preamble)
        self.assertEqual([b"hello"], rest)

    def test_itIsConnectedWhenTheConnectorSaysSo(self) -> None:
        self.assertEqual([], self.rig.told("visitor.connected"))
        self.stream.write(formatDialled1(Dialled("10.0.0.5:5432")) + b"banner")
        self.rig.settle()
        self.assertEqual("10.0.0.5:5432", self.rig.told("visitor.connected")[0]["dialled"])
        self.visitor.remoteReads()
        self.rig.settle()
        self.assertEqual(b"banner", bytes(self.visitor.received))

    def test_aRefusalIsAResetAtBothEndsAndTheEventSaysWhy(self) -> None:
        self.stream.write(formatRefusal1(VerifierFault("no route to 10.0.0.5")))
        self.stream.loseWriteConnection()
        self.rig.settle()
        self.assertTrue(self.visitor.sawReset)
        self.assertEqual(b"", bytes(self.visitor.received))
        self.assertEqual(Code.UNREACHABLE, self.stream.other.abortCode)
        [told] = self.rig.told("visitor.refused")
        self.assertEqual(("unreachable", "no route to 10.0.0.5"), (told["code"], told["reason"]))
        self.assertTrue(self.session.isOpen)

    def test_anAnswerIsNotWaitedForForEver(self) -> None:
        self.rig.verifier.automatic = True
        self.rig.reactor.advance(self.rig.limits.answerSeconds)
        self.rig.settle()
        self.assertTrue(self.visitor.sawReset)
        self.assertEqual("timed-out", self.rig.told("visitor.refused")[0]["code"])


@implementer(IStreamReceiver)
class Received:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = bytearray()

    def piecesReceived(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.received += piece

    def readConnectionLost(self) -> None:
        """FIN."""

    def writeConnectionLost(self, errorCode: int) -> None:
        """STOP_SENDING."""

    def connectionLost(self, reason: Failure) -> None:
        """Over."""
