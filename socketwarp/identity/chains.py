"""
Is this chain good? Path to the configured roots, dates, usages, revocation, name: what `ICredentials.checkPeer` does.

OpenSSL builds and verifies the path (RFC 5280 §6) and reads the revocation lists; cryptography reads the usages;
service-identity compares the name. Nothing here does I/O or waits: it runs in the middle of a TLS handshake.
"""

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs
import service_identity
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.logger import Logger

from ..errors import CertificateRejected, VerifierFault
from ..interfaces import Role
from ..throttle import Bucket
from .describe import extendedKeyUsage, isAuthority, keyUsage, nameText, printable, subjectOf

#: Certificates in a peer's chain; real ones have two or three, and each costs a signature check.
MAX_CHAIN = 10
#: RSA keys below this many bits are refused (NIST SP 800-57: not for use after 2013; the original refuses them too).
MIN_RSA_BITS = 2048

#: Seconds between two warnings of one outdated list: it is used in every handshake, and anybody can begin those.
WARNING_SECONDS = 60.0

# TLS alerts, RFC 8446 §6.2
BAD_CERTIFICATE = 42
UNSUPPORTED_CERTIFICATE = 43
CERTIFICATE_REVOKED = 44
CERTIFICATE_EXPIRED = 45
UNKNOWN_CA = 48
CERTIFICATE_REQUIRED = 116

# X509_V_ERR_… of openssl/x509_vfy.h, with the alert that tells the peer what to mend; all others are a bad certificate.
_NO_REVOCATION_LIST = 3
_ALERTS = {
    2: UNKNOWN_CA,  # unable to get issuer certificate
    9: CERTIFICATE_EXPIRED,  # not yet valid
    10: CERTIFICATE_EXPIRED,
    18: UNKNOWN_CA,  # self-signed
    19: UNKNOWN_CA,  # self-signed in chain
    20: UNKNOWN_CA,  # unable to get local issuer certificate
    21: UNKNOWN_CA,  # unable to verify the first certificate
    23: CERTIFICATE_REVOKED,
    27: UNKNOWN_CA,  # not trusted
}
# Nobody can say whether the certificate is revoked: its list is missing, unreadable, badly signed or out of its time.
_UNKNOWN_STATUS = frozenset({_NO_REVOCATION_LIST, 4, 5, 6, 8, 11, 12, 15, 16, 33, 35, 44})
# X509_V_FLAG_NO_CHECK_TIME: not among pyOpenSSL's names.
_NO_CHECK_TIME = 0x200000

_EKU = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)
_MALFORMED = (ValueError, TypeError, x509.DuplicateExtension, x509.InvalidVersion, UnsupportedAlgorithm, crypto.Error)

_log = Logger(namespace="socketwarp.identity")

#: Raises `CertificateRejected` for the leaf of a running session that is expired or revoked by now.
Standing = Callable[[x509.Certificate], None]


class _StatusUnknown(CertificateRejected):
    """No revocation list that counts says anything about a certificate, though it must."""


def standsAnyway(leaf: x509.Certificate) -> None:
    """A `Standing` for when nothing can change between the handshake and a re-check."""


