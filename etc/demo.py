"""
The main job, on real processes: ``make demo``.

Every line that starts with ``$`` is a command as it was run, to be repeated by hand. All of it happens on this host, in
a directory that is removed at the end, on ports that were free. The exit status is 0 only if the bytes came back right
and every process ended as it should.
"""

import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PAYLOAD = 8 * 1024 * 1024
#: Seconds that a process may take to be ready, or to end.
PATIENCE = 30
NEW_CERTIFICATE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
LEAF = "-addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature"


class Failed(Exception):
    """The demonstration went wrong; the text says where."""


class Stage:
    """
    Where the demonstration happens.

    :ivar directory: holds everything that is made, and is every command's working directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # A proxy has no business with 127.0.0.1.
        self.environment = {**os.environ, "no_proxy": "*"}

    def run(self, command: str) -> str:
        """Run a command to its end, and return what it printed."""
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            shlex.split(command), cwd=self.directory, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise Failed(f"exit status {done.returncode}: {done.stderr.strip()}")
        if done.stdout:
            print(done.stdout.rstrip(), flush=True)
        return done.stdout

    def start(self, name: str, command: str, **variables: str) -> None:
        """Start a command that goes on running; its output goes to a log of that name."""
        prefix = "".join(f"{variable}={value} " for variable, value in variables.items())
        print(f"$ {prefix}{command} > {name}.log 2>&1 &", flush=True)
        with open(self.directory / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                shlex.split(command),
                cwd=self.directory,
                env={**self.environment, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def waitForPort(self, name: str, port: int) -> None:
        """Wait until the process accepts connections on the TCP port."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self.running[name].poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"the {name} doesn't listen on port {port}") from None
                time.sleep(0.1)

    def waitForLine(self, name: str, words: str) -> None:
        """Wait until the process says so in its log, and show the line."""
        log = self.directory / f"{name}.log"
        print(f"$ until grep {shlex.quote(words)} {log.name}; do sleep 0.1; done", flush=True)
        deadline = time.monotonic() + PATIENCE
        while not (lines := [line for line in log.read_text(errors="replace").splitlines() if words in line]):
            if self.running[name].poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the {name} never said {words!r}")
            time.sleep(0.1)
        print(lines[0], flush=True)

    def end(self, name: str) -> None:
        """Ask a process to end, as an init system does; it must do so with status 0."""
        process = self.running[name]
        print(f"$ kill {process.pid}   # the {name}", flush=True)
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
        if status:
            raise Failed(f"the {name} ended with status {status}")
        del self.running[name]

    def clear(self) -> None:
        """End what still runs, and show what it had to say."""
        for name, process in self.running.items():
            process.kill()
            process.wait()
            print(f"--- {name}.log\n{(self.directory / f'{name}.log').read_text(errors='replace')}", flush=True)


