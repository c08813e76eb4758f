"""What may be a uid, and where in a certificate it stands."""

from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID

from ..errors import ConfigurationError
from .describe import alternativeNames, printable

#: Characters of a uid; a common name may have 64 (RFC 5280 appendix A.1), a URI more.
MAX_UID = 255

#: Finds the uid in a leaf; raises ValueError with the reason when there is none, or no single one.
UidSource = Callable[[x509.Certificate], str]


def checkedUid(uid: str) -> str:
    """
    `uid` itself, when it can stand in logs, file names and terminals without doing harm.

    :raises ValueError: empty, too long, unprintable characters, or blanks at an end.
    """
    if not uid:
        raise ValueError("the name is empty")
    if len(uid) > MAX_UID:
        raise ValueError(f"the name has {len(uid)} characters; {MAX_UID} is the most")
    if not uid.isprintable():
        raise ValueError(f"the name {printable(uid)} has control characters")
    if uid != uid.strip():
        raise ValueError(f"the name {uid!r} begins or ends with a blank")
    return uid


def uidSource(text: str) -> UidSource:
    """
    Where the uid is, as a setting says it: ``cn``, ``uri:PREFIX`` (the rest of the one SAN URI that begins so), or
    ``dns:SUFFIX`` (the rest of the one SAN DNS name that ends so).

    :raises ConfigurationError: anything else.
    """
    kind, _, affix = text.partition(":")
    if text == "cn":
        return _fromCommonName
    if kind == "uri" and affix:
        return _FromUri(affix)
    if kind == "dns" and affix:
        return _FromDns("." + affix.lstrip(".").lower())
    raise ConfigurationError(f"uid source {text!r}: must be cn, uri:PREFIX or dns:SUFFIX")


def _fromCommonName(leaf: x509.Certificate) -> str:
    names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return checkedUid(_theOne(names, "common name"))


@attrs.frozen
class _FromUri:
    prefix: str

    def __call__(self, leaf: x509.Certificate) -> str:
        uris = [each.value for each in alternativeNames(leaf) if isinstance(each, x509.UniformResourceIdentifier)]
        found = [each.removeprefix(self.prefix) for each in uris if each.startswith(self.prefix)]
        return checkedUid(_theOne(found, f"URI that begins with {self.prefix}"))


@attrs.frozen
class _FromDns:
    suffix: str

    def __call__(self, leaf: x509.Certificate) -> str:
        names = [each.value.lower() for each in alternativeNames(leaf) if isinstance(each, x509.DNSName)]
        found = [each.removesuffix(self.suffix) for each in names if each.endswith(self.suffix)]
        return checkedUid(_theOne(found, f"DNS name that ends with {self.suffix}"))


def _theOne(found: list[str], what: str) -> str:
    if len(found) != 1:
        raise ValueError(
            f"the certificate has {len(found) or 'no'} {what}{'s' if len(found) > 1 else ''}; one is needed"
        )
    return found[0]
