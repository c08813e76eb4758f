"""What a process asks of its heap and of its collector, seen from outside: in a process of its own."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: Prints how many pages were faulted in by a million bytes that come and go a hundred times.
FAULTS = """
import gc, resource
from socketwarp import heap
{settle}
def churn():
    return [bytearray(100_000) for _ in range(10)]
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, gc.get_freeze_count(), *gc.get_threshold())
"""


class HeapTests(SynchronousTestCase):
    def churn(self, settle: str) -> list[int]:
        command = [sys.executable, "-c", FAULTS.format(settle=settle)]
        return [int(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split()]

    def test_whatComesAndGoesKeepsItsPages(self) -> None:
        faults, frozen, threshold, *_ = self.churn("heap.settle()")
        self.assertLess(faults, 2000)
        self.assertGreater(frozen, 1000)
        self.assertEqual(10_000, threshold)
        self.assertGreater(self.churn("")[0], 5 * faults)
