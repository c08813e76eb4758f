"""``/v1/connectors`` and ``/v1/connections``: who is here, and sending them away."""

from collections.abc import Iterable
from datetime import UTC, datetime

from ...errors import AccessDenied, NoSuchConnection, NoSuchConnector, PortClosed
from ...rules.tokens import OPERATE, READ
from ..events import showAddress
from ..roster import Connector
from ..visitors import Visitor
from .app import Answer, Api, Call, Shown, answer, route
from .bodies import LONGEST_DENIAL

#: Connections that one answer lists: some 300 kB of JSON.
CONNECTIONS_LIMIT = 1000


def showTime(seconds: float) -> str:
    """POSIX seconds as RFC 3339 has them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def showSession(connector: Connector) -> dict[str, object]:
    """A session as the API shows it, with its figures of this moment."""
    session, figures = connector.session, connector.session.statistics()
    return {
        "session": session.sessionId,
        "peer": showAddress(session.peerAddress),
        "protocol": session.protocol,
        "carrier": session.carrier,
        "since": showTime(connector.since),
        "leaving": connector.isLeaving,
        "subject": connector.identity.leaf.subject.rfc4514_string(),
        "not_after": showTime(connector.identity.notAfter.timestamp()),
        "connections": connector.visitors,
        "streams": figures.streams,
        "bytes_in": figures.bytesIn,
        "bytes_out": figures.bytesOut,
        "rtt": figures.rtt,
        "packets_lost": figures.packetsLost,
        "path_mtu": figures.pathMtu,
    }


def _showConnector(api: Api, call: Call, uid: str, sessions: Iterable[Connector]) -> dict[str, object]:
    """A connector with what of it the caller has to do with."""
    return {
        "uid": uid,
        "ports": sorted(spec.port for spec in api.ports.specs() if spec.uid == uid and call.caller.seesPort(spec.port)),
        "sessions": [showSession(each) for each in sessions],
        "denied_until": _showDenial(api, uid),
    }


def _showDenial(api: Api, uid: str) -> str | None:
    """When the uid is let in again; `None`: it is."""
    until = api.connectors.denials.until(uid)
    return None if until is None else showTime(until)


def _byUid(api: Api) -> dict[str, list[Connector]]:
    """The sessions of all that are here; none, of those that are denied."""
    found: dict[str, list[Connector]] = {uid: [] for uid in api.connectors.denials.current()}
    for connector in api.connectors:
        found.setdefault(connector.uid, []).append(connector)
    return found


def mayAsk(call: Call) -> None:
    """:raises errors.AccessDenied: for those who only have to do with some ports; a connector has any."""
    if not call.caller.seesConnectors:
        raise AccessDenied(f"{call.caller.name} has to do with some ports only, and a connector isn't one of them")


@route("GET", "/v1/connectors", READ)
def listConnectors(api: Api, call: Call) -> Answer:
    """All that are here, and those that are denied."""
    mayAsk(call)
    seen = {uid: sessions for uid, sessions in _byUid(api).items() if call.caller.seesUid(uid)}
    return answer([_showConnector(api, call, uid, seen[uid]) for uid in sorted(seen)])


@route("GET", "/v1/connectors/<path:uid>", READ)
def getConnector(api: Api, call: Call, uid: str) -> Answer:
    """One of them; several sessions, when several share the uid, or one gives way to another; none of one denied."""
    mayAsk(call)
    call.caller.claimUid(uid)
    sessions = _byUid(api).get(uid)
    if sessions is None:
        raise NoSuchConnector(f"no connector with the uid {uid} is here")
    return answer(_showConnector(api, call, uid, sessions))


@route("DELETE", "/v1/connectors/<path:uid>", OPERATE, "dry_run", "deny")
async def deleteConnector(api: Api, call: Call, uid: str) -> Answer:
    """End a connector's sessions. It comes back at once, unless it is denied for ``deny`` seconds; with 0 it isn't."""
    mayAsk(call)
    call.caller.claimUid(uid)
    seconds = call.seconds("deny", LONGEST_DENIAL)
    sessions = _byUid(api).get(uid, [])
    if seconds is None and not sessions:  # who is away can be denied, and let in again, all the same
        raise NoSuchConnector(f"no connector with the uid {uid} is here")
    told = {"uid": uid, "sessions": len(sessions), "denied_seconds": seconds}
    if call.dryRun:
        if seconds:
            api.connectors.denials.checkRoom(uid)
        return answer(told | {"dry_run": True})
    was = {"sessions": [each.session.sessionId for each in sessions], "denied_until": _showDenial(api, uid)}

    async def make() -> tuple[None, Shown]:
        if seconds is not None:
            await api.connectors.denials.deny(uid, seconds)
        api.connectors.dismiss(uid)
        return None, {"denied_seconds": seconds, "denied_until": _showDenial(api, uid)}

    await api.change(call.caller, "connector.delete", uid, was, make)
    return answer(told)


def showVisitor(visitor: Visitor) -> dict[str, object]:
    """A visitor's connection as the API shows it; bytes in are those that came from the visitor."""
    bytesIn, bytesOut = visitor.bridge.carried
    return {
        "id": visitor.connectionId,
        "port": visitor.spec.port,
        "uid": visitor.spec.uid,
        "peer": showAddress(visitor.address),
        "target": visitor.spec.target,
        "session": visitor.sessionId,
        "since": showTime(visitor.since),
        "bytes_in": bytesIn,
        "bytes_out": bytesOut,
    }


def _visitors(api: Api, call: Call) -> Iterable[Visitor]:
    for entry in api.ports.entries():
        if call.caller.sees(entry.spec.port, entry.spec.uid):
            yield from sorted(entry.visitors, key=lambda each: each.since)


@route("GET", "/v1/connections", READ, "port", "uid", "limit")
def listConnections(api: Api, call: Call) -> Answer:
    """Visitors who are here, at most ``limit`` of them, of one port or uid when asked for."""
    port, uid = call.number("port", 65535), call.argument("uid")
    limit = call.number("limit", CONNECTIONS_LIMIT) or CONNECTIONS_LIMIT
    found = [
        visitor
        for visitor in _visitors(api, call)
        if (port is None or visitor.spec.port == port) and (uid is None or visitor.spec.uid == uid)
    ]
    return answer({"total": len(found), "connections": [showVisitor(each) for each in found[:limit]]})


@route("DELETE", "/v1/connections/<id>", OPERATE, "dry_run")
def deleteConnection(api: Api, call: Call, id: str) -> Answer:
    """End a visitor's connection with RST."""
    found = [visitor for visitor in _visitors(api, call) if visitor.connectionId == id]
    if not found:
        raise NoSuchConnection(f"no connection has the id {id}")
    (visitor,) = found
    shown = showVisitor(visitor)
    if call.dryRun:
        return answer(shown | {"dry_run": True})
    visitor.refuse(PortClosed(f"{call.caller.name} ended the connection"))
    api.audit(call.caller, "connection.delete", id, shown, None)
    return answer(shown)
