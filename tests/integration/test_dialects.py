"""Each end beside one that speaks only the original's ``hq-29``."""

import sys
from collections.abc import Sequence

from . import test_tunnel
from .processes import TWISTD, Process, TunnelCase, receive

#: Runs a plugin as twistd does, after the line that takes our own dialect away from it.
OLD = """
import sys
import socketwarp.listener.service, socketwarp.connector.service
socketwarp.listener.service.DIALECTS = socketwarp.connector.service.PROTOCOLS = ["hq-29"]
from twisted.scripts.twistd import run
sys.argv = ["twistd", "-n", *sys.argv[1:]]
run()
"""

#: Runs a listener with which a fight's winner keeps the uid for as long as it may from the first time on.
HOLDING = """
import sys
import socketwarp.listener.roster as roster
roster.FIRST_HOLD = roster.LONGEST_HOLD
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


class OldCopiesTests(OldEnd):
    """Two that run with one certificate, and can't say that they take the uid from nobody."""

    old = "swconnector"

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        """Start an end; the listener ends a fight for long."""
        return super().start(plugin, *flags, runner=(sys.executable, "-c", HOLDING) if plugin != self.old else runner)

    def test_theirFightIsReportedAndOneOfThemServes(self) -> None:
        self.environment["SWC_BACKOFF_CAP_SECONDS"] = "0.2"
        self.startBoth()
        copies = [self.connector, self.startConnector()]
        self.listener.waitFor("refused", "two connectors fight for it", "end one of them")
        server = self.listen()
        port = self.entrance(server)
        visitor, target = self.pair(server, port)
        self.listener.waitFor("refused", "two connectors fight for it")
        visitor.sendall(b"still")
        self.assertEqual(b"still", receive(target, 5))
        visitor.close()
        target.close()
        self.assertEnds(copies.pop())
        self.assertEcho(server, port)
        self.assertEnds(*copies, self.listener)
