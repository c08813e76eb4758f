"""
The open TCP ports: wishes, reconciled to sockets.

A wish (`wishes.PortSpec`) lasts until somebody closes the port, or its lease is over. Its socket is bound as long as it
can be, whether its connector is there or not; every visitor asks anew who carries it. What can't be bound when the
listener starts is tried again until it can.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import BadRequest, NoSuchPort, PortClosed, PortDenied, PortUnavailable, SocketwarpError
from ..rules.policy import Policy
from ..settings import PortRange
from .entries import Entry, Lobby
from .visitors import Limits
from .wishes import PortSpec

#: Seconds between two attempts to bind what could not be bound at start.
RETRY_SECONDS = 5.0
#: Where a free port is looked for when every one is allowed: below those that Linux gives to outgoing connections
#: (net.ipv4.ip_local_port_range), one of which could have it when the listener starts again.
FREE_RANGE = PortRange(10_000, 32_767)
#: How many ports are tried until one is free. They are chosen by chance: if other programs have half of them, one
#: search in 2**256 fails.
FREE_TRIES = 256
#: Why none was found, when none was tried.
NONE_FREE = "all of them are open, or the rules keep them from this uid"

_T = TypeVar("_T")


@attrs.define(eq=False)
class Ports:
    """
    All wished ports.

    :ivar allowed: the ports that may be opened; empty: every one.
    :ivar isStopping: the listener stops, and opens no more ports.
    """

    _lobby: Lobby
    allowed: Sequence[PortRange] = ()
    _entries: dict[int, Entry] = attrs.field(factory=dict, init=False)
    _numbers: "count[int]" = attrs.field(factory=lambda: count(1), init=False)
    isStopping: bool = attrs.field(default=False, init=False)
    _retry: IDelayedCall | None = attrs.field(default=None, init=False)

    _log = Logger()

    def specs(self) -> list[PortSpec]:
        """The wishes, in the order in which they were made in this process."""
        return [entry.spec for entry in self._entries.values() if not entry.closing]

    def entries(self) -> list[Entry]:
        """All ports, those that are closing included."""
        return list(self._entries.values())

    def entry(self, port: int) -> Entry:
        """
        One of them.

        :raises errors.NoSuchPort: there is none.
        """
        if port not in self._entries:
            raise NoSuchPort(port)
        return self._entries[port]

    def closable(self, port: int) -> Entry:
        """
        One of them that can be closed, or closed with less patience.

        :raises errors.NoSuchPort: there is none, or it is being closed at this moment.
        """
        entry = self.entry(port)
        if entry.closing and not entry.leaving:
            raise NoSuchPort(port)
        return entry

    @property
    def policy(self) -> Policy:
        """The operator's rules, as they are now."""
        return self._lobby.policy

    @property
    def limits(self) -> Limits:
        """What visitors may use."""
        return self._lobby.limits

    @property
    def visitors(self) -> int:
        """How many visitors of all ports are here."""
        return self._lobby.count

    @property
    def pausedBy(self) -> str:
        """Why no port accepts visitors for now; empty while they do."""
        return self._lobby.pausedBy()

    def mayOpen(self, port: int) -> bool:
        """Whether the settings allow a port to be opened."""
        return not self.allowed or any(port in each for each in self.allowed)

    def _checkPolicy(self, spec: PortSpec) -> None:
        """:raises errors.PortDenied: the operator's rules don't allow the port, as far as its connector is known."""
        here = [connector.identity.attributes for connector in self._lobby.connectors if connector.uid == spec.uid]
        self._lobby.policy.checkPort(spec, here[0] if here else None)

    def load(self) -> None:
        """
        Read the stored wishes; nothing is bound yet.

        :raises errors.ConfigurationError: when what is stored can't be trusted.
        """
        for kept in self._lobby.store.load():
            self._entries[kept.spec.port] = self._enter(kept.spec, kept.used)

    def fault(self) -> str | None:
        """See `IPortStore.fault`."""
        return self._lobby.store.fault()

    def restore(self) -> None:
        """Take up again what was loaded; wishes whose lease has ended meanwhile are closed instead."""
        for entry in list(self._entries.values()):
            entry.watchLease()
        self._bindMissing()

    def desire(self, spec: PortSpec) -> Deferred[PortSpec]:
        """
        Open a port, now and after every restart; fires once the wish is on the disk, with the wish, which has a port if
        `spec` had none (0). Cancelling changes nothing.

        Fails with `errors.PortDenied` when the settings don't allow it, with `errors.PortUnavailable` when it is open
        already or can't be bound, or when no port is free; with `errors.BadRequest` when its lease is over already,
        with `errors.StoreUnavailable`, and with `errors.PortClosed` when the listener stops; then nothing has changed.
        """
        return _uncancelled(ensureDeferred(self._desire(spec)))

    def check(self, spec: PortSpec) -> None:
        """
        Refuse what can be known to fail before anything has been tried.

        :raises errors.PortDenied: and `errors.BadRequest`, and `errors.PortClosed`, as `desire` says.
        """
        if self.isStopping:
            raise PortClosed("the listener stops and opens no more ports")
        self._checkPolicy(spec)
        if spec.port and not self.mayOpen(spec.port):
            raise PortDenied(f"port {spec.port} is not one that SWL_ALLOW_PORTS allows")
        there = self._entries.get(spec.port)
        if reason := spec.limits.overBy(self._lobby.events.now(), there.used if there else 0):
            raise BadRequest(f"the port would be closed at once: {reason}")

    async def rehearse(self, spec: PortSpec) -> None:
        """
        Find out whether `desire`, or `change` of a port that is there, would succeed: its socket is bound, and closed
        at once. Nothing is kept, and nobody hears of it.

        :raises errors.SocketwarpError: as they fail, but for the store.
        """
        self.check(spec)
        if spec.port in self._entries:
            await self._entries[spec.port].rehearse(spec)
            return
        if spec.port:
            await self._lobby.tryListening(spec.bindAddress, spec.port)
            return
        refusal = NONE_FREE
        for port in self._free(spec):
            try:
                await self._lobby.tryListening(spec.bindAddress, port)
                return
            except PortUnavailable as error:
                refusal = str(error)
        raise _noneFree(refusal)

    async def _desire(self, spec: PortSpec) -> PortSpec:
        self.check(spec)
        entry = self._open(spec) if spec.port else self._openAny(spec)
        try:
            await self._lobby.store.put(entry.spec)
        except SocketwarpError:
            await self._drop(entry, 0, "its wish could not be kept")
            raise
        entry.watchLease()
        return entry.spec

    def change(self, spec: PortSpec) -> Deferred[PortSpec]:
        """
        Change the wish for a port that is open, for visitors to come; fires once it is on the disk, with the wish.
        Visitors counted so far count on. Cancelling changes nothing.

        Fails as `desire` does, and with `errors.NoSuchPort`; then nothing has changed.
        """
        return _uncancelled(ensureDeferred(self._change(spec)))

    async def _change(self, spec: PortSpec) -> PortSpec:
        entry = self.entry(spec.port)
        self.check(spec)
        if entry.closing:
            raise NoSuchPort(spec.port)
        before = entry.spec
        try:
            await entry.change(spec)
            if entry.closing:  # meanwhile; to keep the wish now would bring it back
                raise NoSuchPort(spec.port)
            await self._lobby.store.put(spec, entry.used)
        except SocketwarpError:
            with suppress(PortUnavailable):
                await entry.change(before)
            self._bindMissing()
            raise
        self._lobby.events.emit("port.changed", port=spec.port, uid=spec.uid, target=spec.target)
        entry.watchLease()
        return spec

    def withdraw(self, port: int, drain: float = 0.0) -> Deferred[int]:
        """
        Close a port for good; fires, once that is on the disk, the socket closed and the visitors gone, with the number
        of those ended with RST. Cancelling changes nothing. The number can't be wished again before. A port that is
        drained can be closed again, with less patience.

        :param drain: seconds that visitors have to finish; by default they are ended at once.

        Fails with `errors.NoSuchPort`, and with `errors.StoreUnavailable`; then the port stays open.
        """
        return _uncancelled(ensureDeferred(self._withdraw(port, drain)))

    async def _withdraw(self, port: int, drain: float) -> int:
        entry = self.closable(port)
        if entry.leaving:
            return await entry.finish(drain, PortClosed(f"port {port} was closed"))
        entry.closing = True
        try:
            # The disk first: what has been closed must not come back after a crash.
            await self._lobby.store.remove(port)
        except SocketwarpError:
            entry.closing = False
            entry.watchLease()  # it may have ended while nobody could close it
            raise
        return await self._drop(entry, drain, "as it was asked to")

    async def _drop(self, entry: Entry, drain: float | None, reason: str) -> int:
        """Close an entry's socket, let its visitors finish or end them, and forget it."""
        entry.closing = entry.leaving = True
        port, uid = entry.spec.port, entry.spec.uid
        await entry.stopListening()
        ended = await entry.finish(drain, PortClosed(f"port {port} was closed"))
        self._entries.pop(port, None)
        self._lobby.events.emit("port.closed", port=port, uid=uid, ended=ended, reason=reason)
        return ended

    def enforce(self, policy: Policy) -> None:
        """
        Have other rules in force: a port that they forbid lets nobody come until rules allow it again. Visitors who are
        here stay.
        """
        self._lobby.policy = policy
        ensureDeferred(self._enforce())

    async def _enforce(self) -> None:
        for entry in self.entries():
            if entry.isBound:
                try:
                    self._checkPolicy(entry.spec)
                except PortDenied as error:
                    await entry.unbind(str(error))
        self._bindMissing()

    def stopListening(self) -> Deferred[None]:
        """Stop accepting; fires when all sockets are gone. Visitors stay, and the wishes in the store."""
        self.isStopping = True
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        return ensureDeferred(self._stopListening())

    async def _stopListening(self) -> None:
        for entry in self.entries():
            await entry.stopListening()

    def stop(self, drain: float) -> Deferred[None]:
        """
        Stop accepting, and let visitors finish. The wishes stay in the store.

        :param drain: seconds after which visitors who are still here are ended with RST.
        :return: fires when all sockets and visitors are gone.
        """
        return self.stopListening().addCallback(lambda _: ensureDeferred(self._finish(drain)))

    async def _finish(self, drain: float) -> None:
        error = PortClosed("the listener stops")
        await gatherResults([entry.finish(drain, error) for entry in self.entries()])
        self._lobby.answers.stop()

    # -- leases

    def _over(self, entry: Entry, reason: str) -> None:
        """An entry's lease has ended."""
        if not entry.closing:
            entry.closing = True
            ensureDeferred(self._expire(entry, reason)).addErrback(
                lambda failure: self._log.failure("port {port} can't be closed", failure, port=entry.spec.port)
            )

    async def _expire(self, entry: Entry, reason: str) -> None:
        await entry.stopListening()
        try:
            await self._lobby.store.remove(entry.spec.port)
        except SocketwarpError as error:
            # The next start finds a lease that has ended, and tries again.
            self._log.error("port {port} stays in the store: {error}", port=entry.spec.port, error=error)
        # Who came in before the number was used up may finish, but nobody stays longer than the lease.
        expires = entry.spec.limits.expires
        drain = None if expires is None else max(0.0, expires - self._lobby.events.now())
        await self._drop(entry, drain, reason)

    # -- sockets

    def _enter(self, spec: PortSpec, used: int = 0) -> Entry:
        return Entry(spec, next(self._numbers), used, self._lobby, self._over)

    def _open(self, spec: PortSpec) -> Entry:
        """Bind a port, and note that it is."""
        if spec.port in self._entries:
            raise PortUnavailable(f"port {spec.port} is open already; close it first")
        entry = self._enter(spec)
        self._bind(entry)
        self._entries[spec.port] = entry
        return entry

    def _openAny(self, spec: PortSpec) -> Entry:
        """Bind a port that is allowed and free."""
        refusal = NONE_FREE
        for port in self._free(spec):
            try:
                return self._open(attrs.evolve(spec, port=port))
            except PortUnavailable as error:
                refusal = str(error)
        raise _noneFree(refusal)

    def _free(self, spec: PortSpec) -> Iterator[int]:
        """Ports to try for a wish, in an order of chance, so that one just closed isn't soon somebody else's."""
        ranges = self.allowed or (FREE_RANGE,)
        ports = {port for each in ranges for port in range(each.low, each.high + 1)} - self._entries.keys()
        shuffled = random.sample(sorted(ports), len(ports))
        return islice((port for port in shuffled if self._isAllowed(attrs.evolve(spec, port=port))), FREE_TRIES)

    def _isAllowed(self, spec: PortSpec) -> bool:
        try:
            self._checkPolicy(spec)
        except PortDenied:
            return False
        return True

    def _bind(self, entry: Entry) -> None:
        self._checkPolicy(entry.spec)
        if not self.mayOpen(entry.spec.port):
            raise PortDenied(f"port {entry.spec.port} is not one that SWL_ALLOW_PORTS allows")
        entry.bind()

    def _bindMissing(self) -> None:
        """Bind what isn't bound; try again later, for as long as it takes."""
        if self.isStopping:
            return
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        missing = [entry for entry in self._entries.values() if not (entry.isBound or entry.closing)]
        for entry in missing:
            self._tryToBind(entry)
        if not all(entry.isBound for entry in missing):
            self._retry = self._lobby.clock.callLater(RETRY_SECONDS, self._bindMissing)

    def _tryToBind(self, entry: Entry) -> None:
        try:
            self._bind(entry)
        except SocketwarpError as error:
            entry.wait(str(error))


def _noneFree(refusal: str) -> PortUnavailable:
    return PortUnavailable(f"no port is free of those that SWL_ALLOW_PORTS allows: {refusal}")


def _uncancelled(work: Deferred[_T]) -> Deferred[_T]:
    """What `work` fires with; to cancel this stops the waiting, not the work."""
    waiting: Deferred[_T] = Deferred()
    work.chainDeferred(waiting)
    return waiting