def freePort(kind: socket.SocketKind) -> int:
    """A port of 127.0.0.1 that nothing uses at the moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def step(text: str) -> None:
    """Say what comes next."""
    print(f"\n# {text}", flush=True)


def makeCertificates(stage: Stage) -> None:
    """A private CA, and what it signs for the two ends."""
    step("Certificates: a private CA, one for the listener's name, one for the connector called demo.")
    stage.run(f"{NEW_CERTIFICATE} -subj /CN=demo-CA -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt")
    for name, subject, usage in (
        ("listener", "localhost", "-addext subjectAltName=DNS:localhost -addext extendedKeyUsage=serverAuth"),
        ("connector", "demo", "-addext extendedKeyUsage=clientAuth"),
    ):
        stage.run(
            f"{NEW_CERTIFICATE} -CA ca.crt -CAkey ca.key -subj /CN={subject} {LEAF} {usage}"
            f" -keyout {name}.key -out {name}.crt"
        )


def startTarget(stage: Stage) -> int:
    """The service that visitors want: a web server with one file of random bytes. Returns its port."""
    step("A target: a web server that only listens on 127.0.0.1.")
    stage.run("mkdir site")
    stage.run(f"openssl rand -out site/payload {PAYLOAD}")
    port = freePort(socket.SOCK_STREAM)
    stage.start("target", f"{sys.executable} -m http.server --bind 127.0.0.1 --directory site {port}")
    stage.waitForPort("target", port)
    return port


def startEnds(stage: Stage) -> str:
    """Listener and connector. Returns the API's URL."""
    step("The listener. SWL_VERIFIER=local: who the CA has signed is known by the name in the certificate.")
    udp, api = freePort(socket.SOCK_DGRAM), freePort(socket.SOCK_STREAM)
    stage.start(
        "listener",
        f"{BIN}/twistd --nodaemon --pidfile= swlistener",
        SWL_CERT_PATH="listener.crt",
        SWL_KEY_PATH="listener.key",
        SWL_CA_PATH="ca.crt",
        SWL_VERIFIER="local",
        SWL_ADDRS="127.0.0.1",
        SWL_PORT=str(udp),
        SWL_STATE_DIR="state",
        APIS_ADDRS="127.0.0.1",
        APIS_PORT=str(api),
    )
    stage.waitForPort("listener", api)
    step("The connector. It needs no open port, only a way out to the listener's UDP port.")
    settings = {
        "client_cert_path": "connector.crt",
        "client_key_path": "connector.key",
        "ca_cert_path": "ca.crt",
        "server_name": "localhost",
        "service_port": udp,
    }
    print(f"$ echo {shlex.quote(json.dumps(settings))} > settings.json", flush=True)
    (stage.directory / "settings.json").write_text(json.dumps(settings))
    stage.start("connector", f"{BIN}/twistd --nodaemon --pidfile= swconnector", SWC_STATE_DIR="state")
    stage.waitForLine("listener", "connector demo connected")
    return f"http://127.0.0.1:{api}"


def call(method: str, url: str, body: dict[str, object]) -> str:
    """The command that calls the API."""
    data = shlex.quote(json.dumps(body))
    return (
        f"curl --silent --show-error --request {method} --header 'Content-Type: application/json' --data {data} {url}"
    )


def openPort(stage: Stage, api: str, target: int) -> int:
    """Ask the listener for an entry port that leads to the target. Returns the port."""
    step("A port of the listener that leads to the target, through the connector called demo.")
    entry = freePort(socket.SOCK_STREAM)
    wish: dict[str, object] = {
        "uid": "demo",
        "port": entry,
        "connect_address": "127.0.0.1",
        "connect_port": target,
    }
    answer = stage.run(call("POST", f"{api}/open", wish))
    if answer != "TcpListener created successfully!":
        raise Failed(f"the port can't be opened: {answer}")
    stage.run(f"curl --silent --show-error {api}/list")
    return entry


def fetch(stage: Stage, entry: int) -> None:
    """Get the file through the tunnel, and compare."""
    step(f"A visitor: {PAYLOAD} bytes through the tunnel, and what they were.")
    stage.run(f"curl --silent --show-error --fail --output visited http://127.0.0.1:{entry}/payload")
    stage.run("sha256sum site/payload visited")
    sent, received = (
        hashlib.sha256((stage.directory / name).read_bytes()).digest() for name in ("site/payload", "visited")
    )
    if sent != received:
        raise Failed("the bytes that came back are not those that were sent")


def main() -> int:
    """Show it; the exit status."""
    with tempfile.TemporaryDirectory(prefix="socketwarp-demo-") as name:
        stage = Stage(Path(name))
        print(f"$ cd {name}", flush=True)
        try:
            makeCertificates(stage)
            target = startTarget(stage)
            api = startEnds(stage)
            entry = openPort(stage, api, target)
            fetch(stage, entry)
            step("The port closes, and both ends stop.")
            stage.run(call("DELETE", f"{api}/close", {"port": entry}))
            stage.end("connector")
            stage.end("listener")
            stage.running.pop("target").kill()
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            print(f"\nFAILED: {error}", flush=True)
            return 1
        finally:
            stage.clear()
    print("\nThe bytes came back right.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
