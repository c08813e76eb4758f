"""The description of the calls, OpenAPI 3.1: made of the table of calls itself, and of `shapes`."""

import re
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from inspect import getdoc

from .app import ROUTES, Route
from .problems import isNewPath
from .shapes import ANSWERS, ARGUMENTS, BODIES, OTHERS, PLACES, SCHEMAS, Schema, ref

#: A place in a path, as werkzeug writes it: ``<uid>``, ``<path:uid>``, ``<int(max=65535):port>``.
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
        "responses": _responses(name, isNewPath(route.path.encode())),
    }
    if name in BODIES:
        made["requestBody"] = {"required": True, "content": _content("application/json", ref(BODIES[name]))}
    if route.role is None:
        made["security"] = []
    return made


def _parameters(route: Route) -> list[Schema]:
    places: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": PLACES[name]} for name in _PLACE.findall(route.path)
    ]
    queries: list[Schema] = [{"name": name, "in": "query", "schema": ARGUMENTS[name]} for name in route.arguments]
    return places + queries


def _responses(name: str, isNew: bool) -> Schema:
    failed = (
        _content("application/problem+json", ref("Problem")) if isNew else _content("text/plain", {"type": "string"})
    )
    made: Schema = {"default": {"description": "the reason why not", "content": failed}}
    for status, schema in ANSWERS.get(name, {}).items():
        made[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": _content("application/json", schema),
        }
    if name in OTHERS:
        made["200"] = {"description": "OK", "content": _content(OTHERS[name], {"type": "string"})}
    return made


def _content(mediaType: str, schema: Schema) -> Schema:
    return {mediaType: {"schema": schema}}
