"""The connector's file of rules about targets."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.rules.targets import parseTargets
from socketwarp.settings import parseTargetRules


class FileTests(SynchronousTestCase):
    def test_eachHostWithEachPort(self) -> None:
        text = "[[target]]\nhosts = ['10.0.0.0/8', '*.LAN']\nports = ['22', '80-89']\n"
        text += "[[target]]\nhosts = ['2001:db8::/32']"
        rules = parseTargetRules("10.0.0.0/8:22,10.0.0.0/8:80-89,*.lan:22,*.lan:80-89,2001:db8::/32")
        self.assertEqual(rules, parseTargets(text))

    def test_whatIsWrongWithItIsSaid(self) -> None:
        for text, words in (
            ("", "required"),
            ("target = []", "leave it out"),
            ("[[target]]", "required"),
            ("[[target]]\nhosts = []", "leave it out"),
            ("[[target]]\nhosts = ['10.0.0.0/8:22']", "without ports"),
            ("[[target]]\nhosts = ['10.0.0.1/8']", "10.0.0.1/8"),
            ("[[target]]\nhosts = ['a b']", "without ports"),
            ("[[target]]\nhosts = ['*']\nports = [22]", "text"),
            ("[[target]]\nhosts = ['*']\nport = ['22']", "unknown: port"),
            ("[[targets]]\nhosts = ['*']", "targets"),
            (f"[[target]]\nhosts = {['*'] * 26}\nports = {['1'] * 20}\n" * 2, "more than 1000 pairs"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, parseTargets, text)), text)

    @given(st.text())
    def test_anyTextIsRulesOrAnError(self, text: str) -> None:
        try:
            self.assertTrue(parseTargets(text))
        except ValueError as error:
            self.assertTrue(str(error))
