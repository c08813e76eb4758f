"""
Every failure that crosses a room, once: with its API status, its stream code and its exit code.

Imports nothing of ours. An error says what happened, to whom and what to do; the text is made for a person, the class
attributes for a program:

- ``code``: a stable kebab-case word for logs, events, the control stream and problem+json.
- ``status``: the HTTP status with which the API answers.
- ``streamCode``: the application error code on a stream or connection (`Code`).
- ``exitCode``: what a process that fails with it exits with (sysexits.h: 69 unavailable, 77 denied, 78 configuration).
"""

from enum import IntEnum
from typing import ClassVar

EX_FAILED = 1
EX_USAGE = 2
EX_UNAVAILABLE = 69
EX_NOPERM = 77
EX_CONFIG = 78


class Code(IntEnum):
    """
    Application error codes of streams and of the connection (RFC 9000 §20.2), the same on both.

    0 is what a peer sends that knows no codes (the original implementation does), so it never means an abort.
    docs/protocol.rst lists them; a number, once given, keeps its meaning.
    """

    NO_ERROR = 0x00
    #: A TCP side was reset, or the stream was given up.
    ABORTED = 0x01
    #: A preamble or control message was not what the protocol says.
    MALFORMED = 0x02
    #: The target, uid or certificate is not allowed.
    DENIED = 0x03
    #: The target's name has no address.
    UNRESOLVED = 0x04
    #: The target answered with RST.
    REFUSED = 0x05
    #: The target can't be reached.
    UNREACHABLE = 0x06
    #: Something took longer than its limit.
    TIMED_OUT = 0x07
    #: A limit of connections, streams or memory was reached.
    LIMIT = 0x08
    #: The process stops, or the port was closed.
    SHUTDOWN = 0x09
    #: Another session with this uid took over.
    SUPERSEDED = 0x0A
    #: The verifier can't say who this is.
    VERIFIER_FAULT = 0x0B
    #: A fault of ours.
    INTERNAL = 0x0C


class SocketwarpError(Exception):
    """The root of what this module defines; ``str()`` of one is a sentence for a person."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    streamCode: ClassVar[Code] = Code.INTERNAL
    exitCode: ClassVar[int] = EX_FAILED


class ConfigurationError(SocketwarpError):
    """A setting, or a file that a setting names, can't be used: the text names setting, value and remedy."""

    code = "configuration"
    exitCode = EX_CONFIG


class AddressUnavailable(SocketwarpError):
    """An address or port of ours can't be bound."""

    code = "address-unavailable"
    exitCode = EX_UNAVAILABLE


class BadRequest(SocketwarpError):
    """A request to the API that isn't what the API asks for."""

    code = "bad-request"
    status = 400
    streamCode = Code.MALFORMED
    exitCode = 2


class MalformedPreamble(SocketwarpError):
    """The first bytes of a stream are no preamble."""

    code = "malformed-preamble"
    streamCode = Code.MALFORMED


class CertificateRejected(SocketwarpError):
    """
    A peer's certificate chain doesn't pass our checks, during the TLS handshake.

    :ivar alert: the TLS alert's number (RFC 8446 §6.2): 42 bad_certificate, 43 unsupported_certificate, 44
        certificate_revoked, 45 certificate_expired, 48 unknown_ca, 116 certificate_required.
    """

    code = "certificate-rejected"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM

    def __init__(self, text: str, alert: int) -> None:
        super().__init__(text)
        self.alert = alert


class VerifierRefused(SocketwarpError):
    """The verifier decided: this certificate is nobody's (SCEP's 401, a deny list). Final for this certificate."""

    code = "verifier-refused"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class VerifierFault(SocketwarpError):
    """The verifier couldn't decide (unreachable, too slow, nonsense). A new session is refused; try again later."""

    code = "verifier-fault"
    status = 503
    streamCode = Code.VERIFIER_FAULT
    exitCode = EX_UNAVAILABLE


class NoSuchSession(SocketwarpError):
    """No session has that uid. The text is the original's, which its users' scripts compare."""

    code = "no-session"
    status = 500
    streamCode = Code.UNREACHABLE
    exitCode = EX_UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("No QUIC connection exists for the specified UID.")