@attrs.frozen
class Trust:
    """
    The configured roots and revocation lists, ready for use: OpenSSL's stores are built once.

    Every root is an anchor, self-signed or not, except one that another certificate of the same file has signed: that
    one is only an intermediate, so that its own end and revocation count. A self-signed one with an extended key usage
    is an end's own, exchanged for ours: whatever else it says, it vouches for itself alone, or its owner could be
    anybody.

    :ivar roots: the certificates of the CA file.
    :ivar crls: revocation lists. With any, the leaf's issuer must have one.
    :ivar crlExpired: what a list past its next update means: ``"refuse"``, or ``"warn"`` and use it.
    """

    roots: Sequence[x509.Certificate]
    crls: Sequence[x509.CertificateRevocationList] = ()
    crlExpired: Literal["refuse", "warn"] = "refuse"
    _exchanged: Sequence[x509.Certificate] = attrs.field(init=False, eq=False, repr=False)
    _anchors: Sequence[x509.Certificate] = attrs.field(init=False, eq=False, repr=False)
    _helpers: list[crypto.X509] = attrs.field(init=False, eq=False, repr=False)
    _itself: crypto.X509Store = attrs.field(init=False, eq=False, repr=False)
    _path: crypto.X509Store = attrs.field(init=False, eq=False, repr=False)
    _revocation: crypto.X509Store = attrs.field(init=False, eq=False, repr=False)
    _warnings: Sequence[Bucket] = attrs.field(init=False, eq=False, repr=False)

    @_exchanged.default
    def _makeExchanged(self) -> Sequence[x509.Certificate]:
        return [each for each in self.roots if isExchanged(each)]

    @_anchors.default
    def _makeAnchors(self) -> Sequence[x509.Certificate]:
        # Self-signed first: of two roots with one name and key, as a renewal makes them, each seems the other's issuer.
        issuers = [each for each in self.roots if each not in self._exchanged]
        return [each for each in issuers if issuedBy(each, each) or not any(issuedBy(each, other) for other in issuers)]

    @_helpers.default
    def _makeHelpers(self) -> list[crypto.X509]:
        ours = (*self._anchors, *self._exchanged)
        return [crypto.X509.from_cryptography(each) for each in self.roots if each not in ours]

    @_itself.default
    def _makeItself(self) -> crypto.X509Store:
        return self._store(crypto.X509StoreFlags.PARTIAL_CHAIN, self._exchanged)

    @_path.default
    def _makePath(self) -> crypto.X509Store:
        return self._store(crypto.X509StoreFlags.PARTIAL_CHAIN, self._anchors)

    @_revocation.default
    def _makeRevocation(self) -> crypto.X509Store:
        flags = crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.CRL_CHECK
        # Dates have been checked on the way; without this flag OpenSSL refuses whatever an expired list doesn't name.
        store = self._store(flags | _NO_CHECK_TIME if self.crlExpired == "warn" else flags, self._anchors)
        for crl in self.crls:
            store.add_crl(crl)
        return store

    @_warnings.default
    def _makeWarnings(self) -> Sequence[Bucket]:
        return [Bucket(1 / WARNING_SECONDS, 1.0) for _ in self.crls]

    @staticmethod
    def _store(flags: int, trusted: Sequence[x509.Certificate]) -> crypto.X509Store:
        store = crypto.X509Store()
        store.set_flags(flags)
        for each in trusted:
            store.add_cert(crypto.X509.from_cryptography(each))
        return store

    def check(self, chain: Sequence[x509.Certificate], role: Role, serverName: str | None) -> None:
        """
        See `ICredentials.checkPeer`.

        :raises CertificateRejected: with the TLS alert to send.
        """
        if not chain:
            raise CertificateRejected(f"the {role} sent no certificate", CERTIFICATE_REQUIRED)
        if len(chain) > MAX_CHAIN:
            raise CertificateRejected(f"a chain of {len(chain)} certificates; {MAX_CHAIN} is the most", BAD_CERTIFICATE)
        try:
            self._checkChain(chain, role, serverName)
        except _MALFORMED as e:
            text = f"the certificate {subjectOf(chain[0])} can't be read: {printable(str(e))}"
            raise CertificateRejected(text, BAD_CERTIFICATE) from e

    def _checkChain(self, chain: Sequence[x509.Certificate], role: Role, serverName: str | None) -> None:
        leaf = chain[0]
        path = self._buildPath(chain)
        self._checkRevocation(path)
        issued = [each.to_cryptography() for each in path[:-1]]
        for certificate in issued:
            _checkStrength(certificate)
        # An intermediate that is limited to other purposes can't vouch for this one, as OpenSSL and browsers have it.
        for certificate in issued or [leaf]:
            _checkExtendedUsage(certificate, role)
        if leaf not in (*self._anchors, *self._exchanged):
            _checkNoAuthority(leaf)
        _checkKeyUsage(leaf)
        if serverName is not None:
            _checkName(leaf, serverName)

    def _buildPath(self, chain: Sequence[x509.Certificate]) -> list[crypto.X509]:
        first, *rest = (crypto.X509.from_cryptography(each) for each in chain)
        store = self._itself if chain[0] in self._exchanged else self._path
        try:
            return crypto.X509StoreContext(store, first, [*rest, *self._helpers]).get_verified_chain()
        except crypto.X509StoreContextError as e:
            raise _rejected(e) from None

    def _checkRevocation(self, path: list[crypto.X509]) -> None:
        """Each certificate of the verified path but the anchor; only the leaf's issuer is obliged to have a list."""
        if not self.crls:
            return
        unknown = None
        for depth, certificate in enumerate(path[:-1]):
            try:
                crypto.X509StoreContext(self._revocation, certificate, path[depth + 1 :]).verify_certificate()
            except crypto.X509StoreContextError as e:
                code = e.errors[0]
                if code not in _UNKNOWN_STATUS:
                    raise _rejected(e) from None
                if unknown is None and (depth == 0 or code != _NO_REVOCATION_LIST):
                    unknown = _rejected(e)
        if unknown is not None:
            raise _StatusUnknown(str(unknown), unknown.alert)
        if self.crlExpired == "warn":
            self._warnOfExpiredLists()

    def _warnOfExpiredLists(self) -> None:
        now = datetime.now(UTC)
        for crl, mayWarn in zip(self.crls, self._warnings, strict=True):
            if crl.next_update_utc is not None and crl.next_update_utc < now and mayWarn.take(now.timestamp()):
                _log.warn(
                    "the revocation list of {issuer} should have been renewed by {due}; it was used all the same",
                    issuer=nameText(crl.issuer),
                    due=str(crl.next_update_utc),
                )

    def checkStanding(self, leaf: x509.Certificate) -> None:
        """
        What may change while a session runs: the leaf's dates, and whether a list of its issuer's name revokes it.

        :raises CertificateRejected: expired (45) or revoked (44).
        """
        _checkDates(leaf)
        for crl in self.crls:
            if crl.issuer == leaf.issuer and crl.get_revoked_certificate_by_serial_number(leaf.serial_number):
                raise CertificateRejected(f"{subjectOf(leaf)}: certificate revoked", CERTIFICATE_REVOKED)

    def checkRunning(self, chain: Sequence[x509.Certificate], role: Role) -> None:
        """
        All the checks of the handshake but the name's once more, for a session that runs.

        :raises CertificateRejected: the chain is no longer good.
        :raises VerifierFault: nothing is against it but that a revocation list is missing or out of its time.
        """
        try:
            self.check(chain, role, None)
        except _StatusUnknown as e:
            raise VerifierFault(str(e)) from e


