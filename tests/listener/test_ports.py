"""Open ports and their visitors."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import NoSuchPort, PortClosed, PortDenied, PortUnavailable, SessionLost, StoreUnavailable
from socketwarp.listener.visitors import Limits
from socketwarp.listener.waiting import LISTEN_SECONDS
from socketwarp.listener.wishes import PortSpec
from socketwarp.settings import PortRange
from socketwarp.wire.preamble import Preamble
from tests.fake_tcp import FakeSocket
from tests.listener.rig import Rig, failureOf, targets

SPEC = PortSpec(18080, "uid-1", "10.0.0.5", 80)


class WishTests(SynchronousTestCase):
    """Opening and closing."""

    def setUp(self) -> None:
        self.rig = Rig()

    def opened(self, spec: PortSpec = SPEC) -> None:
        self.successResultOf(self.rig.ports.desire(spec))

    def test_anOpenedPortIsBoundAndKept(self) -> None:
        self.opened()
        self.assertEqual("0.0.0.0", self.rig.sockets.bound[18080].address)
        self.assertEqual([SPEC], self.rig.store.wishes)
        self.assertEqual([SPEC], self.rig.ports.specs())
        self.assertEqual("10.0.0.5:80", self.rig.told("port.opened")[0]["target"])

    def test_theAnswerWaitsForTheDisk(self) -> None:
        self.rig.store.slow = True
        opening = self.rig.ports.desire(SPEC)
        self.assertNoResult(opening)
        self.rig.store.finish()
        self.successResultOf(opening)

    def test_aPortThatIsOpenIsNotOpenedAgain(self) -> None:
        self.opened()
        error = failureOf(self.rig.ports.desire(PortSpec(18080, "uid-2", "x", 1)))
        self.assertIsInstance(error, PortUnavailable)
        self.assertEqual([SPEC], self.rig.ports.specs())

    def test_aPortOfAnotherProgramIsNotOpenedAndNotKept(self) -> None:
        self.rig.sockets.taken.add(18080)
        self.assertIsInstance(failureOf(self.rig.ports.desire(SPEC)), PortUnavailable)
        self.assertEqual(([], []), (self.rig.store.wishes, self.rig.ports.specs()))

    def test_aPortThatTheSettingsForbidIsNotOpened(self) -> None:
        self.rig.ports.allowed = (PortRange(18081, 18081),)
        error = failureOf(self.rig.ports.desire(SPEC))
        self.assertIsInstance(error, PortDenied)
        self.assertIn("SWL_ALLOW_PORTS", str(error))
        self.assertEqual({}, self.rig.sockets.bound)

    def test_whatCannotBeKeptIsNotOpened(self) -> None:
        self.rig.store.broken = True
        self.assertIsInstance(failureOf(self.rig.ports.desire(SPEC)), StoreUnavailable)
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.ports.specs()))

    def test_aClosedPortIsGoneFromHostAndDisk(self) -> None:
        self.opened()
        self.assertEqual(0, self.successResultOf(self.rig.ports.withdraw(18080)))
        self.assertEqual(({}, [], []), (self.rig.sockets.bound, self.rig.store.wishes, self.rig.ports.specs()))
        self.opened()

    def test_aPortThatIsNotOpenCannotBeClosed(self) -> None:
        error = failureOf(self.rig.ports.withdraw(18080))
        self.assertIsInstance(error, NoSuchPort)
        self.assertEqual("port 18080 isn't open", str(error))

    def test_aPortIsClosedOnce(self) -> None:
        self.opened()
        self.rig.store.slow = True
        first = self.rig.ports.withdraw(18080)
        self.assertIsInstance(failureOf(self.rig.ports.withdraw(18080)), NoSuchPort)
        self.rig.store.finish()
        self.successResultOf(first)

    def test_whatTheDiskStillHasStaysOpen(self) -> None:
        self.opened()
        self.rig.store.broken = True
        self.assertIsInstance(failureOf(self.rig.ports.withdraw(18080)), StoreUnavailable)
        self.assertIn(18080, self.rig.sockets.bound)
        self.rig.store.broken = False
        self.successResultOf(self.rig.ports.withdraw(18080))

    def test_whoGivesUpWaitingForTheDiskUndoesNothing(self) -> None:
        self.rig.store.slow = True
        opening: Deferred[Any] = self.rig.ports.desire(SPEC)  # Any: what addErrback returns
        opening.addErrback(lambda _: None).cancel()
        self.rig.store.finish()
        self.assertEqual(([SPEC], [SPEC]), (self.rig.store.wishes, self.rig.ports.specs()))

    def test_closingEndsTheVisitorsWithResetAndCountsThem(self) -> None:
        self.rig.connected()
        self.opened()
        visitors = [self.rig.visit(18080) for _ in range(3)]
        self.rig.settle()
        closing = self.rig.ports.withdraw(18080)
        self.rig.settle()
        self.assertEqual(3, self.successResultOf(closing))
        self.assertEqual([True] * 3, [visitor.sawReset for visitor in visitors])
        self.assertEqual(3, self.rig.told("port.closed")[0]["ended"])
        self.assertEqual(["port-closed"] * 3, [told["code"] for told in self.rig.told("visitor.ended")])


class RestoreTests(SynchronousTestCase):
    """A listener starts with the wishes of the last one."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.store.disk = {18080: SPEC, 18081: PortSpec(18081, "uid-2", "db.example", 5432)}

    def test_allAreBoundAgain(self) -> None:
        self.rig.ports.load()
        self.rig.ports.restore()
        self.assertEqual({18080, 18081}, set(self.rig.sockets.bound))

    def test_whatCannotBeBoundIsToldOnceAndTriedUntilItCan(self) -> None:
        self.rig.sockets.taken.add(18081)
        self.rig.ports.load()
        self.rig.ports.restore()
        self.rig.reactor.pump([5.0] * 3)
        self.assertEqual({18080}, set(self.rig.sockets.bound))
        self.assertEqual([18081], [told["port"] for told in self.rig.told("port.waiting")])
        self.rig.sockets.taken.clear()
        self.rig.reactor.advance(5.0)
        self.assertEqual({18080, 18081}, set(self.rig.sockets.bound))
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_aWaitingPortCanBeClosed(self) -> None:
        self.rig.sockets.taken.add(18081)
        self.rig.ports.load()
        self.rig.ports.restore()
        self.successResultOf(self.rig.ports.withdraw(18081))
        self.rig.sockets.taken.clear()
        self.rig.reactor.advance(5.0)
        self.assertEqual({18080}, set(self.rig.sockets.bound))

    def test_whatTheSettingsForbidByNowStaysClosed(self) -> None:
        self.rig.ports.allowed = (PortRange(18080, 18080),)
        self.rig.ports.load()
        self.rig.ports.restore()
        self.assertEqual({18080}, set(self.rig.sockets.bound))
        self.successResultOf(self.rig.ports.stop(0))


