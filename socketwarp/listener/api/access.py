"""
Who calls, and what they may: tokens, client certificates, and browsers that are led astray.

Without tokens and without a client CA, whoever reaches the API may do everything; the settings refuse that beyond
loopback. With a client CA, TLS asks for a certificate before anything is heard, and its common name names the caller.
With tokens, every call needs one, whatever TLS has asked for; the token names the caller and what it may.
"""

import hmac
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.internet.interfaces import ISSLTransport
from twisted.web.server import Request

from ...errors import AccessDenied, ForeignSite, Unauthenticated
from ...rules.tokens import OPERATE, READ, Role, Token
from ...settings import PortRange
from ..events import showAddress

#: The scheme of RFC 6750, with the space behind it.
_BEARER = "bearer "


@attrs.frozen
class Caller:
    """
    Who calls.

    :ivar name: a token's or certificate's, or ``anonymous``.
    :ivar address: where from, ``host:port``.
    :ivar ports: entry ports it has to do with; empty: all. ``uids``: the same of uids, as patterns.
    """

    name: str
    address: str
    role: Role = OPERATE
    ports: Sequence[PortRange] = ()
    uids: Sequence[str] = ()

    def require(self, role: Role) -> None:
        """:raises errors.AccessDenied: when the caller's role isn't at least this one."""
        if role == OPERATE and self.role == READ:
            raise AccessDenied(f"{self.name} has the role {READ!r}, and this needs {OPERATE!r}")

    def sees(self, port: int | None, uid: str | None) -> bool:
        """
        Whether the caller has to do with what belongs to this port and uid; `None`: to no one in particular. What has a
        uid and no port is a connector's.
        """
        return (self.seesPort(port) or (port is None and uid is not None and self.seesConnectors)) and self.seesUid(uid)

    @property
    def seesConnectors(self) -> bool:
        """Whether it has to do with connectors at all: who only has some ports hasn't, since a connector has any."""
        return bool(self.uids) or not self.ports

    def seesPort(self, port: int | None) -> bool:
        """The same of a port alone."""
        return not self.ports or (port is not None and any(port in each for each in self.ports))

    def seesUid(self, uid: str | None) -> bool:
        """The same of a uid alone."""
        return not self.uids or (uid is not None and any(fnmatchcase(uid, each) for each in self.uids))

    def claim(self, port: int, uid: str) -> None:
        """
        Whose uid a port that is there has, isn't said.

        :raises errors.AccessDenied: when this port for this uid isn't the caller's.
        """
        if not self.seesPort(port):
            what = f"port {port}" if port else "any free port: name one of its own"
            raise AccessDenied(f"{self.name} has nothing to do with {what}")
        if not self.seesUid(uid):
            raise AccessDenied(f"{self.name} has nothing to do with the uid that port {port} is for")

    def claimUid(self, uid: str) -> None:
        """:raises errors.AccessDenied: when the uid isn't the caller's."""
        if not self.seesUid(uid):
            raise AccessDenied(f"{self.name} has nothing to do with the uid {uid}")


@attrs.frozen
class Gate:
    """
    Lets callers in.

    :ivar tokens: gives the tokens in force; `None`: none are asked for.
    :ivar hosts: gives the names under which we may be called, besides addresses and names without a dot.
    """

    tokens: Callable[[], Sequence[Token]] | None = None
    hosts: Callable[[], Sequence[str]] = tuple

    def identify(self, request: Request) -> Caller:
        """
        Say who calls.

        :raises errors.Unauthenticated: when a token is needed, and there is none that we know.
        """
        address = addressOf(request)
        if self.tokens is None:
            return Caller(_certified(request) or "anonymous", address)
        token = _known(_bearer(request), self.tokens())
        return Caller(token.name, address, token.role, token.ports, token.uids)

    def checkSite(self, request: Request) -> None:
        """
        Turn away a browser that somebody else's page leads here: by its own script (``Origin``), or by a name of
        theirs that they let point to us (DNS rebinding). A name without a dot belongs to nobody outside.

        :raises errors.ForeignSite: saying which header it is.
        """
        host = headerOf(request, "Host")
        if host is not None and not self._isOurs(_hostOf(host)):
            raise ForeignSite(f"the name {_hostOf(host)!r} in the Host header isn't this listener's (see APIS_HOSTS)")
        origin = headerOf(request, "Origin")
        if origin is not None and (host is None or origin.lower().partition("://")[2] != host.lower()):
            raise ForeignSite("a page of another site (the Origin header says so) may not call this API")

    def _isOurs(self, name: str) -> bool:
        try:
            ip_address(name)
        except ValueError:
            return "." not in name or name.endswith(".localhost") or any(_fits(name, each) for each in self.hosts())
        return True


def _fits(name: str, pattern: str) -> bool:
    """Whether a name is one of a certificate's, where ``*.`` stands for one label (RFC 6125 §6.4.3)."""
    return name == pattern.lower() or (pattern[:2] == "*." and name.partition(".")[2] == pattern[2:].lower())


def headerOf(request: Request, name: str) -> str | None:
    """A header of a request, repeated ones as a list (RFC 9110 §5.3); bytes that are no text match nothing."""
    given = request.requestHeaders.getRawHeaders(name.encode())
    return None if given is None else b", ".join(given).decode(errors="replace")


def addressOf(request: Request) -> str:
    """Where a call comes from, ``host:port``."""
    peer = request.getClientAddress()
    return showAddress((peer.host, peer.port))


def _hostOf(header: str) -> str:
    """The name or address in a Host header (RFC 9110 §7.2), in lower case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return header


def _certified(request: Request) -> str | None:
    """The common name, or the whole subject, of the certificate that TLS has checked."""
    transport = request.channel.transport if request.channel is not None else None
    if not ISSLTransport.providedBy(transport):
        return None
    certificate = transport.getPeerCertificate()
    if not isinstance(certificate, X509):
        return None
    subject = certificate.to_cryptography().subject
    names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if len(names) == 1 and names[0] else subject.rfc4514_string()


def _bearer(request: Request) -> str:
    given = headerOf(request, "Authorization")
    if given is None:
        raise Unauthenticated("this API asks for a token: send the header 'Authorization: Bearer …'")
    if not given.lower().startswith(_BEARER):
        raise Unauthenticated("the Authorization header isn't of the form 'Bearer …'")
    return given[len(_BEARER) :].strip()


def _known(presented: str, tokens: Sequence[Token]) -> Token:
    """
    The token that was presented. What is compared are digests, all of them to the end, so that the time tells nothing.
    """
    digest = sha256(presented.encode()).hexdigest()
    found = [token for token in tokens if hmac.compare_digest(token.sha256, digest)]
    if not found:
        raise Unauthenticated("the token isn't one of those in APIS_TOKENS_FILE")
    return found[0]
