"""Each end beside one that speaks only the original's ``hq-29``."""

import sys
from collections.abc import Sequence

from . import test_tunnel
from .processes import TWISTD, Process, TunnelCase

#: Runs a plugin as twistd does, after the line that takes our own dialect away from it.
OLD = """
import sys
import socketwarp.listener.service, socketwarp.connector.service
socketwarp.listener.service.DIALECTS = socketwarp.connector.service.PROTOCOLS = ["hq-29"]
from twisted.scripts.twistd import run
sys.argv = ["twistd", "-n", *sys.argv[1:]]
run()
"""


class OldEnd(TunnelCase):
    """An end that knows nothing but ``hq-29``: the one whose plugin `old` names."""

    old: str

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        """Start an end, and the old one as what it is."""
        return super().start(plugin, *flags, runner=(sys.executable, "-c", OLD) if plugin == self.old else runner)

    def startBoth(self) -> None:
        """Start them, and see which dialect they have in common."""
        self.startListener()
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected", "hq-29")


class OldListenerTests(OldEnd, test_tunnel.EndingsTests):
    """Bytes and endings are the same, and both can be stopped."""

    old = "swlistener"

    def test_sigtermEndsBothWithStatusZero(self) -> None:
        self.assertEnds(self.connector, self.listener)


class OldConnectorTests(OldEnd):
    """With the other one: the dialect is the same, and so are the endings."""

    old = "swconnector"

    def test_bytesGoBothWaysAndBothCanBeStopped(self) -> None:
        self.startBoth()
        server = self.listen()
        self.assertEcho(server, self.entrance(server))
        self.assertEnds(self.connector, self.listener)
