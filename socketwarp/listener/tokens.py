"""
Tokens of the API: a file of names, digests and what each may.

A file in TOML, where each token is ``[[token]]`` with ``name``, ``sha256`` (of the token's text, in hexadecimal),
``role`` (``read`` or ``operate``) and, to bound it, ``ports`` and ``uids``. A token is made by chance, 256 bits of it,
so that a plain SHA-256 can't be turned back; the file itself lets nobody in.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from ..errors import ConfigurationError
from ..settings import PortRange, parsePortRanges

#: What a caller may: see, or change as well.
Role = Literal["read", "operate"]
READ: Role = "read"
OPERATE: Role = "operate"
#: Bytes of the file, far beyond the tokens of any operator.
FILE_LIMIT = 2**20
SETTING = "APIS_TOKENS_FILE"


@attrs.frozen
class Token:
    """
    A token, as it is known here.

    :ivar sha256: of its text, in hexadecimal.
    :ivar ports: entry ports it has to do with; empty: all. ``uids``: the same of uids, as patterns.
    """

    name: str
    sha256: str = attrs.field(repr=False)
    role: Role = READ
    ports: Sequence[PortRange] = ()
    uids: Sequence[str] = ()


def loadTokens(path: Path) -> tuple[Token, ...]:
    """
    Read the file.

    :raises errors.ConfigurationError: naming what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{SETTING}: {str(path)!r} can't be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"{SETTING}: {str(path)!r} has more than {FILE_LIMIT} bytes: is it the right file?")
    try:
        return parseTokens(data.decode())
    except ValueError as error:
        raise ConfigurationError(f"{SETTING}: {str(path)!r}: {error}") from None


def parseTokens(text: str) -> tuple[Token, ...]:
    """
    Read what such a file holds.

    :raises ValueError: when it isn't that, in words.
    """
    held = tomllib.loads(text)
    tokens = held.get("token")
    if set(held) != {"token"} or not isinstance(tokens, list):
        raise ValueError("it must hold tokens, each beginning with [[token]], and nothing else")
    read = tuple(_token(number, each) for number, each in enumerate(tokens, 1))
    names = [token.name for token in read]
    if len(set(names)) < len(names):
        raise ValueError("two tokens have the same name")
    return read


def _token(number: int, held: Any) -> Token:  # Any: what TOML may hold
    try:
        unknown = set(held) - {field.name for field in attrs.fields(Token)}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]!r} is unknown")
        return Token(
            _text(held, "name"),
            _digest(held),
            _role(held),
            parsePortRanges(_listed(held, "ports")),
            tuple(_listed(held, "uids")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"token {number}: {error}") from None


def _text(held: dict[str, Any], name: str) -> str:  # Any: as above
    value = held.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"{name} must be a printable text")
    return value


def _digest(held: dict[str, Any]) -> str:  # Any: as above
    value = _text(held, "sha256").lower()
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("sha256 must have 64 hexadecimal digits")
    return value


def _role(held: dict[str, Any]) -> Role:  # Any: as above
    value = held.get("role")
    if value not in (READ, OPERATE):
        raise ValueError(f"role must be {READ!r} or {OPERATE!r}")
    return READ if value == READ else OPERATE


def _listed(held: dict[str, Any], name: str) -> list[str]:  # Any: as above
    """An empty list is refused: who writes one means nothing at all, and would get everything."""
    value = held.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise ValueError(f"{name} must be a list of texts that isn't empty; leave it out to allow all")
    return value
