"""
What systemd hears of the process: when it is ready, when it stops, and that it isn't stuck, see sd_notify(3).

A notification is one datagram of ``NAME=value`` to the AF_UNIX socket in ``$NOTIFY_SOCKET``; a path that begins with
``@`` is in the abstract namespace. Without that variable nobody listens, and nothing is sent.
"""

import os
import socket
from collections.abc import Mapping

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: A notification is due at this share of the watchdog's time, as sd_watchdog_enabled(3) recommends.
WATCHDOG_SHARE = 0.5


@attrs.define(eq=False)
class ServiceManager:
    """
    The service manager that started us, if one did.

    :ivar environment: the process's; has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    """

    _environment: Mapping[str, str]
    _clock: IReactorTime
    _timer: IDelayedCall | None = attrs.field(default=None, init=False)

    _log = Logger()

    def ready(self) -> None:
        """The service works. From now on the reactor's turns are reported, if the manager watches them."""
        self._send("READY=1")
        self._watch(self._interval())

    def stopping(self) -> None:
        """The service has begun to end, which takes as long as its connections do; it is watched all the while."""
        self._send("STOPPING=1")

    def stopped(self) -> None:
        """Nothing is left to be watched."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _interval(self) -> float:
        """Seconds between notifications; 0: nobody waits for one."""
        limit = self._environment.get("WATCHDOG_USEC", "")
        pid = self._environment.get("WATCHDOG_PID", str(os.getpid()))
        return int(limit) / 1e6 * WATCHDOG_SHARE if limit.isdecimal() and pid == str(os.getpid()) else 0.0

    def _watch(self, interval: float) -> None:
        if interval:
            self._send("WATCHDOG=1")
            self._timer = self._clock.callLater(interval, self._watch, interval)

    def _send(self, notification: str) -> None:
        """What can't be sent is only logged: the service is worth more than the news of it."""
        path = self._environment.get("NOTIFY_SOCKET", "")
        if not path:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(notification.encode(), "\0" + path[1:] if path[0] == "@" else path)
        except OSError as error:
            self._log.warn("systemd can't be told {notification}: {error}", notification=notification, error=error)
