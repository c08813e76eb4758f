"""A process's budget of memory: what is done when it runs short, and when it is used up."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import SessionLost
from socketwarp.memory import LOOK_SECONDS, STREAM_BYTES, MemoryBudget
from tests.fakes import FakeSession, sessionPair, settle

BUDGET = 1_000_000


class BudgetTests(SynchronousTestCase):
    """Two sessions, whose buffers are played."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[bool] = []
        self.budget = MemoryBudget(self.clock, BUDGET, self.told.append)
        self.first, self.second = self.session(), self.session()

    def session(self) -> FakeSession:
        """A session that is watched."""
        session, _ = sessionPair(self.clock)
        self.budget.watch(session)
        return session

    def hold(self, first: int, second: int = 0) -> None:
        """So many bytes are in the sessions' buffers, and somebody looks."""
        self.first.buffered, self.second.buffered = first, second
        self.clock.advance(LOOK_SECONDS)

    def areSaving(self) -> tuple[bool, bool]:
        return self.first.isMemoryShort, self.second.isMemoryShort

    def test_allSessionsSaveMemoryFromThreeQuartersOn(self) -> None:
        """Of the sum: who holds little saves, too."""
        self.hold(400_000, 349_999)
        self.assertEqual((False, False), self.areSaving())
        with capturedLogs() as events:
            self.hold(400_000, 350_000)
        self.assertEqual((True, True), self.areSaving())
        [event] = events
        self.assertEqual((750_000, BUDGET), (event["held"], event["limit"]))

    def test_theySaveUntilLessThanSixTenthsAreHeld(self) -> None:
        self.hold(750_000)
        self.hold(600_000)
        self.assertEqual((True, True), self.areSaving())
        self.hold(599_999)
        self.assertEqual((False, False), self.areSaving())
        self.assertEqual([], self.told)

    def test_aNewSessionSavesAtOnce(self) -> None:
        self.hold(750_000)
        self.assertTrue(self.session().isMemoryShort)

    def test_aNewSessionHasNothingToSaveOtherwise(self) -> None:
        self.hold(749_999)
        self.assertFalse(self.session().isMemoryShort)

    def test_nobodyIsLetInFromTheWholeBudgetOn(self) -> None:
        """Until less than nine tenths of it are held."""
        self.hold(999_999)
        self.assertEqual([], self.told)
        for held in (1_000_000, 2_000_000, 900_000):
            self.hold(held)
            self.assertEqual([True], self.told)
        self.hold(899_999)
        self.assertEqual([True, False], self.told)
        self.assertEqual((True, True), self.areSaving())

    def test_streamsCountThoughTheyHoldNothing(self) -> None:
        for _ in range(BUDGET // STREAM_BYTES):
            self.successResultOf(self.first.openStream())
        self.hold(0)
        self.assertEqual([True], self.told)

    def test_aLostSessionHoldsNothing(self) -> None:
        self.hold(1_000_000)
        self.first.lose(SessionLost("gone"))
        settle(self.clock)
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual([True, False], self.told)
        self.assertFalse(self.second.isMemoryShort)

    def test_withTheLastSessionAllIsFreeAtOnce(self) -> None:
        """And nothing is left that looks."""
        self.hold(1_000_000)
        for session in (self.first, self.second):
            session.lose(SessionLost("gone"))
        self.assertEqual([True, False], self.told)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertFalse(self.session().isMemoryShort)

    def test_lookingGoesOnWithTheNextSession(self) -> None:
        for session in (self.first, self.second):
            session.lose(SessionLost("gone"))
        self.first = self.session()
        self.hold(1_000_000)
        self.assertEqual([True], self.told)

    def test_withoutABudgetNobodyLooks(self) -> None:
        clock = Clock()
        session, _ = sessionPair(clock)
        MemoryBudget(clock, 0, self.told.append).watch(session)
        self.assertEqual([], clock.getDelayedCalls())

    @given(st.lists(st.integers(0, 3 * BUDGET // 2), max_size=20))
    def test_whatIsToldAlternates(self, amounts: list[int]) -> None:
        """Whatever is held when: nobody is let in only while sessions save memory, and each word is a change."""
        self.setUp()
        for amount in amounts:
            self.hold(amount)
            self.assertEqual([True, False] * (len(self.told) // 2) + [True] * (len(self.told) % 2), self.told)
            isFull = bool(self.told and self.told[-1])
            self.assertLessEqual((isFull, isFull), self.areSaving())
