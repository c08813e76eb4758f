"""
The connector's rules about targets in a file, which may change while it runs.

A file in TOML, where each ``[[target]]`` has ``hosts`` (networks, or patterns of host names) and, to bound them,
``ports``. Like ``SWC_ALLOW_TARGETS``, it says what may be dialled, and nothing else may.
"""

from pathlib import Path

import attrs

from ..settings import ANY_PORT, PortRange, TargetRule
from .tomlfiles import ITEM_LIMIT, TargetHost, loadToml, parseToml


@attrs.frozen
class _Rule:
    hosts: tuple[TargetHost, ...]
    ports: tuple[PortRange, ...] = (ANY_PORT,)


@attrs.frozen
class _File:
    """What such a file holds."""

    target: tuple[_Rule, ...]


def loadTargets(path: Path) -> tuple[TargetRule, ...]:
    """
    Read the file.

    :raises errors.ConfigurationError: naming what is wrong with it; that there is no rule in it, too, since then
        everything could be dialled.
    """
    return loadToml("SWC_POLICY_PATH", path, parseTargets)


def parseTargets(text: str) -> tuple[TargetRule, ...]:
    """
    Read what such a file holds.

    :raises ValueError: when it isn't that, in words.
    """
    rules = parseToml(text, _File).target
    if sum(len(rule.hosts) * len(rule.ports) for rule in rules) > ITEM_LIMIT:  # each is looked at for every connection
        raise ValueError(f"more than {ITEM_LIMIT} pairs of hosts and ports: wider networks or ranges are needed")
    return tuple(
        TargetRule(host, ports, "SWC_POLICY_PATH") for rule in rules for host in rule.hosts for ports in rule.ports
    )
