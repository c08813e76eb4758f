"""
Certificates for tests, made in memory in well under a millisecond each (EC P-256), and the certificate matrix.

`Authority` makes them; `Issued.write` puts them into files; `credentials` makes an `ICredentials` without files.
`MATRIX` is the table of ACCEPTANCE.md: every carrier runs the same rows on real handshakes.
"""

import ipaddress
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from socketwarp.identity.certificates import Credentials
from socketwarp.interfaces import Role

#: The host name and addresses of every server certificate that tests make.
SERVER_NAMES = ("localhost", "127.0.0.1", "::1")
DAY = timedelta(days=1)

_EKU = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
}


def newKey(kind: Literal["ec", "rsa"] = "ec") -> CertificateIssuerPrivateKeyTypes:
    """A new EC key, or always the same RSA key of 2,048 bits (making one takes a tenth of a second)."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else _rsaKey()


@cache
def _rsaKey() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def commonName(*names: str) -> x509.Name:
    """A subject with these common names, valid or not."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each, _validate=False) for each in names])


def keyUsage(*usages: str) -> x509.KeyUsage:
    """Key usages by their names in `x509.KeyUsage` (``digital_signature``)."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    flags = {each: each in usages for each in every.split()}
    return x509.KeyUsage(**flags, encipher_only=False, decipher_only=False)


def alternativeName(text: str) -> x509.GeneralName:
    """A subject alternative name: an address, a URI (with a colon, and no address), else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.UniformResourceIdentifier(text) if ":" in text else x509.DNSName(text)


def pem(*certificates: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """PEM blocks, one after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def keyPem(key: CertificateIssuerPrivateKeyTypes, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """The private key as PEM: PKCS#8, or ``TraditionalOpenSSL`` for PKCS#1 and SEC 1."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def writeFile(directory: str, name: str, data: bytes) -> str:
    """Write a file (made anew, never in place) and give its path."""
    path = os.path.join(directory, name)
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.replace(path + ".new", path)
    return path


@attrs.frozen
class Paths:
    """Where `Issued.write` put things."""

    cert: str
    key: str
    ca: str


@attrs.frozen
class Issued:
    """
    A leaf with its key.

    :ivar chain: the leaf, then the intermediates, without the root.
    :ivar root: the root above them, or the leaf itself when self-signed.
    """

    cert: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = attrs.field(repr=False)
    chain: tuple[x509.Certificate, ...] = attrs.field(repr=False)
    root: x509.Certificate = attrs.field(repr=False)

    def write(self, directory: str, name: str = "end", form: PrivateFormat = PrivateFormat.PKCS8) -> Paths:
        """Write ``name.crt`` (the chain), ``name.key`` and ``ca.crt`` into an existing directory."""
        cert, key = self.writePair(directory, name, form)
        return Paths(cert, key, writeFile(directory, "ca.crt", pem(self.root)))

    def writePair(
        self, directory: str, name: str = "end", form: PrivateFormat = PrivateFormat.PKCS8
    ) -> tuple[str, str]:
        """Write ``name.crt`` (the chain), then ``name.key``, and nothing else."""
        cert = writeFile(directory, f"{name}.crt", pem(*self.chain))
        return cert, writeFile(directory, f"{name}.key", keyPem(self.key, form))


class Authority:
    """
    A certificate authority in memory.

    :ivar cert: its own certificate, self-signed unless an `issuer` is given.
    :ivar path: the intermediates from this one upwards, without the root; empty for a root.
    :ivar root: the root's certificate.
    """

    def __init__(
        self,
        name: str = "Test CA",
        issuer: "Authority | None" = None,
        keyType: Literal["ec", "rsa"] = "ec",
        usages: tuple[str, ...] | None = ("key_cert_sign", "crl_sign"),
    ) -> None:
        self.subject = commonName(name)
        self.key = newKey(keyType)
        self._signer = issuer or self
        self.cert = self._signer._sign(self.subject, self.key, ca=True, ku=usages)
        self.path: tuple[x509.Certificate, ...] = (self.cert, *issuer.path) if issuer else ()
        self.root: x509.Certificate = issuer.root if issuer else self.cert

    def intermediate(self, name: str = "Test intermediate") -> "Authority":
        """An authority below this one."""
        return Authority(name, self)

    def issue(
        self,
        cn: str = "swc-1",
        *,
        eku: Iterable[str] | None = ("client", "server"),
        ku: Iterable[str] | None = ("digital_signature",),
        notBefore: timedelta = -DAY,
        notAfter: timedelta = 30 * DAY,
        ca: bool = False,
        san: Iterable[str] = (),
        subject: x509.Name | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        signingKey: CertificateIssuerPrivateKeyTypes | None = None,
        algorithm: hashes.SHA256 | hashes.SHA384 = hashes.SHA256(),  # noqa: B008 (immutable)
        extensions: Iterable[x509.ExtensionType] = (),
    ) -> Issued:
        """
        A leaf.

        :param eku: of ``client``, ``server``, ``email``; `None` leaves the extension out.
        :param ku: names of `keyUsage`; `None` leaves the extension out.
        :param notBefore: counted from now; ``notAfter`` too.
        :param san: see `alternativeName`.
        :param subject: instead of the name made of `cn`.
        :param signingKey: another key than the authority's, for a forged signature.
        """
        key = key or newKey()
        cert = self._sign(
            commonName(cn) if subject is None else subject,
            key,
            eku=eku,
            ku=ku,
            notBefore=notBefore,
            notAfter=notAfter,
            ca=ca,
            san=san,
            signingKey=signingKey,
            algorithm=algorithm,
            extensions=extensions,
        )
        return Issued(cert, key, (cert, *self.path), self.root)

    def server(self, *names: str) -> Issued:
        """A listener's certificate for `names`, by default `SERVER_NAMES`."""
        return self.issue("listener", eku=("server",), san=names or SERVER_NAMES)

    def _sign(
        self,
        subject: x509.Name,
        key: CertificateIssuerPrivateKeyTypes,
        *,
        eku: Iterable[str] | None = None,
        ku: Iterable[str] | None = None,
        notBefore: timedelta = -DAY,
        notAfter: timedelta = 30 * DAY,
        ca: bool = False,
        san: Iterable[str] = (),
        signingKey: CertificateIssuerPrivateKeyTypes | None = None,
        algorithm: hashes.SHA256 | hashes.SHA384 = hashes.SHA256(),  # noqa: B008 (immutable)
        extensions: Iterable[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + notBefore)
            .not_valid_after(now + notAfter)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if ku is not None:
            builder = builder.add_extension(keyUsage(*ku), critical=True)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([_EKU[each] for each in eku]), critical=False)
        names = [alternativeName(each) for each in san]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(signingKey or self.key, algorithm)

    def crl(
        self,
        *revoked: Issued | x509.Certificate,
        lastUpdate: timedelta = -DAY,
        nextUpdate: timedelta = 7 * DAY,
    ) -> x509.CertificateRevocationList:
        """This authority's revocation list."""
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.subject)
            .last_update(now + lastUpdate)
            .next_update(now + nextUpdate)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for each in revoked:
            serial = (each.cert if isinstance(each, Issued) else each).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256())


