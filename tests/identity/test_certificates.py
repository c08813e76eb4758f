import base64
import contextlib
import os
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp import identity
from socketwarp.errors import ConfigurationError
from socketwarp.identity.certificates import Credentials, loadCredentials
from socketwarp.identity.describe import describe, subjectOf
from socketwarp.interfaces import ICredentials
from socketwarp.listener.api.tls import loadTls
from tests.certs import DAY, Authority, Issued, Paths, credentials, keyPem, newKey, pem, writeFile
from tests.identity.test_chains import capturedLog


class FilesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.authority = Authority("Root")
        self.paths = self.authority.server().write(self.directory)

    def write(self, name: str, data: bytes) -> str:
        return writeFile(self.directory, name, data)

    def load(self, paths: Paths | None = None, **others: object) -> Credentials:
        at = paths or self.paths
        return loadCredentials(at.cert, at.key, at.ca, **others)  # type: ignore[arg-type]  # keywords by name

    def refusal(self, *parts: str, **others: object) -> None:
        """Loading fails in one line that has all the parts."""
        text = str(self.assertRaises(ConfigurationError, self.load, **others))
        self.assertNotIn("\n", text)
        for part in parts:
            self.assertIn(part, text)


class Loading(FilesTestCase):
    def test_it_provides_what_the_other_rooms_were_promised(self) -> None:
        loaded = self.load()
        self.assertTrue(verifyObject(ICredentials, loaded))
        self.assertEqual(x509.load_pem_x509_certificates(loaded.roots), [self.authority.cert])
        loaded.checkPeer(self.authority.issue().chain, "client", None)

    def check(self, issued: Issued, form: PrivateFormat) -> None:
        loaded = self.load(issued.write(self.directory, form=form))
        self.assertEqual(loaded.privateKey.public_key(), issued.cert.public_key())

    def test_keys_in_pkcs8_pkcs1_and_sec1_load(self) -> None:
        for kind in ("ec", "rsa"):
            issued = self.authority.issue(key=newKey("rsa" if kind == "rsa" else "ec"))
            self.check(issued, PrivateFormat.PKCS8)
            self.check(issued, PrivateFormat.TraditionalOpenSSL)

    def test_an_ed25519_key_loads(self) -> None:
        self.check(self.authority.issue(key=ed25519.Ed25519PrivateKey.generate()), PrivateFormat.PKCS8)

    def test_text_around_the_blocks_and_ec_parameters_before_the_key_do_no_harm(self) -> None:
        issued = self.authority.server()
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        self.write("end.key", b"notes\n" + parameters + keyPem(issued.key, PrivateFormat.TraditionalOpenSSL))
        self.write("end.crt", b"subject: me\n" + pem(issued.cert))
        self.assertEqual(self.load().chain, (issued.cert,))

    def test_certificate_and_key_may_share_a_file(self) -> None:
        issued = self.authority.server()
        both = self.write("both.pem", keyPem(issued.key) + pem(issued.cert))
        self.assertEqual(self.load(Paths(both, both, self.paths.ca)).chain, (issued.cert,))

    def test_a_chain_in_the_wrong_order_is_put_right_and_the_root_left_out(self) -> None:
        lower = self.authority.intermediate("Upper").intermediate("Lower")
        issued = lower.issue("listener")
        self.write("end.key", keyPem(issued.key))
        self.write("end.crt", pem(self.authority.cert, *reversed(issued.chain)))
        self.assertEqual([subjectOf(each) for each in self.load().chain], ["CN=listener", "CN=Lower", "CN=Upper"])

    def test_a_certificate_that_doesnt_belong_is_not_sent_and_warned_of(self) -> None:
        issued = self.authority.server()
        stranger = Authority("Stranger").cert
        self.write("end.key", keyPem(issued.key))
        self.write("end.crt", pem(issued.cert, stranger))
        events = capturedLog(self)
        self.assertEqual(self.load().chain, (issued.cert,))
        self.assertEqual([event["subject"] for event in events], ["CN=Stranger"])

    def test_several_roots_load(self) -> None:
        other = Authority("Another")
        self.write("ca.crt", pem(self.authority.cert, other.cert))
        self.load().checkPeer(other.issue().chain, "client", None)

    def test_revocation_lists_load_from_pem_and_der(self) -> None:
        peer = self.authority.issue()
        crl = self.authority.crl(peer)
        for data in (pem(crl), crl.public_bytes(Encoding.DER)):
            loaded = self.load(crlPaths=[self.write("list.crl", data)])
            self.assertEqual(loaded.crls, (crl,))

    def test_our_own_expired_certificate_is_only_warned_of(self) -> None:
        self.authority.issue(notBefore=-2 * DAY, notAfter=-DAY).write(self.directory)
        events = capturedLog(self)
        self.load()
        self.assertIn("peers will refuse it", events[0]["log_format"])

    def test_a_usage_for_the_other_role_is_warned_of(self) -> None:
        self.authority.issue(eku=("client",)).write(self.directory)
        events = capturedLog(self)
        self.load(role="client")
        self.assertEqual(events, [])
        self.load(role="server")
        self.assertEqual(events[0]["role"], "server")


