"""
Figures for Prometheus: events are counted as they happen, sessions and ports are asked when somebody looks.

A label is bounded by what is open: a port's series end with the port, a session's with the session.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .connectors import Connectors
from .events import Events, Field
from .ports import Ports

#: Bounds of the histogram of connections, seconds: from a request to a session of a day.
SECONDS_BOUNDS = (0.01, 0.1, 1, 10, 60, 600, 3600, 86400)


@attrs.define(eq=False)
class _PortCounts:
    """
    What has passed one port. Plain numbers, since each visitor changes them: a step of a `Counter` takes 1 µs.

    :ivar since: when counting began, POSIX seconds.
    """

    since: float
    accepted: int = 0
    bytesIn: float = 0
    bytesOut: float = 0


@attrs.define(eq=False)
class Metrics(Collector):
    """
    What ``/metrics`` shows.

    :ivar registry: of this listener alone, not prometheus_client's global one.
    """

    _events: Events
    _connectors: Connectors
    _ports: Ports
    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False)
    _refused: Counter = attrs.field(init=False)
    _seconds: Histogram = attrs.field(init=False)
    _since: float = attrs.field(init=False)
    _told: dict[str, int] = attrs.field(factory=dict, init=False)
    _counts: dict[Field, _PortCounts] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        registry = self.registry
        self._since = self._events.now()
        registry.register(self)
        self._refused = Counter(
            "socketwarp_connections_refused", "Visitors turned away", ["port", "code"], registry=registry
        )
        self._seconds = Histogram(
            "socketwarp_connection_seconds", "How long connections lasted", buckets=SECONDS_BOUNDS, registry=registry
        )
        registry.register(_Present(self._connectors, self._ports))
        ProcessCollector(registry=registry)  # processor time, memory, descriptors
        self._events.count(self._happened)

    def render(self, accept: str) -> tuple[bytes, str]:
        """
        All figures, and the media type they are in.

        :param accept: the reader's Accept header: Prometheus' text, or OpenMetrics.
        """
        encode, contentType = choose_encoder(accept)
        return encode(self.registry), contentType

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector: what has been counted here."""
        told = CounterMetricFamily("socketwarp_events", "Events by name", labels=["event"])
        for name, count in self._told.items():
            told.add_metric([name], count, self._since)
        accepted = CounterMetricFamily("socketwarp_connections", "Visitors carried", labels=["port"])
        carried = CounterMetricFamily(
            "socketwarp_connection_bytes",
            "Bytes of connections that have ended: in from visitors, out to them",
            labels=["port", "direction"],
        )
        for port, counts in self._counts.items():
            accepted.add_metric([str(port)], counts.accepted, counts.since)
            carried.add_metric([str(port), "in"], counts.bytesIn, counts.since)
            carried.add_metric([str(port), "out"], counts.bytesOut, counts.since)
        yield from (told, accepted, carried)

    def _happened(self, name: str, fields: Mapping[str, Field]) -> None:
        self._told[name] = self._told.get(name, 0) + 1
        match name:
            case "visitor.connected":
                self._countsOf(fields["port"]).accepted += 1
            case "visitor.ended":
                counts = self._countsOf(fields["port"])
                counts.bytesIn += _number(fields["bytes_in"])
                counts.bytesOut += _number(fields["bytes_out"])
                self._seconds.observe(_number(fields["seconds"]))
            case "visitor.refused":
                self._refused.labels(str(fields["port"]), str(fields["code"])).inc()
            case "port.closed":
                self._counts.pop(fields["port"], None)
                self._refused.remove_by_labels({"port": str(fields["port"])})

    def _countsOf(self, port: Field) -> _PortCounts:
        counts = self._counts.get(port)
        if counts is None:
            counts = self._counts[port] = _PortCounts(self._events.now())
        return counts


def _number(value: Field) -> float:
    assert isinstance(value, int | float)
    return value


@attrs.frozen(eq=False)
class _Present(Collector):
    """What there is at the moment somebody looks."""

    _connectors: Connectors
    _ports: Ports

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        build = GaugeMetricFamily("socketwarp_build_info", "1, with the version", labels=["version"])
        build.add_metric([version("socketwarp")], 1)
        yield build
        yield from self._sessions()
        yield from _ports(self._ports)

    def _sessions(self) -> Iterator[Metric]:
        labels = ["uid", "session"]
        sessions = GaugeMetricFamily("socketwarp_sessions", "Sessions of connectors", labels=["protocol", "carrier"])
        rtt = GaugeMetricFamily("socketwarp_session_rtt_seconds", "Smoothed round-trip time", labels=labels)
        mtu = GaugeMetricFamily("socketwarp_session_path_mtu_bytes", "Largest UDP payload in use", labels=labels)
        streams = GaugeMetricFamily("socketwarp_session_streams", "Streams that aren't over", labels=labels)
        lost = CounterMetricFamily("socketwarp_session_packets_lost", "Packets declared lost", labels=labels)
        carried = CounterMetricFamily(
            "socketwarp_session_bytes",
            "Stream bytes: in from the connector, out to it",
            labels=[*labels, "direction"],
        )
        kinds: dict[tuple[str, str], int] = {}
        for connector in self._connectors:
            session, figures = connector.session, connector.session.statistics()
            kind = (session.protocol, session.carrier)
            kinds[kind] = kinds.get(kind, 0) + 1
            named = [connector.uid, session.sessionId]
            if figures.rtt is not None:
                rtt.add_metric(named, figures.rtt)
            mtu.add_metric(named, figures.pathMtu)
            streams.add_metric(named, figures.streams)
            lost.add_metric(named, figures.packetsLost)
            carried.add_metric([*named, "in"], figures.bytesIn)
            carried.add_metric([*named, "out"], figures.bytesOut)
        for kind, count in kinds.items():
            sessions.add_metric(kind, count)
        yield from (sessions, rtt, mtu, streams, lost, carried)


def _ports(ports: Ports) -> Iterator[Metric]:
    paused = GaugeMetricFamily(
        "socketwarp_accepting_paused", "1 while no port accepts visitors, for want of descriptors or memory, else 0"
    )
    paused.add_metric([], int(bool(ports.pausedBy)))
    yield paused
    bound = GaugeMetricFamily("socketwarp_port_bound", "1 while visitors can come, else 0", labels=["port", "uid"])
    visitors = GaugeMetricFamily("socketwarp_port_connections", "Visitors who are here", labels=["port", "uid"])
    for entry in ports.entries():
        named = [str(entry.spec.port), entry.spec.uid]
        bound.add_metric(named, int(entry.isBound))
        visitors.add_metric(named, len(entry.visitors))
    yield from (bound, visitors)
