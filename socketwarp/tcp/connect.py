"""
A way through an HTTP proxy: CONNECT (RFC 9110 §9.3.6), with basic authentication (RFC 7617) if it asks for it.

Nothing may come behind the proxy's answer before the target has been sent something: what is handed over has all of its
bytes before it.
"""

import re
import socket
from base64 import b64encode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import ProxyFailed
from ..interfaces import Address
from .dial import dialSocket
from .poll import READABLE, IPoll, ISocketEvents

#: Bytes of a proxy's answer, up to the empty line: more than any proxy says about a connection that it makes.
ANSWER_LIMIT = 16 * 1024
#: Bytes read at a time.
_READ = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?\r?\n")
_END = re.compile(rb"\n\r?\n")
_SCHEMES = re.compile(rb"^proxy-authenticate:[ \t]*([!-~]+)", re.IGNORECASE | re.MULTILINE)


def dialThrough(
    poll: IPoll, clock: IReactorTime, proxy: Address, target: Address, credentials: str | None, timeout: float
) -> Deferred[socket.socket]:
    """
    Connect to a target through a proxy.

    :param proxy: its address; ``target``: a name, which the proxy resolves, or an address, and a port.
    :param credentials: ``user:password``; `None`: none are shown.
    :param timeout: seconds, for the connection to the proxy, and again for its answer.
    :return: fires with the socket, see `dialSocket`. Fails with an `OSError` when there is no connection to the proxy,
        and with `errors.ProxyFailed` when it makes none to the target. Cancelling gives up.
    """

    async def dialling() -> socket.socket:
        question = request(target, credentials)
        connection = await dialSocket(poll, clock, proxy, timeout)
        return await ask(poll, clock, connection, question, timeout)

    return Deferred.fromCoroutine(dialling())


def ask(
    poll: IPoll, clock: IReactorTime, connection: socket.socket, question: bytes, timeout: float
) -> Deferred[socket.socket]:
    """
    Ask the proxy at the other end of a connection for a connection to a target.

    :param connection: connected and non-blocking; it is closed unless this succeeds.
    :param question: see `request`.
    :return: see `dialThrough`.
    """
    asked = _Question(poll, clock, connection, timeout)
    asked.send(question)
    return asked.done


def request(target: Address, credentials: str | None) -> bytes:
    """
    What a proxy is asked for a connection to a target.

    :raises errors.ProxyFailed: the target's name can't be one.
    """
    host, port = target
    try:
        name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except UnicodeError as error:
        raise ProxyFailed(f"{host!r} can't be a host's name: {error}") from None
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {b64encode(credentials.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


@implementer(ISocketEvents)
class _Question:
    """A proxy that was asked, and its answer so far."""

    def __init__(self, poll: IPoll, clock: IReactorTime, connection: socket.socket, timeout: float) -> None:
        self.done: Deferred[socket.socket] = Deferred(lambda _: self._close())
        self._poll = poll
        self._socket = connection
        self._answer = b""
        late = ProxyFailed(f"the proxy didn't answer within {timeout:g} s: can it reach the listener?")
        self._timer = clock.callLater(timeout, self._fail, late)
        poll.watch(connection.fileno(), self, READABLE)

    def send(self, question: bytes) -> None:
        """Ask. A connection's first bytes are fewer than the kernel takes at once."""
        try:
            sent = self._socket.send(question)
        except OSError as error:
            self._lost(error)
            return
        if sent < len(question):
            self._fail(ProxyFailed("the proxy doesn't take what it is asked"))

    def ready(self, events: int) -> None:
        """See `ISocketEvents`: more of the answer, or its end."""
        if self.done.called:
            return
        try:
            received = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if not received:
            self._fail(ProxyFailed(f"the proxy closed the connection{' within its answer' if self._answer else ''}"))
            return
        before = len(self._answer)
        self._answer += received
        end = _END.search(self._answer, max(0, before - 2))
        if (end.end() if end else len(self._answer)) > ANSWER_LIMIT:
            self._fail(ProxyFailed(f"the proxy's answer has more than {ANSWER_LIMIT} bytes: is it an HTTP proxy?"))
        elif end:
            self._decide(hasMore=end.end() < len(self._answer))
        elif not _mayBegin(self._answer):
            self._fail(_noProxy(self._answer))

    def _decide(self, hasMore: bool) -> None:
        """The answer is whole."""
        status = _STATUS.match(self._answer)
        if status is None:
            self._fail(_noProxy(self._answer))
        elif not status[1].startswith(b"2"):
            self._fail(self._refusal(int(status[1]), _readable(status[2] or b"")))
        elif hasMore:
            # In TLS it is the client who speaks first.
            self._fail(ProxyFailed("the proxy says yes, but then sends bytes of its own: is it an HTTP proxy?"))
        else:
            self._stop()
            self.done.callback(self._socket)

    def _refusal(self, status: int, reason: str) -> ProxyFailed:
        text = f"the proxy refuses the connection: {status} {reason}".rstrip()
        if status in (401, 407):  # 401 is what tinyproxy says to a wrong password
            schemes = sorted({scheme.decode().lower() for scheme in _SCHEMES.findall(self._answer)})
            if schemes and "basic" not in schemes:
                return ProxyFailed(
                    f"{text}: it wants {', '.join(schemes)}, and only basic authentication is known here"
                )
            return ProxyFailed(f"{text}: check user and password in SWC_PROXY")
        if status in (403, 405):
            return ProxyFailed(f"{text}: it has to allow CONNECT to the listener's host and port")
        if status >= 500:
            return ProxyFailed(f"{text}: it can't reach the listener: check server_name and SWC_TLS_PORT")
        return ProxyFailed(text)

    def failed(self, reason: Failure) -> None:
        """See `ISocketEvents`: who waits for `done` has failed."""

    def _lost(self, error: OSError) -> None:
        self._fail(ProxyFailed(f"the connection to the proxy broke: {error.strerror or error}"))

    def _fail(self, error: ProxyFailed) -> None:
        self._close()
        self.done.errback(error)

    def _close(self) -> None:
        self._stop()
        self._socket.close()

    def _stop(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        self._poll.forget(self._socket.fileno())


def _mayBegin(answer: bytes) -> bool:
    """Whether what has come of an answer so far is one's beginning; what isn't need not be waited for."""
    return answer[:7] == b"HTTP/1."[: len(answer)]


def _noProxy(answer: bytes) -> ProxyFailed:
    line = _readable(answer.split(b"\n", 1)[0])
    return ProxyFailed(f"what answers there is no HTTP proxy: {line!r}: check host and port in SWC_PROXY")


def _readable(text: bytes) -> str:
    """A stranger's words, made fit for a line of log."""
    return "".join(c if c.isprintable() else "?" for c in text[:80].decode("latin-1")).strip()
