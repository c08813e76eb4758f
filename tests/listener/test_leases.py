"""Ports that are leased: for a time, for some visitors, for some sources; and how ports are closed and changed."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import BadRequest, NoSuchPort, PortClosed, PortDenied, PortUnavailable, StoreUnavailable
from socketwarp.listener.entries import LEASE_SECONDS
from socketwarp.listener.ports import FREE_RANGE
from socketwarp.listener.wishes import PortLimits, PortOptions, PortSpec
from socketwarp.settings import PortRange
from tests.fake_tcp import FakeSocket
from tests.listener.rig import Rig, failureOf, targets

SPEC = PortSpec(18080, "uid-1", "10.0.0.5", 80)


class LeaseTestCase(SynchronousTestCase):
    """Base: a connector is there."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.seen = targets(self.rig.connected())

    def opened(self, **limits: Any) -> PortSpec:  # Any: fields of PortLimits
        return self.successResultOf(self.rig.ports.desire(attrs.evolve(SPEC, limits=PortLimits(**limits))))

    def visit(self, host: str = "198.51.100.7") -> FakeSocket:
        visitor = self.rig.visit(18080, host)
        self.rig.settle()
        return visitor

    def finish(self, visitor: FakeSocket, number: int) -> None:
        """A visitor and its target have said all."""
        visitor.remoteFinishes()
        self.seen[number].stream.loseWriteConnection()
        self.rig.settle()

    def again(self) -> None:
        """The listener is killed and starts again."""
        self.rig.sockets.bound.clear()
        self.rig.ports = self.rig.makePorts()
        self.rig.ports.load()
        self.rig.ports.restore()

    def lastRefusal(self) -> object:
        return self.rig.told("visitor.refused")[-1]["code"]


class TimeTests(LeaseTestCase):
    """A time to live."""

    def test_atItsEndThePortClosesEndsItsVisitorsAndSaysSo(self) -> None:
        self.opened(expires=100.0)
        visitor = self.visit()
        self.rig.reactor.advance(99.9)
        self.assertIn(18080, self.rig.sockets.bound)
        self.rig.reactor.advance(0.1)
        self.rig.settle()
        self.assertEqual(({}, [], []), (self.rig.sockets.bound, self.rig.store.wishes, self.rig.ports.entries()))
        self.assertTrue(visitor.sawReset)
        (told,) = self.rig.told("port.closed")
        self.assertEqual((18080, 1, "its time is over"), (told["port"], told["ended"], told["reason"]))

    def test_itIsPosixTimeWhateverTheClockIsSetTo(self) -> None:
        """Timers don't go by it, so a clock that is set is noticed after a minute at most."""
        ahead = 0.0
        self.rig.events.now = lambda: self.rig.reactor.seconds() + ahead
        self.opened(expires=10_000.0)
        visitor = self.visit()
        ahead = 10_000.0
        self.rig.reactor.advance(LEASE_SECONDS)
        self.rig.settle()
        self.assertTrue(visitor.sawReset)
        self.assertEqual({}, self.rig.sockets.bound)
        self.failureResultOf(self.rig.ports.desire(attrs.evolve(SPEC, limits=PortLimits(expires=9_000.0))), BadRequest)
        ahead = -self.rig.reactor.seconds()
        self.opened(expires=10.0)
        self.rig.reactor.advance(9.0)
        self.assertIn(18080, self.rig.sockets.bound)

    def test_whatEndedWhileTheListenerWasAwayIsNotOpenedAgain(self) -> None:
        self.opened(expires=100.0)
        self.rig.ports.stop(0)
        self.rig.reactor.advance(100)
        self.again()
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))
        self.assertEqual(1, len(self.rig.told("port.closed")))

    def test_aPortWaitingToBeBoundEndsToo(self) -> None:
        self.rig.store.disk = {18080: attrs.evolve(SPEC, limits=PortLimits(expires=12.0))}
        self.rig.sockets.taken.add(18080)
        self.rig.ports.load()
        self.rig.ports.restore()
        self.rig.reactor.pump([5.0] * 4)
        self.assertEqual(([], []), (self.rig.store.wishes, self.rig.ports.entries()))
        self.rig.connectors.closeAll("the test ends")
        self.rig.settle()
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_whatIsOverAlreadyIsNotOpened(self) -> None:
        self.rig.reactor.advance(200)
        spec = attrs.evolve(SPEC, limits=PortLimits(expires=100.0))
        self.assertIsInstance(failureOf(self.rig.ports.desire(spec)), BadRequest)
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))

    def test_aDiskThatFailsKeepsNoPortOpen(self) -> None:
        self.opened(expires=100.0)
        self.rig.store.broken = True
        self.rig.reactor.advance(100)
        self.rig.settle()
        self.assertEqual(({}, 1), (self.rig.sockets.bound, len(self.rig.store.wishes)))
        self.rig.store.broken = False
        self.again()
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))

    def test_aLeaseThatEndsWhileNobodyCanCloseItEndsAllTheSame(self) -> None:
        self.opened(expires=100.0)
        self.rig.store.slow = True
        closing = self.rig.ports.withdraw(18080)
        self.rig.reactor.advance(100)
        self.rig.store.broken = True
        self.rig.store.finish()
        self.assertIsInstance(failureOf(closing), StoreUnavailable)
        self.rig.store.finish()
        self.rig.settle()
        self.assertEqual({}, self.rig.sockets.bound)

    def test_theDiskMayBeSlowerThanTheLease(self) -> None:
        self.rig.store.slow = True
        opening = self.rig.ports.desire(attrs.evolve(SPEC, limits=PortLimits(expires=1.0)))
        self.rig.reactor.advance(2)
        self.rig.store.slow = False
        self.rig.store.finish()
        self.rig.settle()
        self.successResultOf(opening)
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))

    def test_aListenerThatStopsForgetsTheTimeNotTheWish(self) -> None:
        self.rig.store.slow = True
        self.rig.ports.desire(attrs.evolve(SPEC, limits=PortLimits(expires=100.0)))
        self.rig.ports.stop(0)
        self.rig.store.finish()
        self.rig.reactor.advance(0)
        self.assertEqual(1, len(self.rig.store.wishes))
        self.rig.connectors.closeAll("stopped")
        self.rig.settle()
        self.assertEqual([], self.rig.reactor.getDelayedCalls())


