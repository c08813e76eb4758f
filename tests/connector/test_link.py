"""Staying connected: in any order of events, an attempt or a session or a timer is under way until it is stopped."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.connector.backoff import Backoff
from socketwarp.connector.conversation import PING_SECONDS, PONG_SECONDS, Conversation
from socketwarp.connector.link import RETIRED_LIMIT, SHORT_PAUSE, Link
from socketwarp.errors import Code, SessionLost, SessionRefused
from socketwarp.wire.messages import PING, Goaway, Hello, Welcome
from tests.fakes import FakeSession, sessionPair, settle
from tests.talker import Talker

STABLE = 30.0


class Network:
    """
    A link, and what it works with.

    :ivar attempts: those made so far; the last may be under way.
    :ivar yielding: for each, whether it would take the uid from nobody.
    :ivar peers: the listener's end of each session.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[Conversation]] = []
        self.yielding: list[bool] = []
        self.peers: list[FakeSession] = []
        self.listeners: list[Talker] = []
        backoff = Backoff(1.0, 60.0, lambda: 0.5)
        self.link = Link("listener:11443", self.attempt, backoff, STABLE, self.clock)

    def attempt(self, yields: bool) -> Deferred[Conversation]:
        self.attempts.append(Deferred())
        self.yielding.append(yields)
        return self.attempts[-1]

    @property
    def underWay(self) -> Deferred[Conversation] | None:
        """The attempt that waits for an answer."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].called else None

    @property
    def open(self) -> list[FakeSession]:
        """Our ends of sessions that aren't over."""
        return [peer.other for peer in self.peers if peer.other.isOpen]

    def succeeds(self, protocol: str = "hq-29") -> FakeSession:
        """The attempt gives a session; the result is the listener's end of it."""
        listener, connector = sessionPair(self.clock, protocol)
        conversation = Conversation(connector, self.clock)
        opened = conversation.open(Hello("socketwarp", "0", "instance", 100))
        self.listeners.append(Talker(listener))
        settle(self.clock)
        if protocol != "hq-29":
            self.listeners[-1].say(Welcome("uid-1", "9a41", 50.0, 60.0, (PING,)))
            settle(self.clock)
        assert opened.result is conversation
        self.peers.append(listener)
        self.attempts[-1].callback(conversation)
        return listener

    def fails(self, error: Exception | None = None) -> None:
        self.attempts[-1].errback(error or SessionLost("nobody answers"))

    def loses(self, code: int | None = None, reason: str = "gone") -> None:
        """The newest session ends from the other side; nobody answers any more if there is no code."""
        if code is None:
            self.peers[-1].other.lose(SessionLost(reason))
        else:
            self.peers[-1].close(code, reason)
        settle(self.clock)

    def goesAway(self, reason: str, seconds: float = 30.0) -> None:
        """The listener says so in the newest session."""
        self.listeners[-1].say(Goaway(reason, seconds, f"it is {reason}"))
        settle(self.clock)


