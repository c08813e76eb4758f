"""
The HTTP calls: the original's ``/open``, ``/list`` and ``/close``, and ``/healthz``.

The only module that imports klein, which installs a reactor. It parses, asks `Ports` and `Connectors`, and says what
came of it; every error's status is the error's own (`errors.SocketwarpError.status`).
"""

import json
from typing import ClassVar, NewType, TypeVar, cast

import attrs
import cattrs
from klein import Klein, KleinRenderable
from klein.resource import KleinResource
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from ..errors import BadRequest, MalformedPreamble, RequestTooLarge, SocketwarpError
from ..wire.preamble import checkHost
from .connectors import Connectors
from .ports import Ports
from .wishes import PortSpec

#: Bytes of a request's body; the calls need some hundred.
BODY_LIMIT = 65536
#: Seconds a client may be silent in the middle of a request, or between two.
IDLE_SECONDS = 15.0
#: Connections at a time; the silent ones of 200 clients leave room for others.
CLIENT_LIMIT = 512
#: Characters of a uid: a common name has at most 64 (RFC 5280, ub-common-name), a SAN URI may be longer.
UID_LIMIT = 255

_T = TypeVar("_T")
Uid = NewType("Uid", str)
Host = NewType("Host", str)
PortNumber = NewType("PortNumber", int)


@attrs.frozen
class OpenCall:
    """The body of ``POST /open``, with the original's names."""

    uid: Uid
    port: PortNumber
    connect_address: Host
    connect_port: PortNumber

    def spec(self) -> PortSpec:
        """The wish."""
        return PortSpec(self.port, self.uid, self.connect_address, self.connect_port)

    @classmethod
    def of(cls, spec: PortSpec) -> "OpenCall":
        """The call that made the wish."""
        return cls(Uid(spec.uid), PortNumber(spec.port), Host(spec.targetHost), PortNumber(spec.targetPort))


@attrs.frozen
class CloseCall:
    """The body of ``DELETE /close``."""

    port: PortNumber


def _uid(value: object, _: object) -> Uid:
    if not isinstance(value, str) or not 0 < len(value) <= UID_LIMIT or not value.isprintable():
        raise ValueError(f"a text of 1 to {UID_LIMIT} printable characters is needed")
    return Uid(value)


def _host(value: object, _: object) -> Host:
    if not isinstance(value, str):
        raise ValueError("a text is needed: a host name or an IP address")
    try:
        checkHost(value.removeprefix("[").removesuffix("]"))
    except MalformedPreamble as error:
        raise ValueError(str(error)) from None
    return Host(value)


def _port(value: object, _: object) -> PortNumber:
    if type(value) is not int or not 0 < value < 65536:  # bool is an int to isinstance
        raise ValueError("a whole number from 1 to 65535 is needed")
    return PortNumber(value)


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(Uid, _uid)
_converter.register_structure_hook(Host, _host)
_converter.register_structure_hook(PortNumber, _port)


def parseBody(body: bytes, shape: type[_T]) -> _T:
    """
    Make a call of a request's body.

    :raises errors.BadRequest: saying everything that is wrong with it.
    """
    if len(body) > BODY_LIMIT:
        raise RequestTooLarge(f"the body has more than {BODY_LIMIT} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    try:
        return _converter.structure(value, shape)
    except cattrs.BaseValidationError as error:
        raise BadRequest("; ".join(cattrs.transform_error(error, format_exception=_explain))) from None


def _explain(error: BaseException, _: type | None) -> str:
    match error:
        case KeyError():
            return "a required field is missing"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown fields: {', '.join(sorted(error.extra_fields))}"
        case _:
            return str(error)


@attrs.define(eq=False)
class Api:
    """The calls. State comes in from outside; `app` is klein's table of routes, bound to the instance."""

    _connectors: Connectors
    _ports: Ports
    app: ClassVar[Klein] = Klein()

    _log = Logger()

    @app.route("/open", methods=["POST"])
    async def open(self, request: IRequest) -> bytes:
        """Open a port for a connector that is here."""
        call = parseBody(_body(request), OpenCall)
        self._connectors.current(call.uid)
        await self._ports.desire(call.spec())
        return _text(request, 200, "TcpListener created successfully!")

    @app.route("/list", methods=["GET"])
    def list(self, request: IRequest) -> bytes:
        """The objects given to ``/open``, of the ports that are open."""
        calls = [attrs.asdict(OpenCall.of(spec)) for spec in self._ports.specs()]
        return _answer(request, 200, b"application/json", json.dumps(calls).encode())

    @app.route("/close", methods=["DELETE"])
    async def close(self, request: IRequest) -> bytes:
        """Close a port, and end who is there."""
        call = parseBody(_body(request), CloseCall)
        await self._ports.withdraw(call.port)
        return _text(request, 200, f"Task {call.port} canceled")

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: IRequest) -> bytes:
        """The process answers."""
        return _text(request, 200, "ok")

    @app.handle_errors(SocketwarpError)
    def refused(self, request: IRequest, failure: Failure) -> bytes:
        """An error that has a status."""
        error = failure.value
        assert isinstance(error, SocketwarpError)
        return _text(request, error.status, str(error))

    @app.handle_errors(HTTPException)
    def unrouted(self, request: IRequest, failure: Failure) -> bytes:
        """No such path, or not by that method."""
        error = failure.value
        assert isinstance(error, HTTPException)
        for name, value in error.get_headers():
            if name == "Allow":
                request.setHeader(b"Allow", value.encode())
        return _text(request, error.code or 500, error.name)

    @app.handle_errors(Exception)
    def broken(self, request: IRequest, failure: Failure) -> bytes:
        """A fault of ours: the answer doesn't tell strangers about our insides, the log does."""
        self._log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
        return _text(request, 500, "an internal error; the listener's log says more")


def _body(request: IRequest) -> bytes:
    # IRequest promises a file, without saying of what.
    return cast(bytes, request.content.read(BODY_LIMIT + 1))


def _text(request: IRequest, status: int, text: str) -> bytes:
    # A text may repeat what the client sent, and JSON can carry halves of characters.
    return _answer(request, status, b"text/plain; charset=utf-8", text.encode(errors="backslashreplace"))


def _answer(request: IRequest, status: int, contentType: bytes, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", contentType)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


class ApiResource(KleinResource):
    """Klein's resource, kept from host names and paths that would be an error of ours in its log, not the client's."""

    def render(self, request: IRequest) -> KleinRenderable:
        """Answer a request."""
        try:
            request.getRequestHostname().decode("ascii").encode("idna")
            b"/".join(request.postpath).decode()
        except UnicodeError:
            return _text(request, 400, "the host or the path isn't written as one can be")
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


class ApiServer(WrappingFactory):
    """The HTTP server's factory, which knows its connections."""

    noisy = False

    def __init__(self, api: Api, reactor: IReactorTime) -> None:
        site = Site(ApiResource(api.app), requestFactory=BoundedRequest, timeout=IDLE_SECONDS, reactor=reactor)
        site.noisy = False
        super().__init__(site)

    # WrappingFactory's own annotation forgets that a factory may turn a connection away.
    def buildProtocol(self, address: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]  # see above
        """A client comes; one too many is turned away."""
        return super().buildProtocol(address) if len(self.protocols) < CLIENT_LIMIT else None

    def closeAll(self) -> None:
        """End the connections that clients keep for later calls, and calls that aren't answered yet."""
        for client in list(self.protocols):
            client.abortConnection()
