import json
import os

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli.main import commands
from socketwarp.identity.certificates import Credentials, loadCredentials
from socketwarp.identity.describe import describe
from tests.certs import Authority, pem, writeFile


class GencertTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def at(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def run_(self, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(commands, ["gencert", *arguments])
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def make(self, *arguments: str, status: int = 0) -> Result:
        return self.run_(*arguments, "--key-type", "ec", "--out", self.directory, status=status)

    def load(self, name: str, ca: str = "ca.crt") -> Credentials:
        return loadCredentials(self.at(f"{name}.crt"), self.at(f"{name}.key"), self.at(ca))


class PrivateAuthority(GencertTestCase):
    def test_ca_listener_and_connector_make_two_ends_that_accept_each_other(self) -> None:
        self.make("ca")
        self.make("listener", "--host", "web.example", "--host", "192.0.2.1")
        told = self.make("connector", "--cn", "swc-1")
        self.assertIn("CN=swc-1", told.output)
        listener, connector = self.load("server"), self.load("client")
        listener.checkPeer(connector.chain, "client", None)
        connector.checkPeer(listener.chain, "server", "192.0.2.1")

    def test_json_says_what_was_made(self) -> None:
        (ca,) = json.loads(self.make("ca", "--json").stdout)
        self.assertEqual((self.at("ca.crt"), self.at("ca.key"), True), (ca["cert"], ca["key"], ca["is_authority"]))
        (listener,) = json.loads(self.make("listener", "--host", "web.example", "--json").stdout)
        self.assertEqual(["DNS:web.example"], listener["names"])
        (shown,) = json.loads(self.run_("show", self.at("server.crt"), "--json").stdout)
        self.assertEqual(listener, listener | shown)

    def test_a_second_run_replaces_nothing_without_force(self) -> None:
        self.make("ca")
        before = os.stat(self.at("ca.key")).st_ino
        self.assertIn("--force", self.make("ca", status=78).output)
        self.assertEqual(os.stat(self.at("ca.key")).st_ino, before)
        self.make("ca", "--force")
        self.assertNotEqual(os.stat(self.at("ca.key")).st_ino, before)

    def test_a_long_host_name_is_no_common_name(self) -> None:
        self.make("ca")
        long = f"{'a' * 60}.example"
        told = self.make("listener", "--host", long)
        self.assertIn("CN=listener", told.output)
        self.load("server")
        self.assertIn(
            "CN=web.example", self.make("listener", "--host", long, "--host", "web.example", "--force").output
        )

    def test_without_an_authority_the_error_names_the_missing_file(self) -> None:
        self.assertIn("ca.crt", self.make("connector", "--cn", "swc-1", status=78).output)

    def test_days_can_be_chosen(self) -> None:
        self.make("ca")
        self.make("connector", "--cn", "swc-1", "--days", "7")
        self.assertEqual(describe(self.load("client").chain[0]).daysLeft, 6)


class OneStep(GencertTestCase):
    def test_both_ends_in_one_call_accept_each_other(self) -> None:
        files = [f"--{end}={self.at(end)}" for end in ("serverCert", "serverKey", "clientCert", "clientKey")]
        self.run_(*files, "--cn", "swc-1", "--host", "web.example", "--key-type", "ec")
        listener = loadCredentials(self.at("serverCert"), self.at("serverKey"), self.at("clientCert"))
        connector = loadCredentials(self.at("clientCert"), self.at("clientKey"), self.at("serverCert"))
        listener.checkPeer(connector.chain, "client", None)
        for name in ("web.example", "localhost", "127.0.0.1"):
            connector.checkPeer(listener.chain, "server", name)

    def test_the_listeners_common_name_is_one_of_its_names(self) -> None:
        for cn, expected in (("far.example", True), ("The listener", False)):
            options = ("--serverCert", self.at("s.crt"), "--serverKey", self.at("s.key"), "--key-type", "ec", "--force")
            (made,) = json.loads(self.run_(*options, "--cn", cn, "--json").stdout)
            self.assertEqual(expected, f"DNS:{cn}" in made["names"])

    def test_each_file_needs_a_place_of_its_own(self) -> None:
        result = self.run_("--serverCert", self.at("a"), "--serverKey", self.at("./a"), status=2)
        self.assertIn("a file of its own", result.output)
        self.assertFalse(os.path.exists(self.at("a")))

    def test_half_a_pair_is_a_usage_error(self) -> None:
        self.assertIn("go together", self.run_("--serverCert", self.at("a"), status=2).output)

    def test_a_connectors_certificate_needs_its_uid(self) -> None:
        result = self.run_("--clientCert", self.at("a"), "--clientKey", self.at("b"), status=2)
        self.assertIn("--cn", result.output)

    def test_nothing_to_make_is_a_usage_error(self) -> None:
        self.assertIn("say what to make", self.run_(status=2).output)

    def test_the_two_forms_dont_mix(self) -> None:
        result = self.run_("--serverCert", self.at("a"), "--serverKey", self.at("b"), "ca", status=2)
        self.assertIn("don't go with ca", result.output)


class Show(GencertTestCase):
    def test_every_certificate_of_the_file_is_shown_with_days_left(self) -> None:
        authority = Authority("Root")
        file = writeFile(self.directory, "chain.crt", pem(authority.issue("swc-1").cert, authority.cert))
        output = self.run_("show", file).output
        self.assertEqual(output.count("certificate "), 2)
        self.assertIn("days left    29", output)
        self.assertIn("CN=Root (self-signed)", output)

    def test_a_file_without_certificates_is_a_failure(self) -> None:
        self.assertIn("no such file", self.run_("show", self.at("nothing"), status=78).output)

    def test_a_certificate_with_a_broken_extension_is_named(self) -> None:
        nonsense = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), b"\x30\x03\x82\x01\xff")
        issued = Authority("Root").issue(extensions=[nonsense])
        file = writeFile(self.directory, "odd.crt", pem(issued.cert))
        self.assertIn("block 1 (CERTIFICATE) is damaged", self.run_("show", file, status=78).output)
