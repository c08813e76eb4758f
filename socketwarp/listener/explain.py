"""Would this visitor get through this port? Every question that is asked on its way, and what decides it."""

from collections.abc import Iterator, Sequence

import attrs

from ..rules.policy import RateRule
from ..settings import PortRange
from .connectors import Connectors
from .entries import Entry
from .ports import Ports

#: Networks, or ranges of ports, that a step names; there may be a thousand.
LISTED = 10


@attrs.frozen
class Step:
    """
    A question on a visitor's way.

    :ivar end: who asks it: ``listener`` or ``connector``.
    :ivar question: in a word.
    :ivar allowed: the answer; `None`: it isn't known here.
    :ivar rule: what decides it, for people.
    """

    end: str
    question: str
    allowed: bool | None
    rule: str


def explain(entry: Entry, connectors: Connectors, ports: Ports, host: str) -> list[Step]:
    """
    The listener's questions about a visitor from the address `host` (IPv4 as such); nothing is counted, and nobody is
    let in. The last one is whether the connector is here.
    """
    return [Step("listener", *each) for each in _questions(entry, connectors, ports, host)]


def _questions(entry: Entry, connectors: Connectors, ports: Ports, host: str) -> Iterator[tuple[str, bool | None, str]]:
    spec, limits, policy = entry.spec, entry.spec.limits, ports.policy
    yield "allow-ports", ports.mayOpen(spec.port), _allowed(ports.allowed)
    yield "open", *_open(entry)
    paused = ports.pausedBy
    yield "accepting", not paused, f"visitors wait outside for now: {paused}" if paused else "visitors are accepted"
    yield "port-sources", limits.allows(host), f"the port's own sources: {_listed(limits.sources) or 'all'}"
    total = limits.total is None or entry.used < limits.total
    yield "port-total", total, f"{entry.used} of {limits.total or 'any number of'} visitors have been here"
    here = len(entry.visitors)
    atOnce = limits.atOnce is None or here < limits.atOnce
    yield "port-at-once", atOnce, f"{here} of {limits.atOnce or 'any number of'} visitors are here"
    perPort, all_ = ports.limits.perPort, ports.limits.total
    yield "limit-port", here < perPort, f"{here} of {perPort} visitors are here, which is every port's limit"
    yield "limit-total", ports.visitors < all_, f"{ports.visitors} of {all_} visitors of all ports are here"
    known = next((each.identity.attributes for each in connectors if each.uid == spec.uid), None)
    decision = policy.decidePort(spec, known)
    yield "policy-port", decision.allowed, decision.rule
    decision = policy.decideVisitor(spec.port, host)
    yield "policy-visitor", decision.allowed, decision.rule
    pace = policy.pace(spec.port)
    yield "policy-rate", True if pace is None or pace.connections_per_second is None else None, _paced(pace)
    yield "connector", *_here(connectors, spec.uid)


def _allowed(ranges: Sequence[PortRange]) -> str:
    return f"SWL_ALLOW_PORTS: {_listed(ranges) or 'not set, so that every port is allowed'}"


def _open(entry: Entry) -> tuple[bool, str]:
    if entry.isDraining:
        return False, "it is being closed, or the listener stops"
    if not entry.isBound:
        return False, entry.waitsFor or "it isn't bound"
    return True, f"it is bound to {entry.spec.bindAddress}"


def _listed(things: Sequence[object]) -> str:
    more = f" and {len(things) - LISTED} more" if len(things) > LISTED else ""
    return ", ".join(map(str, things[:LISTED])) + more


def _paced(rate: RateRule | None) -> str:
    return "no [[rate]] rule fits" if rate is None else f"{rate}, says the policy"


def _here(connectors: Connectors, uid: str) -> tuple[bool, str]:
    here = connectors.serving(uid)
    if not here:
        return False, f"no connector of {uid} is here; a visitor waits for it a little"
    where = f"{uid} is here, session {', '.join(each.session.sessionId for each in here)}"
    if all(each.session.isSilent for each in here):
        return True, f"{where}, but silent; a visitor waits until it is heard of again, or has another session"
    return True, where
