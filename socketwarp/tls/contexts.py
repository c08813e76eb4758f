"""
OpenSSL's contexts: TLS 1.3 alone, a certificate on both sides, no resumption and so no early data.

What a peer's chain must be says `ICredentials.checkPeer`, here as for every carrier; OpenSSL's own opinion of it counts
for nothing. A client checks in the middle of the handshake, so that a stranger's server learns nothing of it. A server
checks right after it: then the client hears the reason, which a TLS alert has no room for.
"""

import os
import socket
from typing import cast

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL

from ..errors import CertificateRejected
from ..interfaces import ICredentials, Role

#: The only protocol on this carrier. hq-29's speakers know no TLS over TCP.
ALPN = b"socketwarp/1"
#: What credentials may have as their key: `identity.pem` reads no other kind.
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
#: TLS alerts are session errors from here on, as in QUIC (RFC 9001 §4.8).
CRYPTO_ERROR = 0x100
#: So often OpenSSL may have dealt with messages of a handshake on one connection: some ten times in the handshake
#: itself, then for each ticket, and each update of the peer's keys, of which an honest one needs one in 2**24.5 records
#: (RFC 8446 §5.5). OpenSSL takes these for as long as they come, within one call.
MAX_HANDSHAKE_CALLS = 256
#: SSL_MODE_ENABLE_PARTIAL_WRITE of openssl/ssl.h, which pyOpenSSL sets and doesn't name: SSL_write returns after each
#: record, and what is left is offered again. Without it a piece that isn't taken has to be offered again as a whole.
_PARTIAL_WRITE = 1
#: TLS alerts, RFC 8446 §6.2.
BAD_CERTIFICATE = 42
NO_APPLICATION_PROTOCOL = 120
#: X509_V_ERR_… of openssl/x509_vfy.h, at which OpenSSL sends an alert that says the same as ours.
_ALERTS = {9: 45, 10: 45, 18: 48, 19: 48, 20: 48, 21: 48, 26: 43}


@attrs.define(eq=False)
class Conduct:
    """
    What a connection's peer does in TLS itself; it is the connection's application data.

    :ivar calls: how often messages of a handshake were dealt with.
    """

    calls: int = attrs.field(default=0, init=False)


@attrs.define(eq=False)
class Examination(Conduct):
    """
    One client's check of its server, while the handshake waits.

    :ivar isDone: whether there was one; ``rejection``: its outcome, `None` for a server that is good.
    """

    credentials: ICredentials
    serverName: str
    isDone: bool = False
    rejection: CertificateRejected | None = None

    def answer(self, connection: SSL.Connection, code: int, depth: int, isFine: int) -> bool:
        """OpenSSL asks several times: for each of its own objections, then for each certificate of its path."""
        if not self.isDone:
            self.isDone = True
            self.rejection = _rejectionOf(connection, self.credentials, "server", self.serverName)
        if self.rejection is None:
            return True
        # No at the right one of its objections makes it send the right alert; the last time is too late for others.
        isLast = depth == 0 and isFine
        return not isLast and _ALERTS.get(code) != self.rejection.alert


def _examine(connection: SSL.Connection, certificate: object, code: int, depth: int, isFine: int) -> bool:
    return cast(Examination, connection.get_app_data()).answer(connection, code, depth, isFine)


def _letPass(connection: SSL.Connection, certificate: object, code: int, depth: int, isFine: int) -> bool:
    return True


def _watch(connection: SSL.Connection, where: int, result: int) -> None:
    """Called at each step of a handshake, and when OpenSSL has done with messages of one for now."""
    conduct = cast(Conduct | None, connection.get_app_data())
    if where & SSL.SSL_CB_EXIT and conduct is not None:
        conduct.calls += 1
        if conduct.calls > MAX_HANDSHAKE_CALLS:
            _pull(connection.fileno())


def _pull(descriptor: int) -> None:
    """
    End a socket in the middle of a read: nothing but the kernel's view of it can make OpenSSL stop. A socket that was
    shut down would still give what it has, and take more; one that isn't there any more is at its end.
    """
    gone, other = socket.socketpair()
    other.close()
    os.dup2(gone.fileno(), descriptor, inheritable=False)
    gone.close()


def _choose(connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def serverContext(credentials: ICredentials) -> SSL.Context:
    """A context for a listener; whom it lets in must be checked by `checkClient` once the handshake is over."""
    context = _context(SSL.Context(SSL.TLS_SERVER_METHOD), credentials)
    context.set_alpn_select_callback(_choose)
    context.set_verify(SSL.VERIFY_PEER, _letPass)
    return context


def clientContext(credentials: ICredentials) -> SSL.Context:
    """A context for a connector; each of its connections needs an `Examination` as its application data."""
    context = _context(SSL.Context(SSL.TLS_CLIENT_METHOD), credentials)
    context.set_alpn_protos([ALPN])
    context.set_verify(SSL.VERIFY_PEER, _examine)
    return context


def _context(context: SSL.Context, credentials: ICredentials) -> SSL.Context:
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_info_callback(_watch)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.clear_mode(_PARTIAL_WRITE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle lane keeps none of OpenSSL's 34 KiB
    leaf, *rest = credentials.chain
    context.use_certificate(leaf)
    for each in rest:
        context.add_extra_chain_cert(each)
    context.use_privatekey(cast(Key, credentials.privateKey))
    return context


def checkClient(connection: SSL.Connection, credentials: ICredentials) -> CertificateRejected | None:
    """Why a client whose handshake is over is not let in; `None` when it is."""
    if connection.get_alpn_proto_negotiated() != ALPN:
        return CertificateRejected("the client offered no protocol (ALPN)", NO_APPLICATION_PROTOCOL)
    return _rejectionOf(connection, credentials, "client", None)


def _rejectionOf(
    connection: SSL.Connection, credentials: ICredentials, role: Role, serverName: str | None
) -> CertificateRejected | None:
    try:
        credentials.checkPeer(chainOf(connection), role, serverName)
    except CertificateRejected as error:
        return error
    except ValueError as error:
        return CertificateRejected(f"the {role}'s certificate can't be read: {error}", BAD_CERTIFICATE)
    return None


def chainOf(connection: SSL.Connection) -> list[x509.Certificate]:
    """
    What the peer sent, the leaf first; empty when it sent nothing.

    :raises ValueError: one of them can't be read.
    """
    chain = list(connection.get_peer_cert_chain(as_cryptography=True) or [])
    leaf = connection.get_peer_certificate(as_cryptography=True)
    # A server's OpenSSL leaves the leaf out of the chain, SSL_get_peer_cert_chain(3).
    return chain if leaf is None or leaf in chain[:1] else [leaf, *chain]
