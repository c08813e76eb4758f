"""JSON objects from somebody else, read field by field: each with its type, its limits, and an error that names it."""

import json
from typing import NoReturn, TypeGuard

from ..errors import SocketwarpError

#: Characters of an identifier: a uid, an id, a version, an error's code.
WORD_LIMIT = 256
#: Characters of a text for people; what is longer is cut.
TEXT_LIMIT = 1000
#: Entries of a list.
LIST_LIMIT = 64


def _noConstant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are Python's, not JSON's


# Made once: json.dumps and json.loads make one for each call that isn't by their defaults.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_constant=_noConstant)


def encode(document: dict[str, object]) -> bytes:
    """Compact JSON in UTF-8, without the fields that are `None`."""
    return _ENCODER.encode({name: value for name, value in document.items() if value is not None}).encode()


def _decode(text: str) -> object:
    """One JSON value; the usual one, without spaces around it, isn't searched for them."""
    try:
        document, end = _DECODER.raw_decode(text)
    except ValueError:
        end = -1
    return document if end == len(text) else _DECODER.decode(text)


def clean(text: str) -> str:
    """`text` fit for a log line: one line, nothing that moves a cursor, at most `TEXT_LIMIT` characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:TEXT_LIMIT])


def _isWord(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= WORD_LIMIT and value.isprintable() and " " not in value


class Document:
    """
    A JSON object. Fields that nobody asks for are ignored, and null is as good as absent.

    Each method takes a field's name, and raises the class given to the constructor when the field isn't what it should
    be.
    """

    def __init__(self, encoded: bytes, error: type[SocketwarpError]) -> None:
        """
        :param error: what is raised for whatever is wrong, here as well.
        """
        self._error = error
        try:
            document = _decode(encoded.decode())
        except (ValueError, RecursionError):
            raise error("not JSON in UTF-8") from None
        if not isinstance(document, dict):
            raise error("JSON, but no object")
        self._fields = document

    def _wrong(self, name: str, wanted: str) -> NoReturn:
        raise self._error(f"the field {name!r} is not {wanted}")

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return self._fields.get(name) is not None

    def isTrue(self, name: str) -> bool:
        """Whether the field is true itself, not something like it."""
        return self._fields.get(name) is True

    def word(self, name: str) -> str:
        """1 to `WORD_LIMIT` printable characters without spaces."""
        value = self._fields.get(name)
        if not _isWord(value):
            self._wrong(name, f"a word of 1 to {WORD_LIMIT} printable characters")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """A list of at most `LIST_LIMIT` words; absent is empty."""
        values = self._fields.get(name, [])
        if not (isinstance(values, list) and len(values) <= LIST_LIMIT and all(map(_isWord, values))):
            self._wrong(name, f"a list of at most {LIST_LIMIT} words")
        return tuple(values)

    def text(self, name: str) -> str:
        """A text for people, cleaned; absent is empty."""
        value = self._fields.get(name, "")
        if not isinstance(value, str):
            self._wrong(name, "a text")
        return clean(value)

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._wrong(name, f"an integer from {low} to {high}")
        return value

    def seconds(self, name: str, high: float) -> float:
        """A number from 0 to `high`."""
        value = self._fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
            self._wrong(name, f"a number from 0 to {high:g}")
        return float(value)
