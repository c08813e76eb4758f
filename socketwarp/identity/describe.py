"""
Certificates in words: the short texts of logs and errors, and the fields that ``gencert show`` and ``doctor`` print.

Texts are made from whatever a stranger put into a certificate, so nothing unprintable passes through.
"""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes

#: The longest name that a log or an error shows, characters.
MAX_SHOWN = 200

#: Key usages as cryptography calls them, and as RFC 5280 §4.2.1.3 and openssl do.
_USAGES = {
    "digital_signature": "digitalSignature",
    "content_commitment": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}

# cryptography warns of long names, which strangers send as they like; it still reads them.
warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)


def printable(text: str) -> str:
    """`text` with everything unprintable as Python escapes (``\\n``, ``\\u202e``), cut at `MAX_SHOWN` characters."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def nameText(name: x509.Name) -> str:
    """A subject or issuer as RFC 4514 writes it (``CN=web,O=Example``); ``(no name)`` for an empty one."""
    return printable(name.rfc4514_string()) or "(no name)"


def subjectOf(certificate: x509.Certificate) -> str:
    """The subject for logs; never raises, whatever a stranger put there."""
    try:
        return nameText(certificate.subject)
    except ValueError:
        return "(unreadable name)"


def fingerprintOf(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, 64 lower-case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


@attrs.frozen
class Description:
    """
    What matters about a certificate, ready to print.

    :ivar serial: hexadecimal, as openssl prints it, without colons.
    :ivar names: subject alternative names, ``DNS:host``, ``IP:address``, ``URI:…``.
    :ivar usages: key usages and extended key usages that it is limited to; empty when it isn't limited.
    :ivar daysLeft: whole days until `notAfter`, negative once it has passed.
    """

    subject: str
    issuer: str
    serial: str
    isAuthority: bool
    names: tuple[str, ...]
    usages: tuple[str, ...]
    notBefore: datetime
    notAfter: datetime
    daysLeft: int
    fingerprint: str

    def __str__(self) -> str:
        """One line, for logs."""
        return (
            f"{self.subject} (issuer {self.issuer}, serial {self.serial}, until {self.notAfter:%Y-%m-%d}, "
            f"{self.daysLeft} days left)"
        )

    def lines(self) -> list[tuple[str, str]]:
        """Label and value, in the order in which a person asks for them."""
        return [
            ("subject", self.subject),
            ("issuer", self.issuer + (" (self-signed)" if self.issuer == self.subject else "")),
            ("serial", self.serial),
            ("authority", "yes (CA:TRUE)" if self.isAuthority else "no"),
            ("names", ", ".join(self.names) or "-"),
            ("usages", ", ".join(self.usages) or "any"),
            ("valid from", f"{self.notBefore:%Y-%m-%d %H:%M:%S} UTC"),
            ("valid until", f"{self.notAfter:%Y-%m-%d %H:%M:%S} UTC"),
            ("days left", str(self.daysLeft)),
            ("sha256", self.fingerprint),
        ]


def describe(certificate: x509.Certificate, now: datetime | None = None) -> Description:
    """
    The fields of `certificate` as text; `now` (UTC) is the moment from which days are counted.

    :raises ValueError: when an extension can't be parsed.
    """
    left = certificate.not_valid_after_utc - (now or datetime.now(UTC))
    return Description(
        subject=nameText(certificate.subject),
        issuer=nameText(certificate.issuer),
        serial=f"{certificate.serial_number:x}",
        isAuthority=isAuthority(certificate),
        names=tuple(_alternativeNames(certificate)),
        usages=(*_keyUsages(certificate), *_extendedUsages(certificate)),
        notBefore=certificate.not_valid_before_utc,
        notAfter=certificate.not_valid_after_utc,
        daysLeft=left.days,
        fingerprint=fingerprintOf(certificate),
    )


def isAuthority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says CA:TRUE (RFC 5280 §4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def alternativeNames(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The subject alternative names; empty without that extension."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def keyUsage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    """The key usage extension; `None` when the certificate isn't limited by one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def extendedKeyUsage(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    """The extended key usage extension; `None` when the certificate isn't limited by one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _alternativeNames(certificate: x509.Certificate) -> Iterator[str]:
    labels = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.UniformResourceIdentifier: "URI",
        x509.RFC822Name: "email",
    }
    for name in alternativeNames(certificate):
        yield f"{labels.get(type(name), 'other')}:{printable(str(name.value))}"


def _keyUsages(certificate: x509.Certificate) -> Iterator[str]:
    usage = keyUsage(certificate)
    return (name for attribute, name in _USAGES.items() if usage and getattr(usage, attribute))


def _extendedUsages(certificate: x509.Certificate) -> Iterator[str]:
    for usage in extendedKeyUsage(certificate) or ():
        yield getattr(usage, "_name", None) or usage.dotted_string
