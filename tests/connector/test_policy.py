"""Which targets may be dialled."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.policy import REFUSED, Policy, forms
from socketwarp.errors import TargetDenied
from socketwarp.rules.targets import parseTargets
from socketwarp.settings import parseTargetRules

METADATA = "169.254.169.254"
#: Each of them leads to the metadata address.
DISGUISES = (
    METADATA,
    f"::ffff:{METADATA}",
    f"::{METADATA}",
    f"64:ff9b::{METADATA}",
    f"64:ff9b:1::{METADATA}",
    "64:ff9b:1:a9fe:a9:fe00::",  # by a prefix of 48 bits
    "64:ff9b:1:a9:fe:a9fe::",  # of 56
    "64:ff9b:1:0:a9:fea9:fe00:0",  # of 64
    f"::ffff:0:{METADATA}",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    f"2001:db8::5efe:{METADATA}",
    f"2001:db8::200:5efe:{METADATA}",
)


class PolicyTests(SynchronousTestCase):
    """What the test cases share."""

    def policy(self, rules: str) -> Policy:
        return Policy(parseTargetRules(rules) if rules else ())

    def allows(self, rules: str, host: str, address: str, port: int = 80) -> bool:
        try:
            self.policy(rules).check(host, ip_address(address), port)
        except TargetDenied:
            return False
        return True

    def reason(self, rules: str, host: str, address: str, port: int = 80) -> str:
        with self.assertRaises(TargetDenied) as caught:
            self.policy(rules).check(host, ip_address(address), port)
        return str(caught.exception)


class WithoutRules(PolicyTests):
    """Everything, but for what no visitor should reach."""

    def test_ordinaryTargets(self) -> None:
        """Loopback and private networks are what a connector is for."""
        for address in ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd00::1", "192.0.2.1", "2001:db8::1"):
            self.assertTrue(self.allows("", address, address), address)

    def test_builtInRefusals(self) -> None:
        """Link-local and metadata addresses, and what isn't an address."""
        for address in ("169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200",
                        "fd00:100::100:200", "fd00:a9fe:a9fe::1", "fd00:42::42", "fd00:c1::a9fe:a9fe", "168.63.129.16",
                        "192.0.0.192", "0.0.0.0", "0.1.2.3", "::"):  # fmt: skip
            self.assertFalse(self.allows("", address, address), address)

    def test_disguises(self) -> None:
        """An IPv4 address inside an IPv6 one is looked at, too."""
        for address in DISGUISES:
            self.assertIn("about 169.254.0.0/16", self.reason("", address, address))

    def test_gatewaysToOrdinaryTargets(self) -> None:
        """Whatever the length of their prefix (RFC 6052 §2.4)."""
        for address in ("64:ff9b::192.0.2.33", "64:ff9b:1::192.0.2.33", "64:ff9b:1:c000:2:2100::",
                        "64:ff9b:1:c0:0:221::", "64:ff9b:1:0:c0:2:2100:0"):  # fmt: skip
            self.assertTrue(self.allows("", address, address), address)
            self.assertIn(ip_address("192.0.2.33"), forms(ip_address(address)))

    def test_theReasonNamesTheTarget(self) -> None:
        """As it was asked for, as it resolved, and why."""
        self.assertEqual(
            self.reason("", "meta.example.net", f"64:ff9b::{METADATA}"),
            f"meta.example.net:80 ({METADATA}) is refused by the built-in rule about 169.254.0.0/16: link-local, where "
            "clouds keep their metadata service",
        )
        self.assertEqual(
            self.reason("", "fe80::1", "fe80::1"),
            "[fe80::1]:80 is refused by the built-in rule about fe80::/10: link-local",
        )

    @given(st.sampled_from(REFUSED), st.data())
    def test_theWholeOfARefusedNetwork(self, refused: tuple[object, str], data: st.DataObject) -> None:
        """From its first address to its last, and mapped into IPv6."""
        network = ip_network(str(refused[0]))
        address = network[data.draw(st.integers(0, min(network.num_addresses, 2**60) - 1))]
        self.assertFalse(self.allows("", "x", str(address)))
        if network.version == 4:
            self.assertFalse(self.allows("", "x", f"::ffff:{address}"))


