"""
The rules of the house that no linter knows.

Who imports what is import-linter's to check, private names and the reactor are ruff's, both by pyproject.toml.
"""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.settings import ConnectorSettings, ListenerSettings, settingsOf

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "twisted" / "plugins" / "socketwarp_plugins.py"
#: An excuse from the type checker: with its code, and behind it the reason.
EXCUSE = re.compile(r"#\s*type:\s*ignore\b(?P<code>\[[a-z, -]+\])?(?P<reason>\s*#\s*\S+)?")
LONGEST_MODULE = 400


def modules(*directories: str) -> list[Path]:
    """Our Python files below the directories."""
    found = [path for directory in directories for path in sorted((ROOT / directory).rglob("*.py"))]
    assert found, f"no modules below {directories}"
    return found


class HouseTests(SynchronousTestCase):
    """What holds for all the code."""

    def test_noModuleIsLongerThanFourHundredLines(self) -> None:
        """What outgrows that is two things."""
        lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules("socketwarp")}
        self.assertEqual({}, {path: length for path, length in lengths.items() if length > LONGEST_MODULE})

    def test_everyTypeIgnoreHasItsCodeAndItsReason(self) -> None:
        """An excuse without a reason can't be checked again later."""
        bare = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in modules("socketwarp", "tests", "twisted", "benchmarks", "etc")
            for number, line in enumerate(path.read_text().splitlines(), 1)
            for excuse in EXCUSE.finditer(line)
            if path != Path(__file__) and not (excuse["code"] and excuse["reason"])
        ]
        self.assertEqual([], bare)

    def test_theTwistedDirectoriesAreNoPackages(self) -> None:
        """With an __init__.py there, ours would hide Twisted itself or its plugins."""
        self.assertEqual([PLUGIN], modules("twisted"))

    def test_everyPackageIsInstalled(self) -> None:
        """setup.cfg lists the packages by hand; what it forgets works here and nowhere else."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        packages = {".".join(path.parent.relative_to(ROOT).parts) for path in modules("socketwarp")}
        self.assertEqual({*packages, "twisted.plugins"}, set(setup["options"]["packages"].split()))

    def test_everyTestModuleIsInAPackage(self) -> None:
        """trial passes over a directory without __init__.py, and over the tests in it, and says nothing."""
        directories = {path.parent for path in modules("tests")}
        self.assertEqual([], [path for path in directories if not (path / "__init__.py").is_file()])

    def test_thePackageSaysThatItIsTyped(self) -> None:
        """PEP 561: without the marker, type checkers of users ignore our annotations."""
        self.assertTrue((ROOT / "socketwarp" / "py.typed").is_file())


class PluginTests(SynchronousTestCase):
    """Twisted imports the plugin module whatever it is asked to run, in order to list it."""

    def test_importingThePluginInstallsNoReactor(self) -> None:
        """The choice of a reactor is twistd's, by its option."""
        self.assertEqual("[]", self.newlyImported("twisted.internet.reactor", "klein"))

    def test_importingThePluginLoadsNothingOfOurs(self) -> None:
        """So that no other command of Twisted pays for us, or fails with us."""
        self.assertEqual("[]", self.newlyImported("socketwarp", "aioquic", "treq"))

    def newlyImported(self, *names: str) -> str:
        """Which of the modules a fresh interpreter holds after it has loaded the plugin."""
        program = (
            "import runpy, sys;"
            f"runpy.run_path({str(PLUGIN)!r});"
            f"print([name for name in {names!r} if name in sys.modules])"
        )
        return subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout.strip()


class ReadmeTests(SynchronousTestCase):
    """What a user reads first is true."""

    def test_theReadmeNamesEverySettingAndNoOther(self) -> None:
        """A setting that is documented but never read has cost others dearly."""
        readme = (ROOT / "README.rst").read_text()
        for both in re.findall(r"``…(_[A-Z_]+)``", readme):
            readme += f" SWL{both} SWC{both}"
        named = set(re.findall(r"\b(?:SWL|SWC|APIS)_[A-Z][A-Z_]*", readme))
        known = {
            variable
            for kind in (ListenerSettings, ConnectorSettings)
            for setting in settingsOf(kind).values()
            for variable in setting.variables
        }
        self.assertEqual(known | {"SWL_SETTINGS", "SWC_SETTINGS"}, named)
