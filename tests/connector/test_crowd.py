"""Many connectors lose one listener together; they don't come back together."""

from collections import Counter
from random import Random

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.backoff import Backoff
from socketwarp.connector.conversation import Conversation
from socketwarp.connector.link import Link
from socketwarp.errors import SessionLost
from socketwarp.wire.messages import Hello
from tests.fakes import FakeSession, sessionPair, settle

CONNECTORS = 500
#: Seconds: the settings' defaults.
BASE, CAP, STABLE = 1.0, 60.0, 30.0
#: Seconds by which the clock goes on.
STEP = 0.01


class CrowdTests(SynchronousTestCase):
    """Each has dice of its own; they are loaded, so that the test is the same every time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.isThere = True
        self.tried: list[float] = []
        self.sessions: list[FakeSession] = []
        for seed in range(CONNECTORS):
            backoff = Backoff(BASE, CAP, Random(seed).random)
            link = Link("listener:11443", self.attempt, backoff, STABLE, self.clock)
            link.startService()
            self.addCleanup(link.stopService)
        self.clock.advance(STABLE)

    def attempt(self, yields: bool) -> Deferred[Conversation]:
        """One of them tries."""
        self.tried.append(self.clock.seconds())
        if not self.isThere:
            return fail(SessionLost("nobody answers"))
        _, connector = sessionPair(self.clock, "hq-29")
        self.sessions.append(connector)
        return Conversation(connector, self.clock).open(Hello("socketwarp", "0", "instance", 100))

    def lose(self) -> None:
        """The listener is gone, for all at one moment."""
        lost, self.sessions = self.sessions, []
        for session in lost:
            session.lose(SessionLost("the listener was restarted"))
        settle(self.clock)

    def most(self, seconds: float, unit: float) -> int:
        """Let time pass; the most attempts that there were in a unit of it, seconds both."""
        self.tried = []
        begin = self.clock.seconds()
        self.clock.pump([STEP] * round(seconds / STEP))
        return max(Counter(int((time - begin) / unit) for time in self.tried).values())

    def test_aListenerThatIsBackAtOnceSeesThemSpreadOverTheFirstPause(self) -> None:
        self.lose()
        self.assertLess(self.most(BASE, BASE / 10), CONNECTORS // 5)
        self.assertEqual(CONNECTORS, len(self.sessions))

    def test_aListenerThatIsBackLaterSeesFewInAnySecondAndAllWithinTheCap(self) -> None:
        """The fewer, the longer it was away."""
        for away, share in ((10.0, 0.2), (60.0, 0.1)):
            self.isThere = False
            self.lose()
            self.most(away, 1.0)
            self.isThere = True
            self.assertEqual([], self.sessions)
            self.assertLess(self.most(CAP, 1.0), CONNECTORS * share, away)
            self.assertEqual(CONNECTORS, len(self.sessions))
            self.clock.advance(STABLE)
