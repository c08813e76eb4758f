"""The API's calls that look on, and the policy's rates, at a listener and a connector that are processes."""

import contextlib
import json
import socket
from collections.abc import Generator, Iterator, Sequence
from http.client import HTTPConnection
from signal import SIGHUP
from threading import Thread
from typing import Any

from hypothesis import given, settings

from tests.listener.test_openapi import calls, checkAnswer

from .processes import PATIENCE, TWISTD, OverTls, Process, TunnelCase, freePort, readToEnd, receive, reset


class ControlCase(TunnelCase):
    """JSON both ways."""

    def json(self, method: str, path: str, body: object = None, status: int = 200) -> Any:  # Any: JSON
        """What a call is answered with."""
        got, text = self.call(method, path, body)
        self.assertEqual(status, got, text)
        return json.loads(text)

    def wish(self, target: tuple[str, int], **more: object) -> int:
        """An entry port, opened by ``PUT``."""
        body = {"uid": "uid-1", "target_host": target[0], "target_port": target[1], **more}
        port = freePort()
        self.assertIn(self.json("PUT", f"/v1/ports/{port}", body, 201)["state"], ("open", "parked"))
        return port


class Asking(ControlCase):
    """``/v1/probe`` and ``/v1/explain``."""

    def probe(self, **body: object) -> Any:  # Any: JSON
        return self.json("POST", "/v1/probe", {"uid": "uid-1", **body})

    def explain(self, port: int, source: str, dial: bool = False) -> tuple[bool | None, dict[str, Any]]:  # Any: JSON
        """Whether all is allowed, and the steps by their questions."""
        told = self.json("POST", "/v1/explain", {"port": port, "source": source, "dial": dial})
        return told["allowed"], {step["question"]: step for step in told["steps"]}

    def test_a_probe_goes_to_the_target_and_back(self) -> None:
        self.startBoth()
        target = self.listen()
        host, port = target.getsockname()

        def answer() -> None:
            connection = self.accept(target)
            connection.sendall(receive(connection, 4)[::-1])

        thread = Thread(target=answer)
        thread.start()
        probed = self.probe(host=host, port=port, send="ping")
        thread.join()
        self.assertEqual(
            ("answered", "gnip", f"{host}:{port}"), tuple(map(probed.get, ("outcome", "received", "dialled")))
        )
        for step in ("stream_seconds", "dial_seconds", "byte_seconds", "resolve_seconds", "connect_seconds"):
            self.assertGreaterEqual(probed[step], 0, step)

    def test_a_probe_says_what_is_wrong_and_who_says_so(self) -> None:
        self.environment["SWC_ALLOW_TARGETS"] = "127.0.0.1:*,*.invalid:80"
        self.startBoth()
        closed = freePort()
        for host, port, code in (
            ("127.0.0.1", closed, "refused"),
            ("127.0.0.2", closed, "denied"),
            ("169.254.169.254", 80, "denied"),
            ("nowhere.invalid", 80, "unresolved"),
        ):
            probed = self.probe(host=host, port=port)
            self.assertEqual(code, probed["outcome"], probed)
            self.assertTrue(probed["reason"])
        self.assertEqual(
            "no-session", self.json("POST", "/v1/probe", {"uid": "x", "host": "y", "port": 1}, 404)["code"]
        )

    def test_no_spelling_of_a_denied_target_is_dialled(self) -> None:
        self.environment["SWC_ALLOW_TARGETS"] = "10.0.0.0/8,2001:db8::/32,*.invalid"
        self.startBoth()
        port = self.listen().getsockname()[1]
        for host in (
            *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "::", "::1"),
            *("::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "fe80::1%lo"),
            *("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "[fe80::1]"),
        ):
            probed = self.probe(host=host, port=port)
            self.assertEqual(("denied", None), (probed["outcome"], probed["dialled"]), (host, probed))

    def test_explain_names_the_rule_of_either_end(self) -> None:
        rules = self.directory / "policy.toml"
        rules.write_text("[[visitor]]\nsources = ['10.0.0.0/8']\n")
        self.environment |= {"SWL_POLICY_PATH": "policy.toml", "SWC_ALLOW_TARGETS": "127.0.0.1:1"}
        self.startBoth()
        port = self.wish(self.listen().getsockname())
        allowed, steps = self.explain(port, "192.0.2.1")
        self.assertEqual((False, False), (allowed, steps["policy-visitor"]["allowed"]))
        self.assertEqual((None, True), (self.explain(port, "10.0.0.1")[0], steps["connector"]["allowed"]))
        rules.write_text("[[visitor]]\nsources = ['192.0.2.0/24']\n")
        self.listener.send(SIGHUP)
        self.listener.waitFor("changed files are in force")
        self.assertTrue(self.explain(port, "192.0.2.1")[1]["policy-visitor"]["allowed"])
        allowed, steps = self.explain(port, "192.0.2.1", dial=True)
        self.assertEqual((False, "connector"), (allowed, steps["target"]["end"]))
        self.assertIn("our rules", steps["target"]["rule"])
        rules.write_text("")
        self.listener.send(SIGHUP)
        self.listener.waitFor("the old ones stay in force", "SWL_POLICY_PATH")
        self.assertFalse(self.explain(port, "10.0.0.1")[0])

    def test_the_connectors_file_of_rules_counts_for_the_next_dial(self) -> None:
        rules = self.directory / "targets.toml"
        rules.write_text("[[target]]\nhosts = ['10.0.0.0/8']\n")
        self.environment["SWC_POLICY_PATH"] = "targets.toml"
        self.startBoth()
        host, port = self.listen().getsockname()
        denied = self.probe(host=host, port=port)
        self.assertEqual("denied", denied["outcome"])
        self.assertIn("is not among the targets that our rules allow", denied["reason"])
        rules.write_text(f"[[target]]\nhosts = ['{host}']\nports = ['{port}']\n")
        self.connector.send(SIGHUP)
        self.connector.waitFor("changed files are in force")
        self.assertEqual("dialled", self.probe(host=host, port=port)["outcome"])
        rules.write_text("")
        self.connector.send(SIGHUP)
        self.connector.waitFor("the old ones stay in force", "SWC_POLICY_PATH")
        self.assertEqual("dialled", self.probe(host=host, port=port)["outcome"])
        self.assertEqual("denied", self.probe(host=host, port=port - 1)["outcome"])


class Following(ControlCase):
    """``/v1/events`` over a connection that breaks."""

    def follow(self, last: str | None = None) -> Generator[tuple[str, Any]]:  # Any: JSON
        """Events with their ids, from one connection, which ends with the generator."""
        connection = HTTPConnection(*self.api, timeout=PATIENCE)
        try:
            connection.request("GET", "/v1/events", headers={} if last is None else {"Last-Event-ID": last})
            answer = connection.getresponse()
            self.assertEqual((200, "text/event-stream"), (answer.status, answer.headers["Content-Type"]))
            name = ""
            while line := answer.readline().decode().rstrip("\n"):  # the first is the pause before a reconnect
                self.assertEqual("retry: 2000", line)
            while line := answer.readline().decode():
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "id":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)
        finally:
            connection.close()

    def until(self, events: Iterator[tuple[str, Any]], event: str, port: int) -> list[tuple[str, Any]]:  # Any: JSON
        """Events up to this one."""
        seen: list[tuple[str, Any]] = []
        for each in events:
            seen.append(each)
            if each[1]["event"] == event and each[1].get("port") == port:
                return seen
        self.fail(f"the stream ended before {event}")

    def test_who_comes_again_gets_what_it_missed_once(self) -> None:
        self.startBoth()
        target = ("127.0.0.1", 1)
        first = self.follow("0")
        port = self.wish(target)
        seen = self.until(first, "port.opened", port)
        first.close()
        missed = [self.wish(target) for _ in range(3)]
        again = self.follow(seen[-1][0])
        later = self.wish(target)
        seen += self.until(again, "port.opened", later)
        again.close()
        opened = [told["port"] for _, told in seen if told["event"] == "port.opened"]
        self.assertEqual([port, *missed, later], opened)
        numbers = [int(name.partition("-")[2]) for name, _ in seen]
        self.assertEqual(list(range(1, len(seen) + 1)), numbers)

    def test_after_a_restart_everything_is_told(self) -> None:
        self.startBoth()
        port = self.wish(("127.0.0.1", 1))
        first = self.follow("0")
        last = self.until(first, "port.opened", port)[-1][0]
        first.close()
        self.listener.end()
        self.startListener()
        again = self.follow(last)
        name, told = next(again)
        again.close()
        self.assertEqual(("port.opened", port, "1"), (told["event"], told["port"], name.partition("-")[2]))

    def test_a_name_that_is_no_events_is_refused(self) -> None:
        self.startListener()
        self.assertEqual("bad-request", self.json("GET", "/v1/events?since=x", status=400)["code"])


