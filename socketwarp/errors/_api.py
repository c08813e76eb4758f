"""Calls of the API."""

from ._base import EX_NOPERM, Code, SocketwarpError


class BadRequest(SocketwarpError):
    """A request to the API that isn't what the API asks for."""

    code = "bad-request"
    status = 400
    streamCode = Code.MALFORMED
    exitCode = 2


class RequestTooLarge(BadRequest):
    """A request to the API is larger than any that the API asks for."""

    code = "request-too-large"
    status = 413
    streamCode = Code.LIMIT


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
