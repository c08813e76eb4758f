"""What one end shows of itself and how it checks the other, made of the files that its settings name."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import ConfigurationError
from ..interfaces import ICredentials, Role
from .chains import Trust, issuedBy
from .describe import extendedKeyUsage, nameText, subjectOf
from .pem import FilePath, SettingFile, readCertificates, readPrivateKey, readRevocationLists

# What aioquic signs handshakes with.
_CURVES = (ec.SECP256R1, ec.SECP384R1)

_log = Logger(namespace="socketwarp.identity")

#: Which settings name the files, for the texts of errors: the listener's (server) and the connector's (client).
_SETTINGS: dict[Role, dict[str, str]] = {
    "server": {"cert": "SWL_CERT_PATH", "key": "SWL_KEY_PATH", "ca": "SWL_CA_PATH", "crl": "SWL_CRL_PATHS"},
    "client": {"cert": "client_cert_path", "key": "client_key_path", "ca": "ca_cert_path", "crl": "crl_paths"},
}


@implementer(ICredentials)
@attrs.frozen
class Credentials:
    """
    One end's own chain and key, and what it trusts.

    :ivar crls: revocation lists; none means no check of revocation.
    :ivar crlExpired: whether a list past its next update refuses (``"refuse"``) or is used with a warning (``"warn"``).
    """

    chain: Sequence[x509.Certificate]
    privateKey: CertificateIssuerPrivateKeyTypes = attrs.field(repr=False)
    rootCertificates: Sequence[x509.Certificate] = attrs.field(repr=False)
    crls: Sequence[x509.CertificateRevocationList] = attrs.field(default=(), repr=False)
    crlExpired: Literal["refuse", "warn"] = "refuse"
    roots: bytes = attrs.field(init=False, repr=False)
    _trust: Trust = attrs.field(init=False, repr=False, eq=False)

    @roots.default
    def _makeRoots(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.rootCertificates)

    @_trust.default
    def _makeTrust(self) -> Trust:
        return Trust(self.rootCertificates, self.crls, self.crlExpired)

    def checkPeer(self, chain: Sequence[x509.Certificate], role: Role, serverName: str | None) -> None:
        """See `ICredentials.checkPeer`."""
        self._trust.check(chain, role, serverName)

    def checkStanding(self, leaf: x509.Certificate) -> None:
        """
        For a session that runs: is its leaf still within its dates, and not revoked since?

        :raises CertificateRejected: with the TLS alert 45 or 44.
        """
        self._trust.checkStanding(leaf)

    def checkRunning(self, chain: Sequence[x509.Certificate], role: Role) -> None:
        """
        For a session that runs: does the chain of its handshake still lead to our roots, with nothing in it revoked?

        :raises CertificateRejected: no.
        :raises VerifierFault: a revocation list is missing or out of its time, so that nobody can say.
        """
        self._trust.checkRunning(chain, role)


def loadCredentials(
    certPath: FilePath,
    keyPath: FilePath,
    caPath: FilePath,
    crlPaths: Sequence[FilePath] = (),
    crlExpired: Literal["refuse", "warn"] = "refuse",
    role: Role = "server",
) -> Credentials:
    """
    Read and check an end's files: its chain (leaf and intermediates, in any order), key, roots and revocation lists.

    :param role: which end we are: it says which settings an error names, and which usage our leaf should have.
    :raises ConfigurationError: one line that names the setting, the file, the block in it and the remedy.
    """
    names = _SETTINGS[role]
    certFile, keyFile = SettingFile(names["cert"], certPath), SettingFile(names["key"], keyPath)
    key = readPrivateKey(keyFile)
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, _CURVES):
        keyFile.fail(f"QUIC can't sign with its curve {key.curve.name}; use P-256, P-384, RSA or Ed25519")
    chain = _arranged(readCertificates(certFile), key, certFile, keyFile)
    roots = readCertificates(SettingFile(names["ca"], caPath))
    crls = [crl for path in crlPaths for crl in readRevocationLists(SettingFile(names["crl"], path))]
    _warnOfOwn(chain[0], role, certFile)
    try:
        return Credentials(tuple(chain), key, tuple(roots), tuple(crls), crlExpired)
    except Exception as e:  # what OpenSSL can't use although cryptography could read it, as crypto.Error
        raise ConfigurationError(
            f"{SettingFile(names['ca'], caPath)}: OpenSSL can't use its certificates or lists: {e}"
        ) from e


def _arranged(
    certificates: Sequence[x509.Certificate],
    key: CertificateIssuerPrivateKeyTypes,
    certFile: SettingFile,
    keyFile: SettingFile,
) -> list[x509.Certificate]:
    """The leaf, which is the key's, then its issuers as far as the file has them; the root is the peer's to have."""
    publicKey = key.public_key()
    chain = [each for each in certificates if each.public_key() == publicKey][:1]
    if not chain:
        raise ConfigurationError(
            f"{keyFile}: this private key belongs to no certificate in {certFile} "
            f"({subjectOf(certificates[0])}); use the key that the certificate was made for"
        )
    rest = [each for each in certificates if each != chain[0]]
    while (issuer := next((each for each in rest if issuedBy(chain[-1], each)), None)) is not None:
        rest.remove(issuer)
        chain.append(issuer)
    if len(chain) > 1 and chain[-1].issuer == chain[-1].subject:
        chain.pop()
    for each in rest:
        _log.warn(
            "{file}: {subject} is no issuer of our certificate and is not sent", file=certFile, subject=subjectOf(each)
        )
    return chain


def _warnOfOwn(leaf: x509.Certificate, role: Role, certFile: SettingFile) -> None:
    """What the other end will refuse; it may be mended while we run, so it is no reason not to start."""
    now = datetime.now(UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        _log.warn(
            "{file}: our own certificate {subject} is valid only from {begin} to {end}; peers will refuse it",
            file=certFile,
            subject=nameText(leaf.subject),
            begin=leaf.not_valid_before_utc,
            end=leaf.not_valid_after_utc,
        )
    usages = extendedKeyUsage(leaf)
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    if usages is not None and wanted not in usages:
        _log.warn(
            "{file}: the extended key usage of our own certificate {subject} lacks {role}Auth; peers will refuse it",
            file=certFile,
            subject=nameText(leaf.subject),
            role=role,
        )
