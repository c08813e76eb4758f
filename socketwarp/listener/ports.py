"""
The open TCP ports: wishes, reconciled to sockets.

A wish (`store.PortSpec`) lasts until somebody closes the port. Its socket is bound as long as it can be, whether its
connector is there or not; every visitor asks anew who carries it. What can't be bound when the listener starts is tried
again until it can.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address, ip_address
from itertools import count
from typing import TypeVar

import attrs
from twisted.internet.address import IPv4Address as IPv4Tcp
from twisted.internet.address import IPv6Address as IPv6Tcp
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory

from ..bridge import Bridge
from ..errors import LimitReached, NoSuchPort, PortClosed, PortDenied, PortUnavailable, SocketwarpError
from ..interfaces import Address
from .connectors import Connectors
from .events import Events
from .store import IPortStore, PortSpec
from .visitors import Limits, Visitor

#: Seconds between two attempts to bind what could not be bound at start.
RETRY_SECONDS = 5.0

_T = TypeVar("_T")
#: Binds an address and port and gives connections to the factory; raises `errors.PortUnavailable`.
Listen = Callable[[IProtocolFactory, str, int], IListeningPort]


@attrs.define(eq=False)
class Entry:
    """
    One wished port.

    :ivar spec: the wish.
    :ivar socket: `None` while it can't be bound.
    :ivar visitors: who is here.
    :ivar closing: somebody has closed it, and it is on its way out.
    :ivar waitsFor: why it can't be bound; empty when it is.
    """

    spec: PortSpec
    number: int
    socket: IListeningPort | None = None
    visitors: set[Visitor] = attrs.field(factory=set)
    closing: bool = False
    waitsFor: str = ""
    _numbers: "count[int]" = attrs.field(factory=lambda: count(1), init=False)

    def nextId(self) -> str:
        """A connection id, unique in the life of the process: the port's number and the visitor's, like ``3-17``."""
        return f"{self.number}-{next(self._numbers)}"


class _EntryFactory(Factory):
    """What an entry's socket gives its connections to."""

    noisy = False

    def __init__(self, accept: Callable[[Address], Bridge]) -> None:
        self._accept = accept

    def buildProtocol(self, address: IAddress | None) -> Bridge:
        """A visitor comes; from TCP, so there is an address."""
        return self._accept(_plain(address))


def _plain(address: IAddress | None) -> Address:
    """The address as `interfaces` wants it: an IPv4 visitor of a dual-stack socket is an IPv4 visitor."""
    assert isinstance(address, IPv4Tcp | IPv6Tcp)
    host = ip_address(address.host)
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return str(mapped or host), address.port


