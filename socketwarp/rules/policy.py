"""
Rules of the operator, beyond what a single port's limits say. Pure: decides, and says which rule decided.

A file in TOML with three kinds of rules. Of each kind, nothing is allowed that no rule names, once there is one;
without any, everything is. Whatever a rule leaves out it means all of.

- ``[[port]]``: which ``uids`` (patterns), or connectors of which the verifier knows these ``attributes``, may have
  which ``ports`` on which addresses (``bind``).
- ``[[visitor]]``: from which ``sources`` (networks) visitors may come to which ``ports``.
- ``[[rate]]``: to each of these ``ports``, ``connections_per_second``, and ``burst`` of them at once; and
  ``bytes_per_second`` for all its visitors together, in and out. The first that fits counts; ports that none fits have
  no limit.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import attrs

from ..errors import PortDenied, SourceDenied
from ..settings import PortRange
from .tomlfiles import AddressText, Network, loadToml, parseToml


class Wish(Protocol):
    """What of a wished port its rules ask about."""

    @property
    def port(self) -> int:
        """The TCP port; 0: any free one."""

    @property
    def uid(self) -> str:
        """Whose connector carries its visitors."""

    @property
    def bindAddress(self) -> str:
        """The local address that visitors connect to, written as an `AddressText` is."""


@attrs.frozen
class PortRule:
    """A ``[[port]]`` rule."""

    uids: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = attrs.field(factory=dict)  # Any: JSON of the verifier's making
    ports: tuple[PortRange, ...] = ()
    bind: tuple[AddressText, ...] = ()

    def fits(self, spec: Wish, known: Mapping[str, Any] | None) -> bool:  # Any: as above
        """
        Whether it allows a port.

        :param known: what the verifier said of the connector; `None` while it is away: then it isn't asked for.
        """
        return (
            (not self.uids or any(fnmatchcase(spec.uid, each) for each in self.uids))
            and _among(spec.port, self.ports)
            and (not self.bind or spec.bindAddress in self.bind)
            and (known is None or all(name in known and known[name] == each for name, each in self.attributes.items()))
        )


@attrs.frozen
class VisitorRule:
    """A ``[[visitor]]`` rule."""

    ports: tuple[PortRange, ...] = ()
    sources: tuple[Network, ...] = ()

    def fits(self, port: int, host: str) -> bool:
        """Whether it lets a visitor in."""
        address = ip_address(host)
        return _among(port, self.ports) and (not self.sources or any(address in each for each in self.sources))


@attrs.frozen
class RateRule:
    """
    A ``[[rate]]`` rule; what is `None` has no limit.

    :ivar burst: connections at once; `None`: as many as in a second, and one at least.
    """

    connections_per_second: float | None = None
    burst: float | None = None
    bytes_per_second: float | None = None
    ports: tuple[PortRange, ...] = ()

    @property
    def atOnce(self) -> float:
        """How many may come at once."""
        return max(1.0, self.burst or self.connections_per_second or 1.0)

    def __str__(self) -> str:
        """For people."""
        words = []
        if self.connections_per_second is not None:
            words.append(f"{self.connections_per_second:.15g} connections a second")
        if self.bytes_per_second is not None:
            words.append(f"{self.bytes_per_second:.15g} bytes a second, of all visitors together")
        return " and ".join(words)


def _among(port: int, ranges: Sequence[PortRange]) -> bool:
    """Port 0 is any free one, which is asked about again when it is known."""
    return not ranges or port == 0 or any(port in each for each in ranges)


@attrs.frozen
class Decision:
    """
    What the rules of one kind say.

    :ivar rule: which rule decided, for people.
    """

    allowed: bool
    rule: str


@attrs.frozen
class Policy:
    """All rules; without any, everything is allowed."""

    port: tuple[PortRule, ...] = ()
    visitor: tuple[VisitorRule, ...] = ()
    rate: tuple[RateRule, ...] = ()

    def decidePort(self, spec: Wish, known: Mapping[str, Any] | None) -> Decision:  # Any: see PortRule
        """Whether a port may be open; see `PortRule.fits`."""
        return _decide("port", [rule.fits(spec, known) for rule in self.port])

    def decideVisitor(self, port: int, host: str) -> Decision:
        """Whether a visitor may come in."""
        return _decide("visitor", [rule.fits(port, host) for rule in self.visitor])

    def checkPort(self, spec: Wish, known: Mapping[str, Any] | None) -> None:  # Any: see PortRule
        """:raises errors.PortDenied: when `decidePort` says no."""
        if not self.port:
            return  # asked for each visitor, and most listeners have no rules
        decision = self.decidePort(spec, known)
        if not decision.allowed:
            raise PortDenied(f"port {spec.port} on {spec.bindAddress} isn't for {spec.uid}: {decision.rule}")

    def checkVisitor(self, port: int, host: str) -> None:
        """:raises errors.SourceDenied: when `decideVisitor` says no."""
        if not self.visitor:
            return
        decision = self.decideVisitor(port, host)
        if not decision.allowed:
            raise SourceDenied(f"port {port} is not for visitors from {host}: {decision.rule}")

    def pace(self, port: int) -> RateRule | None:
        """How often visitors may come to a port, and what they may move; `None`: as they like."""
        return next((rule for rule in self.rate if _among(port, rule.ports)), None)


def _decide(kind: str, fits: list[bool]) -> Decision:
    if not fits:
        return Decision(True, f"there are no [[{kind}]] rules")
    if True in fits:
        return Decision(True, f"[[{kind}]] rule {fits.index(True) + 1} of SWL_POLICY_PATH allows it")
    return Decision(False, f"no [[{kind}]] rule of SWL_POLICY_PATH allows it")


def loadPolicy(path: Path) -> Policy:
    """
    Read the file.

    :raises errors.ConfigurationError: naming what is wrong with it; that there is no rule in it, too, as in one that is
        just being written anew, since then everything would be allowed.
    """
    return loadToml("SWL_POLICY_PATH", path, _parseRules)


def _parseRules(text: str) -> Policy:
    policy = parsePolicy(text)
    if policy == ANYTHING:
        raise ValueError("there is no rule in it, so everything would be allowed; for that, name no file")
    return policy


def parsePolicy(text: str) -> Policy:
    """
    Read what such a file holds.

    :raises ValueError: when it isn't that, in words.
    """
    policy = parseToml(text, Policy)
    for number, rate in enumerate(policy.rate, 1):
        if rate.connections_per_second is None and (rate.bytes_per_second is None or rate.burst is not None):
            raise ValueError(
                f"[[rate]] rule {number}: connections_per_second or bytes_per_second is needed; burst is of the former"
            )
    return policy


#: Without rules.
ANYTHING = Policy()
