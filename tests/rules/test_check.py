"""The files of rules that settings name are read before a listener lives by them."""

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.rules.check import checkRuleFiles
from socketwarp.rules.tomlfiles import FILE_LIMIT
from socketwarp.settings import ConnectorSettings, ListenerSettings

SETTINGS = ListenerSettings(verifier="local")
CONNECTOR = ConnectorSettings(certPath=Path("c"), keyPath=Path("k"), caPath=Path("ca"), serverName="localhost")


class CheckTests(SynchronousTestCase):
    """Each of them, wherever it is named."""

    def written(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_whatCanBeUsedIsNoError(self) -> None:
        token = f"[[token]]\nname = 'x'\nrole = 'read'\nsha256 = '{'0' * 64}'"
        checkRuleFiles(SETTINGS)
        checkRuleFiles(CONNECTOR)
        checkRuleFiles(attrs.evolve(CONNECTOR, policyPath=self.written("[[target]]\nhosts = ['*']")))
        checkRuleFiles(
            attrs.evolve(
                SETTINGS,
                policyPath=self.written("[[visitor]]"),
                apiTokensPath=self.written(token),
                accessPath=self.written("allow office"),
            )
        )

    def test_theErrorNamesTheSettingAndTheFile(self) -> None:
        for end, field, name in (
            (CONNECTOR, "policyPath", "SWC_POLICY_PATH"),
            (SETTINGS, "policyPath", "SWL_POLICY_PATH"),
            (SETTINGS, "apiTokensPath", "APIS_TOKENS_FILE"),
            (SETTINGS, "accessPath", "SWL_ACCESS_PATH"),
        ):
            for path in (self.written("x y"), Path(self.mktemp())):
                settings = attrs.evolve(end, **{field: path})  # type: ignore[arg-type]  # fields of different types
                told = str(self.assertRaises(ConfigurationError, checkRuleFiles, settings))
                self.assertIn(name, told)
                self.assertIn(path.name, told)

    def test_aFileOfSomethingElseIsNotReadToItsEnd(self) -> None:
        path = self.written("#" * (FILE_LIMIT + 1))
        told = self.assertRaises(ConfigurationError, checkRuleFiles, attrs.evolve(SETTINGS, policyPath=path))
        self.assertIn("is it the right file?", str(told))
