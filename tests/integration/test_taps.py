"""Both plugins under twistd and twist, from a directory of their own: signals, log levels, ``--check``."""

import socket

from .processes import PATIENCE, TWIST, TWISTD, ProcessCase


class TapTests(ProcessCase):
    """What is true of either end; what it refuses is in test_bad_input."""

    def test_sigterm(self) -> None:
        """Ends either process with status 0 and nothing on stderr, also while there is no listener to connect to."""
        self.environment["SWC_HANDSHAKE_SECONDS"] = "1"
        for runner in (TWISTD, TWIST):
            for plugin, sign in (("swlistener", "listening for connectors"), ("swconnector", "next attempt")):
                process = self.start(plugin, runner=runner)
                process.waitFor(sign)
                self.assertEqual((0, []), (process.end(), process.stderr))

    def test_systemd(self) -> None:
        """Hears that either end is ready, that it lives, and that it stops."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind("")  # the kernel gives it an abstract name: a path could be longer than a socket's name may be
        manager.settimeout(PATIENCE)
        self.environment |= {
            "NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode(),
            "WATCHDOG_USEC": "60000000",
        }
        for plugin in ("swlistener", "swconnector"):
            process = self.start(plugin)
            self.assertEqual([b"READY=1", b"WATCHDOG=1"], [manager.recv(100), manager.recv(100)])
            self.assertEqual((0, []), (process.end(), process.stderr))
            self.assertEqual(b"STOPPING=1", manager.recv(100))

    def test_logLevels(self) -> None:
        """What is less important than the level isn't there."""
        self.environment |= {"SWC_LOG_LEVEL": "warn", "SWC_HANDSHAKE_SECONDS": "1"}
        for runner in (TWISTD, TWIST):
            process = self.start("swconnector", runner=runner)
            process.waitFor("next attempt")
            self.assertIn("next attempt", process.lines[0])

    def test_check(self) -> None:
        """Prints the settings and opens nothing."""
        for runner in (TWISTD, TWIST):
            process = self.start("swconnector", "--check", runner=runner)
            self.assertEqual(0, process.wait())
            self.assertIn(f"server_name=localhost  ({self.directory}/settings.json)\n", process.lines)