class NumberTests(LeaseTestCase):
    """Visitors in all, and at a time."""

    def test_afterTheLastVisitorNobodyComesAndThePortClosesWhenAllHaveGone(self) -> None:
        self.opened(total=2)
        accept = self.rig.sockets.bound[18080].accept
        first, second = self.visit(), self.visit()
        self.assertEqual(({}, [], []), (self.rig.sockets.bound, self.rig.store.wishes, self.rig.ports.specs()))
        self.rig.sockets.bound[18080] = self.rig.sockets.listen(accept, "0.0.0.0", 18080)  # type: ignore[assignment]  # accepted in the same turn
        self.assertTrue(self.visit().sawReset)
        self.assertEqual("limit", self.lastRefusal())
        self.rig.reactor.advance(10_000)
        self.finish(first, 0)
        self.assertEqual([], self.rig.told("port.closed"))
        self.finish(second, 1)
        self.assertEqual([False, False], [first.sawReset, second.sawReset])
        (told,) = self.rig.told("port.closed")
        self.assertEqual((0, "it was for 2 connections, and has had them"), (told["ended"], told["reason"]))

    def test_theLastVisitorsStayNoLongerThanTheLease(self) -> None:
        self.opened(total=1, expires=100.0)
        visitor = self.visit()
        self.rig.reactor.advance(99)
        self.rig.settle()
        self.assertFalse(visitor.sawReset)
        self.rig.reactor.advance(1)
        self.rig.settle()
        self.assertTrue(visitor.sawReset)

    def test_visitorsAreOnTheDiskBeforeTheyAreCarried(self) -> None:
        self.opened(total=2)
        self.rig.store.slow = True
        visitor = self.visit()
        visitor.remoteSends(b"early")
        self.rig.settle()
        self.assertEqual([], self.seen)
        self.rig.store.finish()
        self.rig.settle()
        self.assertEqual(b"early", self.seen[0].payload)
        self.assertEqual({18080: 1}, self.rig.store.used)

    def test_whoCannotBeCountedIsResetAndCountsAllTheSame(self) -> None:
        self.opened(total=2)
        self.rig.store.broken = True
        self.assertTrue(self.visit().sawReset)
        self.assertEqual("store-unavailable", self.lastRefusal())
        self.rig.store.broken = False
        self.assertFalse(self.visit().sawReset)
        self.assertEqual({}, self.rig.sockets.bound)

    def test_whoGoesAwayBeforeItIsCountedIsNotCarried(self) -> None:
        self.opened(total=2)
        self.rig.store.slow = True
        visitor = self.visit()
        visitor.remoteResets()
        self.rig.settle()
        self.rig.store.finish()
        self.rig.settle()
        self.assertEqual([], self.seen)

    def test_theCountSurvivesAKill(self) -> None:
        self.opened(total=2)
        self.visit()
        self.again()
        self.visit()
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))

    def test_whoWasKilledBetweenTheLastVisitorAndTheCloseClosesAtStart(self) -> None:
        self.rig.store.disk = {18080: attrs.evolve(SPEC, limits=PortLimits(total=2))}
        self.rig.store.used = {18080: 2}
        self.rig.ports.load()
        self.rig.ports.restore()
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))

    def test_atOnceThereAreSoManyAndNoMore(self) -> None:
        self.opened(atOnce=2)
        first = self.visit()
        self.visit()
        self.assertTrue(self.visit().sawReset)
        self.assertEqual("limit", self.lastRefusal())
        first.remoteResets()
        self.rig.settle()
        self.assertFalse(self.visit().sawReset)

    def test_whoIsRefusedIsNotCounted(self) -> None:
        self.opened(atOnce=1, total=2)
        self.visit()
        self.visit()
        self.assertEqual({18080: 1}, self.rig.store.used)


