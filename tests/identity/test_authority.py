import os
import socket
import stat
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import identity
from socketwarp.errors import CertificateRejected, ConfigurationError
from socketwarp.identity.authority import (
    Made,
    loadAuthority,
    makeAuthority,
    makeKey,
    makeLeaf,
    makeSelfSigned,
    ownHosts,
)
from socketwarp.identity.certificates import Credentials, loadCredentials
from socketwarp.identity.describe import describe
from socketwarp.identity.files import Output, certificateFile, keyFile, writeAll
from socketwarp.identity.pem import SettingFile
from tests.certs import keyPem, newKey, pem, writeFile


def credentialsOf(made: Made, *roots: Made) -> Credentials:
    return Credentials((made.certificate,), made.key, [each.certificate for each in roots])


class PrivateAuthority(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = makeAuthority("Root", "ec")
        self.listener = makeLeaf(self.root, "server", "web", ["web.example", "192.0.2.1"], "ec")
        self.connector = makeLeaf(self.root, "client", "swc-1", [], "ec")

    def test_both_ends_accept_each_other(self) -> None:
        credentialsOf(self.listener, self.root).checkPeer([self.connector.certificate], "client", None)
        checking = credentialsOf(self.connector, self.root)
        checking.checkPeer([self.listener.certificate], "server", "web.example")
        checking.checkPeer([self.listener.certificate], "server", "192.0.2.1")

    def test_an_end_cant_stand_in_for_the_other(self) -> None:
        checking = credentialsOf(self.listener, self.root)
        self.assertRaises(CertificateRejected, checking.checkPeer, [self.listener.certificate], "client", None)

    def test_usages_and_life_are_what_they_should_be(self) -> None:
        told = describe(self.listener.certificate)
        self.assertEqual(told.usages, ("digitalSignature", "serverAuth"))
        self.assertEqual((told.isAuthority, told.daysLeft), (False, 364))
        self.assertEqual(describe(self.root.certificate).usages, ("keyCertSign", "cRLSign"))

    def test_a_leaf_doesnt_outlive_its_authority(self) -> None:
        short = makeAuthority("Short", "ec", days=10)
        leaf = makeLeaf(short, "client", "swc-1", [], "ec", days=100)
        self.assertEqual(leaf.certificate.not_valid_after_utc, short.certificate.not_valid_after_utc)

    def test_an_authority_with_an_ed25519_key_can_sign(self) -> None:
        root = makeAuthority("Root", "ec")
        key = ed25519.Ed25519PrivateKey.generate()
        with mock.patch.object(identity.authority, "makeKey", return_value=key):
            root = makeAuthority("Root", "ec")
        leaf = makeLeaf(root, "client", "swc-1", [], "ec")
        credentialsOf(self.listener, root).checkPeer([leaf.certificate], "client", None)

    def test_keys_are_rsa_4096_or_p256(self) -> None:
        with mock.patch.object(rsa, "generate_private_key", return_value=newKey("rsa")) as generate:
            self.assertIsInstance(makeKey("rsa"), rsa.RSAPrivateKey)
        generate.assert_called_once_with(65537, 4096)
        key = makeKey("ec")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(key.curve.name, "secp256r1")

    def test_names_that_cant_stand_in_a_certificate_are_refused(self) -> None:
        for cn in ("", "a\nb", "x" * 65):
            self.assertRaises(ConfigurationError, makeLeaf, self.root, "client", cn, [], "ec")
        for host in ("", "a b", "a..b", "x" * 70, "fe80::1%eth0"):
            self.assertRaises(ConfigurationError, makeLeaf, self.root, "server", "web", [host], "ec")

    def test_an_international_name_is_written_as_dns_has_it(self) -> None:
        leaf = makeLeaf(self.root, "server", "web", ["büro.example", "[::1]"], "ec")
        self.assertEqual(describe(leaf.certificate).names, ("DNS:xn--bro-hoa.example", "IP:::1"))


class SelfSigned(SynchronousTestCase):
    def test_two_parties_who_exchange_files_accept_each_other(self) -> None:
        listener = makeSelfSigned("server", "web", ["web.example"], "ec")
        connector = makeSelfSigned("client", "swc-1", ["somewhere"], "ec")
        credentialsOf(listener, connector).checkPeer([connector.certificate], "client", None)
        credentialsOf(connector, listener).checkPeer([listener.certificate], "server", "web.example")

    def test_it_is_as_the_original_makes_it(self) -> None:
        told = describe(makeSelfSigned("server", "web", ["web.example"], "ec").certificate)
        self.assertEqual((told.subject, told.isAuthority), (told.issuer, True))
        self.assertEqual(told.usages, ("digitalSignature", "keyEncipherment", "keyCertSign", "serverAuth"))

    def test_this_machines_names_begin_with_its_host_name(self) -> None:
        hosts = ownHosts()
        self.assertEqual(hosts[:2], list(dict.fromkeys([socket.gethostname(), "localhost"])))
        self.assertLess({"127.0.0.1", "::1"}, {*hosts, "more"})

    def test_a_machine_without_network_has_its_loopback_names(self) -> None:
        with (
            mock.patch.object(socket, "gethostname", return_value="alone"),
            mock.patch.object(socket, "getaddrinfo", side_effect=OSError),
            mock.patch.object(socket.socket, "connect", side_effect=OSError),
        ):
            self.assertEqual(ownHosts(), ["alone", "localhost", "127.0.0.1", "::1"])


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.root = makeAuthority("Root", "ec")
        self.cert, self.key = os.path.join(self.directory, "a.crt"), os.path.join(self.directory, "a.key")
        self.outputs = [keyFile(self.key, self.root.key), certificateFile(self.cert, [self.root.certificate])]

    def test_what_was_written_loads_and_the_key_is_its_owners_alone(self) -> None:
        writeAll(self.outputs)
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)
        loaded = loadCredentials(self.cert, self.key, self.cert)
        self.assertEqual(loaded.chain, (self.root.certificate,))

    def test_nothing_is_overwritten_without_force(self) -> None:
        os.mkdir(self.directory)
        writeFile(self.directory, "a.crt", b"precious")
        error = self.assertRaises(ConfigurationError, writeAll, self.outputs)
        self.assertIn("--force", str(error))
        self.assertEqual(os.listdir(self.directory), ["a.crt"])
        writeAll(self.outputs, force=True)
        self.assertEqual(sorted(os.listdir(self.directory)), ["a.crt", "a.key"])

    def test_a_file_that_appears_meanwhile_is_not_overwritten_either(self) -> None:
        os.mkdir(self.directory)
        with mock.patch("socketwarp.identity.files.checkFree"):
            writeFile(self.directory, "a.key", b"precious")
            self.assertRaises(ConfigurationError, writeAll, self.outputs)
        with open(self.key, "rb") as file:
            self.assertEqual(file.read(), b"precious")
        self.assertEqual(os.listdir(self.directory), ["a.key"])

    def test_a_place_that_cant_be_written_is_named(self) -> None:
        writeFile(".", self.directory, b"not a directory")
        error = self.assertRaises(ConfigurationError, writeAll, self.outputs)
        self.assertIn(self.directory, str(error))

    def test_a_second_file_that_fails_leaves_nothing_half_written(self) -> None:
        bad = Output(os.path.join(self.directory, "x" * 300), b"")
        self.assertRaises(ConfigurationError, writeAll, [self.outputs[0], bad])
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_key_replaced_over_an_open_one_is_private_all_the_same(self) -> None:
        writeAll([Output(self.key, b"old", 0o644)])
        writeAll(self.outputs, force=True)
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)

    def test_an_authority_is_loaded_again(self) -> None:
        writeAll(self.outputs)
        cert, key = SettingFile("cert", self.cert), SettingFile("key", self.key)
        self.assertEqual(loadAuthority(cert, key).certificate, self.root.certificate)
        writeFile(self.directory, "a.key", keyPem(newKey()))
        self.assertIn("isn't the key", str(self.assertRaises(ConfigurationError, loadAuthority, cert, key)))

    def test_a_written_key_is_pkcs8_and_a_chain_keeps_its_order(self) -> None:
        self.assertEqual(
            self.outputs[0].data,
            self.root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        other = makeAuthority("Other", "ec").certificate
        output = certificateFile("x", [self.root.certificate, other])
        self.assertEqual(x509.load_pem_x509_certificates(output.data), [self.root.certificate, other])
        self.assertEqual(output.data, pem(self.root.certificate, other))
