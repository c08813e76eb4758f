"""A session with a listener: hello, and what it says to that."""

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.conversation import (
    PING_SECONDS,
    PONG_SECONDS,
    REHEARSAL_SECONDS,
    WELCOME_SECONDS,
    Conversation,
)
from socketwarp.errors import Code, SessionLost, SessionRefused
from socketwarp.wire.messages import PING, Finished, Goaway, Hello, Pong, Refused, Welcome
from tests.fakes import sessionPair, settle
from tests.talker import Talker

HELLO = Hello("socketwarp", "1.2", "a", 100)
WELCOME = Welcome("uid-1", "9a41", 50.0, 60.0, (PING,))


class ConversationTests(SynchronousTestCase):
    """With a listener that says what it is told to."""

    def setUp(self) -> None:
        self.clock = Clock()
        there, self.session = sessionPair(self.clock, "socketwarp/1")
        self.talker = Talker(there)
        self.conversation = Conversation(self.session, self.clock)
        self.opened = self.conversation.open(HELLO)
        self.silences: list[None] = []
        self.conversation.fellSilent = lambda: self.silences.append(None)
        settle(self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.clock)

    def welcomed(self, welcome: Welcome = WELCOME) -> None:
        self.talker.say(welcome)
        settle(self.clock)

    def test_weIntroduceOurselvesAndAreWelcomed(self) -> None:
        self.assertEqual([HELLO], self.talker.messages)
        self.assertNoResult(self.opened)
        self.welcomed()
        self.assertIs(self.conversation, self.successResultOf(self.opened))
        self.assertEqual((WELCOME, True), (self.conversation.welcome, self.conversation.canTalk))

    def test_theSessionHearsOfTheWelcome(self) -> None:
        """What it may need of it are ticket and lanes."""
        self.assertEqual([], self.session.admittedWith)
        self.welcomed(attrs.evolve(WELCOME, ticket="00ff", lanes=7))
        self.assertEqual([("00ff", 7)], self.session.admittedWith)
        self.assertEqual("9a41", self.session.sessionId)

    def test_aRefusalIsTheReason(self) -> None:
        self.talker.say(Refused("verifier-fault", "its database is down", 30.0))
        settle(self.clock)
        error = self.failureResultOf(self.opened, SessionRefused).value
        self.assertEqual(("its database is down", "verifier-fault", 30.0), (str(error), error.reason, error.retryAfter))
        self.assertFalse(self.session.isOpen)

    def test_anEndWithoutWordsIsTheReason(self) -> None:
        self.session.other.close(Code.LIMIT, "too many")
        settle(self.clock)
        self.assertEqual(Code.LIMIT, self.failureResultOf(self.opened, SessionLost).value.errorCode)

    def test_anAnswerIsNotWaitedForForEver(self) -> None:
        self.wait(WELCOME_SECONDS)
        error = self.failureResultOf(self.opened, SessionLost).value
        self.assertIn("didn't answer hello", str(error))
        self.assertEqual(
            (Code.TIMED_OUT, str(error)), (error.errorCode, self.session.closedWith and self.session.closedWith[1])
        )
        settle(self.clock)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_givingUpClosesTheSession(self) -> None:
        self.opened.cancel()
        self.failureResultOf(self.opened, CancelledError)
        self.assertFalse(self.session.isOpen)
        settle(self.clock)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_nonsenseEndsTheSession(self) -> None:
        self.talker.stream.write(b"\0\0\0\1x")
        settle(self.clock)
        self.failureResultOf(self.opened, SessionLost)
        assert self.session.closedWith is not None
        self.assertEqual(Code.MALFORMED, self.session.closedWith[0])

    def test_goawayIsPassedOn(self) -> None:
        heard: list[Goaway] = []
        self.conversation.wentAway = heard.append
        self.talker.say(Goaway("early", 1.0))
        self.welcomed()
        self.welcomed()
        self.talker.say(Goaway("shutdown", 30.0))
        settle(self.clock)
        self.assertEqual([Goaway("shutdown", 30.0)], heard)

    def test_theLastStreamEndsASessionThatIsFinished(self) -> None:
        """The listener knows when no visitor is left; whether a target has taken everything, we alone."""
        self.welcomed()
        for _ in range(2):
            self.conversation.streamBegan()
        self.conversation.streamEnded()
        self.talker.say(Goaway("shutdown", 30.0, "the listener stops"))
        self.talker.say(Finished())
        settle(self.clock)
        self.assertTrue(self.session.isOpen)
        self.conversation.streamEnded()
        self.assertEqual((Code.NO_ERROR, "the listener stops"), self.session.closedWith)

    def test_withoutStreamsItEndsAtOnce(self) -> None:
        self.welcomed()
        self.talker.say(Finished())
        settle(self.clock)
        self.assertEqual((Code.NO_ERROR, "its connections are over"), self.session.closedWith)

    def test_streamsMayComeToNoneAsOftenAsTheyLike(self) -> None:
        self.welcomed()
        self.conversation.streamBegan()
        self.conversation.streamEnded()
        settle(self.clock)
        self.assertTrue(self.session.isOpen)

    def test_whoCannotTalkIsNotAsked(self) -> None:
        session = sessionPair(self.clock, "hq-29")[1]
        conversation = Conversation(session, self.clock)
        self.assertIs(conversation, self.successResultOf(conversation.open(HELLO)))
        conversation.say(Goaway("shutdown", 30.0))
        conversation.probe()
        self.assertEqual((False, {}), (conversation.canTalk, session.streams))

    def test_anAnsweredPingIsFollowedByTheNext(self) -> None:
        self.welcomed()
        for _ in range(3):
            self.wait(PING_SECONDS)
        self.wait(PONG_SECONDS)
        self.assertEqual((3, []), (self.talker.pings, self.silences))

    def test_anUnansweredOneIsToldInTime(self) -> None:
        self.welcomed()
        self.talker.isMute = True
        self.wait(PING_SECONDS)
        self.wait(PONG_SECONDS - 0.1)
        self.assertEqual([], self.silences)
        self.wait(0.1)
        self.assertEqual([None], self.silences)
        self.wait(100)
        self.assertEqual((1, [None]), (self.talker.pings, self.silences))

    def test_aLateAnswerStartsThemAgain(self) -> None:
        self.test_anUnansweredOneIsToldInTime()
        self.talker.say(Pong(7))
        self.talker.say(Pong(1))
        self.talker.isMute = False
        settle(self.clock)
        self.wait(PING_SECONDS)
        self.assertEqual(2, self.talker.pings)

    def test_whoDoesNotAnswerPingsIsNotSentAny(self) -> None:
        self.welcomed(Welcome("uid-1", "9a41", 50.0, 60.0))
        self.conversation.probe()
        self.wait(100)
        self.assertEqual((0, []), (self.talker.pings, self.silences))

    def test_aProbeIsAPingAtOnce(self) -> None:
        self.welcomed()
        self.conversation.probe()
        self.conversation.probe()
        settle(self.clock)
        self.assertEqual(1, self.talker.pings)

    def test_nothingIsLeftOfIt(self) -> None:
        self.welcomed()
        self.conversation.probe()
        self.session.close(Code.NO_ERROR, "over")
        settle(self.clock)
        self.assertEqual([], self.clock.getDelayedCalls())