class SourceTests(LeaseTestCase):
    """Who may come in."""

    def test_whoComesFromElsewhereIsReset(self) -> None:
        self.opened(sources=(IPv4Network("198.51.100.0/24"),))
        for host in ("203.0.113.1", "2001:db8::1", "::ffff:203.0.113.1"):
            self.assertTrue(self.visit(host).sawReset)
            self.assertEqual("source-denied", self.lastRefusal())
        self.assertEqual([], self.seen)

    def test_whoComesFromThereIsCarried(self) -> None:
        self.opened(sources=(IPv4Network("198.51.100.0/24"),))
        for host in ("198.51.100.1", "::ffff:198.51.100.2"):
            self.assertFalse(self.visit(host).sawReset)
        self.assertEqual(2, len(self.seen))


class IdleTests(LeaseTestCase):
    """Silence."""

    def test_aConnectionWithoutAByteIsEnded(self) -> None:
        self.opened(idleSeconds=8.0)
        silent, busy = self.visit(), self.visit()
        for _ in range(12):
            busy.remoteSends(b"x")
            self.rig.reactor.advance(1)
            self.rig.settle()
        self.assertEqual([True, False], [silent.sawReset, busy.sawReset])
        self.assertEqual("idle", self.rig.told("visitor.ended")[0]["code"])


class FreePortTests(LeaseTestCase):
    """Port 0."""

    def wish(self) -> Deferred[PortSpec]:
        return self.rig.ports.desire(attrs.evolve(SPEC, port=0))

    def test_itIsOneThatIsAllowedAndFree(self) -> None:
        self.rig.ports.allowed = (PortRange(18080, 18081), PortRange(18090, 18090))
        self.rig.sockets.taken.add(18081)
        ports = {self.successResultOf(self.wish()).port for _ in range(2)}
        self.assertEqual({18080, 18090}, ports)
        self.assertEqual(ports, {spec.port for spec in self.rig.store.wishes})

    def test_whenNoneIsFreeThatIsSaid(self) -> None:
        self.rig.ports.allowed = (PortRange(18080, 18081),)
        self.rig.sockets.taken = {18080}
        self.successResultOf(self.wish())
        error = failureOf(self.wish())
        self.assertIsInstance(error, PortUnavailable)
        self.assertIn("in use", str(error))
        self.rig.sockets.taken = set()
        self.successResultOf(self.wish())
        self.assertIn("all of them are open", str(failureOf(self.wish())))

    def test_withoutARangeItIsOneThatOutgoingConnectionsDoNotTake(self) -> None:
        self.assertIn(self.successResultOf(self.wish()).port, FREE_RANGE)