@attrs.define(eq=False)
class Ports:
    """
    All wished ports.

    :ivar mayOpen: whether the settings allow a port to be opened.
    """

    _clock: IReactorTime
    _listen: Listen
    _connectors: Connectors
    _store: IPortStore
    _events: Events
    _limits: Limits = attrs.field(factory=Limits)
    mayOpen: Callable[[int], bool] = attrs.field(default=lambda port: True)
    _entries: dict[int, Entry] = attrs.field(factory=dict, init=False)
    _visitors: int = attrs.field(default=0, init=False)
    _numbers: "count[int]" = attrs.field(factory=lambda: count(1), init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _retry: IDelayedCall | None = attrs.field(default=None, init=False)

    def specs(self) -> list[PortSpec]:
        """The wishes, in the order in which they were made in this process."""
        return [entry.spec for entry in self._entries.values()]

    def restore(self) -> None:
        """
        Take the stored wishes up again.

        :raises errors.ConfigurationError: when what is stored can't be trusted.
        """
        for spec in self._store.load():
            self._entries[spec.port] = Entry(spec, next(self._numbers))
        self._bindMissing()

    def desire(self, spec: PortSpec) -> Deferred[None]:
        """
        Open a port, now and after every restart; fires once the wish is on the disk. Cancelling changes nothing.

        Fails with `errors.PortDenied` when the settings don't allow it, with `errors.PortUnavailable` when it is open
        already or can't be bound, with `errors.StoreUnavailable`, and with `errors.PortClosed` when the listener stops;
        then nothing has changed.
        """
        return _uncancelled(ensureDeferred(self._desire(spec)))

    async def _desire(self, spec: PortSpec) -> None:
        if self._stopping:
            raise PortClosed("the listener stops and opens no more ports")
        if spec.port in self._entries:
            raise PortUnavailable(f"port {spec.port} is open already; close it first")
        entry = Entry(spec, next(self._numbers))
        self._bind(entry)
        self._entries[spec.port] = entry
        try:
            await self._store.put(spec)
        except SocketwarpError:
            await self._drop(entry)
            raise

    def withdraw(self, port: int) -> Deferred[int]:
        """
        Close a port for good and end its visitors with RST; fires, once that is on the disk and the socket closed, with
        the number of visitors ended. Cancelling changes nothing.

        Fails with `errors.NoSuchPort`, and with `errors.StoreUnavailable`; then the port stays open.
        """
        return _uncancelled(ensureDeferred(self._withdraw(port)))

    async def _withdraw(self, port: int) -> int:
        entry = self._entries.get(port)
        if entry is None or entry.closing:
            raise NoSuchPort(port)
        entry.closing = True
        try:
            # The disk first: what has been closed must not come back after a crash.
            await self._store.remove(port)
        except SocketwarpError:
            entry.closing = False
            raise
        return await self._drop(entry)

    async def _drop(self, entry: Entry) -> int:
        """Close an entry's socket, end its visitors and forget it."""
        entry.closing = True
        ended = len(entry.visitors)
        await self._stopListening(entry)
        await self._endVisitors([entry], f"port {entry.spec.port} was closed")
        self._entries.pop(entry.spec.port, None)
        self._events.emit("port.closed", port=entry.spec.port, uid=entry.spec.uid, ended=ended)
        return ended

    def stop(self, drain: float) -> Deferred[None]:
        """
        Stop accepting, and let visitors finish. The wishes stay in the store.

        :param drain: seconds after which visitors who are still here are ended with RST.
        :return: fires when all sockets and visitors are gone.
        """
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        return ensureDeferred(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        entries = list(self._entries.values())
        for entry in entries:
            await self._stopListening(entry)
        end = self._clock.callLater(drain, self._endVisitors, entries, "the listener stops")
        await _gone(entries)
        if end.active():
            end.cancel()

    # -- sockets

    def _bind(self, entry: Entry) -> None:
        spec = entry.spec
        if not self.mayOpen(spec.port):
            raise PortDenied(f"port {spec.port} is not one that SWL_ALLOW_PORTS allows")
        factory = _EntryFactory(partial(self._accept, entry))
        entry.socket = self._listen(factory, spec.bindAddress, spec.port)
        self._events.emit("port.opened", port=spec.port, uid=spec.uid, target=spec.target)

    def _bindMissing(self) -> None:
        """Bind what isn't bound; try again later, for as long as it takes."""
        self._retry = None
        missing = [entry for entry in self._entries.values() if entry.socket is None and not entry.closing]
        for entry in missing:
            self._tryToBind(entry)
        if any(entry.socket is None for entry in missing):
            self._retry = self._clock.callLater(RETRY_SECONDS, self._bindMissing)

    def _tryToBind(self, entry: Entry) -> None:
        try:
            self._bind(entry)
            entry.waitsFor = ""
        except SocketwarpError as error:
            if entry.waitsFor != str(error):  # told once, not at every attempt
                entry.waitsFor = str(error)
                self._events.emit("port.waiting", port=entry.spec.port, uid=entry.spec.uid, reason=entry.waitsFor)

    async def _stopListening(self, entry: Entry) -> None:
        socket, entry.socket = entry.socket, None
        if socket is not None:
            await maybeDeferred(socket.stopListening)

    # -- visitors

    def _accept(self, entry: Entry, address: Address) -> Bridge:
        visitor = Visitor(
            entry.nextId(), address, entry.spec, self._clock, self._connectors, self._events, self._limits
        )
        full = self._full(entry)
        entry.visitors.add(visitor)
        self._visitors += 1
        visitor.ended.addCallback(lambda _: self._left(entry, visitor))
        if full is None:
            visitor.carry()
        else:
            visitor.refuse(full)
        return visitor.bridge

    def _full(self, entry: Entry) -> LimitReached | None:
        if len(entry.visitors) >= self._limits.perPort:
            return LimitReached(f"port {entry.spec.port} has {self._limits.perPort} visitors, and that is its limit")
        if self._visitors >= self._limits.total:
            return LimitReached(f"{self._limits.total} visitors are here, and that is the limit")
        return None

    def _left(self, entry: Entry, visitor: Visitor) -> None:
        entry.visitors.discard(visitor)
        self._visitors -= 1

    def _endVisitors(self, entries: list[Entry], reason: str) -> Deferred[None]:
        """RST to all visitors of the entries; fires when they are gone."""
        gone = _gone(entries)
        for visitor in [visitor for entry in entries for visitor in entry.visitors]:
            visitor.refuse(PortClosed(reason))
        return gone


def _gone(entries: list[Entry]) -> Deferred[None]:
    """Fires when all visitors of the entries are gone."""
    ended = [visitor.ended for entry in entries for visitor in entry.visitors]
    return DeferredList(ended).addCallback(lambda _: None)


def _uncancelled(work: Deferred[_T]) -> Deferred[_T]:
    """What `work` fires with; to cancel this stops the waiting, not the work."""
    waiting: Deferred[_T] = Deferred()
    work.chainDeferred(waiting)
    return waiting