class VisitorTests(SynchronousTestCase):
    """From the accepted connection to the stream."""

    def setUp(self) -> None:
        self.rig = Rig(Limits(total=3, perPort=2, parkSeconds=5, openSeconds=10))
        self.successResultOf(self.rig.ports.desire(SPEC))

    def assertReset(self, visitor: FakeSocket, code: str) -> None:
        self.rig.settle()
        self.assertTrue(visitor.sawReset)
        self.assertEqual(b"", visitor.received)
        self.assertEqual(code, (self.rig.told("visitor.refused") + self.rig.told("visitor.ended"))[-1]["code"])

    def test_theVisitorsBytesFollowThePreamble(self) -> None:
        seen = targets(self.rig.connected())
        visitor = self.rig.visit(18080)
        visitor.remoteSends(b"hello")
        self.rig.settle()
        self.assertEqual(Preamble(seen[0].preamble.connectionId, "10.0.0.5", 80), seen[0].preamble)
        self.assertEqual(b"hello", seen[0].payload)

    def test_theTargetsBytesReachTheVisitor(self) -> None:
        seen = targets(self.rig.connected())
        visitor = self.rig.visit(18080)
        self.rig.settle()
        seen[0].stream.write(b"welcome")
        self.rig.settle()
        visitor.remoteReads()
        self.assertEqual(b"welcome", visitor.received)

    def test_connectionIdsAreUnique(self) -> None:
        seen = targets(self.rig.connected())
        self.successResultOf(self.rig.ports.desire(PortSpec(18081, "uid-1", "[::1]", 80)))
        for port in (18080, 18080, 18081):
            self.rig.visit(port)
        self.rig.settle()
        self.assertEqual(["1-1", "1-2", "2-1"], [target.preamble.connectionId for target in seen])
        self.assertEqual("::1", seen[2].preamble.host)

    def test_theEndIsToldWithBytesAndDuration(self) -> None:
        seen = targets(self.rig.connected())
        visitor = self.rig.visit(18080)
        visitor.remoteSends(b"12345")
        self.rig.settle()
        seen[0].stream.write(b"123")
        seen[0].stream.loseWriteConnection()
        self.rig.reactor.advance(2)
        visitor.remoteFinishes()
        self.rig.settle()
        (told,) = self.rig.told("visitor.ended")
        self.assertEqual((5, 3, 2, "finished"), (told["bytes_in"], told["bytes_out"], told["seconds"], told["reason"]))
        self.assertEqual("198.51.100.7:50000", told["peer"])

    def test_anIpv4VisitorOfADualStackSocketIsAnIpv4Visitor(self) -> None:
        self.rig.connected()
        for host in ("::ffff:192.0.2.9", "2001:db8::9"):
            self.rig.visit(18080, host)
        addresses = [told["peer"] for told in self.rig.told("visitor.connected")]
        self.assertEqual(["192.0.2.9:50000", "[2001:db8::9]:50000"], addresses)

    def test_aVisitorWaitsForTheConnectorToComeBack(self) -> None:
        visitor = self.rig.visit(18080)
        visitor.remoteSends(b"early")
        self.rig.reactor.advance(4.9)
        session = self.rig.session()
        seen = targets(session)
        self.rig.connectors.admit(session)
        self.rig.verifier.answer("uid-1")
        self.rig.settle()
        self.assertEqual(b"early", seen[0].payload)
        self.rig.reactor.advance(60)
        self.assertFalse(visitor.sawReset)

    def test_aVisitorIsResetWhenNoConnectorComesInTime(self) -> None:
        visitor = self.rig.visit(18080)
        self.rig.reactor.advance(4.9)
        self.rig.settle()
        self.assertFalse(visitor.sawReset)
        self.rig.reactor.advance(0.2)
        self.assertReset(visitor, "connector-away")
        self.assertIn("uid-1", str(self.rig.told("visitor.refused")[0]["reason"]))

    def test_aVisitorOfASilentConnectorIsCarriedByItsNextSession(self) -> None:
        """And not by the one that it may never be heard of on."""
        silent = self.rig.connected(name="older")
        silent.isSilent = True
        visitor = self.rig.visit(18080)
        visitor.remoteSends(b"early")
        self.rig.reactor.advance(13)
        self.rig.settle()
        self.assertEqual({}, silent.streams)
        seen = targets(self.rig.connected(name="newer"))
        self.rig.settle()
        self.assertEqual(b"early", seen[0].payload)
        self.rig.reactor.advance(60)
        self.assertFalse(visitor.sawReset)

    def test_aVisitorOfASilentConnectorIsCarriedAsSoonAsThatIsHeardOfAgain(self) -> None:
        session = self.rig.connected()
        session.isSilent = True
        seen = targets(session)
        visitor = self.rig.visit(18080)
        visitor.remoteSends(b"early")
        for _ in range(40):
            self.rig.reactor.advance(0.5)
        self.rig.settle()
        self.assertEqual([], seen)
        session.isSilent = False
        self.rig.reactor.advance(LISTEN_SECONDS)
        self.rig.settle()
        self.assertEqual(b"early", seen[0].payload)
        self.rig.reactor.advance(LISTEN_SECONDS)
        looks = [call for call in self.rig.reactor.getDelayedCalls() if call.getTime() < self.rig.reactor.seconds() + 1]
        self.assertEqual([], looks)

    def test_aVisitorOfAConnectorThatStaysSilentIsReset(self) -> None:
        self.rig.connected().isSilent = True
        visitor = self.rig.visit(18080)
        self.rig.reactor.advance(Limits().answerSeconds - 1)
        self.rig.settle()
        self.assertFalse(visitor.sawReset)
        self.rig.reactor.advance(1)
        self.assertReset(visitor, "connector-away")
        self.assertIn("nothing was heard", str(self.rig.told("visitor.refused")[0]["reason"]))

    def test_aVisitorWhoGoesAwayGivesUpItsPlace(self) -> None:
        for _ in range(10):
            visitor = self.rig.visit(18080)
            self.rig.settle()
            visitor.remoteResets()
            self.rig.settle()
        session = self.rig.connected()
        self.assertEqual({}, session.streams)

    def test_aVisitorWaitsForAStreamAsLongAsTheLimitSays(self) -> None:
        session = self.rig.connected()
        session.streamLimit = 0
        first, second = self.rig.visit(18080), self.rig.visit(18080)
        self.rig.settle()
        session.grant(1)
        self.rig.reactor.advance(10)
        self.assertReset(second, "limit")
        self.assertFalse(first.sawReset)

    def test_aVisitorWhoWaitsForAStreamIsResetWhenTheSessionIsLost(self) -> None:
        session = self.rig.connected()
        session.streamLimit = 0
        visitor = self.rig.visit(18080)
        session.lose(SessionLost("timed out"))
        self.assertReset(visitor, "session-lost")

    def test_aVisitorIsResetWhenItsSessionIsLost(self) -> None:
        session = self.rig.connected()
        visitor = self.rig.visit(18080)
        self.rig.settle()
        session.lose(SessionLost("timed out"))
        self.assertReset(visitor, "session-lost")

    def test_onePortsLimitIsItsOwn(self) -> None:
        self.rig.connected()
        self.successResultOf(self.rig.ports.desire(PortSpec(18081, "uid-1", "x", 1)))
        visitors = [self.rig.visit(18080) for _ in range(3)]
        self.assertReset(visitors[2], "limit")
        self.assertFalse(self.rig.visit(18081).sawReset)

    def test_thereIsALimitToAllVisitorsTogether(self) -> None:
        self.rig.connected()
        self.successResultOf(self.rig.ports.desire(PortSpec(18081, "uid-1", "x", 1)))
        visitors = [self.rig.visit(port) for port in (18080, 18080, 18081, 18081)]
        self.assertReset(visitors[3], "limit")
        visitors[0].remoteResets()
        self.rig.settle()
        self.assertFalse(self.rig.visit(18081).sawReset)

    def test_aTargetThatFitsNoPreambleResetsVisitorAndStream(self) -> None:
        session = self.rig.connected()
        self.successResultOf(self.rig.ports.desire(PortSpec(18081, "uid-1", "not a host", 1)))
        self.assertReset(self.rig.visit(18081), "malformed-preamble")
        self.assertEqual({}, session.streams)

    def test_aFaultOfOursResetsTheVisitorAndIsLogged(self) -> None:
        session = self.rig.connected()
        session.protocol = "unheard of"
        self.assertReset(self.rig.visit(18080), "internal")
        self.assertEqual(1, len(self.flushLoggedErrors(KeyError)))
        self.assertEqual({}, session.streams)

    def test_newVisitorsGoToTheNewcomerAndOldOnesAreReset(self) -> None:
        self.rig.connected(name="older")
        old = self.rig.visit(18080)
        self.rig.settle()
        newcomer = self.rig.connected(name="newcomer")
        seen = targets(newcomer)
        self.assertReset(old, "session-lost")
        self.rig.visit(18080)
        self.rig.settle()
        self.assertEqual(1, len(seen))


