"""One attempt: all addresses of the listener's name, each a little after the one before."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.attempt import RESOLVE_TIMEOUT, STAGGER, Attempts
from socketwarp.errors import SessionLost
from socketwarp.interfaces import Address, ISession
from tests.connector.fakes import FakeResolver
from tests.fakes import sessionPair


class AttemptTests(SynchronousTestCase):
    """Against a resolver and a carrier that do as they are told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.resolver.table["listener"] = ["2001:db8::1", "192.0.2.1"]
        self.tried: list[tuple[Address, Deferred[ISession]]] = []
        self.attempt = Attempts("listener", 11443, self.resolver, self.clock, self.connect)

    def connect(self, address: Address) -> Deferred[ISession]:
        self.tried.append((address, Deferred()))
        return self.tried[-1][1]

    def test_theFirstThatAnswers(self) -> None:
        """In the resolver's order."""
        attempt = self.attempt()
        self.assertEqual(self.tried[-1][0], ("2001:db8::1", 11443))
        self.tried[-1][1].errback(SessionLost("no answer"))
        self.assertEqual(self.tried[-1][0], ("192.0.2.1", 11443))
        session = sessionPair(self.clock)[1]
        self.tried[-1][1].callback(session)
        self.assertIs(self.successResultOf(attempt), session)

    def test_whatWorkedIsTriedFirst(self) -> None:
        """A black hole in the list costs its time-out only once."""
        self.test_theFirstThatAnswers()
        self.attempt()
        self.assertEqual(self.tried[-1][0], ("192.0.2.1", 11443))

    def test_oneThatDoesNotAnswerHoldsTheNextUpForAMoment(self) -> None:
        """And is given up when the other answers."""
        attempt = self.attempt()
        self.clock.advance(STAGGER - 0.01)
        self.assertEqual(1, len(self.tried))
        self.clock.advance(0.01)
        self.assertEqual(self.tried[-1][0], ("192.0.2.1", 11443))
        session = sessionPair(self.clock)[1]
        self.tried[1][1].callback(session)
        self.assertIs(self.successResultOf(attempt), session)
        self.assertTrue(self.tried[0][1].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_theFirstMayStillWin(self) -> None:
        """The head start isn't all it gets."""
        attempt = self.attempt()
        self.clock.advance(STAGGER)
        session = sessionPair(self.clock)[1]
        self.tried[0][1].callback(session)
        self.assertIs(self.successResultOf(attempt), session)
        self.assertTrue(self.tried[1][1].called)

    def test_theFamiliesTakeTurns(self) -> None:
        """So that a host whose IPv6 leads nowhere doesn't try all of that first (RFC 8305 section 4)."""
        self.resolver.table["listener"] = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"]
        self.attempt()
        self.clock.pump([STAGGER] * 5)
        expected = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
        self.assertEqual(expected, [address[0] for address, _ in self.tried])

    def test_whoeverComesTooLateIsClosed(self) -> None:
        """An attempt may be past the point where it can be cancelled."""
        late = sessionPair(self.clock)[1]
        stubborn: Deferred[ISession] = Deferred(lambda attempt: attempt.callback(late))
        answers = [stubborn, Deferred()]
        attempt = Attempts("listener", 11443, self.resolver, self.clock, lambda address: answers.pop(0))()
        session = sessionPair(self.clock)[1]
        second = answers[-1]
        self.clock.advance(STAGGER)
        second.callback(session)
        self.assertIs(self.successResultOf(attempt), session)
        self.assertEqual([False, True], [late.isOpen, session.isOpen])

    def test_theLastOfSeveralThatRunFailsTheAttempt(self) -> None:
        """Not the first."""
        attempt = self.attempt()
        self.clock.advance(STAGGER)
        self.tried[0][1].errback(SessionLost("first"))
        self.assertNoResult(attempt)
        self.tried[1][1].errback(SessionLost("second"))
        self.assertEqual("second", str(self.failureResultOf(attempt, SessionLost).value))

    def test_aFaultOfOursEndsTheAttempt(self) -> None:
        """Without another try: it would fail the same way."""
        attempt = self.attempt()
        self.tried[0][1].errback(ZeroDivisionError())
        self.failureResultOf(attempt, ZeroDivisionError)
        self.assertEqual((1, []), (len(self.tried), self.clock.getDelayedCalls()))

    def test_namesAreResolvedEachTime(self) -> None:
        """Over UDP; an answer may change while we run."""
        self.attempt()
        self.resolver.table["listener"] = ["192.0.2.9"]
        self.attempt()
        self.assertEqual(self.tried[-1][0], ("192.0.2.9", 11443))
        self.assertEqual(self.resolver.asked, [("listener", 11443, "UDP")] * 2)

    def test_theLastReasonIsTheAttempts(self) -> None:
        """A failure of the system counts like one of the peer."""
        attempt = self.attempt()
        self.tried[-1][1].errback(OSError("no route"))
        self.tried[-1][1].errback(SessionLost("expired", 0x12D, fromPeer=True))
        self.assertEqual(self.failureResultOf(attempt, SessionLost).value.errorCode, 0x12D)

    def test_noAddress(self) -> None:
        """Says what to check."""
        self.resolver.table.clear()
        self.assertIn("check the name", str(self.failureResultOf(self.attempt(), SessionLost).value))

    def test_noAnswerFromTheResolver(self) -> None:
        """Is waited for only so long."""
        self.resolver.table["listener"] = None
        attempt = self.attempt()
        self.clock.advance(RESOLVE_TIMEOUT)
        self.assertIn("could not be resolved", str(self.failureResultOf(attempt, SessionLost).value))

    def test_cancelling(self) -> None:
        """Gives up what is under way, and tries nothing else."""
        attempt = self.attempt()
        attempt.cancel()
        self.failureResultOf(attempt, CancelledError)
        self.clock.advance(60)
        self.assertEqual(len(self.tried), 1)
