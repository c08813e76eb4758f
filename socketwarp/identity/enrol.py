"""
``enrol``: get a certificate from a SCEP server (RFC 8894) for a key that never leaves this machine.

The server vouches for itself with nothing but its own certificate, so give its fingerprint, or an earlier ``ca.crt``;
otherwise whoever answers first is believed, and the caller is told its fingerprint.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import AttributeOID, NameOID
from twisted.internet.defer import CancelledError
from twisted.web.client import ResponseNeverReceived
from twisted.web.iweb import IAgent

from ..errors import ConfigurationError, EnrolmentFault, EnrolmentRefused
from .chains import issuedBy
from .describe import fingerprintOf, subjectOf
from .files import Output, certificateFile, keyFile, writeNew
from .http import Answer, explain, fetch
from .pem import SettingFile, readCertificates
from .pkimessage import Transaction

#: Seconds for the whole enrolment.
DEADLINE = 30.0
#: Bits of the key: what the server's own tool makes.
RSA_BITS = 2048

#: What `Transaction` sends, so the server must take it.
_NEEDED = frozenset({"AES", "SHA-256", "POSTPKIOperation"})


@attrs.frozen
class Enrolment:
    """
    What is asked for.

    :ivar url: the server's ``/scep``.
    :ivar secret: from the administrator; it works once.
    :ivar dns: names for the certificate, so that it can serve a listener too.
    :ivar authority: the server's certificate, if known before; nobody else is believed.
    :ivar fingerprint: the SHA-256 of that certificate in hexadecimal, if that is known.
    """

    url: str
    uid: str
    secret: str = attrs.field(repr=False)
    dns: Sequence[str] = ()
    authority: x509.Certificate | None = None
    fingerprint: str | None = None


@attrs.frozen
class Enrolled:
    """What came of it."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = attrs.field(repr=False)
    authority: x509.Certificate


def _keepNothing(key: rsa.RSAPrivateKey) -> None:
    """For who keeps the key later."""


async def enrol(agent: IAgent, wanted: Enrolment, keep: Callable[[rsa.RSAPrivateKey], None] = _keepNothing) -> Enrolled:
    """
    Make a key and have it certified.

    :param keep: called with the key before the secret is used up, so that what fails afterwards doesn't lose it.
    :raises EnrolmentRefused: wrong or used secret, unknown uid, or a server that isn't the expected one.
    :raises EnrolmentFault: unreachable, not a SCEP server, or an answer that makes no sense.
    """
    await _checkCapabilities(agent, wanted.url)
    authority = await _authorityOf(agent, wanted)
    key = rsa.generate_private_key(65537, RSA_BITS)
    keep(key)
    transaction = Transaction(key, _requester(wanted.uid, key), authority)
    message = transaction.request(_signingRequest(wanted, key))
    certificates = transaction.openReply(await _submit(agent, wanted, message))
    return Enrolled(_ours(certificates, key, authority), key, authority)


async def _checkCapabilities(agent: IAgent, url: str) -> None:
    answer = await _call(agent, url, "GetCACaps")
    missing = _NEEDED - set(answer.body.decode("ascii", "replace").split())
    if missing:
        raise EnrolmentFault(f"{url} is no SCEP server that we can use: it lacks {', '.join(sorted(missing))}")


async def _authorityOf(agent: IAgent, wanted: Enrolment) -> x509.Certificate:
    answer = await _call(agent, wanted.url, "GetCACert")
    try:
        found = x509.load_der_x509_certificate(answer.body)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise EnrolmentFault(f"{wanted.url} gave no single CA certificate: {e}") from e
    if wanted.fingerprint is not None and fingerprintOf(found) != wanted.fingerprint:
        raise EnrolmentRefused(
            f"the SCEP server's certificate has the fingerprint {fingerprintOf(found)}, not the given"
        )
    if wanted.authority is not None and found != wanted.authority:
        raise EnrolmentRefused(
            f"the SCEP server's certificate {subjectOf(found)} isn't the one in ca.crt; if the server has a new one, "
            "remove that file first"
        )
    if not isinstance(key, rsa.RSAPublicKey):
        raise EnrolmentFault(f"the SCEP server's certificate {subjectOf(found)} has no RSA key, so it can't be used")
    return found


async def _submit(agent: IAgent, wanted: Enrolment, message: bytes) -> bytes:
    try:
        return (await _call(agent, wanted.url, "PKIOperation", message)).body
    except EnrolmentFault as e:
        if isinstance(e.__cause__, ResponseNeverReceived):
            text = (
                f"the SCEP server closed the connection: it does so for a uid it doesn't know; is {wanted.uid!r} right?"
            )
            raise EnrolmentRefused(text) from e
        raise


