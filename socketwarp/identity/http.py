"""
One HTTP call, bounded: no redirects, no cookies, no compression, a limit to the answer; and agents with our own CA.

Twisted's `Agent` rather than a treq client, which keeps cookies, unpacks gzip without a bound and imports the reactor.
"""

from collections.abc import Mapping, Sequence

import attrs
from cryptography import x509
from OpenSSL import crypto
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IConsumer, IOpenSSLClientConnectionCreator, IReactorTCP, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from ..errors import ConfigurationError
from .bounded import AnswerTooLong, BoundedEndpoints
from .describe import printable
from .pem import SettingFile, readCertificates, readPrivateKey

#: Bytes of an answer that are read; the SCEP server's longest is about 3 kB, a long chain 20.
MAX_BODY = 64 * 1024


@attrs.frozen
class Answer:
    """
    A whole answer.

    :ivar contentType: the media type without parameters, lower case; empty when the server gave none.
    :ivar date: the server's clock as it writes it; empty when it doesn't.
    """

    status: int
    contentType: str
    body: bytes = attrs.field(repr=False)
    date: str = ""


async def fetch(
    agent: IAgent, method: bytes, url: str, headers: Mapping[str, str], body: bytes | None = None, limit: int = MAX_BODY
) -> Answer:
    """
    Make one call and read its answer; cancelling drops the connection.

    :raises AnswerTooLong: more than `limit` bytes in its body.
    :raises CancelledError: cancelled, in whatever state the call was.
    :raises Exception: whatever Twisted raises for names, connections, TLS and malformed answers; see `explain`.
    """
    producer = _WholeBody(body) if body is not None else None
    try:
        response = await agent.request(
            method, url.encode("ascii"), Headers({name: [value] for name, value in headers.items()}), producer
        )
        contentType = _header(response, "content-type").partition(";")[0].strip().lower()
        return Answer(response.code, contentType, await _read(response, limit), _header(response, "date"))
    except ResponseFailed as e:
        if any(reason.check(CancelledError) for reason in e.reasons):
            raise CancelledError() from e
        raise
    except ConnectingCancelledError as e:
        raise CancelledError() from e


def _header(response: IResponse, name: str) -> str:
    values: list[str] = response.headers.getRawHeaders(name) or [""]
    return values[-1]


def _read(response: IResponse, limit: int) -> Deferred[bytes]:
    body = _Body(limit)
    response.deliverBody(body)
    return body.finished


class _Body(Protocol):
    """Collects an answer's bytes up to a limit."""

    transport: ITransport | None

    def __init__(self, limit: int) -> None:
        self.finished: Deferred[bytes] = Deferred(lambda _: self._drop())
        self._limit = limit
        self._bytes = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if len(self._bytes) + len(data) > self._limit:
            self._fail(AnswerTooLong(f"more than {self._limit} bytes"))
            self._drop()
        else:
            self._bytes += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        # PotentialDataLoss: no length was given, and the close is the end. What is cut short won't parse.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(bytes(self._bytes))
        else:
            self.finished.errback(reason)

    def _fail(self, error: Exception) -> None:
        if not self.finished.called:
            self.finished.errback(error)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
@attrs.frozen
class _WholeBody:
    """A request's body, written at once (`FileBodyProducer` would reach for the global reactor)."""

    body: bytes

    @property
    def length(self) -> int:
        return len(self.body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing was paused."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


@implementer(IPolicyForHTTPS)
@attrs.frozen
class _Policy:
    """
    TLS as the settings have it: whom to trust (`None`: the system's roots) and what to show of ourselves.

    :ivar own: keyword arguments of `CertificateOptions`.
    """

    roots: Sequence[x509.Certificate] | None
    own: Mapping[str, object]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See `IPolicyForHTTPS`."""
        trust = None
        if self.roots is not None:
            trust = trustRootFromCertificates(Certificate(crypto.X509.from_cryptography(each)) for each in self.roots)
        return optionsForClientTLS(hostname.decode("ascii"), trust, extraCertificateOptions=dict(self.own))


def webAgent(
    reactor: IReactorTCP,
    ca: SettingFile | None = None,
    cert: SettingFile | None = None,
    key: SettingFile | None = None,
) -> IAgent:
    """
    An agent that opens a connection for each call, bounded as `bounded` says.

    :param ca: roots that a https server must have; `None`: the system's.
    :param cert: our client certificate (leaf, then intermediates), with its `key`.
    :raises ConfigurationError: a file can't be used, only one of `cert` and `key` is given, or they are no pair.
    """
    own: dict[str, object] = {}
    if cert is not None and key is not None:
        chain, privateKey = readCertificates(cert), readPrivateKey(key)
        if chain[0].public_key() != privateKey.public_key():
            key.fail(f"isn't the key of the first certificate in {cert}; use the key that it was made for")
        leaf, *rest = (crypto.X509.from_cryptography(each) for each in chain)
        own = {"certificate": leaf, "privateKey": crypto.PKey.from_cryptography_key(privateKey)}
        own |= {"extraCertChain": rest} if rest else {}
    elif cert is not None or key is not None:
        raise ConfigurationError(f"{cert or key}: a client certificate and its key go together; give the other one too")
    policy = _Policy(readCertificates(ca) if ca else None, own)
    agent: IAgent = Agent.usingEndpointFactory(reactor, BoundedEndpoints(reactor, policy))
    return agent


def explain(error: Exception) -> str:
    """What went wrong, for a person."""
    if isinstance(error, ResponseFailed) and error.reasons:
        return f"the server gave no whole answer ({printable(str(error.reasons[0].value))})"
    if isinstance(error, ConnectError):
        return f"no connection: {printable(str(error))}"
    return printable(str(error)) or type(error).__name__