class PortUnavailable(SocketwarpError):
    """An entry port can't be bound."""

    code = "port-unavailable"
    status = 500
    exitCode = EX_UNAVAILABLE


class NoSuchPort(SocketwarpError):
    """No entry port with that number is open. The text is the original's."""

    code = "no-such-port"
    status = 404

    def __init__(self, port: int) -> None:
        super().__init__(f"Task {port} not found")
        self.port = port


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


class LimitReached(SocketwarpError):
    """A limit of streams, connections or memory was reached; nothing was opened."""

    code = "limit"
    status = 503
    streamCode = Code.LIMIT


class StreamReset(SocketwarpError):
    """
    The peer ended a stream with RESET_STREAM, or we did.

    :ivar errorCode: the application error code; any number below 2**62, a `Code` when the peer is ours.
    """

    code = "stream-reset"
    streamCode = Code.ABORTED

    def __init__(self, errorCode: int, text: str = "") -> None:
        super().__init__(text or f"the stream was reset with code {errorCode:#x}")
        self.errorCode = errorCode


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


class StoreUnavailable(SocketwarpError):
    """A change could not be written to the disk; nothing was changed."""

    code = "store-unavailable"
    exitCode = EX_UNAVAILABLE


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


class ConnectorAway(SocketwarpError):
    """A visitor waited for its port's connector, and none came."""

    code = "connector-away"
    status = 503
    streamCode = Code.UNREACHABLE
    exitCode = EX_UNAVAILABLE


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


class MalformedMessage(SocketwarpError):
    """A message of the control stream isn't what the protocol says."""

    code = "malformed-message"
    streamCode = Code.MALFORMED


class RequestTooLarge(BadRequest):
    """A request to the API is larger than any that the API asks for."""

    code = "request-too-large"
    status = 413
    streamCode = Code.LIMIT


class EnrolmentRefused(SocketwarpError):
    """The SCEP server gives this client no certificate: wrong or used secret, or client not in a state to get one."""

    code = "enrolment-refused"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class EnrolmentFault(SocketwarpError):
    """The SCEP server couldn't be reached, or what it sent makes no sense; nothing was written."""

    code = "enrolment-fault"
    status = 503
    streamCode = Code.VERIFIER_FAULT
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


class HelloMissing(SocketwarpError):
    """A connector that speaks ``socketwarp/1`` didn't introduce itself in time."""

    code = "no-hello"
    status = 504
    streamCode = Code.TIMED_OUT


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


class Unauthenticated(SocketwarpError):
    """A caller of the API that has to say who it is, and didn't, or not so that we believe it."""

    code = "unauthenticated"
    status = 401
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class AccessDenied(SocketwarpError):
    """A caller of the API whose role, ports or uids don't include what it asks for."""

    code = "forbidden"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class ForeignSite(SocketwarpError):
    """A call of the API that a browser makes for somebody else's page, or under a name that isn't ours."""

    code = "foreign-site"
    status = 403
    streamCode = Code.DENIED
    exitCode = EX_NOPERM


class PreconditionFailed(SocketwarpError):
    """What a caller of the API wants to change isn't (any more) what it has seen."""

    code = "precondition-failed"
    status = 412


class ChangeUnderWay(SocketwarpError):
    """Another change of the same port isn't finished yet."""

    code = "change-under-way"
    status = 409


class NoSuchConnector(SocketwarpError):
    """No connector with that uid is here."""

    code = "no-such-connector"
    status = 404


class NoSuchConnection(SocketwarpError):
    """No visitor's connection has that id."""

    code = "no-such-connection"
    status = 404


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


class VisitorDenied(SocketwarpError):
    """A visitor comes from where the policy lets nobody in, or more often than it allows."""

    code = "visitor-denied"
    status = 403
    streamCode = Code.DENIED


class SourceDenied(SocketwarpError):
    """A visitor's address is not among those that its port is open for."""

    code = "source-denied"
    status = 403
    streamCode = Code.DENIED