def checkAlone(chain: Sequence[x509.Certificate], role: Role) -> None:
    """
    What a chain must be whichever root it leads to: for one whose root we don't have.

    :raises CertificateRejected: with the TLS alert that the other end would send.
    """
    leaf = chain[0]
    isOwnRoot = issuedBy(leaf, leaf)
    for certificate in chain:
        _checkDates(certificate)
        if not isOwnRoot:
            _checkStrength(certificate)
        _checkExtendedUsage(certificate, role)
    if not isOwnRoot:
        _checkNoAuthority(leaf)
    _checkKeyUsage(leaf)


def isExchanged(certificate: x509.Certificate) -> bool:
    """Whether a root is an end's own certificate, which vouches for itself alone; see `Trust`."""
    return extendedKeyUsage(certificate) is not None and issuedBy(certificate, certificate)


def issuedBy(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s name and key signed `certificate`; no other check."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # it raises ValueError, TypeError, InvalidSignature and UnsupportedAlgorithm, all meaning no
        return False
    return True


def _rejected(error: crypto.X509StoreContextError) -> CertificateRejected:
    code, _depth, reason = error.errors
    if code == _NO_REVOCATION_LIST:
        reason = "no revocation list of its issuer is configured, though there are some of others"
    text = f"{subjectOf(error.certificate.to_cryptography())}: {reason}"
    return CertificateRejected(text, _ALERTS.get(code, BAD_CERTIFICATE))


def _checkDates(certificate: x509.Certificate) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.now(UTC)
    if not begin <= now <= end:
        what = "it has expired" if now > end else "it is not valid yet"
        text = f"{subjectOf(certificate)}: {what}: valid only from {begin} to {end}"
        raise CertificateRejected(text, CERTIFICATE_EXPIRED)


def _checkNoAuthority(leaf: x509.Certificate) -> None:
    if isAuthority(leaf):
        text = f"{subjectOf(leaf)} is a certificate authority's own certificate (CA:TRUE), not an end's"
        raise CertificateRejected(text, BAD_CERTIFICATE)


def _checkKeyUsage(leaf: x509.Certificate) -> None:
    usage = keyUsage(leaf)
    if usage is not None and not usage.digital_signature:
        text = f"the key usage of {subjectOf(leaf)} lacks digitalSignature, which TLS 1.3 needs"
        raise CertificateRejected(text, UNSUPPORTED_CERTIFICATE)


def _checkStrength(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        text = f"the RSA key of {subjectOf(certificate)} has {key.key_size} bits; {MIN_RSA_BITS} is the least"
        raise CertificateRejected(text, BAD_CERTIFICATE)
    if isinstance(certificate.signature_hash_algorithm, _WEAK_HASHES):
        text = f"{subjectOf(certificate)} is signed with {certificate.signature_hash_algorithm.name}, which is broken"
        raise CertificateRejected(text, BAD_CERTIFICATE)


def _checkExtendedUsage(certificate: x509.Certificate, role: Role) -> None:
    usages = extendedKeyUsage(certificate)
    if usages is not None and _EKU[role] not in usages:
        text = f"the extended key usage of {subjectOf(certificate)} lacks {role}Auth"
        raise CertificateRejected(text, UNSUPPORTED_CERTIFICATE)


def _checkName(leaf: x509.Certificate, serverName: str) -> None:
    try:
        if _isAddress(serverName):
            verify_certificate_ip_address(leaf, serverName)
        else:
            verify_certificate_hostname(leaf, serverName)
    except (service_identity.VerificationError, service_identity.CertificateError) as e:
        text = f"{subjectOf(leaf)} is not a certificate for the server name {printable(serverName)}"
        raise CertificateRejected(text, BAD_CERTIFICATE) from e


def _isAddress(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
