"""
What the API answers, as far as tables show it: records with the names that the JSON has.

``/v1/openapi.json`` describes the whole; a test holds these against it. What a newer listener adds is passed over.
"""

from typing import Any, TypeVar

import attrs
import cattrs

from ..errors import EX_FAILED
from ._http import Failed

T = TypeVar("T")
_converter = cattrs.Converter()


@attrs.frozen
class PortLimits:
    """What a port may be used for; times in seconds, ``expires`` as POSIX time."""

    expires: float | None = None
    total: int | None = None
    at_once: int | None = None
    idle_seconds: float | None = None
    sources: list[str] = attrs.field(factory=list)


@attrs.frozen
class PortOptions:
    """What else a port does."""

    proxy_protocol: int | None = None


@attrs.frozen
class Port:
    """A port: the wish, and what has become of it."""

    port: int
    uid: str
    target_host: str
    target_port: int
    bind_address: str
    limits: PortLimits
    options: PortOptions
    state: str
    reason: str | None
    connections: int
    used: int


@attrs.frozen
class Closed:
    """A port that was closed, or would be."""

    port: int
    ended: int = 0
    connections: int = 0


@attrs.frozen
class Session:
    """A connector's session; ``rtt`` in seconds."""

    session: str
    peer: str
    protocol: str
    carrier: str
    since: str
    leaving: bool
    not_after: str
    connections: int
    bytes_in: int
    bytes_out: int
    rtt: float | None


@attrs.frozen
class Connector:
    """A connector that is here, or isn't let in until a time; older listeners don't say that."""

    uid: str
    ports: list[int]
    sessions: list[Session]
    denied_until: str | None = None


@attrs.frozen
class Dismissed:
    """A connector that was sent away, or would be."""

    uid: str
    sessions: int
    denied_seconds: float | None


@attrs.frozen
class Connection:
    """A visitor's connection."""

    id: str
    port: int
    uid: str
    peer: str
    target: str
    since: str
    bytes_in: int
    bytes_out: int


@attrs.frozen
class Connections:
    """The visitors, or the first of them."""

    total: int
    connections: list[Connection]


@attrs.frozen
class Probe:
    """How far a probe got; times in seconds."""

    outcome: str
    reason: str | None
    dialled: str | None
    session: str
    protocol: str
    stream_seconds: float | None
    dial_seconds: float | None
    byte_seconds: float | None
    received: str
    resolve_seconds: float | None = None
    connect_seconds: float | None = None


@attrs.frozen
class Step:
    """A question on a visitor's way."""

    end: str
    question: str
    allowed: bool | None
    rule: str


@attrs.frozen
class Explanation:
    """Whether a visitor would get through; `None`: nobody here knows."""

    allowed: bool | None
    target: str
    steps: list[Step]


@attrs.frozen
class Ready:
    """Whether every wished port is open."""

    ready: bool
    reasons: list[str]


def understood(value: Any, shape: type[T]) -> T:
    """
    Make a record of an answer (Any: JSON).

    :raises Failed: it isn't one.
    """
    try:
        return _converter.structure(value, shape)
    except (cattrs.BaseValidationError, TypeError, ValueError) as error:
        raise Failed(f"what the listener answers isn't understood: {error}; is it a newer one?", EX_FAILED) from None
