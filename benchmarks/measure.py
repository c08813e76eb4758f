"""Which measures there are, and the figures that each takes from a tunnel that runs."""

from collections.abc import Callable

import attrs

from benchmarks import loads
from benchmarks.loads import Address, percentile
from benchmarks.stage import Stage


@attrs.frozen
class Effort:
    """
    How much is done.

    :ivar seconds: of each load.
    :ivar idle: connections.
    :ivar pause: seconds before each load.
    :ivar payload: bytes sent and compared each way before a tunnel is measured; they also warm it up.
    """

    seconds: float
    idle: int
    payload: int
    pause: float = 0.0


@attrs.frozen
class Subject:
    """A tunnel that runs, as measures see it."""

    stage: Stage
    entries: dict[str, Address]
    effort: Effort

    @property
    def main(self) -> Address:
        """Where visitors of the target's services connect."""
        return self.entries["main"]

    def cpu(self) -> float:
        """Seconds of CPU that both ends together have used."""
        return sum(process.cpuSeconds() for process in self.stage.processes)

    def memory(self) -> int:
        """Bytes that both ends together hold."""
        return sum(process.residentBytes() for process in self.stage.processes)


Figures = dict[str, float]


@attrs.frozen
class Measure:
    """
    A load, and the figures that come of it.

    :ivar title: for the report.
    :ivar networks: where it is measured; everywhere, if empty.
    :ivar fresh: it needs a tunnel that has done nothing before.
    :ivar tunnelOnly: without a tunnel it says nothing.
    """

    name: str
    title: str
    take: Callable[[Subject], Figures]
    networks: tuple[str, ...] = ()
    fresh: bool = False
    tunnelOnly: bool = False

    def measured(self, network: str, direct: bool) -> bool:
        """Whether it is taken there."""
        return (not self.networks or network in self.networks) and not (direct and self.tunnelOnly)


def transfers(subject: Subject, streams: int, prefix: str) -> Figures:
    """So many streams in, then out: bytes/s each; and the CPU seconds that both ends need for a byte."""
    figures: Figures = {}
    seconds = subject.effort.seconds
    before, moved = subject.cpu(), 0.0
    for name, transfer in (("in", loads.pour), ("out", loads.draw)):
        speed = loads.flow(transfer, subject.main, seconds, streams)
        figures[f"{prefix}.{name}"] = speed
        moved += speed * seconds
    if subject.stage.processes:
        figures[f"{prefix}.cpu"] = (subject.cpu() - before) / moved
    return figures


def stream(subject: Subject) -> Figures:
    """One stream each way."""
    return transfers(subject, 1, "stream")


def streams(subject: Subject) -> Figures:
    """Eight streams at a time, each way."""
    return transfers(subject, 8, "streams")


def connections(subject: Subject) -> Figures:
    """New connections/s; and the CPU seconds that both ends need for one."""
    before = subject.cpu()
    rate = loads.connections(subject.entries["quick"], subject.effort.seconds)
    figures = {"connections": rate}
    if subject.stage.processes:
        figures["connections.cpu"] = (subject.cpu() - before) / (rate * subject.effort.seconds)
    return figures


def roundTrips(subject: Subject) -> Figures:
    """One byte there and back, in seconds."""
    trips = loads.pingPong(subject.main, subject.effort.seconds / 2)
    return {"rtt.p50": percentile(trips, 50), "rtt.p99": percentile(trips, 99)}


def http(subject: Subject) -> Figures:
    """Requests/s of a web server that answers with 256 bytes."""
    if "http" not in subject.entries:
        return {}
    return {"http": loads.http(subject.entries["http"], subject.effort.seconds)}


def keystrokes(subject: Subject) -> Figures:
    """What somebody who types waits, in seconds, beside a bulk transfer through the same tunnel."""
    figures: Figures = {}
    seconds = subject.effort.seconds
    for name, transfer in (("in", loads.pour), ("out", loads.draw)):
        with loads.beside(transfer, subject.main, seconds):
            trips = loads.pingPong(subject.main, seconds * 0.8, loads.TYPING)
        figures[f"keystroke.{name}"] = percentile(trips, 99)
    return figures


def idle(subject: Subject) -> Figures:
    """Bytes that an idle connection holds at both ends together, and one stream's bytes/s beside all of them."""
    count, seconds = subject.effort.idle, subject.effort.seconds
    before = subject.memory()
    with loads.idle(subject.main, count):
        held = subject.memory() - before
        figures = {
            "idle.in": loads.flow(loads.pour, subject.main, seconds),
            "idle.out": loads.flow(loads.draw, subject.main, seconds),
        }
    if subject.stage.processes:
        figures["idle.memory"] = held / count
    return figures


MEASURES = (
    Measure("rtt", "round trips", roundTrips),
    Measure("stream", "one stream", stream),
    Measure("streams", "8 streams", streams, ("loopback", "veth", "delayed", "lossy")),
    Measure("connections", "new connections", connections, ("loopback", "veth", "delayed", "lossy")),
    Measure("http", "HTTP requests", http, ("loopback", "veth")),
    Measure(
        "keystroke", "keystrokes beside bulk", keystrokes, ("loopback", "veth", "shaped", "lossy"), tunnelOnly=True
    ),
    Measure("idle", "idle connections", idle, ("loopback", "veth"), fresh=True),
)
