"""
The table of what is measured, and how each is started.

A tunnel's start function gets a stage, starts processes on both sides, and says by which address visitors reach each
target. It need not wait: visitors knock until the first byte comes back.
"""

import http.client
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs

from benchmarks.loads import Address
from benchmarks.networks import CLOSED, LOOPBACK, PUBLIC, ROOT, Site
from benchmarks.processes import Failed, Process, freePort, run, until

#: What visitors want: the target's port, its quick port, the web server's.
Targets = dict[str, int]
UID = "bench"


@attrs.frozen
class Kit:
    """Keys and certificates, made once for all tunnels of a run."""

    directory: Path

    def prepare(self) -> None:
        """A CA, and what it signs for the two ends; and keys for ssh."""
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        leaf = "-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature"
        names = f"subjectAltName=DNS:localhost,IP:{LOOPBACK},IP:{PUBLIC},IP:{CLOSED}"
        for command in (
            f"{new} -subj /CN=bench-CA -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt",
            f"{new} {leaf} -subj /CN=localhost -addext {names} -addext extendedKeyUsage=serverAuth"
            " -keyout listener.key -out listener.crt",
            f"{new} {leaf} -subj /CN={UID} -addext {names} -addext extendedKeyUsage=clientAuth"
            " -keyout connector.key -out connector.crt",
        ):
            run(command.split(), self.directory)
        if shutil.which("ssh-keygen"):
            for name in ("host", "user"):
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name)])

    def path(self, name: str) -> str:
        """Where one of its files is."""
        return str(self.directory / name)


@attrs.frozen
class Stage:
    """
    Where one tunnel is started.

    :ivar directory: its own, empty.
    :ivar processes: those of both ends, to be measured and stopped.
    """

    site: Site
    kit: Kit
    targets: Targets
    directory: Path
    processes: list[Process] = attrs.field(factory=list)

    def public(self, name: str, *command: str, **environment: str) -> Process:
        """Start a process on the public side."""
        process = Process.start(name, command, self.directory, environment)
        self.processes.append(process)
        return process

    def closed(self, name: str, *command: str, **environment: str) -> Process:
        """Start a process on the closed side."""
        with self.site.closed():
            return self.public(name, *command, **environment)

    def write(self, name: str, content: object) -> str:
        """Write a file, as JSON if it isn't text; its path."""
        path = self.directory / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def entries(self) -> dict[str, Address]:
        """A free port for each target, as visitors see it."""
        return {purpose: (LOOPBACK, freePort()) for purpose in self.targets}

    def check(self) -> None:
        """:raises Failed: when one of the processes has ended."""
        for process in self.processes:
            process.check()


Start = Callable[[Stage], dict[str, Address]]


@attrs.frozen
class Kind:
    """
    An entry of the table.

    :ivar programs: names that have to be on PATH, or paths.
    :ivar udp: it can be carried by UDP alone.
    :ivar networks: where it is measured unless it is asked for by name; all, if empty.
    """

    name: str
    start: Start
    programs: tuple[str, ...] = ()
    udp: bool = False
    networks: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Which program isn't there."""
        return next((f"{name} not found" for name in self.programs if not shutil.which(name)), None)


@contextmanager
def running(kind: Kind, stage: Stage) -> Iterator[dict[str, Address]]:
    """The tunnel's processes, and the addresses of its entry ports; the processes end with it."""
    try:
        yield kind.start(stage)
    finally:
        for process in reversed(stage.processes):
            process.stop()


def direct(stage: Stage) -> dict[str, Address]:
    """No tunnel."""
    return {purpose: (stage.site.closedHost, port) for purpose, port in stage.targets.items()}


def ssh(stage: Stage) -> dict[str, Address]:
    """``ssh -R`` with its defaults, to an sshd of its own."""
    Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd doesn't start without it; empty, and gone at the next boot
    port, entries = freePort(), stage.entries()
    configuration = stage.write(
        "sshd_config",
        f"Port {port}\nHostKey {stage.kit.path('host')}\nAuthorizedKeysFile {stage.kit.path('user.pub')}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nUseDNS no\nPasswordAuthentication no\n",
    )
    stage.public("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", configuration)
    until(lambda: _listens(stage, stage.site.publicHost, port), "sshd")
    options = "-F none -N -T -o ExitOnForwardFailure=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    forwards = [
        word
        for purpose, (host, entry) in entries.items()
        for word in ("-R", f"{host}:{entry}:{LOOPBACK}:{stage.targets[purpose]}")
    ]
    stage.closed("ssh", "ssh", *options.split(), "-i", stage.kit.path("user"), "-p", str(port), *forwards, stage.site.publicHost)
    return entries


def _listens(stage: Stage, host: str, port: int) -> bool | None:
    """Whether somebody accepts TCP connections there; else None."""
    import socket

    stage.check()
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return None


def _open(stage: Stage, api: int, wish: dict[str, object]) -> bool | None:
    """Ask the listener for an entry port; None when the connector, or the listener itself, isn't there yet."""
    stage.check()
    connection = http.client.HTTPConnection(LOOPBACK, api, timeout=5)
    try:
        connection.request("POST", "/open", json.dumps(wish), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    if answer.status == 200:
        return True
    if "No QUIC connection" in said:
        return None
    raise Failed(f"/open: {answer.status} {said}")


def socketwarp(
    stage: Stage,
    listener: tuple[str, ...] = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "swlistener"),
    connector: tuple[str, ...] = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "swconnector"),
    **environment: str,
) -> dict[str, Address]:
    """Listener and connector by their defaults, but for these variables."""
    udp, api, entries = freePort(), freePort(), stage.entries()
    settings = {
        "client_cert_path": stage.kit.path("connector.crt"),
        "client_key_path": stage.kit.path("connector.key"),
        "ca_cert_path": stage.kit.path("ca.crt"),
        "server_name": stage.site.publicHost,
        "service_port": stage.site.udpPort(udp),
    }
    stage.write("settings.json", settings)
    variables = {
        "SWL_CERT_PATH": stage.kit.path("listener.crt"),
        "SWL_KEY_PATH": stage.kit.path("listener.key"),
        "SWL_CA_PATH": stage.kit.path("ca.crt"),
        "SWL_VERIFIER": "local",
        "SWL_PORT": str(udp),
        "SWL_STATE_DIR": str(stage.directory / "state"),
        "APIS_ADDRS": LOOPBACK,
        "APIS_PORT": str(api),
        **environment,
    }
    stage.public("listener", *listener, **variables)
    until(lambda: _listens(stage, LOOPBACK, api), "the listener's API")
    stage.closed("connector", *connector, **environment)
    for purpose, (_, entry) in entries.items():
        wish = {"uid": UID, "port": entry, "connect_address": LOOPBACK, "connect_port": stage.targets[purpose]}
        until(partial(_open, stage, api, wish), "the connector")
    return entries


DIRECT = Kind("direct", direct)
TUNNELS = (
    DIRECT,
    Kind("ssh", ssh, ("/usr/sbin/sshd", "ssh")),
    Kind("socketwarp", socketwarp, udp=True),
)