class WithRules(PolicyTests):
    """Nothing but what a rule allows."""

    def test_networksAndPorts(self) -> None:
        """Both must match."""
        rules = "10.0.0.0/8:22 [2001:db8::/32]:8000-8001"
        self.assertTrue(self.allows(rules, "10.1.1.1", "10.1.1.1", 22))
        self.assertFalse(self.allows(rules, "10.1.1.1", "10.1.1.1", 23))
        self.assertFalse(self.allows(rules, "11.1.1.1", "11.1.1.1", 22))
        self.assertTrue(self.allows(rules, "2001:db8::1", "2001:db8::1", 8001))
        self.assertFalse(self.allows(rules, "2001:db8::1", "2001:db8::1", 8002))
        self.assertFalse(self.allows(rules, "127.0.0.1", "127.0.0.1", 22))
        self.assertIn("not among the targets that our rules allow", self.reason(rules, "::1", "::1"))

    def test_theReasonNamesTheRuleAndItsSetting(self) -> None:
        """That which has to do with the target, and no others: the listener needn't know them."""
        rules = "10.0.0.0/8:22 *.lan:443"
        end = "is not among the targets that our rules allow: "
        self.assertTrue(self.reason(rules, "::1", "::1").endswith(end + "none of SWC_ALLOW_TARGETS names it"))
        self.assertTrue(
            self.reason(rules, "10.0.0.1", "10.0.0.1").endswith(
                end + "10.0.0.0/8:22 of SWC_ALLOW_TARGETS is for other ports"
            )
        )
        self.assertTrue(
            self.reason(rules, "db.lan", "192.0.2.1").endswith(
                end + "*.lan:443 of SWC_ALLOW_TARGETS is for other ports"
            )
        )
        both = Policy((*parseTargetRules(rules), *parseTargets("[[target]]\nhosts = ['192.0.2.0/24']\nports = ['22']")))
        for host, words in (
            ("::1", "none of SWC_ALLOW_TARGETS and SWC_POLICY_PATH names it"),
            ("192.0.2.1", "192.0.2.0/24:22 of SWC_POLICY_PATH is for other ports"),
        ):
            error = self.assertRaises(TargetDenied, both.check, host, ip_address(host), 80)
            self.assertIn(words, str(error))

    def test_theReasonIsBounded(self) -> None:
        long = f"{'a' * 5000}*:22"
        self.assertLess(len(self.reason(long, "a" * 5000, "192.0.2.1")), 5000 + 500)

    def test_aNamesAddressIsWhatCounts(self) -> None:
        """For a network it is the same however one came to the address."""
        self.assertTrue(self.allows("10.0.0.0/8", "db.example.net", "10.0.0.1"))
        self.assertFalse(self.allows("10.0.0.0/8", "db.example.net", "192.0.2.1"))

    def test_patternsSpeakAboutNames(self) -> None:
        """In any case, with or without the final dot; never about addresses, but for ``*``."""
        for host, allowed in (
            ("db.example.net", True),
            ("DB.Example.Net.", True),
            ("example.net", False),
            ("db.example.net.evil.org", False),
            ("dbxexample.net", False),
        ):
            self.assertEqual(self.allows("*.example.net", host, "10.0.0.1"), allowed, host)
        self.assertTrue(self.allows("*:80", "10.0.0.1", "10.0.0.1", 80))
        self.assertFalse(self.allows("*:80", "10.0.0.1", "10.0.0.1", 81))
        self.assertFalse(self.allows("*f", "::f", "::f"))

    def test_aNameThatResolvesToARefusedAddress(self) -> None:
        """A pattern doesn't lift what is built in."""
        for rule in ("*", "*.example.net", "0.0.0.0/0 ::/0"):
            for address in DISGUISES:
                self.assertFalse(self.allows(rule, "meta.example.net", address), (rule, address))

    def test_aRefusalIsLiftedByName(self) -> None:
        """Only by a rule for a network inside of it."""
        for rule in ("169.254.169.254:80", "169.254.0.0/16"):
            self.assertTrue(self.allows(rule, METADATA, METADATA), rule)
            self.assertTrue(self.allows(rule, METADATA, f"::ffff:{METADATA}"), rule)
        self.assertFalse(self.allows("169.254.169.254:81", METADATA, METADATA))
        self.assertFalse(self.allows("169.254.169.254:81 0.0.0.0/0", METADATA, METADATA))
        self.assertFalse(self.allows("169.254.169.253", METADATA, METADATA))
        self.assertFalse(self.allows("169.254.0.0/15", METADATA, METADATA))

    def test_everyFormMustBeAllowed(self) -> None:
        """A gateway's address is no way round a rule about IPv4."""
        address = "64:ff9b::192.168.0.1"
        self.assertFalse(self.allows("::/0 10.0.0.0/8", address, address))
        self.assertFalse(self.allows("192.168.0.0/16", address, address))
        self.assertTrue(self.allows("64:ff9b::/96 192.168.0.0/16", address, address))

    def test_mappedAddressesAreIpv4(self) -> None:
        """As they are for the kernel."""
        self.assertTrue(self.allows("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.1"))
        self.assertFalse(self.allows("::/0", "::ffff:127.0.0.1", "::ffff:127.0.0.1"))


class Forms(SynchronousTestCase):
    """The addresses inside of an address."""

    def test_loopbackIsOnlyItself(self) -> None:
        """``::1`` has no IPv4 address inside, though its last bits look like one."""
        self.assertEqual(forms(ip_address("::1")), [ip_address("::1")])

    def test_teredoHasTwo(self) -> None:
        """Server and client (RFC 4380 §4)."""
        found = forms(ip_address("2001:0:0a00:0001:0:0:f5ff:fffd"))
        self.assertIn(ip_address("10.0.0.1"), found)
        self.assertIn(ip_address("10.0.0.2"), found)
