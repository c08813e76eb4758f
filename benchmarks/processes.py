"""Processes that the benchmark starts: their memory, their CPU time, and their end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

#: Seconds that anything may take to be ready.
PATIENCE = 30.0
#: Seconds that a process may take to end when asked, before it is killed.
MERCY = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_issuedPorts: set[int] = set()
_Found = TypeVar("_Found")


class Failed(Exception):
    """A tunnel, or a part of the benchmark, didn't do its work; the text says which and how."""


def freePort(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nothing uses at the moment, and that wasn't given out before."""
    while True:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _issuedPorts:
            _issuedPorts.add(port)
            return port


def until(attempt: Callable[[], _Found | None], what: str, pause: float = 0.005) -> _Found:
    """Try again every few milliseconds, until the attempt finds something; at most ``PATIENCE`` seconds."""
    deadline = time.monotonic() + PATIENCE
    while (found := attempt()) is None:
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(pause)
    return found


def run(command: Sequence[str], directory: Path | None = None) -> str:
    """Run a command to its end; return what it printed."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Failed(f"{command[0]} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@attrs.frozen
class Process:
    """
    One program that runs, with the processes it has forked.

    :ivar log: the file that holds what it printed.
    """

    name: str
    log: Path
    popen: "subprocess.Popen[bytes]"

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        directory: Path,
        environment: dict[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> "Process":
        """Start it in the directory, in the network namespace of the calling thread; it inherits these descriptors."""
        log = directory / f"{name}.log"
        with open(log, "wb") as output:
            popen = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
            )
        return cls(name, log, popen)

    def check(self) -> None:
        """:raises Failed: when it has ended."""
        if (status := self.popen.poll()) is not None:
            raise Failed(f"{self.name} ended with status {status}: {self.lastWords()}")

    def lastWords(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").split("\n")[-5:]).strip()

    def tree(self) -> list[int]:
        """The ids of the process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := _stat(int(entry))):
                children.setdefault(int(fields[1]), []).append(int(entry))
        found = [self.popen.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def cpuSeconds(self) -> float:
        """User and system time of them all, and of those that have ended, in seconds."""
        return sum(sum(map(int, fields[11:15])) for pid in self.tree() if (fields := _stat(pid))) / _TICKS

    def residentBytes(self) -> int:
        """Memory that they hold, in bytes (pages that are shared count for each)."""
        return sum(int(fields[21]) for pid in self.tree() if (fields := _stat(pid))) * _PAGE

    def stop(self) -> None:
        """End it, and what it has forked."""
        family = self.tree()
        self.popen.terminate()
        try:
            self.popen.wait(MERCY)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in family[1:]:
            if _stat(pid):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc_pid_stat(5)), or none when the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
