from socketwarp.listener.api.access import Gate
from socketwarp.rules.tokens import parseTokens
from tests.listener.client import Client
from tests.listener.test_access import digest

from .rig import CliCase


class Status(CliCase):
    def test_all_is_well(self) -> None:
        self.open()
        self.run_("open", "18081", "uid-2", "10.0.0.5:80")
        shown = self.run_("status").stdout
        for part in ("http://127.0.0.1:8080, version ", "yes", "1 open, 1 parked", "uid-1", "1 over quic"):
            self.assertIn(part, shown)

    def test_nothing_is_there_yet(self) -> None:
        self.run_("connectors", "uid-1", "--disconnect")
        self.assertRegex(self.run_("status").stdout, "connectors +none\nsessions +none\nports +none\nconnections +0\n")

    def test_a_listener_that_is_not_ready_is_unavailable(self) -> None:
        self.plan("ready", {"ready": False, "reasons": ["port 18080 is unbound: taken"]}, 503)
        self.assertRegex(self.run_("status", status=69).stdout, "ready +no\n +port 18080 is unbound: taken\n")

    def test_json_holds_the_same(self) -> None:
        self.open()
        found = self.json("status")
        self.assertEqual(
            {
                "ready": True,
                "reasons": [],
                "ports": {"open": 1},
                "connectors": ["uid-1"],
                "sessions": {"quic": 1},
                "connections": 0,
            },
            {key: value for key, value in found.items() if key not in ("url", "version")},
        )

    def test_who_has_to_do_with_ports_only_sees_no_connectors(self) -> None:
        text = f'[[token]]\nname = "a"\nsha256 = "{digest("x")}"\nrole = "read"\nports = ["18080"]\n'
        self.client = Client(self.rig, Gate(lambda: parseTokens(text)))
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("x")
        self.assertIsNone(self.json("--token-file", path, "status")["connectors"])
        shown = self.run_("status", "--token-file", path).stdout
        for part in ("connectors", "sessions"):
            self.assertNotIn(part, shown)
        self.planProblem(500, "internal", "broken")
        self.assertIn("broken", self.run_("status", status=1).stderr)
