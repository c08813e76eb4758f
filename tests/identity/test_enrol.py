import os
import stat
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import (
    PKCS7EnvelopeBuilder,
    PKCS7Options,
    serialize_certificates,
)
from cryptography.x509.oid import AttributeOID
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from socketwarp import identity
from socketwarp.errors import ConfigurationError, EnrolmentFault, EnrolmentRefused
from socketwarp.identity.certificates import loadCredentials
from socketwarp.identity.describe import describe, fingerprintOf
from socketwarp.identity.enrol import Enrolled, Enrolment, EnrolmentFiles, enrol
from socketwarp.identity.pkimessage import (
    MESSAGE_TYPE,
    PKI_STATUS,
    RECIPIENT_NONCE,
    TRANSACTION_ID,
    Transaction,
    signedMessage,
)
from tests.certs import Authority, commonName, newKey, writeFile
from tests.scepenrol import _sealedWithDes, _signedWithSha1, enrolAnswer
from tests.scepserver import FakeScep

CAPABILITIES = (200, b"AES SHA-256 POSTPKIOperation")
URL = "http://scep.example:3000/scep"


class _Fixed(Resource):
    """Answers each SCEP operation with what the test says: status and body; without one, never."""

    isLeaf = True

    def __init__(self, **answers: tuple[int, bytes]) -> None:
        super().__init__()
        self._answers = answers

    def render(self, request: Request) -> bytes | int:
        operation = request.args[b"operation"][0].decode()
        if operation not in self._answers:
            return NOT_DONE_YET
        status, body = self._answers[operation]
        request.setResponseCode(status)
        return body


def rsaKey() -> rsa.RSAPrivateKey:
    key = newKey("rsa")
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


class EnrolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = FakeScep()
        self.server.add("swc-1", "secret")
        # Making an RSA key takes longer than all the rest.
        patched = mock.patch.object(rsa, "generate_private_key", return_value=rsaKey())
        patched.start()
        self.addCleanup(patched.stop)

    def enrol(self, resource: Resource | None = None, keep: Any = None, **options: Any) -> Deferred[Enrolled]:
        # Any: Enrolment's fields by name
        wanted = Enrolment(**({"url": URL, "uid": "swc-1", "secret": "secret"} | options))
        agent = RequestTraversalAgent(resource or self.server.resource())
        result = ensureDeferred(enrol(cast(IAgent, agent), wanted, keep or identity.enrol._keepNothing))
        agent.flush()
        return result

    def refused(self, **options: Any) -> str:
        return str(self.failureResultOf(self.enrol(**options), EnrolmentRefused).value)

    def fault(self, resource: Resource) -> str:
        return str(self.failureResultOf(self.enrol(resource), EnrolmentFault).value)


class Enrolling(EnrolTestCase):
    def test_a_secret_gets_a_certificate_for_a_key_that_stays_here(self) -> None:
        enrolled = self.successResultOf(self.enrol(dns=("swc-1.example",)))
        self.assertEqual(enrolled.certificate.public_key(), enrolled.key.public_key())
        self.assertEqual(enrolled.authority, self.server.authority.cert)
        self.assertEqual(describe(enrolled.certificate).names, ("DNS:swc-1.example",))

    def test_a_secret_works_once(self) -> None:
        self.successResultOf(self.enrol())
        self.assertIn("ask the administrator for a new secret", self.refused())

    def test_a_wrong_secret(self) -> None:
        self.assertIn("badRequest", self.refused(secret="guess"))

    def test_an_unknown_uid_is_guessed_from_the_closed_connection(self) -> None:
        self.assertIn("is 'swc-2' right?", self.refused(uid="swc-2"))

    def test_another_servers_fingerprint(self) -> None:
        self.assertIn("fingerprint", self.refused(fingerprint="00" * 32))

    def test_the_right_fingerprint_and_certificate_are_believed(self) -> None:
        ca = self.server.authority.cert
        self.successResultOf(self.enrol(fingerprint=fingerprintOf(ca), authority=ca))

    def test_a_server_that_has_changed_its_certificate(self) -> None:
        self.assertIn("isn't the one in ca.crt", self.refused(authority=Authority("Another").cert))

    def test_something_that_is_no_scep_server(self) -> None:
        self.assertIn("answered GetCACaps with 404", self.fault(_Fixed(GetCACaps=(404, b"not here"))))
        self.assertIn("lacks AES, POSTPKIOperation", self.fault(_Fixed(GetCACaps=(200, b"SHA-256\nDES3"))))

    def test_a_ca_certificate_that_is_none(self) -> None:
        text = self.fault(_Fixed(GetCACaps=CAPABILITIES, GetCACert=(200, b"nonsense")))
        self.assertIn("no single CA certificate", text)

    def test_a_ca_certificate_without_an_rsa_key(self) -> None:
        der = Authority("CA").cert.public_bytes(Encoding.DER)
        self.assertIn("no RSA key", self.fault(_Fixed(GetCACaps=CAPABILITIES, GetCACert=(200, der))))

    def test_an_answer_that_is_none(self) -> None:
        ca = self.server.authority.cert.public_bytes(Encoding.DER)
        for body in (b"", b"nonsense", ca):
            resource = _Fixed(GetCACaps=CAPABILITIES, GetCACert=(200, ca), PKIOperation=(200, body))
            self.assertIn("can't be read", self.fault(resource))

    def test_a_server_error(self) -> None:
        ca = self.server.authority.cert.public_bytes(Encoding.DER)
        resource = _Fixed(GetCACaps=CAPABILITIES, GetCACert=(200, ca), PKIOperation=(500, b""))
        self.assertIn("answered PKIOperation with 500", self.fault(resource))

    def test_giving_up_is_told_as_no_answer(self) -> None:
        asked = self.enrol(_Fixed())
        asked.cancel()
        self.assertIn("no answer to GetCACaps in time", str(self.failureResultOf(asked, EnrolmentFault).value))


