"""``python -m benchmarks``: choose what is measured, measure it, report it."""

import resource
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from benchmarks import report
from benchmarks.measure import MEASURES, Effort, measureNetwork
from benchmarks.networks import NETWORKS, ROOT
from benchmarks.tunnels import TUNNELS

RESULTS = ROOT / "benchmarks" / "results"
ROUNDS = 5


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends as SIGINT does: everything that was started is ended."""
    raise KeyboardInterrupt


def main() -> None:
    """Placeholder."""


@click.command()
@click.option("--network", "networks", default="", help="Only these: " + ", ".join(each.name for each in NETWORKS))
@click.option("--only", default="", help="Only these tunnels: " + ", ".join(each.name for each in TUNNELS))
@click.option("--measure", "measures", default="", help="Only these: " + ", ".join(each.name for each in MEASURES))
@click.option("--rounds", default=ROUNDS, help="How often each is measured; medians are reported.")
@click.option("--seconds", type=float, help="How long each load lasts (by network, unless given).")
@click.option("--idle", default=1000, help="Idle connections.")
def bench(networks: str, only: str, measures: str, rounds: int, seconds: float | None, idle: int) -> None:
    signal.signal(signal.SIGTERM, _end)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    web = bool(shutil.which("nginx") and shutil.which("wrk"))
    for network in NETWORKS:
        if networks and network.name not in networks.split(","):
            continue
        kinds = [k for k in TUNNELS if not k.missing() and (k.name in only.split(",") if only else True)]
        if network.udpOnly:
            kinds = [k for k in kinds if k.udp]
        chosen = [m for m in MEASURES if not measures or m.name in measures.split(",")]
        print(network.name, file=sys.stderr)
        results = measureNetwork(network, kinds, chosen, Effort(seconds or network.seconds, idle), rounds, web)
        print(report.text(results))


if __name__ == "__main__":
    bench()
