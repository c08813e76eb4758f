"""What a wish may be."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.listener.wishes import PortLimits, PortOptions, PortSpec


class PortSpecTests(SynchronousTestCase):
    """What a wish says of its target."""

    def test_addressesAreDialledWithoutAndShownWithBrackets(self) -> None:
        for host in ("::1", "[::1]"):
            spec = PortSpec(1, "u", host, 80)
            self.assertEqual(("::1", "[::1]:80"), (spec.dialHost, spec.target))
        self.assertEqual("db.example:80", PortSpec(1, "u", "db.example", 80).target)

    def test_whatMakesNoSenseIsRefused(self) -> None:
        wishes: list[tuple[Any, ...]] = [  # Any: arguments of all types
            (-1, "u", "h", 1),
            (65536, "u", "h", 1),
            (1, "u", "h", 0),
            (1, "u", "h", 1, "localhost"),
            (1, "u", "h", 1, ""),
        ]
        for wish in wishes:
            self.assertRaises(ValueError, PortSpec, *wish)


class PortLimitsTests(SynchronousTestCase):
    """What limits a port."""

    def test_whatMakesNoSenseIsRefused(self) -> None:
        for name, values in (
            ("expires", (-1, float("nan"), float("inf"))),
            ("total", (0, -1)),
            ("atOnce", (0,)),
            ("idleSeconds", (0, -1, float("inf"), 1e12)),
            ("sources", (tuple(IPv4Network(number) for number in range(1001)),)),
        ):
            for value in values:
                limits: dict[str, Any] = {name: value}  # Any: values of all types
                self.assertRaises(ValueError, PortLimits, **limits)
        self.assertRaises(ValueError, PortOptions, proxyProtocol=3)

    def test_sourcesAreNetworksOfBothFamilies(self) -> None:
        limits = PortLimits(sources=(IPv4Network("192.0.2.0/24"), IPv6Network("fe80::/10")))
        for host, isAllowed in (
            ("192.0.2.255", True),
            ("192.0.3.1", False),
            ("fe80::1%eth0", True),
            ("2001:db8::1", False),
        ):
            self.assertEqual(isAllowed, limits.allows(host), host)

    def test_withoutSourcesEverybodyMayCome(self) -> None:
        self.assertTrue(PortLimits().allows("2001:db8::1"))

    def test_aLeaseIsOverByTimeOrByNumber(self) -> None:
        limits = PortLimits(expires=100.0, total=3)
        self.assertEqual("", limits.overBy(99.9, 2))
        self.assertIn("time", limits.overBy(100.0, 0))
        self.assertIn("3 connections", limits.overBy(0, 3))
        self.assertEqual("", PortLimits().overBy(1e12, 10**9))
