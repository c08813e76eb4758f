from .rig import CliCase


class Connectors(CliCase):
    def test_they_are_listed_and_shown(self) -> None:
        self.open()
        self.assertRegex(
            self.run_("connectors").stdout, r"(?m)^uid-1 +18080 +\S+:\d+ +quic +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
        )
        shown = self.run_("connectors", "uid-1").stdout
        for part in ("uid ", "18080", "certificate until", "hq-29 over quic"):
            self.assertIn(part, shown)

    def test_json_is_what_the_api_answers(self) -> None:
        (one,) = self.json("connectors")
        self.assertEqual(one, self.json("connectors", "uid-1"))
        self.assertEqual("uid-1", one["uid"])

    def test_a_uid_may_be_a_uri(self) -> None:
        self.rig.connected("spiffe://lab/a b?c#d%20")
        self.assertEqual("spiffe://lab/a b?c#d%20", self.json("connectors", "spiffe://lab/a b?c#d%20")["uid"])

    def test_one_that_is_not_here_is_a_failure(self) -> None:
        self.assertIn("no-such-connector", self.run_("connectors", "uid-2", status=1).stderr)

    def test_one_is_sent_away_for_a_time(self) -> None:
        self.assertIn(
            "uid-1: 1 sessions would be ended; not let in again for 3600 s",
            self.run_("connectors", "uid-1", "--disconnect", "--deny", "1h", "--dry-run").stdout,
        )
        self.assertEqual(1, len(self.json("connectors")))
        self.assertIn("uid-1: 1 sessions ended\n", self.run_("connectors", "uid-1", "--disconnect").stdout)
        self.assertEqual(60.0, self.json("connectors", "uid-1", "--disconnect", "--deny", "60")["denied_seconds"])

    def test_who_is_denied_is_shown_and_let_in_again(self) -> None:
        self.open()
        self.run_("connectors", "uid-1", "--disconnect", "--deny", "1h")
        self.rig.reactor.advance(1)
        self.rig.settle()
        listed = self.run_("connectors").stdout
        self.assertRegex(listed, r"(?m)^uid-1 +18080 +denied until 1970-01-01 01:00:00Z$")
        self.assertRegex(self.run_("connectors", "uid-1").stdout, "denied until +1970-01-01 01:00:00Z")
        self.assertEqual([], self.json("status", status=0)["connectors"])
        self.assertIn("let in again", self.run_("connectors", "uid-1", "--disconnect", "--deny", "0").stdout)
        self.assertEqual([], self.json("connectors"))

    def test_wrong_usage(self) -> None:
        self.run_("connectors", "--disconnect", status=2)
        self.run_("connectors", "uid-1", "--deny", "1h", status=2)
        self.run_("connectors", "uid-1", "--dry-run", status=2)


class Connections(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.open()
        self.rig.visit(18080)
        self.rig.visit(18080)
        self.rig.settle()

    def test_they_are_listed(self) -> None:
        listed = self.run_("connections").stdout
        self.assertEqual(3, listed.count("\n"))
        self.assertRegex(listed, r"(?m)18080 +uid-1 +\S+:\d+ +10.0.0.5:80 +\d{4}-")

    def test_of_one_port_and_uid_and_so_many(self) -> None:
        self.assertIn("1 of 2\n", self.run_("connections", "--limit", "1").stdout)
        self.assertEqual(2, self.json("connections", "--port", "18080", "--uid", "uid-1")["total"])
        self.assertEqual(0, self.json("connections", "--port", "18081")["total"])
        self.assertEqual(0, self.json("connections", "--uid", "a b&c")["total"])

    def test_one_is_ended(self) -> None:
        one, other = (each["id"] for each in self.json("connections")["connections"])
        self.assertIn("would be ended", self.run_("connections", "--end", one, "--dry-run").stdout)
        self.assertIn(f"connection {one} of", self.run_("connections", "--end", one).stdout)
        self.assertEqual(other, self.json("connections", "--end", other)["id"])
        self.assertIn("no-such-connection", self.run_("connections", "--end", "x", status=1).stderr)

    def test_wrong_usage(self) -> None:
        self.run_("connections", "--dry-run", status=2)
        self.run_("connections", "--end", "1", "--port", "1", status=2)
