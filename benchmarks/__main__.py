"""``python -m benchmarks``: choose what is measured, measure it, show it."""

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import click
from rich.console import Console

from benchmarks import report, tunnels
from benchmarks.measure import MEASURES, Effort, Measure
from benchmarks.networks import NETWORKS, ROOT, Network
from benchmarks.rounds import measureNetwork
from benchmarks.stage import Kind
from benchmarks.table import CARRIERS, DIRECT, TUNNELS

RESULTS = ROOT / "benchmarks" / "results"
#: Enough for each part to be gone through: seconds of a load, idle connections, bytes compared.
SMOKE = Effort(0.2, 20, 128 * 1024)
#: What a smoke run does on all networks but the first.
SMOKE_ELSEWHERE = ("rtt", "stream")


class Named(Protocol):
    """What can be chosen."""

    @property
    def name(self) -> str:
        """By this."""


_Named = TypeVar("_Named", bound=Named)


def choose(every: Sequence[_Named], names: str | None, option: str) -> list[_Named]:
    """Those that are named, with commas between; all, if none is."""
    wanted = names.split(",") if names else [each.name for each in every]
    unknown = set(wanted) - {each.name for each in every}
    if unknown:
        known = ", ".join(each.name for each in every)
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are: {known}", param_hint=option)
    return [each for each in every if each.name in wanted]


def checkouts(pair: str, chosen: Sequence[Kind]) -> Iterator[Kind]:
    """The tunnels of another checkout (its name, its directory), one for each of ours that it is to stand beside."""
    name, _, directory = pair.partition("=")
    if not (Path(directory) / "socketwarp").is_dir():
        raise click.BadParameter(f"{directory!r} holds no socketwarp", param_hint="--also")
    for ours in chosen:
        if carrier := CARRIERS.get(ours.name):
            title = ours.name.replace("socketwarp", name)
            path = str(Path(directory).absolute())
            yield Kind(title, title, partial(tunnels.socketwarp, PYTHONPATH=path, SWC_CARRIER=carrier))


def present(network: Network, kinds: Sequence[Kind], named: bool, absent: dict[str, str]) -> list[Kind]:
    """The tunnels to measure there; why others can't be is noted."""
    chosen = []
    for kind in kinds:
        if kind.networks and network.name not in kind.networks and not named:
            continue
        if reason := kind.missing():
            absent[kind.name] = reason
        else:
            chosen.append(kind)
    return chosen


def incomplete(results: report.Results, kinds: Sequence[Kind], measures: Sequence[Measure]) -> list[str]:
    """What a tunnel has failed in, or has no figure of."""
    gaps = [
        f"{name}: {measure}: {texts[0]}" for name, each in results.failures.items() for measure, texts in each.items()
    ]
    for kind in kinds:
        figures = results.samples.get(kind.name, {})
        for measure in measures:
            if measure.measured(results.network, kind == DIRECT) and not any(
                name.startswith(measure.name) for name in figures
            ):
                gaps.append(f"{kind.name}: no figures of {measure.name}")
    return gaps


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends as SIGINT does: everything that was started is ended."""
    raise KeyboardInterrupt


def prepare() -> bool:
    """Make the process ready for thousands of connections; whether there is a web server, and something to load it."""
    signal.signal(signal.SIGTERM, _end)
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # sshd, nginx and tc are there
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return bool(shutil.which("nginx") and shutil.which("wrk"))


@click.command()
@click.option("--network", help="Only these, with commas between: " + ", ".join(each.name for each in NETWORKS))
@click.option("--only", help="Only these tunnels: " + ", ".join(each.name for each in TUNNELS))
@click.option("--also", multiple=True, metavar="NAME=DIRECTORY", help="Another checkout beside each socketwarp.")
@click.option("--measure", help="Only these: " + ", ".join(each.name for each in MEASURES))
@click.option("--rounds", default=5, show_default=True, help="How often each is measured; medians are shown.")
@click.option("--seconds", type=float, help="How long each load lasts (unless given, by network).")
@click.option("--idle", default=1000, show_default=True, help="Idle connections.")
@click.option("--output", type=click.Path(path_type=Path), help="Where results go, also those of a part only.")
@click.option("--smoke", is_flag=True, help="Go through each part for a moment; only whether it works counts.")
def main(
    network: str | None,
    only: str | None,
    also: tuple[str, ...],
    measure: str | None,
    rounds: int,
    seconds: float | None,
    idle: int,
    output: Path | None,
    smoke: bool,
) -> None:
    """
    Measure tunnels side by side: direct TCP, ssh -R, socketwarp, and what else is on PATH.

    Results go to benchmarks/results, unless only some tunnels or measures are chosen.
    """
    networks = choose(NETWORKS, network, "--network")
    kinds = choose(TUNNELS, only, "--only")
    kinds += [each for pair in also for each in checkouts(pair, kinds)]
    measures = choose(MEASURES, measure, "--measure")
    web = prepare()
    if output is None and not (only or also or measure or smoke):
        output = RESULTS
    every, gaps = [], []
    for each in networks:
        if reason := each.missing():
            print(f"{each.title}: {reason}", file=sys.stderr)
            continue
        effort = SMOKE if smoke else Effort(seconds or each.seconds, idle, each.payload, each.pause)
        day = datetime.now(UTC).date().isoformat()
        count = 1 if smoke else rounds
        results = report.Results(each.name, each.title, day, count, effort.seconds, effort.idle, report.machine())
        chosen = present(each, kinds, only is not None, results.absent)
        taken = [one for one in measures if not smoke or each == networks[0] or one.name in SMOKE_ELSEWHERE]
        taken = [one for one in taken if web or one.name != "http"]
        measureNetwork(each, chosen, taken, effort, results, web)
        every.append(results)
        if output:
            results.write(output)
        gaps += incomplete(results, chosen, taken)
    report.show(every, Console(), withGoals=not smoke)
    if output:
        report.publish(output)
    if smoke:
        check(every, gaps)


def check(every: Sequence[report.Results], gaps: Sequence[str]) -> None:
    """What a smoke run has to show: all figures, and that they can be published."""
    with tempfile.TemporaryDirectory() as name:
        for results in every:
            results.write(Path(name))
        report.publish(Path(name))
    if gaps:
        raise click.ClickException("\n".join(gaps))
    print("Every part works.")


if __name__ == "__main__":
    main()
