import json
from unittest import mock

import attrs

from socketwarp.listener.wishes import PortSpec

from .rig import PROBED, CliCase

WISH = {"uid": "uid-1", "target_host": "10.0.0.5", "target_port": 80}


class Ports(CliCase):
    def test_a_port_is_opened_and_listed_and_closed(self) -> None:
        self.assertIn(
            "port 18080 is open for uid-1 to 10.0.0.5:80",
            self.run_("open", "18080", "uid-1", "10.0.0.5:80").stdout,
        )
        self.assertEqual([PortSpec(18080, "uid-1", "10.0.0.5", 80)], self.rig.ports.specs())
        self.assertRegex(self.run_("list").stdout, r"18080 +uid-1 +10.0.0.5:80 +open +0 +0.0.0.0")
        self.assertIn("port 18080 closed; 0 ended", self.run_("close", "18080").stdout)
        self.assertEqual([], self.rig.ports.specs())

    def test_json_is_what_the_api_answers(self) -> None:
        opened = self.json("open", "18080", "uid-1", "10.0.0.5:80")
        self.assertEqual((200, opened), self.client.json("GET", "/v1/ports/18080"))
        self.assertEqual([opened], self.json("list"))
        self.assertEqual(opened, self.json("list", "18080"))
        self.assertEqual({"port": 18080, "ended": 0}, self.json("close", "18080"))

    def test_limits_and_options_are_passed_on_and_shown(self) -> None:
        limits = ("--total", "5", "--at-once", "2", "--idle", "30s", "--source", "10.0.0.0/8", "--source", "::1/128")
        options = ("--proxy-protocol", "2", "--bind", "127.0.0.1", "--for", "2h")
        self.open(18080, *limits, *options)
        (spec,) = self.rig.ports.specs()
        self.assertEqual((5, 2, 30.0), (spec.limits.total, spec.limits.atOnce, spec.limits.idleSeconds))
        self.assertEqual((2, "127.0.0.1"), (spec.options.proxyProtocol, spec.bindAddress))
        self.assertRegex(
            self.run_("list").stdout,
            r"until \d{4}-.*Z, 0 of 5 used, 2 at once, idle 30 s, from 10.0.0.0/8 ::1/128, PROXY protocol 2\n",
        )

    def test_an_ipv6_target_is_bracketed(self) -> None:
        self.assertIn("[::1]:22", self.run_("open", "18080", "uid-1", "[::1]:22").stdout)
        self.assertIn("[::1]:22", self.run_("list").stdout)

    def test_a_port_of_an_absent_connector_is_parked(self) -> None:
        self.assertIn("is parked", self.run_("open", "18080", "uid-2", "10.0.0.5:80").stdout)

    def test_dry_runs_change_nothing(self) -> None:
        self.assertIn("would be open", self.run_("open", "18080", "uid-1", "10.0.0.5:80", "--dry-run").stdout)
        self.assertEqual([], self.rig.ports.specs())
        self.open()
        self.assertIn("would be closed; 0 visitors", self.run_("close", "18080", "--dry-run").stdout)
        self.assertEqual(1, len(self.rig.ports.specs()))

    def test_what_is_not_given_again_stays_and_is_named(self) -> None:
        limits = ("--total", "5", "--source", "10.0.0.0/8", "--proxy-protocol", "2", "--bind", "127.0.0.1")
        self.open(18080, *limits)
        (before,) = self.rig.ports.specs()
        said = "; as before: 0 of 5 used, from 10.0.0.0/8, PROXY protocol 2, bound to 127.0.0.1\n"
        dry = self.run_("open", "18080", "uid-1", "10.0.0.5:81", "--dry-run").stdout
        self.assertTrue(dry.endswith(said), dry)
        self.assertTrue(self.run_("open", "18080", "uid-1", "10.0.0.5:81").stdout.endswith(said))
        self.assertEqual([attrs.evolve(before, targetPort=81)], self.rig.ports.specs())
        some = self.run_("open", "18080", "uid-1", "10.0.0.5:81", "--total", "9", "--bind", "127.0.0.2").stdout
        self.assertTrue(some.endswith("; as before: from 10.0.0.0/8, PROXY protocol 2\n"), some)
        (spec,) = self.rig.ports.specs()
        self.assertEqual((9, "127.0.0.2"), (spec.limits.total, spec.bindAddress))
        self.assertNotIn("as before", self.run_("open", "18080", "uid-1", "10.0.0.5:81", *limits).stdout)

    def test_replace_drops_what_is_not_given_again(self) -> None:
        self.open(18080, "--total", "5", "--source", "10.0.0.0/8", "--bind", "127.0.0.1")
        self.assertNotIn("as before", self.run_("open", "18080", "uid-1", "10.0.0.5:80", "--replace").stdout)
        self.assertEqual([PortSpec(18080, "uid-1", "10.0.0.5", 80)], self.rig.ports.specs())

    def test_what_somebody_else_changes_meanwhile_is_not_lost(self) -> None:
        self.open(18080)
        (shown,) = self.json("list")
        self.plan("getPort", shown)
        self.client.callJson("PUT", "/v1/ports/18080", {**WISH, "limits": {"total": 5}})
        failed = self.run_("open", "18080", "uid-1", "10.0.0.5:81", status=1)
        self.assertIn("port 18080 was changed by somebody else meanwhile", failed.stderr)
        self.assertEqual(5, self.rig.ports.specs()[0].limits.total)

    def test_new_refuses_what_is_there(self) -> None:
        self.open(18080, "--new")
        self.assertEqual(
            "socketwarp: port 18080 is there already (precondition-failed)\n",
            self.run_("open", "18080", "uid-1", "10.0.0.5:81", "--new", status=1).stderr,
        )

    def test_a_drain_is_waited_for_longer_than_other_calls(self) -> None:
        self.plan("deletePort", {"port": 18080, "ended": 0})
        self.run_("close", "18080", "--drain", "5m")
        self.assertIn(b"?drain=300.0 ", self.sent[-1])

    def test_a_port_that_is_not_there_is_a_failure(self) -> None:
        self.assertEqual(
            "socketwarp: port 18080 isn't open (no-such-port)\n", self.run_("close", "18080", status=1).stderr
        )

    def test_wrong_usage(self) -> None:
        for target in ("10.0.0.5", ":22", "::1:22", "10.0.0.5:0", "10.0.0.5:99999", "a:b"):
            self.assertIn("is no target", self.run_("open", "1", "u", target, status=2).stderr)
        for time in ("5x", "-1", "", "1e9"):
            self.assertIn("is no time", self.run_("open", "1", "u", "h:1", "--for", time, status=2).stderr)
        for network in ("x", "10.0.0.1/8", "10.0.0.0/33", ""):
            self.assertIn("is no network", self.run_("open", "1", "u", "h:1", "--source", network, status=2).stderr)
        self.assertIn("is no address", self.run_("open", "1", "u", "h:1", "--bind", "10.0.0.0/8", status=2).stderr)
        self.run_("open", "1", "u", "h:1", "--wait", "--dry-run", status=2)
        self.run_("open", "65536", "u", "h:1", status=2)
        self.assertEqual([], self.sent)

    def test_what_the_api_finds_wrong_is_wrong_usage_as_well(self) -> None:
        self.assertIn("bad-request", self.run_("open", "1", "u\x01", "h:1", status=2).stderr)


