"""Both plugins under twistd and twist, from a directory of their own: exit statuses, and what is on stderr."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.certs import Authority

BIN = Path(sys.executable).parent
RUNNERS: Sequence[Sequence[str]] = (
    (str(BIN / "twistd"), "-n"),
    (str(BIN / "twist"), "--log-format=text"),
)
#: Seconds until a process that hangs fails its test.
PATIENCE = 60


class ProcessTests(TestCase):
    """Blocking: there is nothing else for the reactor to do."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        authority = Authority()
        authority.server().write(str(self.directory), "server")
        authority.issue("uid-1").write(str(self.directory), "client")
        self.settings: dict[str, object] = {
            "client_cert_path": "client.crt",
            "client_key_path": "client.key",
            "ca_cert_path": "ca.crt",
            "server_name": "localhost",
            "service_port": 1,
        }
        self.environment = {
            **os.environ,
            "SWL_CERT_PATH": "server.crt",
            "SWL_KEY_PATH": "server.key",
            "SWL_CA_PATH": "ca.crt",
            "SWL_ADDRS": "127.0.0.1",
            "SWL_PORT": "0",
            "SWL_VERIFIER": "local",
            "SWL_STATE_DIR": str(self.directory / "state"),
            "APIS_PORT": "0",
        }

    def start(self, runner: Sequence[str], plugin: str, *flags: str) -> "subprocess.Popen[str]":
        (self.directory / "settings.json").write_text(json.dumps(self.settings))
        process = subprocess.Popen(
            [*runner, plugin, *flags],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def failure(self, runner: Sequence[str], plugin: str, *flags: str) -> tuple[int, str]:
        """Status and stderr of a process that can't start. It leaves no pid file behind."""
        process = self.start(runner, plugin, *flags)
        _, stderr = process.communicate(timeout=PATIENCE)
        self.assertEqual(list(self.directory.glob("*.pid")), [])
        return process.returncode, stderr

    def terminated(self, runner: Sequence[str], plugin: str, sign: str) -> tuple[int, str]:
        """Status and stderr of a process that gets SIGTERM once `sign` is in its log."""
        process = self.start(runner, plugin)
        assert process.stdout is not None
        for line in process.stdout:
            if sign in line:
                break
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stderr

    @contextmanager
    def occupied(self, kind: socket.SocketKind) -> Iterator[str]:
        """A port that somebody else has."""
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            yield str(holder.getsockname()[1])

    def test_badSettings(self) -> None:
        """One line that names the setting, and status 78."""
        for runner in RUNNERS:
            status, stderr = self.failure(runner, "swlistener", "--port", "65536")
            self.assertEqual(
                (status, stderr), (78, "swlistener: --port: '65536' is not a port number from 0 to 65535\n")
            )
        self.settings["service_prot"] = 1
        for runner in RUNNERS:
            status, stderr = self.failure(runner, "swconnector")
            self.assertEqual((status, stderr.count("\n")), (78, 1))
            self.assertIn("'service_prot' is no setting", stderr)

    def test_badFiles(self) -> None:
        """Missing, or not what they should be."""
        self.settings["ca_cert_path"] = "nowhere.crt"
        self.environment["SWL_KEY_PATH"] = "client.key"
        for runner in RUNNERS:
            for plugin, words in (("swlistener", "client.key"), ("swconnector", "nowhere.crt")):
                status, stderr = self.failure(runner, plugin)
                self.assertEqual((status, stderr.count("\n")), (78, 1), stderr)
                self.assertIn(words, stderr)

    def test_occupiedPorts(self) -> None:
        """QUIC's or the API's: one line that names it, and status 69."""
        for runner in RUNNERS:
            for variable, kind in (("SWL_PORT", socket.SOCK_DGRAM), ("APIS_PORT", socket.SOCK_STREAM)):
                with self.occupied(kind) as port:
                    before, self.environment[variable] = self.environment[variable], port
                    status, stderr = self.failure(runner, "swlistener")
                    self.environment[variable] = before
                self.assertEqual((status, stderr.count("\n")), (69, 1), stderr)
                self.assertIn(port, stderr)

    def test_sigterm(self) -> None:
        """Ends either process with status 0 and nothing on stderr, also while there is no listener to connect to."""
        for runner in RUNNERS:
            self.assertEqual(self.terminated(runner, "swlistener", "listening for connectors"), (0, ""))
            self.assertEqual(self.terminated(runner, "swconnector", "next attempt"), (0, ""))

    def test_logLevels(self) -> None:
        """What is less important than the level isn't there."""
        process = self.start(RUNNERS[0], "swlistener", "--log-level", "nonsense")
        self.assertIn("one of error, warn, info, debug", process.communicate(timeout=PATIENCE)[1])
        self.environment["SWC_LOG_LEVEL"] = "warn"
        process = self.start(RUNNERS[0], "swconnector")
        assert process.stdout is not None
        self.assertIn("next attempt", process.stdout.readline())
        process.terminate()
        process.communicate(timeout=PATIENCE)

    def test_check(self) -> None:
        """Prints the settings and opens nothing."""
        for runner in RUNNERS:
            process = self.start(runner, "swconnector", "--check")
            stdout, _ = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 0)
            self.assertIn(f"server_name=localhost  ({self.directory}/settings.json)\n", stdout)
