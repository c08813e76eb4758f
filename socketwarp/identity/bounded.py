"""
Connections for one short call each: a bound to all bytes that come, headers and TLS included, and an end that is one.

Twisted's HTTP client keeps headers without a bound, and ends a TLS connection by asking the other end for its leave.
"""

from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

#: Bytes of an answer that are taken, headers included: twice what `http` takes of a body.
MAX_RECEIVED = 128 * 1024
#: Bytes of a TLS connection: that answer, the records it comes in, and the handshake.
MAX_RECEIVED_TLS = 2 * MAX_RECEIVED


class AnswerTooLong(Exception):
    """The answer has more bytes than the limit; the connection was dropped."""


class _Bounded(ProtocolWrapper):
    """Drops the connection for good once too much has come, and whenever it is to end."""

    factory: "_BoundedFactory"
    _received = 0

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self.factory.limit:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        self.disconnecting = 1
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._received > self.factory.limit:
            reason = Failure(AnswerTooLong(f"more than {self.factory.limit} bytes"))
        super().connectionLost(reason)


class _BoundedFactory(WrappingFactory):
    protocol = _Bounded
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, limit: int) -> None:
        super().__init__(wrapped)
        self.limit = limit


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _BoundedEndpoint:
    _endpoint: IStreamClientEndpoint
    _limit: int = MAX_RECEIVED

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _BoundedFactory(protocolFactory, self._limit)
        )  # Any: a ProtocolWrapper
        return connecting.addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IAgentEndpointFactory)
@attrs.frozen
class BoundedEndpoints:
    """
    Where an agent's connections go to.

    :ivar policy: TLS for https.
    """

    _reactor: Any  # Any: what `HostnameEndpoint` wants of it has no name
    policy: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        endpoint = HostnameEndpoint(self._reactor, uri.host.decode("ascii"), uri.port)
        if uri.scheme == b"http":
            return _BoundedEndpoint(endpoint)
        if uri.scheme != b"https":
            raise SchemeNotSupported(f"unsupported scheme: {uri.scheme!r}")
        creator = self.policy.creatorForNetloc(uri.host, uri.port)
        return _BoundedEndpoint(wrapClientTLS(creator, _BoundedEndpoint(endpoint, MAX_RECEIVED_TLS)))