class DrainTests(LeaseTestCase):
    """Closing a port, and letting its visitors finish."""

    def test_visitorsMayFinish(self) -> None:
        self.opened()
        visitor = self.visit()
        closing = self.rig.ports.withdraw(18080, 30)
        self.assertEqual(({}, [], []), (self.rig.sockets.bound, self.rig.store.wishes, self.rig.ports.specs()))
        self.rig.reactor.advance(29)
        self.assertNoResult(closing)
        self.finish(visitor, 0)
        self.assertEqual(0, self.successResultOf(closing))
        self.assertFalse(visitor.sawReset)
        self.assertEqual("as it was asked to", self.rig.told("port.closed")[0]["reason"])

    def test_whoHasNotFinishedInTimeIsResetAndCounted(self) -> None:
        self.opened()
        first, second = self.visit(), self.visit()
        closing = self.rig.ports.withdraw(18080, 30)
        self.finish(first, 0)
        self.rig.reactor.advance(30)
        self.rig.settle()
        self.assertEqual(1, self.successResultOf(closing))
        self.assertEqual([False, True], [first.sawReset, second.sawReset])
        self.assertEqual("port-closed", self.rig.told("visitor.ended")[-1]["code"])

    def test_meanwhileThePortIsNobodyElses(self) -> None:
        self.opened()
        self.visit()
        closing = self.rig.ports.withdraw(18080, 30)
        self.assertIsInstance(failureOf(self.rig.ports.desire(SPEC)), PortUnavailable)
        self.assertIsInstance(failureOf(self.rig.ports.change(SPEC)), NoSuchPort)
        self.rig.reactor.advance(30)
        self.rig.settle()
        self.successResultOf(closing)
        self.opened()

    def test_aDrainCanBeCutShort(self) -> None:
        self.opened()
        visitor = self.visit()
        closing = self.rig.ports.withdraw(18080, 3000)
        hurried = self.rig.ports.withdraw(18080)
        self.rig.settle()
        self.assertEqual((1, 1), (self.successResultOf(closing), self.successResultOf(hurried)))
        self.assertTrue(visitor.sawReset)
        self.assertEqual(1, self.rig.told("port.closed")[0]["ended"])

    def test_aListenerThatStopsWaitsNoLongerThanItsOwnDrain(self) -> None:
        self.opened()
        visitor = self.visit()
        self.rig.ports.withdraw(18080, 3000)
        stopping = self.rig.ports.stop(10)
        self.rig.reactor.advance(10)
        self.rig.settle()
        self.successResultOf(stopping)
        self.assertTrue(visitor.sawReset)


