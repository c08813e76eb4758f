"""The picture of ratios: how many times better than the reference each tunnel is, by figure and network."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the choice of a backend that needs no screen
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator

from benchmarks.figures import FIGURES, Medians, medians
from benchmarks.report import TITLES, Results

#: What others are compared with, the first of these that was measured.
REFERENCES = ("ssh", "aioquic")
#: Inches: a picture's width, what a bar adds to its height, and what a panel does; and what a viewer's own letters
#: may need beside those that the picture was measured with.
WIDTH, BAR, PANEL, MARGIN = 8.0, 0.14, 1.1, 0.1
#: Tunnels that have bars; each has the same colour in all panels, ours the two that everybody can tell apart.
_PLACES = [name for name in TITLES if name not in ("direct", "ssh")]
_COLOURS = matplotlib.color_sequences["tab10"]


def ratios(found: Medians, reference: str, tunnel: str) -> dict[str, float]:
    """By the figure's title; above 1 is better than the reference, whichever way is better."""
    ours, theirs, better = found[tunnel], found[reference], {}
    for figure in FIGURES:
        if ours.get(figure.name, 0) > 0 and theirs.get(figure.name, 0) > 0:
            ratio = ours[figure.name] / theirs[figure.name]
            better[figure.title] = ratio if figure.better == "higher" else 1 / ratio
    return better


def panel(axes: Axes, results: Results, reference: str, tunnels: Sequence[str]) -> None:
    """One network."""
    found = medians(results.samples)
    titles = [each.title for each in FIGURES if each.name in found[reference]]
    for number, tunnel in enumerate(tunnels):
        values = ratios(found, reference, tunnel)
        places = [
            index + (number + 0.5) / len(tunnels) * 0.8 - 0.4 for index, each in enumerate(titles) if each in values
        ]
        colour = _COLOURS[_PLACES.index(tunnel) % len(_COLOURS)]
        bars = axes.barh(
            places, [values[each] - 1 for each in titles if each in values], 0.8 / len(tunnels), 1, color=colour
        )
        bars.set_label(TITLES[tunnel])
        axes.bar_label(bars, [f"{values[each]:.2g}" for each in titles if each in values], fontsize=6, padding=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(titles)), titles, fontsize=7)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title(f"{results.title}: times better than {TITLES[reference]}", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", linewidth=0.2)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, loc="best")


def draw(every: Sequence[Results], path: Path) -> None:
    """All networks, one panel under the other; an SVG that is the same for the same results."""
    panels = []
    for results in every:
        reference = next((each for each in REFERENCES if each in results.samples), None)
        tunnels = [each for each in TITLES if each in results.samples and each not in (reference, "direct")]
        if reference and tunnels:
            panels.append((results, reference, tunnels))
    if not panels:
        return
    heights = [PANEL + BAR * len(results.samples[ref]) * max(2, len(t)) for results, ref, t in panels]
    matplotlib.rcParams.update({"svg.hashsalt": "socketwarp", "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(WIDTH, sum(heights)),
        height_ratios=heights,
        layout=ConstrainedLayoutEngine(w_pad=MARGIN),
        squeeze=False,
        sharex=True,
    )
    for each, place in zip(panels, axes[:, 0], strict=True):
        panel(place, *each)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
