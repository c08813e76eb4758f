"""
The shapes of what the API takes and gives: JSON Schema (2020-12), by name; and which call takes and gives which.

A test holds them against real answers, and against the records that they describe.
"""

from collections.abc import Mapping
from typing import Any

from ..wishes import LATEST, LONGEST, MOST, SHORTEST, SOURCES_LIMIT
from .bodies import LONGEST_DENIAL, LONGEST_DRAIN, LONGEST_PATIENCE, SHORT_TEXT, UID_LIMIT

#: A JSON Schema, or a part of an OpenAPI document.
Schema = dict[str, Any]  # Any: JSON

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_TRUTH: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_UID: Schema = {"type": "string", "minLength": 1, "maxLength": UID_LIMIT}
_HOST: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "description": "an IP address or a host name"}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_SECONDS: Schema = {"type": "number", "minimum": 0}


def ref(name: str) -> Schema:
    """What stands in for the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def orNull(schema: Schema) -> Schema:
    """The same, or null."""
    return {"oneOf": [schema, {"type": "null"}]}


def listOf(schema: Schema) -> Schema:
    """A list of them."""
    return {"type": "array", "items": schema}


def shape(optional: Mapping[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


_DRY: dict[str, Schema] = {"dry_run": {"const": True}}
_LIMITS: dict[str, Schema] = {
    "expires": orNull({"type": "number", "minimum": 0, "maximum": LATEST, "description": "POSIX seconds"}),
    "total": orNull({"type": "integer", "minimum": 1, "maximum": MOST}),
    "at_once": orNull({"type": "integer", "minimum": 1, "maximum": MOST}),
    "idle_seconds": orNull({"type": "number", "minimum": SHORTEST, "maximum": LONGEST}),
    "sources": listOf({"type": "string", "description": "a network such as 10.0.0.0/8"}) | {"maxItems": SOURCES_LIMIT},
}
_OPTIONS: dict[str, Schema] = {"proxy_protocol": {"enum": [1, 2, None]}}
_WISHED: dict[str, Schema] = {
    "bind_address": {"type": "string", "description": "an IP address of the listener's host"},
    "limits": ref("PortLimits"),
    "options": ref("PortOptions"),
}
_PORT_STATE: dict[str, Schema] = {
    "state": {"enum": ["open", "parked", "unbound", "draining"]},
    "reason": orNull(_TEXT),
    "connections": _WHOLE,
    "used": _WHOLE,
    "etag": _TEXT,
}

SCHEMAS: dict[str, Schema] = {
    "OpenCall": shape(uid=_UID, port=_PORT, connect_address=_HOST, connect_port=_PORT),
    "CloseCall": shape({"drain": _SECONDS | {"maximum": LONGEST_DRAIN}}, port=_PORT),
    "PortLimits": shape(_LIMITS),
    "PortOptions": shape(_OPTIONS),
    "Wish": shape(
        {
            "port": {"type": "integer", "minimum": 0, "maximum": 65535},
            **_WISHED,
            **{name: schema | {"readOnly": True} for name, schema in _PORT_STATE.items()},
        },
        uid=_UID,
        target_host=_HOST,
        target_port=_PORT,
    ),
    "Port": shape(
        _PORT_STATE | _DRY,
        port={"type": "integer", "minimum": 0, "maximum": 65535},
        uid=_UID,
        target_host=_HOST,
        target_port=_PORT,
        **_WISHED,
    ),
    "Closed": shape({"ended": _WHOLE, "connections": _WHOLE, **_DRY}, port=_PORT),
    "Session": shape(
        session=_TEXT,
        peer=_TEXT,
        protocol=_TEXT,
        carrier=_TEXT,
        since=_TIME,
        leaving=_TRUTH,
        subject=_TEXT,
        not_after=_TIME,
        connections=_WHOLE,
        streams=_WHOLE,
        bytes_in=_WHOLE,
        bytes_out=_WHOLE,
        rtt=orNull(_SECONDS),
        packets_lost=_WHOLE,
        path_mtu=_WHOLE,
    ),
    "Connector": shape(uid=_UID, ports=listOf(_PORT), sessions=listOf(ref("Session")), denied_until=orNull(_TIME)),
    "Dismissed": shape(_DRY, uid=_UID, sessions=_WHOLE, denied_seconds=orNull(_SECONDS)),
    "Connection": shape(
        _DRY,
        id=_TEXT,
        port=_PORT,
        uid=_UID,
        peer=_TEXT,
        target=_TEXT,
        session=orNull(_TEXT),
        since=_TIME,
        bytes_in=_WHOLE,
        bytes_out=_WHOLE,
    ),
    "Connections": shape(total=_WHOLE, connections=listOf(ref("Connection"))),
    "ProbeCall": shape(
        {
            "send": {"type": "string", "maxLength": SHORT_TEXT},
            "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_PATIENCE},
        },
        uid=_UID,
        host=_HOST,
        port=_PORT,
    ),
    "Probe": shape(
        outcome=_TEXT,
        reason=orNull(_TEXT),
        dialled=orNull(_TEXT),
        session=_TEXT,
        protocol=_TEXT,
        stream_seconds=orNull(_SECONDS),
        dial_seconds=orNull(_SECONDS),
        resolve_seconds=orNull(_SECONDS),
        connect_seconds=orNull(_SECONDS),
        byte_seconds=orNull(_SECONDS),
        received=_TEXT,
    ),
    "ExplainCall": shape({"dial": _TRUTH}, port=_PORT, source={"type": "string", "description": "an IP address"}),
    "Step": shape(end={"enum": ["listener", "connector"]}, question=_TEXT, allowed=orNull(_TRUTH), rule=_TEXT),
    "Explanation": shape(allowed=orNull(_TRUTH), target=_TEXT, steps=listOf(ref("Step"))),
    "Ready": shape(ready=_TRUTH, reasons=listOf(_TEXT)),
    "Problem": shape(
        title=_TEXT,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail=_TEXT,
        code={"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
    ),
}

#: What a query may have.
ARGUMENTS: dict[str, Schema] = {
    "dry_run": {"enum": ["0", "1"], "description": "1: say what would be, and change nothing"},
    "drain": _SECONDS | {"maximum": LONGEST_DRAIN, "description": "seconds that visitors have to finish"},
    "deny": _SECONDS
    | {"maximum": LONGEST_DENIAL, "description": "seconds for which the connector isn't let in again; 0: it is"},
    "port": _PORT,
    "uid": _UID,
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "since": {"type": "string", "description": "the id of an event, or 0 for all that are remembered"},
}
#: Headers that calls read.
HEADERS: dict[str, Schema] = {
    "If-Match": _TEXT | {"description": "ETags, or *: change the port only if it is there, with one of them"},
    "If-None-Match": _TEXT | {"description": "*: only make a new one; or ETags that the port must not have"},
    "Last-Event-ID": _TEXT | {"description": "the id of the last event that was seen: begin behind it"},
}
#: Headers that calls give.
GIVEN: dict[str, Schema] = {
    "ETag": {"type": "string", "pattern": '^"[0-9a-f]+"$', "description": "another wish has another one"},
    "Location": {"type": "string", "pattern": "^/v1/ports/[0-9]+$", "description": "where the port is shown"},
    "WWW-Authenticate": {"type": "string", "pattern": "^Bearer ", "description": "how to say who calls (RFC 6750)"},
}
#: What a path may have.
PLACES: dict[str, Schema] = {
    "port": {"type": "integer", "minimum": 0, "maximum": 65535},
    "uid": _UID,
    "id": _TEXT,
}
#: What a call takes, by its function's name.
BODIES: dict[str, str] = {
    "open": "OpenCall",
    "close": "CloseCall",
    "putPort": "Wish",
    "probeTarget": "ProbeCall",
    "explainVisitor": "ExplainCall",
}
#: What a call gives when all is well, by its function's name: status and JSON.
ANSWERS: dict[str, dict[int, Schema]] = {
    "list": {200: listOf(ref("OpenCall"))},
    "listPorts": {200: listOf(ref("Port"))},
    "getPort": {200: ref("Port")},
    "putPort": {200: ref("Port"), 201: ref("Port")},
    "deletePort": {200: ref("Closed")},
    "listConnectors": {200: listOf(ref("Connector"))},
    "getConnector": {200: ref("Connector")},
    "deleteConnector": {200: ref("Dismissed")},
    "listConnections": {200: ref("Connections")},
    "deleteConnection": {200: ref("Connection")},
    "probeTarget": {200: ref("Probe")},
    "explainVisitor": {200: ref("Explanation")},
    "ready": {200: ref("Ready"), 503: ref("Ready")},
    "describe": {200: {"type": "object"}},
}
#: What a call gives that isn't JSON.
OTHERS: dict[str, tuple[str, ...]] = {
    "open": ("text/plain",),
    "close": ("text/plain",),
    "healthz": ("text/plain",),
    "metrics": ("text/plain", "application/openmetrics-text"),
    "events": ("text/event-stream",),
}
