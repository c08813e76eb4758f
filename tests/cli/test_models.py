"""The records, held against the API's own description."""

from types import UnionType
from typing import Any, get_args, get_origin

import attrs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli import _models
from socketwarp.cli._http import Failed
from socketwarp.listener.api.openapi import document

SCHEMAS = document()["components"]["schemas"]
STATE = {"state", "reason", "connections", "used"}
RECORDS = [kind for kind in vars(_models).values() if isinstance(kind, type) and attrs.has(kind)]
_KINDS = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}


def kinds(schema: Any) -> set[Any]:  # Any: JSON; and forms of typing's
    """What a value of the schema is in Python."""
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    if "oneOf" in schema:
        return {kind for each in schema["oneOf"] for kind in kinds(each)}
    if "enum" in schema:
        return {type(each) for each in schema["enum"]}
    if schema["type"] == "array":
        return {("list", *kinds(schema["items"]))}
    return {_KINDS[schema["type"]]}


def declared(kind: Any) -> set[Any]:  # Any: as above
    """The same of a field's type."""
    if get_origin(kind) is UnionType:
        return {each for one in get_args(kind) for each in declared(one)}
    if get_origin(kind) is list:
        return {("list", *declared(get_args(kind)[0]))}
    return {kind.__name__ if attrs.has(kind) else kind}


class Records(SynchronousTestCase):
    def test_every_record_is_a_shape_of_the_api(self) -> None:
        self.assertGreater(len(RECORDS), 10)
        self.assertEqual([], [kind.__name__ for kind in RECORDS if kind.__name__ not in SCHEMAS])

    def test_every_field_is_there_with_its_type(self) -> None:
        for kind in RECORDS:
            for field in attrs.fields(kind):
                schema = SCHEMAS[kind.__name__]["properties"][field.name]
                self.assertEqual(kinds(schema), declared(field.type), f"{kind.__name__}.{field.name}")

    def test_what_may_be_missing_has_a_default(self) -> None:
        for kind in RECORDS:
            needed = {field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING}
            # A port's state is missing from the answer to a dry run alone, which nobody makes a record of.
            there = STATE if kind is _models.Port else set()
            self.assertEqual(set(), needed - set(SCHEMAS[kind.__name__]["required"]) - there, kind.__name__)

    def test_what_a_newer_listener_adds_is_passed_over(self) -> None:
        self.assertTrue(_models.understood({"ready": True, "reasons": [], "mood": "fine"}, _models.Ready).ready)

    def test_what_makes_no_sense_is_a_failure(self) -> None:
        everything: list[object] = [{}, [], None, 5, {"ready": True, "reasons": 3}]
        for nonsense in everything:
            self.assertRaises(Failed, _models.understood, nonsense, _models.Ready)