class ChangeTests(LeaseTestCase):
    """Another wish for a port that is open."""

    CHANGED = attrs.evolve(SPEC, targetHost="10.0.0.6", limits=PortLimits(total=3))

    def test_newVisitorsAreCarriedAsIsWishedNowAndOldOnesStay(self) -> None:
        self.opened()
        old = self.visit()
        self.assertEqual(self.CHANGED, self.successResultOf(self.rig.ports.change(self.CHANGED)))
        self.visit()
        self.assertEqual(["10.0.0.5", "10.0.0.6"], [target.preamble.host for target in self.seen])
        self.assertFalse(old.sawReset)
        self.assertEqual(([self.CHANGED], [self.CHANGED]), (self.rig.store.wishes, self.rig.ports.specs()))
        self.assertEqual("10.0.0.6:80", self.rig.told("port.changed")[0]["target"])

    def test_visitorsCountOn(self) -> None:
        self.opened(total=5)
        self.visit()
        self.successResultOf(self.rig.ports.change(self.CHANGED))
        self.assertEqual({18080: 1}, self.rig.store.used)
        self.assertIsInstance(
            failureOf(self.rig.ports.change(attrs.evolve(SPEC, limits=PortLimits(total=1)))), BadRequest
        )

    def test_aNewLeaseReplacesTheOld(self) -> None:
        self.opened(expires=100.0)
        self.successResultOf(self.rig.ports.change(attrs.evolve(SPEC, limits=PortLimits(expires=200.0))))
        self.rig.reactor.advance(199)
        self.assertIn(18080, self.rig.sockets.bound)
        self.rig.reactor.advance(1)
        self.rig.settle()
        self.assertEqual({}, self.rig.sockets.bound)

    def test_theAddressCanChange(self) -> None:
        self.opened()
        self.successResultOf(self.rig.ports.change(attrs.evolve(SPEC, bindAddress="127.0.0.1")))
        self.assertEqual("127.0.0.1", self.rig.sockets.bound[18080].address)

    def test_anAddressThatCannotBeHadChangesNothing(self) -> None:
        self.opened()
        self.patch(self.rig.sockets, "foreign", {"192.0.2.1"})
        changed = self.rig.ports.change(attrs.evolve(SPEC, bindAddress="192.0.2.1"))
        self.assertIsInstance(failureOf(changed), PortUnavailable)
        self.assertEqual("0.0.0.0", self.rig.sockets.bound[18080].address)
        self.assertEqual(([SPEC], [SPEC]), (self.rig.store.wishes, self.rig.ports.specs()))

    def test_whatCannotBeKeptChangesNothing(self) -> None:
        self.opened()
        self.rig.store.broken = True
        changed = self.rig.ports.change(attrs.evolve(self.CHANGED, bindAddress="127.0.0.1"))
        self.assertIsInstance(failureOf(changed), StoreUnavailable)
        self.assertEqual("0.0.0.0", self.rig.sockets.bound[18080].address)
        self.assertEqual(([SPEC], [SPEC]), (self.rig.store.wishes, self.rig.ports.specs()))

    def test_whatIsForbiddenChangesNothing(self) -> None:
        self.opened()
        self.rig.ports.allowed = (PortRange(1, 1),)
        self.assertIsInstance(failureOf(self.rig.ports.change(self.CHANGED)), PortDenied)
        self.assertIsInstance(failureOf(self.rig.ports.change(attrs.evolve(SPEC, port=1))), NoSuchPort)
        self.rig.ports.stop(0)
        self.assertIsInstance(failureOf(self.rig.ports.change(self.CHANGED)), PortClosed)

    def test_whatWasClosedWhileItsAddressChangedDoesNotComeBack(self) -> None:
        self.opened()
        self.rig.sockets.slow = True
        changed = self.rig.ports.change(attrs.evolve(SPEC, bindAddress="127.0.0.1"))
        closed = self.rig.ports.withdraw(18080)
        self.rig.sockets.finish()
        self.assertIsInstance(failureOf(changed), NoSuchPort)
        self.successResultOf(closed)
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.store.wishes))


class ProxyTests(LeaseTestCase):
    """The target is told where a visitor comes from."""

    def header(self, version: Any, host: str) -> bytes:  # Any: 1 or 2
        self.successResultOf(self.rig.ports.desire(attrs.evolve(SPEC, options=PortOptions(proxyProtocol=version))))
        visitor = self.visit(host)
        visitor.remoteSends(b"hello")
        self.rig.settle()
        payload = self.seen[-1].payload
        self.assertEqual(b"hello", payload[-5:])
        return payload[:-5]

    def test_versionOneIsALine(self) -> None:
        self.assertEqual(b"PROXY TCP4 198.51.100.7 203.0.113.1 50000 18080\r\n", self.header(1, "198.51.100.7"))

    def test_versionTwoIsBinary(self) -> None:
        expected = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c6336407 cb007101 c350 46a0")
        self.assertEqual(expected, self.header(2, "198.51.100.7"))

    def test_addressesOfTwoFamiliesAreWrittenInOne(self) -> None:
        _, family, source, destination, *ports = self.header(1, "2001:db8::7").decode().split()
        self.assertEqual(("TCP6", "2001:db8::7", ["50000", "18080"]), (family, source, ports))
        self.assertEqual(IPv4Address("203.0.113.1"), IPv6Address(destination).ipv4_mapped)

    def test_unlessAskedForThereIsNone(self) -> None:
        self.assertEqual(b"", self.header(None, "198.51.100.7"))
