"""One stream, one TCP connection, one target."""

from ._base import Code, SocketwarpError


class MalformedPreamble(SocketwarpError):
    """The first bytes of a stream are no preamble."""

    code = "malformed-preamble"
    streamCode = Code.MALFORMED


class MalformedMessage(SocketwarpError):
    """A message of the control stream isn't what the protocol says."""

    code = "malformed-message"
    streamCode = Code.MALFORMED


class HelloMissing(SocketwarpError):
    """A connector that speaks ``socketwarp/1`` didn't introduce itself in time."""

    code = "no-hello"
    status = 504
    streamCode = Code.TIMED_OUT


class TargetError(SocketwarpError):
    """The connector could not, or may not, dial a target; subclasses say which."""

    code = "target"
    status = 502
    streamCode = Code.UNREACHABLE


class TargetDenied(TargetError):
    """The target is not among those that may be dialled."""

    code = "denied"
    status = 403
    streamCode = Code.DENIED


class TargetUnresolved(TargetError):
    """The target's name has no address."""

    code = "unresolved"
    streamCode = Code.UNRESOLVED


class TargetRefused(TargetError):
    """The target answered with RST."""

    code = "refused"
    streamCode = Code.REFUSED


class TargetUnreachable(TargetError):
    """The target can't be reached."""

    code = "unreachable"


class TargetTimedOut(TargetError):
    """The target didn't answer in time."""

    code = "timed-out"
    status = 504
    streamCode = Code.TIMED_OUT


#: What a peer means by those codes that say nothing of the target or of a rule, for people.
_MEANINGS = {
    Code.NO_ERROR: "the other end gives no reason",
    Code.ABORTED: "the TCP connection of the other end broke, or was given up",
    Code.TIMED_OUT: "something took the other end too long",
    Code.SHUTDOWN: "the other end stops, or closed the port",
    Code.INTERNAL: "a fault of the other end, see its log",
}


def _why(errorCode: int) -> str:
    try:
        code = Code(errorCode)
    except ValueError:  # of a peer that isn't ours
        return f" with code {errorCode:#x}"
    return f": {_MEANINGS.get(code, code.name.lower().replace('_', ' '))}"


class StreamReset(SocketwarpError):
    """
    The peer ended a stream with RESET_STREAM, or we did.

    :ivar errorCode: the application error code; any number below 2**62, a `Code` when the peer is ours.
    """

    code = "stream-reset"
    streamCode = Code.ABORTED

    def __init__(self, errorCode: int, text: str = "") -> None:
        super().__init__(text or f"the stream was reset{_why(errorCode)}")
        self.errorCode = errorCode


class ConnectionReset(SocketwarpError):
    """A TCP connection, a visitor's or a target's, was reset or failed."""

    code = "tcp-reset"
    streamCode = Code.ABORTED


class ConnectionIdle(SocketwarpError):
    """No byte passed for as long as a port's idle time-out allows."""

    code = "idle"
    streamCode = Code.TIMED_OUT


class ReaderStalled(SocketwarpError):
    """A TCP side didn't take the last bytes in time."""

    code = "stalled"
    streamCode = Code.TIMED_OUT
