"""
A fake SCEP server that behaves as the real one was measured to: its verify call, enrolment and administrator's calls.

In tests: ``FakeScep()``, then `listen` for a loopback port, or `RequestTraversalAgent` on its `FakeScep.resource`.
As a program: ``python -m tests.scepserver --port 3000 --ca DIR/ca.crt`` uses that certificate and the ``.key`` beside
it, or makes both, prints a line with its URL and serves until it is ended. ``POST /fake/verify {"behaviour": "slow"}``
changes how it answers verify calls (`Behaviour`), so that other processes can make it misbehave.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import attrs
import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.certs import Authority, Issued, keyPem, pem, writeFile
from tests.scepenrol import Dropped, enrolAnswer, issuedName

CAPABILITIES = "Renewal\nSHA-1\nSHA-256\nAES\nDES3\nSCEPStandard\nPOSTPKIOperation\n"
_VERIFY, _SCEP, _ADMIN = "/api/cert/verify", "/scep", "/admin/api"


class Behaviour(Enum):
    """How verify calls are answered."""

    PROPER = "proper"
    #: The connection closes without an answer.
    CLOSE = "close"
    #: No answer, ever.
    SLOW = "slow"
    #: A good answer of which half comes, and then the end.
    HALF = "half"
    #: A good answer of which half comes, and then nothing.
    STALL = "stall"
    #: A good uid and then a megabyte of attributes.
    HUGE = "huge"
    #: 302 to a place that would admit anybody.
    REDIRECT = "redirect"
    #: The good answer, as text/html.
    WRONG_TYPE = "wrong-type"
    #: JSON, but not what was agreed: see `WRONG_JSON`.
    WRONG_JSON = "wrong-json"
    #: Not JSON.
    NONSENSE = "nonsense"
    #: Its database is down.
    DATABASE = "database"


@cache
def sharedAuthority() -> Authority:
    return Authority("Procube SCEP", keyType="rsa")


@attrs.define
class Client:
    """
    What the server knows of one uid.

    :ivar secret: lets it enrol, once; empty: it may not.
    """

    attributes: Mapping[str, object] = attrs.field(factory=dict)
    secret: str = ""


@attrs.define
class FakeScep:
    """
    The server's state. Change it in a test, and the next call sees it.

    :ivar clients: by uid; somebody who isn't here is ``User Not Found``.
    :ivar revoked: serial numbers.
    :ivar wrongJson: the body for `Behaviour.WRONG_JSON`.
    :ivar asked: verify calls so far.
    """

    authority: Authority = attrs.field(factory=lambda: sharedAuthority())
    clients: dict[str, Client] = attrs.field(factory=dict)
    revoked: set[int] = attrs.field(factory=set)
    behaviour: Behaviour = Behaviour.PROPER
    wrongJson: str = '{"uid": 7}'
    asked: int = 0

    def add(self, uid: str, secret: str = "", **attributes: object) -> None:
        """Let `uid` exist; with a secret it may enrol."""
        self.clients[uid] = Client(attributes, secret)

    def issue(self, uid: str) -> Issued:
        """A certificate as the real one issues them (but for its EC key), for a client that exists from then on."""
        self.clients.setdefault(uid, Client())
        return self.authority.issue(uid, subject=issuedName(uid), san=(f"{uid}.example",))

    def resource(self) -> Resource:
        """The root of the server."""
        return _Root(self)


@attrs.frozen
class _Answer:
    status: int
    body: bytes
    contentType: str = "application/json"


def _json(code: int, /, **told: object) -> _Answer:
    return _Answer(code, json.dumps(told).encode())


class _Root(Resource):
    """All paths: the real server's router is exact (a trailing slash is another path)."""

    isLeaf = True

    def __init__(self, state: FakeScep) -> None:
        super().__init__()
        self._state = state
        self._routes: dict[tuple[str, str], Callable[[Request], _Answer | int]] = {
            ("GET", _VERIFY): self._verify,
            ("GET", _SCEP): self._scepGet,
            ("POST", _SCEP): self._scepPost,
            ("POST", f"{_ADMIN}/client/add"): self._addClient,
            ("POST", f"{_ADMIN}/client/revoke"): self._revokeClient,
            ("POST", f"{_ADMIN}/secret/create"): self._createSecret,
            ("POST", "/fake/verify"): self._misbehave,
            ("GET", "/fake/redirected"): lambda _: _json(200, uid="redirected"),
        }

    def render(self, request: Request) -> bytes | int:
        route = self._routes.get((request.method.decode(), request.path.decode()))
        try:
            answer = route(request) if route else _Answer(404, b"404 page not found", "text/plain")
        except Dropped:
            return _drop(request)
        if isinstance(answer, int):
            return answer
        request.setResponseCode(answer.status)
        request.setHeader("Content-Type", answer.contentType)
        return answer.body

    def _verify(self, request: Request) -> _Answer | int:
        self._state.asked += 1
        if self._state.behaviour is Behaviour.REDIRECT:
            request.setHeader("Location", "/fake/redirected")
            return _Answer(302, b"")
        if self._state.behaviour is Behaviour.CLOSE:
            raise Dropped
        if self._state.behaviour is Behaviour.SLOW:
            return NOT_DONE_YET
        headers = request.requestHeaders.getRawHeaders("X-Mtls-Clientcert") or []
        answer = verifyAnswer(self._state, headers)
        return _misbehaved(self._state, request, answer) if answer.status == 200 else answer

    def _scepGet(self, request: Request) -> _Answer:
        operation = _argument(request, b"operation")
        if operation == "GetCACaps":
            return _Answer(200, CAPABILITIES.encode(), "text/plain")
        if operation == "GetCACert":
            certificate = self._state.authority.cert.public_bytes(Encoding.DER)
            return _Answer(200, certificate, "application/x-x509-ca-cert")
        return _Answer(500, b"unknown operation", "text/plain")

    def _scepPost(self, request: Request) -> _Answer:
        if _argument(request, b"operation") != "PKIOperation":
            return _Answer(500, b"unknown operation", "text/plain")
        return _Answer(200, self._enrol(_content(request)), "application/x-pki-message")

    def _enrol(self, data: bytes) -> bytes:
        secrets = {uid: client.secret for uid, client in self._state.clients.items()}
        return enrolAnswer(self._state.authority, data, secrets, self._useSecret)

    def _useSecret(self, uid: str) -> None:
        self._state.clients[uid].secret = ""

    def _addClient(self, request: Request) -> _Answer:
        told = _body(request)
        self._state.add(told["uid"], **told.get("attributes", {}))
        return _json(200)

    def _createSecret(self, request: Request) -> _Answer:
        told = _body(request)
        self._state.clients[told["target"]].secret = told["secret"]
        return _json(201)

    def _revokeClient(self, request: Request) -> _Answer:
        self._state.clients.pop(_body(request)["uid"], None)
        return _json(200)

    def _misbehave(self, request: Request) -> _Answer:
        self._state.behaviour = Behaviour(_body(request)["behaviour"])
        return _json(200)


