"""
What the rooms promise each other: zope interfaces and the few frozen records that pass between rooms.

Imports only `errors`. Everything above ``quic/`` speaks `ISession` and `IStream`, so that a second carrier is a
matter of adding files. Sizes are in bytes, times in seconds, addresses are ``(host, port)`` with the host as printed
by `ipaddress` (an IPv4 client on a dual-stack socket reads ``192.0.2.1``, never ``::ffff:192.0.2.1``).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
)
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from .errors import SessionLost, SocketwarpError

#: A host, as `ipaddress` prints it, and a port.
Address = tuple[str, int]


def plainAddress(place: Any) -> Address:  # Any: a socket's address, of two parts or of four
    """A socket's address as host and port, without scope; IPv4 on a dual-stack socket reads as what it is."""
    host, port = place[:2]
    host = host.partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host, port


#: What TLS says a certificate is used as.
Role = Literal["client", "server"]
#: Bytes as they travel: never copied while a view will do.
Piece = bytes | bytearray | memoryview


@attrs.frozen
class Identity:
    """
    Who is at the other end. Made once, by an `IVerifier`, and passed on from there.

    :ivar uid: the name under which ports are opened.
    :ivar leaf: the certificate that authenticated the TLS session.
    :ivar attributes: what the verifier knows besides (a JSON object).
    """

    uid: str
    leaf: x509.Certificate = attrs.field(repr=False)
    attributes: Mapping[str, Any] = attrs.field(factory=dict, repr=False)  # Any: JSON of somebody else's making

    @property
    def notAfter(self) -> datetime:
        """The certificate's end of life (UTC)."""
        return self.leaf.not_valid_after_utc


class IVerifier(Interface):
    """Says whose a client certificate is, after TLS has checked it."""

    def verify(leaf: x509.Certificate) -> "Deferred[Identity]":
        """
        Ask for the identity behind the certificate that authenticated a session.

        The answer comes within the verifier's own deadline (5 s), as an `Identity`, or as a failure:
        `errors.VerifierRefused` for a decision against the certificate, `errors.VerifierFault` for anything else.
        Cancelling gives the question up: no call goes on for it, and it fails with `errors.VerifierFault`.
        """

    def stop() -> None:
        """Give up what is under way: it fails with `errors.VerifierFault`. Nobody will ask again."""


class IReloadable(Interface):
    """An end whose files may change while it runs."""

    def reload() -> None:
        """Look at the files now (SIGHUP): changed ones are used from now on, broken ones change nothing."""


class IStateful(Interface):
    """An end that keeps something on the disk while it runs, and from one start to the next."""

    def openState() -> None:
        """
        Open it and check it, before anything listens.

        :raises errors.ConfigurationError: it can't be used.
        """


class ICredentials(Interface):
    """What one end shows of itself, and how it checks the other. Immutable: a reload makes a new one."""

    chain: Sequence[x509.Certificate] = Attribute("Our leaf, then the intermediates that we send.")
    privateKey: CertificateIssuerPrivateKeyTypes = Attribute("The leaf's private key.")
    roots: bytes = Attribute("The configured roots: PEM, one or more blocks.")

    def checkPeer(chain: Sequence[x509.Certificate], role: Role, serverName: str | None) -> None:
        """
        Check the chain that the peer sent: path to the roots, dates, key usage and extended key usage for `role`, CRLs.

        Called in the TLS handshake, after the peer has proven that it has the leaf's key.

        :param chain: the leaf first; empty when the peer sent none.
        :param role: what the peer is, ``"client"`` or ``"server"``.
        :param serverName: the name or address the leaf must carry; `None` for clients.
        :raises errors.CertificateRejected: with the TLS alert to send.
        """


class IStreamReceiver(Interface):
    """What a stream delivers to; the other half of `IStream`, as a protocol is of a transport."""

    def piecesReceived(pieces: list[Piece]) -> None:
        """
        The next bytes, in order, as one or more non-empty pieces. They count as consumed (the peer gets credit) when
        this returns; a receiver that can't take more calls ``pauseProducing`` on its stream and gets no call after.
        """

    def readConnectionLost() -> None:
        """The peer's FIN: no more bytes will come, all before it have been delivered. Called at most once."""

    def writeConnectionLost(errorCode: int) -> None:
        """
        The peer sent STOP_SENDING: what is written from here on is dropped. Called at most once. Code 0 comes from
        the original, which stops reading as soon as its own side has ended.
        """

    def connectionLost(reason: Failure) -> None:
        """
        The stream is over; no other call follows. `ConnectionDone` when both directions ended with FIN,
        `errors.StreamReset` when the peer reset it, `errors.SessionLost` when its session ended.
        """


class IStream(IConsumer, IPushProducer):
    """
    One bidirectional stream as a Twisted transport.

    As a consumer it buffers up to a watermark and then pauses its producer; as a push producer it delivers to its
    `IStreamReceiver`, and gives the peer credit only for what was delivered.
    """

    streamId: int = Attribute("The stream's number, unique in its session.")
    isEnding: bool = Attribute("Whether the peer's FIN has come and no bytes wait before it; it is told at once.")

    def start(receiver: IStreamReceiver) -> None:
        """Deliver to `receiver` from now on. What came before has waited, within the stream's window. Call it once."""

    def writeSequence(pieces: Sequence[Piece]) -> None:
        """Write all the pieces, in order, without joining them. They must not be changed afterwards."""

    def loseWriteConnection() -> None:
        """FIN after all that was written; the other direction goes on. Does nothing when writing has ended already."""

    def abort(errorCode: int) -> None:
        """
        End both directions at once: RESET_STREAM for ours, STOP_SENDING for the peer's, what is buffered is dropped.
        The receiver gets no further call. Does nothing on a stream that is over.
        """


