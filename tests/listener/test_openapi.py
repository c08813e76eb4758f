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

from socketwarp.errors import BadRequest
from socketwarp.listener.api import connectors
from socketwarp.listener.api.access import Gate
from socketwarp.listener.api.app import ROUTES, Api, Call, answer
from socketwarp.listener.api.asking import ExplainCall, ProbeCall
from socketwarp.listener.api.bodies import LONGEST_PATIENCE, showWish, snake, wishOf
from socketwarp.listener.api.openapi import document
from socketwarp.listener.api.original import CloseCall, OpenCall
from socketwarp.listener.api.shapes import ANSWERS, GIVEN, HEADERS
from socketwarp.listener.wishes import PortLimits, PortOptions, PortSpec
from tests.listener.client import Client
from tests.listener.rig import Rig

JSON = Any  # Any: whatever JSON holds
DOCUMENT = document()
ALL = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
# Without the one that doesn't end by itself.
OPERATIONS = [each for each in ALL if each[2]["operationId"] != "events"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
#: A header's text (RFC 9110 §5.5), and what meets a port's ETag: one that nobody has, or any.
HEADER = st.sampled_from(["*", '"x"', '"x", *', "0"]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0")
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
def calls(
    draw: st.DrawFn, operations: list[tuple[str, str, JSON]] = OPERATIONS
) -> tuple[str, str, dict[str, str], bytes, JSON]:
    """Method, path with query, headers, body, and the operation that it is."""
    method, path, operation = draw(st.sampled_from(operations))
    query, headers = [], {}
    for parameter in operation["parameters"]:
        if parameter["in"] == "header":
            if draw(st.booleans()):
                headers[parameter["name"]] = draw(HEADER)
            continue
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
    return method.upper(), f"{path}?{'&'.join(query)}", headers, body, operation


def checkAnswer(status: int, headers: dict[str, str], text: str, operation: JSON) -> None:
    """An answer has to be one of those that the operation has."""
    answers = operation["responses"]
    described = answers.get(str(status), answers["default"])
    content = described["content"]
    contentType = headers["content-type"].partition(";")[0]
    assert contentType in content, contentType
    assert status < 500 or operation["operationId"] in ("open", "ready"), text
    assert "Traceback" not in text
    known = described.get("headers", {})
    assert {name for name in GIVEN if name.lower() in headers} <= known.keys(), headers
    for name, header in known.items():
        assert name.lower() in headers or not header["required"], name
        if name.lower() in headers:
            Draft202012Validator(header["schema"]).validate(headers[name.lower()])
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

    def test_itHasTheHeadersThatCallsReadAndGive(self) -> None:
        """A call can read and give no others: the table of calls sees to that."""
        described: dict[str, tuple[set[str], set[str]]] = {}
        for operations in DOCUMENT["paths"].values():
            for each in operations.values():
                read = {one["name"] for one in each["parameters"] if one["in"] == "header"}
                given = {name for answer in each["responses"].values() for name in answer.get("headers", {})}
                described[each["operationId"]] = read, given
        for route in ROUTES:
            given = {*route.gives, *(() if route.role is None else ("WWW-Authenticate",))}
            self.assertEqual((set(route.headers), given), described[route.handler.__name__], route.path)
        conditions = {"If-Match", "If-None-Match"}
        self.assertEqual((conditions, {"ETag", "Location", "WWW-Authenticate"}), described["putPort"])
        self.assertEqual((set(), {"ETag", "WWW-Authenticate"}), described["getPort"])
        self.assertEqual(conditions, described["deletePort"][0])
        self.assertEqual({"Last-Event-ID"}, described["events"][0])

    def test_whatNobodyReadsOrGivesIsNotDescribed(self) -> None:
        self.assertEqual({name for route in ROUTES for name in route.headers}, set(HEADERS))
        self.assertEqual({name for route in ROUTES for name in route.gives} | {"WWW-Authenticate"}, set(GIVEN))
        self.assertLessEqual(set(ANSWERS), {route.handler.__name__ for route in ROUTES})

    def test_itSaysHowToSayWhoCalls(self) -> None:
        schemes = DOCUMENT["components"]["securitySchemes"]
        self.assertEqual(("http", "bearer", "mutualTLS"), (*schemes["token"].values(), schemes["certificate"]["type"]))
        self.assertEqual([{"token": []}, {"certificate": []}, {}], DOCUMENT["security"])
        free = {each["operationId"] for _, _, each in OPERATIONS if each.get("security") == []}
        self.assertEqual({route.handler.__name__ for route in ROUTES if route.role is None}, free)

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

    def test_itsLimitsAreThoseOfTheRecords(self) -> None:
        for name, schema in DOCUMENT["components"]["schemas"]["PortLimits"]["properties"].items():
            for limited in schema.get("oneOf", []):
                low, high = limited.get("minimum"), limited.get("maximum")
                if limited["type"] != "null":
                    self.assertEqual((low, high), (self.within(name, low), self.within(name, high)), name)
                    for beyond in (low - 1, high + 1 if isinstance(high, int) else high * 1.01):
                        self.assertRaises(BadRequest, self.within, name, beyond)

    def within(self, name: str, value: float) -> Any:  # Any: JSON
        wish = {"uid": "x", "target_host": "x", "target_port": 1, "limits": {name: value}}
        shown: Any = showWish(wishOf(wish, 1))["limits"]  # Any: as above
        return shown[name]

    def test_itIsServed(self) -> None:
        self.assertEqual((200, json.loads(json.dumps(DOCUMENT))), Client(Rig()).json("GET", "/v1/openapi.json"))


class HeaderTests(SynchronousTestCase):
    """A call and the table of calls agree on headers."""

    def test_noneIsReadThatTheTableHasNot(self) -> None:
        call = Call(None, None, ("If-Match",))  # type: ignore[arg-type]  # it isn't looked at
        self.assertRaises(AssertionError, call.header, "If-None-Match")

    def test_noneIsGivenThatTheTableHasNot(self) -> None:
        client = Client(Rig())
        self.patch(connectors, "answer", lambda value: answer(value, ETag='"1"'))
        self.assertEqual(500, client.call("GET", "/v1/connectors")[0])
        self.assertEqual(1, len(self.flushLoggedErrors(AssertionError)))

    def test_whoSaysNothingIsToldHow(self) -> None:
        client = Client(Rig(), Gate(lambda: []))
        for route in ROUTES:
            path = re.sub("<[^>]*>", "1", route.path)
            operation = next(each for name, where, each in ALL if each["operationId"] == route.handler.__name__)
            status, headers, text = client.call(route.method, path)
            self.assertEqual(401 if route.role else 200, status, path)
            checkAnswer(status, headers, text, operation)


class CallTests(SynchronousTestCase):
    """What is called by it, well or badly, is answered by it."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(calls(ALL), min_size=1, max_size=6))
    def test_noCallIsAFaultOfOurs(self, made: list[tuple[str, str, dict[str, str], bytes, JSON]]) -> None:
        rig = Rig()
        rig.connected("uid-1")
        client = Client(rig)
        for method, path, headers, body, operation in made:
            client.connect()
            named = {"Host": "localhost", "Content-Length": len(body), **headers}
            head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            client.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
            rig.settle()
            if operation["operationId"] in ("probeTarget", "explainVisitor"):
                rig.reactor.advance(LONGEST_PATIENCE)
                rig.settle()
            status, given, text = client.answer()
            if status == 500:  # the original's, for what isn't a fault of anybody
                self.assertEqual("open", operation["operationId"])
                self.assertRegex(text, "No QUIC connection|port .* open already")
            checkAnswer(status, given, text, operation)