async def _call(agent: IAgent, url: str, operation: str, message: bytes | None = None) -> Answer:
    method, headers = (b"GET", {}) if message is None else (b"POST", {"Content-Type": "application/x-pki-message"})
    try:
        answer = await fetch(agent, method, f"{url}?operation={operation}", headers, message)
    except CancelledError:
        raise EnrolmentFault(f"{url} gave no answer to {operation} in time") from None
    except Exception as e:  # names, connections, TLS, HTTP: whatever Twisted raises
        raise EnrolmentFault(f"{url}: {explain(e)}") from e
    if answer.status != 200:
        raise EnrolmentFault(f"{url} answered {operation} with {answer.status}; is it the SCEP server's /scep?")
    return answer


def _subject(uid: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uid)])


def _requester(uid: str, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Tells the server whom to encrypt its answer to (RFC 8894 §2.3); nobody trusts it, and it isn't kept."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(uid))
        .issuer_name(_subject(uid))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def _signingRequest(wanted: Enrolment, key: rsa.RSAPrivateKey) -> x509.CertificateSigningRequest:
    challenge = f"{wanted.uid}\\{wanted.secret}".encode()
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(wanted.uid))
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge)
    )
    if wanted.dns:
        names = x509.SubjectAlternativeName([x509.DNSName(each) for each in wanted.dns])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


def _ours(
    certificates: Sequence[x509.Certificate], key: rsa.RSAPrivateKey, authority: x509.Certificate
) -> x509.Certificate:
    """The certificate for our key, really signed by the authority: the envelope it came in proves little."""
    for each in certificates:
        if each.public_key() == key.public_key() and issuedBy(each, authority):
            return each
    raise EnrolmentFault("the SCEP server's answer holds no certificate for our key that its CA has signed")


@attrs.frozen
class EnrolmentFiles:
    """Where enrolment puts things: ``client.crt``, ``client.key`` and ``ca.crt`` of one directory."""

    directory: str = attrs.field(converter=os.fspath)

    @property
    def certPath(self) -> str:
        """The certificate."""
        return os.path.join(self.directory, "client.crt")

    @property
    def keyPath(self) -> str:
        """Its private key."""
        return os.path.join(self.directory, "client.key")

    @property
    def caPath(self) -> str:
        """The SCEP server's certificate."""
        return os.path.join(self.directory, "ca.crt")

    def knownAuthority(self) -> x509.Certificate | None:
        """
        The server's certificate from an earlier enrolment.

        :raises ConfigurationError: the file is there and can't be used.
        """
        if not os.path.exists(self.caPath):
            return None
        return readCertificates(SettingFile("ca.crt", self.caPath))[0]

    def check(self, renew: bool) -> None:
        """
        Before the secret is used up: may the files be written?

        :raises ConfigurationError: names the file and the remedy.
        """
        paths = self.certPath, self.keyPath, self.caPath
        existing = [each for each in paths if os.path.lexists(each)]
        if odd := next((each for each in existing if not os.path.isfile(each)), None):
            raise ConfigurationError(f"{odd!r} is no regular file; move it away")
        if not renew and (taken := next((each for each in existing if each != self.caPath), None)):
            raise ConfigurationError(f"{taken!r} exists already; replace it with --renew")
        left = f"{self.certPath}.new"
        if os.path.lexists(left):
            raise ConfigurationError(
                f"{left!r} is what an enrolment got that couldn't finish: remove the .new from its name and from those "
                "of the files beside it, or remove them"
            )
        try:
            os.makedirs(self.directory, exist_ok=True)
        except OSError as e:
            raise ConfigurationError(
                f"the directory {self.directory!r} can't be made ({e.strerror}); name another one, or mend that"
            ) from e
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{self.directory!r} can't be written to; correct its owner or mode")

    def keep(self, key: rsa.RSAPrivateKey) -> None:
        """
        Write the key to ``client.key.new``, before the secret is used up.

        :raises ConfigurationError: it can't be written.
        """
        try:
            writeNew(keyFile(self.keyPath, key))
        except OSError as e:
            raise ConfigurationError(f"{e.filename or self.directory!r} can't be written: {e.strerror}") from e

    def discard(self) -> None:
        """Remove the key that `keep` wrote: there is no certificate for it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.keyPath}.new")

    def write(self, enrolled: Enrolled) -> None:
        """
        Replace key and certificate as a pair; ``ca.crt`` only when there is none.

        :raises ConfigurationError: one can't be written; names it, and the ``.new`` files in which all is kept.
        """
        outputs: list[Output] = [keyFile(self.keyPath, enrolled.key)]
        if not os.path.exists(self.caPath):
            outputs.insert(0, certificateFile(self.caPath, [enrolled.authority]))
        outputs.append(certificateFile(self.certPath, [enrolled.certificate]))
        try:
            for new, path in [(writeNew(each), each.path) for each in outputs]:
                os.replace(new, path)
        except OSError as e:
            kept = [f"{each.path}.new" for each in outputs if os.path.lexists(f"{each.path}.new")]
            raise ConfigurationError(
                f"{e.filename2 or e.filename or self.directory!r} can't be written: {e.strerror}; what was got is in "
                f"{', '.join(kept)}: mend that, and remove the .new from these names"
            ) from e
