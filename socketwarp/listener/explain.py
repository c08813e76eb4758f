"""Would this visitor get through this port? Every question that is asked on its way, and what decides it."""

from collections.abc import Iterator

import attrs

from ..rules.policy import Policy, RateRule
from .connectors import Connectors
from .entries import Entry


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


def explain(entry: Entry, connectors: Connectors, policy: Policy, host: str) -> list[Step]:
    """The listener's questions about a visitor from the address `host`; nothing is counted, and nobody is let in."""
    return [Step("listener", *each) for each in _questions(entry, connectors, policy, host)]


def _questions(
    entry: Entry, connectors: Connectors, policy: Policy, host: str
) -> Iterator[tuple[str, bool | None, str]]:
    spec, limits = entry.spec, entry.spec.limits
    yield "open", entry.isBound and not entry.closing, entry.waitsFor or ("it is closing" if entry.closing else "it is")
    yield "port-sources", limits.allows(host), f"the port's own sources: {_listed(limits.sources) or 'all'}"
    total = limits.total is None or entry.used < limits.total
    yield "port-total", total, f"{entry.used} of {limits.total or 'any number of'} visitors have been here"
    here = len(entry.visitors)
    atOnce = limits.atOnce is None or here < limits.atOnce
    yield "port-at-once", atOnce, f"{here} of {limits.atOnce or 'any number of'} visitors are here"
    known = next((each.identity.attributes for each in connectors if each.uid == spec.uid), None)
    decision = policy.decidePort(spec, known)
    yield "policy-port", decision.allowed, decision.rule
    decision = policy.decideVisitor(spec.port, host)
    yield "policy-visitor", decision.allowed, decision.rule
    pace = policy.pace(spec.port)
    yield "policy-rate", True if pace is None or pace.connections_per_second is None else None, _paced(pace)
    yield "connector", *_here(connectors, spec.uid)


def _listed(things: tuple[object, ...]) -> str:
    return ", ".join(map(str, things))


def _paced(rate: RateRule | None) -> str:
    return "no [[rate]] rule fits" if rate is None else f"{rate}, says the policy"


def _here(connectors: Connectors, uid: str) -> tuple[bool, str]:
    here = connectors.serving(uid)
    if not here:
        return False, f"no connector of {uid} is here; a visitor waits for it a little"
    return True, f"{uid} is here, session {', '.join(each.session.sessionId for each in here)}"
