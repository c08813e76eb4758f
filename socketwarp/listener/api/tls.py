"""The API's TLS: what it shows, and whom it asks for a certificate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates
from zope.interface import implementer

from ...errors import ConfigurationError
from ...identity.chains import isExchanged
from ...identity.pem import PrivateKey, SettingFile, readCertificates, readPrivateKey, readRevocationLists

# X509_V_ERR_… of openssl/x509_vfy.h
_NO_REVOCATION_LIST = 3
_OUTDATED_LIST = 12


@attrs.frozen(eq=False)
class ServerTls:
    """
    TLS as it is at the moment.

    :ivar names: host names in the certificate, in lower case; ``*.`` stands for one label.
    :ivar callers: what decides which callers are let in; `None`: all of them are.
    """

    context: SSL.Context
    names: tuple[str, ...]
    callers: "_Callers | None" = None


def loadTls(
    certPath: Path,
    keyPath: Path,
    clientCaPath: Path | None,
    crlPaths: Sequence[Path] = (),
    crlExpired: Literal["refuse", "warn"] = "refuse",
) -> ServerTls:
    """
    Read the files.

    :param clientCaPath: roots of callers, each of whom needs a certificate then; or certificates of their own, which
        vouch for nobody else (`identity.chains.Trust`).
    :param crlPaths: revocation lists for callers' certificates, which mean what they mean for connectors'.
    :raises errors.ConfigurationError: naming the setting, the file and the remedy.
    """
    certFile = SettingFile("APIS_CERT_PATH", certPath)
    leaf, *rest = readCertificates(certFile)
    key = readPrivateKey(SettingFile("APIS_KEY_PATH", keyPath))
    if leaf.public_key() != key.public_key():
        certFile.fail("its first certificate isn't the one that APIS_KEY_PATH's key belongs to; put that one first")
    callers = None
    if clientCaPath is not None:
        roots = readCertificates(SettingFile("APIS_CLIENT_CA_PATH", clientCaPath))
        lists = [crl for path in crlPaths for crl in readRevocationLists(SettingFile("APIS_CRL_PATHS", path))]
        callers = _Callers(tuple(roots), tuple(lists), crlExpired)
    try:
        return ServerTls(_context([leaf, *rest], key, callers), _names(leaf), callers)
    except Exception as error:  # SSL.Error, crypto.Error, ValueError: all that OpenSSL finds fault with
        raise ConfigurationError(f"{certFile}: OpenSSL can't use it: {error}") from error


@attrs.frozen
class _Callers:
    """Who is let in: OpenSSL builds and verifies a caller's path, and asks about every certificate in it."""

    roots: Sequence[x509.Certificate]
    crls: Sequence[x509.CertificateRevocationList]
    crlExpired: Literal["refuse", "warn"]

    def prepare(self, context: SSL.Context) -> None:
        """Have a context that verifies paths to our roots read the lists, too."""
        store = context.get_cert_store()
        if self.crls and store is not None:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
            for crl in self.crls:
                store.add_crl(crl)
        context.set_verify(context.get_verify_mode(), self._vouches)

    def _vouches(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, isGood: int
    ) -> bool:
        """
        Whether the path may lead through a certificate, of which OpenSSL has found `error`, if any.

        One that was exchanged for ours isn't a CA's, whatever it says, or its owner could call under any name; and none
        of its own. Lists are as `identity.chains.Trust` has them: only the issuer of the leaf must have one.
        """
        if error == _NO_REVOCATION_LIST:
            return depth > 0 or isExchanged(certificate.to_cryptography())
        if error == _OUTDATED_LIST:
            return self.crlExpired == "warn"
        return bool(isGood) and not (depth > 0 and isExchanged(certificate.to_cryptography()))


def _context(chain: Sequence[x509.Certificate], key: PrivateKey, callers: _Callers | None) -> SSL.Context:
    leaf, *rest = [crypto.X509.from_cryptography(each) for each in chain]
    trusted = None
    if callers is not None:
        roots = [Certificate(crypto.X509.from_cryptography(each)) for each in callers.roots]
        trusted = trustRootFromCertificates(roots)
    options = CertificateOptions(
        certificate=leaf, privateKey=crypto.PKey.from_cryptography_key(key), extraCertChain=rest, trustRoot=trusted
    )
    context = options.getContext()
    if callers is not None:
        callers.prepare(context)
    return context


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