class LinkTests(SynchronousTestCase):
    """One link through its life."""

    def setUp(self) -> None:
        self.net = Network()

    def test_isAService(self) -> None:
        """So that twistd can run it."""
        verifyObject(IService, self.net.link)

    def test_triesAgainForever(self) -> None:
        """Each failure is followed by an attempt, after a pause that grows up to the cap."""
        self.net.link.startService()
        pauses = []
        for _ in range(10):
            self.net.fails()
            [call] = self.net.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.net.clock.seconds())
            self.net.clock.advance(pauses[-1])
        self.assertEqual(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30])
        self.assertEqual(len(self.net.attempts), 11)

    def test_aLostSessionIsReplaced(self) -> None:
        """After a short pause when it had been stable."""
        self.net.link.startService()
        for _ in range(5):
            self.net.fails()
            self.net.clock.advance(60)
        self.net.succeeds()
        self.net.clock.advance(STABLE)
        self.net.loses()
        self.net.clock.advance(0.5)
        self.assertIsNotNone(self.net.underWay)

    def test_anUnstableSessionDoesNotShortenThePauses(self) -> None:
        """A listener that admits and then throws out isn't asked all the time."""
        self.net.link.startService()
        for _ in range(3):
            self.net.fails()
            self.net.clock.advance(60)
        self.net.succeeds()
        self.net.loses(Code.DENIED, "User Not Found")
        self.net.clock.advance(3.9)
        self.assertIsNone(self.net.underWay)
        self.net.clock.advance(0.1)
        self.assertIsNotNone(self.net.underWay)

    def test_theSupersededStaysAway(self) -> None:
        """For the longest pause, without jitter, however stable it was."""
        self.net.link.startService()
        self.net.succeeds()
        self.net.clock.advance(STABLE)
        self.net.loses(Code.SUPERSEDED, "another session with this uid")
        self.net.clock.advance(59.9)
        self.assertIsNone(self.net.underWay)
        self.net.clock.advance(0.1)
        self.assertIsNotNone(self.net.underWay)

    def test_theLogSaysWhyAndWhenNext(self) -> None:
        """In words, with the listener's own reason."""
        self.net.link.startService()
        self.net.succeeds()
        with capturedLogs() as events:
            self.net.loses(Code.DENIED, "User Not Found")
        [event] = [event for event in events if event["log_level"] == LogLevel.warn]
        self.assertEqual(event["listener"], "listener:11443")
        self.assertIn("the listener's verifier refuses our certificate", event["reason"])
        self.assertIn("User Not Found", event["reason"])
        self.assertEqual(event["delay"], 0.5)

    def test_theLogNamesSessionAndUid(self) -> None:
        """Once there was a session: when it comes, when it is lost, and while the next is waited for."""
        with capturedLogs() as events:
            self.net.link.startService()
            self.net.fails()
            self.net.clock.advance(0.5)
            self.net.succeeds("socketwarp/1")
            self.net.clock.advance(2.5)
            self.net.loses(Code.SHUTDOWN, "restart")
        told = [(event["event"], event["session"], event["uid"]) for event in events]
        self.assertEqual(
            [
                ("session.waiting", None, None),
                ("session.connected", "9a41", "uid-1"),
                ("session.lost", "9a41", "uid-1"),
                ("session.waiting", "9a41", "uid-1"),
            ],
            told,
        )
        lost = events[2]
        self.assertEqual((2.5, "the listener is stopping: the peer closed: restart"), (lost["seconds"], lost["reason"]))

    def test_unexpectedErrorsAreLoggedAndOutlived(self) -> None:
        """A fault of ours must not end the service for good."""
        self.net.link.startService()
        self.net.fails(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.net.clock.advance(60)
        self.assertIsNotNone(self.net.underWay)

    def test_stoppingClosesTheSession(self) -> None:
        """With the code for it; the Deferred waits until the session is gone."""
        self.net.link.startService()
        self.net.succeeds()
        stopped = self.net.link.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(self.net.peers[0].other.closedWith, (Code.SHUTDOWN, "the connector is stopping"))
        settle(self.net.clock)
        self.successResultOf(stopped)
        self.assertEqual(self.net.clock.getDelayedCalls(), [])

    def test_stoppingGivesAnAttemptUp(self) -> None:
        """And a pause."""
        self.net.link.startService()
        self.successResultOf(self.net.link.stopService())
        self.assertTrue(self.net.attempts[0].called)
        self.net.link.startService()
        self.net.fails()
        self.successResultOf(self.net.link.stopService())
        self.assertEqual(self.net.clock.getDelayedCalls(), [])

    def test_aSessionThatComesWhileStoppingIsClosed(self) -> None:
        """An attempt may be past the point where it can be cancelled."""
        listener, connector = sessionPair(self.net.clock)
        late = Conversation(connector, self.net.clock)
        late.open(Hello("socketwarp", "0", "instance", 100))
        attempt: Deferred[Conversation] = Deferred(lambda attempt: attempt.callback(late))
        link = Link("listener", lambda yields: attempt, Backoff(1, 1, lambda: 1.0), 1, self.net.clock)
        link.startService()
        stopped = link.stopService()
        settle(self.net.clock)
        self.successResultOf(stopped)
        self.assertFalse(listener.isOpen)

    def test_everybodyWhoStopsIsTold(self) -> None:
        """However often it is asked."""
        self.successResultOf(self.net.link.stopService())
        self.net.link.startService()
        self.net.succeeds()
        first, second = self.net.link.stopService(), self.net.link.stopService()
        settle(self.net.clock)
        self.successResultOf(first)
        self.successResultOf(second)


class RenewalTests(SynchronousTestCase):
    """A second session before the first is let go."""

    def setUp(self) -> None:
        self.net = Network()
        self.net.link.startService()
        self.older = self.net.succeeds("socketwarp/1").other

    def test_theOldSessionStaysUntilTheNewOneIsThere(self) -> None:
        """And then it finishes its streams; who knows that they are over ends it."""
        self.net.link.renew()
        self.assertTrue(self.older.isOpen)
        newer = self.net.succeeds("socketwarp/1").other
        settle(self.net.clock)
        self.assertEqual([True, True], [self.older.isOpen, newer.isOpen])
        [goaway] = self.net.listeners[0].heard(Goaway)
        self.assertEqual("renewed", goaway.reason)
        self.net.peers[0].close(Code.NO_ERROR, "all streams are over")
        settle(self.net.clock)
        self.assertIsNone(self.net.underWay)
        self.assertEqual([newer], self.net.open)

    def test_aRenewalThatFailsIsTriedAgain(self) -> None:
        """The old session stays the current one."""
        self.net.link.renew()
        self.net.fails(SessionRefused("revoked", "verifier-refused", None))
        self.assertEqual([self.older], self.net.open)
        self.net.clock.advance(60)
        self.assertIsNotNone(self.net.underWay)
        self.net.succeeds("socketwarp/1")
        self.assertEqual(2, len(self.net.open))

    def test_aLossDuringTheRenewalDoesNotDisturbIt(self) -> None:
        """Neither the attempt nor the pause before it is begun again."""
        self.net.link.renew()
        self.net.loses()
        self.assertEqual(2, len(self.net.attempts))
        self.assertIsNotNone(self.net.underWay)
        newer = self.net.succeeds("socketwarp/1").other
        self.net.link.renew()
        self.net.fails()
        self.net.loses()
        self.net.clock.advance(0.5)
        self.assertEqual(4, len(self.net.attempts))
        self.assertFalse(newer.isOpen)

    def test_theListenerMayNoticeTheNewSessionFirst(self) -> None:
        """Its goaway on the old one overtakes its welcome on the new one."""
        self.net.link.renew()
        self.net.goesAway("renewed")
        self.assertEqual(2, len(self.net.attempts))
        self.net.succeeds("socketwarp/1")
        self.assertEqual(2, len(self.net.open))

    def test_aCertificateThatComesDuringAnAttemptIsUsedByTheNext(self) -> None:
        """The attempt may have begun with the old one."""
        self.net.link.renew()
        self.net.link.renew()
        self.net.succeeds("socketwarp/1")
        settle(self.net.clock)
        self.assertEqual(3, len(self.net.attempts))
        self.assertIsNotNone(self.net.underWay)

    def test_withAListenerThatCannotTellTheCertificateWaits(self) -> None:
        """The new session would take over from the old one, and end its streams."""
        net = Network()
        net.link.startService()
        net.succeeds("hq-29")
        net.link.renew()
        self.assertEqual(1, len(net.attempts))

    def test_aNewCertificateEndsAPause(self) -> None:
        """Whatever the pause is for: the listener may have refused the old one."""
        self.net.loses()
        self.net.clock.advance(0.5)
        self.net.fails(SessionRefused("unknown", "verifier-refused", None))
        self.net.link.renew()
        self.assertIsNotNone(self.net.underWay)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_thereIsALimitToThoseThatFinish(self) -> None:
        """The oldest gives way."""
        for _ in range(RETIRED_LIMIT + 1):
            self.net.link.renew()
            self.net.succeeds("socketwarp/1")
            settle(self.net.clock)
        self.assertFalse(self.older.isOpen)
        self.assertEqual(RETIRED_LIMIT + 1, len(self.net.open))

    def test_aSessionThatFallsSilentGetsACompanion(self) -> None:
        """Control that doesn't answer is no control; the streams may still get through."""
        self.net.listeners[0].isMute = True
        self.net.clock.advance(PING_SECONDS)
        settle(self.net.clock)
        self.net.clock.advance(PONG_SECONDS)
        self.assertIsNotNone(self.net.underWay)
        self.assertTrue(self.older.isOpen)

    def test_aSessionThatAnswersDoesNot(self) -> None:
        """However long it lasts."""
        for _ in range(60):
            self.net.clock.advance(1)
            settle(self.net.clock)
        self.assertEqual(1, len(self.net.attempts))
        self.assertEqual(6, self.net.listeners[0].pings)


class GoawayTests(SynchronousTestCase):
    """The listener opens no more streams."""

    def setUp(self) -> None:
        self.net = Network()
        self.net.link.startService()
        self.session = self.net.succeeds("socketwarp/1").other

    def test_whenItStopsWeConnectAnew(self) -> None:
        """While the streams of the old session finish."""
        self.net.goesAway("shutdown")
        self.assertTrue(self.session.isOpen)
        self.net.clock.advance(0.5)
        self.assertIsNotNone(self.net.underWay)

    def test_theSupersededEndsAndStaysAway(self) -> None:
        """For the longest pause, whatever the network does; then it takes the uid from nobody."""
        self.net.goesAway("superseded", 0)
        self.assertEqual((Code.SUPERSEDED, "it is superseded"), self.session.closedWith)
        self.net.link.wake()
        self.net.clock.advance(59.9)
        self.assertIsNone(self.net.underWay)
        self.net.clock.advance(0.1)
        self.assertEqual([False, True], self.net.yielding)

    def test_onceAdmittedItYieldsNoMore(self) -> None:
        """The other one has gone."""
        self.net.goesAway("superseded", 0)
        self.net.clock.advance(60)
        self.net.succeeds("socketwarp/1")
        self.net.loses()
        self.net.clock.advance(30)
        self.assertEqual([False, True, False], self.net.yielding)

    def test_whoYieldsAndIsRefusedBecauseOfAnotherStaysAwayAgain(self) -> None:
        """As long, whatever the network does."""
        self.net.goesAway("superseded", 0)
        self.net.clock.advance(60)
        self.net.fails(SessionRefused("taken", "superseded", 5.0))
        self.net.link.wake()
        self.net.clock.advance(59.9)
        self.assertIsNone(self.net.underWay)
        self.net.clock.advance(0.1)
        self.assertEqual([False, True, True], self.net.yielding)

    def test_whoWasNotSupersededAsksForItsUidWhenTheHoldIsOver(self) -> None:
        """Then, and a little jitter later, however often; it yields to nobody, and the network may hurry it."""
        self.net.loses()
        self.net.clock.advance(0.5)
        for seconds in (1.0, 1.0, 8.0, 60.0):
            self.net.fails(SessionRefused("taken", "superseded", seconds))
            self.net.clock.advance(seconds)
            self.assertIsNone(self.net.underWay)
            self.net.clock.advance(SHORT_PAUSE / 2)
            self.assertIsNotNone(self.net.underWay)
        self.net.fails(SessionRefused("taken", "superseded", 60.0))
        self.net.link.wake()
        self.assertIsNotNone(self.net.underWay)
        self.assertEqual({False}, set(self.net.yielding))

    def pauses(self, count: int) -> list[float]:
        """Those before the next attempts, each of which fails."""
        pauses = []
        for _ in range(count):
            [call] = self.net.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.net.clock.seconds())
            self.net.clock.advance(pauses[-1])
            self.net.fails()
        return pauses

    def test_pausesStayShortWhileTheListenerRestarts(self) -> None:
        """Until the drain and the restart are over; then they grow as ever."""
        self.net.goesAway("shutdown", 30.0)
        self.net.loses(Code.SHUTDOWN, "the listener stops")
        self.assertEqual([0.5] + [1.0] * 60, self.pauses(61))
        self.assertEqual([1.0, 2.0, 4.0], self.pauses(3))

    def test_aSessionThatIsClosedBecauseTheListenerStopsIsARestart(self) -> None:
        """Without goaway, as hq-29 does; and so is an attempt that ends so."""
        self.net.loses(Code.SHUTDOWN, "the listener stops")
        self.assertEqual([0.5] + [1.0] * 20, self.pauses(21))
        self.net.clock.advance(1.0)
        self.net.fails(SessionLost("the listener stops", Code.SHUTDOWN, True))
        self.assertEqual([1.0] * 30, self.pauses(30))

    def test_aRefusalSaysWhenToAskAgain(self) -> None:
        """At the earliest: the jitter comes on top."""
        self.net.loses()
        self.net.clock.advance(0.5)
        self.net.fails(SessionRefused("its database is down", "verifier-fault", 7.0))
        self.net.clock.advance(7.9)
        self.assertIsNone(self.net.underWay)
        self.net.clock.advance(0.1)
        self.assertIsNotNone(self.net.underWay)