def _argument(request: Request, name: bytes) -> str:
    values: list[bytes] = request.args.get(name, [b""])
    return values[0].decode()


def _content(request: Request) -> bytes:
    assert request.content is not None
    data: bytes = request.content.read()
    return data


def _body(request: Request) -> Any:  # Any: JSON of a test's making
    return json.loads(_content(request))


def _drop(request: Request) -> int:
    assert request.channel is not None and request.channel.transport is not None
    request.channel.transport.loseConnection()
    return NOT_DONE_YET


def verifyAnswer(state: FakeScep, headers: Sequence[str]) -> _Answer:
    """The measured table, row by row. :raises Dropped: no answer."""
    if len(headers) != 1:
        return _json(500, message="No Certificate")
    leaf = _certificateIn(headers[0])
    if isinstance(leaf, _Answer):
        return leaf
    if state.behaviour is Behaviour.DATABASE:
        return _json(500, message="Failed to get RCs")
    refusal = _refusal(state, leaf)
    if refusal is not None:
        return refusal
    uid = _uidOf(leaf)
    client = state.clients.get(uid)
    if client is None:
        return _json(401, message="User Not Found", user=uid)
    return _json(200, uid=uid, status="ISSUED", attributes=client.attributes)


def _certificateIn(header: str) -> x509.Certificate | _Answer:
    if "%" in header and any(not _isEscape(each) for each in header.split("%")[1:]):
        return _json(500, message="Decode header failed")
    data = unquote_to_bytes(header)
    if b"-----BEGIN CERTIFICATE-----" not in data or b"\n" not in data or b"+BEGIN" in data:
        raise Dropped
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        return _json(500, message="Parse Certificate failed")


