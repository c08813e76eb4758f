"""
Processes as an operator starts them, in a directory with certificates and settings of its own.

What a test waits for is a line that a process prints, a connection, or the end of a process; each has the deadline
`PATIENCE`, which fails the test and measures nothing. A test that fails shows what its processes have printed.
"""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGTERM
from threading import Condition, Thread
from typing import IO, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certs import Authority, keyPem, writeFile

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
#: What runs a plugin.
TWISTD = (str(BIN / "twistd"), "-n")
TWIST = (str(BIN / "twist"), "--log-format=text")
#: Seconds after which what hangs fails its test.
PATIENCE = 60.0
#: Entry ports are taken from here: below the ports that systems give to outgoing connections.
PORTS = range(20000, 32000)

Address = tuple[str, int]


class Process:
    """
    A process that runs, and what it prints.

    :ivar name: what messages call it.
    :ivar stderr: lines on standard error so far; ``lines``: on both, as they came.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.lines: list[str] = []
        self.stderr: list[str] = []
        self._seen = 0
        self._openPipes = 2
        self._changed = Condition()
        self._popen = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None and self._popen.stderr is not None
        pipes = ((self._popen.stdout, [self.lines]), (self._popen.stderr, [self.lines, self.stderr]))
        self._readers = [Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def _read(self, pipe: IO[str], kept: list[list[str]]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    for lines in kept:
                        lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._openPipes -= 1
            self._changed.notify_all()

    def waitFor(self, *signs: str) -> str:
        """The next line, after the one that the last call gave, with all the signs in it."""
        found: list[str] = []

        def isDecided() -> bool:
            found.extend(self._next(signs))
            return bool(found) or not self._openPipes

        with self._changed:
            self._changed.wait_for(isDecided, PATIENCE)
        if not found:
            raise AssertionError(f"{self.name} never said {signs}")
        return found[0]

    def _next(self, signs: Sequence[str]) -> list[str]:
        while self._seen < len(self.lines):
            line = self.lines[self._seen]
            self._seen += 1
            if all(sign in line for sign in signs):
                return [line]
        return []

    def wait(self) -> int:
        """The exit status, once the process has ended and all that it printed is here."""
        status = self._popen.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def send(self, signum: int = SIGTERM) -> None:
        """Send a signal."""
        self._popen.send_signal(signum)

    def end(self, signum: int = SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.send(signum)
        return self.wait()

    def clear(self) -> None:
        """End it, whatever it is doing, if it still runs."""
        self._popen.kill()
        self.wait()


class ProcessCase(SynchronousTestCase):
    """
    Tests of processes.

    :ivar directory: theirs, with ``server.crt``, ``client.crt``, ``ca.crt`` and the keys in it.
    :ivar authority: signed both certificates; the client's uid is ``uid-1``.
    :ivar environment: of every process started from now on; ``settings``: the connector's settings.json.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Authority()
        self.authority.server().write(str(self.directory), "server")
        self.authority.issue("uid-1").write(str(self.directory), "client")
        self.settings: dict[str, object] = {
            "client_cert_path": "client.crt",
            "client_key_path": "client.key",
            "ca_cert_path": "ca.crt",
            "server_name": "localhost",
            "service_port": 1,
        }
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("SWL_", "SWC_", "APIS_"))}
        self.environment = {
            **inherited,
            "no_proxy": "*",
            "SWL_CERT_PATH": "server.crt",
            "SWL_KEY_PATH": "server.key",
            "SWL_CA_PATH": "ca.crt",
            "SWL_ADDRS": "127.0.0.1",
            "SWL_PORT": "0",
            "SWL_VERIFIER": "local",
            "SWL_STATE_DIR": "state",
            "SWC_STATE_DIR": "connector-state",
            "APIS_PORT": "0",
            "SWC_BACKOFF_BASE_SECONDS": "0.2",
            "SWC_BACKOFF_CAP_SECONDS": "1",
        }

    def run(self, result: Any = None) -> Any:  # Any: trial and unittest declare different ones
        """Run the test, and show what the processes have printed when it fails."""
        self.processes: list[Process] = []
        for name in ("setUp", self._testMethodName):
            setattr(self, name, self._showing(getattr(self, name)))
        return super().run(result)

    def _showing(self, method: Callable[[], None]) -> Callable[[], None]:
        """A part of the test that shows the processes' last words when it fails."""

        @wraps(method)
        def shown() -> None:
            try:
                method()
            except BaseException:
                for process in self.processes:
                    print(f"\n--- {process.name}\n{''.join(process.lines)}", end="", flush=True)
                raise

        return shown

    def run_(self, name: str, *command: str) -> Process:
        """Start a command. It is ended with the test."""
        process = Process(name, command, self.directory, self.environment)
        self.processes.append(process)
        self.addCleanup(process.clear)
        return process

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        """Start an end."""
        if plugin == "swconnector":
            (self.directory / "settings.json").write_text(json.dumps(self.settings))
        return self.run_(plugin, *runner, plugin, *flags)