class Replies(SynchronousTestCase):
    """What may come back, and must not be believed."""

    def setUp(self) -> None:
        self.authority = Authority("CA", keyType="rsa")
        self.key = rsaKey()
        self.requester = Authority("swc-1", keyType="rsa").cert
        self.transaction = Transaction(self.key, self.requester, self.authority.cert)

    def answered(self, transaction: Transaction) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(commonName("swc-1"))
        csr = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"swc-1\\s").sign(self.key, hashes.SHA256())
        return enrolAnswer(self.authority, transaction.request(csr), {"swc-1": "s"}, lambda uid: None)

    def fault(self, data: bytes) -> str:
        return str(self.assertRaises(EnrolmentFault, self.transaction.openReply, data))

    def reply(self, content: bytes = b"", status: str = "0", info: str = "2") -> bytes:
        """A reply that is signed as it should be."""
        values = {"2": "3", "3": status, "4": info, "7": self.transaction.transactionId}
        encoded = {number: core.PrintableString(value) for number, value in values.items()}
        encoded["6"] = core.OctetString(self.transaction.nonce)
        return _signedWithSha1(self.authority, content, encoded)

    def test_a_good_one_holds_the_issued_certificate_and_the_ca(self) -> None:
        issued, ca = self.transaction.openReply(self.answered(self.transaction))
        self.assertEqual((issued.public_key(), ca), (self.key.public_key(), self.authority.cert))

    def test_one_to_another_request(self) -> None:
        other = Transaction(self.key, self.requester, self.authority.cert)
        self.assertIn("another request", self.fault(self.answered(other)))

    def test_one_that_is_sent_again(self) -> None:
        earlier = Transaction(
            self.key, self.requester, self.authority.cert, transactionId=self.transaction.transactionId
        )
        self.assertIn("nonce", self.fault(self.answered(earlier)))

    def test_one_that_another_server_signed(self) -> None:
        self.authority, true = Authority("CA", keyType="rsa"), self.authority
        self.authority.key = rsa.generate_private_key(65537, 2048)
        self.authority.cert, self.authority.subject = true.cert, true.subject
        self.assertIn("isn't signed by", self.fault(self.reply()))

    def test_one_that_was_changed_on_its_way(self) -> None:
        reply = self.reply(b"content" * 9)
        self.assertIn("changed on its way", self.fault(reply.replace(b"contentc", b"contentC", 1)))

    def test_one_whose_ca_has_no_rsa_key(self) -> None:
        reply = self.reply()
        self.transaction = Transaction(
            self.key, self.requester, Authority("CA").cert, self.transaction.transactionId, self.transaction.nonce
        )
        self.assertIn("no RSA key", self.fault(reply))

    def test_one_that_asks_for_patience(self) -> None:
        error = self.assertRaises(EnrolmentRefused, self.transaction.openReply, self.reply(status="3"))
        self.assertIn("approve", str(error))

    def test_an_unknown_reason_is_passed_on(self) -> None:
        error = self.assertRaises(EnrolmentRefused, self.transaction.openReply, self.reply(status="2", info="9"))
        self.assertIn("(9)", str(error))

    def test_aes_and_sha256_are_read_too(self) -> None:
        certificates = serialize_certificates([self.authority.cert], Encoding.DER)
        builder = PKCS7EnvelopeBuilder().set_data(certificates).add_recipient(self.requester)
        envelope = builder.encrypt(Encoding.DER, [PKCS7Options.Binary])
        attributes = {
            MESSAGE_TYPE: core.PrintableString("3"),
            PKI_STATUS: core.PrintableString("0"),
            TRANSACTION_ID: core.PrintableString(self.transaction.transactionId),
            RECIPIENT_NONCE: core.OctetString(self.transaction.nonce),
        }
        assert isinstance(self.authority.key, rsa.RSAPrivateKey)
        reply = signedMessage(envelope, attributes, self.authority.cert, self.authority.key)
        self.assertEqual(self.transaction.openReply(reply), [self.authority.cert])

    def test_a_certificate_for_another_key_is_not_ours(self) -> None:
        issued = self.authority.issue("swc-1").cert
        ours: Callable[..., object] = identity.enrol._ours
        self.assertRaises(EnrolmentFault, ours, [issued], self.key, self.authority.cert)

    def test_a_certificate_of_another_ca_is_not_believed(self) -> None:
        forged = Authority("CA").issue("swc-1", key=self.key).cert
        ours: Callable[..., object] = identity.enrol._ours
        self.assertRaises(EnrolmentFault, ours, [forged], self.key, self.authority.cert)

    def test_a_damaged_envelope_is_a_fault(self) -> None:
        publicKey = self.requester.public_key()
        assert isinstance(publicKey, rsa.RSAPublicKey)
        self.assertIn("can't be read", self.fault(self.reply(b"nonsense")))
        sealed = _sealedWithDes(b"nonsense", self.requester, publicKey)
        self.assertIn("can't be read", self.fault(self.reply(sealed)))


