"""Entry ports and their visitors."""

from ._base import EX_NOPERM, EX_UNAVAILABLE, Code, SocketwarpError


class PortUnavailable(SocketwarpError):
    """An entry port can't be bound."""

    code = "port-unavailable"
    status = 500
    exitCode = EX_UNAVAILABLE


class NoSuchPort(SocketwarpError):
    """No entry port with that number is open."""

    code = "no-such-port"
    status = 404

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} isn't open")
        self.port = port

    @property
    def originalText(self) -> str:
        """See `SocketwarpError`."""
        return f"Task {self.port} not found"


class PortDenied(SocketwarpError):
    """An entry port is not among those that may be opened."""

    code = "port-denied"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class PortClosed(SocketwarpError):
    """A visitor's entry port was closed, or the listener stops, and its connection ended with it."""

    code = "port-closed"
    status = 503
    streamCode = Code.SHUTDOWN


class SourceDenied(SocketwarpError):
    """A visitor's address is not among those that its port is open for."""

    code = "source-denied"
    status = 403
    streamCode = Code.DENIED


class StoreUnavailable(SocketwarpError):
    """A change could not be written to the disk; nothing was changed."""

    code = "store-unavailable"
    exitCode = EX_UNAVAILABLE
