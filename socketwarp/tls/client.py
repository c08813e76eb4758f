"""The connector's side of this carrier: one connection to a listener, and the session that comes of it."""

import socket
from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..errors import SessionLost
from ..interfaces import ICredentials, ISession
from ..tcp.poll import IPoll
from ..wire.documents import clean
from .arrival import Arrival
from .calling import CallingSession
from .contexts import ALPN, CRYPTO_ERROR, NO_APPLICATION_PROTOCOL, Examination, clientContext
from .frames import Event, Frame, Kind, formatFrame
from .session import TlsSettings
from .transport import TlsTransport

#: Makes one more TCP connection to the listener: a connected, non-blocking socket. Can be cancelled.
Dial = Callable[[], "Deferred[socket.socket]"]


def connect(
    poll: IPoll, clock: IReactorTime, dial: Dial, serverName: str, credentials: ICredentials, settings: TlsSettings
) -> "Deferred[ISession]":
    """
    Connect to a listener.

    :param dial: is asked for the control lane's connection now, and for a connection for each data lane later. It has
        a time-out of its own.
    :param serverName: what the listener's certificate must be for, a name or an address.
    :return: fires with the session when the listener has accepted our certificate. Fails with `SessionLost`; its
        ``errorCode`` is 0x100 plus the TLS alert's number when a certificate was refused; and with what `dial` fails
        with. Cancelling gives up.
    """

    async def call() -> ISession:
        return await _Caller(poll, clock, dial, serverName, credentials, settings).connect()

    return Deferred.fromCoroutine(call())


class _Caller:
    """Makes the connections of one session."""

    def __init__(
        self,
        poll: IPoll,
        clock: IReactorTime,
        dial: Dial,
        serverName: str,
        credentials: ICredentials,
        settings: TlsSettings,
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._dial = dial
        self._serverName = serverName
        self._indication = _indication(serverName)
        self._credentials = credentials
        self._settings = settings
        self._context = clientContext(credentials)

    async def connect(self) -> ISession:
        """The session."""
        attempt = await self._call(formatFrame(Kind.SESSION))
        first, *rest = await attempt.answer
        arrival = attempt.arrival
        if not isinstance(first, Frame) or first.kind not in (Kind.ACCEPTED, Kind.CLOSE):
            arrival.transport.abort()
            raise SessionLost("the other end doesn't speak this protocol")
        if first.kind is Kind.CLOSE:
            arrival.transport.abort()
            raise SessionLost(clean(first.data.decode(errors="replace")), first.numbers[0], True)
        session = CallingSession(
            arrival.transport, arrival.parser, arrival.chain, self._clock, self._settings, self._callAgain
        )
        session.begin(rest)
        return session

    def _callAgain(self) -> "Deferred[Arrival]":
        """A connection for a data lane: it is the session's as soon as it is secured."""

        async def call() -> Arrival:
            return (await self._call()).arrival

        return Deferred.fromCoroutine(call())

    async def _call(self, first: bytes = b"") -> "_Attempt":
        connection = await self._dial()
        examination = Examination(self._credentials, self._serverName)
        try:
            transport = TlsTransport(self._poll, connection, self._context, examination)
        except OSError as error:
            connection.close()
            raise SessionLost(f"the connection broke: {error.strerror}") from error
        attempt = _Attempt(transport, self._clock, self._settings.handshakeTimeout, examination, first)
        if self._indication is not None:
            transport.connection.set_tlsext_host_name(self._indication)
        await attempt.secure()
        return attempt


class _Attempt:
    """
    One connection.

    :ivar answer: the first frames, if it says anything first.
    """

    def __init__(
        self, transport: TlsTransport, clock: IReactorTime, timeout: float, examination: Examination, first: bytes
    ) -> None:
        self.answer: Deferred[list[Event]] = Deferred(lambda _: self.arrival.giveUp("given up"))
        self.arrival = Arrival(transport, clock, timeout, self._secured, self._arrived, self._failed)
        self._examination = examination
        self._first = first
        self._ready: Deferred[None] = Deferred(lambda _: self.arrival.giveUp("given up"))
        self._isSecured = False

    def secure(self) -> "Deferred[None]":
        """Shake hands; fires once the server has shown that it is the right one."""
        self.arrival.transport.start(isServer=False)
        return self._ready

    def _secured(self, arrival: Arrival) -> None:
        if not self._examination.isDone or self._examination.rejection is not None:
            arrival.giveUp("the listener's certificate was not checked")  # never: OpenSSL has asked
        elif arrival.transport.connection.get_alpn_proto_negotiated() != ALPN:
            self._fail(SessionLost("the listener chose no protocol (ALPN)", CRYPTO_ERROR + NO_APPLICATION_PROTOCOL))
        else:
            self._isSecured = True
            if self._first:
                arrival.transport.write(self._first)
            else:
                arrival.finish()
            self._ready.callback(None)

    def _arrived(self, arrival: Arrival, events: list[Event]) -> None:
        self.answer.callback(events)

    def _failed(self, arrival: Arrival, reason: str) -> None:
        rejection = self._examination.rejection
        if rejection is not None:
            self._tell(SessionLost(str(rejection), CRYPTO_ERROR + rejection.alert))
        else:
            self._tell(SessionLost(reason))

    def _fail(self, error: SessionLost) -> None:
        self.arrival.finish()
        self.arrival.transport.abort()
        self._tell(error)

    def _tell(self, error: SessionLost) -> None:
        waiting = self.answer if self._isSecured else self._ready
        if not waiting.called:
            waiting.errback(Failure(error))


def _indication(serverName: str) -> bytes | None:
    """
    What is said of the server's name in the open (RFC 6066 §3): names, not addresses.

    :raises errors.SessionLost: it can't be a name.
    """
    try:
        ip_address(serverName)
        return None
    except ValueError:
        pass
    try:
        return serverName.encode("idna")
    except UnicodeError as error:
        raise SessionLost(f"{clean(serverName)} can't be a server's name: {error}") from None
