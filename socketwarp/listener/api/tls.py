"""The API's TLS: what it shows, and whom it asks for a certificate."""

from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates
from zope.interface import implementer

from ...errors import ConfigurationError
from ...identity.chains import isExchanged
from ...identity.pem import PrivateKey, SettingFile, readCertificates, readPrivateKey


@attrs.frozen(eq=False)
class ServerTls:
    """
    TLS as it is at the moment.

    :ivar names: host names in the certificate, in lower case; ``*.`` stands for one label.
    """

    context: SSL.Context
    names: tuple[str, ...]


def loadTls(certPath: Path, keyPath: Path, clientCaPath: Path | None) -> ServerTls:
    """
    Read the files.

    :param clientCaPath: roots of callers, each of whom needs a certificate then; or certificates of their own, which
        vouch for nobody else (`identity.chains.Trust`).
    :raises errors.ConfigurationError: naming the setting, the file and the remedy.
    """
    certFile = SettingFile("APIS_CERT_PATH", certPath)
    leaf, *rest = readCertificates(certFile)
    key = readPrivateKey(SettingFile("APIS_KEY_PATH", keyPath))
    if leaf.public_key() != key.public_key():
        certFile.fail("its first certificate isn't the one that APIS_KEY_PATH's key belongs to; put that one first")
    roots = None if clientCaPath is None else readCertificates(SettingFile("APIS_CLIENT_CA_PATH", clientCaPath))
    try:
        return ServerTls(_context([leaf, *rest], key, roots), _names(leaf))
    except Exception as error:  # SSL.Error, crypto.Error, ValueError: all that OpenSSL finds fault with
        raise ConfigurationError(f"{certFile}: OpenSSL can't use it: {error}") from error


def _context(
    chain: Sequence[x509.Certificate], key: PrivateKey, roots: Sequence[x509.Certificate] | None
) -> SSL.Context:
    leaf, *rest = [crypto.X509.from_cryptography(each) for each in chain]
    trusted = None
    if roots is not None:
        trusted = trustRootFromCertificates([Certificate(crypto.X509.from_cryptography(each)) for each in roots])
    options = CertificateOptions(
        certificate=leaf, privateKey=crypto.PKey.from_cryptography_key(key), extraCertChain=rest, trustRoot=trusted
    )
    context = options.getContext()
    if roots is not None:
        context.set_verify(context.get_verify_mode(), _vouched)
    return context


def _vouched(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, isGood: int) -> bool:
    """
    What OpenSSL asks about each certificate of a caller's chain: one that was exchanged for ours isn't a CA's, whatever
    it says, or its owner could call under any name.
    """
    return bool(isGood) and not (depth > 0 and isExchanged(certificate.to_cryptography()))


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in alternative.get_values_for_type(x509.DNSName))


@implementer(IOpenSSLContextFactory)
@attrs.define(eq=False)
class CurrentContext:
    """
    What Twisted asks for a context with each connection, so that a renewed certificate counts for the next one.

    :ivar current: TLS as it is now.
    """

    current: ServerTls

    def getContext(self) -> SSL.Context:
        """The context for a new connection."""
        return self.current.context
