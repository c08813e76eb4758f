"""
Tokens of the API: a file of names, digests and what each may.

A file in TOML, where each token is ``[[token]]`` with ``name``, ``sha256`` (of the token's text, in hexadecimal),
``role`` (``read`` or ``operate``) and, to bound it, ``ports`` and ``uids``. A token is made by chance, 256 bits of it,
so that a plain SHA-256 can't be turned back; the file itself lets nobody in.
"""

from pathlib import Path
from typing import Literal

import attrs
from attrs import validators

from ..settings import PortRange
from .tomlfiles import loadToml, parseToml

#: What a caller may: see, or change as well.
Role = Literal["read", "operate"]
READ: Role = "read"
OPERATE: Role = "operate"


def _lower(text: str) -> str:
    return text.lower()


@attrs.frozen
class Token:
    """
    A token, as it is known here.

    :ivar sha256: of its text, in hexadecimal.
    :ivar ports: entry ports it has to do with; empty: all. ``uids``: the same of uids, as patterns.
    """

    name: str
    sha256: str = attrs.field(repr=False, converter=_lower, validator=validators.matches_re("[0-9a-f]{64}"))
    role: Role
    ports: tuple[PortRange, ...] = ()
    uids: tuple[str, ...] = ()


@attrs.frozen
class _File:
    """What such a file holds."""

    token: tuple[Token, ...]


def loadTokens(path: Path) -> tuple[Token, ...]:
    """
    Read the file.

    :raises errors.ConfigurationError: naming what is wrong with it.
    """
    return loadToml("APIS_TOKENS_FILE", path, parseTokens)


def parseTokens(text: str) -> tuple[Token, ...]:
    """
    Read what such a file holds.

    :raises ValueError: when it isn't that, in words.
    """
    tokens = parseToml(text, _File).token
    if len({token.name for token in tokens}) < len(tokens):
        raise ValueError("two tokens have the same name")
    return tokens