class StopTests(SynchronousTestCase):
    """The listener stops."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.seen = targets(self.rig.connected())
        self.visitor = self.rig.visit(18080)
        self.rig.settle()

    def test_visitorsMayFinish(self) -> None:
        stopping = self.rig.ports.stop(30)
        self.assertEqual({}, self.rig.sockets.bound)
        self.rig.reactor.advance(29)
        self.assertNoResult(stopping)
        self.seen[0].stream.loseWriteConnection()
        self.visitor.remoteFinishes()
        self.rig.settle()
        self.successResultOf(stopping)
        self.assertFalse(self.visitor.sawReset)

    def test_whoDoesNotFinishIsReset(self) -> None:
        stopping = self.rig.ports.stop(30)
        self.rig.reactor.advance(30)
        self.rig.settle()
        self.successResultOf(stopping)
        self.assertTrue(self.visitor.sawReset)

    def test_noPortIsOpenedAnyMore(self) -> None:
        self.rig.ports.stop(0)
        self.assertIsInstance(failureOf(self.rig.ports.desire(PortSpec(18081, "uid-1", "x", 1))), PortClosed)
        self.assertEqual({}, self.rig.sockets.bound)

    def test_theWishesStay(self) -> None:
        stopping = self.rig.ports.stop(0)
        self.rig.reactor.advance(0)
        self.rig.settle()
        self.successResultOf(stopping)
        self.assertEqual([SPEC], self.rig.store.wishes)
