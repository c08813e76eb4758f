import json

from .rig import PROBED, CliCase


class Probe(CliCase):
    def test_a_target_is_probed_through_a_connector(self) -> None:
        self.plan("probeTarget", PROBED | {"outcome": "answered", "received": "SSH-2.0\r\n\x1b[2J"})
        shown = self.run_("probe", "uid-1", "10.0.0.5:22", "--send", "x", "--time", "5").stdout
        body = {"uid": "uid-1", "host": "10.0.0.5", "port": 22, "send": "x", "seconds": 5.0}
        self.assertEqual(body, json.loads(self.sent[0].partition(b"\r\n\r\n")[2]))
        self.assertRegex(shown, r"stream after +1.0 ms\ndialled after +1.50 s\n")
        self.assertRegex(shown, r"\n  of it, resolving +250.0 ms\n  and connecting +1.00 s\n")
        self.assertRegex(shown, r"\nreceived +SSH-2.0\\r\\n\\x1b\[2J\n")
        self.assertNotIn("byte after", shown)

    def test_the_target_of_a_port_is_probed(self) -> None:
        self.open()
        (port,) = self.json("list")
        self.plan("getPort", port)
        self.plan("probeTarget", PROBED)
        self.assertEqual(PROBED, self.json("probe", "18080"))

    def test_the_status_says_whether_it_was_reached(self) -> None:
        for outcome, status in (("closed", 0), ("unknown", 0), ("refused", 1), ("denied", 1), ("session-lost", 69)):
            self.plan("probeTarget", PROBED | {"outcome": outcome, "reason": "so"})
            self.run_("probe", "uid-1", "10.0.0.5:22", status=status)

    def test_no_connector_is_unavailable(self) -> None:
        self.assertIn("no-session", self.run_("probe", "uid-2", "10.0.0.5:22", status=69).stderr)

    def test_a_uid_needs_a_target(self) -> None:
        self.assertIn("HOST:PORT", self.run_("probe", "uid-1", status=2).stderr)


class Explain(CliCase):
    def test_each_question_and_the_verdict_are_shown(self) -> None:
        self.open()
        shown = self.run_("explain", "18080", "10.0.0.1").stdout
        self.assertRegex(shown, r"yes +listener +open +it is")
        self.assertRegex(shown, r"\? +connector +target")
        self.assertIn("not refused here:  port 18080 from 10.0.0.1 to 10.0.0.5:80", shown)

    def test_who_is_refused_is_told_by_the_status_too(self) -> None:
        self.open(18080, "--source", "192.0.2.0/24")
        self.assertRegex(self.run_("explain", "18080", "10.0.0.1", status=77).stdout, "NO +listener +port-sources")
        self.assertFalse(self.json("explain", "18080", "10.0.0.1", status=77)["allowed"])

    def test_wrong_usage(self) -> None:
        self.assertIn("is no address", self.run_("explain", "18080", "10.0.0.0/8", status=2).stderr)

    def test_the_connector_is_asked_when_told_to(self) -> None:
        step = {"end": "connector", "question": "target", "allowed": True, "rule": "dialled 10.0.0.5:80"}
        self.plan("explainVisitor", {"allowed": True, "target": "10.0.0.5:80", "steps": [step]})
        self.assertIn("allowed:", self.run_("explain", "18080", "10.0.0.1", "--dial").stdout)
        self.assertIn(b'"dial": true', self.sent[0])