class Records(ControlCase):
    """What stays: the log as programs read it, and the audit log."""

    def startListener(self) -> Process:
        """As usual, but for the log's format."""
        self.listener = self.start("swlistener")
        told = json.loads(self.listener.waitFor("listening for connectors at"))
        self.assertEqual(told["quic"], told["tls"])
        self.settings["service_port"] = int(told["quic"].rpartition(":")[2])
        self.api = ("127.0.0.1", int(told["api"].rpartition(":")[2]))
        return self.listener

    def test_each_line_of_the_log_is_an_object(self) -> None:
        self.environment |= {"SWL_LOG_FORMAT": "json", "SWC_LOG_FORMAT": "json"}
        self.startListener()
        self.startConnector()
        session = json.loads(self.listener.waitFor('"connector.connected"'))["session"]
        server = self.listen()
        port = self.wish(server.getsockname())
        self.assertEcho(server, port)
        ended = json.loads(self.listener.waitFor('"visitor.ended"'))
        self.assertEqual(("uid-1", session, port), (ended["uid"], ended["session"], ended["port"]))
        self.assertEqual((5, 5), (ended["bytes_in"], ended["bytes_out"]))
        self.assertEnds(self.connector, self.listener)
        for process in (self.listener, self.connector):
            for line in process.lines:
                self.assertLessEqual({"time", "level", "namespace", "message"}, json.loads(line).keys(), line)

    def test_the_audit_log_has_every_change(self) -> None:
        self.environment["SWL_LOG_FORMAT"] = "json"
        self.startListener()
        port = self.wish(("127.0.0.1", 1))
        self.json("DELETE", f"/v1/ports/{port}?dry_run=1")
        self.json("DELETE", f"/v1/ports/{port}")
        written = (self.directory / "state" / "audit.jsonl").read_text().splitlines()
        put, deleted = (json.loads(line) for line in written)
        self.assertEqual(("port.put", "port.delete"), (put["action"], deleted["action"]))
        self.assertEqual((None, put["after"], None), (put["before"], deleted["before"], deleted["after"]))
        for each in (put, deleted):
            self.assertEqual(("anonymous", str(port), "done"), (each["who"], each["subject"], each["outcome"]))
            self.assertTrue(each["peer"].startswith("127.0.0.1:"))


