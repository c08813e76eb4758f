"""The limit of descriptors."""

import resource

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.tcp.limit import raiseLimit


class LimitTests(SynchronousTestCase):
    """What the process is asked."""

    def test_theProcessGetsAllItMayHave(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, limits[1]), limits[1]))
        self.assertEqual(limits[1], raiseLimit())
        self.assertEqual((limits[1], limits[1]), resource.getrlimit(resource.RLIMIT_NOFILE))
