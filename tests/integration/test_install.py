"""The package, installed into clean virtual environments as its users install it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
#: What a source archive holds; nothing else may be needed.
SOURCE = ("setup.cfg", "pyproject.toml", "README.rst", "LICENSE", "socketwarp", "twisted")
#: What twistd's own script does. It is installed with Twisted, which the environments here share with the tests.
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
IMPORT_ALL = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
CONFIGURATION_ERROR = 78


class Installation:
    """
    A virtual environment into which nothing but socketwarp has been installed; the dependencies are those of the tests.

    :ivar elsewhere: an empty directory to work in, with no source of ours in it.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        source = directory / "source"
        for name in SOURCE:
            copy(ROOT / name, source / name)
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.bin = directory / "venv" / "bin"
        self._run(sys.executable, "-m", "venv", "--without-pip", str(directory / "venv"))
        # A path file makes the packages beside the tests importable, but obeys no path file found among them: the
        # tests' own editable installation stays out of sight.
        shared = self._python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        Path(shared, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = (sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet")
        self._run(*pip, "--no-deps", "--no-build-isolation", "--no-index", *options, str(source))

    def _run(self, *command: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command elsewhere; it has to end with that exit status."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SWL_", "SWC_"))}
        done = subprocess.run(command, cwd=self.elsewhere, env=kept, capture_output=True, text=True, timeout=300)
        if done.returncode != status:
            raise AssertionError(f"{command} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def _python(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        return self._run(str(self.bin / "python"), *arguments, status=status)

    def twistd(self, *arguments: str, status: int = 0) -> str:
        """Run twistd; return all that it printed."""
        done = self._python("-c", TWISTD, *arguments, status=status)
        return done.stdout + done.stderr

    def importAll(self, names: list[str]) -> None:
        """Import the modules, each under its full name."""
        self._python("-c", IMPORT_ALL, *names)

    def location(self) -> Path:
        """Where the package is imported from."""
        return Path(self._python("-c", "import socketwarp; print(socketwarp.__file__)").stdout.strip())

    def command(self, *arguments: str) -> str:
        """Run the installed command ``socketwarp``; return what it printed."""
        return self._run(str(self.bin / "socketwarp"), *arguments).stdout


def copy(source: Path, destination: Path) -> None:
    """Copy a file, or a directory without what was generated in it."""
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    else:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, destination)


def allModules() -> list[str]:
    """The full names of all modules of the package."""
    paths = (ROOT / "socketwarp").rglob("*.py")
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)


class InstallTests(SynchronousTestCase):
    """What is true after ``pip install``, in a directory that isn't the source's."""

    def check(self, *options: str) -> Installation:
        """Install with pip's options, and see that everything works."""
        installed = Installation(Path(self.mktemp()).absolute(), *options)
        commands = installed.twistd("--help")
        self.assertIn("swlistener", commands)
        self.assertIn("swconnector", commands)
        self.assertIn("--cert-path", installed.twistd("swlistener", "--help"))
        self.assertIn("--server-name", installed.twistd("swconnector", "--help"))
        self.refusesToStart(installed, "swlistener", "SWL_")
        self.refusesToStart(installed, "swconnector", "SWC_")
        self.assertIn("Usage", installed.command("--help"))
        installed.importAll(allModules())
        return installed

    def refusesToStart(self, installed: Installation, plugin: str, setting: str) -> None:
        """Without any setting an end gets as far as to say what it misses: its whole code could be loaded."""
        said = installed.twistd("--nodaemon", "--pidfile=", plugin, status=CONFIGURATION_ERROR)
        self.assertIn(setting, said)
        self.assertNotIn("Traceback", said)

    def test_installedCopyWorksFromAnotherDirectory(self) -> None:
        """``pip install .``: nothing of the source is needed afterwards."""
        installed = self.check()
        self.assertIn("site-packages", installed.location().parts)

    def test_editableInstallationWorksFromAnotherDirectory(self) -> None:
        """``pip install -e .``: the source is what runs, and twistd finds the plugins in it."""
        installed = self.check("--editable")
        self.assertIn("source", installed.location().parts)
