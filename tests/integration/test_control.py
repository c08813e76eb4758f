"""The API's calls that look on, and the policy's rates, at a listener and a connector that are processes."""

import json
from collections.abc import Generator, Iterator
from http.client import HTTPConnection
from signal import SIGHUP
from threading import Thread
from typing import Any

from .processes import PATIENCE, TunnelCase, freePort, readToEnd, receive


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
        self.assertEqual("open", self.json("PUT", f"/v1/ports/{port}", body, 201)["state"])
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
        for step in ("stream_seconds", "dial_seconds", "byte_seconds"):
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
        self.assertIn("SWC_ALLOW_TARGETS", steps["target"]["rule"])


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
