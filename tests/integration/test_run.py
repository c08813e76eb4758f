"""What decides whether a change may go in: ``tests/run.py`` and ``.ci/run``, on tests and recipes of a few lines."""

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import coverage
from twisted.trial.unittest import SynchronousTestCase

from tests import run

from .processes import ROOT

TESTS = """
from twisted.trial.unittest import SynchronousTestCase

class Tests(SynchronousTestCase):
    def test_first(self):
        self.assertEqual(1, 1)
"""
MORE = """
    def test_second(self):
        {}
"""


def execute(directory: Path, *command: str) -> tuple[int, list[str]]:
    """Run a command in that directory; exit status, and the lines that it printed."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}
    # stderr is where trial shows a module that can't be imported; what counts is on stdout
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.splitlines()


class Directory(SynchronousTestCase):
    """Tests in a directory of their own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()


class RunTests(Directory):
    """The status and the last line agree."""

    def outcome(self, code: str) -> tuple[int, str, str]:
        """Of a module of tests: the exit status, the last line but one, and the last."""
        (self.directory / "sample.py").write_text(code)
        status, lines = execute(self.directory, sys.executable, "-m", "tests.run", "--no-coverage", "sample")
        return status, lines[-2], lines[-1]

    def test_whatPassesPasses(self) -> None:
        status, _, last = self.outcome(TESTS + MORE.format("pass"))
        self.assertEqual((0, "2 passed, 0 failed"), (status, last))

    def test_whatFailsOrProvesNothingFails(self) -> None:
        for line in ("self.fail()", "1 / 0", "self.skipTest('not today')", "test_second.todo = 'some day'"):
            status, _, last = self.outcome(TESTS + MORE.format("pass").replace("pass", line))
            self.assertEqual((1, "1 passed, 1 failed"), (status, last), line)

    def test_aRunOfNothingFails(self) -> None:
        self.assertEqual((1, "failed: nothing passed", "0 passed, 1 failed"), self.outcome(""))

    def test_aModuleThatCannotBeImportedFails(self) -> None:
        self.assertEqual((1, "failed: nothing passed", "0 passed, 2 failed"), self.outcome("import nowhere_at_all"))


class CoverageTests(SynchronousTestCase):
    """Too little of it fails the run, and is said at its end."""

    def outcome(self, percent: float) -> tuple[int, list[str]]:
        class Measured:
            def __init__(self, **options: str) -> None:
                self.erase = self.start = self.stop = self.save = self.combine = lambda: None

            def report(self, **options: Any) -> float:  # Any: where to, and of what
                return percent

        self.patch(coverage, "Coverage", Measured)
        self.patch(run, "runTests", lambda names: (3, 0))
        with redirect_stdout(StringIO()) as printed:
            status = run.main([])
        return status, printed.getvalue().splitlines()[len(run.DEMANDS) :]

    def test_enoughPasses(self) -> None:
        self.assertEqual((0, ["3 passed, 0 failed"]), self.outcome(95.0))

    def test_tooLittleFails(self) -> None:
        status, lines = self.outcome(94.0)
        short = [pattern for pattern, demand in run.DEMANDS.items() if demand == 95]
        expected = [f"failed: too little of {pattern} is covered: 94.0 % < 95 %" for pattern in short]
        self.assertEqual((1, [*expected, f"3 passed, {len(short)} failed"]), (status, lines))


class CiTests(Directory):
    """The checks, the benchmark's smoke run and the tests together."""

    def outcome(self, check: str, test: str, bench: str = "true") -> tuple[int, list[str]]:
        """With recipes for the three: the exit status, and the lines that aren't make's own."""
        (self.directory / ".ci").mkdir(exist_ok=True)
        shutil.copy(ROOT / ".ci" / "run", self.directory / ".ci" / "run")
        (self.directory / "Makefile").write_text(f"check:\n\t@{check}\nbench-smoke:\n\t@{bench}\ntest:\n\t@{test}\n")
        status, lines = execute(self.directory, ".ci/run")
        return status, [line for line in lines if not line.startswith("make")]

    def test_whatPassesPasses(self) -> None:
        self.assertEqual(
            (0, ["fine", "7 passed, 0 failed"]), self.outcome("true", "echo fine; echo 7 passed, 0 failed")
        )

    def test_aCheckThatFailsIsCountedAndNamedAtTheEnd(self) -> None:
        expected = (1, ["fine", "failed: make check", "7 passed, 1 failed"])
        self.assertEqual(expected, self.outcome("false", "echo fine; echo 7 passed, 0 failed"))

    def test_aPartOfTheBenchmarkThatDoesNotWorkIsCountedAndNamedAtTheEnd(self) -> None:
        expected = (1, ["fine", "failed: make bench-smoke", "7 passed, 1 failed"])
        self.assertEqual(expected, self.outcome("true", "echo fine; echo 7 passed, 0 failed", "false"))

    def test_testsThatFailAreCountedOnce(self) -> None:
        said = "echo 'failed: too little is covered'; echo 7 passed, 3 failed; exit 1"
        expected = ["failed: too little is covered"] * 2 + ["7 passed, 3 failed"]
        self.assertEqual((1, expected), self.outcome("true", said))

    def test_testsThatEndWithoutCountsFail(self) -> None:
        for recipe in ("false", "true", "echo 7 passed, 0 failed; exit 3"):
            status, lines = self.outcome("true", recipe)
            counts = "7 passed, 1 failed" if "7" in recipe else "0 passed, 1 failed"
            self.assertEqual((1, ["failed: make test, before it could count", counts]), (status, lines))

    def test_aRunOfNothingFails(self) -> None:
        status, lines = self.outcome("true", "echo 0 passed, 0 failed")
        self.assertEqual((1, "0 passed, 0 failed"), (status, lines[-1]))
