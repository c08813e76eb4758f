"""One attempt: all addresses of the listener's name, one after the other."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.attempt import RESOLVE_TIMEOUT, Attempts
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
        self.assertEqual(len(self.tried), 1)
