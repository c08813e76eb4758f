"""The files of rules that settings name are read before a listener lives by them."""

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.rules.check import checkRuleFiles
from socketwarp.settings import ListenerSettings

SETTINGS = ListenerSettings(verifier="local")


class CheckTests(SynchronousTestCase):
    """Each of them, wherever it is named."""

    def written(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_whatCanBeUsedIsNoError(self) -> None:
        token = f"[[token]]\nname = 'x'\nrole = 'read'\nsha256 = '{'0' * 64}'"
        checkRuleFiles(SETTINGS)
        checkRuleFiles(
            attrs.evolve(
                SETTINGS,
                policyPath=self.written("[[visitor]]"),
                apiTokensPath=self.written(token),
                accessPath=self.written("allow office"),
            )
        )

    def test_theErrorNamesTheSettingAndTheFile(self) -> None:
        for field, name in (
            ("policyPath", "SWL_POLICY_PATH"),
            ("apiTokensPath", "APIS_TOKENS_FILE"),
            ("accessPath", "SWL_ACCESS_PATH"),
        ):
            for path in (self.written("x y"), Path(self.mktemp())):
                settings = attrs.evolve(SETTINGS, **{field: path})  # type: ignore[arg-type]  # fields of different types
                told = str(self.assertRaises(ConfigurationError, checkRuleFiles, settings))
                self.assertIn(name, told)
                self.assertIn(path.name, told)
