"""Who changed what."""

import errno
import json
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.listener import audit
from socketwarp.listener.audit import AuditLog
from tests.listener.client import Client
from tests.listener.rig import Rig

WISH = {"uid": "uid-1", "target_host": "db", "target_port": 5432}


class AuditTests(SynchronousTestCase):
    """Each change is a line, whatever the log's level."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.client = Client(self.rig)
        self.log = AuditLog(Path(self.mktemp()), self.rig.events)
        self.log.start()
        self.addCleanup(self.log.stop)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.path.read_text().splitlines()]

    def test_aChangeHasWhoFromWhereWhatBeforeAndAfter(self) -> None:
        _, port = self.client.json("PUT", "/v1/ports/18080", WISH)
        self.client.json("PUT", "/v1/ports/18080", WISH | {"target_port": 5433})
        self.client.json("GET", "/v1/ports/18080")
        first, second = self.lines()
        wished = {name: port[name] for name in (*WISH, "port", "bind_address", "limits", "options")}
        self.assertEqual(
            {
                "time": "1970-01-01T00:00:00.000Z",
                "who": "anonymous",
                "peer": "127.0.0.1:50000",
                "action": "port.put",
                "subject": "18080",
                "before": None,
                "after": wished,
                "outcome": "done",
            },
            first,
        )
        self.assertEqual(("port.change", wished), (second["action"], second["before"]))
        self.assertEqual(wished | {"target_port": 5433}, second["after"])

    def test_theOriginalsCallsAreNotedAsWell(self) -> None:
        self.rig.connected("uid-1")
        self.client.callJson("POST", "/open", {"uid": "uid-1", "port": 1, "connect_address": "x", "connect_port": 2})
        self.client.callJson("DELETE", "/close", {"port": 1})
        self.assertEqual(["port.put", "port.delete"], [line["action"] for line in self.lines()])

    def test_aPortForAConnectorThatIsNotHereIsNotedAsWell(self) -> None:
        self.client.callJson("POST", "/open", {"uid": "uid-1", "port": 1, "connect_address": "x", "connect_port": 2})
        (line,) = self.lines()
        self.assertEqual(("port.put", "1", "no-session"), (line["action"], line["subject"], line["outcome"]))

    def test_whatFailedSaysSo(self) -> None:
        self.rig.store.broken = True
        self.client.json("PUT", "/v1/ports/18080", WISH)
        (line,) = self.lines()
        self.assertEqual(("store-unavailable", None), (line["outcome"], line["after"]))

    def test_onlyWeReadIt(self) -> None:
        self.assertEqual(0o600, self.log.path.stat().st_mode & 0o777)

    def test_itGoesOnWhereItWas(self) -> None:
        self.client.json("PUT", "/v1/ports/18080", WISH)
        self.log.stop()
        again = AuditLog(self.log.path.parent, self.rig.events)
        again.start()
        self.addCleanup(again.stop)
        self.client.json("DELETE", "/v1/ports/18080")
        self.assertEqual(["port.put", "port.delete"], [line["action"] for line in self.lines()])

    def test_itTakesSoMuchRoomAndNoMore(self) -> None:
        self.patch(audit, "FILE_BYTES", 1000)
        self.patch(audit, "FILES_KEPT", 2)
        log = AuditLog(Path(self.mktemp()), self.rig.events)
        log.start()
        self.addCleanup(log.stop)
        for port in range(18000, 18030):
            self.client.json("PUT", f"/v1/ports/{port}", WISH)
        self.assertEqual(
            ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"], sorted(each.name for each in log.path.parent.iterdir())
        )

    def fill(self, after: int) -> None:
        """From now on the disk takes so many bytes of a line, and no more."""
        write = LogFile.write

        def short(file: LogFile, line: str) -> None:
            write(file, line[:after])
            if not after:
                raise OSError(errno.ENOSPC, "No space left on device")
            file.size += len(line) - after

        self.patch(LogFile, "write", short)
        self.restored = lambda: self.patch(LogFile, "write", write)

    def test_noChangeIsMadeThatCouldNotBeNoted(self) -> None:
        """The one under way when the disk fills up is noted later; the next isn't made until then."""
        self.client.api.auditFault = self.log.fault
        for after in (0, 10):
            self.client.json("PUT", "/v1/ports/18080", WISH)
            self.fill(after)
            self.client.json("DELETE", "/v1/ports/18080")
            self.assertEqual([], self.rig.ports.entries())
            for method, path, body in (("PUT", "/v1/ports/1", WISH), ("DELETE", "/v1/connectors/uid-1", None)):
                status, problem = self.client.json(method, path, body)
                self.assertEqual((500, "store-unavailable"), (status, problem["code"]))
                self.assertIn("No space left on device", problem["detail"])
            status, ready = self.client.json("GET", "/ready")
            self.assertEqual((503, False), (status, ready["ready"]))
            self.assertIn("audit.jsonl can't be written", ready["reasons"][0])
            self.assertEqual(200, self.client.json("PUT", "/v1/ports/1?dry_run=1", WISH)[0])
            self.assertEqual(500, self.client.callJson("DELETE", "/close", {"port": 1})[0])
            self.restored()
            self.assertEqual(200, self.client.json("GET", "/ready")[0])
            self.assertEqual(["port.put", "port.delete"], [line["action"] for line in self.lines()][-2:])
        self.assertEqual(4, len(self.lines()))

    def test_whatIsNeverNotedIsInTheLogAtLeast(self) -> None:
        self.fill(0)
        self.client.json("PUT", "/v1/ports/18080", WISH)
        with capturedLogs() as events:
            self.log.stop()
        self.assertIn('"action": "port.put"', formatEvent(events[0]))

    def test_whoMovesTheFileAwayGetsANewOne(self) -> None:
        self.client.json("PUT", "/v1/ports/18080", WISH)
        self.log.path.rename(self.log.path.with_name("moved"))
        self.client.json("DELETE", "/v1/ports/18080")
        self.assertIsNone(self.log.fault())
        self.assertEqual(["port.delete"], [line["action"] for line in self.lines()])

    def test_aDirectoryThatCannotBeUsed(self) -> None:
        path = Path(self.mktemp())
        path.write_text("")
        error = self.assertRaises(ConfigurationError, AuditLog(path, self.rig.events).start)
        self.assertIn("SWL_STATE_DIR", str(error))
