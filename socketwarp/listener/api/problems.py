"""What an error of the API looks like: RFC 9457's problem+json under ``/v1``, the original's plain text elsewhere."""

import json
from http import HTTPStatus

from twisted.web.server import Request

from ...errors import SocketwarpError, Unauthenticated

#: Statuses that the original gives, and that say to others that a caller isn't at fault, though it is.
_STATUSES = {"port-unavailable": 409, "no-session": 404}


def isNewPath(path: bytes) -> bool:
    """Whether a path is none of the original's."""
    return path.startswith((b"/v1", b"/ready", b"/metrics"))


def isNew(request: Request) -> bool:
    """Whether the call is none of the original's."""
    return isNewPath(request.path)


def writeText(request: Request, status: int, text: str) -> bytes:
    """A plain answer."""
    # A text may repeat what the client sent, and JSON can carry halves of characters.
    return write(request, status, b"text/plain; charset=utf-8", text.encode(errors="backslashreplace"))


def write(request: Request, status: int, contentType: bytes, body: bytes) -> bytes:
    """Set an answer's head; returns the body."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", contentType)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    return body


def statusOf(error: SocketwarpError | type[SocketwarpError]) -> int:
    """The status of an error under ``/v1``."""
    return _STATUSES.get(error.code, error.status)


def refuse(request: Request, error: SocketwarpError) -> bytes:
    """The answer to a call that failed."""
    if isinstance(error, Unauthenticated):
        request.setHeader(b"WWW-Authenticate", b'Bearer realm="socketwarp"')
    if not isNew(request):
        return writeText(request, error.status, error.originalText)
    return writeProblem(request, statusOf(error), error.code, str(error))


def writeProblem(request: Request, status: int, code: str, detail: str) -> bytes:
    """A problem of the type ``about:blank``, whose title is the status's own, with our stable `code`."""
    problem = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    return write(request, status, b"application/problem+json", json.dumps(problem).encode())
