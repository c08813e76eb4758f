"""Rules of the operator: what they allow, and which of them decides."""

from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.listener.wishes import PortSpec
from socketwarp.rules.policy import Policy, RateRule, loadPolicy, parsePolicy

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

    def test_anAddressHasManyNames(self) -> None:
        self.assertTrue(self.allows("[[port]]\nbind = ['0:0:0:0:0:0:0:1']", bindAddress="::1"))
        self.assertTrue(self.allows("[[port]]\nbind = ['::1']", bindAddress="0:0::0:1"))

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

    def test_aRateSaysWhatItIs(self) -> None:
        (rate,) = parsePolicy("[[rate]]\nconnections_per_second = 2\nbytes_per_second = 1_000_000").rate
        self.assertEqual(
            "2 connections a second and 1000000 bytes a second, of all visitors together",
            str(rate),
        )


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
            ("[[port]]\nports = ['80,81']", "a range of ports"),
            (
                "[[port]]\nbind = ['::1', 'localhost']",
                "localhost' does not appear to be an IPv4 or IPv6 address @ $.port[0].bind[1]",
            ),
            ("[[visitor]]\nsources = ['10.0.0.1/8']", "host bits"),
            ("[[rate]]\nports = ['80']", "connections_per_second"),
            ("[[rate]]\nbytes_per_second = 9\nburst = 1", "connections_per_second"),
            ("[[rate]]\nbytes_per_second = 0", "above 0"),
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

    def test_aFileWithoutRulesIsAMistake(self) -> None:
        path = Path(self.mktemp())
        for text in ("", "# nothing yet\n"):
            path.write_text(text)
            self.assertIn("no rule in it", str(self.assertRaises(ConfigurationError, loadPolicy, path)))

    @given(st.text())
    def test_anyTextIsAPolicyOrAnError(self, text: str) -> None:
        try:
            parsePolicy(text)
        except ValueError as error:
            self.assertTrue(str(error))
