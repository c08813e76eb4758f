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
from socketwarp.connector.link import Link
from socketwarp.errors import Code, SessionLost
from socketwarp.interfaces import ISession
from tests.fakes import FakeSession, sessionPair, settle

STABLE = 30.0


class Network:
    """
    A link, and what it works with.

    :ivar attempts: those made so far; the last may be under way.
    :ivar served: sessions that were given to be served.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[ISession]] = []
        self.served: list[ISession] = []
        self.peers: list[FakeSession] = []
        backoff = Backoff(1.0, 60.0, lambda: 0.5)
        self.link = Link("listener:11443", self.attempt, self.served.append, backoff, STABLE, self.clock)

    def attempt(self) -> Deferred[ISession]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    @property
    def underWay(self) -> Deferred[ISession] | None:
        """The attempt that waits for an answer."""
        return self.attempts[-1] if self.attempts and not self.attempts[-1].called else None

    def succeeds(self) -> FakeSession:
        """The attempt gives a session; the result is the listener's end of it."""
        listener, connector = sessionPair(self.clock)
        self.peers.append(listener)
        self.attempts[-1].callback(connector)
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


class LinkTests(SynchronousTestCase):
    """One link through its life."""

    def setUp(self) -> None:
        self.net = Network()

    def test_isAService(self) -> None:
        """So that twistd can run it."""
        verifyObject(IService, self.net.link)

    def test_connectsAndServes(self) -> None:
        """A session is served as soon as it is there."""
        self.net.link.startService()
        self.net.succeeds()
        self.assertEqual(self.net.served, [self.net.peers[0].other])

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
        self.assertIn("the listener's verifier refuses our certificate", event["why"])
        self.assertIn("User Not Found", event["why"])
        self.assertEqual(event["delay"], 0.5)

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
        attempt: Deferred[ISession] = Deferred(lambda attempt: attempt.callback(connector))
        self.patch(self.net, "attempt", lambda: attempt)
        link = Link("listener", lambda: attempt, self.net.served.append, Backoff(1, 1, lambda: 1.0), 1, self.net.clock)
        link.startService()
        stopped = link.stopService()
        settle(self.net.clock)
        self.successResultOf(stopped)
        self.assertEqual((listener.isOpen, self.net.served), (False, []))

    def test_everybodyWhoStopsIsTold(self) -> None:
        """However often it is asked."""
        self.successResultOf(self.net.link.stopService())
        self.net.link.startService()
        self.net.succeeds()
        first, second = self.net.link.stopService(), self.net.link.stopService()
        settle(self.net.clock)
        self.successResultOf(first)
        self.successResultOf(second)


class AnyOrder(RuleBasedStateMachine):
    """Events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()
        self.running = False

    @property
    def open(self) -> list[ISession]:
        """Sessions that aren't over."""
        return [session for session in self.net.served if session.isOpen]

    @precondition(lambda self: not self.running)
    @rule()
    def start(self) -> None:
        self.net.link.startService()
        self.running = True

    @precondition(lambda self: self.running)
    @rule()
    def stop(self) -> None:
        stopped = self.net.link.stopService()
        settle(self.net.clock)
        assert stopped.called
        self.running = False

    @precondition(lambda self: self.net.underWay is not None)
    @rule()
    def succeed(self) -> None:
        self.net.succeeds()

    @precondition(lambda self: self.net.underWay is not None)
    @rule(error=st.sampled_from([SessionLost("x"), SessionLost("x", 0x12D, True), OSError("y")]))
    def fail(self, error: Exception) -> None:
        self.net.fails(error)

    @precondition(lambda self: self.open)
    @rule(code=st.sampled_from([None, *Code]))
    def lose(self, code: Code | None) -> None:
        self.net.loses(code)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.net.clock.advance(seconds)

    @invariant()
    def oneThingIsUnderWay(self) -> None:
        pauses = len(self.net.clock.getDelayedCalls())
        attempts = 1 if self.net.underWay is not None else 0
        assert len(self.open) + pauses + attempts == (1 if self.running else 0)

    @invariant()
    def noPauseIsLongerThanTheCap(self) -> None:
        for call in self.net.clock.getDelayedCalls():
            assert call.getTime() - self.net.clock.seconds() <= 60


class AnyOrderTests(SynchronousTestCase):
    """See `AnyOrder`."""

    def test_oneThingIsUnderWayInAnyOrderOfEvents(self) -> None:
        """An attempt, a session or a pause while it runs, and nothing when it doesn't."""
        run_state_machine_as_test(AnyOrder, settings=settings(deadline=None, max_examples=100))
