"""Time limits of one length for many."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.deadlines import Deadlines


class DeadlineTests(SynchronousTestCase):
    """Each is as if it had a call of the reactor's to itself."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, 10.0)
        self.late: list[tuple[int, float]] = []

    def begin(self, key: int) -> None:
        self.deadlines.begin(key, lambda: self.late.append((key, self.clock.seconds())))

    def test_whatHasNotEndedInTimeIsCalledOnce(self) -> None:
        self.begin(1)
        self.clock.advance(4.0)
        self.begin(2)
        self.clock.advance(6.0)
        self.assertEqual([(1, 10.0)], self.late)
        self.clock.advance(30.0)
        self.assertEqual(([(1, 10.0), (2, 40.0)], []), (self.late, self.clock.getDelayedCalls()))

    def test_whatHasEndedIsNot(self) -> None:
        self.begin(1)
        self.deadlines.end(1)
        self.deadlines.end(1)
        self.clock.advance(10.0)
        self.assertEqual(([], []), (self.late, self.clock.getDelayedCalls()))

    def test_whenItStopsNobodyIsCalled(self) -> None:
        for _ in range(2):
            self.begin(1)
            self.deadlines.stop()
            self.assertEqual([], self.clock.getDelayedCalls())
        self.clock.advance(10.0)
        self.deadlines.stop()
        self.assertEqual([], self.late)

    def test_manyHaveOneCallOfTheReactors(self) -> None:
        for key in range(1000):
            self.begin(key)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.clock.advance(10.0)
        self.assertEqual(list(range(1000)), [key for key, _ in self.late])

    def test_whoIsLateMayEndOthersAndBeginAnother(self) -> None:
        def end() -> None:
            self.deadlines.end(2)
            self.begin(3)

        self.deadlines.begin(1, end)
        self.begin(2)
        self.clock.advance(10.0)
        self.assertEqual([], self.late)
        self.clock.advance(10.0)
        self.assertEqual([(3, 20.0)], self.late)

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30).filter(lambda length: length != 10)), max_size=20))
    def test_likeCallsOfTheirOwn(self, connections: list[tuple[int, int]]) -> None:
        """Each begins some time after the one before, and ends after so long, if it isn't late by then."""
        self.setUp()
        expected: list[tuple[int, float]] = []
        calls: dict[int, IDelayedCall] = {}

        def begin(key: int) -> None:
            self.begin(key)
            calls[key] = self.clock.callLater(10.0, lambda: expected.append((key, self.clock.seconds())))

        def end(key: int) -> None:
            self.deadlines.end(key)
            if calls[key].active():
                calls[key].cancel()

        begins = 0
        for key, (pause, length) in enumerate(connections):
            begins += pause
            self.clock.callLater(begins, begin, key)
            self.clock.callLater(begins + length, end, key)
        self.clock.pump([1.0] * (begins + 50))
        self.assertEqual(expected, self.late)
