"""Dialling: one TCP connection to one address."""

import os
import socket
from collections.abc import Callable
from errno import EALREADY, EINPROGRESS, ETIMEDOUT
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Address, ITcpProtocol
from .poll import WRITABLE, IPoll, ISocketEvents
from .transport import TcpTransport, resetUnlessFinished

T = TypeVar("T")


def dial(
    poll: IPoll, clock: IReactorTime, address: Address, timeout: float, connected: Callable[[], ITcpProtocol]
) -> Deferred[None]:
    """
    Connect to an IPv4 or IPv6 address.

    :param timeout: seconds.
    :param connected: makes the protocol, once the connection is made.
    :return: fires when the connection is made, and its protocol has it. Fails with an `OSError` of the type that says
        what happened (`ConnectionRefusedError`, `TimeoutError`…). Cancelling gives up.
    """

    def take(connection: socket.socket) -> None:
        resetUnlessFinished(connection)
        TcpTransport(poll, connection, connected())

    return _attempt(poll, clock, address, timeout, take)


def dialSocket(poll: IPoll, clock: IReactorTime, address: Address, timeout: float) -> Deferred[socket.socket]:
    """
    Connect to an IPv4 or IPv6 address, as `dial` does.

    :return: fires with the connected socket, which doesn't block, is watched by nobody and is the caller's.
    """

    return _attempt(poll, clock, address, timeout, lambda connection: connection)


def _attempt(
    poll: IPoll, clock: IReactorTime, address: Address, timeout: float, take: Callable[[socket.socket], T]
) -> Deferred[T]:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        return fail(error)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    attempt = _Attempt(poll, connection, take)
    attempt.begin(address, clock, timeout)
    return attempt.done


@implementer(ISocketEvents)
class _Attempt(Generic[T]):
    """A connection that is being made."""

    def __init__(self, poll: IPoll, connection: socket.socket, take: Callable[[socket.socket], T]) -> None:
        """:param take: is given the socket once it is connected; what it returns is the result."""
        self.done: Deferred[T] = Deferred(self._cancelled)
        self._poll = poll
        self._socket = connection
        self._take = take
        self._timer: IDelayedCall | None = None

    def begin(self, address: Address, clock: IReactorTime, timeout: float) -> None:
        """Connect; the kernel says later, or at once, how it went."""
        error = self._socket.connect_ex(address)
        if error == EINPROGRESS:
            error = self._socket.connect_ex(address)  # within one host, the handshake is over by now
        if error != EALREADY:
            self._decide(error)
            return
        self._poll.watch(self._socket.fileno(), self, WRITABLE)
        self._timer = clock.callLater(timeout, self._fail, ETIMEDOUT)

    def ready(self, events: int) -> None:
        """See `ISocketEvents`: connected, or not."""
        if self.done.called:
            return
        self._decide(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _decide(self, error: int) -> None:
        if error:
            self._fail(error)
            return
        self._stop()
        try:
            result = self._take(self._socket)
        except Exception:
            self._socket.close()
            self.done.errback()
            return
        self.done.callback(result)

    def failed(self, reason: Failure) -> None:
        """See `ISocketEvents`: who waits for `done` has failed."""

    def _fail(self, error: int) -> None:
        self._close()
        self.done.errback(OSError(error, os.strerror(error)))

    def _cancelled(self, done: Deferred[T]) -> None:
        self._close()

    def _close(self) -> None:
        self._stop()
        self._socket.close()

    def _stop(self) -> None:
        """Watch it no more, if it had to be watched."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._poll.forget(self._socket.fileno())
            if timer.active():
                timer.cancel()
