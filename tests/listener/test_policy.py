"""Rules of the operator: what they allow, and that they are asked where it counts."""

from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError, PortDenied
from socketwarp.interfaces import Identity
from socketwarp.listener.policy import Policy, RateRule, loadPolicy, parsePolicy
from socketwarp.listener.throttle import Bucket
from socketwarp.listener.wishes import PortSpec
from tests.fakes import FakeSession
from tests.listener.rig import Rig, failureOf

SPEC = PortSpec(18080, "office-1", "x", 80)


class PortRuleTests(SynchronousTestCase):
    """Who may have which ports."""

    def allows(self, rules: str, known: dict[str, Any] | None = None, **changed: object) -> bool:  # Any: JSON
        return parsePolicy(rules).decidePort(attrs.evolve(SPEC, **changed), known).allowed  # type: ignore[arg-type]  # fields of different types

    def test_withoutRulesEverythingIsAllowed(self) -> None:
        self.assertTrue(self.allows(""))
        self.assertTrue(self.allows("[[visitor]]\nsources = ['10.0.0.0/8']"))

    def test_withRulesOnlyWhatOneAllows(self) -> None:
        rules = "[[port]]\nuids = ['office-*']\nports = ['18000-18099']\nbind = ['0.0.0.0']\n[[port]]\nuids = ['boss']"
        self.assertTrue(self.allows(rules))
        self.assertTrue(self.allows(rules, uid="boss", port=1, bindAddress="::"))
        self.assertTrue(self.allows(rules, port=0))
        for changed in ({"uid": "home-1"}, {"port": 18100}, {"bindAddress": "127.0.0.1"}, {"uid": "Office-1"}):
            self.assertFalse(self.allows(rules, **changed), changed)

    def test_attributesAreTheVerifiers(self) -> None:
        rules = "[[port]]\nattributes = {site = 'berlin', level = 2}"
        self.assertTrue(self.allows(rules, {"site": "berlin", "level": 2, "more": None}))
        for known in ({}, {"site": "berlin"}, {"site": "berlin", "level": "2"}, {"site": ["berlin"], "level": 2}):
            self.assertFalse(self.allows(rules, known), known)

    def test_whoIsAwayIsAskedForItsAttributesWhenItComes(self) -> None:
        self.assertTrue(self.allows("[[port]]\nattributes = {site = 'berlin'}", None))

    def test_theDecisionNamesItsRule(self) -> None:
        rules = parsePolicy("[[port]]\nuids = ['boss']\n[[port]]\nports = ['18080']")
        self.assertIn("[[port]] rule 2", rules.decidePort(SPEC, None).rule)
        self.assertIn("no [[port]] rule", rules.decidePort(attrs.evolve(SPEC, port=1), None).rule)
        self.assertIn("there are no", Policy().decidePort(SPEC, None).rule)


class VisitorRuleTests(SynchronousTestCase):
    """From where visitors may come."""

    def test_sourcesByPort(self) -> None:
        rules = parsePolicy(
            "[[visitor]]\nports = ['18080']\nsources = ['10.0.0.0/8', '2001:db8::/32']\n[[visitor]]\nports = ['443']"
        )
        for port, host, allowed in (
            (18080, "10.1.2.3", True),
            (18080, "2001:db8::1", True),
            (18080, "192.0.2.1", False),
            (443, "192.0.2.1", True),
            (80, "10.1.2.3", False),
        ):
            self.assertEqual(allowed, rules.decideVisitor(port, host).allowed, (port, host))

    def test_theFirstRateThatFitsCounts(self) -> None:
        rules = parsePolicy(
            "[[rate]]\nports = ['80']\nconnections_per_second = 0.5\n[[rate]]\nconnections_per_second = 9"
        )
        first, second = rules.pace(80), rules.pace(81)
        assert first is not None and second is not None
        self.assertEqual((0.5, 1.0), (first.connections_per_second, first.atOnce))
        self.assertEqual((9.0, 9.0), (second.connections_per_second, second.atOnce))
        self.assertEqual(3, RateRule(1, 3).atOnce)
        self.assertIsNone(Policy().pace(80))


class FileTests(SynchronousTestCase):
    """Rules come from a file."""

    def test_whatIsWrongWithItIsSaid(self) -> None:
        for text, words in (
            ("[[ports]]", "ports"),
            ("[port]\nuids = ['x']", "a list"),
            ("[[port]]\nuids = []", "leave it out"),
            ("[[port]]\nuids = 'x'", "a list"),
            ("[[port]]\nports = ['x']", "'x'"),
            ("[[port]]\nports = [80]", "text"),
            ("[[port]]\nbind = ['localhost']", "localhost"),
            ("[[visitor]]\nsources = ['10.0.0.1/8']", "host bits"),
            ("[[rate]]\nports = ['80']", "connections_per_second"),
            ("[[rate]]\nconnections_per_second = 0", "above 0"),
            ("[[rate]]\nconnections_per_second = inf", "above 0"),
            ("[[rate]]\nconnections_per_second = true", "above 0"),
            ("[[port]", "Expected"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, parsePolicy, text)), text)

    def test_theErrorNamesTheSetting(self) -> None:
        path = Path(self.mktemp())
        self.assertIn("SWL_POLICY_PATH", str(self.assertRaises(ConfigurationError, loadPolicy, path)))
        path.write_text("x")
        self.assertIn(str(path), str(self.assertRaises(ConfigurationError, loadPolicy, path)))

    @given(st.text())
    def test_anyTextIsAPolicyOrAnError(self, text: str) -> None:
        try:
            parsePolicy(text)
        except ValueError as error:
            self.assertTrue(str(error))


class BucketTests(SynchronousTestCase):
    """So many at once, and so many a second."""

    @given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.1, 10), st.floats(1, 10))
    def test_neverMoreThanItSays(self, waits: list[float], rate: float, burst: float) -> None:
        bucket, now, taken = Bucket(rate, burst), 0.0, 0
        for wait in waits:
            now += wait
            taken += bucket.take(now)
        self.assertLessEqual(taken, burst + now * rate + 1e-6)

    def test_aClockThatGoesBackGivesNothing(self) -> None:
        bucket = Bucket(1, 1)
        self.assertEqual([True, False, False], [bucket.take(now) for now in (100, 50, 50.5)])


class EnforcementTests(SynchronousTestCase):
    """Rules are asked when a port is opened, for each visitor, and again when its connector is known."""

    def setUp(self) -> None:
        self.rig = Rig()

    def enforce(self, rules: str) -> None:
        self.rig.lobby.policy = parsePolicy(rules)

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
        self.enforce("[[port]]\nuids = ['home-*']")
        second = self.rig.visit(18080)
        self.rig.settle()
        self.assertEqual((False, True), (first.sawReset, second.sawReset))

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
        self.enforce("[[port]]\nuids = ['home-*']")
        ports.load()
        ports.restore()
        self.assertEqual({}, self.rig.sockets.bound)
        self.enforce("")
        self.rig.reactor.advance(5)
        self.assertIn(18080, self.rig.sockets.bound)