class WakeTests(SynchronousTestCase):
    """The network has changed."""

    def setUp(self) -> None:
        self.net = Network()
        self.net.link.startService()

    def test_aPauseEnds(self) -> None:
        """At once, and the next ones are short again."""
        for _ in range(6):
            self.net.fails()
            self.net.clock.advance(60)
        self.net.fails()
        self.net.link.wake()
        self.assertIsNotNone(self.net.underWay)
        self.net.fails()
        self.net.clock.advance(0.5)
        self.assertIsNotNone(self.net.underWay)

    def test_anAttemptThatFailsLaterIsFollowedAtOnce(self) -> None:
        """It began without the network."""
        self.net.link.wake()
        self.net.fails()
        self.net.clock.advance(0)
        self.assertEqual(2, len(self.net.attempts))

    def test_aSessionIsAskedWhetherItIsThere(self) -> None:
        """Before its next ping is due."""
        self.net.succeeds("socketwarp/1")
        self.net.listeners[0].isMute = True
        self.net.link.wake()
        settle(self.net.clock)
        self.assertEqual(1, self.net.listeners[0].pings)
        self.net.clock.advance(PONG_SECONDS)
        self.assertIsNotNone(self.net.underWay)


class LeavingTests(SynchronousTestCase):
    """The connector drains."""

    def setUp(self) -> None:
        self.net = Network()
        self.net.link.startService()

    def test_theListenerIsToldAndEndsTheSession(self) -> None:
        """All sessions, those that finish from a renewal among them."""
        self.net.succeeds("socketwarp/1")
        self.net.link.renew()
        self.net.succeeds("socketwarp/1")
        left = self.net.link.leave(30.0)
        settle(self.net.clock)
        for listening, peer in zip(self.net.listeners, self.net.peers, strict=True):
            self.assertNoResult(left)
            self.assertEqual(Goaway("shutdown", 30.0, "the connector is stopping"), listening.heard(Goaway)[-1])
            peer.close(Code.NO_ERROR, "all streams are over")
            settle(self.net.clock)
        self.successResultOf(left)
        self.successResultOf(self.net.link.stopService())
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_whoCannotBeToldIsNotWaitedFor(self) -> None:
        """An hq-29 listener can't end its session by its own insight."""
        session = self.net.succeeds("hq-29").other
        self.successResultOf(self.net.link.leave(30.0))
        self.assertTrue(session.isOpen)
        stopped = self.net.link.stopService()
        settle(self.net.clock)
        self.successResultOf(stopped)

    def test_attemptsAndPausesAreGivenUp(self) -> None:
        """And nothing begins any more."""
        self.successResultOf(self.net.link.leave(30.0))
        self.assertTrue(self.net.attempts[0].called)
        self.net.link.wake()
        self.net.link.renew()
        self.net.clock.advance(100)
        self.assertEqual(1, len(self.net.attempts))
        self.successResultOf(self.net.link.stopService())


