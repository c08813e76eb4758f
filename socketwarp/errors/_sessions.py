"""One session, and the connector behind it."""

from ._base import EX_NOPERM, EX_UNAVAILABLE, Code, SocketwarpError


class SessionLost(SocketwarpError):
    """
    A session ended, and its streams with it.

    :ivar errorCode: of the CONNECTION_CLOSE: an application code, a QUIC transport code (0x100 + TLS alert for TLS
        refusals), or `None` when the session timed out.
    :ivar fromPeer: whether the peer closed it.
    """

    code = "session-lost"
    status = 503
    streamCode = Code.ABORTED
    exitCode = EX_UNAVAILABLE

    def __init__(self, text: str, errorCode: int | None = None, fromPeer: bool = False) -> None:
        super().__init__(text)
        self.errorCode = errorCode
        self.fromPeer = fromPeer


class SessionRefused(SessionLost):
    """
    The listener didn't admit us, and said why on the control stream.

    :ivar reason: an error's code, as the listener gave it.
    :ivar retryAfter: seconds after which another attempt makes sense; `None`: not with this certificate.
    """

    code = "session-refused"
    status = 403
    exitCode = EX_NOPERM

    def __init__(self, text: str, reason: str, retryAfter: float | None) -> None:
        super().__init__(text, fromPeer=True)
        self.reason = reason
        self.retryAfter = retryAfter


class ProxyFailed(SessionLost):
    """The HTTP proxy on the way to the listener made no connection to it; the text says why, and what to check."""

    code = "proxy-failed"


class NoSuchSession(SocketwarpError):
    """No session has that uid."""

    code = "no-session"
    status = 500
    streamCode = Code.UNREACHABLE
    exitCode = EX_UNAVAILABLE

    def __init__(self, uid: str) -> None:
        super().__init__(f"no connector with the uid {uid} is here")

    @property
    def originalText(self) -> str:
        """See `SocketwarpError`."""
        return "No QUIC connection exists for the specified UID."


class ConnectorAway(SocketwarpError):
    """A visitor waited for its port's connector, and none came."""

    code = "connector-away"
    status = 503
    streamCode = Code.UNREACHABLE
    exitCode = EX_UNAVAILABLE


class UidTaken(SocketwarpError):
    """
    Another connector has this uid, and keeps it: the newcomer was superseded by it before, or the two take the uid from
    each other again and again.

    :ivar retryAfter: seconds after which another attempt makes sense.
    """

    code = "superseded"
    status = 503
    streamCode = Code.SUPERSEDED
    exitCode = EX_UNAVAILABLE

    def __init__(self, text: str, retryAfter: float) -> None:
        super().__init__(text)
        self.retryAfter = retryAfter


class ConnectorDenied(SocketwarpError):
    """
    An operator has sent a connector away for a time.

    :ivar retryAfter: how much of it is left, seconds.
    """

    code = "connector-denied"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM

    def __init__(self, text: str, retryAfter: float) -> None:
        super().__init__(text)
        self.retryAfter = retryAfter