class TunnelCase(ProcessCase):
    """
    Tests of a listener and a connector that find each other.

    :ivar listener: the listener last started; ``connector``: the connector.
    :ivar api: where the listener's API is.
    """

    def startListener(self) -> Process:
        """Start a listener, and have its API and its connectors' port known from then on; both survive a restart."""
        self.listener = self.start("swlistener")
        words = self.listener.waitFor("listening for connectors at").split()
        udp, api = words[-4].rstrip(","), words[-1]
        self.settings["service_port"] = int(udp.rpartition(":")[2])
        self.api = ("127.0.0.1", int(api.rpartition(":")[2]))
        self.environment |= {"SWL_PORT": str(self.settings["service_port"]), "APIS_PORT": str(self.api[1])}
        return self.listener

    def startConnector(self) -> Process:
        """Start a connector, which need not be let in."""
        self.connector = self.start("swconnector")
        return self.connector

    def startBoth(self) -> None:
        """A listener and a connector that it knows."""
        self.startListener()
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected")

    def call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Call the API, with JSON unless the body is text; status and answer."""
        text = body if isinstance(body, str | None) else json.dumps(body)
        connection = HTTPConnection(*self.api, timeout=PATIENCE)
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def openPort(self, target: Address, uid: str = "uid-1") -> int:
        """Open an entry port that leads to the target."""
        port = freePort()
        body = {"uid": uid, "port": port, "connect_address": target[0], "connect_port": target[1]}
        self.assertEqual((200, "TcpListener created successfully!"), self.call("POST", "/open", body))
        return port

    def listen(self, host: str = "127.0.0.1") -> socket.socket:
        """A target's socket; who is dialled there is accepted by the test."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host, 0), family=family, backlog=256)
        server.settimeout(PATIENCE)
        self.addCleanup(server.close)
        return server

    def entrance(self, server: socket.socket, name: str = "") -> int:
        """An entry port that leads to a target's socket, by its address unless a name is given."""
        host, port = server.getsockname()[:2]
        return self.openPort((name or host, port))

    def visit(self, port: int) -> socket.socket:
        """A visitor's connection."""
        return self.kept(socket.create_connection(("127.0.0.1", port), PATIENCE))

    def accept(self, server: socket.socket) -> socket.socket:
        """The target's end of the next visitor's connection."""
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE)
        return self.kept(accepted)

    def kept(self, connection: socket.socket) -> socket.socket:
        """The connection, which is closed with the test."""
        self.addCleanup(connection.close)
        return connection

    def pair(self, server: socket.socket, port: int) -> tuple[socket.socket, socket.socket]:
        """A visitor and the target's end of its connection, after some bytes both ways."""
        visitor = self.visit(port)
        visitor.sendall(b"hello")
        target = self.accept(server)
        self.assertEqual(b"hello", receive(target, 5))
        target.sendall(b"world")
        self.assertEqual(b"world", receive(visitor, 5))
        return visitor, target

    def assertEcho(self, server: socket.socket, port: int) -> None:
        """Bytes go to the target and come back."""
        for connection in self.pair(server, port):
            connection.close()

    def assertEnds(self, *processes: Process) -> None:
        """SIGTERM ends each of them with status 0, and nothing was on standard error."""
        for process in processes:
            self.assertEqual((0, []), (process.end(), process.stderr), process.name)


class OverTls(TunnelCase):
    """Mixed into a case, it runs the same tests where sessions go over TLS, and proves that they did."""

    def start(self, plugin: str, *flags: str, runner: Sequence[str] = TWISTD) -> Process:
        """Start an end."""
        self.settings["carrier"] = "tls"
        return super().start(plugin, *flags, runner=runner)

    def tearDown(self) -> None:
        """No session went over anything else."""
        super().tearDown()
        said = [line for process in self.processes for line in process.lines if "over quic" in line]
        self.assertEqual([], said)


class ScepCase(TunnelCase):
    """
    Tests of a listener that asks a SCEP server, whose authority is the tests' and who knows ``uid-1``.

    :ivar scep: the server.
    """

    def setUp(self) -> None:
        super().setUp()
        writeFile(str(self.directory), "ca.key", keyPem(self.authority.key))
        self.environment["PYTHONPATH"] = str(ROOT)
        command = (sys.executable, "-m", "tests.scepserver", "--port", "0", "--ca", "ca.crt", "--client", "uid-1")
        self.scep = self.run_("scepserver", *command)
        url = self.scep.waitFor("SCEP server on").split()[-1]
        self.environment |= {"SWL_VERIFIER": "scep", "SWL_SCEP_URL": f"{url}/api/cert/verify"}
        self._scepAddress = url.removeprefix("http://")

    def tell(self, path: str, **body: str) -> None:
        """An administrator's call to the SCEP server, or one that changes how it behaves."""
        connection = HTTPConnection(self._scepAddress, timeout=PATIENCE)
        connection.request("POST", path, json.dumps(body))
        self.assertEqual(200, connection.getresponse().status)
        connection.close()


def freePort() -> int:
    """A TCP port that nothing uses at the moment, and that the system gives to nobody who doesn't ask for it."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or what came before FIN."""
    received = bytearray()
    while len(received) < size and (piece := connection.recv(size - len(received))):
        received += piece
    return bytes(received)


def readToEnd(connection: socket.socket) -> bytes | str:
    """Everything up to FIN, or ``reset``."""
    received = bytearray()
    try:
        while piece := connection.recv(1 << 20):
            received += piece
    except ConnectionResetError:
        return "reset"
    return bytes(received)


def reset(connection: socket.socket) -> None:
    """RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
