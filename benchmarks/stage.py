"""Where a tunnel is started: the network, keys and certificates, the targets, and the processes of both ends."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.loads import Address
from benchmarks.networks import CLOSED, LOOPBACK, PUBLIC, Site
from benchmarks.processes import Process, freePort, run

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
        leaf = f"{new} -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE"
        leaf += " -addext keyUsage=critical,digitalSignature"
        names = f"subjectAltName=DNS:localhost,IP:{LOOPBACK},IP:{PUBLIC},IP:{CLOSED}"
        for command in (
            f"{new} -subj /CN=bench-CA -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt",
            f"{leaf} -subj /CN=localhost -addext {names} -addext extendedKeyUsage=serverAuth"
            " -keyout listener.key -out listener.crt",
            f"{leaf} -subj /CN={UID} -addext {names} -addext extendedKeyUsage=clientAuth"
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
    :ivar helpers: those that are only stopped.
    """

    site: Site
    kit: Kit
    targets: Targets
    directory: Path
    processes: list[Process] = attrs.field(factory=list)
    helpers: list[Process] = attrs.field(factory=list)

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
    A tunnel that can be measured.

    :ivar name: for the command line.
    :ivar title: for people.
    :ivar programs: names that have to be on PATH, or paths.
    :ivar networks: where it is measured unless it is asked for by name; all, if empty.
    """

    name: str
    title: str
    start: Start
    programs: tuple[str, ...] = ()
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
        for process in (*reversed(stage.processes), *stage.helpers):
            process.stop()