class ITcpProtocol(IProtocol, IHalfCloseableProtocol):
    """What an `ITcp` has as its protocol: one that hears of each direction's end."""


class ITcp(IPushProducer):
    """
    A TCP connection as bridges want it.

    Nothing waits for full packets (TCP_NODELAY). As a push producer it gives its protocol what it reads; it tells of a
    reset even while it is paused. FIN ends the direction that it ends, no more.
    """

    def localAddress() -> Address:
        """Where the connection ends on our side; on one that is gone, nowhere: an empty host and port 0."""

    def registerProducer(producer: IProducer, streaming: bool) -> None:
        """Have a push producer paused while the kernel doesn't take what was written."""

    def unregisterProducer() -> None:
        """Pause and resume it no more."""

    def writeSequence(pieces: Sequence[Piece], isLast: bool = False) -> None:
        """
        Write all the pieces, in order, without joining them. They must not be changed afterwards.

        :param isLast: ``loseWriteConnection`` follows at once, and FIN may travel with them.
        """

    def loseWriteConnection() -> None:
        """FIN after all that was written; then the protocol's ``writeConnectionLost``."""

    def loseConnection() -> None:
        """Close a connection whose writing has ended, whether FIN has come or not."""

    def abortConnection() -> None:
        """RST, at once; what waits to be sent is dropped. Does nothing on a connection that is gone."""


@attrs.frozen
class SessionStatistics:
    """
    A moment in a session's life.

    :ivar bytesIn: stream bytes delivered; ``bytesOut``: stream bytes acknowledged by the peer, or,
        where TCP does that out of our sight, handed over.
    :ivar rtt: smoothed round-trip time, seconds; `None` before the first sample.
    :ivar packetsLost: packets declared lost so far.
    :ivar pathMtu: the largest UDP payload in use on the path.
    :ivar streams: streams that aren't over.
    :ivar buffered: stream bytes held: not yet sent, not yet acknowledged, not yet delivered.
    """

    bytesIn: int = 0
    bytesOut: int = 0
    rtt: float | None = None
    packetsLost: int = 0
    pathMtu: int = 0
    streams: int = 0
    buffered: int = 0


class ISession(Interface):
    """One authenticated connection between a listener and a connector, over whatever carries it."""

    sessionId: str = Attribute("A random name for logs and events; at a connector the listener's, once it is known.")
    carrier: str = Attribute("``quic`` or ``tls``.")
    protocol: str = Attribute("The ALPN in use: ``hq-29`` or ``socketwarp/1``.")
    peerLeaf: x509.Certificate = Attribute("The certificate that authenticated the peer's TLS.")
    peerChain: Sequence[x509.Certificate] = Attribute("What the peer's TLS showed of itself, `peerLeaf` first.")
    peerAddress: Address = Attribute("Where the peer is now; may change during the session.")
    isOpen: bool = Attribute("False from the moment the session starts to close.")

    def openStream() -> "Deferred[IStream]":
        """
        Open a bidirectional stream; fires at once unless the peer's stream limit is reached, then when it grants
        more. Cancelling gives the place in the queue up. Fails with `errors.LimitReached` when too many wait already,
        and with `errors.SessionLost` when the session ends first.
        """

    def acceptStreams(handler: Callable[[IStream], None]) -> None:
        """
        Call `handler` with each stream that the peer opens, those that wait already included. The handler calls
        ``start`` on it, or ``abort``.
        """

    def close(errorCode: int, reason: str) -> None:
        """
        Tell the peer (the reason in UTF-8, cut at 500 bytes) and end every stream with `errors.SessionLost`. Does
        nothing on a session that is closing.
        """

    def whenClosed() -> "Deferred[SessionLost]":
        """
        Fires, never fails, once the session is gone and its timers with it. Each call gives a Deferred of
        its own.
        """

    ticket: str | None = Attribute(
        "A listener's secret for `welcome`, by which further connections of its connector show that they belong to "
        "this session; `None` for a carrier that needs none, and at the connector."
    )

    laneLimit: int | None = Attribute(
        "How many further connections a listener takes for this session, for `welcome`; `None` as for the ticket."
    )

    def admitted(ticket: str | None, laneLimit: int | None = None) -> None:
        """For a connector: the listener has admitted us, and given this ticket and this limit, if any."""

    isSilent: bool = Attribute("Whether the peer owes an answer for some time: it may be gone. It may also come back.")

    def saveMemory(isShort: bool) -> None:
        """
        Memory is short, or no more: while it is, streams pause their producers as soon as anything waits to be sent,
        and windows don't grow. A stream with nothing waiting can always move.
        """

    def statistics() -> SessionStatistics:
        """The session's figures of this moment."""


class Totals(NamedTuple):
    """
    What passed a bridge, told when it is over.

    :ivar toStream: bytes from TCP to the stream.
    :ivar toTcp: bytes from the stream to TCP.
    :ivar error: why it ended early; `None` when both directions ended with FIN.
    """

    toStream: int
    toTcp: int
    error: SocketwarpError | None

    @property
    def ending(self) -> str:
        """A word for logs and events: ``finished``, or the error's code."""
        return "finished" if self.error is None else self.error.code