class AnyOrder(RuleBasedStateMachine):
    """Events in any order, in both dialects."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()
        self.running = False

    @precondition(lambda self: not self.running)
    @rule()
    def start(self) -> None:
        self.net.link.startService()
        self.running = True

    @precondition(lambda self: self.running)
    @rule(drains=st.booleans())
    def stop(self, drains: bool) -> None:
        if drains:
            self.net.link.leave(30.0)
        stopped = self.net.link.stopService()
        settle(self.net.clock)
        assert stopped.called
        self.running = False
        assert not self.net.open
        assert not self.net.clock.getDelayedCalls()

    @precondition(lambda self: self.net.underWay is not None)
    @rule(protocol=st.sampled_from(["hq-29", "socketwarp/1"]))
    def succeed(self, protocol: str) -> None:
        self.net.succeeds(protocol)

    @precondition(lambda self: self.net.underWay is not None)
    @rule(
        error=st.sampled_from(
            [
                SessionLost("x"),
                SessionLost("x", 0x12D, True),
                OSError("y"),
                SessionRefused("z", "verifier-refused", None),
                SessionRefused("z", "superseded", 60.0),
                SessionRefused("z", "superseded", 1.0),
                SessionRefused("z", "limit", 5.0),
            ]
        )
    )
    def fail(self, error: Exception) -> None:
        self.net.fails(error)

    @precondition(lambda self: self.net.open)
    @rule(code=st.sampled_from([None, *Code]))
    def lose(self, code: Code | None) -> None:
        self.net.loses(code)

    @precondition(lambda self: self.net.open)
    @rule(reason=st.sampled_from(["shutdown", "renewed", "superseded", "else"]))
    def goAway(self, reason: str) -> None:
        self.net.goesAway(reason)

    @precondition(lambda self: self.net.open)
    @rule()
    def fallSilent(self) -> None:
        self.net.listeners[-1].isMute = True

    @rule()
    def renew(self) -> None:
        self.net.link.renew()

    @rule()
    def wake(self) -> None:
        self.net.link.wake()

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.net.clock.advance(seconds)
        settle(self.net.clock)

    @invariant()
    def somethingIsUnderWay(self) -> None:
        """A session, an attempt, or a pause; one attempt at most, and nothing when it is stopped."""
        waiting = sum(not attempt.called for attempt in self.net.attempts)
        assert waiting <= (1 if self.running else 0)
        if self.running and not waiting:
            assert self.net.open or self.net.clock.getDelayedCalls()

    @invariant()
    def fewSessionsFinish(self) -> None:
        assert len(self.net.open) <= RETIRED_LIMIT + 1

    @invariant()
    def noPauseIsLongerThanTheCap(self) -> None:
        for call in self.net.clock.getDelayedCalls():
            assert call.getTime() - self.net.clock.seconds() <= 65

    def teardown(self) -> None:
        """Left alone with a listener that admits us, there is a session that takes visitors in the end."""
        if not self.running:
            return
        for _ in range(4):
            self.net.clock.advance(65)
            settle(self.net.clock)
            if self.net.underWay is not None:
                self.net.succeeds("socketwarp/1")
        assert self.net.open


class AnyOrderTests(SynchronousTestCase):
    """See `AnyOrder`."""

    def test_anyOrderOfEventsEndsInASession(self) -> None:
        """An attempt, a session or a pause while it runs, and nothing when it doesn't."""
        run_state_machine_as_test(AnyOrder, settings=settings(deadline=None, max_examples=100))
