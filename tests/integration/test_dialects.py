"""Each end beside one that speaks only the original's ``hq-29``."""

import sys
from collections.abc import Sequence

from .processes import TWISTD, Process, TunnelCase, readToEnd

#: Runs a plugin as twistd does, after the line that takes our own dialect away from it.
OLD = """
import sys
import socketwarp.listener.service, socketwarp.connector.service
socketwarp.listener.service.DIALECTS = socketwarp.connector.service.PROTOCOLS = ["hq-29"]
from twisted.scripts.twistd import run
sys.argv = ["twistd", "-n", *sys.argv[1:]]
run()
"""


class OldEndTests(TunnelCase):
    """Bytes and endings are the same, and either end can be stopped."""

    old = ""

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        """Start an end, and the one called `old` as one that knows nothing but ``hq-29``."""
        return super().start(plugin, *flags, runner=(sys.executable, "-c", OLD) if plugin == self.old else runner)

    def assertWorks(self) -> None:
        self.startListener()
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected", "hq-29")
        server = self.listen()
        port = self.entrance(server)
        self.assertEcho(server, port)
        visitor, target = self.pair(server, port)
        visitor.close()
        self.assertEqual(b"", readToEnd(target))
        target.close()
        visitor, target = self.pair(server, port)
        target.close()
        self.assertEqual(b"", readToEnd(visitor))
        visitor.close()
        self.assertEnds(self.connector, self.listener)

    def test_ourConnectorWithAListenerOfOld(self) -> None:
        self.old = "swlistener"
        self.assertWorks()

    def test_ourListenerWithAConnectorOfOld(self) -> None:
        self.old = "swconnector"
        self.assertWorks()