class Files(EnrolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.mktemp()
        self.files = EnrolmentFiles(self.directory)

    def test_what_was_enrolled_loads_as_a_connectors_credentials(self) -> None:
        self.files.check(renew=False)
        self.files.write(self.successResultOf(self.enrol()))
        loaded = loadCredentials(self.files.certPath, self.files.keyPath, self.files.caPath, role="client")
        self.assertEqual(loaded.rootCertificates, (self.server.authority.cert,))
        self.assertEqual(stat.S_IMODE(os.stat(self.files.keyPath).st_mode), 0o600)
        self.assertEqual(self.files.knownAuthority(), self.server.authority.cert)

    def test_files_are_replaced_only_by_a_renewal(self) -> None:
        self.files.check(renew=False)
        self.assertIsNone(self.files.knownAuthority())
        self.files.write(self.successResultOf(self.enrol()))
        self.assertIn("--renew", str(self.assertRaises(ConfigurationError, self.files.check, renew=False)))
        self.files.check(renew=True)
        self.server.add("swc-1", "another")
        renewed = self.successResultOf(self.enrol(secret="another"))
        self.files.write(renewed)
        loaded = loadCredentials(self.files.certPath, self.files.keyPath, self.files.caPath, role="client")
        self.assertEqual(loaded.chain, (renewed.certificate,))

    def test_a_directory_that_cant_be_written_is_found_before_the_secret_is_used(self) -> None:
        with mock.patch.object(os, "access", return_value=False):
            error = self.assertRaises(ConfigurationError, self.files.check, renew=False)
        self.assertIn(self.directory, str(error))

    def test_a_directory_that_cant_be_made_is_named(self) -> None:
        writeFile(".", self.directory, b"a file")
        for directory in (self.directory, os.path.join(self.directory, "below")):
            error = self.assertRaises(ConfigurationError, EnrolmentFiles(directory).check, renew=False)
            self.assertIn(directory, str(error))

    def test_places_that_are_taken_by_something_else_are_named_before_the_secret_is_used(self) -> None:
        for name in ("client.crt", "client.key", "ca.crt"):
            path = os.path.join(self.directory, name)
            os.makedirs(path)
            error = self.assertRaises(ConfigurationError, self.files.check, renew=True)
            self.assertIn(f"{path!r} is no regular file", str(error))
            os.rmdir(path)

    def test_the_key_is_on_disk_before_the_secret_is_used(self) -> None:
        self.files.check(renew=False)
        kept: list[bytes] = []

        def keep(key: rsa.RSAPrivateKey) -> None:
            self.files.keep(key)
            self.assertTrue(self.server.clients["swc-1"].secret)
            with open(f"{self.files.keyPath}.new", "rb") as file:
                kept.append(file.read())
            self.assertEqual(stat.S_IMODE(os.stat(file.name).st_mode), 0o600)

        self.files.write(self.successResultOf(self.enrol(keep=keep)))
        with open(self.files.keyPath, "rb") as file:
            self.assertEqual(kept, [file.read()])
        self.assertEqual(sorted(os.listdir(self.directory)), ["ca.crt", "client.crt", "client.key"])

    def test_a_key_that_cant_be_kept_leaves_the_secret_unused(self) -> None:
        error = self.failureResultOf(self.enrol(keep=self.files.keep), ConfigurationError).value
        self.assertIn("client.key.new", str(error))
        self.successResultOf(self.enrol())

    def test_what_cant_be_put_in_its_place_is_kept_and_named(self) -> None:
        self.files.check(renew=False)
        enrolled = self.successResultOf(self.enrol(keep=self.files.keep))
        os.mkdir(self.files.certPath)
        error = str(self.assertRaises(ConfigurationError, self.files.write, enrolled))
        self.assertIn("client.crt.new", error)
        self.assertNotIn("--force", error)
        os.rmdir(self.files.certPath)
        self.assertIn("couldn't finish", str(self.assertRaises(ConfigurationError, self.files.check, renew=True)))
        os.rename(f"{self.files.certPath}.new", self.files.certPath)
        loadCredentials(self.files.certPath, self.files.keyPath, self.files.caPath, role="client")

    def test_a_broken_ca_file_is_named(self) -> None:
        os.mkdir(self.directory)
        writeFile(self.directory, "ca.crt", b"nonsense")
        self.assertIn("ca.crt", str(self.assertRaises(ConfigurationError, self.files.knownAuthority)))