class RehearsalTests(SynchronousTestCase):
    """Pings before hello."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.begin("socketwarp/1")

    def begin(self, protocol: str) -> None:
        there, self.session = sessionPair(self.clock, protocol)
        self.talker = Talker(there)
        self.conversation = Conversation(self.session, self.clock)
        self.rehearsed = self.conversation.rehearse()
        settle(self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.clock)

    def test_aSessionThatHoldsIsOpenedAfterwards(self) -> None:
        """On the same control stream; pings then go on as in any other."""
        for second in range(REHEARSAL_SECONDS):
            self.assertNoResult(self.rehearsed)
            self.assertEqual((second + 1, []), (self.talker.pings, self.talker.messages))
            self.wait(1.0)
        self.assertIs(self.conversation, self.successResultOf(self.rehearsed))
        self.assertEqual([], self.clock.getDelayedCalls())
        opened = self.conversation.open(HELLO)
        settle(self.clock)
        self.assertEqual([HELLO], self.talker.messages)
        self.talker.say(WELCOME)
        settle(self.clock)
        self.assertIs(self.conversation, self.successResultOf(opened))
        self.wait(PING_SECONDS)
        self.assertEqual((REHEARSAL_SECONDS + 1, 1), (self.talker.pings, len(self.session.streams)))

    def test_oneUnansweredPingIsEnough(self) -> None:
        self.wait(1.0)
        self.talker.isMute = True
        self.wait(1.0)
        self.assertNoResult(self.rehearsed)
        self.wait(1.0)
        error = self.failureResultOf(self.rehearsed, SessionLost).value
        self.assertEqual(("pings aren't answered within a second", False), (str(error), self.session.isOpen))

    def test_anOldAnswerIsNone(self) -> None:
        self.talker.isMute = True
        self.wait(1.0)
        self.talker.say(Pong(1))
        self.wait(1.0)
        self.failureResultOf(self.rehearsed, SessionLost)

    def test_aSessionThatEndsDoesNotHold(self) -> None:
        self.session.lose(SessionLost("gone"))
        self.wait(1.0)
        self.failureResultOf(self.rehearsed, SessionLost)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_whoCannotTalkIsNotAsked(self) -> None:
        self.begin("hq-29")
        self.assertIn("hq-29", str(self.failureResultOf(self.rehearsed, SessionLost).value))
        self.assertEqual((False, 0), (self.session.isOpen, self.talker.pings))

    def test_givingUpClosesTheSession(self) -> None:
        self.rehearsed.cancel()
        self.failureResultOf(self.rehearsed, CancelledError)
        self.assertFalse(self.session.isOpen)
        settle(self.clock)
        self.assertEqual([], self.clock.getDelayedCalls())
