"""
Run tests with trial, under coverage, and say what came of it.

The last line printed is ``N passed, N failed``, from trial's own counts: a skipped test, an expected failure and an
unexpected success count as failed, because they prove nothing. So do a coverage below what the house asks for, and a
run in which nothing passed; each has a line that starts with ``failed:`` right before the last. The exit status is 0
only if nothing failed.

Usage: ``python -m tests.run [--no-coverage] [name ...]``. Names are those of modules, classes or methods; the whole of
``tests`` is run (the integration tests last) and its coverage judged when none is given.
"""

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import coverage
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner, name

ROOT = Path(__file__).parent.parent
#: Percent of lines and branches that all tests together must reach.
DEMANDS = {
    "socketwarp/*": 90,
    "socketwarp/wire/*": 95,
    "socketwarp/bridge.py": 95,
    "socketwarp/quic/*": 95,
    "socketwarp/tls/*": 95,
}


def inOrder(thing: Any) -> tuple[bool, str]:  # Any: what trial sorts are modules, classes and names of methods
    """Sort what starts processes behind what does not; else by name."""
    called = str(name(thing))
    return ".integration." in called, called


def runTests(names: list[str]) -> tuple[int, int]:
    """
    Load and run the named tests.

    :return: how many passed, how many didn't.
    """
    loader = TestLoader()
    loader.sorter = inOrder
    result = TrialRunner(TreeReporter).run(loader.loadByNames(names, recurse=True))
    assert isinstance(result, TreeReporter)
    failed = len(result.failures) + len(result.errors)
    proveNothing = len(result.skips) + len(result.expectedFailures) + len(result.unexpectedSuccesses)
    return result.successes, failed + proveNothing


def shortfalls(measured: coverage.Coverage) -> list[str]:
    """Print the report, and return a line for each demand that isn't met."""
    measured.combine()
    measured.report()
    found = []
    for pattern, demand in DEMANDS.items():
        reached = measured.report(include=[str(ROOT / pattern)], file=StringIO())
        print(f"coverage of {pattern}: {reached:.1f} %, at least {demand} % is asked for")
        if reached < demand:
            found.append(f"too little of {pattern} is covered: {reached:.1f} % < {demand} %")
    return found


def main(arguments: list[str]) -> int:
    """Run, measure, report; the exit status."""
    names = [argument for argument in arguments if argument != "--no-coverage"]
    measured = None
    if "--no-coverage" not in arguments:
        # Absolute, because trial and the processes that tests start work in directories of their own.
        measured = coverage.Coverage(data_file=str(ROOT / ".coverage"), config_file=str(ROOT / "pyproject.toml"))
        measured.erase()
        measured.start()
    passed, failed = runTests(names or ["tests"])
    faults = []
    if measured is not None:
        measured.stop()
        measured.save()
        faults = [] if names else shortfalls(measured)
    if not passed:
        faults.append("nothing passed")
    for fault in faults:
        print(f"failed: {fault}")
    failed += len(faults)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