class DryRuns(ControlCase):
    """What would be, on real sockets."""

    def test_a_port_is_tried_and_let_go(self) -> None:
        self.startListener()
        body = {"uid": "uid-1", "target_host": "127.0.0.1", "target_port": 1, "bind_address": "127.0.0.1"}
        other = self.listen()
        taken, free = other.getsockname()[1], freePort()
        self.assertEqual(
            "port-unavailable", self.json("PUT", f"/v1/ports/{taken}?dry_run=1", body, 409)["code"], "another program's"
        )
        self.assertTrue(self.json("PUT", f"/v1/ports/{free}?dry_run=1", body)["dry_run"])
        socket.create_server(("127.0.0.1", free)).close()
        self.json("PUT", f"/v1/ports/{free}", body, 201)
        wider = body | {"bind_address": "0.0.0.0"}
        self.assertTrue(self.json("PUT", f"/v1/ports/{free}?dry_run=1", wider)["dry_run"])
        self.kept(socket.create_server(("127.0.0.2", free)))
        there = body | {"bind_address": "127.0.0.2"}
        self.assertEqual("port-unavailable", self.json("PUT", f"/v1/ports/{free}?dry_run=1", there, 409)["code"])
        self.assertEqual("127.0.0.1", self.json("GET", f"/v1/ports/{free}")["bind_address"])
        self.visit(free)


class Denials(ControlCase):
    """Who was sent away for a time."""

    def test_a_restart_lets_nobody_in_too_early(self) -> None:
        self.startBoth()
        self.json("DELETE", "/v1/connectors/uid-1?deny=3600")
        self.listener.waitFor("connector uid-1 lost")
        before = self.json("GET", "/v1/connectors/uid-1")
        self.assertIsNotNone(before["denied_until"])
        self.listener.end()
        self.startListener()
        self.connector.end()
        self.assertEqual([before], self.json("GET", "/v1/connectors"))
        self.start("swconnector")
        self.listener.waitFor("refused: an operator has sent this connector away")
        self.json("DELETE", "/v1/connectors/uid-1?deny=0")
        self.assertEqual([], self.json("GET", "/v1/connectors"))


