"""Who serves which uid: decisions, without sessions that do anything."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import LimitReached, UidTaken
from socketwarp.interfaces import Identity
from socketwarp.listener import roster
from socketwarp.listener.roster import (
    CALM,
    FREE_TAKEOVERS,
    LEAVING_LIMIT,
    LONGEST_HOLD,
    SILENCE,
    Connector,
    Roster,
    Verdict,
)
from tests.fakes import leafCertificate, sessionPair


def connector(uid: str = "uid-1", instance: str | None = None, **fields: Any) -> Connector:  # Any: a Connector's fields
    """Somebody who has been verified."""
    session, _ = sessionPair(Clock())
    return Connector(Identity(uid, leafCertificate(uid)), session, 0.0, instance, **fields)


class RosterTests(SynchronousTestCase):
    """One uid, unless another is named."""

    def setUp(self) -> None:
        self.roster = Roster()

    def join(self, newcomer: Connector, isShared: bool = False, now: float = 0.0) -> Verdict:
        return self.roster.join(newcomer, isShared, now)

    def joined(self, *newcomers: Connector, isShared: bool = False) -> None:
        for newcomer in newcomers:
            self.join(newcomer, isShared)

    def test_theNewcomerWins(self) -> None:
        older, newcomer = connector(instance="a"), connector(instance="b")
        self.joined(older)
        self.assertEqual(Verdict((), (older,)), self.join(newcomer))
        self.assertIs(newcomer, self.roster.choose("uid-1", 0.0))
        self.assertTrue(older.isLeaving)
        self.assertCountEqual([older, newcomer], self.roster)

    def test_theSameInstanceRenewsItself(self) -> None:
        older, newcomer = connector(instance="a"), connector(instance="a")
        self.joined(older)
        self.assertEqual(Verdict((older,), ()), self.join(newcomer))
        self.assertEqual((newcomer,), self.roster.serving("uid-1"))

    def test_withoutInstancesEveryNewcomerTakesOver(self) -> None:
        older = connector()
        self.joined(older)
        self.assertEqual((older,), self.join(connector()).superseded)

    def test_anotherUidIsNobodysNewcomer(self) -> None:
        self.joined(connector())
        self.assertEqual(Verdict(), self.join(connector("uid-2")))

    def test_whatIsClosingIsNotTakenOver(self) -> None:
        older = connector()
        self.joined(older)
        older.session.close(0, "over")
        self.assertEqual(Verdict(), self.join(connector()))

    def test_whoYieldsTakesOnlyWhatIsFree(self) -> None:
        older, yielding = connector(instance="a"), connector(instance="b", yields=True)
        self.joined(older)
        error = self.assertRaises(UidTaken, self.join, yielding)
        self.assertEqual(LONGEST_HOLD, error.retryAfter)
        self.assertEqual((older,), self.roster.serving("uid-1"))
        self.roster.leave(older)
        self.assertEqual(Verdict(), self.join(yielding))

    def test_aSharedUidHasSeveral(self) -> None:
        first, second = connector(instance="a"), connector(instance="b")
        self.joined(first, second, isShared=True)
        self.assertEqual((first, second), self.roster.serving("uid-1"))
        again = connector(instance="a")
        self.assertEqual(Verdict((first,), ()), self.join(again, True))
        self.assertEqual((second, again), self.roster.serving("uid-1"))

    def test_whoseUidIsNotSharedAnyMoreEndsTheOthers(self) -> None:
        """Or two would go on for as long as they last."""
        first, second, third = (connector(instance=name) for name in "abc")
        self.joined(first, second, isShared=True)
        self.assertEqual((first, second), self.join(third).superseded)

    def test_aSharedUidHasALimit(self) -> None:
        self.patch(roster, "SHARED_LIMIT", 2)
        self.joined(connector(instance="a"), connector(instance="b"), isShared=True)
        self.assertRaises(LimitReached, self.join, connector(instance="c"), True)
        self.assertEqual(2, len(self.roster.serving("uid-1")))
        self.join(connector(instance="b"), True)

    def test_allTogetherHaveALimit(self) -> None:
        self.patch(roster, "SESSION_LIMIT", 1)
        first = connector()
        self.joined(first)
        self.assertRaises(LimitReached, self.join, connector("uid-2"))
        self.roster.leave(first)
        self.join(connector("uid-2"))

    def test_visitorsGoWhereThereAreFewest(self) -> None:
        first, second = connector(instance="a"), connector(instance="b")
        self.joined(first, second, isShared=True)
        first.visitors, second.visitors = 3, 2
        self.assertIs(second, self.roster.choose("uid-1", 0.0))
        second.visitors = 4
        self.assertIs(first, self.roster.choose("uid-1", 0.0))

    def test_amongEqualsVisitorsGoInTurns(self) -> None:
        all_ = [connector(instance=name) for name in "abc"]
        self.joined(*all_, isShared=True)
        chosen = [self.roster.choose("uid-1", 0.0) for _ in range(6)]
        self.assertEqual(all_ + all_, chosen)

    def test_theSilentGetVisitorsOnlyWhenAllAre(self) -> None:
        first, second = connector(instance="a", heardAt=0.0), connector(instance="b", heardAt=5.0, visitors=100)
        self.joined(first, second, isShared=True)
        chosen = [self.roster.choose("uid-1", now) for now in (SILENCE, SILENCE + 1, SILENCE + 6)]
        self.assertEqual([first, second, first], chosen)

    def test_whoOwesAnAnswerGetsNoneWhileOthersAreThere(self) -> None:
        first, second = connector(instance="a"), connector(instance="b", visitors=100)
        self.joined(first, second, isShared=True)
        first.session.isSilent = True
        self.assertIs(second, self.roster.choose("uid-1", 0.0))
        first.session.isSilent = False
        self.assertIs(first, self.roster.choose("uid-1", 0.0))

    def test_whoLeavesGetsNoVisitors(self) -> None:
        first, second = connector(instance="a"), connector(instance="b")
        self.joined(first, second, isShared=True)
        self.roster.retire(first)
        self.roster.retire(first)
        self.assertIs(second, self.roster.choose("uid-1", 0.0))
        self.assertIs(second, self.roster.choose("uid-1", 0.0))
        self.assertCountEqual([first, second], self.roster)

    def test_thereIsALimitToThoseThatLeave(self) -> None:
        sessions = [connector(instance="a") for _ in range(LEAVING_LIMIT + 2)]
        self.joined(*sessions)
        self.assertEqual((sessions[0],), self.roster.surplus("uid-1"))
        self.assertEqual((), self.roster.surplus("uid-2"))


class FlappingTests(SynchronousTestCase):
    """Two that take a uid from each other."""

    def setUp(self) -> None:
        self.roster = Roster()
        self.now = 0.0
        for _ in range(FREE_TAKEOVERS + 2):  # the first one takes over from nobody, the second was never superseded
            self.join()

    def join(self) -> None:
        self.roster.join(connector(), False, self.now)

    def held(self) -> float:
        error = self.assertRaises(UidTaken, self.join)
        assert isinstance(error, UidTaken)
        return error.retryAfter

    def test_theWinnerKeepsTheUidForAWhile(self) -> None:
        holder = self.roster.choose("uid-1", 0.0)
        self.assertEqual(1.0, self.held())
        self.assertIs(holder, self.roster.choose("uid-1", 0.0))
        self.now += 0.4
        self.assertAlmostEqual(0.6, self.held())
        self.now += 0.6
        self.join()

    def test_longerEachTime(self) -> None:
        held = []
        for _ in range(9):
            held.append(self.held())
            self.now += held[-1]
            self.join()
        self.assertEqual([1, 2, 4, 8, 16, 32, 60, 60, 60], held)

    def test_theReasonSaysWhatItIs(self) -> None:
        error = self.assertRaises(UidTaken, self.join)
        self.assertIn("two connectors fight for it", str(error))

    def test_afterSomeCalmItBeginsAnew(self) -> None:
        self.now += CALM
        for _ in range(FREE_TAKEOVERS):
            self.join()
        self.assertEqual(1.0, self.held())

    def test_aUidThatIsFreeCanBeTaken(self) -> None:
        for each in tuple(self.roster):
            self.roster.leave(each)
        self.join()

    def test_whoWasNeverSupersededIsARestartAndNobodysOpponent(self) -> None:
        """However often, and although others have fought."""
        for number in range(100):
            newcomer = connector(instance=str(number))
            self.roster.join(newcomer, False, self.now)
            self.assertIs(newcomer, self.roster.choose("uid-1", 0.0))

    def test_whoComesBackIsSlowedDownAndNobodyElse(self) -> None:
        roster = Roster()
        for instance in ("a", "b", *"ababa"):
            roster.join(connector(instance=instance), False, 0.0)
        error = self.assertRaises(UidTaken, roster.join, connector(instance="b"), False, 0.0)
        self.assertIn("5 takeovers", str(error))
        roster.join(connector(instance="c"), False, 0.0)
        self.assertRaises(UidTaken, roster.join, connector(instance="b"), False, 0.5)
        roster.join(connector(instance="b"), False, 1.0)

    def test_renewalsAreNoTakeovers(self) -> None:
        roster = Roster()
        for _ in range(20):
            roster.join(connector(instance="a"), False, 0.0)


class AnyOrder(RuleBasedStateMachine):
    """Connectors of two uids come, renew themselves, leave and are lost, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.now = 0.0
        self.there: list[Connector] = []
        self.latest: dict[str, Connector] = {}

    @rule(uid=st.sampled_from(["uid-1", "shared"]), instance=st.sampled_from(["a", "b", None]), yields=st.booleans())
    def join(self, uid: str, instance: str | None, yields: bool) -> None:
        newcomer = connector(uid, instance, yields=yields)
        before = self.roster.serving(uid)
        try:
            verdict = self.roster.join(newcomer, uid == "shared", self.now)
        except UidTaken:
            assert before == self.roster.serving(uid)
            assert any(each.instance != instance or instance is None for each in before)
            return
        self.there.append(newcomer)
        assert newcomer in self.roster.serving(uid)
        assert all(each.instance == instance for each in verdict.renewed)
        for each in verdict.superseded:
            each.session.close(0, "superseded")

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        self.roster.retire(data.draw(st.sampled_from(self.there)))

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        lost = data.draw(st.sampled_from(self.there))
        self.there.remove(lost)
        lost.session.close(0, "lost")
        self.roster.leave(lost)

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def allAreThereOnce(self) -> None:
        assert sorted(map(id, self.roster)) == sorted(map(id, self.there))

    @invariant()
    def aUidOfItsOwnHasOneWhoServes(self) -> None:
        assert len(self.roster.serving("uid-1")) <= 1

    @invariant()
    def whoServesIsNotLeaving(self) -> None:
        for uid in ("uid-1", "shared"):
            chosen = self.roster.choose(uid, self.now)
            serving = [each for each in self.there if each.uid == uid and each.session.isOpen and not each.isLeaving]
            assert set(serving) == set(self.roster.serving(uid))
            assert chosen in serving if serving else chosen is None


class AnyOrderTests(SynchronousTestCase):
    """`AnyOrder`, run."""

    def test_inAnyOrderEachUidIsServedByWhomItShouldBe(self) -> None:
        run_state_machine_as_test(AnyOrder, settings=settings(max_examples=100, deadline=None))