class BadFiles(FilesTestCase):
    def test_a_missing_file_is_named_with_its_setting(self) -> None:
        os.unlink(self.paths.cert)
        self.refusal("SWL_CERT_PATH", repr(self.paths.cert), "no such file")

    def test_the_connectors_settings_are_named_for_a_connector(self) -> None:
        os.unlink(self.paths.key)
        self.refusal("client_key_path", "no such file", role="client")

    def test_a_directory_cant_be_read(self) -> None:
        os.unlink(self.paths.ca)
        os.mkdir(self.paths.ca)
        self.refusal("SWL_CA_PATH", "Is a directory")

    def test_an_empty_file(self) -> None:
        self.write("end.crt", b"\n")
        self.refusal("SWL_CERT_PATH", "empty")

    def test_a_file_that_is_too_large(self) -> None:
        self.patch(identity.pem, "MAX_FILE", 10)
        self.refusal("SWL_KEY_PATH", "larger than 10 bytes")

    def test_a_certificate_in_der(self) -> None:
        self.write("end.crt", self.authority.cert.public_bytes(Encoding.DER))
        self.refusal("SWL_CERT_PATH", "not PEM", "openssl")

    def test_the_broken_block_is_named(self) -> None:
        good = pem(self.authority.cert)
        self.write("ca.crt", good + re.sub(rb"\nM", b"\nA", pem(Authority("B").cert), count=1))
        self.refusal("SWL_CA_PATH", "block 2 (CERTIFICATE)", "damaged")

    def test_a_truncated_block_is_named(self) -> None:
        self.write("ca.crt", pem(self.authority.cert)[:200])
        self.refusal("SWL_CA_PATH", "block 1 (CERTIFICATE)", "damaged")

    def test_key_and_certificate_swapped(self) -> None:
        text = str(
            self.assertRaises(ConfigurationError, loadCredentials, self.paths.key, self.paths.cert, self.paths.ca)
        )
        self.assertIn("no PRIVATE KEY block", text)
        text = str(
            self.assertRaises(ConfigurationError, loadCredentials, self.paths.key, self.paths.key, self.paths.ca)
        )
        self.assertIn("no CERTIFICATE block", text)

    def test_a_key_of_another_certificate(self) -> None:
        self.write("end.key", keyPem(newKey()))
        self.refusal("SWL_KEY_PATH", "belongs to no certificate in SWL_CERT_PATH", "CN=listener")

    def test_two_keys_in_one_file(self) -> None:
        self.write("end.key", keyPem(newKey()) * 2)
        self.refusal("SWL_KEY_PATH", "2 private keys")

    def test_an_encrypted_key_is_called_so_in_both_forms(self) -> None:
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            secret = BestAvailableEncryption(b"secret")
            self.write("end.key", newKey().private_bytes(Encoding.PEM, form, secret))
            self.refusal("SWL_KEY_PATH", "is encrypted", "openssl pkey")

    def test_a_key_that_tls_cant_use(self) -> None:
        key = dsa.generate_private_key(1024)
        self.write("end.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.refusal("SWL_KEY_PATH", "block 1 (PRIVATE KEY)", "can't use")

    def test_a_curve_that_quic_cant_sign_with(self) -> None:
        self.authority.issue(key=ec.generate_private_key(ec.SECP384R1())).write(self.directory)
        self.load()
        for curve in (ec.SECP521R1(), ec.SECP256K1()):
            self.authority.issue(key=ec.generate_private_key(curve)).write(self.directory)
            self.refusal("SWL_KEY_PATH", curve.name, "P-256")

    def test_a_damaged_key(self) -> None:
        self.write("end.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.refusal("SWL_KEY_PATH", "block 1 (PRIVATE KEY)", "damaged")

    def test_a_revocation_list_that_is_none(self) -> None:
        self.refusal("SWL_CRL_PATHS", "neither PEM nor a DER", crlPaths=[self.write("list.crl", b"nonsense")])
        self.refusal("SWL_CRL_PATHS", "no X509 CRL block", crlPaths=[self.paths.cert])

    def test_the_error_never_shows_key_material(self) -> None:
        secret = keyPem(ec.generate_private_key(ec.SECP256R1())).splitlines()[1]
        self.write("end.key", b"-----BEGIN PRIVATE KEY-----\n" + secret[:-9] + b"\n-----END PRIVATE KEY-----\n")
        text = str(self.assertRaises(ConfigurationError, self.load))
        self.assertNotIn(secret[:12].decode(), text)


class Damaged(FilesTestCase):
    """Whatever happens to the bytes within a file, it loads, or the one error says so."""

    def setUp(self) -> None:
        super().setUp()
        issued = self.authority.intermediate().issue("listener", eku=("server",), san=("a.example", "urn:x"))
        self.paths = issued.write(self.directory)
        self.list = self.write("list.crl", pem(self.authority.crl(issued)))
        self.others = {"a.pem": self.paths.cert, "b.pem": self.paths.key, "c.pem": self.paths.ca, "d.crl": self.list}

    def damage(self, kind: str, position: float, change: int) -> None:
        at = dict(self.others)
        with open(at[kind], "rb") as file:
            label, body, tail = re.split(rb"(?<=-----)\n|\n(?=-----END)", file.read(), maxsplit=2)
        der = bytearray(base64.b64decode(body))
        der[int(position * len(der))] ^= change
        at[kind] = self.write(kind, label + b"\n" + base64.encodebytes(bytes(der)) + tail)
        with contextlib.suppress(ConfigurationError):
            loadCredentials(at["a.pem"], at["b.pem"], at["c.pem"], [at["d.crl"]])
        with contextlib.suppress(ConfigurationError):
            loadTls(Path(at["a.pem"]), Path(at["b.pem"]), Path(at["c.pem"]))

    def test_a_changed_byte_in_any_file_is_an_error_of_the_configuration_or_none(self) -> None:
        @settings(max_examples=400, deadline=None)
        @given(
            strategies.sampled_from(sorted(self.others)),
            strategies.floats(0, 1, exclude_max=True),
            strategies.integers(1, 255),
        )
        def run(kind: str, position: float, change: int) -> None:
            self.damage(kind, position, change)

        run()


class Descriptions(SynchronousTestCase):
    def test_what_matters_is_told(self) -> None:
        authority = Authority("Root")
        issued = authority.issue("web", san=("web.example", "192.0.2.1", "urn:x:web"), ku=("digital_signature",))
        told = describe(issued.cert)
        self.assertEqual((told.subject, told.issuer, told.isAuthority), ("CN=web", "CN=Root", False))
        self.assertEqual(told.names, ("DNS:web.example", "IP:192.0.2.1", "URI:urn:x:web"))
        self.assertEqual(told.usages, ("digitalSignature", "clientAuth", "serverAuth"))
        self.assertEqual(told.daysLeft, 29)
        self.assertIn("29 days left", str(told))

    def test_a_root_is_called_self_signed_and_an_authority(self) -> None:
        told = describe(Authority("Root").cert)
        lines = dict(told.lines())
        self.assertEqual(lines["issuer"], "CN=Root (self-signed)")
        self.assertEqual(lines["usages"], "keyCertSign, cRLSign")
        self.assertEqual((lines["authority"], lines["names"]), ("yes (CA:TRUE)", "-"))

    def test_a_certificate_that_is_not_limited_says_any_usage(self) -> None:
        issued = Authority("Root").issue(ku=None, eku=None)
        self.assertEqual(dict(describe(issued.cert).lines())["usages"], "any")

    def test_credentials_keep_their_key_out_of_logs(self) -> None:
        authority = Authority("Root")
        self.assertNotIn("rivate", repr(credentials(authority.server(), authority)))