class Crowds(ControlCase):
    """More callers and visitors than there is room for."""

    #: Descriptors that a listener may have.
    LIMIT = 96

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        limited = ("prlimit", f"--nofile={self.LIMIT}:{self.LIMIT}", *runner) if plugin == "swlistener" else runner
        return super().start(plugin, *flags, runner=limited)

    def test_slow_callers_keep_nobody_waiting(self) -> None:
        self.LIMIT = 1024
        self.startListener()
        slow = [self.kept(socket.create_connection(self.api, PATIENCE)) for _ in range(200)]
        for each in slow:
            each.sendall(b"GET /v1/ports HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        self.assertEqual([], self.json("GET", "/v1/ports"))
        for each in slow:
            each.sendall(b"x\r\n\r\n")
        for each in slow:
            self.assertEqual(b"HTTP/1.1 200 OK", receive(each, 15))

    def test_without_descriptors_visitors_wait_and_the_api_answers(self) -> None:
        self.environment |= {"SWL_DRAIN_SECONDS": "0", "SWC_DRAIN_SECONDS": "0"}
        self.startBoth()
        server = self.listen()
        port = self.wish(server.getsockname())
        visitors = [self.visit(port) for _ in range(self.LIMIT)]
        self.listener.waitFor("accepting visitors is paused", "file descriptors are in use")
        there = self.json("GET", f"/v1/ports/{port}")["connections"]
        self.assertTrue(0 < there < self.LIMIT, there)
        for each in visitors[:there]:
            reset(each)
        self.listener.waitFor("accepting visitors goes on")
        for each in visitors[there:]:
            each.sendall(b"still here")
            each.shutdown(socket.SHUT_WR)
        left = self.LIMIT - there
        while left:  # the targets of those who left see RST, the others' what they have sent
            with self.accept(server) as target, contextlib.suppress(ConnectionResetError):
                left -= receive(target, 10) == b"still here"
        self.assertEnds(self.connector, self.listener)


class CrowdsOverTls(OverTls, Crowds):
    """The same over TLS, where a visitor takes two descriptors."""


class Callers(ControlCase):
    """Calls made by the description of the API, well or badly."""

    def test_none_is_a_fault_of_the_listeners(self) -> None:
        self.environment |= {"SWL_ALLOW_PORTS": "18080-18081", "SWL_LOG_LEVEL": "debug"}
        self.startBoth()

        @settings(max_examples=200, deadline=None, database=None)
        @given(calls())
        def ask(made: tuple[str, str, dict[str, str], bytes, Any]) -> None:  # Any: JSON
            method, path, sent, body, operation = made
            connection = HTTPConnection(*self.api, timeout=2 * PATIENCE)
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            checkAnswer(answer.status, headers, answer.read().decode(), operation)
            connection.close()

        ask()
        self.assertEqual((0, []), (self.listener.end(), self.listener.stderr))
        self.assertEqual([], [line for line in self.listener.lines if "Traceback" in line or "#critical" in line])


class Rates(ControlCase):
    """A port whose bytes a second are bounded by the policy."""

    def test_every_byte_arrives_and_each_end(self) -> None:
        (self.directory / "policy.toml").write_text("[[rate]]\nbytes_per_second = 1_000_000\n")
        self.environment["SWL_POLICY_PATH"] = "policy.toml"
        self.startBoth()
        server = self.listen()
        visitor, target = self.pair(server, self.wish(server.getsockname()))
        there, back = bytes(range(256)) * 4000, bytes(reversed(range(256))) * 2000

        def send() -> None:
            visitor.sendall(there)
            visitor.shutdown(1)

        def answer() -> None:
            target.sendall(back)
            target.shutdown(1)

        threads = [Thread(target=each) for each in (send, answer)]
        for each in threads:
            each.start()
        self.assertEqual(there, readToEnd(target))
        self.assertEqual(back, readToEnd(visitor))
        for each in threads:
            each.join()
        ended = self.listener.waitFor("ended after")
        self.assertIn("finished", ended)
        self.assertEnds(self.connector, self.listener)
