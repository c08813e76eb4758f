"""``/v1/probe`` and ``/v1/explain``: does it work, and if not, who says no."""

from itertools import count

import attrs

from ...errors import LimitReached
from ...rules.tokens import OPERATE, READ
from ...wire.preamble import Preamble
from ..explain import Step, explain
from ..probe import Probed, probe
from ..roster import Connector
from .app import Answer, Api, Call, answer, route
from .bodies import NOTHING, PATIENCE, Host, IpAddress, PatienceSeconds, PortNumber, ShortText, Uid
from .connectors import mayAsk

#: Probes that may be under way at a time.
PROBE_LIMIT = 16
_numbers = count(1)


@attrs.frozen
class ProbeCall:
    """
    The body of ``POST /v1/probe``.

    :ivar send: what the target is sent, and then waited for an answer; empty: nothing.
    :ivar seconds: for all steps together.
    """

    uid: Uid
    host: Host
    port: PortNumber
    send: ShortText = NOTHING
    seconds: PatienceSeconds = PATIENCE


@attrs.frozen
class ExplainCall:
    """
    The body of ``POST /v1/explain``.

    :ivar source: the visitor's address.
    :ivar dial: have the connector dial the target, and so say what its own rules say.
    """

    port: PortNumber
    source: IpAddress
    dial: bool = False


def showProbe(probed: Probed, connector: Connector) -> dict[str, object]:
    """A probe as the API shows it."""
    return {
        "outcome": probed.outcome,
        "reason": probed.reason or None,
        "dialled": probed.dialled or None,
        "session": connector.session.sessionId,
        "protocol": connector.session.protocol,
        "stream_seconds": probed.streamSeconds,
        "dial_seconds": probed.dialSeconds,
        "resolve_seconds": probed.resolveSeconds,
        "connect_seconds": probed.connectSeconds,
        "byte_seconds": probed.byteSeconds,
        "received": probed.received.decode(errors="backslashreplace"),
    }


@route("POST", "/v1/probe", OPERATE)
async def probeTarget(api: Api, call: Call) -> Answer:
    """Open a stream to a target, have it dialled, send it something, and say how long each step took."""
    wanted = call.body(ProbeCall)
    mayAsk(call)
    call.caller.claimUid(wanted.uid)
    host = wanted.host.removeprefix("[").removesuffix("]")
    connector = api.connectors.current(wanted.uid)
    probed = await _probe(api, call, connector, (host, wanted.port), wanted.send.encode(), wanted.seconds)
    return answer(showProbe(probed, connector))


async def _probe(
    api: Api, call: Call, connector: Connector, target: tuple[str, int], data: bytes, seconds: float
) -> Probed:
    if api.probing >= PROBE_LIMIT:
        raise LimitReached(f"{PROBE_LIMIT} probes are under way already, and that is the limit")
    preamble = Preamble(f"probe-{next(_numbers)}", *target, isTimed=True)
    api.probing += 1
    connector.visitors += 1
    try:
        probed = await probe(api.clock, connector, preamble, data, seconds)
    finally:
        api.probing -= 1
        api.connectors.left(connector)
    # No change, but something was dialled in somebody's name.
    api.audit(call.caller, "probe", f"{connector.uid} {target[0]} {target[1]}", None, None, probed.outcome)
    return probed


@route("POST", "/v1/explain", READ)
async def explainVisitor(api: Api, call: Call) -> Answer:
    """Whether a visitor from an address would get through a port, and at each step, which rule decides."""
    wanted = call.body(ExplainCall)
    if wanted.dial:
        call.caller.require(OPERATE)
    entry = api.ports.entry(wanted.port)
    call.caller.claim(wanted.port, entry.spec.uid)
    steps = explain(entry, api.connectors, api.ports, wanted.source)
    if wanted.dial and steps[-1].allowed:
        connector = api.connectors.current(entry.spec.uid)
        target = (entry.spec.dialHost, entry.spec.targetPort)
        steps.append(_dialled(await _probe(api, call, connector, target, b"", PATIENCE)))
    else:
        why = "nobody is here to be asked" if wanted.dial else "only the connector knows its rules: ask it, with dial"
        steps.append(Step("connector", "target", None, why))
    answers = [step.allowed for step in steps]
    allowed = False if False in answers else None if None in answers else True
    return answer({"allowed": allowed, "target": entry.spec.target, "steps": [attrs.asdict(step) for step in steps]})


def _dialled(probed: Probed) -> Step:
    """What a probe without bytes says of the connector's rules."""
    if probed.reason:
        return Step("connector", "target", False, f"{probed.outcome}: {probed.reason}")
    if probed.outcome == "unknown":
        return Step("connector", "target", None, "the connector's protocol doesn't tell whether it has dialled")
    return Step("connector", "target", True, f"dialled {probed.dialled}" if probed.dialled else "the target answered")