def _isEscape(text: str) -> bool:
    return len(text) >= 2 and all(each in "0123456789abcdefABCDEF" for each in text[:2])


def _refusal(state: FakeScep, leaf: x509.Certificate) -> _Answer | None:
    try:
        leaf.verify_directly_issued_by(state.authority.cert)
    except Exception:  # whatever is wrong with it
        shown = {"certificate": pem(leaf).decode(), "cacert": pem(state.authority.cert).decode()}
        return _json(401, message="Failed to verify certificate", **shown)
    if leaf.not_valid_after_utc < datetime.now(UTC):
        return _json(401, message="Certificate is expired", certificate=pem(leaf).decode())
    if leaf.serial_number in state.revoked:
        return _json(401, message="Certificate is revoked")
    return None


def _uidOf(leaf: x509.Certificate) -> str:
    return "".join(str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def _misbehaved(state: FakeScep, request: Request, good: _Answer) -> _Answer | int:
    """A good certificate's answer, spoiled."""
    if state.behaviour is Behaviour.HUGE:
        return _json(200, **(json.loads(good.body) | {"attributes": {"filling": "x" * 1024 * 1024}}))
    if state.behaviour is Behaviour.WRONG_TYPE:
        return attrs.evolve(good, contentType="text/html")
    if state.behaviour is Behaviour.WRONG_JSON:
        return attrs.evolve(good, body=state.wrongJson.encode())
    if state.behaviour is Behaviour.NONSENSE:
        return attrs.evolve(good, body=b"it works!")
    if state.behaviour in (Behaviour.HALF, Behaviour.STALL):
        request.setHeader("Content-Type", good.contentType)
        request.setHeader("Content-Length", str(len(good.body)))
        request.write(good.body[: len(good.body) // 2])
        return _drop(request) if state.behaviour is Behaviour.HALF else NOT_DONE_YET
    return good


def authorityAt(certPath: str) -> Authority:
    """The authority whose certificate is at `certPath`, its key beside it (``.key``); both are made when missing."""
    keyPath = f"{os.path.splitext(certPath)[0]}.key"
    if not os.path.exists(keyPath):
        made, directory = sharedAuthority(), os.path.dirname(certPath) or "."
        os.makedirs(directory, exist_ok=True)
        writeFile(directory, os.path.basename(certPath), pem(made.cert))
        writeFile(directory, os.path.basename(keyPath), keyPem(made.key))
        return made
    authority = Authority()
    with open(certPath, "rb") as cert, open(keyPath, "rb") as key:
        authority.cert = authority.root = x509.load_pem_x509_certificate(cert.read())
        # cast: an authority's key can sign
        authority.key = cast(CertificateIssuerPrivateKeyTypes, load_pem_private_key(key.read(), None))
    authority.subject = authority.cert.subject
    return authority


def urlOf(listening: IListeningPort) -> str:
    """The base URL of what `listen` gave."""
    return f"http://127.0.0.1:{cast(IPv4Address, listening.getHost()).port}"  # cast: it listens on IPv4


def listen(reactor: IReactorTCP, state: FakeScep, port: int = 0) -> IListeningPort:
    """Serve on loopback; `urlOf` the answer is where, its ``stopListening`` ends it."""
    return reactor.listenTCP(port, Site(state.resource()), interface="127.0.0.1")  # type: ignore[arg-type]  # Site is one


@click.command()
@click.option("--port", default=3000, help="TCP port on 127.0.0.1; 0 for any free one.")
@click.option("--ca", required=True, help="The authority's certificate, its key beside it; made when missing.")
@click.option("--client", "clients", multiple=True, metavar="UID[=SECRET]", help="A client that exists from the start.")
def main(port: int, ca: str, clients: tuple[str, ...]) -> None:
    """Serve as a fake SCEP server until ended."""
    from twisted.internet import reactor

    state = FakeScep(authorityAt(ca))
    for each in clients:
        uid, _, secret = each.partition("=")
        state.add(uid, secret)
    listening = listen(reactor, state, port)
    click.echo(f"SCEP server on {urlOf(listening)}")
    reactor.run()


if __name__ == "__main__":
    main()