class Waiting(CliCase):
    """``open --wait``."""

    def wait(self, *options: str, status: int = 0) -> str:
        # The listener in memory opens the port; probes are planned behind that.
        plans, self.planned = self.planned, []
        self.open()
        (shown,) = self.json("list")
        self.plan("getPort", shown)
        self.plan("putPort", shown)
        self.planned += plans
        return self.run_("open", "18080", "uid-1", "10.0.0.5:80", "--wait", *options, status=status).stderr

    def planProbe(self, outcome: str, reason: str | None = None) -> None:
        self.plan("probeTarget", PROBED | {"outcome": outcome, "reason": reason})

    def test_a_target_that_answers_ends_it(self) -> None:
        self.planProbe("dialled")
        self.assertEqual("", self.wait())
        self.assertIn(b"POST /v1/probe", self.sent[-3])
        self.assertEqual(
            {"uid": "uid-1", "host": "10.0.0.5", "port": 80, "seconds": 10.0},
            json.loads(self.sent[-3].partition(b"\r\n\r\n")[2]),
        )

    def test_what_is_missing_is_said_once_and_waited_for(self) -> None:
        self.planProblem(404, "no-session", "nobody")
        self.planProblem(404, "no-session", "nobody")
        self.planProbe("refused", "nothing listens there")
        self.planProbe("answered")
        self.assertEqual("port 18080: nobody (no-session)\nport 18080: nothing listens there (refused)\n", self.wait())
        self.assertEqual([1.0] * 3, self.slept)

    def test_it_ends_in_time_and_the_port_stays(self) -> None:
        for _ in range(3):
            self.planProbe("refused", "nothing listens there")
        self.assertIn("nobody got through within 3 s: nothing", self.wait("--wait-time", "3s", status=69))
        self.assertEqual(1, len(self.rig.ports.specs()))

    def test_a_port_that_is_not_bound_is_waited_for(self) -> None:
        """Its target may be there all the same."""
        self.open()
        (shown,) = self.json("list")
        self.plan("getPort", shown)
        self.plan("putPort", shown)
        self.planProbe("dialled")
        self.plan("getPort", shown | {"state": "unbound", "reason": "in use"})
        self.planProbe("dialled")
        done = self.run_("open", "18080", "uid-1", "10.0.0.5:80", "--wait")
        self.assertEqual("port 18080: it is unbound: in use\n", done.stderr)
        self.assertEqual([1.0], self.slept)

    def test_a_target_that_the_connector_denies_ends_it_at_once(self) -> None:
        self.planProbe("denied", "not in SWC_ALLOW_TARGETS")
        self.assertIn("refuses the target: not in SWC_ALLOW_TARGETS", self.wait(status=77))

    def test_who_may_not_probe_can_not_wait(self) -> None:
        self.planProblem(403, "forbidden", "not yours")
        self.assertIn("not yours", self.wait(status=77))

    def test_on_a_terminal_one_line_changes(self) -> None:
        self.planProblem(404, "no-session", "[red]nobody")
        self.planProbe("dialled")
        with mock.patch("rich.console.Console.is_terminal", True):
            self.assertNotIn("port 18080: [red]nobody\n", self.wait())
        self.assertEqual([1.0], self.slept)
