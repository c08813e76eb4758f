"""The package, installed into a clean virtual environment as its users install it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
#: What a source archive holds; nothing else may be needed.
SOURCE = ("setup.cfg", "pyproject.toml", "README.rst", "LICENSE", "socketwarp", "twisted")
#: The versions of what is installed with it.
LOCK = ROOT / ".ci" / "requirements.lock"
IMPORT_ALL = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
CONFIGURATION_ERROR = 78


class Installation:
    """
    A virtual environment in which there is socketwarp, installed anew, and what pip has installed because setup.cfg
    names it; it is built with what pyproject.toml names, and nothing else.

    :ivar elsewhere: an empty directory to work in, with no source of ours in it.
    """

    def __init__(self, venv: Path, directory: Path, *options: str) -> None:
        source = directory / "source"
        for name in SOURCE:
            copy(ROOT / name, source / name)
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.bin = venv / "bin"
        if not venv.exists():
            self._run(sys.executable, "-m", "venv", "--without-pip", str(venv))
        pip = (sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet")
        self._run(*pip, *options, str(source))

    def _run(self, *command: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command elsewhere; it has to end with that exit status."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SWL_", "SWC_"))}
        kept["PIP_CONSTRAINT"] = str(LOCK)
        done = subprocess.run(command, cwd=self.elsewhere, env=kept, capture_output=True, text=True, timeout=300)
        if done.returncode != status:
            raise AssertionError(f"{command} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def _python(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        return self._run(str(self.bin / "python"), *arguments, status=status)

    def twistd(self, *arguments: str, status: int = 0) -> str:
        """Run twistd; return all that it printed."""
        done = self._run(str(self.bin / "twistd"), *arguments, status=status)
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
    """
    What is true after ``pip install``, in a directory that isn't the source's.

    :cvar venv: made by the first test, with the dependencies; each test puts its socketwarp in the other's place.
    """

    venv: ClassVar[Path | None] = None

    def check(self, *options: str) -> Installation:
        """Install with pip's options, and see that everything works."""
        directory = Path(self.mktemp()).absolute()
        InstallTests.venv = InstallTests.venv or directory / "venv"
        installed = Installation(InstallTests.venv, directory, *options)
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
