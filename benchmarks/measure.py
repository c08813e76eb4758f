"""Which figures there are, and how the rounds go: each measure on each tunnel in turn, so that all meet the same noise."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import attrs

from benchmarks import loads
from benchmarks.loads import Address, percentile
from benchmarks.networks import LOOPBACK, ROOT, Network, Site
from benchmarks.processes import Failed, Process, freePort, until
from benchmarks.tunnels import DIRECT, Kind, Kit, Stage, Targets, running

#: Bytes sent and compared each way before a tunnel is measured; they also warm it up.
PAYLOAD = 8 * 1024 * 1024
_NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; server {{
  listen {port}; location / {{ return 200 "{body}"; }} }} }}
"""


@attrs.frozen
class Effort:
    """How much is done: seconds of each load, idle connections, bytes compared."""

    seconds: float
    idle: int = 1000
    payload: int = PAYLOAD


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

    :ivar networks: where it is measured; everywhere, if empty.
    :ivar fresh: it needs a tunnel that has done nothing before.
    :ivar tunnelOnly: without a tunnel it says nothing.
    """

    name: str
    take: Callable[[Subject], Figures]
    networks: tuple[str, ...] = ()
    fresh: bool = False
    tunnelOnly: bool = False


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
    Measure("stream", stream),
    Measure("streams", streams),
    Measure("connections", connections, ("loopback", "veth")),
    Measure("rtt", roundTrips),
    Measure("http", http, ("loopback", "veth")),
    Measure("keystroke", keystrokes, tunnelOnly=True),
    Measure("idle", idle, ("loopback", "veth"), fresh=True),
)


@attrs.define
class Results:
    """
    What one run found on one network.

    :ivar samples: by tunnel and figure, one value for each round, in bytes, seconds and their quotients.
    :ivar failures: by tunnel and measure, what went wrong, each text once.
    """

    facts: dict[str, str] = attrs.field(factory=dict)
    samples: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    failures: dict[str, dict[str, list[str]]] = attrs.field(factory=dict)

    def add(self, tunnel: str, figures: Figures) -> None:
        """Note the figures of one round."""
        for name, value in figures.items():
            self.samples.setdefault(tunnel, {}).setdefault(name, []).append(value)

    def fail(self, tunnel: str, measure: str, error: Exception) -> None:
        """Note what went wrong."""
        text = str(error) or type(error).__name__
        texts = self.failures.setdefault(tunnel, {}).setdefault(measure, [])
        if text not in texts:
            texts.append(text)
        print(f"  {tunnel}: {measure}: {text}", file=sys.stderr, flush=True)


@attrs.frozen
class Bench:
    """One network, its targets, and a directory for all that is made."""

    site: Site
    kit: Kit
    targets: Targets
    directory: Path
    effort: Effort

    @contextlib.contextmanager
    def start(self, kind: Kind) -> Iterator[tuple[Subject, Figures]]:
        """A tunnel that has carried its first byte, and the seconds until then."""
        begun = perf_counter()
        stage = Stage(self.site, self.kit, self.targets, Path(tempfile.mkdtemp(prefix=kind.name, dir=self.directory)))
        with running(kind, stage) as entries:

            def knock() -> bool | None:
                stage.check()
                return loads.knock(entries["main"])

            until(knock, f"the first byte through {kind.name}")
            figures = {"start": perf_counter() - begun} if stage.processes else {}
            loads.verify(entries["main"], self.effort.payload)
            yield Subject(stage, entries, self.effort), figures

    def take(self, measure: Measure, kind: Kind, subject: Subject) -> Figures:
        """The figures of one measure in one round."""
        if not measure.fresh:
            subject.stage.check()
            return measure.take(subject)
        with self.start(kind) as (fresh, figures):
            return {**measure.take(fresh), **figures}

    def rounds(self, kinds: Sequence[Kind], measures: Sequence[Measure], count: int, results: Results) -> None:
        """All tunnels run all the time; each measure goes from one to the next, each round with another first."""
        with contextlib.ExitStack() as stack:
            subjects: dict[Kind, Subject] = {}
            for kind in kinds:
                try:
                    subjects[kind], figures = stack.enter_context(self.start(kind))
                    results.add(kind.name, figures)
                except (Failed, OSError, EOFError) as error:
                    results.fail(kind.name, "start", error)
            order = list(subjects)
            for number in range(count):
                print(f"  round {number + 1} of {count}", file=sys.stderr, flush=True)
                for measure in measures:
                    for kind in order:
                        if measure.tunnelOnly and kind == DIRECT:
                            continue
                        try:
                            results.add(kind.name, self.take(measure, kind, subjects[kind]))
                        except (Failed, OSError, EOFError, TimeoutError) as error:
                            results.fail(kind.name, measure.name, error)
                order.append(order.pop(0))


@contextlib.contextmanager
def targets(site: Site, directory: Path, web: bool) -> Iterator[Targets]:
    """The target's processes on the closed side, and their ports."""
    ports = {"main": freePort(), "quick": freePort()}
    command = [sys.executable, "-m", "benchmarks.target", *map(str, ports.values())]
    with contextlib.ExitStack() as stack:
        with site.closed():
            process = Process.start("target", command, directory, {"PYTHONPATH": str(ROOT)})
            stack.callback(process.stop)
            if web:
                ports["http"] = freePort()
                configuration = directory / "nginx.conf"
                configuration.write_text(_NGINX.format(port=ports["http"], body="x" * 256))
                nginx = Process.start("nginx", ["nginx", "-p", str(directory), "-c", str(configuration)], directory)
                stack.callback(nginx.stop)
            until(lambda: loads.knock((LOOPBACK, ports["main"])), "the target")
        yield ports


def measureNetwork(
    network: Network, kinds: Sequence[Kind], measures: Sequence[Measure], effort: Effort, count: int, web: bool
) -> Results:
    """Set the network up, measure, and take it down again."""
    results = Results()
    chosen = [each for each in measures if not each.networks or network.name in each.networks]
    with tempfile.TemporaryDirectory(prefix="socketwarp-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        kit = Kit(directory)
        kit.prepare()
        site = stack.enter_context(network.build(directory))
        ports = stack.enter_context(targets(site, directory, web))
        Bench(site, kit, ports, directory, effort).rounds(kinds, chosen, count, results)
        results.facts.update(site.facts)
    return results