def selfSigned(
    cn: str = "swc-1", *, ca: bool = True, san: Iterable[str] = (), eku: Iterable[str] | None = None
) -> Issued:
    """A certificate that is its own root, as two parties who just exchange certificates have."""
    authority = Authority(cn)
    issued = authority.issue(cn, key=authority.key, ca=ca, san=san, eku=eku, ku=("digital_signature", "key_cert_sign"))
    return Issued(issued.cert, issued.key, (issued.cert,), issued.cert)


def credentials(
    issued: Issued,
    trusted: Authority | Issued | Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList] = (),
    crlExpired: Literal["refuse", "warn"] = "refuse",
) -> Credentials:
    """`issued` as one end's own, trusting an authority's root, a self-signed certificate, or a list of roots."""
    roots = (trusted.root,) if isinstance(trusted, Authority | Issued) else tuple(trusted)
    return Credentials(issued.chain, issued.key, roots, tuple(crls), crlExpired)


@attrs.frozen
class World:
    """
    What all rows of the matrix share: the root that both ends trust, one below it, another one, a revoked leaf, and a
    connector and a listener whose self-signed certificates stand in the CA file beside that root.
    """

    authority: Authority
    intermediate: Authority
    other: Authority
    revoked: Issued
    exchangedClient: Issued
    exchangedServer: Issued

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """The checking end's CA file."""
        return (self.authority.cert, self.exchangedClient.cert, self.exchangedServer.cert)

    @property
    def crls(self) -> tuple[x509.CertificateRevocationList, ...]:
        """The revocation lists that the checking end is configured with."""
        return (self.authority.crl(self.revoked), self.intermediate.crl())

    def checking(self, role: Role) -> Credentials:
        """The credentials of the end that checks a peer of `role`: a proper certificate of its own, roots and lists."""
        own = self.authority.server() if role == "client" else self.authority.issue("swc-1")
        return credentials(own, self.roots, self.crls)


@cache
def world() -> World:
    """The one world of a test run."""
    authority = Authority("Trusted CA")
    return World(
        authority,
        authority.intermediate(),
        Authority("Other CA"),
        authority.issue("swc-revoked"),
        selfSigned("swc-exchanged", eku=("client",)),
        selfSigned("listener-exchanged", eku=("server",), san=SERVER_NAMES),
    )


@attrs.frozen
class Case:
    """
    One row of the certificate matrix.

    :ivar name: the row's name, an identifier in words.
    :ivar make: what the peer presents; `None` for nothing. The chain is what it sends, the key what it proves.
    :ivar alert: the TLS alert that it gets, or `None` when the handshake completes.
    :ivar uid: what `LocalVerifier` makes of it; `None` when it refuses (only rows without an alert get so far).
    :ivar role: what the peer is.
    :ivar serverName: the name the connector looks for, for servers.
    """

    name: str
    make: Callable[[World], Issued | None]
    alert: int | None
    uid: str | None = None
    role: Role = "client"
    serverName: str | None = None


