"""Results as files: JSON for each network; of all of them a table in reStructuredText, and one on the terminal."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.figures import FIGURES, GOALS, medians, told
from benchmarks.measure import MEASURES
from benchmarks.networks import NETWORKS
from benchmarks.table import TUNNELS

TITLES = {each.name: each.title for each in TUNNELS}


@attrs.define
class Results:
    """
    What one run found on one network.

    :ivar when: the day.
    :ivar facts: of machine, programs and network, by name.
    :ivar samples: by tunnel and figure, one value for each round, in bytes, seconds and their quotients.
    :ivar failures: by tunnel and measure, what went wrong, each time.
    :ivar absent: by tunnel, why it wasn't measured.
    """

    network: str
    title: str
    when: str
    rounds: int
    seconds: float
    idle: int
    facts: dict[str, str] = attrs.field(factory=dict)
    samples: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    failures: dict[str, dict[str, list[str]]] = attrs.field(factory=dict)
    absent: dict[str, str] = attrs.field(factory=dict)

    def add(self, tunnel: str, figures: Mapping[str, float]) -> None:
        """Note the figures of one round."""
        for name, value in figures.items():
            self.samples.setdefault(tunnel, {}).setdefault(name, []).append(value)

    def fail(self, tunnel: str, measure: str, error: Exception) -> None:
        """Note what went wrong."""
        text = str(error) or type(error).__name__
        self.failures.setdefault(tunnel, {}).setdefault(measure, []).append(text)

    def write(self, directory: Path) -> None:
        """Save as JSON, four digits of each value."""
        directory.mkdir(parents=True, exist_ok=True)
        samples = {
            tunnel: {name: [float(f"{value:.4g}") for value in values] for name, values in figures.items()}
            for tunnel, figures in self.samples.items()
        }
        text = json.dumps({**attrs.asdict(self), "samples": samples}, indent=1, ensure_ascii=False)
        (directory / f"{self.network}.json").write_text(text + "\n")


def read(directory: Path) -> list[Results]:
    """All that were saved there, in the order of the networks."""
    paths = [directory / f"{each.name}.json" for each in NETWORKS]
    return [Results(**json.loads(path.read_text())) for path in paths if path.is_file()]


def machine() -> dict[str, str]:
    """What was measured on, and with which programs."""
    facts = {"kernel": platform.release(), "cores": str(len(os.sched_getaffinity(0)))}
    facts["load average before"] = f"{os.getloadavg()[0]:.1f}"
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    if models:
        facts["processor"] = models[0].partition(": ")[2]
    facts["Python"] = platform.python_version()
    for package in ("Twisted", "aioquic", "cryptography"):
        facts[package] = metadata.version(package)
    with contextlib.suppress(OSError, IndexError):  # not there
        said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10).stderr
        facts["OpenSSH"] = said.partition(",")[0].removeprefix("OpenSSH_").split()[0]
    return facts


def rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """The table's head and its rows: title, unit, and a cell for each tunnel."""
    found = medians(results.samples)
    there = {**found, **results.failures}
    columns = sorted(there, key=lambda name: list(TITLES).index(name) if name in TITLES else len(TITLES))
    head = ["", "", *(TITLES.get(name, name) for name in columns)]
    body = []
    for figure in FIGURES:
        values = [found.get(name, {}).get(figure.name) for name in columns]
        if any(value is not None for value in values):
            cells = ["" if value is None else told(value * figure.factor) for value in values]
            body.append([figure.title, figure.unit, *cells])
    return head, body


def goalRows(every: Sequence[Results]) -> list[list[str]]:
    """What was to be reached, and whether it is."""
    titles = {each.name: each.title for each in FIGURES}
    units = {each.name: each for each in FIGURES}
    body = []
    for results in every:
        found = medians(results.samples)
        for goal in GOALS:
            ratio = goal.ratio(found) if goal.network == results.network else None
            if ratio is not None:
                figure = units[goal.figure]
                value = f"{ratio:.2f} x" if goal.to else f"{told(ratio * figure.factor)} {figure.unit}"
                verdict = "yes" if goal.reached(ratio) else "no"
                where = [results.title, TITLES[goal.tunnel]]
                body.append([*where, titles[goal.figure], goal.wanted(), value, verdict])
    return body


GOAL_HEAD = ["network", "tunnel", "figure", "wanted", "measured", "reached"]


def notes(results: Results) -> list[str]:
    """What a reader has to know beside the figures."""
    facts = ", ".join(f"{name} {value}" for name, value in results.facts.items())
    said = [
        f"{results.when}; medians of {results.rounds} alternating rounds, {results.seconds:g} s each load; "
        f"{results.idle:,} idle connections. {facts}."
    ]
    if results.absent:
        gone = "; ".join(f"{TITLES.get(name, name)}: {reason}" for name, reason in results.absent.items())
        said.append(f"Not measured: {gone}.")
    if left := [each.title for each in MEASURES if not each.measured(results.network, direct=False)]:
        said.append(f"Not taken on this network: {', '.join(left)}.")
    for name, failures in results.failures.items():
        for measure, texts in failures.items():
            last = texts[0].splitlines()[-1].replace("`", "'").replace("*", "")
            said.append(f"Failed: {TITLES.get(name, name)}, {measure}: {last}")
    return said


def show(every: Sequence[Results], console: Console, withGoals: bool) -> None:
    """The tables on the terminal."""

    def table(title: str, head: list[str], body: list[list[str]], right: Callable[[int], bool]) -> None:
        shown = Table(title=title, title_justify="left")
        for number, name in enumerate(head):
            shown.add_column(name, justify="right" if right(number) else "left")
        for row in body:
            shown.add_row(*row)
        console.print(shown)

    for results in every:
        table(results.title, *rows(results), lambda number: number > 1)
        for note in notes(results):
            console.print(note, markup=False, highlight=False)
    if withGoals and (goals := goalRows(every)):
        table("Goals", GOAL_HEAD, goals, lambda number: number == 4)


def _listTable(head: list[str], body: list[list[str]]) -> list[str]:
    """A table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *body):
        lines += [f"   {'*' if not number else ' '} - {cell}".rstrip() for number, cell in enumerate(row)]
    return [*lines, ""]


def rst(every: Sequence[Results]) -> str:
    """All tables, to be included in the manual."""
    lines = [".. Written by python -m benchmarks; changes here are lost.", ""]
    for results in every:
        lines += [results.title, "~" * len(results.title), "", *_listTable(*rows(results))]
        for note in notes(results):
            lines += [note, ""]
    goals = goalRows(every)
    if goals:
        lines += ["Goals", "~~~~~", "", *_listTable(GOAL_HEAD, goals)]
    return "\n".join(lines).rstrip() + "\n"


def publish(directory: Path) -> None:
    """Make table and picture of all results that are saved in the directory."""
    from benchmarks.picture import draw  # matplotlib is slow to import

    every = read(directory)
    (directory / "table.rst").write_text(rst(every))
    draw(every, directory / "ratios.svg")
