"""The benchmark, gone through for a moment; ``make bench-smoke`` does so with every part."""

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
#: What needs nothing but this package: no sshd, no web server, no root.
PART = ("--smoke", "--network", "loopback", "--only", "direct,socketwarp", "--measure", "rtt,stream,idle")


class BenchSmokeTests(SynchronousTestCase):
    """``python -m benchmarks --smoke``."""

    def test_aSmokeRunMovesTheRightBytesAndGivesEveryFigure(self) -> None:
        """It says so, with status 0; how fast anything is doesn't matter."""
        output = Path(self.mktemp())
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *PART, "--output", str(output.absolute())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("Every part works.", done.stdout)
        samples = json.loads((output / "loopback.json").read_text())["samples"]
        for figure in ("stream.in", "stream.out", "rtt.p50", "idle.memory", "start"):
            self.assertIn(figure, samples["socketwarp"])
        self.assertIn("one stream in", (output / "table.rst").read_text())

    def test_anUnknownNameIsRefusedWithThoseThatThereAre(self) -> None:
        """Rather than measuring something else for half an hour."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--only", "sssh"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(2, done.returncode)
        self.assertIn("socketwarp", done.stderr)
