"""``make demo``, which is the first thing that a newcomer runs."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

DEMO = Path(__file__).parent.parent.parent / "etc" / "demo.py"


class DemoTests(SynchronousTestCase):
    """The main job, in the shape in which the README shows it."""

    def test_theBytesComeBackRight(self) -> None:
        """Certificates, target, listener, connector, an open port, a visitor; and every process ends with status 0."""
        done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=300)
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        self.assertIn("The bytes came back right.", done.stdout)

        # Nothing is refused on the way: the port is asked for once, when the connector is there.
        before, _, after = done.stdout.partition("--request POST")
        self.assertIn("connector demo connected from", before)
        self.assertTrue(after.partition("\n")[2].startswith("TcpListener created successfully!"))
        self.assertNotIn("--request POST", after)
