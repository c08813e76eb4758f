"""What worked last, from one start to the next."""

import json
import os
from pathlib import Path

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.remembered import MAXIMUM_FILE, NAME, Remembered


class RememberedTests(SynchronousTestCase):
    """A directory, which need not be there."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.path = self.directory / NAME

    def remembered(self, *names: str) -> Remembered:
        """As at the next start."""
        return Remembered(self.directory, names or ("a", "b"))

    def test_whatWorkedIsKnownAtTheNextStart(self) -> None:
        remembered = self.remembered()
        self.assertIsNone(remembered.get("a"))
        remembered.put("a", "tls")
        remembered.put("b", "quic")
        self.assertEqual(["tls", "quic"], [self.remembered().get(name) for name in ("a", "b")])
        self.assertEqual(0o600, os.stat(self.path).st_mode & 0o777)
        self.assertEqual([NAME], os.listdir(self.directory))

    def test_onlyNewsIsWritten(self) -> None:
        self.remembered().put("a", "tls")
        remembered = self.remembered()
        self.path.unlink()
        remembered.put("a", "tls")
        self.assertFalse(self.path.exists())

    def test_listenersThatAreNoMoreAreForgotten(self) -> None:
        self.remembered().put("a", "tls")
        self.remembered("b").put("b", "tls")
        self.assertEqual({"b": "tls"}, json.loads(self.path.read_text()))

    def test_aDamagedFileIsIgnored(self) -> None:
        """And replaced."""
        self.directory.mkdir()
        for damaged in (
            b"",
            b"{",
            b"\xff",
            b"[]",
            b'{"a": 5, "b": null}',
            b"[" * 100_000,
            b'{"a":"' + b"x" * MAXIMUM_FILE,
        ):
            self.path.write_bytes(damaged)
            remembered = self.remembered()
            self.assertEqual([None, None], [remembered.get(name) for name in ("a", "b")])
            remembered.put("a", "tls")
            self.assertEqual("tls", self.remembered().get("a"))

    def test_aFileThatCanNotBeReadOrWrittenIsNoFailure(self) -> None:
        """But somebody should know."""
        self.path.mkdir(parents=True)
        remembered = self.remembered()
        with capturedLogs() as events:
            remembered.put("a", "tls")
        [event] = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn(NAME, event["error"])
        self.assertEqual("tls", remembered.get("a"))
