"""
The verifier without a server: TLS has checked the chain, the certificate names the uid, a file may allow or deny.

The access file has one rule a line: ``allow UID`` or ``deny UID``, with ``sha256:FINGERPRINT`` in the uid's place if
need be; ``#`` at a line's begin or after a blank begins a comment. A deny always counts; with any allow, what no allow
names is refused.
"""

import re

import attrs
from cryptography import x509
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..errors import CertificateRejected, VerifierRefused
from ..interfaces import Identity, IVerifier
from .chains import Standing, standsAnyway
from .describe import fingerprintOf, subjectOf
from .names import UidSource, uidSource
from .pem import SettingFile
from .watch import POLL_SECONDS, FileWatch

#: Rules of an access file.
MAX_RULES = 100_000

_COMMENT = re.compile(r"(^|\s)#.*")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class AccessRules:
    """
    Who is allowed and who denied: uids as they are, fingerprints as ``sha256:`` and 64 hexadecimal digits.

    :ivar allowed: empty when everybody is allowed who isn't denied.
    """

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def check(self, uid: str, leaf: x509.Certificate) -> None:
        """:raises VerifierRefused: denied, or not allowed."""
        names = {uid, f"sha256:{fingerprintOf(leaf)}"}
        if names & self.denied:
            raise VerifierRefused(f"{uid} is denied by the access file")
        if self.allowed and not names & self.allowed:
            raise VerifierRefused(f"{uid} is not allowed by the access file")


def readAccessRules(file: SettingFile) -> AccessRules:
    """
    Read an access file.

    :raises ConfigurationError: names the file, the line and the remedy.
    """
    found: dict[str, set[str]] = {"allow": set(), "deny": set()}
    for number, line in enumerate(_lines(file), start=1):
        rule = _COMMENT.sub("", line).strip()
        if not rule:
            continue
        verb, _, name = rule.partition(" ")
        if verb not in found or not name:
            file.fail(f"line {number} ({line!r}): must be allow or deny, a blank, and a uid or sha256:FINGERPRINT")
        found[verb].add(_normalized(file, number, name.strip()))
    if not any(found.values()):
        file.fail("no rule in it, so everybody would be allowed; allow or deny somebody, or name no access file")
    return AccessRules(frozenset(found["allow"]), frozenset(found["deny"]))


def _lines(file: SettingFile) -> list[str]:
    try:
        lines = file.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as e:
        file.fail(f"not UTF-8 ({e.reason} at byte {e.start}); save it as plain text")
    if len(lines) > MAX_RULES:
        file.fail(f"{len(lines)} lines; {MAX_RULES} is the most")
    return lines


def _normalized(file: SettingFile, number: int, name: str) -> str:
    kind, separator, digits = name.partition(":")
    if kind.lower() != "sha256" or not separator:
        return name
    digits = digits.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        file.fail(f"line {number}: a SHA-256 fingerprint has 64 hexadecimal digits (socketwarp gencert show prints it)")
    return f"sha256:{digits}"


@implementer(IVerifier)
@attrs.define(eq=False)
class LocalVerifier:
    """
    Names the uid from the certificate alone. Answers at once.

    :ivar source: finds the uid in the certificate; see `names.uidSource`.
    :ivar standing: raises `CertificateRejected` when the certificate is expired or revoked by now:
        `Credentials.checkStanding` of the credentials in force, so that a re-check sees new revocation lists.
    :ivar access: the access file, looked at again for each certificate; `None` without one.
    """

    _source: UidSource = attrs.field(factory=lambda: uidSource("cn"))
    _standing: Standing = standsAnyway
    _access: FileWatch[AccessRules] | None = None

    def verify(self, leaf: x509.Certificate) -> Deferred[Identity]:
        """See `IVerifier.verify`; every failure is a `VerifierRefused`."""
        return execute(self._decide, leaf)

    def stop(self) -> None:
        """See `IVerifier.stop`: nothing is ever under way."""

    def _decide(self, leaf: x509.Certificate) -> Identity:
        try:
            self._standing(leaf)
            uid = self._source(leaf)
        except CertificateRejected as e:
            raise VerifierRefused(str(e)) from e
        except (ValueError, x509.DuplicateExtension) as e:
            raise VerifierRefused(f"certificate {subjectOf(leaf)}: {e}") from e
        if self._access is not None:
            self._access.check()
            self._access.current.check(uid, leaf)
        return Identity(uid, leaf)


def watchedAccess(clock: IReactorTime, file: SettingFile, interval: float = POLL_SECONDS) -> FileWatch[AccessRules]:
    """
    The access file for a `LocalVerifier`.

    :raises ConfigurationError: it can't be read.
    """
    return FileWatch(clock, [file.path], lambda: readAccessRules(file), interval=interval)
