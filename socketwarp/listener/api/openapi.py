"""The description of the calls, OpenAPI 3.1: made of the table of calls itself, and of `shapes`."""

import re
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from inspect import getdoc

from .app import ROUTES, Route
from .problems import isNewPath
from .shapes import ANSWERS, ARGUMENTS, BODIES, GIVEN, HEADERS, OTHERS, PLACES, SCHEMAS, Schema, ref

#: A place in a path, as werkzeug writes it: ``<uid>``, ``<path:uid>``, ``<int:port>``.
_PLACE = re.compile(r"<(?:[^<>]*:)?(\w+)>")
_DESCRIPTION = (
    "Which ports are open, who carries them, and who visits. Errors under /v1 are problem+json (RFC 9457) with a "
    "stable `code`; the original's three calls answer in plain text."
)


@cache
def document() -> Schema:
    """The whole description, ready for JSON."""
    paths: Schema = {}
    for each in ROUTES:
        paths.setdefault(_PLACE.sub(r"{\1}", each.path), {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "socketwarp listener", "version": version("socketwarp"), "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}, "certificate": {"type": "mutualTLS"}},
        },
        # What is asked for depends on the listener's settings: a token, a certificate, both or nothing.
        "security": [{"token": []}, {"certificate": []}, {}],
    }


def _operation(route: Route) -> Schema:
    name = route.handler.__name__
    made: Schema = {
        "operationId": name,
        "summary": (getdoc(route.handler) or "").partition("\n\n")[0].replace("\n", " "),
        "x-role": route.role,
        "parameters": _parameters(route),
        "responses": _responses(route, isNewPath(route.path.encode())),
    }
    if name in BODIES:
        made["requestBody"] = {"required": True, "content": _content(ref(BODIES[name]), "application/json")}
    if route.role is None:
        made["security"] = []
    return made


def _parameters(route: Route) -> list[Schema]:
    places: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": PLACES[name]} for name in _PLACE.findall(route.path)
    ]
    queries: list[Schema] = [{"name": name, "in": "query", "schema": ARGUMENTS[name]} for name in route.arguments]
    headers: list[Schema] = [{"name": name, "in": "header", "schema": HEADERS[name]} for name in route.headers]
    return places + queries + headers


def _responses(route: Route, isNew: bool) -> Schema:
    name = route.handler.__name__
    failed = (
        _content(ref("Problem"), "application/problem+json") if isNew else _content({"type": "string"}, "text/plain")
    )
    made: Schema = {"default": {"description": "the reason why not", "content": failed}}
    if route.role is not None:
        made["401"] = _response(401, failed) | {"headers": _headers("WWW-Authenticate", required=True)}
    for status, schema in ANSWERS.get(name, {}).items():
        made[str(status)] = _response(status, _content(schema, "application/json"))
        if route.gives:
            made[str(status)]["headers"] = _headers(*route.gives)
    if name in OTHERS:
        made["200"] = _response(200, _content({"type": "string"}, *OTHERS[name]))
    return made


def _response(status: int, content: Schema) -> Schema:
    return {"description": HTTPStatus(status).phrase, "content": content}


def _headers(*names: str, required: bool = False) -> Schema:
    """A dry run, which makes nothing, has no ETag; so what a call gives isn't always there."""
    return {name: {"schema": GIVEN[name], "required": required} for name in names}


def _content(schema: Schema, *mediaTypes: str) -> Schema:
    return {each: {"schema": schema} for each in mediaTypes}
