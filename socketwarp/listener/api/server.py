"""The HTTP server: what a client can cost is bounded before any call is looked at."""

from klein import KleinRenderable
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.http import Request as HttpRequest
from twisted.web.iweb import IRequest
from twisted.web.server import Request, Site

from ...errors import BadRequest, ForeignSite
from .app import PATH_SHOWN, Api
from .bodies import BODY_LIMIT
from .problems import refuse, writeText

#: Seconds a client may be silent in the middle of a request, or between two.
IDLE_SECONDS = 15.0
#: Connections at a time; the silent ones of 200 clients leave room for others.
CLIENT_LIMIT = 512
#: Seconds that clients have, when the listener stops, to take the answers that are on their way.
FAREWELL_SECONDS = 1.0
#: The first byte of a TLS record that begins a handshake (RFC 8446 §5.1); no request begins with it.
TLS_HANDSHAKE = b"\x16"
NO_TLS = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ApiResource(KleinResource):
    """
    Klein's resource, kept from browsers that are led astray, and from host names and paths that would be an error of
    ours in its log, not the client's.
    """

    def __init__(self, api: Api) -> None:
        super().__init__(api.app)
        self._api = api

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer a request."""
        assert isinstance(request, Request)
        try:
            request.getRequestHostname().decode("ascii").encode("idna")
            b"/".join(request.postpath or ()).decode()
        except UnicodeError:
            return refuse(request, BadRequest("the host or the path isn't written as one can be"))
        if request.path.startswith(b"//"):  # klein would find a call behind it, though the path is another
            return writeText(request, 404, "Not Found")
        try:
            self._api.gate.checkSite(request)
        except ForeignSite as error:
            self._api.turnedAway(request, "anonymous", error)
            return refuse(request, error)
        return super().render(request)


class BoundedRequest(Request):
    """A request that keeps in memory what its call could need, and no more, whatever is sent."""

    def gotLength(self, length: int | None) -> None:
        """The body begins. Twisted would make a file for one it thinks long, or doesn't know the length of."""
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body: one byte too many is kept, to know that there were."""
        assert self.content is not None, "gotLength comes first"
        super().handleContentChunk(data[: BODY_LIMIT + 1 - self.content.tell()])


class ApiSite(Site):
    """HTTP; changes and refusals are events, other calls are for those who look for faults."""

    noisy = False
    _log = Logger(namespace="socketwarp.listener.api")

    def startFactory(self) -> None:
        """Nothing to begin: Twisted's would have a log opened that we don't write, and its date made every second."""

    def log(self, request: HttpRequest) -> None:
        """A call is over. Twisted's line would be one for each call of anybody who gets here."""
        method, path = (each.decode(errors="replace")[:PATH_SHOWN] for each in (request.method, request.path))
        self._log.debug("{method} {path} {status}", method=method, path=path, status=request.code)


def makeSite(api: Api) -> Site:
    """HTTP for these calls."""
    return ApiSite(ApiResource(api), requestFactory=BoundedRequest, timeout=IDLE_SECONDS, reactor=api.clock)


class PlainClient(ProtocolWrapper):
    """A client without TLS. One that begins with a TLS handshake would wait for an answer until it is given up."""

    _hasSpoken = False

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if not self._hasSpoken and data[:1] == TLS_HANDSHAKE:
            self.write(NO_TLS)
            self.loseConnection()
            return
        self._hasSpoken = True
        super().dataReceived(data)


class ApiServer(WrappingFactory):
    """The server's factory, which knows its connections: outside of TLS, so that handshakes are counted as well."""

    noisy = False

    def __init__(self, api: Api, served: IProtocolFactory, isTls: bool = False) -> None:
        """
        :param isTls: whether what is served speaks TLS by itself.
        """
        super().__init__(served)
        self.protocol = ProtocolWrapper if isTls else PlainClient
        self._api = api
        self._gone: list[Deferred[None]] = []

    # WrappingFactory's own annotation forgets that a factory may turn a connection away.
    def buildProtocol(self, address: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]  # see above
        """A client comes; one too many is turned away."""
        return super().buildProtocol(address) if len(self.protocols) < CLIENT_LIMIT else None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """A client is gone."""
        super().unregisterProtocol(p)
        if not self.protocols:
            gone, self._gone = self._gone, []
            for each in gone:
                each.callback(None)

    def closeAll(self) -> Deferred[None]:
        """
        End all connections: calls that are answered in this turn have their answer, those that aren't are cut off.
        Fires when all are gone, after `FAREWELL_SECONDS` at the latest.
        """
        for stream in tuple(self._api.streams):
            stream.end()
        gone: Deferred[None] = Deferred()
        if not self.protocols:
            return succeed(None)
        self._gone.append(gone)
        self._api.clock.callLater(0, self._close)
        end = self._api.clock.callLater(FAREWELL_SECONDS, self._abort)
        return gone.addCallback(lambda _: end.cancel() if end.active() else None)

    def _close(self) -> None:
        for client in list(self.protocols):
            inner = client.wrappedProtocol
            if isinstance(inner, TLSMemoryBIOProtocol):  # has what is still to be encrypted
                inner.unregisterProducer()  # the channel, which stays one as long as it lives
                inner.loseConnection()
            else:
                client.loseConnection()

    def _abort(self) -> None:
        for client in list(self.protocols):
            client.abortConnection()
