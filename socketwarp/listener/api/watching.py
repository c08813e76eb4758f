"""Looking on: whether all is well, figures, what happens, and the description of the calls."""

from ...errors import AccessDenied, LimitReached, Unauthenticated
from ...rules.tokens import READ
from .access import headerOf
from .app import Answer, Api, Call, answer, route
from .openapi import document
from .ports import stateOf
from .stream import STREAM_LIMIT, EventStream, resumeAt


@route("GET", "/ready", READ)
def ready(api: Api, call: Call) -> Answer:
    """Whether ports are open to visitors, and can be changed; 503 with the reasons if not, or the listener stops."""
    reasons = ["the listener stops"] if api.ports.isStopping else []
    reasons += [fault for fault in (api.auditFault(), api.ports.fault()) if fault]
    if paused := api.ports.pausedBy:
        reasons.append(f"no port accepts visitors for now: {paused}")
    reasons += [
        f"port {entry.spec.port} is {stateOf(api, entry)}" + (f": {entry.waitsFor}" if entry.waitsFor else "")
        for entry in api.ports.entries()
        if not entry.isBound and call.caller.sees(entry.spec.port, entry.spec.uid)
    ]
    return answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


@route("GET", "/metrics", READ)
def metrics(api: Api, call: Call) -> Answer:
    """Figures for Prometheus: of all ports and connectors, so not for who has to do with some of them only."""
    if call.caller.ports or call.caller.uids:
        raise AccessDenied(f"{call.caller.name} has to do with some ports or uids only, and figures are of all of them")
    body, contentType = api.metrics.render(headerOf(call.request, "Accept") or "")
    return Answer(200, body, contentType.encode())


@route("GET", "/v1/openapi.json", None)
def describe(api: Api, call: Call) -> Answer:
    """This description."""
    return answer(document())


@route("GET", "/v1/events", READ, "since", headers=("Last-Event-ID",))
async def events(api: Api, call: Call) -> Answer | None:
    """
    What happens, as server-sent events, from now on; or from behind the event that ``Last-Event-ID`` names. With
    ``since=0``, from the oldest that is remembered.
    """
    if len(api.streams) >= STREAM_LIMIT:
        raise LimitReached(f"{STREAM_LIMIT} callers follow events already, and that is the limit")
    given = call.header("Last-Event-ID") or call.argument("since")

    def isWelcome() -> bool:
        """Its token may have been taken away since."""
        try:
            return api.gate.identify(call.request) == call.caller
        except Unauthenticated:
            return False

    stream = EventStream(api.clock, api.events, call.caller, call.request, resumeAt(api.events, given), isWelcome)
    api.streams.add(stream)
    try:
        await stream.run()
    finally:
        api.streams.discard(stream)
    return None
