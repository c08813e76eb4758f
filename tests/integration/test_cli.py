"""The `socketwarp` command as a process, against a listener and a connector that are processes, too."""

import contextlib
import json
import os
import re
import subprocess
from signal import SIGINT, SIGKILL
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

from tests.certs import Authority

from .processes import BIN, OverTls, Process, TunnelCase, freePort

SOCKETWARP = str(BIN / "socketwarp")


class Echo(BaseRequestHandler):
    """Sends back what it gets, until FIN or RST."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while piece := self.request.recv(4096):
                self.request.sendall(piece)


class CliCase(TunnelCase):
    """Commands at a listener and a connector."""

    def setUp(self) -> None:
        super().setUp()
        self.environment = {name: text for name, text in self.environment.items() if not name.startswith("SOCKETWARP_")}

    def startListener(self) -> Process:
        listener = super().startListener()
        self.environment["SOCKETWARP_URL"] = f"http://127.0.0.1:{self.api[1]}"
        return listener

    def do(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Run a command to its end; its output, and its standard error."""
        process = self.run_(arguments[0], SOCKETWARP, *arguments)
        self.assertEqual(status, process.wait(), process.lines)
        stderr = "".join(process.stderr)
        self.assertNotIn("Traceback", stderr)
        return "".join(line for line in process.lines if line not in process.stderr), stderr

    def json(self, *arguments: str, status: int = 0) -> Any:  # Any: JSON
        """What it prints with ``--json``."""
        return json.loads(self.do(*arguments, "--json", status=status)[0])

    def serve(self) -> str:
        """A target that sends back what it gets, to everybody; its address."""
        server = ThreadingTCPServer(("127.0.0.1", 0), Echo)
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"127.0.0.1:{server.server_address[1]}"


