"""How the rounds go: each measure on each tunnel in turn, so that all of them meet the same noise."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, sleep

import attrs

from benchmarks import loads
from benchmarks.measure import Effort, Figures, Measure, Subject
from benchmarks.networks import LOOPBACK, ROOT, Network, Site
from benchmarks.processes import Failed, Process, freePort, until
from benchmarks.report import Results
from benchmarks.stage import Kind, Kit, Stage, Targets, running
from benchmarks.table import DIRECT

#: So often a measure may fail on a tunnel before it is given up there: each failure may take ``PATIENCE`` seconds.
CHANCES = 2
#: What a tunnel that doesn't work is seen by; anything else is a defect of the benchmark.
WRONG = (Failed, OSError, EOFError)
_NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; server {{
  listen {port}; location / {{ return 200 "{body}"; }} }} }}
"""


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
        """A tunnel that has carried its first byte; the seconds until then, and the bytes of memory that it holds."""
        begun = perf_counter()
        stage = Stage(self.site, self.kit, self.targets, Path(tempfile.mkdtemp(prefix=kind.name, dir=self.directory)))
        with running(kind, stage) as entries:

            def knock() -> bool | None:
                stage.check()
                return loads.knock(entries["main"])

            until(knock, f"the first byte through {kind.name}")
            subject = Subject(stage, entries, self.effort)
            figures = {"start": perf_counter() - begun, "rest": subject.memory()} if stage.processes else {}
            loads.verify(entries["main"], self.effort.payload)
            yield subject, figures

    def take(self, measure: Measure, kind: Kind, subject: Subject) -> Figures:
        """The figures of one measure in one round."""
        if not measure.fresh:
            subject.stage.check()
            return measure.take(subject)
        with self.start(kind) as (fresh, figures):
            return {**measure.take(fresh), **figures}

    def rounds(self, kinds: Sequence[Kind], measures: Sequence[Measure], results: Results) -> None:
        """All tunnels run all the time; each measure goes from one to the next, each round with another first."""
        with contextlib.ExitStack() as stack:
            subjects: dict[Kind, Subject] = {}
            for kind in kinds:
                try:
                    subjects[kind], figures = stack.enter_context(self.start(kind))
                    results.add(kind.name, figures)
                except WRONG as error:
                    results.fail(kind.name, "start", error)
            order = list(subjects)
            for number in range(results.rounds):
                say(f"  round {number + 1} of {results.rounds}")
                for measure in measures:
                    for kind in order:
                        self.turn(measure, kind, subjects[kind], results)
                order = order[1:] + order[:1]

    def turn(self, measure: Measure, kind: Kind, subject: Subject, results: Results) -> None:
        """One measure of one round, unless it isn't taken here or has failed too often."""
        failed = results.failures.get(kind.name, {}).get(measure.name, [])
        if not measure.measured(results.network, kind == DIRECT) or len(failed) >= CHANCES:
            return
        sleep(self.effort.pause)
        try:
            results.add(kind.name, self.take(measure, kind, subject))
        except WRONG as error:
            say(f"  {kind.name}: {measure.name}: {error}")
            results.fail(kind.name, measure.name, error)


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
    network: Network,
    kinds: Sequence[Kind],
    measures: Sequence[Measure],
    effort: Effort,
    results: Results,
    web: bool,
) -> None:
    """Set the network up, measure, and take it down again; say how long that took."""
    begun = perf_counter()
    say(f"{network.title}: {', '.join(each.name for each in kinds)}")
    with tempfile.TemporaryDirectory(prefix="socketwarp-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        kit = Kit(directory)
        kit.prepare()
        site = stack.enter_context(network.build(directory))
        results.facts.update(site.facts)
        ports = stack.enter_context(targets(site, directory, web))
        Bench(site, kit, ports, directory, effort).rounds(kinds, measures, results)
    say(f"{network.title}: {(perf_counter() - begun) / 60:.1f} minutes")


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)
