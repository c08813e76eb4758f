"""The description of the API, held against the API."""

import json
import re
from math import ceil
from typing import Any
from urllib.parse import quote

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.listener.api.app import ROUTES, Api
from socketwarp.listener.api.asking import ExplainCall, ProbeCall
from socketwarp.listener.api.bodies import LONGEST_PATIENCE, snake
from socketwarp.listener.api.openapi import document
from socketwarp.listener.api.original import CloseCall, OpenCall
from socketwarp.listener.wishes import PortLimits, PortOptions, PortSpec
from tests.listener.client import Client
from tests.listener.rig import Rig

JSON = Any  # Any: whatever JSON holds
DOCUMENT = document()
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    # The one that doesn't end by itself has tests of its own.
    if operation["operationId"] != "events"
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
#: Words with which calls meet what there is.
WORDS = st.sampled_from(["uid-1", "uid-2", "1-1", "10.0.0.5", "10.0.0.0/8", "127.0.0.1", "::1", "a b/c", "0", "1"])


def resolved(schema: JSON) -> JSON:
    """The schema that stands behind a reference."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def values(schema: JSON) -> st.SearchStrategy[JSON]:
    """What fits a schema, as far as this document uses JSON Schema, or nearly fits it."""
    schema = resolved(schema)
    if "oneOf" in schema:
        return st.one_of([values(each) for each in schema["oneOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema["type"]:
        case "object":
            required = {name: values(schema["properties"][name]) for name in schema["required"]}
            optional = {name: values(each) for name, each in schema["properties"].items() if name not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case "array":
            return st.lists(values(schema["items"]), max_size=3)
        case "string":
            return WORDS | st.text(min_size=1, max_size=9)
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case kind:
            low, high = schema.get("minimum", -1), schema.get("maximum", 2**40)
            whole = st.sampled_from([18080, 18081]) | st.integers(ceil(low), high)
            return whole if kind == "integer" else whole | st.floats(low, high)


def nearly(schema: JSON) -> st.SearchStrategy[JSON]:
    """What fits, often, and what doesn't."""
    return values(schema) | ANYTHING | st.fixed_dictionaries({}, optional={"uid": ANYTHING, "port": ANYTHING})


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, bytes, JSON]:
    """Method, path with query, body, and the operation that it is."""
    method, path, operation = draw(st.sampled_from(OPERATIONS))
    query = []
    for parameter in operation["parameters"]:
        value = draw(values(parameter["schema"]) | ANYTHING)
        text = quote(value if isinstance(value, str) else json.dumps(value), safe="", errors="replace")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", text or "x")
        elif draw(st.booleans()):
            query.append(f"{parameter['name']}={text}")
    body = b""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        body = draw(st.builds(lambda value: json.dumps(value).encode(), nearly(schema)) | st.binary(max_size=20))
    return method.upper(), f"{path}?{'&'.join(query)}", body, operation


def checkAnswer(status: int, headers: dict[str, str], text: str, operation: JSON) -> None:
    """An answer has to be one of those that the operation has."""
    answers = operation["responses"]
    content = answers.get(str(status), answers["default"])["content"]
    contentType = headers["content-type"].partition(";")[0]
    assert contentType in content, contentType
    assert status < 500 or operation["operationId"] in ("open", "ready"), text
    assert "Traceback" not in text
    if contentType.endswith("json"):
        schema = content[contentType]["schema"] | {"components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(json.loads(text))


class DocumentTests(SynchronousTestCase):
    """It says what is there."""

    def test_itNamesEveryCallAndNoOther(self) -> None:
        routed = {
            (rule.endpoint, method.lower()) for rule in Api.app.url_map.iter_rules() for method in rule.methods or ()
        }
        described = {(each["operationId"], method) for method, _, each in OPERATIONS} | {("events", "get")}
        self.assertEqual({each for each in routed if each[1] not in ("head", "options")}, described)
        self.assertEqual(len(ROUTES), len(described))

    def test_everyCallIsExplained(self) -> None:
        self.assertEqual([], [path for _, path, each in OPERATIONS if len(each["summary"]) < 10])

    def test_itsSchemasAreSchemas(self) -> None:
        for schema in DOCUMENT["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)

    def test_everyReferenceLeadsSomewhere(self) -> None:
        for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)):
            self.assertIn(name, DOCUMENT["components"]["schemas"])

    def test_itsShapesAreThoseOfTheRecords(self) -> None:
        for name, kind in (
            ("Wish", PortSpec),
            ("PortLimits", PortLimits),
            ("PortOptions", PortOptions),
            ("OpenCall", OpenCall),
            ("CloseCall", CloseCall),
            ("ProbeCall", ProbeCall),
            ("ExplainCall", ExplainCall),
        ):
            fields = {snake(field.name) for field in attrs.fields(kind)}
            described = DOCUMENT["components"]["schemas"][name]["properties"].items()
            self.assertEqual(fields, {each for each, schema in described if "readOnly" not in schema}, name)

    def test_itIsServed(self) -> None:
        self.assertEqual((200, json.loads(json.dumps(DOCUMENT))), Client(Rig()).json("GET", "/v1/openapi.json"))


class CallTests(SynchronousTestCase):
    """What is called by it, well or badly, is answered by it."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(calls(), min_size=1, max_size=6))
    def test_noCallIsAFaultOfOurs(self, made: list[tuple[str, str, bytes, JSON]]) -> None:
        rig = Rig()
        rig.connected("uid-1")
        client = Client(rig)
        for method, path, body, operation in made:
            client.connect()
            client.send(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            rig.settle()
            if operation["operationId"] in ("probeTarget", "explainVisitor"):
                rig.reactor.advance(LONGEST_PATIENCE)
                rig.settle()
            status, headers, text = client.answer()
            if status == 500:  # the original's, for what isn't a fault of anybody
                self.assertEqual("open", operation["operationId"])
                self.assertRegex(text, "No QUIC connection|port .* open already")
            checkAnswer(status, headers, text, operation)
