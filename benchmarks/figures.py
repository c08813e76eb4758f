"""What each figure is called, in which unit it is told, and which goals there are for it."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Literal

import attrs


@attrs.frozen
class Figure:
    """
    One row of the table.

    :ivar factor: from the unit in which it is measured (bytes, seconds, and their quotients) to the one told.
    """

    name: str
    title: str
    unit: str
    factor: float
    better: Literal["higher", "lower"]


FIGURES = (
    Figure("stream.in", "one stream in", "MB/s", 1e-6, "higher"),
    Figure("stream.out", "one stream out", "MB/s", 1e-6, "higher"),
    Figure("stream.cpu", "CPU of one stream", "s/GB", 1e9, "lower"),
    Figure("streams.in", "8 streams in", "MB/s", 1e-6, "higher"),
    Figure("streams.out", "8 streams out", "MB/s", 1e-6, "higher"),
    Figure("streams.cpu", "CPU of 8 streams", "s/GB", 1e9, "lower"),
    Figure("connections", "new connections", "1/s", 1, "higher"),
    Figure("connections.cpu", "CPU of a connection", "µs", 1e6, "lower"),
    Figure("http", "HTTP requests", "1/s", 1, "higher"),
    Figure("rtt.p50", "round trip, p50", "µs", 1e6, "lower"),
    Figure("rtt.p99", "round trip, p99", "µs", 1e6, "lower"),
    Figure("keystroke.in", "keystroke beside bulk in, p99", "ms", 1e3, "lower"),
    Figure("keystroke.out", "keystroke beside bulk out, p99", "ms", 1e3, "lower"),
    Figure("idle.in", "one stream in, beside idle", "MB/s", 1e-6, "higher"),
    Figure("idle.out", "one stream out, beside idle", "MB/s", 1e-6, "higher"),
    Figure("idle.memory", "memory of an idle connection", "kB", 1e-3, "lower"),
    Figure("rest", "memory at rest", "MB", 1e-6, "lower"),
    Figure("start", "start-up, to the first byte", "s", 1, "lower"),
)

#: Medians by tunnel and figure.
Medians = Mapping[str, Mapping[str, float]]


def medians(samples: Mapping[str, Mapping[str, list[float]]]) -> Medians:
    """Of all rounds."""
    return {tunnel: {name: median(each) for name, each in found.items()} for tunnel, found in samples.items()}


def told(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@attrs.frozen
class Goal:
    """
    What a tunnel's figure shall be: at least, or at most, so many times another one, or an absolute value.

    :ivar to: tunnel and figure that it is compared with (the same figure, if None); no tunnel: ``limit`` stands alone.
    :ivar tunnel: whose figure.
    """

    network: str
    figure: str
    better: Literal["higher", "lower"]
    limit: float
    to: tuple[str, str | None] | None = None
    tunnel: str = "socketwarp"

    def ratio(self, found: Medians) -> float | None:
        """The figure, divided by what it is compared with; None when either wasn't measured."""
        try:
            value = found[self.tunnel][self.figure]
            return value / found[self.to[0]][self.to[1] or self.figure] if self.to else value
        except KeyError:
            return None

    def reached(self, ratio: float) -> bool:
        """Whether that is enough."""
        return ratio >= self.limit if self.better == "higher" else ratio <= self.limit

    def wanted(self) -> str:
        """In words."""
        sign = "≥" if self.better == "higher" else "≤"
        figures = {each.name: each for each in FIGURES}
        if not self.to:
            figure = figures[self.figure]
            return f"{sign} {told(self.limit * figure.factor)} {figure.unit}"
        tunnel, other = self.to
        return f"{sign} {self.limit:g} x {figures[other].title if other else tunnel}"


_SSH = ("ssh", None)
#: 93 % of 100 Mbit/s, in bytes/s.
_LINK = 0.93 * 100e6 / 8


def _overTls(network: str) -> Iterator[Goal]:
    """Those of the TLS carrier."""
    tunnel = "socketwarp-tls"
    yield from (Goal(network, f"stream.{way}", "higher", 1.2, _SSH, tunnel) for way in ("in", "out"))
    yield from (Goal(network, f"streams.{way}", "higher", 1.5, _SSH, tunnel) for way in ("in", "out"))
    yield Goal(network, "connections", "higher", 1.0, _SSH, tunnel)
    yield Goal(network, "rtt.p50", "lower", 1.5, _SSH, tunnel)
    for way in ("in", "out"):
        yield Goal(network, f"idle.{way}", "higher", 0.9, (tunnel, f"stream.{way}"), tunnel)
    yield Goal(network, "idle.memory", "lower", 60e3, tunnel=tunnel)


GOALS = (
    *(Goal("loopback", f"stream.{way}", "higher", 1.1, _SSH) for way in ("in", "out")),
    *(Goal("loopback", f"streams.{way}", "higher", 1.0, _SSH) for way in ("in", "out")),
    *(Goal("veth", f"stream.{way}", "higher", 0.65, _SSH) for way in ("in", "out")),
    Goal("loopback", "connections", "higher", 0.75, _SSH),
    Goal("loopback", "connections.cpu", "lower", 500e-6),
    Goal("loopback", "rtt.p50", "lower", 2.2, _SSH),
    Goal("loopback", "rtt.p99", "lower", 2.5, _SSH),
    *(Goal("loopback", f"keystroke.{way}", "lower", 5e-3) for way in ("in", "out")),
    *(Goal("loopback", f"idle.{way}", "higher", 0.9, ("socketwarp", f"stream.{way}")) for way in ("in", "out")),
    Goal("loopback", "idle.memory", "lower", 20e3),
    Goal("loopback", "rest", "lower", 120e6),
    *(Goal("shaped", f"stream.{way}", "higher", _LINK) for way in ("in", "out")),
    *(Goal("lossy", f"stream.{way}", "higher", 3.0, ("aioquic", None)) for way in ("in", "out")),
    *(goal for network in ("loopback", "veth") for goal in _overTls(network)),
)
