"""Rules of the operator are asked where it counts."""

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import PortDenied
from socketwarp.interfaces import Identity
from socketwarp.listener.wishes import PortSpec
from socketwarp.rules.policy import parsePolicy
from socketwarp.settings import PortRange
from tests.fakes import FakeSession
from tests.listener.rig import Rig, failureOf

SPEC = PortSpec(18080, "office-1", "x", 80)


class EnforcementTests(SynchronousTestCase):
    """Rules are asked when a port is opened, for each visitor, and again when its connector is known."""

    def setUp(self) -> None:
        self.rig = Rig()

    def enforce(self, rules: str) -> None:
        self.rig.ports.enforce(parsePolicy(rules))

    def connect(self, **attributes: object) -> FakeSession:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        leaf, answer = self.rig.verifier.asked.pop(0)
        answer.callback(Identity("office-1", leaf, attributes))
        return session

    def refusals(self) -> list[object]:
        return [each["code"] for each in self.rig.told("visitor.refused")]

    def test_aPortThatNoRuleAllowsIsNotOpened(self) -> None:
        self.enforce("[[port]]\nuids = ['home-*']")
        self.assertIsInstance(failureOf(self.rig.ports.desire(SPEC)), PortDenied)
        self.assertEqual(({}, {}), (self.rig.sockets.bound, self.rig.store.disk))

    def test_anyPortIsOneThatTheRulesAllow(self) -> None:
        self.enforce("[[port]]\nports = ['18099']\nuids = ['uid-1']")
        self.rig.ports.allowed = (PortRange(18000, 18999),)
        opened = self.rig.ports.desire(PortSpec(0, "uid-1", "x", 80))
        self.rig.settle()
        self.assertEqual(18099, self.successResultOf(opened).port)

    def test_norAPortThatItsConnectorsAttributesForbid(self) -> None:
        self.enforce("[[port]]\nattributes = {site = 'berlin'}")
        self.connect(site="paris")
        self.assertIsInstance(failureOf(self.rig.ports.desire(SPEC)), PortDenied)

    def test_attributesAreAskedAboutWhenTheConnectorComes(self) -> None:
        self.enforce("[[port]]\nattributes = {site = 'berlin'}")
        self.successResultOf(self.rig.ports.desire(SPEC))
        visitor = self.rig.visit(18080)
        self.connect(site="paris")
        self.rig.settle()
        self.assertTrue(visitor.sawReset)
        self.assertEqual(["port-denied"], self.refusals())

    def test_aNewRuleCountsForTheNextVisitor(self) -> None:
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.connect()
        first = self.rig.visit(18080)
        self.rig.settle()
        self.enforce("[[visitor]]\nsources = ['10.0.0.0/8']")
        second = self.rig.visit(18080)
        self.rig.settle()
        self.assertEqual((False, True), (first.sawReset, second.sawReset))

    def test_aPortThatNewRulesForbidIsClosedUntilTheyAllowIt(self) -> None:
        for spec in (SPEC, PortSpec(18081, "home-1", "x", 80)):
            self.successResultOf(self.rig.ports.desire(spec))
        self.connect()
        visitor = self.rig.visit(18080)
        self.rig.settle()
        self.enforce("[[port]]\nuids = ['home-*']")
        self.assertEqual([18081], list(self.rig.sockets.bound))
        entry = self.rig.ports.entry(18080)
        self.assertFalse(entry.isBound)
        (told,) = self.rig.told("port.waiting")
        self.assertEqual((18080, entry.waitsFor), (told["port"], told["reason"]))
        self.assertIn("[[port]]", entry.waitsFor)
        self.assertEqual((False, {18080, 18081}), (visitor.sawReset, set(self.rig.store.disk)))
        self.enforce("")
        self.assertEqual({18080, 18081}, set(self.rig.sockets.bound))
        self.assertEqual("", entry.waitsFor)

    def test_whoComesWhileAPortIsBeingClosedDoesNotWaitForItsConnector(self) -> None:
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.rig.lobby.policy = parsePolicy("[[port]]\nuids = ['home-*']")
        self.assertTrue(self.rig.visit(18080).sawReset)

    def test_afterTheStopNewRulesOpenNothing(self) -> None:
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.successResultOf(self.rig.ports.stop(0))
        self.enforce("")
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.reactor.getDelayedCalls()))

    def test_sources(self) -> None:
        self.enforce("[[visitor]]\nsources = ['10.0.0.0/8']")
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.connect()
        inside, outside = self.rig.visit(18080, "10.0.0.1"), self.rig.visit(18080, "192.0.2.1")
        self.rig.settle()
        self.assertEqual((False, True), (inside.sawReset, outside.sawReset))
        (refused,) = self.rig.told("visitor.refused")
        self.assertIn("no [[visitor]] rule", str(refused["reason"]))

    def test_rates(self) -> None:
        self.enforce("[[rate]]\nconnections_per_second = 2")
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.connect()
        visitors = [self.rig.visit(18080) for _ in range(3)]
        self.rig.reactor.advance(0.5)
        visitors.append(self.rig.visit(18080))
        self.rig.settle()
        self.assertEqual([False, False, True, False], [each.sawReset for each in visitors])

    def test_aStoredPortThatIsForbiddenWaits(self) -> None:
        self.successResultOf(self.rig.ports.desire(SPEC))
        self.successResultOf(self.rig.ports.stop(0))
        ports = self.rig.makePorts()
        ports.enforce(parsePolicy("[[port]]\nuids = ['home-*']"))
        ports.load()
        ports.restore()
        self.assertEqual({}, self.rig.sockets.bound)
        self.rig.lobby.policy = parsePolicy("")
        self.rig.reactor.advance(5)
        self.assertIn(18080, self.rig.sockets.bound)
