"""Dialling: resolve once, check all, dial what was checked."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.policy import Policy
from socketwarp.connector.targets import Targets
from socketwarp.errors import (
    TargetDenied,
    TargetError,
    TargetRefused,
    TargetTimedOut,
    TargetUnreachable,
    TargetUnresolved,
)
from socketwarp.interfaces import ITcpProtocol
from socketwarp.settings import parseTargetRules
from socketwarp.wire.dialect import Dialled
from tests.connector.fakes import FakeDial, TargetReactor
from tests.fakes import settle
from tests.tcp.fakes import Recorder


class Dialling(SynchronousTestCase):
    """Against a resolver and a network that do as they are told."""

    def setUp(self) -> None:
        self.reactor = TargetReactor()
        self.table = self.reactor.nameResolver.table
        self.connected: list[str] = []

    def dial(self, host: str, port: int = 80, rules: str = "") -> Deferred[None]:
        def made(dialled: Dialled) -> ITcpProtocol:
            self.connected.append(dialled.address)
            self.took = dialled.resolveSeconds, dialled.connectSeconds
            return Recorder()

        policy = Policy(parseTargetRules(rules) if rules else ())
        return Targets(policy, self.reactor, self.reactor.dial, 10.0).dial(host, port, made)

    def last(self) -> FakeDial:
        """The dial that is under way."""
        return self.reactor.dials[-1]

    def test_anAddress(self) -> None:
        """Nothing is asked; the protocol is made when the target has answered."""
        dialling = self.dial("2001:db8::1", 8080)
        self.assertEqual(self.last().place, ("2001:db8::1", 8080))
        self.assertNoResult(dialling)
        self.last().succeeds()
        self.successResultOf(dialling)
        self.assertEqual(self.connected, ["[2001:db8::1]:8080"])
        settle(self.reactor)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_aNameIsResolvedOnceAndItsAddressDialled(self) -> None:
        """What is dialled is the address that was checked, never the name."""
        self.table["db.example.net"] = ["10.0.0.1"]
        self.dial("db.example.net")
        self.assertEqual(self.last().place, ("10.0.0.1", 80))
        self.assertEqual(len(self.reactor.nameResolver.asked), 1)

    def test_theNextAddressIsTried(self) -> None:
        """Each has its share of the time that is left."""
        self.table["name"] = ["10.0.0.1", "10.0.0.2"]
        dialling = self.dial("name")
        self.assertEqual(self.last().timeout, 5.0)
        self.reactor.advance(2.0)
        self.last().fails(ConnectionRefusedError())
        self.assertEqual((self.last().place, self.last().timeout), (("10.0.0.2", 80), 8.0))
        self.last().succeeds()
        self.successResultOf(dialling)

    def test_noMoreThanEightAreTried(self) -> None:
        """Each has an eighth of the time at least."""
        self.table["name"] = [f"10.0.0.{each}" for each in range(9)]
        dialling = self.dial("name")
        for _ in range(8):
            self.last().fails(ConnectionRefusedError())
        self.failureResultOf(dialling, TargetRefused)
        self.assertEqual(len(self.reactor.dials), 8)

    def test_itSaysHowLongEachStepTook(self) -> None:
        """The name, then the connection, with the addresses that didn't answer."""
        self.table["slow"] = None
        self.dial("slow")
        self.reactor.advance(0.25)
        resolver = self.reactor.nameResolver
        resolver.answer(resolver.unanswered[0], ["10.0.0.1", "10.0.0.2"])
        self.reactor.advance(1.5)
        self.last().fails(ConnectionRefusedError())
        self.reactor.advance(0.5)
        self.last().succeeds()
        self.assertEqual((0.25, 2.0), self.took)

    def test_aRefusedTargetIsNeverDialled(self) -> None:
        """Nor resolved twice in the hope of something better."""
        self.table["rebinding"] = ["169.254.169.254"]
        error = self.failureResultOf(self.dial("rebinding"), TargetDenied).value
        self.assertIn("rebinding:80 (169.254.169.254)", str(error))
        self.assertEqual(self.reactor.dials, [])

    def test_onlyAllowedAddressesOfANameAreDialled(self) -> None:
        """A name with good and bad addresses reaches the good ones."""
        self.table["mixed"] = ["169.254.169.254", "10.0.0.1", "192.0.2.1"]
        dialling = self.dial("mixed", rules="10.0.0.0/8")
        self.assertEqual(self.last().place, ("10.0.0.1", 80))
        self.last().fails(ConnectionRefusedError())
        self.failureResultOf(dialling, TargetRefused)
        self.assertEqual(len(self.reactor.dials), 1)

    def test_anUnknownName(self) -> None:
        """There is nothing to dial."""
        self.failureResultOf(self.dial("unknown"), TargetUnresolved)

    def test_failuresInOurWords(self) -> None:
        """The last address's failure is the target's."""
        for raised, expected, words in (
            (ConnectionRefusedError(), TargetRefused, "10.0.0.1:80 refused the connection"),
            (TimeoutError(), TargetTimedOut, "10.0.0.1:80 didn't answer"),
            (OSError(101, "no route"), TargetUnreachable, "can't be reached: no route"),
            (OSError("odd"), TargetUnreachable, "can't be reached: odd"),
        ):
            dialling = self.dial("10.0.0.1")
            self.last().fails(raised)
            error = self.failureResultOf(dialling, TargetError).value
            self.assertIs(type(error), expected)
            self.assertIn(words, str(error))

    def test_theWholeTimeIsBounded(self) -> None:
        """Resolving included."""
        self.table["slow"] = None
        dialling = self.dial("slow")
        self.reactor.advance(10.0)
        error = self.failureResultOf(dialling, TargetTimedOut).value
        self.assertEqual(str(error), "slow:80 didn't answer in 10 s")
        self.reactor.nameResolver.answer(self.reactor.nameResolver.unanswered[0], ["10.0.0.1"])
        self.assertEqual(self.reactor.dials, [])

    def test_cancellingStopsTheAttempt(self) -> None:
        """A visitor who has gone leaves no dial behind."""
        dialling = self.dial("10.0.0.1")
        dialling.cancel()
        self.failureResultOf(dialling, CancelledError)
        self.assertTrue(self.last().stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