class Operating(CliCase):
    """What an operator does."""

    def test_a_port_from_its_opening_to_its_end(self) -> None:
        self.startBoth()
        target = self.serve()
        port = str(freePort())
        self.assertIn(f"port {port} is open for uid-1 to {target}", self.do("open", port, "uid-1", target, "--wait")[0])
        visitor = self.visit(int(port))
        visitor.sendall(b"hello")
        self.assertEqual(b"hello", visitor.recv(5))
        (connection,) = self.json("connections", "--port", port)["connections"]
        self.assertEqual((5, 5), (connection["bytes_in"], connection["bytes_out"]))
        self.assertEqual([int(port)], self.json("connectors", "uid-1")["ports"])
        self.assertEqual({"open": 1}, self.json("status")["ports"])
        probed = self.json("probe", port, "--send", "ping")
        self.assertEqual(("answered", "ping"), (probed["outcome"], probed["received"]))
        self.assertTrue(self.json("explain", port, "127.0.0.1", "--dial")["allowed"])
        self.do("connections", "--end", connection["id"])
        self.assertRaises(ConnectionResetError, visitor.recv, 1)
        self.assertRegex(self.do("list")[0], rf"(?m)^{port} +uid-1 +{target} +open +0 ")
        self.do("close", port)
        self.assertEqual([], self.json("list"))
        self.assertIn("no-such-port", self.do("close", port, status=1)[1])

    def test_open_waits_for_a_connector_that_comes_later(self) -> None:
        self.startListener()
        target = self.serve()
        waiting = self.run_("open", SOCKETWARP, "open", "0", "uid-1", target, "--wait", "--json")
        waiting.waitFor("no-session")
        self.startConnector()
        self.assertEqual(0, waiting.wait())
        (port,) = self.json("list")
        opened = json.loads("".join(line for line in waiting.lines if line not in waiting.stderr))
        self.assertEqual((port, "open"), (opened, opened["state"]))

    def test_failures_are_one_line_and_their_status(self) -> None:
        self.startBoth()
        for status, *arguments in (
            (1, "probe", "uid-1", "127.0.0.1:1"),
            (2, "open", "1", "uid-1", "nowhere"),
            (69, "probe", "uid-2", "127.0.0.1:1"),
            (69, "list", "--url", "http://127.0.0.1:1"),
            (78, "list", "--token-file", "none"),
        ):
            self.do(*arguments, status=status)
        told = self.do("list", "--url", f"https://127.0.0.1:{self.api[1]}", status=69)[1]
        self.assertIn("does it speak http only?", told)

    def test_a_full_disk_is_a_failure_in_words(self) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run([SOCKETWARP, "token", "x", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual((1, 1), (done.returncode, done.stderr.count("\n")))
        self.assertIn("No space left on device", done.stderr)

    def test_who_reads_no_further_is_left_in_silence(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([SOCKETWARP, "token", "x", "--json"], stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        self.assertEqual((1, ""), (done.returncode, done.stderr))

    def test_watch_goes_on_across_a_listener_that_is_killed(self) -> None:
        self.startBoth()
        watching = self.run_("watch", SOCKETWARP, "watch", "--since", "0", "--json")
        watching.waitFor('"connector.connected"', '"uid-1"')
        self.listener.end(SIGKILL)
        watching.waitFor("trying again")
        self.startListener()
        watching.waitFor('"connector.connected"', '"uid-1"')
        self.assertEqual(0, watching.end(SIGINT))

    def test_settings_are_checked_with_the_ends_environment(self) -> None:
        checked = {each["field"]: each for each in self.json("config", "check", "listener")}
        self.assertEqual(("local", "environment"), (checked["verifier"]["value"], checked["verifier"]["source"]))
        self.environment["SWL_PORT"] = "x"
        self.assertIn("SWL_PORT", self.do("config", "check", "listener", status=78)[1])

    def test_shells_complete_commands_and_their_arguments(self) -> None:
        """Each in its own way: it runs what the manual has it read, and that runs us."""
        for shell, where in (("bash", "1"), ("zsh", "1"), ("fish", "co")):
            said = self.complete(f"{shell}_source")
            self.assertIn(f"_SOCKETWARP_COMPLETE={shell}_complete", said)
            self.assertIn("socketwarp", said)
            said = self.complete(f"{shell}_complete", COMP_WORDS="socketwarp co", COMP_CWORD=where)
            self.assertEqual(["connectors", "connections", "config"], re.findall(r"\b(conn?\w+)\b(?=[\n\t])", said))
        said = self.complete("bash_complete", COMP_WORDS="socketwarp doctor ", COMP_CWORD="2")
        self.assertEqual("plain,listener\nplain,connector\n", said)

    def complete(self, what: str, **words: str) -> str:
        environment = self.environment | {"_SOCKETWARP_COMPLETE": what, **words}
        return subprocess.run([SOCKETWARP], env=environment, capture_output=True, text=True, check=True).stdout

    def test_bash_completes_as_the_manual_says(self) -> None:
        """With its own line, in a shell that is asked for what Tab would show."""
        script = """
            PATH=$1:$PATH; eval "$(_SOCKETWARP_COMPLETE=bash_source socketwarp)"
            COMP_WORDS=(socketwarp con) COMP_CWORD=1; _socketwarp_completion socketwarp; echo "${COMPREPLY[@]}"
        """
        done = subprocess.run(["bash", "-c", script, "bash", str(BIN)], capture_output=True, text=True, timeout=60)
        self.assertEqual(("connectors connections config\n", ""), (done.stdout, done.stderr))

    def test_people_get_a_table_and_see_what_is_waited_for(self) -> None:
        """On a terminal: a line that changes, then a result; a table with a head, folded to the terminal's width."""
        self.startBoth()
        target = self.serve()
        shown = self.onTerminal("open", "0", "uid-1", target, "--wait")
        self.assertIn("waiting for the target", shown)
        self.assertRegex(shown, rf"port \d+ is open for uid-1 to {target}")
        shown = self.onTerminal("list")
        self.assertRegex(shown, r"\x1b\[1mPORT")
        self.assertIn(target, shown)

    def onTerminal(self, *arguments: str) -> str:
        """What a command writes to its terminal until it ends with 0."""
        ours, theirs = os.openpty()
        environment = self.environment | {"TERM": "xterm", "COLUMNS": "120"}
        process = subprocess.Popen(
            [SOCKETWARP, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        self.assertEqual(0, process.wait(60), shown)
        return shown.decode()


class Carriers(CliCase):
    """
    Which carrier a session uses.

    :cvar carrier: its name.
    """

    carrier = "quic"

    def test_the_carrier_is_shown_wherever_a_session_is(self) -> None:
        """In the logs of both ends too, which starting them waits for."""
        self.startBoth()
        self.assertEqual({self.carrier: 1}, self.json("status")["sessions"])
        self.assertIn(self.carrier, self.do("status")[0])
        for shown in (self.json("connectors")[0], json.loads(self.call("GET", "/v1/connectors/uid-1")[1])):
            self.assertEqual([self.carrier], [each["carrier"] for each in shown["sessions"]])
        self.assertRegex(self.do("connectors")[0], rf"uid-1 .* {self.carrier} ")
        self.assertIn(f"socketwarp/1 over {self.carrier}", self.do("connectors", "uid-1")[0])
        gauge = f'socketwarp_sessions{{carrier="{self.carrier}",protocol="socketwarp/1"}} 1.0'
        self.assertIn(gauge, self.call("GET", "/metrics")[1])
        watching = self.run_("watch", SOCKETWARP, "watch", "--since", "0", "--json")
        connected = json.loads(watching.waitFor('"connector.connected"'))
        self.assertEqual(self.carrier, connected["carrier"])
        watching.end(SIGINT)


class CarriersOverTls(OverTls, Carriers):
    """The same over TLS."""

    carrier = "tls"


class Access(CliCase):
    """An API that asks who calls."""

    def setUp(self) -> None:
        super().setUp()
        files = str(self.directory)
        Authority("Other CA").issue("stranger", eku=("client",)).write(files, "stranger")
        Authority("Other CA").server().write(files, "other")
        (self.directory / "ca.crt").rename(self.directory / "other-ca.crt")
        self.authority.server().write(files, "server")
        self.authority.issue("operator", eku=("client",)).write(files, "operator")
        self.environment |= {
            "APIS_CERT_PATH": "server.crt",
            "APIS_KEY_PATH": "server.key",
            "APIS_CLIENT_CA_PATH": "ca.crt",
            "APIS_TOKENS_FILE": "tokens.toml",
        }
        lines = ""
        for name, role in (("reader", "read"), ("boss", "operate")):
            lines += self.do("token", name, "--role", role, "--out", f"{name}.token")[0]
        (self.directory / "tokens.toml").write_text(lines)
        self.startListener()
        self.environment |= {
            "SOCKETWARP_URL": f"https://localhost:{self.api[1]}",
            "SOCKETWARP_CA": "ca.crt",
            "SOCKETWARP_CERT": "operator.crt",
            "SOCKETWARP_KEY": "operator.key",
        }

    def test_roles_are_those_of_the_tokens(self) -> None:
        port = str(freePort())
        opening = ("open", port, "uid-1", "127.0.0.1:1")
        self.do(*opening, "--token-file", "boss.token")
        self.assertEqual(1, len(self.json("list", "--token-file", "reader.token")))
        self.environment["SOCKETWARP_TOKEN_FILE"] = "reader.token"
        self.assertIn("forbidden", self.do("close", port, status=77)[1])
        self.do("--token-file", "boss.token", "close", port)

    def test_without_a_token_it_is_said_which_option_there_is(self) -> None:
        self.assertIn("--token-file", self.do("list", status=77)[1])

    def test_a_wrong_token_is_denied_in_words(self) -> None:
        (self.directory / "wrong.token").write_text("of-somebody-else")
        told = self.do("list", "--token-file", "wrong.token", status=77)[1]
        self.assertIn("(unauthenticated)", told)
        self.assertNotIn("of-somebody-else", told)

    def test_without_a_certificate_the_alert_is_said_in_words(self) -> None:
        for name in ("SOCKETWARP_CERT", "SOCKETWARP_KEY"):
            del self.environment[name]
        self.assertIn(
            "asks its callers for a certificate: give yours with --cert and --key", self.do("list", status=77)[1]
        )
        self.assertIn("asks its callers", self.do("watch", status=77)[1])

    def test_a_strangers_certificate_is_refused_in_words(self) -> None:
        told = self.do("list", "--cert", "stranger.crt", "--key", "stranger.key", status=77)[1]
        self.assertIn("doesn't know the CA that signed", told)

    def test_a_listener_of_another_ca_is_not_believed(self) -> None:
        self.assertIn("isn't believed", self.do("list", "--ca", "other-ca.crt", status=77)[1])
