"""``gencert``: a small private authority, and the one-step self-signed form for two parties who exchange files."""

import re
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Literal

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import ConfigurationError
from ..interfaces import Role
from .names import checkedUid
from .pem import PrivateKey, SettingFile, readCertificates, readPrivateKey

KeyType = Literal["rsa", "ec"]

#: Days that an end's certificate, and an authority's, is good for.
LEAF_DAYS, AUTHORITY_DAYS = 365, 3650
#: Bits of an RSA key: what the original's root has.
RSA_BITS = 4096
#: Characters of a common name (RFC 5280 appendix A.1).
MAX_COMMON_NAME = 64
# A certificate is often carried at once to a machine whose clock is a little late.
_CLOCK_SKEW = timedelta(minutes=5)

# Letters, digits and hyphens (RFC 1123 §2.1), the underscore of many local networks, and a wildcard label.
_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

_EKU = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


@attrs.frozen
class Made:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey = attrs.field(repr=False)


def makeKey(keyType: KeyType) -> PrivateKey:
    """RSA of `RSA_BITS` (takes seconds), or EC P-256 (at once)."""
    if keyType == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, RSA_BITS)


def makeAuthority(name: str, keyType: KeyType, days: int = AUTHORITY_DAYS) -> Made:
    """A self-signed root that signs ends' certificates and revocation lists, and no other authorities."""
    key = makeKey(keyType)
    subject = _name(name)
    builder = (
        _builder(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return Made(_signed(builder, key), key)


def loadAuthority(cert: SettingFile, key: SettingFile) -> Made:
    """
    The authority of an earlier `makeAuthority`.

    :raises ConfigurationError: a file can't be used, or the two don't belong together.
    """
    made = Made(readCertificates(cert)[0], readPrivateKey(key))
    if made.certificate.public_key() != made.key.public_key():
        key.fail(f"isn't the key of the certificate in {cert}")
    return made


def makeLeaf(
    authority: Made, role: Role, cn: str, hosts: Sequence[str], keyType: KeyType, days: int = LEAF_DAYS
) -> Made:
    """
    An end's certificate, signed by `authority`.

    :param hosts: names and addresses for a listener's certificate; a connector's needs none.
    :raises ConfigurationError: a name or host can't stand in a certificate.
    """
    key = makeKey(keyType)
    builder = (
        _builder(_name(cn), authority.certificate.subject, key, days, authority.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature", *_forRsa(key)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EKU[role]]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.certificate.public_key()),  # type: ignore[arg-type]  # an authority's key can sign
            critical=False,
        )
    )
    if hosts:
        builder = builder.add_extension(_alternativeNames(hosts), critical=False)
    return Made(_signed(builder, authority.key), key)


def makeSelfSigned(role: Role, cn: str, hosts: Sequence[str], keyType: KeyType, days: int = LEAF_DAYS) -> Made:
    """
    A certificate that is its own root: the other end configures it as its CA file.

    :raises ConfigurationError: a name or host can't stand in a certificate.
    """
    key = makeKey(keyType)
    subject = _name(cn)
    builder = (
        _builder(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("digital_signature", "key_encipherment", "key_cert_sign"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EKU[role]]), critical=False)
        .add_extension(_alternativeNames(hosts), critical=False)
    )
    return Made(_signed(builder, key), key)


def ownHosts() -> list[str]:
    """This machine's host name, ``localhost``, and its addresses (loopback among them, link-local ones not)."""
    addresses = {"127.0.0.1", "::1", *_resolved(socket.gethostname()), *_routed()}
    return list(dict.fromkeys([socket.gethostname(), "localhost", *sorted(addresses)]))


def _resolved(host: str) -> Iterable[str]:
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, None)]
    except OSError:
        return []
    return [each for each in found if not ip_address(each.partition("%")[0]).is_link_local]


def _routed() -> Iterable[str]:
    """The addresses from which this machine would reach the documentation networks: connecting UDP sends nothing."""
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
            except OSError:
                continue
            yield str(probe.getsockname()[0])


def _name(cn: str) -> x509.Name:
    try:
        if len(checkedUid(cn)) > MAX_COMMON_NAME:
            raise ValueError(f"the name has {len(cn)} characters; a certificate holds {MAX_COMMON_NAME}")
    except ValueError as e:
        raise ConfigurationError(f"common name: {e}") from e
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, days: int, latest: datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    fixed = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if fixed else hashes.SHA256())


def _forRsa(key: PrivateKey) -> tuple[str, ...]:
    return ("key_encipherment",) if isinstance(key, rsa.RSAPrivateKey) else ()


def _usage(*usages: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    flags = {each: each in usages for each in every.split()}
    return x509.KeyUsage(**flags, encipher_only=False, decipher_only=False)


def _alternativeNames(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_alternativeName(each) for each in hosts])


def _alternativeName(host: str) -> x509.GeneralName:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        if isinstance(address, IPv6Address) and address.scope_id:
            raise ConfigurationError(f"host {host!r}: a zone (%{address.scope_id}) can't stand in a certificate")
        return x509.IPAddress(address)
    return x509.DNSName(hostName(host))


def isHostName(text: str) -> bool:
    """Whether `text` is a host name that can stand in a certificate."""
    try:
        hostName(text)
    except ConfigurationError:
        return False
    return True


def hostName(host: str) -> str:
    """
    A host name as certificates have it: in ASCII, with other letters as IDNA writes them.

    :raises ConfigurationError: it can't be one.
    """
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as e:
        raise ConfigurationError(f"host {host!r} is neither an address nor a host name: {e}") from e
    if not _HOST_NAME.fullmatch(name):
        raise ConfigurationError(f"host {host!r} is neither an address nor a host name")
    return name
