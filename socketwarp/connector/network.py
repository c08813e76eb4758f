"""Is told by the kernel when this host's network changes (rtnetlink(7)); elsewhere nobody is told."""

import socket
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE of <linux/rtnetlink.h>.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
#: Seconds after the first news of a change: link, address and route come one after the other.
SETTLE = 0.25
#: Bytes of a message; what it says doesn't matter.
_SIZE = 65536


@implementer(IReadDescriptor)
class NetworkWatch:
    """A netlink socket that hears of links, addresses and routes."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, clock: IReactorTime, changed: Callable[[], None]) -> None:
        """:param changed: called once for all that changes within `SETTLE` seconds."""
        self._reactor = reactor
        self._clock = clock
        self._changed = changed
        self._socket: socket.socket | None = None
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Listen from now on, if the system can tell."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            self._socket.bind((0, _GROUPS))
        except (AttributeError, OSError) as error:
            self._log.info("this system doesn't tell of changes of its network: {error}", error=str(error))
            self.stop()
            return
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Listen no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "network"

    def doRead(self) -> None:
        """Something has changed. An overflow (ENOBUFS) says so, too."""
        assert self._socket is not None
        try:
            while self._socket.recv(_SIZE):
                pass
        except OSError:
            pass
        if self._call is None:
            self._call = self._clock.callLater(SETTLE, self._settled)

    def _settled(self) -> None:
        self._call = None
        self._changed()

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`."""
        self.stop()
