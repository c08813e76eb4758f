"""
Every failure that crosses a room, once: with its API status, its stream code and its exit code.

Imports nothing of ours. An error says what happened, to whom and what to do; the text is made for a person, the class
attributes for a program:

- ``code``: a stable kebab-case word for logs, events, the control stream and problem+json.
- ``status``: the HTTP status with which the API answers.
- ``streamCode``: the application error code on a stream or connection (`Code`).
- ``exitCode``: what a process that fails with it exits with (sysexits.h: 69 unavailable, 77 denied, 78 configuration).
"""

from ._api import (
    AccessDenied,
    BadRequest,
    ChangeUnderWay,
    ForeignSite,
    NoSuchConnection,
    NoSuchConnector,
    PreconditionFailed,
    RequestTooLarge,
    Unauthenticated,
)
from ._base import (
    EX_CONFIG,
    EX_FAILED,
    EX_NOPERM,
    EX_UNAVAILABLE,
    EX_USAGE,
    AddressUnavailable,
    Code,
    ConfigurationError,
    LimitReached,
    SocketwarpError,
)
from ._identity import CertificateRejected, EnrolmentFault, EnrolmentRefused, VerifierFault, VerifierRefused
from ._ports import NoSuchPort, PortClosed, PortDenied, PortUnavailable, SourceDenied, StoreUnavailable
from ._sessions import (
    ConnectorAway,
    ConnectorDenied,
    NoSuchSession,
    ProxyFailed,
    SessionLost,
    SessionRefused,
    UidTaken,
)
from ._streams import (
    ConnectionIdle,
    ConnectionReset,
    HelloMissing,
    MalformedMessage,
    MalformedPreamble,
    ReaderStalled,
    StreamReset,
    TargetDenied,
    TargetError,
    TargetRefused,
    TargetTimedOut,
    TargetUnreachable,
    TargetUnresolved,
)

__all__ = [
    "EX_CONFIG",
    "EX_FAILED",
    "EX_NOPERM",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "AccessDenied",
    "AddressUnavailable",
    "BadRequest",
    "CertificateRejected",
    "ChangeUnderWay",
    "Code",
    "ConfigurationError",
    "ConnectionIdle",
    "ConnectionReset",
    "ConnectorAway",
    "ConnectorDenied",
    "EnrolmentFault",
    "EnrolmentRefused",
    "ForeignSite",
    "HelloMissing",
    "LimitReached",
    "MalformedMessage",
    "MalformedPreamble",
    "NoSuchConnection",
    "NoSuchConnector",
    "NoSuchPort",
    "NoSuchSession",
    "PortClosed",
    "PortDenied",
    "PortUnavailable",
    "PreconditionFailed",
    "ProxyFailed",
    "ReaderStalled",
    "RequestTooLarge",
    "SessionLost",
    "SessionRefused",
    "SocketwarpError",
    "SourceDenied",
    "StoreUnavailable",
    "StreamReset",
    "TargetDenied",
    "TargetError",
    "TargetRefused",
    "TargetTimedOut",
    "TargetUnreachable",
    "TargetUnresolved",
    "UidTaken",
    "Unauthenticated",
    "VerifierFault",
    "VerifierRefused",
]