def _forged(at: World) -> Issued:
    return at.authority.issue(signingKey=newKey())


def _withForeignChain(at: World) -> Issued:
    good, victim = at.authority.issue("swc-1"), at.authority.issue("victim")
    return attrs.evolve(good, chain=(good.cert, victim.cert, at.other.cert))


def _issuedByALeaf(at: World) -> Issued:
    leaf = at.authority.issue("swc-1", ku=("digital_signature", "key_cert_sign"))
    child = Authority("swc-1")
    child.key = leaf.key
    issued = child.issue("victim")
    return attrs.evolve(issued, chain=(issued.cert, leaf.cert))


def _issuedByAnExchanged(at: Issued, cn: str, san: Iterable[str] = ()) -> Issued:
    authority = Authority(at.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)  # type: ignore[arg-type]  # a str
    authority.key = at.key
    issued = authority.issue(cn, san=san)
    return attrs.evolve(issued, chain=(issued.cert, at.cert))


def _longChain(at: World) -> Issued:
    authority = at.authority
    for number in range(12):
        authority = authority.intermediate(f"Intermediate {number}")
    return authority.issue()


ODD_NAME = 'Büro 3, "west" <a=b>+c\\d;#\'%00'

#: ACCEPTANCE.md's sixteen rows, in its order, and then some of our own.
MATRIX: tuple[Case, ...] = (
    Case("none", lambda at: None, 116),
    Case("self-signed", lambda at: selfSigned(), 48),
    Case("other CA", lambda at: at.other.issue(), 48),
    Case("expired", lambda at: at.authority.issue(notBefore=-2 * DAY, notAfter=-DAY), 45),
    Case("not yet valid", lambda at: at.authority.issue(notBefore=DAY, notAfter=2 * DAY), 45),
    Case("wrong EKU", lambda at: at.authority.issue(eku=("email",)), 43),
    Case("wrong KU", lambda at: at.authority.issue(ku=("key_encipherment",)), 43),
    Case("CA as leaf", lambda at: at.authority.issue(ca=True, ku=("digital_signature", "key_cert_sign")), 42),
    Case("revoked by CRL", lambda at: at.revoked, 44),
    Case("forged signature", _forged, 42),
    Case("right leaf with foreign chain appended", _withForeignChain, None, "swc-1"),
    Case("name with odd characters", lambda at: at.authority.issue(ODD_NAME), None, ODD_NAME),
    Case("two CNs", lambda at: at.authority.issue(subject=commonName("swc-1", "victim")), None),
    Case("empty CN", lambda at: at.authority.issue(""), None),
    Case("very long chain", _longChain, 42),
    Case(
        "wrong server name", lambda at: at.authority.server("other.example"), 42, role="server", serverName="localhost"
    ),
    # Ours.
    Case("good", lambda at: at.authority.issue(), None, "swc-1"),
    Case("good through an intermediate", lambda at: at.intermediate.issue(), None, "swc-1"),
    Case("no usages at all", lambda at: at.authority.issue(eku=None, ku=None), None, "swc-1"),
    Case("no CN", lambda at: at.authority.issue(subject=x509.Name([])), None),
    Case("name with control characters", lambda at: at.authority.issue("swc-1\n"), None),
    Case("server's certificate as a client", lambda at: at.authority.issue(eku=("server",)), 43),
    Case("other CA with the trusted name", lambda at: Authority("Trusted CA").issue(), 48),
    Case("issued by a leaf", _issuedByALeaf, 42),
    Case("an exchanged certificate", lambda at: at.exchangedClient, None, "swc-exchanged"),
    Case("issued by an exchanged certificate", lambda at: _issuedByAnExchanged(at.exchangedClient, "victim"), 48),
    Case("good server", lambda at: at.authority.server(), None, role="server", serverName="localhost"),
    Case("good server by address", lambda at: at.authority.server(), None, role="server", serverName="::1"),
    Case(
        "client's certificate as a server",
        lambda at: at.authority.issue(eku=("client",), san=SERVER_NAMES),
        43,
        role="server",
        serverName="localhost",
    ),
    Case("server of another CA", lambda at: at.other.server(), 48, role="server", serverName="localhost"),
    Case("an exchanged server", lambda at: at.exchangedServer, None, role="server", serverName="localhost"),
    Case("an exchanged client as a server", lambda at: at.exchangedClient, 43, role="server", serverName="localhost"),
    Case(
        "server issued by an exchanged certificate",
        lambda at: _issuedByAnExchanged(at.exchangedServer, "listener", SERVER_NAMES),
        48,
        role="server",
        serverName="localhost",
    ),
    Case("server without names", lambda at: at.authority.issue("localhost"), 42, role="server", serverName="localhost"),
)
