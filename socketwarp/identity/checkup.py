"""What ``socketwarp doctor`` finds in an end's certificate files: what is wrong, in plain words, and how to mend it."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs

from ..errors import EX_CONFIG, CertificateRejected, ConfigurationError
from ..interfaces import Role
from .certificates import Credentials, loadCredentials
from .chains import CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED, UNKNOWN_CA, UNSUPPORTED_CERTIFICATE, checkAlone
from .describe import describe, nameText
from .pem import FilePath

#: Days before its end at which a certificate is called close to it.
SOON_DAYS = 14

_REMEDIES = {
    CERTIFICATE_EXPIRED: "get a new one (socketwarp gencert or enrol), or set this machine's clock if that is wrong",
    CERTIFICATE_REVOKED: "it was withdrawn: ask its authority for a new one",
    UNSUPPORTED_CERTIFICATE: "have one made for this end (socketwarp gencert listener or connector)",
}


@attrs.frozen
class Finding:
    """
    One thing that was looked at.

    :ivar level: ``problem``: the end won't work; ``warning``: it will, for now or in most cases.
    :ivar remedy: what to do; empty when nothing is.
    :ivar status: the exit status that stands for a problem; 0 when it is none.
    """

    level: Literal["fine", "warning", "problem"]
    text: str
    remedy: str = ""
    status: int = attrs.field()

    @status.default
    def _ofTheLevel(self) -> int:
        """What is wrong is a file or a setting, unless it is said."""
        return EX_CONFIG if self.level == "problem" else 0


@attrs.frozen
class Files:
    """The files of one end, as its settings name them."""

    role: Role
    cert: FilePath
    key: FilePath
    ca: FilePath
    crls: Sequence[FilePath] = ()
    crlExpired: Literal["refuse", "warn"] = "refuse"


def checkFiles(files: Files) -> Iterator[Finding]:
    """Everything that the files alone can tell; stops after files that can't be used."""
    try:
        loaded = loadCredentials(files.cert, files.key, files.ca, files.crls, files.crlExpired, files.role)
    except ConfigurationError as e:
        yield Finding("problem", str(e))
        return
    yield Finding("fine", "certificate, private key and CA file can be read, and the key is the certificate's")
    yield from _checkMode(files.key)
    yield from _checkOwn(loaded, files.role)
    yield from _checkNames(loaded, files.role)
    yield from _checkRoots(loaded)
    yield from _checkLists(loaded)


def _checkMode(key: FilePath) -> Iterator[Finding]:
    """Root's key may be read by its group: that is how a service that isn't root gets at it."""
    found = os.stat(key)
    if found.st_mode & (0o037 if found.st_uid == 0 else 0o077):
        text = f"others than its owner may read the private key {os.fspath(key)!r}"
        yield Finding("warning", text, "chmod 600 it, or 640 if it is root's, and its group the service's")


def _checkOwn(loaded: Credentials, role: Role) -> Iterator[Finding]:
    """Our certificate as the other end will see it, if it has the same CA file."""
    told = describe(loaded.chain[0])
    rejected = _rejectionOf(loaded, role)
    if rejected is not None and rejected.alert == UNKNOWN_CA:
        missing = nameText(loaded.chain[-1].issuer)
        remedy = f"well, if the other end's CA file has {missing}; otherwise use the CA file of who issued it"
        text = f"our certificate isn't signed by our CA file, which lacks its issuer {missing} ({rejected})"
        yield Finding("warning", text, remedy)
        rejected = _rejectionAnyway(loaded, role)
    if rejected is not None:
        text = f"the other end will refuse our certificate: {rejected}"
        yield Finding("problem", text, _REMEDIES.get(rejected.alert, "replace it"))
        return
    if told.daysLeft < SOON_DAYS:
        yield Finding("warning", f"our certificate ends in {told.daysLeft} days", "renew it (socketwarp enrol --renew)")
    yield Finding("fine", f"our certificate is good: {told}")


def _rejectionOf(loaded: Credentials, role: Role) -> CertificateRejected | None:
    try:
        loaded.checkPeer(loaded.chain, role, None)
    except CertificateRejected as e:
        return e
    return None


def _rejectionAnyway(loaded: Credentials, role: Role) -> CertificateRejected | None:
    """By the other end, even if it has the root that we lack."""
    try:
        checkAlone(loaded.chain, role)
        loaded.checkStanding(loaded.chain[0])
    except CertificateRejected as e:
        return e
    return None


def _checkNames(loaded: Credentials, role: Role) -> Iterator[Finding]:
    names = [each for each in describe(loaded.chain[0]).names if each.startswith(("DNS:", "IP:"))]
    if role == "server" and not names:
        text = "our certificate has no host name in it (subject alternative name), and connectors look for one"
        yield Finding("problem", text, "make one with: socketwarp gencert listener --host NAME")
    elif role == "server":
        yield Finding("fine", f"connectors may name us as {', '.join(names)}")


def _checkRoots(loaded: Credentials) -> Iterator[Finding]:
    now = datetime.now(UTC)
    for root in loaded.rootCertificates:
        if now < root.not_valid_before_utc:
            text = f"{nameText(root.subject)} of the CA file begins only on {root.not_valid_before_utc:%Y-%m-%d}"
            yield Finding("problem", text, f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC: is it right?")
        elif now > root.not_valid_after_utc:
            text = f"{nameText(root.subject)} of the CA file ended on {root.not_valid_after_utc:%Y-%m-%d}"
            yield Finding("problem", text, "get the authority's new certificate; if it hasn't ended, set the clock")


def _checkLists(loaded: Credentials) -> Iterator[Finding]:
    for crl in loaded.crls:
        if crl.next_update_utc is not None and crl.next_update_utc < datetime.now(UTC):
            text = f"the revocation list of {nameText(crl.issuer)} should have been renewed by {crl.next_update_utc}"
            yield Finding(
                "problem" if loaded.crlExpired == "refuse" else "warning", text, "fetch the authority's new list"
            )
